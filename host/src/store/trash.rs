//! Content that is out of sight: moved to `trash/` in one step, and deleted after, by whoever moved it there.
//!
//! A name in it says whose content it is and which process moved it: `diff.ID.PID.N`. Nobody deletes what another call of the same process is at: a layer of a
//! million files that somebody removes must not hold up who removes a small one. What another process moved there it may have left behind when it was killed.

use std::os::fd::AsFd as _;

use layerbox_privileged::id::LayerId;

use super::Store;
use super::files::ignore_missing;
use crate::error::Failure;

impl Store {
    /// Moves a directory out of sight, under a name that nothing else has. A missing one is no error.
    pub(super) fn to_trash(&self, path: &str) -> Result<(), Failure> {
        let flat = path.replace('/', ".");
        for attempt in 0u32.. {
            let target = format!("trash/{flat}.{}.{attempt}", std::process::id());
            if self.dir.symlink_metadata(&target).is_ok() {
                continue;
            }
            return ignore_missing(self.dir.rename(path, &self.dir, &target), "rename");
        }
        Ok(())
    }

    /// Deletes what is out of sight.
    ///
    /// # Errors
    ///
    /// The first thing that could not be deleted; the rest is deleted even so.
    pub fn empty_trash(&self) -> Result<(), Failure> {
        self.delete_trash(|_| true)
    }

    /// Deletes what is out of sight of one layer, and what other processes left there.
    ///
    /// # Errors
    ///
    /// As [`Store::empty_trash`].
    pub(crate) fn empty_trash_of(&self, id: &LayerId) -> Result<(), Failure> {
        let own = std::process::id().to_string();
        self.delete_trash(|name| {
            moved(name).is_none_or(|(content, process)| {
                process != own || content.split_once('.').is_some_and(|(_, layer)| layer == id.as_str())
            })
        })
    }

    fn delete_trash(&self, which: impl Fn(&str) -> bool) -> Result<(), Failure> {
        let trash = self.dir.open_dir("trash").map_err(|e| Failure::io("open", &e))?;
        let mut first = Ok(());
        for entry in trash.entries().map_err(|e| Failure::io("getdents", &e))? {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            if name.to_str().is_some_and(|name| !which(name)) {
                continue;
            }
            let deleted = layerbox_privileged::layer::delete_tree(trash.as_fd(), &name);
            // Two processes may empty it at the same time.
            if let Err(error) = deleted
                && first.is_ok()
                && trash.symlink_metadata(&name).is_ok()
            {
                first = Err(error.into());
            }
        }
        first
    }
}

/// What a name stands for, as `diff.ID`, and the process that moved it there. None for a name that is not of this form.
fn moved(name: &str) -> Option<(&str, &str)> {
    let (rest, _attempt) = name.rsplit_once('.')?;
    rest.rsplit_once('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_whose_they_are() {
        assert_eq!(moved("diff.a.12.0"), Some(("diff.a", "12")));
        assert_eq!(moved("work.a.b.1.12.3"), Some(("work.a.b.1", "12")));
        assert_eq!(moved("odd"), None);
    }
}
