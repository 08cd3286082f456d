//! What is in the layers: whether the size on record is that of the files, and whether deletions are written
//! in the form of the store's backend.
//!
//! The component alone knows what a layer means. Of deletions the host knows here what their names and
//! numbers are ([`super::super::marks`]), so that a store in which the two forms are mixed (copied from
//! elsewhere, or mounted by another program) is found: the union would show the marks as files, and what they
//! delete as well.
//!
//! In an aufs store a mark of overlayfs is nothing else, and is written in aufs' form. The other way round
//! nothing is done: `.wh.NAME` is an ordinary name to overlayfs, a container can have made it, empty or not,
//! and nothing in the store tells whether it did (a conversion writes all marks anew, and nobody opens a
//! store whose conversion was cut off). Such names are told of and left alone. Layers of a union are not
//! touched while it is mounted, by us or by containerd.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Detail, Tree, WalkOptions};
use layerbox_privileged::mount::{Backend, Unions};
use layerbox_privileged::name::Name;
use layerbox_privileged::node::{Kind, Node};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::super::Store;
use super::super::inodes::Inodes;
use super::super::marks::{self, There, failed};
use super::mend::Repair;
use super::{Records, Search};
use crate::error::{Escaped, Failure};

/// How many names are looked at in one go.
const BATCH: u32 = 1024;

/// What is to be done about a mark in the form of the other backend. Only names are kept: there can be more
/// of them than a process may have descriptors.
#[derive(Debug)]
pub(super) struct Foreign {
    layer: LayerId,
    /// The mark as it is: a 0/0 device, or a directory with overlayfs' attribute.
    name: Name,
    /// Whether containerd may have mounted a layer on it.
    lent: bool,
}

/// What was counted of a layer.
#[derive(Default)]
struct Counted {
    bytes: u64,
    inodes: Inodes,
}

impl Search<'_> {
    /// Looks into every layer that nobody can change meanwhile.
    pub(super) fn content(&mut self, records: &Records) -> Result<(), Failure> {
        let lent = self.below_lent(records);
        for (id, record) in records {
            // Its directory may be missing or something else: that is found elsewhere.
            let place = format!("diff/{id}");
            if self.unions.mounted(id)? || self.lent.contains(id) || !self.store.is_directory(&place)? {
                continue;
            }
            let mut counted = Counted::default();
            if let Err(failure) = self.look_into(id, lent.contains(id), &mut counted) {
                self.add(place, format!("it cannot be read: {failure}"), Repair::None);
                continue;
            }
            if let Some(size) = record.size.filter(|size| size.bytes != counted.bytes) {
                let unsynced = if record.unsynced { "; it was applied without sync" } else { "" };
                let what = format!(
                    "its files have {} bytes, and {} are on record{unsynced}",
                    counted.bytes, size.bytes
                );
                self.add(format!("meta/{id}"), what, Repair::ForgetSize(id.clone(), record.clone()));
            }
        }
        Ok(())
    }

    /// The layers that lie below those which containerd may have mounted.
    fn below_lent<'r>(&self, records: &'r Records) -> BTreeSet<&'r LayerId> {
        self.lent.iter().filter_map(|id| records.get(id)).flat_map(|record| &record.ancestors).collect()
    }

    fn look_into(&mut self, id: &LayerId, lent: bool, counted: &mut Counted) -> Result<(), Failure> {
        let backend = self.store.format().backend();
        let tree = Tree::new(self.store.content(id)?, true);
        let mut walker =
            tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Status })?;
        loop {
            let nodes = walker.next(BATCH)?;
            if nodes.is_empty() {
                return Ok(());
            }
            if backend == Backend::Aufs {
                self.opaque(id, lent, &tree, &nodes)?;
            }
            for node in nodes {
                self.node(id, lent, backend, node, counted);
            }
        }
    }

    /// Directories of an aufs store that are opaque to overlayfs.
    fn opaque(&mut self, id: &LayerId, lent: bool, tree: &Tree, nodes: &[Node]) -> Result<(), Failure> {
        let directories: Vec<Name> = nodes
            .iter()
            .filter(|node| node.kind == Kind::Directory && !marks::is_below_mark(node.name.as_bytes()))
            .map(|node| node.name.clone())
            .collect();
        for node in tree.stat(&directories, Detail::Full)?.into_iter().flatten() {
            let is_opaque = |xattr: &layerbox_privileged::Xattr| {
                Some(xattr.name.as_slice()) == marks::opaque_attribute(Backend::Overlay).map(str::as_bytes)
                    && xattr.value == b"y"
            };
            if node.attributes.xattrs.iter().any(is_opaque) {
                let place = place(id, &node.name);
                let foreign = Foreign { layer: id.clone(), name: node.name, lent };
                let what = "everything below is hidden in overlay's form";
                self.add(place, what, Repair::Translate(foreign));
            }
        }
        Ok(())
    }

    fn node(&mut self, id: &LayerId, lent: bool, backend: Backend, node: Node, counted: &mut Counted) {
        let (directory, last) = node.name.split();
        let meaning = marks::mark(last);
        if let Kind::File(size) = node.kind
            // To aufs its marks, and what is below them, are no content; to overlayfs all is.
            && (backend != Backend::Aufs || meaning.is_none() && !marks::is_below_mark(directory))
            && counted.inodes.is_first(&node)
        {
            counted.bytes += size;
        }
        if marks::is_below_mark(directory) {
            return;
        }
        let place = place(id, &node.name);
        match (backend, meaning) {
            (Backend::Aufs, None) if marks::is_device(&node.kind) => {
                let what = "a deletion in overlay's form";
                if marks::deletion_of(last).is_some() {
                    let foreign = Foreign { layer: id.clone(), name: node.name, lent };
                    self.add(place, what, Repair::Translate(foreign));
                } else {
                    let what = format!("{what}, for which its name is too long in aufs' form");
                    self.add(place, what, Repair::None);
                }
            }
            (Backend::Aufs, _) | (_, None) => {}
            (_, Some(_)) => {
                let what =
                    "it is content whose name is a deletion in archives, so its layer cannot be archived";
                self.add(place, what, Repair::None);
            }
        }
    }
}

/// Where something is, to be shown.
fn place(id: &LayerId, name: &Name) -> String {
    if name.is_root() { format!("diff/{id}") } else { format!("diff/{id}/{}", Escaped(name.as_bytes())) }
}

impl Store {
    /// Writes a mark of overlayfs in aufs' form, then takes it away.
    pub(super) fn translate(&self, foreign: &Foreign, unions: &Unions) -> Result<(), Failure> {
        self.hold_unused(foreign, unions)?;
        to_aufs(self.content(&foreign.layer)?.as_fd(), &foreign.name)
    }

    /// Holds a layer to be in no union that is mounted: what changes below one is seen there or is not.
    fn hold_unused(&self, foreign: &Foreign, unions: &Unions) -> Result<(), Failure> {
        let id = &foreign.layer;
        if foreign.lent {
            return Err(Failure::Busy("a snapshot of containerd's that is in use lies on it".to_owned()));
        }
        for mounted in unions.all()? {
            let record = self.record(&mounted)?;
            if mounted == *id || record.is_some_and(|record| record.ancestors.contains(id)) {
                return Err(Failure::Busy(format!("the layer is part of {mounted}, which is mounted")));
            }
        }
        Ok(())
    }
}

/// The mark was something else when it was found.
fn changed() -> Failure {
    Failure::Conflict("it changed meanwhile".to_owned())
}

fn to_aufs(layer: BorrowedFd<'_>, name: &Name) -> Result<(), Failure> {
    let (above, last) = name.split();
    let open = |path: &[u8]| marks::directory(layer, path).map_err(|errno| failed("openat2", path, errno));
    let directory = open(above)?;
    let directory = directory.as_fd();
    match if name.is_root() { There::Directory } else { marks::look(directory, last)? } {
        There::Directory => {
            let inner = open(name.as_bytes())?;
            write_mark(inner.as_fd(), marks::OPAQUE)?;
            rustix::fs::fremovexattr(&inner, "trusted.overlay.opaque")
                .map_err(|errno| failed("fremovexattr", name.as_bytes(), errno))
        }
        There::Device => {
            let mark = marks::deletion_of(last).ok_or_else(changed)?;
            write_mark(directory, &mark)?;
            unlink(directory, last)
        }
        There::Nothing | There::Empty | There::Other => Err(changed()),
    }
}

/// Makes an empty file; one that is there already means the same.
fn write_mark(directory: BorrowedFd<'_>, mark: &[u8]) -> Result<(), Failure> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(directory, mark, flags, Mode::from_raw_mode(0o444)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed("open", mark, errno)),
    }
}

fn unlink(directory: BorrowedFd<'_>, last: &[u8]) -> Result<(), Failure> {
    rustix::fs::unlinkat(directory, last, AtFlags::empty()).map_err(|errno| failed("unlinkat", last, errno))
}
