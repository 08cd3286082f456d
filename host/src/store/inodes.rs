//! Which inodes a count has met.

use std::collections::HashSet;

use layerbox_privileged::node::{Kind, Node};

/// Inodes of several names that were met. Of what has one name no note is taken: nearly all has.
#[derive(Debug, Default)]
pub(crate) struct Inodes(HashSet<(u64, u64)>);

impl Inodes {
    /// Whether a node's inode was not met before.
    pub(crate) fn is_first(&mut self, node: &Node) -> bool {
        // Each directory has several links, and one name.
        node.links < 2 || node.kind == Kind::Directory || self.0.insert((node.device, node.inode))
    }
}
