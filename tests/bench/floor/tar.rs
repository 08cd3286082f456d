//! Headers of archives, as far as the bench writes them: ustar with PAX records, and GNU's sparse form 1.0.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// The size of a header, and what bodies are padded to.
pub(crate) const BLOCK: usize = 512;
/// How much is read at a time.
const PIECE: usize = 256 * 1024;

/// An archive that is read from its beginning to its end.
pub(crate) struct Reader {
    file: File,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

/// A member.
#[derive(Clone, Default)]
pub(crate) struct Member {
    pub(crate) name: Vec<u8>,
    pub(crate) kind: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: i64,
    pub(crate) target: Vec<u8>,
    pub(crate) device: (u32, u32),
    /// Bytes in the archive.
    pub(crate) stored: u64,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size of a sparse file, whose body begins with its map.
    pub(crate) sparse: Option<u64>,
}

impl Reader {
    pub(crate) fn open(path: &Path) -> Result<Reader> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        Ok(Reader { file, buffer: vec![0; PIECE], at: 0, end: 0 })
    }

    /// The next `count` bytes, at most a piece.
    pub(crate) fn take(&mut self, count: usize) -> Result<&[u8]> {
        if self.end - self.at < count {
            self.buffer.copy_within(self.at..self.end, 0);
            (self.at, self.end) = (0, self.end - self.at);
            while self.end < count {
                let more = self.file.read(&mut self.buffer[self.end..])?;
                ensure!(more > 0, "the archive is cut short");
                self.end += more;
            }
        }
        self.at += count;
        Ok(&self.buffer[self.at - count..self.at])
    }

    /// Hands over the next `length` bytes in pieces, each with its offset.
    pub(crate) fn body(&mut self, length: u64, mut to: impl FnMut(u64, &[u8]) -> Result<()>) -> Result<()> {
        let mut done = 0;
        while done < length {
            // What is here first: nothing is moved.
            let here = if self.at == self.end { PIECE } else { self.end - self.at };
            let count = usize::try_from(length - done)?.min(here);
            to(done, self.take(count)?)?;
            done += count as u64;
        }
        Ok(())
    }

    /// Goes past what a body is padded with.
    pub(crate) fn pad(&mut self, length: u64) -> Result<()> {
        self.take(usize::try_from(length.next_multiple_of(BLOCK as u64) - length)?).map(drop)
    }

    /// The next member, or none at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Member>> {
        let mut member = Member::default();
        let mut size = None;
        let mut times = None;
        loop {
            let header: [u8; BLOCK] = self.take(BLOCK)?.try_into()?;
            if header[0] == 0 {
                return Ok(None);
            }
            let stored = number(&header[124..136]);
            if header[156] != b'x' {
                member.kind = header[156];
                member.mode = number(&header[100..108]) as u32;
                member.uid = number(&header[108..116]) as u32;
                member.gid = number(&header[116..124]) as u32;
                (member.seconds, member.nanoseconds) = times.unwrap_or((number(&header[136..148]) as i64, 0));
                member.device = (number(&header[329..337]) as u32, number(&header[337..345]) as u32);
                member.stored = size.unwrap_or(stored);
                if member.name.is_empty() {
                    let prefix = text(&header[345..500]);
                    member.name.extend_from_slice(prefix);
                    member.name.extend_from_slice(if prefix.is_empty() { b"" } else { b"/" });
                    member.name.extend_from_slice(text(&header[..100]));
                }
                if member.target.is_empty() {
                    member.target = text(&header[157..257]).to_vec();
                }
                return Ok(Some(member));
            }
            let records = self.take(usize::try_from(stored)?)?.to_vec();
            self.pad(stored)?;
            let mut rest = &records[..];
            while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
                let length: usize = std::str::from_utf8(&rest[..space])?.parse()?;
                let record = &rest[space + 1..length - 1];
                rest = &rest[length..];
                let equals = record.iter().position(|byte| *byte == b'=').context("a record without =")?;
                let (key, value) = (&record[..equals], &record[equals + 1..]);
                match key {
                    b"path" if member.sparse.is_none() => member.name = value.to_vec(),
                    b"GNU.sparse.name" => member.name = value.to_vec(),
                    b"GNU.sparse.realsize" => member.sparse = Some(decimal(value)?),
                    b"linkpath" => member.target = value.to_vec(),
                    b"size" => size = Some(decimal(value)?),
                    b"mtime" => times = Some(time(value)?),
                    _ => {
                        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                            member.xattrs.push((name.to_vec(), value.to_vec()));
                        }
                    }
                }
            }
        }
    }

    /// The map of a sparse file, (offset, length) of each part, and how many bytes it took.
    pub(crate) fn map(&mut self) -> Result<(Vec<(u64, u64)>, u64)> {
        let mut numbers = Vec::new();
        let (mut line, mut read) = (Vec::new(), 0);
        loop {
            let block = self.take(BLOCK)?;
            read += BLOCK as u64;
            for byte in block {
                if *byte == b'\n' {
                    numbers.push(decimal(&line)?);
                    line.clear();
                } else if *byte != 0 {
                    line.push(*byte);
                }
            }
            if numbers.first().is_some_and(|count| numbers.len() as u64 > 2 * count) {
                let parts = numbers[1..].chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
                return Ok((parts, read));
            }
        }
    }
}

fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|byte| *byte == 0).unwrap_or(field.len())]
}

fn number(field: &[u8]) -> u64 {
    if field[0] & 0x80 != 0 {
        return field[field.len() - 8..].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    let digits = field.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |sum, byte| sum << 3 | u64::from(byte - b'0'))
}

fn decimal(text: &[u8]) -> Result<u64> {
    Ok(std::str::from_utf8(text)?.parse()?)
}

/// Seconds and nanoseconds of a time that is not before 1970.
fn time(value: &[u8]) -> Result<(i64, i64)> {
    let value = std::str::from_utf8(value)?;
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    Ok((whole.parse()?, format!("{part:0<9}")[..9].parse()?))
}
