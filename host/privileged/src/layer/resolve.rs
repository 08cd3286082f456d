//! From names to descriptors: all that finds its way in a layer goes through here, and the kernel does the
//! finding.

use std::borrow::Borrow;
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};

/// The longest path that one call takes: `PATH_MAX` less some room.
pub(super) const LONGEST: usize = 4000;
/// How often openat2 is called again. It gives up with EAGAIN when something was renamed while it went up a
/// `..`, and an attacker can rename for ever.
const ATTEMPTS: usize = 128;

/// What names a directory for later use, without the right to read it.
pub(super) const HANDLE: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY);
/// What opens a directory to list it.
pub(crate) const LIST: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NONBLOCK);

/// Opens `path` (empty: `dir` itself) following no symbolic link and crossing no mount point: ELOOP and EXDEV
/// instead.
///
/// Takes paths of any length, in several steps; each is as strict, so the whole is.
pub(crate) fn beneath(dir: BorrowedFd<'_>, mut path: &[u8], flags: OFlag) -> Result<OwnedFd, Errno> {
    let strict = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    let mut step: Option<OwnedFd> = None;
    loop {
        let from = step.as_ref().map_or(dir, AsFd::as_fd);
        if path.len() <= LONGEST {
            return open(from, path, flags | OFlag::O_NOFOLLOW, strict);
        }
        // A component is at most 255 bytes, so there is a slash.
        let slash = path[..LONGEST].iter().rposition(|byte| *byte == b'/').ok_or(Errno::ENAMETOOLONG)?;
        let next = open(from, &path[..slash], HANDLE, strict)?;
        path = &path[slash + 1..];
        step = Some(next);
    }
}

/// Finds the directory `path` as a process would that had called chroot(2) on `root`: symbolic links lead to
/// a place inside, or nowhere. At most [`LONGEST`] bytes.
pub(super) fn in_root(root: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Errno> {
    let chroot =
        ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    open(root, path, HANDLE, chroot)
}

fn open(dir: BorrowedFd<'_>, path: &[u8], flags: OFlag, resolve: ResolveFlag) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let mut attempts = ATTEMPTS;
    loop {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        match nix::fcntl::openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) if attempts > 0 => attempts -= 1,
            done => return done,
        }
    }
}

/// The path by which the kernel finds `last` in an open directory without a further name being resolved on
/// the way: what takes no directory descriptor takes this.
pub(super) fn by_descriptor(dir: BorrowedFd<'_>, last: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(last);
    path
}

/// The things used last, a bounded number of them.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    items: VecDeque<(K, V)>,
    most: usize,
}

impl<K: PartialEq, V: Clone> Recent<K, V> {
    /// Room for `most` things.
    pub(super) fn new(most: usize) -> Self {
        Self { items: VecDeque::with_capacity(most), most }
    }

    /// The thing, which is then the newest.
    pub(super) fn get<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: PartialEq + ?Sized,
    {
        let index = self.items.iter().rposition(|(known, _)| known.borrow() == key)?;
        if index + 1 < self.items.len()
            && let Some(item) = self.items.remove(index)
        {
            self.items.push_back(item);
        }
        self.items.back().map(|(_, value)| value.clone())
    }

    /// Adds a thing; the one that was not used for longest goes.
    pub(super) fn put(&mut self, key: K, value: V) {
        if self.items.len() == self.most {
            self.items.pop_front();
        }
        self.items.push_back((key, value));
    }

    /// Forgets a thing.
    pub(super) fn forget(&mut self, key: &K) {
        self.items.retain(|(known, _)| known != key);
    }
}
