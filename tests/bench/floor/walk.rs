//! The names of a tree, in order, and nothing else of it: what a list of changes of a lowest layer needs.

use std::io::{self, BufWriter, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::Result;
use rustix::fs::{CWD, FileType, Mode, OFlags, RawDir, openat};

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What a directory holds, sorted by name.
pub(crate) fn list(directory: &OwnedFd) -> Result<Vec<(Vec<u8>, FileType)>> {
    let mut buffer = [MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(directory, &mut buffer);
    let mut found = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            found.push((name.to_vec(), entry.file_type()));
        }
    }
    found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    Ok(found)
}

/// Opens a directory to list it.
pub(crate) fn enter(parent: Option<&OwnedFd>, name: &[u8]) -> Result<OwnedFd> {
    Ok(match parent {
        Some(parent) => openat(parent, name, FLAGS, Mode::empty())?,
        None => openat(CWD, name, FLAGS, Mode::empty())?,
    })
}

pub(crate) fn walk(directory: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let root = enter(None, directory.as_os_str().as_bytes())?;
    below(&root, &mut Vec::new(), &mut |path, _, _| {
        out.write_all(b"A /")?;
        out.write_all(path)?;
        Ok(out.write_all(b"\n")?)
    })?;
    Ok(out.flush()?)
}

/// What is called for each name.
type Each<'a> = dyn FnMut(&[u8], &OwnedFd, &[u8]) -> Result<()> + 'a;

/// Calls for each name below a directory, depth first: its path, its parent, its last component.
pub(crate) fn below(directory: &OwnedFd, path: &mut Vec<u8>, each: &mut Each<'_>) -> Result<()> {
    for (name, kind) in list(directory)? {
        let length = path.len();
        path.extend_from_slice(if length > 0 { b"/" } else { b"" });
        path.extend_from_slice(&name);
        each(path, directory, &name)?;
        if kind == FileType::Directory {
            below(&enter(Some(directory), &name)?, path, each)?;
        }
        path.truncate(length);
    }
    Ok(())
}
