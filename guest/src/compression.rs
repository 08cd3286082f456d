//! Compressed archives: gzip (RFC 1952) and Zstandard (RFC 8878), told apart by their magic, unpacked as they
//! are read.
//!
//! A stream may be several members or frames one after the other, as parallel compressors and seekable image
//! formats write them. Checksums are verified; a stream that is cut off, damaged or followed by something
//! else is an error and never just the end. How far a stream may expand is for the reader to bound: no more
//! is unpacked than is asked for.

mod gzip;
mod input;
#[cfg(test)]
mod tests;
mod zstd;

use std::io::{self, Read};

use crate::archive::{self, Malformed};
use input::Input;

/// The largest window of a Zstandard frame in bytes. It is held in memory. Compressors ask for 8 MiB and less
/// unless they are told otherwise (`--ultra`, `--long`).
pub const MAX_ZSTD_WINDOW: u64 = 64 << 20;

/// How a stream is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Magic numbers and what they stand for; `None` for what is known and not read. The last says whether
/// container engines unpack what begins so, without a further look.
const MAGIC: [(&[u8], &str, Option<Format>, bool); 8] = [
    (b"\x1f\x8b\x08", "gzip", Some(Format::Gzip), true),
    (b"\x1f\x8b", "gzip", Some(Format::Gzip), false),
    (b"\x28\xb5\x2f\xfd", "zstd", Some(Format::Zstd), true),
    (b"\xfd7zXZ\0", "xz", None, true),
    (b"\x04\x22\x4d\x18", "lz4", None, false),
    (b"LZIP\x01", "lzip", None, false),
    (b"\x1f\x9d", "compress", None, false),
    (b"PK\x03\x04", "zip", None, false),
];

/// Tells the format by how a stream begins. The first header of an archive (512 bytes) is enough; fewer are
/// taken as what they are.
///
/// Any of the magic numbers may be the beginning of the first name in a plain archive. Where engines would
/// unpack it all the same it is one archive to them and another to whoever reads headers.
///
/// # Errors
/// [`Malformed`] for a stream that is packed in a way that is not read here, and for one that can be read in
/// two ways.
pub fn detect(first: &[u8]) -> Result<Format, Malformed> {
    let refuse = |rule: String| Err(Malformed { entry: Vec::new(), rule, limit: false });
    match magic(first) {
        None => Ok(Format::Plain),
        Some((_, _, false)) if archive::begins_with_header(first) => Ok(Format::Plain),
        Some((name, _, true)) if archive::begins_with_header(first) => {
            refuse(format!("header of an entry that is the beginning of a {name} stream as well"))
        }
        Some((_, Some(format), _)) => Ok(format),
        Some((name, None, _)) => refuse(format!("{name} is not supported")),
    }
}

/// Whether some reader takes a stream that begins so for a packed one.
pub fn may_seem_packed(first: &[u8]) -> bool {
    magic(first).is_some() || first.starts_with(b"BZh")
}

fn magic(first: &[u8]) -> Option<(&'static str, Option<Format>, bool)> {
    if zstd::is_skippable(first) {
        return Some(("zstd", Some(Format::Zstd), true));
    }
    // `BZh` alone might be the name of a file in a plain archive.
    if first.starts_with(b"BZh") && first.get(4..10) == Some(b"1AY&SY") {
        return Some(("bzip2", None, true));
    }
    let (_, name, format, is_unpacked) = MAGIC.iter().find(|(magic, ..)| first.starts_with(magic))?;
    Some((name, *format, *is_unpacked))
}

/// What is wrong with a packed stream. It comes inside an [`io::Error`], from which [`of`](Self::of) takes
/// it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    /// It is damaged, or followed by something else ([`io::ErrorKind::InvalidData`]).
    #[error("{0}")]
    Corrupt(String),
    /// It ends too early ([`io::ErrorKind::UnexpectedEof`]).
    #[error("{0} stream cut off")]
    Truncated(&'static str),
    /// It would take more memory than it may ([`io::ErrorKind::QuotaExceeded`]).
    #[error("{0}")]
    Limit(String),
}

impl UnpackError {
    /// The fault of the stream that an error stands for; `None` when reading the stream failed.
    pub fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

impl From<UnpackError> for io::Error {
    fn from(error: UnpackError) -> Self {
        let kind = match error {
            UnpackError::Corrupt(_) => io::ErrorKind::InvalidData,
            UnpackError::Truncated(_) => io::ErrorKind::UnexpectedEof,
            UnpackError::Limit(_) => io::ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}

/// Reads a stream unpacked.
///
/// Errors of the stream below are passed on as they are; faults of the packed data are [`UnpackError`]s.
#[derive(Debug)]
pub struct Unpacker<R> {
    state: State<R>,
}

#[derive(Debug)]
enum State<R> {
    Plain(R),
    Gzip(Box<gzip::Reader<R>>),
    Zstd(Box<zstd::Reader<R>>),
}

impl<R: Read> Unpacker<R> {
    /// Unpacks `stream`, which begins with what [`detect`] was shown.
    pub fn new(format: Format, stream: R) -> Self {
        let state = match format {
            Format::Plain => State::Plain(stream),
            Format::Gzip => State::Gzip(Box::new(gzip::Reader::new(Input::new(stream)))),
            Format::Zstd => State::Zstd(Box::new(zstd::Reader::new(Input::new(stream)))),
        };
        Self { state }
    }
}

impl<R: Read> Read for Unpacker<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        match &mut self.state {
            State::Plain(stream) => stream.read(buffer),
            State::Gzip(reader) => reader.read(buffer),
            State::Zstd(reader) => reader.read(buffer),
        }
    }
}
