//! One layer to fill.
//!
//! The directory is empty at first, and nobody else changes it; so every directory in it was made here, and a
//! table of them says what is one. A component that the table does not know is missing, or a symbolic link:
//! then the kernel is asked, which follows links as in a chroot on the layer. Descriptors are opened by the
//! names in the table without following any link; a wrong table, or somebody who does change the layer, gives
//! errors, and never a way out.
//!
//! What would hinder the filling (owners, modes, default access control lists and times of directories) is
//! kept in the table and set by [`Filler::finish`].

mod directories;
mod put;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};

use super::attributes::{Made, check, refused};
use super::bodies::{Bodies, Data, Job, Target};
use super::read::{Detail, Listing, look, status};
use super::resolve::Recent;
use crate::{Attributes, Error, Kind, Name, Node, Source, Totals, Xattr};

/// How many directories are kept open.
const HANDLES: usize = 128;
/// From this size on, blocks of zeros become holes.
const SPARSE: u64 = 64 * 1024;

/// What may be put.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// Whether devices other than 0:0 (which overlayfs uses as its mark of a deletion) are made.
    pub devices: bool,
    /// Owner and group of what no archive speaks of: missing parents.
    pub root: (u32, u32),
    /// The most names that are made, replaced ones counted.
    pub max_entries: u64,
    /// The most directories that a layer has: there is a table of them, and nothing else grows with the
    /// number of entries.
    pub max_directories: usize,
    /// The most bytes that are written: the content of files without holes, targets of symbolic links, and
    /// extended attributes. And the most that files show themselves to hold, with holes.
    pub max_bytes: u64,
}

/// Something to put.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Where.
    pub name: Name,
    /// What.
    pub kind: Kind,
    /// With which attributes. A hard link's are ignored.
    pub attributes: Attributes,
    /// With which content.
    pub body: Body,
}

/// Where the content of a regular file comes from.
#[derive(Clone, Debug)]
pub enum Body {
    /// There is none.
    None,
    /// It is here, whole.
    Bytes(Vec<u8>),
    /// It is the bytes of the source from this position on.
    Stream(u64),
    /// It is these parts of the source, with holes between them.
    Extents(Vec<Extent>),
    /// It comes by [`Filler::fill`].
    Later,
}

/// A part of a sparse file that is not a hole.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// Where in the source its bytes begin.
    pub position: u64,
}

/// One layer, to fill. It is whole only after [`finish`](Self::finish); after an error it is to be thrown
/// away. A bound that is reached, and a file that came only in part, end the filling: each later call answers
/// that error again, so that nobody reaches a bound and goes on.
#[derive(Debug)]
pub struct Filler {
    policy: Policy,
    root: Arc<OwnedFd>,
    root_inode: u64,
    /// The umask and owner with which this process makes things.
    umask: u32,
    owner: (u32, u32),
    /// Every directory of the layer, by its inode.
    directories: HashMap<u64, Directory>,
    handles: Recent<u64, Arc<OwnedFd>>,
    /// The parent that was resolved last.
    latest: Option<(Vec<u8>, u64)>,
    /// Where symbolic links in a directory were found to lead: what an archive's names go over again and
    /// again.
    links: HashMap<u64, HashMap<Box<[u8]>, u64>>,
    /// How many of them there are.
    linked: usize,
    bodies: Bodies,
    /// The file that is filled by `fill`, its attributes, and the end of what came.
    later: Option<(Arc<Target>, Attributes, u64)>,
    totals: Totals,
    clamped: u64,
    made: u64,
    /// What [`Policy::max_bytes`] says of bytes that are written.
    written: u64,
    /// The sizes of files, holes and all.
    sizes: u64,
    put_off: usize,
    finished: bool,
    /// What ended the filling.
    failed: Option<Error>,
}

/// A directory of the layer.
#[derive(Debug)]
struct Directory {
    parent: u64,
    last: Arc<[u8]>,
    children: HashMap<Arc<[u8]>, u64>,
    made: Made,
    /// What `finish` sets.
    attributes: Attributes,
}

/// Where something is put: the inode and the descriptor of its parent, and the last component of its name.
struct Place<'a> {
    parent: u64,
    dir: Arc<OwnedFd>,
    last: &'a [u8],
}

impl Filler {
    /// Fills `dir`, a directory that is open for reading, empty, and seen by nobody else.
    ///
    /// The umask of the process is read once, which for a moment sets it to 0. With a umask of 0 a file needs
    /// no call to set its mode; with another one it does.
    ///
    /// # Errors
    /// [`Error::Conflict`] when something is in it, [`Error::Io`].
    pub fn new(dir: OwnedFd, policy: Policy) -> Result<Self, Error> {
        static UMASK: OnceLock<u32> = OnceLock::new();
        let umask = *UMASK.get_or_init(|| {
            let found = umask(Mode::empty());
            umask(found);
            found.bits()
        });
        if !Listing::read(dir.as_fd(), 1)?.items.is_empty() {
            return Err(Error::Conflict("the directory to fill is not empty".into()));
        }
        let found = status(dir.as_fd(), b"").map_err(Error::io("statx"))?;
        // A set-group-ID bit or a default access control list would be passed on to everything that is made.
        let made = Made { mode: u32::from(found.stx_mode) & 0o777, uid: found.stx_uid, gid: found.stx_gid };
        nix::sys::stat::fchmod(&dir, Mode::from_bits_truncate(made.mode)).map_err(Error::io("fchmod"))?;
        match rustix::fs::fremovexattr(&dir, "system.posix_acl_default") {
            Ok(()) | Err(rustix::io::Errno::NODATA | rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(Error::io("fremovexattr")(error)),
        }
        let attributes =
            Attributes { mode: made.mode, uid: made.uid, gid: made.gid, ..Attributes::default() };
        let root =
            Directory { parent: 0, last: Arc::from(&b"."[..]), children: HashMap::new(), made, attributes };
        Ok(Self {
            policy,
            root: Arc::new(dir),
            root_inode: found.stx_ino,
            umask,
            owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            directories: HashMap::from([(found.stx_ino, root)]),
            handles: Recent::new(HANDLES),
            latest: None,
            links: HashMap::new(),
            linked: 0,
            bodies: Bodies::new(),
            later: None,
            totals: Totals::default(),
            clamped: 0,
            made: 0,
            written: 0,
            sizes: 0,
            put_off: 0,
            finished: false,
            failed: None,
        })
    }

    /// Puts an entry; see `writer.put` in `wit/content.wit` for what replaces what.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Limit`], [`Error::InvalidArgument`] and [`Error::Io`]; also those of
    /// entries put before that were still being written.
    pub fn put(&mut self, entry: Entry, source: Option<&mut Source>) -> Result<(), Error> {
        self.ready()?;
        let done = self.put_entry(entry, source);
        self.ending(done)
    }

    fn put_entry(&mut self, entry: Entry, source: Option<&mut Source>) -> Result<(), Error> {
        let Entry { name, kind, attributes, body } = entry;
        check(&attributes).map_err(|error| error.at(&name))?;
        if !matches!(kind, Kind::File(_)) && !matches!(body, Body::None) {
            return Err(Error::InvalidArgument(format!("{name}: only a regular file has a body")));
        }
        // Not those of a hard link, which are not set.
        let beside = match &kind {
            Kind::HardLink(_) => 0,
            Kind::Symlink(target) => target.len() + attributes.xattr_bytes(),
            _ => attributes.xattr_bytes(),
        };
        self.count_bytes(beside as u64).map_err(|error| error.at(&name))?;
        if name.is_root() {
            return match kind {
                Kind::Directory => {
                    let counted = self.count_entry();
                    let put =
                        counted.and_then(|()| self.put_directory_attributes(self.root_inode, attributes));
                    put.map_err(|error| error.at(&name))
                }
                _ => Err(refused("the root of a layer is a directory")),
            };
        }
        self.put_named(&name, kind, attributes, body, source).map_err(|error| error.at(&name))
    }

    /// Writes into the file whose body was put as [`Body::Later`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when there is no such file or it would become longer than it was put,
    /// [`Error::Limit`], and errors of work under way.
    pub fn fill(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), Error> {
        self.going()?;
        let done = self.fill_later(offset, bytes);
        self.ending(done)
    }

    fn fill_later(&mut self, offset: u64, bytes: Vec<u8>) -> Result<(), Error> {
        let Some((target, _, reached)) = &mut self.later else {
            return Err(Error::InvalidArgument("there is no file to fill".into()));
        };
        let length = bytes.len() as u64;
        let end = offset.checked_add(length).filter(|end| *end <= target.size).ok_or_else(|| {
            Error::InvalidArgument(format!("{}: bytes past the end of the file", target.name))
        })?;
        let sparse = target.size >= SPARSE && offset >= *reached;
        *reached = end.max(*reached);
        let target = Arc::clone(target);
        self.count_bytes(length).map_err(|error| error.at(&target.name))?;
        self.bodies.push(Job { target, data: Some(Data { offset, bytes: bytes.into(), sparse }), last: None })
    }

    /// Sets an extended attribute on directories, making those that are missing.
    ///
    /// # Errors
    /// As [`Filler::put`].
    pub fn mark(&mut self, directories: &[Name], attribute: &Xattr) -> Result<(), Error> {
        self.ready()?;
        let mark = |name| self.mark_directory(name, attribute).map_err(|error| error.at(name));
        let done = directories.iter().try_for_each(mark);
        self.ending(done)
    }

    /// Ends the filling with an error from outside: what was put is more than the caller allows.
    pub fn fail(&mut self, error: &Error) {
        self.failed.get_or_insert_with(|| error.clone());
    }

    /// Looks up names without following the last component. Attributes and identity are left empty.
    ///
    /// # Errors
    /// [`Error::Io`], and errors of work under way.
    pub fn stat(&mut self, names: &[Name]) -> Result<Vec<Option<Node>>, Error> {
        // Sizes are right once all is written.
        self.bodies.drain()?;
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            let (parent, last) = name.split();
            found.push(match self.directory(parent, false)? {
                Some(parent) => look(self.handle(parent)?.as_fd(), last, name.clone(), Detail::Status, None)?
                    .map(|node| Node {
                        attributes: Attributes::default(),
                        device: 0,
                        inode: 0,
                        links: 0,
                        blocks: 0,
                        ..node
                    }),
                None => None,
            });
        }
        Ok(found)
    }

    /// Waits for work under way, sets what was put off, and answers what the layer holds. To be called once,
    /// at the end: nothing can be put after it.
    ///
    /// # Errors
    /// The first error of work under way that no call has told, and [`Error::Io`].
    pub fn finish(&mut self) -> Result<Totals, Error> {
        self.ready()?;
        self.finished = true;
        self.bodies.drain()?;
        self.clamped += self.settle_directories()? + self.bodies.clamped();
        Ok(self.totals)
    }

    /// How many entries have another time than the one that was put, the nearest that the file system can
    /// hold; to be asked when the layer is finished.
    pub fn clamped(&self) -> u64 {
        self.clamped
    }

    /// How many bytes were written so far (see [`Policy::max_bytes`]), those of replaced entries counted.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// How long the bytes of files were waited for on their way to the disk.
    pub fn waited(&self) -> Duration {
        self.bodies.waited()
    }

    /// What something is like that is made with the permission bits of `mode`.
    fn made(&self, mode: u32) -> Made {
        Made { mode: mode & 0o777 & !self.umask, uid: self.owner.0, gid: self.owner.1 }
    }

    /// Ends the filling where a bound was reached.
    fn ending(&mut self, done: Result<(), Error>) -> Result<(), Error> {
        if let Err(error @ Error::Limit { .. }) = &done {
            self.fail(error);
        }
        done
    }

    /// Whether the filling goes on.
    fn going(&self) -> Result<(), Error> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Ends what the call before left open, and tells its errors.
    fn ready(&mut self) -> Result<(), Error> {
        self.going()?;
        if self.finished {
            return Err(Error::InvalidArgument("the layer is finished".into()));
        }
        if let Some((target, attributes, _)) = self.later.take() {
            self.bodies.push(Job { target, data: None, last: Some(attributes) })?;
        }
        self.bodies.check()
    }

    fn count_entry(&mut self) -> Result<(), Error> {
        self.made += 1;
        if self.made > self.policy.max_entries {
            return Err(Error::Limit {
                entry: None,
                bound: format!("entries ({})", self.policy.max_entries),
            });
        }
        Ok(())
    }

    fn count_bytes(&mut self, length: u64) -> Result<(), Error> {
        self.written = self.written.saturating_add(length);
        self.require_few_bytes(self.written)
    }

    /// Counts a file as large as it shows itself, holes and all.
    fn count_size(&mut self, size: u64) -> Result<(), Error> {
        self.sizes = self.sizes.saturating_add(size);
        self.require_few_bytes(self.sizes)
    }

    fn require_few_bytes(&self, bytes: u64) -> Result<(), Error> {
        let max = self.policy.max_bytes;
        if bytes > max {
            return Err(Error::Limit { entry: None, bound: format!("bytes ({max})") });
        }
        Ok(())
    }
}
