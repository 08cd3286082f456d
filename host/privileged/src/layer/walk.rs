//! A walk over a layer: depth first, parents before what is in them, the entries of a directory in the order of their
//! bytes.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use rustix::fs::FileType;

use super::descent::Descent;
use super::read::{Detail, Listing, bare, look, present};
use super::resolve::{LIST, beneath};
use crate::{Device, Error, Kind, Name, Node};

/// About the most bytes of names and attributes in one answer.
const MOST_BYTES: usize = 1024 * 1024;

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
}

/// What is known of a directory that the walk is in.
#[derive(Debug)]
struct Level {
    listing: Listing,
    next: usize,
    /// How much of the path names it.
    length: usize,
}

impl Walk {
    pub(super) fn new(root: &OwnedFd, live: bool, options: WalkOptions) -> Result<Self, Error> {
        let path = options.start.as_bytes().to_vec();
        let mut walker = Self { live, options, first: None, descent: Descent::new(), path };
        let start = &walker.options.start;
        if let Some(dir) =
            present(beneath(root.as_fd(), &walker.path, LIST)).map_err(|error| error.at(start))?
        {
            walker.first = look(dir.as_fd(), b"", start.clone(), walker.options.detail)?;
            walker.enter(dir)?;
        }
        Ok(walker)
    }

    /// The next nodes: at most `most`, fewer when they are large. None is the end.
    pub(super) fn next(&mut self, most: usize) -> Result<Vec<Node>, Error> {
        let mut nodes: Vec<Node> = self.first.take().into_iter().collect();
        let mut bytes = 0;
        while nodes.len() < most && bytes < MOST_BYTES {
            let Some((_, level)) = self.descent.inner() else { break };
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
            if let Some(node) = self.visit(kind, last)? {
                let xattrs = &node.attributes.xattrs;
                bytes += self.path.len() + xattrs.iter().map(|x| x.name.len() + x.value.len()).sum::<usize>();
                nodes.push(node);
            }
        }
        Ok(nodes)
    }

    /// Looks at the name that `self.path` now holds, and enters it where it is a directory. `None` when it is gone.
    fn visit(&mut self, kind: FileType, last: usize) -> Result<Option<Node>, Error> {
        let Some((dir, _)) = self.descent.inner() else { return Ok(None) };
        let (name, detail) = (Name::found(self.path.clone()), self.options.detail);
        // The directory's own word is enough for a name, except that it does not tell a whiteout from a device.
        let node = match kind {
            FileType::Unknown | FileType::CharacterDevice => look(dir, &self.path[last..], name, detail)?,
            _ if detail == Detail::Names => Some(bare(name, kind, Device::default())),
            _ => look(dir, &self.path[last..], name, detail)?,
        };
        let Some(node) = node else {
            let name = Name::found(self.path.clone());
            return match self.live {
                true => Ok(None),
                false => Err(Error::Conflict(format!("{name} disappeared while the layer was read"))),
            };
        };
        if self.options.recursive && node.kind == Kind::Directory {
            match beneath(dir, &self.path[last..], LIST) {
                Ok(inner) => self.enter(inner).map_err(|error| error.at(&node.name))?,
                // It is gone, or something else by now.
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if self.live => return Ok(None),
                Err(error) => return Err(Error::io("openat2")(error).at(&node.name)),
            }
        }
        Ok(Some(node))
    }

    /// Goes down into the directory that `self.path` names.
    fn enter(&mut self, dir: OwnedFd) -> Result<(), Error> {
        let mut listing = Listing::read(dir.as_fd(), usize::MAX)?;
        listing.sort();
        self.descent.enter(dir, Level { listing, next: 0, length: self.path.len() })
    }
}
