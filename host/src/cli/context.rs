//! What every command is given: the settings of the store, and how to talk to the user.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde::Serialize;

use super::arguments::{self, Backend, Devices, Global};
use super::output::Paint;
use super::report::{Log, Reporter};
use super::{Outcome, Stop, Usage};
use crate::driver::{BackendChoice, Driver, Limits, Owner, Settings, Shipped};
use crate::error::Error;

/// Where root keeps the store.
const SYSTEM_ROOT: &str = "/var/lib/layerbox";

/// The settings of one run of the program.
#[derive(Debug)]
pub(super) struct Context {
    /// The store, and how it is used.
    pub(super) settings: Settings,
    /// The component that is built in.
    pub(super) shipped: Shipped,
    /// The umask that the process was started with; files that are no layer content obey it.
    pub(super) umask: Mode,
    /// Print JSON.
    pub(super) json: bool,
    /// Warnings, notes and progress, on stderr.
    pub(super) log: Log,
    /// For a command that reports errors and goes on.
    pub(super) reporter: Reporter,
    /// Colors for stdout.
    pub(super) paint: Paint,
}

impl Context {
    /// Works out the settings from the options and the environment.
    pub(super) fn new(global: Global, shipped: Shipped, umask: Mode) -> Result<Context, Stop> {
        if global.socket.is_some() {
            return Err(usage("--socket: this version has no service", Some("leave the option out")).into());
        }
        let log = Log::new(&global);
        let reporter = Reporter::new(&global);
        let devices = match global.devices {
            Some(devices) => devices == Devices::Allow,
            None => devices_of_environment()?,
        };
        let mut limits = Limits::default();
        if let Some(time) = global.guest_time.map_or_else(guest_time_of_environment, |time| Ok(Some(time)))? {
            limits.set_guest_time(time);
        }
        let settings = Settings {
            root: root(global.root)?,
            backend: match global.backend {
                Backend::Auto => BackendChoice::Auto,
                Backend::Aufs => BackendChoice::Aufs,
                Backend::Overlay => BackendChoice::Overlay,
            },
            owner: Owner::CommandLine,
            maps: None,
            guest: global.guest,
            limits,
            devices,
            guest_log: global.verbose,
        };
        let paint = Paint::new(global.color, io::stdout().is_terminal());
        Ok(Context { settings, shipped, umask, json: global.json, log, reporter, paint })
    }

    /// Opens the store; `make`: makes one where there is none.
    pub(super) fn open(&self, make: bool) -> Result<Driver, Error> {
        Driver::open(&self.settings, self.shipped, make)
    }

    /// Prints the result of a command: `value` as JSON, or else what `text` writes.
    pub(super) fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Outcome {
        let mut out = BufWriter::new(io::stdout().lock());
        if self.json {
            serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        Ok(out.flush()?)
    }

    /// Prints a result that is one line.
    pub(super) fn print_line<T: Serialize + ?Sized>(&self, value: &T, line: impl fmt::Display) -> Outcome {
        self.print(value, |out| writeln!(out, "{line}"))
    }
}

/// The store's directory, absolute.
fn root(option: Option<PathBuf>) -> Result<PathBuf, Stop> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let root = option.or_else(|| variable("LAYERBOX_ROOT")).or_else(|| {
        if nix::unistd::geteuid().is_root() {
            return Some(PathBuf::from(SYSTEM_ROOT));
        }
        // The XDG base directory specification: a relative path there is to be ignored.
        let data = variable("XDG_DATA_HOME").filter(|path| path.is_absolute());
        let data = data.or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        data.map(|data| data.join("layerbox"))
    });
    let root = root.ok_or_else(|| {
        usage("there is no home directory to keep a store in", Some("name a directory with --root"))
    })?;
    Ok(std::path::absolute(&root).map_err(|error| usage(format!("--root: {error}"), None))?)
}

/// What `LAYERBOX_DEVICES` says; allowed where it says nothing.
fn devices_of_environment() -> Result<bool, Usage> {
    match std::env::var_os("LAYERBOX_DEVICES") {
        None => Ok(true),
        Some(value) if value.is_empty() || value == "allow" => Ok(true),
        Some(value) if value == "refuse" => Ok(false),
        // Somebody who sets it wants safety: a misspelt value must not mean "allow".
        Some(_) => Err(usage("LAYERBOX_DEVICES is neither allow nor refuse", None)),
    }
}

/// What `LAYERBOX_GUEST_TIME` says, if anything.
fn guest_time_of_environment() -> Result<Option<Duration>, Usage> {
    let Some(value) = std::env::var_os("LAYERBOX_GUEST_TIME").filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match arguments::time(&value.to_string_lossy()) {
        Ok(time) => Ok(Some(time)),
        Err(shape) => Err(usage(format!("LAYERBOX_GUEST_TIME is not {shape}"), None)),
    }
}

/// An error in the options that belong to no command.
fn usage(message: impl Into<String>, hint: Option<&'static str>) -> Usage {
    Usage { operation: None, layer: None, message: message.into(), hint }
}
