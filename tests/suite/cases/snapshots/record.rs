//! Names and layers agree: after removals, crashes, at the end of a service, and as `check` sees it.

use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use layerbox_containerd::services::snapshots::v1::Kind;
use layerbox_tests::command::{run, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tonic::Code;

use crate::harness::{Case, Need, case};
use crate::scratch::{Place, fill};
use crate::service::eventually;
use crate::snapshotter::{Mounted, Snapshotter, labels, refused, serve, serve_with};
use crate::store::bare;

pub(super) fn cases() -> Vec<Case> {
    vec![
        overlay("snapshots: a removed one is gone at once, and what it held soon after", removed),
        overlay("snapshots: all is known again by the next service", next_service),
        overlay("snapshots: killed at any moment, names and layers agree", killed),
        overlay("snapshots: keys are prepared and removed by many at once", many),
        overlay("snapshots: check finds a layer that is gone, and one without a name", check),
        overlay("snapshots: a deep repair leaves names alone that are deletions to aufs", names_of_aufs),
        overlay("snapshots: a connection is closed twice, a call is given up", closed),
        overlay(
            "snapshots: on a full disk they are looked at and removed, and made again when there is room",
            full,
        ),
        overlay("snapshots: a write of the record that fails is one call that fails", failed_write)
            .needs(Need::Tool("strace")),
        overlay("snapshots: a root that was removed is made anew, and knows nothing", made_anew),
        overlay("snapshots: two sockets of one service lead to the same snapshots", two_sockets),
    ]
}

fn overlay(name: &str, body: fn(&Place) -> Result<()>) -> Case {
    case(name, body).needs(Need::Filesystem("overlay"))
}

/// The layers of the store.
fn layers(place: &Place) -> Result<Vec<String>> {
    layerbox_tests::tree::names(&place.join("root/diff"))
}

/// What `check` prints; nothing where all is well.
pub(super) fn findings(place: &Place, arguments: &[&str]) -> Result<String> {
    let found = run(bare().arg("--root").arg(place.join("root")).arg("check").args(arguments), b"")?;
    ensure!(found.code <= 1, "{found}");
    Ok(found.text())
}

fn removed(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |at| {
        for number in 0..2000 {
            fs::write(at.join(number.to_string()), "x")?;
        }
        Ok(())
    })?;
    s.prepare("two", "one")?;
    s.remove("two")?;
    s.remove("one")?;
    ensure!(s.list(&[])?.is_empty(), "they are listed");
    // The name is free while the old content is still being deleted.
    s.prepare("one", "")?;
    s.cleanup()?;
    ensure!(layers(place)?.len() == 1, "{:?}", layers(place)?);
    s.remove("one")?;
    eventually("the last layer is deleted", || {
        Ok(layers(place)?.is_empty() && layerbox_tests::tree::names(&place.join("root/trash"))?.is_empty())
    })?;
    ensure!(findings(place, &[])?.is_empty(), "{}", findings(place, &[])?);
    Ok(())
}

/// To overlayfs they are names like others, and what a container has written.
fn names_of_aufs(place: &Place) -> Result<()> {
    let _service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |at| {
        fs::write(at.join("f"), "1")?;
        Ok(fs::write(at.join(".wh.f"), "")?)
    })?;
    let mounted = Mounted::new(place, &s.prepare("two", "one")?)?;
    for _ in 0..2 {
        let found = findings(place, &["--deep", "--repair"])?;
        ensure!(found.lines().count() == 1 && found.contains(".wh.f: it is content"), "{found}");
        for name in ["f", ".wh.f"] {
            ensure!(mounted.path().join(name).is_file(), "{name} is gone");
        }
    }
    mounted.end()
}

fn next_service(place: &Place) -> Result<()> {
    let mut service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    s.prepare_with("two", "one", labels(&[("a", "b")]))?;
    let (before, mounts) = (s.list(&[])?, s.mounts("two")?);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        service.signal(signal)?;
        service.wait()?;
        ensure!(findings(place, &[])?.is_empty(), "{}", findings(place, &[])?);
        service = serve(place)?;
        let s = Snapshotter::connect(place)?;
        ensure!(s.list(&[])? == before && s.mounts("two")? == mounts, "{signal}: {:?}", s.list(&[])?);
    }
    let s = Snapshotter::connect(place)?;
    let mounted = Mounted::new(place, &s.mounts("two")?)?;
    ensure!(fs::read(mounted.path().join("f"))? == b"1");
    Ok(())
}

fn killed(place: &Place) -> Result<()> {
    for round in 0..12u64 {
        let mut service = serve(place)?;
        let s = Snapshotter::connect(place)?;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| -> Result<()> {
            let work = || {
                // Until the service is gone, and with it the answers.
                for number in 0.. {
                    let (key, name) = (format!("k-{round}-{number}"), format!("n-{round}-{number}"));
                    let ended = s.prepare(&key, "").and_then(|_| s.commit(&name, &key));
                    if ended.and_then(|()| if number % 2 == 0 { s.remove(&name) } else { Ok(()) }).is_err() {
                        break;
                    }
                }
                over.store(true, Ordering::Relaxed);
            };
            scope.spawn(work);
            std::thread::sleep(Duration::from_millis(20 + 17 * round));
            service.signal(Signal::SIGKILL)?;
            service.wait()?;
            Ok(())
        })?;
        ensure!(over.load(Ordering::Relaxed));
        let _service = serve(place)?;
        let s = Snapshotter::connect(place)?;
        s.cleanup()?;
        let (names, layers) = (s.names(&[])?, layers(place)?);
        ensure!(names.len() == layers.len(), "round {round}: {names:?}, and {layers:?}");
        ensure!(findings(place, &[])?.is_empty(), "round {round}: {}", findings(place, &[])?);
        for name in names {
            s.remove(&name)?;
        }
    }
    Ok(())
}

fn many(place: &Place) -> Result<()> {
    let service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "base", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    let won = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for thread in 0..8 {
            let (won, s) = (&won, s.beside("layerbox", Some("test"))?);
            threads.push(scope.spawn(move || -> Result<()> {
                for round in 0..20 {
                    match s.prepare(&format!("shared-{round}"), "base") {
                        Ok(_) => drop(won.fetch_add(1, Ordering::Relaxed)),
                        Err(status) => ensure!(status.code() == Code::AlreadyExists, "{status:?}"),
                    }
                    let own = format!("own-{thread}-{round}");
                    s.prepare(&own, "base")?;
                    s.remove(&own)?;
                }
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    ensure!(won.load(Ordering::Relaxed) == 20, "{} calls got 20 keys", won.load(Ordering::Relaxed));
    ensure!(s.names(&["name~=^shared"])?.len() == 20 && s.names(&["name~=^own"])?.is_empty());
    s.cleanup()?;
    ensure!(layers(place)?.len() == 21, "{:?}\n{}", layers(place)?, service.log()?);
    Ok(())
}

fn check(place: &Place) -> Result<()> {
    let mut service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |_| Ok(()))?;
    s.prepare("two", "one")?;
    s.prepare("three", "one")?;
    let layer = |key: &str| -> Result<String> {
        let mounts = s.mounts(key)?;
        let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
        Ok(upper.and_then(|path| path.rsplit('/').next()).context("no layer")?.to_owned())
    };
    let lost = layer("two")?;
    let id = layer("three")?;
    service.signal(Signal::SIGTERM)?;
    service.wait()?;
    run(bare().arg("--root").arg(place.join("root")).args(["remove", &lost]), b"")?.expect(0)?;
    // A layer of the record's own that it knows nothing of, as a crash leaves it.
    let (prefix, _) = id.rsplit_once('-').context("no number")?;
    let stray = format!("{prefix}-900");
    run(bare().arg("--root").arg(place.join("root")).args(["create", &stray]), b"")?.expect(0)?;
    let found = findings(place, &[])?;
    for expected in ["snapshots.redb: two", "is missing", &stray, "no snapshot names it"] {
        ensure!(found.contains(expected), "nothing of {expected:?} in {found}");
    }
    findings(place, &["--repair"])?;
    ensure!(findings(place, &[])?.is_empty(), "{}", findings(place, &[])?);
    let _service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    ensure!(s.names(&[])? == ["one", "three"], "{:?}", s.names(&[])?);
    refused(s.stat("two"), Code::NotFound, "the one whose layer is gone")
}

fn closed(place: &Place) -> Result<()> {
    let mut service = serve(place)?;
    for _ in 0..2 {
        let s = Snapshotter::connect(place)?;
        s.list(&[])?;
        drop(s);
    }
    // Bytes that are no HTTP/2, and nothing at all.
    let mut garbage = std::os::unix::net::UnixStream::connect(place.join("containerd.sock"))?;
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
    let _silent = std::os::unix::net::UnixStream::connect(place.join("containerd.sock"))?;
    let s = Snapshotter::connect(place)?;
    s.prepare("key", "")?;
    service.signal(Signal::SIGTERM)?;
    ensure!(service.wait()? == 0, "{}", service.log()?);
    ensure!(!place.join("containerd.sock").exists(), "the socket is left");
    ensure!(s.list(&[]).is_err(), "a service that is gone answers");
    Ok(())
}

fn full(place: &Place) -> Result<()> {
    let (image, root) = (place.join("image"), place.make("root")?);
    File::create(&image)?.set_len(32 << 20)?;
    // No blocks are kept for root, who would else never see the disk full.
    tool("mkfs.ext4", ["-q", "-F", "-m", "0"].map(AsRef::as_ref).into_iter().chain([image.as_os_str()]))?;
    tool("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), root.as_os_str()])?;
    fs::remove_dir(root.join("lost+found"))?;
    let mut service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "base", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    let keys: Vec<String> = (0..24).map(|number| format!("key-{number:02}")).collect();
    for key in &keys {
        s.prepare(key, "base")?;
    }
    let filler = root.join("filler");
    fill(&filler)?;
    // More than the record's file holds, and it cannot grow.
    let large = "x".repeat(60_000);
    let label = |key: &str| s.update(key, labels(&[("large", &large)]), &["labels.large"]);
    for key in &keys {
        refused(label(key), Code::ResourceExhausted, "a large label")?;
    }
    refused(s.prepare("more", "base"), Code::ResourceExhausted, "on a full disk")?;
    for round in 0..2 {
        let s = Snapshotter::connect(place)?;
        ensure!(s.stat("base")?.kind() == Kind::Committed && s.stat("key-15")?.parent == "base");
        ensure!(service.admin("/healthz")?.0 == 200, "{}", service.admin("/healthz")?.1);
        for key in &keys[round * 6..(round + 1) * 6] {
            s.remove(key)?;
        }
        fill(&filler)?;
        if round == 0 {
            // As it is after a crash, too.
            service.signal(Signal::SIGKILL)?;
            service.wait()?;
            service = serve(place)?;
        }
        let s = Snapshotter::connect(place)?;
        s.cleanup()?;
        fill(&filler)?;
        ensure!(s.stat(&keys[round * 6]).is_err() && layers(place)?.len() == 25 - 6 * (round + 1));
    }
    fs::remove_file(&filler)?;
    let s = Snapshotter::connect(place)?;
    s.prepare("more", "base")?;
    s.update("more", labels(&[("large", &large)]), &["labels.large"])?;
    ensure!(
        service.admin("/healthz")?.0 == 200 && findings(place, &[])?.is_empty(),
        "{}",
        findings(place, &[])?
    );
    service.signal(Signal::SIGTERM)?;
    service.wait()?;
    Ok(())
}

fn failed_write(place: &Place) -> Result<()> {
    let service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "base", "", |_| Ok(()))?;
    for call in ["pwrite64", "fdatasync"] {
        let mut injector = Command::new("strace")
            .args(["-f", "-qq", "-o"])
            .arg(place.join("trace"))
            .args(["-p", &service.id().to_string(), "-e", &format!("inject={call}:error=EIO")])
            .arg("-P")
            .arg(place.join("root").join("snapshots.redb"))
            .stderr(Stdio::null())
            .spawn()?;
        let key = format!("lost-{call}");
        let failed = eventually(&format!("{call} fails"), || {
            let answer = s.prepare(&key, "base");
            // Until it has begun.
            Ok(match &answer {
                Ok(_) => s.remove(&key).is_err(),
                Err(_) => true,
            })
        });
        kill(Pid::from_raw(i32::try_from(injector.id())?), Signal::SIGTERM)?;
        injector.wait()?;
        failed?;
        let key = format!("next-{call}");
        s.prepare(&key, "base")
            .with_context(|| format!("after {call}\n{}", service.log().unwrap_or_default()))?;
        s.remove(&key)?;
        ensure!(service.admin("/healthz")?.0 == 200, "{}", service.admin("/healthz")?.1);
    }
    for name in s.names(&["name~=^lost"])? {
        s.remove(&name)?;
    }
    s.cleanup()?;
    ensure!(s.names(&[])? == ["base"] && findings(place, &[])?.is_empty(), "{}", findings(place, &[])?);
    Ok(())
}

fn made_anew(place: &Place) -> Result<()> {
    let service = serve(place)?;
    let s = Snapshotter::connect(place)?;
    s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    let (root, away) = (place.join("root"), place.join("away"));
    let removals: [(&str, &dyn Fn() -> std::io::Result<()>); 2] =
        [("removed", &|| fs::remove_dir_all(&root)), ("moved", &|| fs::rename(&root, &away))];
    for (what, remove) in removals {
        remove()?;
        refused(s.stat("one"), Code::NotFound, what)?;
        ensure!(s.names(&[])?.is_empty(), "{what}: {:?}", s.names(&[])?);
        s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "2")?))?;
        s.prepare("two", "one")?;
        ensure!(s.names(&[])? == ["one", "two"] && layers(place)?.len() == 2, "{:?}", s.names(&[])?);
        ensure!(findings(place, &[])?.is_empty(), "{}", findings(place, &[])?);
        ensure!(service.admin("/healthz")?.0 == 200, "{}", service.admin("/healthz")?.1);
    }
    Ok(())
}

fn two_sockets(place: &Place) -> Result<()> {
    let second = place.join("second.sock");
    let _service = serve_with(place, &["--containerd", second.to_str().context("a path that is no text")?])?;
    let (s, other) = (Snapshotter::connect(place)?, Snapshotter::connect_to(&second)?);
    for number in 0..10 {
        s.prepare(&format!("one-{number}"), "")?;
        other.prepare(&format!("two-{number}"), "")?;
    }
    ensure!(s.names(&[])?.len() == 20 && other.names(&[])? == s.names(&[])?, "{:?}", s.names(&[])?);
    // Under the next ids somebody has made layers by hand.
    let used = layers(place)?.into_iter().next_back().context("no layer")?;
    let (prefix, _) = used.rsplit_once('-').context("no number")?;
    for number in 21..24 {
        let id = format!("{prefix}-{number}");
        run(bare().arg("--root").arg(place.join("root")).args(["create", &id]), b"")?.expect(0)?;
    }
    s.prepare("beside", "").map(drop)?;
    Ok(())
}
