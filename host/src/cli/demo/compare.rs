//! A comparison of two trees that shares nothing with the code it checks: all that lstat(2), readlink(2),
//! listxattr(2) and reading tell.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::error::Escaped;

/// Every name below a directory, relative to it, sorted by bytes. No symbolic link is followed.
pub(super) fn names(root: &Path) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    let mut open: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let path = root.join(&directory);
        for entry in fs::read_dir(&path).with_context(|| path.display().to_string())? {
            let entry = entry.with_context(|| path.display().to_string())?;
            let name = directory.join(entry.file_name());
            if entry.file_type().with_context(|| path.display().to_string())?.is_dir() {
                open.push(name.clone());
            }
            names.push(name.into_os_string().into_vec());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// The sizes of the regular files below a directory, each file once.
pub(super) fn size(root: &Path) -> Result<u64> {
    let mut files = HashMap::new();
    for name in names(root)? {
        let metadata = root.join(OsStr::from_bytes(&name)).symlink_metadata()?;
        if metadata.is_file() {
            files.insert((metadata.dev(), metadata.ino()), metadata.len());
        }
    }
    Ok(files.values().sum())
}

/// Whether the roots themselves are compared, or only what is below them. The root of a mount is that of its
/// uppermost layer, with times of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Roots {
    Compared,
    LeftOut,
}

/// Compares two trees and tells what differs, a line each. `pulse` is called once for each name; its error
/// ends the comparison.
pub(super) fn trees(
    left: &Path,
    right: &Path,
    roots: Roots,
    pulse: impl Fn() -> Result<()>,
) -> Result<Vec<String>> {
    let (mut in_left, mut in_right) = (names(left)?, names(right)?);
    if roots == Roots::Compared {
        in_left.insert(0, Vec::new());
        in_right.insert(0, Vec::new());
    }
    let mut differences = Vec::new();
    let (mut links_left, mut links_right) = (Links::default(), Links::default());
    let (mut at_left, mut at_right) = (in_left.iter().peekable(), in_right.iter().peekable());
    loop {
        pulse()?;
        let name = match (at_left.peek(), at_right.peek()) {
            (None, None) => break,
            (Some(&a), Some(&b)) if a == b => {
                at_left.next();
                at_right.next();
                a
            }
            (Some(&a), b) if b.is_none_or(|&b| a < b) => {
                at_left.next();
                differences.push(format!("/{}: only in the first", Escaped(a)));
                continue;
            }
            (_, _) => {
                let name = at_right.next().map(Vec::as_slice).unwrap_or_default();
                differences.push(format!("/{}: only in the second", Escaped(name)));
                continue;
            }
        };
        let (a, b) = (left.join(OsStr::from_bytes(name)), right.join(OsStr::from_bytes(name)));
        let what = differs(&a, &b, name, &mut links_left, &mut links_right);
        let what = what.with_context(|| format!("comparing /{}", Escaped(name)))?;
        differences.extend(what.map(|what| format!("/{}: {what}", Escaped(name))));
    }
    Ok(differences)
}

/// The first name of each file that has several.
#[derive(Debug, Default)]
struct Links(HashMap<(u64, u64), Vec<u8>>);

impl Links {
    fn first(&mut self, metadata: &Metadata, name: &[u8]) -> Vec<u8> {
        if metadata.is_dir() || metadata.nlink() < 2 {
            return name.to_vec();
        }
        self.0.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.to_vec()).clone()
    }
}

/// The first thing in which two files of the same name differ.
fn differs(
    a: &Path,
    b: &Path,
    name: &[u8],
    links_a: &mut Links,
    links_b: &mut Links,
) -> io::Result<Option<String>> {
    let (left, right) = (a.symlink_metadata()?, b.symlink_metadata()?);
    let kind = left.file_type();
    let pairs = [
        ("owner", left.uid().into(), right.uid().into()),
        ("group", left.gid().into(), right.gid().into()),
        ("seconds", left.mtime(), right.mtime()),
        ("nanoseconds", left.mtime_nsec(), right.mtime_nsec()),
    ];
    if left.mode() != right.mode() {
        return Ok(Some(format!("mode {:o} and {:o}", left.mode(), right.mode())));
    }
    for (what, left, right) in pairs {
        if left != right {
            return Ok(Some(format!("{what} {left} and {right}")));
        }
    }
    // The mode holds the type as well: from here on both are of one kind.
    if !kind.is_dir() && left.len() != right.len() {
        return Ok(Some(format!("size {} and {}", left.len(), right.len())));
    }
    if (kind.is_char_device() || kind.is_block_device()) && left.rdev() != right.rdev() {
        return Ok(Some("device numbers".to_owned()));
    }
    if links_a.first(&left, name) != links_b.first(&right, name) {
        return Ok(Some("hard links".to_owned()));
    }
    if kind.is_symlink() && fs::read_link(a)? != fs::read_link(b)? {
        return Ok(Some("targets".to_owned()));
    }
    if attributes(a)? != attributes(b)? {
        return Ok(Some("extended attributes".to_owned()));
    }
    if kind.is_file() && !same_content(File::open(a)?, File::open(b)?)? {
        return Ok(Some("content".to_owned()));
    }
    Ok(None)
}

/// Extended attributes, sorted by name.
fn attributes(path: &Path) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // No list and no value of Linux is longer (xattr(7), XATTR_LIST_MAX and XATTR_SIZE_MAX).
    const MOST: usize = 65_536;
    let mut buffer = vec![0; MOST];
    let length = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Ok(length) => length,
        // A file system without them has none.
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    let names = buffer[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty());
    for name in names {
        let mut value = vec![0; MOST];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        attributes.push((name.to_vec(), value));
    }
    attributes.sort_unstable();
    Ok(attributes)
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (read_a, read_b) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..read_a] != right[..read_b] {
            return Ok(false);
        }
        if read_a == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Makes a tree with a bit of everything, with times that are all the same.
    fn make(root: &Path) {
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d/file"), "text").unwrap();
        fs::hard_link(root.join("d/file"), root.join("hard")).unwrap();
        symlink("d/file", root.join("soft")).unwrap();
        fs::write(root.join("other"), "text").unwrap();
    }

    fn settle(root: &Path) {
        for name in names(root)
            .unwrap()
            .iter()
            .map(|name| root.join(OsStr::from_bytes(name)))
            .chain([root.to_owned()])
        {
            let time = nix::sys::time::TimeSpec::new(1000, 5);
            let flag = nix::sys::stat::UtimensatFlags::NoFollowSymlink;
            nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, &name, &time, &time, flag).unwrap();
        }
    }

    type Change = fn(&Path);

    #[test]
    fn differences_are_told() {
        let cases: [(&str, Change, &[&str]); 7] = [
            ("nothing", |_| {}, &[]),
            (
                "mode",
                |root| fs::set_permissions(root.join("other"), fs::Permissions::from_mode(0o600)).unwrap(),
                &["/other: mode 100644 and 100600"],
            ),
            ("content", |root| fs::write(root.join("other"), "tEXt").unwrap(), &["/other: content"]),
            ("size", |root| fs::write(root.join("other"), "longer").unwrap(), &["/other: size 4 and 6"]),
            (
                "target",
                |root| {
                    fs::remove_file(root.join("soft")).unwrap();
                    symlink("d/FILE", root.join("soft")).unwrap();
                },
                &["/soft: targets"],
            ),
            (
                "links",
                |root| {
                    fs::remove_file(root.join("hard")).unwrap();
                    fs::write(root.join("hard"), "text").unwrap();
                },
                &["/hard: hard links"],
            ),
            (
                "names",
                |root| fs::rename(root.join("other"), root.join("another")).unwrap(),
                &["/another: only in the second", "/other: only in the first"],
            ),
        ];
        let scratch = std::env::temp_dir().join(format!("layerbox-compare-{}", std::process::id()));
        for (case, change, expected) in cases {
            let (left, right) = (scratch.join(case).join("left"), scratch.join(case).join("right"));
            for root in [&left, &right] {
                make(root);
                for file in ["d/file", "other"] {
                    fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o644)).unwrap();
                }
            }
            change(&right);
            settle(&left);
            settle(&right);
            assert_eq!(trees(&left, &right, Roots::Compared, || Ok(())).unwrap(), expected, "{case}");
        }
        fs::remove_dir_all(scratch).unwrap();
    }
}
