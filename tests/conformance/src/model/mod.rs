//! What every answer must be: layers and trees as plain maps, and the rules of the contract on them.
//!
//! - [`Layer`]: what one layer itself holds, marks of deletion included; its archive, and back.
//! - [`Tree`]: what a stack of layers shows; merged by [`Tree::with`].
//! - [`changes()`]: what differs between two trees.
//! - [`Sequence`]: random operations that make layers ([`sequence`]), verified against stores ([`verify`])
//!   and made smaller when one fails ([`shrink`]).

mod changes;
mod form;
mod layer;
mod node;
mod operation;
pub mod sequence;
pub mod shrink;
mod tree;
pub mod verify;

pub use changes::changes;
pub use form::disguised;
pub use layer::Layer;
pub use node::{Node, What};
pub use operation::{Operation, Workspace};
pub use sequence::Sequence;
pub use tree::Tree;
