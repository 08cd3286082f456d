//! The floor: a native program that makes the system calls that the work needs, on one thread, and no others.
//! It trusts its input, reads only archives that the bench writes, and checks nothing: what it takes is what
//! the kernel takes.
//!
//! `bench-floor apply ARCHIVE DIRECTORY` · `bench-floor diff DIRECTORY` · `bench-floor walk DIRECTORY`

mod apply;
mod diff;
mod tar;
mod walk;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["apply", archive, directory] => apply::apply(Path::new(archive), Path::new(directory)),
        ["diff", directory] => diff::diff(Path::new(directory)),
        ["walk", directory] => walk::walk(Path::new(directory)),
        _ => bail!("apply ARCHIVE DIRECTORY, diff DIRECTORY, or walk DIRECTORY"),
    }
}
