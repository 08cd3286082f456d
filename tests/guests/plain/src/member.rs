//! One strict reader of archives. Where readers differ over what an archive says, this one refuses it.

use tar::Header;

use crate::bindings::layerbox::driver::types::{Attributes, Device, Kind, Timestamp};
use crate::error::{Result, limit, of, printable, refused};
use crate::input::Input;
use crate::names::{self, Place};
use crate::pax::Extension;
use crate::sparse::{self, Sparse};

/// The largest body of an extension header.
const EXTENSION: u64 = 1 << 20;

/// One member of an archive.
pub(crate) struct Member {
    /// Its name, as the archive has it.
    pub(crate) raw: Vec<u8>,
    /// What the name stands for.
    pub(crate) place: Place,
    /// What it is; of a file the size on disk.
    pub(crate) kind: Kind,
    /// Its attributes, with the owners of the archive.
    pub(crate) attributes: Attributes,
    /// The parts of a sparse file that the body holds.
    pub(crate) parts: Option<Vec<(u64, u64)>>,
}

/// An archive that is read from its beginning to its end.
pub(crate) struct Archive {
    /// Where it comes from.
    pub(crate) input: Input,
    /// What is left of the body of the latest member.
    pub(crate) left: u64,
    /// What fills the last block of that body.
    padding: u64,
    /// Whether there was a member yet.
    begun: bool,
}

impl Archive {
    /// Opens the archive of this call.
    pub(crate) fn open() -> Result<Archive> {
        Ok(Archive { input: Input::open()?, left: 0, padding: 0, begun: false })
    }

    /// The next member. At the end, what follows it is read and ignored.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut extension = Extension::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                if !extension.headers.is_empty() {
                    return Err(refused(b"", "an extension header of nothing"));
                }
                while !self.input.take(1 << 16)?.is_empty() {}
                return Ok(None);
            };
            let old = header.as_old();
            let flag = old.linkflag[0];
            if !matches!(flag, b'g' | b'x' | b'L' | b'K') {
                let raw = extension.path.take().unwrap_or_else(|| short_name(&header));
                let member = self.member(&header, flag, extension, raw.clone());
                return member.map(Some).map_err(|error| of(&raw, error));
            }
            let body = field(&old.size).and_then(|size| self.extension(size));
            body.and_then(|body| extension.add(flag, &body)).map_err(|error| of(string(&old.name), error))?;
        }
    }

    /// Some of what is left of the body, up to `length` bytes.
    pub(crate) fn body(&mut self, length: u64) -> Result<Vec<u8>> {
        let bytes = self.exactly(length.min(self.left) as usize)?;
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }

    /// The next bytes, all of them.
    pub(crate) fn exactly(&mut self, length: usize) -> Result<Vec<u8>> {
        let bytes = self.input.take(length)?;
        if bytes.len() == length { Ok(bytes) } else { Err(refused(b"", "the archive is cut short")) }
    }

    /// Goes past what is left of a body, and the padding.
    fn skip(&mut self) -> Result<()> {
        while self.left > 0 {
            self.body(1 << 16)?;
        }
        let padding = std::mem::take(&mut self.padding);
        self.exactly(padding as usize).map(|_| ())
    }

    /// The next header; none at the end, which is two blocks of zeros, or nothing after a whole member.
    fn header(&mut self) -> Result<Option<Header>> {
        let block = self.input.take(512)?;
        if block.is_empty() && self.begun {
            return Ok(None);
        }
        if block.len() < 512 {
            return Err(refused(b"", "the archive is cut short"));
        }
        if block.iter().all(|&byte| byte == 0) {
            // To some readers one block is the end, to others it is not.
            let second = self.input.take(512)?;
            if !matches!(second.len(), 0 | 512) || second.iter().any(|&byte| byte != 0) {
                return Err(refused(b"", "half an end"));
            }
            return Ok(None);
        }
        let mut header = Header::from_byte_slice(&block).clone();
        if field(&header.as_old().cksum)? != checksum(&block) {
            return Err(refused(string(&header.as_old().name), "a wrong checksum"));
        }
        if block[257..263] == *b"ustar\0" {
            // No reader looks at the version behind it.
            header.as_old_mut().pad[6..8].copy_from_slice(b"00");
        }
        if header.as_ustar().is_none() && header.as_gnu().is_none() && block[257..265] != [0; 8] {
            return Err(refused(string(&header.as_old().name), "an unknown magic"));
        }
        self.begun = true;
        Ok(Some(header))
    }

    /// The body of an extension header.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>> {
        if size > EXTENSION {
            return Err(limit(b"", "bytes of an extension header", EXTENSION));
        }
        self.padding = size.next_multiple_of(512) - size;
        self.exactly(size as usize)
    }

    /// Makes a member of a header, and of what the headers before it say.
    fn member(
        &mut self,
        header: &Header,
        flag: u8,
        extension: Extension,
        mut raw: Vec<u8>,
    ) -> Result<Member> {
        let old = header.as_old();
        let junk = |rule: &str| Err(refused(b"", rule));
        for text in [&old.name, &old.linkname] {
            if text.iter().skip_while(|&&byte| byte != 0).any(|&byte| byte != 0) {
                return junk("a NUL in a name");
            }
        }
        let told = field(&old.size)?;
        let size = extension.size.unwrap_or(told);
        // Some readers take the one, some the other, unless the one could not be said in the other.
        if size != told && size < 1 << 33 {
            return junk("two sizes");
        }
        self.left = size;
        self.padding = (512 - size % 512) % 512;
        let sparse = match (flag, header.as_gnu()) {
            (b'S', Some(gnu)) if extension.sparse.is_empty() => Some(sparse::old(self, gnu)?),
            (b'S', _) => return junk("a sparse file of an unknown form"),
            _ if !extension.sparse.is_empty() => Some(sparse::pax(self, &extension.sparse)?),
            _ => None,
        };
        if let Some(sparse) = &sparse {
            sparse.check(self.left)?;
            raw = sparse.name.clone().unwrap_or(raw);
        }

        let place = names::place(&raw)?;
        // Those of marks mean nothing, whatever they are.
        let entry = matches!(place, Place::Entry(_));
        let xattrs = if entry { extension.attributes()? } else { Vec::new() };
        let targeted = extension.target.is_some();
        let target = extension.target.unwrap_or_else(|| string(&old.linkname).to_vec());
        let kind = match flag {
            // Version 7 had no type for directories.
            0 if string(&old.name).ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' | b'S' => Kind::File(sparse.as_ref().map_or(size, |sparse| sparse.size)),
            b'1' => Kind::HardLink(target),
            b'2' => Kind::Symlink(target),
            b'3' => Kind::CharacterDevice(device(header)?),
            b'4' => Kind::BlockDevice(device(header)?),
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            _ => return junk("an unknown type"),
        };
        if extension.device && matches!(flag, b'3' | b'4') {
            return junk("device numbers that readers take differently");
        }
        let file = matches!(kind, Kind::File(_));
        let link = matches!(kind, Kind::HardLink(_));
        // Engines leave one on files that were links before; nobody looks at it.
        if targeted && !(file || link || matches!(kind, Kind::Symlink(_))) {
            return junk("the target of a link on what cannot be one");
        }
        if !file && (size > 0 || sparse.is_some()) {
            return junk("a body of what is no regular file");
        }
        let of_directory = |name: &[u8]| name.ends_with(b"/") || name.ends_with(b"/.");
        if kind != Kind::Directory && of_directory(&raw) {
            return junk("the name of a directory for what is none");
        }
        if matches!(&kind, Kind::HardLink(target) if of_directory(target)) {
            return junk("a hard link to a directory");
        }
        let owner = |given: Option<u64>, field: u64| match u32::try_from(given.unwrap_or(field)) {
            Ok(id) if link || id < u32::MAX => Ok(id),
            _ => Err(refused(b"", "an owner that is none")),
        };
        let attributes = Attributes {
            mode: if link { signed(&old.mode).map(|_| 0)? } else { mode(field(&old.mode)?, &kind)? },
            uid: owner(extension.uid, field(&old.uid)?)?,
            gid: owner(extension.gid, field(&old.gid)?)?,
            mtime: match extension.mtime {
                Some(time) => time,
                None => Timestamp { seconds: signed(&old.mtime)?, nanoseconds: 0 },
            },
            xattrs,
        };
        let parts = sparse.map(|Sparse { parts, .. }| parts);
        Ok(Member { raw, place, kind, attributes, parts })
    }
}

/// Permission bits. Some writers put those of the kind before them, as `st_mode` has them, and some those of
/// a regular file before any.
fn mode(mode: u64, kind: &Kind) -> Result<u32> {
    let of_kind = match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharacterDevice(_) => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::BlockDevice(_) => 0o060_000,
        Kind::File(_) | Kind::HardLink(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
        Kind::Socket => 0o140_000,
    };
    match mode & !0o7777 {
        0 => {}
        bits if bits == of_kind || bits == 0o100_000 => {}
        _ => return Err(refused(b"", "a mode with bits that are no permissions")),
    }
    Ok((mode & 0o7777) as u32)
}

/// The name in the header itself: ustar has the beginning of a long one in a field of its own.
fn short_name(header: &Header) -> Vec<u8> {
    let name = string(&header.as_old().name);
    match header.as_ustar().map(|ustar| string(&ustar.prefix)) {
        Some(prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
        _ => name.to_vec(),
    }
}

fn device(header: &Header) -> Result<Device> {
    let (major, minor) = match (header.as_ustar(), header.as_gnu()) {
        (Some(ustar), _) => (field(&ustar.dev_major)?, field(&ustar.dev_minor)?),
        (_, Some(gnu)) => (field(&gnu.dev_major)?, field(&gnu.dev_minor)?),
        _ => return Err(refused(b"", "a device without a number")),
    };
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(Device { major, minor }),
        _ => Err(refused(b"", "a device number that is too large")),
    }
}

/// A field's text ends at the first NUL.
fn string(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

/// A number in a field that is not negative.
/// Whether a block is a header.
pub(crate) fn is_header(block: &[u8; 512]) -> bool {
    field(&block[148..156]).is_ok_and(|told| told == checksum(block))
}

/// The sum of the bytes of a header; those of the field for it count as spaces.
fn checksum(block: &[u8]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    sum(block) + 8 * u64::from(b' ') - sum(&block[148..156])
}

pub(crate) fn field(field: &[u8]) -> Result<u64> {
    let number = signed(field)?;
    u64::try_from(number).map_err(|_| refused(b"", "a negative number in a header"))
}

/// A number in a field: octal digits between spaces and NULs, or GNU's base 256 in two's complement, told by
/// the first bit.
fn signed(field: &[u8]) -> Result<i64> {
    if field[0] & 0x80 != 0 {
        // The bit after the first is the sign.
        let begin = i128::from((field[0] << 1).cast_signed() >> 1);
        let number = field[1..].iter().fold(begin, |number, &byte| number << 8 | i128::from(byte));
        return i64::try_from(number).map_err(|_| refused(b"", "a number in a header that is too large"));
    }
    let text = field.trim_ascii_start();
    let end = text.iter().position(|byte| matches!(byte, b' ' | 0)).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        || rest.iter().any(|byte| !matches!(byte, b' ' | 0))
    {
        return Err(refused(b"", format!("no number in a header: {}", printable(field))));
    }
    Ok(digits.iter().fold(0, |number, digit| number << 3 | i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::signed;

    #[test]
    fn numbers_in_headers() {
        for (text, want) in [
            ("0000644\0", Some(0o644)),
            ("   644 \0", Some(0o644)),
            ("77777777", Some(0o77_777_777)),
            ("\0\0\0\0\0\0\0\0", Some(0)),
            ("+000644\0", None),
            ("-000644\0", None),
            ("0000648\0", None),
            ("644\0 12\0", None),
            ("12x\0\0\0\0\0", None),
        ] {
            assert_eq!(signed(text.as_bytes()).ok(), want, "{text:?}");
        }
        for (bytes, want) in [
            ([0x80, 0, 0, 0, 0, 0, 1, 2], Some(258)),
            ([0xff; 8], Some(-1)),
            ([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe], Some(-2)),
        ] {
            assert_eq!(signed(&bytes).ok(), want, "{bytes:?}");
        }
        assert_eq!(signed(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).ok(), None);
    }
}
