//! One header block: its checksum, its family, and its fields, each checked before anything is made of them.

use std::borrow::Cow;

use tar::{GnuHeader, GnuSparseHeader, Header, UstarHeader};

use super::{BLOCK, Fault, field};

/// The families of headers, told apart by their magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// `ustar\0` `00`: POSIX, with a name prefix.
    Ustar,
    /// `ustar  \0`: GNU tar before POSIX, with sparse files and without a prefix.
    Gnu,
    /// No magic, and nothing but unused device numbers after the link name: Version 7.
    V7,
}

/// A header with its fields read. Numbers are within their fields and not yet within what a file system takes.
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
    if let Some(ustar) = header.as_ustar() {
        fields.family = Family::Ustar;
        read_ustar(ustar, &mut fields)?;
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
/// Some old systems summed signed bytes. Readers still accept that, but no writer since does it, and a header that only
/// sums up that way was made to be odd.
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

fn verify_checksum(block: &[u8; BLOCK]) -> Result<(), Fault> {
    let stored = field::octal(&view(block).as_old().cksum, "checksum")?;
    if stored != checksum(block) {
        return Err(Fault::rule("wrong checksum"));
    }
    Ok(())
}

/// Reads what ustar adds. Nothing may follow the prefix: star keeps times there, of which bsdtar takes no notice.
fn read_ustar<'a>(ustar: &'a UstarHeader, fields: &mut Fields<'a>) -> Result<(), Fault> {
    if !field::is_zero(&ustar.pad) {
        return Err(Fault::rule("bytes after the prefix of a ustar header"));
    }
    let prefix = field::text(&ustar.prefix, "name prefix")?;
    if !prefix.is_empty() {
        fields.name = Cow::Owned([prefix, b"/", fields.short_name].concat());
    }
    read_device(&ustar.dev_major, &ustar.dev_minor, fields)
}

/// Checks that a V7 header has nothing of the later ones. GNU tar writes device numbers of 0 into it.
fn read_v7(pad: &[u8; 255], fields: &mut Fields<'_>) -> Result<(), Fault> {
    const DEVICE: std::ops::Range<usize> = 72..88;
    let (before, after) = (&pad[..DEVICE.start], &pad[DEVICE.end..]);
    if !(field::is_zero(before) && field::is_zero(after)) {
        return Err(Fault::rule("header of an unknown family (magic)"));
    }
    if !matches!(fields.flag, 0 | b'1' | b'2' | b'5') {
        return Err(Fault::rule("V7 header of a type that V7 did not have"));
    }
    pad[DEVICE].chunks(8).try_for_each(|number| field::unused(number, "device number"))
}

/// Reads what GNU tar adds. Its times, and all else that only incremental and multi-volume archives use, lie where Python
/// looks for a prefix of the name, so they must be zero.
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
