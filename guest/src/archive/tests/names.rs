//! Names, link targets and types.

use super::*;

#[test]
fn names_are_brought_into_their_normal_form() {
    let cases: [(&[u8], &[u8]); 9] = [
        (b"/etc/passwd", b"etc/passwd"),
        (b"./a", b"a"),
        (b"//a//b", b"a/b"),
        (b"a/./b", b"a/b"),
        (b"...", b"..."),
        (b"..a/b..", b"..a/b.."),
        (b"a\n\x1b[31m", b"a\n\x1b[31m"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b" ", b" "),
    ];
    for (raw, name) in cases {
        assert_eq!(read_one(&archive(&[&file(raw)])), Ok(plain(name)));
    }
}

#[test]
fn names_that_leave_the_layer_or_cannot_be_made_are_refused() {
    let long = [b'a'; 256];
    let cases: [(&str, &[u8], &str); 8] = [
        ("up", b"../victim/x", "`..`"),
        ("up from the root", b"/../victim/x", "`..`"),
        ("up alone", b"..", "`..`"),
        ("up inside", b"a/../../victim/x", "`..`"),
        ("up at the end", b"a/..", "`..`"),
        ("long component", &long, "255 bytes"),
        ("empty", b"", "takes a name back"),
        ("NUL", b"a\0b", "NUL"),
    ];
    for (case, name, rule) in cases {
        assert_refused(case, &archive(&[&pax(&[("path", name)]), &file(b"f")]), rule);
        if name.len() <= 100 && !name.is_empty() {
            assert_refused(case, &archive(&[&file(name)]), rule);
        }
        let long_name = extension(b'L', &[name, b"\0"].concat());
        assert_refused(
            case,
            &archive(&[&long_name, &file(b"f")]),
            if name.is_empty() { "empty name" } else { rule },
        );
    }
    assert_refused("empty name in the header", &archive(&[&file(b"")]), "empty name");
}

#[test]
fn names_may_have_255_byte_components_and_4096_of_them() {
    let component = [b'a'; 255];
    let deep = vec![&b"a"[..]; 4096].join(&b'/');
    let deeper = vec![&b"a"[..]; 4097].join(&b'/');
    for name in [&component[..], &deep] {
        assert_eq!(read_one(&archive(&[&pax(&[("path", name)]), &file(b"f")])), Ok(plain(name)));
    }
    assert_limit("4097 components", &archive(&[&pax(&[("path", &deeper)]), &file(b"f")]), "components");
}

#[test]
fn the_prefix_of_ustar_comes_before_the_name() {
    let header = Raw::new(b'0', &[b'n'; 100]).at(PREFIX, &[b'p'; 155]).done();
    let name = [&[b'p'; 155][..], b"/", &[b'n'; 100]].concat();
    assert_eq!(read_one(&archive(&[&header])), Ok(plain(&name)));
}

#[test]
fn long_names_of_both_kinds_are_read() {
    let name = vec![&b"component"[..]; 40].join(&b'/');
    let header = file(&name[..100]);
    for body in [name.clone(), [&name[..], b"\0"].concat()] {
        assert_eq!(read_one(&archive(&[&extension(b'L', &body), &header])), Ok(plain(&name)));
    }
    assert_eq!(read_one(&archive(&[&pax(&[("path", &name)]), &header])), Ok(plain(&name)));
    let two = archive(&[&pax(&[("path", &name)]), &extension(b'L', &name), &header]);
    assert_refused("a name of each kind", &two, "name given twice");
    let two = archive(&[&extension(b'L', b"a\0\0"), &header]);
    assert_refused("two NULs", &two, "NUL in a name");
    let link = |flag| Raw::new(flag, b"l").at(LINK, b"short").done();
    let both = archive(&[&extension(b'K', &name), &extension(b'L', b"longer"), &link(b'2')]);
    let member = read_one(&both).unwrap();
    assert_eq!((member.name, member.kind), (b"longer".to_vec(), MemberKind::Symlink(name.clone())));
    let two = archive(&[&extension(b'K', &name), &pax(&[("linkpath", &name)]), &link(b'1')]);
    assert_refused("a target of each kind", &two, "link target given twice");
}

#[test]
fn a_target_says_nothing_of_a_file_and_is_refused_elsewhere() {
    // As Docker packs a layer that deletes a file with a long name and another one.
    let long = [&b"d/"[..], &[b'n'; 110], b"/f"].concat();
    let targets = [pax(&[("linkpath", &long)]), extension(b'K', &long), extension(b'K', b"../victim\0")];
    for target in &targets {
        for header in [file(b"d/.wh.b"), Raw::new(b'7', b"d/.wh.b").done(), Raw::v7(0, b"d/.wh.b").done()] {
            assert_eq!(read_one(&archive(&[target, &header])), Ok(plain(b"d/.wh.b")));
        }
        for flag in *b"3456" {
            let header = Raw::new(flag, b"x").done();
            assert_refused("a target without a link", &archive(&[target, &header]), "no link");
        }
        let header = Raw::v7(0, b"x/").done();
        assert_refused("a target of a directory of V7", &archive(&[target, &header]), "no link");
    }
    let two = archive(&[&targets[0], &targets[1], &file(b"f")]);
    assert_refused("a target of each kind", &two, "link target given twice");
}

#[test]
fn types_are_told_apart() {
    let device = |flag| Raw::new(flag, b"x").at(MAJOR, b"0000010\0").at(MINOR, b"0003777\0");
    let cases = [
        (Raw::new(b'5', b"x/"), MemberKind::Directory),
        (Raw::new(b'5', b"x"), MemberKind::Directory),
        (Raw::v7(0, b"x/"), MemberKind::Directory),
        (Raw::new(b'6', b"x"), MemberKind::Fifo),
        (Raw::new(b'2', b"x").at(LINK, b"/../a//b/"), MemberKind::Symlink(b"/../a//b/".to_vec())),
        (Raw::new(b'2', b"x").at(LINK, &[b't'; 100]), MemberKind::Symlink(vec![b't'; 100])),
        (device(b'3'), MemberKind::CharacterDevice { major: 8, minor: 2047 }),
        (device(b'4'), MemberKind::BlockDevice { major: 8, minor: 2047 }),
        (Raw::new(b'3', b"x"), MemberKind::CharacterDevice { major: 0, minor: 0 }),
    ];
    for (header, kind) in cases {
        assert_eq!(read_one(&archive(&[&header.done()])), Ok(Member { kind, ..plain(b"x") }));
    }
    let header = Raw::new(b'1', b"x").at(LINK, b"./a//b").done();
    let kind = MemberKind::HardLink(b"a/b".to_vec());
    assert_eq!(read_one(&archive(&[&header])), Ok(Member { kind, mode: 0, uid: 0, gid: 0, ..plain(b"x") }));
}

#[test]
fn entries_whose_type_and_name_contradict_each_other_are_refused() {
    let long = [b't'; 100];
    let cases = [
        ("file with a slash", Raw::new(b'0', b"x/"), "name of a directory"),
        ("file with a dot", Raw::new(b'0', b"x/."), "name of a directory"),
        ("FIFO with a slash", Raw::new(b'6', b"x/"), "name of a directory"),
        ("link with a slash", Raw::new(b'2', b"x/").at(LINK, b"t"), "name of a directory"),
        ("contiguous file with a slash", Raw::new(b'7', b"x/"), "name of a directory"),
        ("root as a file", Raw::new(b'0', b"."), "name of a directory"),
        ("root as a link", Raw::new(b'2', b"/").at(LINK, b"t"), "name of a directory"),
        ("hard link to the root", Raw::new(b'1', b"x").at(LINK, b"/"), "hard link to a directory"),
        ("hard link to a directory", Raw::new(b'1', b"x").at(LINK, b"d/"), "hard link to a directory"),
        ("hard link out", Raw::new(b'1', b"x").at(LINK, b"../victim/hello"), "`..`"),
        ("hard link without a target", Raw::new(b'1', b"x"), "empty name"),
        ("symlink without a target", Raw::new(b'2', b"x"), "without a target"),
        ("directory with a body", Raw::new(b'5', b"x").size(1), "body on an entry"),
        ("V7 directory with a body", Raw::v7(0, b"x/").size(512), "body on an entry"),
        ("hard link with a body", Raw::new(b'1', b"x").at(LINK, b"t").size(512), "body on an entry"),
        ("symlink with a body", Raw::new(b'2', b"x").at(LINK, b"t").size(512), "body on an entry"),
        ("FIFO with a body", Raw::new(b'6', b"x").size(512), "body on an entry"),
        ("sparse file without GNU's magic", Raw::new(b'S', b"x"), "unknown type `S`"),
        ("device beyond Linux", Raw::new(b'3', b"x").at(MAJOR, b"0010000\0"), "device number"),
        ("minor beyond Linux", Raw::new(b'3', b"x").at(MINOR, b"4000000\0"), "device number"),
    ];
    for (case, header, rule) in cases {
        assert_refused(case, &archive(&[&header.done(), &long, &padded(b"")]), rule);
    }
    for flag in *b"89AaDIMNVXZ\x01\xff" {
        assert_refused("type", &archive(&[&Raw::gnu(flag, b"x").done()]), "unknown type");
    }
    let slash = archive(&[&extension(b'L', b"d/"), &Raw::v7(0, b"d").done()]);
    assert_refused("V7 directory by its long name", &slash, "name of a directory");
    let slash = archive(&[&extension(b'L', b"d/f"), &Raw::v7(0, b"d/").done()]);
    assert_refused("V7 directory by its short name", &slash, "V7 directory");
}

#[test]
fn link_targets_end_at_4095_bytes() {
    let link = Raw::new(b'2', b"x").done();
    let target = vec![b't'; 4095];
    let member = read_one(&archive(&[&pax(&[("linkpath", &target)]), &link])).unwrap();
    assert_eq!(member.kind, MemberKind::Symlink(target));
    for length in [4096, 100_000] {
        let target = vec![b't'; length];
        assert_refused("long", &archive(&[&pax(&[("linkpath", &target)]), &link]), "4095");
        assert_refused("long", &archive(&[&extension(b'K', &target), &link]), "4095");
    }
    assert_refused("NUL", &archive(&[&pax(&[("linkpath", b"a\0b")]), &link]), "NUL");
}
