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
use crate::control::Calls;
use crate::driver::{BackendChoice, Limits, Owner, Settings, Shipped};
use crate::error::Error;

/// Where root keeps the store.
const SYSTEM_ROOT: &str = "/var/lib/layerbox";

/// The settings of one run of the program.
#[derive(Debug)]
pub(super) struct Context {
    /// The store, and how it is used.
    pub(super) settings: Settings,
    /// The service that was named.
    pub(super) socket: Option<PathBuf>,
    /// Whether archives may hold device nodes, where that was said: a service has its own mind where it was not.
    pub(super) devices: Option<bool>,
    /// How long the component may compute, where that was said; as with the devices.
    pub(super) guest_time: Option<Duration>,
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
        let log = Log::new(&global);
        let reporter = Reporter::new(&global);
        let devices = match global.devices {
            Some(devices) => Some(devices == Devices::Allow),
            None => devices_of_environment()?,
        };
        let mut limits = Limits::default();
        let guest_time = global.guest_time.map_or_else(guest_time_of_environment, |time| Ok(Some(time)))?;
        if let Some(time) = guest_time {
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
            devices: devices.unwrap_or(true),
            guest_log: global.verbose,
        };
        let paint = Paint::new(global.color, io::stdout().is_terminal());
        let socket = global.socket.or_else(|| variable("LAYERBOX_SOCKET"));
        Ok(Context {
            settings,
            socket,
            devices,
            guest_time,
            shipped,
            umask,
            json: global.json,
            log,
            reporter,
            paint,
        })
    }

    /// Finds the service that owns the store, or opens the store; `make`: makes one where there is none.
    pub(super) fn open(&self, make: bool) -> Result<Calls, Error> {
        Calls::open(&self.settings, self.socket.as_deref(), self.shipped, make)
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

/// A path in the environment; an empty one is none.
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What `LAYERBOX_DEVICES` says.
fn devices_of_environment() -> Result<Option<bool>, Usage> {
    match std::env::var_os("LAYERBOX_DEVICES") {
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) if value == "allow" => Ok(Some(true)),
        Some(value) if value == "refuse" => Ok(Some(false)),
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
