//! Deleting a tree, never over a symbolic link or a mount point, at any depth.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::FileType;

use super::descent::Descent;
use super::read::Listing;
use super::resolve::{LIST, beneath};
use crate::Error;

/// How many names of a directory are read at once.
const BATCH: usize = 64 * 1024;

/// How often a directory that was emptied may turn out to be something else, or to be filled again, before
/// the deletion is given up: somebody has the tree open and works against it.
const RETRIES: u32 = 1000;

/// Told of a name in an open directory before it is removed, and whether as a directory. A directory may be
/// told of as something else first, where nobody knew.
pub(super) type Tell<'a> = dyn FnMut(BorrowedFd<'_>, &[u8], bool) -> Result<(), Error> + 'a;

/// A directory that is being emptied, and its sub-directories that are still to be deleted.
struct Level {
    name: Box<[u8]>,
    below: Vec<Box<[u8]>>,
}

/// Deletes what `name` (one component) stands for in the open directory `parent`, with all that is in it.
/// What is not there is no error.
///
/// # Errors
/// [`Error::Io`], with EXDEV or EBUSY where something is mounted inside; part of the tree is then gone.
pub fn delete_tree(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Error> {
    delete_tree_while(parent, name, &|| true).map(drop)
}

/// As [`delete_tree`], for as long as `go_on` says, which is asked before each name; `false` where it ended
/// before all was gone.
///
/// # Errors
/// As [`delete_tree`].
pub fn delete_tree_while(
    parent: BorrowedFd<'_>,
    name: &OsStr,
    go_on: &dyn Fn() -> bool,
) -> Result<bool, Error> {
    let name = name.as_bytes();
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Error::InvalidArgument("the tree to delete is not one component".into()));
    }
    let mut stopped = false;
    let removed = remove(parent, name, &mut |_, _, _| {
        stopped = !go_on();
        if stopped { Err(Error::Busy("stopped".into())) } else { Ok(()) }
    });
    if stopped { Ok(false) } else { removed.map(|()| true) }
}

/// As [`delete_tree`], telling of each name before it is removed.
pub(super) fn remove(parent: BorrowedFd<'_>, name: &[u8], tell: &mut Tell<'_>) -> Result<(), Error> {
    if unlink(parent, name, tell)? {
        return Ok(());
    }
    let mut descent = Descent::new();
    let mut retries = 0;
    if let Some((dir, level)) = empty(parent, name.into(), tell)? {
        descent.enter(dir, level)?;
    }
    while let Some((dir, level)) = descent.inner() {
        if let Some(next) = level.below.pop() {
            if let Some((dir, level)) = empty(dir, next, tell)? {
                descent.enter(dir, level)?;
            }
        } else if let Some(done) = descent.leave()? {
            // All that was in it is gone. It is removed from the directory that is next, or from where all
            // began.
            let outer = descent.inner().map_or(parent, |(outer, _)| outer);
            tell(outer, &done.name, true)?;
            match unlinkat(outer, &*done.name, UnlinkatFlags::RemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                // The name was given to something else, or something was put into the directory.
                Err(Errno::ENOTDIR | Errno::ENOTEMPTY) if retries < RETRIES => {
                    retries += 1;
                    if let Some((dir, level)) = empty(outer, done.name, tell)? {
                        descent.enter(dir, level)?;
                    }
                }
                Err(error) => return Err(Error::io("unlinkat")(error)),
            }
        }
    }
    Ok(())
}

/// Opens a directory and unlinks all in it that is no directory. `None` when it was none, and was unlinked as
/// what it was.
fn empty(
    parent: BorrowedFd<'_>,
    name: Box<[u8]>,
    tell: &mut Tell<'_>,
) -> Result<Option<(OwnedFd, Level)>, Error> {
    let opened = match beneath(parent, &name, LIST) {
        // An owner without privilege may have to give himself the right first.
        Err(Errno::EACCES) => fchmodat(parent, &*name, Mode::S_IRWXU, FchmodatFlags::NoFollowSymlink)
            .and_then(|()| beneath(parent, &name, LIST)),
        other => other,
    };
    let dir = match opened {
        Ok(dir) => dir,
        // It is gone, or something else by now.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {
            return unlink(parent, &name, tell).map(|_| None);
        }
        Err(error) => return Err(Error::io("openat2")(error)),
    };
    if !nix::unistd::geteuid().is_root() {
        nix::sys::stat::fchmod(&dir, Mode::S_IRWXU).map_err(Error::io("fchmod"))?;
    }
    let mut below = Vec::new();
    loop {
        let mut listing = Listing::read(dir.as_fd(), BATCH)?;
        // In the order of their inodes names are removed a fifth faster: the inode table is then gone through
        // once.
        listing.items.sort_unstable_by_key(|item| item.inode);
        for item in &listing.items {
            let found = listing.name(item);
            if item.kind == FileType::Directory || !unlink(dir.as_fd(), found, tell)? {
                below.push(found.into());
            }
        }
        if listing.items.is_empty() {
            return Ok(Some((dir, Level { name, below })));
        }
    }
}

/// Unlinks a name, unless it is a directory: then the answer is `false`.
fn unlink(dir: BorrowedFd<'_>, name: &[u8], tell: &mut Tell<'_>) -> Result<bool, Error> {
    tell(dir, name, false)?;
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(error) => Err(Error::io("unlinkat")(error)),
    }
}
