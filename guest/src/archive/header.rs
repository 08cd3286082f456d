//! One header block: its checksum, its family, and its fields, each checked before anything is made of them.

use std::borrow::Cow;
use std::ops::Range;

use tar::{GnuHeader, GnuSparseHeader, Header};

use super::{BLOCK, Fault, field};

/// What a header has behind the link name, where Version 7 has nothing: 255 bytes.
type Later = [u8; 255];

/// Where in that ustar has its fields (POSIX.1-1988), as far as they are of use.
const MAJOR: Range<usize> = 72..80;
const MINOR: Range<usize> = 80..88;
const PREFIX: Range<usize> = 88..243;

/// The families of headers, told apart by their magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `ustar\0`: POSIX, with a name prefix. The version after it is `00`, and no reader looks at it.
    Ustar,
    /// `ustar  \0`: GNU tar before POSIX, with sparse files and without a prefix.
    Gnu,
    /// No magic, and nothing but unused device numbers after the link name: Version 7.
    V7,
}

/// A header with its fields read. Numbers are within their fields and not yet within what a file system
/// takes.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) family: Family,
    pub(super) flag: u8,
    /// The name field alone, without the prefix.
    pub(super) short_name: &'a [u8],
    /// The name, the prefix of ustar included.
    pub(super) name: Cow<'a, [u8]>,
    pub(super) link: &'a [u8],
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) size: u64,
    pub(super) mtime: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
}

/// Views a block as a header.
pub(super) fn view(block: &[u8; BLOCK]) -> &Header {
    Header::from_byte_slice(block)
}

/// The name as it stands in the header, for messages about headers that are wrong.
pub(super) fn label(block: &[u8; BLOCK]) -> &[u8] {
    let name = &view(block).as_old().name;
    name.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// Checks a block and reads its fields.
pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Fields<'_>, Fault> {
    verify_checksum(block)?;
    let header = view(block);
    let old = header.as_old();
    let flag = old.linkflag[0];
    let short_name = field::text(&old.name, "name")?;
    let mut fields = Fields {
        family: Family::V7,
        flag,
        short_name,
        name: Cow::Borrowed(short_name),
        link: field::text(&old.linkname, "link name")?,
        mode: field::number(&old.mode, "mode")?,
        uid: field::number(&old.uid, "uid")?,
        gid: field::number(&old.gid, "gid")?,
        size: u64::try_from(field::number(&old.size, "size")?).map_err(|_| Fault::rule("negative size"))?,
        mtime: field::number(&old.mtime, "mtime")?,
        major: 0,
        minor: 0,
    };
    if old.pad.starts_with(b"ustar\0") {
        fields.family = Family::Ustar;
        read_ustar(&old.pad, &mut fields)?;
    } else if let Some(gnu) = header.as_gnu() {
        fields.family = Family::Gnu;
        read_gnu(gnu, &mut fields)?;
    } else {
        read_v7(&old.pad, &mut fields)?;
    }
    Ok(fields)
}

/// The sum of all bytes, those of the checksum itself taken as spaces.
///
/// Some old systems summed signed bytes. Readers still accept that, but no writer since does it, and a header
/// that only sums up that way was made to be odd.
pub(super) fn checksum(block: &[u8; BLOCK]) -> i64 {
    // Every second byte, four at once in lanes of 16 bits, which 128 bytes of 255 do not fill.
    const LANES: u64 = 0x00ff_00ff_00ff_00ff;
    let (words, _) = block.as_chunks::<8>();
    let lanes: u64 =
        words.iter().map(|word| u64::from_le_bytes(*word)).map(|it| (it & LANES) + (it >> 8 & LANES)).sum();
    let sum: u64 = [0, 16, 32, 48].iter().map(|shift| lanes >> shift & 0xffff).sum();
    let stored: i64 = view(block).as_old().cksum.iter().map(|&byte| i64::from(byte)).sum();
    sum as i64 - stored + 8 * i64::from(b' ')
}

/// Whether a stream begins with a header: with a block whose checksum is right.
pub fn begins_with_header(first: &[u8]) -> bool {
    first.first_chunk().is_some_and(|block| verify_checksum(block).is_ok())
}

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), Fault> {
    let stored = field::octal(&view(block).as_old().cksum, "checksum")?;
    if stored != checksum(block) {
        return Err(Fault::rule("wrong checksum"));
    }
    Ok(())
}

/// Reads what ustar adds. Nothing may follow the prefix: star marks its headers there, of which bsdtar takes
/// no notice.
fn read_ustar<'a>(later: &'a Later, fields: &mut Fields<'a>) -> Result<(), Fault> {
    if !field::is_zero(&later[PREFIX.end..]) {
        return Err(Fault::rule("bytes after the prefix of a ustar header"));
    }
    let prefix = prefix(&later[PREFIX])?;
    if !prefix.is_empty() {
        fields.name = Cow::Owned([prefix, b"/", fields.short_name].concat());
    }
    read_device(&later[MAJOR], &later[MINOR], fields)
}

/// The prefix of a name. Where it is short, star and the `tar` of npm keep times of access and change in the
/// last 24 bytes. All readers end at the first NUL, so times are all that may be behind it.
fn prefix(prefix: &[u8]) -> Result<&[u8], Fault> {
    const SHORT: usize = 131;
    let (short, times) = prefix.split_at(SHORT);
    let is_time = |time| field::number(time, "time behind the prefix").is_ok();
    if short.ends_with(&[0]) && times.chunks(12).all(is_time) {
        return field::text(short, "name prefix");
    }
    field::text(prefix, "name prefix")
}

/// Checks that a V7 header has nothing of the later ones. GNU tar writes device numbers of 0 into it.
fn read_v7(later: &Later, fields: &mut Fields<'_>) -> Result<(), Fault> {
    if !(field::is_zero(&later[..MAJOR.start]) && field::is_zero(&later[MINOR.end..])) {
        return Err(Fault::rule("header of an unknown family (magic)"));
    }
    // `0` came later, and all readers take it all the same.
    if !matches!(fields.flag, 0 | b'0' | b'1' | b'2' | b'5') {
        return Err(Fault::rule("V7 header of a type that V7 did not have"));
    }
    field::unused(&later[MAJOR], "device number")?;
    field::unused(&later[MINOR], "device number")
}

/// Reads what GNU tar adds. Its times, and all else that only incremental and multi-volume archives use, lie
/// where Python looks for a prefix of the name, so they must be zero.
fn read_gnu<'a>(gnu: &'a GnuHeader, fields: &mut Fields<'a>) -> Result<(), Fault> {
    let quiet = [&gnu.atime[..], &gnu.ctime, &gnu.offset, &gnu.longnames, &gnu.unused, &gnu.pad];
    let sparse = fields.flag == b'S';
    let plain = gnu.isextended == [0] && gnu.realsize == [0; 12] && gnu.sparse.iter().all(is_blank);
    if !quiet.iter().all(|part| field::is_zero(part)) || !(sparse || plain) {
        return Err(Fault::rule("fields of a GNU header that readers take differently"));
    }
    read_device(&gnu.dev_major, &gnu.dev_minor, fields)
}

fn read_device(major: &[u8], minor: &[u8], fields: &mut Fields<'_>) -> Result<(), Fault> {
    if matches!(fields.flag, b'3' | b'4') {
        fields.major = field::number(major, "major device number")?;
        fields.minor = field::number(minor, "minor device number")?;
        return Ok(());
    }
    field::unused(major, "major device number")?;
    field::unused(minor, "minor device number")
}

/// Whether a slot of GNU's sparse map is not in use.
pub(super) fn is_blank(slot: &GnuSparseHeader) -> bool {
    slot.offset == [0; 12] && slot.numbytes == [0; 12]
}
