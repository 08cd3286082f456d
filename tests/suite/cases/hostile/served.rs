//! The service, as the table of hostile archives drives it: by Docker's graph driver protocol over HTTP, as
//! an engine does.
//!
//! Starting a service for each row would take more time than the rows, so a thread keeps one for each dialect
//! and moves it from store to store, as an engine that starts anew with another data root. What befalls a
//! service in one row is thus there for those after it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use layerbox_catalogue as catalogue;
use layerbox_catalogue::{Applied, Bounds};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::line::text;
use crate::scratch::Place;
use crate::service::Service;
use crate::store::Dialect;

/// After so many rows a service makes room for a fresh one: it keeps every store open that it was shown, and
/// descriptors are few.
const ROWS: usize = 50;

thread_local! {
    /// What this thread keeps. They end with it.
    static KEPT: RefCell<Vec<Rc<Kept>>> = const { RefCell::new(Vec::new()) };
}

/// A service that goes from store to store.
#[derive(Debug)]
struct Kept {
    dialect: Dialect,
    /// How many stores it has been shown.
    rows: Cell<usize>,
    // Before the place, which can only be removed when nobody works in it.
    service: RefCell<Service>,
    place: Place,
}

impl Kept {
    /// Ends the service and starts it anew, with other bounds. It knows the engine and its store again.
    fn restart(&self, bounds: Bounds) -> Result<()> {
        let mut service = self.service.borrow_mut();
        service.signal(Signal::SIGTERM)?;
        service.wait()?;
        *service = start(&self.place, self.dialect, bounds)?;
        Ok(())
    }
}

fn start(place: &Place, dialect: Dialect, bounds: Bounds) -> Result<Service> {
    let limits = [("entries", bounds.entries), ("bytes", bounds.bytes)];
    let lines = limits.iter().filter_map(|(key, value)| value.map(|value| format!("{key} = {value}\n")));
    let file = place.join("config.toml");
    std::fs::write(&file, lines.fold("[limits]\n".to_owned(), |text, line| text + &line))?;
    let file = file.display().to_string();
    Service::start(place, &["--backend", dialect.name(), "--config", &file, "--log-format", "json"])
}

/// The store of a row, and the service that has been told of it.
#[derive(Debug)]
pub(super) struct Served {
    kept: Rc<Kept>,
    root: PathBuf,
}

impl Served {
    pub(super) fn new(place: &Place, dialect: Dialect) -> Result<Served> {
        let kept = KEPT.with_borrow_mut(|all| -> Result<Rc<Kept>> {
            all.retain(|kept| kept.rows.get() < ROWS);
            if let Some(kept) = all.iter().find(|kept| kept.dialect == dialect) {
                return Ok(kept.clone());
            }
            let own = place.beside()?;
            let service = RefCell::new(start(&own, dialect, Bounds::default())?);
            let kept = Rc::new(Kept { dialect, rows: Cell::new(0), service, place: own });
            all.push(kept.clone());
            Ok(kept)
        })?;
        kept.rows.set(kept.rows.get() + 1);
        let served = Served { kept, root: place.join("s") };
        served.init(true)?;
        Ok(served)
    }

    /// Says where the store is and how it is used, as an engine does when it starts.
    fn init(&self, devices: bool) -> Result<()> {
        let devices = if devices { "layerbox.devices=allow" } else { "layerbox.devices=refuse" };
        // That content is on the disk before the answer is the command line's to show: ten thousand times
        // would take minutes.
        let options = json!({ "Home": self.root, "Opts": ["layerbox.sync=no", devices] });
        self.kept.service.borrow().ok("Init", &options).map(drop)
    }

    fn call(&self, name: &str, body: &Value) -> Result<Value, String> {
        self.kept.service.borrow().ok(name, body).map_err(text)
    }

    fn try_apply(&self, id: &str, archive: &[u8]) -> Result<Applied> {
        let service = self.kept.service.borrow();
        let before = std::fs::metadata(service.path("log"))?.len();
        let answer = service.apply(id, archive)?;
        if answer.status == 200 {
            return Ok(Applied::Done);
        }
        // An archive of no bytes is a request without a body, which the service refuses before it asks for
        // more.
        let error = answer.error(if archive.is_empty() { 400 } else { 500 })?;
        // To an engine an error is its text; what class it is of is in the log.
        let mut log = String::new();
        let mut file = File::open(service.path("log"))?;
        file.seek(SeekFrom::Start(before))?;
        file.read_to_string(&mut log)?;
        let line: Value = serde_json::from_str(log.trim()).with_context(|| log.clone())?;
        match (line["outcome"].as_str(), line["layer"] == id, line["error"] == error) {
            (Some("refused" | "bad-request"), true, true) => Ok(Applied::Refused(error)),
            (Some("limit"), true, true) => Ok(Applied::Limit(error)),
            _ => bail!("{error}; logged: {log}"),
        }
    }
}

impl catalogue::Subject for Served {
    fn dialect(&self) -> catalogue::Dialect {
        self.kept.dialect
    }

    fn root(&self) -> &Path {
        &self.root
    }

    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), String> {
        self.call("Create", &json!({ "ID": id, "Parent": parent })).map(drop)
    }

    fn apply(&self, id: &str, archive: &[u8], bounds: Bounds) -> Result<Applied, String> {
        let bounded = bounds.entries.or(bounds.bytes).is_some();
        let try_it = || {
            if bounded {
                self.kept.restart(bounds)?;
            }
            if bounds.no_devices {
                self.init(false)?;
            }
            let applied = self.try_apply(id, archive)?;
            if bounded {
                self.kept.restart(Bounds::default())?;
            }
            if bounds.no_devices {
                self.init(true)?;
            }
            Ok(applied)
        };
        try_it().map_err(text)
    }

    fn diff(&self, id: &str) -> Result<Vec<u8>, String> {
        let body = json!({ "ID": id }).to_string();
        let answer = self.kept.service.borrow().raw("Diff", body.as_bytes()).map_err(text)?;
        match answer.status == 200 && answer.whole {
            true => Ok(answer.body),
            false => Err(format!("Diff: {} {}", answer.status, String::from_utf8_lossy(&answer.body))),
        }
    }

    fn changes(&self, id: &str) -> Result<usize, String> {
        let answer = self.call("Changes", &json!({ "ID": id }))?;
        answer["Changes"].as_array().map(Vec::len).ok_or_else(|| format!("Changes: {answer}"))
    }

    fn remove(&self, id: &str) -> Result<(), String> {
        self.call("Remove", &json!({ "ID": id })).map(drop)
    }
}
