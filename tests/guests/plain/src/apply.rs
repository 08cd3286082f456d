//! From an archive to a layer: one entry a call. Marks of deletion are put last, when all that they must not
//! hide is there.

use std::collections::BTreeSet;

use crate::bindings::exports::layerbox::driver::differ::ApplyOptions;
use crate::bindings::layerbox::driver::streams::Source;
use crate::bindings::layerbox::driver::types::{Attributes, Dialect, Kind, Totals, Xattr};
use crate::bindings::layerbox::driver::writer::{Body, Entry, Writer};
use crate::encode::nothing;
use crate::error::{Error, Result, limit, refused};
use crate::input::Input;
use crate::member::{Archive, Member};
use crate::names::{self, AUFS, OPAQUE, Place};
use crate::owners::{self, Way};
use crate::view::{WHITEOUT, opaque_attribute};

/// How large a body of a compressed archive is handed over at once.
const PIECE: u64 = 256 * 1024;

/// How many names one mark of aufs gets; file systems end at 65,000.
const NAMES: usize = 60_000;

/// How many directories above a mark are looked at.
const LOOKS: usize = 64;

/// Fills a layer from the archive of this call.
pub(crate) fn apply(id: &str, options: &ApplyOptions) -> Result<Totals> {
    let mut layer =
        Filling { writer: Writer::open(id)?, options, hidden: BTreeSet::new(), opaque: BTreeSet::new() };
    let mut archive = Archive::open()?;
    layer.begin()?;
    let (mut entries, mut bytes) = (0u64, 0u64);
    while let Some(member) = archive.next()? {
        entries += 1;
        if entries > options.max_entries {
            return Err(limit(&member.raw, "entries", options.max_entries));
        }
        if let (Kind::File(size), Place::Entry(_)) = (&member.kind, &member.place) {
            bytes = bytes.saturating_add(*size);
            if bytes > options.max_bytes {
                return Err(limit(&member.raw, "bytes", options.max_bytes));
            }
        }
        layer.member(member, &mut archive)?;
    }
    let marks = layer.marks()?;
    let totals = layer.writer.finish()?;
    // The host counts names; that some of them are marks only this side knows.
    Ok(Totals { entries: totals.entries.saturating_sub(marks), bytes: totals.bytes })
}

/// A layer on the way.
struct Filling<'a> {
    writer: Writer,
    options: &'a ApplyOptions,
    /// The names that the archive deletes.
    hidden: BTreeSet<Vec<u8>>,
    /// The directories that it makes opaque.
    opaque: BTreeSet<Vec<u8>>,
}

impl Filling<'_> {
    /// Where owners are mapped, the directories that no entry describes must belong to the mapped root, and
    /// the host makes them the real one's.
    fn begin(&self) -> Result<()> {
        if self.maps() {
            self.put(Vec::new(), Kind::Directory, self.usual()?, Body::None, None)
        } else {
            Ok(())
        }
    }

    fn maps(&self) -> bool {
        !self.options.maps.uids.is_empty() || !self.options.maps.gids.is_empty()
    }

    /// The attributes of a directory that no entry describes.
    fn usual(&self) -> Result<Attributes> {
        self.mapped(b"", Attributes { mode: 0o755, ..nothing() })
    }

    fn mapped(&self, entry: &[u8], attributes: Attributes) -> Result<Attributes> {
        let unmapped = |id: u32| refused(entry, format!("no range covers the owner {id}"));
        let uid = owners::outside(&self.options.maps.uids, attributes.uid).map_err(unmapped)?;
        let gid = owners::outside(&self.options.maps.gids, attributes.gid).map_err(unmapped)?;
        let xattrs =
            owners::attributes(&self.options.maps, Way::Outside, &attributes.xattrs).map_err(unmapped)?;
        Ok(Attributes { uid, gid, xattrs, ..attributes })
    }

    /// Takes one member of the archive.
    fn member(&mut self, member: Member, archive: &mut Archive) -> Result<()> {
        let refuse = |rule: &str| Err(refused(&member.raw, rule));
        let name = match member.place {
            Place::Bookkeeping => return Ok(()),
            Place::Whiteout(_) | Place::Opaque(_) if !may_mark(&member.kind) => {
                return refuse("a mark of deletion that is no regular file and no link to a mark");
            }
            Place::Whiteout(name) => {
                let (directory, last) = names::split(&name);
                self.hidden.insert(names::join(&self.directory_of(&member.raw, directory)?, last));
                return Ok(());
            }
            Place::Opaque(directory) => {
                self.opaque.insert(self.directory_of(&member.raw, &directory)?);
                return Ok(());
            }
            Place::Entry(name) => name,
        };
        if name.is_empty() && member.kind != Kind::Directory {
            return refuse("the root is a directory");
        }
        let kind = match member.kind {
            Kind::HardLink(target) => match names::place(&target) {
                Ok(Place::Entry(target)) if !target.is_empty() && target != name => Kind::HardLink(target),
                _ => return refuse("a hard link to what is no entry"),
            },
            Kind::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
                return refuse("a symbolic link whose target is no path");
            }
            kind if kind == WHITEOUT => {
                return refuse("the device 0:0, which deletes in layers of overlayfs");
            }
            Kind::CharacterDevice(_) | Kind::BlockDevice(_) if !self.options.devices => {
                return refuse("a device");
            }
            kind => kind,
        };
        // Those of a hard link are the file's, which has them already.
        let attributes = match kind {
            Kind::HardLink(_) => nothing(),
            _ => self.mapped(&member.raw, member.attributes)?,
        };
        if kind != Kind::Directory && !(self.hidden.is_empty() && self.opaque.is_empty()) {
            let (directory, last) = names::split(&name);
            // Where the way leads nowhere, the host refuses the entry.
            let way = self.straight(directory)?.unwrap_or_else(|| directory.to_vec());
            self.replaced(&names::join(&way, last));
        }
        self.parents(&name)?;
        match &mut archive.input {
            _ if archive.left == 0 => self.put(name, kind, attributes, Body::None, None),
            Input::Plain(stream) if member.parts.is_none() => {
                self.put(name, kind, attributes, Body::Stream(stream.position()), Some(&stream.source))?;
                stream.passed(archive.left);
                archive.left = 0;
                Ok(())
            }
            _ => {
                self.put(name, kind, attributes, Body::Later, None)?;
                for (mut offset, length) in member.parts.unwrap_or(vec![(0, archive.left)]) {
                    let end = offset + length;
                    while offset < end {
                        let bytes = archive.body(PIECE.min(end - offset))?;
                        self.writer.fill(offset, &bytes)?;
                        offset += bytes.len() as u64;
                    }
                }
                Ok(())
            }
        }
    }

    fn put(
        &self,
        name: Vec<u8>,
        kind: Kind,
        attributes: Attributes,
        body: Body,
        source: Option<&Source>,
    ) -> Result<()> {
        self.writer.put(&[Entry { name, kind, attributes, body }], source)
    }

    /// Makes the directories above a name that are missing, where the host would make them another's.
    fn parents(&self, name: &[u8]) -> Result<()> {
        let directory = names::split(name).0;
        if !self.maps() || directory.is_empty() || self.there(directory)?.is_some() {
            return Ok(());
        }
        self.parents(directory)?;
        self.put(directory.to_vec(), Kind::Directory, self.usual()?, Body::None, None)
    }

    fn there(&self, name: &[u8]) -> Result<Option<Kind>> {
        let found = self.writer.stat(&[name.to_vec()])?;
        Ok(found.into_iter().flatten().next().map(|node| node.kind))
    }

    /// The directory of a mark by its name without symbolic links. Like that of any entry it is there from
    /// then on, or it cannot be, and the mark is refused.
    fn directory_of(&self, mark: &[u8], directory: &[u8]) -> Result<Vec<u8>> {
        let nowhere = || refused(mark, "a mark of deletion in what is no directory");
        let way = self.straight(directory)?.ok_or_else(nowhere)?;
        match if way.is_empty() { Some(Kind::Directory) } else { self.there(&way)? } {
            Some(Kind::Directory) => Ok(way),
            Some(_) => Err(nowhere()),
            None => {
                let usual = self.usual()?;
                let made = self
                    .parents(&way)
                    .and_then(|()| self.put(way.clone(), Kind::Directory, usual, Body::None, None));
                made.map(|()| way).map_err(|error| renamed(error, mark))
            }
        }
    }

    /// The name of a directory without symbolic links in it, as they lead now: later ones are not what a mark
    /// was put under. None where they lead nowhere.
    fn straight(&self, directory: &[u8]) -> Result<Option<Vec<u8>>> {
        let steps = |path: &[u8]| path.rsplit(|&byte| byte == b'/').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let (mut way, mut rest) = (Vec::new(), steps(directory));
        // How many of the steps at the beginning of the rest are of the name itself and not of a link; how
        // often a link may still lead on.
        let (mut own, mut links) = (rest.len(), 40);
        while let Some(step) = rest.pop() {
            let is_own = rest.len() < own;
            own = own.min(rest.len());
            match step.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    way = names::split(&way).0.to_vec();
                    continue;
                }
                _ => {}
            }
            let next = names::join(&way, &step);
            match if step.len() > 255 { Some(Kind::Socket) } else { self.there(&next)? } {
                Some(Kind::Directory) => way = next,
                Some(Kind::Symlink(target)) if links > 0 => {
                    links -= 1;
                    if target.starts_with(b"/") {
                        way.clear();
                    }
                    rest.extend(steps(&target));
                }
                None if is_own => {
                    way = rest.drain(..).rev().fold(next, |way, step| names::join(&way, &step));
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(way))
    }

    /// Forgets the marks below a name that something takes which is no directory: it replaces them with all
    /// else there.
    fn replaced(&mut self, name: &[u8]) {
        let (start, end) = (names::join(name, b""), [name, b"0"].concat());
        for marks in [&mut self.hidden, &mut self.opaque] {
            while let Some(mark) = marks.range(start.clone()..end.clone()).next().cloned() {
                marks.remove(&mark);
            }
        }
        self.opaque.remove(name);
    }

    /// Whether the archive deletes a directory or one above it, or makes it opaque: then a mark in it has
    /// nothing to hide, unless a symbolic link leads elsewhere.
    fn is_cut_off(&self, directory: &[u8]) -> Result<bool> {
        let mut way = Vec::new();
        let mut above = directory;
        loop {
            let is_opaque = self.opaque.contains(above);
            if !is_opaque {
                way.push(above.to_vec());
            }
            if is_opaque || self.hidden.contains(above) {
                let found = self.writer.stat(&way)?;
                return Ok(found.into_iter().flatten().all(|node| node.kind == Kind::Directory));
            }
            if above.is_empty() || way.len() == LOOKS {
                return Ok(false);
            }
            above = names::split(above).0;
        }
    }

    /// Puts the marks. A mark never hides what its own layer holds: of a directory it hides what lies below,
    /// of anything else nothing is left to hide. Answers how many names that took.
    fn marks(&mut self) -> Result<u64> {
        let dialect = self.writer.dialect();
        let attribute = opaque_attribute(dialect);
        let mut marks = Vec::new();
        let mut remade = Vec::new();
        for name in &self.hidden {
            let there = self.there(name)?;
            if there == Some(Kind::Directory) {
                remade.push(name.clone());
            } else if there.is_none() && !self.is_cut_off(names::split(name).0)? {
                marks.push(if dialect == Dialect::Aufs { names::whiteout(name) } else { name.clone() });
            }
        }
        self.opaque.extend(remade);
        match attribute {
            Some(attribute) => {
                let opaque = Xattr { name: attribute.to_vec(), value: b"y".to_vec() };
                for directory in &self.opaque {
                    self.parents(&names::join(directory, OPAQUE))?;
                    let marked = self.writer.mark(std::slice::from_ref(directory), &opaque);
                    marked.map_err(|error| renamed(error, &names::join(directory, OPAQUE)))?;
                }
            }
            None => {
                for directory in &self.opaque {
                    // The mark is a name, too, and may be too long for one.
                    marks.push(names::clean(&names::join(directory, OPAQUE))?);
                }
            }
        }
        let mut made = 0;
        if dialect == Dialect::Aufs && !marks.is_empty() {
            marks.insert(0, AUFS.to_vec());
        }
        for (index, name) in marks.into_iter().enumerate() {
            self.parents(&name)?;
            // Two names of the archive may lead to one place, by way of a link.
            if self.there(&name)?.is_some() {
                continue;
            }
            let kind = match dialect {
                Dialect::Overlay | Dialect::OverlayUser => WHITEOUT,
                Dialect::Aufs if index == 0 || index > NAMES => Kind::File(0),
                Dialect::Aufs => Kind::HardLink(AUFS.to_vec()),
            };
            let mode = if kind == WHITEOUT { 0 } else { 0o444 };
            let attributes = self.mapped(&name, Attributes { mode, ..nothing() })?;
            let shown = if kind == WHITEOUT { names::whiteout(&name) } else { name.clone() };
            self.put(name, kind, attributes, Body::None, None).map_err(|error| renamed(error, &shown))?;
            made += 1;
        }
        Ok(made)
    }
}

/// A refusal of a mark, with the name that the mark has in the archive.
fn renamed(mut error: Error, name: &[u8]) -> Error {
    if let Error::Refused(refusal) = &mut error {
        refusal.entry = name.to_vec();
    }
    error
}

/// Whether this may be a mark of deletion. To aufs all of them are names of one file, and an archive has the
/// others as links to the first.
fn may_mark(kind: &Kind) -> bool {
    match kind {
        Kind::File(_) => true,
        Kind::HardLink(target) => {
            matches!(names::place(target), Ok(Place::Whiteout(_) | Place::Opaque(_) | Place::Bookkeeping))
        }
        _ => false,
    }
}
