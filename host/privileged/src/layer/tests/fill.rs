//! Filling: attributes, replacement, hard links, bodies and holes.

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
fn a_directory_over_a_directory_takes_the_new_attributes_and_keeps_what_they_do_not_speak_of() {
    let Some(scene) = Scene::new("merge") else { return };
    let with = |xattrs, mode| {
        let mut it = dir("d");
        (it.attributes.xattrs, it.attributes.mode) = (xattrs, mode);
        it
    };
    // For somebody else to read and write, whatever the mode says for the group.
    let list = [
        &[2, 0, 0, 0][..],
        &[1, 0, 7, 0, 255, 255, 255, 255],
        &[2, 0, 6, 0, 1, 0, 0, 0],
        &[4, 0, 0, 0, 255, 255, 255, 255],
        &[16, 0, 6, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let old =
        vec![xattr("user.old", b"1"), xattr("user.both", b"1"), xattr("system.posix_acl_access", &list)];
    let new = vec![xattr("user.both", b"2")];
    scene.fill(vec![with(old, 0o760), file("d/f", b"1"), with(new, 0o700)]).unwrap();
    let node = scene.tree().stat(&[name("d")], Detail::Full).unwrap().remove(0).unwrap();
    assert_eq!(
        node.attributes,
        with(vec![xattr("user.both", b"2"), xattr("user.old", b"1")], 0o700).attributes
    );
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
