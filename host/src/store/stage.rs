//! The way of content into a layer: it is staged, and takes the place of the layer's empty directory in one
//! step when it is whole.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;

use super::Store;
use super::files::{ids_in, make_directory};
use super::lock::{Guard, Mode};
use super::runtime::LOCKS;
use crate::error::Failure;

impl Store {
    /// Makes the empty directory that an archive is applied into.
    ///
    /// # Errors
    ///
    /// Those of making a directory.
    pub fn stage(&self, id: &LayerId) -> Result<OwnedFd, Failure> {
        let path = format!("stage/{id}");
        self.throw_away(&path)?;
        make_directory(&self.dir, &path, 0o755)?;
        self.give_to_root(&path)?;
        self.open_directory("stage", id)
    }

    /// Holds none of these layers to be one that an archive is being applied to: its directory will be
    /// another, and a union over the one that it has now would lose it.
    ///
    /// # Errors
    ///
    /// [`Failure::Conflict`], which names one that is.
    pub fn require_filled(&self, ids: &[LayerId]) -> Result<(), Failure> {
        match self.being_filled(|id| ids.contains(id))?.first() {
            Some(id) => Err(Failure::Conflict(format!("an archive is being applied to its ancestor {id}"))),
            None => Ok(()),
        }
    }

    /// Those of the layers asked for that an archive is being applied to. What a call that was cut off has
    /// left does not count.
    ///
    /// # Errors
    ///
    /// Those of reading the directory and of locking.
    pub fn being_filled(&self, asked: impl Fn(&LayerId) -> bool) -> Result<Vec<LayerId>, Failure> {
        let directory = self.runtime.join(LOCKS);
        let mut filled = Vec::new();
        for id in ids_in(&self.dir, "stage")?.into_iter().filter(asked) {
            match Guard::layer(&directory, self.claims.claim(&id), Mode::Shared, Duration::ZERO) {
                Err(Failure::Locked(_)) => filled.push(id),
                other => drop(other?),
            }
        }
        Ok(filled)
    }

    /// Throws a staged content away, and deletes it.
    ///
    /// # Errors
    ///
    /// Those of renaming and deleting.
    pub fn unstage(&self, id: &LayerId) -> Result<(), Failure> {
        self.throw_away(&format!("stage/{id}"))?;
        self.empty_trash_of(id)
    }

    /// Puts the staged content in the place of the layer's empty directory, in one step. With `sync` the step
    /// is on the disk after it; what was staged must have been before.
    ///
    /// # Errors
    ///
    /// [`Failure::Conflict`] where the layer is not empty; those of syncing and renaming.
    pub fn publish(&self, id: &LayerId, sync: bool) -> Result<(), Failure> {
        let (from, to) = (format!("stage/{id}"), format!("diff/{id}"));
        self.dir.rename(&from, &self.dir, &to).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                Failure::Conflict("the layer has content already".to_owned())
            }
            _ => Failure::io("rename", &e),
        })?;
        if sync {
            self.sync_directory("diff")?;
        }
        Ok(())
    }

    /// Whether a layer has no content of its own.
    ///
    /// # Errors
    ///
    /// Those of reading a directory.
    pub fn is_empty(&self, id: &LayerId) -> Result<bool, Failure> {
        let entries = self.dir.read_dir(format!("diff/{id}")).map_err(|e| Failure::io("open", &e))?;
        for entry in entries {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            if !self.kept_by_aufs().iter().any(|(own, _)| name == *own) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What aufs keeps for itself in a directory that it has once mounted writable, and whether that is a
    /// directory.
    fn kept_by_aufs(&self) -> &'static [(&'static str, bool)] {
        match self.format.backend() {
            Backend::Aufs => &[(".wh..wh.aufs", false), (".wh..wh.plnk", true), (".wh..wh.orph", true)],
            _ => &[],
        }
    }

    /// Takes away what aufs has left in the directory of an empty layer, which must not be mounted. Answers
    /// whether there is nothing any more.
    ///
    /// # Errors
    ///
    /// Those of reading a directory, and of deleting.
    pub fn vacate(&self, id: &LayerId) -> Result<bool, Failure> {
        if !self.is_empty(id)? {
            return Ok(false);
        }
        for (name, is_directory) in self.kept_by_aufs() {
            let path = format!("diff/{id}/{name}");
            let removed = if *is_directory { self.dir.remove_dir(path) } else { self.dir.remove_file(path) };
            match removed {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(false),
                other => other.map_err(|e| Failure::io("unlink", &e))?,
            }
        }
        Ok(true)
    }
}
