//! From an archive to a directory. Parents are opened once; owner, mode, attributes and time are set where
//! making the file has not set them already.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fsetxattr, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};

use crate::tar::{Member, Reader};

/// The directories from the root to where the archive is.
struct Way {
    root: OwnedFd,
    steps: Vec<(Vec<u8>, OwnedFd)>,
}

impl Way {
    /// A descriptor of a directory; those on the way to the one before stay open as far as they are shared.
    fn to(&mut self, directory: &[u8]) -> Result<&OwnedFd> {
        let mut shared = 0;
        let mut components = directory.split(|byte| *byte == b'/').filter(|it| !it.is_empty()).peekable();
        while let Some(component) = components.peek()
            && self.steps.get(shared).is_some_and(|(known, _)| known == component)
        {
            shared += 1;
            components.next();
        }
        self.steps.truncate(shared);
        for component in components {
            let from = self.steps.last().map_or(&self.root, |(_, step)| step);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let step = openat(from, component, flags, Mode::empty())?;
            self.steps.push((component.to_vec(), step));
        }
        Ok(self.steps.last().map_or(&self.root, |(_, step)| step))
    }
}

pub(crate) fn apply(archive: &Path, directory: &Path) -> Result<()> {
    rustix::process::umask(Mode::empty());
    let root = openat(CWD, directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
    let mut way = Way { root, steps: Vec::new() };
    let mut reader = Reader::open(archive)?;
    let mut directories = Vec::new();
    while let Some(member) = reader.next()? {
        put(&mut way, &mut reader, &member, &mut directories)
            .with_context(|| String::from_utf8_lossy(&member.name).into_owned())?;
    }
    // Inner ones first, and all last: what is made in a directory changes its time.
    for member in directories.iter().rev() {
        let (parent, last) = split(&member.name);
        let parent = way.to(parent)?;
        let last = if last.is_empty() { b"." } else { last };
        own(parent, last, member)?;
        utimensat(parent, last, &times(member), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn put(way: &mut Way, reader: &mut Reader, member: &Member, directories: &mut Vec<Member>) -> Result<()> {
    let (parent, last) = split(&member.name);
    let mode = Mode::from_raw_mode(member.mode);
    match member.kind {
        b'5' => {
            if !last.is_empty() {
                mkdirat(way.to(parent)?, last, mode)?;
            }
            directories.push(member.clone());
            return Ok(());
        }
        b'0' if last.starts_with(b".wh.") => return Ok(whiteout(way, parent, last)?),
        b'0' => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = openat(way.to(parent)?, last, flags, mode)?;
            body(reader, member, &file)?;
            if (member.uid, member.gid) != (0, 0) {
                fchown(&file, Some(Uid::from_raw(member.uid)), Some(Gid::from_raw(member.gid)))?;
            }
            if member.mode & 0o7000 != 0 {
                fchmod(&file, mode)?;
            }
            for (name, value) in &member.xattrs {
                fsetxattr(&file, name, value, XattrFlags::empty())?;
            }
            return Ok(futimens(&file, &times(member))?);
        }
        b'1' => {
            let (from, name) = split(&member.target);
            if from == parent {
                let parent = way.to(parent)?;
                return Ok(linkat(parent, name, parent, last, AtFlags::empty())?);
            }
            let from = way.to(from)?.as_fd().try_clone_to_owned()?;
            return Ok(linkat(from, name, way.to(parent)?, last, AtFlags::empty())?);
        }
        b'2' => symlinkat(&member.target[..], way.to(parent)?, last)?,
        b'3' | b'4' | b'6' => {
            let kind = match member.kind {
                b'3' => FileType::CharacterDevice,
                b'4' => FileType::BlockDevice,
                _ => FileType::Fifo,
            };
            let device: Dev = makedev(member.device.0, member.device.1);
            mknodat(way.to(parent)?, last, kind, mode, device)?;
        }
        other => bail!("a member of kind {other}"),
    }
    let parent = way.to(parent)?;
    own(parent, last, member)?;
    Ok(utimensat(parent, last, &times(member), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// What overlayfs takes for a deletion, and for an opaque directory.
fn whiteout(way: &mut Way, parent: &[u8], last: &[u8]) -> Result<(), rustix::io::Errno> {
    let failed = |_| rustix::io::Errno::NOENT;
    if last == b".wh..wh..opq" {
        let (outer, name) = split(parent);
        let outer = way.to(outer).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = openat(outer, name, flags, Mode::empty())?;
        return fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty());
    }
    let parent = way.to(parent).map_err(failed)?;
    mknodat(parent, &last[4..], FileType::CharacterDevice, Mode::empty(), makedev(0, 0))
}

fn body(reader: &mut Reader, member: &Member, file: &OwnedFd) -> Result<()> {
    let write = |mut offset: u64, mut bytes: &[u8]| -> Result<()> {
        while !bytes.is_empty() {
            let count = rustix::io::pwrite(file, bytes, offset)?;
            offset += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    };
    match member.sparse {
        None => {
            let zeros = [0; 4096];
            reader.body(member.stored, |offset, bytes| {
                // Holes are kept by large files: blocks of nothing but zeros are not written.
                if member.stored < 1 << 16 {
                    return write(offset, bytes);
                }
                let (mut from, mut at) = (0, 0);
                while at < bytes.len() {
                    let end = (at + zeros.len()).min(bytes.len());
                    if bytes[at..end] == zeros[..] {
                        write(offset + from as u64, &bytes[from..at])?;
                        from = end;
                    }
                    at = end;
                }
                write(offset + from as u64, &bytes[from..])
            })?;
            if member.stored >= 1 << 16 {
                ftruncate(file, member.stored)?;
            }
        }
        Some(size) => {
            let (parts, _) = reader.map()?;
            for (start, length) in parts {
                reader.body(length, |offset, bytes| write(start + offset, bytes))?;
            }
            ftruncate(file, size)?;
        }
    }
    reader.pad(member.stored)
}

fn own(parent: &OwnedFd, last: &[u8], member: &Member) -> Result<()> {
    if (member.uid, member.gid) != (0, 0) {
        let (uid, gid) = (Uid::from_raw(member.uid), Gid::from_raw(member.gid));
        chownat(parent, last, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    if member.mode & 0o7000 != 0 && member.kind != b'2' {
        rustix::fs::chmodat(parent, last, Mode::from_raw_mode(member.mode), AtFlags::empty())?;
    }
    Ok(())
}

fn times(member: &Member) -> Timestamps {
    let time = Timespec { tv_sec: member.seconds, tv_nsec: member.nanoseconds };
    Timestamps { last_access: time, last_modification: time }
}

/// The parent and the last component, without `./` and slashes at the end.
fn split(name: &[u8]) -> (&[u8], &[u8]) {
    let name = name.strip_prefix(b".").filter(|rest| rest.is_empty() || rest[0] == b'/').unwrap_or(name);
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let name = name.strip_suffix(b"/").unwrap_or(name);
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}
