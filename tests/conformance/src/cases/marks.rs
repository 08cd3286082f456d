//! Whiteouts and opaque marks, from archive to archive.

use super::{Case, Context, Outcome, Scope, case, changes_are, diff_is, entry_names, layer};
use crate::check::{equal, holds, same_lines};
use crate::subject::Store;
use crate::tar::Entry;

pub(super) fn cases() -> Vec<Case> {
    use Scope::Each;
    vec![
        case(Each, "archive/keeps-whiteouts", "of what is below, and of what is not", whiteouts),
        case(
            Each,
            "archive/keeps-whiteouts-in-directories",
            "beside what a directory holds, and alone",
            nested_whiteouts,
        ),
        case(Each, "archive/keeps-opaque-markers", "of directories, empty ones as well", opaque),
        case(Each, "archive/keeps-opaque-root", "the whole tree below is hidden", opaque_root),
        case(
            Each,
            "archive/whiteouts-in-opaque-directories-are-nothing",
            "they have nothing to hide, and a union would show them",
            whiteout_in_opaque,
        ),
        case(
            Each,
            "archive/whiteouts-below-what-is-replaced-are-nothing",
            "what comes in the place of a directory takes all of it away",
            replaced_marks,
        ),
        case(Each, "archive/keeps-many-whiteouts", "more than one file can have names", many),
        case(
            Each,
            "archive/whiteout-never-hides-its-own-layer",
            "a name and its whiteout, in both orders",
            own_layer,
        ),
        case(Each, "archive/whiteout-of-own-directory-makes-it-opaque", "in both orders", own_directory),
        case(Each, "archive/opaque-marker-never-hides-its-own-layer", "wherever it stands", opaque_anywhere),
        case(Each, "archive/whiteout-attributes-are-not-kept", "they mean nothing", attributes),
        case(Each, "archive/whiteout-may-have-a-body", "it means nothing", body),
        case(Each, "archive/bookkeeping-of-aufs-is-dropped", "at the root, with all below it", bookkeeping),
        case(Each, "archive/names-that-look-like-marks-are-kept", ".wh, .whale, a.wh.b", lookalikes),
    ]
}

fn base(store: &dyn Store) -> Outcome {
    layer(
        store,
        "base",
        None,
        &[Entry::directory("d"), Entry::file("d/a", ""), Entry::file("d/b", ""), Entry::file("f", "")],
    )?;
    Ok(())
}

fn round_trip(context: &Context<'_>, entries: &[Entry]) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    layer(store.as_ref(), "child", Some("base"), entries)?;
    diff_is(store.as_ref(), "child", entries)
}

fn whiteouts(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[Entry::file("a", ""), Entry::whiteout("d"), Entry::whiteout("f"), Entry::whiteout("never")],
    )
}

fn nested_whiteouts(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::directory("d"),
            Entry::whiteout("d/a"),
            Entry::file("d/c", ""),
            Entry::directory("n"),
            Entry::whiteout("n/x"),
            Entry::directory("n/y"),
            Entry::whiteout("n/y/z"),
        ],
    )
}

fn opaque(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::directory("d"),
            Entry::opaque("d"),
            Entry::file("d/new", ""),
            Entry::directory("empty"),
            Entry::opaque("empty"),
            Entry::directory("empty/!"),
            Entry::opaque("empty/!"),
        ],
    )
}

fn opaque_root(context: &Context<'_>) -> Outcome {
    round_trip(context, &[Entry::opaque(""), Entry::file("new", "")])?;
    round_trip(context, &[Entry::opaque("")])
}

fn whiteout_in_opaque(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let (d, a, new) = (Entry::directory("d"), Entry::whiteout("d/a"), Entry::file("d/new", ""));
    let archives = [
        ("before", vec![a.clone(), d.clone(), Entry::opaque("d"), new.clone()]),
        ("behind", vec![d.clone(), Entry::opaque("d"), a.clone(), new.clone()]),
        ("anew", vec![Entry::whiteout("d"), d.clone(), a, new.clone()]),
    ];
    for (id, entries) in archives {
        layer(store.as_ref(), id, Some("base"), &entries)?;
        // Whether the directory is opaque still is another case's affair.
        let mut names = entry_names(store.as_ref(), id)?;
        names.retain(|name| name != "d/.wh..wh..opq");
        same_lines(&names, &["d", "d/new"])?;
        changes_are(store.as_ref(), id, None, &["C /d", "D /d/a", "D /d/b", "A /d/new"])?;
    }
    let deep = [Entry::opaque(""), d, Entry::directory("d/deep"), Entry::whiteout("d/deep/a"), new];
    layer(store.as_ref(), "deep", Some("base"), &deep)?;
    let names = entry_names(store.as_ref(), "deep")?;
    holds("nor is one deeper in", !names.iter().any(|name| name == "d/deep/.wh.a"))?;
    // A link leads out of what is opaque.
    let out = [
        Entry::directory("d"),
        Entry::directory("o"),
        Entry::opaque("o"),
        Entry::symlink("o/l", "../d"),
        Entry::whiteout("o/l/a"),
    ];
    layer(store.as_ref(), "out", Some("base"), &out)?;
    let names = entry_names(store.as_ref(), "out")?;
    holds("a whiteout over a link is kept", names.iter().any(|name| name == "d/.wh.a"))?;
    Ok(())
}

fn replaced_marks(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let file = Entry::file("d", "");
    layer(store.as_ref(), "whiteout", Some("base"), &[Entry::whiteout("d/a"), file.clone()])?;
    layer(store.as_ref(), "opaque", Some("base"), &[Entry::opaque("d"), file.clone()])?;
    for id in ["whiteout", "opaque"] {
        diff_is(store.as_ref(), id, std::slice::from_ref(&file))?;
    }
    Ok(())
}

fn many(context: &Context<'_>) -> Outcome {
    // ext4 gives a file 65,000 names; the host gives it as many as the file system does.
    const MARKS: usize = 66_000;
    let marks: Vec<Entry> = (0..MARKS).map(|number| Entry::whiteout(format!("d/n{number:05}"))).collect();
    let store = context.store()?;
    layer(
        store.as_ref(),
        "base",
        None,
        &[Entry::file("d/n00000", ""), Entry::file(format!("d/n{}", MARKS - 1), "")],
    )?;
    layer(store.as_ref(), "child", Some("base"), &marks)?;
    equal("entries", super::entries(store.as_ref(), "child")?.len(), MARKS + 1)?;
    changes_are(store.as_ref(), "child", None, &["C /d", "D /d/n00000", &format!("D /d/n{}", MARKS - 1)])
}

fn own_layer(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let (mark, file) = (Entry::whiteout("f"), Entry::file("f", "new"));
    layer(store.as_ref(), "before", Some("base"), &[mark.clone(), file.clone()])?;
    layer(store.as_ref(), "behind", Some("base"), &[file.clone(), mark])?;
    for id in ["before", "behind"] {
        diff_is(store.as_ref(), id, std::slice::from_ref(&file))?;
        changes_are(store.as_ref(), id, None, &["C /f"])?;
    }
    Ok(())
}

fn own_directory(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let (mark, d, file) = (Entry::whiteout("d"), Entry::directory("d"), Entry::file("d/c", ""));
    layer(store.as_ref(), "before", Some("base"), &[mark.clone(), d.clone(), file.clone()])?;
    layer(store.as_ref(), "behind", Some("base"), &[d, file, mark])?;
    for id in ["before", "behind"] {
        changes_are(store.as_ref(), id, None, &["C /d", "D /d/a", "D /d/b", "A /d/c"])?;
    }
    Ok(())
}

fn opaque_anywhere(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let (d, one, two) = (Entry::directory("d"), Entry::file("d/one", ""), Entry::file("d/two", ""));
    let orders = [
        ("between", [d.clone(), one.clone(), Entry::opaque("d"), two.clone()]),
        ("first", [Entry::opaque("d"), d.clone(), one.clone(), two.clone()]),
        ("last", [d, one, two, Entry::opaque("d")]),
    ];
    for (id, entries) in orders {
        layer(store.as_ref(), id, Some("base"), &entries)?;
        let mut names = entry_names(store.as_ref(), id)?;
        names.retain(|name| name != "d/.wh..wh..opq");
        same_lines(&names, &["d", "d/one", "d/two"])?;
    }
    Ok(())
}

fn attributes(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    layer(store.as_ref(), "plain", Some("base"), &[Entry::whiteout("d"), Entry::whiteout("f")])?;
    let loud = |entry: Entry| entry.mode(0o6755).owner(5, 6).time(7, 8).xattr("user.a", "b");
    layer(store.as_ref(), "loud", Some("base"), &[loud(Entry::whiteout("d")), loud(Entry::whiteout("f"))])?;
    equal("archives", store.diff("loud", None)?, store.diff("plain", None)?)?;
    Ok(())
}

fn body(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    base(store.as_ref())?;
    let mark = Entry { body: vec![b'x'; 1000], ..Entry::whiteout("f") };
    let totals = layer(store.as_ref(), "child", Some("base"), &[mark, Entry::file("g", "y")])?;
    equal("bytes", totals.bytes, 1)?;
    diff_is(store.as_ref(), "child", &[Entry::whiteout("f"), Entry::file("g", "y")])
}

fn bookkeeping(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let entries = [
        Entry::file(".wh..wh.aufs", ""),
        Entry::directory(".wh..wh.plnk"),
        Entry::file(".wh..wh.plnk/1.2", "x"),
        Entry::directory(".wh..wh.orph"),
        Entry::file("f", "x"),
    ];
    let totals = layer(store.as_ref(), "a", None, &entries)?;
    equal("totals", totals, crate::Totals { entries: 1, bytes: 1 })?;
    same_lines(&entry_names(store.as_ref(), "a")?, &["f"])?;
    Ok(())
}

fn lookalikes(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::file(".wh", ""),
            Entry::directory(".whale"),
            Entry::file(".whale/a.wh.b", ""),
            Entry::file("wh.f", ""),
        ],
    )
}
