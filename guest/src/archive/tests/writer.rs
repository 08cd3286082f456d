//! What is written, and that it is read back.

use super::*;
use crate::archive::encode;

fn encoded(member: &Member) -> Vec<u8> {
    let mut out = Vec::new();
    encode(member, &mut out).unwrap();
    out
}

fn directory(name: &[u8]) -> Member {
    Member { kind: MemberKind::Directory, mode: 0o755, ..plain(name) }
}

fn link(target: &[u8]) -> Member {
    Member { kind: MemberKind::Symlink(target.to_vec()), mode: 0o777, ..plain(b"l") }
}

fn xattrs(pairs: &[(&[u8], &[u8])]) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// The fields of a header in text: name, mode, uid, gid, size, mtime, checksum, type, link, device, and the
/// rest.
fn dump(block: &[u8]) -> String {
    let fields = [0, 100, 108, 116, 124, 136, 148, 156, 157, 257, 265, 329, 337, 345, 512];
    let parts: Vec<_> = fields
        .windows(2)
        .map(|edge| {
            let field = &block[edge[0]..edge[1]];
            let end = field.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            field[..end].escape_ascii().to_string()
        })
        .collect();
    parts.join("|")
}

#[test]
fn headers_are_these_bytes() {
    let device = MemberKind::BlockDevice { major: 8, minor: 1 };
    let cases = [
        (
            plain(b"f"),
            r"f|0000644|0000001|0000002|00000000000|00000000003|007351\x00 |0||ustar\x0000||0000000|0000000|",
        ),
        (
            directory(b"d"),
            r"d/|0000755|0000001|0000002|00000000000|00000000003|007436\x00 |5||ustar\x0000||0000000|0000000|",
        ),
        (
            directory(b""),
            r"./|0000755|0000001|0000002|00000000000|00000000003|007350\x00 |5||ustar\x0000||0000000|0000000|",
        ),
        (
            link(b"../t"),
            r"l|0000777|0000001|0000002|00000000000|00000000003|007767\x00 |2|../t|ustar\x0000||0000000|0000000|",
        ),
        (
            Member { kind: device, ..plain(b"b") },
            r"b|0000644|0000001|0000002|00000000000|00000000003|007353\x00 |4||ustar\x0000||0000010|0000001|",
        ),
        (
            Member { kind: MemberKind::HardLink(b"a/b".to_vec()), ..plain(b"h") },
            r"h|0000644|0000001|0000002|00000000000|00000000003|007736\x00 |1|a/b|ustar\x0000||0000000|0000000|",
        ),
    ];
    for (member, expected) in cases {
        let bytes = encoded(&member);
        assert_eq!(bytes.len(), BLOCK, "{member:?}");
        assert_eq!(dump(&bytes), expected);
    }
}

#[test]
fn records_are_written_only_for_what_does_not_fit() {
    let name = [b'n'; 101];
    let odd = [b'\xff'; 101];
    let time = |seconds, nanoseconds| Member { mtime: Timestamp { seconds, nanoseconds }, ..plain(b"f") };
    let size = |size| Member { kind: MemberKind::File(size), stored: size, ..plain(b"f") };
    let path = |name: &[u8]| [b"path=", name].concat();
    let cases: [(Member, Vec<Vec<u8>>); 17] = [
        (plain(&name[..100]), vec![]),
        (plain(&name), vec![path(&name)]),
        (directory(&name[..99]), vec![]),
        (directory(&name[..100]), vec![path(&[&name[..100], b"/"].concat())]),
        (plain(&odd), vec![b"hdrcharset=BINARY".to_vec(), path(&odd)]),
        (plain(b"\xff"), vec![]),
        (link(&name[..100]), vec![]),
        (link(&name), vec![[b"linkpath=", &name[..]].concat()]),
        (link(&odd), vec![b"hdrcharset=BINARY".to_vec(), [b"linkpath=", &odd[..]].concat()]),
        (size((1 << 33) - 1), vec![]),
        (size(1 << 33), vec![b"size=8589934592".to_vec()]),
        (time(-1, 0), vec![b"mtime=-1".to_vec()]),
        (time(-2, 500_000_000), vec![b"mtime=-1.5".to_vec()]),
        (time(1, 1), vec![b"mtime=1.000000001".to_vec()]),
        (time((1 << 33) - 1, 0), vec![]),
        (time(1 << 33, 0), vec![b"mtime=8589934592".to_vec()]),
        (
            Member {
                uid: 1 << 21,
                gid: u32::MAX - 1,
                xattrs: xattrs(&[(b"user.a", b"\0\n"), (b"user.b=%2%25", b"")]),
                ..plain(b"f")
            },
            vec![
                b"uid=2097152".to_vec(),
                b"gid=4294967294".to_vec(),
                b"SCHILY.xattr.user.a=\0\n".to_vec(),
                b"SCHILY.xattr.user.b%3D%2%2525=".to_vec(),
            ],
        ),
    ];
    for (member, expected) in cases {
        let bytes = encoded(&member);
        let mut records = Vec::new();
        if bytes.len() > BLOCK {
            let size = usize::from_str_radix(str::from_utf8(&bytes[SIZE..SIZE + 11]).unwrap(), 8).unwrap();
            for record in crate::archive::records::split(&bytes[BLOCK..BLOCK + size]) {
                let (key, value) = record.unwrap();
                records.push([key, b"=", value].concat());
            }
        }
        assert_eq!(records, expected, "{member:?}");
    }
}

#[test]
fn an_extended_header_is_these_bytes() {
    let member = Member { uid: 1 << 31, ..plain(b"dir/file") };
    let bytes = encoded(&member);
    assert_eq!(bytes.len(), 3 * BLOCK);
    assert_eq!(
        dump(&bytes[..BLOCK]),
        r"PaxHeaders.0/file|0000644|0000000|0000000|00000000022|00000000000|012333\x00 |x||ustar\x0000||0000000|0000000|"
    );
    assert_eq!(&bytes[BLOCK..BLOCK + 18], b"18 uid=2147483648\n");
    assert!(bytes[BLOCK + 18..2 * BLOCK].iter().all(|&byte| byte == 0));
    let (uid, root) =
        (&bytes[2 * BLOCK + UID..2 * BLOCK + UID + 8], Member { uid: 1 << 31, ..directory(b"") });
    assert_eq!(uid, b"0000000\0");
    assert!(encoded(&root).starts_with(b"PaxHeaders.0/.\0"));
}

#[test]
fn record_lengths_count_their_own_digits() {
    for length in (0..1200).chain([9_980, 9_990, 99_970, 99_990]) {
        let value = vec![b'v'; length];
        let mut body = Vec::new();
        crate::archive::records::write(b"key", &value, &mut body);
        let records: Vec<_> = crate::archive::records::split(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(records, [(&b"key"[..], &value[..])]);
    }
}

#[test]
fn what_is_written_is_read_back() {
    let deep = vec![&[b'\xfe'; 200][..]; 30].join(&b'/');
    let time = |seconds, nanoseconds| Timestamp { seconds, nanoseconds };
    let members = [
        plain(b"f"),
        directory(b""),
        directory(b"d"),
        plain(&deep),
        directory(&deep),
        plain(b" \n\x1b\xff"),
        Member { mode: 0o7777, uid: 1 << 31, gid: u32::MAX - 1, ..plain(b"f") },
        Member { mtime: time(-2, 500_000_000), ..plain(b"f") },
        Member { mtime: time(i64::MAX, 999_999_999), ..plain(b"f") },
        Member { mtime: time(i64::MIN + 1, 1), ..plain(b"f") },
        link(&[b't'; 4095]),
        link(b"/\xff/../x/"),
        Member { kind: MemberKind::HardLink(deep.clone()), mode: 0, uid: 0, gid: 0, ..plain(b"h") },
        Member { kind: MemberKind::HardLink(deep.clone()), mode: 0, uid: 0, gid: 0, ..plain(&deep) },
        Member { kind: MemberKind::CharacterDevice { major: 4095, minor: (1 << 20) - 1 }, ..plain(b"c") },
        Member { kind: MemberKind::BlockDevice { major: 0, minor: 0 }, ..plain(b"b") },
        Member { kind: MemberKind::Fifo, ..plain(b"p") },
        Member {
            xattrs: xattrs(&[
                (b"a", b""),
                (b"user.big", &[b'v'; 65_536]),
                (b"user.\xff = %%25%3D%3d%2%=%", b"\n\0=\n"),
            ]),
            ..plain(b"x")
        },
    ];
    for member in members {
        let bytes = encoded(&member);
        assert_eq!(read_one(&archive(&[&bytes])), Ok(member.clone()));
        assert_eq!(encoded(&member), bytes);
    }
    for size in [1, 511, 512, (1 << 33) - 1, 1 << 33, i64::MAX.unsigned_abs()] {
        let member = Member { kind: MemberKind::File(size), stored: size, ..plain(b"f") };
        let bytes = encoded(&member);
        let step = Decoder::new().step(&bytes, false);
        assert_eq!(step, Ok(Step::Member { member, consumed: bytes.len() }));
    }
}

#[test]
fn what_would_not_be_read_back_is_not_written() {
    let many: Vec<_> = (0..65).map(|index| (format!("user.{index:03}").into_bytes(), Vec::new())).collect();
    let symlink = |target: &[u8]| Member { kind: MemberKind::Symlink(target.to_vec()), ..plain(b"l") };
    let hard = |target: &[u8]| Member { kind: MemberKind::HardLink(target.to_vec()), ..plain(b"l") };
    let cases = [
        ("root as a file", plain(b"")),
        ("up", plain(b"a/../b")),
        ("not normal", plain(b"./a")),
        ("trailing slash", directory(b"a/")),
        ("NUL", plain(b"a\0")),
        ("long component", plain(&[b'a'; 256])),
        ("empty target", symlink(b"")),
        ("long target", symlink(&[b't'; 4096])),
        ("target with a NUL", symlink(b"a\0")),
        ("hard link to the root", hard(b"")),
        ("hard link out", hard(b"../a")),
        ("no owner", Member { uid: u32::MAX, ..plain(b"f") }),
        ("type in the mode", Member { mode: 0o100_644, ..plain(b"f") }),
        (
            "time before all others",
            Member { mtime: Timestamp { seconds: i64::MIN, nanoseconds: 0 }, ..plain(b"f") },
        ),
        ("odd time", Member { mtime: Timestamp { seconds: 0, nanoseconds: 1_000_000_000 }, ..plain(b"f") }),
        ("body of another size", Member { stored: 1, ..plain(b"f") }),
        ("body of a directory", Member { stored: 1, ..directory(b"d") }),
        ("sparse", Member { extents: Some(Vec::new()), ..plain(b"f") }),
        ("beyond Linux", Member { kind: MemberKind::BlockDevice { major: 4096, minor: 0 }, ..plain(b"b") }),
        ("many attributes", Member { xattrs: many, ..plain(b"f") }),
        ("unsorted attributes", Member { xattrs: xattrs(&[(b"b", b""), (b"a", b"")]), ..plain(b"f") }),
        ("attribute twice", Member { xattrs: xattrs(&[(b"a", b""), (b"a", b"")]), ..plain(b"f") }),
        ("attribute without a name", Member { xattrs: xattrs(&[(b"", b"")]), ..plain(b"f") }),
        ("long attributes", Member { xattrs: xattrs(&[(b"a", &vec![0; 1 << 20])]), ..plain(b"f") }),
        ("one byte too many", Member { xattrs: xattrs(&[(b"a", &vec![0; (1 << 20) - 10])]), ..plain(b"f") }),
    ];
    for (case, member) in cases {
        let mut out = b"before".to_vec();
        let error = encode(&member, &mut out).expect_err(case);
        assert_eq!((error.entry, &out[..]), (member.name, &b"before"[..]), "{case}");
    }
}

#[test]
fn an_acl_that_the_kernel_would_not_keep_is_written_as_an_attribute_only() {
    // The owner's entry has an id, which means nothing and would not come back from the text.
    let value = b"\x02\0\0\0\x01\0\x06\0\0\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x20\0\x04\0\xff\xff\xff\xff";
    let xattrs = vec![(b"system.posix_acl_access".to_vec(), value.to_vec())];
    let member = Member { xattrs, ..read_one(&archive(&[&file(b"f")])).unwrap() };
    let mut bytes = Vec::new();
    encode(&member, &mut bytes).unwrap();
    assert_eq!(read_one(&archive(&[&bytes])), Ok(member));
}
