//! Writing deletions down in a layer that was filled, in its dialect.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::{AUFS_BASE, PREFIX, join, opaque, opaque_attribute, split};
use crate::error;
use crate::host::{Attributes, Body, Device, Dialect, Entry, Kind, Name, Result, Timestamp, Writer, Xattr};

/// How many markers are names of one file. The limit of ext4 is 65,000, of btrfs 65,535, and less in one directory.
const LINKS: u32 = 30_000;

/// How deep the marker may lie that others are links to, and how far above a name a mark may stand that makes its own
/// superfluous. Finding out whether a symbolic link leads there takes a look at each directory on the way.
const DEPTH: usize = 64;

/// How many markers are looked up and put at a time.
const BATCH: usize = 512;

/// The most components of a name. The host takes no more.
const MAX_COMPONENTS: usize = 4096;

/// The most bytes of names that are kept until the archive has been read.
const MAX_NAME_BYTES: u64 = 64 << 20;

/// The deletions of an archive, kept until all else of it is in the layer: so nothing can link to them, and their order among
/// each other does not matter.
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

    /// Whether a directory of this name is known to be there, because marks are in it or below it: it was when they came, and
    /// they are forgotten when something else takes its place.
    pub fn tell_of(&self, directory: &[u8]) -> bool {
        let (start, end) = within(directory);
        let is_near = |marked: &BTreeSet<Name>| marked.range(start.clone()..end.clone()).next().is_some();
        is_near(&self.deletions) || self.opaque.contains(directory) || is_near(&self.opaque)
    }

    /// Remembers that the layer hides a name, the directory of which is there.
    ///
    /// # Errors
    /// [`Error::Limit`] when there is no room for more.
    pub fn hide(&mut self, name: Name) -> Result<()> {
        self.charge(&name)?;
        self.deletions.insert(name);
        Ok(())
    }

    /// Remembers that a directory, which is there, shows nothing of what lies below it.
    ///
    /// # Errors
    /// [`Error::Limit`] when there is no room for more.
    pub fn make_opaque(&mut self, directory: Name) -> Result<()> {
        self.charge(&directory)?;
        self.opaque.insert(directory);
        Ok(())
    }

    /// Forgets what was said until now of names below this one: something that is no directory takes its place, and with the
    /// directory that may have been there all that was in it is gone, marks as well.
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
    /// What is hidden by a name of this layer needs no mark, unless it is a directory, which must then be opaque; nor does
    /// what lies in a directory of which nothing below the layer is seen. The deepest come first: they make directories,
    /// which counts as content of this layer for what lies above.
    ///
    /// # Errors
    /// Those of the host.
    pub fn place<W: Writer>(self, writer: &W, owner: (u32, u32)) -> Result<u64> {
        let mut deletions = by_depth(&self.deletions, depth);
        let mut opaque = by_depth(&self.opaque, |directory| depth(&opaque(directory)));
        let dialect = writer.dialect();
        let mut hand = Hand { writer, marks: &self, dialect, owner, original: None, links: 0, placed: 0 };
        while let Some(level) =
            deletions.last().into_iter().chain(opaque.last()).map(|(level, _)| *level).max()
        {
            let mut directories = take_level(&mut opaque, level);
            hand.hide(&take_level(&mut deletions, level), &mut directories)?;
            directories.sort_unstable();
            directories.dedup();
            hand.make_opaque(&directories)?;
        }
        Ok(hand.placed)
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

/// The names with their levels, such that the deepest are at the end and those of one level run backwards.
fn by_depth(names: &BTreeSet<Name>, level: impl Fn(&[u8]) -> usize) -> Vec<(usize, &Name)> {
    let mut leveled: Vec<_> = names.iter().map(|name| (level(name), name)).collect();
    leveled.sort_unstable_by(|one, other| (one.0, Reverse(one.1)).cmp(&(other.0, Reverse(other.1))));
    leveled
}

/// Takes the names of one level off the end, in the order of their bytes.
fn take_level<'a>(leveled: &mut Vec<(usize, &'a Name)>, level: usize) -> Vec<&'a Name> {
    let start = leveled.partition_point(|(other, _)| *other < level);
    leveled.drain(start..).rev().map(|(_, name)| name).collect()
}

/// The name that a whiteout of another name has in an archive, however long that is.
fn whiteout(name: &[u8]) -> Name {
    let (directory, last) = split(name);
    join(directory, &[PREFIX, last].concat())
}

/// What writes markers.
struct Hand<'a, W> {
    writer: &'a W,
    /// All that are to be written.
    marks: &'a Markers,
    dialect: Dialect,
    owner: (u32, u32),
    /// The marker that the next ones are links to, while it can take more.
    original: Option<Name>,
    links: u32,
    placed: u64,
}

impl<'a, W: Writer> Hand<'a, W> {
    /// Hides names of one level; adds to `directories` those that must be opaque instead.
    ///
    /// Each directory is looked at before it is written to, because two names may lead to one directory, over a symbolic
    /// link: what is hidden under the one needs no second mark under the other.
    fn hide(&mut self, names: &[&'a Name], directories: &mut Vec<&'a Name>) -> Result<()> {
        for siblings in names.chunk_by(|one, next| split(one).0 == split(next).0) {
            let Some(first) = siblings.first() else { continue };
            let needs_none = self.sees_nothing(split(first).0)?;
            for batch in siblings.chunks(BATCH) {
                let hidden: Vec<Name> = batch.iter().copied().cloned().collect();
                let mut entries = Vec::with_capacity(batch.len());
                let markers: Vec<_> = batch.iter().map(|name| self.marker(name)).collect();
                let is_apart = self.dialect == Dialect::Aufs;
                let mut marked = if is_apart { self.writer.stat(&markers)? } else { Vec::new() }.into_iter();
                for ((name, marker), found) in batch.iter().zip(markers).zip(self.writer.stat(&hidden)?) {
                    let is_marked = marked.next().flatten().is_some();
                    match found.map(|node| node.kind) {
                        None if !is_marked && !needs_none => self.mark(marker, &mut entries)?,
                        Some(Kind::Directory) => directories.push(name),
                        _ => {}
                    }
                }
                self.put(&entries)?;
            }
        }
        Ok(())
    }

    /// Whether nothing of what lies below the layer is seen in a directory: the archive deletes it, or one above it, or makes
    /// that opaque. A mark in there has nothing to hide, and a union that has nothing to merge there would show it.
    ///
    /// Where a symbolic link is on the way, the name leads out of that directory.
    fn sees_nothing(&self, directory: &[u8]) -> Result<bool> {
        let Markers { deletions, opaque, .. } = self.marks;
        let mut way = Vec::new();
        let mut name = directory;
        for _ in 0..DEPTH {
            let is_opaque = opaque.contains(name);
            if !is_opaque {
                way.push(name.to_vec());
            }
            if is_opaque || deletions.contains(name) {
                let found = self.writer.stat(&way)?;
                return Ok(found.into_iter().flatten().all(|node| node.kind == Kind::Directory));
            }
            if name.is_empty() {
                break;
            }
            name = split(name).0;
        }
        Ok(false)
    }

    fn make_opaque(&mut self, directories: &[&Name]) -> Result<()> {
        if let Some(name) = opaque_attribute(self.dialect) {
            let attribute = Xattr { name: name.to_vec(), value: b"y".to_vec() };
            return directories.chunks(BATCH).try_for_each(|batch| {
                let batch: Vec<Name> = batch.iter().copied().cloned().collect();
                self.writer.mark(&batch, &attribute).map_err(|error| error::renamed(error, opaque))
            });
        }
        for directory in directories {
            if !directory.is_empty() && depth(directory) >= MAX_COMPONENTS {
                return Err(error::limit(
                    directory,
                    "components of the name of its mark",
                    MAX_COMPONENTS as u64,
                ));
            }
            let at = [opaque(directory)];
            if self.writer.stat(&at)? == [None] {
                let [at] = at;
                let mut entries = Vec::new();
                self.mark(at, &mut entries)?;
                self.put(&entries)?;
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
        self.writer.put(entries, None).map_err(|error| match self.dialect {
            Dialect::Aufs => error,
            Dialect::Overlay | Dialect::OverlayUser => error::renamed(error, whiteout),
        })
    }

    /// Puts one marker, as a link where that is possible: it saves an inode each.
    fn mark(&mut self, at: Name, entries: &mut Vec<Entry>) -> Result<()> {
        if self.links == LINKS {
            self.original = None;
        }
        if self.original.is_none() && self.dialect == Dialect::Aufs && self.placed == 0 {
            // aufs itself links its marks to this file; beyond what it can carry they are files of their own.
            self.put_original(AUFS_BASE.to_vec())?;
        }
        match &self.original {
            Some(original) => {
                self.links += 1;
                self.placed += 1;
                entries.push(self.entry(at, Kind::HardLink(original.clone())));
                Ok(())
            }
            None => self.put_original(at),
        }
    }

    fn put_original(&mut self, at: Name) -> Result<()> {
        self.put(&[self.entry(at.clone(), self.original_kind())])?;
        self.placed += 1;
        self.links = 1;
        self.original = self.is_straight(&at)?.then_some(at);
        Ok(())
    }

    /// Whether a name can be the target of a link, which no symbolic link may be on the way to.
    fn is_straight(&self, name: &[u8]) -> Result<bool> {
        let ends = name.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        let way: Vec<Name> = ends.map(|end| name[..end].to_vec()).collect();
        if way.len() > DEPTH {
            return Ok(false);
        }
        let found = self.writer.stat(&way)?;
        Ok(found.into_iter().all(|node| node.is_some_and(|node| node.kind == Kind::Directory)))
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
