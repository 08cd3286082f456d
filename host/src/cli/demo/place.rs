//! Where the demo can work: a directory on a file system that can hold the upper layer of a union.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::XattrFlags;

use super::super::output::human_size;

/// A directory that was made for the demo.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    filesystem: String,
    free: u64,
}

impl Place {
    /// In a line.
    pub(super) fn describe(&self) -> String {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        format!(
            "{} is on {}, which a union can write to; {} are free.",
            parent.display(),
            self.filesystem,
            human_size(self.free)
        )
    }
}

/// File systems that the kernel's unions do not take, or not for writing: unions themselves, those of a network or of a user process, those without
/// extended attributes or device nodes (overlayfs.rst, "Upper and lower file systems"; aufs(5)).
const UNFIT: [&str; 14] = [
    "overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "vfat", "exfat", "msdos", "ramfs",
    "squashfs", "iso9660",
];

/// Makes a directory in the first of the usual places that is fit.
pub(super) fn find() -> Result<Place> {
    let wished = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = ["/var/tmp", "/tmp", "/dev/shm"].map(PathBuf::from);
    let mut reasons = Vec::new();
    for parent in wished.into_iter().chain(usual) {
        match try_place(&parent) {
            Ok(place) => return Ok(place),
            Err(error) => reasons.push(format!("{}: {error:#}", parent.display())),
        }
    }
    bail!("no directory is fit for layers ({}); name one with TMPDIR", reasons.join("; "))
}

fn try_place(parent: &Path) -> Result<Place> {
    let parent = parent.canonicalize()?;
    if parent.to_str().is_none_or(|path| path.contains(char::is_whitespace)) {
        bail!("its name would need quotes");
    }
    let filesystem = filesystem_of(&parent, &mounts()?).context("not in /proc/self/mountinfo")?;
    if UNFIT.contains(&filesystem.as_str()) || filesystem.starts_with("fuse") {
        bail!("a union cannot write to {filesystem}");
    }
    let stat = nix::sys::statvfs::statvfs(&parent)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let path = nix::unistd::mkdtemp(&parent.join("layerbox-demo-XXXXXX")).context("mkdtemp")?;
    let place = Place { path, filesystem, free };
    if let Err(error) = takes_attributes(&place.path) {
        fs::remove_dir(&place.path)?;
        bail!("{} takes no extended attributes: {error}", place.filesystem);
    }
    Ok(place)
}

/// Tries the attributes in which overlayfs keeps its books: `trusted.`, or `user.` in a user namespace.
fn takes_attributes(path: &Path) -> rustix::io::Result<()> {
    let try_name = |name: &str| {
        rustix::fs::setxattr(path, name, b"y", XattrFlags::empty())?;
        rustix::fs::removexattr(path, name)
    };
    try_name("trusted.layerbox").or_else(|_| try_name("user.layerbox"))
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: PathBuf,
    filesystem: String,
}

/// All mounts of this process, in the order in which they were made.
pub(super) fn mounts() -> Result<Vec<Mount>> {
    let table = fs::read("/proc/self/mountinfo").context("/proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = unescaped(fields.nth(4)?);
    // Optional fields follow, up to a hyphen.
    let filesystem = fields.skip_while(|field| *field != b"-").nth(1)?;
    Some(Mount { point: point.into(), filesystem: String::from_utf8_lossy(filesystem).into_owned() })
}

/// Undoes the kernel's `\040` for bytes that would split the fields.
fn unescaped(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(code) => {
                bytes.push(code);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

/// The file system that a path is on: that of the longest mount point above it, the last one if several are there.
fn filesystem_of(path: &Path, mounts: &[Mount]) -> Option<String> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    let nearest = above.max_by_key(|mount| OsStr::as_bytes(mount.point.as_os_str()).len())?;
    Some(nearest.filesystem.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let cases = [
            ("21 1 8:1 / / rw,relatime shared:1 master:2 - ext4 /dev/vda rw", Some(("/", "ext4"))),
            ("30 21 0:5 / /mnt/a\\040b\\134 rw - tmpfs none rw", Some(("/mnt/a b\\", "tmpfs"))),
            ("30 21 0:5", None),
            ("", None),
        ];
        for (line, expected) in cases {
            let mount = parse(line.as_bytes());
            let expected = expected
                .map(|(point, filesystem)| Mount { point: point.into(), filesystem: filesystem.to_owned() });
            assert_eq!(mount, expected, "{line}");
        }
    }

    #[test]
    fn the_nearest_mount_counts() {
        let mount =
            |point: &str, filesystem: &str| Mount { point: point.into(), filesystem: filesystem.into() };
        let mounts =
            [mount("/", "ext4"), mount("/var", "xfs"), mount("/tmp", "btrfs"), mount("/tmp", "tmpfs")];
        let cases = [("/var/tmp", "xfs"), ("/variable", "ext4"), ("/tmp", "tmpfs")];
        for (path, filesystem) in cases {
            assert_eq!(filesystem_of(Path::new(path), &mounts).as_deref(), Some(filesystem));
        }
    }
}
