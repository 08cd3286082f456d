//! What layers add up to.

use std::fs;

use super::{Case, Context, Outcome, Scope, Stop, case, empty, layer};
use crate::check::equal;
use crate::subject::{Store, Totals};
use crate::tar::Entry;
use crate::view;

pub(super) fn cases() -> Vec<Case> {
    use Scope::Each;
    vec![
        case(
            Each,
            "archive/size-of-parent-and-child",
            "each its own, whatever parent is named",
            parent_and_child,
        ),
        case(Each, "archive/size-counts-a-hard-link-once", "counted, and as apply told", hard_link),
        case(Each, "archive/size-leaves-out-marks", "whiteouts and opaque marks are no entries", marks),
        case(
            Each,
            "archive/size-counts-replaced-entries-once",
            "what a later entry replaced is not there",
            replaced,
        ),
        case(Each, "archive/size-of-what-is-no-file-is-0", "links, directories and pipes", no_file),
        case(Each, "archive/diff-tells-what-it-wrote", "its totals are those of the layer", totals_of_diff),
        case(Each, "archive/size-of-unknown-is-not-found", "not-found", unknown),
    ]
}

/// Copies a layer's content to a new layer by hand: of that one nothing is known but what the component
/// counts.
fn counted(store: &dyn Store, id: &str) -> Result<Totals, Stop> {
    let copy = format!("{id}-by-hand");
    let target = empty(store, &copy, None)?;
    let from = store.content_path(id);
    fs::remove_dir(&target)?;
    fs::rename(&from, &target)?;
    fs::create_dir(&from)?;
    Ok(store.diff_size(&copy, None)?)
}

/// Fails where apply, the record and the count do not all say the same.
fn totals_are(context: &Context<'_>, entries: &[Entry], expected: Totals) -> Outcome {
    let store = context.quick()?;
    equal("totals of apply", layer(store.as_ref(), "a", None, entries)?, expected)?;
    equal("diff-size", store.diff_size("a", None)?, expected)?;
    equal("diff-size of the same, counted", counted(store.as_ref(), "a")?, expected)?;
    Ok(())
}

fn parent_and_child(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(
        store.as_ref(),
        "base",
        None,
        &[Entry::file("a", vec![b'x'; 700]), Entry::file("d/b", vec![b'x'; 65])],
    )?;
    layer(store.as_ref(), "child", Some("base"), &[Entry::file("a", vec![b'y'; 11])])?;
    let (base, child) = (Totals { entries: 3, bytes: 765 }, Totals { entries: 1, bytes: 11 });
    equal("parent", store.diff_size("base", None)?, base)?;
    equal("child", store.diff_size("child", None)?, child)?;
    equal("child against parent", store.diff_size("child", Some("base"))?, child)?;
    let place = empty(store.as_ref(), "by-hand", Some("child"))?;
    fs::write(place.join("f"), "four")?;
    equal("written by hand", store.diff_size("by-hand", Some("child"))?, Totals { entries: 1, bytes: 4 })?;
    view::tree(&place)?;
    Ok(())
}

fn hard_link(context: &Context<'_>) -> Outcome {
    let entries = [
        Entry::file("a", "12345"),
        Entry::hard_link("b", "a"),
        Entry::hard_link("c", "a"),
        Entry::file("d", "1"),
    ];
    totals_are(context, &entries, Totals { entries: 4, bytes: 6 })
}

fn marks(context: &Context<'_>) -> Outcome {
    let entries = [
        Entry::directory("d"),
        Entry::opaque("d"),
        Entry::whiteout("d/x"),
        Entry::file("f", "1"),
        Entry::whiteout("w"),
    ];
    totals_are(context, &entries, Totals { entries: 2, bytes: 1 })
}

fn replaced(context: &Context<'_>) -> Outcome {
    let entries =
        [Entry::file("f/a", "123"), Entry::file("g", "1234"), Entry::file("f", "12"), Entry::file("g", "1")];
    totals_are(context, &entries, Totals { entries: 2, bytes: 3 })
}

fn no_file(context: &Context<'_>) -> Outcome {
    let entries =
        [Entry::directory("d"), Entry::symlink("l", "target"), Entry::node("p", crate::tar::Kind::Fifo)];
    totals_are(context, &entries, Totals { entries: 3, bytes: 0 })
}

fn totals_of_diff(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let entries =
        [Entry::directory("d"), Entry::file("d/f", "123"), Entry::symlink("l", "x"), Entry::whiteout("w")];
    layer(store.as_ref(), "a", None, &entries)?;
    equal("totals", store.diff("a", None)?.totals, Totals { entries: 3, bytes: 3 })?;
    Ok(())
}

fn unknown(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    crate::check::fails("diff-size of nothing", store.diff_size("b", None), "not-found")?;
    crate::check::fails("diff-size against nothing", store.diff_size("a", Some("b")), "not-found")?;
    Ok(())
}
