//! The only code of layerbox that holds authority over the machine: what the sandboxed logic asks for and
//! cannot be trusted with.
//!
//! - [`layer`] reads and fills the directory of one layer, and deletes trees;
//! - [`stream`] moves file bodies between those directories and the two byte streams of a call;
//! - [`mount`] stacks layers into unions and takes them apart; [`references`] counts their users, and knows
//!   in which mount namespace they are.
//!
//! It knows nothing of archives, of how deletions are written down, or of who asks. Every function is safe
//! for every argument: a [`Name`] given by hostile logic has an effect inside the layer whose descriptor the
//! value was made with, or none. What holds that up:
//!
//! - **Descriptors instead of paths.** A layer is an open directory. Nothing in [`layer`] and [`stream`]
//!   takes a path of the machine.
//! - **The kernel resolves names**, by openat2(2) below that descriptor, without magic links and without
//!   crossing mount points. Reading follows no symbolic link at all; filling follows them as in a chroot on
//!   the layer (`RESOLVE_IN_ROOT`), and never as the last component.
//! - **Of what a layer holds only directories and regular files are opened.** Everything else is made, looked
//!   at and removed by name.
//! - **What comes in is bounded**: entries, bytes, queues, batches, descriptors.
//!
//! Two libraries wrap the system calls. nix is used for all that opens, makes, removes or changes; rustix for
//! all that looks (statx, getdents, extended attributes, links) and for copying bytes, where nix has no call
//! or a narrower one. Extended attributes are set with rustix too, since nix has none. `unsafe` is forbidden.
//!
//! What has no handle in the kernel's interface goes through `/proc/self/fd`: extended attributes of symbolic
//! links and devices, and the second opening of a file that was first looked at. `/proc` must be mounted.

#![forbid(unsafe_code)]

pub mod error;
pub mod id;
pub mod layer;
pub mod mount;
pub mod name;
mod namespace;
pub mod node;
pub mod references;
pub mod stream;

#[cfg(test)]
#[path = "../../../tests/src/skip.rs"]
mod skip;

pub use error::Error;
pub use id::{InvalidId, LayerId};
pub use layer::{
    Body, Detail, Entry, Extent, Filler, Policy, Tree, WalkOptions, Walker, delete_tree, delete_tree_while,
};
pub use name::{BadName, Name};
pub use node::{Attributes, Device, Kind, Node, Timestamp, Totals, Xattr};
pub use stream::{Chunk, Sink, Source};
