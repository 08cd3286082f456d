//! Locks between processes and between threads: one on the store, one for each layer.
//!
//! All are flock(2) on a file of their own, so that a process that dies holds none. The store's says who owns it: a service alone, or
//! command lines side by side. A layer's is shared by calls that read it and exclusive for a call that changes it; its file lies on the tmpfs
//! and is removed by the last holder.

use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cap_std::fs::{Dir, OpenOptionsExt as _};
use layerbox_privileged::id::LayerId;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::Failure;

/// How long a call waits for another one on the same layer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Beside others that hold it so.
    Shared,
    /// Alone.
    Exclusive,
}

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Guard {
    /// The file; closing it unlocks it, and cannot fail.
    lock: Option<std::fs::File>,
    mode: Mode,
    /// The file to remove when nobody else holds it; none for the store's.
    path: Option<PathBuf>,
}

impl Guard {
    /// Takes the lock on the store.
    pub(super) fn store(dir: &Dir, mode: Mode, patience: Duration) -> Result<Guard, Failure> {
        let options = cap_std::fs::OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
        let mut file = dir.open_with("lock", &options).map_err(|e| Failure::io("open", &e))?.into_std();
        let mut owner = String::new();
        Read::by_ref(&mut file).take(256).read_to_string(&mut owner).map_err(|e| Failure::io("read", &e))?;
        match wait(file, mode, patience) {
            Ok(lock) => {
                let mut guard = Guard { lock: Some(lock), mode, path: None };
                if mode == Mode::Exclusive {
                    // Only the message to others wants it: a full disk is no reason to stay away.
                    drop(guard.sign(&format!("process {}", std::process::id()), u64::MAX));
                }
                Ok(guard)
            }
            Err(Failure::Busy(_)) if owner.trim().is_empty() => {
                Err(Failure::StoreInUse("another process".to_owned()))
            }
            Err(Failure::Busy(_)) => Err(Failure::StoreInUse(owner.trim().to_owned())),
            Err(other) => Err(other),
        }
    }

    /// Goes on with the store's lock beside others.
    pub(super) fn share(mut self) -> Result<Guard, Failure> {
        self.mode = Mode::Shared;
        if let Some(lock) = &self.lock {
            flock(lock, FlockOperation::LockShared).map_err(|errno| Failure::io("flock", &errno.into()))?;
        }
        Ok(self)
    }

    /// Takes the lock on a layer; waits up to half a minute for others.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] when it is held all that time.
    pub fn layer(runtime: &Path, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::acquire(runtime, id, mode, PATIENCE)
    }

    /// As [`Guard::layer`], without waiting.
    pub(super) fn try_layer(runtime: &Path, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::acquire(runtime, id, mode, Duration::ZERO)
    }

    fn acquire(runtime: &Path, id: &LayerId, mode: Mode, patience: Duration) -> Result<Guard, Failure> {
        let path = runtime.join("locks").join(id.as_str());
        loop {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|e| Failure::io("open", &e))?;
            let before = file.metadata().map_err(|e| Failure::io("stat", &e))?;
            let lock = wait(file, mode, patience).map_err(|failure| match failure {
                Failure::Busy(_) => {
                    let holder = std::fs::read_to_string(&path).unwrap_or_default();
                    Failure::Busy(format!("process {} works on it", holder.trim()))
                }
                other => other,
            })?;
            // The last holder may have removed the file after it was opened here: then this lock locks out nobody.
            match std::fs::metadata(&path) {
                Ok(now) if now.ino() == before.ino() && now.dev() == before.dev() => {
                    let mut guard = Guard { lock: Some(lock), mode, path: Some(path) };
                    // Only the message to others wants it, here too.
                    drop(guard.sign(&std::process::id().to_string(), now.len()));
                    return Ok(guard);
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Failure::io("stat", &e)),
            }
        }
    }

    /// Writes down who holds the lock, for the message to those who wait in vain. `length` is that of what the file holds.
    fn sign(&mut self, text: &str, length: u64) -> Result<(), Failure> {
        let Some(lock) = &mut self.lock else { return Ok(()) };
        let cut = text.len() as u64;
        lock.write_all_at(text.as_bytes(), 0)
            .and_then(|()| if length > cut { lock.set_len(cut) } else { Ok(()) })
            .map_err(|e| Failure::io("write", &e))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(path), Some(lock)) = (self.path.take(), self.lock.take()) else { return };
        // Whoever can have it alone is the last. A file that stays behind is a few bytes on a tmpfs, so errors do not matter here.
        let alone = || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if self.mode == Mode::Exclusive || alone() {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Locks a file, waiting for a while. [`Failure::Busy`] when it is held all that time.
fn wait(file: std::fs::File, mode: Mode, patience: Duration) -> Result<std::fs::File, Failure> {
    let operation = match mode {
        Mode::Shared => FlockOperation::NonBlockingLockShared,
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(file),
            Err(Errno::INTR) => continue,
            Err(Errno::WOULDBLOCK) if begin.elapsed() < patience => {}
            Err(Errno::WOULDBLOCK) => return Err(Failure::Busy(String::new())),
            Err(errno) => return Err(Failure::io("flock", &errno.into())),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
