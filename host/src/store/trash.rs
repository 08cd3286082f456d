//! How layers end: out of existence in one step, out of sight by renames, and deleted after.
//!
//! None of it needs room on the disk: a layer can be removed when the disk is full of bytes or of inodes.

use std::io;
use std::os::fd::AsFd;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::delete_tree_while;

use super::Store;
use super::files::{exists, ids_in, ignore_missing, is_absent};
use crate::error::Failure;

impl Store {
    /// Makes the layer not exist, then takes its content out of sight. The content is deleted by
    /// [`Store::empty_trash`].
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] where something is mounted on its mount point that is seen by another path: the
    /// layer is as it was then. Those of renaming and removing files.
    pub fn discard(&self, id: &LayerId) -> Result<(), Failure> {
        let parent = self.record(id)?.and_then(|record| record.ancestors.first().cloned());
        // One step: the layer is no more, and that what is left of it must go is on record.
        let (meta, pending) = (format!("meta/{id}"), format!("pending/{id}"));
        match ignore_missing(self.dir.rename(&meta, &self.dir, &pending), "rename") {
            Err(failure) if failure.is_shortage() => {
                // Not even room for a name. Should this be interrupted, `check` finds the rest.
                ignore_missing(self.dir.remove_file(&meta), "unlink")?;
            }
            other => other?,
        }
        self.sync_directory("meta")?;
        self.sync_directory("pending")?;
        // Only the kernel knows at once whether something is mounted there, and says so where it is asked to
        // take it away. The layer can still come back.
        if let Err(busy @ Failure::Busy(_)) = self.remove_mount_point(id)
            && self.dir.rename(&pending, &self.dir, &meta).is_ok()
        {
            self.sync_directory("meta")?;
            return Err(busy);
        }
        if let Some(parent) = parent {
            self.unmark(&parent, id)?;
        }
        self.remove_traces(id)
    }

    /// Undoes the making of a layer that failed, whether or not it came to be.
    ///
    /// # Errors
    ///
    /// Those of removing files. What is left then is taken away when the store is next opened.
    pub fn undo_create(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<(), Failure> {
        let record = format!("meta/{id}");
        if exists(&self.dir, &record)? {
            ignore_missing(self.dir.remove_file(&record), "unlink")?;
            self.sync_directory("meta")?;
        }
        self.undo_make(id, parent)?;
        self.empty_trash_of(id)
    }

    /// Takes away all directories of a layer that does not exist (any more). Its `layers/ID` is the
    /// component's to remove. What is busy is left for the end.
    fn remove_traces(&self, id: &LayerId) -> Result<(), Failure> {
        let mount_point = match self.remove_mount_point(id) {
            Err(failure) if !matches!(failure, Failure::Busy(_)) => return Err(failure),
            other => other,
        };
        for kind in ["diff", "work", "stage"] {
            self.throw_away(&format!("{kind}/{id}"))?;
        }
        let kept = format!("{}/{id}", super::convert::ASIDE);
        if exists(&self.dir, &kept)? {
            self.throw_away(&kept)?;
        }
        // A layer with children is not removed: what is in it are marks that an interrupted removal left.
        self.throw_away(&format!("children/{id}"))?;
        mount_point
    }

    /// Takes away the mount point of a layer on which nothing is mounted as far as this store sees;
    /// [`Failure::Busy`] where something is even so.
    pub(super) fn remove_mount_point(&self, id: &LayerId) -> Result<(), Failure> {
        let mount_point = format!("mnt/{id}");
        match self.dir.remove_dir(&mount_point) {
            // rmdir(2), as rename(2): it is a mount point in this namespace, by another path or below what
            // was mounted over the store since.
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(Failure::Busy(format!(
                "something is mounted on {mount_point} by another path of the store"
            ))),
            // It is no empty directory: somebody has put something in its place.
            Err(e)
                if e.kind() != io::ErrorKind::NotFound && self.dir.symlink_metadata(&mount_point).is_ok() =>
            {
                self.throw_away(&mount_point).map(drop)
            }
            other => ignore_missing(other, "rmdir"),
        }
    }

    /// Takes away the mark that a layer is the child of another.
    fn unmark(&self, parent: &LayerId, id: &LayerId) -> Result<(), Failure> {
        ignore_missing(self.dir.remove_file(format!("children/{parent}/{id}")), "unlink")?;
        // Not empty while it has other children; then it stays.
        drop(self.dir.remove_dir(format!("children/{parent}")));
        Ok(())
    }

    /// Takes away the marks that say whose child a layer is which never came to be, or is no more.
    pub(super) fn unmark_everywhere(&self, id: &LayerId) -> Result<(), Failure> {
        for parent in ids_in(&self.dir, "children")? {
            match self.dir.symlink_metadata(format!("children/{parent}/{id}")) {
                Ok(_) => self.unmark(&parent, id)?,
                // Something else in the place of the marks holds none; `check` tells of it.
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(Failure::io("stat", &e)),
            }
        }
        Ok(())
    }

    /// Undoes [`Store::make_directories`] and everything else of a layer that does not exist.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] where something is mounted on its mount point that is seen by another path: all else
    /// is gone then, and the note that it is to go stays. Those of removing files.
    pub fn undo_make(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<(), Failure> {
        if let Some(parent) = parent {
            self.unmark(parent, id)?;
        }
        let traces = self.remove_traces(id);
        if !matches!(traces, Ok(()) | Err(Failure::Busy(_))) {
            return traces;
        }
        for record in [format!("layers/{id}"), format!("layers/.{id}.tmp"), format!("meta/.{id}.tmp")] {
            // A component that has gone wrong may have made a directory of it. Were that an error, the store
            // could not be opened again.
            if self.dir.symlink_metadata(&record).is_ok_and(|found| found.is_dir()) {
                self.throw_away(&record)?;
            }
            ignore_missing(self.dir.remove_file(&record), "unlink")?;
        }
        traces?;
        self.conclude(id)
    }

    /// Moves a directory out of sight, under a name that nothing else has; where there is no room for a name,
    /// deletes it where it is. A missing one is no error. Answers whether there was one.
    pub(super) fn throw_away(&self, path: &str) -> Result<bool, Failure> {
        match self.to_trash(path) {
            Err(failure) if failure.is_shortage() || self.dir.symlink_metadata("trash").is_err() => {
                let (directory, name) = path.rsplit_once('/').unwrap_or((".", path));
                let directory = self.dir.open_dir(directory).map_err(|e| Failure::io("open", &e))?;
                Ok(delete_tree_while(directory.as_fd(), name.as_ref(), &|| true)?)
            }
            other => other,
        }
    }

    fn to_trash(&self, path: &str) -> Result<bool, Failure> {
        let flat = path.replace('/', ".");
        for attempt in 0u32.. {
            let target = format!("trash/{flat}.{}.{attempt}", std::process::id());
            if self.dir.symlink_metadata(&target).is_ok() {
                continue;
            }
            return match self.dir.rename(path, &self.dir, &target) {
                // Either the directory was missing, or the trash is.
                Err(e) if e.kind() == io::ErrorKind::NotFound && self.dir.symlink_metadata(path).is_err() => {
                    Ok(false)
                }
                other => other.map(|()| true).map_err(|e| Failure::io("rename", &e)),
            };
        }
        Ok(false)
    }

    /// Whether nothing is left to delete, or that cannot be told.
    pub(super) fn is_trash_empty(&self) -> bool {
        self.dir.read_dir("trash").map_or(true, |mut entries| entries.next().is_none())
    }

    /// Deletes what is out of sight, for as long as `go_on` says; whether all of it is gone.
    ///
    /// # Errors
    ///
    /// The first thing that could not be deleted; the rest is deleted even so.
    pub fn empty_trash(&self, go_on: &dyn Fn() -> bool) -> Result<bool, Failure> {
        self.delete_trash(&|_| true, go_on)
    }

    /// Deletes what is out of sight of one layer. Another one may be of a million files, and whoever waits
    /// for this one does not wait for that.
    ///
    /// # Errors
    ///
    /// As [`Store::empty_trash`].
    pub(crate) fn empty_trash_of(&self, id: &LayerId) -> Result<(), Failure> {
        let which = |name: &str| layer_of(name) == Some(id.as_str());
        self.delete_trash(&which, &|| true).map(drop)
    }

    fn delete_trash(&self, which: &dyn Fn(&str) -> bool, go_on: &dyn Fn() -> bool) -> Result<bool, Failure> {
        let trash = match self.dir.open_dir("trash") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
            other => other.map_err(|e| Failure::io("open", &e))?,
        };
        let mut first = Ok(true);
        for entry in trash.entries().map_err(|e| Failure::io("getdents", &e))? {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            if name.to_str().is_some_and(|name| !which(name)) {
                continue;
            }
            match delete_tree_while(trash.as_fd(), &name, go_on) {
                Ok(true) => {}
                Ok(false) => return first.map(|_| false),
                // Two processes may empty it at the same time.
                Err(error) if first.is_ok() && trash.symlink_metadata(&name).is_ok() => {
                    first = Err(error.into());
                }
                Err(_) => {}
            }
        }
        first
    }
}

/// Whose content a name in `trash/` stands for, as [`Store::throw_away`] gives them: `diff.ID.PID.N`. None
/// for a name that is not of this form.
fn layer_of(name: &str) -> Option<&str> {
    let (rest, _attempt) = name.rsplit_once('.')?;
    let (content, _process) = rest.rsplit_once('.')?;
    content.split_once('.').map(|(_kind, layer)| layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(layer_of("diff.a.12.0"), Some("a"));
        assert_eq!(layer_of("work.a.b.1.12.3"), Some("a.b.1"));
        assert_eq!(layer_of("odd"), None);
    }
}
