//! The suite: what layerbox does, seen from outside, on real file systems and mounts.
//!
//! `cargo test -p layerbox-tests --test suite -- [--list | --table] [WORD…]` runs the cases whose names hold one of the words, or all of them. The binary is that of
//! `LAYERBOX_BIN`, else `target/release/layerbox`. `--table` prints the table of hostile archives instead. `--archives DIRECTORY` runs nothing and writes
//! those archives there, seeds for the fuzzers. The last line is `suite: N passed, N failed, N skipped`.

mod cases;
mod command;
mod harness;
mod http;
mod measure;
mod plant;
mod scratch;
mod service;
mod store;

use std::process::ExitCode;

use anyhow::{Result, ensure};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // The suite starts itself to measure a program: see the module.
    if let [flag, report, program @ ..] = &arguments[..]
        && flag == measure::FLAG
    {
        return measure::run_and_report(report, program);
    }
    if let [flag, directory] = &arguments[..]
        && flag == "--archives"
    {
        return match cases::write_archives(directory.as_ref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("suite: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match suite(&arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("suite: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn suite(arguments: &[String]) -> Result<ExitCode> {
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let mut cases = cases::all();
    cases.retain(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())));
    if arguments.iter().any(|argument| argument == "--list") {
        for case in &cases {
            println!("{}", case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let table = arguments.iter().any(|argument| argument == "--table");
    let binary = command::binary();
    ensure!(binary.exists(), "{} is not there: run make, or set LAYERBOX_BIN", binary.display());
    let ground = scratch::Ground::new()?;
    if table {
        let right = cases::hostile_table(&words, ground.place())?;
        return Ok(if right { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let totals = harness::run(&cases, ground.place());
    drop(ground);
    println!("suite: {} passed, {} failed, {} skipped", totals.passed, totals.failed, totals.skipped);
    Ok(if totals.failed == 0 && !cases.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
