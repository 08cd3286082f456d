//! Nothing is lost: what a store is like after its process was killed, its disk was full, or its files were
//! damaged.
//!
//! `cargo test -p layerbox-tests --test crash -- [--list] [WORD…]`, as the other suites; the last line is
//! `crash: N passed, N failed, N skipped`, and before it stands a table: each operation, the points at which
//! it was cut off, what was lost and what was leaked.
//!
//! - [`points`]: every operation is run again and again, and killed before its first call that changes
//!   anything, its second, and so on; then the same with an error of the kernel in the place of each call.
//!   `CRASH_EVERY=N` takes every Nth of the errors only.
//! - [`damage`]: stores that are damaged in many ways are found, mended, and clean after.
//! - [`full`]: file systems without room.
//! - [`busy`]: layers that somebody uses, and layers that take long to delete. `CRASH_FILES=N`: how many
//!   files those have.
//! - [`many`]: many clients at once. `CRASH_SECONDS=N`: how long they go on.
//! - [`meanwhile`]: checks beside other calls.
//! - [`order`]: what is shown is on the disk before it is shown.
//! - [`power`]: what a disk holds whose power went, at each of its flushes.
//! - [`cost`]: what all that costs.

mod busy;
mod calls;
mod cost;
mod damage;
mod full;
mod injector;
mod many;
mod meanwhile;
mod operations;
mod order;
mod points;
mod power;
mod recorder;
mod table;
mod world;

use std::process::ExitCode;

use layerbox_tests::{command, harness, http, scratch, service, store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let cases = || {
        [
            points::cases(),
            damage::cases(),
            full::cases(),
            busy::cases(),
            many::cases(),
            meanwhile::cases(),
            order::cases(),
            power::cases(),
            cost::cases(),
        ]
        .into_iter()
        .flatten()
        .collect()
    };
    harness::suite_with_table("crash", cases, &arguments, |_| Ok(()), table::print)
}
