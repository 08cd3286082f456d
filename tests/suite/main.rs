//! The suite: what layerbox does, seen from outside, on real file systems and mounts.
//!
//! `cargo test -p layerbox-tests --test suite -- [--list] [WORD…]` runs the cases whose names hold one of the words, or all of them. The binary is that of
//! `LAYERBOX_BIN`, else `target/release/layerbox`. Its last line is `suite: N passed, N failed, N skipped`.

mod cases;
mod http;
mod measure;
mod plant;
mod service;

use std::process::ExitCode;

use layerbox_tests::{command, harness, scratch, store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The suite starts itself to measure a program: see the module.
    if let [flag, report, program @ ..] = &arguments[..]
        && flag == measure::FLAG
    {
        return measure::run_and_report(report, program);
    }
    harness::suite("suite", cases::all, &arguments, |_| Ok(()))
}
