//! From an archive to a layer.

mod ids;

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use layerbox_guest::apply::apply;
use layerbox_guest::archive::{Member, MemberKind, TRAILER, Timestamp, encode, padding};
use layerbox_guest::host::{ApplyOptions, Dialect, Error, Totals};

use crate::host::{Source, Writer};
use crate::store::{DIALECTS, Store, members, options};

/// An archive in the making.
#[derive(Clone, Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn member(mut self, name: &str, kind: MemberKind, change: impl FnOnce(&mut Member), body: &[u8]) -> Self {
        let mut member = Member {
            name: name.as_bytes().to_vec(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Timestamp { seconds: 1_000_000_000, nanoseconds: 0 },
            xattrs: Vec::new(),
            stored: body.len() as u64,
            extents: None,
        };
        change(&mut member);
        encode(&member, &mut self.0).expect("a member that can be written");
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len() + padding(member.stored) as usize, 0);
        self
    }

    fn file(self, name: &str, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        self.member(name, MemberKind::File(body.len() as u64), |_| {}, body)
    }

    fn other(self, name: &str, kind: MemberKind) -> Self {
        self.member(name, kind, |_| {}, b"")
    }

    fn directory(self, name: &str) -> Self {
        self.other(name, MemberKind::Directory)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.other(name, MemberKind::HardLink(target.into()))
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&TRAILER);
        self.0
    }
}

fn archive() -> Archive {
    Archive::default()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress away.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn whiteouts_hide_lower_layers_only_and_in_any_order() {
    // An archive, and what the archive of the layer then holds.
    let cases: [(&str, Archive, &[&str]); 18] = [
        ("a deletion", archive().file("d/.wh.x", ""), &["d d/", "f d/.wh.x"]),
        (
            "its body does not matter",
            archive().file(".wh.x", noise(3000)).file("y", "z"),
            &["f .wh.x", "f y"],
        ),
        ("a deletion before the file", archive().file(".wh.x", "").file("x", ""), &["f x"]),
        ("a deletion after the file", archive().file("x", "").file(".wh.x", ""), &["f x"]),
        (
            "a deletion after the directory",
            archive().file("x/y", "").file(".wh.x", ""),
            &["d x/", "f x/.wh..wh..opq", "f x/y"],
        ),
        (
            "a deletion before the directory",
            archive().file(".wh.x", "").directory("x"),
            &["d x/", "f x/.wh..wh..opq"],
        ),
        (
            "an opaque directory between its files",
            archive().file("d/a", "").file("d/.wh..wh..opq", "").file("d/b", ""),
            &["d d/", "f d/.wh..wh..opq", "f d/a", "f d/b"],
        ),
        (
            "a deletion in what is deleted",
            archive().file(".wh.x", "").file("x/.wh.y", ""),
            &["d x/", "f x/.wh..wh..opq"],
        ),
        (
            "a deletion deep in an opaque directory",
            archive().file("d/e/.wh.x", "").file("d/.wh..wh..opq", "").file(".wh.y", ""),
            &["d d/", "f d/.wh..wh..opq", "d d/e/", "f .wh.y"],
        ),
        (
            "a deletion in an opaque directory, over a link out of it",
            archive()
                .directory("d")
                .file("o/.wh..wh..opq", "")
                .other("o/l", MemberKind::Symlink(b"/d".to_vec()))
                .file("o/l/.wh.x", ""),
            &["d d/", "f d/.wh.x", "d o/", "f o/.wh..wh..opq", "l o/l -> /d"],
        ),
        (
            "a deletion in a directory that a file replaces",
            archive().file("d/.wh.x", "").file("d/e/.wh..wh..opq", "").file("d", ""),
            &["f d"],
        ),
        (
            "a deletion in a directory that a link replaces",
            archive()
                .directory("e")
                .file("d/.wh.x", "")
                .other("d", MemberKind::Symlink(b"e".to_vec()))
                .file("d/.wh.y", ""),
            &["l d -> e", "d e/", "f e/.wh.y"],
        ),
        (
            "an opaque directory that nothing else speaks of",
            archive().file("a/b/.wh..wh..opq", "").file("a/.wh.b", ""),
            &["d a/", "d a/b/", "f a/b/.wh..wh..opq"],
        ),
        (
            "over a link to a directory that only a deletion speaks of, which a file replaces",
            archive()
                .file("d/.wh.x", "")
                .other("l", MemberKind::Symlink(b"d".to_vec()))
                .file("l/.wh.y", "")
                .file("l", ""),
            &["d d/", "f d/.wh.x", "f d/.wh.y", "f l"],
        ),
        (
            "opaque over a link to a directory that only a deletion speaks of",
            archive()
                .file("d/.wh.x", "")
                .other("l", MemberKind::Symlink(b"d".to_vec()))
                .file("l/.wh..wh..opq", ""),
            &["d d/", "f d/.wh..wh..opq", "l l -> d"],
        ),
        ("the same twice", archive().file(".wh.x", "").file(".wh.x", ""), &["f .wh.x"]),
        ("an opaque root", archive().file(".wh..wh..opq", ""), &["f .wh..wh..opq"]),
        (
            "over a symbolic link",
            archive()
                .directory("real")
                .other("link", MemberKind::Symlink(b"real".to_vec()))
                .file("link/.wh.x", "")
                .file("real/.wh.x", "")
                .file("link/.wh.y", ""),
            &["l link -> real", "d real/", "f real/.wh.x", "f real/.wh.y"],
        ),
    ];
    for (what, archive, expected) in cases {
        for dialect in DIALECTS {
            let store = Store::new(dialect);
            let totals = store.apply("a", &archive.clone().end());
            assert_eq!(members(&store.diff("a", None)), *expected, "{what}, {dialect:?}");
            assert_eq!(totals, store.size("a"), "{what}, {dialect:?}");
        }
    }
}

#[test]
fn whiteouts_may_be_links_to_others() {
    // As an engine on aufs packs a layer, and as `tar` packs a branch of it: the names of one file are links
    // to its first.
    let cases: [(&str, Archive, &[&str]); 4] = [
        ("two deletions", archive().file(".wh.a", "").link(".wh.b", ".wh.a"), &["f .wh.a", "f .wh.b"]),
        (
            "a deletion and an opaque directory",
            archive().file(".wh.a", "").directory("d").link("d/.wh..wh..opq", ".wh.a"),
            &["f .wh.a", "d d/", "f d/.wh..wh..opq"],
        ),
        (
            "a branch",
            archive()
                .file(".wh..wh.aufs", "")
                .directory("d")
                .link("d/.wh.x", ".wh..wh.aufs")
                .directory("o")
                .link("o/.wh..wh..opq", ".wh..wh.aufs")
                .link(".wh.a", ".wh..wh.aufs"),
            &["f .wh.a", "d d/", "f d/.wh.x", "d o/", "f o/.wh..wh..opq"],
        ),
        (
            "to an opaque mark",
            archive().file("d/.wh..wh..opq", "").link(".wh.x", "d/.wh..wh..opq"),
            &["d d/", "f d/.wh..wh..opq", "f .wh.x"],
        ),
    ];
    for (what, archive, expected) in cases {
        for dialect in DIALECTS {
            let store = Store::new(dialect);
            store.apply("a", &archive.clone().end());
            assert_eq!(members(&store.diff("a", None)), *expected, "{what}, {dialect:?}");
        }
    }
}

#[test]
fn bookkeeping_of_aufs_is_dropped() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let archive = archive()
            .file(".wh..wh.aufs", "")
            .directory(".wh..wh.plnk")
            .file(".wh..wh.plnk/1.2", noise(700_000))
            .file("a", "x");
        store.apply("a", &archive.end());
        assert_eq!(members(&store.diff("a", None)), ["f a"], "{dialect:?}");
    }
}

#[test]
fn many_deletions() {
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let many =
            (0..31_000).fold(archive(), |archive, number| archive.file(&format!("d/.wh.{number:05}"), ""));
        let totals = store.apply("a", &many.end());
        assert_eq!(totals, Totals { entries: 1, bytes: 0 }, "{dialect:?}");
        assert_eq!(members(&store.diff("a", None)).len(), 31_001, "{dialect:?}");
        let names = fs::read_dir(store.path("a").join("d")).unwrap();
        let most = names.map(|entry| entry.unwrap().metadata().unwrap().nlink()).max();
        assert_eq!(most, Some(30_000), "{dialect:?}: one inode for many");
    }
}

#[test]
fn what_breaks_a_rule_is_refused_by_name() {
    let device = |major, minor| MemberKind::CharacterDevice { major, minor };
    let marked = |key: &'static str| {
        archive().member("d", MemberKind::Directory, |it| it.xattrs.push((key.into(), b"y".to_vec())), b"")
    };
    let cases: [(&str, Archive, &str); 22] = [
        ("an opaque mark that is a link", archive().file("f", "").link(".wh..wh..opq", "f"), ".wh..wh..opq"),
        ("a whiteout that is a link to nothing good", archive().link(".wh.x", "d/.wh."), ".wh.x"),
        ("a whiteout of nothing", archive().file("d/.wh.", ""), "d/.wh."),
        ("a whiteout of .", archive().file(".wh..", ""), ".wh.."),
        ("a whiteout of ..", archive().file(".wh...", ""), ".wh..."),
        ("bookkeeping below the root", archive().file("d/.wh..wh.aufs", ""), "d/.wh..wh.aufs"),
        ("a whiteout on the way", archive().file("d/.wh.x/f", ""), "d/.wh.x/f"),
        ("a mark of opaqueness on the way", archive().file(".wh..wh..opq/f", ""), ".wh..wh..opq/f"),
        ("a whiteout that is a directory", archive().directory(".wh.x"), ".wh.x"),
        ("a whiteout that is a link", archive().file("f", "").link(".wh.x", "f"), ".wh.x"),
        ("overlayfs' mark of a deletion", archive().other("x", device(0, 0)), "x"),
        ("overlayfs' attribute", marked("trusted.overlay.opaque"), "d"),
        ("overlayfs' attribute for users", marked("user.overlay.redirect"), "d"),
        ("a hard link to nothing", archive().link("l", "absent"), "l"),
        ("a hard link to a directory", archive().directory("d").link("l", "d"), "l"),
        ("a hard link before its target", archive().link("l", "f").file("f", ""), "l"),
        ("a hard link to a whiteout", archive().file(".wh.x", "").link("l", ".wh.x"), "l"),
        ("a hard link to itself", archive().file("f", "").link("f", "f"), "f"),
        ("a parent that is a file", archive().file("f", "").file("f/x", ""), "f/x"),
        (
            "a whiteout below a file, whatever it becomes",
            archive().file("f", "").file("f/.wh.x", "").directory("f"),
            "f/.wh.x",
        ),
        (
            "a whiteout deep below a file",
            archive().file("f", "").file("f/d/.wh.x", "").directory("f"),
            "f/d/.wh.x",
        ),
        (
            "an opaque mark below a link to nothing, whatever that becomes",
            archive().other("l", MemberKind::Symlink(b"d".to_vec())).file("l/.wh..wh..opq", "").file("l", ""),
            "l/.wh..wh..opq",
        ),
    ];
    for (what, archive, entry) in cases {
        for dialect in DIALECTS {
            let store = Store::new(dialect);
            match store.try_apply("a", &archive.clone().end(), options()) {
                Err(Error::Refused(refusal)) => {
                    assert_eq!(refusal.entry.escape_ascii().to_string(), entry, "{what}: {}", refusal.rule);
                }
                other => panic!("{what}, {dialect:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn limits_have_their_own_error() {
    let small = |max_entries, max_bytes| ApplyOptions { max_entries, max_bytes, ..options() };
    let three = archive().file("a", "12345").file(".wh.b", "").file("c", "12345").end();
    let garbage = [archive().end(), noise(4 << 20)].concat();
    let bomb = gzip(&[archive().end(), vec![0; 64 << 20]].concat());
    let cases: [(&str, &[u8], ApplyOptions, bool); 7] = [
        ("enough of both", &three, small(3, 10), true),
        ("an entry too many", &three, small(2, 10), false),
        ("a byte too many", &three, small(3, 9), false),
        ("what comes after the end", &garbage, small(3, 10), false),
        ("what comes after the end, within bounds", &garbage, options(), true),
        ("a bomb", &bomb, small(3, 10), false),
        ("the same within bounds", &bomb, options(), true),
    ];
    for (what, archive, options, is_fine) in cases {
        let store = Store::new(DIALECTS[1]);
        match store.try_apply("a", archive, options) {
            Ok(_) if is_fine => {}
            Err(Error::Limit(_)) if !is_fine => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn streams_in_any_pieces_packed_or_not() {
    let sizes = [0, 1, 511, 512, 513, 4096, 100_000, 262_144, 262_145, 900_001];
    let long = "n".repeat(120);
    let content = sizes.iter().fold(archive(), |archive, &size| {
        let name = format!("{long}/{size}");
        archive
            .file(&name, noise(size))
            .link(&format!("{long}/{size}.link"), &name)
            .file(&format!("zeros/{size}"), vec![0; size])
    });
    let plain = [content.end(), vec![0; 9000]].concat();
    let zstd =
        ruzstd::encoding::compress_to_vec(plain.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    for (what, bytes) in [("plain", plain.clone()), ("gzip", gzip(&plain)), ("zstd", zstd)] {
        for piece in [usize::MAX, 100_000, 4097, 700, 1] {
            if piece == 1 && what != "plain" {
                continue;
            }
            let store = Store::new(DIALECTS[1]);
            let layer = store.layer("a", &[]);
            let source = Source::new(bytes.clone(), piece);
            let totals = apply(&Writer::new(&layer.path, store.dialect), &source, options()).unwrap();
            assert_eq!(source.taken(), bytes.len() as u64, "{what} in pieces of {piece}: read to its end");
            assert_eq!(totals.entries, 2 + 3 * sizes.len() as u64, "{what} in pieces of {piece}");
            for size in sizes {
                let read = |name: String| fs::read(layer.path.join(name)).unwrap();
                assert!(read(format!("{long}/{size}")) == noise(size), "{what} in pieces of {piece}: {size}");
                assert!(
                    read(format!("zeros/{size}")) == vec![0; size],
                    "{what} in pieces of {piece}: {size} zeros"
                );
            }
        }
    }
}

#[test]
fn a_stream_that_is_cut_off_or_damaged_is_refused() {
    let plain = archive().file("f", noise(600_000)).file("g", noise(100)).end();
    let packed = gzip(&plain);
    let mut flipped = packed.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    let cases: [(&str, &[u8]); 7] = [
        ("in a header", &plain[..100]),
        ("in a body", &plain[..300_000]),
        ("in a body, in the first window", &plain[..5000]),
        ("in the padding", &plain[..512 + 600_000 + 10]),
        ("nothing at all", b""),
        ("packed", &packed[..packed.len() - 20]),
        ("packed, with a wrong checksum", &flipped),
    ];
    for (what, bytes) in cases {
        let store = Store::new(DIALECTS[1]);
        let found = store.try_apply("a", bytes, options());
        assert!(matches!(found, Err(Error::Refused(_))), "{what}: {found:?}");
    }
}

#[test]
fn what_breaks_in_a_body_names_its_entry() {
    let plain = archive().file("e", "").file("f", noise(600_000)).end();
    let packed = gzip(&plain);
    let mut damaged = packed.clone();
    damaged[300_000..300_100].fill(0xff);
    for (what, bytes) in [
        ("cut off", &plain[..300_000]),
        ("packed and cut off", &packed[..300_000]),
        ("packed and damaged", &damaged),
    ] {
        let found = Store::new(DIALECTS[1]).try_apply("a", bytes, options());
        assert!(matches!(&found, Err(Error::Refused(refusal)) if refusal.entry == b"f"), "{what}: {found:?}");
    }
}

#[test]
fn holes_stay_holes() {
    for packed in [false, true] {
        let store = Store::new(DIALECTS[1]);
        // A file of 1 GiB as GNU tar writes it, with two regions and a hole at its end.
        let sparse =
            sparse_archive(1 << 30, &[(4096, &[7; 1024]), (500 << 20, &[9; 70_000]), (1 << 30, &[])]);
        let totals = store.apply("a", &if packed { gzip(&sparse) } else { sparse });
        assert_eq!(totals.bytes, 1 << 30, "packed: {packed}");
        let found = fs::metadata(store.path("a").join("sparse")).unwrap();
        assert_eq!(found.len(), 1 << 30, "packed: {packed}");
        assert!(found.blocks() < 400, "packed: {packed}: {} blocks", found.blocks());
        use std::os::unix::fs::FileExt;
        let file = fs::File::open(store.path("a").join("sparse")).unwrap();
        let mut read = [0; 70_000];
        file.read_exact_at(&mut read, 500 << 20).unwrap();
        assert!(read == [9; 70_000], "packed: {packed}");
        file.read_exact_at(&mut read[..3000], 4096).unwrap();
        assert!(read[..1024] == [7; 1024] && read[1024..3000] == [0; 1976], "packed: {packed}");
    }
}

/// A sparse file in the old GNU form (type `S`), of up to four regions.
fn sparse_archive(size: u64, regions: &[(u64, &[u8])]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    let stored: usize = regions.iter().map(|(_, bytes)| bytes.len()).sum();
    header.set_path("sparse").unwrap();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(stored as u64);
    header.set_entry_type(tar::EntryType::GNUSparse);
    let gnu = header.as_gnu_mut().unwrap();
    let octal = |field: &mut [u8], value: u64| field.copy_from_slice(format!("{value:011o}\0").as_bytes());
    octal(&mut gnu.realsize, size);
    for (entry, (offset, bytes)) in gnu.sparse.iter_mut().zip(regions) {
        octal(&mut entry.offset, *offset);
        octal(&mut entry.numbytes, bytes.len() as u64);
    }
    header.set_cksum();
    let mut archive = header.as_bytes().to_vec();
    regions.iter().for_each(|(_, bytes)| archive.extend_from_slice(bytes));
    archive.resize(archive.len() + padding(stored as u64) as usize, 0);
    [archive, TRAILER.to_vec()].concat()
}

#[test]
fn a_mark_that_would_be_too_deep_is_a_limit() {
    // Of 4,096 components: the directory can be made, and in aufs a mark in it cannot.
    let deep = vec!["d"; 4095].join("/");
    let archive = archive().directory(&format!("{deep}/x")).file(&format!("{deep}/.wh.x"), "").end();
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let found = store.try_apply("a", &archive, options());
        match dialect {
            Dialect::Aufs => assert!(matches!(found, Err(Error::Limit(_))), "{found:?}"),
            _ => assert!(found.is_ok(), "{found:?}"),
        }
    }
}

#[test]
fn devices_are_made_only_where_they_are_accepted() {
    let null = archive().other("null", MemberKind::CharacterDevice { major: 1, minor: 3 }).end();
    let disk = archive().other("disk", MemberKind::BlockDevice { major: 8, minor: 0 }).end();
    for archive in [null, disk] {
        let store = Store::new(DIALECTS[0]);
        assert_eq!(store.apply("a", &archive).entries, 1);
        let refused = store.try_apply("b", &archive, ApplyOptions { devices: false, ..options() });
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    }
}
