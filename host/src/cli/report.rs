//! What goes to stderr: errors, and the log of warnings and notes.
//!
//! Nothing here can fail: where stderr is closed there is nobody to tell.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, IsTerminal as _, Write as _};

use clap::error::ErrorKind;
use serde::Serialize;

use super::arguments::{Early, Global, LogFormat};
use super::output::{ByteName, OneLine, Paint, unless_enough};
use super::{Outcome, Stop, Usage, misuse, unprinted};
use crate::driver::Code;
use crate::error::{Class, Escaped, json_line};

/// Ends the program: prints why a command stopped, and says with which status to exit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reporter {
    json: bool,
    paint: Paint,
}

/// An error as JSON.
#[derive(Debug, Serialize)]
struct ErrorObject<'a> {
    error: String,
    code: &'a str,
    layer: Option<&'a str>,
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

impl Reporter {
    pub(super) fn new(global: &Global) -> Reporter {
        Reporter { json: global.json, paint: Paint::new(global.color, io::stderr().is_terminal()) }
    }

    /// Reports an outcome.
    pub(super) fn end(&self, outcome: Outcome) -> u8 {
        let Err(stop) = outcome else { return 0 };
        self.tell(&stop);
        stop.status()
    }

    /// Prints why a command stopped, where there is something to print.
    pub(super) fn tell(&self, stop: &Stop) {
        match stop {
            Stop::Failed(error) => self.object(&ErrorObject {
                error: error.to_string(),
                code: error.failure.code(),
                layer: error.layer.as_deref(),
                entry: error.failure.entry().map(|entry| ByteName::of(entry).text),
                entry_hex: error.failure.entry().and_then(|entry| ByteName::of(entry).hex),
                hint: error.hint(),
            }),
            Stop::Usage(usage) => self.object(&ErrorObject {
                error: usage.to_string(),
                code: "usage",
                layer: usage.layer.as_deref(),
                entry: None,
                entry_hex: None,
                hint: usage.hint.as_deref(),
            }),
            Stop::Other(error) => self.object(&ErrorObject {
                error: format!("{error:#}"),
                code: "failed",
                layer: None,
                entry: None,
                entry_hex: None,
                hint: None,
            }),
            Stop::Print(error) => self.object(&ErrorObject {
                error: format!("standard output: {error}"),
                code: "io",
                layer: None,
                entry: None,
                entry_hex: None,
                hint: None,
            }),
            Stop::Status(_) => {}
        }
    }

    fn object(&self, object: &ErrorObject<'_>) {
        if self.json {
            return write(&json_line(object));
        }
        let hint = object.hint.map(|hint| format!("{} {hint}\n", self.paint.bold("hint:")));
        let error = OneLine(&object.error);
        write(&format!("{} {error}\n{}", self.paint.red("layerbox:"), hint.unwrap_or_default()));
    }
}

impl Stop {
    /// The exit status.
    pub(super) fn status(&self) -> u8 {
        match self {
            Stop::Failed(error) => error.failure.class().status(),
            Stop::Usage(_) => Class::Usage.status(),
            Stop::Status(status) => *status,
            Stop::Print(_) | Stop::Other(_) => Class::Failed.status(),
        }
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.operation, &self.layer) {
            (Some(operation), Some(layer)) => write!(f, "{operation} {}: ", Escaped(layer.as_bytes()))?,
            (Some(operation), None) => write!(f, "{operation}: ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}

/// Prints what clap has to say, help and version included, and returns the exit status: 0 for those, 2 for
/// errors.
pub(super) fn parse_error(error: &clap::Error, arguments: &[OsString], early: Early) -> u8 {
    // Whoever names no command is shown which there are.
    let reporter =
        || Reporter { json: early.json, paint: Paint::new(early.color, io::stderr().is_terminal()) };
    let helps = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand && !early.json;
    if helps || !error.use_stderr() {
        let printed = unless_enough(error.print());
        if !error.use_stderr()
            && let Err(failed) = printed
        {
            let operation = if error.kind() == ErrorKind::DisplayVersion { "version" } else { "help" };
            return reporter().end(Err(Stop::Failed(unprinted(&failed).during(operation, None))));
        }
    } else {
        reporter().tell(&Stop::Usage(misuse::usage(error, arguments)));
    }
    if error.use_stderr() { Class::Usage.status() } else { 0 }
}

/// Warnings, notes and progress.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    json: bool,
    quiet: bool,
    verbose: bool,
    paint: Paint,
}

/// A line of the log as JSON.
#[derive(Debug, Serialize)]
struct LogObject<'a> {
    level: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_hex: Option<String>,
}

impl Log {
    pub(super) fn new(global: &Global) -> Log {
        Log {
            json: global.json || global.log_format == LogFormat::Json,
            quiet: global.quiet,
            verbose: global.verbose,
            paint: Paint::new(global.color, io::stderr().is_terminal()),
        }
    }

    /// Whether a progress bar has a place: a person at a terminal who did not ask for silence or objects.
    pub(super) fn shows_progress(&self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Whether only errors are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// Whether its lines are objects.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// Something that the user should know, about an entry of a layer or none.
    pub(super) fn warn(&self, message: impl fmt::Display, entry: Option<&[u8]>) {
        if !self.quiet {
            self.line("warning", message.to_string(), entry);
        }
    }

    /// What was done, for those who asked (`-v`).
    pub(super) fn note(&self, message: impl fmt::Display) {
        if self.verbose {
            self.line("note", message.to_string(), None);
        }
    }

    /// Where a component's machine code came from, as far as it is of interest.
    pub(super) fn code(&self, code: &Code) {
        match code {
            Code::BuiltIn | Code::Compiled => {}
            Code::Cached(file) => self.note(format_args!("compiled code from {}", file.display())),
            Code::Kept { file, instead } => {
                if let Some(why) = instead {
                    self.warn(format_args!("compiled code not used, made anew: {why}"), None);
                }
                self.note(format_args!("compiled code kept in {}", file.display()));
            }
            Code::NotKept { why, untrusted: true } => {
                self.warn(format_args!("compiled code neither used nor kept: {why}"), None);
            }
            Code::NotKept { why, untrusted: false } => {
                self.note(format_args!("compiled code not kept: {why}"));
            }
        }
    }

    fn line(&self, level: &str, message: String, entry: Option<&[u8]>) {
        let entry = entry.map(ByteName::of);
        if self.json {
            let (entry, entry_hex) = entry.map_or((None, None), |name| (Some(name.text), name.hex));
            let object = LogObject { level, message, entry, entry_hex };
            return write(&json_line(&object));
        }
        let prefix = format!("layerbox: {level}:");
        let entry = entry.map(|name| format!(" ({})", name.escaped())).unwrap_or_default();
        write(&format!("{} {}{entry}\n", self.paint.yellow(&prefix), OneLine(&message)));
    }
}

/// Writes lines at once: what other processes write to the same log stays before or behind them.
fn write(lines: &str) {
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}
