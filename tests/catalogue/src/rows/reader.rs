//! Archives that two readers would read differently, or that are no archives.

use crate::archive::{BLOCK, Member, Tar, dir, file, member, pax_records, symlink};
use crate::look::show;

use super::{Row, exact, refused, tar};

pub(super) fn rows() -> Vec<Row> {
    let inner = tar(&[file("../victim/x", "hidden")]);
    let good = tar(&[file("a", "x")]);
    let records = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> =
            pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.as_bytes().to_vec())).collect();
        pax_records(&pairs)
    };
    let with_extension =
        |kind: u8, body: &[u8]| Tar::new().extended(kind, body).add(&file("a", "x")).finish();
    let mut rows = vec![
        refused(
            "a PAX size larger than the ustar size, with an archive in the body",
            tar(&[file("a", inner.clone()).size(0).pax("size", inner.len().to_string())]),
        ),
        refused("a ustar size larger than the PAX size", tar(&[file("a", inner.clone()).pax("size", "0")])),
        refused(
            "an extended header at the end of the archive",
            Tar::new().add(&file("a", "x")).extended(b'x', &records(&[("path", "b")])).finish(),
        ),
        refused("a PAX record without its newline", with_extension(b'x', b"10 path=b")),
        refused("a PAX record whose length is too large", with_extension(b'x', b"99 path=bb\n")),
        refused("a PAX record whose length is 0", with_extension(b'x', b"0 path=bb\n")),
        refused(
            "a PAX record whose length does not fit any number",
            with_extension(b'x', b"99999999999999999999999 path=b\n"),
        ),
        refused("a PAX record without an equals sign", with_extension(b'x', b"8 pathb\n")),
        refused("a PAX record with an empty key", with_extension(b'x', b"5 =b\n")),
        refused("a PAX size that is no number", tar(&[file("a", "x").pax("size", "1x")])),
        refused("a PAX size below zero", tar(&[file("a", "x").pax("size", "-1")])),
        refused("a PAX time that is no number", tar(&[file("a", "x").pax("mtime", "soon")])),
        refused("a PAX owner that is no number", tar(&[file("a", "x").pax("uid", "+0")])),
        refused("two extended headers before one entry, of which one wins", {
            Tar::new()
                .extended(b'x', &records(&[("path", "b")]))
                .extended(b'x', &records(&[("path", "c")]))
                .add(&file("a", "x"))
                .finish()
        }),
        exact(
            "a PAX global header says nothing about attributes",
            with_extension(b'g', &records(&[("uid", "77"), ("mtime", "1"), ("comment", "c")])),
            &["a file \"x\""],
        ),
        refused("a PAX global header with a name", with_extension(b'g', &records(&[("path", "z")]))),
        refused("a checksum that is off by one", tar(&[file("a", "x").checksum_error(1)])),
        refused("a checksum that is no number", {
            let mut bytes = good.clone();
            bytes[148..156].copy_from_slice(b"zzzzzz\0 ");
            bytes
        }),
        refused("an unknown type flag", tar(&[member("a", b'?')])),
        refused("a type flag of a vendor", tar(&[member("a", b'V')])),
        refused("a directory with a body", tar(&[file("d/", "hidden").patch(156, b"5")])),
        refused("a symlink with a body", tar(&[file("l", "hidden").patch(156, b"2").patch(157, b"x")])),
        exact(
            "garbage after the end",
            {
                let mut bytes = good.clone();
                bytes.extend_from_slice(&[0xA5; 3 * BLOCK + 7]);
                bytes
            },
            &["a file \"x\""],
        ),
        exact(
            "a second archive after the end",
            {
                let mut bytes = good.clone();
                bytes.extend_from_slice(&inner);
                bytes
            },
            &["a file \"x\""],
        ),
        exact("no end marker", Tar::new().add(&file("a", "x")).bytes(), &["a file \"x\""]),
        exact(
            "one block of zeros as the end",
            {
                let mut bytes = Tar::new().add(&file("a", "x")).bytes();
                bytes.extend_from_slice(&[0; BLOCK]);
                bytes
            },
            &["a file \"x\""],
        ),
        exact("an archive of nothing but its end", tar(&[]), &[]),
        refused("nothing at all", Vec::new()),
        refused("text", b"this is not an archive, and it is longer than one block. ".repeat(20)),
        refused("a block of zeros, then an entry without a second block", {
            let mut bytes = vec![0; BLOCK];
            bytes.extend_from_slice(&file("a", "x").header()[..100]);
            bytes
        }),
        refused("the magic of a gzip stream that is none", b"\x1f\x8b\x08\0garbage".to_vec()),
        refused("the magic of a zstd stream that is none", b"\x28\xb5\x2f\xfdgarbage".to_vec()),
        exact(
            "a contiguous file (type 7) is a file",
            tar(&[file("a", "x").patch(156, b"7")]),
            &["a file \"x\""],
        ),
        exact("a file of the oldest type (NUL)", tar(&[file("a", "x").patch(156, b"\0")]), &["a file \"x\""]),
        exact(
            "a directory of the oldest type (NUL and a slash)",
            tar(&[member("d/", 0).mode(0o755)]),
            &["d directory"],
        ),
        refused("a directory of the oldest type with a body", tar(&[file("d/", "x").patch(156, b"\0")])),
        refused("a directory of the oldest type by a long name", tar(&[member("d/", 0).pax("path", "e/")])),
        exact(
            "a header of Version 7, without magic",
            tar(&[file("a", "x").patch(156, b"\0").patch(257, [0; 8]).patch(329, [0; 16])]),
            &["a file \"x\""],
        ),
        refused("a magic that nobody knows", tar(&[file("a", "x").patch(257, b"archive!")])),
        refused("bytes after the prefix of a ustar header", tar(&[file("a", "x").patch(500, b"x")])),
        refused(
            "times in a GNU header, where others look for a prefix",
            tar(&[file("a", "x").patch(257, b"ustar  \0").patch(345, b"00000000001\0")]),
        ),
        refused("a FIFO with a body", tar(&[file("f", "hidden").patch(156, b"6")])),
        refused("a device with a body", tar(&[file("c", "hidden").patch(156, b"3")])),
        refused("a size that is blank", tar(&[file("a", "").patch(124, b"            ")])),
        exact(
            "numbers with spaces before and after them, as Version 7 had them",
            tar(&[file("a", "x").patch(100, b"   644 \0").patch(124, b"          1 ")]),
            &["a file \"x\""],
        ),
        refused("a NUL before the digits of a size", tar(&[file("a", "x").patch(124, b"\x0000000000001")])),
        refused("junk in a device number that nobody uses", tar(&[file("a", "x").patch(329, b"zzzzzzz\0")])),
        refused("a checksum of signed bytes", {
            // The sum as some old systems made it differs where a byte is above 127.
            tar(&[file(b"\xff".to_vec(), "x").checksum_error(-256)])
        }),
        refused("a single block of zeros between two entries", {
            Tar::new().add(&file("a", "x")).raw(&[0; BLOCK]).add(&file("b", "y")).finish()
        }),
        exact("an end at the beginning, and entries after it", [&[0; 2 * BLOCK][..], &good].concat(), &[]),
        exact("the end, and after it no whole block", [&good[..], &[1; 100]].concat(), &["a file \"x\""]),
        refused(
            "one block of zeros and half of another",
            Tar::new().add(&file("a", "x")).raw(&[0; BLOCK + 100]).bytes(),
        ),
        refused(
            "one block of zeros and nothing before it, then junk",
            [&[0; BLOCK][..], &[b'j'; BLOCK]].concat(),
        ),
        exact(
            "a body that is an archive stays a body",
            tar(&[file("a.tar", tar(&[file("hidden", "x")]))]),
            &["a.tar file of 2048"],
        ),
        exact(
            "a body that begins as a compressed stream",
            tar(&[file("a", b"\x1f\x8b\x08\x00".to_vec())]),
            &["a file \"\\x1f\\x8b\\x08\\x00\""],
        ),
        exact(
            "a time before 1970 in base 256",
            tar(&[file("a", "x").patch(136, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff")]),
            &["a file \"x\", time -1"],
        ),
        refused("a mode that says another type than the flag", tar(&[file("a", "x").mode(0o120_777)])),
        refused("a mode that says that a file is a directory", tar(&[file("a", "x").mode(0o040_755)])),
        exact(
            "a symlink with the type of a regular file in its mode",
            tar(&[
                symlink("l", "t").mode(0o100_644),
                member("f", b'6').mode(0o100_600),
                dir("d/").mode(0o100_755),
            ]),
            &["d directory", "f fifo, mode 0600", "l -> t"],
        ),
        exact(
            "times behind the prefix of a ustar header",
            {
                let times = |member: Member| member.patch(476, b"14712345670 14712345670\0");
                let long = [b'p'; 130];
                tar(&[
                    times(file("a", "x")),
                    times(file("b", "y").patch(345, b"d")),
                    times(file("c", "z").patch(345, long)),
                ])
            },
            &[
                "a file \"x\"",
                "d directory, implied",
                "d/b file \"y\"",
                &format!("{} directory, implied", show(&[b'p'; 130])),
                &format!("{} file \"z\"", show(&[&[b'p'; 130][..], b"/c"].concat())),
            ],
        ),
        exact(
            "a ustar header of another version",
            tar(&[file("a", "x").patch(263, b" \0"), file("b", "y").patch(263, b"\0\0").patch(345, b"d")]),
            &["a file \"x\"", "d directory, implied", "d/b file \"y\""],
        ),
        exact(
            "a header of Version 7 of the type 0",
            tar(&[file("a", "x").patch(257, [0; 8]).patch(329, [0; 16])]),
            &["a file \"x\""],
        ),
        refused(
            "a header of Version 7 of the type 0 with a slash at its end",
            tar(&[file("a/", "x").patch(257, [0; 8]).patch(329, [0; 16])]),
        ),
        refused("times and junk behind the prefix", {
            tar(&[file("a", "x").patch(345, b"p").patch(476, b"00000000001\0hidden")])
        }),
        refused("times behind a prefix that has a NUL in it", {
            tar(&[file("a", "x").patch(345, b"p\0q").patch(476, b"00000000001\x0000000000001\0")])
        }),
        refused("a mode with bits that are no type", tar(&[file("a", "x").mode(0o200_644)])),
    ];
    // Offset and width of the numbers of a header: POSIX pax, "ustar Header Block".
    for (title, offset, text) in [
        ("+12 as a size", 124, &b"+12\0"[..]),
        ("-1 as a size", 124, b"-1\0"),
        ("junk as a size", 124, b"12x4\0"),
        ("8 and 9 in an octal size", 124, b"0000000089\0"),
        ("a number after the end of a size", 124, b"1\x0077777777\0"),
        ("+1 as an owner", 108, b"+1\0"),
        ("-1 as an owner, which some take for none", 108, b"-000001\0"),
        ("-1 as a mode", 100, b"-000001\0"),
        ("junk as a time", 136, b"now\0"),
        ("a size of base 256 that is negative", 124, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("a size of base 256 that is beyond 64 bits", 124, b"\x80\x01\0\0\0\0\0\0\0\0\0\0"),
    ] {
        rows.push(refused(title, tar(&[file("a", "x").patch(offset, text)])));
    }
    for (title, flag) in [
        ("an inode of Solaris (I)", b'I'),
        ("an access control list of Solaris (A)", b'A'),
        ("an extended header of Solaris 2.6 (E)", b'E'),
        ("the second volume of a file (M)", b'M'),
        ("the name of a volume (V)", b'V'),
        ("a dump directory (D)", b'D'),
        ("renames of an incremental archive (N)", b'N'),
        ("a type beyond ASCII", 0xff),
        ("a space as a type", b' '),
        ("8 as a type", b'8'),
    ] {
        rows.push(refused(title, tar(&[member("a", flag)])));
    }
    for (title, length) in [
        ("cut off in the header", 300),
        ("cut off in the body", BLOCK + 700),
        ("cut off in the padding", BLOCK + 1001),
    ] {
        rows.push(refused(title, tar(&[file("a", vec![1; 1000])])[..length].to_vec()));
    }
    rows
}
