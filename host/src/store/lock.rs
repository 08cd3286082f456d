//! Locks between processes and between threads: one on the store, one for each layer.
//!
//! All are flock(2) on a file of their own, so that a process that dies holds none. The store's says who owns it: a service alone, or
//! command lines side by side. A layer's is shared by calls that read it and exclusive for a call that changes it; its file lies on the tmpfs
//! and is removed by the last holder.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// Given back after all else; none for the store's.
    _claim: Option<Claim>,
}

/// Which layers a process has locked, or waits to lock: a process that has the store to itself need not ask the file system.
#[derive(Debug, Default)]
pub(super) struct Claims(Arc<Mutex<BTreeMap<LayerId, usize>>>);

/// That somebody claims a layer, until it is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    id: LayerId,
    all: Claims,
}

/// That nobody claims a layer: whoever would, waits until it is dropped.
pub(crate) type Unclaimed<'a> = MutexGuard<'a, BTreeMap<LayerId, usize>>;

impl Claims {
    pub(super) fn claim(&self, id: &LayerId) -> Claim {
        *self.locked().entry(id.clone()).or_default() += 1;
        Claim { id: id.clone(), all: Claims(self.0.clone()) }
    }

    /// None where somebody claims it, or somebody else is here.
    pub(super) fn unclaimed(&self, id: &LayerId) -> Option<Unclaimed<'_>> {
        self.0.try_lock().ok().filter(|claims| !claims.contains_key(id))
    }

    fn locked(&self) -> Unclaimed<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = self.all.locked();
        if let Some(count) = claims.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                claims.remove(&self.id);
            }
        }
    }
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
                let mut guard = Guard { lock: Some(lock), mode, path: None, _claim: None };
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

    /// Whether nobody else can hold it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.mode == Mode::Exclusive
    }

    /// Goes on with the store's lock beside others.
    pub(super) fn share(mut self) -> Result<Guard, Failure> {
        self.mode = Mode::Shared;
        if let Some(lock) = &self.lock {
            flock(lock, FlockOperation::LockShared).map_err(|errno| Failure::io("flock", &errno.into()))?;
        }
        Ok(self)
    }

    /// Takes the lock on the layer of a claim; waits so long for others.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] when it is held all that time.
    pub(super) fn layer(
        runtime: &Path,
        claim: Claim,
        mode: Mode,
        patience: Duration,
    ) -> Result<Guard, Failure> {
        let path = runtime.join("locks").join(claim.id.as_str());
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
                    let mut guard = Guard { lock: Some(lock), mode, path: Some(path), _claim: Some(claim) };
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
