//! layerbox: a container storage driver in which everything that reads what a stranger wrote runs in a
//! sandbox.
//!
//! A call of the driver goes one way through four parts:
//!
//! 1. [`driver`]: the public API, one method for each call of Docker's graph driver. It takes the locks and
//!    decides what to lend.
//! 2. [`sandbox`]: runs the component, a fresh instance for each call, and gives it the capabilities that the
//!    call was lent.
//! 3. `layerbox_privileged`: what the component's imports end in: file operations bound to one layer, mounts,
//!    reference counts.
//! 4. [`store`]: the records of a root on disk, which tell what exists and what is whole.
//!
//! What decides what runs (a configuration, a component from a file, compiled code) is read by [`trust`].
//!
//! The command line ([`cli`]) and the service ([`serve`]) are thin layers over the driver; where a service
//! owns a store, the command line's calls go to it ([`control`]). [`verify`] holds a component against the
//! contract, in stores of its own.

pub mod cli;
pub mod control;
pub mod digest;
pub mod driver;
pub mod error;
pub mod sandbox;
pub mod serve;
pub mod snapshots;
pub mod store;
pub mod trust;
pub mod verify;

#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
mod skip;
