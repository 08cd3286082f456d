//! One thing in a tree.

use std::fmt;

use crate::tar::{Entry, Kind, Time, Xattrs};

/// What it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A regular file and its content.
    File(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link and its target.
    Symlink(Vec<u8>),
    /// A character device.
    Character(u32, u32),
    /// A block device.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
    /// A socket, which archives do not have.
    Socket,
}

/// It, with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub what: What,
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
}

impl Node {
    /// With no attributes to speak of.
    pub fn new(what: What, mode: u32) -> Node {
        Node { what, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Xattrs::new() }
    }

    /// Becomes what a second entry for a directory says, beside the extended attributes of which that says
    /// nothing.
    pub fn replace_directory(&mut self, by: Node) {
        let old = std::mem::replace(self, by).xattrs;
        for (key, value) in old {
            self.xattrs.entry(key).or_insert(value);
        }
    }

    /// A directory that nothing was said of: what a missing parent becomes.
    pub fn bare() -> Node {
        Node::new(What::Directory, 0o755)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.what == What::Directory
    }

    /// The size in bytes that counts in a layer.
    pub fn size(&self) -> u64 {
        match &self.what {
            What::File(content) => content.len() as u64,
            _ => 0,
        }
    }

    /// The entry that says all of it; none for a socket.
    pub fn entry(&self, name: &[u8]) -> Option<Entry> {
        let mut body = Vec::new();
        let kind = match &self.what {
            What::File(content) => {
                body.clone_from(content);
                Kind::File
            }
            What::Directory => Kind::Directory,
            What::Symlink(target) => Kind::Symlink(target.clone()),
            What::Character(major, minor) => Kind::Character(*major, *minor),
            What::Block(major, minor) => Kind::Block(*major, *minor),
            What::Fifo => Kind::Fifo,
            What::Socket => return None,
        };
        let Node { mode, uid, gid, mtime, ref xattrs, .. } = *self;
        Some(Entry { name: name.to_vec(), kind, mode, uid, gid, mtime, xattrs: xattrs.clone(), body })
    }

    /// What an entry says; none for a hard link.
    pub fn of(entry: &Entry) -> Option<Node> {
        let what = match &entry.kind {
            Kind::File => What::File(entry.body.clone()),
            Kind::Directory => What::Directory,
            Kind::Symlink(target) => What::Symlink(target.clone()),
            Kind::HardLink(_) => return None,
            Kind::Character(major, minor) => What::Character(*major, *minor),
            Kind::Block(major, minor) => What::Block(*major, *minor),
            Kind::Fifo => What::Fifo,
        };
        // The permission bits of a symbolic link are what the kernel says.
        let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { entry.mode };
        let Entry { uid, gid, mtime, ref xattrs, .. } = *entry;
        Some(Node { what, mode, uid, gid, mtime, xattrs: xattrs.clone() })
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use crate::escape::Name;
        match &self.what {
            What::File(content) => {
                write!(f, "file of {} bytes ({})", content.len(), Name(&content[..content.len().min(24)]))?
            }
            What::Directory => write!(f, "directory")?,
            What::Symlink(target) => write!(f, "symlink to {}", Name(target))?,
            What::Character(major, minor) => write!(f, "character device {major}:{minor}")?,
            What::Block(major, minor) => write!(f, "block device {major}:{minor}")?,
            What::Fifo => write!(f, "fifo")?,
            What::Socket => write!(f, "socket")?,
        }
        let Time { seconds, nanoseconds } = self.mtime;
        write!(f, " {:04o} {}:{} @{seconds}.{nanoseconds:09}", self.mode, self.uid, self.gid)?;
        for (name, value) in &self.xattrs {
            write!(f, " {}={}", Name(name), Name(value))?;
        }
        Ok(())
    }
}
