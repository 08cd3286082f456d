//! Compressed streams that are not what they say, or much more than they look like.

use super::{Row, bytes, exact, limit, refused, tar};
use crate::archive::{file, member};
use crate::packed::{Block, Gzip, USUAL_WINDOW, crc, skippable, zstd, zstd_frame};

pub(super) fn rows() -> Vec<Row> {
    let plain = tar(&[file("a", "x")]);
    let held = &["a file \"x\""][..];
    let gzip = Gzip::new().stored(&plain);
    let mut rows = gzip_rows(&plain, &gzip, held);
    rows.extend(zstd_rows(&plain, held));
    for (title, magic) in [
        ("xz is not read, and that is said", &b"\xfd7zXZ\0"[..]),
        ("bzip2 is not read, and that is said", b"BZh91AY&SY"),
        ("lz4 is not read, and that is said", b"\x04\x22\x4d\x18"),
        ("lzip is not read, and that is said", b"LZIP\x01"),
        ("compress is not read, and that is said", b"\x1f\x9d\x90"),
        ("zip is not read, and that is said", b"PK\x03\x04"),
    ] {
        rows.push(refused(title, [magic, &[0; 2000]].concat()).saying("not supported"));
    }
    // Nobody unpacks these where a header is.
    for (title, name, found) in [
        ("a name like the beginning of zip", &b"PK\x03\x04"[..], "PK\\x03\\x04"),
        ("a name like the beginning of lz4", b"\x04\x22\x4d\x18", "\\x04\\\"M\\x18"),
        ("a name like the beginning of lzip", b"LZIP\x01", "LZIP\\x01"),
        ("a name like the beginning of compress", b"\x1f\x9d\x90", "\\x1f\\x9d\\x90"),
        ("a name like the beginning of gzip, of another method", b"\x1f\x8b\x07", "\\x1f\\x8b\\x07"),
        ("a name like the beginning of bzip2, and not quite", b"BZh9", "BZh9"),
    ] {
        rows.push(exact(title, tar(&[file(name, "x")]), &[&format!("{found} file \"x\"")]));
    }
    // Engines do these, and see what is packed in the rest of the header, and in the body.
    for (title, name) in [
        ("a name like the beginning of gzip", &b"\x1f\x8b\x08"[..]),
        ("a name like the beginning of zstd", b"\x28\xb5\x2f\xfd"),
        ("a name like the beginning of bzip2", b"BZh91AY&SY"),
        ("a name like the beginning of xz", b"\xfd7zXZ"),
        // A frame of 504 bytes: the rest of the header.
        ("a header that is a zstd frame to be skipped, before another archive", b"\x50\x2a\x4d\x18\xf8\x01"),
    ] {
        rows.push(refused(title, tar(&[file(name, zstd(&plain))])));
    }
    rows
}

fn gzip_rows(plain: &[u8], gzip: &[u8], held: &[&str]) -> Vec<Row> {
    let with = |flags: u8, extra: Vec<u8>| Gzip { flags, extra, ..Gzip::new() }.stored(plain);
    let behind = |rest: &[u8]| [gzip, rest].concat();
    let halves = |at: usize| {
        let member = |part: &[u8]| Gzip::new().stored(part);
        [member(&plain[..at]), member(&plain[at..])].concat()
    };
    let mut name = vec![b'n'; 1 << 20];
    name.push(0);
    let extra = [&u16::MAX.to_le_bytes()[..], &[7; u16::MAX as usize]].concat();
    vec![
        exact("gzip", gzip.to_vec(), held),
        exact("concatenated gzip members, cut in a header", halves(300), held),
        exact("concatenated gzip members, cut in the padding", halves(700), held),
        exact(
            "a thousand gzip members of nothing, then the archive",
            [Gzip::new().stored(b"").repeat(1000), gzip.to_vec()].concat(),
            held,
        ),
        exact("zeros after the last gzip member", behind(&[0; 3000]), held),
        refused("garbage after the last gzip member", behind(b"garbage")),
        refused("a gzip member that is cut in its trailer", gzip[..gzip.len() - 4].to_vec()),
        refused("a gzip member that is cut in its body", gzip[..200].to_vec()),
        refused("a gzip header that is cut", gzip[..9].to_vec()),
        refused("a gzip header and nothing more", gzip[..10].to_vec()),
        refused("a gzip member with a wrong checksum", Gzip { sum_error: 1, ..Gzip::new() }.stored(plain)),
        refused("a gzip member with a wrong length", Gzip { length_error: 1, ..Gzip::new() }.stored(plain)),
        refused("a gzip header with reserved flags", with(0x20, Vec::new())),
        refused("a gzip member of another method", {
            let mut bytes = gzip.to_vec();
            bytes[2] = 7;
            bytes
        }),
        refused("a gzip header with a wrong checksum of its own", with(2, vec![0, 0])),
        exact("a gzip file name of 1 MiB", with(8, name), held),
        refused("a gzip file name that never ends", {
            let mut bytes = gzip[..10].to_vec();
            bytes[3] = 8;
            bytes.resize(1 << 20, b'n');
            bytes
        }),
        exact("a gzip extra field of 65,535 bytes", with(4, extra), held),
        refused(
            "a deflate block of the reserved type",
            Gzip::new().member(&[0b111], crc(plain), plain.len()),
        ),
        refused("a deflate match before the beginning", {
            // The last block, fixed codes: length 3 (257: 0000001) at distance 1, with nothing before it.
            Gzip::new().member(&[0b0000_0011, 0b0000_0010, 0, 0], 0, 3)
        }),
        refused("gzip in gzip", Gzip::new().stored(gzip)),
        refused("gzip in zstd", zstd(gzip)),
        refused("zstd in gzip", Gzip::new().stored(&zstd(plain))),
        exact(
            "a gzip bomb after the end of the archive is gone through and thrown away",
            || Gzip::new().zeros(&tar(&[file("a", "x")]), 400_000),
            held,
        ),
        limit("a gzip bomb in a body", || {
            Gzip::new().zeros(&member("a", b'0').size(103_200_001).header(), 400_000)
        })
        .bounds(bytes(10 << 20))
        .saying("10485760"),
    ]
}

fn zstd_rows(plain: &[u8], held: &[&str]) -> Vec<Row> {
    let raw = || vec![Block::Raw(plain.to_vec())];
    let packed = zstd(plain);
    // Window descriptors: exponent and mantissa, 2^(10 + exponent) and eighths of that on top.
    let window = |exponent: u8| zstd_frame(0, &[exponent << 3], &raw());
    let sized =
        |size: u16| zstd_frame(0x40, &[&[USUAL_WINDOW][..], &(size - 256).to_le_bytes()].concat(), &raw());
    let length = plain.len() as u16;
    vec![
        exact("zstd", packed.clone(), held),
        exact("concatenated zstd frames", [zstd(&plain[..700]), zstd(&plain[700..])].concat(), held),
        exact(
            "zstd frames between skippable ones",
            [skippable(b"one"), packed.clone(), skippable(&[0; 100_000])].concat(),
            held,
        ),
        refused("skippable zstd frames and nothing else", skippable(b"nothing").repeat(3)),
        refused("a skippable zstd frame that is cut", skippable(&[0; 100])[..50].to_vec()),
        refused(
            "a skippable zstd frame of 4 GiB of which nothing comes",
            b"\x5f\x2a\x4d\x18\xff\xff\xff\xff".to_vec(),
        ),
        exact("a zstd window of 64 MiB", window(16), held),
        limit("a zstd window of 128 MiB", window(17)).saying("window"),
        limit("a zstd window of 2 GiB (--long=31)", window(21)).saying("window"),
        limit("a zstd window of 3.75 TiB", zstd_frame(0, &[0xff], &raw())).saying("window"),
        limit("a zstd frame in one segment of 2^62 bytes", {
            zstd_frame(0xe0, &(1u64 << 62).to_le_bytes(), &raw())
        }),
        exact("a zstd frame that says its length", sized(length), held),
        refused("a zstd frame that says a length that is not its own", sized(length + 1)),
        refused("a zstd frame that wants a dictionary", zstd_frame(1, &[USUAL_WINDOW, 42], &raw())),
        refused("a zstd frame with a wrong checksum", {
            [zstd_frame(4, &[USUAL_WINDOW], &raw()), vec![1, 2, 3, 4]].concat()
        }),
        refused("a zstd frame without its checksum", zstd_frame(4, &[USUAL_WINDOW], &raw())),
        refused("a zstd frame with the reserved bit", zstd_frame(8, &[USUAL_WINDOW], &raw())),
        refused("a zstd block of the reserved type", zstd_frame(0, &[USUAL_WINDOW], &[Block::Reserved])),
        refused("a zstd block larger than a block can be", {
            zstd_frame(0, &[USUAL_WINDOW], &[Block::Raw(vec![0; 200 << 10])])
        }),
        refused("a zstd frame that is cut in a block", packed[..300].to_vec()),
        refused("a zstd frame without its last block", {
            let mut bytes = packed.clone();
            bytes[6] &= !1;
            bytes
        }),
        refused("garbage after the last zstd frame", [packed, b"garbage!".to_vec()].concat()),
        exact(
            "a zstd bomb after the end of the archive is gone through and thrown away",
            || {
                let mut blocks = vec![Block::Raw(tar(&[file("a", "x")]))];
                blocks.resize(2000, Block::Repeated(0, 128 << 10));
                zstd_frame(0, &[USUAL_WINDOW], &blocks)
            },
            held,
        ),
        limit("a zstd bomb in a body", || {
            let mut blocks = vec![Block::Raw(member("a", b'0').size(1 << 30).header().to_vec())];
            blocks.resize(1 + (1 << 13), Block::Repeated(7, 128 << 10));
            zstd_frame(0, &[USUAL_WINDOW], &blocks)
        })
        .bounds(bytes(10 << 20))
        .saying("10485760"),
        limit("a zstd bomb within the bounds, but thousands of times its length", || {
            let mut blocks = vec![Block::Raw(member("a", b'0').size(256 << 20).header().to_vec())];
            blocks.resize(1 + (1 << 11), Block::Repeated(7, 128 << 10));
            zstd_frame(0, &[USUAL_WINDOW], &blocks)
        })
        .saying("expansion"),
        exact(
            "zeros that are thousands of times the archive become a hole",
            || {
                let mut blocks = vec![Block::Raw(member("a", b'0').size(100 << 20).header().to_vec())];
                blocks.resize(1 + 800, Block::Repeated(0, 128 << 10));
                zstd_frame(0, &[USUAL_WINDOW], &blocks)
            },
            &["a file of 104857600"],
        ),
        limit("a zstd stream of more entries than the set bound", || zstd(&super::empty_files("f", 3000)))
            .bounds(super::entries(1000))
            .saying("1000"),
    ]
}
