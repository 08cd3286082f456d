//! Archives applied and written: the forms of archives, names, links, and the order of what comes out.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Case, Context, Outcome, Scope, case, diff_is, empty, entries, entry_names, layer};
use crate::check::{equal, fails, holds, same_lines};
use crate::tar::{Entry, Kind, check_order};

pub(super) fn cases() -> Vec<Case> {
    use Scope::Each;
    vec![
        case(
            Each,
            "archive/empty-layer-is-1024-zeros",
            "made or applied, with a parent or without",
            empty_layer,
        ),
        case(Each, "archive/keeps-content", "bodies of all sizes around a block and a window", content),
        case(Each, "archive/keeps-kinds", "links, pipes and devices", kinds),
        case(
            Each,
            "archive/keeps-hard-links",
            "names of one file stay names of one file, the first in order carries it",
            hard_links,
        ),
        case(
            Each,
            "archive/keeps-hard-links-of-what-is-no-file",
            "a link to a symbolic link links the link",
            hard_linked_symlinks,
        ),
        case(Each, "archive/keeps-long-names", "of entries and of targets", long_names),
        case(Each, "archive/keeps-names-that-are-bytes", "no UTF-8, newlines, escapes", byte_names),
        case(Each, "archive/keeps-2000-levels", "applied, read, written and removed", levels),
        case(Each, "archive/keeps-thousands-of-files", "more than goes over in one call", thousands),
        case(Each, "archive/diff-is-sorted", "depth first, by the bytes of the names", sorted),
        case(
            Each,
            "archive/diff-is-the-same-each-time",
            "whatever the order of the archive that was applied",
            reproducible,
        ),
        case(Each, "archive/diff-skips-sockets", "and tells of them", sockets),
        case(Each, "archive/diff-of-unknown-is-not-found", "not-found", diff_unknown),
        case(Each, "archive/diff-of-parent-by-name-is-the-layer", "as with no parent named", diff_of_parent),
        case(
            Each,
            "archive/diff-against-grandparent",
            "what turns one whole tree into the other",
            diff_grandparent,
        ),
        case(Each, "archive/diff-against-itself-is-empty", "1,024 zeros", diff_itself),
    ]
}

const ZEROS: [u8; 1024] = [0; 1024];

fn empty_layer(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    empty(store.as_ref(), "base", None)?;
    empty(store.as_ref(), "child", Some("base"))?;
    layer(store.as_ref(), "applied", Some("base"), &[])?;
    for id in ["base", "child", "applied"] {
        let found = store.diff(id, None)?;
        holds(&format!("the archive of {id} is 1,024 zeros"), found.archive == ZEROS)?;
        equal("entries", found.totals.entries, 0)?;
    }
    Ok(())
}

/// Applies entries that are in order, and fails where the layer's archive is not just these.
fn round_trip(context: &Context<'_>, expected: &[Entry]) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, expected)?;
    diff_is(store.as_ref(), "a", expected)
}

fn content(context: &Context<'_>) -> Outcome {
    let sizes = [0, 1, 511, 512, 513, 4096, 65_535, 65_537, 262_144, 300_001, 1_048_577, 3_000_000];
    let body = |size: usize| (0..size).map(|at| (at / 7) as u8 ^ (at >> 9) as u8 | 1).collect::<Vec<u8>>();
    let files: Vec<Entry> =
        sizes.iter().enumerate().map(|(at, &size)| Entry::file(format!("f{at:02}"), body(size))).collect();
    round_trip(context, &files)
}

fn kinds(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::node("block", Kind::Block(7, 3)).mode(0o660),
            Entry::node("char", Kind::Character(1, 3)).mode(0o666),
            Entry::node("char-large", Kind::Character(4095, 1_048_575)),
            Entry::directory("directory"),
            Entry::symlink("link", "../nowhere/at all"),
            Entry::node("pipe", Kind::Fifo).mode(0o600),
        ],
    )
}

fn hard_links(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let d = || Entry::directory("d");
    // In the archive the last name comes first.
    let entries = [
        Entry::file("z", "one"),
        d(),
        Entry::hard_link("d/m", "z"),
        Entry::hard_link("a", "d/m"),
        Entry::file("other", "one"),
    ];
    let totals = layer(store.as_ref(), "a", None, &entries)?;
    equal("bytes", totals.bytes, 6)?;
    let content = store.content_path("a");
    let inode = |name: &str| fs::metadata(content.join(name)).map(|found| found.ino());
    holds("all three are one file", inode("z")? == inode("d/m")? && inode("z")? == inode("a")?)?;
    holds("the other is another", inode("z")? != inode("other")?)?;
    diff_is(
        store.as_ref(),
        "a",
        &[
            Entry::file("a", "one"),
            d(),
            Entry::hard_link("d/m", "a"),
            Entry::file("other", "one"),
            Entry::hard_link("z", "a"),
        ],
    )?;
    // To names that are long, and that are bytes.
    let long = "n".repeat(101);
    let bytes: Vec<u8> = [&b"\xf0 "[..], &[0xf1; 120]].concat();
    let entries = [
        Entry::file(&long, "long"),
        Entry::hard_link("o", &long),
        Entry::file(&bytes, "bytes"),
        Entry::hard_link(b"\xf2", &bytes),
    ];
    round_trip(context, &entries)
}

fn hard_linked_symlinks(context: &Context<'_>) -> Outcome {
    let entries = [
        Entry::symlink("l", "target"),
        Entry::hard_link("m", "l"),
        Entry::node("p", Kind::Fifo),
        Entry::hard_link("q", "p"),
        Entry::file("target", "x"),
    ];
    round_trip(context, &entries)
}

fn long_names(context: &Context<'_>) -> Outcome {
    let n = |letter: &str, length: usize| letter.repeat(length);
    let deep = format!("{}/{}/{}", n("e", 200), n("e", 255), n("e", 100));
    let mut expected = vec![
        Entry::file(n("a", 99), "99"),
        Entry::file(n("b", 100), "100"),
        Entry::file(n("c", 101), "101"),
        // With its slash it is one byte longer than the field.
        Entry::directory(n("d", 100)),
        Entry::directory(n("e", 200)),
        Entry::directory(format!("{}/{}", n("e", 200), n("e", 255))),
        Entry::file(&deep, "deep"),
        Entry::symlink("f", n("t", 100)),
        Entry::symlink("g", n("t", 101)),
        Entry::symlink("h", n("t/", 2047)),
    ];
    // What needs more than the first entry would is the same to aufs, whose marks are longer than names.
    expected.push(Entry::file(n("j", 242), "242"));
    round_trip(context, &expected)
}

fn byte_names(context: &Context<'_>) -> Outcome {
    let long: Vec<u8> = [b"\xf0 ".as_slice(), &[0xf1; 120]].concat();
    let entries = [
        Entry::file(b"\x01\x1b[2J", "escape"),
        Entry::file(b" ", "space"),
        Entry::file(b"back\\slash", ""),
        Entry::directory(b"new\nline"),
        Entry::file(b"new\nline/\x7f", ""),
        Entry::symlink(b"\xc3", b"\xff\n\xfe"),
        Entry::file(&long, "long"),
        Entry::file(b"\xff\xfe", "no text"),
    ];
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, &entries)?;
    diff_is(store.as_ref(), "a", &entries)?;
    let names: Vec<Vec<u8>> = store.changes("a", None)?.into_iter().map(|change| change.name).collect();
    equal("names of changes", names, entries.iter().map(|entry| entry.name.clone()).collect())?;
    Ok(store.remove("a", false)?)
}

fn levels(context: &Context<'_>) -> Outcome {
    const LEVELS: usize = 2000;
    let store = context.quick()?;
    let name = vec!["d"; LEVELS].join("/");
    layer(store.as_ref(), "a", None, &[Entry::file(format!("{name}/f"), "deep")])?;
    equal("size", store.diff_size("a", None)?, crate::Totals { entries: LEVELS as u64 + 1, bytes: 4 })?;
    equal("changes", store.changes("a", None)?.len(), LEVELS + 1)?;
    let found = entries(store.as_ref(), "a")?;
    equal("entries", found.len(), LEVELS + 1)?;
    equal(
        "the last",
        found.last().map(|entry| (entry.name.len(), entry.body.as_slice())),
        Some((2 * LEVELS + 1, &b"deep"[..])),
    )?;
    layer(store.as_ref(), "b", Some("a"), &[Entry::whiteout(&name)])?;
    equal("changes of a deletion down there", store.changes("b", None)?.len(), LEVELS)?;
    store.remove("b", false)?;
    Ok(store.remove("a", false)?)
}

fn thousands(context: &Context<'_>) -> Outcome {
    let files: Vec<Entry> =
        (0..9000).map(|number| Entry::file(format!("f{number:05}"), format!("{number}"))).collect();
    round_trip(context, &files)
}

fn sorted(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let names = ["b", "a/z", "a.b", "a/a/a", "a", "a-", "a0", "B", "\u{e9}", "a/.hidden", "~", "a/a.a"];
    let entries: Vec<Entry> = names
        .iter()
        .map(|name| if ["a", "a/a"].contains(name) { Entry::directory(name) } else { Entry::file(name, "") })
        .collect();
    layer(store.as_ref(), "a", None, &entries)?;
    let found = super::entries(store.as_ref(), "a")?;
    check_order(&found)?;
    equal("entries", found.len(), names.len() + 1)?;
    Ok(())
}

fn reproducible(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let mut entries: Vec<Entry> =
        (0..40).map(|number| Entry::file(format!("d{}/f{number}", number % 7), "x")).collect();
    layer(store.as_ref(), "a", None, &entries)?;
    entries.reverse();
    layer(store.as_ref(), "b", None, &entries)?;
    let first = store.diff("a", None)?;
    equal("the second time", store.diff("a", None)?, first.clone())?;
    equal("applied in another order", store.diff("b", None)?, first)?;
    Ok(())
}

fn sockets(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let content = empty(store.as_ref(), "a", None)?;
    fs::create_dir(content.join("d"))?;
    fs::write(content.join("d/f"), "x")?;
    for name in ["d/socket", "d/f.sock"] {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, content.join(name), rustix::fs::FileType::Socket, mode, 0)?;
    }
    let diff = store.diff("a", None)?;
    let mut skipped: Vec<String> = diff.skipped.iter().map(|name| crate::escape::name(name)).collect();
    skipped.sort();
    same_lines(&skipped, &["d/f.sock", "d/socket"])?;
    let names = entry_names(store.as_ref(), "a")?;
    same_lines(&names.into_iter().filter(|name| name != "(root)").collect::<Vec<_>>(), &["d", "d/f"])?;
    Ok(())
}

fn diff_unknown(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    fails("diff of nothing", store.diff("b", None), "not-found")?;
    fails("diff against nothing", store.diff("a", Some("b")), "not-found")?;
    Ok(())
}

fn diff_of_parent(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "x"), Entry::file("g", "")])?;
    layer(store.as_ref(), "child", Some("base"), &[Entry::file("f", "x"), Entry::file("h", "")])?;
    let own = store.diff("child", None)?;
    equal("against the parent", store.diff("child", Some("base"))?, own)?;
    diff_is(store.as_ref(), "child", &[Entry::file("f", "x"), Entry::file("h", "")])
}

fn diff_grandparent(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(
        store.as_ref(),
        "base",
        None,
        &[
            Entry::directory("d"),
            Entry::file("d/kept", "k"),
            Entry::file("d/old", "o"),
            Entry::file("gone", ""),
        ],
    )?;
    layer(
        store.as_ref(),
        "middle",
        Some("base"),
        &[Entry::file("from-middle", "m"), Entry::whiteout("gone")],
    )?;
    layer(store.as_ref(), "top", Some("middle"), &[Entry::directory("d"), Entry::file("d/old", "new")])?;
    let found = crate::tar::read(&store.diff("top", Some("base"))?.archive)?;
    let expected = [
        Entry::directory("d"),
        Entry::file("d/old", "new"),
        Entry::file("from-middle", "m"),
        Entry::whiteout("gone"),
    ];
    Ok(crate::check::same_entries(&found, &expected)?)
}

fn diff_itself(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "x")])?;
    layer(store.as_ref(), "child", Some("base"), &[Entry::file("g", "x")])?;
    holds("it is 1,024 zeros", store.diff("child", Some("child"))?.archive == ZEROS)?;
    Ok(())
}
