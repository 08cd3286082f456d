//! Headers that say something about the entry after them: PAX records, and GNU's long names.

use super::{Row, exact, limit, refused, tar};
use crate::archive::{Tar, dir, file, hard_link, member, pax_records, symlink, whiteout};
use crate::look::show;

pub(super) fn rows() -> Vec<Row> {
    let long = |kind: u8, body: &[u8]| Tar::new().extended(kind, body).add(&file("a", "x")).finish();
    let records = |pairs: &[(&str, &str)]| {
        let pair = |(key, value): &(&str, &str)| (key.as_bytes().to_vec(), value.as_bytes().to_vec());
        pax_records(&pairs.iter().map(pair).collect::<Vec<_>>())
    };
    let b = &["b file \"x\""][..];
    let mut rows = vec![
        exact("a GNU long name", long(b'L', b"b\0"), b),
        exact("a GNU long name without its NUL", long(b'L', b"b"), b),
        refused("a GNU long name with two NULs", long(b'L', b"b\0\0")),
        refused("a GNU long name with a NUL and another name", long(b'L', b"b\0../../victim/hello")),
        refused("a GNU long name that leads out", long(b'L', b"../victim/hello\0")).saying("../victim/hello"),
        exact(
            "a GNU long name that is absolute",
            long(b'L', b"/layerbox-canary\0"),
            &["layerbox-canary file \"x\""],
        ),
        refused("an empty GNU long name", long(b'L', b"\0")),
        refused("a GNU long name of no bytes", long(b'L', b"")),
        refused("a GNU long name of a directory on a file", long(b'L', b"d/\0")),
        refused("a GNU long name with a component of 256 bytes", long(b'L', &[b'n'; 256])),
        limit("a GNU long name of more than 1 MiB", || {
            Tar::new().extended(b'L', &vec![b'n'; (1 << 20) + 1]).add(&file("a", "x")).finish()
        })
        .saying("1048576"),
        limit("a GNU long name that says 8 GiB and has no body", {
            Tar::new().raw(&member("././@LongLink", b'L').size(8 << 30).header()).bytes()
        }),
        refused("two GNU long names", {
            Tar::new().extended(b'L', b"b\0").extended(b'L', b"c\0").add(&file("a", "x")).finish()
        }),
        refused("a GNU long name and a PAX path", {
            Tar::new().extended(b'L', b"b\0").add(&file("a", "x").pax("path", "c")).finish()
        }),
        refused(
            "a GNU long name and no entry",
            Tar::new().add(&file("a", "x")).extended(b'L', b"b\0").finish(),
        ),
        refused("a GNU long name at the end of the stream", {
            Tar::new().add(&file("a", "x")).extended(b'L', b"b\0").bytes()
        }),
        exact(
            "a GNU long link",
            Tar::new().extended(b'K', b"t\0").add(&symlink("a", "u")).finish(),
            &["a -> t"],
        ),
        exact("a GNU long link on a file says nothing", long(b'K', b"../victim/hello\0"), &["a file \"x\""]),
        refused("a GNU long link on a directory", {
            Tar::new().extended(b'K', b"t\0").add(&dir("d/")).finish()
        }),
        refused("a GNU long link that leads out, on a hard link", {
            Tar::new().extended(b'K', b"../victim/hello\0").add(&hard_link("a", "u")).finish()
        }),
        refused("two GNU long links", {
            Tar::new().extended(b'K', b"t\0").extended(b'K', b"u\0").add(&symlink("a", "v")).finish()
        }),
        refused("a GNU long link and a PAX linkpath", {
            Tar::new().extended(b'K', b"t\0").add(&symlink("a", "u").pax("linkpath", "v")).finish()
        }),
        exact("a PAX linkpath on a file", tar(&[file("b", "x").pax("linkpath", "../victim/hello")]), b),
        exact(
            "a PAX linkpath on a whiteout, which Docker leaves there when the first one's name is long",
            {
                let first = format!("d/{}/f", "n".repeat(110));
                tar(&[whiteout(&first), whiteout("d/lower").pax("linkpath", first)])
            },
            &[
                "d directory, implied",
                "d/lower deleted",
                &format!("d/{} directory, implied", show(&[b'n'; 110])),
                &format!("d/{}/f deleted", show(&[b'n'; 110])),
            ],
        ),
        refused("a PAX linkpath on a directory", tar(&[dir("d/").pax("linkpath", "t")])),
        refused("a PAX linkpath on a FIFO", tar(&[member("f", b'6').pax("linkpath", "t")])),
        refused("a PAX linkpath on a device", {
            tar(&[crate::archive::character("c", 1, 3).pax("linkpath", "t")])
        }),
        refused("a PAX linkpath and a GNU long link on a file", {
            Tar::new().extended(b'K', b"t\0").add(&file("a", "x").pax("linkpath", "u")).finish()
        }),
        refused("an empty PAX linkpath on a file", tar(&[file("a", "x").pax("linkpath", "")])),
        refused("a PAX linkpath that leads out, on a hard link", {
            tar(&[hard_link("a", "u").pax("linkpath", "../victim/hello")])
        }),
        refused("an empty PAX linkpath", tar(&[symlink("a", "u").pax("linkpath", "")])),
        refused("a PAX path that is . on a file", tar(&[file("a", "x").pax("path", ".")])),
        refused("a PAX path that ends in a slash on a file", tar(&[file("a", "x").pax("path", "b/")])),
        refused("a PAX path twice", tar(&[file("a", "x").pax("path", "b").pax("path", "c")])),
        refused("a PAX path of a whiteout on the way", tar(&[file("a", "x").pax("path", ".wh.d/x")])),
        exact(
            "a PAX path of a whiteout",
            tar(&[file("a", "x").pax("path", ".wh.in-parent")]),
            &["in-parent deleted"],
        ),
        refused("a PAX size on a symlink", tar(&[symlink("a", "t").pax("size", "5")])),
        refused("a PAX size on a directory", tar(&[dir("d/").pax("size", "5")])),
        refused("a PAX size on a hard link", tar(&[file("f", "x"), hard_link("a", "f").pax("size", "1")])),
        refused("a PAX size beyond 63 bits", tar(&[file("a", "x").pax("size", "9223372036854775808")])),
        refused("a PAX size twice", tar(&[file("a", "x").pax("size", "1").pax("size", "1")])),
        exact("a PAX size that says the same", tar(&[file("b", "x").pax("size", "1")]), b),
        exact(
            "no PAX records in an extended header",
            Tar::new().extended(b'x', b"").add(&file("b", "x")).finish(),
            b,
        ),
        exact(
            "PAX records that nobody knows",
            {
                tar(&[file("b", "x")
                    .pax("VENDOR.what", "../victim")
                    .pax("comment", "\0\n=")
                    .pax("atime", "1")])
            },
            b,
        ),
        exact(
            "names of an owner say nothing",
            {
                tar(&[file("b", "x")
                    .owner(5, 6)
                    .pax("uname", "root")
                    .pax("gname", "root")
                    .patch(265, b"root")
                    .patch(297, b"root")])
            },
            &["b file \"x\", owner 5:6"],
        ),
        exact(
            "a length of a PAX record with zeros in front",
            Tar::new().extended(b'x', b"00013 path=b\n").add(&file("a", "x")).finish(),
            b,
        ),
        refused("a length of a PAX record with a sign", {
            Tar::new().extended(b'x', b"+10 path=b\n").add(&file("a", "x")).finish()
        }),
        refused("a PAX record that ends within its key", {
            Tar::new().extended(b'x', b"5 pat\n=b\n").add(&file("a", "x")).finish()
        }),
        refused("a PAX key with a NUL", tar(&[file("a", "x").pax("pa\0th", "b")])),
        refused("NULs after the PAX records", {
            Tar::new()
                .extended(b'x', &[&records(&[("path", "b")])[..], &[0; 8]].concat())
                .add(&file("a", "x"))
                .finish()
        }),
        refused("a character set that nobody knows", tar(&[file("a", "x").pax("hdrcharset", "EBCDIC")])),
        exact("a character set that is known", tar(&[file("b", "x").pax("hdrcharset", "BINARY")]), b),
        refused("device numbers in PAX records", {
            tar(&[crate::archive::character("c", 1, 3)
                .pax("SCHILY.devmajor", "8")
                .pax("SCHILY.devminor", "0")])
        }),
        refused("a record of a multi-volume archive", tar(&[file("a", "x").pax("GNU.volume.offset", "1")])),
        refused("a real size of star", tar(&[file("a", "x").pax("SCHILY.realsize", "5")])),
        refused(
            "a PAX header of Solaris",
            Tar::new().extended(b'X', &records(&[("path", "b")])).add(&file("a", "x")).finish(),
        ),
        refused("a global header before the entry of an extended header", {
            Tar::new()
                .extended(b'x', &records(&[("path", "b")]))
                .extended(b'g', &records(&[("comment", "c")]))
                .add(&file("a", "x"))
                .finish()
        }),
        refused("two global headers before one entry", {
            let global = records(&[("comment", "c")]);
            Tar::new().extended(b'g', &global).extended(b'g', &global).add(&file("a", "x")).finish()
        }),
        refused("a global header with a sparse map", {
            Tar::new().extended(b'g', &records(&[("GNU.sparse.map", "0,1")])).add(&file("a", "x")).finish()
        }),
        exact(
            "extended attributes in a global header say nothing",
            {
                Tar::new()
                    .extended(b'g', &records(&[("SCHILY.xattr.user.a", "v")]))
                    .add(&file("b", "x"))
                    .finish()
            },
            b,
        ),
        limit("a global header of more than 1 MiB", || {
            Tar::new().extended(b'g', &vec![b'c'; (1 << 20) + 1]).add(&file("a", "x")).finish()
        })
        .saying("1048576"),
    ];
    for (title, value) in [
        ("a PAX time in hexadecimal", "0x10"),
        ("a PAX time with an exponent", "1e5"),
        ("a PAX time that is infinite", "inf"),
        ("a PAX time that is not a number", "nan"),
        ("a PAX time of nothing but a fraction", ".5"),
        ("a PAX time with a space before it", " 1"),
        ("a PAX time with two points", "1.2.3"),
        ("a PAX time beyond 64 bits", "18446744073709551616"),
        ("an empty PAX time", ""),
    ] {
        rows.push(refused(title, tar(&[file("a", "x").pax("mtime", value)])));
    }
    rows
}
