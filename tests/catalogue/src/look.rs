//! What lies in a directory, at any depth, and in lines that a row of the table can hold.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::Dialect;

/// The time that members of archives have when nothing else is said, and directories that no archive speaks
/// of.
const USUAL_TIME: (i64, u64) = (1_000_000_000, 0);
const IMPLIED_TIME: (i64, u64) = (0, 0);
/// Content up to this length is shown.
const SHOWN: usize = 40;
/// Files up to this length are read.
const MOST_READ: u64 = 1 << 20;

/// One name, with all that can be told about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The type of the file.
    pub kind: FileType,
    /// The permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// Size in bytes.
    pub size: u64,
    /// Device number, of a device.
    pub device: (u32, u32),
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// The bytes of a regular file that is not large.
    pub content: Option<Vec<u8>>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Modification: seconds and nanoseconds.
    pub mtime: (i64, u64),
    /// Change of status, which nobody can set.
    pub ctime: (i64, u64),
    /// Which file it is.
    pub inode: u64,
}

/// All names below a directory; the empty name is the directory itself.
///
/// # Errors
/// Those of reading.
pub fn look(root: &Path) -> io::Result<BTreeMap<Vec<u8>, Found>> {
    let mut all = BTreeMap::new();
    let mut here = rustix::fs::open(root, DIRECTORY, Mode::empty())?;
    all.insert(Vec::new(), at(&here, b".")?.0);
    let mut open = vec![(0, names(&here)?)];
    let mut path = Vec::new();
    // One directory is open at a time, so no depth is too much.
    while let Some((length, names)) = open.last_mut() {
        path.truncate(*length);
        let Some(name) = names.pop() else {
            open.pop();
            if !open.is_empty() {
                here = rustix::fs::openat(&here, "..", DIRECTORY, Mode::empty())?;
            }
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(&name);
        let (found, opened) = at(&here, &name)?;
        let enter = found.kind == FileType::Directory;
        all.insert(path.clone(), found);
        if enter && let Some(directory) = opened {
            here = directory.into();
            open.push((path.len(), self::names(&here)?));
        }
    }
    Ok(all)
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// What a name stands for, and where that is a regular file or a directory, open.
fn at(directory: &OwnedFd, name: &[u8]) -> io::Result<(Found, Option<File>)> {
    let stat: Stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let opened = match kind {
        FileType::RegularFile | FileType::Directory => {
            let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
            Some(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
        }
        _ => None,
    };
    let content = match &opened {
        Some(file) if kind == FileType::RegularFile && size <= MOST_READ => {
            let mut bytes = Vec::new();
            (&mut &*file).read_to_end(&mut bytes)?;
            Some(bytes)
        }
        _ => None,
    };
    let xattrs = match &opened {
        Some(file) => xattrs(
            |buffer| rustix::fs::flistxattr(file, buffer),
            |name, buffer| rustix::fs::fgetxattr(file, name, buffer),
        )?,
        None => {
            // By the descriptor's number: what takes no directory descriptor takes this, and the name alone
            // is never too long. A walk of its own through /proc, which is what takes longest here, so not
            // for what can be opened.
            let path =
                [format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).as_bytes(), name].concat();
            let path = CString::new(path)?;
            xattrs(
                |buffer| rustix::fs::llistxattr(&*path, buffer),
                |name, buffer| rustix::fs::lgetxattr(&*path, name, buffer),
            )?
        }
    };
    let target = match kind {
        FileType::Symlink => rustix::fs::readlinkat(directory, name, Vec::new())?.into_bytes(),
        _ => Vec::new(),
    };
    let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
    let found = Found {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        size,
        device: match is_device {
            true => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            false => (0, 0),
        },
        target,
        content,
        xattrs,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        ctime: (stat.st_ctime, stat.st_ctime_nsec),
        inode: stat.st_ino,
    };
    Ok((found, opened))
}

fn xattrs(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut all = BTreeMap::new();
    // Mostly there are none.
    if matches!(list(&mut [0; 8]), Ok(0) | Err(Errno::OPNOTSUPP)) {
        return Ok(all);
    }
    let mut buffer = vec![0; 64 * 1024];
    let length = list(&mut buffer)?;
    let names = buffer[..length].to_vec();
    for name in names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let length = get(name, &mut buffer)?;
        all.insert(name.to_vec(), buffer[..length].to_vec());
    }
    Ok(all)
}

/// A layer in lines, sorted: `NAME TYPE`, with content or target, and whatever attribute is not the usual
/// one. Deletions have one form for both dialects, and what a dialect keeps for itself is left out. With
/// `any_time`, times are left out.
pub fn describe(layer: &BTreeMap<Vec<u8>, Found>, dialect: Dialect, any_time: bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, found) in layer {
        let name = show(path);
        let slash = path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let parent = show(&path[..slash]);
        let parent = if parent == "/" { "" } else { &parent };
        match (dialect, path[slash..].strip_prefix(b".wh.")) {
            (Dialect::Aufs, Some(b".wh.aufs")) => {}
            (Dialect::Aufs, Some(b".wh..opq")) => {
                lines.push(format!("{} opaque", if parent.is_empty() { "/" } else { parent }));
            }
            (Dialect::Aufs, Some(hidden)) => lines.push(format!("{parent}{} deleted", show(hidden))),
            (Dialect::Overlay, _) if found.kind == FileType::CharacterDevice && found.device == (0, 0) => {
                lines.push(format!("{name} deleted"));
            }
            _ => {
                if found.xattrs.get(&b"trusted.overlay.opaque"[..]).is_some_and(|value| value == b"y") {
                    lines.push(if path.is_empty() {
                        "/ opaque".to_owned()
                    } else {
                        format!("{name}/ opaque")
                    });
                }
                let attributes = attributes(found, any_time);
                // The root is told of where it says something.
                let quiet = path.is_empty() && (attributes.is_empty() || attributes == ", implied");
                if !quiet {
                    lines.push(format!("{name} {}{attributes}", kind(found)));
                }
            }
        }
    }
    lines.sort();
    lines
}

fn kind(found: &Found) -> String {
    let (major, minor) = found.device;
    match found.kind {
        FileType::RegularFile => match &found.content {
            Some(content) if content.len() <= SHOWN => format!("file \"{}\"", content.escape_ascii()),
            _ => format!("file of {}", found.size),
        },
        FileType::Directory => "directory".to_owned(),
        FileType::Symlink => format!("-> {}", show(&found.target)),
        FileType::CharacterDevice => format!("character {major}:{minor}"),
        FileType::BlockDevice => format!("block {major}:{minor}"),
        FileType::Fifo => "fifo".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What is not usual: the mode (0644, 0755 of directories, 0777 of symbolic links), the owner, the time,
/// attributes.
fn attributes(found: &Found, any_time: bool) -> String {
    let mut text = String::new();
    let usual = match found.kind {
        FileType::Directory => 0o755,
        FileType::Symlink => 0o777,
        _ => 0o644,
    };
    let implied = found.kind == FileType::Directory && found.mtime == IMPLIED_TIME;
    if implied && found.mode == 0o755 && found.owner == (0, 0) {
        text.push_str(", implied");
    } else if !any_time && found.mtime != USUAL_TIME {
        let (seconds, nanoseconds) = found.mtime;
        text.push_str(&match nanoseconds {
            0 => format!(", time {seconds}"),
            _ => format!(", time {seconds}.{nanoseconds:09}"),
        });
    }
    if found.mode != usual {
        text.push_str(&format!(", mode {:04o}", found.mode));
    }
    if found.owner != (0, 0) {
        text.push_str(&format!(", owner {}:{}", found.owner.0, found.owner.1));
    }
    for (name, value) in found.xattrs.iter().filter(|(name, _)| !name.starts_with(b"trusted.overlay.")) {
        text.push_str(&format!(", {}={}", show(name), show(value)));
    }
    text
}

/// Bytes in a form that is safe to print, cut in the middle where they are many.
pub(crate) fn show(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    match (text.len(), text.get(..40), text.get(text.len().saturating_sub(40)..)) {
        (0, _, _) => "/".to_owned(),
        (121.., Some(start), Some(end)) => format!("{start}…{end} ({} bytes)", bytes.len()),
        _ => text,
    }
}
