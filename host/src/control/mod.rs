//! Between the command line and the service: where a service owns a store, the calls of a command line go to
//! it, over a unix socket; where none does, the command line opens the store itself.
//!
//! What a call is about crosses as frames of JSON (`protocol`); the archives do not. The command line passes
//! the descriptor of its file or pipe, and the service reads or writes that. A command line that goes away
//! ends its call (`streams`).
//!
//! The service is found through the store ([`announce`](announce())), or named by its socket. It answers root
//! and its own user, who could open the store themselves; so it also opens a root that it has not owned
//! before, when it is named and asked to.

mod announce;
mod answer;
mod bytes;
mod client;
mod frame;
mod protocol;
pub mod server;
mod streams;
#[cfg(test)]
mod tests;
mod values;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use announce::{announce, withdraw};
pub use client::Client;

use crate::driver::{
    ApplyOptions, Changes, CheckOptions, DiffOutcome, Driver, Finding, LayerSummary, Metadata, Patient,
    Settings, Shipped, Totals,
};
use crate::error::{Error, Failure};

/// How long a command waits for a store that somebody has locked: for the service that is just opening it,
/// mostly.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often it looks for that service meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Is told how many bytes of an archive were read so far.
pub type Meter = Box<dyn FnMut(u64) + Send>;

/// The calls of the driver, whoever makes them.
#[derive(Debug)]
pub enum Calls {
    /// This process: it has opened the store.
    Here(Box<Driver>),
    /// The service that owns the store.
    There(Client),
}

impl Calls {
    /// Finds the service that owns the store of `settings`, or opens the store; with `make`, a root that is
    /// missing or empty becomes one. With a `socket`, the service there does it.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`], here or there; [`Failure::NoService`] where none answers at `socket`;
    /// [`Failure::StoreInUse`] where the store is locked and no service answers for it.
    pub fn open(
        settings: &Settings,
        socket: Option<&Path>,
        shipped: Shipped,
        make: bool,
    ) -> Result<Calls, Error> {
        let opening = |failure: Failure| failure.during("open", None);
        if let Some(socket) = socket {
            return Client::named(socket, settings, make).map(Calls::There).map_err(opening);
        }
        let begin = Instant::now();
        loop {
            if let Some(client) = Client::find(settings).map_err(opening)? {
                return Ok(Calls::There(client));
            }
            // A service takes the lock first and can be reached a moment later.
            match Driver::open_within(settings, shipped, make, PAUSE) {
                Err(Error { failure: Failure::StoreInUse(_), .. }) if begin.elapsed() < PATIENCE => {}
                opened => return opened.map(|driver| Calls::Here(Box::new(driver))),
            }
        }
    }

    /// As [`Driver::apply_diff`], from an open file or pipe. `meter` is told how far it is read.
    ///
    /// # Errors
    ///
    /// Those of the driver; [`Failure::Service`].
    pub fn apply_diff(
        &self,
        id: &str,
        parent: Option<&str>,
        archive: File,
        options: &ApplyOptions,
        meter: Option<Meter>,
    ) -> Result<Totals, Error> {
        match self {
            Calls::Here(driver) => {
                let archive = Patient::new(archive, &options.given.over(driver.limits()));
                let archive: Box<dyn Read + Send> = match meter {
                    Some(meter) => Box::new(Metered { archive, read: 0, meter }),
                    None => Box::new(archive),
                };
                driver.apply_diff(id, parent, archive, options)
            }
            Calls::There(client) => client.apply_diff(id, parent, &archive, options, meter),
        }
    }
}

/// The other calls are the same on both sides.
macro_rules! calls {
    ($($call:ident / $there:ident ( $($name:ident : $kind:ty),* ) -> $answer:ty;)*) => {
        impl Calls {
            $(
                #[doc = concat!("As [`Driver::", stringify!($call), "`].")]
                ///
                /// # Errors
                ///
                /// Those of the driver; [`Failure::Service`].
                pub fn $call(&self, $($name: $kind),*) -> Result<$answer, Error> {
                    match self {
                        Calls::Here(driver) => driver.$call($($name),*),
                        Calls::There(client) => client.$there($($name),*),
                    }
                }
            )*
        }
    };
}

calls! {
    create / create(id: &str, parent: Option<&str>) -> ();
    diff / diff(id: &str, parent: Option<&str>, out: OwnedFd) -> DiffOutcome;
    changes / changes(id: &str, parent: Option<&str>) -> Changes;
    diff_size / diff_size(id: &str, parent: Option<&str>) -> Totals;
    get / get(id: &str, label: Option<&str>) -> PathBuf;
    put / put(id: &str) -> ();
    remove / remove(id: &str, force: bool) -> ();
    exists / exists(id: &str) -> bool;
    list / layers() -> Vec<LayerSummary>;
    status / status() -> Vec<(String, String)>;
    metadata / metadata(id: &str) -> Metadata;
    cleanup / cleanup() -> u32;
    check / check(options: CheckOptions) -> Vec<Finding>;
}

/// An archive that is read here, with its meter.
struct Metered {
    archive: Patient<File>,
    read: u64,
    meter: Meter,
}

impl Read for Metered {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.read += count as u64;
        (self.meter)(self.read);
        Ok(count)
    }
}
