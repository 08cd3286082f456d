//! What is not filled in: what no layer holds, arguments out of their bounds, more than the limits, and what
//! the file system does not take.

use super::*;

#[test]
fn what_no_layer_holds_is_refused() {
    let attributes = |change: fn(&mut Attributes)| {
        let mut e = file("f", b"");
        change(&mut e.attributes);
        e
    };
    let device = |major, minor| entry("d", Kind::BlockDevice(Device { major, minor }));
    let rows = vec![
        ("owner", attributes(|a| a.uid = u32::MAX)),
        ("group", attributes(|a| a.gid = u32::MAX)),
        ("foreign namespace", attributes(|a| a.xattrs = vec![xattr("system.nfs4_acl", b"")])),
        ("no namespace", attributes(|a| a.xattrs = vec![xattr("x", b"")])),
        ("only a namespace", attributes(|a| a.xattrs = vec![xattr("user.", b"")])),
        ("NUL in an attribute", attributes(|a| a.xattrs = vec![xattr("user.a\0b", b"")])),
        ("root is a file", file("", b"")),
        ("root is a link", link("", "x")),
        ("empty target", link("l", "")),
        ("long target", link("l", vec![b'x'; 4096])),
        ("NUL in a target", link("l", "a\0b")),
        ("device", device(8, 0)),
        ("major", device(4096, 0)),
        ("minor", device(0, 1 << 20)),
        ("char device", entry("d", Kind::CharacterDevice(Device { major: 1, minor: 3 }))),
    ];
    for (case, row) in rows {
        let Some(scene) = Scene::new("refused") else { return };
        let mut filler = Filler::new(scene.dir(), Policy { devices: false, ..ANYTHING }).unwrap();
        let named = row.name.as_bytes().to_vec();
        match filler.put(row, None) {
            Err(Error::Refused { entry, .. }) => assert_eq!(entry, named, "{case}"),
            other => panic!("{case}: {other:?}"),
        }
        filler.put(entry("w", Kind::CharacterDevice(Device::default())), None).unwrap();
    }
}

#[test]
fn refusals_of_extended_attributes_say_which_and_why() {
    let long = format!("user.{}", "n".repeat(1000));
    let rows = [
        (xattr("com.apple.x", b"v"), "layers do not hold the extended attribute `com.apple.x`".into()),
        (xattr("user.a\n\0", b"v"), "layers do not hold the extended attribute `user.a\\n\\x00`".into()),
        (xattr(&long, b"v"), format!("layers do not hold the extended attribute `{}`", &long[..255])),
        (
            xattr("user.large", &[7; 65_537]),
            "the extended attribute `user.large` is larger than 65536 bytes".into(),
        ),
    ];
    for (attribute, says) in rows {
        let Some(scene) = Scene::new("says") else { return };
        let mut it = file("f", b"");
        it.attributes.xattrs = vec![attribute];
        match scene.filler().put(it, None) {
            Err(Error::Refused { rule, .. }) => assert_eq!(rule, says),
            other => panic!("{says}: {other:?}"),
        }
    }
}

#[test]
fn arguments_out_of_bounds_are_invalid() {
    let with = |body, e: Entry| Entry { body, ..e };
    let extent = |offset, length, position| Extent { offset, length, position };
    let three = |body| with(body, entry("f", Kind::File(3)));
    let mut rows = vec![
        three(Body::Bytes(vec![0; 2])),
        three(Body::Bytes(vec![0; 4])),
        three(Body::Extents(vec![extent(0, 4, 0)])),
        three(Body::Extents(vec![extent(1, u64::MAX, 0)])),
        three(Body::Extents(vec![extent(1, 1, 0), extent(0, 1, 1)])),
        three(Body::Extents(vec![extent(0, 2, 0), extent(1, 1, 2)])),
        three(Body::Stream(11)),
        with(Body::Bytes(vec![]), dir("d")),
        with(Body::Later, link("l", "x")),
        entry("s", Kind::Socket),
    ];
    let mut mode = dir("d");
    mode.attributes.mode = 0o10000;
    rows.push(mode);
    let mut nanoseconds = dir("d");
    nanoseconds.attributes.mtime.nanoseconds = 1_000_000_000;
    rows.push(nanoseconds);
    for row in rows {
        let Some(scene) = Scene::new("invalid") else { return };
        let mut source = Source::new(Box::new(std::io::Cursor::new(vec![1; 100])));
        source.read(10).unwrap();
        let mut filler = scene.filler();
        let outcome = filler.put(row.clone(), Some(&mut source));
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{row:?}: {outcome:?}");
    }
    let Some(scene) = Scene::new("invalid") else { return };
    let mut filler = scene.filler();
    assert!(matches!(filler.put(three(Body::Stream(0)), None), Err(Error::InvalidArgument(_))), "no source");
    assert!(matches!(filler.finish(), Err(Error::InvalidArgument(_))), "a file that came in part only");
    let Some(scene) = Scene::new("invalid") else { return };
    let mut filler = scene.filler();
    assert!(matches!(filler.fill(0, vec![1]), Err(Error::InvalidArgument(_))), "nothing to fill");
    filler.put(Entry { name: name("g"), ..three(Body::Later) }, None).unwrap();
    filler.fill(2, vec![1]).unwrap();
    assert!(matches!(filler.fill(3, vec![1]), Err(Error::InvalidArgument(_))), "past the end");
    assert!(matches!(filler.fill(u64::MAX, vec![1]), Err(Error::InvalidArgument(_))), "past all ends");
    filler.finish().unwrap();
    assert!(filler.put(dir("d"), None).is_err(), "after the end");
    assert!(filler.finish().is_err(), "twice");
    assert!(matches!(Filler::new(scene.dir(), ANYTHING), Err(Error::Conflict(_))), "not empty");
}

#[test]
fn limits_stop_the_filling() {
    let rows: Vec<(&str, Policy, Vec<Entry>, bool)> = vec![
        ("entries reached", Policy { max_entries: 2, ..ANYTHING }, vec![dir("a"), dir("b")], true),
        ("entries passed", Policy { max_entries: 2, ..ANYTHING }, vec![dir("a"), dir("b"), dir("c")], false),
        ("by parents", Policy { max_entries: 2, ..ANYTHING }, vec![dir("a/b/c")], false),
        (
            "by replacing",
            Policy { max_entries: 2, ..ANYTHING },
            vec![file("a", b""), file("a", b""), file("a", b"")],
            false,
        ),
        (
            "directories reached",
            Policy { max_directories: 2, ..ANYTHING },
            vec![dir("a/b"), file("c", b""), dir("a")],
            true,
        ),
        (
            "directories passed",
            Policy { max_directories: 2, ..ANYTHING },
            vec![dir("a/b"), file("d/c", b"")],
            false,
        ),
        (
            "directories that went are not counted",
            Policy { max_directories: 2, ..ANYTHING },
            vec![dir("a/b"), file("a", b""), dir("d/c")],
            true,
        ),
        (
            "by a directory over itself",
            Policy { max_entries: 2, ..ANYTHING },
            vec![dir("a"), dir("a"), dir("a")],
            false,
        ),
        (
            "by the root over itself",
            Policy { max_entries: 2, ..ANYTHING },
            vec![dir(""), dir(""), dir("")],
            false,
        ),
        (
            "bytes reached",
            Policy { max_bytes: 4, ..ANYTHING },
            vec![file("a", b"12"), file("b", b"34")],
            true,
        ),
        (
            "bytes passed",
            Policy { max_bytes: 4, ..ANYTHING },
            vec![file("a", b"12"), file("b", b"345")],
            false,
        ),
        (
            "bytes of attributes",
            Policy { max_bytes: 35, ..ANYTHING },
            vec![marked("a", 2, 10), marked("b", 1, 10)],
            false,
        ),
        (
            "bytes of a directory's attributes",
            Policy { max_bytes: 9, ..ANYTHING },
            vec![Entry { kind: Kind::Directory, ..marked("a", 1, 10) }],
            false,
        ),
        (
            "bytes of targets",
            Policy { max_bytes: 4, ..ANYTHING },
            vec![link("a", "12"), link("b", "345")],
            false,
        ),
        (
            "attributes of hard links are not set",
            Policy { max_bytes: 17, ..ANYTHING },
            vec![marked("a", 1, 10), Entry { kind: Kind::HardLink(name("a")), ..marked("b", 1, 10) }],
            true,
        ),
        (
            "holes count as files show them",
            Policy { max_bytes: 1 << 40, ..ANYTHING },
            vec![entry("a", Kind::File(1 << 40)), entry("b", Kind::File(1))],
            false,
        ),
        (
            "as many holes as may be",
            Policy { max_bytes: 1 << 40, ..ANYTHING },
            vec![entry("a", Kind::File(1 << 40))],
            true,
        ),
        ("no such size", ANYTHING, vec![entry("a", Kind::File(u64::MAX))], false),
        ("attributes", ANYTHING, vec![marked("a", 64, 10)], true),
        ("one attribute more", ANYTHING, vec![marked("a", 65, 10)], false),
        ("bytes of one entry's attributes", ANYTHING, vec![marked("a", 17, 62_000)], false),
        (
            "those of a directory",
            ANYTHING,
            vec![Entry { kind: Kind::Directory, ..marked("a", 65, 10) }],
            false,
        ),
    ];
    for (case, policy, entries, good) in rows {
        let Some(scene) = Scene::new("limits") else { return };
        let mut filler = Filler::new(scene.dir(), policy).unwrap();
        let put = entries.into_iter().try_for_each(|e| filler.put(e, None));
        let finished = filler.finish();
        if let Err(limit) = &put {
            assert_eq!(finished.as_ref(), Err(limit), "{case}: whoever goes on gets no further");
        }
        match put.and(finished) {
            Ok(_) => assert!(good, "{case}"),
            Err(Error::Limit { entry, .. }) => assert!(!good && entry.is_some(), "{case}"),
            Err(other) => panic!("{case}: {other}"),
        }
    }
}

/// An empty file with so many attributes of so many bytes.
fn marked(name: &str, count: usize, length: usize) -> Entry {
    let mut it = entry(name, Kind::File(0));
    it.attributes.xattrs = (0..count).map(|n| xattr(&format!("user.{n:02}"), &vec![0; length])).collect();
    it
}

#[test]
fn errors_of_work_under_way_are_told_with_the_entry() {
    let Some(scene) = Scene::new("later-errors") else { return };
    let mut filler = scene.filler();
    // user.* attributes must fit; 64 KiB in one value does not on most file systems, so take one that no
    // kernel accepts.
    let mut bad = file("bad", b"x");
    bad.attributes.xattrs = vec![xattr("security.capability", b"nonsense")];
    let put = filler.put(bad, None);
    let outcome = (0..100).try_fold((), |(), index| filler.put(file(&format!("f{index}"), b"x"), None));
    let told = put.and(outcome).and_then(|()| filler.finish()).unwrap_err();
    match told {
        Error::Refused { entry, rule } => {
            assert_eq!(entry, b"bad");
            assert!(rule.contains("security.capability"), "{rule}");
        }
        other => panic!("{other}"),
    }
    assert!(filler.finish().is_err(), "and stays");
}

#[test]
fn attributes_too_large_for_the_file_system_are_the_archives_fault() {
    // On ext4 one block holds all of a file's. Others hold them.
    let big = |kind| {
        let mut it = entry("big", kind);
        it.attributes.xattrs = vec![xattr("user.a", &[7; 5000])];
        it
    };
    for kind in [Kind::File(0), Kind::Directory] {
        let Some(scene) = Scene::new("large-attributes") else { return };
        match scene.fill(vec![big(kind)]) {
            Ok(_) => skip("large attributes: this file system takes them", false),
            Err(Error::Refused { entry, rule }) => {
                assert!(entry == b"big" && rule.contains("user.a"), "{rule}")
            }
            Err(other) => panic!("{other}"),
        }
    }
}
