//! Layers, as a component with a fault sees them: what it does not see right, it tells wrong.

use layerbox_guest::bindings::layerbox::driver::{streams, tree};
use layerbox_guest::component::Imports;
use layerbox_guest::host::{
    Detail, Dialect, Kind, Name, Node, Piece, Result, Tree, Trees, WalkOptions, Walker,
};
use layerbox_guest::layers::LayerId;

use crate::fault::Fault;

const CAPABILITY: &[u8] = b"security.capability";
const OPAQUE_ATTRIBUTE: &[u8] = b"trusted.overlay.opaque";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";
const OTHER_NAME: &[u8] = b".wh..wh.opq";

/// A call that reads layers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Diff,
    Changes,
    Size,
}

/// The layers of a call, seen with a fault.
#[derive(Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) fault: Fault,
    pub(crate) call: Call,
}

/// One of them.
pub(crate) struct SeenTree {
    tree: tree::Tree,
    seen: Seen,
}

/// A walk through it.
pub(crate) struct SeenWalker {
    walker: tree::Walker,
    seen: Seen,
}

impl Trees for Seen {
    type Tree = SeenTree;

    fn tree(&self, id: &LayerId) -> Result<SeenTree> {
        Ok(SeenTree { tree: Imports.tree(id)?, seen: *self })
    }
}

impl Tree for SeenTree {
    type Walker = SeenWalker;
    type Sink = streams::Sink;

    fn dialect(&self) -> Dialect {
        self.tree.dialect()
    }

    fn walk(&self, options: &WalkOptions) -> Result<SeenWalker> {
        Ok(SeenWalker { walker: self.tree.walk(options)?, seen: self.seen })
    }

    fn stat(&self, names: &[Name], detail: Detail) -> Result<Vec<Option<Node>>> {
        let nodes = self.tree.stat(names, detail)?;
        Ok(nodes.into_iter().map(|node| node.and_then(|node| self.seen.node(node))).collect())
    }

    fn send(&self, pieces: &[Piece], to: &streams::Sink) -> Result<()> {
        self.tree.send(pieces, to)
    }
}

impl Walker for SeenWalker {
    fn next(&self, max: u32) -> Result<Vec<Node>> {
        loop {
            let nodes = self.walker.next(max)?;
            let is_end = nodes.is_empty();
            let nodes: Vec<Node> = nodes.into_iter().filter_map(|node| self.seen.node(node)).collect();
            // Nothing left of what came is not the end.
            if is_end || !nodes.is_empty() {
                return Ok(nodes);
            }
        }
    }
}

impl Seen {
    /// What is seen of a node; it may be nothing.
    fn node(&self, mut node: Node) -> Option<Node> {
        let is_directory = node.kind == Kind::Directory;
        let attributes = &mut node.attributes;
        match (self.call, self.fault) {
            (Call::Changes, Fault::ChangesIgnoreTheMode) => attributes.mode = 0o755,
            (Call::Changes, Fault::ChangesBySeconds) => attributes.mtime.nanoseconds = 0,
            (Call::Changes, Fault::ChangesCountDirectoryTimes) if is_directory => {
                // Into bits of the mode that nothing else uses, because modes are compared.
                let time = attributes.mtime.seconds as u32 ^ attributes.mtime.nanoseconds;
                attributes.mode |= time << 12;
            }
            (Call::Changes, Fault::ChangesIgnoreCapabilities)
            | (Call::Diff, Fault::DiffDropsCapabilities) => {
                attributes.xattrs.retain(|xattr| xattr.name != CAPABILITY);
            }
            (Call::Diff, Fault::DiffDropsXattrs) => {
                attributes.xattrs.retain(|xattr| xattr.name == CAPABILITY || xattr.name == OPAQUE_ATTRIBUTE);
            }
            (Call::Diff, Fault::DiffCutsGroups) => attributes.gid &= 0xffff,
            (Call::Diff, Fault::DiffCutsTimes) => attributes.mtime.nanoseconds = 0,
            (Call::Diff, Fault::DiffForgetsHardLinks) | (Call::Size, Fault::SizeCountsHardLinksTwice)
                if matches!(node.kind, Kind::File(_)) =>
            {
                node.links = 1;
            }
            (Call::Diff, Fault::DiffDropsOpaqueMarkers) if !node.name.is_empty() => {
                attributes.xattrs.retain(|xattr| xattr.name != OPAQUE_ATTRIBUTE);
                return (!is_below(&node.name, OPAQUE_NAME)).then_some(node);
            }
            (Call::Diff, Fault::DiffDropsTheOpaqueRoot) => {
                if node.name.is_empty() {
                    attributes.xattrs.retain(|xattr| xattr.name != OPAQUE_ATTRIBUTE);
                }
                return (node.name != OPAQUE_NAME).then_some(node);
            }
            (_, Fault::TakesAnotherNameForOpaque)
                if node.name == OTHER_NAME || is_below(&node.name, OTHER_NAME) =>
            {
                let directory = node.name.len() - OTHER_NAME.len();
                node.name.truncate(directory);
                node.name.extend_from_slice(OPAQUE_NAME);
            }
            _ => {}
        }
        Some(node)
    }
}

/// Whether this is the last component of a name, in a directory below the root.
fn is_below(name: &[u8], last: &[u8]) -> bool {
    name.strip_suffix(last).is_some_and(|directory| directory.ends_with(b"/"))
}
