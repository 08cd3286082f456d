//! What lies in a layer: the words of `wit/types.wit` as Rust types.

use crate::name::Name;

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Whole seconds since 1970-01-01T00:00:00Z, rounded towards minus infinity.
    pub seconds: i64,
    /// Nanoseconds to add; always less than 1,000,000,000.
    pub nanoseconds: u32,
}

/// A device number (makedev(3)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// The major number, 12 bits.
    pub major: u32,
    /// The minor number, 20 bits.
    pub minor: u32,
}

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file and its apparent size in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and its target, byte for byte.
    Symlink(Vec<u8>),
    /// Another name of a file, by that file's name. Only in what is put.
    HardLink(Name),
    /// A character device.
    CharacterDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket. Only in what is read.
    Socket,
}

/// One extended attribute (xattr(7)).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// The full name with its namespace.
    pub name: Vec<u8>,
    /// The value, exactly as the kernel keeps it.
    pub value: Vec<u8>,
}

/// What inode(7) calls the status of a file, less what its kind says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The twelve permission bits, 0o7777.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The time of the last modification.
    pub mtime: Timestamp,
    /// The extended attributes; sorted by name in what is read.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// How many bytes the names and values of its extended attributes have.
    pub(crate) fn xattr_bytes(&self) -> usize {
        self.xattrs.iter().map(|xattr| xattr.name.len() + xattr.value.len()).sum()
    }
}

/// One name of a layer, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it is.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Its status.
    pub attributes: Attributes,
    /// The device that the file lies on; only good to be compared.
    pub device: u64,
    /// The inode number.
    pub inode: u64,
    /// How many names the file has.
    pub links: u32,
    /// How many blocks of 512 bytes it takes on the disk.
    pub blocks: u64,
}

/// What a layer holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names, the root not counted.
    pub entries: u64,
    /// Apparent sizes in bytes of the regular files, each file once however many names it has.
    pub bytes: u64,
}
