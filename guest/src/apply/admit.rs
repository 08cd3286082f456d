//! The judgement of each entry: what it becomes in the layer, or which rule it breaks.

use std::slice;

use super::Stored;
use super::batch::Batch;
use super::links::{IS_NO_DIRECTORY, Links};
use crate::archive::{Member, MemberKind};
use crate::error;
use crate::host::{
    ApplyOptions, Attributes, Body, Device, Entry, Kind, Name, Result, Timestamp, Writer, Xattr,
};
use crate::idmap::Owners;
use crate::labels;
use crate::whiteout::{self, Markers, Meaning, join, split};

/// What becomes of an entry.
#[derive(Debug)]
pub(super) enum Admitted {
    /// A regular file whose body is to be taken from the archive.
    File(Entry, Stored),
    /// Something without a body, to be put as it is.
    Bodiless(Entry),
    /// Nothing, for now or at all; a body of so many bytes is to be skipped.
    Nothing(u64),
}

/// The judge, and what it has to remember.
#[derive(Debug)]
pub(super) struct Admission {
    devices: bool,
    owners: Owners,
    max_entries: u64,
    max_bytes: u64,
    entries: u64,
    bytes: u64,
    markers: Markers,
    links: Links,
    /// The directory that the latest entry is or is in, or that of the mark after it, by the name that the
    /// archive has for it: it is there, or will be when the batch has been put.
    here: Name,
}

impl Admission {
    pub(super) fn new(options: ApplyOptions) -> Result<Self> {
        let ApplyOptions { devices, maps, max_entries, max_bytes } = options;
        let owners = Owners::new(maps)?;
        Ok(Self {
            devices,
            owners,
            max_entries,
            max_bytes,
            entries: 0,
            bytes: 0,
            markers: Markers::default(),
            links: Links::default(),
            here: Name::new(),
        })
    }

    /// The deletions that the archive spoke of, and the owner of whatever it did not speak of.
    pub(super) fn into_markers(self) -> (Markers, (u32, u32)) {
        (self.markers, self.owners.root())
    }

    /// Judges an entry. `batch` has those before it, which are put where the layer must be asked about links
    /// among them.
    pub(super) fn judge<W: Writer>(&mut self, member: Member, batch: &mut Batch<'_, W>) -> Result<Admitted> {
        self.entries += 1;
        if self.entries > self.max_entries {
            return Err(error::limit(&member.name, "entries", self.max_entries));
        }
        match whiteout::meaning(&member.name).map_err(|rule| error::refused(&member.name, rule))? {
            Meaning::Plain => {
                let size = if let MemberKind::File(size) = member.kind { size.max(member.stored) } else { 0 };
                self.bytes = self.bytes.saturating_add(size);
                if self.bytes > self.max_bytes {
                    return Err(error::limit(&member.name, "bytes", self.max_bytes));
                }
                self.take_place(&member, batch)?;
                self.here.clear();
                self.here.extend_from_slice(match member.kind {
                    MemberKind::Directory => &member.name,
                    _ => split(&member.name).0,
                });
                self.admit(member)
            }
            Meaning::Bookkeeping => Ok(Admitted::Nothing(member.stored)),
            Meaning::Deletion(_) | Meaning::Opaque(_) if !is_mark(&member.kind) => Err(error::refused(
                &member.name,
                "whiteout that is not a regular file or a link to a whiteout",
            )),
            Meaning::Deletion(name) => {
                let (directory, last) = split(&name);
                let directory = self.place_of(&member.name, directory, batch)?;
                self.markers.hide(join(&directory, last))?;
                Ok(Admitted::Nothing(member.stored))
            }
            Meaning::Opaque(directory) => {
                let directory = self.place_of(&member.name, &directory, batch)?;
                self.markers.make_opaque(directory)?;
                Ok(Admitted::Nothing(member.stored))
            }
        }
    }

    /// The directory of a mark, by the name that no link is in. Where it is missing it is made at once, as
    /// that of any entry: links to it that come later lead there, and what comes into its place takes the
    /// mark along.
    fn place_of<W: Writer>(
        &mut self,
        mark: &[u8],
        directory: &[u8],
        batch: &mut Batch<'_, W>,
    ) -> Result<Name> {
        let refuse = |rule| error::refused(mark, rule);
        let found = self.links.resolve(directory, batch)?.map_err(refuse)?;
        if self.is_on_the_way(directory) || self.markers.tell_of(&found) {
            return Ok(found);
        }
        batch.flush()?;
        match batch.writer.stat(slice::from_ref(&found))?.pop().flatten().map(|node| node.kind) {
            Some(Kind::Directory) => {}
            Some(_) => return Err(refuse(IS_NO_DIRECTORY)),
            None => {
                let missing = self.usual(found.clone());
                let made = batch.writer.put(&[missing], None);
                made.map_err(|error| error::renamed(error, |_| mark.to_vec()))?;
            }
        }
        self.here = directory.to_vec();
        Ok(found)
    }

    /// Whether a directory is the one that is known to be there, or above it.
    fn is_on_the_way(&self, directory: &[u8]) -> bool {
        let below = self.here.strip_prefix(directory);
        directory.is_empty() || below.is_some_and(|below| below.first().is_none_or(|&byte| byte == b'/'))
    }

    /// A directory of which the archive does not speak.
    fn usual(&self, name: Name) -> Entry {
        let (uid, gid) = self.owners.root();
        let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
        let attributes = Attributes { mode: 0o755, uid, gid, mtime, xattrs: Vec::new() };
        Entry { name, kind: Kind::Directory, attributes, body: Body::None }
    }

    /// Forgets the deletions in what an entry replaces, and remembers where links are.
    fn take_place<W: Writer>(&mut self, member: &Member, batch: &mut Batch<'_, W>) -> Result<()> {
        let is_link = match &member.kind {
            MemberKind::Symlink(_) => true,
            MemberKind::HardLink(target) => self.links.may_be(target),
            _ => false,
        };
        if !is_link && self.markers.is_empty() {
            self.links.put_as_named(&member.name);
            return Ok(());
        }
        let (directory, last) = split(&member.name);
        // Where the way leads nowhere, the host refuses the entry.
        let name = join(&self.links.resolve(directory, batch)?.unwrap_or_else(|_| directory.to_vec()), last);
        if member.kind != MemberKind::Directory {
            self.markers.replace(&name);
        }
        self.links.put(&name, is_link);
        Ok(())
    }

    fn admit(&self, member: Member) -> Result<Admitted> {
        let Member { name, kind, mode, uid, gid, mtime, xattrs, stored, extents } = member;
        let kind = match self.kind(kind, &name) {
            Ok(kind) => kind,
            Err(rule) => return Err(error::refused(&name, rule)),
        };
        if let Some((attribute, _)) = xattrs.iter().find(|(name, _)| whiteout::is_overlay_attribute(name)) {
            return Err(error::refused(
                &name,
                format!("attribute `{}` of overlayfs", attribute.escape_ascii()),
            ));
        }
        // Attributes of a hard link say nothing, so its owner is zeros and it has none.
        let is_link = matches!(kind, Kind::HardLink(_));
        let unmapped = |rule| error::refused(&name, rule);
        let (uid, gid) =
            if is_link { self.owners.root() } else { self.owners.outside(uid, gid).map_err(unmapped)? };
        let mtime = Timestamp { seconds: mtime.seconds, nanoseconds: mtime.nanoseconds };
        let xattrs = xattrs.into_iter().filter(|(name, _)| !labels::is_of_the_host(name) && !is_link);
        let xattrs = xattrs.map(|(name, value)| {
            let value = self.owners.xattr_outside(&name, value)?;
            Ok(Xattr { name, value })
        });
        let xattrs = xattrs.collect::<std::result::Result<_, String>>().map_err(unmapped)?;
        let attributes = Attributes { mode, uid, gid, mtime, xattrs };
        let entry = Entry { name, kind, attributes, body: Body::None };
        // An empty file, or one that is all hole, has no body either.
        Ok(match entry.kind {
            Kind::File(_) if stored > 0 => Admitted::File(entry, Stored { length: stored, extents }),
            _ => Admitted::Bodiless(entry),
        })
    }

    fn kind(&self, kind: MemberKind, name: &Name) -> std::result::Result<Kind, &'static str> {
        let device = |major, minor| match self.devices {
            true => Ok(Device { major, minor }),
            false => Err("device nodes are not accepted"),
        };
        Ok(match kind {
            MemberKind::File(size) => Kind::File(size),
            MemberKind::Directory => Kind::Directory,
            MemberKind::Symlink(target) => Kind::Symlink(target),
            MemberKind::HardLink(target) if target.is_empty() => return Err("hard link to the root"),
            MemberKind::HardLink(target) if target == *name => return Err("hard link to itself"),
            MemberKind::HardLink(target) if whiteout::meaning(&target) != Ok(Meaning::Plain) => {
                return Err("hard link to a whiteout name");
            }
            // Whether it was put before, and is no directory, the host knows better.
            MemberKind::HardLink(target) => Kind::HardLink(target),
            MemberKind::CharacterDevice { major: 0, minor: 0 } => {
                return Err("character device 0:0, which overlayfs takes for a deletion");
            }
            MemberKind::CharacterDevice { major, minor } => Kind::CharacterDevice(device(major, minor)?),
            MemberKind::BlockDevice { major, minor } => Kind::BlockDevice(device(major, minor)?),
            MemberKind::Fifo => Kind::Fifo,
        })
    }
}

/// Whether something with the name of a whiteout is of a kind that whiteouts have. On a branch of aufs they
/// are names of one file, so all but the first are hard links to it in an archive: to another whiteout, or to
/// the file that aufs keeps for it.
fn is_mark(kind: &MemberKind) -> bool {
    match kind {
        MemberKind::File(_) => true,
        MemberKind::HardLink(target) => {
            whiteout::meaning(target).is_ok_and(|meaning| meaning != Meaning::Plain)
        }
        _ => false,
    }
}
