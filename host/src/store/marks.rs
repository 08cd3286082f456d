//! How layers have deletions written down, as far as the host has to know it: the names and numbers of the
//! two forms, and how one mark is looked at.
//!
//! What a layer means, only the component knows. The host must know a mark when it sees one in two places:
//! where a store is rewritten in the other form ([`super::convert`]), and where a mark of the other form is
//! found ([`super::check`]). Everything here goes by descriptors below one layer, and follows no link.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use layerbox_privileged::mount::Backend;
use layerbox_privileged::node::{Device, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Failure;

/// What a name begins with that aufs keeps for itself.
pub(super) const PREFIX: &[u8] = b".wh.";

/// The mark of aufs that hides all that lies below a directory.
pub(super) const OPAQUE: &[u8] = b".wh..wh..opq";

/// The file that aufs links its deletions to, in the root of a layer.
pub(super) const BASE: &[u8] = b".wh..wh.aufs";

/// The longest name in bytes (`NAME_MAX`).
pub(super) const LONGEST: usize = 255;

/// The longest path that is resolved at once: `PATH_MAX`, less some room.
const LONGEST_PATH: usize = 4000;

/// What a name means to aufs that begins with [`PREFIX`]. Its type, content and owner do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark<'a> {
    /// That another name in the same directory is deleted.
    Deletes(&'a [u8]),
    /// That all below the directory is hidden.
    Opaque,
    /// Nothing to anybody but aufs, and so does whatever lies below it.
    Bookkeeping,
}

/// Tells what a name means to aufs; none where it is content.
pub(super) fn mark(last: &[u8]) -> Option<Mark<'_>> {
    let hidden = last.strip_prefix(PREFIX)?;
    Some(match hidden {
        _ if last == OPAQUE => Mark::Opaque,
        b"" | b"." | b".." => Mark::Bookkeeping,
        _ if hidden.starts_with(PREFIX) => Mark::Bookkeeping,
        _ => Mark::Deletes(hidden),
    })
}

/// The name by which aufs deletes another; none where there is room for none.
pub(super) fn deletion_of(name: &[u8]) -> Option<Vec<u8>> {
    (name.len() + PREFIX.len() <= LONGEST).then(|| [PREFIX, name].concat())
}

/// Whether one of the components is a mark of aufs, so that all below belongs to it.
pub(super) fn is_below_mark(directory: &[u8]) -> bool {
    directory.split(|byte| *byte == b'/').any(|component| component.starts_with(PREFIX))
}

/// Whether overlayfs takes it for a deletion.
pub(super) fn is_device(kind: &Kind) -> bool {
    *kind == Kind::CharacterDevice(Device { major: 0, minor: 0 })
}

/// What the names of the attributes begin with that are overlayfs' own in a store of this backend; none for
/// aufs.
pub(super) fn own_attributes(backend: Backend) -> Option<&'static str> {
    match backend {
        Backend::Aufs => None,
        Backend::Overlay => Some("trusted.overlay."),
        Backend::OverlayUser => Some("user.overlay."),
    }
}

/// The attribute that hides all that lies below a directory: `y` is its value.
pub(super) fn opaque_attribute(backend: Backend) -> Option<&'static str> {
    match backend {
        Backend::Aufs => None,
        Backend::Overlay => Some("trusted.overlay.opaque"),
        Backend::OverlayUser => Some("user.overlay.opaque"),
    }
}

/// What is at a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum There {
    Nothing,
    Directory,
    /// A deletion of overlayfs.
    Device,
    /// A regular file without a byte.
    Empty,
    Other,
}

/// Looks at a name in an open directory, following nothing.
pub(super) fn look(directory: BorrowedFd<'_>, last: &[u8]) -> Result<There, Failure> {
    match rustix::fs::statat(directory, last, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => There::Directory,
            FileType::CharacterDevice if found.st_rdev == 0 => There::Device,
            FileType::RegularFile if found.st_size == 0 => There::Empty,
            _ => There::Other,
        }),
        Err(Errno::NOENT) => Ok(There::Nothing),
        Err(errno) => Err(failed("stat", last, errno)),
    }
}

/// Opens a directory below an open one (of an empty path: that one) for reading. No link is followed on the
/// way and no mount point crossed. A path can be longer than the kernel takes at once.
///
/// # Errors
///
/// `ENOENT`, `ENOTDIR` or `ELOOP` where there is no such directory.
pub(super) fn directory(top: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut rest = path;
    let mut step: Option<OwnedFd> = None;
    loop {
        let from = step.as_ref().map_or(top, AsFd::as_fd);
        let cut = match rest.len() <= LONGEST_PATH {
            true => rest.len(),
            false => rest[..LONGEST_PATH].iter().rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?,
        };
        let part = if cut == 0 { b".".as_slice() } else { &rest[..cut] };
        let opened = rustix::fs::openat2(from, part, flags, Mode::empty(), resolve)?;
        match rest.get(cut + 1..) {
            Some(further) => rest = further,
            None => return Ok(opened),
        }
        step = Some(opened);
    }
}

/// Whether an error says that there is no such directory: it is gone, or something else.
pub(super) fn is_missing(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// An operation on an entry of a layer that failed.
pub(super) fn failed(operation: &str, entry: &[u8], errno: Errno) -> Failure {
    Failure::Io { entry: entry.to_vec(), operation: operation.to_owned(), code: errno.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_mean_to_aufs() {
        let rows: [(&[u8], Option<Mark<'_>>); 11] = [
            (b"x", None),
            (b".wh", None),
            (b"x.wh.y", None),
            (b".wh.x", Some(Mark::Deletes(b"x"))),
            (b".wh...", Some(Mark::Bookkeeping)),
            (b".wh....", Some(Mark::Deletes(b"..."))),
            (b".wh.", Some(Mark::Bookkeeping)),
            (b".wh..wh..opq", Some(Mark::Opaque)),
            (b".wh..wh.opq", Some(Mark::Bookkeeping)),
            (b".wh..wh.aufs", Some(Mark::Bookkeeping)),
            (b".wh..whx", Some(Mark::Deletes(b".whx"))),
        ];
        for (name, meaning) in rows {
            assert_eq!(mark(name), meaning, "{}", name.escape_ascii());
        }
        assert_eq!(deletion_of(b"x").as_deref(), Some(&b".wh.x"[..]));
        assert!(deletion_of(&[b'x'; 251]).is_some());
        assert_eq!(deletion_of(&[b'x'; 252]), None);
    }

    #[test]
    fn paths_of_any_length_are_opened_and_no_link_is_followed() {
        let root = std::env::temp_dir().join(format!("layerbox-marks-{}", std::process::id()));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let top: OwnedFd = std::fs::File::open(&root).unwrap().into();
        let mut inner = directory(top.as_fd(), b"a/b").unwrap();
        let component = [b'd'; 200];
        let mut long = b"a/b".to_vec();
        for _ in 0..40 {
            rustix::fs::mkdirat(&inner, &component[..], Mode::RWXU).unwrap();
            inner = directory(inner.as_fd(), &component).unwrap();
            long.push(b'/');
            long.extend_from_slice(&component);
        }
        assert!(directory(top.as_fd(), &long).is_ok());
        assert!(directory(top.as_fd(), b"").is_ok());
        for (path, errno) in [
            (&b"link/b"[..], Errno::LOOP),
            (b"link", Errno::NOTDIR),
            (b"../x", Errno::XDEV),
            (b"c", Errno::NOENT),
        ] {
            assert_eq!(directory(top.as_fd(), path).err(), Some(errno), "{}", path.escape_ascii());
        }
        layerbox_privileged::layer::delete_tree(
            std::fs::File::open(root.parent().unwrap()).unwrap().as_fd(),
            root.file_name().unwrap(),
        )
        .unwrap();
    }
}
