//! The directories of the store itself, and what lies in them that belongs to no layer.

use std::collections::BTreeSet;
use std::io;

use cap_std::fs::MetadataExt;
use layerbox_privileged::id::LayerId;

use super::super::DIRECTORIES;
use super::super::convert::ASIDE;
use super::super::files::{id_of_temporary, is_absent};
use super::mend::{LOST, Repair};
use super::{Records, Search};
use crate::error::{Escaped, Failure};

/// What the group and others have no business with.
const WRITE_BY_OTHERS: u32 = 0o022;

impl Search<'_> {
    /// The root and the directories of the store: they are there, are ours, and nobody else writes to them.
    pub(super) fn store_directories(&mut self) -> Result<(), Failure> {
        for place in ["."].into_iter().chain(DIRECTORIES).chain([LOST]) {
            let found = match self.store.dir.symlink_metadata(place) {
                Ok(found) => found,
                // It is made when there is something to move there.
                Err(e) if e.kind() == io::ErrorKind::NotFound && place == LOST => continue,
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    self.add(place, "it is missing", Repair::MakeDirectory(0o700));
                    continue;
                }
                Err(e) => return Err(Failure::io("stat", &e)),
            };
            if !found.is_dir() {
                self.add(place, "it is not a directory", Repair::MoveAwayAndMake(0o700));
                continue;
            }
            if found.uid() != nix::unistd::geteuid().as_raw() {
                self.add(place, format!("it belongs to the user {}", found.uid()), Repair::TakeOver);
            }
            let mode = found.mode() & 0o7777;
            if mode & WRITE_BY_OTHERS != 0 {
                let what = format!("others can write to it (mode {mode:04o})");
                self.add(place, what, Repair::SetMode(mode & !WRITE_BY_OTHERS));
            }
        }
        Ok(())
    }

    /// What belongs to no layer.
    pub(super) fn orphans(&mut self, records: &Records) -> Result<(), Failure> {
        for kind in ["meta", "layers", "diff", "mnt", "work", "pending", "stage", ASIDE] {
            for name in self.names(kind)? {
                let place = format!("{kind}/{name}");
                let id = LayerId::new(&name).ok();
                if self.is_temporary(kind, &name) {
                    if id_of_temporary(&name).is_none_or(|id| self.is_idle(&id)) {
                        self.add(place, "a write that was cut off left it behind", Repair::Delete);
                    }
                    continue;
                }
                let known = match kind {
                    // A layer's that exists, or one that a call is about to make, to remove or to fill.
                    "pending" | "stage" => id.as_ref().is_some_and(|id| !self.is_idle(id)),
                    _ => id.as_ref().is_some_and(|id| records.contains_key(id) || !self.is_idle(id)),
                };
                // Records are told of where they are read. One that was not there then has been made since.
                if known || (kind == "meta" && id.is_some()) {
                    continue;
                }
                let what = if name.ends_with("-removing") {
                    "a removal that was cut off left it behind"
                } else {
                    "it belongs to no layer"
                };
                let empty = kind == "mnt"
                    && !self.store.holds_something(&place)?
                    && self.store.is_directory(&place)?;
                self.add(place, what, if empty { Repair::Delete } else { Repair::MoveAway });
            }
        }
        if self.store.dir.symlink_metadata(".layerbox.json.tmp").is_ok() {
            let what = "a write that was cut off left it behind";
            self.add(".layerbox.json.tmp", what, Repair::Delete);
        }
        Ok(())
    }

    /// Whether a name is that of a file which is renamed once it is written.
    fn is_temporary(&self, kind: &str, name: &str) -> bool {
        matches!(kind, "layers" | "meta") && name.starts_with('.') && name.ends_with(".tmp")
    }

    /// Whether no call works on a layer, nor has left a note that it did, which is heeded when the store is
    /// next opened.
    pub(super) fn is_idle(&self, id: &LayerId) -> bool {
        let pending =
            self.store.dir.symlink_metadata(format!("pending/{id}")).is_ok_and(|found| found.is_file());
        !pending && matches!(self.store.unclaimed(id), Ok(Some(_)))
    }

    /// The names in a directory of the store, as they can be printed and given to `rename`; a name that is
    /// not UTF-8 is reported as it can be shown.
    pub(super) fn names(&mut self, kind: &str) -> Result<BTreeSet<String>, Failure> {
        let entries = match self.store.dir.read_dir(kind) {
            Ok(entries) => entries,
            Err(e) if is_absent(&e) => return Ok(BTreeSet::new()),
            Err(e) => return Err(Failure::io("open", &e)),
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            match name.into_string() {
                Ok(name) => drop(names.insert(name)),
                Err(odd) => {
                    use std::os::unix::ffi::OsStrExt;
                    let shown = Escaped(odd.as_bytes()).to_string();
                    let odd = Repair::MoveAwayOdd(kind.to_owned(), odd);
                    self.add(format!("{kind}/{shown}"), "it belongs to no layer", odd);
                }
            }
        }
        Ok(names)
    }
}
