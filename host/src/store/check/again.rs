//! Whether a finding still holds when it is about to be told or mended.
//!
//! A search reads one directory after another while other calls make, mount and remove layers: what it puts
//! together may never have been so at one time. So each finding is looked at once more, with the locks of its
//! layers held, and only what is still wrong then is told, or mended.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::super::Store;
use super::super::files::{id_of_temporary, is_absent};
use super::super::lock::Guard;
use super::super::record::Record;
use super::mend::{Repair, Was};
use crate::error::Failure;

/// How long a check waits for the calls that work on the layers that a finding is about.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it waits for them in all.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(20);

/// The second look at what a search has found, one finding after another.
pub(super) struct Again<'a> {
    store: &'a Store,
    unions: &'a Unions,
    references: &'a References,
    /// What the records would be after the repairs so far, where none is made: the findings behind build on
    /// it. None: no record.
    planned: Option<BTreeMap<LayerId, Option<Record>>>,
    until: Instant,
}

impl<'a> Again<'a> {
    pub(super) fn new(
        store: &'a Store,
        unions: &'a Unions,
        references: &'a References,
        repair: bool,
    ) -> Again<'a> {
        let planned = (!repair).then(BTreeMap::new);
        Again { store, unions, references, planned, until: Instant::now() + PATIENCE_IN_ALL }
    }

    /// The locks of the layers that a finding is about, alone; none where somebody works on one of them all
    /// the time.
    pub(super) fn guards(&self, place: &str) -> Result<Option<Vec<Guard>>, Failure> {
        let until = self.until.min(Instant::now() + PATIENCE);
        let mut pause = Duration::from_millis(1);
        loop {
            let mut guards = Vec::new();
            let mut all = true;
            for id in layers_of(place) {
                match self.store.unclaimed(&id)? {
                    Some(guard) => guards.push(guard),
                    None => all = false,
                }
            }
            if all || Instant::now() > until {
                return Ok(all.then_some(guards));
            }
            drop(guards);
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Whether a finding is still one.
    pub(super) fn holds(&mut self, place: &str, action: &Repair) -> Result<bool, Failure> {
        let holds = match action {
            Repair::MoveAway => self.is_stray(place)?,
            // Nothing of ours is named so, and nothing that a call makes.
            Repair::MoveAwayOdd(..) | Repair::SetMode(_) | Repair::TakeOver => true,
            Repair::Delete => match place.split('/').collect::<Vec<_>>()[..] {
                ["children", parent, child] => !self.is_child(parent, child)? && self.is_there(place)?,
                ["mnt", _] => self.is_stray(place)?,
                _ => self.is_there(place)?,
            },
            Repair::Lose(id, record) => {
                self.current(id)?.as_ref() == Some(record) && self.is_lost(id, record)?
            }
            Repair::WriteAncestors(id, record) => {
                let current = self.current(id)?;
                current.is_some_and(|current| current.ancestors == record.ancestors)
                    && !self.store.is_recorded(id, record)
            }
            Repair::WriteRecord(id, _, was) => self.is_as(id, was)?,
            Repair::MakeDirectory(_) => self.is_of_a_layer(place)? && !self.is_there(place)?,
            Repair::MoveAwayAndMake(_) => self.is_of_a_layer(place)? && self.is_in_the_way(place)?,
            Repair::MarkChild(parent, child) => {
                let lies_on = self.current(child)?.and_then(|record| record.ancestors.first().cloned());
                lies_on.as_ref() == Some(parent) && !self.is_there(place)?
            }
            Repair::Unmount(id) => {
                let used = self.references.count(id).unwrap_or_default() > 0 && self.current(id)?.is_some();
                !used && self.unions.mounted(id)?
            }
            Repair::ClearCount(id) => match self.references.count(id) {
                Ok(0) => false,
                Ok(_) => !self.unions.mounted(id)? && self.references.elsewhere(id)?.is_none(),
                Err(_) => true,
            },
            Repair::ForgetSize(id, record) => {
                self.current(id)?.as_ref() == Some(record) && !self.unions.mounted(id)?
            }
            Repair::Translate(_) | Repair::None => match layers_of(place).next() {
                Some(id) => !self.unions.mounted(&id)? && self.current(&id)?.is_some(),
                None => false,
            },
        };
        if holds && let Some(planned) = &mut self.planned {
            match action {
                Repair::WriteRecord(id, record, _) => drop(planned.insert(id.clone(), Some(record.clone()))),
                Repair::Lose(id, _) => drop(planned.insert(id.clone(), None)),
                _ => {}
            }
        }
        Ok(holds)
    }

    /// The record of a layer now, after the repairs so far; none where there is none that can be read.
    fn current(&self, id: &LayerId) -> Result<Option<Record>, Failure> {
        if let Some(planned) = self.planned.as_ref().and_then(|planned| planned.get(id)) {
            return Ok(planned.clone());
        }
        match self.store.record(id) {
            Err(Failure::Corrupt(_)) => Ok(None),
            other => other,
        }
    }

    /// Whether something lies there that belongs to no layer. What a call is about to make or to remove has a
    /// note in `pending/`.
    fn is_stray(&self, place: &str) -> Result<bool, Failure> {
        if !self.is_there(place)? {
            return Ok(false);
        }
        let (kind, name) = place.split_once('/').unwrap_or((place, ""));
        let Ok(id) = LayerId::new(name) else { return Ok(true) };
        match kind {
            "pending" => Ok(!self.is_note(&id)),
            "stage" => Ok(true),
            "meta" => Ok(matches!(self.store.record(&id), Err(Failure::Corrupt(_)))),
            "children" => Ok(self.current(&id)?.is_none() || !self.is_directory(place)?),
            _ => Ok(self.current(&id)?.is_none() && !self.is_note(&id)),
        }
    }

    /// Whether a layer, whose record is this, cannot be whole.
    fn is_lost(&self, id: &LayerId, record: &Record) -> Result<bool, Failure> {
        if !self.is_directory(&format!("diff/{id}"))? {
            return Ok(true);
        }
        let mut seen = vec![id.clone()];
        let mut next = record.ancestors.first().cloned();
        while let Some(ancestor) = next {
            if seen.contains(&ancestor) || !self.is_directory(&format!("diff/{ancestor}"))? {
                return Ok(true);
            }
            let Some(above) = self.current(&ancestor)? else { return Ok(true) };
            next = above.ancestors.first().cloned();
            seen.push(ancestor);
        }
        Ok(false)
    }

    /// Whether a record that is to be written anew is still as it was found.
    fn is_as(&self, id: &LayerId, was: &Was) -> Result<bool, Failure> {
        match was {
            Was::Of(ancestors) => {
                Ok(self.current(id)?.is_some_and(|current| current.ancestors == *ancestors))
            }
            Was::Missing => Ok(!self.is_there(&format!("meta/{id}"))?
                && !self.is_note(id)
                && self.is_directory(&format!("diff/{id}"))?),
            Was::Damaged => match self.store.record(id) {
                Err(Failure::Corrupt(_)) => Ok(true),
                other => other.map(|_| false),
            },
        }
    }

    /// Whether a directory is one that a layer which exists must have, or one of the store.
    fn is_of_a_layer(&self, place: &str) -> Result<bool, Failure> {
        match layers_of(place).next() {
            Some(id) => Ok(self.current(&id)?.is_some()),
            None => Ok(true),
        }
    }

    /// Whether what lies there is no directory, or a mount point with files in it.
    fn is_in_the_way(&self, place: &str) -> Result<bool, Failure> {
        if !self.is_directory(place)? {
            return self.is_there(place);
        }
        match place.strip_prefix("mnt/").and_then(|name| LayerId::new(name).ok()) {
            Some(id) => Ok(!self.unions.mounted(&id)? && self.store.holds_something(place)?),
            None => Ok(false),
        }
    }

    fn is_child(&self, parent: &str, child: &str) -> Result<bool, Failure> {
        let Ok(child) = LayerId::new(child) else { return Ok(false) };
        let record = self.current(&child)?;
        Ok(record.is_some_and(|record| record.ancestors.first().is_some_and(|id| id.as_str() == parent)))
    }

    fn is_note(&self, id: &LayerId) -> bool {
        self.store.dir.symlink_metadata(format!("pending/{id}")).is_ok_and(|found| found.is_file())
    }

    fn is_there(&self, place: &str) -> Result<bool, Failure> {
        self.store.is_there(place)
    }

    fn is_directory(&self, place: &str) -> Result<bool, Failure> {
        self.store.is_directory(place)
    }
}

impl Store {
    /// Whether there is a directory at this place. That it cannot be told is an error, and not taken for a
    /// loss.
    pub(super) fn is_directory(&self, place: &str) -> Result<bool, Failure> {
        match self.dir.symlink_metadata(place) {
            Ok(found) => Ok(found.is_dir()),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(Failure::io("stat", &e)),
        }
    }

    /// Whether something lies at this place, as [`Store::is_directory`].
    pub(super) fn is_there(&self, place: &str) -> Result<bool, Failure> {
        match self.dir.symlink_metadata(place) {
            Ok(_) => Ok(true),
            Err(e) if is_absent(&e) => Ok(false),
            Err(e) => Err(Failure::io("stat", &e)),
        }
    }

    /// Whether it is a directory with something in it.
    pub(super) fn holds_something(&self, place: &str) -> Result<bool, Failure> {
        if !self.is_directory(place)? {
            return Ok(false);
        }
        let mut entries = match self.dir.read_dir(place) {
            // Somebody has removed it meanwhile.
            Err(e) if is_absent(&e) => return Ok(false),
            other => other.map_err(|e| Failure::io("open", &e))?,
        };
        entries.next().transpose().map_err(|e| Failure::io("getdents", &e)).map(|entry| entry.is_some())
    }
}

/// The layers that a place is about: `diff/ID`, `meta/.ID.tmp`, and of `children/PARENT/CHILD` both.
fn layers_of(place: &str) -> impl Iterator<Item = LayerId> {
    let mut parts = place.split('/');
    let kind = parts.next();
    let names = parts.take(if kind == Some("children") { 2 } else { 1 });
    names.filter_map(|name| LayerId::new(name).ok().or_else(|| id_of_temporary(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_say_which_layers_they_are_about() {
        let rows: [(&str, &[&str]); 8] = [
            ("diff/a", &["a"]),
            ("diff/a/b/c", &["a"]),
            ("meta/.a.tmp", &["a"]),
            ("meta/a b", &[]),
            ("children/a", &["a"]),
            ("children/a/b", &["a", "b"]),
            ("trash", &[]),
            (".", &[]),
        ];
        for (place, layers) in rows {
            let found: Vec<String> = layers_of(place).map(|id| id.to_string()).collect();
            assert_eq!(found, layers, "{place}");
        }
    }
}
