//! Archives that readers take differently (HOSTILE, rule 10): a table.

use super::attributes::acl;
use super::hostile::{End, Row, from_rows};
use super::{Case, Scope};
use crate::tar::{Archive, Entry, Header, archive, records};

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("wrong-checksum", "off by one", || Archive::new().raw(&file().seal_wrongly(1)).end(), End::RefusedAnyhow),
    ("cut-in-a-header", "after a whole entry", || {
        let mut bytes = archive(&[Entry::file("a", "x"), Entry::file("b", "")]);
        bytes.truncate(1024 + 100);
        bytes
    }, End::RefusedAnyhow),
    ("cut-in-a-body", "refused", || archive(&[Entry::file("a", vec![b'x'; 2000])])[..1500].to_vec(), End::RefusedAnyhow),
    ("cut-in-the-padding", "refused", || archive(&[Entry::file("a", vec![b'x'; 600])])[..1200].to_vec(), End::RefusedAnyhow),
    ("cut-after-an-extension", "an extension of nothing", || {
        Archive::new().entry(&Entry::file("a", "")).extension(b'x', &records(&[(b"path", b"b")])).cut()
    }, End::RefusedAnyhow),
    ("extension-before-the-end", "an extension of nothing", || {
        Archive::new().entry(&Entry::file("a", "")).extension(b'x', &records(&[(b"path", b"b")])).end()
    }, End::RefusedAnyhow),
    ("nothing-at-all", "not even an end", Vec::new, End::RefusedAnyhow),
    ("no-archive", "text", || b"this is no archive. ".repeat(200), End::RefusedAnyhow),
    ("pax-size-larger", "an archive hidden behind a body", || {
        let hidden = archive(&[Entry::file("hidden", "")]);
        let size = hidden.len().to_string();
        Archive::new().extension(b'x', &records(&[(b"size", size.as_bytes())])).member(file(), b"").raw(&hidden).end()
    }, End::RefusedAnyhow),
    ("pax-size-smaller", "an archive hidden in a body", || {
        let hidden = archive(&[Entry::file("hidden", "")]);
        let header = file().size(hidden.len() as u64);
        Archive::new().extension(b'x', &records(&[(b"size", b"0")])).member(header, &hidden).end()
    }, End::RefusedAnyhow),
    ("pax-record-too-long", "past its header", || Archive::new().extension(b'x', b"99 path=b\n").entry(&Entry::file("a", "")).end(), End::RefusedAnyhow),
    ("pax-record-without-an-end", "no newline", || Archive::new().extension(b'x', b"9 path=bb").entry(&Entry::file("a", "")).end(), End::RefusedAnyhow),
    ("pax-record-twice", "which counts", || {
        Archive::new().extension(b'x', &records(&[(b"path", b"b"), (b"path", b"c")])).entry(&Entry::file("a", "")).end()
    }, End::RefusedAnyhow),
    ("pax-global-name", "for all entries", || {
        Archive::new().extension(b'g', &records(&[(b"path", b"../victim/x")])).entry(&Entry::file("a", "")).end()
    }, End::RefusedAnyhow),
    ("name-given-twice", "PAX and GNU", || {
        Archive::new().extension(b'L', b"b\0").extension(b'x', &records(&[(b"path", b"c")])).entry(&Entry::file("a", "")).end()
    }, End::RefusedAnyhow),
    ("number-with-a-sign", "+12", || Archive::new().member(file().mode_field(b"+000644"), b"").end(), End::RefusedAnyhow),
    ("number-that-is-negative", "-1", || Archive::new().member(file().size_field(b"-1"), b"").end(), End::RefusedAnyhow),
    ("number-that-is-junk", "12x", || Archive::new().member(file().size_field(b"12x"), b"").end(), End::RefusedAnyhow),
    ("size-that-is-negative-in-base-256", "two's complement", || {
        Archive::new().member(file().size_field(&[0xff; 12]), b"").end()
    }, End::RefusedAnyhow),
    ("directory-with-a-body", "readers skip it or do not", || {
        let body = archive(&[Entry::file("hidden", "")]);
        Archive::new().member(Header::new(b'5').name(b"d/").size(body.len() as u64), &body).end()
    }, End::RefusedAnyhow),
    ("file-with-a-slash", "a directory to some", || Archive::new().member(Header::new(b'0').name(b"a/"), b"").end(), End::RefusedAnyhow),
    ("unknown-type", "refused", || Archive::new().member(Header::new(b'Z').name(b"a"), b"").end(), End::RefusedAnyhow),
    ("unknown-magic", "refused", || Archive::new().member(file().magic(b"archive!"), b"").end(), End::RefusedAnyhow),
    ("one-block-of-zeros-inside", "the end to some", || {
        Archive::new().entry(&Entry::file("a", "")).raw(&[0; 512]).entry(&Entry::file("b", "")).end()
    }, End::RefusedAnyhow),
    ("access-control-list-that-is-none", "refused", || acl_text(b"user::rw-,group::r--"), End::Refused("a")),
    ("access-control-list-of-names", "there is no user database", || {
        acl_text(b"user::rw-,user:somebody:r--,group::r--,mask::r--,other::r--")
    }, End::Refused("a")),
    ("access-control-list-that-disagrees", "the text and the attribute", || {
        let list = acl(None);
        let keys: [(&[u8], &[u8]); 2] = [
            (b"SCHILY.acl.access", b"user::rwx,group::r--,other::r--"), (b"SCHILY.xattr.system.posix_acl_access", &list),
        ];
        Archive::new().extension(b'x', &records(&keys)).member(file(), b"").end()
    }, End::Refused("a")),
    ("device-number-that-linux-does-not-have", "13 bits of a major number", || {
        Archive::new().member(Header::new(b'3').name(b"a").numbers(0o644, (0, 0), 0, (4096, 1)), b"").end()
    }, End::Refused("a")),
    ("mode-with-other-bits", "set-id bits of another kind of file", || {
        Archive::new().member(file().numbers(0o120_644, (0, 0), 0, (0, 0)), b"").end()
    }, End::Refused("a")),
    ("nul-inside-a-name", "some readers go on behind it", || {
        Archive::new().member(Header::new(b'0').name(b"a\0b"), b"").end()
    }, End::RefusedAnyhow),
    ("link-target-on-what-is-no-link", "which of the two it is", || {
        Archive::new().extension(b'x', &records(&[(b"linkpath", b"b")])).member(file(), b"").end()
    }, End::Refused("a")),
    ("unknown-charset", "names would be others", || {
        Archive::new().extension(b'x', &records(&[(b"hdrcharset", b"ISO-IR 8859 1 1998")])).member(file(), b"").end()
    }, End::RefusedAnyhow),
    ("device-numbers-in-records", "bsdtar takes them, others do not", || {
        let header = Header::new(b'3').name(b"a").numbers(0o644, (0, 0), 0, (1, 3));
        Archive::new().extension(b'x', &records(&[(b"SCHILY.devmajor", b"8")])).member(header, b"").end()
    }, End::Refused("a")),
    ("part-of-another-volume", "a file that begins elsewhere", || {
        Archive::new().extension(b'x', &records(&[(b"GNU.volume.offset", b"512")])).member(file(), b"").end()
    }, End::RefusedAnyhow),
    ("sparse-map-past-the-end", "more than the file's size", || {
        let keys: [(&[u8], &[u8]); 3] = [(b"GNU.sparse.size", b"4"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"2,4")];
        Archive::new().extension(b'x', &records(&keys)).member(file().size(4), b"evil").end()
    }, End::Refused("a")),
    ("xz", "not read, and said so", || [&b"\xfd7zXZ\0"[..], &[0; 2000]].concat(), End::Contained),
];

fn acl_text(text: &[u8]) -> Vec<u8> {
    Archive::new().extension(b'x', &records(&[(b"SCHILY.acl.access", text)])).member(file(), b"").end()
}

fn file() -> Header {
    Header::new(b'0').name(b"a")
}

pub(super) fn cases() -> Vec<Case> {
    from_rows(ROWS, Scope::Each)
}
