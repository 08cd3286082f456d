//! Writing deletions down in a layer that was filled, in its dialect.

use std::collections::BTreeSet;

use super::{AUFS_BASE, PREFIX, join, opaque, opaque_attribute, split};
use crate::error;
use crate::host::{Attributes, Body, Device, Dialect, Entry, Kind, Name, Result, Timestamp, Writer, Xattr};

/// How many markers are names of one file. The limit of ext4 is 65,000, of btrfs 65,535, and less in one
/// directory.
const LINKS: u32 = 30_000;

/// How deep the marker may lie that others are links to, and how far above a name a mark may stand that makes
/// its own superfluous: either takes a look at each directory on the way.
const DEPTH: usize = 64;

/// How many markers are looked up and put at a time.
const BATCH: usize = 512;

/// The most components of a name. The host takes no more.
const MAX_COMPONENTS: usize = 4096;

/// The most bytes of names that are kept until the archive has been read.
const MAX_NAME_BYTES: u64 = 64 << 20;

/// The deletions of an archive, kept until all else of it is in the layer: so nothing can link to them, and
/// their order among each other does not matter.
///
/// No symbolic link is in their names, and their directories are there. So no two names lead to one place.
#[derive(Debug, Default)]
pub struct Markers {
    deletions: BTreeSet<Name>,
    opaque: BTreeSet<Name>,
    bytes: u64,
}

impl Markers {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.deletions.is_empty() && self.opaque.is_empty()
    }

    /// Whether a directory of this name is known to be there, because marks are in it or below it: it was
    /// there when they came, and they are forgotten when something else takes its place.
    pub fn tell_of(&self, directory: &[u8]) -> bool {
        let (start, end) = within(directory);
        let is_near = |marked: &BTreeSet<Name>| marked.range(start.clone()..end.clone()).next().is_some();
        is_near(&self.deletions) || self.opaque.contains(directory) || is_near(&self.opaque)
    }

    /// Remembers that the layer hides a name, the directory of which is there.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::host::Error::Limit) when there is no room for more.
    pub fn hide(&mut self, name: Name) -> Result<()> {
        self.charge(&name)?;
        self.deletions.insert(name);
        Ok(())
    }

    /// Remembers that a directory, which is there, shows nothing of what lies below it.
    ///
    /// # Errors
    /// [`Error::Limit`](crate::host::Error::Limit) when there is no room for more.
    pub fn make_opaque(&mut self, directory: Name) -> Result<()> {
        self.charge(&directory)?;
        self.opaque.insert(directory);
        Ok(())
    }

    /// Forgets what was said until now of names below this one: something that is no directory takes its
    /// place, and with the directory that may have been there all that was in it is gone, marks as well.
    pub fn replace(&mut self, name: &[u8]) {
        let (start, end) = within(name);
        for marked in [&mut self.deletions, &mut self.opaque] {
            while let Some(below) = marked.range(start.clone()..end.clone()).next().cloned() {
                marked.remove(&below);
            }
        }
        self.opaque.remove(name);
    }

    fn charge(&mut self, name: &[u8]) -> Result<()> {
        self.bytes += name.len() as u64;
        if self.bytes > MAX_NAME_BYTES {
            return Err(error::limit(name, "bytes of names of deletions", MAX_NAME_BYTES));
        }
        Ok(())
    }

    /// Writes them all down, and answers how many names that took.
    ///
    /// What is hidden by a name of this layer needs no mark, unless it is a directory, which must then be
    /// opaque; nor does what lies in a directory of which nothing below the layer is seen.
    ///
    /// # Errors
    /// Those of the host.
    pub fn place<W: Writer>(self, writer: &W, owner: (u32, u32)) -> Result<u64> {
        let dialect = writer.dialect();
        let mut hand = Hand { writer, dialect, owner, original: None, links: 0, placed: 0 };
        let mut hidden: Vec<&Name> = self.deletions.iter().collect();
        // What is in one directory one after the other: the host then finds it once.
        hidden.sort_unstable_by_key(|name| split(name));
        let mut opaque: BTreeSet<&Name> = self.opaque.iter().collect();
        let mut latest: Option<(&[u8], bool)> = None;
        for batch in hidden.chunks(BATCH) {
            let names: Vec<Name> = batch.iter().copied().cloned().collect();
            let mut marks = Vec::with_capacity(batch.len());
            for (name, found) in batch.iter().zip(writer.stat(&names)?) {
                let directory = split(name).0;
                let known = latest.filter(|(known, _)| *known == directory);
                let (_, needs_none) =
                    *latest.insert(known.unwrap_or_else(|| (directory, self.is_hidden_in(directory))));
                match found.map(|node| node.kind) {
                    None if !needs_none => marks.push(hand.marker(name)),
                    Some(Kind::Directory) => {
                        opaque.insert(name);
                    }
                    _ => {}
                }
            }
            hand.mark(marks)?;
        }
        hand.make_opaque(&opaque.into_iter().collect::<Vec<_>>())?;
        Ok(hand.placed)
    }

    /// Whether nothing of what lies below the layer is seen in a directory: the archive deletes it, or one
    /// above it, or makes that opaque. A mark in there has nothing to hide, and a union that has nothing to
    /// merge there would show it.
    fn is_hidden_in<'a>(&self, directory: &'a [u8]) -> bool {
        let above = |name: &&'a [u8]| (!name.is_empty()).then_some(split(name).0);
        let mut way = std::iter::successors(Some(directory), above).take(DEPTH);
        way.any(|name| self.opaque.contains(name) || self.deletions.contains(name))
    }
}

/// Where the names begin that are below a name, and where they end: `0` is the byte after `/`.
fn within(name: &[u8]) -> (Name, Name) {
    ([name, b"/"].concat(), [name, b"0"].concat())
}

/// How many components a name has.
fn depth(name: &[u8]) -> usize {
    name.iter().filter(|&&byte| byte == b'/').count() + 1
}

/// The name that a whiteout of another name has in an archive, however long that is.
fn whiteout(name: &[u8]) -> Name {
    let (directory, last) = split(name);
    join(directory, &[PREFIX, last].concat())
}

/// The file that makes a directory opaque, where a file does.
fn opaque_file(directory: &[u8]) -> Result<Name> {
    let file = opaque(directory);
    if depth(&file) > MAX_COMPONENTS {
        let bound = MAX_COMPONENTS as u64;
        return Err(error::limit(directory, "components of the name of its mark", bound));
    }
    Ok(file)
}

/// What writes markers.
struct Hand<'a, W> {
    writer: &'a W,
    dialect: Dialect,
    owner: (u32, u32),
    /// The marker that the next ones are links to, while it can take more.
    original: Option<Name>,
    links: u32,
    placed: u64,
}

impl<W: Writer> Hand<'_, W> {
    fn make_opaque(&mut self, directories: &[&Name]) -> Result<()> {
        for batch in directories.chunks(BATCH) {
            let batch = batch.iter().copied();
            match opaque_attribute(self.dialect) {
                Some(name) => {
                    let attribute = Xattr { name: name.to_vec(), value: b"y".to_vec() };
                    let marked = self.writer.mark(&batch.cloned().collect::<Vec<_>>(), &attribute);
                    marked.map_err(|error| error::renamed(error, opaque))?;
                }
                None => self.mark(batch.map(|directory| opaque_file(directory)).collect::<Result<_>>()?)?,
            }
        }
        Ok(())
    }

    /// Where the mark goes that hides a name.
    fn marker(&self, name: &[u8]) -> Name {
        match self.dialect {
            Dialect::Aufs => whiteout(name),
            Dialect::Overlay | Dialect::OverlayUser => name.to_vec(),
        }
    }

    fn put(&self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        self.writer.put(entries, None).map_err(|error| match self.dialect {
            Dialect::Aufs => error,
            Dialect::Overlay | Dialect::OverlayUser => error::renamed(error, whiteout),
        })
    }

    /// Puts markers, as links where that is possible: it saves an inode each.
    fn mark(&mut self, markers: Vec<Name>) -> Result<()> {
        let mut entries = Vec::with_capacity(markers.len());
        for at in markers {
            if self.links == LINKS {
                self.original = None;
            }
            if self.original.is_none() && self.dialect == Dialect::Aufs && self.placed == 0 {
                // aufs itself links its marks to this file; beyond what it can carry they are files of their
                // own.
                self.put_original(AUFS_BASE.to_vec())?;
            }
            match &self.original {
                Some(original) => {
                    self.links += 1;
                    self.placed += 1;
                    entries.push(self.entry(at, Kind::HardLink(original.clone())));
                }
                None => self.put_original(at)?,
            }
        }
        self.put(&entries)
    }

    fn put_original(&mut self, at: Name) -> Result<()> {
        self.put(&[self.entry(at.clone(), self.original_kind())])?;
        self.placed += 1;
        self.links = 1;
        self.original = (depth(&at) <= DEPTH).then_some(at);
        Ok(())
    }

    fn original_kind(&self) -> Kind {
        match self.dialect {
            Dialect::Aufs => Kind::File(0),
            Dialect::Overlay | Dialect::OverlayUser => Kind::CharacterDevice(Device { major: 0, minor: 0 }),
        }
    }

    fn entry(&self, name: Name, kind: Kind) -> Entry {
        let mode = if self.dialect == Dialect::Aufs { 0o444 } else { 0 };
        let (uid, gid) = self.owner;
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        Entry {
            name,
            kind,
            attributes: Attributes { mode, uid, gid, mtime, xattrs: Vec::new() },
            body: Body::None,
        }
    }
}
