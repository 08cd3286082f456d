//! Clients that send no more: some wait for their answer all the same, others are gone.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{file, tar};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::cases::wrong::planted;
use crate::harness::{Case, Need, case};
use crate::http::{Answer, Connection};
use crate::scratch::Place;
use crate::service::{Service, eventually};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service: a client that says it sends no more gets its answer", half_closed),
        case("service: a call is given up when its client is gone", gone),
        case("service: what a client got that is gone is given back", given_back)
            .needs(Need::Filesystem("overlay"))
            .needs(Need::Tool("strace")),
    ]
}

/// Sends a request and says that it was the last, then reads the answer, and the end of the connection.
fn last(socket: &Path, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let mut connection = Connection::new(socket)?;
    connection.ask(method, path, body)?;
    connection.send_no_more()?;
    let answer = connection.answer().with_context(|| format!("{method} {path}"))?;
    ensure!(connection.is_closed()?, "{path}: the connection stays open");
    Ok(answer)
}

fn half_closed(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let archive = tar(&[file("f", vec![b'f'; 8 << 20])]);
    let socket = service.path("docker.sock");
    for (call, body) in [
        ("ApplyDiff?id=a&parent=", archive.clone()),
        ("Status", b"{}".to_vec()),
        ("Exists", json!({ "ID": "a" }).to_string().into_bytes()),
        ("DiffSize", json!({ "ID": "a" }).to_string().into_bytes()),
        ("Diff", json!({ "ID": "a" }).to_string().into_bytes()),
    ] {
        let answer = last(&socket, "POST", &format!("/GraphDriver.{call}"), &body)?;
        ensure!(answer.status == 200 && answer.whole, "{call}: {answer:?}");
        ensure!(call != "Diff" || answer.body.len() >= 8 << 20, "{} bytes of an archive", answer.body.len());
    }
    ensure!(last(&service.path("admin.sock"), "GET", "/metrics", b"")?.status == 200, "metrics");
    // What is cut off so is no archive.
    service.ok("Create", &json!({ "ID": "b" }))?;
    let mut connection = service.connect()?;
    connection.begin("/GraphDriver.ApplyDiff?id=b&parent=")?;
    connection.chunk(&archive[..archive.len() / 2])?;
    connection.send_no_more()?;
    ensure!(connection.answer().map_or(true, |answer| answer.status != 200), "half an archive was taken");
    eventually("the log tells of it", || Ok(service.log()?.contains("outcome=gone")))?;
    service.is_empty_and_reusable("b")
}

/// Sends a call, and leaves it to be answered.
fn begin(service: &Service, call: &str, id: &str) -> Result<Connection> {
    let mut connection = service.connect()?;
    connection.ask("POST", &format!("/GraphDriver.{call}"), json!({ "ID": id }).to_string().as_bytes())?;
    Ok(connection)
}

fn gone(place: &Place) -> Result<()> {
    let guest = planted(place, "loops-in-create")?.display().to_string();
    // It would have an answer only after that time.
    let service = Service::start(place, &["--guest", &guest, "--guest-time", "30s"])?;
    service.init()?;
    drop(begin(&service, "Create", "loops")?);
    eventually("the log tells of it", || Ok(service.log()?.contains("outcome=gone")))
}

fn given_back(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("base", "", &[file("f", "x")])?;
    service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    let mut injector = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(place.join("trace"))
        .args(["-p", &service.id().to_string(), "-e", "inject=move_mount,mount:delay_exit=2s"])
        .stderr(Stdio::null())
        .spawn()?;
    let traced = format!("/proc/{}/status", service.id());
    eventually("strace is there", || Ok(!std::fs::read_to_string(&traced)?.contains("TracerPid:\t0")))?;
    let target = service.path("home/mnt/top").display().to_string();
    let is_mounted = || Ok(std::fs::read_to_string("/proc/self/mountinfo")?.contains(&target));
    let connection = begin(&service, "Get", "top")?;
    let mounted = eventually("the layer is mounted", is_mounted);
    drop(connection);
    let unmounted = eventually("it is given back", || is_mounted().map(|mounted| !mounted));
    kill(Pid::from_raw(i32::try_from(injector.id())?), Signal::SIGTERM)?;
    injector.wait()?;
    mounted.and(unmounted)
}
