//! Tar, without input or output: bytes become members, members become bytes.
//!
//! The reader is strict in one particular way. GNU tar, bsdtar, Python's `tarfile` and Go's `archive/tar`
//! (which most container engines use) each forgive different faults, so one archive can hold different files
//! for different readers: what a scanner saw is then not what was unpacked. Everything on which those four
//! would disagree about a name, a type, a size or a link is refused here, but for the length of a sparse file
//! whose map ends before it: GNU tar then ends the file there, and the others make it as long as it is said
//! to be. What they write themselves is read, but for what they do not all read alike: of GNU tar incremental
//! archives (`-g`), labels (`-V`) and volumes (`-M`), and sparse files of version 0.1 with long names, which
//! say their names twice; of bsdtar devices with minor numbers that are in PAX records only; of Python times
//! that are in its notation for numbers close to zero (`-1e-09`).
//!
//! [`Decoder::step`] is given the bytes at a header and answers with a [`Member`], or says how many bytes it
//! needs. The bodies are the caller's: they are skipped, never looked at. [`encode()`] writes ustar headers
//! with PAX records (POSIX.1-2001, `pax(1)`) only for what ustar cannot hold.

mod acl;
mod decode;
mod encode;
mod extended;
mod field;
mod header;
mod member;
mod name;
mod records;
mod sparse;
mod xattr;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use decode::{Decoder, Step};
pub use encode::{Unrepresentable, encode};
pub use header::begins_with_header;

/// Tar's unit, in bytes: headers are one block, and bodies are padded to whole ones.
pub const BLOCK: usize = 512;

/// The end of an archive: two blocks of zeros (POSIX.1-2001).
pub const TRAILER: [u8; 1024] = [0; 1024];

/// The largest body of one extension header (PAX records, a long name), in bytes. Nothing that is larger is
/// ever held.
const MAX_EXTENSION: u64 = 1 << 20;

/// The most data regions of one sparse file. At 16 bytes each their list stays at one mebibyte.
const MAX_EXTENTS: usize = 1 << 16;

/// The most extended attributes of one member.
const MAX_XATTRS: usize = 64;

/// The names and values of all extended attributes of one member, in bytes.
const MAX_XATTR_BYTES: usize = 1 << 20;

/// How many bytes of padding follow a body of `stored` bytes: 0 to 511.
pub fn padding(stored: u64) -> u64 {
    stored.wrapping_neg() % BLOCK as u64
}

/// One entry of an archive, decoded: what a file system would be asked to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Where it goes, as bytes: no leading `/` or `./`, no empty, `.` or `..` components, no trailing slash.
    /// Empty: the root.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: MemberKind,
    /// The twelve permission bits: 0o7777. Of a hard link that was read, 0, and so are its owner and group.
    pub mode: u32,
    /// The owner; never 4,294,967,295, which is not an owner.
    pub uid: u32,
    /// The group; never 4,294,967,295, which is not a group.
    pub gid: u32,
    /// The time of the last modification.
    pub mtime: Timestamp,
    /// The extended attributes (xattr(7)): full names and exact values, sorted by name, each name once.
    pub xattrs: Vec<Xattr>,
    /// How many bytes of body follow in the archive, before [`padding`].
    pub stored: u64,
    /// For a sparse file, where in it the stored bytes go: (offset, length), ascending, apart from each
    /// other, not empty. The lengths add up to `stored`; the rest of the file is a hole. For anything else,
    /// `None`.
    pub extents: Option<Vec<(u64, u64)>>,
}

/// An extended attribute: its full name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file and its size in bytes, holes included.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and its target, byte for byte: 1 to 4095 bytes without NUL.
    Symlink(Vec<u8>),
    /// Another name of an earlier member, whose name it holds in the form of [`Member::name`].
    HardLink(Vec<u8>),
    /// A character device.
    CharacterDevice {
        /// The major number: 12 bits.
        major: u32,
        /// The minor number: 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// The major number: 12 bits.
        major: u32,
        /// The minor number: 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded towards minus infinity.
    pub seconds: i64,
    /// Nanoseconds after that second: 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// Why an archive is not read any further.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {rule}", .entry.escape_ascii())]
pub struct Malformed {
    /// The entry, as the archive names it, or as much of its name as was read. Empty: the archive as a whole.
    pub entry: Vec<u8>,
    /// The rule that it breaks or, when `limit` is set, the bound that it reaches, in words for a person.
    pub rule: String,
    /// Whether a bound was reached by what may be an honest archive, rather than a rule broken.
    pub limit: bool,
}

/// A fault found below the level at which the entry's name is known.
#[derive(Debug)]
struct Fault {
    rule: Cow<'static, str>,
    limit: bool,
}

impl Fault {
    fn rule(rule: impl Into<Cow<'static, str>>) -> Self {
        Self { rule: rule.into(), limit: false }
    }

    fn limit(bound: impl Into<Cow<'static, str>>) -> Self {
        Self { rule: bound.into(), limit: true }
    }

    fn at(self, entry: &[u8]) -> Malformed {
        Malformed { entry: entry.to_vec(), rule: self.rule.into_owned(), limit: self.limit }
    }
}
