//! How the service starts, ends, starts again, and tells how it is.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::file;
use layerbox_tests::tree::names;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::json;

use super::counts::mounted;
use crate::command::{binary, run, shell};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, mounts_below, unmount};
use crate::service::{Service, eventually};
use crate::store::bare;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service: killed and started again, it knows homes and counts", killed),
        case("service: a root that is mounted anew, removed, emptied or replaced is opened anew", displaced),
        case("service: a store is closed when its engine ends, and opened again for the next", closed),
        case("service: a store whose root was removed is forgotten", forgotten),
        case("service: SIGTERM ends it cleanly, and mounts stay", terminated),
        case("service: what is under way at the end is cut off in time", cut_off),
        case("service: sockets are for owner and group, and a live one is not taken", sockets),
        case("service: it takes over sockets of systemd", activated)
            .needs(Need::Tool("systemd-socket-activate")),
        case("service: it does not start on a socket that does not listen", not_listening),
        case("service: it takes as many descriptors as it may", descriptors),
        case("service: metrics and health", metrics_and_health),
        case("service: the log has a line a call, as text or objects", log_lines),
    ]
}

fn killed(place: &Place) -> Result<()> {
    let mut service = Service::start(place, &[])?;
    let merged = mounted(&service, 2)?;
    service.signal(Signal::SIGKILL)?;
    service.wait()?;
    ensure!(merged.join("f").exists(), "the mount went with the service");
    // No Init comes: dockerd does not know that the plugin is another one. A socket that nobody listens on
    // lies there.
    let service = Service::start(place, &[])?;
    service.ok("Get", &json!({ "ID": "top" }))?;
    for left in [true, true, false] {
        service.ok("Put", &json!({ "ID": "top" }))?;
        ensure!(merged.join("f").exists() == left, "after a put the mount is there: {}", !left);
    }
    Ok(())
}

/// What can become of a root while a service has it open. dockerd does the first of these by itself, where
/// its data is on no shared mount.
fn displaced(place: &Place) -> Result<()> {
    type Change = fn(&Path) -> Result<()>;
    let rows: [(&str, bool, Change); 5] = [
        ("mounted anew", true, |home| {
            umount2(home, MntFlags::MNT_DETACH)?;
            bind(home)
        }),
        ("no mount any more", true, |home| Ok(umount2(home, MntFlags::MNT_DETACH)?)),
        ("removed", false, |home| Ok(std::fs::remove_dir_all(home)?)),
        ("emptied", false, |home| shell("find \"$1\" -mindepth 1 -delete", [home]).map(drop)),
        ("replaced by a copy", true, |home| {
            shell("mv \"$1\" \"$1.old\" && cp -a \"$1.old\" \"$1\"", [home]).map(drop)
        }),
    ];
    for (what, is_kept, change) in rows {
        let inner = place.directory_for("")?;
        let service = Service::start(&inner, &[])?;
        let home = service.path("home");
        std::fs::create_dir(&home)?;
        if what.contains("mount") {
            bind(&home)?;
        }
        service.init()?;
        service.layer("old", "", &[file("f", "x")])?;
        change(&home)?;
        service.init().with_context(|| what.to_owned())?;
        let work = || -> Result<()> {
            let parent = if is_kept { "old" } else { "" };
            service.layer("new", parent, &[file("f", "y")])?;
            service.ok("Create", &json!({ "ID": "top", "Parent": "new" }))?;
            service.ok("Get", &json!({ "ID": "top" }))?;
            ensure!(std::fs::read(home.join("mnt/top/f"))? == b"y", "it is not mounted where the path leads");
            service.ok("Put", &json!({ "ID": "top" }))?;
            // The command line finds the service by way of the same path.
            run(bare().arg("--root").arg(&home).args(["exists", "top"]), b"")?.expect(0)?;
            service.ok("Remove", &json!({ "ID": "top" }))?;
            service.ok("Remove", &json!({ "ID": "new" }))?;
            let left = names(&home.join("layers"))?;
            ensure!(left == if is_kept { vec!["old"] } else { vec![] }, "{left:?}");
            let (status, text) = service.admin("/healthz")?;
            ensure!(status == 200, "{text}");
            Ok(())
        };
        work().with_context(|| format!("{what}\n{}", service.log().unwrap_or_default()))?;
        drop(service);
        // Where it is a mount.
        let _ = umount2(&home, MntFlags::MNT_DETACH);
    }
    Ok(())
}

/// Mounts a directory on itself, as dockerd does with its data.
fn bind(directory: &Path) -> Result<()> {
    let none = None::<&str>;
    Ok(mount(Some(directory), directory, none, MsFlags::MS_BIND, none)?)
}

/// What a service has open below a directory, and its threads that delete.
fn held(service: &Service, below: &Path) -> Result<Vec<String>> {
    let process = Path::new("/proc").join(service.id().to_string());
    let mut held = Vec::new();
    for entry in std::fs::read_dir(process.join("fd"))? {
        // It may be closed by now.
        let open = std::fs::read_link(entry?.path()).unwrap_or_default();
        if open.starts_with(below) {
            held.push(open.display().to_string());
        }
    }
    for entry in std::fs::read_dir(process.join("task"))? {
        let name = std::fs::read_to_string(entry?.path().join("comm")).unwrap_or_default();
        if name.trim() == "sweeper" {
            held.push(name);
        }
    }
    Ok(held)
}

fn closed(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let disk = place.make("disk")?.canonicalize()?;
    mount(Some("disk"), &disk, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    let init = json!({ "Home": disk.join("home") });
    for round in 0..3 {
        service.ok("Init", &init)?;
        let id = format!("l{round}");
        service.layer(&id, "", &[file("f", "x")])?;
        let top = json!({ "ID": format!("top{round}"), "Parent": id });
        service.ok("Create", &top)?;
        service.ok("Get", &top)?;
        ensure!(!held(&service, &disk)?.is_empty(), "this case does not see what is held");
        service.ok("Cleanup", &json!({}))?;
        let held = held(&service, &disk)?;
        ensure!(held.is_empty(), "round {round}: {held:?}");
        let (_, text) = service.admin("/metrics")?;
        ensure!(text.contains("layerbox_stores 0"), "{text}");
        // No Init comes before this one.
        service.ok("Remove", &top)?;
        service.ok("Cleanup", &json!({}))?;
    }
    run(bare().arg("--root").arg(disk.join("home")).arg("check"), b"")?.expect(0)?;
    unmount(&disk)?;
    // It is not made on what was below the disk.
    let text = service.fails("Get", &json!({ "ID": "l0" }))?;
    ensure!(text.contains("no store"), "{text}");
    Ok(())
}

fn forgotten(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("a", "", &[file("f", "x")])?;
    let home = service.path("home").canonicalize()?;
    std::fs::remove_dir_all(&home)?;
    let (status, text) = service.admin("/healthz")?;
    ensure!(status == 200, "{text}");
    let (_, text) = service.admin("/metrics")?;
    ensure!(!text.contains(&home.display().to_string()), "{text}");
    ensure!(held(&service, &home)?.is_empty(), "{:?}", held(&service, &home)?);
    // And where nobody asks, when the next engine comes.
    service.init()?;
    std::fs::remove_dir_all(&home)?;
    service.ok("Init", &json!({ "Home": service.path("other") }))?;
    eventually("what was removed is closed", || Ok(held(&service, &home)?.len() == 1))
}

fn terminated(place: &Place) -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let inner = place.directory_for("")?;
        let mut service = Service::start(&inner, &[])?;
        service.signal(Signal::SIGHUP)?;
        let merged = mounted(&service, 1)?;
        // A connection that idles, as dockerd's do, does not hold it up.
        let mut idle = service.connect()?;
        ensure!(idle.call("POST", "/GraphDriver.Status", b"{}")?.status == 200, "Status");
        let started = Instant::now();
        service.signal(signal)?;
        let status = service.wait()?;
        ensure!(status == 0, "{signal}: exit status {status}: {}", service.log()?);
        ensure!(started.elapsed() < Duration::from_secs(5), "{signal}: {:?}", started.elapsed());
        ensure!(merged.join("f").exists(), "{signal}: the mount is gone");
        for socket in ["docker.sock", "admin.sock"] {
            ensure!(!service.path(socket).exists(), "{signal}: {socket} is left");
        }
    }
    Ok(())
}

fn cut_off(place: &Place) -> Result<()> {
    let mut service = Service::start(place, &["--grace", "1s"])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let mut upload = service.connect()?;
    upload.begin("/GraphDriver.ApplyDiff?id=a")?;
    upload.chunk(&file("f", vec![0; 4096]).header())?;
    let stage = service.path("home/stage/a");
    eventually("the upload is under way", || Ok(stage.exists()))?;
    let started = Instant::now();
    service.signal(Signal::SIGTERM)?;
    ensure!(service.wait()? == 0, "{}", service.log()?);
    let taken = started.elapsed();
    ensure!(taken > Duration::from_millis(900) && taken < Duration::from_secs(8), "{taken:?}");
    ensure!(upload.answer().is_err(), "it was answered");
    Service::start(place, &[])?.is_empty_and_reusable("a")
}

fn sockets(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    for socket in ["docker.sock", "admin.sock"] {
        let mode = std::fs::metadata(service.path(socket))?.permissions().mode();
        ensure!(mode & 0o777 == 0o660, "{socket}: {mode:o}");
    }
    let second = |socket: &Path| {
        let mut command = bare();
        command.arg("--root").arg(place.join("second")).arg("serve").arg("--docker").arg(socket);
        run(&mut command, b"")
    };
    let taken = service.path("docker.sock");
    second(&taken)?.expect(4)?.says(&taken.display().to_string())?;
    ensure!(service.raw("Capabilities", b"{}")?.status == 200, "the first one was harmed");
    let other = place.join("other.sock");
    let _listener = UnixListener::bind(&other)?;
    second(&other)?.expect(4)?.says("listens on")?;
    let plain = place.join("plain");
    std::fs::write(&plain, "mine")?;
    second(&plain)?.expect(4)?.says("no socket")?;
    ensure!(std::fs::read(&plain)? == b"mine", "a file was taken for a socket");
    Ok(())
}

fn activated(place: &Place) -> Result<()> {
    let mut command = Command::new("systemd-socket-activate");
    command.arg("--fdname=docker:admin");
    for socket in ["docker.sock", "admin.sock"] {
        command.arg("-l").arg(place.join(socket));
    }
    command.arg(binary()).arg("--root").arg(place.join("root")).arg("serve");
    command.env_remove("LAYERBOX_ROOT").env_remove("LAYERBOX_SOCKET");
    // It starts the service when the first client comes, which is answered all the same.
    let client = std::thread::scope(|scope| {
        let socket = place.join("docker.sock");
        let client = scope.spawn(move || -> Result<u16> {
            eventually("the socket is there", || Ok(socket.exists()))?;
            let mut connection = crate::http::Connection::new(&socket)?;
            Ok(connection.call("POST", "/Plugin.Activate", b"")?.status)
        });
        let service = Service::spawn(place, command)?;
        let status = client.join().ok().context("a panic")??;
        Ok::<_, anyhow::Error>((service, status))
    });
    let (mut service, status) = client?;
    ensure!(status == 200, "the first client: {status}");
    ensure!(service.admin("/healthz")?.0 == 200, "the socket for operators");
    service.signal(Signal::SIGTERM)?;
    ensure!(service.wait()? == 0, "{}", service.log()?);
    ensure!(place.join("docker.sock").exists(), "a socket that systemd made was removed");
    Ok(())
}

/// The end of a connection, as a unit with `Accept=yes` passes it.
fn not_listening(place: &Place) -> Result<()> {
    let (connected, _other_end) = UnixStream::pair()?;
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3<&0"]).arg(binary());
    command.arg("--root").arg(place.join("root")).arg("serve");
    command.env("LISTEN_FDS", "1").env_remove("LISTEN_PID").env_remove("LISTEN_FDNAMES");
    command.env_remove("LAYERBOX_ROOT").env_remove("LAYERBOX_SOCKET");
    let mut child =
        command.stdin(OwnedFd::from(connected)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut said = String::new();
    // A service that is ready says so, and goes on.
    BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut said)?;
    child.kill()?;
    let ended = child.wait_with_output()?;
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    ensure!(said.is_empty() && error.contains("does not listen"), "{said}{error}");
    Ok(())
}

/// With the 64 descriptors that it is started with, a stack of 80 layers could not be mounted.
fn descriptors(place: &Place) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64 && ulimit -Hn 4096 && exec \"$0\" \"$@\""]).arg(binary());
    command.arg("--root").arg(place.join("root")).arg("serve");
    command.arg("--docker").arg(place.join("docker.sock")).arg("--admin").arg(place.join("admin.sock"));
    command.env_remove("LAYERBOX_ROOT").env_remove("LAYERBOX_SOCKET");
    let service = Service::spawn(place, command)?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", service.id()))?;
    let line = limits.lines().find(|line| line.starts_with("Max open files")).context("no such limit")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    ensure!(words[3..5] == ["4096", "4096"], "{line}");
    service.init()?;
    let mut parent = String::new();
    for number in 0..80 {
        let id = format!("l{number}");
        service.ok("Create", &json!({ "ID": id, "Parent": parent }))?;
        parent = id;
    }
    service.ok("Get", &json!({ "ID": parent }))?;
    service.ok("Put", &json!({ "ID": parent }))?;
    Ok(())
}

fn metrics_and_health(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    ensure!(service.admin("/healthz")?.0 == 200, "without a store");
    mounted(&service, 1)?;
    service.fails("Remove", &json!({ "ID": "base" }))?;
    let (status, text) = service.admin("/metrics")?;
    let home = service.path("home").canonicalize()?.display().to_string();
    ensure!(status == 200, "{status}");
    for line in [
        "layerbox_calls_total{operation=\"get\",outcome=\"ok\"} 1".to_owned(),
        "layerbox_calls_total{operation=\"remove\",outcome=\"has-children\"} 1".to_owned(),
        "layerbox_call_duration_seconds_count{operation=\"create\"} 2".to_owned(),
        "layerbox_calls_in_flight{operation=\"get\"} 0".to_owned(),
        "layerbox_received_bytes_total 2048".to_owned(),
        format!("layerbox_layers{{store=\"{home}\"}} 2"),
        format!("layerbox_mounts{{store=\"{home}\"}} 1"),
        "layerbox_stores 1".to_owned(),
    ] {
        ensure!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    ensure!(mounts_below(&service.path("home")).len() == 1, "one mount");
    let (status, text) = service.admin("/healthz")?;
    ensure!(status == 200 && text.contains(": ok"), "{status}: {text}");
    std::fs::rename(service.path("home/layers"), service.path("home/away"))?;
    let (status, text) = service.admin("/healthz")?;
    ensure!(status == 503 && text.contains("home"), "{status}: {text}");
    Ok(())
}

fn log_lines(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--log-format", "json"])?;
    service.init()?;
    service.layer("a", "", &[file("f", "x")])?;
    service.fails("Get", &json!({ "ID": "none" }))?;
    let mut seen = Vec::new();
    for line in service.log()?.lines() {
        let object: serde_json::Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if object["message"] == "call" {
            ensure!(object["milliseconds"].is_number() && object["time"].is_string(), "{line}");
            seen.push(format!("{} {} {}", object["operation"], object["outcome"], object["received"]));
        }
    }
    let expected = [
        r#""init" "ok" null"#,
        r#""create" "ok" null"#,
        r#""apply-diff" "ok" 2048"#,
        r#""get" "not-found" null"#,
    ];
    ensure!(seen == expected, "{seen:?}");
    Ok(())
}
