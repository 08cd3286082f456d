//! The command line: it reads the arguments, calls the driver, and prints what comes back.
//!
//! A command is a function that is given the context and its own arguments and returns an outcome. What a
//! user can rely on is in three modules: `arguments` holds the commands' definitions and with them the help
//! and the manual page, `report` the form of errors and the exit statuses, `output` the form of names and
//! numbers. `demo` is a story of its own.

mod archives;
mod arguments;
mod config;
mod context;
mod demo;
mod destination;
mod guest;
mod interrupt;
mod layers;
mod misuse;
mod output;
mod reference;
mod report;
mod serve;
mod store;
mod table;
mod verify;

use std::borrow::Cow;
use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::driver::Shipped;
use crate::error::{Error, Failure};
use arguments::{Cli, Command, GuestCommand};
use context::Context;

/// How a command ended.
type Outcome = Result<(), Stop>;

/// Why a command did not go on.
#[derive(Debug)]
enum Stop {
    /// The driver, or an operation of the command line itself, failed.
    Failed(Error),
    /// Something failed that no caller can act on.
    Other(anyhow::Error),
    /// What was asked for makes no sense here.
    Usage(Usage),
    /// All is said; only the exit status is left.
    Status(u8),
    /// What the command prints could not be written.
    Print(io::Error),
}

/// A wrong use of a command, found by clap ([`misuse`]) or when the command runs.
#[derive(Debug)]
struct Usage {
    /// The command; none for the options that all have.
    operation: Option<Cow<'static, str>>,
    layer: Option<String>,
    message: String,
    hint: Option<Cow<'static, str>>,
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Failed(error)
    }
}

impl From<Usage> for Stop {
    fn from(usage: Usage) -> Stop {
        Stop::Usage(usage)
    }
}

/// Only for writing to standard output, which is what the commands do with plain [`io::Result`]s.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Print(error)
    }
}

/// Runs the command that the arguments of the process name, and returns its exit status.
///
/// `shipped` is the component that runs unless `--guest` names another. The umask of the process becomes 0:
/// files in layers get exactly the modes that archives give them. Nothing that it starts gains privileges
/// (`no_new_privs`).
pub fn main(shipped: Shipped) -> ExitCode {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    // What it starts (the shell of the demo) needs no set-user-id program. A kernel that does not know of
    // this (before 3.5) runs none of it.
    let _ = rustix::thread::set_no_new_privs(true);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let early = arguments::early(&arguments);
    let parsed = Cli::command()
        .color(early.color.into())
        .try_get_matches_from(&arguments)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(report::parse_error(&error, &arguments, early)),
    };
    let reporter = report::Reporter::new(&cli.global);
    let (operation, layer) = subject(&cli.command);
    let outcome = run(|| Context::new(cli.global, shipped, umask), cli.command);
    ExitCode::from(reporter.end(outcome.map_err(|stop| match stop {
        // Whoever asked for a command wants to hear of that, not of the opening that comes before it.
        Stop::Failed(error) if error.operation == "open" => Stop::Failed(Error { operation, layer, ..error }),
        Stop::Usage(usage) if usage.operation.is_none() => {
            Stop::Usage(Usage { operation: Some(operation.into()), layer, ..usage })
        }
        Stop::Print(error) => Stop::Failed(Error { operation, layer, failure: unprinted(&error) }),
        other => other,
    })))
}

/// That standard output could not be written.
fn unprinted(error: &io::Error) -> Failure {
    Failure::Io {
        entry: b"standard output".to_vec(),
        operation: "write".to_owned(),
        code: error.raw_os_error().unwrap_or(nix::libc::EIO),
    }
}

/// What a command is called in errors, and the layer that it is about.
fn subject(command: &Command) -> (&'static str, Option<String>) {
    let about = |operation, id: &String| (operation, Some(id.clone()));
    match command {
        Command::Create { id, .. } => about("create", id),
        Command::ApplyDiff(arguments) => about("apply-diff", &arguments.id),
        Command::Diff(arguments) => about("diff", &arguments.id),
        Command::Changes { id, .. } => about("changes", id),
        Command::DiffSize { id, .. } => about("diff-size", id),
        Command::Get { id, .. } => about("get", id),
        Command::Put { id } => about("put", id),
        Command::Remove { ids, .. } if ids.len() == 1 => about("remove", &ids[0]),
        Command::Remove { .. } => ("remove", None),
        Command::Exists { id } => about("exists", id),
        Command::Metadata { id } => about("metadata", id),
        Command::List { .. } => ("list", None),
        Command::Status => ("status", None),
        Command::Cleanup => ("cleanup", None),
        Command::Check { .. } => ("check", None),
        Command::Convert => ("convert", None),
        Command::Serve(_) => ("serve", None),
        Command::Guest { command: GuestCommand::Inspect { .. } } => ("guest inspect", None),
        Command::Guest { command: GuestCommand::Verify(_) } => ("guest verify", None),
        Command::Demo { .. } => ("demo", None),
        Command::Completions { .. } => ("completions", None),
        Command::Man => ("man", None),
    }
}

/// Calls the command's function. What explains the program needs no context: it works without a home, and
/// with a broken configuration.
fn run(context: impl FnOnce() -> Result<Context, Stop>, command: Command) -> Outcome {
    match command {
        Command::Create { id, parent } => layers::create(&context()?, &id, parent.as_deref()),
        Command::ApplyDiff(arguments) => archives::apply_diff(&context()?, arguments),
        Command::Diff(arguments) => archives::diff(&context()?, &arguments),
        Command::Changes { id, parent } => archives::changes(&context()?, &id, parent.as_deref()),
        Command::DiffSize { id, parent } => archives::diff_size(&context()?, &id, parent.as_deref()),
        Command::Get { id, label } => layers::get(&context()?, &id, label.as_deref()),
        Command::Put { id } => layers::put(&context()?, &id),
        Command::Remove { ids, force } => layers::remove(&context()?, &ids, force),
        Command::Exists { id } => layers::exists(&context()?, &id),
        Command::List { tree } => store::list(&context()?, tree),
        Command::Status => store::status(&context()?),
        Command::Metadata { id } => layers::metadata(&context()?, &id),
        Command::Cleanup => store::cleanup(&context()?),
        Command::Check { repair, deep, purge } => {
            store::check(&context()?, crate::driver::CheckOptions { repair, deep, purge })
        }
        Command::Convert => store::convert(&context()?),
        Command::Serve(arguments) => serve::serve(&context()?, arguments),
        Command::Guest { command: GuestCommand::Inspect { file, wit } } => {
            guest::inspect(&context()?, file, wit)
        }
        Command::Guest { command: GuestCommand::Verify(arguments) } => verify::verify(&context()?, arguments),
        Command::Demo { archive } => demo::demo(&context()?, archive),
        Command::Completions { shell } => reference::completions(shell),
        Command::Man => reference::man(),
    }
}
