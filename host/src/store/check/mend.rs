//! What a repair does.

use std::os::fd::AsFd;
use std::path::Path;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::delete_tree_while;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::super::Store;
use super::super::files::{self, ignore_missing, write_atomically};
use super::super::record::Record;
use super::deep;
use crate::error::Failure;

/// What a repair does.
pub(super) enum Repair {
    /// It belongs to no layer that exists, or was about to.
    MoveAway,
    /// As that, for a name that is not UTF-8 in a directory of the store.
    MoveAwayOdd(String, std::ffi::OsString),
    /// A temporary file or an empty directory: nobody's content.
    Delete,
    WriteAncestors(LayerId, Record),
    WriteRecord(LayerId, Record),
    /// With this mode.
    MakeDirectory(u32),
    MoveAwayAndMake(u32),
    SetMode(u32),
    TakeOver,
    MarkChild(LayerId, LayerId),
    Unmount(LayerId),
    ClearCount(LayerId),
    ForgetSize(LayerId, Record),
    Translate(deep::Foreign),
    /// What aufs keeps for itself.
    TakeOut(deep::Foreign),
    /// There is none.
    None,
}

impl Repair {
    pub(super) fn text(&self) -> String {
        let text = match self {
            Repair::MoveAway | Repair::MoveAwayOdd(..) => "move it to lost+found/",
            Repair::Delete => "delete it",
            Repair::WriteAncestors(..) => "write it from meta/",
            Repair::WriteRecord(..) => "write it from what layers/ and the other layers say",
            Repair::MakeDirectory(_) => "make it",
            Repair::MoveAwayAndMake(_) => "move it to lost+found/, and make it",
            Repair::SetMode(mode) => return format!("set its mode to {mode:04o}"),
            Repair::TakeOver => "make it ours",
            Repair::MarkChild(..) => "write it",
            Repair::Unmount(_) => "unmount it",
            Repair::ClearCount(_) => "set it to 0",
            Repair::ForgetSize(..) => "forget it, so that it is counted anew",
            Repair::Translate(_) => "write it in this store's form",
            Repair::TakeOut(_) => "move it to lost+found/",
            Repair::None => "",
        };
        text.to_owned()
    }
}

impl Store {
    pub(super) fn mend(
        &self,
        place: &str,
        action: &Repair,
        unions: &Unions,
        references: &References,
    ) -> Result<bool, Failure> {
        // Another process may work on the layer; then it is no damage, or not one to mend now.
        let id = place.split('/').nth(1).and_then(|name| LayerId::new(name).ok());
        let _guard = match &id {
            Some(id) => match self.unclaimed(id)? {
                Some(guard) => Some(guard),
                None => return Err(Failure::Busy("another process works on it".to_owned())),
            },
            None => None,
        };
        match action {
            Repair::MoveAway => self.move_away(place)?,
            Repair::MoveAwayOdd(directory, name) => {
                self.move_away_as(place, &Path::new(directory).join(name))?
            }
            Repair::Delete => match self.dir.symlink_metadata(place) {
                Ok(found) if found.is_dir() => ignore_missing(self.dir.remove_dir(place), "rmdir")?,
                _ => ignore_missing(self.dir.remove_file(place), "unlink")?,
            },
            Repair::WriteAncestors(id, record) => self.restore_ancestors(id, record)?,
            Repair::WriteRecord(id, record) => {
                if self.dir.symlink_metadata(place).is_ok_and(|found| !found.is_file()) {
                    self.move_away(place)?;
                }
                record.write(&self.dir, id)?;
            }
            Repair::MakeDirectory(mode) => files::make_directory(&self.dir, place, *mode)?,
            Repair::MoveAwayAndMake(mode) => {
                self.move_away(place)?;
                files::make_directory(&self.dir, place, *mode)?;
            }
            Repair::SetMode(mode) => files::set_mode(&self.dir, place, *mode)?,
            Repair::TakeOver => {
                let owner = Some(nix::unistd::geteuid());
                let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                nix::unistd::fchownat(&self.dir, place, owner, None, flags)
                    .map_err(|e| Failure::io("fchownat", &e.into()))?;
            }
            Repair::MarkChild(parent, child) => {
                let marks = format!("children/{parent}");
                if self.dir.symlink_metadata(&marks).is_ok_and(|found| !found.is_dir()) {
                    self.move_away(&marks)?;
                }
                files::mark_child(&self.dir, parent, child)?;
            }
            Repair::Unmount(id) => {
                unions.unmount(id, false)?;
            }
            Repair::ClearCount(id) => references.clear(id)?,
            Repair::ForgetSize(id, record) => self.forget_size(id, record)?,
            Repair::Translate(foreign) => self.translate(foreign, unions)?,
            Repair::TakeOut(foreign) => self.take_out(place, foreign, unions)?,
            Repair::None => return Ok(false),
        }
        Ok(true)
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

    pub(in super::super) fn move_away(&self, place: &str) -> Result<(), Failure> {
        self.move_away_as(place, Path::new(place))
    }

    /// Moves what lies at `path` to `lost+found/`, under a name that says where it was.
    pub(super) fn move_away_as(&self, place: &str, path: &Path) -> Result<(), Failure> {
        match self.dir.symlink_metadata(path) {
            // It went with something else.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| Failure::io("stat", &e))?,
        };
        self.dir.create_dir_all("lost+found").map_err(|e| Failure::io("mkdir", &e))?;
        let flat = place.replace('/', ".");
        for attempt in 0u32..10_000 {
            let target = format!("lost+found/{flat}.{attempt}");
            if self.dir.symlink_metadata(&target).is_err() {
                return self.dir.rename(path, &self.dir, &target).map_err(|e| Failure::io("rename", &e));
            }
        }
        Err(Failure::Conflict(format!("lost+found/ holds too many of {place}")))
    }

    /// Deletes what repairs have moved to `lost+found/`.
    pub(super) fn purge(&self) -> Result<(), Failure> {
        let lost = match self.dir.open_dir("lost+found") {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| Failure::io("open", &e))?,
        };
        for entry in lost.entries().map_err(|e| Failure::io("getdents", &e))? {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            delete_tree_while(lost.as_fd(), &name, &|| true)?;
        }
        Ok(())
    }
}
