//! The conformance suite, held against components that are wrong: each with one fault, and for each fault the
//! one case that must find it.
//!
//! The components are one build of `tests/guests/wrong`, with another word in its data each time (see there).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::{Output, component, run, shell};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::bare;

/// Faults, as `tests/guests/wrong/src/fault.rs` names them, and the case that is for each. Cases that look at
/// many rules at once may find it as well.
const TABLE: [(&str, &str); 22] = [
    ("applies-deletions-as-devices", "hostile/device-0-0"),
    ("applies-dot-dot", "hostile/only-dot-dot"),
    ("changes-by-seconds", "changes/same-size-in-the-same-second"),
    ("changes-count-directory-times", "changes/time-of-a-directory-is-none"),
    ("changes-forget-the-grandparent", "changes/remembers-the-grandparent"),
    ("changes-ignore-capabilities", "changes/capabilities"),
    ("changes-ignore-the-mode", "changes/mode-only"),
    ("changes-sorted-by-components", "changes/sorted-by-the-bytes-of-the-path"),
    ("diff-cuts-groups", "archive/keeps-owners"),
    ("diff-cuts-times", "archive/keeps-times"),
    ("diff-drops-capabilities", "archive/keeps-capabilities"),
    ("diff-drops-opaque-markers", "archive/keeps-opaque-markers"),
    ("diff-drops-the-opaque-root", "archive/keeps-opaque-root"),
    ("diff-drops-xattrs", "archive/keeps-xattrs"),
    ("diff-forgets-hard-links", "archive/keeps-hard-links"),
    ("ignores-checksums", "hostile/wrong-checksum"),
    ("list-backwards", "lifecycle/list-is-whole-and-sorted"),
    ("put-counts-twice", "lifecycle/get-twice-put-twice"),
    ("put-too-many-is-an-error", "lifecycle/put-of-what-was-never-got-changes-nothing"),
    ("remove-unmounts-parents", "lifecycle/remove-by-force-with-children-leaves-the-mount"),
    ("size-counts-hard-links-twice", "archive/size-counts-a-hard-link-once"),
    ("takes-another-name-for-opaque", "dialect/aufs-ignores-wh-opq"),
];

/// Cases that a wrong component is not held against, because they take longer than all others together. The
/// first four and those of `hostile/`, which is the table of hostile archives but for the rows that are named
/// after a rule, are broad, and so not what finds a fault here; the others are about numbers (of files, of
/// levels), which no fault here has to do with.
const EXCEPT: [&str; 18] = [
    "model/",
    "127-layers",
    "256-",
    "one-layer-got-at-once",
    "keeps-2000-levels",
    "keeps-many-whiteouts",
    "keeps-thousands-of-files",
    "of-many-files",
    "hostile/trees-",
    "hostile/links-",
    "hostile/pax-",
    "hostile/sparse-",
    "hostile/packed-",
    "hostile/attributes-",
    "hostile/resources-",
    "hostile/names-",
    "hostile/reader-",
    "hostile/whiteouts-",
];

/// What stands before the word in the component's data.
const MARKER: &[u8] = b"layerbox-guest-wrong:fault=";

/// The bytes for the word.
const WORD: usize = 37;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("wrong: the component that faults are put into has none of its own", |place| {
            let output = verify(place, &component(place, "wrong")?, &except())?;
            ensure!(failed(&output)?.is_empty(), "{output}");
            Ok(())
        }),
        case("wrong: a fault that is not in the list is no component that passes", |place| {
            let broken =
                failed(&verify(place, &planted(place, "nonsense")?, &["--only", "lifecycle/list-"])?)?;
            ensure!(!broken.is_empty(), "nothing failed");
            Ok(())
        }),
        case("wrong: each fault is found by the one case that is for it", each_fault_is_found)
            .needs(Need::Filesystem("overlay"))
            .alone(),
    ]
}

/// The options that leave out [`EXCEPT`].
fn except() -> Vec<&'static str> {
    EXCEPT.iter().flat_map(|&word| ["--except", word]).collect()
}

fn each_fault_is_found(place: &Place) -> Result<()> {
    component(place, "wrong")?;
    let except = except();
    let rows = Mutex::new(BTreeMap::new());
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(&(fault, _)) = TABLE.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = planted(place, fault)
                        .and_then(|file| failed(&verify(place, &file, &except)?))
                        .with_context(|| fault.to_owned());
                    if let Ok(mut rows) = rows.lock() {
                        rows.insert(fault, found);
                    }
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_default();
    let mut table = String::new();
    let mut wrong = Vec::new();
    for (fault, expected) in TABLE {
        let found = rows.remove(fault).with_context(|| format!("{fault} was not tried"))??;
        let names: Vec<&str> = found.narrow.iter().map(String::as_str).collect();
        writeln!(table, "{fault:31} {expected:54} {} (and {} broad)", names.join(" "), found.broad.len())?;
        if names != [expected] {
            wrong.push(fault);
        }
    }
    println!("{:31} {:54} found by\n{}", "fault", "the case for it", table.trim_end());
    ensure!(wrong.is_empty(), "not found, or not by the one case alone: {}", wrong.join(", "));
    Ok(())
}

/// The component with a fault, in a file of its own.
pub(super) fn planted(place: &Place, fault: &str) -> Result<PathBuf> {
    ensure!(fault.len() <= WORD, "{fault} is longer than {WORD} bytes");
    let mut bytes = std::fs::read(component(place, "wrong")?)?;
    let places: Vec<usize> = bytes
        .windows(MARKER.len())
        .enumerate()
        .filter(|(_, seen)| *seen == MARKER)
        .map(|(at, _)| at)
        .collect();
    let [at] = places[..] else { bail!("the marker is in the component {} times", places.len()) };
    let word = bytes.get_mut(at + MARKER.len()..at + MARKER.len() + WORD).context("the word is cut off")?;
    word.fill(b' ');
    word[..fault.len()].copy_from_slice(fault.as_bytes());
    let file = place.join(format!("{fault}.wasm"));
    std::fs::write(&file, bytes)?;
    Ok(file)
}

/// Holds a component to the contract, in memory: it is the component that counts here, and no disk.
fn verify(place: &Place, file: &Path, options: &[&str]) -> Result<Output> {
    static MOUNTING: Mutex<()> = Mutex::new(());
    let memory = place.make("memory")?;
    {
        let _one_at_a_time = MOUNTING.lock();
        shell(
            "mountpoint -q \"$1\" || mount -t tmpfs -o mode=0700 layerbox-tests \"$1\"",
            [memory.as_path()],
        )?;
    }
    let mut command = bare();
    command.env("TMPDIR", memory).args(["--json", "guest", "verify"]).args(options).arg(file);
    run(&mut command, b"")
}

/// The cases that failed, each once whatever the dialect.
#[derive(Debug)]
struct Failed {
    narrow: BTreeSet<String>,
    broad: BTreeSet<String>,
}

impl Failed {
    fn is_empty(&self) -> bool {
        self.narrow.is_empty() && self.broad.is_empty()
    }
}

fn failed(output: &Output) -> Result<Failed> {
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output}"))?;
    let cases = report["cases"].as_array().context("no cases")?;
    ensure!(!cases.is_empty(), "no case was run: {output}");
    let mut failed = Failed { narrow: BTreeSet::new(), broad: BTreeSet::new() };
    for case in cases.iter().filter(|case| case["result"] == "failed") {
        let name = case["name"].as_str().and_then(|name| name.split('@').next()).context("no name")?;
        let set = if case["broad"] == true { &mut failed.broad } else { &mut failed.narrow };
        set.insert(name.to_owned());
    }
    ensure!(failed.is_empty() == (output.code == 0), "exit status {}: {output}", output.code);
    Ok(failed)
}
