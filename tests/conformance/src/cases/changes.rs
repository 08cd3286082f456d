//! What differs between layers, as `changes` lists it: a table.

use std::sync::Arc;

use super::attributes::CAPABILITY;
use super::{Case, Context, Outcome, Scope, case, changes_are, layer};
use crate::check::{equal, fails};
use crate::tar::{Entry, Kind};

/// Layers from the lowest up.
type Layers = fn() -> Vec<Vec<Entry>>;

/// A name, what it is about, layers, and what is listed of the uppermost against its parent.
type Row = (&'static str, &'static str, Layers, &'static [&'static str]);

fn d() -> Entry {
    Entry::directory("d")
}

fn file(name: &str) -> Entry {
    Entry::file(name, "x")
}

/// One way to read it: base, layers between, the layer that is asked about.
#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("against-parent", "new, changed and gone, and the directories above", || vec![
        vec![d(), file("d/changed"), file("d/gone"), file("d/same"), file("also-gone")],
        vec![d(), Entry::file("d/changed", "xy"), Entry::whiteout("d/gone"), file("d/new"), Entry::whiteout("also-gone")],
    ], &["D /also-gone", "C /d", "C /d/changed", "D /d/gone", "A /d/new"]),
    ("against-none", "of a layer without a parent all is new", || vec![
        vec![d(), file("d/f"), Entry::symlink("l", "d"), file("z")],
    ], &["A /d", "A /d/f", "A /l", "A /z"]),
    ("of-an-empty-layer", "nothing", || vec![vec![d(), file("d/f")], vec![]], &[]),
    ("copied-up-and-not-changed", "nothing", || vec![vec![d(), file("d/f")], vec![d(), file("d/f")]], &[]),
    ("remembers-the-grandparent", "what the parent has not, the grandparent may have", || vec![
        vec![file("f"), file("g"), file("h")], vec![file("other")], vec![file("f"), Entry::file("g", "xy"), Entry::whiteout("h")],
    ], &["C /g", "D /h"]),
    ("nearest-ancestor-counts", "not what it hides", || vec![
        vec![Entry::file("f", "xx")], vec![file("f")], vec![file("f")],
    ], &[]),
    ("mode-only", "a change", || vec![vec![file("f"), d()], vec![file("f").mode(0o600), d().mode(0o700)]], &["C /d", "C /f"]),
    ("owner-only", "a change", || vec![
        vec![file("f"), file("g"), d()], vec![file("f").owner(1, 0), file("g").owner(0, 1), d().owner(2, 2)],
    ], &["C /d", "C /f", "C /g"]),
    ("time-only", "a change of files, links and nodes", || vec![
        vec![file("f"), Entry::symlink("l", "x"), Entry::node("p", Kind::Fifo)],
        vec![file("f").time(5, 0), Entry::symlink("l", "x").time(5, 0), Entry::node("p", Kind::Fifo).time(5, 0)],
    ], &["C /f", "C /l", "C /p"]),
    ("time-of-a-directory-is-none", "it changes with what is in it", || vec![vec![d()], vec![d().time(5, 0)]], &[]),
    ("same-size-in-the-same-second", "a change", || vec![
        vec![Entry::file("f", "one").time(9, 100)], vec![Entry::file("f", "two").time(9, 200)],
    ], &["C /f"]),
    ("nanoseconds-that-an-archive-lost-are-none", "one side is whole seconds", || vec![
        vec![file("f").time(9, 0), file("g").time(9, 5)], vec![file("f").time(9, 5), file("g").time(9, 0)],
    ], &[]),
    ("target-of-a-link", "a change, though size and time are the same", || vec![
        vec![Entry::symlink("l", "one")], vec![Entry::symlink("l", "two")],
    ], &["C /l"]),
    ("device-number", "a change", || vec![
        vec![Entry::node("n", Kind::Character(1, 3))], vec![Entry::node("n", Kind::Character(1, 5))],
    ], &["C /n"]),
    ("capabilities", "a change of what can be executed", || vec![
        vec![file("f").mode(0o755)], vec![file("f").mode(0o755).xattr("security.capability", CAPABILITY)],
    ], &["C /f"]),
    ("capabilities-of-what-cannot-be-executed-are-none", "they say nothing there", || vec![
        vec![file("f"), d()], vec![file("f").xattr("security.capability", CAPABILITY), d()],
    ], &[]),
    ("other-xattrs-are-none", "Docker does not look at them", || vec![
        vec![file("f").mode(0o755)], vec![file("f").mode(0o755).xattr("user.a", "b")],
    ], &[]),
    ("another-kind", "modified, and what is below is new", || vec![
        vec![d(), file("d/x"), file("f")],
        vec![Entry::symlink("d", "f"), Entry::directory("f"), file("f/y")],
    ], &["C /d", "C /f", "A /f/y"]),
    ("deleted-tells-the-top-only", "not what lay below", || vec![
        vec![d(), Entry::directory("d/e"), file("d/e/f")], vec![Entry::whiteout("d")],
    ], &["D /d"]),
    ("deleted-twice-is-none", "the parent had deleted it already", || vec![
        vec![d(), file("d/f")], vec![d(), Entry::whiteout("d/f")], vec![d(), Entry::whiteout("d/f")],
    ], &[]),
    ("deleted-and-never-there-is-none", "a mark that hides nothing", || vec![
        vec![d()], vec![d(), Entry::whiteout("d/x"), Entry::whiteout("y")],
    ], &[]),
    ("new-after-the-parent-deleted-it", "added, not modified", || vec![
        vec![file("f")], vec![Entry::whiteout("f")], vec![file("f")],
    ], &["A /f"]),
    ("below-what-the-parent-deleted", "the parent's whiteout of a directory hides all of it", || vec![
        vec![d(), file("d/f")], vec![Entry::whiteout("d")], vec![d(), file("d/f")],
    ], &["A /d", "A /d/f"]),
    ("through-an-opaque-directory", "what it hides is gone, however deep", || vec![
        vec![d(), file("d/a"), Entry::directory("d/deep"), file("d/deep/y"), Entry::directory("d/sub"), file("d/sub/x")],
        vec![d(), Entry::opaque("d"), Entry::directory("d/deep"), file("d/deep/z"), file("d/new")],
    ], &["C /d", "D /d/a", "C /d/deep", "D /d/deep/y", "A /d/deep/z", "A /d/new", "D /d/sub"]),
    ("below-an-opaque-directory-of-the-parent", "it cuts off the grandparent for good", || vec![
        vec![d(), file("d/old")], vec![d(), Entry::opaque("d"), file("d/f")], vec![d(), file("d/f"), file("d/old")],
    ], &["C /d", "A /d/old"]),
    ("through-an-opaque-root", "all that was is gone", || vec![
        vec![file("a"), d(), file("d/b")], vec![Entry::opaque(""), d(), file("d/c")],
    ], &["D /a", "C /d", "D /d/b", "A /d/c"]),
    ("opaque-and-made-anew-the-same-is-none", "what it shows counts", || vec![
        vec![d(), file("d/f")], vec![d(), Entry::opaque("d"), file("d/f")],
    ], &[]),
    ("symlink-is-not-followed", "a directory over a link is new below", || vec![
        vec![Entry::directory("real"), file("real/f"), Entry::symlink("link", "real")],
        vec![Entry::directory("link"), file("link/f")],
    ], &["C /link", "A /link/f"]),
    ("directory-over-file-over-directory", "the file hid what lay below", || vec![
        vec![d(), file("d/low")], vec![file("d")], vec![d(), file("d/high")],
    ], &["C /d", "A /d/high"]),
    ("sorted-by-the-bytes-of-the-path", "not by those of components", || vec![
        vec![], vec![Entry::directory("a"), file("a/x"), file("a.b"), file("a0"), file("B"), file("\u{e9}")],
    ], &["A /B", "A /a", "A /a.b", "A /a/x", "A /a0", "A /\\xc3\\xa9"]),
    ("each-path-once", "a directory that changed, and so did what is in it", || vec![
        vec![d(), Entry::directory("d/e"), file("d/e/f"), file("d/g")],
        vec![d().owner(1, 1), Entry::directory("d/e").owner(1, 1), Entry::file("d/e/f", "xy"), Entry::file("d/g", "xy")],
    ], &["C /d", "C /d/e", "C /d/e/f", "C /d/g"]),
    ("hard-links-by-each-name", "a file's names are files", || vec![
        vec![file("f")], vec![Entry::file("f", "xyz"), Entry::hard_link("g", "f")],
    ], &["C /f", "A /g"]),
    ("root-is-never-listed", "whatever it says", || vec![
        vec![file("f")], vec![Entry::directory("").mode(0o700).owner(1, 1).time(5, 0)],
    ], &[]),
];

pub(super) fn cases() -> Vec<Case> {
    let rows = ROWS.iter().map(|&(name, about, layers, expected)| Case {
        name: format!("changes/{name}"),
        about,
        scope: Scope::Each,
        broad: false,
        run: Arc::new(move |context: &Context<'_>| row(context, layers, expected)),
    });
    let more = [
        case(Scope::Each, "changes/against-grandparent", "the whole trees are compared", against_grandparent),
        case(Scope::Each, "changes/against-sibling", "any two layers can be compared", against_sibling),
        case(Scope::Each, "changes/against-itself", "nothing", against_itself),
        case(Scope::Each, "changes/of-unknown-is-not-found", "not-found", unknown),
        case(
            Scope::Each,
            "changes/of-many-files",
            "more than goes over in one call, and one of them changed",
            many,
        ),
    ];
    rows.chain(more).collect()
}

/// Makes the layers, and compares the uppermost with its parent, unnamed and by name.
fn row(context: &Context<'_>, layers: Layers, expected: &[&str]) -> Outcome {
    let store = context.quick()?;
    let mut parent: Option<String> = None;
    let mut top = None;
    for (number, entries) in layers().iter().enumerate() {
        let id = format!("l{number}");
        parent = top.take();
        layer(store.as_ref(), &id, parent.as_deref(), entries)?;
        top = Some(id);
    }
    let Some(top) = top else { return Ok(()) };
    changes_are(store.as_ref(), &top, None, expected)?;
    match &parent {
        Some(parent) => changes_are(store.as_ref(), &top, Some(parent), expected),
        None => Ok(()),
    }
}

fn against_grandparent(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[d(), file("d/a"), file("d/b"), file("k")])?;
    layer(
        store.as_ref(),
        "middle",
        Some("base"),
        &[d(), Entry::whiteout("d/a"), file("from-middle"), Entry::file("k", "changed")],
    )?;
    layer(store.as_ref(), "top", Some("middle"), &[file("from-top"), file("k")])?;
    // That `k` was another in between does not count.
    changes_are(store.as_ref(), "top", Some("base"), &["C /d", "D /d/a", "A /from-middle", "A /from-top"])?;
    changes_are(store.as_ref(), "base", Some("top"), &["C /d", "A /d/a", "D /from-middle", "D /from-top"])
}

fn against_sibling(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[file("a"), file("b"), file("c")])?;
    layer(store.as_ref(), "one", Some("base"), &[Entry::whiteout("a"), Entry::file("b", "one"), file("x")])?;
    layer(store.as_ref(), "two", Some("base"), &[Entry::whiteout("c"), Entry::file("b", "two!"), file("y")])?;
    layer(store.as_ref(), "stranger", None, &[file("a")])?;
    changes_are(store.as_ref(), "two", Some("one"), &["A /a", "C /b", "D /c", "D /x", "A /y"])?;
    changes_are(store.as_ref(), "base", Some("stranger"), &["A /b", "A /c"])
}

fn against_itself(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[file("a")])?;
    layer(store.as_ref(), "child", Some("base"), &[file("b")])?;
    changes_are(store.as_ref(), "child", Some("child"), &[])
}

fn unknown(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    fails("changes of nothing", store.changes("b", None), "not-found")?;
    fails("changes against nothing", store.changes("a", Some("b")), "not-found")?;
    Ok(())
}

fn many(context: &Context<'_>) -> Outcome {
    const FILES: usize = 9000;
    let files: Vec<Entry> = (0..FILES).map(|number| file(&format!("d/f{number:05}"))).collect();
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &files)?;
    let mut again = files;
    again[FILES - 7] = Entry::file(&again[FILES - 7].name, "another");
    layer(store.as_ref(), "child", Some("base"), &again)?;
    equal("changes of a base", store.changes("base", None)?.len(), FILES + 1)?;
    changes_are(store.as_ref(), "child", None, &["C /d", &format!("C /d/f{:05}", FILES - 7)])
}
