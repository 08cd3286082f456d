//! From the fields of a header and what was said before it to a member.

use tar::GnuHeader;

use super::extended::Extended;
use super::header::{Family, Fields};
use super::{BLOCK, Fault, Member, MemberKind, Timestamp, header, name, sparse};

/// The longest target of a symbolic link in bytes: PATH_MAX of Linux less its NUL.
const MAX_TARGET: usize = 4095;

/// The first size that eleven octal digits cannot say: 8 GiB.
const OCTAL_LIMIT: u64 = 1 << 33;

/// What came of it.
#[derive(Debug)]
pub(super) enum Assembled {
    /// The member, and the length of the sparse map between its header and its body.
    Member(Member, usize),
    /// This many bytes after the header are needed to tell.
    Need(usize),
}

/// Puts a member together. `after` is what is there of the bytes after the header.
pub(super) fn assemble(
    block: &[u8; BLOCK],
    fields: &Fields<'_>,
    extended: Extended<'_>,
    after: &[u8],
) -> Result<Assembled, Fault> {
    let raw = extended.name()?.unwrap_or(&fields.name);
    let name = name::normalize(raw)?;
    let mut stored = agreed_size(fields.size, extended.size)?;
    let mut kind = kind(fields, &extended, stored)?;
    if !matches!(kind, MemberKind::Directory) && (name.is_empty() || name::says_directory(raw)) {
        return Err(Fault::rule("name of a directory on an entry that is none"));
    }
    let (mode, uid, gid) = permissions(fields, &extended, &kind)?;
    let mtime = extended.mtime.unwrap_or(Timestamp { seconds: fields.mtime, nanoseconds: 0 });
    // The one second that cannot be written again, because its magnitude does not fit.
    if mtime.seconds == i64::MIN {
        return Err(Fault::rule("mtime out of bounds"));
    }
    let xattrs = extended.xattrs.finish()?;
    let form = sparse_form(block, fields, extended.sparse)?;
    let mut map = 0;
    let mut extents = None;
    if let Some(form) = form {
        let (real, found) = match form {
            SparseForm::Listed(real, regions) => (real, sparse::Found::Map(regions, 0)),
            SparseForm::InBody(real) => (real, sparse::parse_body(after, stored)?),
            SparseForm::Old(gnu) => sparse::parse_old(gnu, after, stored)?,
        };
        let regions = match found {
            sparse::Found::Need(more) => return Ok(Assembled::Need(more)),
            sparse::Found::Map(regions, length) => {
                map = length;
                regions
            }
        };
        if fields.flag != b'S' {
            // Here the size counts the map, as part of the body.
            stored -= map as u64;
        }
        extents = Some(sparse::check(regions, real, stored)?);
        kind = MemberKind::File(real);
    }
    Ok(Assembled::Member(Member { name, kind, mode, uid, gid, mtime, xattrs, stored, extents }, map))
}

/// The size of the body, on which the header and the PAX record must agree.
///
/// The record is there for sizes that do not fit the header, which is then 0. Readers that know no records go
/// by the header, and some of those that do did so too where the two differed: what is body to one is an
/// entry to another.
fn agreed_size(header: u64, record: Option<u64>) -> Result<u64, Fault> {
    match record {
        None => Ok(header),
        Some(record) if record == header || (header == 0 && record >= OCTAL_LIMIT) => Ok(record),
        Some(_) => Err(Fault::rule("PAX size that differs from the size in the header")),
    }
}

fn kind(fields: &Fields<'_>, extended: &Extended<'_>, size: u64) -> Result<MemberKind, Fault> {
    let link = extended.link()?;
    let target = link.unwrap_or(fields.link);
    let kind = match fields.flag {
        0 if fields.short_name.ends_with(b"/") => {
            // Version 7 had no type for directories. Python looks at the short name only, and the others at
            // the long one.
            if extended.name()?.is_some() {
                return Err(Fault::rule("V7 directory with a long name"));
            }
            MemberKind::Directory
        }
        0 | b'0' | b'7' => MemberKind::File(size),
        b'S' if fields.family == Family::Gnu => MemberKind::File(size),
        b'1' if name::says_directory(target) => return Err(Fault::rule("hard link to a directory")),
        b'1' => MemberKind::HardLink(name::normalize(target)?),
        b'2' => MemberKind::Symlink(symlink_target(target)?),
        b'3' | b'4' => device(fields, extended)?,
        b'5' => MemberKind::Directory,
        b'6' => MemberKind::Fifo,
        flag => return Err(Fault::rule(format!("unknown type `{}`", flag.escape_ascii()))),
    };
    // On a file it says nothing to any reader. Docker leaves one on whiteouts that were links to another
    // before.
    let may_have_target =
        matches!(kind, MemberKind::File(_) | MemberKind::HardLink(_) | MemberKind::Symlink(_));
    if link.is_some() && !may_have_target {
        return Err(Fault::rule("link target on an entry that is no link"));
    }
    if size != 0 && !matches!(kind, MemberKind::File(_)) {
        return Err(Fault::rule("body on an entry that has none"));
    }
    Ok(kind)
}

fn symlink_target(target: &[u8]) -> Result<Vec<u8>, Fault> {
    match target.len() {
        0 => Err(Fault::rule("symbolic link without a target")),
        1..=MAX_TARGET => Ok(target.to_vec()),
        _ => Err(Fault::rule("target of a symbolic link longer than 4095 bytes")),
    }
}

fn device(fields: &Fields<'_>, extended: &Extended<'_>) -> Result<MemberKind, Fault> {
    if extended.device {
        return Err(Fault::rule("device numbers in PAX records, which readers take differently"));
    }
    let number = |value: i64, bits: u32| {
        u32::try_from(value)
            .ok()
            .filter(|&value| value >> bits == 0)
            .ok_or_else(|| Fault::rule("device number that Linux does not have"))
    };
    let (major, minor) = (number(fields.major, 12)?, number(fields.minor, 20)?);
    Ok(match fields.flag {
        b'3' => MemberKind::CharacterDevice { major, minor },
        _ => MemberKind::BlockDevice { major, minor },
    })
}

/// Mode, owner and group. Those of a hard link say nothing: they are zeros, whatever the archive has. Docker
/// writes the mode of the file that is linked to, with the bits of its type.
fn permissions(
    fields: &Fields<'_>,
    extended: &Extended<'_>,
    kind: &MemberKind,
) -> Result<(u32, u32, u32), Fault> {
    let uid = id(fields.uid, extended.uid, "uid")?;
    let gid = id(fields.gid, extended.gid, "gid")?;
    if matches!(kind, MemberKind::HardLink(_)) {
        return Ok((0, 0, 0));
    }
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Fault::rule("owner that is none (4294967295)"));
    }
    Ok((mode(fields.mode, kind)?, uid, gid))
}

/// The permission bits. Some writers (Go before 1.9 among them) put the type of the file before them, as
/// `st_mode` has it, or that of a regular file whatever it is (Commons Compress). The bits of another type
/// would make it that type for some who read with Go.
fn mode(mode: i64, kind: &MemberKind) -> Result<u32, Fault> {
    const REGULAR: u32 = 0o100_000;
    let own = match kind {
        MemberKind::Fifo => 0o010_000,
        MemberKind::CharacterDevice { .. } => 0o020_000,
        MemberKind::Directory => 0o040_000,
        MemberKind::BlockDevice { .. } => 0o060_000,
        MemberKind::File(_) | MemberKind::HardLink(_) => REGULAR,
        MemberKind::Symlink(_) => 0o120_000,
    };
    u32::try_from(mode)
        .ok()
        .filter(|mode| [0, own, REGULAR].contains(&(mode & !0o7777)))
        .map(|mode| mode & 0o7777)
        .ok_or_else(|| Fault::rule("mode with bits that are not permissions"))
}

/// An owner or group of 32 bits. GNU tar takes no other, not even on a hard link.
fn id(header: i64, record: Option<u64>, what: &str) -> Result<u32, Fault> {
    record
        .map_or_else(|| u32::try_from(header), u32::try_from)
        .map_err(|_| Fault::rule(format!("{what} out of bounds")))
}

/// The way in which a sparse file is written down.
enum SparseForm<'a> {
    Listed(u64, sparse::Extents),
    InBody(u64),
    Old(&'a GnuHeader),
}

fn sparse_form<'a>(
    block: &'a [u8; BLOCK],
    fields: &Fields<'_>,
    keys: sparse::Keys<'_>,
) -> Result<Option<SparseForm<'a>>, Fault> {
    let old = if fields.flag == b'S' { header::view(block).as_gnu() } else { None };
    match (keys.layout()?, old) {
        (None, old) => Ok(old.map(SparseForm::Old)),
        (Some(sparse::Layout::Listed(real, regions)), None) if fields.flag == b'0' => {
            Ok(Some(SparseForm::Listed(real, regions)))
        }
        (Some(sparse::Layout::InBody(real)), None) if fields.flag == b'0' => {
            Ok(Some(SparseForm::InBody(real)))
        }
        _ => Err(Fault::rule("sparse map on an entry that is no regular file")),
    }
}
