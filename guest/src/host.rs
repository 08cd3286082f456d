//! What a call may be lent, as traits over the contract's types.
//!
//! In the component they stand for the imports (`component` implements them with the generated resources);
//! natively for whatever a test, a fuzzer or a bench puts in their place. Their meaning is that of `wit/`,
//! word for word; what is said here is only what the signatures do not show.

pub use crate::bindings::exports::layerbox::driver::differ::{ApplyOptions, Outcome};
pub use crate::bindings::exports::layerbox::driver::lifecycle::{Layer, Place};
pub use crate::bindings::layerbox::driver::mounts::Access;
pub use crate::bindings::layerbox::driver::tree::{Content, Detail, Piece, WalkOptions};
pub use crate::bindings::layerbox::driver::types::{
    Attributes, ChangeKind, ChangeList, Device, Dialect, Error, IdMaps, IdRange, Identity, Kind, Name, Node,
    Timestamp, Totals, Xattr,
};
pub use crate::bindings::layerbox::driver::writer::{Body, Entry, Extent};

use crate::layers::LayerId;

/// The result of whatever the host does, and of every call.
pub type Result<T> = std::result::Result<T, Error>;

/// The archive that comes in.
pub trait Source {
    /// The next bytes, at most `max`; none at the end.
    ///
    /// # Errors
    /// Those of the stream's other end.
    fn read(&self, max: u32) -> Result<Vec<u8>>;

    /// Shows the bytes that a packed archive was unpacked to, piece by piece, to a host that wants to see
    /// them.
    ///
    /// # Errors
    /// Those of the host's end.
    fn unpacked(&self, bytes: &[u8]) -> Result<()> {
        let _ = bytes;
        Ok(())
    }
}

/// The archive that goes out.
pub trait Sink {
    /// Writes all the bytes.
    ///
    /// # Errors
    /// Those of the stream's other end.
    fn write(&self, bytes: &[u8]) -> Result<()>;
}

/// A walk under way.
pub trait Walker {
    /// The next nodes, at most `max`; none at the end.
    ///
    /// # Errors
    /// Those of the file system.
    fn next(&self, max: u32) -> Result<Vec<Node>>;

    /// As [`Walker::next`]: gives of each node its name and no more of its kind than a directory says to
    /// `each`. Answers whether there was any.
    ///
    /// # Errors
    /// Those of the file system.
    fn names(&self, max: u32, mut each: impl FnMut(&[u8], Kind)) -> Result<bool> {
        let nodes = self.next(max)?;
        let is_over = nodes.is_empty();
        nodes.into_iter().for_each(|node| each(&node.name, node.kind));
        Ok(!is_over)
    }
}

/// A layer that was lent for reading. No operation follows a symbolic link.
pub trait Tree {
    /// A walk through it.
    type Walker: Walker;
    /// Where its content can be sent.
    type Sink: Sink;

    /// How deletions are written down here.
    fn dialect(&self) -> Dialect;

    /// Begins a walk. A start that is missing or no directory gives an empty one.
    ///
    /// # Errors
    /// Those of the file system.
    fn walk(&self, options: &WalkOptions) -> Result<Self::Walker>;

    /// Looks up names, at most 4,096, in their order.
    ///
    /// # Errors
    /// Those of the file system, other than that there is no such name.
    fn stat(&self, names: &[Name], detail: Detail) -> Result<Vec<Option<Node>>>;

    /// Sends pieces, in their order.
    ///
    /// # Errors
    /// Those of the file system and of the stream, and a file that has become shorter.
    fn send(&self, pieces: &[Piece], to: &Self::Sink) -> Result<()>;
}

/// A layer that was lent to be filled.
pub trait Writer {
    /// Where bodies can come from.
    type Source: Source;

    /// How deletions must be written down here.
    fn dialect(&self) -> Dialect;

    /// Puts entries, in order.
    ///
    /// # Errors
    /// Those of the first entry that cannot be put, which they name.
    fn put(&self, entries: &[Entry], bodies: Option<&Self::Source>) -> Result<()>;

    /// Writes into the file whose body was put as [`Body::Later`].
    ///
    /// # Errors
    /// Those of the file system.
    fn fill(&self, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Sets one extended attribute on directories.
    ///
    /// # Errors
    /// Those of the file system.
    fn mark(&self, directories: &[Name], attribute: &Xattr) -> Result<()>;

    /// Looks up names, at most 4,096, in their order: what they are, without attributes.
    ///
    /// # Errors
    /// Those of the file system, other than that there is no such name.
    fn stat(&self, names: &[Name]) -> Result<Vec<Option<Node>>>;

    /// The barrier: all that was put is there, or an error says why not.
    ///
    /// # Errors
    /// Those of work that was under way.
    fn finish(&self) -> Result<Totals>;
}

/// Layers that can be opened for reading.
pub trait Trees {
    /// One of them.
    type Tree: Tree;

    /// Opens a layer.
    ///
    /// # Errors
    /// [`Error::Denied`] for one that was not lent.
    fn tree(&self, id: &LayerId) -> Result<Self::Tree>;
}

/// The directories of layers.
pub trait Directories {
    /// Makes a layer's directories.
    ///
    /// # Errors
    /// [`Error::Denied`] but for the layer that the call creates, and those of the file system.
    fn make(&self, id: &LayerId) -> Result<()>;

    /// Takes a layer's directories out of sight.
    ///
    /// # Errors
    /// [`Error::HasChildren`], [`Error::Busy`], and those of the file system.
    fn discard(&self, id: &LayerId) -> Result<()>;
}

/// Union mounts.
pub trait Mounts {
    /// The content of a layer, as part of a union.
    type Branch;

    /// Opens a layer as a branch.
    ///
    /// # Errors
    /// [`Error::Denied`] for one that was not lent so.
    fn branch(&self, id: &LayerId, access: Access) -> Result<Self::Branch>;

    /// Mounts branches, uppermost first, on the mount point of `id`.
    ///
    /// # Errors
    /// [`Error::MountFailed`].
    fn mount(&self, id: &LayerId, branches: &[&Self::Branch], label: Option<&str>) -> Result<()>;

    /// Unmounts the mount point of `id`.
    ///
    /// # Errors
    /// [`Error::Busy`] while files are open in the union, unless `force`.
    fn unmount(&self, id: &LayerId, force: bool) -> Result<()>;

    /// Whether something is mounted on the mount point of `id`.
    ///
    /// # Errors
    /// Those of the kernel.
    fn mounted(&self, id: &LayerId) -> Result<bool>;

    /// All layers that have something mounted.
    ///
    /// # Errors
    /// [`Error::Denied`] in a call that may not query all of them.
    fn all(&self) -> Result<Vec<String>>;
}

/// How many users each mounted layer has.
pub trait References {
    /// The count.
    ///
    /// # Errors
    /// Those of the file that keeps the counts.
    fn count(&self, id: &LayerId) -> Result<u32>;

    /// Adds one.
    ///
    /// # Errors
    /// Those of the file that keeps the counts.
    fn acquire(&self, id: &LayerId) -> Result<u32>;

    /// Takes one off; 0 stays 0.
    ///
    /// # Errors
    /// Those of the file that keeps the counts.
    fn release(&self, id: &LayerId) -> Result<u32>;

    /// Makes it 0.
    ///
    /// # Errors
    /// Those of the file that keeps the counts.
    fn clear(&self, id: &LayerId) -> Result<()>;
}
