//! Extension headers, sizes, and where an archive ends.

use super::*;

#[test]
fn an_archive_ends_where_all_readers_see_its_end() {
    let f = file(b"f");
    let zeros = [0; BLOCK];
    let cases: [(&str, Vec<u8>, usize); 6] = [
        ("end marker", archive(&[&f]), 1),
        ("no end marker", f.clone(), 1),
        ("half an end marker", [&f[..], &zeros].concat(), 1),
        ("something after the end", [&archive(&[&f])[..], b"garbage"].concat(), 1),
        ("nothing but an end", TRAILER.to_vec(), 0),
        ("a global header and no entry", archive(&[&global(&[("comment", b"c")])]), 0),
    ];
    for (case, archive, count) in cases {
        assert_eq!(read(&archive).map(|members| members.len()), Ok(count), "{case}");
    }
}

#[test]
fn archives_that_are_cut_off_are_refused() {
    let f = file(b"f");
    let long = extension(b'L', b"name");
    let cases: [(&str, Vec<u8>, &str); 7] = [
        ("empty", Vec::new(), "nothing at all"),
        ("in a header", f[..511].to_vec(), "cut off"),
        ("in a second header", [&f[..], &f[..100]].concat(), "cut off"),
        ("in the end marker", [&f[..], &[0; 1023]].concat(), "cut off"),
        ("in an extension header", long[..600].to_vec(), "cut off"),
        ("after an extension header", long.clone(), "cut off"),
        ("end marker after an extension header", archive(&[&long]), "without an entry"),
    ];
    for (case, archive, rule) in cases {
        assert_refused(case, &archive, rule);
    }
    let body = [&Raw::new(b'0', b"f").size(600).done()[..], &[1; 600]].concat();
    assert_refused("in the padding of a body", &body, "body cut off");
    let lone = archive(&[&f, &[0; BLOCK], &f]);
    assert_refused("a single block of zeros", &lone, "single block of zeros");
}

#[test]
fn cutting_an_archive_anywhere_never_makes_another_one() {
    let whole = archive(&[
        &pax(&[("path", b"long"), ("size", b"3")]),
        &Raw::new(b'0', b"f").size(3).done(),
        &padded(b"abc"),
    ]);
    let end = whole.len() - TRAILER.len();
    for length in 0..whole.len() {
        let result = read(&whole[..length]);
        let is_whole = [end, end + BLOCK].contains(&length);
        assert_eq!(result.is_ok(), is_whole, "{length}: {result:?}");
    }
}

#[test]
fn sizes_must_agree() {
    let hidden = [file(b"hidden"), TRAILER.to_vec()].concat();
    let cases: [(&str, u64, &[u8]); 6] = [
        ("larger in the record", 0, b"1536"),
        ("larger in the record, both set", 512, b"1536"),
        ("larger in the header", 1536, b"512"),
        ("zero in the record", 1536, b"0"),
        ("small in the record, none in the header", 0, b"1"),
        ("eight gibibytes less one", 0, b"8589934591"),
    ];
    for (case, size, record) in cases {
        let header = Raw::new(b'0', b"f").size(size).done();
        assert_refused(
            case,
            &archive(&[&pax(&[("size", record)]), &header, &hidden]),
            "PAX size that differs",
        );
    }
    let equal = archive(&[&pax(&[("size", b"1536")]), &Raw::new(b'0', b"f").size(1536).done(), &hidden]);
    assert_eq!(read_one(&equal).map(|member| member.stored), Ok(1536));
}

#[test]
fn sizes_beyond_the_header_are_read() {
    let step = |archive: &[u8]| match Decoder::new().step(archive, false) {
        Ok(Step::Member { member, consumed }) => (member.kind, member.stored, consumed),
        other => panic!("{other:?}"),
    };
    let record = [pax(&[("size", b"8589934592")]), file(b"f")].concat();
    assert_eq!(step(&record), (MemberKind::File(1 << 33), 1 << 33, 1536));
    let base256 = Raw::gnu(b'0', b"f").at(SIZE, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff").done();
    let largest = i64::MAX.unsigned_abs();
    assert_eq!(step(&base256), (MemberKind::File(largest), largest, 512));
    assert_refused("2^63", &archive(&[&pax(&[("size", b"9223372036854775808")]), &file(b"f")]), "too large");
}

#[test]
fn records_of_the_wrong_form_are_refused() {
    let cases: [(&str, &[u8], &str); 16] = [
        ("no length", b"path=a b\n", "not a decimal number"),
        ("no space", b"9path=a\n", "without a length"),
        ("length beyond the body", b"11 path=a\n", "wrong length"),
        ("length too short", b"8 path=a\n", "does not end"),
        ("length zero", b"0 path=a\n", "wrong length"),
        ("length of nothing but itself", b"2 path=a\n", "does not end"),
        ("length with a sign", b"+10 path=a\n", "not a decimal number"),
        ("length with a space", b" 10 path=a\n", "not a decimal number"),
        ("length beyond all bounds", b"99999999999999999999 path=a\n", "too large"),
        ("no newline", b"10 path=aa", "does not end"),
        ("no key", b"5 =a\n", "without a key"),
        ("no value", b"7 path\n", "without a key"),
        ("NUL in the key", b"11 pa\0th=a\n", "NUL or a newline"),
        ("newline in the key", b"11 pa\nth=a\n", "NUL or a newline"),
        ("zeros after the last", b"10 path=a\n\0\0", "without a length"),
        ("another one unterminated", b"10 path=a\n10 size", "wrong length"),
    ];
    for (case, body, rule) in cases {
        assert_refused(case, &archive(&[&extension(b'x', body), &file(b"f")]), rule);
    }
}

#[test]
fn records_that_readers_take_differently_are_refused() {
    let cases: [(&str, Records<'_>, &str); 24] = [
        ("access time that is none", &[("atime", b"+1")], "not a decimal"),
        ("change time that is none", &[("ctime", b"")], "not a decimal"),
        ("owner's name with a NUL", &[("uname", b"a\0b")], "NUL"),
        ("group's name with a NUL", &[("gname", b"a\0b")], "NUL"),
        ("almost a sparse file", &[("GNU.sparse1name", b"a")], "unknown GNU.sparse"),
        ("path twice", &[("path", b"a"), ("path", b"b")], "given twice"),
        ("size twice", &[("size", b"0"), ("size", b"0")], "given twice"),
        ("owner twice", &[("uid", b"1"), ("uid", b"2")], "given twice"),
        ("path taken back", &[("path", b"")], "takes a name back"),
        ("size taken back", &[("size", b"")], "size: not a decimal"),
        ("size with a sign", &[("size", b"+12")], "size: not a decimal"),
        ("size with a space", &[("size", b" 12")], "size: not a decimal"),
        ("negative size", &[("size", b"-1")], "size: not a decimal"),
        ("hexadecimal size", &[("size", b"0x10")], "size: not a decimal"),
        ("negative owner", &[("uid", b"-1")], "uid: not a decimal"),
        ("owner that is none", &[("uid", b"4294967295")], "owner that is none"),
        ("group beyond 32 bits", &[("gid", b"4294967296")], "gid out of bounds"),
        ("time in words", &[("mtime", b"now")], "mtime"),
        ("time without seconds", &[("mtime", b".5")], "mtime"),
        ("time with two signs", &[("mtime", b"--1")], "mtime"),
        ("time with an exponent", &[("mtime", b"1e9")], "mtime"),
        ("unknown charset", &[("hdrcharset", b"KOI8-R")], "hdrcharset"),
        ("size of star's sparse files", &[("SCHILY.realsize", b"1")], "foreign sparse"),
        ("part of a volume", &[("GNU.volume.offset", b"1")], "multi-volume"),
    ];
    for (case, records, rule) in cases {
        assert_refused(case, &archive(&[&pax(records), &file(b"f")]), rule);
    }
    let device = Raw::new(b'3', b"f").done();
    let twice = archive(&[&pax(&[("SCHILY.devmajor", b"1")]), &device]);
    assert_refused("device numbers twice", &twice, "device numbers");
}

#[test]
fn records_that_say_nothing_of_interest_are_passed_over() {
    let records: Records<'_> = &[
        ("atime", b"1.5"),
        ("ctime", b"1.5"),
        ("LIBARCHIVE.creationtime", b"1"),
        ("uname", b"root"),
        ("gname", b""),
        ("comment", b"two\nlines"),
        ("comment", b"twice"),
        ("hdrcharset", b"ISO-IR 10646 2000 UTF-8"),
        ("SCHILY.fflags", b"nodump"),
        ("SCHILY.dev", b"1"),
        ("SCHILY.ino", b"1"),
        ("SCHILY.nlink", b"2"),
        ("VENDOR.anything", b"\0\xff"),
        ("anything", b""),
    ];
    assert_eq!(read_one(&archive(&[&pax(records), &file(b"f")])), Ok(plain(b"f")));
}

#[test]
fn global_headers_apply_to_nothing() {
    let harmless =
        global(&[("mtime", b"99"), ("uid", b"99"), ("comment", b"c"), ("SCHILY.xattr.user.a", b"b")]);
    assert_eq!(read_one(&archive(&[&harmless, &file(b"f")])), Ok(plain(b"f")));
    for key in ["path", "linkpath", "size", "GNU.sparse.name", "GNU.volume.size", "SCHILY.realsize"] {
        assert_refused(key, &archive(&[&global(&[(key, b"1")]), &file(b"f")]), "global header");
    }
    let odd: [(&str, &[u8]); 7] = [
        ("uid", b"-1"),
        ("gid", b"4294967296"),
        ("mtime", b"+1"),
        ("atime", b""),
        ("ctime", b"now"),
        ("uname", b"a\0b"),
        ("GNU.sparse", b""),
    ];
    for (key, value) in odd {
        let archive = archive(&[&global(&[(key, value)]), &file(b"f")]);
        assert!(read(&archive).is_err(), "{key}");
    }
    let odd = archive(&[&extension(b'g', b"7 path\n"), &file(b"f")]);
    assert_refused("malformed", &odd, "without a key");
}

#[test]
fn extension_headers_come_once_and_together() {
    let (long, records, all) =
        (extension(b'L', b"name"), pax(&[("uid", b"1")]), global(&[("comment", b"c")]));
    let f = file(b"f");
    assert_eq!(read_one(&archive(&[&all, &long, &records, &f])), Ok(plain(b"name")));
    assert_eq!(read_one(&archive(&[&records, &long, &f])), Ok(plain(b"name")));
    assert_refused("L twice", &archive(&[&long, &long, &f]), "two long names");
    assert_refused("x twice", &archive(&[&records, &records, &f]), "two extended headers");
    assert_refused("g twice", &archive(&[&all, &all, &f]), "global header");
    assert_refused("g after x", &archive(&[&records, &all, &f]), "global header");
    assert_refused("g after L", &archive(&[&long, &all, &f]), "global header");
}

#[test]
fn extension_headers_end_at_a_mebibyte() {
    let size = (1 << 20) + 1;
    for flag in *b"xgLK" {
        let header = Raw::new(flag, b"extension").size(size).done();
        assert_limit("too long", &header, "bytes of one extension header");
    }
    let name = vec![b'a'; 1 << 20];
    let longest = archive(&[&extension(b'L', &name), &file(b"f")]);
    assert_refused("longest", &longest, "255 bytes");
}

#[test]
fn errors_name_the_entry() {
    let bad = Raw::new(b'9', b"dir/file").done();
    let long = extension(b'L', b"a long name");
    assert_eq!(read(&bad).unwrap_err().entry, b"dir/file");
    assert_eq!(read(&[long, bad].concat()).unwrap_err().entry, b"a long name");
    let escaped = read(&Raw::new(b'9', b"\x1b[31m\n").done()).unwrap_err();
    assert_eq!(escaped.to_string(), r"\x1b[31m\n: unknown type `9`");
}
