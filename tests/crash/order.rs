//! The order in which things are brought to the disk, read from the calls of a run: what a power cut leaves
//! must be whole, whatever of the rest the disk had already written.
//!
//! A rename makes something visible; by then all that it shows is on the disk, and its own name is before the
//! call is answered. Here it is read off, for any file system; [`power`](super::power) tries it on one.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::{dir, file, tar};

use super::calls::Call;
use super::injector::record;
use super::operations::docker;
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub fn cases() -> Vec<Case> {
    let rows: [(&str, &[&str]); 4] = [
        ("create, which makes the store", &["create", "base"]),
        ("create on a parent", &["create", "new", "--parent", "base"]),
        ("apply-diff", &["apply-diff", "base"]),
        ("remove", &["remove", "new"]),
    ];
    let one = |number: usize| {
        let call = rows[number].1;
        let name = format!("power: what {} shows is on the disk before it is shown", rows[number].0);
        case(name, move |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            for (_, earlier) in &rows[..number] {
                let input = if earlier[0] == "apply-diff" { archive() } else { Vec::new() };
                crate::command::run(&mut store.command(earlier.iter().copied()), &input)?.expect(0)?;
            }
            in_order(place, &store, &store.command(call.iter().copied()))
        })
        .needs(Need::Tool("strace"))
    };
    let mut cases: Vec<Case> = (0..rows.len()).map(one).collect();
    let adoption = |place: &Place| {
        let store = Store::new(place.join("s"), Dialect::Aufs);
        docker(&store)?;
        in_order(place, &store, &store.command(["list"]))
    };
    let name = "power: what adoption shows is on the disk before it is shown";
    cases.push(case(name, adoption).needs(Need::Tool("strace")));
    cases
}

fn archive() -> Vec<u8> {
    tar(&[dir("d/"), file("d/small", "small"), file("d/large", vec![7; 300_000])])
}

/// A call with the paths that it is about, relative to the root of the store.
#[derive(Debug)]
struct Step {
    name: String,
    paths: Vec<PathBuf>,
}

impl Step {
    /// Reads a call, if it is about this store and did not fail.
    fn read(call: &Call, root: &Path) -> Option<Step> {
        let text = call.text.split(" = -1 E").next().filter(|text| text.len() == call.text.len())?;
        let mut paths = Vec::new();
        // `7</root/meta>, ".top.tmp"` is a name in an open directory, `7</root/meta/.top.tmp>` an open file,
        // and the same with `AT_FDCWD`.
        let mut rest = text;
        while let Some((_, after)) = rest.split_once('<') {
            let (opened, after) = after.split_once('>')?;
            let mut path = PathBuf::from(opened);
            if let Some(quoted) = after.strip_prefix(", \"") {
                path.push(quoted.split_once('"')?.0);
            }
            paths.extend(path.strip_prefix(root).ok().map(Path::to_owned));
            rest = after;
        }
        (!paths.is_empty()).then(|| Step { name: call.name.clone(), paths })
    }

    fn is(&self, name: &str, path: impl AsRef<Path>) -> bool {
        self.name.starts_with(name) && self.paths.first().is_some_and(|first| *first == path.as_ref())
    }

    /// Whether it makes or changes what lies at or below a path.
    fn writes(&self, path: &Path) -> bool {
        let writes =
            ["write", "pwrite", "copy_file_range", "mkdir", "symlink", "link", "mknod", "utimens", "fch"];
        writes.iter().any(|name| self.name.starts_with(name))
            && self.paths.iter().any(|at| at.starts_with(path))
    }
}

/// Runs a command, and holds its calls to the order.
fn in_order(place: &Place, store: &Store, command: &Command) -> Result<()> {
    let input =
        if command.get_args().any(|argument| argument == "apply-diff") { archive() } else { Vec::new() };
    let (output, calls) = record(command, &input, &place.join("calls"))?;
    output.expect(0)?;
    let steps: Vec<Step> = calls.iter().filter_map(|call| Step::read(call, store.root())).collect();
    let mut shown = 0;
    for (at, step) in steps.iter().enumerate().filter(|(_, step)| step.name.starts_with("rename")) {
        let [from, to] = &step.paths[..] else { continue };
        let kind = |path: &Path| path.iter().next().unwrap_or_default().to_owned();
        match (kind(from).to_str(), kind(to).to_str()) {
            (Some("stage"), Some("diff")) => staged(&steps, at, from)?,
            (Some("meta"), Some("pending")) => taken_away(&steps, at)?,
            (_, Some("trash")) => continue,
            _ => written(&steps, at, from)?,
        }
        let directory = to.parent().context("no directory")?;
        let after = steps[at..].iter().any(|step| step.is("fsync", directory));
        ensure!(after, "the name {} is not brought to the disk", to.display());
        shown += 1;
    }
    ensure!(shown > 0, "nothing is shown by a rename: {steps:?}");
    Ok(())
}

/// A file is synced after it was written, and the directories of a new layer before its record is shown.
fn written(steps: &[Step], at: usize, from: &Path) -> Result<()> {
    let last = steps[..at].iter().rposition(|step| step.writes(from));
    // An empty file is made, and nothing more.
    let last = last.or_else(|| steps[..at].iter().rposition(|step| step.is("open", from)));
    let last = last.with_context(|| format!("{} was not written", from.display()))?;
    ensure!(steps[last..at].iter().any(|step| step.is("fsync", from)), "{} is not synced", from.display());
    if from.starts_with("meta") {
        for kind in ["diff", "mnt", "work", "layers"] {
            let made = steps[..at].iter().rposition(|step| {
                let makes = step.name.starts_with("mkdir") || step.name.starts_with("rename");
                makes && step.paths.last().is_some_and(|path| path.parent() == Some(Path::new(kind)))
            });
            let Some(made) = made else { continue };
            let synced = steps[made..at].iter().any(|step| step.is("fsync", kind));
            ensure!(synced, "the record is shown before the name in {kind}/ is on the disk");
        }
        marked(&steps[..at], from)?;
    }
    Ok(())
}

/// The mark that a layer lies on its parent is synced before its record is shown, and so is the directory of
/// marks where the layer made it.
fn marked(steps: &[Step], from: &Path) -> Result<()> {
    let name = from.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let id = name.trim_start_matches('.').trim_end_matches(".tmp");
    let synced = |from: usize, directory: &Path| {
        steps[from..].iter().any(|step| step.name == "syncfs" || step.is("fsync", directory))
    };
    for (at, step) in steps.iter().enumerate() {
        let [kind, parent, child] =
            step.paths.last().map(|path| path.iter().collect::<Vec<_>>()).unwrap_or_default()[..]
        else {
            continue;
        };
        if kind != "children" || child != id || !step.name.starts_with("open") {
            continue;
        }
        let marks = Path::new("children").join(parent);
        ensure!(synced(at, &marks), "the record of {id} is shown before its mark is on the disk");
        let made = steps[..at].iter().position(|step| {
            step.name.starts_with("mkdir") && step.paths.last().is_some_and(|path| *path == marks)
        });
        let all = made.is_none_or(|made| synced(made, Path::new("children")));
        ensure!(all, "the record of {id} is shown before the directory of its mark is on the disk");
        return Ok(());
    }
    ensure!(id != "new" && id != "top", "{id} lies on another, and is not marked");
    Ok(())
}

/// The whole file system is synced after the last of the content was written.
fn staged(steps: &[Step], at: usize, from: &Path) -> Result<()> {
    let last = steps[..at].iter().rposition(|step| step.writes(from)).context("nothing was staged")?;
    ensure!(steps[last..at].iter().any(|step| step.name == "syncfs"), "the content is not synced");
    Ok(())
}

/// That a layer is no more is on the disk before anything of it goes.
fn taken_away(steps: &[Step], at: usize) -> Result<()> {
    let synced =
        steps[at..].iter().position(|step| step.is("fsync", "meta")).context("the removal is not synced")?;
    for step in &steps[at + 1..at + synced] {
        if step.name.starts_with("rename") || step.name.starts_with("unlink") {
            bail!("before the removal is on the disk, {step:?}");
        }
    }
    Ok(())
}
