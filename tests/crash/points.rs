//! Every crash point of every operation.
//!
//! A run is cut off by a kill *before* each call that changes the disk, the mounts or the locks: between two
//! such calls none of them changes, so these are all the states that a kill can leave. An error is put in the
//! place of each of those calls and of each opening of a file. After each the store is opened again and must
//! be as before the operation, or as after it; reported success means after. Nothing may be left behind, and
//! the operation can be repeated.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::calls::{Point, points};
use super::injector::{Fault, inject, record};
use super::operations::{OPERATIONS, Operation};
use super::table::{self, Count};
use super::world::{World, is_typed, leftovers, look};
use crate::command::{Output, shell};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, cover, unmount_below};
use crate::store::{Store, runtime};

/// How many of the points that failed are told in full.
const TOLD: usize = 6;

pub fn cases() -> Vec<Case> {
    let one = |(order, operation): (usize, &Operation)| {
        let operation = *operation;
        case(format!("crash points: {}", operation.name), move |place| every_point(place, order, operation))
            .needs(Need::Tool("strace"))
            .needs(Need::Filesystem("overlay"))
    };
    OPERATIONS.iter().enumerate().map(one).collect()
}

fn every_point(place: &Place, order: usize, operation: Operation) -> Result<()> {
    // What a kill leaves does not depend on the file system; on this one no call waits for a disk.
    let ground = place.make("m")?;
    cover(&ground)?;
    let scene = Scene::new(&ground, operation)?;
    let every = std::env::var("CRASH_EVERY").ok().and_then(|text| text.parse().ok()).unwrap_or(1usize);
    let mut failures = Vec::new();
    for (number, fault) in [Fault::Kill].into_iter().chain(Fault::ERRORS).enumerate() {
        let killed = fault == Fault::Kill;
        let points = if killed { &scene.crash_points } else { &scene.error_points };
        let mut count = Count::default();
        for (at, point) in points.iter().enumerate() {
            // The errors take turns, so that each point meets one of them even when few are taken.
            if !killed && (at + number) % every != 0 {
                continue;
            }
            let verdict = scene.cut_off(point, fault)?;
            count.points += usize::from(verdict.reached);
            count.lost += usize::from(verdict.lost.is_some());
            count.leaked += usize::from(verdict.leaked.is_some());
            if let Some(what) = verdict.lost.as_ref().or(verdict.leaked.as_ref()) {
                failures.push(format!("{fault} at {} {}: {what}", point.name, point.number));
            }
        }
        table::add(order, operation.name, fault, count);
        // Else the injector does nothing, and so do these cases.
        ensure!(
            !killed || count.points * 10 >= points.len() * 9,
            "killed at {} of {} points",
            count.points,
            points.len()
        );
    }
    if failures.is_empty() {
        return Ok(());
    }
    let told: Vec<String> = failures.iter().take(TOLD).cloned().collect();
    bail!("{} points of failure, such as\n{}", failures.len(), told.join("\n"))
}

/// What came of one point.
#[derive(Debug, Default)]
struct Verdict {
    /// Whether the process was killed: threads may have shared the work in another way, and it ended without
    /// coming to the point.
    reached: bool,
    lost: Option<String>,
    leaked: Option<String>,
}

/// An operation, what it begins with, and what it should lead to.
struct Scene<'a> {
    ground: &'a Path,
    operation: Operation,
    before: World,
    after: World,
    crash_points: Vec<Point>,
    error_points: Vec<Point>,
}

impl<'a> Scene<'a> {
    fn new(ground: &'a Path, operation: Operation) -> Result<Scene<'a>> {
        let mut scene = Scene {
            ground,
            operation,
            before: World::new(),
            after: World::new(),
            crash_points: Vec::new(),
            error_points: Vec::new(),
        };
        (operation.store)(&Store::new(ground.join("template"), operation.dialect))
            .context("the store to begin with")?;

        let store = scene.copy()?;
        scene.before = look(&store)?;
        scene.drop(&store);

        let store = scene.copy()?;
        let (output, calls) = record(&scene.command(&store), &(operation.input)(), &scene.log())?;
        output.expect(0)?;
        scene.after = look(&store)?;
        ensure!(
            operation.mends || scene.before != scene.after || operation.call == ["list"],
            "it changes nothing"
        );
        let left = leftovers(&store, &scene.after)?;
        ensure!(operation.mends || left.is_empty(), "not cut off, it leaves {left:?}");
        scene.drop(&store);

        let root = ground.to_string_lossy().into_owned();
        let places = [root.as_str(), "/run/layerbox"];
        scene.crash_points = points(&calls, &places, true).into_iter().collect();
        scene.error_points = points(&calls, &places, false).into_iter().collect();
        ensure!(!scene.crash_points.is_empty(), "no point at which it could be cut off");
        Ok(scene)
    }

    fn log(&self) -> std::path::PathBuf {
        self.ground.join("calls")
    }

    fn command(&self, store: &Store) -> Command {
        store.command(self.operation.call.iter().copied())
    }

    /// A copy of the store with an identity of its own, in the state in which the operation begins.
    fn copy(&self) -> Result<Store> {
        let (template, root) = (self.ground.join("template"), self.ground.join("store"));
        if template.exists() {
            shell(r#"cp -a --reflink=auto "$1" "$2""#, [template.as_path(), root.as_path()])?;
        }
        let format = root.join("layerbox.json");
        if format.exists() {
            let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&format)?)?;
            json["id"] = fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim().into();
            fs::write(&format, json.to_string())?;
        }
        let mut store = Store::new(root, self.operation.dialect);
        if self.operation.turns_back.is_some() {
            store = store.of_any_backend();
        }
        for arguments in self.operation.before {
            store.ok(arguments.iter().copied())?;
        }
        Ok(store)
    }

    fn drop(&self, store: &Store) {
        unmount_below(store.root());
        // What stays behind would be met by the next copy, and told there.
        if let Some(runtime) = runtime(store.root()) {
            let _ = fs::remove_dir_all(runtime);
        }
        let _ = fs::remove_dir_all(store.root());
    }

    fn cut_off(&self, point: &Point, fault: Fault) -> Result<Verdict> {
        let store = self.copy()?;
        let output = inject(&self.command(&store), &(self.operation.input)(), &self.log(), point, fault)?;
        let verdict = self.judge(&store, &output, point, fault).unwrap_or_else(|error| Verdict {
            lost: Some(format!("{error:#} (it ended with {}: {})", output.code, output.stderr.trim_end())),
            ..Verdict::default()
        });
        self.drop(&store);
        Ok(Verdict { reached: fault != Fault::Kill || output.code == 137, ..verdict })
    }

    /// Holds a store in which the operation was cut off to the promise.
    fn judge(&self, store: &Store, output: &Output, point: &Point, fault: Fault) -> Result<Verdict> {
        let Operation { mends, done_twice, turns_back, .. } = self.operation;
        match fault {
            // A thread may have been given less work this time, and the point was not reached.
            Fault::Kill => ensure!(matches!(output.code, 137 | 0), "the end: {output}"),
            // A repair that failed is among the findings.
            Fault::Error(_) if mends && output.code == 1 && !output.stdout.is_empty() => {}
            Fault::Error(_) => ensure!(output.code == 0 || is_typed(output), "no typed error: {output}"),
        }
        if let Some(turn_back) = turns_back
            && store.root().join("convert.json").exists()
        {
            ensure!(output.code != 0, "success was reported, and it is half done");
            return self.judge_half(store, point.number.is_multiple_of(2).then_some(turn_back));
        }
        let mut verdict = Verdict::default();
        if !mends {
            let world = look(store)?;
            let done = world == self.after;
            let between = self.operation.unmounts && output.code != 0 && world == without_users(&self.before);
            ensure!(done || between || world == self.before, "neither as before nor as after: {world:?}");
            ensure!(done || output.code != 0, "success was reported, and nothing was done");
            let left = leftovers(store, &world)?;
            if !left.is_empty() {
                verdict.leaked = Some(format!("left behind: {left:?}"));
            }
            let found = store.run(["check"])?;
            ensure!(
                found.code == 0 || world.is_empty() && found.code == 3,
                "check: {} {found}",
                found.text()
            );
            let again = self.again(store)?;
            if done {
                ensure!(again.code == 0 || done_twice.contains(&again.code), "done twice: {again}");
                return Ok(verdict);
            }
            again.expect(0).context("repeated")?;
        } else {
            self.again(store)?.expect(0).context("repeated")?;
        }
        let world = look(store)?;
        ensure!(world == self.after, "repeated, it leads to something else: {world:?}");
        let found = store.run(["check"])?;
        ensure!(found.code == 0, "check after the repetition: {} {found}", found.text());
        Ok(verdict)
    }

    /// Holds a store that is half rewritten to be opened by nobody, and then to become what it should; with
    /// `turn_back`, what it was before that.
    fn judge_half(&self, store: &Store, turn_back: Option<&[&str]>) -> Result<Verdict> {
        for arguments in [&["list"][..], &["get", "top"], &["create", "late"]] {
            let refused = store.run(arguments.iter().copied())?;
            ensure!(
                refused.code == 4 && refused.stderr.contains("convert"),
                "half rewritten, {arguments:?}: {refused}"
            );
        }
        store.run(["check"])?.expect(1)?;
        let mut verdict = Verdict::default();
        let mut settled = |which: &str, wanted: &World| -> Result<()> {
            let world = look(store)?;
            ensure!(world == *wanted, "{which}, it leads to something else: {world:?}");
            let left = leftovers(store, &world)?;
            if !left.is_empty() {
                verdict.leaked = Some(format!("{which}, left behind: {left:?}"));
            }
            store.run(["check", "--deep"])?.expect(0).with_context(|| which.to_owned()).map(drop)
        };
        if let Some(arguments) = turn_back {
            store.run(arguments.iter().copied())?.expect(0).context("turned back")?;
            settled("turned back", &self.before)?;
        }
        self.again(store)?.expect(0).context("repeated")?;
        settled("repeated", &self.after)?;
        Ok(verdict)
    }

    fn again(&self, store: &Store) -> Result<Output> {
        crate::command::run(&mut self.command(store), &(self.operation.input)())
    }
}

/// A store in which all layers were unmounted.
fn without_users(world: &World) -> World {
    let mut world = world.clone();
    world.values_mut().for_each(|layer| layer.mounts = 0);
    world
}
