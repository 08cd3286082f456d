//! Going down into a tree and back up: at any depth, with a bounded number of descriptors, and without
//! resolving the way from the top again, which would be quadratic in the depth.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use super::read::status;
use crate::Error;

/// How many of the directories on the way down stay open.
const OPEN: usize = 64;

/// The directories from a start down to where a walk is, with what is known of each. The innermost is always
/// open.
#[derive(Debug)]
pub(super) struct Descent<T> {
    levels: Vec<(Slot, T)>,
}

/// A directory that is open, or that was closed for the time being: then its device and inode.
#[derive(Debug)]
enum Slot {
    Open(OwnedFd),
    Closed((u32, u32), u64),
}

impl<T> Descent<T> {
    pub(super) fn new() -> Self {
        Self { levels: Vec::new() }
    }

    /// The innermost directory.
    pub(super) fn inner(&mut self) -> Option<(BorrowedFd<'_>, &mut T)> {
        match self.levels.last_mut() {
            Some((Slot::Open(dir), known)) => Some((OwnedFd::as_fd(dir), known)),
            _ => None,
        }
    }

    /// Goes down. One of the directories further up may be closed.
    pub(super) fn enter(&mut self, dir: OwnedFd, known: T) -> Result<(), Error> {
        if let Some(far) = self.levels.len().checked_sub(OPEN)
            && let Slot::Open(dir) = &self.levels[far].0
        {
            self.levels[far].0 = closed(dir.as_fd())?;
        }
        self.levels.push((Slot::Open(dir), known));
        Ok(())
    }

    /// Goes up. A directory that was closed is opened again as `..` of the innermost, and must be the one
    /// that it was.
    ///
    /// # Errors
    /// [`Error::Conflict`] when a directory was moved meanwhile, [`Error::Io`].
    pub(super) fn leave(&mut self) -> Result<Option<T>, Error> {
        let Some((slot, known)) = self.levels.pop() else { return Ok(None) };
        if let (Slot::Open(inner), Some((outer @ Slot::Closed(..), _))) = (slot, self.levels.last_mut()) {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_XDEV);
            let dir = openat2(inner, "..", how).map_err(Error::io("openat2"))?;
            if closed(dir.as_fd())? != *outer {
                return Err(Error::Conflict("a directory was moved while a tree was gone through".into()));
            }
            *outer = Slot::Open(dir);
        }
        Ok(Some(known))
    }
}

fn closed(dir: BorrowedFd<'_>) -> Result<Slot, Error> {
    let found = status(dir, b"").map_err(Error::io("statx"))?;
    Ok(Slot::Closed((found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Closed(device, inode), Self::Closed(d, i)) if device == d && inode == i)
    }
}
