//! Sparse files, in their four forms.

use super::*;

type Extents<'a> = &'a [(u64, u64)];

fn sparse(real: u64, stored: u64, extents: Extents<'_>) -> Result<Member, Malformed> {
    let kind = MemberKind::File(real);
    Ok(Member { kind, stored, extents: Some(extents.to_vec()), ..plain(b"f") })
}

fn old(slots: Extents<'_>, real: u64, stored: u64) -> Vec<u8> {
    let slot = |&(offset, length): &(u64, u64)| format!("{offset:011o}\0{length:011o}\0").into_bytes();
    let slots: Vec<_> = slots.iter().map(slot).collect();
    let (first, rest) = slots.split_at(slots.len().min(4));
    let mut header = Raw::gnu(b'S', b"f").size(stored).at(386, &first.concat());
    header = header.at(482, &[u8::from(!rest.is_empty())]).at(483, format!("{real:011o}\0").as_bytes());
    let mut out = header.done();
    let chunks: Vec<_> = rest.chunks(21).collect();
    for (index, chunk) in chunks.iter().enumerate() {
        let mut block = chunk.concat();
        block.resize(BLOCK, 0);
        block[504] = u8::from(index + 1 < chunks.len());
        out.extend_from_slice(&block);
    }
    out
}

fn listed(records: Records<'_>, stored: u64) -> Vec<u8> {
    let body = vec![b'x'; stored as usize];
    archive(&[&pax(records), &Raw::new(b'0', b"f").size(stored).done(), &padded(&body)])
}

fn in_body(map: &[u8], real: &[u8], body: &[u8]) -> Vec<u8> {
    let body = [padded(map), body.to_vec()].concat();
    let records = [
        ("GNU.sparse.major", &b"1"[..]),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.realsize", real),
    ];
    archive(&[
        &pax(&records),
        &Raw::new(b'0', b"GNUSparseFile.1/f").size(body.len() as u64).done(),
        &padded(&body),
    ])
}

#[test]
fn old_sparse_entries_are_read() {
    let body = padded(&[b'x'; 532]);
    assert_eq!(
        read_one(&archive(&[&old(&[(5, 512), (600, 20), (700, 0)], 700, 532), &body])),
        sparse(700, 532, &[(5, 512), (600, 20)])
    );
    assert_eq!(read_one(&archive(&[&old(&[(0, 532)], 532, 532), &body])), sparse(532, 532, &[(0, 532)]));
    assert_eq!(read_one(&archive(&[&old(&[], 9, 0)])), sparse(9, 0, &[]));
    for count in [4, 5, 25, 26, 3000] {
        let slots: Vec<_> = (0..count).map(|index| (index * 1024, 512)).collect();
        let (real, stored) = (count * 1024, count * 512);
        let body = padded(&vec![b'x'; stored as usize]);
        assert_eq!(read_one(&archive(&[&old(&slots, real, stored), &body])), sparse(real, stored, &slots));
    }
}

#[test]
fn sparse_records_are_read() {
    let pairs: Records<'_> = &[
        ("GNU.sparse.size", b"200"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.offset", b"5"),
        ("GNU.sparse.numbytes", b"10"),
        ("GNU.sparse.offset", b"200"),
        ("GNU.sparse.numbytes", b"0"),
    ];
    assert_eq!(read_one(&listed(pairs, 10)), sparse(200, 10, &[(5, 10)]));
    let list: Records<'_> = &[
        ("GNU.sparse.size", b"200"),
        ("GNU.sparse.numblocks", b"2"),
        ("GNU.sparse.name", b"f"),
        ("GNU.sparse.map", b"5,10,200,0"),
    ];
    assert_eq!(read_one(&listed(list, 10)), sparse(200, 10, &[(5, 10)]));
    assert_eq!(read_one(&in_body(b"2\n5\n10\n200\n0\n", b"200", &[b'x'; 10])), sparse(200, 10, &[(5, 10)]));
}

#[test]
fn a_map_in_a_body_is_not_read_before_its_padding_is_there() {
    let archive = in_body(b"1\n0\n0\n", b"0", b"");
    let headers = archive.len() - 2 * BLOCK;
    for there in [headers - BLOCK + 6, headers - 1] {
        let mut decoder = Decoder::new();
        assert_eq!(decoder.step(&archive[..there], false), Ok(Step::Need(headers)), "{there}");
        assert_refused("cut off in the padding of a map", &archive[..there], "cut off");
    }
    let step = Decoder::new().step(&archive[..headers], false);
    assert!(matches!(step, Ok(Step::Member { consumed, .. }) if consumed == headers), "{step:?}");
}

#[test]
fn long_maps_in_bodies_are_read() {
    let extents: Vec<_> = (0..10_000).map(|index| (index * 1024, 512)).collect();
    let lines: Vec<_> = extents.iter().map(|(offset, length)| format!("{offset}\n{length}\n")).collect();
    let map = format!("10000\n{}", lines.concat());
    assert_eq!(
        read_one(&in_body(map.as_bytes(), b"10240000", &vec![b'x'; 5_120_000])),
        sparse(10_240_000, 5_120_000, &extents)
    );
}

#[test]
fn ten_terabytes_of_holes_cost_nothing() {
    let real = 10u64 << 40;
    let archive = in_body(format!("1\n{}\n1\n", real - 1).as_bytes(), real.to_string().as_bytes(), b"x");
    assert_eq!(read_one(&archive), sparse(real, 1, &[(real - 1, 1)]));
}

#[test]
fn maps_that_do_not_describe_the_file_are_refused() {
    let cases: [(&str, Extents<'_>, u64, &str); 8] = [
        ("overlap", &[(0, 10), (9, 10)], 100, "overlap"),
        ("backwards", &[(50, 10), (0, 10)], 100, "backwards"),
        ("beyond the end", &[(0, 10), (95, 10)], 100, "leave the file"),
        ("beyond all numbers", &[(0, 10), (8_589_934_591, 10)], 100, "leave the file"),
        ("less than stored", &[(0, 10)], 100, "account"),
        ("more than stored", &[(0, 21)], 100, "account"),
        ("two in one block", &[(0, 10), (20, 10)], 100, "whole blocks"),
        ("two in one block, and nothing between", &[(0, 10), (15, 0), (20, 10)], 100, "whole blocks"),
    ];
    for (case, slots, real, rule) in cases {
        assert_refused(case, &archive(&[&old(slots, real, 20), &padded(&[b'x'; 20])]), rule);
        let lines: Vec<_> = slots.iter().map(|(offset, length)| format!("{offset}\n{length}\n")).collect();
        let map = format!("{}\n{}", slots.len(), lines.concat());
        assert_refused(case, &in_body(map.as_bytes(), real.to_string().as_bytes(), &[b'x'; 20]), rule);
    }
}

#[test]
fn maps_of_the_wrong_form_are_refused() {
    let gap = Raw::gnu(b'S', b"f").at(410, b"00000000001\x0000000000000\0").done();
    assert_refused("a gap", &archive(&[&gap]), "gap");
    let half = Raw::gnu(b'S', b"f").at(386, b"00000000001\0").done();
    assert_refused("half a slot", &archive(&[&half]), "gap");
    let flag = Raw::gnu(b'S', b"f").at(482, b"1").done();
    assert_refused("an odd flag", &archive(&[&flag]), "continuation");
    let on = Raw::gnu(b'S', b"f").at(482, &[1]).done();
    assert_refused("going on after the end", &archive(&[&on]), "goes on");
    let full = old(&[(0, 1); 5], 10, 5);
    assert_refused("cut off in the map", &full[..BLOCK], "cut off");

    let maps: [(&str, &[u8], &str); 6] = [
        ("no number", b"x\n", "not a decimal"),
        ("a sign", b"+1\n0\n1\n", "not a decimal"),
        ("no newline", b"111111111111111111111111\n", "not a decimal"),
        ("fewer than it says", b"2\n0\n1\n", "not a decimal"),
        ("an empty line", b"1\n\n1\n", "not a decimal"),
        ("NULs only", b"\0", "not a decimal"),
    ];
    for (case, map, rule) in maps {
        assert_refused(case, &in_body(map, b"1", b"x"), rule);
    }
    let open = [b"400\n".to_vec(), b"0\n0\n".repeat(127), b"0\n0".to_vec()].concat();
    assert_refused("no end", &in_body(&open[..512], b"1", b""), "does not end in its body");
}

#[test]
fn mixtures_of_the_forms_are_refused() {
    let unknown = "of any known form";
    let cases: [(&str, Records<'_>, &str); 11] = [
        ("a name alone", &[("GNU.sparse.name", b"f")], unknown),
        ("a version alone", &[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")], unknown),
        ("a size alone", &[("GNU.sparse.size", b"1")], unknown),
        ("no regions", &[("GNU.sparse.size", b"1"), ("GNU.sparse.numblocks", b"0")], "another length"),
        (
            "fewer regions than it says",
            &[("GNU.sparse.size", b"1"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,0")],
            "another length",
        ),
        (
            "two maps",
            &[("GNU.sparse.map", b"0,0"), ("GNU.sparse.offset", b"0"), ("GNU.sparse.numbytes", b"0")],
            "two sparse maps",
        ),
        ("a length without an offset", &[("GNU.sparse.numbytes", b"0")], "without offset"),
        ("two offsets", &[("GNU.sparse.offset", b"0"), ("GNU.sparse.offset", b"0")], "given twice"),
        ("an odd map", &[("GNU.sparse.map", b"0,0,1")], "no length"),
        (
            "a version to come",
            &[("GNU.sparse.major", b"2"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"1")],
            unknown,
        ),
        ("an unknown record", &[("GNU.sparse.new", b"1")], "unknown GNU.sparse"),
    ];
    for (case, records, rule) in cases {
        assert_refused(case, &archive(&[&pax(records), &file(b"f")]), rule);
    }
    let map: Records<'_> =
        &[("GNU.sparse.size", b"1"), ("GNU.sparse.numblocks", b"1"), ("GNU.sparse.map", b"1,0")];
    for header in [Raw::new(b'5', b"f"), Raw::new(b'7', b"f"), Raw::gnu(b'S', b"f")] {
        assert_refused("no regular file", &archive(&[&pax(map), &header.done()]), "no regular file");
    }
    let after: Records<'_> = &[("GNU.sparse.name", b"f"), ("path", b"g")];
    assert_refused("path after the name", &archive(&[&pax(after), &file(b"f")]), "after GNU.sparse.name");
}

#[test]
fn maps_are_bounded() {
    let many = 65_537;
    let slots: Vec<_> = (0..many).map(|index| (index * 10, 1)).collect();
    assert_limit("in the header", &old(&slots, many * 10, many), "regions");
    assert_limit("in the body", &in_body(b"65537\n", b"1", b"x"), "regions");
    assert_limit("in the body, absurd", &in_body(b"999999999999999999\n", b"1", b"x"), "regions");
}
