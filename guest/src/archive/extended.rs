//! What the extension headers before a member say about it: PAX records (`x`), GNU's long names (`L`, `K`),
//! and what a global header (`g`) may say at all.

use super::xattr::Xattrs;
use super::{Fault, Timestamp, acl, field, records, sparse};

/// All that was said so far about the member that comes next.
#[derive(Debug, Default)]
pub(super) struct Extended<'a> {
    records: bool,
    long_name: Option<&'a [u8]>,
    long_link: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    link_path: Option<&'a [u8]>,
    /// The size of the body.
    pub(super) size: Option<u64>,
    /// The owner.
    pub(super) uid: Option<u64>,
    /// The group.
    pub(super) gid: Option<u64>,
    /// The time of the last modification.
    pub(super) mtime: Option<Timestamp>,
    /// Whether there are device numbers, which bsdtar prefers to those of the header and the others ignore.
    pub(super) device: bool,
    /// The extended attributes.
    pub(super) xattrs: Xattrs,
    /// The sparse map.
    pub(super) sparse: sparse::Keys<'a>,
}

impl<'a> Extended<'a> {
    /// Whether anything was said that waits for its member.
    pub(super) fn is_pending(&self) -> bool {
        self.records || self.long_name.is_some() || self.long_link.is_some()
    }

    /// Takes the body of an extension header of the kind `flag`: `x`, `L` or `K`.
    pub(super) fn add(&mut self, flag: u8, body: &'a [u8]) -> Result<(), Fault> {
        let slot = match flag {
            b'L' => &mut self.long_name,
            b'K' => &mut self.long_link,
            _ if self.records => return Err(Fault::rule("two extended headers for one entry")),
            _ => {
                self.records = true;
                return records::split(body)
                    .try_for_each(|record| record.and_then(|(key, value)| self.record(key, value)));
            }
        };
        let text = body.strip_suffix(&[0]).unwrap_or(body);
        match slot.replace(without_nul(text)?) {
            Some(_) => Err(Fault::rule("two long names for one entry")),
            None => Ok(()),
        }
    }

    /// The name of the member, where it is not the one in its header. For a sparse file, GNU tar puts a name
    /// that nobody is meant to see into `path`.
    pub(super) fn name(&self) -> Result<Option<&'a [u8]>, Fault> {
        match (self.sparse.name().or(self.path), self.long_name) {
            (Some(_), Some(_)) => Err(Fault::rule("name given twice (PAX and GNU)")),
            (name, long) => Ok(name.or(long)),
        }
    }

    /// The target of the member, where it is not the one in its header.
    pub(super) fn link(&self) -> Result<Option<&'a [u8]>, Fault> {
        match (self.link_path, self.long_link) {
            (Some(_), Some(_)) => Err(Fault::rule("link target given twice (PAX and GNU)")),
            (link, long) => Ok(link.or(long)),
        }
    }

    /// The best name so far, for messages.
    pub(super) fn label(&self) -> Option<&'a [u8]> {
        self.sparse.name().or(self.path).or(self.long_name)
    }

    fn record(&mut self, key: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        match key {
            b"path" if self.sparse.name().is_some() => {
                // Python takes whichever comes last.
                Err(Fault::rule("path after GNU.sparse.name"))
            }
            b"path" => once(&mut self.path, text(value)?),
            b"linkpath" => once(&mut self.link_path, text(value)?),
            b"size" => once(&mut self.size, field::decimal(value, "size")?),
            b"uid" => once(&mut self.uid, field::decimal(value, "uid")?),
            b"gid" => once(&mut self.gid, field::decimal(value, "gid")?),
            b"mtime" => once(&mut self.mtime, records::parse_time(value)?),
            // Of no use here, but an archive in which they are no times is none for GNU tar, and one with a
            // NUL in the name of an owner is none for Go.
            b"atime" | b"ctime" => records::parse_time(value).map(drop),
            b"uname" | b"gname" => without_nul(value).map(drop),
            b"hdrcharset" => charset(value),
            b"RHT.security.selinux" => self.xattrs.add_selinux(value),
            b"SCHILY.acl.access" => self.xattrs.add_acl(acl::ACCESS, value),
            b"SCHILY.acl.default" => self.xattrs.add_acl(acl::DEFAULT, value),
            b"SCHILY.acl.ace" => Err(Fault::rule("NFSv4 ACL, which Linux cannot store")),
            b"SCHILY.devmajor" | b"SCHILY.devminor" => {
                self.device = true;
                Ok(())
            }
            _ if moves_bytes(key) => Err(Fault::rule("record of a multi-volume or foreign sparse archive")),
            _ => self.prefixed(key, value),
        }
    }

    /// Takes a record whose key is a prefix and a name. Any other key says nothing that is kept here: times
    /// of access, names of owners, comments, and what other vendors add.
    fn prefixed(&mut self, key: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.add_schily(name, value)
        } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
            self.xattrs.add_libarchive(name, value)
        } else if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            self.sparse.add(name, value)
        } else if key.starts_with(b"GNU.sparse") {
            // bsdtar looks no further than here before it takes the file for a sparse one.
            Err(Fault::rule("unknown GNU.sparse record"))
        } else {
            Ok(())
        }
    }
}

/// The name that the records of an extended header say, for messages, however wrong the others are.
pub(super) fn recorded_name(body: &[u8]) -> Option<&[u8]> {
    let mut names = records::split(body).flatten().filter(|(_, value)| !value.is_empty());
    names.find(|(key, _)| matches!(*key, b"path" | b"GNU.sparse.name")).map(|(_, value)| value)
}

/// Checks the records of a global header. They apply to nothing here, and to everything for some readers:
/// harmless for attributes and comments, and refused where it would make names, sizes or links differ.
pub(super) fn check_global(body: &[u8]) -> Result<(), Fault> {
    for record in records::split(body) {
        let (key, value) = record?;
        match key {
            b"path" | b"linkpath" | b"size" => {
                return Err(Fault::rule("global header with a name, a link or a size"));
            }
            b"hdrcharset" => charset(value)?,
            // They apply to nothing here, but to be read by all they must be what they say.
            b"mtime" | b"atime" | b"ctime" => records::parse_time(value).map(drop)?,
            b"uname" | b"gname" => without_nul(value).map(drop)?,
            b"uid" | b"gid" => field::decimal(value, "owner in a global header").and_then(check_owner)?,
            _ if moves_bytes(key) || key.starts_with(b"GNU.sparse") => {
                return Err(Fault::rule("global header of a multi-volume or sparse archive"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether a number can be an owner at all.
fn check_owner(id: u64) -> Result<(), Fault> {
    u32::try_from(id).map(drop).map_err(|_| Fault::rule("owner in a global header out of bounds"))
}

/// Whether a record changes which bytes of the archive belong to a file, for one of the readers.
fn moves_bytes(key: &[u8]) -> bool {
    matches!(key, b"GNU.volume.filename" | b"GNU.volume.size" | b"GNU.volume.offset" | b"SCHILY.realsize")
}

/// Names are bytes here, so both encodings that POSIX knows come to the same.
fn charset(value: &[u8]) -> Result<(), Fault> {
    match value {
        b"BINARY" | b"ISO-IR 10646 2000 UTF-8" => Ok(()),
        _ => Err(Fault::rule("hdrcharset that is neither BINARY nor UTF-8")),
    }
}

/// POSIX lets a later record win and an empty one take an earlier one back; not every reader does.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        Some(_) => Err(Fault::rule("PAX record given twice")),
        None => Ok(()),
    }
}

fn text(value: &[u8]) -> Result<&[u8], Fault> {
    if value.is_empty() {
        return Err(Fault::rule("PAX record that takes a name back"));
    }
    without_nul(value)
}

fn without_nul(text: &[u8]) -> Result<&[u8], Fault> {
    if text.contains(&0) {
        return Err(Fault::rule("NUL in a name"));
    }
    Ok(text)
}
