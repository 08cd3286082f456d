//! Setting a time to what it is, for a file system on which that has an effect: aufs copies the name up.

use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;

use super::read::{Detail, Tree};
use super::resolve::{HANDLE, beneath};
use super::walk::WalkOptions;
use crate::{Error, Kind, Name};

/// How many nodes are looked at in one step.
const STEP: u32 = 4096;

/// Sets the modification time of every name below `dir` that is one of several of a file of these inodes to
/// what it is. No link is followed, and nothing but that name changes: neither owner nor mode are set, which
/// would take set-id bits and capabilities away.
///
/// # Errors
/// [`Error::Io`]. Names that disappear meanwhile are none.
pub fn touch(dir: &OwnedFd, inodes: &HashSet<u64>) -> Result<(), Error> {
    let tree = Tree::new(dir.try_clone().map_err(|e| Error::io("dup")(e))?, true);
    let mut walk = tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Status })?;
    loop {
        let nodes = walk.next(STEP)?;
        if nodes.is_empty() {
            return Ok(());
        }
        let linked = nodes
            .iter()
            .filter(|node| node.links > 1 && node.kind != Kind::Directory && inodes.contains(&node.inode));
        for node in linked {
            let (parent, last) = node.name.split();
            let mtime = node.attributes.mtime;
            let time = TimeSpec::new(mtime.seconds, i64::from(mtime.nanoseconds));
            let done = beneath(dir.as_fd(), parent, HANDLE).and_then(|parent| {
                utimensat(parent, last, &TimeSpec::UTIME_OMIT, &time, UtimensatFlags::NoFollowSymlink)
            });
            match done {
                Ok(()) | Err(nix::Error::ENOENT) => {}
                Err(errno) => return Err(Error::io("utimensat")(errno).at(&node.name)),
            }
        }
    }
}
