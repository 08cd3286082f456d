//! Sparse files: maps that lie, and few bytes that stand for many.

use super::{Row, bytes, exact, limit, names, refused, tar};
use crate::archive::{BLOCK, Member, Tar, file, member};

/// The form 1.0 of GNU tar (its manual, "Storing Sparse Files"): a map in front of the data.
fn in_body(size: u64, map: &str, data: &[u8]) -> Member {
    let mut body = map.as_bytes().to_vec();
    body.resize(map.len().next_multiple_of(BLOCK), 0);
    body.extend_from_slice(data);
    file("GNUSparseFile.0/a", body)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "a")
        .pax("GNU.sparse.realsize", size.to_string())
}

/// The form 0.1: the map in a record.
fn in_record(size: &str, blocks: &str, map: &str, data: &[u8]) -> Member {
    file("a", data)
        .pax("GNU.sparse.size", size)
        .pax("GNU.sparse.numblocks", blocks)
        .pax("GNU.sparse.map", map)
}

/// The form 0.0 of a file of 5000 bytes: a pair of records for each region. The second one is the last byte.
fn pairs(offset: &str, length: &str, data: &[u8]) -> Member {
    file("a", data)
        .pax("GNU.sparse.size", "5000")
        .pax("GNU.sparse.numblocks", "2")
        .pax("GNU.sparse.offset", offset)
        .pax("GNU.sparse.numbytes", length)
        .pax("GNU.sparse.offset", "4999")
        .pax("GNU.sparse.numbytes", "1")
}

/// An archive in which a file comes behind this one that is nothing but a header to those who see it.
fn smuggled(sparse: Member) -> Vec<u8> {
    tar(&[sparse, file("evil", ""), file("good", "")])
}

/// The old form: type `S`, a map of up to four regions in the header, and whether it goes on.
fn old(map: &[(u64, u64)], real: u64, goes_on: bool, data: &[u8]) -> Member {
    let octal = |number: u64| format!("{number:011o}\0").into_bytes();
    let mut sparse = Member { body: data.to_vec(), ..member("a", b'S') }
        .patch(257, b"ustar  \0")
        .patch(329, [0; 16])
        .patch(483, octal(real))
        .patch(482, [u8::from(goes_on)]);
    for (slot, (offset, length)) in map.iter().enumerate() {
        sparse = sparse.patch(386 + 24 * slot, octal(*offset)).patch(398 + 24 * slot, octal(*length));
    }
    sparse
}

pub(super) fn rows() -> Vec<Row> {
    let form = |key: &str, value: &str| tar(&[in_body(100, "1\n0\n1\n", b"x").pax(key, value)]);
    let named = |name: &[u8]| {
        let mut member = in_body(100, "1\n0\n1\n", b"x");
        member.pax.retain(|(key, _)| key != b"GNU.sparse.name");
        tar(&[member.pax("GNU.sparse.name", name)])
    };
    vec![
        limit("a sparse file larger than the set bound", tar(&[in_body(10 << 40, "1\n0\n1\n", b"x")]))
            .bounds(bytes(1 << 30)),
        limit("a 10 TB sparse map with few bytes", tar(&[in_body(10 << 40, "1\n0\n1\n", b"x")]))
            .saying("bytes"),
        limit("a sparse file of 8 EiB less one", tar(&[in_body(i64::MAX as u64, "1\n0\n1\n", b"x")])),
        refused("a sparse file of 16 EiB", tar(&[in_body(u64::MAX, "1\n0\n1\n", b"x")])),
        exact(
            "a sparse file is read as what it is",
            tar(&[in_body(5000, "1\n4999\n1\n", b"x")]),
            &["a file of 5000"],
        ),
        exact("a sparse file that is all hole", tar(&[in_body(5000, "0\n", b"")]), &["a file of 5000"]),
        exact(
            "a sparse file with a region of nothing at its end",
            tar(&[in_body(5000, "2\n0\n1\n5000\n0\n", b"x")]),
            &["a file of 5000"],
        ),
        refused("a sparse map that overlaps", tar(&[in_body(100, "2\n0\n10\n5\n10\n", &[1; 20])])),
        refused("a sparse map that runs backwards", tar(&[in_body(100, "2\n50\n10\n0\n10\n", &[1; 20])])),
        refused("a sparse map beyond the file's size", tar(&[in_body(100, "1\n90\n20\n", &[1; 20])])),
        refused("a sparse map that wraps round", tar(&[in_body(100, "1\n18446744073709551615\n2\n", b"xy")])),
        refused(
            "a sparse map whose end wraps round",
            tar(&[in_body(100, "1\n9223372036854775807\n2\n", b"xy")]),
        ),
        refused("a sparse map with more entries than it has", tar(&[in_body(100, "9\n0\n1\n", b"x")])),
        refused(
            "a sparse map that says more data than there is",
            tar(&[in_body(1 << 20, "1\n0\n1000\n", b"x")]),
        ),
        refused(
            "a sparse map that says less data than there is",
            tar(&[in_body(1 << 20, "1\n0\n1\n", b"xyz")]),
        ),
        refused("a sparse map that is no number", tar(&[in_body(100, "one\n0\n1\n", b"x")])),
        refused("a sparse map with a sign", tar(&[in_body(100, "1\n+0\n1\n", b"x")])),
        refused("a sparse map of digits without a newline", tar(&[in_body(100, &"1".repeat(5000), b"x")])),
        refused(
            "a sparse map that is cut off by the end of its body",
            tar(&[in_body(100, "2\n0\n1\n", b"")]),
        ),
        limit("a sparse map that says 65,537 regions", tar(&[in_body(100, "65537\n0\n1\n", b"x")]))
            .saying("65536"),
        limit("a sparse map that says 2^63 - 1 regions", tar(&[in_body(100, "9223372036854775807\n", b"x")])),
        refused("a sparse map that says 2^64 regions", tar(&[in_body(100, "18446744073709551616\n", b"x")])),
        names(
            "a sparse map of 65,536 regions",
            || {
                let regions: String = (0..65_536).map(|number| format!("{}\n512\n", 1024 * number)).collect();
                tar(&[in_body(64 << 20, &format!("65536\n{regions}"), &vec![7; 32 << 20])])
            },
            1,
        ),
        refused("a GNU.sparse.name that leads out", named(b"../victim/x")).saying("../victim/x"),
        exact(
            "a GNU.sparse.name that is absolute",
            named(b"/layerbox-canary"),
            &["layerbox-canary file of 100"],
        ),
        refused("a GNU.sparse.name with a NUL", named(b"a\0b")),
        refused("an empty GNU.sparse.name", named(b"")),
        refused("a GNU.sparse.name that is a directory", named(b"d/")),
        refused("a GNU.sparse.name of a whiteout on the way", named(b".wh.d/x")),
        refused("a path after the GNU.sparse.name", form("path", "b")),
        refused("a record of a sparse form nobody knows", form("GNU.sparse.what", "1")),
        refused("a sparse file of two forms", form("GNU.sparse.map", "0,1")),
        refused("a sparse file of a major version that nobody knows", {
            let mut member = in_body(100, "1\n0\n1\n", b"x");
            member.pax[0].1 = b"2".to_vec();
            tar(&[member])
        }),
        refused("a sparse symlink", tar(&[in_body(100, "", b"").patch(156, b"2").patch(157, b"x").size(0)])),
        refused("a sparse directory", tar(&[in_body(100, "", b"").patch(156, b"5").size(0)])),
        exact("sparse form 0.1", tar(&[in_record("5000", "1", "4999,1", b"x")]), &["a file of 5000"]),
        refused(
            "sparse form 0.1 with another count of regions",
            tar(&[in_record("5000", "2", "4999,1", b"x")]),
        ),
        refused("sparse form 0.1 with half a region", tar(&[in_record("5000", "1", "4999", b"x")])),
        refused("sparse form 0.1 with regions that overlap", tar(&[in_record("50", "2", "0,2,1,1", b"xyz")])),
        exact("sparse form 0.0", tar(&[pairs("1024", "512", &[7; 513])]), &["a file of 5000"]),
        // GNU tar takes the block after the first one's for the second region, and what the others see there
        // for no header.
        refused("sparse form 0.0 with two regions in one block", smuggled(pairs("10", "1", b"xy"))),
        refused(
            "sparse form 0.1 with two regions in one block",
            smuggled(in_record("5000", "2", "0,1,4999,1", b"xy")),
        ),
        refused(
            "sparse form 1.0 with two regions in one block",
            smuggled(in_body(5000, "2\n0\n1\n4999\n1\n", b"xy")),
        ),
        refused(
            "the old sparse form with two regions in one block",
            smuggled(old(&[(0, 1), (4999, 1)], 5000, false, b"xy")),
        ),
        refused("sparse form 0.0 with a length before its offset", {
            tar(&[file("a", "x")
                .pax("GNU.sparse.size", "5000")
                .pax("GNU.sparse.numblocks", "1")
                .pax("GNU.sparse.numbytes", "1")
                .pax("GNU.sparse.offset", "10")])
        }),
        exact("the old sparse form", tar(&[old(&[(4999, 1)], 5000, false, b"x")]), &["a file of 5000"]),
        refused("the old sparse form with a map that never ends", {
            Tar::new().raw(&old(&[(0, 1)], 5000, true, b"x").header()).bytes()
        }),
        refused("the old sparse form with a map that goes on after its end", {
            let mut next = [0; BLOCK];
            next[504] = 0;
            next[..24].copy_from_slice(b"00000000010\x0000000000001\0");
            let header = old(&[(0, 1)], 5000, true, b"xy").header();
            Tar::new().raw(&header).raw(&next).raw(b"xy").pad().finish()
        }),
        limit("the old sparse form with a map of 70,000 regions", || {
            let octal = |number: u64| format!("{number:011o}\0").into_bytes();
            let mut tar = Tar::new();
            let map: Vec<(u64, u64)> = (0..4).map(|number| (2 * number, 1)).collect();
            tar.raw(&Member { size: Some(70_000), ..old(&map, 1 << 30, true, b"") }.header());
            for block in 0..3400u64 {
                let mut bytes = Vec::new();
                for slot in 0..21 {
                    bytes.extend_from_slice(&octal(2 * (4 + 21 * block + slot)));
                    bytes.extend_from_slice(&octal(1));
                }
                bytes.resize(504, 0);
                bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
                tar.raw(&bytes);
            }
            tar.finish()
        })
        .saying("65536"),
        refused("the old sparse form with a file below zero", {
            tar(&[old(&[(0, 1)], 0, false, b"x").patch(483, [0xff; 12])])
        }),
        refused("the old sparse form in a ustar header", tar(&[member("a", b'S')])),
    ]
}
