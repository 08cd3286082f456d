//! Files that are open before they are asked for. A walk that runs ahead has just looked at them, and so it
//! opens them for whoever sends them: a second look is not needed then, and both threads have half of the
//! work.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicUsize;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use rustix::process::{Resource, getrlimit};

use super::ahead::{READY, SHORT};
use super::permit::Permit;
use super::resolve::LONGEST;

/// What opens a file so that nothing else happens, whatever it has become: opening a FIFO blocks, opening a
/// terminal makes it ours.
pub(super) const HARMLESS: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_NONBLOCK).union(OFlag::O_NOCTTY).union(OFlag::O_CLOEXEC);

/// How many files of one layer are open: those of the answers that are ready, the one that is being worked
/// with, and the next.
const MOST: usize = (READY + 2) * SHORT;
/// How many of all layers, in a process that may have enough descriptors.
const MOST_OF_ALL: usize = 4096;

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Those of one layer, in the order of the walk.
#[derive(Debug, Default)]
pub(super) struct Opened {
    files: Mutex<VecDeque<(Vec<u8>, OwnedFd, Permit)>>,
}

impl Opened {
    /// Opens a regular file that was just looked at, where there is room for it. What fails is left to
    /// whoever asks for the file, and so is what has a name that takes more memory than most.
    pub(super) fn open(&self, dir: BorrowedFd<'_>, last: &[u8], path: &[u8]) -> Option<(OwnedFd, Permit)> {
        if path.len() > LONGEST || self.lock().len() >= MOST {
            return None;
        }
        let permit = Permit::take(&OPEN, most_of_all())?;
        Some((openat(dir, last, HARMLESS | OFlag::O_NOFOLLOW, Mode::empty()).ok()?, permit))
    }

    /// Keeps it open.
    pub(super) fn keep(&self, path: &[u8], (file, permit): (OwnedFd, Permit)) {
        self.lock().push_back((path.to_vec(), file, permit));
    }

    /// Gives a file away, and closes those that the walk came upon before it: nobody asked for them in their
    /// turn.
    pub(super) fn take(&self, path: &[u8]) -> Option<OwnedFd> {
        let mut files = self.lock();
        let at = files.iter().position(|(opened, ..)| opened == path)?;
        files.drain(..=at).next_back().map(|(_, file, _)| file)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Vec<u8>, OwnedFd, Permit)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A quarter of the descriptors that the process may have is the most that is taken for this.
fn most_of_all() -> usize {
    static MOST: OnceLock<usize> = OnceLock::new();
    *MOST.get_or_init(|| {
        let limit = getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok());
        limit.map_or(MOST_OF_ALL, |limit| MOST_OF_ALL.min(limit / 4))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn so_many_are_open_at_once_and_none_that_was_passed_over() {
        let path = std::env::temp_dir().join(format!("layerbox-opened-{}", std::process::id()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "f").unwrap();
        let dir = File::open(&path).unwrap();
        // Permits of its own: other tests have theirs.
        static PERMITS: AtomicUsize = AtomicUsize::new(0);
        let opened = Opened::default();
        for number in 0..MOST {
            let permit = Permit::take(&PERMITS, MOST).unwrap();
            opened.keep(number.to_string().as_bytes(), (dir.try_clone().unwrap().into(), permit));
        }
        let open = || PERMITS.load(Ordering::Relaxed);
        assert!(opened.open(dir.as_fd(), b"f", b"f").is_none() && open() == MOST);
        assert!(opened.take(b"nothing").is_none() && open() == MOST);
        assert!(opened.take(b"9").is_some() && open() == MOST - 10);
        assert!(opened.take(b"9").is_none() && opened.take(b"3").is_none() && open() == MOST - 10);
        // What cannot be opened is no error here.
        assert!(opened.open(dir.as_fd(), b"missing", b"missing").is_none());
        assert!(opened.open(dir.as_fd(), b"f", &[b'f'; LONGEST + 1]).is_none());
        fs::remove_dir_all(&path).unwrap();
    }
}
