//! The file of the record, as redb reads and writes it: with room of its own, and with a note of what failed.
//!
//! Its blocks are set apart when it grows, and some more behind its end. So what is written where the file
//! has been long does not fail for want of room, and a removal finds some on a disk that is full: that is how
//! the disk gets room again. redb does nothing more with a file after any error of reading or writing it;
//! whoever has it open asks [`State::failed`], and opens it anew.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use redb::backends::FileBackend;
use redb::{BackendError, DatabaseError, StorageBackend};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

/// How many bytes are set apart behind the end of the file. A removal writes some pages of 4 KiB.
const SPARE: u64 = 1 << 20;

/// What is known of a file that is open.
#[derive(Debug, Default)]
pub(super) struct State {
    failed: AtomicBool,
    sparing: AtomicUsize,
}

impl State {
    /// Whether reading or writing failed; nothing more is to be had of the file until it is opened anew.
    pub(super) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Has the file opened anew before it is next used.
    pub(super) fn fail(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// Lets the file grow into what was set apart, on a disk that is full.
    pub(super) fn spare(self: &Arc<Self>) -> Sparing {
        self.sparing.fetch_add(1, Ordering::AcqRel);
        Sparing(self.clone())
    }
}

/// Ends what [`State::spare`] began, when it is dropped.
#[derive(Debug)]
pub(super) struct Sparing(Arc<State>);

impl Drop for Sparing {
    fn drop(&mut self) {
        self.0.sparing.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Disk {
    backend: FileBackend,
    file: File,
    state: Arc<State>,
}

impl Disk {
    /// For a file that is open for reading and writing.
    ///
    /// # Errors
    ///
    /// There are no descriptors left.
    pub(super) fn new(file: File, state: Arc<State>) -> Result<Disk, DatabaseError> {
        let backend = FileBackend::new(file.try_clone()?)?;
        let disk = Disk { backend, file, state };
        // What was set apart has been used, or this file is an older one's. Where there is no room for it
        // now, there is the next time.
        if disk.backend.len()? > 0 {
            drop(disk.set_apart(disk.backend.len()?));
        }
        Ok(disk)
    }

    /// Sets blocks apart for so many bytes and [`SPARE`]. Not every file system can.
    fn set_apart(&self, length: u64) -> io::Result<()> {
        loop {
            match fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, length.saturating_add(SPARE)) {
                Err(Errno::INTR) => {}
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn resize(&self, length: u64) -> io::Result<()> {
        if length > self.backend.len()? {
            match self.set_apart(length) {
                Err(error) if is_shortage(&error) && self.state.sparing.load(Ordering::Acquire) > 0 => {}
                other => other?,
            }
        }
        self.backend.set_len(length)
    }

    fn noted<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.inspect_err(|_| self.state.fail())
    }
}

/// Whether an error says that there is no room.
fn is_shortage(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    [Errno::NOSPC, Errno::DQUOT].into_iter().any(|errno| code == Some(errno.raw_os_error()))
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.noted(self.backend.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.noted(self.backend.read(offset, out))
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.noted(self.resize(length))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.noted(self.backend.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.noted(self.backend.write(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
