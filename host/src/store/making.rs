//! How a layer comes to be: a note that it is being made, its directories, their names brought to the disk,
//! and at last its record, with which it exists. Whatever a crash leaves of that before the record has the
//! note, by which [`super::recover`] finds it.

use std::io;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;

use super::Store;
use super::children::mark_child;
use super::files::{exists, ignore_missing, make_directory, touch};
use super::record::Record;
use crate::error::Failure;

impl Store {
    /// Holds the place of a layer that is to be made to be free. What a call that was cut off has left there
    /// has a note, and is nobody's; an empty mount point is nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::Occupied`] where something else lies there; it is left alone. [`Failure::Busy`] where a
    /// mount by another path keeps what was cut off.
    pub fn require_room(&self, id: &LayerId) -> Result<(), Failure> {
        if exists(&self.dir, &format!("pending/{id}"))? {
            return self.remove_mount_point(id);
        }
        for kind in ["layers", "diff", "work"] {
            let place = format!("{kind}/{id}");
            if exists(&self.dir, &place)? {
                return Err(Failure::Occupied(place));
            }
        }
        let place = format!("mnt/{id}");
        match self.dir.remove_dir(&place) {
            Err(e) if e.kind() != io::ErrorKind::NotFound && exists(&self.dir, &place)? => {
                Err(Failure::Occupied(place))
            }
            _ => Ok(()),
        }
    }

    /// Makes the directories of a layer of which [`Store::announce`] has noted that it will be made.
    ///
    /// # Errors
    ///
    /// Those of making directories. What was made is taken away by [`Store::undo_make`].
    pub fn make_directories(&self, id: &LayerId) -> Result<(), Failure> {
        for kind in self.kinds() {
            let path = format!("{kind}/{id}");
            make_directory(&self.dir, &path, 0o755)?;
            self.give_to_root(&path)?;
        }
        Ok(())
    }

    /// Makes root of the id map the owner of a directory.
    pub(super) fn give_to_root(&self, path: &str) -> Result<(), Failure> {
        let maps = self.format.maps();
        if maps.is_empty() {
            return Ok(());
        }
        let (uid, gid) = maps.root()?;
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
        nix::unistd::fchownat(&self.dir, path, Some(uid), Some(gid), flags)
            .map_err(|e| Failure::io("fchownat", &e.into()))
    }

    /// Whether a layer has all its directories.
    pub fn has_directories(&self, id: &LayerId) -> bool {
        let is_directory =
            |kind: &&str| self.dir.symlink_metadata(format!("{kind}/{id}")).is_ok_and(|found| found.is_dir());
        self.kinds().iter().all(is_directory)
    }

    pub(super) fn kinds(&self) -> &'static [&'static str] {
        if self.format.backend() == Backend::Aufs { &["diff", "mnt"] } else { &["diff", "mnt", "work"] }
    }

    /// Notes that a layer is being made or removed, so that a crash in the midst of it leaves a trace.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn announce(&self, id: &LayerId) -> Result<(), Failure> {
        touch(&self.dir, &format!("pending/{id}"))
    }

    /// Ends what [`Store::announce`] began.
    ///
    /// # Errors
    ///
    /// Those of removing a file.
    pub fn conclude(&self, id: &LayerId) -> Result<(), Failure> {
        ignore_missing(self.dir.remove_file(format!("pending/{id}")), "unlink")
    }

    /// Brings the names in `layers/` to the disk, and notes that they are ours; the component brings the
    /// bytes there itself.
    ///
    /// # Errors
    ///
    /// Those of syncing.
    pub fn sync_layers(&self) -> Result<(), Failure> {
        self.sync_directory("layers")?;
        self.see_layers();
        Ok(())
    }

    /// Brings all names of a new layer to the disk, and before them the mark that it lies on its parent. A
    /// file system that logs what is synced alone (btrfs) would else keep the record of a layer and lose its
    /// directories, or the mark, without which the parent could be removed.
    ///
    /// # Errors
    ///
    /// Those of making a file and of syncing.
    pub fn sync_made(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        if let Some(parent) = record.ancestors.first() {
            // First: where one sync brings everything to the disk, those behind it find nothing left to do.
            let first = mark_child(&self.dir, parent, id)?;
            self.sync_directory(&format!("children/{parent}"))?;
            if first {
                self.sync_directory("children")?;
            }
        }
        self.kinds().iter().try_for_each(|kind| self.sync_directory(kind))?;
        self.sync_layers()
    }

    /// Makes the layer exist: from here on it is whole, and survives a crash. Its names must be on the disk
    /// ([`Store::sync_made`]).
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn commit(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        record.write(&self.dir, id)
    }
}
