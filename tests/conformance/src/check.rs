//! Comparing what came with what must come, and saying how they differ.

use std::fmt::Debug;

use crate::escape;
use crate::subject::{Change, ChangeKind, Failure};
use crate::tar::{Entry, Kind, OPAQUE, WHITEOUT, split};

/// Fails where two values differ.
///
/// # Errors
/// Both values.
pub fn equal<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: {found:?}, and must be {expected:?}")) }
}

/// Fails where something does not hold.
///
/// # Errors
/// What it was.
pub fn holds(what: &str, condition: bool) -> Result<(), String> {
    if condition { Ok(()) } else { Err(format!("it does not hold that {what}")) }
}

/// Fails where a call does not fail, or for another reason. Answers the failure.
///
/// # Errors
/// What came instead.
pub fn fails<T: Debug>(what: &str, result: Result<T, Failure>, code: &str) -> Result<Failure, String> {
    match result {
        Err(failure) if failure.code == code => Ok(failure),
        Err(failure) => {
            Err(format!("{what}: failed as {} ({}), and must fail as {code}", failure.code, failure.message))
        }
        Ok(value) => Err(format!("{what}: succeeded with {value:?}, and must fail as {code}")),
    }
}

/// Changes as lines for people: `A /path`.
pub fn change_lines(changes: &[Change]) -> Vec<String> {
    let letter = |kind| match kind {
        ChangeKind::Modified => 'C',
        ChangeKind::Added => 'A',
        ChangeKind::Deleted => 'D',
    };
    changes.iter().map(|change| format!("{} /{}", letter(change.kind), escape::name(&change.name))).collect()
}

/// Fails where two lists of changes differ, in their order, too.
///
/// # Errors
/// The first line that is wrong, missing or too many.
pub fn same_changes(found: &[Change], expected: &[Change]) -> Result<(), String> {
    same_lines(&change_lines(found), &change_lines(expected))
}

/// Fails where two lists of lines differ.
///
/// # Errors
/// The first line that is wrong, missing or too many.
pub fn same_lines<S: AsRef<str>>(found: &[String], expected: &[S]) -> Result<(), String> {
    let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
    if found == expected {
        return Ok(());
    }
    let all = |lines: &[&str]| match lines.len() {
        0 => "nothing".to_owned(),
        1..=12 => lines.join(", "),
        more => format!("{more} lines"),
    };
    let found: Vec<&str> = found.iter().map(String::as_str).collect();
    let first = match found.iter().zip(&expected).find(|(found, expected)| found != expected) {
        Some((found, expected)) => format!("`{found}` in the place of `{expected}`"),
        None if found.len() < expected.len() => format!("`{}` is missing", expected[found.len()]),
        None => format!("`{}` is too much", found[expected.len()]),
    };
    Err(format!("{first}; all: {}; must be: {}", all(&found), all(&expected)))
}

/// Fails where two archives say different things. Attributes of whiteouts and hard links say nothing.
///
/// # Errors
/// The first entry that differs.
pub fn same_entries(found: &[Entry], expected: &[Entry]) -> Result<(), String> {
    for (index, expected) in expected.iter().enumerate() {
        let name = escape::name(&expected.name);
        let Some(found) = found.get(index) else {
            return Err(format!("the entry {name} is missing at the end"));
        };
        if found.name != expected.name {
            return Err(format!("the entry {} is there, and {name} must be", escape::name(&found.name)));
        }
        if says(found) != says(expected) {
            return Err(format!(
                "the entry {name} is {}, and must be {}",
                describe(found),
                describe(expected)
            ));
        }
    }
    match found.get(expected.len()) {
        Some(more) => Err(format!("the entry {} is too much", escape::name(&more.name))),
        None => Ok(()),
    }
}

/// An entry without what it does not mean.
fn says(entry: &Entry) -> Entry {
    let last = split(&entry.name).1;
    let bare = |kind| Entry { name: entry.name.clone(), kind, ..Entry::file("", "") };
    match &entry.kind {
        Kind::HardLink(_) => bare(entry.kind.clone()),
        Kind::File if last.starts_with(WHITEOUT) || last == OPAQUE => bare(Kind::File),
        Kind::Symlink(_) => Entry { mode: 0o777, ..entry.clone() },
        _ => entry.clone(),
    }
}

fn describe(entry: &Entry) -> String {
    match (&entry.kind, crate::model::Node::of(entry)) {
        (Kind::HardLink(target), _) => format!("a hard link to {}", escape::name(target)),
        (_, Some(node)) => format!("a {node}"),
        (other, None) => format!("{other:?}"),
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        match failure.entry {
            Some(entry) => {
                format!("failed as {} at {}: {}", failure.code, escape::name(&entry), failure.message)
            }
            None => format!("failed as {}: {}", failure.code, failure.message),
        }
    }
}
