//! One program, run and measured: by the clock, by its use of processors and memory, and under strace by its
//! system calls.
//!
//! Only a process whose one child it is can tell what a program took (getrusage(2), `RUSAGE_CHILDREN`), so
//! the bench starts itself as that process.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::command::under;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde_json::{Value, json};

/// What tells the bench to be that process.
pub(crate) const FLAG: &str = "--measure";

/// What a run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sample {
    /// By the clock, in seconds.
    pub(crate) wall: f64,
    /// Of all processors, in the program and in the kernel for it, in seconds.
    pub(crate) cpu: f64,
    /// The peak of resident memory, in bytes.
    pub(crate) peak: u64,
}

/// Runs a program, which must succeed, with its standard output going to a file.
pub(crate) fn measured(command: &Command, stdout: &Path, report: &Path) -> Result<Sample> {
    let mut outer = Command::new(std::env::current_exe()?);
    outer.arg(FLAG).arg(report);
    start(outer, command, stdout)?;
    let report: Value = serde_json::from_str(&fs::read_to_string(report)?)?;
    let number = |key: &str| report[key].as_f64().with_context(|| format!("no {key} in the report"));
    Ok(Sample { wall: number("wall")?, cpu: number("cpu")?, peak: number("peak")? as u64 })
}

/// How many system calls a program makes, in all its threads and children.
pub(crate) fn system_calls(command: &Command, stdout: &Path, report: &Path) -> Result<u64> {
    let mut outer = Command::new("strace");
    outer.args(["-c", "-f", "-o"]).arg(report);
    start(outer, command, stdout)?;
    let text = fs::read_to_string(report)?;
    let total = text.lines().rfind(|line| line.ends_with(" total")).context("strace counted nothing")?;
    let calls = total.split_whitespace().nth(3).context("a line of another form")?;
    Ok(calls.parse()?)
}

fn start(outer: Command, command: &Command, stdout: &Path) -> Result<()> {
    let status = under(outer, command).stdin(Stdio::null()).stdout(File::create(stdout)?).status()?;
    ensure!(status.success(), "{status}: {command:?}");
    Ok(())
}

/// What the bench does as that process.
pub(crate) fn run_and_report(report: &str, program: &[String]) -> ExitCode {
    let Some((name, arguments)) = program.split_first() else { return ExitCode::FAILURE };
    let started = Instant::now();
    let Ok(status) = Command::new(name).args(arguments).status() else { return ExitCode::FAILURE };
    let wall = started.elapsed().as_secs_f64();
    let Ok(usage) = getrusage(UsageWho::RUSAGE_CHILDREN) else { return ExitCode::FAILURE };
    let cpu = (usage.user_time() + usage.system_time()).num_microseconds() as f64 / 1e6;
    let text = json!({ "wall": wall, "cpu": cpu, "peak": usage.max_rss() * 1024 }).to_string();
    if status.success() && fs::write(report, text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The value in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The least value.
pub(crate) fn least(values: Vec<f64>) -> f64 {
    values.into_iter().fold(f64::NAN, f64::min)
}
