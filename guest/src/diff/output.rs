//! An archive on its way out: headers from here, contents from the layers.

use std::collections::BTreeMap;
use std::mem;

use crate::archive::{self, Member, MemberKind, TRAILER, Timestamp};
use crate::host::{
    Content, Dialect, Error, IdMaps, Identity, Kind, Name, Node, Outcome, Piece, Result, Sink, Totals, Tree,
};
use crate::idmap::Owners;
use crate::{compression, labels, whiteout};

/// The most pieces, and about the most bytes of headers, that are sent in one call.
const PIECES: usize = 256;
const BYTES: usize = 256 * 1024;

/// How many of the sockets that were left out are told.
const SKIPPED: usize = 100;

/// Whether the root of a layer has to have an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct RootSays {
    /// In any case: it is not 0755, 0:0, without extended attributes.
    pub(super) always: bool,
    /// When the archive holds anything else. Of an empty layer the time is not kept, so that its archive is
    /// always the same.
    pub(super) with_content: bool,
}

/// The archive.
#[derive(Debug)]
pub(super) struct Output<'a, T: Tree> {
    trees: &'a [T],
    sink: &'a T::Sink,
    owners: Owners,
    /// What is to be sent, and the layer that its contents are in.
    pieces: Vec<Piece>,
    layer: usize,
    /// The bytes that come after the pieces, and how many bytes are in the pieces.
    headers: Vec<u8>,
    bytes: usize,
    /// The first name of each file that has several.
    names: BTreeMap<(u64, u64), Name>,
    totals: Totals,
    skipped: Vec<Name>,
    /// Whether anything was added.
    begun: bool,
}

impl<'a, T: Tree> Output<'a, T> {
    pub(super) fn new(trees: &'a [T], sink: &'a T::Sink, maps: IdMaps) -> Result<Self> {
        Ok(Self {
            trees,
            sink,
            owners: Owners::new(maps)?,
            pieces: Vec::new(),
            layer: 0,
            headers: Vec::new(),
            bytes: 0,
            names: BTreeMap::new(),
            totals: Totals { entries: 0, bytes: 0 },
            skipped: Vec::new(),
            begun: false,
        })
    }

    /// What the root of a layer says that an archive without an entry for it would not.
    pub(super) fn root_says(&self, root: &Node, layer: usize) -> Result<RootSays> {
        let member = self.member(root, self.trees[layer].dialect())?;
        let always = (member.mode, member.uid, member.gid) != (0o755, 0, 0) || !member.xattrs.is_empty();
        Ok(RootSays { always, with_content: always || member.mtime != Timestamp::default() })
    }

    /// Adds what a layer has: an entry of its own, or another name of one that was added before. Sockets,
    /// which an archive cannot hold, are left out.
    pub(super) fn add(&mut self, node: &Node, layer: usize) -> Result<()> {
        if node.kind == Kind::Socket {
            self.skip(node.name.clone());
            return Ok(());
        }
        let mut member = self.member(node, self.trees[layer].dialect())?;
        if !node.name.is_empty() {
            self.totals.entries += 1;
        }
        if node.links > 1 && node.kind != Kind::Directory {
            let Identity { device, inode } = node.identity;
            if let Some(first) = self.names.get(&(device, inode)) {
                member.kind = MemberKind::HardLink(first.clone());
                member.stored = 0;
                member.xattrs.clear();
                return self.header(&member);
            }
            self.names.insert((device, inode), node.name.clone());
        }
        self.header(&member)?;
        if member.stored > 0 {
            self.content(&node.name, layer, member.stored)?;
        }
        self.totals.bytes += member.stored;
        self.flush_when_full()
    }

    /// Says of a socket that it was left out.
    pub(super) fn skip(&mut self, name: Name) {
        if self.skipped.len() < SKIPPED {
            self.skipped.push(name);
        }
    }

    /// Adds that a name is hidden.
    pub(super) fn delete(&mut self, name: &[u8]) -> Result<()> {
        let Some(marker) = whiteout::deletion(name) else {
            return Err(Error::Unsupported(format!(
                "the deletion of `{}` cannot be in an archive: there is no name for it",
                name.escape_ascii()
            )));
        };
        self.marker(marker)
    }

    /// Adds that a directory shows nothing of what lies below it.
    pub(super) fn make_opaque(&mut self, directory: &[u8]) -> Result<()> {
        self.marker(whiteout::opaque(directory))
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<Outcome> {
        self.headers.extend_from_slice(&TRAILER);
        self.flush()?;
        Ok(Outcome { totals: self.totals, skipped: self.skipped })
    }

    fn marker(&mut self, name: Name) -> Result<()> {
        self.header(&bare(name, MemberKind::File(0), 0))?;
        self.flush_when_full()
    }

    fn header(&mut self, member: &Member) -> Result<()> {
        archive::encode(member, &mut self.headers)?;
        if !mem::replace(&mut self.begun, true) && compression::may_seem_packed(&self.headers) {
            // An entry of the root is in front of it, which says nothing that is not so without it.
            self.headers.clear();
            archive::encode(&bare(Name::new(), MemberKind::Directory, 0o755), &mut self.headers)?;
            archive::encode(member, &mut self.headers)?;
        }
        Ok(())
    }

    fn content(&mut self, name: &Name, layer: usize, length: u64) -> Result<()> {
        if layer != self.layer && self.pieces.iter().any(|piece| matches!(piece, Piece::Content(_))) {
            // One call is for one layer; the header just written goes with the content that it belongs to.
            let header = mem::take(&mut self.headers);
            self.flush()?;
            self.headers = header;
        }
        self.layer = layer;
        self.bytes += self.headers.len();
        self.pieces.push(Piece::Bytes(mem::take(&mut self.headers)));
        self.pieces.push(Piece::Content(Content { name: name.clone(), length }));
        self.headers.resize(archive::padding(length) as usize, 0);
        Ok(())
    }

    fn flush_when_full(&mut self) -> Result<()> {
        if self.pieces.len() >= PIECES || self.bytes + self.headers.len() >= BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<()> {
        if self.pieces.is_empty() {
            self.sink.write(&self.headers)?;
            self.headers.clear();
        } else {
            self.pieces.push(Piece::Bytes(mem::take(&mut self.headers)));
            self.trees[self.layer].send(&self.pieces, self.sink)?;
            self.pieces.clear();
        }
        self.bytes = 0;
        Ok(())
    }

    fn member(&self, node: &Node, dialect: Dialect) -> Result<Member> {
        let unsupported = |what: &str| {
            Error::Unsupported(format!("`{}` cannot be in an archive: {what}", node.name.escape_ascii()))
        };
        if whiteout::is_marked(&node.name) {
            return Err(unsupported("its name would mean a deletion"));
        }
        // A layer in aufs' form may have one. No store takes it from an archive, and an engine makes a
        // deletion of it.
        if whiteout::is_overlay_whiteout(&node.kind) {
            return Err(unsupported("it is a 0:0 device, which overlayfs takes for a deletion"));
        }
        let attributes = &node.attributes;
        if attributes.xattrs.iter().any(|xattr| whiteout::leads_elsewhere(dialect, &xattr.name)) {
            return Err(unsupported("overlayfs keeps its content under another name"));
        }
        let kind = match &node.kind {
            Kind::File(size) => MemberKind::File(*size),
            Kind::Directory => MemberKind::Directory,
            Kind::Symlink(target) => MemberKind::Symlink(target.clone()),
            Kind::CharacterDevice(device) => {
                MemberKind::CharacterDevice { major: device.major, minor: device.minor }
            }
            Kind::BlockDevice(device) => MemberKind::BlockDevice { major: device.major, minor: device.minor },
            Kind::Fifo => MemberKind::Fifo,
            Kind::HardLink(_) | Kind::Socket => {
                return Err(unsupported("it is of a kind that archives do not have"));
            }
        };
        let (uid, gid) =
            self.owners.inside(attributes.uid, attributes.gid).map_err(|what| unsupported(&what))?;
        let xattrs = labels::content(&attributes.xattrs).map(|xattr| {
            Ok((xattr.name.clone(), self.owners.xattr_inside(&xattr.name, xattr.value.clone())?))
        });
        Ok(Member {
            name: node.name.clone(),
            stored: if let MemberKind::File(size) = kind { size } else { 0 },
            kind,
            mode: attributes.mode,
            uid,
            gid,
            mtime: Timestamp { seconds: attributes.mtime.seconds, nanoseconds: attributes.mtime.nanoseconds },
            xattrs: xattrs.collect::<std::result::Result<_, String>>().map_err(|what| unsupported(&what))?,
            extents: None,
        })
    }
}

/// A member with nothing but a name, a kind and a mode.
fn bare(name: Name, kind: MemberKind, mode: u32) -> Member {
    Member {
        name,
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Vec::new(),
        stored: 0,
        extents: None,
    }
}
