//! Single calls: what a call through the service takes, and what a command that finds nothing running takes
//! from its start to its end.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::harness::has_filesystem;
use layerbox_tests::http::Connection;
use layerbox_tests::scratch::Place;
use layerbox_tests::store::{Dialect, Store, bare};
use serde_json::{Value, json};

use crate::bounds::Verdict;
use crate::measure::{measured, median};

/// How often a call is made.
const CALLS: usize = 2000;
/// How often a process is started.
const STARTS: usize = 60;

/// A service with a store, and one connection to it, as Docker has. It is killed when it is dropped.
pub(crate) struct Service {
    child: Child,
    connection: Connection,
}

impl Service {
    /// Starts a service in a directory; its store is in `home` there.
    pub(crate) fn start(directory: &Path) -> Result<Service> {
        let socket = directory.join("docker.sock");
        let mut command = bare();
        command.arg("--root").arg(directory.join("root")).args(["--backend", "overlay", "serve", "--docker"]);
        command.arg(&socket).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        ensure!(line.starts_with("layerbox: ready: "), "the service said {line:?}");
        let mut service = Service { child, connection: Connection::new(&socket)? };
        let home = directory.join("home");
        service.call("Init", &json!({ "Home": home, "Opts": null, "UIDMaps": null, "GIDMaps": null }))?;
        Ok(service)
    }

    /// A call that must succeed.
    pub(crate) fn call(&mut self, name: &str, body: &Value) -> Result<()> {
        let path = format!("/GraphDriver.{name}");
        let answer = self.connection.call("POST", &path, body.to_string().as_bytes())?;
        let json = answer.json()?;
        let failed = json["Err"].as_str().is_some_and(|text| !text.is_empty());
        ensure!(answer.status == 200 && !failed, "{name} {body}: {} {json}", answer.status);
        Ok(())
    }

    /// Seconds that `times` rounds of these calls take, the median of a round.
    pub(crate) fn timed(&mut self, times: usize, calls: &[(&str, Value)]) -> Result<f64> {
        let mut taken = Vec::with_capacity(times);
        for _ in 0..times {
            let started = Instant::now();
            for (name, body) in calls {
                self.call(name, body)?;
            }
            taken.push(started.elapsed().as_secs_f64());
        }
        Ok(median(taken))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The calls, and what they are held to.
pub(crate) fn measure(place: &Place) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    let mut service = Service::start(&place.make("service")?)?;
    service.call("Create", &json!({ "ID": "base" }))?;
    service.call("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    let top = json!({ "ID": "top", "MountLabel": "" });
    if has_filesystem("overlay") {
        // Mounted, and so it stays.
        service.call("Get", &top)?;
        let taken = service.timed(CALLS, &[("Get", top.clone()), ("Put", top.clone())])?;
        verdicts.push(Verdict::new(
            "get + put of a mounted layer through the service, µs",
            taken * 1e6,
            150.0,
        ));
        service.call("Put", &top)?;
    } else {
        eprintln!("bench: NOT MEASURED: get + put, this kernel has no overlay");
    }

    let store = Store::new(place.join("store"), Dialect::Overlay);
    store.create("layer", None)?;
    let command = store.command(["exists", "layer"]);
    let cold = |command: &Command| -> Result<f64> {
        let mut taken = Vec::new();
        for _ in 0..STARTS {
            taken.push(measured(command, &place.join("out"), &place.join("report"))?.wall);
        }
        Ok(median(taken))
    };
    verdicts.push(Verdict::new("layerbox exists, a process of its own, ms", cold(&command)? * 1e3, 10.0));
    let nothing = cold(&Command::new("true"))?;
    eprintln!("\n(a process that does nothing takes {:.2} ms here)", nothing * 1e3);
    Ok(verdicts)
}
