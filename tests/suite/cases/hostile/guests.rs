//! Components from strangers: what `tests/guests/hostile` tries, and what must come of it.
//!
//! Whatever a component does, its call fails with an error that says why, or gives a wrong answer about its
//! own layer; no other layer changes, nothing outside the store does, `layerbox check` finds nothing wrong,
//! and the next call with an honest component works.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{file, symlink as link, tar};
use layerbox_tests::tree::{Except, Tree, picture, same};
use serde_json::Value;

use crate::command::{Output, component, run};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, mounts_below};
use crate::store::{Dialect, Store};

/// How long a component that loops may run, in seconds: the shortest there is.
const LOOPING: &str = "1";

/// How long others may run, so that no load of the machine makes this the bound that they reach.
const OTHERS: &str = "60";

/// The longest that an attack on time may take: twelve times the component's, and the rest for the load of
/// the machine.
const LONGEST: Duration = Duration::from_secs(60);

/// The most that a call may say of a component's failure, in bytes.
const LONGEST_ERROR: usize = 64 << 10;

/// An attack, the code of the error that must come of it, and words of its message. The attack is the id of
/// the layer; calls without one find it in the store.
type Row = (&'static str, &'static str, &'static str);

const CREATE: &[Row] = &[
    ("writes-wrong-ancestors", "guest-failed", "ancestors"),
    ("writes-no-record", "guest-failed", "ancestors"),
    ("makes-no-directories", "guest-failed", "directories"),
    ("traps-half-way", "guest-failed", "in the middle of it"),
    ("writes-another-record", "denied", ""),
    ("appends-to-another-record", "denied", ""),
    ("cuts-another-record", "denied", ""),
    ("dates-another-record", "denied", ""),
    ("removes-another-record", "denied", ""),
    ("renames-another-record", "denied", ""),
    ("replaces-another-record", "denied", ""),
    ("links-another-record", "denied", ""),
    ("makes-another-record", "denied", ""),
    ("makes-a-directory", "denied", ""),
    ("makes-a-link", "denied", ""),
    ("makes-a-link-out", "denied", ""),
    ("makes-another", "denied", "making layer new"),
    ("discards-another", "denied", "discarding layer stranger"),
    ("fills-another", "denied", "filling layer stranger"),
    ("unmounts-another", "denied", "mounts"),
    ("opens-outside", "denied", ""),
    ("follows-links", "denied", ""),
    ("looks-around", "denied", "variables [], arguments []"),
    ("names-no-layer", "invalid-id", "x-removing"),
    ("fills-the-disk", "limit", "bytes written to layers/"),
    ("loops-for-ever", "limit", "time of the component (1 s)"),
    ("loops-in-cheap-calls", "limit", "time of the"),
    ("recurses-for-ever", "guest-failed", ""),
    ("grows-for-ever", "limit", "memory"),
    ("waits-for-an-hour", "guest-failed", "wait for a clock"),
    ("exits-as-if-all-were-well", "guest-failed", "exit"),
    ("hoards-listings", "denied", "Quota"),
    ("hoards-files", "limit", "open handles"),
    ("floods-the-log", "guest-failed", "it said"),
    ("leaves-reads-to-other-threads", "denied", "all was done at once"),
];

const REMOVE: &[Row] = &[
    ("removes-nothing", "guest-failed", "did not remove"),
    ("removes-the-record-alone", "guest-failed", "did not remove"),
    ("mounts-while-it-removes", "denied", "mounting"),
    ("leaves-half-a-record", "conflict", "does not like it"),
    ("removes-another-layer", "denied", "discarding layer stranger"),
];

const GET: &[Row] = &[
    ("takes-a-foreign-branch", "denied", "stranger"),
    ("takes-its-parent-to-write", "denied", "base"),
    ("mounts-another", "denied", "stranger"),
    ("mounts-over-its-parent", "denied", "base"),
    ("mounts-a-branch-twice", "invalid-argument", ""),
    ("mounts-itself-below", "invalid-argument", ""),
    ("mounts-nothing", "invalid-argument", ""),
    ("smuggles-options-in-a-label", "denied", "another label"),
    ("gives-it-a-label", "denied", "another label"),
    ("counts-another", "denied", "stranger"),
    ("says-mounted-and-is-not", "guest-failed", "did not mount"),
    ("traps-when-it-has-mounted", "guest-failed", "in the middle of it"),
];

const CHANGES: &[Row] = &[
    ("guesses-a-handle", "guest-failed", "handle"),
    ("uses-a-dropped-handle", "guest-failed", "handle"),
    ("drops-a-handle-twice", "guest-failed", "handle"),
    ("uses-a-handle-of-another-kind", "guest-failed", "handle"),
    ("tells-of-longer-names-than-it-gives", "guest-failed", "names"),
    ("gives-more-names-than-it-tells-of", "guest-failed", "names"),
    ("reads-another-layer", "denied", "stranger"),
    ("fills-what-it-may-read", "denied", "filling"),
    ("opens-streams-that-it-was-not-lent", "denied", "archive"),
    ("mounts-and-counts-while-it-reads", "denied", "mounts"),
    ("writes-layers-while-it-reads", "denied", ""),
    ("walks-out-of-the-layer", "refused", ""),
];

const DIFF_SIZE: &[Row] = &[
    ("loops-in-dear-calls", "limit", "time of the host (12 s)"),
    ("loops-in-calls-with-large-arguments", "limit", "time of the host (12 s)"),
    ("hoards-handles", "limit", "open handles"),
    ("hoards-walks", "limit", "walks at once (64)"),
    ("asks-too-much-at-once", "limit", "handed to the host"),
    ("asks-for-too-many-names", "invalid-argument", "4096"),
];

const DIFF: &[Row] = &[("loops-in-empty-pieces", "limit", "time of the host (12 s)")];

const APPLY: &[Row] = &[
    ("traps-half-filled", "guest-failed", "in the middle of it"),
    ("does-not-finish", "guest-failed", "did not finish"),
    ("fails-half-filled", "conflict", "does not like it"),
    ("fills-a-neighbour", "denied", "stranger"),
    ("puts-outside", "refused", ""),
    ("links-to-what-is-outside", "refused", ""),
    ("fills-more-than-it-said", "invalid-argument", ""),
    ("fills-what-is-not-open", "invalid-argument", ""),
    ("takes-bytes-that-are-gone", "invalid-argument", "window"),
    ("puts-after-the-end", "invalid-argument", ""),
    ("brings-a-deletion-in-as-a-device", "refused", ""),
    ("puts-more-entries-than-it-may", "limit", "entries"),
    ("puts-a-directory-for-ever", "limit", "entries (1000)"),
    ("puts-too-many-attributes", "limit", "extended attributes of one entry (64)"),
    ("marks-too-many-names", "invalid-argument", "4096"),
    ("looks-at-too-many-names", "invalid-argument", "4096"),
    ("marks-on-behind-the-bound", "limit", "directories' extended attributes"),
    ("expands-on-behind-the-bound", "limit", "expansion"),
    ("gives-the-same-bytes-to-many", "limit", "expansion"),
    ("counts-what-never-came", "refused", "cut short"),
    ("puts-the-root-for-ever", "limit", "entries (1000)"),
];

const EXISTS: &[Row] = &[
    ("answers-a-long-error", "conflict", "long long"),
    ("answers-an-error-with-escapes", "conflict", "red"),
];

const LIST: &[Row] = &[
    ("lists-too-much", "limit", "handed to the host"),
    ("lists-long-ids", "limit", "handed to the host"),
    ("lists-what-is-no-id", "invalid-id", "victim"),
];

const CLEANUP: &[Row] = &[("counts-what-is-no-layer", "denied", "counting users of layer nobody")];

const METADATA: &[Row] = &[("has-a-path-for-a-parent", "invalid-id", "victim")];

pub(super) fn cases() -> Vec<Case> {
    let tables: [(&'static str, &[Row]); 11] = [
        ("create", CREATE),
        ("remove", REMOVE),
        ("get", GET),
        ("changes", CHANGES),
        ("diff-size", DIFF_SIZE),
        ("diff", DIFF),
        ("apply-diff", APPLY),
        ("exists", EXISTS),
        ("list", LIST),
        ("cleanup", CLEANUP),
        ("metadata", METADATA),
    ];
    let mut cases = Vec::new();
    for (call, rows) in tables {
        for &(attack, code, text) in rows {
            let one = case(format!("hostile component, {call}: {attack}: {code}"), move |place| {
                try_attack(place, call, attack, code, text)
            });
            cases.push(if call == "get" { one.needs(Need::Filesystem("overlay")) } else { one });
        }
    }
    cases.push(case("hostile component, remove: a trap when the layer is gone: it is gone", removed));
    let users = case("hostile component, remove: a layer that is got stays, without --force", users);
    cases.push(users.needs(Need::Filesystem("overlay")));
    cases.push(case("hostile component, status: no escape reaches the terminal", escapes));
    cases
}

/// A store with a layer for the attack and layers that are none of its business.
fn store(place: &Place) -> Result<Store> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("in-base", "b"), file("d/lower", "l")])?;
    store.layer("stranger", None, &[file("secret", "s")])?;
    fs::create_dir(place.join("victim"))?;
    fs::write(place.join("victim/hello"), "hello")?;
    Ok(store)
}

/// All that a call must leave as it is: layers, records, and the victim beside the store. Not what the host
/// and overlayfs note of the layer that the call is about, and not what is out of sight and goes with the
/// next removal.
fn all(place: &Place, attack: &str) -> Result<Tree> {
    let noted = [
        format!("s/meta/{attack}"),
        format!("s/layers/{attack}"),
        format!("s/work/{attack}/work"),
        "s/trash/".to_owned(),
    ];
    let mut all = picture(place.path())?;
    all.retain(|path, _| !noted.iter().any(|noted| path.starts_with(noted.as_bytes())));
    if let Some(content) = all.get_mut(format!("s/diff/{attack}").as_bytes()) {
        content.xattrs.remove(&b"trusted.overlay.uuid"[..]);
    }
    Ok(all)
}

fn attacked(place: &Place, guest: &Path, store: &Store, call: &str, attack: &str) -> Result<Output> {
    let mut command = Command::new("sh");
    // So many files as a call may have handles; some machines allow fewer, unless asked.
    command.args(["-c", "ulimit -n 8192 && exec \"$@\"", "sh"]);
    let time = if attack.starts_with("loops-") { LOOPING } else { OTHERS };
    let honest = store.command(["--json", "--guest-time", time, call]);
    command.arg(honest.get_program()).args(honest.get_args()).env_remove("LAYERBOX_ROOT");
    // Compiled once for all rows.
    command.env("LAYERBOX_CACHE", place.path().with_file_name("compiled"));
    match call {
        "list" | "cleanup" => {}
        "create" => {
            command.args([attack, "--parent", "base"]);
        }
        _ => {
            command.arg(attack);
        }
    }
    if attack == "brings-a-deletion-in-as-a-device" {
        command.args(["--devices", "refuse"]);
    }
    if attack.starts_with("puts-") && attack.ends_with("-for-ever")
        || attack == "puts-more-entries-than-it-may"
    {
        command.args(["--max-entries", "1000"]);
    }
    command.arg("--guest").arg(guest);
    run(&mut command, &tar(&[file("a", "b"), file("c", "d")]))
}

fn try_attack(place: &Place, call: &str, attack: &str, code: &str, text: &str) -> Result<()> {
    let store = store(place)?;
    if call != "create" {
        store.create(attack, Some("base"))?;
        // What was filled has a size that is known without asking the component.
        if !["apply-diff", "diff-size"].contains(&call) {
            store
                .apply(attack, &tar(&[file("f", "f"), link("out", "../../../victim"), link("up", "..")]))?
                .expect(0)?;
        }
    }
    if attack == "follows-links" {
        symlink("/etc/passwd", store.root().join("layers/absolute"))?;
        symlink("../lock", store.root().join("layers/relative"))?;
        symlink("/etc", store.root().join("layers/directory"))?;
    }
    let guest = component(place, "hostile")?;
    let before = all(place, attack)?;
    let started = Instant::now();
    let output = attacked(place, &guest, &store, call, attack)?;
    ensure!(started.elapsed() < LONGEST, "it took {} s", started.elapsed().as_secs());
    ensure!(output.code != 0, "the attack worked: {output}");
    ensure!(output.stderr.len() < LONGEST_ERROR, "{} bytes of errors", output.stderr.len());
    ensure!(!output.stderr.contains(['\x1b', '\x07', '\r']), "control characters: {:?}", output.stderr);
    let error: Value = serde_json::from_str(output.stderr.trim_end()).with_context(|| format!("{output}"))?;
    ensure!(error["code"] == code, "the code is not {code}: {output}");
    let message = error["error"].as_str().unwrap_or_default();
    ensure!(
        message.contains(text) && !message.contains("it worked"),
        "the message has no {text:?}: {output}"
    );

    let except = Except { root: true, directory_times: true, ..Except::default() };
    same(&before, &all(place, attack)?, except).context("something has changed")?;
    ensure!(mounts_below(place.path()).is_empty(), "something is mounted");
    if attack == "follows-links" {
        for name in ["absolute", "relative", "directory"] {
            fs::remove_file(store.root().join("layers").join(name))?;
        }
    }
    store.ok(["check"])?;
    // The honest component finds nothing in its way.
    match call {
        "create" => {
            store.knows_nothing_of(attack)?;
            store.create(attack, Some("base"))?;
        }
        "apply-diff" => store.is_empty_and_reusable(attack)?,
        "get" => {
            store.get(attack)?;
            store.put(attack)?;
        }
        _ => {
            store.ok(["diff", attack])?;
        }
    }
    store.ok(["remove", attack])?;
    store.ok(["check"]).map(drop)
}

fn removed(place: &Place) -> Result<()> {
    let store = store(place)?;
    store.create("traps-after-discarding", Some("base"))?;
    let guest = component(place, "hostile")?;
    attacked(place, &guest, &store, "remove", "traps-after-discarding")?
        .expect(1)?
        .says("in the middle of it")?;
    store.knows_nothing_of("traps-after-discarding")?;
    store.ok(["check"])?;
    store.create("traps-after-discarding", Some("base"))
}

fn users(place: &Place) -> Result<()> {
    let store = store(place)?;
    let attack = "passes-over-users";
    store.create(attack, Some("base"))?;
    let merged = store.get(attack)?;
    let guest = component(place, "hostile")?;
    attacked(place, &guest, &store, "remove", attack)?.expect(4)?.says("\"busy\"")?;
    ensure!(merged.join("in-base").exists(), "it is not mounted any more");
    store.put(attack)?;
    ensure!(mounts_below(place.path()).is_empty(), "one get was more than one put");
    store.ok(["remove", attack])?;
    store.ok(["check"]).map(drop)
}

fn escapes(place: &Place) -> Result<()> {
    let store = store(place)?;
    for json in [false, true] {
        let mut command = store.command(["status", "--color", "never"]);
        if json {
            command.arg("--json");
        }
        let output = run(command.arg("--guest").arg(component(place, "hostile")?), b"")?.expect(0)?;
        let text = output.text();
        ensure!(text.contains("red"), "the rows are not there: {text}");
        ensure!(!text.contains(['\x1b', '\x07', '\r']), "control characters: {text:?}");
        ensure!(!text.lines().any(|line| line.starts_with("layerbox:")), "a line of its own: {text:?}");
    }
    Ok(())
}
