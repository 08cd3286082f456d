//! What lies on a layer: a mark in `children/` for each, so that no record but theirs is read to tell whether
//! it can be removed.

use std::io;

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt as _};
use layerbox_privileged::id::LayerId;

use super::Store;
use super::files::{exists, touch};
use crate::error::Failure;

/// Marks a layer as the child of another; whether it is the first mark there.
pub(super) fn mark_child(dir: &Dir, parent: &LayerId, child: &LayerId) -> Result<bool, Failure> {
    let directory = format!("children/{parent}");
    let (mut left, mut first) = (100, false);
    loop {
        match dir.create_dir_with(&directory, DirBuilder::new().mode(0o700)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Failure::io("mkdir", &e)),
            made => first |= made.is_ok(),
        }
        match touch(dir, &format!("{directory}/{child}")) {
            // The parent's last other child was removed in between, and the directory with it.
            Err(Failure::Io { .. }) if left > 0 && dir.symlink_metadata(&directory).is_err() => left -= 1,
            other => return other.map(|()| first),
        }
    }
}

impl Store {
    /// A layer that has `id` as its parent, where there is one.
    ///
    /// # Errors
    ///
    /// Those of reading a directory; [`Failure::Corrupt`] where there may be one, and the records of it are
    /// damaged.
    pub fn child(&self, id: &LayerId) -> Result<Option<LayerId>, Failure> {
        let entries = match self.dir.read_dir(format!("children/{id}")) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == io::ErrorKind::NotFound && exists(&self.dir, "children")? => None,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::Corrupt(
                    "children/ is missing, which tells what lies on a layer".to_owned(),
                ));
            }
            Err(e) => return Err(Failure::io("open", &e)),
        };
        for entry in entries.into_iter().flatten() {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            let Some(child) = name.to_str().and_then(|name| LayerId::new(name).ok()) else { continue };
            match self.record(&child)? {
                Some(record) if record.ancestors.first() == Some(id) => return Ok(Some(child)),
                Some(_) => {}
                None => self.require_no_child(&child)?,
            }
        }
        match self.stray_on(id)? {
            Some(stray) => {
                Err(Failure::Corrupt(format!("layers/{stray} lies on it, and has no record in meta/")))
            }
            None => Ok(None),
        }
    }

    /// Holds a mark of a child without a record to be one that a crash has left of a child that never came to
    /// be, or is no more: not of one whose record was lost.
    fn require_no_child(&self, child: &LayerId) -> Result<(), Failure> {
        // Whoever works on it is about to remove it.
        let Some(_guard) = self.unclaimed(child)? else { return Ok(()) };
        if self.lacks_record(child)? {
            return Err(Failure::Corrupt(format!("meta/{child} is missing, and the layer lies on it")));
        }
        Ok(())
    }
}
