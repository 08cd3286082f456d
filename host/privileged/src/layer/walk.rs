//! A walk over a layer: depth first, parents before what is in them, the entries of a directory in the order
//! of their bytes.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use rustix::fs::FileType;

use super::descent::Descent;
use super::opened::Opened;
use super::read::{Detail, Listing, bare, kind_said, look, present};
use super::resolve::{LIST, beneath};
use crate::{Device, Error, Kind, Name, Node};

/// About the most bytes of names and attributes in one answer.
const MOST_BYTES: usize = 1024 * 1024;
/// The most bytes of directories' contents that walks hold which share their room. A directory is put into
/// order before the first of its names is given, and whoever fills a layer may put into one directory as many
/// names as the disk takes. Ten million names, the most that an archive may make, fit in when they are 70
/// bytes long. While a directory is put into order, each name takes another 32 bytes.
const MOST_LISTED: usize = 1024 * 1024 * 1024;

/// What to walk.
#[derive(Clone, Debug)]
pub struct WalkOptions {
    /// The directory to begin at, which is the first node.
    pub start: Name,
    /// Whether to go down; otherwise only `start` and its entries are given.
    pub recursive: bool,
    /// What to look up.
    pub detail: Detail,
}

/// Memory for the directories that walks are in.
#[derive(Debug)]
pub struct Room {
    used: AtomicUsize,
    most: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self::new(MOST_LISTED)
    }
}

impl Room {
    /// Room for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { used: AtomicUsize::new(0), most }
    }
}

/// A part of the room, until it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    room: Arc<Room>,
    bytes: usize,
}

impl Share {
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Error> {
        // Added first: where that is too much, dropping takes it back.
        self.bytes += bytes;
        if self.room.used.fetch_add(bytes, Ordering::Relaxed) + bytes > self.room.most {
            let bound = format!("bytes of directories that are read at once ({})", self.room.most);
            return Err(Error::Limit { entry: None, bound });
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// A walk, step by step.
#[derive(Debug)]
pub(super) struct Walk {
    live: bool,
    options: WalkOptions,
    /// The start, until it was given.
    first: Option<Node>,
    /// The directories from the start down to where the walk is.
    descent: Descent<Level>,
    /// The name of the innermost of them, with what was last added to it.
    path: Vec<u8>,
    room: Arc<Room>,
    /// Where files are kept open for whoever sends them, and whether they are opened.
    opened: Arc<Opened>,
    opens: bool,
}

/// What is known of a directory that the walk is in.
#[derive(Debug)]
struct Level {
    listing: Listing,
    /// What the listing takes of the room.
    _share: Share,
    next: usize,
    /// How much of the path names it.
    length: usize,
}

impl Walk {
    pub(super) fn new(
        root: &OwnedFd,
        live: bool,
        options: WalkOptions,
        room: Arc<Room>,
        opened: Arc<Opened>,
    ) -> Result<Self, Error> {
        let path = options.start.as_bytes().to_vec();
        let descent = Descent::new();
        let mut walker = Self { live, options, first: None, descent, path, room, opened, opens: false };
        let start = &walker.options.start;
        if let Some(dir) =
            present(beneath(root.as_fd(), &walker.path, LIST)).map_err(|error| error.at(start))?
        {
            walker.first = look(dir.as_fd(), b"", start.clone(), walker.options.detail, None)?;
            walker.enter(dir).map_err(|error| error.at(&walker.options.start))?;
        }
        Ok(walker)
    }

    /// From now on opens the files that it comes upon, where all of them are wanted: an archive is made of
    /// all that a layer has. In a layer that somebody changes, what was looked at may be another thing by
    /// then. Whether it does.
    pub(super) fn open_files(&mut self) -> bool {
        self.opens = !self.live && self.options.recursive && self.options.detail == Detail::Full;
        self.opens
    }

    /// The next answer: at most `most` nodes or names, fewer when they are large. An empty one is the end.
    pub(super) fn next(&mut self, most: usize) -> Result<Batch, Error> {
        match self.options.detail {
            Detail::Names => self.names(most).map(Batch::Names),
            Detail::Status | Detail::Full => self.nodes(most).map(Batch::Nodes),
        }
    }

    fn nodes(&mut self, most: usize) -> Result<Vec<Node>, Error> {
        let mut nodes = Vec::new();
        let mut bytes = 0;
        while nodes.len() < most && bytes < MOST_BYTES {
            let Some(found) = self.step()? else { break };
            let node = found.node(|| Name::found(self.path.clone()));
            bytes += self.path.len() + node.attributes.xattr_bytes();
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn names(&mut self, most: usize) -> Result<Names, Error> {
        let mut names = Names::default();
        while names.entries.len() < most && names.bytes.len() < MOST_BYTES {
            let Some(found) = self.step()? else { break };
            names.push(&self.path, found.kind());
        }
        Ok(names)
    }

    /// What comes next; `self.path` is its name. `None` is the end.
    fn step(&mut self) -> Result<Option<Found>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(Found::Looked(first)));
        }
        loop {
            let Some((_, level)) = self.descent.inner() else { return Ok(None) };
            let Some(item) = level.listing.items.get(level.next) else {
                self.descent.leave()?;
                continue;
            };
            level.next += 1;
            self.path.truncate(level.length);
            if level.length > 0 {
                self.path.push(b'/');
            }
            let last = self.path.len();
            self.path.extend_from_slice(level.listing.name(item));
            let kind = item.kind;
            if let Some(found) = self.visit(kind, last)? {
                return Ok(Some(found));
            }
        }
    }

    /// Looks at the name that `self.path` now holds, and enters it where it is a directory. `None` when it is
    /// gone.
    fn visit(&mut self, kind: FileType, last: usize) -> Result<Option<Found>, Error> {
        let Some((dir, _)) = self.descent.inner() else { return Ok(None) };
        let name = || Name::found(self.path.clone());
        let detail = self.options.detail;
        // The directory's own word is enough for a name, except that it does not tell a whiteout from a
        // device.
        let is_said = !matches!(kind, FileType::Unknown | FileType::CharacterDevice);
        let found = if detail == Detail::Names && is_said {
            Some(Found::Said(kind_said(kind, Device::default())))
        } else {
            let opened = self.opens.then_some(&*self.opened);
            look(dir, &self.path[last..], name(), detail, opened)?.map(Found::Looked)
        };
        let Some(found) = found else {
            return match self.live {
                true => Ok(None),
                false => Err(Error::Conflict(format!("{} disappeared while the layer was read", name()))),
            };
        };
        if self.options.recursive && found.is_directory() {
            match beneath(dir, &self.path[last..], LIST) {
                Ok(inner) => self.enter(inner).map_err(|error| error.at(&Name::found(self.path.clone())))?,
                // It is gone, or something else by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if self.live => return Ok(None),
                Err(error) => return Err(Error::io("openat2")(error).at(&name())),
            }
        }
        Ok(Some(found))
    }

    /// Goes down into the directory that `self.path` names.
    fn enter(&mut self, dir: OwnedFd) -> Result<(), Error> {
        let mut share = Share { room: Arc::clone(&self.room), bytes: 0 };
        let mut listing = Listing::whole(dir.as_fd(), &mut share)?;
        listing.sort();
        self.descent.enter(dir, Level { listing, _share: share, next: 0, length: self.path.len() })
    }
}

/// What a walk came upon.
enum Found {
    /// A name, of which the directory says the kind. That of a character device is looked up.
    Said(Kind),
    Looked(Node),
}

impl Found {
    fn is_directory(&self) -> bool {
        match self {
            Found::Said(kind) | Found::Looked(Node { kind, .. }) => *kind == Kind::Directory,
        }
    }

    fn kind(self) -> Kind {
        match self {
            Found::Said(kind) | Found::Looked(Node { kind, .. }) => kind,
        }
    }

    fn node(self, name: impl FnOnce() -> Name) -> Node {
        match self {
            Found::Said(kind) => bare(name(), kind),
            Found::Looked(node) => node,
        }
    }
}

/// Names, packed, each with its kind: what [`Detail::Names`] tells. A node for each would cost more than the
/// walk.
#[derive(Debug, Default)]
pub struct Names {
    /// The names, one behind the other.
    pub bytes: Vec<u8>,
    /// Of each its length in bytes, and its kind.
    pub entries: Vec<(usize, Kind)>,
}

impl Names {
    fn push(&mut self, name: &[u8], kind: Kind) {
        self.bytes.extend_from_slice(name);
        self.entries.push((name.len(), kind));
    }

    fn split_off(&mut self, at: usize) -> Names {
        let entries = self.entries.split_off(at);
        let length = entries.iter().map(|(length, _)| length).sum::<usize>();
        Names { bytes: self.bytes.split_off(self.bytes.len() - length), entries }
    }

    fn into_nodes(self) -> Vec<Node> {
        let mut rest = self.bytes.as_slice();
        let node = |(length, kind): (usize, Kind)| {
            let (name, further) = rest.split_at(length);
            rest = further;
            bare(Name::found(name.to_vec()), kind)
        };
        self.entries.into_iter().map(node).collect()
    }
}

/// An answer of a walk.
#[derive(Debug)]
pub(super) enum Batch {
    Nodes(Vec<Node>),
    Names(Names),
}

impl Batch {
    pub(super) fn len(&self) -> usize {
        match self {
            Batch::Nodes(nodes) => nodes.len(),
            Batch::Names(names) => names.entries.len(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes away all but the first `at`, which must not be more than there are.
    pub(super) fn split_off(&mut self, at: usize) -> Batch {
        match self {
            Batch::Nodes(nodes) => Batch::Nodes(nodes.split_off(at)),
            Batch::Names(names) => Batch::Names(names.split_off(at)),
        }
    }

    pub(super) fn into_nodes(self) -> Vec<Node> {
        match self {
            Batch::Nodes(nodes) => nodes,
            Batch::Names(names) => names.into_nodes(),
        }
    }

    pub(super) fn into_names(self) -> Names {
        match self {
            Batch::Nodes(nodes) => {
                let mut names = Names::default();
                nodes.into_iter().for_each(|node| names.push(node.name.as_bytes(), node.kind));
                names
            }
            Batch::Names(names) => names,
        }
    }
}
