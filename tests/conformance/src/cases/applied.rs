//! Archives applied: what their entries make of a layer, and the forms that say the same.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Case, Context, Outcome, Scope, case, changes_are, diff_is, empty, entry_names, layer};
use crate::check::{equal, fails, holds, same_lines};
use crate::tar::{Archive, Entry, Header, Kind, archive, records};
use crate::view;

pub(super) fn cases() -> Vec<Case> {
    use Scope::{Each, Mounted};
    vec![
        case(Each, "archive/missing-parents-are-made", "0755, 0:0, time 0", missing_parents),
        case(Each, "archive/later-entry-replaces-earlier", "whatever the two are", replaces),
        case(
            Each,
            "archive/directory-over-directory-keeps-its-content",
            "and takes the new attributes",
            merges_directories,
        ),
        case(Each, "archive/links-on-the-way-lead-inside", "as in a chroot on the layer", links_inside),
        case(Each, "archive/leading-slashes-and-dots-say-nothing", "/a, ./a, a//b, a/./b", normal_names),
        case(Each, "archive/reads-older-headers", "of Version 7 and of GNU tar", older_headers),
        case(Each, "archive/global-header-says-nothing", "comments, as git writes them", global_header),
        case(Each, "archive/end-marker-may-be-missing", "after a whole entry", no_end),
        case(Each, "archive/what-follows-the-end-is-ignored", "anything", after_end),
        case(Each, "archive/apply-to-a-layer-with-content-is-conflict", "and changes nothing", not_empty),
        case(Each, "archive/apply-to-unknown-is-not-found", "not-found", apply_unknown),
        case(Mounted, "archive/apply-to-what-is-mounted-is-conflict", "and changes nothing", apply_mounted),
    ]
}

fn missing_parents(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, &[Entry::file("x/y/z", "").owner(5, 5)])?;
    let made = |name: &str| Entry::directory(name).time(0, 0);
    diff_is(store.as_ref(), "a", &[made("x"), made("x/y"), Entry::file("x/y/z", "").owner(5, 5)])
}

fn replaces(context: &Context<'_>) -> Outcome {
    let kinds = |name: &str| {
        [
            vec![Entry::file(name, "file")],
            vec![Entry::symlink(name, "target")],
            vec![Entry::node(name, Kind::Fifo)],
            vec![Entry::directory(name), Entry::file(format!("{name}/below"), "b")],
        ]
    };
    let store = context.quick()?;
    let (mut all, mut expected) = (Vec::new(), Vec::new());
    for first in 0..4 {
        for second in 0..4 {
            let name = format!("n{first}{second}");
            all.extend(kinds(&name)[first].clone());
            all.extend(kinds(&name)[second].clone());
            expected.extend(kinds(&name)[second].clone());
        }
    }
    let totals = layer(store.as_ref(), "a", None, &all)?;
    equal("entries that are left", totals.entries, expected.len() as u64)?;
    equal("bytes that are left", totals.bytes, 4 * 4 + 4)?;
    diff_is(store.as_ref(), "a", &expected)
}

fn merges_directories(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let entries = [
        Entry::directory("d"),
        Entry::file("d/f", "x"),
        Entry::directory("d").mode(0o700).owner(7, 8).time(9, 0),
    ];
    layer(store.as_ref(), "a", None, &entries)?;
    diff_is(store.as_ref(), "a", &[entries[2].clone(), entries[1].clone()])
}

fn links_inside(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let made = |name: &str| Entry::directory(name);
    let usr = || [made("usr"), made("usr/bin"), made("usr/lib")];
    let mut entries = usr().to_vec();
    entries.extend([
        Entry::symlink("bin", "usr/bin"),
        Entry::symlink("lib", "/usr/lib"),
        Entry::symlink("up", "../../../usr"),
        Entry::file("bin/sh", "sh"),
        Entry::file("lib/so", "so"),
        Entry::file("up/share", "share"),
    ]);
    layer(store.as_ref(), "a", None, &entries)?;
    let content = store.content_path("a");
    for (name, text) in [("usr/bin/sh", "sh"), ("usr/lib/so", "so"), ("usr/share", "share")] {
        equal(name, fs::read_to_string(content.join(name))?.as_str(), text)?;
    }
    for name in ["bin", "lib", "up"] {
        holds(&format!("{name} is a link still"), fs::symlink_metadata(content.join(name))?.is_symlink())?;
    }
    Ok(())
}

fn normal_names(context: &Context<'_>) -> Outcome {
    let file = |name: &[u8]| Header::new(b'0').name(name).size(1);
    let directory = |name: &[u8]| Header::new(b'5').name(name);
    let bytes = Archive::new()
        .member(directory(b"/d1/"), b"")
        .member(directory(b"./d2"), b"")
        .member(file(b"/d1/a"), b"a")
        .member(file(b"./d1//b"), b"b")
        .member(file(b"d2/./c"), b"c")
        .end();
    let store = context.quick()?;
    store.create("a", None)?;
    store.apply("a", None, &bytes)?;
    same_lines(&entry_names(store.as_ref(), "a")?, &["d1", "d1/a", "d1/b", "d2", "d2/c"])?;
    Ok(())
}

fn older_headers(context: &Context<'_>) -> Outcome {
    let long = "n".repeat(120);
    let v7 = |name: &[u8]| Header::new(0).name(name).magic(&[0; 8]).numbers(0o640, (1, 2), 7, (0, 0));
    let gnu = |flag: u8| Header::new(flag).magic(b"ustar  \0").numbers(0o640, (1, 2), 7, (0, 0));
    let bytes = Archive::new()
        // Version 7 had no type for directories.
        .member(v7(b"d/"), b"")
        .member(v7(b"d/f").size(1), b"x")
        .extension(b'L', &[long.as_bytes(), b"\0"].concat())
        .member(
            gnu(b'0').name(&long.as_bytes()[..100]).size_field(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]),
            b"xy",
        )
        .extension(b'K', &[long.as_bytes(), b"\0"].concat())
        .member(gnu(b'2').name(b"s").link(&long.as_bytes()[..100]), b"")
        .end();
    let store = context.quick()?;
    store.create("a", None)?;
    store.apply("a", None, &bytes)?;
    let of = |entry: Entry| entry.mode(0o640).owner(1, 2).time(7, 0);
    let expected = [
        of(Entry::directory("d")),
        of(Entry::file("d/f", "x")),
        of(Entry::file(&long, "xy")),
        of(Entry::symlink("s", &long)),
    ];
    diff_is(store.as_ref(), "a", &expected)
}

fn global_header(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let global = records(&[(b"comment", b"0123456789abcdef"), (b"mtime", b"5")]);
    store.create("a", None)?;
    store.apply("a", None, &Archive::new().extension(b'g', &global).entry(&Entry::file("f", "x")).end())?;
    diff_is(store.as_ref(), "a", &[Entry::file("f", "x")])
}

fn no_end(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    store.apply("a", None, &Archive::new().entry(&Entry::file("f", "x")).cut())?;
    diff_is(store.as_ref(), "a", &[Entry::file("f", "x")])
}

fn after_end(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let mut bytes = archive(&[Entry::file("f", "x")]);
    bytes.extend(archive(&[Entry::file("g", "y")]));
    bytes.extend([7; 700_000]);
    store.create("a", None)?;
    store.apply("a", None, &bytes)?;
    diff_is(store.as_ref(), "a", &[Entry::file("f", "x")])
}

fn not_empty(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, &[Entry::file("f", "x")])?;
    let by_hand = empty(store.as_ref(), "b", None)?;
    symlink("nowhere", by_hand.join("f"))?;
    for id in ["a", "b"] {
        let before = view::tree(&store.content_path(id))?;
        fails("apply", store.apply(id, None, &archive(&[Entry::file("g", "y")])), "conflict")?;
        view::tree(&store.content_path(id))?.same_as(&before)?;
    }
    Ok(())
}

fn apply_unknown(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    fails("apply", store.apply("a", None, &archive(&[])), "not-found")?;
    equal("exists", store.exists("a")?, false)?;
    Ok(())
}

fn apply_mounted(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "x")])?;
    store.create("child", Some("base"))?;
    let place = store.get("child", None)?;
    let bytes = archive(&[Entry::file("g", "y")]);
    fails("apply", store.apply("child", None, &bytes), "conflict")?;
    holds("nothing came in", fs::symlink_metadata(place.join("g")).is_err())?;
    store.put("child")?;
    store.apply("child", None, &bytes)?;
    changes_are(store.as_ref(), "child", None, &["A /g"])
}
