//! The archive reader, and the writer as far as it must agree with it.

use layerbox_guest::archive::{Decoder, Malformed, Member, MemberKind, Step, encode, padding};

/// As much of a body as is gone past at most; the bytes need not be there.
type Read = (Vec<Member>, Result<(), Malformed>);

pub(crate) fn run(bytes: &[u8]) {
    let whole = read(bytes, usize::MAX);
    // In the smallest pieces that the reader asks for, and so with every `Need` that it can answer.
    let pieces = read(bytes, 0);
    assert_eq!(whole, pieces, "read in pieces it is another archive");
    for member in &whole.0 {
        check(member);
        round(member);
    }
}

/// Reads an archive of which `ahead` bytes beyond what was asked for are there at a time.
fn read(bytes: &[u8], ahead: usize) -> Read {
    let mut decoder = Decoder::new();
    let mut members = Vec::new();
    let (mut at, mut there) = (0, 0usize);
    loop {
        let end = bytes.len().min(at + there.saturating_add(ahead).min(bytes.len()));
        match decoder.step(&bytes[at..end], end == bytes.len()) {
            Err(malformed) => return (members, Err(malformed)),
            Ok(Step::Need(need)) => {
                assert!(end < bytes.len(), "more is asked for at the end");
                assert!(at + need > end, "what is there already is asked for");
                there = need;
            }
            Ok(Step::End { consumed }) => {
                assert!(at + consumed <= end, "more is consumed than there is");
                return (members, Ok(()));
            }
            Ok(Step::Member { member, consumed }) => {
                assert!(consumed > 0 && at + consumed <= end, "more is consumed than there is");
                let rest = consumed as u64 + member.stored + padding(member.stored);
                members.push(member);
                match usize::try_from(rest).ok().and_then(|rest| at.checked_add(rest)) {
                    Some(next) if next <= bytes.len() => (at, there) = (next, 0),
                    // The caller finds that the body is not there.
                    _ => return (members, Ok(())),
                }
            }
        }
    }
}

/// What `Member` promises of its fields.
fn check(member: &Member) {
    assert!(is_name(&member.name), "a name that is not in normal form");
    assert!(member.mode <= 0o7777 && member.uid != u32::MAX && member.gid != u32::MAX);
    assert!(member.mtime.nanoseconds < 1_000_000_000);
    assert!(member.xattrs.is_sorted_by(|a, b| a.0 < b.0), "attributes twice or out of order");
    match &member.kind {
        MemberKind::File(size) => {
            assert!(!member.name.is_empty(), "a root that is a file");
            assert!(member.extents.is_some() || *size == member.stored);
            check_extents(member, *size);
        }
        kind => {
            assert!(member.stored == 0 && member.extents.is_none(), "a body on what has none");
            assert!(!member.name.is_empty() || *kind == MemberKind::Directory, "a root that is no directory");
            match kind {
                MemberKind::Symlink(target) => {
                    assert!((1..=4095).contains(&target.len()) && !target.contains(&0));
                }
                MemberKind::HardLink(target) => assert!(is_name(target), "a link to what is no name"),
                MemberKind::CharacterDevice { major, minor } | MemberKind::BlockDevice { major, minor } => {
                    assert!(major >> 12 == 0 && minor >> 20 == 0);
                }
                _ => {}
            }
        }
    }
}

fn check_extents(member: &Member, size: u64) {
    let (mut end, mut sum) = (0, 0);
    for &(offset, length) in member.extents.as_deref().unwrap_or_default() {
        assert!(
            offset >= end && length > 0 && offset + length <= size,
            "regions that overlap or leave the file"
        );
        (end, sum) = (offset + length, sum + length);
    }
    assert!(member.extents.is_none() || sum == member.stored);
}

fn is_name(name: &[u8]) -> bool {
    name.is_empty()
        || name
            .split(|byte| *byte == b'/')
            .all(|it| !matches!(it, b"" | b"." | b"..") && it.len() <= 255 && !it.contains(&0))
}

/// What is written from a member is read as that member. Sparse files are not written as such.
fn round(member: &Member) {
    if member.extents.is_some() {
        return;
    }
    let mut bytes = Vec::new();
    encode(member, &mut bytes).unwrap_or_else(|error| panic!("what was read cannot be written: {error}"));
    match Decoder::new().step(&bytes, false) {
        Ok(Step::Member { member: again, consumed }) => {
            assert_eq!(
                (&again, consumed),
                (member, bytes.len()),
                "what was written is read as something else"
            );
        }
        other => panic!("what was written is not read: {other:?}"),
    }
}
