//! One row, tried on something that applies archives.

use std::path::{Path, PathBuf};

use crate::archive::{file, tar};
use crate::look::{describe, look};
use crate::{Bounds, Dialect, Oracle, Outcome, Row};

/// What came of an archive, as the subject tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    /// It was applied.
    Done,
    /// It was refused; the words of the error.
    Refused(String),
    /// A limit was reached; the words of the error.
    Limit(String),
}

/// What applies archives: a store, and the way in which it is driven. A message for what must not happen at
/// all.
///
/// # Errors
/// All methods: the call failed, in the words of the subject.
pub trait Subject {
    /// How the store writes deletions down.
    fn dialect(&self) -> Dialect;
    /// The directory of the store, which nobody else uses and which exists once a layer was made.
    fn root(&self) -> &Path;
    /// Makes a layer.
    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), String>;
    /// Fills a layer.
    fn apply(&self, id: &str, archive: &[u8], bounds: Bounds) -> Result<Applied, String>;
    /// The archive of a layer.
    fn diff(&self, id: &str) -> Result<Vec<u8>, String>;
    /// How many changes a layer holds.
    fn changes(&self, id: &str) -> Result<usize, String>;
    /// Removes a layer.
    fn remove(&self, id: &str) -> Result<(), String>;

    /// The content of a layer, as it lies on disk.
    fn content(&self, id: &str) -> PathBuf {
        self.root().join("diff").join(id)
    }
}

/// Tries a row in an empty store. With `strict`, an [open](Row::open) row is held to its outcome as the
/// others are.
///
/// # Errors
/// What came instead of the outcome of the row, or what changed that should not have.
pub fn attempt(row: &Row, subject: &dyn Subject, strict: bool) -> Result<(), String> {
    fill(subject, "parent", None, &tar(&[file("in-parent", "p"), file("d/lower", "l")]))?;
    fill(subject, "neighbour", None, &tar(&[file("n", "n")]))?;
    subject.create("target", Some("parent"))?;
    let oracle = Oracle::new(subject.root(), &[subject.content("parent"), subject.content("neighbour")])?;
    let content = subject.content("target");

    let applied = subject.apply("target", &row.archive(), row.bounds);
    oracle.still(&content)?;
    if row.open && !strict {
        if applied != Ok(Applied::Done) {
            is_empty_and_reusable(subject, &oracle)?;
        }
        return subject.remove("neighbour");
    }
    let applied = applied?;
    let says = |found: &str, text: &str| match found.contains(text) {
        true => Ok(()),
        false => Err(format!("the error does not say `{text}`: {found}")),
    };
    match (&row.outcome, &applied) {
        (Outcome::Exact(_) | Outcome::Names(_), Applied::Done) => exact(row, subject)?,
        (Outcome::Refused(text), Applied::Refused(found)) | (Outcome::Limit(text), Applied::Limit(found)) => {
            says(found, text)?;
            is_empty_and_reusable(subject, &oracle)?;
        }
        (outcome, applied) => return Err(format!("must be {}, and is {applied:?}", outcome.word())),
    }
    oracle.still(&content)?;
    // The next call is answered.
    subject.remove("neighbour")
}

fn fill(subject: &dyn Subject, id: &str, parent: Option<&str>, archive: &[u8]) -> Result<(), String> {
    subject.create(id, parent)?;
    match subject.apply(id, archive, Bounds::default())? {
        Applied::Done => Ok(()),
        other => Err(format!("the archive of layer {id}: {other:?}")),
    }
}

/// Holds the layer to what the row says; and what can be applied can be archived, applied again, listed and
/// removed.
fn exact(row: &Row, subject: &dyn Subject) -> Result<(), String> {
    let read = |id: &str| look(&subject.content(id)).map_err(|error| format!("layer {id}: {error}"));
    let layer = read("target")?;
    let lines = describe(&layer, subject.dialect(), row.any_time);
    match &row.outcome {
        Outcome::Exact(want) if *want != lines => {
            return Err(format!("the layer holds {lines:#?}\nand not {want:#?}"));
        }
        Outcome::Names(want) if lines.len() != *want => {
            return Err(format!("the layer holds {} names and not {want}", lines.len()));
        }
        _ => {}
    }
    let archive = subject.diff("target")?;
    subject.changes("target")?;
    fill(subject, "copy", Some("parent"), &archive)?;
    let copied = describe(&read("copy")?, subject.dialect(), row.any_time);
    if copied != lines {
        return Err(format!("applied again, the layer holds {copied:#?}\nand not {lines:#?}"));
    }
    if subject.diff("copy")? != archive {
        return Err("the archive of the copy is another".to_owned());
    }
    subject.remove("copy")?;
    subject.remove("target")
}

/// Holds the layer to be as it was made, and to take the next archive.
fn is_empty_and_reusable(subject: &dyn Subject, oracle: &Oracle) -> Result<(), String> {
    let content = subject.content("target");
    let left = look(&content).map_err(|error| format!("the layer: {error}"))?;
    if left.len() > 1 {
        return Err(format!("the layer is not empty: {:?}", describe(&left, subject.dialect(), false)));
    }
    let stage = subject.root().join("stage/target");
    if stage.exists() {
        return Err("something of the layer is left in stage/".to_owned());
    }
    match subject.apply("target", &tar(&[file("reused", "yes")]), Bounds::default())? {
        Applied::Done => {}
        other => return Err(format!("the second archive: {other:?}")),
    }
    oracle.still(&content)?;
    let lines = look(&content).map(|layer| describe(&layer, subject.dialect(), false));
    match lines.as_deref() {
        Ok([line]) if line == "reused file \"yes\"" => Ok(()),
        other => Err(format!("after the second archive: {other:?}")),
    }
}
