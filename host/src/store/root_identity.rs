//! What the path of a root leads to, so that it can be told later whether it still leads there.
//!
//! A mount counts as well as a directory: an engine binds its data on itself when it starts, and takes that
//! away when it ends. What was opened below such a mount stays there, cut off from all paths, and Landlock
//! lets nobody move a file in it any more: it knows of no path to it that a rule could be about.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::io::Errno;

/// A directory by way of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RootIdentity {
    device: (u32, u32),
    inode: u64,
    /// None before Linux 5.8. No other mount gets the number while something is open on this one.
    mount: Option<u64>,
}

impl RootIdentity {
    /// That of a directory that is open.
    pub(super) fn of(directory: impl AsFd) -> Result<RootIdentity, Errno> {
        statx(directory, c"", AtFlags::EMPTY_PATH, ASKED).map(RootIdentity::from)
    }

    /// That to which a path leads now.
    pub(super) fn at(path: &Path) -> Result<RootIdentity, Errno> {
        statx(CWD, path, AtFlags::empty(), ASKED).map(RootIdentity::from)
    }

    /// What tells the directory from all others, by whichever mount: `MAJOR-MINOR.INODE`.
    pub(super) fn number(&self) -> String {
        let (major, minor) = self.device;
        format!("{major}-{minor}.{}", self.inode)
    }
}

const ASKED: StatxFlags = StatxFlags::INO.union(StatxFlags::MNT_ID);

impl From<Statx> for RootIdentity {
    fn from(found: Statx) -> RootIdentity {
        let has_mount = StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID);
        RootIdentity {
            device: (found.stx_dev_major, found.stx_dev_minor),
            inode: found.stx_ino,
            mount: has_mount.then_some(found.stx_mnt_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir, rename};

    use super::*;

    #[test]
    fn a_directory_of_the_same_name_is_another_root() {
        let path = std::env::temp_dir().join(format!("layerbox-root-identity.{}", std::process::id()));
        create_dir(&path).unwrap();
        let open = std::fs::File::open(&path).unwrap();
        let first = RootIdentity::of(&open).unwrap();
        assert_eq!(RootIdentity::at(&path), Ok(first));
        let away = path.with_extension("away");
        rename(&path, &away).unwrap();
        assert_eq!(RootIdentity::at(&path), Err(Errno::NOENT));
        assert_eq!(RootIdentity::at(&away), Ok(first));
        create_dir(&path).unwrap();
        let second = RootIdentity::at(&path).unwrap();
        assert_ne!(second, first);
        assert_ne!(second.number(), first.number());
        assert_eq!(RootIdentity { mount: Some(1), ..first }.number(), first.number());
        remove_dir(&path).unwrap();
        remove_dir(&away).unwrap();
    }
}
