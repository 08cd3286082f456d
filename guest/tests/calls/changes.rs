//! What differs between a layer and its parent, or another layer.

use layerbox_guest::host::Dialect;

use crate::store::{DIALECTS, Layer, Store, TIME};

/// What makes two layers and the one on them, and what is listed of the upper one.
type Case = (&'static str, [fn(Layer) -> Layer; 3], &'static [&'static str]);

/// Layers from the lowest up.
const CASES: &[Case] = &[
    ("nothing", [|l| l.file("a/b", ""), |l| l, |l| l], &[]),
    (
        "new, changed and gone",
        [
            |l| l.file("d/changed", "old").file("d/gone", "").file("d/same", ""),
            |l| l,
            |l| l.file("d/changed", "newer").hide("d/gone").file("d/new", ""),
        ],
        &["C /d", "C /d/changed", "D /d/gone", "A /d/new"],
    ),
    (
        "a file that was copied up and not changed",
        [|l| l.file("d/f", "x"), |l| l, |l| l.file("d/f", "x")],
        &[],
    ),
    (
        "a directory that was copied up and not changed",
        [|l| l.file("d/f", "x"), |l| l, |l| l.directory("d")],
        &[],
    ),
    (
        "a mode",
        [|l| l.file("d/f", "x"), |l| l, |l| l.file("d/f", "x").mode("d/f", 0o600)],
        &["C /d", "C /d/f"],
    ),
    (
        "the mode of a directory",
        [|l| l.directory("d"), |l| l, |l| l.directory("d").mode("d", 0o700)],
        &["C /d"],
    ),
    ("an owner", [|l| l.file("f", "x"), |l| l, |l| l.file("f", "x").owner("f", 1, 0)], &["C /f"]),
    ("a time", [|l| l.file("f", "x"), |l| l, |l| l.file("f", "x").time("f", TIME + 1, 0)], &["C /f"]),
    (
        "a time of which an archive lost the nanoseconds",
        [|l| l.file("f", "x"), |l| l, |l| l.file("f", "x").time("f", TIME, 5)],
        &[],
    ),
    (
        "the time of a directory does not count",
        [|l| l.directory("d"), |l| l, |l| l.directory("d").time("d", 5, 0)],
        &[],
    ),
    (
        "capabilities",
        [
            |l| l.file("f", "x").mode("f", 0o755),
            |l| l,
            |l| {
                l.file("f", "x").mode("f", 0o755).xattr(
                    "f",
                    "security.capability",
                    &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                )
            },
        ],
        &["C /f"],
    ),
    (
        "other attributes do not count",
        [
            |l| l.file("f", "x").mode("f", 0o755),
            |l| l,
            |l| l.file("f", "x").mode("f", 0o755).xattr("f", "user.a", b"b"),
        ],
        &[],
    ),
    (
        "another kind, and what is below it",
        [|l| l.file("d/x", "").file("f", ""), |l| l, |l| l.file("d", "").file("f/y/z", "")],
        &["C /d", "C /f", "A /f/y", "A /f/y/z"],
    ),
    ("the target of a link", [|l| l.symlink("l", "one"), |l| l, |l| l.symlink("l", "two")], &["C /l"]),
    (
        "a new directory, with all in it",
        [|l| l, |l| l, |l| l.file("n/m/f", "").file("n/a", "")],
        &["A /n", "A /n/a", "A /n/m", "A /n/m/f"],
    ),
    ("of what is gone, the top", [|l| l.file("d/e/f", ""), |l| l, |l| l.hide("d")], &["D /d"]),
    (
        "the deletion of what the parent had deleted",
        [|l| l.file("d/f", ""), |l| l.hide("d/f"), |l| l.hide("d/f")],
        &[],
    ),
    ("the deletion of what was never there", [|l| l.directory("d"), |l| l, |l| l.hide("d/x").hide("y")], &[]),
    (
        "what the parent had deleted is new",
        [|l| l.file("d/f", "x"), |l| l.hide("d/f"), |l| l.file("d/f", "x")],
        &["C /d", "A /d/f"],
    ),
    (
        "what an ancestor hides does not count",
        [
            |l| l.file("d/old", ""),
            |l| l.opaque("d").file("d/f", "x"),
            |l| l.file("d/f", "x").file("d/old", ""),
        ],
        &["C /d", "A /d/old"],
    ),
    (
        "what an opaque directory hides",
        [
            |l| l.file("d/a", "").file("d/sub/x", "").file("d/deep/y", ""),
            |l| l.file("d/b", ""),
            |l| l.opaque("d").file("d/b", "").file("d/new", "").file("d/deep/z", ""),
        ],
        &["C /d", "D /d/a", "C /d/deep", "D /d/deep/y", "A /d/deep/z", "A /d/new", "D /d/sub"],
    ),
    (
        "a directory that was deleted and made again",
        [|l| l.file("d/a", ""), |l| l, |l| l.opaque("d").file("d/a", "")],
        &[],
    ),
    (
        "an opaque root",
        [|l| l.file("a", "").file("d/b", ""), |l| l, |l| l.opaque("").file("d/c", "")],
        &["D /a", "C /d", "D /d/b", "A /d/c"],
    ),
    (
        "an opaque root further down",
        [|l| l.file("a", ""), |l| l.opaque("").file("b", ""), |l| l.file("a", "").hide("b")],
        &["A /a", "D /b"],
    ),
    (
        "a directory over a file, over a directory",
        [|l| l.file("d/low", ""), |l| l.file("d", ""), |l| l.file("d/high", "")],
        &["C /d", "A /d/high"],
    ),
    (
        "a symlink is not followed",
        [|l| l.file("real/f", "").symlink("link", "real"), |l| l, |l| l.file("link/f", "")],
        &["C /link", "A /link/f"],
    ),
    (
        "the order of bytes of the path",
        [|l| l, |l| l, |l| l.file("a/x", "").file("a.b", "")],
        &["A /a", "A /a.b", "A /a/x"],
    ),
    (
        "sockets and devices",
        [|l| l.device("dev", 1, 3), |l| l, |l| l.device("dev", 1, 5).socket("s")],
        &["C /dev", "A /s"],
    ),
];

fn stack(dialect: Dialect, layers: &[fn(Layer) -> Layer; 3]) -> Store {
    let store = Store::new(dialect);
    layers[0](store.layer("low", &[]));
    layers[1](store.layer("middle", &["low"]));
    layers[2](store.layer("top", &["middle", "low"]));
    store
}

#[test]
fn changes_against_the_parent() {
    for (what, layers, expected) in CASES {
        for dialect in DIALECTS {
            let store = stack(dialect, layers);
            assert_eq!(store.changes("top", None), *expected, "{what}, {dialect:?}");
            assert_eq!(store.changes("top", Some("middle")), *expected, "{what}, {dialect:?}");
        }
    }
}

#[test]
fn changes_against_any_layer_are_those_between_the_trees() {
    for (what, layers, expected) in CASES {
        for dialect in DIALECTS {
            let store = stack(dialect, layers);
            assert!(store.changes("top", Some("top")).is_empty(), "{what}");
            // The same layers under other names: nothing is shared, so all is compared by what is there.
            layers[0](store.layer("low2", &[]));
            layers[1](store.layer("middle2", &["low2"]));
            assert_eq!(store.changes("top", Some("middle2")), *expected, "{what}, {dialect:?}");
            assert!(store.changes("middle", Some("middle2")).is_empty(), "{what}, {dialect:?}");
        }
    }
}

#[test]
fn changes_backwards() {
    for dialect in DIALECTS {
        let store = stack(
            dialect,
            &[
                |l| l.file("d/changed", "old").file("d/gone", "").file("same", ""),
                |l| l,
                |l| l.file("d/changed", "newer").hide("d/gone").file("d/new", ""),
            ],
        );
        assert_eq!(
            store.changes("low", Some("top")),
            ["C /d", "C /d/changed", "A /d/gone", "D /d/new"],
            "{dialect:?}"
        );
    }
}

#[test]
fn a_base_layer_is_all_new() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("a", &[]).file("d/f", "").hide("d/gone").opaque("o").file(".bashrc", "");
        assert_eq!(store.changes("a", None), ["A /.bashrc", "A /d", "A /d/f", "A /o"], "{dialect:?}");
    }
}

#[test]
fn many_names_in_one_directory() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let fill = |layer: &Layer, names: std::ops::Range<u32>| {
            for number in names {
                std::fs::write(layer.path.join(format!("{number:05}")), "x").unwrap();
            }
        };
        fill(&store.layer("low", &[]), 0..2600);
        let top = store.layer("top", &["low"]);
        fill(&top, 1300..3900);
        // Without `settle` the times of the two differ or not by chance; a size always does.
        std::fs::write(top.path.join("01300"), "longer").unwrap();
        let top = top.hide("00001");
        drop(store.layer("unused", &[]));
        let changes = store.changes("top", None);
        assert!(
            changes.contains(&"D /00001".to_owned()) && changes.contains(&"C /01300".to_owned()),
            "{dialect:?}"
        );
        assert_eq!(changes.iter().filter(|it| it.starts_with('A')).count(), 1300, "{dialect:?}");
        drop(top);
    }
}
