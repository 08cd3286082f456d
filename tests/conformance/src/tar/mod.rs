//! Archives, made byte by byte and read strictly.
//!
//! Nothing here is shared with what is verified, and no library is between the suite and the bytes: a fault
//! that both had would not be seen. What an archive means is in the image specification's `layer.md`; its
//! form is POSIX' `pax` (ustar headers, extended headers).

mod header;
mod order;
mod pack;
mod read;
mod write;

use std::collections::BTreeMap;

pub use header::{BLOCK, Header};
pub use order::check_order;
pub use pack::{gzip, zstd};
pub use read::read;
pub use write::{Archive, archive, records};

/// What begins the last component of a name that hides another.
pub const WHITEOUT: &[u8] = b".wh.";

/// The last component of the name that makes its directory opaque.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// A point in time: seconds since 1970, rounded towards minus infinity, and nanoseconds after.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanoseconds: u32,
}

impl Time {
    /// Whole seconds.
    pub fn at(seconds: i64) -> Time {
        Time { seconds, nanoseconds: 0 }
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content is the entry's body.
    File,
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// Another name of an earlier entry.
    HardLink(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

/// Extended attributes by name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// An entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Components joined by `/`; empty for the root. The slash at the end of a directory's name is the
    /// codec's affair.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// The permission bits.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last modification.
    pub mtime: Time,
    /// The extended attributes.
    pub xattrs: Xattrs,
    /// A file's content.
    pub body: Vec<u8>,
}

impl Entry {
    fn new(name: impl AsRef<[u8]>, kind: Kind, mode: u32) -> Entry {
        Entry {
            name: name.as_ref().to_vec(),
            kind,
            mode,
            uid: 0,
            gid: 0,
            mtime: Time::at(1_600_000_000),
            xattrs: Xattrs::new(),
            body: Vec::new(),
        }
    }

    /// A file.
    pub fn file(name: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Entry {
        Entry { body: body.as_ref().to_vec(), ..Entry::new(name, Kind::File, 0o644) }
    }

    /// A directory.
    pub fn directory(name: impl AsRef<[u8]>) -> Entry {
        Entry::new(name, Kind::Directory, 0o755)
    }

    /// A symbolic link.
    pub fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry::new(name, Kind::Symlink(target.as_ref().to_vec()), 0o777)
    }

    /// Another name of an entry.
    pub fn hard_link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
        Entry::new(name, Kind::HardLink(target.as_ref().to_vec()), 0o644)
    }

    /// A node of another kind.
    pub fn node(name: impl AsRef<[u8]>, kind: Kind) -> Entry {
        Entry::new(name, kind, 0o644)
    }

    /// The mark that hides a name.
    pub fn whiteout(name: impl AsRef<[u8]>) -> Entry {
        let (directory, last) = split(name.as_ref());
        Entry::file(join(directory, &[WHITEOUT, last].concat()), b"")
    }

    /// The mark that makes a directory opaque.
    pub fn opaque(directory: impl AsRef<[u8]>) -> Entry {
        Entry::file(join(directory.as_ref(), OPAQUE), b"")
    }

    /// With other permission bits.
    pub fn mode(mut self, mode: u32) -> Entry {
        self.mode = mode;
        self
    }

    /// With other owners.
    pub fn owner(mut self, uid: u32, gid: u32) -> Entry {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// With another time.
    pub fn time(mut self, seconds: i64, nanoseconds: u32) -> Entry {
        self.mtime = Time { seconds, nanoseconds };
        self
    }

    /// With an extended attribute.
    pub fn xattr(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Entry {
        self.xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        self
    }
}

/// A name's directory and last component.
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (b"", name),
    }
}

/// The name of something in a directory.
pub fn join(directory: &[u8], last: &[u8]) -> Vec<u8> {
    if directory.is_empty() { last.to_vec() } else { [directory, b"/", last].concat() }
}
