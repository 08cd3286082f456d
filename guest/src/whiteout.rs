//! How deletions are written: in archives, in layers of aufs, in layers of overlayfs.
//!
//! Nothing else in this crate knows a `.wh.` name, a 0:0 device or an overlay attribute when it sees one.
//! Sources: the image specification's `layer.md` (Whiteouts), `aufs(5)`, and the kernel's
//! `Documentation/filesystems/overlayfs.rst`.

mod place;

pub use place::Markers;

use crate::host::{Device, Dialect, Kind, Name, Xattr};

/// What a name begins with that hides another.
const PREFIX: &[u8] = b".wh.";

/// What the names begin with that aufs keeps for itself.
const RESERVED: &[u8] = b".wh..wh.";

/// The mark of a directory that shows nothing of what lies below it.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The file that aufs links its whiteouts to, in the root of a layer.
const AUFS_BASE: &[u8] = b".wh..wh.aufs";

/// The longest component of a name, in bytes (NAME_MAX).
const MAX_COMPONENT: usize = 255;

/// What a name in an archive means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Itself.
    Plain,
    /// That this other name is hidden.
    Deletion(Name),
    /// That this directory shows nothing of what lies below it.
    Opaque(Name),
    /// Nothing to anybody but aufs, and so is whatever lies below it.
    Bookkeeping,
}

/// Tells what a name in an archive means.
///
/// # Errors
/// The rule that the name breaks, in words.
pub fn meaning(name: &[u8]) -> Result<Meaning, &'static str> {
    let (directory, last) = split(name);
    let first = name.split(|&byte| byte == b'/').next().unwrap_or_default();
    if first.starts_with(RESERVED) && first != OPAQUE {
        return Ok(Meaning::Bookkeeping);
    }
    if directory.split(|&byte| byte == b'/').any(|component| component.starts_with(PREFIX)) {
        return Err("whiteout name on the way to an entry");
    }
    if last == OPAQUE {
        return Ok(Meaning::Opaque(directory.to_vec()));
    }
    if last.starts_with(RESERVED) {
        return Err("bookkeeping name of aufs below the root");
    }
    match last.strip_prefix(PREFIX) {
        None => Ok(Meaning::Plain),
        Some(b"" | b"." | b"..") => Err("whiteout of no name"),
        Some(hidden) => Ok(Meaning::Deletion(join(directory, hidden))),
    }
}

/// Whether a name cannot stand for itself in an archive.
pub fn is_marked(name: &[u8]) -> bool {
    split(name).1.starts_with(PREFIX)
}

/// The name by which an archive hides another; `None` where that would be longer than a name can be (255
/// bytes a component), or would mean something else.
pub fn deletion(name: &[u8]) -> Option<Name> {
    let (directory, last) = split(name);
    let exists = last.len() + PREFIX.len() <= MAX_COMPONENT && !last.starts_with(PREFIX);
    exists.then(|| join(directory, &[PREFIX, last].concat()))
}

/// The name by which an archive makes a directory opaque.
pub fn opaque(directory: &[u8]) -> Name {
    join(directory, OPAQUE)
}

/// What something in a layer on disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Content.
    Content,
    /// A mark that hides the name with this last component, in the same directory.
    Hides(&'a [u8]),
    /// The mark of its directory as opaque.
    Opaque,
    /// Nothing to anybody but aufs, and so is whatever lies below it.
    Bookkeeping,
}

/// Tells what something in a layer is, by the last component of its name and its kind.
///
/// To aufs the name alone counts: a `.wh.` name hides whatever its type, content and owner.
pub fn found<'a>(dialect: Dialect, last: &'a [u8], kind: &Kind) -> Found<'a> {
    match dialect {
        Dialect::Aufs => match last.strip_prefix(PREFIX) {
            None => Found::Content,
            Some(_) if last == OPAQUE => Found::Opaque,
            Some(b"" | b"." | b"..") => Found::Bookkeeping,
            Some(hidden) if !hidden.starts_with(PREFIX) => Found::Hides(hidden),
            Some(_) => Found::Bookkeeping,
        },
        Dialect::Overlay | Dialect::OverlayUser if is_overlay_whiteout(kind) => Found::Hides(last),
        Dialect::Overlay | Dialect::OverlayUser => Found::Content,
    }
}

/// Whether something is what overlayfs takes for a deletion.
pub fn is_overlay_whiteout(kind: &Kind) -> bool {
    *kind == Kind::CharacterDevice(Device { major: 0, minor: 0 })
}

/// The attribute that makes a directory opaque; aufs has none.
pub fn opaque_attribute(dialect: Dialect) -> Option<&'static [u8]> {
    match dialect {
        Dialect::Aufs => None,
        Dialect::Overlay => Some(b"trusted.overlay.opaque"),
        Dialect::OverlayUser => Some(b"user.overlay.opaque"),
    }
}

/// Whether these attributes make a directory opaque.
pub fn has_opaque_attribute(dialect: Dialect, xattrs: &[Xattr]) -> bool {
    opaque_attribute(dialect)
        .is_some_and(|name| xattrs.iter().any(|xattr| xattr.name == name && xattr.value == b"y"))
}

/// Whether a directory below a layer's root may go on in the layers below, as far as its attributes say.
/// overlayfs writes down of each that it copied up that there was one (`origin`); of those that it made it
/// says so only where it deleted one before. aufs says nothing of either.
pub fn may_go_on(dialect: Dialect, xattrs: &[Xattr]) -> bool {
    let origin: &[u8] = match dialect {
        Dialect::Aufs => return true,
        Dialect::Overlay => b"trusted.overlay.origin",
        Dialect::OverlayUser => b"user.overlay.origin",
    };
    !has_opaque_attribute(dialect, xattrs) && xattrs.iter().any(|xattr| xattr.name == origin)
}

/// Whether an attribute is overlayfs' own. Those are neither taken from archives nor put into them, whatever
/// the dialect: a layer may be moved to a store of the other one.
pub fn is_overlay_attribute(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Whether an attribute says that overlayfs finds the content somewhere else than in this file or directory.
/// Only a union mounted with `redirect_dir` or `metacopy` writes these, which ours are not.
pub fn leads_elsewhere(dialect: Dialect, name: &[u8]) -> bool {
    let own = match dialect {
        Dialect::Aufs => return false,
        Dialect::Overlay => name.strip_prefix(b"trusted.overlay."),
        Dialect::OverlayUser => name.strip_prefix(b"user.overlay."),
    };
    matches!(own, Some(b"redirect" | b"metacopy"))
}

/// A name's directory and its last component.
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&[], name),
    }
}

/// The name of something in a directory.
pub(crate) fn join(directory: &[u8], last: &[u8]) -> Name {
    if directory.is_empty() { last.to_vec() } else { [directory, b"/", last].concat() }
}
