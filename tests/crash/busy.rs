//! Layers that somebody uses, and layers that take long to delete.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{Tar, dir, file};
use nix::sys::signal::Signal;
use serde_json::json;

use super::world::{leftovers, look, names_if_any};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, mounts_below};
use crate::service::{Service, within};
use crate::store::{Dialect, Store};

/// How many files a large layer has: `CRASH_FILES`, else so many.
fn files() -> usize {
    std::env::var("CRASH_FILES").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

/// How long a call may take beside the deletion of a large layer, on a machine that does other things as
/// well.
const PROMPT: Duration = Duration::from_secs(3);

pub fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    vec![
        case("busy: what is in use is not unmounted, and who uses it is named", named).needs(overlay),
        case("busy: whoever lets go in a moment is waited for", waited_for).needs(overlay),
        case("busy: --force detaches it, and the file stays readable", detached).needs(overlay),
        case("busy: a large layer is removed at once, and nobody waits for its deletion", large)
            .needs(overlay)
            .alone(),
        case("busy: a deletion that was cut off goes on when the service is back", goes_on).alone(),
    ]
}

/// A process that has a file open, until it is dropped.
struct Holder(Child);

impl Holder {
    fn of(path: &Path, seconds: &str) -> Result<Holder> {
        let file = File::open(path)?;
        Ok(Holder(Command::new("sleep").arg(seconds).stdin(file).stdout(Stdio::null()).spawn()?))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A store with a layer that is mounted.
fn mounted(place: &Place) -> Result<Store> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("of-base", "base")])?;
    store.create("top", Some("base"))?;
    store.get("top")?;
    Ok(store)
}

fn named(place: &Place) -> Result<()> {
    let store = mounted(place)?;
    let holder = Holder::of(&store.root().join("mnt/top/of-base"), "60")?;
    let name = format!("process {} (sleep)", holder.0.id());
    for call in [&["put", "top"][..], &["cleanup"]] {
        store.run(call.iter().copied())?.expect(4)?.says(&name)?;
        ensure!(
            store.references("top")? == 1,
            "after {call:?} it is counted {} times",
            store.references("top")?
        );
        ensure!(store.root().join("mnt/top/of-base").exists(), "after {call:?} it is not mounted");
    }
    store.run(["remove", "top"])?.expect(4)?;
    drop(holder);
    store.put("top")?;
    store.ok(["remove", "top"])?;
    store.knows_nothing_of("top")
}

fn waited_for(place: &Place) -> Result<()> {
    let store = mounted(place)?;
    let _holder = Holder::of(&store.root().join("mnt/top/of-base"), "0.1")?;
    store.put("top")?;
    ensure!(mounts_below(store.root()).is_empty(), "it is still mounted");
    Ok(())
}

fn detached(place: &Place) -> Result<()> {
    let store = mounted(place)?;
    let path = store.root().join("mnt/top/of-base");
    let _holder = Holder::of(&path, "60")?;
    let open = File::open(&path)?;
    store.ok(["remove", "--force", "top"])?;
    store.knows_nothing_of("top")?;
    ensure!(mounts_below(store.root()).is_empty(), "it is still mounted");
    ensure!(std::io::read_to_string(open)? == "base", "the file that was open cannot be read");
    let left = leftovers(&store, &look(&store)?)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// Makes a layer of many files, in directories of a thousand.
fn make_large(service: &Service, id: &str) -> Result<()> {
    service.ok("Create", &json!({ "ID": id, "Parent": "" }))?;
    let store = Store::new(service.path("home"), Dialect::Overlay);
    let output = store.apply_with(id, |mut stdin| {
        for number in 0..files() {
            let mut part = Tar::new();
            if number % 1000 == 0 {
                part.add(&dir(format!("d{}/", number / 1000)));
            }
            part.add(&file(format!("d{}/{number}", number / 1000), ""));
            if stdin.write_all(&part.bytes()).is_err() {
                return;
            }
        }
        let _ = stdin.write_all(&[0; 1024]);
    })?;
    output.expect(0)?;
    Ok(())
}

fn large(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--quiet"])?;
    service.init()?;
    service.layer("base", "", &[file("of-base", "base")])?;
    make_large(&service, "large")?;
    let store = Store::new(service.path("home"), Dialect::Overlay);
    let trash = store.root().join("trash");

    let begin = Instant::now();
    service.ok("Remove", &json!({ "ID": "large" }))?;
    let removed = begin.elapsed();
    let mut slowest = Duration::ZERO;
    let mut calls = 0;
    while !names_if_any(&trash)?.is_empty() {
        let begin = Instant::now();
        service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
        service.ok("Get", &json!({ "ID": "top", "MountLabel": "" }))?;
        service.ok("Put", &json!({ "ID": "top" }))?;
        service.ok("Remove", &json!({ "ID": "top" }))?;
        slowest = slowest.max(begin.elapsed());
        calls += 4;
    }
    let deleted = begin.elapsed();
    println!(
        "         {} files: removed in {removed:.1?}, deleted in {deleted:.1?}; {calls} other calls meanwhile, four of them in {slowest:.1?} at most",
        files()
    );
    ensure!(calls > 0, "it was deleted before the answer");
    ensure!(removed < PROMPT && slowest < PROMPT, "somebody waited");
    Ok(())
}

fn goes_on(place: &Place) -> Result<()> {
    let mut service = Service::start(place, &["--quiet"])?;
    service.init()?;
    make_large(&service, "large")?;
    let trash = service.path("home/trash");
    service.ok("Remove", &json!({ "ID": "large" }))?;
    service.signal(Signal::SIGKILL)?;
    service.wait()?;
    drop(service);
    let left = fs::read_dir(&trash)?.count();
    ensure!(left > 0, "nothing was left to delete");
    let service = Service::start(place, &["--quiet"])?;
    service.init()?;
    service.ok("Status", &json!({})).context("while it deletes")?;
    within(Duration::from_secs(60), "the trash is empty", || Ok(names_if_any(&trash)?.is_empty()))
}
