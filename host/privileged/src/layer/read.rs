//! One layer to read: looking at names, and sending what files hold. [`walk`](super::walk) goes through all
//! of it.

use std::cmp;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rustix::fs::{AtFlags, FileType, RawDir, Statx, StatxAttributes, StatxFlags};

use super::ahead::Walker;
use super::attributes::{MOST_XATTR_BYTES, too_large};
use super::opened::{HARMLESS, Opened};
use super::resolve::{HANDLE, Recent, beneath, by_descriptor};
use super::walk::{Room, Share, Walk, WalkOptions};
use crate::{Attributes, Device, Error, Kind, Name, Node, Sink, Timestamp, Xattr};

/// How many parent directories a tree keeps open.
const PARENTS: usize = 16;
/// The largest list of names, and the largest value, that the kernel hands out (`XATTR_LIST_MAX`,
/// `XATTR_SIZE_MAX`), so that a buffer of this size never needs a second try.
const LARGEST_XATTR: usize = 64 * 1024;
/// What is offered first. The kernel makes a buffer as large as ours for each call; nearly all lists are
/// empty, and values are short.
const USUAL_XATTR: usize = 1024;

/// The most bytes of extended attributes in an answer about many names: 16 KiB for each of 4,096.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// How much is looked up for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detail {
    /// Name and kind, without sizes, targets or the numbers of block devices. Character devices carry their
    /// numbers.
    Names,
    /// Also status, sizes and targets.
    Status,
    /// Also extended attributes.
    Full,
}

/// One layer, to read. Nothing leaves its directory, and no symbolic link is followed.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    live: bool,
    parents: Mutex<Recent<Vec<u8>, Arc<OwnedFd>>>,
    room: Arc<Room>,
    opened: Arc<Opened>,
}

impl Tree {
    /// Reads below `dir`, an open directory. `live` says that somebody may change the layer meanwhile (it was
    /// lent to be written): names that disappear are then no error, and files are opened in a way that no
    /// exchange can abuse.
    pub fn new(dir: OwnedFd, live: bool) -> Self {
        let parents = Mutex::new(Recent::new(PARENTS));
        Self { root: dir, live, parents, room: Arc::default(), opened: Arc::default() }
    }

    /// Lets its walks share room in memory with those of other trees.
    pub fn within(self, room: Arc<Room>) -> Self {
        Self { room, ..self }
    }

    /// Begins a walk. A start that is missing, or is no directory, gives an empty walk.
    ///
    /// # Errors
    /// [`Error::Io`] when the start cannot be opened for another reason.
    pub fn walk(&self, options: WalkOptions) -> Result<Walker, Error> {
        let (room, opened) = (Arc::clone(&self.room), Arc::clone(&self.opened));
        Ok(Walker::new(Walk::new(&self.root, self.live, options, room, opened)?))
    }

    /// Looks up names, answers in their order: `None` where there is no such name, or the way to it leads
    /// over something that is not a directory.
    ///
    /// # Errors
    /// [`Error::Io`], with EXDEV where something is mounted inside the layer; [`Error::Limit`] where there
    /// are too many extended attributes, of one name or of all.
    pub fn stat(&self, names: &[Name], detail: Detail) -> Result<Vec<Option<Node>>, Error> {
        let mut left = MOST_BYTES;
        let mut look_up = |name: &Name| {
            let Some(parent) = self.parent(name)? else { return Ok(None) };
            let found = look(parent.as_fd(), name.split().1, name.clone(), detail, None)?;
            let bytes = found.as_ref().map_or(0, |node| node.attributes.xattr_bytes());
            left = left.checked_sub(bytes).ok_or_else(|| Error::Limit {
                entry: Some(name.clone()),
                bound: format!("bytes of extended attributes in one answer ({MOST_BYTES})"),
            })?;
            Ok(found)
        };
        names.iter().map(&mut look_up).collect()
    }

    /// Sends the first `length` bytes of a regular file.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is no regular file (any more) or the file is shorter, [`Error::Io`]
    /// when it cannot be read or the sink breaks.
    pub fn send(&self, name: &Name, length: u64, to: &mut Sink) -> Result<(), Error> {
        let changed = || Error::Conflict(format!("{name} changed while it was read"));
        let file = match self.opened.take(name.as_bytes()) {
            Some(file) => file,
            None => {
                let parent = self.parent(name)?.ok_or_else(changed)?;
                match self.open_regular(parent.as_fd(), name.split().1) {
                    Ok(Some(file)) => file,
                    Ok(None) | Err(Errno::ENOENT | Errno::ELOOP) => return Err(changed()),
                    Err(error) => return Err(Error::io("openat")(error).at(name)),
                }
            }
        };
        if to.send_file(&File::from(file), length).map_err(|error| error.at(name))? < length {
            return Err(changed());
        }
        Ok(())
    }

    /// Opens a regular file, and never anything else: opening a FIFO blocks, and opening a device can do
    /// anything.
    fn open_regular(&self, parent: BorrowedFd<'_>, last: &[u8]) -> Result<Option<OwnedFd>, Errno> {
        if last.is_empty() {
            return Ok(None);
        }
        if !self.live {
            // Nothing changes between the look and the opening.
            return match status(parent, last).map(|found| kind_of(&found)) {
                Ok(FileType::RegularFile) => {
                    nix::fcntl::openat(parent, last, HARMLESS | OFlag::O_NOFOLLOW, Mode::empty()).map(Some)
                }
                Ok(_) => Ok(None),
                Err(error) => Err(Errno::from_raw(error.raw_os_error())),
            };
        }
        // What O_PATH found stays the same file, whatever its name stands for by now; it is looked at and
        // opened by number.
        let held = beneath(parent, last, OFlag::O_PATH)?;
        let found = rustix::fs::fstat(&held).map_err(|error| Errno::from_raw(error.raw_os_error()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        let mut path = by_descriptor(held.as_fd(), b"");
        path.pop();
        nix::fcntl::open(path.as_slice(), HARMLESS, Mode::empty()).map(Some)
    }

    /// The directory that a name lies in, or `None` where there is no such directory.
    fn parent(&self, name: &Name) -> Result<Option<Arc<OwnedFd>>, Error> {
        let (parent, _) = name.split();
        let mut parents = self.parents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = parents.get(parent) {
            return Ok(Some(known));
        }
        let Some(found) =
            present(beneath(self.root.as_fd(), parent, HANDLE)).map_err(|error| error.at(name))?
        else {
            return Ok(None);
        };
        let found = Arc::new(found);
        parents.put(parent.to_vec(), Arc::clone(&found));
        Ok(Some(found))
    }
}

/// What `beneath` found, or `None` where the way leads nowhere or over something that is not a directory.
pub(super) fn present(found: Result<OwnedFd, Errno>) -> Result<Option<OwnedFd>, Error> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(error) => Err(Error::io("openat2")(error)),
    }
}

/// The status of a name in an open directory (empty: of the directory), following nothing.
pub(super) fn status(dir: BorrowedFd<'_>, last: &[u8]) -> rustix::io::Result<Statx> {
    let last = if last.is_empty() { b"." } else { last };
    rustix::fs::statx(dir, last, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
}

/// The file type in a status.
pub(super) fn kind_of(status: &Statx) -> FileType {
    FileType::from_raw_mode(status.stx_mode.into())
}

/// Looks at a name in an open directory (empty: at the directory). `None` where nothing is. A file that has
/// content is opened for `opened`, where that is given and has room.
///
/// # Errors
/// [`Error::Io`], with EXDEV for a mount point: what lies there is not the layer's.
pub(super) fn look(
    dir: BorrowedFd<'_>,
    last: &[u8],
    name: Name,
    detail: Detail,
    opened: Option<&Opened>,
) -> Result<Option<Node>, Error> {
    let found = match status(dir, last) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::io("statx")(error).at(&name)),
    };
    if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) && !last.is_empty() {
        return Err(Error::io("statx")(Errno::EXDEV).at(&name));
    }
    let device = Device { major: found.stx_rdev_major, minor: found.stx_rdev_minor };
    let mut node = bare(name, kind_said(kind_of(&found), device));
    if detail == Detail::Names {
        return Ok(Some(node));
    }
    match &mut node.kind {
        Kind::File(size) => *size = found.stx_size,
        Kind::Symlink(target) => match rustix::fs::readlinkat(dir, last, Vec::new()) {
            Ok(read) => *target = read.into_bytes(),
            // It was replaced meanwhile; which of the two it is does not matter.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => return Ok(None),
            Err(error) => return Err(Error::io("readlinkat")(error).at(&node.name)),
        },
        _ => {}
    }
    let file = match (opened, &node.kind) {
        (Some(opened), Kind::File(1..)) => {
            opened.open(dir, last, node.name.as_bytes()).map(|file| (opened, file))
        }
        _ => None,
    };
    node.attributes = Attributes {
        mode: u32::from(found.stx_mode) & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        mtime: Timestamp { seconds: found.stx_mtime.tv_sec, nanoseconds: found.stx_mtime.tv_nsec },
        xattrs: match (detail, &file) {
            (Detail::Full, Some((_, (file, _)))) => xattrs_of(file),
            (Detail::Full, None) => xattrs_at(&by_descriptor(dir, if last.is_empty() { b"." } else { last })),
            _ => Ok(Vec::new()),
        }
        .map_err(|error| error.at(&node.name))?,
    };
    if let Some((opened, file)) = file {
        opened.keep(node.name.as_bytes(), file);
    }
    node.device = u64::from(found.stx_dev_major) << 32 | u64::from(found.stx_dev_minor);
    (node.inode, node.links, node.blocks) = (found.stx_ino, found.stx_nlink, found.stx_blocks);
    Ok(Some(node))
}

/// A node of which no more than the kind is known.
pub(super) fn bare(name: Name, kind: Kind) -> Node {
    Node { name, kind, attributes: Attributes::default(), device: 0, inode: 0, links: 0, blocks: 0 }
}

/// The kind that the kernel names, without what only the file itself tells.
pub(super) fn kind_said(kind: FileType, device: Device) -> Kind {
    match kind {
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink(Vec::new()),
        FileType::CharacterDevice => Kind::CharacterDevice(device),
        FileType::BlockDevice => Kind::BlockDevice(device),
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::RegularFile | FileType::Unknown => Kind::File(0),
    }
}

/// The extended attributes of what `path` names, sorted by name; none where the file system has none or it is
/// gone. More of them than an archive can hold are a limit.
fn xattrs_at(path: &[u8]) -> Result<Vec<Xattr>, Error> {
    let names = asked(|buffer| rustix::fs::llistxattr(path, buffer).map(|(names, _)| names.to_vec()));
    xattrs(("llistxattr", names), "lgetxattr", |name, buffer| {
        rustix::fs::lgetxattr(path, name, buffer).map(|(value, _)| value.to_vec())
    })
}

/// As [`xattrs_at`], of a file that is open: there is no way to it to be found each time.
fn xattrs_of(file: &OwnedFd) -> Result<Vec<Xattr>, Error> {
    let names = asked(|buffer| rustix::fs::flistxattr(file, buffer).map(|(names, _)| names.to_vec()));
    xattrs(("flistxattr", names), "fgetxattr", |name, buffer| {
        rustix::fs::fgetxattr(file, name, buffer).map(|(value, _)| value.to_vec())
    })
}

fn xattrs(
    (list, names): (&'static str, rustix::io::Result<Vec<u8>>),
    get: &'static str,
    value: impl Fn(&[u8], &mut [MaybeUninit<u8>]) -> rustix::io::Result<Vec<u8>>,
) -> Result<Vec<Xattr>, Error> {
    use rustix::io::Errno;
    let names = match names {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(list)(error)),
    };
    let (mut found, mut bytes) = (Vec::new(), 0);
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match asked(|buffer| value(name, buffer)) {
            Ok(value) => {
                bytes += name.len() + value.len();
                if bytes > MOST_XATTR_BYTES {
                    return Err(too_large());
                }
                found.push(Xattr { name: name.to_vec(), value });
            }
            Err(Errno::NODATA | Errno::NOENT) => {}
            Err(error) => return Err(Error::io(get)(error)),
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// What a call answers that is given a buffer, first a small one.
fn asked<T>(call: impl Fn(&mut [MaybeUninit<u8>]) -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    let mut buffer = [MaybeUninit::uninit(); LARGEST_XATTR];
    match call(&mut buffer[..USUAL_XATTR]) {
        Err(rustix::io::Errno::RANGE) => call(&mut buffer),
        answered => answered,
    }
}

/// How many names of a directory are read before room is asked for.
const PART: usize = 64 * 1024;

/// What a directory holds, `.` and `..` left out: all names in one buffer.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    names: Vec<u8>,
    pub(crate) items: Vec<Item>,
}

/// One name of a listing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    start: usize,
    length: u32,
    /// What the directory says it is, which may be [`FileType::Unknown`].
    pub(super) kind: FileType,
    pub(super) inode: u64,
}

impl Listing {
    /// Reads on in an open directory, until the end or until there are `most` names or a few more.
    pub(crate) fn read(dir: BorrowedFd<'_>, most: usize) -> Result<Self, Error> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(dir, &mut buffer);
        let mut listing = Self::default();
        while !(entries.is_buffer_empty() && listing.items.len() >= most)
            && let Some(entry) = entries.next()
        {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory has been removed since it was opened, and so nothing is in it.
                Err(rustix::io::Errno::NOENT) => break,
                Err(error) => return Err(Error::io("getdents64")(error)),
            };
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                let (start, length) = (listing.names.len(), name.len() as u32);
                listing.names.extend_from_slice(name);
                listing.items.push(Item { start, length, kind: entry.file_type(), inode: entry.ino() });
            }
        }
        Ok(listing)
    }

    /// Reads a whole directory, as far as there is room.
    pub(super) fn whole(dir: BorrowedFd<'_>, share: &mut Share) -> Result<Self, Error> {
        let mut whole = Self::default();
        loop {
            let mut part = Self::read(dir, PART)?;
            share.grow(part.names.len() + size_of_val(part.items.as_slice()))?;
            let is_last = part.items.len() < PART;
            if whole.items.is_empty() {
                whole = part;
            } else {
                part.items.iter_mut().for_each(|item| item.start += whole.names.len());
                whole.names.append(&mut part.names);
                whole.items.append(&mut part.items);
            }
            if is_last {
                return Ok(whole);
            }
        }
    }

    /// The name of an item of this listing.
    pub(crate) fn name(&self, item: &Item) -> &[u8] {
        &self.names[item.start..][..item.length as usize]
    }

    /// Puts the names into the order of their bytes.
    ///
    /// To fetch two names from memory takes longer than to compare them, and those of a large directory often
    /// begin alike. So the eight bytes behind what all have in common are compared first.
    pub(super) fn sort(&mut self) {
        let common = self.common();
        let names = &self.names;
        self.items.sort_by_cached_key(|item| {
            let name = &names[item.start..][..item.length as usize];
            let rest = &name[common..];
            let length = cmp::min(rest.len(), 8);
            let mut eight = [0; 8];
            eight[..length].copy_from_slice(&rest[..length]);
            // No name holds the zero that a short one is filled up with.
            (u64::from_be_bytes(eight), name)
        });
    }

    /// How many bytes all names begin with.
    fn common(&self) -> usize {
        let mut names = self.items.iter().map(|item| self.name(item));
        let Some(first) = names.next() else { return 0 };
        names.fold(first.len(), |common, name| {
            first[..common].iter().zip(name).take_while(|(one, other)| one == other).count()
        })
    }
}
