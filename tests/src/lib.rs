//! What tests of layerbox from outside need, and what shares no code with it: otherwise a fault could hide on both sides.
//!
//! - [`archive`] writes tar archives byte by byte, wrong ones too.
//! - [`tree`] takes a picture of a directory tree, and tells what differs between two.
//! - [`model`] computes what layers on top of each other must look like.

pub use layerbox_catalogue::archive;

pub mod model;
pub mod tree;
