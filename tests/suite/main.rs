//! The suite: what layerbox does, seen from outside, on real file systems and mounts.
//!
//! `cargo test -p layerbox-tests --test suite -- [--list | --table] [WORD…]` runs the cases whose names hold
//! one of the words, or all of them. The binary is that of `LAYERBOX_BIN`, else `target/release/layerbox`.
//! `--table` prints the table of hostile archives instead. `--archives DIRECTORY` runs nothing and writes
//! those archives there, seeds for the fuzzers. The last line is `suite: N passed, N failed, N skipped`.

mod blobs;
mod cases;
mod measure;
mod plant;
mod snapshotter;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use layerbox_tests::{command, harness, http, scratch, service, store};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The suite starts itself to measure a program: see the module.
    if let [flag, report, program @ ..] = &arguments[..]
        && flag == measure::FLAG
    {
        return measure::run_and_report(report, program);
    }
    let result = match &arguments[..] {
        [flag, directory] if flag == "--archives" => cases::write_archives(directory.as_ref()).map(|()| true),
        _ if arguments.iter().any(|argument| argument == "--table") => table(&arguments),
        _ => return harness::suite("suite", cases::all, &arguments, scratch::Ground::skip_flushes),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("suite: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the table of hostile archives; false where one has another outcome than it should.
fn table(arguments: &[String]) -> Result<bool> {
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let binary = command::binary();
    ensure!(binary.exists(), "{} is not there: run make, or set LAYERBOX_BIN", binary.display());
    let ground = scratch::Ground::new()?;
    ground.skip_flushes()?;
    cases::hostile_table(&words, ground.place())
}
