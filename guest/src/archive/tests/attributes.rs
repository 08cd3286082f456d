//! Times, extended attributes and ACLs in PAX records.

use super::*;
use crate::archive::acl;

type Pairs<'a> = &'a [(&'a [u8], &'a [u8])];

fn with(records: Records<'_>) -> Vec<u8> {
    archive(&[&pax(records), &file(b"f")])
}

#[test]
fn times_are_exact_to_the_nanosecond_and_cut_towards_the_past() {
    let cases: [(&str, i64, u32); 14] = [
        ("0", 0, 0),
        ("1", 1, 0),
        ("1.5", 1, 500_000_000),
        ("1.", 1, 0),
        ("1.000000001", 1, 1),
        ("1.0000000019", 1, 1),
        ("1.999999999999", 1, 999_999_999),
        ("-1", -1, 0),
        ("-1.5", -2, 500_000_000),
        ("-0.25", -1, 750_000_000),
        ("-0", 0, 0),
        ("-1.0000000001", -2, 999_999_999),
        ("-0.9999999999", -1, 0),
        ("9223372036854775807.000000001", i64::MAX, 1),
    ];
    for (text, seconds, nanoseconds) in cases {
        let member = read_one(&with(&[("mtime", text.as_bytes())])).unwrap();
        assert_eq!(member.mtime, Timestamp { seconds, nanoseconds }, "{text}");
    }
}

#[test]
fn owners_in_records_replace_those_in_the_header() {
    let member = read_one(&with(&[("uid", b"4294967294"), ("gid", b"70000")])).unwrap();
    assert_eq!((member.uid, member.gid), (u32::MAX - 1, 70000));
}

#[test]
fn extended_attributes_are_read_in_all_notations() {
    let cases: [(&str, Records<'_>, Pairs<'_>); 8] = [
        (
            "sorted by name",
            &[("SCHILY.xattr.user.b", b"2"), ("SCHILY.xattr.user.a", b"1")],
            &[(b"user.a", b"1"), (b"user.b", b"2")],
        ),
        (
            "any value",
            &[("SCHILY.xattr.security.capability", b"\0=\n\xff")],
            &[(b"security.capability", b"\0=\n\xff")],
        ),
        ("empty value", &[("SCHILY.xattr.user.a", b"")], &[(b"user.a", b"")]),
        ("GNU tar's escapes", &[("SCHILY.xattr.user.a%3Db%25c%20", b"1")], &[(b"user.a=b%c%20", b"1")]),
        ("bsdtar's own", &[("LIBARCHIVE.xattr.user.a%20b", b"AAEC")], &[(b"user.a b", b"\0\x01\x02")]),
        (
            "bsdtar's two",
            &[("LIBARCHIVE.xattr.user.a%20b", b"AAE"), ("SCHILY.xattr.user.a%20b", b"\0\x01")],
            &[(b"user.a b", b"\0\x01")],
        ),
        ("SELinux", &[("RHT.security.selinux", b"u:o:r:t:s0")], &[(b"security.selinux", b"u:o:r:t:s0")]),
        (
            "SELinux twice",
            &[("RHT.security.selinux", b"label"), ("SCHILY.xattr.security.selinux", b"label\0")],
            &[(b"security.selinux", b"label\0")],
        ),
    ];
    for (case, records, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        assert_eq!(read_one(&with(records)).unwrap().xattrs, expected, "{case}");
    }
}

#[test]
fn extended_attributes_that_contradict_each_other_are_refused() {
    let long = format!("SCHILY.xattr.{}", "n".repeat(256));
    let cases: [(&str, Records<'_>, &str); 9] = [
        ("twice", &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.a", b"1")], "given twice"),
        (
            "two values",
            &[("LIBARCHIVE.xattr.user.a", b"AA"), ("SCHILY.xattr.user.a", b"1")],
            "different values",
        ),
        (
            "two labels",
            &[("RHT.security.selinux", b"a"), ("SCHILY.xattr.security.selinux", b"b")],
            "different values",
        ),
        ("no name", &[("SCHILY.xattr.", b"1")], "name is empty"),
        ("long name", &[(&long, b"1")], "longer than 255"),
        ("NUL in the name", &[("LIBARCHIVE.xattr.user.%00", b"AA")], "holds a NUL"),
        ("bad escape", &[("LIBARCHIVE.xattr.user.%0g", b"AA")], "malformed name"),
        ("bad base 64", &[("LIBARCHIVE.xattr.user.a", b"A*==")], "malformed value"),
        ("short base 64", &[("LIBARCHIVE.xattr.user.a", b"AAAAA")], "malformed value"),
    ];
    for (case, records, rule) in cases {
        assert_refused(case, &with(records), rule);
    }
}

#[test]
fn extended_attributes_are_bounded() {
    let keys: Vec<_> = (0..65).map(|index| format!("SCHILY.xattr.user.{index:03}")).collect();
    let records: Vec<_> = keys.iter().map(|key| (key.as_str(), &b"v"[..])).collect();
    assert_eq!(read_one(&with(&records[..64])).unwrap().xattrs.len(), 64);
    assert_limit("65 attributes", &with(&records), "extended attributes");
}

#[test]
fn acls_become_what_the_kernel_keeps() {
    let expected: Vec<u8> = [
        &[2, 0, 0, 0][..],
        &[1, 0, 6, 0, 255, 255, 255, 255],
        &[2, 0, 4, 0, 0, 0, 0, 0],
        &[2, 0, 7, 0, 232, 3, 0, 0],
        &[4, 0, 4, 0, 255, 255, 255, 255],
        &[8, 0, 5, 0, 7, 0, 0, 0],
        &[16, 0, 7, 0, 255, 255, 255, 255],
        &[32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let texts: [&[u8]; 3] = [
        b"user::rw-\nuser:1000:rwx\nuser:root:r--\ngroup::r--\ngroup:7:r-x\nmask::rwx\nother::---\n",
        b"user::rw-,group::r--,other::---,user:somebody:rwx:1000,user:root:r--:0,group:7:r-x:7,mask::rwx",
        b"u::rw-,g::r--,o:---,u:1000:rwx,u:0:r--,g:7:r-x,m:rwx",
    ];
    for text in texts {
        for (key, name) in [("SCHILY.acl.access", acl::ACCESS), ("SCHILY.acl.default", acl::DEFAULT)] {
            let member = read_one(&with(&[(key, text)])).unwrap();
            assert_eq!(member.xattrs, [(name.to_vec(), expected.clone())]);
        }
    }
    let named = b"user::rw-,user:somebody:rwx,group::r--,mask::rwx,other::---";
    let both = with(&[("SCHILY.acl.access", named), ("SCHILY.xattr.system.posix_acl_access", &expected)]);
    assert_eq!(read_one(&both).unwrap().xattrs, [(acl::ACCESS.to_vec(), expected)]);
}

#[test]
fn an_acl_without_entries_is_none() {
    for text in [&b"\n"[..], b"", b" \n"] {
        for key in ["SCHILY.acl.access", "SCHILY.acl.default"] {
            assert_eq!(read_one(&with(&[(key, text)])), Ok(plain(b"f")));
        }
        let both = with(&[
            ("SCHILY.acl.default", text),
            ("SCHILY.xattr.system.posix_acl_default", b"\x02\0\0\0\x01\0\0\0\xff\xff\xff\xff"),
        ]);
        assert_refused("and an attribute", &both, "missing");
    }
    let minimal = b"user::rw-,group::r--,other::---";
    let twice = with(&[("SCHILY.acl.default", b"\n"), ("SCHILY.acl.default", minimal)]);
    assert_refused("twice", &twice, "given twice");
}

#[test]
fn acls_that_cannot_be_stored_are_refused() {
    let cases: [(&str, &[u8], &str); 10] = [
        ("by name", b"user::rw-,user:bob:rwx,group::r--,mask::rwx,other::---", "by name"),
        ("no mask", b"user::rw-,user:1:rwx,group::r--,other::---", "missing"),
        ("no owner", b"group::r--,other::---", "missing"),
        ("of commas", b",,", "missing"),
        ("the same twice", b"user::rw-,user:1:rwx,user:1:r--,group::r--,mask::rwx,other::---", "twice"),
        ("two ids", b"user::rw-,user:1:rwx:2,group::r--,mask::rwx,other::---", "form"),
        ("id of the owner", b"user::rw-:1,group::r--,other::---", "form"),
        ("odd permissions", b"user::rws,group::r--,other::---", "form"),
        ("permissions out of order", b"user::wr-,group::r--,other::---", "form"),
        ("odd tag", b"user::rw-,group::r--,other::---,owner::rwx", "form"),
    ];
    for (case, text, rule) in cases {
        assert_refused(case, &with(&[("SCHILY.acl.access", text)]), rule);
    }
    let ace = with(&[("SCHILY.acl.ace", b"owner@:rw::allow")]);
    assert_refused("NFSv4", &ace, "NFSv4");
    let minimal = b"user::rw-,group::r--,other::---";
    let two =
        with(&[("SCHILY.acl.access", minimal), ("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0")]);
    assert_refused("two of them", &two, "different values");
}

#[test]
fn a_fault_in_an_extended_header_names_the_entry() {
    let path = ("path", &b"the/entry"[..]);
    let time = ("mtime", &b"x"[..]);
    let cases: [(&str, Vec<u8>, &[u8]); 6] = [
        ("behind its name", archive(&[&pax(&[path, time]), &file(b"short")]), b"the/entry"),
        ("before its name", archive(&[&pax(&[time, path]), &file(b"short")]), b"the/entry"),
        ("with the name in the header", archive(&[&pax(&[time]), &file(b"short")]), b"short"),
        ("behind a long name", archive(&[&extension(b'L', b"long\0"), &pax(&[time]), &file(b"f")]), b"long"),
        (
            "before a long name",
            archive(&[&pax(&[time]), &extension(b'L', b"long\0"), &file(b"f")]),
            b"extension",
        ),
        ("at the end", pax(&[time]), b"extension"),
    ];
    for (case, bytes, entry) in cases {
        let error = read(&bytes).expect_err(case);
        assert_eq!(error.entry.escape_ascii().to_string(), entry.escape_ascii().to_string(), "{case}");
    }
}
