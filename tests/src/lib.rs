//! What tests of layerbox from outside need, and what shares no code with it: otherwise a fault could hide on
//! both sides.
//!
//! - [`archive`] writes tar archives byte by byte, wrong ones too.
//! - [`tree`] takes a picture of a directory tree, and tells what differs between two.
//! - [`model`] computes what layers on top of each other must look like.
//!
//! And what the suites that drive the binary have in common: [`harness`] runs cases, [`scratch`] is where
//! they work, [`command`] runs programs, [`store`] is a store driven through the command line, [`service`] a
//! service that is driven over its sockets by [`http`], [`fixture`] keeps what takes long to make, [`race`]
//! times two ways to do the same, [`skip`] says what was not tested.

pub use layerbox_catalogue::archive;

pub mod command;
pub mod fixture;
pub mod harness;
pub mod http;
pub mod model;
pub mod race;
pub mod scratch;
pub mod service;
pub mod skip;
pub mod store;
pub mod tree;
