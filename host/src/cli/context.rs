//! What every command is given: the settings of the store, and how to talk to the user.

use std::fmt;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde::Serialize;

use super::arguments::{Backend, Devices, Global};
use super::config::{self, Absolute, Time, Word, environment};
use super::output::{Paint, unless_enough};
use super::report::{Log, Reporter};
use super::{Outcome, Stop, Usage};
use crate::control::Calls;
use crate::driver::{BackendChoice, Owner, Settings, Shipped};
use crate::error::{Error, write_json};

/// Where root keeps the store.
const SYSTEM_ROOT: &str = "/var/lib/layerbox";

/// The settings of one run of the program.
#[derive(Debug)]
pub(super) struct Context {
    /// The store, and how it is used.
    pub(super) settings: Settings,
    /// The backend that was named as an option: what a store is to be converted to. What holds for a machine
    /// is about stores that are made.
    pub(super) target: BackendChoice,
    /// The configuration file, where one was named.
    pub(super) config: Option<PathBuf>,
    /// The service that was named.
    pub(super) socket: Option<PathBuf>,
    /// Whether archives may hold device nodes, where that was said: a service has its own mind where it was
    /// not.
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
    /// Works out the settings from the options, the environment and the configuration file.
    pub(super) fn new(global: Global, shipped: Shipped, umask: Mode) -> Result<Context, Stop> {
        let log = Log::new(&global);
        let reporter = Reporter::new(&global);
        let named = global.config.or_else(|| environment("LAYERBOX_CONFIG").map(PathBuf::from));
        let (file, read) = config::read(named.clone())?;
        if let Some(path) = read {
            log.note(format_args!("configuration: {}", path.display()));
        }
        // The option is about the store at hand; variable and file are there for all stores, and must not
        // keep anybody from an old one.
        let usual_backend = match global.backend {
            Some(_) => None,
            None => first(None, "LAYERBOX_BACKEND", file.backend)?,
        };
        let target = choice(global.backend);
        let devices = first(global.devices, "LAYERBOX_DEVICES", file.devices)?;
        let devices = devices.map(|devices| devices == Devices::Allow);
        let mut limits = file.limits.limits();
        let guest_time =
            first(global.guest_time.map(Time), "LAYERBOX_GUEST_TIME", None)?.map(|Time(time)| time);
        if let Some(time) = guest_time {
            limits.set_guest_time(time);
        }
        let cache = first(None, "LAYERBOX_CACHE", file.cache)?;
        let settings = Settings {
            root: root(first_path(global.root, "LAYERBOX_ROOT", file.root))?,
            backend: choice(global.backend),
            usual_backend: choice(usual_backend),
            owner: Owner::CommandLine,
            maps: None,
            guest: first_path(global.guest, "LAYERBOX_GUEST", file.guest),
            stranger: false,
            guest_sha256: first(global.guest_sha256, "LAYERBOX_GUEST_SHA256", file.guest_sha256)?,
            cache: cache.unwrap_or(config::Cache::Usual).directory(),
            limits,
            devices: devices.unwrap_or(true),
            guest_log: global.verbose,
        };
        let paint = Paint::new(global.color, io::stdout().is_terminal());
        let socket = first_path(global.socket, "LAYERBOX_SOCKET", None);
        Ok(Context {
            settings,
            target,
            config: named,
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
        let calls = Calls::open(&self.settings, self.socket.as_deref(), self.shipped, make)?;
        if let Calls::Here(driver) = &calls {
            self.log.code(driver.code());
        }
        Ok(calls)
    }

    /// The settings for looking at a component or trying it: that of `file`, which need not be trusted and
    /// may have any digest, else the one that runs otherwise.
    pub(super) fn trial(&self, file: Option<PathBuf>) -> Settings {
        let settings = self.settings.clone();
        match file {
            Some(file) => Settings { guest: Some(file), stranger: true, guest_sha256: None, ..settings },
            None => settings,
        }
    }

    /// Prints the result of a command: `value` as JSON, or else what `text` writes. A reader that goes away
    /// early is no failure.
    pub(super) fn print<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Outcome {
        Ok(unless_enough(self.deliver(value, text))?)
    }

    /// As [`Context::print`], where it is a failure that nobody reads it.
    pub(super) fn deliver<T: Serialize + ?Sized>(
        &self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
        if self.json {
            write_json(&mut out, value)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        out.flush()
    }

    /// Prints a result that is one line.
    pub(super) fn print_line<T: Serialize + ?Sized>(&self, value: &T, line: impl fmt::Display) -> Outcome {
        self.print(value, |out| writeln!(out, "{line}"))
    }
}

fn choice(backend: Option<Backend>) -> BackendChoice {
    match backend {
        None | Some(Backend::Auto) => BackendChoice::Auto,
        Some(Backend::Aufs) => BackendChoice::Aufs,
        Some(Backend::Overlay) => BackendChoice::Overlay,
    }
}

/// What counts of an option, its variable and its key.
fn first<T: FromStr<Err = String>>(
    option: Option<T>,
    variable: &str,
    key: Option<Word<T>>,
) -> Result<Option<T>, Usage> {
    if option.is_some() {
        return Ok(option);
    }
    Ok(config::word_of_environment(variable)?.or(key.map(|Word(value)| value)))
}

/// As [`first`], for a path.
fn first_path(option: Option<PathBuf>, variable: &str, key: Option<Absolute>) -> Option<PathBuf> {
    option.or_else(|| environment(variable).map(PathBuf::from)).or(key.map(|Absolute(path)| path))
}

/// The store's directory, absolute.
fn root(named: Option<PathBuf>) -> Result<PathBuf, Stop> {
    let root = named.or_else(|| {
        if config::is_system() {
            return Some(PathBuf::from(SYSTEM_ROOT));
        }
        config::directory_of_user("XDG_DATA_HOME", ".local/share").map(|data| data.join("layerbox"))
    });
    let root = root.ok_or_else(|| {
        usage("there is no home directory to keep a store in", Some("name a directory with --root"))
    })?;
    Ok(std::path::absolute(&root).map_err(|error| usage(format!("--root: {error}"), None))?)
}

/// An error in the options that belong to no command.
fn usage(message: impl Into<String>, hint: Option<&'static str>) -> Usage {
    Usage { operation: None, layer: None, message: message.into(), hint: hint.map(Into::into) }
}
