//! How much memory a program takes. Only a process whose one child it is can tell (getrusage(2),
//! `RUSAGE_CHILDREN`), so the suite starts itself as that process.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result};
use layerbox_tests::command::under;
use nix::sys::resource::{UsageWho, getrusage};

/// What tells the suite to be that process.
pub const FLAG: &str = "--measure";

/// The same program as `command`, with its peak of resident memory written to `report`.
///
/// # Errors
///
/// The suite does not know its own path.
pub fn measured(command: &Command, report: &Path) -> Result<Command> {
    let mut outer = Command::new(std::env::current_exe()?);
    outer.arg(FLAG).arg(report);
    Ok(under(outer, command))
}

/// The peak that was reported, in bytes.
///
/// # Errors
///
/// The program was not run to its end.
pub fn peak(report: &Path) -> Result<u64> {
    let text = fs::read_to_string(report).context("the report on memory")?;
    Ok(text.trim().parse::<u64>()? * 1024)
}

/// What the suite does as that process.
pub fn run_and_report(report: &str, program: &[String]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else { return ExitCode::FAILURE };
    let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
    let Ok(status) = Command::new(name).args(arguments).status() else { return ExitCode::FAILURE };
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return ExitCode::FAILURE };
    if fs::write(report, usage.max_rss().to_string()).is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::from(u8::try_from(crate::command::code(status)).unwrap_or(1))
}
