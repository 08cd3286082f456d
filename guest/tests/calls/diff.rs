//! The archive of a layer's own content.

use layerbox_guest::host::{Error, IdMaps, IdRange};
use nix::sys::stat::SFlag;

use crate::store::{DIALECTS, Layer, Store, TIME, members, set_time};

/// What makes a layer, and the members that its archive has.
type Case = (&'static str, fn(Layer) -> Layer, &'static [&'static str]);

const CASES: &[Case] = &[
    ("an empty layer, whatever the time of its root", |layer| layer, &[]),
    ("an empty layer whose root says something", |layer| layer.mode("", 0o700), &["d /"]),
    (
        "content and kinds",
        |layer| {
            layer
                .file("b/file", "x")
                .symlink("b/link", "/etc/passwd")
                .node("b/pipe", SFlag::S_IFIFO, 0)
                .device("b/null", 1, 3)
                .directory("a")
        },
        &["d /", "d a/", "d b/", "f b/file", "l b/link -> /etc/passwd", "c b/null 1:3", "p b/pipe"],
    ),
    (
        "order by components, not by bytes of the path",
        |layer| layer.file("a/x", "").file("a.b", ""),
        &["d /", "d a/", "f a/x", "f a.b"],
    ),
    (
        "whiteouts at the place of what they hide",
        |layer| {
            layer
                .file("a", "")
                .hide("b")
                .file("c", "")
                .hide("!first")
                .file(".bashrc", "")
                .hide("zz")
                .hide(".x")
        },
        &["d /", "f .wh.!first", "f .bashrc", "f .wh..x", "f a", "f .wh.b", "f c", "f .wh.zz"],
    ),
    (
        "an opaque directory, marked right behind it",
        |layer| layer.opaque("d").file("d/!", "").file("d/a", ""),
        &["d /", "d d/", "f d/.wh..wh..opq", "f d/!", "f d/a"],
    ),
    ("an opaque root", |layer| layer.opaque("").file("a", ""), &["d /", "f .wh..wh..opq", "f a"]),
    (
        "hard links, to the first name in the order of the archive",
        |layer| {
            layer.file("z", "linked").link("a/first", "z").link("m", "z").symlink("s", "z").link("t", "s")
        },
        &["d /", "d a/", "f a/first", "h m = a/first", "l s -> z", "h t = s", "h z = a/first"],
    ),
    ("names of any bytes", |layer| layer.file(b"\xff\n\x1b", "x"), &["d /", "f \\xff\\n\\x1b"]),
    ("sockets are left out, and do not count as content", |layer| layer.socket("s"), &[]),
];

#[test]
fn the_archive_of_a_layer_is_the_same_in_every_dialect() {
    for (what, make, expected) in CASES {
        let archives = DIALECTS.map(|dialect| {
            let store = Store::new(dialect);
            make(store.layer("a", &[]));
            let archive = store.diff("a", None);
            assert_eq!(members(&archive), *expected, "{what}, {dialect:?}");
            archive
        });
        assert_eq!(archives[0], archives[1], "{what}: the same bytes");
        if expected.is_empty() {
            assert_eq!(archives[0], [0; 1024], "{what}");
        }
    }
}

#[test]
fn whiteouts_that_lie_in_an_opaque_directory_are_archived_and_not_applied() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("a", &[]).opaque("d").hide("d/x");
        let archive = store.diff("a", None);
        assert_eq!(members(&archive), ["d /", "d d/", "f d/.wh..wh..opq", "f d/.wh.x"], "{dialect:?}");
        store.apply("b", &archive);
        assert_eq!(members(&store.diff("b", None)), ["d /", "d d/", "f d/.wh..wh..opq"], "{dialect:?}");
    }
}

#[test]
fn applying_an_archive_and_archiving_the_layer_gives_the_same_bytes() {
    for (what, make, _) in CASES {
        for from in DIALECTS {
            let store = Store::new(from);
            make(store.layer("a", &[]));
            let archive = store.diff("a", None);
            let size = store.size("a");
            for to in DIALECTS {
                let other = Store::new(to);
                assert_eq!(other.apply("b", &archive), size, "{what}, {from:?} to {to:?}");
                assert_eq!(other.size("b"), size, "{what}, {from:?} to {to:?}");
                assert!(
                    other.diff("b", None) == archive,
                    "{what}, {from:?} to {to:?}: {:?}",
                    members(&other.diff("b", None))
                );
            }
        }
    }
}

#[test]
fn contents_attributes_and_large_trees_come_through() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let layer = store.layer("a", &[]);
        // More than goes over in one call, by number and by size.
        for number in 0..1500 {
            std::fs::write(layer.path.join(format!("{number:04}")), vec![number as u8; number % 700])
                .unwrap();
        }
        let big: Vec<u8> = (0..1_000_003_u32).map(|number| (number >> 3) as u8).collect();
        let layer = layer
            .file("big", &big)
            .owner("big", 70_000, 3_000_000)
            .xattr("big", "user.mime_type", b"text/\0binary")
            .mode("big", 0o6755)
            .xattr(
                "big",
                "security.capability",
                &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            )
            .time("big", TIME, 123_456_789);
        drop(layer);
        let archive = store.diff("a", None);
        let other = Store::new(dialect);
        let totals = other.apply("b", &archive);
        assert_eq!(totals, store.size("a"), "{dialect:?}");
        assert_eq!(totals.entries, 1501, "{dialect:?}");
        assert!(other.diff("b", None) == archive, "{dialect:?}");
        assert!(std::fs::read(other.path("b").join("big")).unwrap() == big, "{dialect:?}");
    }
}

#[test]
fn no_archive_begins_like_a_packed_stream() {
    for name in [&b"PK\x03\x04"[..], b"\x1f\x8b\x08", b"\x50\x2a\x4d\x18\xf8\x01", b"\xfd7zXZ", b"BZhang"] {
        for dialect in DIALECTS {
            let store = Store::new(dialect);
            let layer = store.layer("a", &[]).file(name, "x");
            // A root that says nothing has no entry otherwise.
            set_time(&layer.path, 0, 0);
            let archive = store.diff("a", None);
            let shown = format!("f {}", name.escape_ascii());
            assert_eq!(members(&archive), ["d /", &shown], "{dialect:?}");
            let copy = Store::new(dialect);
            copy.apply("b", &archive);
            assert!(copy.diff("b", None) == archive, "{dialect:?}, {shown}");
        }
    }
}

#[test]
fn sockets_are_told() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("a", &[]).socket("d/s").file("d/f", "12345");
        let (_, outcome) = store.try_diff("a", None).unwrap();
        assert_eq!(outcome.skipped, [b"d/s"], "{dialect:?}");
        assert_eq!((outcome.totals.entries, outcome.totals.bytes), (2, 5), "{dialect:?}");
        assert_eq!(store.size("a"), outcome.totals, "{dialect:?}");
    }
}

#[test]
fn sockets_hide_what_layers_below_may_have() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.layer("base", &[]);
        let is_aufs = dialect == DIALECTS[0];
        let make = |id: &str, parents: &[&str]| {
            let mut layer = store.layer(id, parents).directory("d").directory("d/e");
            for copied in ["d", "d/e"].iter().filter(|_| !is_aufs) {
                layer = layer.xattr(copied, "trusted.overlay.origin", b"");
            }
            layer
                .socket("d/e/s")
                .file("d/new/f", "")
                .opaque("o")
                .directory("o/in")
                .socket("o/in/s")
                .socket("o/s")
                .socket("o.s");
        };
        make("a", &["base"]);
        let (archive, outcome) = store.try_diff("a", None).unwrap();
        let rest = ["d d/new/", "f d/new/f", "d o/", "f o/.wh..wh..opq", "d o/in/", "f .wh.o.s"];
        let expected = [&["d /", "d d/", "d d/e/", "f d/e/.wh.s"], &rest[..]].concat();
        assert_eq!(members(&archive), expected, "{dialect:?}");
        assert_eq!(outcome.skipped.len(), 4, "{dialect:?}");
        make("b", &[]);
        let expected: Vec<_> = expected.into_iter().filter(|member| !member.ends_with('s')).collect();
        assert_eq!(members(&store.diff("b", None)), expected, "{dialect:?}");
        if !is_aufs {
            // Made in the union: nothing of it is below.
            store.layer("c", &["base"]).directory("made").socket("made/s");
            assert_eq!(members(&store.diff("c", None)), ["d /", "d made/"]);
        }
    }
}

#[test]
fn bookkeeping_and_strange_whiteouts_of_aufs() {
    let store = Store::new(crate::store::DIALECTS[0]);
    store
        .layer("a", &[])
        .file(".wh..wh.plnk/12.34", "pseudo link")
        .directory(".wh..wh.orph")
        .file("d/.wh.not-empty", "content")
        .symlink("d/.wh.link", "/etc/passwd")
        .file("d/.wh.directory/inside", "")
        .file("d/.wh..wh.opq", "")
        .file("d/.wh.both", "")
        .file("d/both", "")
        .file("e/x", "")
        .file(".wh.e", "");
    let expected = [
        "d /",
        "d d/",
        "f d/both",
        "f d/.wh.directory",
        "f d/.wh.link",
        "f d/.wh.not-empty",
        "d e/",
        "f e/.wh..wh..opq",
        "f e/x",
    ];
    assert_eq!(members(&store.diff("a", None)), expected);
    assert_eq!(store.size("a").entries, 4);
}

#[test]
fn what_an_archive_cannot_say_is_an_error() {
    let long = "x".repeat(252);
    type Made<'a> = Box<dyn Fn(Layer) -> Layer + 'a>;
    let cases: [(&str, usize, Made<'_>); 5] = [
        ("a deletion whose name would be too long", 1, Box::new(|layer| layer.device(&long, 0, 0))),
        ("a device that would mean a deletion", 0, Box::new(|layer| layer.device("d/null", 0, 0))),
        ("a name that would mean a deletion", 1, Box::new(|layer| layer.file("d/.wh.x", ""))),
        (
            "content that is elsewhere",
            1,
            Box::new(|layer| layer.directory("d").xattr("d", "trusted.overlay.redirect", b"/other")),
        ),
        ("an owner that is not mapped", 0, Box::new(|layer| layer.file("a", "").owner("a", 5, 5))),
    ];
    for (what, dialect, make) in cases {
        let store = Store::new(DIALECTS[dialect]);
        make(store.layer("a", &[]));
        let range = IdRange { inside: 0, outside: 0, length: 5 };
        let maps = IdMaps { uids: vec![range], gids: vec![range] };
        let sink = crate::host::Sink::new();
        let found = layerbox_guest::differ::Differ::new(&store.records, &store).diff("a", None, maps, &sink);
        assert!(matches!(found, Err(Error::Unsupported(_))), "{what}: {found:?}");
    }
}

#[test]
fn attributes_of_overlayfs_stay_out() {
    let store = Store::new(DIALECTS[1]);
    let layer = store.layer("a", &[]).directory("d");
    let before = store.diff("a", None);
    layer.xattr("d", "trusted.overlay.impure", b"y").xattr("d", "trusted.overlay.origin", b"\0");
    assert!(store.diff("a", None) == before);
}

#[test]
fn labels_of_the_host_stay_out() {
    let label = |layer: Layer, name: &str| {
        ["security.selinux", "security.SMACK64", "security.evm"]
            .into_iter()
            .fold(layer, |layer, key| layer.xattr(name, key, b"label"))
    };
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let layer = label(store.layer("a", &[]).mode("", 0o755), "");
        assert_eq!(store.diff("a", None), layerbox_guest::archive::TRAILER, "{dialect:?}: an empty layer");
        let layer = layer.directory("d").file("d/f", "x").hide("gone");
        let before = store.diff("a", None);
        let layer = label(label(layer, "d"), "d/f");
        assert!(store.diff("a", None) == before, "{dialect:?}");
        // Nor is a directory another one for its label alone.
        store.layer("b", &[]).directory("d").time("d", crate::store::TIME, 0);
        label(store.layer("c", &[]).directory("d"), "d");
        assert_eq!(store.diff("c", Some("b")), layerbox_guest::archive::TRAILER, "{dialect:?}: the same");
        layer.xattr("d/f", "security.ima", b"\x04");
        assert!(store.diff("a", None) != before, "{dialect:?}: a signature is content");
    }
}

#[test]
fn trees_as_deep_as_names_can_be() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let deep = vec!["d"; 700].join("/");
        let layer = store.layer("a", &[]);
        let mut at = std::fs::File::open(&layer.path).map(std::os::fd::OwnedFd::from).unwrap();
        for _ in deep.split('/') {
            nix::sys::stat::mkdirat(&at, "d", nix::sys::stat::Mode::S_IRWXU).unwrap();
            let flags = nix::fcntl::OFlag::O_RDONLY | nix::fcntl::OFlag::O_DIRECTORY;
            at = nix::fcntl::openat(&at, "d", flags, nix::sys::stat::Mode::empty()).unwrap();
        }
        let archive = store.diff("a", None);
        let found = members(&archive);
        assert_eq!(found.len(), 701, "{dialect:?}");
        assert_eq!(found.last().unwrap(), &format!("d {deep}/"), "{dialect:?}");
        let other = Store::new(dialect);
        assert_eq!(other.apply("b", &archive).entries, 700, "{dialect:?}");
        assert!(other.diff("b", None) == archive, "{dialect:?}");
        assert_eq!(store.changes("a", None).len(), 700, "{dialect:?}");
    }
}
