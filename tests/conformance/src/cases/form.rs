//! The bytes of an archive that `diff` writes (`wit/README.md`, "The form of archives"): a table of entries
//! and the headers that they must have.
//!
//! Other cases read what `diff` wrote and compare what it says; these compare it byte for byte, so that two
//! components which were written apart can be told to write the same.

use std::sync::Arc;

use super::attributes::acl;
use super::{Case, Context, Outcome, Scope, broad, layer};
use crate::check::equal;
use crate::escape;
use crate::tar::{Archive, BLOCK, Entry, Header, Kind, records};

/// A name, what it is about, what is applied, and what must come out again, without the end.
type Row = (&'static str, &'static str, fn() -> Vec<Entry>, fn() -> Archive);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("file", "ustar, numbers with leading zeros and a NUL, device numbers 0, no names of owners", || vec![
        Entry::file("f", "hello").mode(0o4751).owner(1000, 100),
    ], || Archive::new().member(Header::new(b'0').name(b"f").size(5).numbers(0o4751, (1000, 100), TIME, (0, 0)), b"hello")),
    ("directory", "its name ends in a slash; the root is ./", || vec![
        Entry::directory("").mode(0o700).time(7, 0), Entry::directory("d"),
    ], || Archive::new()
        .member(Header::new(b'5').name(b"./").numbers(0o700, (0, 0), 7, (0, 0)), b"")
        .member(Header::new(b'5').name(b"d/").numbers(0o755, (0, 0), TIME, (0, 0)), b"")),
    ("symlink", "mode 0777, its target as it is", || vec![Entry::symlink("l", "../a/./b")], || Archive::new()
        .member(Header::new(b'2').name(b"l").link(b"../a/./b").numbers(0o777, (0, 0), TIME, (0, 0)), b"")),
    ("nodes", "device numbers of devices", || vec![
        Entry::node("b", Kind::Block(8, 17)).mode(0o660), Entry::node("c", Kind::Character(4095, 1_048_575)), Entry::node("p", Kind::Fifo),
    ], || Archive::new()
        .member(Header::new(b'4').name(b"b").numbers(0o660, (0, 0), TIME, (8, 17)), b"")
        .member(Header::new(b'3').name(b"c").numbers(0o644, (0, 0), TIME, (4095, 1_048_575)), b"")
        .member(Header::new(b'6').name(b"p").numbers(0o644, (0, 0), TIME, (0, 0)), b"")),
    ("hard-link", "attributes of the file, no size, no extended attributes", || vec![
        Entry::file("a", "x").mode(0o600).owner(1, 2).xattr("user.a", "b"), Entry::hard_link("b", "a"),
    ], || {
        let numbers = |header: Header| header.numbers(0o600, (1, 2), TIME, (0, 0));
        Archive::new()
            .extension_of(b"a", &records(&[(b"SCHILY.xattr.user.a", b"b")]))
            .member(numbers(Header::new(b'0').name(b"a").size(1)), b"x")
            .member(numbers(Header::new(b'1').name(b"b").link(b"a")), b"")
    }),
    ("marks", "mode 0, owner 0:0, time 0", || vec![
        Entry::directory("d"), Entry::opaque("d"), Entry::directory("e"), Entry::whiteout("e/x"), Entry::whiteout("f"),
    ], || Archive::new()
        .member(Header::new(b'5').name(b"d/").numbers(0o755, (0, 0), TIME, (0, 0)), b"")
        .member(Header::new(b'0').name(b"d/.wh..wh..opq"), b"")
        .member(Header::new(b'5').name(b"e/").numbers(0o755, (0, 0), TIME, (0, 0)), b"")
        .member(Header::new(b'0').name(b"e/.wh.x"), b"")
        .member(Header::new(b'0').name(b".wh.f"), b"")),
    ("long-name", "from 101 bytes on a record; the field has the first 100, and no prefix", || {
        let d = "d".repeat(99);
        vec![Entry::directory(&d), Entry::file(format!("{d}/f"), "x")]
    }, || {
        let d = [b'd'; 99];
        let path = [&d[..], b"/f"].concat();
        Archive::new()
            .member(Header::new(b'5').name(&[&d[..], b"/"].concat()).numbers(0o755, (0, 0), TIME, (0, 0)), b"")
            .extension_of(b"f", &records(&[(b"path", &path)]))
            .member(Header::new(b'0').name(&path).size(1).numbers(0o644, (0, 0), TIME, (0, 0)), b"x")
    }),
    ("long-name-of-a-directory", "its slash counts; that of its extended header's name is the last component, cut at 100 bytes", || vec![Entry::directory("d".repeat(100))], || {
        let path = [&[b'd'; 100][..], b"/"].concat();
        Archive::new()
            .extension_of(&[b'd'; 100], &records(&[(b"path", &path)]))
            .member(Header::new(b'5').name(&path).numbers(0o755, (0, 0), TIME, (0, 0)), b"")
    }),
    ("owners", "from 2,097,152 on a record, and 0 in the field", || vec![
        Entry::file("a", "").owner(2_097_151, 2_097_152), Entry::file("b", "").owner(u32::MAX - 1, 7),
    ], || Archive::new()
        .extension_of(b"a", &records(&[(b"gid", b"2097152")]))
        .member(Header::new(b'0').name(b"a").numbers(0o644, (2_097_151, 0), TIME, (0, 0)), b"")
        .extension_of(b"b", &records(&[(b"uid", b"4294967294")]))
        .member(Header::new(b'0').name(b"b").numbers(0o644, (0, 7), TIME, (0, 0)), b"")),
    ("times", "a record for what is not whole, before 1970 or from 2^33 on, without zeros at the end", || vec![
        Entry::file("a", "").time(1, 500_000_000), Entry::file("b", "").time(-2, 500_000_000), Entry::file("c", "").time(-1, 0),
        Entry::file("d", "").time(-1, 999_999_999), Entry::file("e", "").time(8_589_934_591, 0), Entry::file("f", "").time(8_589_934_592, 0),
    ], || {
        let late = |archive: Archive, name: &[u8], mtime: &[u8]| archive
            .extension_of(name, &records(&[(b"mtime", mtime)]))
            .member(Header::new(b'0').name(name).numbers(0o644, (0, 0), 0, (0, 0)), b"");
        let archive = [(b"a", &b"1.5"[..]), (b"b", b"-1.5"), (b"c", b"-1"), (b"d", b"-0.000000001")].into_iter()
            .fold(Archive::new(), |archive, (name, mtime)| late(archive, name, mtime))
            .member(Header::new(b'0').name(b"e").numbers(0o644, (0, 0), 8_589_934_591, (0, 0)), b"");
        late(archive, b"f", b"8589934592")
    }),
    ("order-of-records", "hdrcharset, path, linkpath, uid, gid, mtime, attributes by the bytes of their names", || vec![
        Entry::symlink(LONG, LONG).owner(3_000_000, 3_000_000).time(5, 5).xattr("trusted.b", "2").xattr("trusted.a", "1\n\0="),
    ], || Archive::new()
        .extension_of(LONG, &records(&[
            (b"hdrcharset", b"BINARY"), (b"path", LONG), (b"linkpath", LONG), (b"uid", b"3000000"), (b"gid", b"3000000"),
            (b"mtime", b"5.000000005"), (b"SCHILY.xattr.trusted.a", b"1\n\0="), (b"SCHILY.xattr.trusted.b", b"2"),
        ]))
        .member(Header::new(b'2').name(LONG).link(LONG).numbers(0o777, (0, 0), 0, (0, 0)), b"")),
    ("charset-of-short-names", "none is said of what fits the fields", || vec![Entry::symlink("\u{e9}", b"\xff")], || Archive::new()
        .member(Header::new(b'2').name("\u{e9}".as_bytes()).link(b"\xff").numbers(0o777, (0, 0), TIME, (0, 0)), b"")),
    ("charset-of-long-text", "none is said of UTF-8", || vec![Entry::file("\u{e9}".repeat(51), "")], || {
        let name = "\u{e9}".repeat(51);
        Archive::new()
            .extension_of(name.as_bytes(), &records(&[(b"path", name.as_bytes())]))
            .member(Header::new(b'0').name(name.as_bytes()).numbers(0o644, (0, 0), TIME, (0, 0)), b"")
    }),
    ("names-of-attributes", "= is %3D, and the % of what GNU tar takes for an escape is %25", || vec![
        Entry::file("f", "").xattr("user.a%3Db", "1").xattr("user.a=b", "2").xattr("user.c%", "3"),
    ], || Archive::new()
        .extension_of(b"f", &records(&[(b"SCHILY.xattr.user.a%253Db", b"1"), (b"SCHILY.xattr.user.a%3Db", b"2"),
            (b"SCHILY.xattr.user.c%", b"3")]))
        .member(Header::new(b'0').name(b"f").numbers(0o644, (0, 0), TIME, (0, 0)), b"")),
    ("access-control-lists", "as text before all attributes, and as an attribute", || vec![
        Entry::directory("d").xattr("system.posix_acl_default", acl(None)),
        Entry::file("f", "").xattr("system.posix_acl_access", acl(Some(1000))),
    ], || Archive::new()
        .extension_of(b"d", &records(&[
            (b"SCHILY.acl.default", b"user::rw-,group::r--,other::r--"), (b"SCHILY.xattr.system.posix_acl_default", &acl(None)),
        ]))
        .member(Header::new(b'5').name(b"d/").numbers(0o755, (0, 0), TIME, (0, 0)), b"")
        .extension_of(b"f", &records(&[
            (b"SCHILY.acl.access", b"user::rw-,user:1000:r-x,group::r--,mask::r--,other::r--"),
            (b"SCHILY.xattr.system.posix_acl_access", &acl(Some(1000))),
        ]))
        .member(Header::new(b'0').name(b"f").numbers(0o644, (0, 0), TIME, (0, 0)), b"")),
];

/// The time of an [`Entry`] that says none.
const TIME: u64 = 1_600_000_000;

/// A name that is too long for its field, and no UTF-8.
const LONG: &[u8] = &[0xff; 101];

pub(super) fn cases() -> Vec<Case> {
    let rows = ROWS.iter().map(|&(name, about, entries, expected)| Case {
        name: format!("archive/form-of-{name}"),
        about,
        scope: Scope::Each,
        // An archive as a whole tells many rules at once.
        broad: true,
        run: Arc::new(move |context: &Context<'_>| row(context, &entries(), expected().end())),
    });
    let more = [
        broad(Scope::Each, "archive/form-of-the-root", "where it is written, and where not", roots),
        broad(
            Scope::Each,
            "archive/form-of-the-root-in-a-difference",
            "where it differs, or where there is anything else",
            differing_roots,
        ),
    ];
    rows.chain(more).collect()
}

fn row(context: &Context<'_>, entries: &[Entry], expected: Vec<u8>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, entries)?;
    Ok(same(&store.diff("a", None)?.archive, &expected)?)
}

/// Fails where two archives differ, and says at which byte of which block.
fn same(found: &[u8], expected: &[u8]) -> Result<(), String> {
    let Some(at) = found.iter().zip(expected).position(|(one, other)| one != other) else {
        return equal("bytes of the archive", found.len(), expected.len());
    };
    let around = |bytes: &[u8]| escape::name(&bytes[at..bytes.len().min(at + 24)]);
    Err(format!(
        "block {}, byte {}: {}, and must be {}",
        at / BLOCK,
        at % BLOCK,
        around(found),
        around(expected)
    ))
}

/// Whether the archive of a root with these attributes has an entry for it, alone and with a file.
fn roots(context: &Context<'_>) -> Outcome {
    let rows = [
        (Entry::directory("").time(0, 0), [false, false]),
        (Entry::directory("").time(9, 0), [false, true]),
        (Entry::directory("").mode(0o700).time(0, 0), [true, true]),
        (Entry::directory("").owner(0, 1).time(0, 0), [true, true]),
        (Entry::directory("").xattr("user.a", "b").time(0, 0), [true, true]),
    ];
    for (root, expected) in rows {
        for (more, expected) in [vec![], vec![Entry::file("f", "")]].into_iter().zip(expected) {
            let store = context.quick()?;
            let with = if more.is_empty() { "alone" } else { "with a file" };
            layer(store.as_ref(), "a", None, &[vec![root.clone()], more].concat())?;
            let names = super::entry_names(store.as_ref(), "a")?;
            equal(
                &format!("{root:?} {with} has an entry"),
                names.iter().any(|name| name == "(root)"),
                expected,
            )?;
        }
    }
    Ok(())
}

fn differing_roots(context: &Context<'_>) -> Outcome {
    let plain = || Entry::directory("").time(0, 0);
    let odd = || plain().mode(0o700);
    let f = || vec![Entry::file("f", "")];
    // The root of the older tree, that of the newer, what else the newer has, whether there is an entry.
    let rows = [
        (plain(), plain(), vec![], false),
        (plain(), plain().time(9, 0), vec![], false),
        (plain(), plain().time(9, 0), f(), true),
        (plain(), plain(), f(), false),
        (odd(), odd(), vec![], false),
        (odd(), odd(), f(), true),
        (odd(), odd().time(9, 0), vec![], true),
        (plain(), odd(), vec![], true),
    ];
    for (old, new, more, expected) in rows {
        let store = context.quick()?;
        let what = format!("{new:?} over {old:?}, and {} more", more.len());
        layer(store.as_ref(), "old", None, &[old])?;
        layer(store.as_ref(), "new", None, &[vec![new], more].concat())?;
        let found = crate::tar::read(&store.diff("new", Some("old"))?.archive)?;
        equal(&format!("{what} has an entry"), found.iter().any(|entry| entry.name.is_empty()), expected)?;
    }
    Ok(())
}
