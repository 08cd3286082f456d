//! What the tests of the codec have in common: headers built byte by byte, and a reader that drives the
//! decoder.

mod attributes;
mod fields;
mod headers;
mod names;
mod sparse;
#[cfg(unix)]
mod tools;
mod writer;

use super::{BLOCK, Decoder, Malformed, Member, MemberKind, Step, TRAILER, Timestamp, padding};

/// A header that is to be written with something odd in it. The checksum is put right at the end.
struct Raw([u8; BLOCK]);

/// PAX records: keys and values.
type Records<'a> = &'a [(&'a str, &'a [u8])];

/// Offsets of fields in a header (POSIX.1-1988).
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const MTIME: usize = 136;
const CHECKSUM: usize = 148;
const FLAG: usize = 156;
const LINK: usize = 157;
const MAGIC: usize = 257;
const MAJOR: usize = 329;
const MINOR: usize = 337;
const PREFIX: usize = 345;

impl Raw {
    /// A ustar header of type `flag`, mode 0644, owner 1:2, mtime 3.
    fn new(flag: u8, name: &[u8]) -> Self {
        let mut raw = Self([0; BLOCK]);
        raw.0[MAGIC..MAGIC + 8].copy_from_slice(b"ustar\x0000");
        raw.0[FLAG] = flag;
        raw.at(0, name)
            .at(MODE, b"0000644\0")
            .at(UID, b"0000001\0")
            .at(GID, b"0000002\0")
            .at(SIZE, b"00000000000\0")
            .at(MTIME, b"00000000003\0")
            .at(MAJOR, b"0000000\0")
            .at(MINOR, b"0000000\0")
    }

    fn gnu(flag: u8, name: &[u8]) -> Self {
        Self::new(flag, name).at(MAGIC, b"ustar  \0")
    }

    fn v7(flag: u8, name: &[u8]) -> Self {
        Self::new(flag, name).at(MAGIC, &[0; 255])
    }

    fn at(mut self, offset: usize, bytes: &[u8]) -> Self {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn size(self, size: u64) -> Self {
        self.at(SIZE, format!("{size:011o}\0").as_bytes())
    }

    /// The header as it goes into an archive, with a right checksum.
    fn done(mut self) -> Vec<u8> {
        self.0[CHECKSUM..FLAG].fill(b' ');
        let sum: u32 = self.0.iter().map(|&byte| u32::from(byte)).sum();
        self.at(CHECKSUM, format!("{sum:06o}\0 ").as_bytes()).0.to_vec()
    }
}

/// Fills up to a whole block.
fn padded(body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len() + padding(body.len() as u64) as usize, 0);
    body
}

/// An extension header and its body.
fn extension(flag: u8, body: &[u8]) -> Vec<u8> {
    [Raw::new(flag, b"extension").size(body.len() as u64).done(), padded(body)].concat()
}

/// An extended header with these records.
fn pax(records: Records<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        super::records::write(key.as_bytes(), value, &mut body);
    }
    extension(b'x', &body)
}

fn global(records: Records<'_>) -> Vec<u8> {
    let mut header = pax(records);
    let mut raw = Raw([0; BLOCK]).at(0, &header[..BLOCK]);
    raw.0[FLAG] = b'g';
    header.splice(..BLOCK, raw.done());
    header
}

fn file(name: &[u8]) -> Vec<u8> {
    Raw::new(b'0', name).done()
}

/// The parts, and the end of the archive after them.
fn archive(parts: &[&[u8]]) -> Vec<u8> {
    [&parts.concat()[..], &TRAILER].concat()
}

/// Reads an archive to its end: the members and their bodies. It is read twice, once with as few bytes at
/// hand as the decoder asks for and once with all of them, which must not make a difference.
fn read(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Malformed> {
    let sparing = read_with(archive, |need, _| need);
    let lavish = read_with(archive, |_, rest| rest);
    assert_eq!(sparing, lavish);
    sparing
}

fn read_with(
    archive: &[u8],
    amount: impl Fn(usize, usize) -> usize,
) -> Result<Vec<(Member, Vec<u8>)>, Malformed> {
    let mut decoder = Decoder::new();
    let mut members = Vec::new();
    let mut rest = archive;
    let mut need = 0;
    loop {
        let length = amount(need, rest.len()).min(rest.len());
        match decoder.step(&rest[..length], length == rest.len() && need >= length)? {
            Step::Need(more) => {
                assert!(more > length, "asked for {more} bytes with {length} at hand");
                need = more;
            }
            Step::Member { member, consumed } => {
                let stored = usize::try_from(member.stored).unwrap();
                let cut = || Malformed {
                    entry: member.name.clone(),
                    rule: "body cut off".to_owned(),
                    limit: false,
                };
                let body = rest.get(consumed..consumed + stored).ok_or_else(cut)?.to_vec();
                rest = rest.get(consumed + stored + padding(member.stored) as usize..).ok_or_else(cut)?;
                members.push((member, body));
                need = 0;
            }
            Step::End { consumed } => {
                assert!(consumed <= rest.len());
                return Ok(members);
            }
        }
    }
}

/// Reads an archive of one member.
fn read_one(archive: &[u8]) -> Result<Member, Malformed> {
    let mut members = read(archive)?;
    assert_eq!(members.len(), 1, "{members:?}");
    Ok(members.remove(0).0)
}

/// A regular file without content as [`Raw::new`] describes it.
fn plain(name: &[u8]) -> Member {
    Member {
        name: name.to_vec(),
        kind: MemberKind::File(0),
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: 3, nanoseconds: 0 },
        xattrs: Vec::new(),
        stored: 0,
        extents: None,
    }
}

/// Fails unless the archive is refused with a rule that says `rule`.
fn assert_refused(case: &str, archive: &[u8], rule: &str) {
    match read(archive) {
        Ok(members) => panic!("{case}: read as {members:?}"),
        Err(error) => {
            assert!(error.rule.contains(rule), "{case}: {error}");
            assert!(!error.limit, "{case}: {error}");
        }
    }
}

/// Fails unless the archive runs into a bound that says `bound`.
fn assert_limit(case: &str, archive: &[u8], bound: &str) {
    let error = read(archive).expect_err(case);
    assert!(error.limit && error.rule.contains(bound), "{case}: {error}");
}
