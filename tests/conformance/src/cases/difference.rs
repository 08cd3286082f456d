//! The archive of what turns one whole tree into another (`wit/README.md`, "A difference"): a table.
//!
//! Both trees are two layers: a base that they share, and one of their own.

use std::sync::Arc;

use super::{Case, Context, Outcome, Scope, broad, d, empty, file, layer};
use crate::check::{equal, same_entries};
use crate::tar::{Entry, Kind, read};

/// A name, what it is about, what the older tree has beside the base, what the newer has, and what must be in
/// the archive.
type Row = (&'static str, &'static str, fn() -> Vec<Entry>, fn() -> Vec<Entry>, fn() -> Vec<Entry>);

/// What both trees are laid on.
fn base() -> Vec<Entry> {
    vec![
        d(),
        file("d/a"),
        file("d/b"),
        Entry::directory("d/e"),
        file("d/e/f"),
        file("f"),
        Entry::symlink("l", "f"),
    ]
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("of-what-is-shared-is-nothing", "layers of both trees are not looked into", Vec::new, Vec::new, Vec::new),
    ("holds-each-file-that-is-another", "the same content, attributes and time, in a file of its own", Vec::new, || vec![file("f")], || vec![file("f")]),
    ("leaves-out-what-is-no-file-and-the-same", "links, pipes and directories, by attributes and target", || vec![Entry::node("p", Kind::Fifo)], || vec![
        d(), Entry::symlink("l", "f"), Entry::node("p", Kind::Fifo),
    ], Vec::new),
    ("holds-a-directory-whose-attributes-differ", "mode, owner, time or extended attributes", Vec::new, || vec![
        d().time(5, 0), Entry::directory("d/e").xattr("user.a", "b"),
    ], || vec![d().time(5, 0), Entry::directory("d/e").xattr("user.a", "b")]),
    ("holds-the-directories-above", "applied, they would be made with other attributes", Vec::new, || vec![
        d(), Entry::directory("d/e"), file("d/e/new"),
    ], || vec![d(), Entry::directory("d/e"), file("d/e/new")]),
    ("hides-what-is-gone", "the top only, and with the directories above", Vec::new, || vec![d(), Entry::whiteout("d/e"), Entry::whiteout("f")], || vec![
        d(), Entry::whiteout("d/e"), Entry::whiteout("f"),
    ]),
    ("is-never-opaque", "what an opaque directory hides is hidden name by name", Vec::new, || vec![d(), Entry::opaque("d"), file("d/new")], || vec![
        d(), Entry::whiteout("d/a"), Entry::whiteout("d/b"), Entry::whiteout("d/e"), file("d/new"),
    ]),
    ("replaces-without-a-mark", "an entry of another kind hides what was there", Vec::new, || vec![
        file("d"), Entry::directory("f"), file("f/new"), Entry::directory("l"),
    ], || vec![file("d"), Entry::directory("f"), file("f/new"), Entry::directory("l")]),
    ("of-what-only-the-older-changed", "is what the base had", || vec![Entry::whiteout("f"), d(), Entry::whiteout("d/a"), file("more")], Vec::new, || vec![
        d(), file("d/a"), file("f"), Entry::whiteout("more"),
    ]),
    ("keeps-hard-links-within-it", "the first name in order carries the file", Vec::new, || vec![file("z"), Entry::hard_link("f", "z")], || vec![
        file("f"), Entry::hard_link("z", "f"),
    ]),
];

pub(super) fn cases() -> Vec<Case> {
    let rows = ROWS.iter().map(|&(name, about, old, new, expected)| Case {
        name: format!("archive/difference-{name}"),
        about,
        scope: Scope::Each,
        // An archive as a whole tells many rules at once.
        broad: true,
        run: Arc::new(move |context: &Context<'_>| row(context, &old(), &new(), &expected())),
    });
    let socket = broad(
        Scope::Each,
        "archive/difference-hides-what-a-socket-replaced",
        "the socket itself is left out, and told",
        socket,
    );
    let own = broad(
        Scope::Each,
        "archive/diff-hides-what-a-socket-may-have-replaced",
        "in a layer that lies on others",
        own_socket,
    );
    rows.chain([socket, own]).collect()
}

fn row(context: &Context<'_>, old: &[Entry], new: &[Entry], expected: &[Entry]) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &base())?;
    layer(store.as_ref(), "old", Some("base"), old)?;
    layer(store.as_ref(), "new", Some("base"), new)?;
    let diff = store.diff("new", Some("old"))?;
    let found = read(&diff.archive)?;
    same_entries(&found, expected)?;
    crate::tar::check_order(&found)?;
    let marks = expected
        .iter()
        .filter(|entry| crate::tar::split(&entry.name).1.starts_with(crate::tar::WHITEOUT))
        .count();
    equal("entries that it tells of", diff.totals.entries, (expected.len() - marks) as u64)?;
    Ok(())
}

fn own_socket(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &base())?;
    let content = empty(store.as_ref(), "new", Some("base"))?;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, content.join("f"), rustix::fs::FileType::Socket, mode, 0)?;
    let diff = store.diff("new", None)?;
    equal("what was left out", diff.skipped, vec![b"f".to_vec()])?;
    let mut found = read(&diff.archive)?;
    found.retain(|entry| !entry.name.is_empty());
    Ok(same_entries(&found, &[Entry::whiteout("f")])?)
}

fn socket(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &base())?;
    store.create("old", Some("base"))?;
    let content = empty(store.as_ref(), "new", Some("base"))?;
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, content.join("f"), rustix::fs::FileType::Socket, mode, 0)?;
    let diff = store.diff("new", Some("old"))?;
    equal("what was left out", diff.skipped, vec![b"f".to_vec()])?;
    let mut found = read(&diff.archive)?;
    found.retain(|entry| !entry.name.is_empty());
    Ok(same_entries(&found, &[Entry::whiteout("f")])?)
}
