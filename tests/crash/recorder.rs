//! A disk in memory that notes in which order it was written and flushed, so that what a power cut would have
//! left can be made of it.
//!
//! It is a file system with one file (FUSE), and that file is what a loop device lies on. The kernel passes
//! every write of the device on, and every flush of its cache as an fsync of the file. What was written
//! before a flush that has ended is on the disk; of what was written after it, a power cut leaves anything.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite,
    Request, WriteFlags,
};

/// The name of the file.
pub const NAME: &str = "disk";

const DISK: INodeNo = INodeNo(2);

/// The kernel may keep what it knows of the file: nothing of that ever changes.
const FOR_EVER: Duration = Duration::from_secs(1 << 20);

/// What happened to the disk.
#[derive(Debug, Clone)]
pub enum Event {
    /// Bytes were written at an offset.
    Write(usize, Vec<u8>),
    /// All that was written before is on the disk.
    Flush,
    /// The case says that a call has ended.
    Mark,
}

/// The disk as its users see it, and what happened to it since it was made.
#[derive(Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    events: Vec<Event>,
}

/// The mounted file system.
#[derive(Debug)]
pub struct Recorder {
    disk: Arc<Mutex<Disk>>,
    session: Option<BackgroundSession>,
}

impl Recorder {
    /// Mounts a disk with these contents.
    ///
    /// # Errors
    ///
    /// There is no FUSE.
    pub fn mount(bytes: Vec<u8>, on: &Path) -> Result<Recorder> {
        let disk = Arc::new(Mutex::new(Disk { bytes, events: Vec::new() }));
        let session = fuser::spawn_mount(Device(disk.clone()), on, &Config::default());
        Ok(Recorder { disk, session: Some(session.context("mount a FUSE")?) })
    }

    /// Notes that a call has ended.
    pub fn mark(&self) {
        lock(&self.disk).events.push(Event::Mark);
    }

    /// Ends it, and gives what has happened so far.
    pub fn end(mut self) -> Vec<Event> {
        let events = std::mem::take(&mut lock(&self.disk).events);
        drop(self.session.take());
        events
    }
}

fn lock(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Device(Arc<Mutex<Disk>>);

impl Device {
    fn attributes(&self, inode: INodeNo) -> FileAttr {
        let is_disk = inode == DISK;
        let size = if is_disk { lock(&self.0).bytes.len() as u64 } else { 0 };
        FileAttr {
            ino: inode,
            size,
            blocks: size / 512,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_disk { FileType::RegularFile } else { FileType::Directory },
            perm: if is_disk { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// The part of the disk from an offset on, as far as there is one.
fn part(disk: &mut Disk, offset: u64, length: usize) -> &mut [u8] {
    let size = disk.bytes.len();
    let from = usize::try_from(offset).unwrap_or(size).min(size);
    &mut disk.bytes[from..size.min(from.saturating_add(length))]
}

impl Filesystem for Device {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME {
            reply.entry(&FOR_EVER, &self.attributes(DISK), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_EVER, &self.attributes(inode));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // Nothing may lie in a cache of which the recorder does not know.
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(part(&mut lock(&self.0), offset, size as usize));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = lock(&self.0);
        let part = part(&mut disk, offset, data.len());
        if part.len() != data.len() {
            return reply.error(Errno::ENOSPC);
        }
        part.copy_from_slice(data);
        // It fits into the disk, which is in memory.
        disk.events.push(Event::Write(offset as usize, data.to_vec()));
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        lock(&self.0).events.push(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
