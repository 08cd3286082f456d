//! Somebody swaps a directory for a symbolic link to the victim, over and over, in the layer that a command
//! works on: a container may do so in a layer that is mounted, and root in the staging directory, which
//! nobody should. A check before the use of a name would be lost here; nothing outside may change or leak.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, ensure};
use layerbox_catalogue::{Oracle, SECRET};
use layerbox_tests::archive::{file, tar};
use nix::fcntl::{RenameFlags, renameat2};
use serde_json::json;

use crate::command::{Output, run};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::service::Service;
use crate::store::{Dialect, Store};

/// How many swaps each case waits for.
const SWAPS: u64 = 100_000;
/// How often each command is run at the least.
const ROUNDS: u32 = 20;
/// A machine that is too slow for so many swaps is told of, and does not hang.
const PATIENCE: Duration = Duration::from_secs(240);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "hostile, races: diff, changes and diff-size of a mounted layer, swapped through the mount",
            |place| read(place, true),
        )
        .needs(Need::Filesystem("overlay"))
        .alone(),
        case(
            "hostile, races: diff, changes and diff-size of a mounted layer, swapped where it lies",
            |place| read(place, false),
        )
        .needs(Need::Filesystem("overlay"))
        .alone(),
        case("hostile, races: through the service, Diff, Changes and DiffSize of a mounted layer", served)
            .needs(Need::Filesystem("overlay"))
            .alone(),
        case("hostile, races: remove of a layer that is swapped where it lies", remove).alone(),
        case("hostile, races: apply-diff into a staging directory that is swapped", apply).alone(),
    ]
}

/// Swaps until it is told to stop, and counts.
#[derive(Default)]
struct Swapper {
    stop: AtomicBool,
    swaps: AtomicU64,
}

impl Swapper {
    fn new() -> Swapper {
        Swapper::default()
    }

    fn count(&self) -> u64 {
        self.swaps.load(Ordering::Relaxed)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Swaps two names of an open directory until they are gone or it is told to stop.
    fn swap(&self, directory: &OwnedFd, one: &str, other: &str) {
        while !self.stopped() {
            match renameat2(directory, one, directory, other, RenameFlags::RENAME_EXCHANGE) {
                Ok(()) => drop(self.swaps.fetch_add(1, Ordering::Relaxed)),
                Err(_) => return,
            }
        }
    }

    /// Runs `work` until there were enough swaps and rounds, with `swap` going on beside it.
    fn race(&self, swap: impl Fn(&Swapper) + Sync, mut work: impl FnMut(u32) -> Result<()>) -> Result<()> {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !self.stopped() {
                    swap(self);
                }
            });
            let started = Instant::now();
            let mut round = 0;
            let mut result = Ok(());
            while result.is_ok() && (round < ROUNDS || self.count() < SWAPS) {
                result = if started.elapsed() > PATIENCE {
                    Err(Error::msg(format!("only {} swaps in {} s", self.count(), PATIENCE.as_secs())))
                } else {
                    work(round)
                };
                round += 1;
            }
            self.stop.store(true, Ordering::Relaxed);
            result
        })
    }
}

/// A command that raced may succeed or say in one line what went wrong, and tells nothing of the victim.
fn harmless(output: &Output) -> Result<()> {
    ensure!(matches!(output.code, 0 | 1 | 4 | 5), "exit status {}: {output}", output.code);
    ensure!(output.code == 0 || output.stderr.starts_with("layerbox: "), "{output}");
    let leaked = output.stdout.windows(SECRET.len()).any(|window| window == SECRET);
    ensure!(!leaked, "it holds what only the victim has: {output}");
    ensure!(!output.text().contains("hello"), "it names what lies in the victim: {output}");
    Ok(())
}

fn store(place: &Place) -> Result<Store> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("base", "b"), file("merged/below", "b")])?;
    Ok(store)
}

/// A directory with files and a directory of its own, and beside it a symbolic link to the victim.
fn lay(content: &Path, victim: &Path) -> Result<()> {
    fs::create_dir_all(content.join("d/inner"))?;
    for number in 0..50 {
        fs::write(content.join(format!("d/f{number}")), "content")?;
        fs::write(content.join(format!("d/inner/f{number}")), vec![7; 100_000])?;
    }
    symlink(victim, content.join("l"))?;
    Ok(())
}

fn open(path: &Path) -> Result<OwnedFd> {
    Ok(File::open(path).with_context(|| path.display().to_string())?.into())
}

fn read(place: &Place, through_mount: bool) -> Result<()> {
    let store = store(place)?;
    store.create("live", Some("base"))?;
    let mounted = store.get("live")?;
    let oracle = Oracle::new(store.root(), &[store.content("base")]).map_err(Error::msg)?;
    lay(&mounted, &place.join("victim"))?;
    let directory = open(&if through_mount { mounted } else { store.content("live") })?;
    Swapper::new().race(
        |swapper| swapper.swap(&directory, "d", "l"),
        |_| {
            for command in [["diff", "live"], ["changes", "live"], ["diff-size", "live"]] {
                harmless(&store.run(command)?)?;
            }
            Ok(())
        },
    )?;
    oracle.still(&store.content("live")).map_err(Error::msg)?;
    drop(directory);
    store.put("live")?;
    store.ok(["remove", "live"]).map(drop)
}

fn served(place: &Place) -> Result<()> {
    let service = Service::start(place, &["--backend", "overlay"])?;
    service.init()?;
    service.layer("base", "", &[file("base", "b"), file("merged/below", "b")])?;
    let live = json!({ "ID": "live", "Parent": "base" });
    service.ok("Create", &live)?;
    let mounted = PathBuf::from(service.ok("Get", &live)?["Dir"].as_str().context("no path")?);
    let diff = service.path("home/diff");
    let oracle = Oracle::new(&service.path("home"), &[diff.join("base")]).map_err(Error::msg)?;
    lay(&mounted, &place.join("victim"))?;
    let directory = open(&mounted)?;
    Swapper::new().race(
        |swapper| swapper.swap(&directory, "d", "l"),
        |_| {
            for call in ["Diff", "Changes", "DiffSize"] {
                // An answer, an error, or a connection that breaks off in the midst of an archive.
                let answer = service.raw(call, live.to_string().as_bytes())?;
                let told = answer.body.windows(SECRET.len()).any(|window| window == SECRET);
                ensure!(!told, "{call} tells the secret");
            }
            Ok(())
        },
    )?;
    oracle.still(&diff.join("live")).map_err(Error::msg)?;
    drop(directory);
    service.ok("Put", &live)?;
    service.ok("Remove", &live).map(drop)
}

fn remove(place: &Place) -> Result<()> {
    let store = store(place)?;
    store.create("none", None)?;
    let oracle = Oracle::new(store.root(), &[store.content("base")]).map_err(Error::msg)?;
    let victim = place.join("victim");
    let content = |round: u32| store.content(&format!("layer{round}"));
    let at = AtomicU64::new(0);
    Swapper::new().race(
        |swapper| {
            // The descriptor stays with the layer when it is taken out of sight to be deleted.
            let round = at.load(Ordering::Acquire);
            if round > 0
                && let Ok(directory) = open(&content(round as u32 - 1))
            {
                swapper.swap(&directory, "d", "l");
            }
        },
        |round| {
            let id = format!("layer{round}");
            store.create(&id, None)?;
            lay(&content(round), &victim)?;
            at.store(u64::from(round) + 1, Ordering::Release);
            // Time for the swapper to begin.
            std::thread::sleep(Duration::from_millis(5));
            harmless(&store.run(["remove", &id])?)?;
            oracle.still(&store.content("none")).map_err(Error::msg)
        },
    )
}

fn apply(place: &Place) -> Result<()> {
    let store = store(place)?;
    store.create("target", Some("base"))?;
    let oracle = Oracle::new(store.root(), &[store.content("base")]).map_err(Error::msg)?;
    let victim = place.join("victim");
    let stage: PathBuf = store.root().join("stage/target");
    let mut members = Vec::new();
    for number in 0..1500 {
        members.push(file(format!("d/f{number}"), "content"));
        members.push(file(format!("d/inner{}/f", number % 40), "content"));
    }
    members.push(file("d/hello", "not the victim's"));
    let archive = tar(&members);
    Swapper::new().race(
        |swapper| {
            if let Ok(directory) = open(&stage)
                && nix::unistd::symlinkat(&victim, &directory, "l").is_ok()
            {
                // The directory appears with the first entry.
                while stage.exists() && !stage.join("d").exists() && !swapper.stopped() {}
                swapper.swap(&directory, "d", "l");
            }
        },
        |_| {
            let output = run(&mut store.command(["apply-diff", "target", "--no-sync"]), &archive)?;
            harmless(&output)?;
            oracle.still(&store.content("none")).map_err(Error::msg)?;
            if output.code != 0 {
                let left = layerbox_tests::tree::names(&store.content("target"))?;
                ensure!(left.is_empty(), "the layer holds {left:?} after: {output}");
            }
            store.ok(["remove", "target"])?;
            store.create("target", Some("base"))?;
            Ok(())
        },
    )
}
