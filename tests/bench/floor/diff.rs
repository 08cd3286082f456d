//! From a directory to an archive on the standard output.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::Result;
use layerbox_tests::archive::{Member, Tar, member};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxFlags, openat, readlinkat, statx};

use crate::walk::{below, enter};

/// How much is written at a time.
const PIECE: usize = 256 * 1024;

struct Out {
    file: File,
    buffer: Vec<u8>,
}

impl Out {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if self.buffer.len() + bytes.len() > PIECE {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// A file's content, padded.
    fn content(&mut self, mut file: File, length: u64) -> Result<()> {
        let mut rest = usize::try_from(length)?;
        while rest > 0 {
            if self.buffer.len() >= PIECE {
                self.flush()?;
            }
            let start = self.buffer.len();
            self.buffer.resize(start + rest.min(PIECE - start), 0);
            file.read_exact(&mut self.buffer[start..])?;
            rest -= self.buffer.len() - start;
        }
        self.buffer.resize(self.buffer.len() + (512 - (length % 512) as usize) % 512, 0);
        Ok(())
    }
}

pub(crate) fn diff(directory: &Path) -> Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    let root = enter(None, directory.as_os_str().as_bytes())?;
    let stdout = std::io::stdout().as_fd().try_clone_to_owned()?;
    let mut out = Out { file: File::from(stdout), buffer: Vec::with_capacity(2 * PIECE) };
    let mut names = HashMap::new();
    below(&root, &mut Vec::new(), &mut |path, parent, last| one(&mut out, &mut names, path, parent, last))?;
    out.put(&[0; 1024])?;
    out.flush()
}

fn one(
    out: &mut Out,
    names: &mut HashMap<u64, Vec<u8>>,
    path: &[u8],
    parent: &OwnedFd,
    last: &[u8],
) -> Result<()> {
    let found = statx(parent, last, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    if kind != FileType::Directory && found.stx_nlink > 1 {
        if let Some(first) = names.get(&found.stx_ino) {
            return out.put(Tar::new().add(&Member { target: first.clone(), ..member(path, b'1') }).view());
        }
        names.insert(found.stx_ino, path.to_vec());
    }
    let mut entry = member(path, b'0')
        .mode(u32::from(found.stx_mode) & 0o7777)
        .owner(found.stx_uid.into(), found.stx_gid.into())
        .mtime(found.stx_mtime.tv_sec);
    entry.device = (found.stx_rdev_major, found.stx_rdev_minor);
    if found.stx_mtime.tv_nsec != 0 {
        entry = entry.pax("mtime", format!("{}.{:09}", found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec));
    }
    // No call lists the attributes of a name in a directory; this resolves one name as well.
    let way = format!("/proc/self/fd/{}/", parent.as_raw_fd()).into_bytes();
    let way = [&way[..], last].concat();
    let mut buffer = [MaybeUninit::uninit(); 64 * 1024];
    let list = rustix::fs::llistxattr(&way[..], &mut buffer)?.0.to_vec();
    for name in list.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = rustix::fs::lgetxattr(&way[..], name, &mut buffer)?.0;
        entry = entry.xattr(std::str::from_utf8(name)?, &*value);
    }
    entry.kind = match kind {
        FileType::Directory => b'5',
        FileType::Symlink => {
            entry.target = readlinkat(parent, last, Vec::new())?.into_bytes();
            b'2'
        }
        FileType::CharacterDevice => b'3',
        FileType::BlockDevice => b'4',
        FileType::Fifo => b'6',
        _ => b'0',
    };
    if entry.kind != b'0' {
        return out.put(Tar::new().add(&entry).view());
    }
    out.put(Tar::new().add(&entry.size(found.stx_size)).view())?;
    if found.stx_size > 0 {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        out.content(File::from(openat(parent, last, flags, Mode::empty())?), found.stx_size)?;
    }
    Ok(())
}
