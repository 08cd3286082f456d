//! Filling: attributes, replacement, hard links, holes, limits.

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn attributes_come_out_as_they_were_put() {
    let Some(scene) = Scene::new("attributes") else { return };
    let mode = |mode: u32, uid: u32, e: Entry| {
        let attributes = Attributes { mode, uid, gid: uid + 1, ..e.attributes };
        Entry { attributes, ..e }
    };
    let with = |x: Vec<Xattr>, e: Entry| Entry { attributes: Attributes { xattrs: x, ..e.attributes }, ..e };
    // vfs_cap_data, version 2, cap_net_raw, effective.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    // posix_acl_xattr, version 2: user::rwx group::r-x other::r-x
    let acl = [
        2u8, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 0x20, 0, 5, 0, 255,
        255, 255, 255,
    ];
    let time = |seconds, nanoseconds, e: Entry| Entry {
        attributes: Attributes { mtime: Timestamp { seconds, nanoseconds }, ..e.attributes },
        ..e
    };
    let rows = vec![
        mode(0o755, 0, dir("")),
        mode(0o6755, 1000, with(vec![xattr("security.capability", &capability)], file("caps", b"x"))),
        with(vec![xattr("user.a", b"1"), xattr("user.b", &[0; 1000])], file("marked", b"x")),
        mode(0o0, 0, file("nothing allowed", b"x")),
        mode(0o1777, 0, dir("tmp")),
        mode(0o2775, 50, with(vec![xattr("system.posix_acl_default", &acl)], dir("shared"))),
        // Made in a directory that later passes its group and its list on: neither may arrive here.
        mode(0o640, 7, file("shared/f", b"f")),
        mode(0o500, 0, dir("closed")),
        file("closed/f", b""),
        mode(0o777, 3, with(vec![xattr("trusted.t", b"1")], link("symlink", "anywhere"))),
        mode(
            0o600,
            2,
            with(
                vec![xattr("trusted.t", b"2")],
                entry("zdevice", Kind::BlockDevice(Device { major: 4095, minor: 0xf_ffff })),
            ),
        ),
        mode(0o4600, 0, entry("zfifo", Kind::Fifo)),
        mode(0o600, 0, entry("zwhiteout", Kind::CharacterDevice(Device::default()))),
        time(-5, 999_999_999, file("ztime", b"")),
        time(4_000_000_000, 1, dir("ztimed")),
    ];
    scene.fill(rows.clone()).unwrap();
    let found = scene.walk(Detail::Full);
    assert_eq!(found.len(), rows.len());
    for row in rows {
        let node = found.iter().find(|node| node.name == row.name).unwrap();
        assert_eq!((&node.kind, &node.attributes), (&row.kind, &row.attributes), "{}", row.name);
    }
}

#[test]
fn missing_parents_and_the_root_get_fixed_attributes() {
    let Some(scene) = Scene::new("parents") else { return };
    let totals = scene.fill(vec![file("a/b/c", b"12345")]).unwrap();
    assert_eq!(totals, Totals { entries: 3, bytes: 5 });
    for node in scene.walk(Detail::Status).iter().filter(|node| node.kind == Kind::Directory) {
        let a = &node.attributes;
        assert_eq!((a.mode, a.uid, a.gid, a.mtime), (0o755, 0, 0, Timestamp::default()), "{}", node.name);
    }
}

#[test]
fn missing_parents_belong_to_root_of_the_id_map() {
    let Some(scene) = Scene::new("mapped") else { return };
    let policy = Policy { root: (100_000, 200_000), ..ANYTHING };
    let mut filler = Filler::new(scene.dir(), policy).unwrap();
    filler.put(file("a/b/c", b""), None).unwrap();
    filler.finish().unwrap();
    let owners: Vec<_> = scene
        .walk(Detail::Status)
        .iter()
        .filter(|node| node.kind == Kind::Directory && !node.name.is_root())
        .map(|node| (node.attributes.uid, node.attributes.gid))
        .collect();
    assert_eq!(owners, [(100_000, 200_000); 2]);
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    let char_device = || Kind::CharacterDevice(Device { major: 1, minor: 3 });
    let rows: Vec<(&str, Vec<Entry>, &str, Totals)> = vec![
        ("file over file", vec![file("a", b"1"), file("a", b"22")], " a", Totals { entries: 1, bytes: 2 }),
        (
            "file over link",
            vec![link("a", "../victim/hello"), file("a", b"2")],
            " a",
            Totals { entries: 1, bytes: 1 },
        ),
        (
            "file over full directory",
            vec![file("a/b/c", b"1"), link("a/l", "/"), file("a", b"22")],
            " a",
            Totals { entries: 1, bytes: 2 },
        ),
        (
            "directory over file",
            vec![file("a", b"1"), dir("a"), dir("a/b")],
            " a a/b",
            Totals { entries: 2, bytes: 0 },
        ),
        (
            "directory over directory",
            vec![file("a/b", b"1"), dir("a")],
            " a a/b",
            Totals { entries: 2, bytes: 1 },
        ),
        (
            "directory over link",
            vec![link("a", "."), dir("a"), dir("a/b")],
            " a a/b",
            Totals { entries: 2, bytes: 0 },
        ),
        (
            "link over directory, file below",
            vec![file("d/f", b"1"), link("d", "e"), dir("e"), file("d/g", b"22")],
            " d e e/g",
            Totals { entries: 3, bytes: 2 },
        ),
        (
            "directory again after link",
            vec![dir("a"), link("b", "a"), file("b/x", b"1"), dir("b"), file("b/y", b"1")],
            " a a/x b b/y",
            Totals { entries: 4, bytes: 2 },
        ),
        (
            "device over fifo",
            vec![entry("a", Kind::Fifo), entry("a", char_device())],
            " a",
            Totals { entries: 1, bytes: 0 },
        ),
        (
            "one of two hard links",
            vec![file("a", b"123"), hard("b", "a"), file("a", b"1")],
            " a b",
            Totals { entries: 2, bytes: 4 },
        ),
        (
            "hard link over file",
            vec![file("a", b"123"), file("b", b"1"), hard("b", "a")],
            " a b",
            Totals { entries: 2, bytes: 3 },
        ),
        (
            "hard link twice",
            vec![file("a", b"123"), hard("b", "a"), hard("b", "a")],
            " a b",
            Totals { entries: 2, bytes: 3 },
        ),
    ];
    for (case, entries, names, totals) in rows {
        let Some(scene) = Scene::new("replace") else { return };
        assert_eq!(scene.fill(entries).unwrap(), totals, "{case}");
        assert_eq!(scene.names().join(" "), names, "{case}");
    }
}

#[test]
fn a_directory_over_a_directory_takes_the_new_attributes() {
    let Some(scene) = Scene::new("merge") else { return };
    let first = Entry {
        attributes: Attributes {
            xattrs: vec![xattr("user.old", b"1")],
            mode: 0o700,
            ..Attributes::default()
        },
        ..dir("d")
    };
    scene.fill(vec![first, file("d/f", b"1"), dir("d")]).unwrap();
    let node = scene.tree().stat(&[name("d")], Detail::Full).unwrap().remove(0).unwrap();
    assert_eq!(node.attributes, dir("d").attributes);
}

#[test]
fn hard_links_name_what_was_put_and_nothing_else() {
    let rows: Vec<(&str, Vec<Entry>, bool)> = vec![
        ("to a file", vec![file("d/a", b"1"), hard("b", "d/a")], true),
        ("to a symbolic link", vec![link("a", "../victim/hello"), hard("b", "a")], true),
        ("to a fifo", vec![entry("a", Kind::Fifo), hard("b", "a")], true),
        ("to a directory", vec![dir("a"), hard("b", "a")], false),
        ("to the root", vec![hard("b", "")], false),
        ("to nothing", vec![hard("b", "a")], false),
        ("to itself", vec![file("a", b"1"), hard("a", "a")], false),
        ("over a symbolic link", vec![file("d/a", b"1"), link("l", "d"), hard("b", "l/a")], false),
        ("over a link that leads out", vec![link("l", "../victim"), hard("b", "l/hello")], false),
        ("over a file", vec![file("f", b"1"), hard("b", "f/x")], false),
        ("to what it replaces", vec![file("d/a", b"1"), hard("d", "d/a")], false),
    ];
    for (case, entries, good) in rows {
        let Some(scene) = Scene::new("hard") else { return };
        match scene.fill(entries) {
            Ok(_) => {
                assert!(good, "{case}");
                let nodes = scene.walk(Detail::Status);
                let same: Vec<_> = nodes.iter().filter(|node| node.kind != Kind::Directory).collect();
                assert_eq!((same[0].inode, same[0].links), (same[1].inode, 2), "{case}");
            }
            Err(Error::Refused { entry, .. }) => assert!(!good && !entry.is_empty(), "{case}"),
            Err(other) => panic!("{case}: {other}"),
        }
    }
}

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
        ("holes are free", Policy { max_bytes: 4, ..ANYTHING }, vec![entry("a", Kind::File(1 << 40))], true),
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
        let outcome =
            entries.into_iter().try_for_each(|e| filler.put(e, None)).and_then(|()| filler.finish());
        match outcome {
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
fn bodies_arrive_whole_whichever_way_they_come() {
    let Some(scene) = Scene::new("bodies") else { return };
    let bytes: Vec<u8> = (0..12_000_000u32).map(|index| (index % 251) as u8 + 1).collect();
    let mut source = Source::new(Box::new(std::io::Cursor::new(bytes.clone())));
    let mut filler = scene.filler();
    let mut expected: Vec<(String, Vec<u8>)> = Vec::new();
    let mut position = 0usize;
    for (index, length) in (0..200).map(|index| (index, (index * index * 3) % 70_000)).chain([(200, 900_000)])
    {
        if position as u64 == source.bytes_read() || index % 7 == 0 {
            position = source.bytes_read() as usize;
            source.read(50_000).unwrap();
        }
        let e = Entry {
            body: Body::Stream(position as u64),
            ..entry(&format!("s{index}"), Kind::File(length as u64))
        };
        filler.put(e, Some(&mut source)).unwrap();
        expected.push((format!("s{index}"), bytes[position..][..length].to_vec()));
        position += length;
    }
    // Two parts with holes before, between and after.
    position = source.bytes_read() as usize;
    let extents = vec![
        Extent { offset: 5000, length: 3000, position: position as u64 },
        Extent { offset: 500_000, length: 70_000, position: position as u64 + 3000 },
    ];
    let sparse = Entry { body: Body::Extents(extents), ..entry("sparse", Kind::File(1_000_000)) };
    filler.put(sparse, Some(&mut source)).unwrap();
    let mut content = vec![0; 1_000_000];
    content[5000..8000].copy_from_slice(&bytes[position..][..3000]);
    content[500_000..570_000].copy_from_slice(&bytes[position + 3000..][..70_000]);
    expected.push(("sparse".into(), content));
    // Filled later, out of order, and a part once more with zeros.
    filler.put(Entry { body: Body::Later, ..entry("later", Kind::File(200_000)) }, None).unwrap();
    filler.fill(100_000, vec![7; 50_000]).unwrap();
    filler.fill(0, vec![8; 10]).unwrap();
    filler.fill(110_000, vec![0; 20_000]).unwrap();
    let mut content = vec![0; 200_000];
    content[100_000..150_000].fill(7);
    content[..10].fill(8);
    content[110_000..130_000].fill(0);
    expected.push(("later".into(), content));
    let totals = filler.finish().unwrap();
    assert_eq!(totals.bytes, expected.iter().map(|(_, content)| content.len() as u64).sum::<u64>());
    for (name, content) in expected {
        let path = scene.layer().join(&name);
        assert!(std::fs::read(&path).unwrap() == content, "{name}");
        let found = std::fs::metadata(path).unwrap();
        assert_eq!((found.mtime(), found.mtime_nsec()), (1000, 5), "{name}: the time is set after the bytes");
    }
}

#[test]
fn runs_of_zeros_become_holes_in_large_files_only() {
    let Some(scene) = Scene::new("holes") else { return };
    let mut mixed = vec![0u8; 1024 * 1024 + 5];
    mixed[300_000] = 1;
    mixed[700_000..720_000].fill(2);
    let zeros = vec![0u8; 512 * 1024];
    let small = vec![0u8; 60 * 1024];
    scene.fill(vec![file("mixed", &mixed), file("zeros", &zeros), file("small", &small)]).unwrap();
    for (name, content, blocks) in
        [("mixed", &mixed, 0..100), ("zeros", &zeros, 0..1), ("small", &small, 120..200)]
    {
        let path = scene.layer().join(name);
        assert!(&std::fs::read(&path).unwrap() == content, "{name}");
        let used = std::fs::metadata(path).unwrap().blocks();
        assert!(blocks.contains(&used), "{name}: {used} blocks");
    }
}

#[test]
fn errors_of_work_under_way_are_told_with_the_entry() {
    let Some(scene) = Scene::new("later-errors") else { return };
    let mut filler = scene.filler();
    // user.* attributes must fit; 64 KiB in one value does not on most file systems, so take one that no kernel accepts.
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
            Ok(_) => eprintln!("SKIPPED, this file system takes it"),
            Err(Error::Refused { entry, rule }) => {
                assert!(entry == b"big" && rule.contains("user.a"), "{rule}")
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn marks_go_to_directories_and_make_them() {
    let Some(scene) = Scene::new("mark") else { return };
    let mut filler = scene.filler();
    filler.put(dir("usr/lib"), None).unwrap();
    filler.put(link("lib", "usr/lib"), None).unwrap();
    filler.put(file("f", b""), None).unwrap();
    let opaque = xattr("trusted.overlay.opaque", b"y");
    filler.mark(&[name("lib"), name("new/er"), Name::root()], &opaque).unwrap();
    assert!(matches!(filler.mark(&[name("f")], &opaque), Err(Error::Refused { .. })));
    assert!(matches!(filler.mark(&[name("d")], &xattr("system.x", b"")), Err(Error::Refused { .. })));
    assert_eq!(filler.finish().unwrap().entries, 6);
    let marked: Vec<String> = scene
        .walk(Detail::Full)
        .iter()
        .filter(|node| node.attributes.xattrs == [opaque.clone()])
        .map(|node| node.name.to_string())
        .collect();
    assert_eq!(marked, ["/", "new/er", "usr/lib"]);
}

#[test]
fn marking_one_directory_again_and_again_keeps_little() {
    let Some(scene) = Scene::new("marks") else { return };
    let mut filler = scene.filler();
    // Copying its megabyte for each of 50,000 names would take long.
    let large: Vec<Xattr> = (0..16).map(|n| xattr(&format!("user.{n}"), &vec![0; 60_000])).collect();
    let mut d = dir("d");
    d.attributes.xattrs = large;
    filler.put(d, None).unwrap();
    let began = std::time::Instant::now();
    for _ in 0..50 {
        filler.mark(&vec![name("d"); 1000], &xattr("trusted.overlay.opaque", b"y")).unwrap();
    }
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
    let marks = (0..100).try_for_each(|n| filler.mark(&[name("d")], &xattr(&format!("user.m{n}"), b"")));
    assert!(matches!(marks, Err(Error::Limit { .. })), "{marks:?}");
}

#[test]
fn names_that_were_put_can_be_looked_up() {
    let Some(scene) = Scene::new("stat") else { return };
    let mut filler = scene.filler();
    for e in
        [file("usr/bin/x", b"123"), link("bin", "usr/bin"), link("out", "../victim"), link("loop", "loop")]
    {
        filler.put(e, None).unwrap();
    }
    let rows: &[(&str, Option<Kind>)] = &[
        ("", Some(Kind::Directory)),
        ("usr/bin/x", Some(Kind::File(3))),
        ("bin/x", Some(Kind::File(3))),
        ("bin", Some(Kind::Symlink(b"usr/bin".to_vec()))),
        ("missing", None),
        ("missing/x", None),
        ("out/hello", None),
        ("loop/x", None),
        ("usr/bin/x/y", None),
    ];
    let names: Vec<Name> = rows.iter().map(|(text, _)| name(text)).collect();
    for ((text, kind), node) in rows.iter().zip(filler.stat(&names).unwrap()) {
        assert_eq!(node.map(|node| node.kind), *kind, "{text}");
    }
}
