//! A layer as a sorted map of what it holds and hides, whatever the dialect; and a stack of layers as the one
//! tree that a union of them shows.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::bindings::layerbox::driver::tree::{Detail, Tree, WalkOptions};
use crate::bindings::layerbox::driver::types::{Device, Dialect, Kind, Node};
use crate::error::Result;
use crate::names;

/// What overlayfs keeps for itself, with and without `userxattr`. It belongs into no archive, and must come
/// from none.
pub(crate) const OVERLAY_ATTRIBUTES: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];

/// Whether an attribute is a label that the machine gives to each of its files.
pub(crate) fn is_label(name: &[u8]) -> bool {
    name == b"security.selinux" || name == b"security.evm" || name.starts_with(b"security.SMACK64")
}

/// How overlayfs writes a deletion.
pub(crate) const WHITEOUT: Kind = Kind::CharacterDevice(Device { major: 0, minor: 0 });

/// The name of the attribute that makes a directory opaque, where it is one.
pub(crate) fn opaque_attribute(dialect: Dialect) -> Option<&'static [u8]> {
    match dialect {
        Dialect::Aufs => None,
        Dialect::Overlay => Some(b"trusted.overlay.opaque"),
        Dialect::OverlayUser => Some(b"user.overlay.opaque"),
    }
}

/// One layer's own content, by [`names::key`].
pub(crate) struct Layer {
    /// To send content from.
    pub(crate) tree: Tree,
    /// What it holds, without marks and bookkeeping.
    pub(crate) nodes: BTreeMap<Vec<u8>, Node>,
    /// What it deletes from the layers below and does not hold itself.
    pub(crate) hidden: BTreeSet<Vec<u8>>,
    /// The directories of which nothing is seen that lies in the layers below.
    pub(crate) opaque: BTreeSet<Vec<u8>>,
}

impl Layer {
    /// Reads a whole layer.
    pub(crate) fn read(id: &str) -> Result<Layer> {
        let tree = Tree::open(id)?;
        let options = WalkOptions { start: Vec::new(), recursive: true, detail: Detail::Full };
        let walker = tree.walk(&options)?;
        let attribute = opaque_attribute(tree.dialect());
        let mut layer =
            Layer { tree, nodes: BTreeMap::new(), hidden: BTreeSet::new(), opaque: BTreeSet::new() };
        // What lies below this name is no content.
        let mut dropped: Option<Vec<u8>> = None;
        loop {
            let nodes = walker.next(4096)?;
            if nodes.is_empty() {
                break;
            }
            for node in nodes {
                if dropped.as_ref().is_some_and(|top| node.name.starts_with(&names::join(top, b""))) {
                    continue;
                }
                let marks = match attribute {
                    Some(attribute) => layer.take_overlay(node, attribute),
                    None => layer.take_aufs(node),
                };
                dropped = marks.or(dropped);
            }
        }
        // A mark beside what it names hides only what lies below, and that of a directory hides what is in
        // it.
        for key in std::mem::take(&mut layer.hidden) {
            match layer.nodes.get(&key).map(|node| &node.kind) {
                None => layer.hidden.insert(key),
                Some(Kind::Directory) => layer.opaque.insert(key),
                Some(_) => false,
            };
        }
        Ok(layer)
    }

    /// Takes a node of a layer of overlayfs.
    fn take_overlay(&mut self, mut node: Node, attribute: &[u8]) -> Option<Vec<u8>> {
        let key = names::key(&node.name);
        if node.kind == WHITEOUT {
            self.hidden.insert(key);
            return None;
        }
        if node.kind == Kind::Directory && says(&node, attribute) {
            self.opaque.insert(key.clone());
        }
        strip(&mut node);
        self.nodes.insert(key, node);
        None
    }

    /// Takes a node of a branch of aufs. Answers its name where it is a mark or bookkeeping: as a directory
    /// it may have content, which means nothing.
    fn take_aufs(&mut self, mut node: Node) -> Option<Vec<u8>> {
        let (directory, last) = names::split(&node.name);
        let Some(hidden) = last.strip_prefix(names::MARK) else {
            strip(&mut node);
            self.nodes.insert(names::key(&node.name), node);
            return None;
        };
        if last == names::OPAQUE {
            self.opaque.insert(names::key(directory));
        } else if !last.starts_with(names::BOOKKEEPING) && !matches!(hidden, b"" | b"." | b"..") {
            self.hidden.insert(names::key(&names::join(directory, hidden)));
        }
        Some(node.name)
    }
}

/// Whether this attribute says yes. Other values of it have other meanings, or none.
fn says(node: &Node, attribute: &[u8]) -> bool {
    node.attributes.xattrs.iter().any(|xattr| xattr.name == attribute && xattr.value == b"y")
}

/// Takes away what a file system or the machine keeps for itself.
fn strip(node: &mut Node) {
    let own =
        |name: &[u8]| is_label(name) || OVERLAY_ATTRIBUTES.iter().any(|prefix| name.starts_with(prefix));
    node.attributes.xattrs.retain(|xattr| !own(&xattr.name));
}

/// Whether the root of a layer hides all layers below it. Looks at nothing but the root.
pub(crate) fn root_is_opaque(id: &str) -> Result<bool> {
    let tree = Tree::open(id)?;
    Ok(match opaque_attribute(tree.dialect()) {
        None => tree.stat(&[names::OPAQUE.to_vec()], Detail::Names)?.iter().any(Option::is_some),
        Some(attribute) => {
            tree.stat(&[Vec::new()], Detail::Full)?.iter().flatten().any(|root| says(root, attribute))
        }
    })
}

/// A node of a merged tree, and the layer that it is from.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// Which layer's content it is.
    pub(crate) layer: &'a Layer,
    /// What it is.
    pub(crate) node: &'a Node,
}

/// What a union of layers shows, by [`names::key`].
pub(crate) type Merged<'a> = BTreeMap<&'a [u8], Seen<'a>>;

/// Lays layers on one another; the first is the lowest.
pub(crate) fn merge<'a>(layers: impl Iterator<Item = &'a Layer>) -> Merged<'a> {
    let mut merged = Merged::new();
    for layer in layers {
        for key in &layer.hidden {
            remove_below(&mut merged, key);
            merged.remove(key.as_slice());
        }
        for key in &layer.opaque {
            remove_below(&mut merged, key);
        }
        for (key, node) in &layer.nodes {
            let below = merged.insert(key, Seen { layer, node });
            // Only two directories show the content of both.
            let directory = |node: &Node| node.kind == Kind::Directory;
            if below.is_some_and(|below| !directory(below.node) || !directory(node)) {
                remove_below(&mut merged, key);
            }
        }
    }
    merged
}

/// Removes what lies below a directory, but not the directory.
fn remove_below(merged: &mut Merged<'_>, directory: &[u8]) {
    // Of the root: all but the empty key. Else all keys that begin with the directory's and NUL.
    let first = if directory.is_empty() { vec![1] } else { [directory, b"\0"].concat() };
    let within = |key: &[u8]| directory.is_empty() || key.starts_with(&first);
    let range = merged.range::<[u8], _>((Bound::Included(first.as_slice()), Bound::Unbounded));
    let keys: Vec<&[u8]> = range.map(|(key, _)| *key).take_while(|key| within(key)).collect();
    for key in keys {
        merged.remove(key);
    }
}
