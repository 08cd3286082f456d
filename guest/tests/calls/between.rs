//! The archive of what turns one tree into another.

use crate::store::{DIALECTS, Layer, Store, TIME, members};

/// What makes three layers, lowest first, and the members of the archive from the lowest tree to the
/// uppermost.
type Case = (&'static str, [fn(Layer) -> Layer; 3], &'static [&'static str]);

const CASES: &[Case] = &[
    ("nothing", [|l| l.file("a/b", ""), |l| l, |l| l], &[]),
    (
        "what two layers added, changed and hid",
        [
            |l| l.file("d/a", "").file("d/b", "").file("d/c", "").file("e/same", ""),
            |l| l.file("d/a", "changed").hide("d/b").directory("e"),
            |l| l.file("d/new", "").hide("d/c"),
        ],
        &["d /", "d d/", "f d/a", "f d/.wh.b", "f d/.wh.c", "f d/new"],
    ),
    ("what one added and the next hid", [|l| l, |l| l.file("x/y", ""), |l| l.hide("x")], &[]),
    (
        "a directory that is opaque further up",
        [|l| l.file("d/a", "").file("d/b", ""), |l| l.file("d/c", ""), |l| l.opaque("d").file("d/b", "new")],
        &["d /", "d d/", "f d/.wh.a", "f d/b"],
    ),
    (
        "a directory for a file, and a file for a directory",
        [|l| l.file("d/x", "").file("f", ""), |l| l, |l| l.file("d", "").file("f/y", "")],
        &["d /", "f d", "d f/", "f f/y"],
    ),
    (
        "attributes of a directory only",
        [|l| l.file("d/x", ""), |l| l, |l| l.directory("d").mode("d", 0o700)],
        &["d /", "d d/"],
    ),
    (
        "hard links within a layer",
        [|l| l.file("a", ""), |l| l.file("x", "1").link("y", "x"), |l| l.hide("x")],
        &["d /", "f y"],
    ),
    (
        "a file with other content, and the same size and time",
        [|l| l.file("f", "one"), |l| l, |l| l.file("f", "two")],
        &["d /", "f f"],
    ),
];

#[test]
fn the_difference_of_two_trees_is_the_same_in_every_dialect() {
    for (what, layers, expected) in CASES {
        let archives = DIALECTS.map(|dialect| {
            let store = Store::new(dialect);
            layers[0](store.layer("low", &[]));
            layers[1](store.layer("middle", &["low"]));
            layers[2](store.layer("top", &["middle", "low"]));
            let archive = store.diff("top", Some("low"));
            assert_eq!(members(&archive), *expected, "{what}, {dialect:?}");
            assert_eq!(members(&store.diff("top", Some("top"))), [""; 0], "{what}, {dialect:?}");

            // Over the lower tree, what was applied from the archive shows what the upper tree shows.
            store.apply("applied", &archive);
            let records = &store.records;
            let id = |text| layerbox_guest::layers::LayerId::parse(text).unwrap();
            records.remove(&id("applied")).unwrap();
            records.create(&id("applied"), &[id("low")]).unwrap();
            assert!(
                store.changes("applied", Some("top")).is_empty(),
                "{what}, {dialect:?}: {:?}",
                store.changes("applied", Some("top"))
            );
            archive
        });
        assert!(archives[0] == archives[1], "{what}: the same bytes");
    }
}

#[test]
fn from_a_layer_that_is_no_ancestor() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("base", &[]).file("kept/f", "").file("gone", "");
        store.layer("left", &["base"]).file("l", "").hide("gone");
        store.layer("right", &["base"]).file("r", "");
        assert_eq!(
            members(&store.diff("right", Some("left"))),
            ["d /", "f gone", "f .wh.l", "f r"],
            "{dialect:?}"
        );
        assert_eq!(store.changes("right", Some("left")), ["A /gone", "D /l", "A /r"], "{dialect:?}");
        // From nothing in common to all of it.
        store.layer("other", &[]).file("o", "").mode("", 0o711);
        let all = ["d /", "f gone", "d kept/", "f kept/f", "f .wh.o", "f r"];
        assert_eq!(members(&store.diff("right", Some("other"))), all, "{dialect:?}");
    }
}

#[test]
fn where_both_trees_share_all_layers_nothing_is_looked_at() {
    use layerbox_guest::changes::changes;
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("low", &[]).file("big/tree/f", "").file("d/a", "");
        store.layer("top", &["low"]).file("d/b", "").time("d/b", TIME, 0);
        let trees = ["top", "low"].map(|id| crate::host::Tree::new(&store.path(id), dialect));
        assert_eq!(changes(&trees, &[1], &[0, 1]).unwrap().iter().len(), 2, "{dialect:?}");
        let asked = trees[1].asked.borrow();
        assert!(
            !asked.iter().any(|what| what.contains("big") || what.starts_with("walk")),
            "{dialect:?}: {asked:?}"
        );
    }
}
