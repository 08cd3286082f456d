//! The cases, by group: a file each.
//!
//! A case looks at one rule and, as far as that can be, breaks with no other: a component with one fault
//! fails the case that is named after it. So the layers of a case hold what it is about and nothing else. A
//! few look at everything together ([`Case::broad`]): they find what nobody thought of, and fail beside the
//! case that names the fault.

mod applied;
mod archive;
mod attributes;
mod changes;
mod compressed;
mod concurrent;
mod dialect;
mod difference;
mod form;
mod hostile;
mod laid;
mod lifecycle;
mod marks;
mod model;
mod mounts;
mod size;
mod stack;
mod union;

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::check;
use crate::runner::Options;
use crate::subject::{Dialect, Diff, Failure, Store, Subject, Totals};
use crate::tar::{Entry, archive, read};

/// For which dialects a case is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// For each on its own.
    Each,
    /// For each that this machine can mount.
    Mounted,
    /// For overlay, where this machine can mount it.
    MountedOverlay,
    /// Once: it is about both, or says itself which.
    Across,
}

/// Why a case did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// The component does something else than it must.
    Failed(String),
    /// It cannot be told here.
    Skipped(String),
}

/// How a case ended.
pub type Outcome = Result<(), Stop>;

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Failed(why)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure.into())
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failed(error.to_string())
    }
}

impl From<rustix::io::Errno> for Stop {
    fn from(errno: rustix::io::Errno) -> Stop {
        Stop::Failed(errno.to_string())
    }
}

/// What a case does.
type Body = Arc<dyn Fn(&Context<'_>) -> Outcome + Send + Sync>;

/// A case.
#[derive(Clone)]
pub struct Case {
    /// `group/name`; it stays the same for good.
    pub name: String,
    /// What it is about, in a sentence.
    pub about: &'static str,
    /// For which dialects it is run.
    pub scope: Scope,
    /// Whether it looks at many rules at once, so that it fails beside the case that is named after a fault.
    pub broad: bool,
    pub(crate) run: Body,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A case that is a function.
fn case(scope: Scope, name: &str, about: &'static str, run: fn(&Context<'_>) -> Outcome) -> Case {
    Case { name: name.to_owned(), about, scope, broad: false, run: Arc::new(run) }
}

/// A case that is a function, and looks at many rules at once.
fn broad(scope: Scope, name: &str, about: &'static str, run: fn(&Context<'_>) -> Outcome) -> Case {
    Case { broad: true, ..case(scope, name, about, run) }
}

/// The directory that most tables have.
fn d() -> Entry {
    Entry::directory("d")
}

/// A file of one byte.
fn file(name: &str) -> Entry {
    Entry::file(name, "x")
}

/// All cases, group by group.
pub fn all() -> Vec<Case> {
    let groups = [
        lifecycle::cases(),
        mounts::cases(),
        concurrent::cases(),
        archive::cases(),
        form::cases(),
        difference::cases(),
        applied::cases(),
        attributes::cases(),
        marks::cases(),
        compressed::cases(),
        size::cases(),
        changes::cases(),
        dialect::cases(),
        laid::cases(),
        union::cases(),
        stack::cases(),
        hostile::cases(),
        model::cases(),
    ];
    groups.into_iter().flatten().collect()
}

/// What a case is given.
pub struct Context<'a> {
    subject: &'a dyn Subject,
    /// The dialect that it is run for.
    pub dialect: Dialect,
    /// How much is to be done.
    pub options: &'a Options,
    notes: RefCell<Vec<String>>,
}

impl fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("dialect", &self.dialect).finish_non_exhaustive()
    }
}

impl<'a> Context<'a> {
    pub(crate) fn new(subject: &'a dyn Subject, dialect: Dialect, options: &'a Options) -> Context<'a> {
        Context { subject, dialect, options, notes: RefCell::default() }
    }

    /// A store of the dialect.
    fn store(&self) -> Result<Box<dyn Store>, Stop> {
        self.store_of(self.dialect)
    }

    /// A store of a dialect.
    fn store_of(&self, dialect: Dialect) -> Result<Box<dyn Store>, Stop> {
        Ok(self.subject.store(dialect).map_err(|why| format!("making a store: {why}"))?)
    }

    /// A store of the dialect that need not outlast anything.
    fn quick(&self) -> Result<Box<dyn Store>, Stop> {
        self.quick_of(self.dialect)
    }

    /// A store of a dialect that need not outlast anything.
    fn quick_of(&self, dialect: Dialect) -> Result<Box<dyn Store>, Stop> {
        Ok(self.subject.quick_store(dialect).map_err(|why| format!("making a store: {why}"))?)
    }

    /// The subject, for threads of a case's own.
    fn subject(&self) -> &'a dyn Subject {
        self.subject
    }

    pub(crate) fn can_mount(&self) -> Result<(), String> {
        self.subject.can_mount(self.dialect)
    }

    /// Says something beside the verdict.
    fn note(&self, text: String) {
        self.notes.borrow_mut().push(text);
    }

    pub(crate) fn into_notes(self) -> Vec<String> {
        self.notes.into_inner()
    }
}

/// Makes a layer from entries.
fn layer(store: &dyn Store, id: &str, parent: Option<&str>, entries: &[Entry]) -> Result<Totals, Stop> {
    store.create(id, parent)?;
    Ok(store.apply(id, parent, &archive(entries))?)
}

/// Makes an empty layer, and answers where its content goes, for a case that lays it there by hand.
fn empty(store: &dyn Store, id: &str, parent: Option<&str>) -> Result<PathBuf, Stop> {
    store.create(id, parent)?;
    Ok(store.content_path(id))
}

/// The entries of a layer's archive.
fn entries(store: &dyn Store, id: &str) -> Result<Vec<Entry>, Stop> {
    let Diff { archive, .. } = store.diff(id, None)?;
    Ok(read(&archive).map_err(|why| format!("diff: {why}"))?)
}

/// The names of the entries of a layer's archive.
fn entry_names(store: &dyn Store, id: &str) -> Result<Vec<String>, Stop> {
    Ok(entries(store, id)?.iter().map(|entry| crate::escape::name(&entry.name)).collect())
}

/// Fails where a layer's archive holds other entries.
fn diff_is(store: &dyn Store, id: &str, expected: &[Entry]) -> Outcome {
    let found = entries(store, id)?;
    Ok(check::same_entries(&found, expected).map_err(|why| format!("diff: {why}"))?)
}

/// Fails where changes lists something else.
fn changes_are(store: &dyn Store, id: &str, parent: Option<&str>, expected: &[&str]) -> Outcome {
    let found = check::change_lines(&store.changes(id, parent)?);
    Ok(check::same_lines(&found, expected).map_err(|why| format!("changes: {why}"))?)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_in_a_group() {
        let all = super::all();
        let names: BTreeSet<&str> = all.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names.len(), all.len(), "a name is there twice");
        for name in names {
            let (group, rest) = name.split_once('/').unwrap();
            let is_kebab = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            assert!(crate::guide::GROUPS.contains(&group) && rest.bytes().all(is_kebab), "{name}");
        }
    }
}
