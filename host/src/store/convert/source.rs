//! What the new marks are names of: one inode for as many marks of a layer as it can have names. It is made
//! in the root, and is right before it has a name in a layer: so a mark is never there without its owner and
//! its time.

use std::os::fd::{AsFd, BorrowedFd};

use cap_std::fs::Dir;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};
use rustix::io::Errno;

use super::super::marks::failed;
use crate::error::Failure;

/// Its name in the root.
const FILE: &str = "convert.mark";

/// What the marks are names of.
#[derive(Debug)]
pub(super) struct Source<'a> {
    root: &'a Dir,
    kind: FileType,
    mode: Mode,
    owner: (u32, u32),
    /// The layer whose marks are names of it.
    layer: Option<LayerId>,
    made: bool,
}

impl<'a> Source<'a> {
    /// `owner`: of the marks.
    pub(super) fn new(root: &'a Dir, to: Backend, owner: (u32, u32)) -> Source<'a> {
        let (kind, mode) = match to {
            Backend::Aufs => (FileType::RegularFile, 0o444),
            Backend::Overlay | Backend::OverlayUser => (FileType::CharacterDevice, 0),
        };
        Source { root, kind, mode: Mode::from_raw_mode(mode), owner, layer: None, made: false }
    }

    /// Turns to a layer, which has marks of its own.
    pub(super) fn begin(&mut self, layer: &LayerId) -> Result<(), Failure> {
        if self.layer.as_ref() == Some(layer) {
            return Ok(());
        }
        self.layer = Some(layer.clone());
        self.renew()
    }

    /// As [`Source::begin`], for a layer in which a conversion was cut off: what the marks there are names of
    /// is gone on with, so that it makes no difference to the layer.
    pub(super) fn resume(&mut self, layer: &LayerId) -> Result<(), Failure> {
        self.layer = Some(layer.clone());
        match rustix::fs::statat(self.root, FILE, AtFlags::SYMLINK_NOFOLLOW) {
            // It has no name in a layer before it is right.
            Ok(found) if FileType::from_raw_mode(found.st_mode) == self.kind && found.st_nlink > 1 => {
                self.made = true;
                Ok(())
            }
            Ok(_) | Err(Errno::NOENT) => self.renew(),
            Err(errno) => Err(failed("stat", b"", errno)),
        }
    }

    /// Takes it away; the marks stay.
    pub(super) fn renew(&mut self) -> Result<(), Failure> {
        self.made = false;
        match rustix::fs::unlinkat(self.root, FILE, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("unlinkat", b"", errno)),
        }
    }

    /// Whether marks can be names of it already.
    pub(super) fn is_made(&self) -> bool {
        self.made
    }

    /// Makes a mark.
    pub(super) fn link(&mut self, directory: BorrowedFd<'_>, last: &[u8]) -> Result<(), Failure> {
        if !self.made {
            self.make()?;
        }
        let root = self.root.as_fd();
        let linked = match rustix::fs::linkat(root, FILE, directory, last, AtFlags::empty()) {
            Err(Errno::MLINK) => {
                self.make()?;
                rustix::fs::linkat(root, FILE, directory, last, AtFlags::empty())
            }
            other => other,
        };
        linked.map_err(|errno| failed("linkat", last, errno))
    }

    /// From now on marks are names of what this is a name of.
    pub(super) fn follow(&mut self, directory: BorrowedFd<'_>, last: &[u8]) -> Result<(), Failure> {
        self.renew()?;
        match rustix::fs::linkat(directory, last, self.root, FILE, AtFlags::empty()) {
            Ok(()) => self.made = true,
            // It has as many names as it can.
            Err(Errno::MLINK) => {}
            Err(errno) => return Err(failed("linkat", last, errno)),
        }
        Ok(())
    }

    fn make(&mut self) -> Result<(), Failure> {
        self.renew()?;
        let (root, what) = (self.root.as_fd(), |operation| move |errno| failed(operation, b"", errno));
        rustix::fs::mknodat(root, FILE, self.kind, self.mode, 0).map_err(what("mknodat"))?;
        let (uid, gid) = self.owner;
        let (uid, gid) = (rustix::fs::Uid::from_raw(uid), rustix::fs::Gid::from_raw(gid));
        rustix::fs::chownat(root, FILE, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(what("fchownat"))?;
        // The umask may have taken something away.
        if self.kind == FileType::RegularFile {
            rustix::fs::chmodat(root, FILE, self.mode, AtFlags::empty()).map_err(what("fchmodat"))?;
        }
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: never, last_modification: never };
        rustix::fs::utimensat(root, FILE, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(what("utimensat"))?;
        self.made = true;
        Ok(())
    }
}
