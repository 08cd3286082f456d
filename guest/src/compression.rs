//! Compressed archives: gzip (RFC 1952) and Zstandard (RFC 8878), told apart by their magic, unpacked as they are read.
//!
//! A stream may be several members or frames one after the other, as parallel compressors and seekable image formats write
//! them. Checksums are verified; a stream that is cut off, damaged or followed by something else is an error and never
//! just the end. How far a stream may expand is for the reader to bound: no more is unpacked than is asked for.

mod gzip;
mod input;
#[cfg(test)]
mod tests;
mod zstd;

use std::io::{self, Read};

use crate::archive::Malformed;
use input::Input;

/// The largest window of a Zstandard frame in bytes. It is held in memory. Compressors ask for 8 MiB and less unless they
/// are told otherwise (`--ultra`, `--long`).
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

/// Magic numbers and what they stand for; `None` for what is known and not read.
const MAGIC: [(&[u8], &str, Option<Format>); 7] = [
    (b"\x1f\x8b", "gzip", Some(Format::Gzip)),
    (b"\x28\xb5\x2f\xfd", "zstd", Some(Format::Zstd)),
    (b"\xfd7zXZ\0", "xz", None),
    (b"\x04\x22\x4d\x18", "lz4", None),
    (b"LZIP\x01", "lzip", None),
    (b"\x1f\x9d", "compress", None),
    (b"PK\x03\x04", "zip", None),
];

/// Tells the format by how a stream begins. Ten bytes are enough; fewer are taken as what they are.
///
/// # Errors
/// [`Malformed`] for a stream that is packed in a way that is not read here.
pub fn detect(first: &[u8]) -> Result<Format, Malformed> {
    if zstd::is_skippable(first) {
        return Ok(Format::Zstd);
    }
    // `BZh` alone might be the name of a file in a plain archive.
    let is_bzip2 = first.starts_with(b"BZh") && first.get(4..10) == Some(b"1AY&SY");
    let (name, format) = match MAGIC.iter().find(|(magic, ..)| first.starts_with(magic)) {
        _ if is_bzip2 => ("bzip2", None),
        Some((_, name, format)) => (*name, *format),
        None => ("plain", Some(Format::Plain)),
    };
    format.ok_or_else(|| Malformed {
        entry: Vec::new(),
        rule: format!("{name} is not supported"),
        limit: false,
    })
}

/// What is wrong with a packed stream. It comes inside an [`io::Error`], from which [`of`](Self::of) takes it.
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
