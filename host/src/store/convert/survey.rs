//! What a layer holds that would be something else in the other form. It is looked for in all layers before
//! anything is changed.

use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Detail, Tree, WalkOptions};
use layerbox_privileged::mount::Backend;
use layerbox_privileged::name::Name;
use layerbox_privileged::node::{Kind, Node, Xattr};

use super::super::Store;
use super::super::marks;
use crate::error::Failure;

/// How many names are looked at in one go.
const BATCH: u32 = 1024;

/// The attributes of overlayfs that say nothing of what a layer holds, less the beginning of their names:
/// hints that keep inode numbers the same, and what it marks its own directories with
/// (fs/overlayfs/overlayfs.h in the kernel).
const HINTS: [&str; 4] = ["origin", "impure", "nlink", "uuid"];

/// Whether an attribute of overlayfs may be forgotten; `own` is what the names of its own begin with.
pub(super) fn is_hint(name: &[u8], own: &str) -> bool {
    name.strip_prefix(own.as_bytes()).is_some_and(|name| HINTS.iter().any(|hint| hint.as_bytes() == name))
}

/// Holds a layer to have nothing that is content in one form and a mark in the other.
///
/// # Errors
///
/// [`Failure::Refused`] with the entry; those of reading.
pub(super) fn survey(store: &Store, id: &LayerId, from: Backend, to: Backend) -> Result<(), Failure> {
    let tree = Tree::new(store.content(id)?, false);
    let mut walker = tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Full })?;
    loop {
        let nodes = walker.next(BATCH)?;
        if nodes.is_empty() {
            return Ok(());
        }
        for node in nodes {
            let rule = match to {
                Backend::Aufs => not_for_aufs(&node, from),
                Backend::Overlay | Backend::OverlayUser => not_for_overlay(&node, to),
            };
            if let Some(rule) = rule {
                return Err(Failure::Refused { entry: node.name.into_bytes(), rule });
            }
        }
    }
}

fn not_for_overlay(node: &Node, to: Backend) -> Option<String> {
    let (directory, last) = node.name.split();
    // Marks, and what is below them, are no content to aufs: they do not stay in the layer.
    if marks::mark(last).is_some() || marks::is_below_mark(directory) {
        return None;
    }
    if marks::is_device(&node.kind) {
        return Some("a 0/0 character device is a deletion to overlayfs".to_owned());
    }
    let own = marks::own_attributes(to)?;
    let its = |xattr: &&Xattr| xattr.name.starts_with(own.as_bytes());
    node.attributes.xattrs.iter().find(its).map(means_something)
}

fn not_for_aufs(node: &Node, from: Backend) -> Option<String> {
    let (_, last) = node.name.split();
    if marks::mark(last).is_some() {
        return Some("names that begin with .wh. are aufs' own".to_owned());
    }
    if marks::is_device(&node.kind) && marks::deletion_of(last).is_none() {
        return Some(
            "its deletion has no name in aufs' form, which would be longer than 255 bytes".to_owned(),
        );
    }
    let (own, opaque) = (marks::own_attributes(from)?, marks::opaque_attribute(from)?);
    let is_opaque = |xattr: &Xattr| {
        node.kind == Kind::Directory && xattr.name == opaque.as_bytes() && xattr.value == b"y"
    };
    let stays = |xattr: &&Xattr| {
        xattr.name.starts_with(own.as_bytes()) && !is_hint(&xattr.name, own) && !is_opaque(xattr)
    };
    node.attributes.xattrs.iter().find(stays).map(means_something)
}

fn means_something(xattr: &Xattr) -> String {
    format!("the attribute {} means something to overlayfs", crate::error::Escaped(&xattr.name))
}

#[cfg(test)]
mod tests {
    use layerbox_privileged::node::{Attributes, Device};

    use super::*;

    fn node(name: &[u8], kind: Kind, xattr: Option<(&str, &str)>) -> Node {
        let xattrs = xattr
            .map(|(name, value)| Xattr { name: name.as_bytes().to_vec(), value: value.as_bytes().to_vec() });
        let attributes = Attributes { xattrs: xattrs.into_iter().collect(), ..Attributes::default() };
        Node {
            name: Name::new(name.to_vec()).unwrap(),
            kind,
            attributes,
            device: 0,
            inode: 0,
            links: 1,
            blocks: 0,
        }
    }

    #[test]
    fn what_each_form_cannot_hold() {
        let device = |major, minor| Kind::CharacterDevice(Device { major, minor });
        let (file, directory) = (|| Kind::File(0), || Kind::Directory);
        let (long, longer) = ([b'x'; 251], [b'x'; 252]);
        // What it is; whether it can be converted to overlayfs, to that in a user namespace, and from either
        // to aufs.
        let rows = [
            (node(b"x", file(), None), [true, true, true, true]),
            (node(b"", directory(), None), [true, true, true, true]),
            (node(b"d/.wh.x", file(), None), [true, true, false, false]),
            (node(b".wh..wh.plnk", directory(), None), [true, true, false, false]),
            (node(b".wh.d/x", device(0, 0), None), [true, true, true, true]),
            (node(b"x", device(0, 0), None), [false, false, true, true]),
            (node(b"x", device(1, 3), None), [true, true, true, true]),
            (node(&long, device(0, 0), None), [false, false, true, true]),
            (node(&longer, device(0, 0), None), [false, false, false, false]),
            (node(b"d", directory(), Some(("trusted.overlay.opaque", "y"))), [false, true, true, true]),
            (node(b"d", directory(), Some(("trusted.overlay.opaque", "x"))), [false, true, false, true]),
            (node(b"x", file(), Some(("trusted.overlay.opaque", "y"))), [false, true, false, true]),
            (node(b"d", directory(), Some(("user.overlay.opaque", "y"))), [true, false, true, true]),
            (node(b"x", file(), Some(("trusted.overlay.origin", "o"))), [false, true, true, true]),
            (node(b"d", directory(), Some(("user.overlay.impure", "y"))), [true, false, true, true]),
            (node(b"d", directory(), Some(("trusted.overlay.redirect", "/e"))), [false, true, false, true]),
            (node(b"x", file(), Some(("user.overlay.metacopy", ""))), [true, false, true, false]),
            (node(b"x", file(), Some(("trusted.overlay.overlay.opaque", "y"))), [false, true, false, true]),
            (node(b"x", file(), Some(("trusted.other", "y"))), [true, true, true, true]),
        ];
        for (node, wanted) in rows {
            let found = [
                not_for_overlay(&node, Backend::Overlay),
                not_for_overlay(&node, Backend::OverlayUser),
                not_for_aufs(&node, Backend::Overlay),
                not_for_aufs(&node, Backend::OverlayUser),
            ];
            assert_eq!(found.map(|rule| rule.is_none()), wanted, "{node:?}");
        }
    }
}
