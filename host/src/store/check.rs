//! Looks through a whole store for what is wrong, and repairs it.
//!
//! Repair never deletes content: what belongs to no layer is moved to `lost+found/`, for a person to look at. What only repeats other
//! records (ancestor lists, marks of children, empty directories, reference counts) is made anew.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::Store;
use super::files::{self, ids_in, write_atomically};
use super::record::{Record, read_small};
use crate::error::{Escaped, Failure};

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Where, relative to the root: `diff/ID`.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What repair does about it; empty where it can do nothing.
    pub repair: String,
    /// Whether that was done.
    pub repaired: bool,
}

/// What a repair does.
enum Repair {
    Nothing,
    MoveAway,
    WriteAncestors(LayerId, Record),
    WriteRecord(LayerId, Record),
    MakeDirectory,
    MarkChild(LayerId, LayerId),
    RemoveMark(LayerId, LayerId),
    Unmount(LayerId),
    ClearCount(LayerId),
}

impl Repair {
    fn text(&self) -> String {
        match self {
            Repair::Nothing => String::new(),
            Repair::MoveAway => "move it to lost+found/".to_owned(),
            Repair::WriteAncestors(..) => "write it from meta/".to_owned(),
            Repair::WriteRecord(..) => "write it from layers/".to_owned(),
            Repair::MakeDirectory => "make it".to_owned(),
            Repair::MarkChild(..) => "write it".to_owned(),
            Repair::RemoveMark(..) => "remove it".to_owned(),
            Repair::Unmount(_) => "unmount it".to_owned(),
            Repair::ClearCount(_) => "set it to 0".to_owned(),
        }
    }
}

/// A search under way.
struct Search<'a> {
    store: &'a Store,
    found: Vec<(String, String, Repair)>,
}

impl Store {
    /// The ancestors of a layer as `layers/ID` has them.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] where the file is missing, or a line of it is no layer id.
    pub fn ancestors_on_disk(&self, id: &LayerId) -> Result<Vec<LayerId>, Failure> {
        let path = format!("layers/{id}");
        let corrupt = |what: &str| Failure::Corrupt(format!("{path}: {what}"));
        // A component that has gone wrong may have left anything here when it was lent `layers/`, a link or a directory as well.
        if self.dir.symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(corrupt("it is not a regular file"));
        }
        let bytes = read_small(&self.dir, &path)?.ok_or_else(|| corrupt("it is missing"))?;
        let text = String::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        let mut ancestors = Vec::new();
        for line in text.lines() {
            let ancestor = LayerId::new(line).map_err(|e| corrupt(&e.to_string()))?;
            if ancestor == *id || ancestors.contains(&ancestor) {
                return Err(corrupt("the list is cyclic"));
            }
            ancestors.push(ancestor);
        }
        Ok(ancestors)
    }

    /// Whether `layers/ID` says what the record says.
    pub fn is_recorded(&self, id: &LayerId, record: &Record) -> bool {
        self.ancestors_on_disk(id).is_ok_and(|ancestors| ancestors == record.ancestors)
    }

    /// Writes `layers/ID` anew where it does not say what the record says.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn restore_ancestors(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        if self.is_recorded(id, record) {
            return Ok(());
        }
        let path = format!("layers/{id}");
        if self.dir.symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            self.move_away(&path)?;
        }
        let text: String = record.ancestors.iter().map(|id| format!("{id}\n")).collect();
        write_atomically(&self.dir, "layers", id.as_str(), text.as_bytes())
    }

    /// Looks through the store; with `repair`, mends what can be mended.
    ///
    /// # Errors
    ///
    /// Those of reading the store, and of a repair.
    pub fn check(
        &self,
        unions: &Unions,
        references: &References,
        repair: bool,
    ) -> Result<Vec<Finding>, Failure> {
        let mut search = Search { store: self, found: Vec::new() };
        let records = search.records()?;
        search.ancestors(&records)?;
        search.directories(&records)?;
        search.children(&records)?;
        search.mounts(&records, unions, references)?;
        let mut findings = Vec::new();
        for (place, what, action) in search.found {
            let mut finding = Finding { what, repair: action.text(), repaired: false, place };
            if repair {
                finding.repaired = self.mend(&finding.place, &action, unions, references)?;
            }
            findings.push(finding);
        }
        Ok(findings)
    }

    fn mend(
        &self,
        place: &str,
        action: &Repair,
        unions: &Unions,
        references: &References,
    ) -> Result<bool, Failure> {
        match action {
            Repair::Nothing => return Ok(false),
            Repair::MoveAway => self.move_away(place)?,
            Repair::WriteAncestors(id, record) => self.restore_ancestors(id, record)?,
            Repair::WriteRecord(id, record) => record.write(&self.dir, id)?,
            Repair::MakeDirectory => {
                files::make_directory(&self.dir, place, 0o755)?;
            }
            Repair::MarkChild(parent, child) => files::mark_child(&self.dir, parent, child)?,
            Repair::RemoveMark(parent, child) => {
                files::ignore_missing(self.dir.remove_file(format!("children/{parent}/{child}")), "unlink")?;
                drop(self.dir.remove_dir(format!("children/{parent}")));
            }
            Repair::Unmount(id) => {
                unions.unmount(id, false)?;
            }
            Repair::ClearCount(id) => references.clear(id)?,
        }
        Ok(true)
    }

    fn move_away(&self, place: &str) -> Result<(), Failure> {
        self.dir.create_dir_all("lost+found").map_err(|e| Failure::io("mkdir", &e))?;
        let flat = place.replace('/', ".");
        for attempt in 0u32..10_000 {
            let target = format!("lost+found/{flat}.{attempt}");
            if self.dir.symlink_metadata(&target).is_err() {
                return self.dir.rename(place, &self.dir, &target).map_err(|e| Failure::io("rename", &e));
            }
        }
        Err(Failure::Conflict(format!("lost+found/ holds too many of {place}")))
    }
}

impl Search<'_> {
    fn add(&mut self, place: impl Into<String>, what: impl Into<String>, repair: Repair) {
        self.found.push((place.into(), what.into(), repair));
    }

    /// Reads all records; those that are damaged are made again from `layers/`, where that is sound.
    fn records(&mut self) -> Result<BTreeMap<LayerId, Record>, Failure> {
        let mut records = BTreeMap::new();
        for id in self.store.ids()? {
            match self.store.record(&id) {
                Ok(Some(record)) => {
                    records.insert(id, record);
                }
                Ok(None) => {}
                Err(Failure::Corrupt(what)) => match self.store.ancestors_on_disk(&id) {
                    Ok(ancestors) => {
                        let record = Record { ancestors, size: None };
                        self.add(format!("meta/{id}"), what, Repair::WriteRecord(id.clone(), record.clone()));
                        records.insert(id, record);
                    }
                    Err(_) => self.add(format!("meta/{id}"), what, Repair::MoveAway),
                },
                Err(other) => return Err(other),
            }
        }
        Ok(records)
    }

    /// `layers/` against the records, and the records against each other.
    fn ancestors(&mut self, records: &BTreeMap<LayerId, Record>) -> Result<(), Failure> {
        for (id, record) in records {
            match self.store.ancestors_on_disk(id) {
                Ok(ancestors) if ancestors == record.ancestors => {}
                Ok(_) => self.add(
                    format!("layers/{id}"),
                    "it names other ancestors than meta/",
                    Repair::WriteAncestors(id.clone(), record.clone()),
                ),
                Err(Failure::Corrupt(what)) => {
                    let what = what.split_once(": ").map_or(what.clone(), |(_, what)| what.to_owned());
                    self.add(
                        format!("layers/{id}"),
                        what,
                        Repair::WriteAncestors(id.clone(), record.clone()),
                    );
                }
                Err(other) => return Err(other),
            }
            if let Some(parent) = record.ancestors.first() {
                match records.get(parent) {
                    None => self.add(
                        format!("meta/{id}"),
                        format!("its parent {parent} is missing"),
                        Repair::Nothing,
                    ),
                    Some(above) if above.ancestors != record.ancestors[1..] => self.add(
                        format!("meta/{id}"),
                        format!("its ancestors are not those of its parent {parent}"),
                        Repair::Nothing,
                    ),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    /// The directories of every layer, and what lies in them that belongs to none.
    fn directories(&mut self, records: &BTreeMap<LayerId, Record>) -> Result<(), Failure> {
        let kinds = self.store.kinds();
        for id in records.keys() {
            for kind in kinds {
                let place = format!("{kind}/{id}");
                match self.store.dir.symlink_metadata(&place) {
                    Ok(found) if found.is_dir() => {}
                    Ok(_) => self.add(place, "it is not a directory", Repair::MoveAway),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        // Content that is gone cannot be made again, and an empty layer in its place would be a lie.
                        let repair = if *kind == "diff" { Repair::Nothing } else { Repair::MakeDirectory };
                        self.add(place, "it is missing", repair);
                    }
                    Err(e) => return Err(Failure::io("stat", &e)),
                }
            }
        }
        let pending: BTreeSet<LayerId> = ids_in(&self.store.dir, "pending")?.into_iter().collect();
        for kind in ["layers", "diff", "mnt", "work"] {
            for name in self.names(kind)? {
                let id = LayerId::new(&name).ok();
                let known = id.as_ref().is_some_and(|id| records.contains_key(id) || pending.contains(id));
                // A temporary file of a write that was cut off is overwritten by the next one, and is nobody's content.
                let temporary = kind == "layers" && name.starts_with('.') && name.ends_with(".tmp");
                if !known && !temporary {
                    let what = if name.ends_with("-removing") {
                        "a removal that was cut off left it behind"
                    } else {
                        "it belongs to no layer"
                    };
                    self.add(format!("{kind}/{name}"), what, Repair::MoveAway);
                }
            }
        }
        Ok(())
    }

    /// The marks of children.
    fn children(&mut self, records: &BTreeMap<LayerId, Record>) -> Result<(), Failure> {
        let mut marked = BTreeSet::new();
        for parent in ids_in(&self.store.dir, "children")? {
            for child in ids_in(&self.store.dir, &format!("children/{parent}"))? {
                let sound =
                    records.get(&child).is_some_and(|record| record.ancestors.first() == Some(&parent));
                if sound {
                    marked.insert((parent.clone(), child));
                } else {
                    let place = format!("children/{parent}/{child}");
                    self.add(place, "there is no such child", Repair::RemoveMark(parent.clone(), child));
                }
            }
        }
        for (id, record) in records {
            if let Some(parent) = record.ancestors.first()
                && !marked.contains(&(parent.clone(), id.clone()))
            {
                let place = format!("children/{parent}/{id}");
                self.add(place, "it is missing", Repair::MarkChild(parent.clone(), id.clone()));
            }
        }
        Ok(())
    }

    /// Mounts that nobody counts, and counts without a mount.
    fn mounts(
        &mut self,
        records: &BTreeMap<LayerId, Record>,
        unions: &Unions,
        references: &References,
    ) -> Result<(), Failure> {
        let mounted: BTreeSet<LayerId> = unions.all()?.into_iter().collect();
        let counts: BTreeMap<LayerId, u32> = references.all()?.into_iter().collect();
        for id in &mounted {
            let count = counts.get(id).copied().unwrap_or_default();
            if count == 0 || !records.contains_key(id) {
                self.add(
                    format!("mnt/{id}"),
                    "it is mounted, and nobody uses it",
                    Repair::Unmount(id.clone()),
                );
            }
        }
        for (id, count) in counts {
            if count > 0 && !mounted.contains(&id) {
                let what = format!("{count} users are counted, and it is not mounted");
                self.add(format!("mnt/{id}"), what, Repair::ClearCount(id));
            }
        }
        Ok(())
    }

    /// The names in a directory of the store, as they can be printed and given to `rename`; a name that is not UTF-8 is reported as it can be shown.
    fn names(&mut self, kind: &str) -> Result<Vec<String>, Failure> {
        let entries = match self.store.dir.read_dir(kind) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Failure::io("open", &e)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            match name.into_string() {
                Ok(name) => names.push(name),
                Err(odd) => {
                    use std::os::unix::ffi::OsStrExt;
                    let shown = Escaped(odd.as_bytes()).to_string();
                    self.add(format!("{kind}/{shown}"), "it belongs to no layer", Repair::Nothing);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}
