//! A client that goes away in the middle of an archive. Nothing of its call stays, and the next one is served.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{file, tar};
use layerbox_tests::harness::{Case, case};
use layerbox_tests::scratch::Place;
use layerbox_tests::tree::names;
use serde_json::json;

use crate::http;
use crate::rig::{at_rest, until};
use crate::service::Service;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("docker: a client that goes away in the middle of an apply leaves an empty layer", apply),
        case("docker: a client that goes away in the middle of a diff is let go", diff),
    ]
}

/// A store at a service of its own.
struct Client {
    service: Service,
    home: PathBuf,
}

impl Client {
    fn new(place: &Place) -> Result<Client> {
        let service = Service::start(&place.join("service"), "layerbox-gone", &[])?;
        let client = Client { service, home: place.join("home") };
        client.call("GraphDriver.Init", &json!({"Home": client.home, "Opts": null}))?;
        Ok(client)
    }

    fn socket(&self) -> PathBuf {
        self.service.socket()
    }

    /// A call that must succeed.
    fn call(&self, method: &str, body: &serde_json::Value) -> Result<String> {
        succeeded(method, http::call(&self.socket(), method, body)?)
    }

    fn fill(&self, id: &str, archive: &[u8]) -> Result<()> {
        let method = format!("GraphDriver.ApplyDiff?id={id}&parent=");
        let stream = http::begin(&self.socket(), &method, archive)?;
        succeeded(&method, http::end(stream)?).map(drop)
    }

    /// Waits until no call is under way.
    fn is_idle(&self) -> Result<()> {
        until(Duration::from_secs(10), "calls are still under way", || {
            let text = http::get(&self.service.admin(), "/metrics")?;
            Ok(text
                .lines()
                .filter(|line| {
                    line.starts_with("layerbox_calls_in_flight{")
                        || line.starts_with("layerbox_instances_running ")
                })
                .all(|line| line.ends_with(" 0")))
        })
    }

    fn finish(mut self) -> Result<()> {
        self.service.stop()?;
        at_rest(&self.home)
    }
}

fn succeeded(method: &str, (status, body): (u16, String)) -> Result<String> {
    ensure!(status == 200 && !body.contains("\"Err\":\""), "{method}: status {status}: {body}");
    Ok(body)
}

fn id(number: u8) -> String {
    format!("{number:02x}").repeat(32)
}

fn apply(place: &Place) -> Result<()> {
    let client = Client::new(place)?;
    let archive = tar(&[file("a", "a"), file("big", vec![7; 4 << 20]), file("z", "z")]);
    client.call("GraphDriver.Create", &json!({"ID": id(1), "Parent": ""}))?;
    // In a header, in a body, between two members.
    for cut in [100, 600, 1024, 2 << 20, archive.len() - 1024 - 512] {
        let method = format!("GraphDriver.ApplyDiff?id={}&parent=", id(1));
        drop(http::begin(&client.socket(), &method, &archive[..cut])?);
        client.is_idle()?;
        is_empty(&client.home.join("diff").join(id(1)))?;
        is_empty(&client.home.join("stage"))?;
    }
    client.fill(&id(1), &archive)?;
    let names = names(&client.home.join("diff").join(id(1)))?;
    ensure!(names == ["a", "big", "z"], "the layer holds {names:?}");
    client.finish()
}

fn diff(place: &Place) -> Result<()> {
    let client = Client::new(place)?;
    let archive = tar(&[file("a", "a"), file("big", vec![7; 64 << 20])]);
    client.call("GraphDriver.Create", &json!({"ID": id(1), "Parent": ""}))?;
    client.fill(&id(1), &archive)?;
    for wanted in [1, 1 << 20] {
        let body = json!({"ID": id(1), "Parent": ""}).to_string();
        let mut stream = http::begin(&client.socket(), "GraphDriver.Diff", body.as_bytes())?;
        std::io::Write::write_all(&mut stream, b"0\r\n\r\n")?;
        let mut bytes = vec![0; wanted];
        stream.read_exact(&mut bytes)?;
        drop(stream);
        client.is_idle()?;
    }
    client.call("GraphDriver.Remove", &json!({"ID": id(1)}))?;
    client.finish()
}

fn is_empty(directory: &Path) -> Result<()> {
    let left = names(directory)?;
    ensure!(left.is_empty(), "{} holds {left:?}", directory.display());
    Ok(())
}
