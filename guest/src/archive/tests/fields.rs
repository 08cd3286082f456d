//! Numbers and text in header fields, and the family that a header is of.

use super::*;

fn with(offset: usize, bytes: &[u8]) -> Result<Member, Malformed> {
    read_one(&archive(&[&Raw::new(b'0', b"f").at(offset, bytes).done()]))
}

#[test]
fn numbers_that_all_readers_take_alike_are_read() {
    let cases: [(&str, &[u8], u32); 9] = [
        ("zeros and a NUL", b"0000012\0", 10),
        ("zeros and a space", b"000012 \0", 10),
        ("no terminator", b"00000012", 10),
        ("spaces before, as Version 7 wrote them", b"    12 \0", 10),
        ("spaces before, alone", b"      12", 10),
        ("short and NULs", b"12\0\0\0\0\0\0", 10),
        ("all NUL", b"\0\0\0\0\0\0\0\0", 0),
        ("base 256", b"\x80\0\0\0\x80\0\0\0", 1 << 31),
        ("base 256, the largest owner", b"\x80\0\0\0\xff\xff\xff\xfe", u32::MAX - 1),
    ];
    for (case, field, expected) in cases {
        assert_eq!(with(UID, field).unwrap().uid, expected, "{case}");
        assert_eq!(with(GID, field).unwrap().gid, expected, "{case}");
    }
}

#[test]
fn numbers_that_readers_take_differently_are_refused() {
    let cases: [(&str, usize, &[u8], &str); 21] = [
        ("plus", SIZE, b"+0000000012\0", "size: not an octal number"),
        ("minus", SIZE, b"-0000000001\0", "size: not an octal number"),
        ("minus after spaces", UID, b"     -1\0", "uid: not an octal number"),
        ("digit 8", UID, b"0000018\0", "uid: not an octal number"),
        ("0o prefix", UID, b"0o00012\0", "uid: not an octal number"),
        ("underscore", UID, b"0000_12\0", "uid: not an octal number"),
        ("letters", MODE, b"00x0644\0", "mode: not an octal number"),
        ("tab before", UID, b"\t    12\0", "uid: not an octal number"),
        ("blank", MTIME, b"            ", "mtime: blank"),
        ("blank and NUL", SIZE, b"           \0", "size: blank"),
        ("NUL before digits", UID, b"\x00000012\0", "uid: not an octal number"),
        ("digits after a NUL", UID, b"0012\x0012\0", "uid: not an octal number"),
        ("digits after a space", UID, b"0012 12\0", "uid: not an octal number"),
        ("base 256, negative size", SIZE, &[0xff; 12], "negative size"),
        ("base 256, negative owner", UID, &[0xff; 8], "uid out of bounds"),
        ("base 256, other first byte", UID, b"\x81\0\0\0\0\0\0\x01", "uid: not an octal number"),
        ("base 256, no owner", UID, b"\x80\0\0\0\xff\xff\xff\xff", "owner that is none"),
        ("base 256, beyond 32 bits", GID, b"\x80\0\0\x01\0\0\0\0", "gid out of bounds"),
        ("base 256, beyond 63 bits", SIZE, b"\x80\0\0\0\x80\0\0\0\0\0\0\0", "size: number too large"),
        (
            "base 256, the least of 64 bits",
            MTIME,
            b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0",
            "mtime out of bounds",
        ),
        ("base 256, beyond 64 bits", MTIME, b"\x80\0\x01\0\0\0\0\0\0\0\0\0", "mtime: number too large"),
    ];
    for (case, offset, field, rule) in cases {
        assert_refused(case, &archive(&[&Raw::new(b'0', b"f").at(offset, field).done()]), rule);
    }
}

#[test]
fn times_before_1970_and_far_ahead_are_exact() {
    let cases: [(&[u8], i64); 4] = [
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", -1),
        (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\x01", i64::MIN + 1),
        (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", i64::MAX),
        (b"77777777777\0", (1 << 33) - 1),
    ];
    for (field, seconds) in cases {
        assert_eq!(with(MTIME, field).unwrap().mtime, Timestamp { seconds, nanoseconds: 0 });
    }
}

#[test]
fn modes_are_permission_bits() {
    let own = [(b'0', "0106755"), (b'5', "0046755"), (b'2', "0126755"), (b'6', "0016755"), (b'0', "0006755")];
    // Commons Compress has it so: a regular file's, whatever it is.
    let regular = [(b'5', "0106755"), (b'2', "0106755"), (b'6', "0106755"), (b'3', "0106755")];
    for (flag, mode) in own.into_iter().chain(regular) {
        let header = Raw::new(flag, b"x").at(LINK, if flag == b'2' { b"t" } else { b"\0" });
        let member = read_one(&archive(&[&header.at(MODE, mode.as_bytes()).done()])).unwrap();
        assert_eq!(member.mode, 0o6755);
    }
    for (flag, mode) in
        [(b'0', "0040644"), (b'5', "0120755"), (b'0', "0200644"), (b'0', "7777777"), (b'6', "0140644")]
    {
        let header = Raw::new(flag, b"x").at(MODE, mode.as_bytes()).done();
        assert_refused(mode, &archive(&[&header]), "mode with bits");
    }
}

#[test]
fn mode_and_owner_of_a_hard_link_say_nothing() {
    let bare = Member { kind: MemberKind::HardLink(b"t".to_vec()), mode: 0, uid: 0, gid: 0, ..plain(b"x") };
    let link = || Raw::new(b'1', b"x").at(LINK, b"t");
    let none = b"\x80\0\0\0\xff\xff\xff\xff";
    for header in [
        link(),
        link().at(MODE, b"0120777\0"),
        link().at(MODE, b"0040755\0"),
        link().at(MODE, b"7777777\0"),
        link().at(MODE, &[0xff; 8]),
        link().at(UID, none).at(GID, none),
    ] {
        assert_eq!(read_one(&archive(&[&header.done()])), Ok(bare.clone()));
    }
    let record = pax(&[("uid", b"4294967295")]);
    assert_eq!(read_one(&archive(&[&record, &link().done()])), Ok(bare));
    // What is no number, or no owner to GNU tar, is so on a link as well.
    for (header, rule) in [
        (link().at(MODE, b"junk\0"), "mode: not an octal number"),
        (link().at(UID, b"\x80\0\0\x01\0\0\0\0"), "uid out of bounds"),
        (link().at(GID, &[0xff; 8]), "gid out of bounds"),
    ] {
        assert_refused(rule, &archive(&[&header.done()]), rule);
    }
}

#[test]
fn checksums_are_verified() {
    let good = file(b"f");
    for (offset, what) in [(0, "name"), (CHECKSUM + 5, "sum"), (300, "owner's name")] {
        let mut bad = good.clone();
        bad[offset] ^= 1;
        assert_refused(what, &archive(&[&bad]), "wrong checksum");
    }
    let mut blank = good.clone();
    blank[CHECKSUM..FLAG].fill(b' ');
    assert_refused("blank", &archive(&[&blank]), "checksum: blank");

    // The sum of signed bytes, which some old systems wrote, differs once a name is not ASCII.
    let mut signed = file(b"\xe9");
    let sum = signed[..CHECKSUM].iter().chain(&signed[FLAG..]);
    let sum = sum.map(|&byte| i64::from(byte.cast_signed())).sum::<i64>() + 8 * 32;
    signed[CHECKSUM..FLAG].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_refused("signed", &archive(&[&signed]), "wrong checksum");
}

#[test]
fn headers_of_every_family_are_read() {
    for header in [
        Raw::new(b'0', b"f"),
        Raw::gnu(b'0', b"f"),
        Raw::v7(0, b"f"),
        Raw::v7(b'0', b"f"),
        Raw::new(0, b"f"),
        Raw::new(b'0', b"f").at(MAGIC + 6, b" \0"),
        Raw::new(b'0', b"f").at(MAGIC + 6, b"\0\0"),
        Raw::new(b'0', b"f").at(MAGIC + 6, b"01"),
        Raw::new(b'7', b"f"),
    ] {
        assert_eq!(read_one(&archive(&[&header.done()])), Ok(plain(b"f")));
    }
    let prefixed = Raw::new(b'0', b"f").at(MAGIC + 6, b" \0").at(PREFIX, b"p");
    assert_eq!(read_one(&archive(&[&prefixed.done()])), Ok(plain(b"p/f")));
}

#[test]
fn times_may_be_behind_a_short_prefix() {
    const TIMES: usize = PREFIX + 131;
    let long = [b'p'; 130];
    for prefix in [&b""[..], b"p", &long] {
        for times in [
            b"14712345670 14712345670 ",
            b"00000000001\x0000000000002\0",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0",
        ] {
            let header = Raw::new(b'0', b"f").at(PREFIX, prefix).at(TIMES, times);
            let name = if prefix.is_empty() { b"f".to_vec() } else { [prefix, b"/f"].concat() };
            assert_eq!(read_one(&archive(&[&header.done()])), Ok(plain(&name)));
        }
    }
    // Without a NUL before them they are the end of the prefix.
    let joined = Raw::new(b'0', b"f").at(PREFIX, &[b'p'; 131]).at(TIMES, b"00000000001 00000000001 ");
    let name = [&[b'p'; 131][..], b"00000000001 00000000001 /f"].concat();
    assert_eq!(read_one(&archive(&[&joined.done()])), Ok(plain(&name)));
    let header = || Raw::new(b'0', b"f").at(PREFIX, b"p");
    for (case, header) in [
        ("a name", header().at(TIMES, b"hidden/name")),
        ("one time and junk", header().at(TIMES, b"00000000001\0junk")),
        (
            "times after a NUL and more",
            header().at(PREFIX + 2, b"q").at(TIMES, b"00000000001\x0000000000001\0"),
        ),
        ("times at another place", header().at(TIMES - 12, b"00000000001\x0000000000001\0")),
        ("a sign", header().at(TIMES, b"-0000000001\x0000000000001\0")),
    ] {
        assert_refused(case, &archive(&[&header.done()]), "NUL inside the name prefix");
    }
}

#[test]
fn headers_between_the_families_are_refused() {
    let cases = [
        ("magic without NUL", Raw::new(b'0', b"f").at(MAGIC, b"ustar00\0"), "unknown family"),
        ("another magic", Raw::new(b'0', b"f").at(MAGIC, b"xstar\x0000"), "unknown family"),
        ("V7 with a prefix", Raw::v7(0, b"f").at(PREFIX, b"p"), "unknown family"),
        ("V7 with a FIFO", Raw::v7(b'6', b"f"), "V7 did not have"),
        ("V7 with a device", Raw::v7(b'3', b"f"), "V7 did not have"),
        ("V7 with an extended header", Raw::v7(b'x', b"f"), "V7 did not have"),
        ("GNU with a prefix", Raw::gnu(b'0', b"f").at(PREFIX, b"p"), "GNU header"),
        ("GNU with times", Raw::gnu(b'0', b"f").at(PREFIX, b"00000000001\x0000000000001\0"), "GNU header"),
        (
            "GNU file with a sparse map",
            Raw::gnu(b'0', b"f").at(386, b"00000000001\x0000000000001\0"),
            "GNU header",
        ),
        ("star's times and trailer", Raw::new(b'0', b"f").at(508, b"tar\0"), "after the prefix"),
        ("NUL in the prefix", Raw::new(b'0', b"f").at(PREFIX, b"p\0q"), "NUL inside the name prefix"),
        ("device numbers on a file", Raw::new(b'0', b"f").at(MAJOR, b"x000000\0"), "major device number"),
    ];
    for (case, header, rule) in cases {
        assert_refused(case, &archive(&[&header.done()]), rule);
    }
}
