//! The cases, a module for each promise.

mod attack;
mod cache;
mod config;
mod control;
mod convert;
mod depth;
mod dialects;
mod errors;
mod faults;
mod formats;
mod guest;
mod hostile;
mod mounts;
mod outputs;
mod roundtrip;
mod sandbox;
mod service;
mod snapshots;
mod speed;
mod streams;
mod wrong;

pub use hostile::table::print as hostile_table;
pub use hostile::write_archives;

use crate::harness::Case;

/// All of them, in the order in which they are run.
pub fn all() -> Vec<Case> {
    [
        streams::cases(),
        roundtrip::cases(),
        formats::cases(),
        dialects::cases(),
        convert::cases(),
        depth::cases(),
        sandbox::cases(),
        config::cases(),
        guest::cases(),
        cache::cases(),
        attack::cases(),
        errors::cases(),
        outputs::cases(),
        faults::cases(),
        mounts::cases(),
        service::cases(),
        control::cases(),
        snapshots::cases(),
        hostile::cases(),
        wrong::cases(),
        speed::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
