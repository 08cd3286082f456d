//! Archives that come and go: cut off, stalled, hostile, side by side.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{Tar, file, tar};
use nix::mount::{MsFlags, mount};
use serde_json::json;

use crate::command::run;
use crate::harness::{Case, Need, case};
use crate::http::Connection;
use crate::scratch::Place;
use crate::service::{Service, eventually};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "service: a client that goes away in the midst of ApplyDiff leaves an empty layer",
            gone_uploading,
        ),
        case("service: a client that goes away in the midst of Diff ends it", gone_downloading),
        case("service: sixteen stalled uploads hold up no other call", stalled_uploads).alone(),
        case("service: calls that wait for a layer hold up neither other layers nor operators", waiting)
            .alone(),
        case("service: a body that is no HTTP is told as such", malformed),
        case("service: a stalled upload is given up, and its layer is empty", given_up),
        case("service: an upload that comes drop by drop is given up at the deadline", dripping),
        case("service: a download that nobody reads is given up", not_read),
        case("service: a refused archive is read to its end before the answer", refused),
        case("service: a hostile archive is an answer, and the next call works", hostile),
        case("service: an error in the midst of Diff breaks the connection", broken_diff),
        case("service: memory does not grow with an archive", memory).needs(Need::Tool("curl")),
        case("service: Diff feeds Create and ApplyDiff of the next layer, as in commit", commit),
    ]
}

/// A service with a layer of one large file.
fn with_large(place: &Place, size: usize, arguments: &[&str]) -> Result<Service> {
    let service = Service::start(place, arguments)?;
    service.init()?;
    service.layer("large", "", &[file("a", vec![b'a'; size])])?;
    Ok(service)
}

/// Begins an upload and sends the first half of it.
fn half(service: &Service, id: &str) -> Result<Connection> {
    service.ok("Create", &json!({ "ID": id }))?;
    let mut connection = service.connect()?;
    connection.begin(&format!("/GraphDriver.ApplyDiff?id={id}&parent="))?;
    let archive = tar(&[file("a", "x"), file("b", vec![0; 1 << 20])]);
    connection.chunk(&archive[..archive.len() / 2])?;
    Ok(connection)
}

fn is_idle(service: &Service) -> Result<bool> {
    Ok(service.admin("/metrics")?.1.lines().any(|line| line == "layerbox_instances_running 0"))
}

fn gone_uploading(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let connection = half(&service, "a")?;
    let stage = service.path("home/stage/a/a");
    eventually("the upload is under way", || Ok(stage.exists()))?;
    drop(connection);
    eventually("the call has ended", || is_idle(&service))?;
    // The line is written when the thread of the call has ended, and a moment after.
    eventually("the log tells of it", || Ok(service.log()?.contains("outcome=gone")))?;
    service.is_empty_and_reusable("a")
}

fn gone_downloading(place: &Place) -> Result<()> {
    let service = with_large(place, 64 << 20, &[])?;
    let mut connection = service.connect()?;
    connection.ask("POST", "/GraphDriver.Diff", json!({ "ID": "large" }).to_string().as_bytes())?;
    eventually("the download is under way", || Ok(!is_idle(&service)?))?;
    drop(connection);
    eventually("the call has ended", || is_idle(&service))?;
    service.ok("Remove", &json!({ "ID": "large" }))?;
    Ok(())
}

fn stalled_uploads(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let stalled =
        (0..16).map(|number| half(&service, &format!("stalled-{number}"))).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    service.layer("base", "", &[file("f", "x")])?;
    service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    service.ok("Get", &json!({ "ID": "top" }))?;
    service.ok("Put", &json!({ "ID": "top" }))?;
    let taken = started.elapsed();
    println!("         six calls beside 16 stalled uploads: {} ms", taken.as_millis());
    ensure!(taken < Duration::from_secs(1), "{taken:?}");
    drop(stalled);
    eventually("the calls have ended", || is_idle(&service))
}

fn given_up(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--stall-timeout", "1s"])?;
    service.init()?;
    let text = half(&service, "a")?.answer()?.error(500)?;
    ensure!(text.contains("did nothing for 1 s"), "{text}");
    service.is_empty_and_reusable("a")
}

fn dripping(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--transfer-deadline", "1s", "--stall-timeout", "60s"])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let mut connection = service.connect()?;
    connection.begin("/GraphDriver.ApplyDiff?id=a&parent=")?;
    connection.chunk(&file("a", vec![]).size(1 << 30).header())?;
    let started = Instant::now();
    while !service.log()?.contains("outcome=deadline") {
        ensure!(started.elapsed() < Duration::from_secs(20), "it is not given up");
        std::thread::sleep(Duration::from_millis(20));
        if connection.chunk(&[0; 64]).is_err() {
            break;
        }
    }
    let text = connection.answer()?.error(500)?;
    ensure!(text.contains("no answer within 1 s"), "{text}");
    eventually("the call has ended", || is_idle(&service))?;
    service.is_empty_and_reusable("a")
}

fn not_read(place: &Place) -> Result<()> {
    let service = with_large(place, 64 << 20, &["--stall-timeout", "1s"])?;
    let mut connection = service.connect()?;
    connection.ask("POST", "/GraphDriver.Diff", json!({ "ID": "large" }).to_string().as_bytes())?;
    eventually("it is given up", || Ok(service.log()?.contains("outcome=stalled")))?;
    eventually("the call has ended", || is_idle(&service))?;
    let answer = connection.answer()?;
    ensure!(!answer.whole, "half an archive looks whole");
    Ok(())
}

/// More calls than there are places wait for a layer that is read by somebody who takes nothing of it.
fn waiting(place: &Place) -> Result<()> {
    let service = with_large(place, 64 << 20, &[])?;
    for id in ["read", "other"] {
        service.ok("Create", &json!({ "ID": id, "Parent": "large" }))?;
    }
    service.apply("read", &tar(&[file("b", vec![b'b'; 64 << 20])]))?.json()?;
    let mut reader = service.connect()?;
    reader.ask("POST", "/GraphDriver.Diff", json!({ "ID": "read" }).to_string().as_bytes())?;
    eventually("it is read", || Ok(!is_idle(&service)?))?;
    let mut waiting = Vec::new();
    for _ in 0..100 {
        let mut connection = service.connect()?;
        connection.ask("POST", "/GraphDriver.Get", json!({ "ID": "read" }).to_string().as_bytes())?;
        waiting.push(connection);
    }
    eventually("they wait", || {
        let text = service.admin("/metrics")?.1;
        Ok(text.lines().any(|line| line == "layerbox_calls_in_flight{operation=\"get\"} 100"))
    })?;
    let started = Instant::now();
    for (call, body) in [
        ("Exists", json!({ "ID": "other" })),
        ("Get", json!({ "ID": "other" })),
        ("Put", json!({ "ID": "other" })),
        ("Create", json!({ "ID": "third", "Parent": "large" })),
        ("Remove", json!({ "ID": "third" })),
        ("Status", json!({})),
    ] {
        service.ok(call, &body)?;
    }
    ensure!(service.admin("/healthz")?.0 == 200, "it is not well");
    ensure!(started.elapsed() < Duration::from_secs(5), "they took {:?}", started.elapsed());
    // All of them are answered once the reader is gone.
    drop(reader);
    for connection in &mut waiting {
        let answer = connection.answer()?;
        ensure!(answer.json()?["Dir"].is_string(), "{answer:?}");
    }
    Ok(())
}

fn malformed(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    for path in ["/GraphDriver.ApplyDiff?id=a&parent=", "/GraphDriver.Get"] {
        for body in ["5\r\nabcde\r\nz\r\n", "5\r\nabcdefgh", "\r\n"] {
            let mut connection = service.connect()?;
            connection.begin(path)?;
            connection.send(body.as_bytes())?;
            let text = connection.answer()?.error(400).with_context(|| format!("{path}: {body:?}"))?;
            ensure!(text.contains("malformed"), "{path}: {body:?}: {text}");
        }
    }
    ensure!(!service.log()?.contains("outcome=gone"), "{}", service.log()?);
    service.is_empty_and_reusable("a")
}

fn refused(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    // The first entry is refused; dockerd sends all the rest before it looks at the answer.
    let archive = tar(&[file("../escape", "x"), file("rest", vec![0; 32 << 20])]);
    let text = service.apply("a", &archive)?.error(500)?;
    ensure!(text.contains("../escape"), "{text}");
    service.is_empty_and_reusable("a")
}

fn hostile(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let whole = tar(&[file("f", vec![1; 5000])]);
    let archives = [
        tar(&[file("/etc/../../x", "x")]),
        tar(&[layerbox_tests::archive::hard_link("l", "../../etc/passwd")]),
        whole[..2000].to_vec(),
        tar(&[file("f", "x").checksum_error(1)]),
        vec![0x55; 100_000],
        Tar::new().extended(b'x', b"9999999999 path=x\n").finish(),
    ];
    for archive in archives {
        let answer = service.apply("a", &archive)?;
        let text =
            answer.error(500).with_context(|| format!("{:?}", String::from_utf8_lossy(&archive[..60])))?;
        ensure!(!text.contains("internal"), "{text}");
    }
    service.is_empty_and_reusable("a")
}

fn broken_diff(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let members: Vec<_> = (0..20_000).map(|number| file(format!("f{number:05}"), vec![b'x'; 700])).collect();
    service.layer("large", "", &members)?;
    // Behind megabytes that are sent already something that no layer holds: another file system.
    let content = service.path("home/diff/large");
    std::fs::create_dir(content.join("z"))?;
    mount(Some("tmpfs"), &content.join("z"), Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let answer = service.raw("Diff", json!({ "ID": "large" }).to_string().as_bytes())?;
    ensure!(answer.status == 200 && !answer.body.is_empty(), "{}", answer.status);
    ensure!(!answer.whole, "half an archive looks whole: {} bytes", answer.body.len());
    nix::mount::umount2(&content.join("z"), nix::mount::MntFlags::MNT_DETACH)?;
    let answer = service.raw("Diff", json!({ "ID": "large" }).to_string().as_bytes())?;
    ensure!(answer.whole, "the next one does not work");
    Ok(())
}

/// The most memory that the service may have had, in KiB, for an archive of many times as much. Without any
/// it has had some 18 MiB.
const MEMORY: u64 = 64 << 10;

fn memory(place: &Place) -> Result<()> {
    let size: usize = 512 << 20;
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let mut upload = service.connect()?;
    upload.begin("/GraphDriver.ApplyDiff?id=a&parent=")?;
    upload.chunk(&file("f", vec![]).size(size as u64).header())?;
    for _ in 0..size / (32 << 10) {
        upload.chunk(&[b'x'; 32 << 10])?;
    }
    upload.chunk(&[0; 1024])?;
    upload.chunk(b"")?;
    ensure!(upload.answer()?.json()? == json!({ "Size": size }), "ApplyDiff");
    let mut download = Command::new("curl");
    download.args([
        "-s",
        "-o",
        "/dev/null",
        "-w",
        "%{size_download}",
        "-d",
        r#"{"ID":"a"}"#,
        "--unix-socket",
    ]);
    download.arg(service.path("docker.sock")).arg("http://d/GraphDriver.Diff");
    let sent = run(&mut download, b"")?.expect(0)?.text();
    ensure!(sent.parse::<usize>()? > size, "Diff sent {sent} bytes");
    let status = std::fs::read_to_string(format!("/proc/{}/status", service.id()))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no peak of memory")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    ensure!(peak < MEMORY, "the service has had {peak} KiB for an archive of {} MiB", size >> 20);
    Ok(())
}

fn commit(place: &Place) -> Result<()> {
    let service = with_large(place, 4 << 20, &[])?;
    service.ok("CreateReadWrite", &json!({ "ID": "container", "Parent": "large" }))?;
    let merged = service.ok("Get", &json!({ "ID": "container" }))?;
    let merged = std::path::Path::new(merged["Dir"].as_str().context("no Dir")?);
    std::fs::write(merged.join("b"), vec![b'b'; 16 << 20])?;
    let answer = std::thread::scope(|scope| {
        let diff = scope.spawn(|| {
            service.raw("Diff", json!({ "ID": "container", "Parent": "large" }).to_string().as_bytes())
        });
        service.ok("Create", &json!({ "ID": "image", "Parent": "large" }))?;
        let mut upload = service.connect()?;
        upload.begin("/GraphDriver.ApplyDiff?id=image&parent=large")?;
        let diff = diff.join().ok().context("a panic")??;
        ensure!(diff.whole, "the archive is cut short");
        for chunk in diff.body.chunks(32 << 10) {
            upload.chunk(chunk)?;
        }
        upload.chunk(b"")?;
        upload.answer()
    })?;
    ensure!(answer.json()? == json!({ "Size": 16 << 20 }), "{answer:?}");
    service.ok("Put", &json!({ "ID": "container" }))?;
    Ok(())
}
