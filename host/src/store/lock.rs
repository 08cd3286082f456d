//! Locks between processes and between threads: one on the store, one for each layer.
//!
//! All are flock(2) on a file of their own, so that a process that dies holds none. The store's is held by
//! its owner: a service alone, or command lines side by side. Each layer has two, whose files lie on the
//! tmpfs and are removed by the last holder. One is shared by calls that read the layer and exclusive for a
//! call that fills or removes it. The other is for its mount and its count, and is only taken beside the
//! first one, shared: whoever changes them has it alone, and need not wait for a reader, which may be as slow
//! as whoever takes its archive.
//!
//! Who holds a lock is asked of the kernel (`/proc/locks`, proc_locks(5)), for the message to those who wait
//! in vain.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
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
/// How long a service waits for one that owns the store.
const HAND_OVER: Duration = Duration::from_secs(5);

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
    lock: Option<File>,
    mode: Mode,
    /// The file to remove when nobody else holds it; none for the store's.
    path: Option<PathBuf>,
    /// Given back after all else; none for the store's.
    _claim: Option<Claim>,
}

/// Which layers a process has locked, or waits to lock: a process that has the store to itself need not ask
/// the file system.
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
        let mut file = lock_file(dir).map_err(|e| Failure::io("open", &e))?;
        let known = file.metadata().map_err(|e| Failure::io("stat", &e))?;
        let mut owner = Vec::new();
        if known.is_file() {
            let mut head = Read::by_ref(&mut file).take(256);
            head.read_to_end(&mut owner).map_err(|e| Failure::io("read", &e))?;
        }
        // Command lines come to an end, and another service does not: there is only one that just ends to
        // wait for.
        let alone = mode == Mode::Exclusive && !owner.is_empty();
        match wait(file, mode, if alone { patience.min(HAND_OVER) } else { patience }) {
            Ok(lock) => {
                let guard = Guard { lock: Some(lock), mode, path: None, _claim: None };
                match mode {
                    Mode::Exclusive => guard.sign(&format!("process {}", std::process::id())),
                    // Of an owner that is gone.
                    Mode::Shared if !owner.is_empty() => guard.sign(""),
                    Mode::Shared => {}
                }
                Ok(guard)
            }
            Err(Failure::Locked(_)) => {
                let owner = String::from_utf8_lossy(&owner);
                let signed = Some(owner.trim().to_owned()).filter(|owner| !owner.is_empty());
                let holders = holders(&known).or(signed);
                Err(Failure::StoreInUse(holders.unwrap_or_else(|| "another process".to_owned())))
            }
            Err(other) => Err(other),
        }
    }

    /// Whether nobody else can hold it.
    pub(super) fn is_exclusive(&self) -> bool {
        self.mode == Mode::Exclusive
    }

    /// Whether others who come find the file that is locked. They do not where somebody has removed it, with
    /// all else that the store was.
    pub(super) fn is_to_be_found(&self) -> bool {
        let links = |file: &File| file.metadata().map_or(1, |found| found.nlink());
        self.lock.as_ref().is_none_or(|file| links(file) > 0)
    }

    /// Goes on with the store's lock beside others.
    pub(super) fn share(mut self) -> Result<Guard, Failure> {
        self.mode = Mode::Shared;
        self.sign("");
        if let Some(lock) = &self.lock {
            flock(lock, FlockOperation::LockShared).map_err(|errno| Failure::io("flock", &errno.into()))?;
        }
        Ok(self)
    }

    /// Takes the lock on the layer of a claim, of those whose files lie in a directory; waits so long for
    /// others.
    ///
    /// # Errors
    ///
    /// [`Failure::Locked`] when it is held all that time.
    pub(super) fn layer(
        directory: &Path,
        claim: Claim,
        mode: Mode,
        patience: Duration,
    ) -> Result<Guard, Failure> {
        let path = directory.join(claim.id.as_str());
        loop {
            let file = std::fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(|e| Failure::io_at("open", &path, &e))?;
            let before = file.metadata().map_err(|e| Failure::io("stat", &e))?;
            let lock = wait(file, mode, patience).map_err(|failure| match failure {
                Failure::Locked(_) => {
                    let holders = holders(&before).unwrap_or_else(|| "another process".to_owned());
                    Failure::Locked(format!("in work by {holders}"))
                }
                other => other,
            })?;
            // The last holder may have removed the file after it was opened here: then this lock locks out
            // nobody.
            match std::fs::metadata(&path) {
                Ok(now) if now.ino() == before.ino() && now.dev() == before.dev() => {
                    return Ok(Guard { lock: Some(lock), mode, path: Some(path), _claim: Some(claim) });
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(Failure::io("stat", &e)),
            }
        }
    }

    /// Writes down who has the store alone, for where the kernel does not tell: on btrfs a file has one
    /// device in `/proc/locks` and another in stat(2). Only the message to others wants it, and a full disk
    /// is no reason to stay away.
    fn sign(&self, text: &str) {
        if let Some(lock) = &self.lock {
            drop(lock.write_all_at(text.as_bytes(), 0).and_then(|()| lock.set_len(text.len() as u64)));
        }
    }
}

/// The file that the lock on a store is taken on. On a file system that cannot be written it is opened as it
/// is, and where there is none the root stands for it.
fn lock_file(dir: &Dir) -> io::Result<File> {
    let options = cap_std::fs::OpenOptions::new().read(true).write(true).create(true).mode(0o600).clone();
    let opened = match dir.open_with("lock", &options) {
        Err(e) if e.kind() == io::ErrorKind::ReadOnlyFilesystem => match dir.open("lock") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => dir.open("."),
            other => other,
        },
        other => other,
    };
    opened.map(cap_std::fs::File::into_std)
}

/// How often the list of locks is read. The kernel gives it page by page, and where a lock goes in between,
/// another one is left out.
const READINGS: usize = 3;

/// Who holds a lock on a file, as a text; none where the kernel does not tell.
fn holders(file: &Metadata) -> Option<String> {
    let mut holders: Vec<u32> = Vec::new();
    for _ in 0..READINGS {
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        holders.extend(locks.lines().filter_map(|line| holder(line, file)));
    }
    holders.sort_unstable();
    holders.dedup();
    let text = holders.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
    match holders.len() {
        0 => None,
        1 => Some(format!("process {text}")),
        _ => Some(format!("processes {text}")),
    }
}

/// Who holds the lock of a line, `1: FLOCK  ADVISORY  WRITE 946 fe:00:10421791 0 EOF`, where it is one on
/// this file. Those who wait have an arrow there.
fn holder(line: &str, file: &Metadata) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (kind, process, place) = (words.next()?, words.nth(2)?, words.next()?);
    let (device, inode) = place.rsplit_once(':')?;
    let (major, minor) = device.split_once(':')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let device = nix::sys::stat::makedev(number(major)?, number(minor)?);
    let is_it = kind == "FLOCK" && device == file.dev() && inode.parse() == Ok(file.ino());
    is_it.then(|| process.parse().ok()).flatten()
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (Some(path), Some(lock)) = (self.path.take(), self.lock.take()) else { return };
        // Whoever can have it alone is the last. A file that stays behind is a few bytes on a tmpfs, so
        // errors do not matter here.
        let alone = || flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if self.mode == Mode::Exclusive || alone() {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Locks a file, waiting for a while. [`Failure::Locked`] when it is held all that time.
fn wait(file: File, mode: Mode, patience: Duration) -> Result<File, Failure> {
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
            Err(Errno::WOULDBLOCK) => return Err(Failure::Locked(String::new())),
            Err(errno) => return Err(Failure::io("flock", &errno.into())),
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_who_holds_a_lock() {
        // A file of tmpfs has the same device there as the kernel tells of in /proc/locks; with btrfs or
        // overlayfs it has another.
        let path = Path::new("/dev/shm").join(format!("layerbox-holders-{}", std::process::id()));
        let open =
            || File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        let file = open();
        let known = file.metadata().unwrap();
        assert_eq!(holders(&known), None);
        for mode in [Mode::Shared, Mode::Exclusive] {
            let held = wait(open(), mode, Duration::ZERO).unwrap();
            assert_eq!(holders(&known), Some(format!("process {}", std::process::id())), "{mode:?}");
            drop(held);
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn lines_of_locks() {
        let file = std::fs::metadata("/").unwrap();
        let place = |inode: u64| {
            let (major, minor) = (nix::sys::stat::major(file.dev()), nix::sys::stat::minor(file.dev()));
            format!("{major:02x}:{minor:02x}:{inode}")
        };
        let here = place(file.ino());
        let cases = [
            (format!("1: FLOCK  ADVISORY  WRITE 946 {here} 0 EOF"), Some(946)),
            (format!("12: FLOCK  ADVISORY  READ 7 {here} 0 EOF"), Some(7)),
            (format!("1: -> FLOCK  ADVISORY  WRITE 946 {here} 0 EOF"), None),
            (format!("1: POSIX  ADVISORY  WRITE 946 {here} 0 EOF"), None),
            (format!("1: FLOCK  ADVISORY  WRITE 946 {} 0 EOF", place(file.ino() + 1)), None),
            (format!("1: FLOCK  ADVISORY  WRITE 946 ff{here} 0 EOF"), None),
            (String::new(), None),
        ];
        for (line, process) in cases {
            assert_eq!(holder(&line, &file), process, "{line}");
        }
    }
}
