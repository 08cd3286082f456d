//! Runs the binary under strace, which kills it before a call, or has the kernel answer a call with an error
//! (strace(1), `inject`).

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::calls::{CALLS, Call, Point, parse};
use crate::command::{Output, run, under};

/// What happens instead of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process is killed.
    Kill,
    /// The call fails with this error.
    Error(&'static str),
}

impl Fault {
    /// The errors that calls are made to fail with.
    pub const ERRORS: [Fault; 6] = [
        Fault::Error("EIO"),
        Fault::Error("ENOSPC"),
        Fault::Error("EDQUOT"),
        Fault::Error("EMFILE"),
        Fault::Error("EINTR"),
        Fault::Error("ENOMEM"),
    ];
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Kill => "kill",
            Fault::Error(name) => name,
        })
    }
}

/// Runs a command to its end, and gives the calls that it made.
///
/// # Errors
///
/// It does not start, or hangs.
pub fn record(command: &Command, input: &[u8], log: &Path) -> Result<(Output, Vec<Call>)> {
    // With `-y` it tells the path behind a descriptor.
    let mut traced = traced(command, log, &[format!("trace={}", CALLS.join(","))], true);
    let output = run(&mut traced, input)?;
    Ok((output, parse(&fs::read_to_string(log)?)))
}

/// Runs a command with a fault at a point. The exit status of a process that was killed is 137.
///
/// # Errors
///
/// It does not start, or hangs.
pub fn inject(command: &Command, input: &[u8], log: &Path, point: &Point, fault: Fault) -> Result<Output> {
    let Point { name, number } = point;
    let what = match fault {
        Fault::Kill => "signal=KILL".to_owned(),
        Fault::Error(name) => format!("error={name}"),
    };
    let options = [format!("trace={name}"), format!("inject={name}:{what}:when={number}")];
    let mut traced = traced(command, log, &options, fault != Fault::Kill);
    run(&mut traced, input)
}

/// The command under strace. It is faster by far where the kernel stops the process only at the calls that
/// were asked for; strace then forgets the signals that it should send.
fn traced(command: &Command, log: &Path, options: &[String], fast: bool) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-y", "-s", "256"]).args(fast.then_some("--seccomp-bpf")).arg("-o").arg(log);
    for option in options {
        traced.args([OsStr::new("-e"), OsStr::new(option)]);
    }
    traced.arg("--");
    under(traced, command)
}
