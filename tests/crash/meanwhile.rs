//! A check beside other calls: what they do while it looks is no damage, and a repair leaves it alone.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{file, tar};

use super::world::{leftovers, look};
use crate::command::{Output, run, under};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Filling, Store, runtime};

/// How long a check is kept from reading a directory, and how long after its beginning the other call is
/// made.
const HELD: Duration = Duration::from_secs(3);
const LATER: Duration = Duration::from_millis(1200);

/// How long checks and other calls go on side by side.
const BESIDE: Duration = Duration::from_secs(4);

/// A call that is made while a check looks.
#[derive(Clone, Copy)]
struct Row {
    name: &'static str,
    /// The directory that the check is kept from reading meanwhile, and which call of getdents(2) on it
    /// waits. Of the counts the opening of the store has made two.
    held: &'static str,
    call: usize,
    /// Whether it waits with what it has read, and not before it reads.
    after: bool,
    /// What was done before.
    before: &'static [&'static [&'static str]],
    /// A layer that an archive is being applied to before the check begins, and no more when the other calls
    /// are made.
    filled: Option<&'static str>,
    meanwhile: &'static [&'static [&'static str]],
}

const ROWS: &[Row] = &[
    Row { name: "a layer is made", held: "diff", call: 1, meanwhile: &[&["create", "late"]], ..ROW },
    Row {
        name: "a layer is made on another",
        held: "children",
        call: 1,
        meanwhile: &[&["create", "late", "--parent", "other"]],
        ..ROW
    },
    Row { name: "layers are made, and records are read", held: "meta", call: 2, ..MADE_OF_TWO },
    MADE_OF_TWO,
    Row { name: "a layer is removed", meanwhile: &[&["remove", "top"]], ..ROW },
    Row { name: "a layer is removed, and its parent", meanwhile: &[&["remove", "top", "middle"]], ..ROW },
    Row { name: "a layer is got", meanwhile: &[&["get", "top"]], ..ROW },
    Row { name: "a layer is put", before: &[&["get", "top"]], meanwhile: &[&["put", "top"]], ..ROW },
    Row {
        name: "a layer is put, and its count was seen,",
        call: 1,
        after: true,
        before: &[&["get", "top"]],
        meanwhile: &[&["put", "top"]],
        ..ROW
    },
    Row {
        name: "an archive is applied, and its stage was seen,",
        held: "stage",
        call: 1,
        after: true,
        before: &[&["create", "slow"]],
        filled: Some("slow"),
        ..ROW
    },
];

/// What a row says unless it says otherwise.
const ROW: Row =
    Row { name: "", held: "references", call: 3, after: false, before: &[], filled: None, meanwhile: &[] };

const MADE_OF_TWO: Row = Row {
    name: "layers are made on each other",
    held: "layers",
    call: 1,
    meanwhile: &[&["create", "late"], &["create", "later", "--parent", "late"]],
    ..ROW
};

pub fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    let mut cases: Vec<Case> = ROWS
        .iter()
        .map(|row| {
            let name = format!("check: {} meanwhile, and nothing is found or mended", row.name);
            case(name, move |place| one(place, row)).early().needs(overlay).needs(Need::Tool("strace"))
        })
        .collect();
    cases.push(case("check: beside calls of all kinds, nothing is found or mended", beside).needs(overlay));
    cases
}

fn one(place: &Place, row: &Row) -> Result<()> {
    for option in [None, Some("--repair")] {
        let store = Store::new(place.join(option.unwrap_or("plain")), Dialect::Overlay);
        layers(&store)?;
        for call in row.before {
            store.ok(call.iter().copied())?;
        }
        let held = match row.held {
            "references" => runtime(store.root()).context("no store")?.join(row.held),
            name => store.root().join(name),
        };
        let side = if row.after { "exit" } else { "enter" };
        let what = format!("inject=getdents64:delay_{side}={}:when={}", HELD.as_micros(), row.call);
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(&held).args(["-e", &what, "--"]);
        let check = store.command(["--json", "check"].into_iter().chain(option));
        let mut traced = under(traced, &check);
        let filling = row.filled.map(|id| Filling::begin(&store, id)).transpose()?;
        let begin = Instant::now();
        let found = std::thread::scope(|scope| -> Result<Output> {
            let checked = scope.spawn(move || run(&mut traced, b""));
            sleep(LATER);
            filling.map_or(Ok(()), Filling::end)?;
            for call in row.meanwhile {
                store.ok(call.iter().copied())?;
            }
            ensure!(begin.elapsed() < HELD, "the calls came too late: {:?}", begin.elapsed());
            checked.join().map_err(|_| anyhow::anyhow!("it panicked"))?
        })?;
        ensure!(begin.elapsed() > HELD, "nothing was held: the case does not see its calls");
        is_clean(&found)?;
        is_whole(&store)?;
        store.ok(["cleanup"])?;
    }
    Ok(())
}

/// Calls of all kinds, each on layers of its own, beside checks.
fn beside(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    let archive = tar(&[file("file", "x")]);
    let until = Instant::now() + BESIDE;
    let failed = AtomicBool::new(false);
    let go_on = || Instant::now() < until && !failed.load(Ordering::Relaxed);
    let worker = |number: usize| -> Result<()> {
        while go_on() {
            let (below, id) = (format!("below{number}"), format!("on{number}"));
            store.create(&below, Some("base"))?;
            store.apply(&below, &archive)?.expect(0)?;
            store.create(&id, Some(&below))?;
            store.get(&id)?;
            store.get(&id)?;
            store.put(&id)?;
            store.put(&id)?;
            store.ok(["remove", &id, &below])?;
        }
        Ok(())
    };
    let checker = |option: Option<&'static str>| -> Result<()> {
        while go_on() {
            let found = store.run(["--json", "check"].into_iter().chain(option))?.expect(0)?;
            let findings: Vec<serde_json::Value> = serde_json::from_str(&found.text())?;
            // Whoever opens the store deletes what others have taken out of sight.
            let wrong: Vec<_> = findings
                .iter()
                .filter(|found| found["place"] != "trash" && found["passing"] != true)
                .collect();
            ensure!(wrong.is_empty(), "found: {wrong:?}");
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let worker = &worker;
        let checker = &checker;
        let mut all: Vec<_> = (0..2).map(|number| scope.spawn(move || worker(number))).collect();
        all.extend([None, Some("--repair")].map(|option| scope.spawn(move || checker(option))));
        let mut first = Ok(());
        for one in all {
            let ended = one.join().map_err(|_| anyhow::anyhow!("it panicked"))?;
            failed.fetch_or(ended.is_err(), Ordering::Relaxed);
            first = first.and(ended);
        }
        first
    })?;
    is_whole(&store)
}

fn is_clean(found: &Output) -> Result<()> {
    ensure!(found.code == 0 && found.text().trim() == "[]", "{found}: {}", found.text());
    Ok(())
}

/// Nothing was moved away, and nothing is left of what was removed.
fn is_whole(store: &Store) -> Result<()> {
    let left = leftovers(store, &look(store)?)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    is_clean(&store.run(["--json", "check"])?)
}

fn layers(store: &Store) -> Result<()> {
    store.layer("base", None, &[file("of-base", "base")])?;
    store.layer("middle", Some("base"), &[file("of-middle", "middle")])?;
    store.layer("top", Some("middle"), &[file("of-top", "top")])?;
    store.layer("other", Some("base"), &[file("of-other", "other")])
}
