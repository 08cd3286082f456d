//! Many layers seen as one tree, and two such trees side by side.
//!
//! A tree is a list of layers, uppermost first. In each directory a name stands for what the uppermost layer
//! has of it; a whiteout hides it in the layers below, and so does anything that is not a directory. A
//! directory goes on in the layers below unless it is opaque. That is what aufs and overlayfs show of the
//! same layers when they are mounted. It is done directory by directory; no symbolic link is followed,
//! because every name is looked up from a layer's root without.

mod listing;
mod pairs;

pub use listing::{Item, Listing, content, is_opaque, list, names};
pub use pairs::pairs;

use std::rc::Rc;

use crate::host::{Kind, Name, Node};

/// What a tree has at a name.
#[derive(Clone, Debug)]
pub struct Side {
    /// What it is: in the uppermost layer that has it.
    pub node: Rc<Node>,
    /// That layer, as an index into the layers that are lent.
    pub layer: usize,
    /// For a directory, the layers in which it may go on, uppermost first, the one above included.
    pub layers: Vec<usize>,
    /// Whether `node` has its status.
    pub has_status: bool,
}

impl Side {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.node.kind == Kind::Directory
    }
}

/// A name and what each of two trees has there: at least one of them something.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Where.
    pub name: Name,
    /// In the older tree.
    pub old: Option<Side>,
    /// In the newer tree.
    pub new: Option<Side>,
}

impl Pair {
    /// Whether both are one and the same, without a look at them.
    pub fn is_shared(&self) -> bool {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => old.layer == new.layer && old.layers == new.layers,
            _ => false,
        }
    }
}
