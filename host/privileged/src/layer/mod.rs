//! The directory of one layer: filled by a [`Filler`], read by a [`Tree`], removed by [`delete_tree`].
//!
//! Each holds a descriptor of that directory and resolves every name below it (`resolve`).

mod ahead;
mod attributes;
mod bodies;
mod delete;
mod descent;
mod fill;
mod opened;
mod permit;
mod read;
mod resolve;
mod touch;
mod walk;

pub use ahead::Walker;
pub use delete::{delete_tree, delete_tree_while};
pub use fill::{Body, Entry, Extent, Filler, Policy};
pub(crate) use read::Listing;
pub use read::{Detail, Tree};
pub(crate) use resolve::{LIST, beneath};
pub(crate) use touch::touch;
pub use walk::{Names, Room, WalkOptions};

#[cfg(test)]
mod tests;
