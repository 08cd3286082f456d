//! The writer: ustar headers (POSIX.1-1988), with PAX records before them for what they cannot hold.

use tar::{EntryType, Header, UstarHeader};

use super::{
    BLOCK, MAX_EXTENSION, MAX_XATTR_BYTES, MAX_XATTRS, Member, MemberKind, Timestamp, Xattr, acl, header,
    name, padding, records, xattr,
};

/// Why a member cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {reason}", .entry.escape_ascii())]
pub struct Unrepresentable {
    /// The member's name.
    pub entry: Vec<u8>,
    /// What about it has no place in an archive, in words for a person.
    pub reason: &'static str,
}

/// Appends the headers of a member; its body and [`padding`] are the caller's to append.
///
/// The same member always gives the same bytes. Nothing but `member` goes into them: no names of users, no
/// times of access. Directories get a slash at the end; the root is `./`. Sparse files are not written as
/// such, because other readers of layers refuse them: `extents` must be `None`, and the holes go into the
/// body as zeros.
///
/// # Errors
/// [`Unrepresentable`] when [`Decoder`](super::Decoder) would refuse what came of it. Nothing is appended
/// then.
pub fn encode(member: &Member, out: &mut Vec<u8>) -> Result<(), Unrepresentable> {
    check(member).map_err(|reason| Unrepresentable { entry: member.name.clone(), reason })?;
    let path = archive_name(member);
    let records = records(member, &path);
    if records.len() as u64 > MAX_EXTENSION {
        let reason = "more than 1 MiB of extended attributes and names";
        return Err(Unrepresentable { entry: member.name.clone(), reason });
    }
    if !records.is_empty() {
        out.extend_from_slice(extension(member, records.len()).as_bytes());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64) as usize, 0);
    }
    out.extend_from_slice(main(member, &path).as_bytes());
    Ok(())
}

/// What a reader as strict as ours would not take back.
fn check(member: &Member) -> Result<(), &'static str> {
    let is_normal = |name: &[u8]| name::normalize(name).is_ok_and(|normal| normal == name);
    let is_root = member.name.is_empty() && member.kind == MemberKind::Directory;
    if !is_root && !is_normal(&member.name) {
        return Err("name that is not in normal form");
    }
    let size = match &member.kind {
        MemberKind::File(size) => *size,
        MemberKind::Symlink(target) if target.is_empty() || target.len() > 4095 || target.contains(&0) => {
            return Err("target that is empty, longer than 4095 bytes or holds a NUL");
        }
        MemberKind::HardLink(target) if !is_normal(target) => {
            return Err("link to a name that is not in normal form");
        }
        MemberKind::CharacterDevice { major, minor } | MemberKind::BlockDevice { major, minor }
            if *major >> 12 != 0 || *minor >> 20 != 0 =>
        {
            return Err("device number that Linux does not have");
        }
        _ => 0,
    };
    if member.extents.is_some() || member.stored != size || i64::try_from(size).is_err() {
        return Err("size that differs from that of the body");
    }
    if member.mode > 0o7777 || member.uid == u32::MAX || member.gid == u32::MAX {
        return Err("mode or owner out of bounds");
    }
    if member.mtime.nanoseconds >= 1_000_000_000 || member.mtime.seconds == i64::MIN {
        return Err("time out of bounds");
    }
    check_xattrs(&member.xattrs)
}

fn check_xattrs(xattrs: &[Xattr]) -> Result<(), &'static str> {
    let bytes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
    if xattrs.len() > MAX_XATTRS || bytes > MAX_XATTR_BYTES {
        return Err("more than 64 extended attributes or 1 MiB of them");
    }
    if !xattrs.is_sorted_by(|one, next| one.0 < next.0) {
        return Err("extended attributes out of order");
    }
    let is_name =
        |name: &[u8]| (1..=255).contains(&name.len()) && !name.contains(&0) && !name.contains(&b'\n');
    if !xattrs.iter().all(|(name, _)| is_name(name)) {
        return Err("extended attribute whose name is empty, too long, or holds a NUL or a newline");
    }
    Ok(())
}

fn archive_name(member: &Member) -> Vec<u8> {
    match (&member.kind, member.name.is_empty()) {
        (_, true) => b"./".to_vec(),
        (MemberKind::Directory, false) => [&member.name, &b"/"[..]].concat(),
        _ => member.name.clone(),
    }
}

fn link(member: &Member) -> &[u8] {
    match &member.kind {
        MemberKind::Symlink(target) | MemberKind::HardLink(target) => target,
        _ => b"",
    }
}

/// The records that a member needs, in a fixed order; empty for most.
fn records(member: &Member, path: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let long = [(&b"path"[..], path), (b"linkpath", link(member))];
    let long = long.iter().filter(|(_, text)| text.len() > 100);
    if long.clone().any(|(_, text)| str::from_utf8(text).is_err()) {
        records::write(b"hdrcharset", b"BINARY", &mut out);
    }
    long.for_each(|(key, text)| records::write(key, text, &mut out));
    for (key, value, digits) in
        [(&b"size"[..], member.stored, 11), (b"uid", member.uid.into(), 7), (b"gid", member.gid.into(), 7)]
    {
        if !fits(value, digits) {
            records::write(key, value.to_string().as_bytes(), &mut out);
        }
    }
    if octal_time(member.mtime).is_none() {
        records::write(b"mtime", records::format_time(member.mtime).as_bytes(), &mut out);
    }
    // GNU tar and bsdtar take access control lists from these keys only, the engines from the attributes
    // below.
    for (key, name) in [(&b"SCHILY.acl.access"[..], acl::ACCESS), (b"SCHILY.acl.default", acl::DEFAULT)] {
        let value = member.xattrs.iter().find(|(attribute, _)| attribute == name);
        if let Some(text) = value.and_then(|(_, value)| acl::decode(value)) {
            records::write(key, &text, &mut out);
        }
    }
    for (name, value) in &member.xattrs {
        let key = [&b"SCHILY.xattr."[..], &xattr::escape(name)].concat();
        records::write(&key, value, &mut out);
    }
    out
}

/// The extended header before the records. Its own attributes mean nothing, so they are fixed.
fn extension(member: &Member, length: usize) -> Header {
    let last = member.name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let last = if last.is_empty() { b"." } else { last };
    let name = [&b"PaxHeaders.0/"[..], last].concat();
    build(EntryType::XHeader, &name, |ustar| {
        octal(&mut ustar.mode, 0o644);
        octal(&mut ustar.size, length as u64);
    })
}

fn main(member: &Member, path: &[u8]) -> Header {
    let kind = match member.kind {
        MemberKind::File(_) => EntryType::Regular,
        MemberKind::Directory => EntryType::Directory,
        MemberKind::Symlink(_) => EntryType::Symlink,
        MemberKind::HardLink(_) => EntryType::Link,
        MemberKind::CharacterDevice { .. } => EntryType::Char,
        MemberKind::BlockDevice { .. } => EntryType::Block,
        MemberKind::Fifo => EntryType::Fifo,
    };
    build(kind, path, |ustar| {
        octal(&mut ustar.mode, member.mode.into());
        octal(&mut ustar.uid, member.uid.into());
        octal(&mut ustar.gid, member.gid.into());
        octal(&mut ustar.size, member.stored);
        octal(&mut ustar.mtime, octal_time(member.mtime).unwrap_or_default());
        copy(&mut ustar.linkname, link(member));
        if let MemberKind::CharacterDevice { major, minor } | MemberKind::BlockDevice { major, minor } =
            member.kind
        {
            octal(&mut ustar.dev_major, major.into());
            octal(&mut ustar.dev_minor, minor.into());
        }
    })
}

fn build(kind: EntryType, name: &[u8], fill: impl FnOnce(&mut UstarHeader)) -> Header {
    let mut built = Header::new_ustar();
    if let Some(ustar) = built.as_ustar_mut() {
        copy(&mut ustar.name, name);
        for field in
            [&mut ustar.mode, &mut ustar.uid, &mut ustar.gid, &mut ustar.dev_major, &mut ustar.dev_minor]
        {
            octal(field, 0);
        }
        octal(&mut ustar.size, 0);
        octal(&mut ustar.mtime, 0);
        ustar.typeflag = [kind.as_byte()];
        fill(ustar);
    }
    let sum = header::checksum(built.as_bytes()).unsigned_abs();
    let field = &mut built.as_old_mut().cksum;
    octal(&mut field[..7], sum);
    field[7] = b' ';
    built
}

/// Whether a number fits a field of so many octal digits.
fn fits(value: u64, digits: u32) -> bool {
    value >> (3 * digits) == 0
}

/// The time as the header can hold it.
fn octal_time(time: Timestamp) -> Option<u64> {
    u64::try_from(time.seconds).ok().filter(|&seconds| time.nanoseconds == 0 && fits(seconds, 11))
}

/// Writes a number with leading zeros and a NUL. One that does not fit becomes 0: there is a PAX record for
/// it.
fn octal(field: &mut [u8], value: u64) {
    let Some((last, digits)) = field.split_last_mut() else { return };
    *last = 0;
    let mut rest = if fits(value, digits.len() as u32) { value } else { 0 };
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest & 7) as u8;
        rest >>= 3;
    }
}

/// Writes as much of a text as fits.
fn copy(field: &mut [u8; 100], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

const _: () = assert!(size_of::<UstarHeader>() == BLOCK);
