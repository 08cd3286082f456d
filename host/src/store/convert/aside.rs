//! `aufs/ID/`: what aufs keeps in a layer beside its content, while the store is overlayfs'. Each name is in
//! the directory in which it was in the layer. Only the names that begin with `.wh.` are what was kept; what
//! else there is are directories on the way to them.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Detail, Tree, WalkOptions};
use layerbox_privileged::name::Name;
use layerbox_privileged::node::Kind;
use rustix::fs::Mode;
use rustix::io::Errno;

use super::super::Store;
use super::super::files::exists;
use super::super::marks::{self, There, failed, is_missing};
use super::ASIDE;
use crate::error::Failure;

/// How many names are looked at in one go.
const BATCH: u32 = 1024;

/// Opens that of a layer; none where there is none.
pub(super) fn open(store: &Store, id: &LayerId) -> Result<Option<OwnedFd>, Failure> {
    if !exists(&store.dir, &format!("{ASIDE}/{id}"))? {
        return Ok(None);
    }
    store.open_directory(ASIDE, id).map(Some)
}

/// Moves a name from an open directory of a layer to the place that it has there.
pub(super) fn keep(
    store: &Store,
    id: &LayerId,
    path: &[u8],
    directory: &OwnedFd,
    last: &[u8],
) -> Result<(), Failure> {
    for made in [ASIDE.to_owned(), format!("{ASIDE}/{id}")] {
        match store.dir.create_dir_with(&made, DirBuilder::new().mode(0o700)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Failure::io("mkdir", &e)),
            _ => {}
        }
    }
    let mut place = store.open_directory(ASIDE, id)?;
    for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        match rustix::fs::mkdirat(&place, component, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed("mkdirat", path, errno)),
        }
        place = marks::directory(place.as_fd(), component).map_err(|errno| failed("openat2", path, errno))?;
    }
    rustix::fs::renameat(directory, last, &place, last).map_err(|errno| failed("renameat", last, errno))
}

/// Moves a name back into an open directory of a layer, where there is none of that name; whether there was
/// something to move.
pub(super) fn give_back(
    store: &Store,
    id: &LayerId,
    path: &[u8],
    directory: &OwnedFd,
    last: &[u8],
) -> Result<bool, Failure> {
    let Some(kept) = open(store, id)? else { return Ok(false) };
    let place = match marks::directory(kept.as_fd(), path) {
        Err(errno) if is_missing(errno) => return Ok(false),
        other => other.map_err(|errno| failed("openat2", path, errno))?,
    };
    if marks::look(directory.as_fd(), last)? != There::Nothing {
        return Ok(false);
    }
    match rustix::fs::renameat(&place, last, directory, last) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed("renameat", last, errno)),
    }
}

/// Takes away what nobody wants back: marks of deletions that are no more. Where there is something else as
/// well, it goes to `lost+found/`.
pub(super) fn end(store: &Store, id: &LayerId) -> Result<(), Failure> {
    let Some(kept) = open(store, id)? else { return Ok(()) };
    let place = format!("{ASIDE}/{id}");
    let tree = Tree::new(kept, false);
    let mut walker =
        tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Status })?;
    loop {
        let nodes = walker.next(BATCH)?;
        if nodes.is_empty() {
            return store.throw_away(&place).map(drop);
        }
        if !nodes.iter().all(|node| matches!(node.kind, Kind::Directory | Kind::File(0))) {
            return store.move_away(&place);
        }
    }
}

/// Removes the directory of all of them where it is empty.
pub(super) fn close(dir: &Dir) {
    // It is not while a layer has something in it; then it stays.
    drop(dir.remove_dir(ASIDE));
}
