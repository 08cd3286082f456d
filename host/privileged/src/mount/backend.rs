//! Which union file system is used, what the kernel has, and the names of the file systems that layers lie
//! on.

use std::fs;
use std::io;
use std::path::Path;

use rustix::fs::statfs;
use rustix::thread::{CapabilitySet, capabilities};

use super::aufs;
use crate::Error;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Choice {
    /// aufs where the kernel lists it, else overlayfs.
    #[default]
    Auto,
    /// aufs, even where this kernel lacks it: such a store can be filled and read, not mounted.
    Aufs,
    /// overlayfs.
    Overlay,
}

/// The kernel's file system that stacks the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// aufs, whose deletions are `.wh.` files.
    Aufs,
    /// overlayfs, with its marks in `trusted.overlay.*`.
    Overlay,
    /// overlayfs with its marks in `user.overlay.*`, for those who may not set `trusted.*`.
    OverlayUser,
}

impl Backend {
    /// Decides by `/proc/filesystems` and by whether `trusted.*` attributes can be set here (`CAP_SYS_ADMIN`
    /// in the initial user namespace). Fails with [`Error::Io`] where `/proc` cannot be read.
    pub fn detect(choice: Choice) -> Result<Backend, Error> {
        let aufs = match choice {
            Choice::Auto => listed("aufs").map_err(Error::io("read /proc/filesystems"))?,
            Choice::Aufs => true,
            Choice::Overlay => false,
        };
        let trusted = trusted_attributes().map_err(Error::io("read /proc/self/uid_map"))?;
        Ok(match (aufs, trusted) {
            (true, _) => Backend::Aufs,
            (false, true) => Backend::Overlay,
            (false, false) => Backend::OverlayUser,
        })
    }

    /// The name that is recorded in a store and shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Backend::Aufs => "aufs",
            Backend::Overlay => "overlay",
            Backend::OverlayUser => "overlay-user",
        }
    }

    /// Whether the file system can be told a path: aufs has no escape for `:`, `,` and `=`, overlayfs takes
    /// any. The error says why not.
    pub fn can_name(self, path: &Path) -> Result<(), String> {
        if self == Backend::Aufs && !aufs::can_name(path) {
            return Err(format!(
                "aufs cannot be told the path {path:?}: it holds one of : , = \\ \" or a newline"
            ));
        }
        Ok(())
    }

    /// The name in `/proc/filesystems`.
    pub(super) fn filesystem(self) -> &'static str {
        match self {
            Backend::Aufs => "aufs",
            Backend::Overlay | Backend::OverlayUser => "overlay",
        }
    }
}

/// Whether the kernel has a file system, built in or loaded.
pub(super) fn listed(filesystem: &str) -> io::Result<bool> {
    let list = fs::read_to_string("/proc/filesystems")?;
    Ok(list.lines().any(|line| line.split_whitespace().next_back() == Some(filesystem)))
}

pub(super) fn trusted_attributes() -> io::Result<bool> {
    let map = fs::read_to_string("/proc/self/uid_map")?;
    let initial = map.split_whitespace().eq(["0", "0", "4294967295"]);
    Ok(initial && capabilities(None)?.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// File systems that a branch of a union may lie on, of those in [`NAMES`].
pub(super) const FIT: [&str; 11] =
    ["btrfs", "extfs", "f2fs", "jffs2", "jfs", "reiserfs", "squashfs", "tmpfs", "xfs", "zfs", "bcachefs"];

/// statfs magic numbers (linux/magic.h) and the names Docker shows for them, and those that no layer should
/// lie on.
const NAMES: [(u32, &str); 24] = [
    (0x6175_6673, "aufs"),
    (0x9123_683e, "btrfs"),
    (0xca45_1a4e, "bcachefs"),
    (0x28cd_3d45, "cramfs"),
    (0xf15f, "ecryptfs"),
    (0xef53, "extfs"),
    (0xf2f5_2010, "f2fs"),
    (0x4750_4653, "gpfs"),
    (0x72b6, "jffs2"),
    (0x3153_464a, "jfs"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlayfs"),
    (0x8584_58f6, "ramfs"),
    (0x5265_4973, "reiserfs"),
    (0x517b, "smb"),
    (0xff53_4d42, "cifs"),
    (0x7371_7368, "squashfs"),
    (0x0102_1994, "tmpfs"),
    (0x5846_5342, "xfs"),
    (0x2fc1_2fc1, "zfs"),
    (0x9fa0, "proc"),
    (0x6265_6572, "sysfs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
];

/// The name of the file system at a path, its magic number where it has none here.
pub(super) fn filesystem_of(path: &Path) -> io::Result<String> {
    // Only 32 bits are the magic; what is above them is how the platform widened a signed number.
    let magic = statfs(path)?.f_type as u32;
    let known = NAMES.iter().find(|(number, _)| *number == magic);
    Ok(known.map_or_else(|| format!("0x{magic:x}"), |(_, name)| (*name).to_owned()))
}
