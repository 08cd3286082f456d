//! The way to a file that is to be written, walked a name at a time by descriptors.
//!
//! A file that appears whole is made beside its place and renamed, so the kernel never opens a path to write
//! to it, and what keeps others' links in `/tmp` from leading root astray (`fs.protected_symlinks`,
//! `protected_regular` and `protected_fifos` in proc_sys_fs(5)) does not hold. So its rules are kept here,
//! whatever those settings are. In a sticky directory that its group or everybody can write,
//!
//! - a symbolic link is followed only where it is ours or the directory owner's: at the end of the way, as
//!   the kernel has it, and also on it, where it leads astray as well;
//! - a file, a FIFO or a device is replaced or written to only where it belongs to one of these: its owner
//!   would keep it, and read what is in it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat};
use rustix::io::Errno;

use crate::error::Failure;
use crate::trust;

/// How many symbolic links are followed; as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// A place, and no rights but to look at it and to go on from it.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a way ends.
#[derive(Debug)]
pub(super) struct End {
    /// The directory.
    pub(super) directory: OwnedFd,
    /// The name in it, of what is no symbolic link.
    pub(super) name: OsString,
    /// What has this name; none where it is free.
    pub(super) old: Option<Stat>,
    /// Whether the name stands for an open pipe or device of a process (`/dev/stdout`, `/dev/fd/3`), which
    /// the kernel alone can follow: no path leads to it.
    pub(super) is_descriptor: bool,
}

/// Goes to where a path leads.
///
/// # Errors
///
/// [`Failure::Untrusted`] by the rules above; [`Failure::Io`] where the path leads nowhere, or to a
/// directory.
pub(super) fn walk(path: &Path) -> Result<End, Failure> {
    let failure = |errno: Errno| Failure::io_at("open", path, &io::Error::from(errno));
    let unmapped = trust::unmapped_owner();
    let start = if path.is_absolute() { "/" } else { "." };
    let mut directory = rustix::fs::open(start, LOOK, Mode::empty()).map_err(failure)?;
    let mut shown = PathBuf::new();
    let mut links = 0;
    // The last is the next.
    let mut rest = names(path);
    while let Some(name) = rest.pop() {
        if name.is_empty() || name == "." {
            continue;
        }
        let at = shown.join(&name);
        let found = match rustix::fs::openat(&directory, &name, LOOK, Mode::empty()) {
            Err(Errno::NOENT) if rest.is_empty() => {
                return Ok(End { directory, name, old: None, is_descriptor: false });
            }
            other => other.map_err(failure)?,
        };
        let stat = rustix::fs::fstat(&found).map_err(failure)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                directory = found;
                shown = at;
            }
            FileType::Symlink => {
                if rest.is_empty()
                    && let Some(end) = descriptor(&directory, &name)
                {
                    return Ok(End { directory, name, old: Some(end), is_descriptor: true });
                }
                judge(&at, "the link", &stat, &rustix::fs::fstat(&directory).map_err(failure)?, unmapped)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(failure(Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&found, "", Vec::new()).map_err(failure)?;
                rest.extend(names(Path::new(OsStr::from_bytes(target.as_bytes()))));
            }
            _ if !rest.is_empty() => return Err(failure(Errno::NOTDIR)),
            _ => {
                judge(&at, "the file", &stat, &rustix::fs::fstat(&directory).map_err(failure)?, unmapped)?;
                return Ok(End { directory, name, old: Some(stat), is_descriptor: false });
            }
        }
    }
    Err(failure(Errno::ISDIR))
}

/// What a link of proc(5) to a descriptor stands for, where that is neither a file nor a directory.
fn descriptor(directory: &OwnedFd, name: &OsStr) -> Option<Stat> {
    let is_proc = rustix::fs::fstatfs(directory).is_ok_and(|found| found.f_type == PROC_SUPER_MAGIC);
    let end = is_proc.then(|| rustix::fs::statat(directory, name, AtFlags::empty()).ok()).flatten()?;
    let kind = FileType::from_raw_mode(end.st_mode);
    (!matches!(kind, FileType::RegularFile | FileType::Directory)).then_some(end)
}

/// The names of a path, the last one first. An absolute path begins with `/`, which is the root wherever it
/// is opened from; one that ends in a slash, and so names a directory, has an empty last one.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect();
    if let Some(first) = names.first_mut()
        && path.is_absolute()
    {
        *first = OsString::from("/");
    }
    names.reverse();
    names
}

/// Holds what lies in a directory to the rule for sticky ones.
fn judge(at: &Path, what: &str, stat: &Stat, directory: &Stat, unmapped: Option<u32>) -> Result<(), Failure> {
    const STICKY: u32 = 0o1000;
    const OTHERS_WRITE: u32 = 0o022;
    let is_shared = directory.st_mode & STICKY != 0 && directory.st_mode & OTHERS_WRITE != 0;
    let us = nix::unistd::geteuid().as_raw();
    // An owner from outside of this user namespace may be anybody, also where the directory's is shown as the
    // same.
    let is_trusted = (stat.st_uid == us || stat.st_uid == directory.st_uid) && Some(stat.st_uid) != unmapped;
    if !is_shared || is_trusted {
        return Ok(());
    }
    let owner = stat.st_uid;
    Err(trust::untrusted(at, &format!("in a sticky directory, and {what} belongs to another user ({owner})")))
}
