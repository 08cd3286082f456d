//! The archive as a stream of bytes, decompressed where it must be.

use std::cell::RefCell;
use std::io::{self, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use crate::bindings::layerbox::driver::streams::Source;
use crate::error::{Error, Result, refused};
use crate::member;

/// How much is asked for at a time.
const WINDOW: u32 = 256 * 1024;

/// An archive's bytes, in order.
pub(crate) enum Input {
    /// As they come, so that the host can take bodies out of the stream by their position.
    Plain(Stream),
    /// Decompressed here. What went wrong in the stream below a decoder lies in the cell, because decoders
    /// tell it in words of their own.
    Packed(Box<dyn Read>, Rc<RefCell<Option<Error>>>),
}

impl Input {
    /// Begins to read, and tells the compression by the first bytes.
    pub(crate) fn open() -> Result<Input> {
        let mut stream = Stream { source: Source::open()?, latest: Vec::new(), at: 0, next: 0 };
        let mut first = Vec::new();
        while first.len() < 512 && stream.more()? {
            first.append(&mut stream.latest);
        }
        let magic = first[..first.len().min(10)].to_vec();
        let is_header = first.first_chunk().is_some_and(member::is_header);
        (stream.latest, stream.at) = (first, 0);
        let failure = Rc::new(RefCell::new(None));
        let below = Below { stream, failure: failure.clone() };
        Ok(match magic.as_slice() {
            // Engines unpack these by the first bytes of a name, whoever looks at the header does not.
            [0x1f, 0x8b, 8, ..]
            | [0x28, 0xb5, 0x2f, 0xfd, ..]
            | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..]
            | [0xfd, b'7', b'z', b'X', b'Z', 0, ..]
            | [b'B', b'Z', b'h', _, b'1', b'A', b'Y', b'&', b'S', b'Y']
                if is_header =>
            {
                return Err(refused(b"", "a header that is a packed stream as well"));
            }
            _ if is_header => Input::Plain(below.stream),
            [0x1f, 0x8b, ..] => Input::Packed(Box::new(MultiGzDecoder::new(below)), failure),
            // A frame, or one to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
                Input::Packed(Box::new(Zstd { below, decoder: FrameDecoder::new(), within: false }), failure)
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                return Err(Error::Unsupported("xz is not read".to_owned()));
            }
            _ => Input::Plain(below.stream),
        })
    }

    /// Some of the next bytes; none at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self {
            Input::Plain(stream) => stream.read(buffer),
            Input::Packed(decoder, failure) => decoder.read(buffer).map_err(|error| {
                failure.take().unwrap_or_else(|| refused(b"", format!("its compression is broken: {error}")))
            }),
        }
    }

    /// As many of the next bytes as there are, up to `length`.
    pub(crate) fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        let mut have = 0;
        while have < length {
            match self.read(&mut bytes[have..])? {
                0 => break,
                more => have += more,
            }
        }
        bytes.truncate(have);
        Ok(bytes)
    }
}

/// The source of this call, read in windows.
pub(crate) struct Stream {
    /// The host's end.
    pub(crate) source: Source,
    /// What the latest read answered.
    latest: Vec<u8>,
    /// How much of that is used up.
    at: usize,
    /// The position in the source of what the next read answers.
    next: u64,
}

impl Stream {
    /// Where the next byte is, as the host counts.
    pub(crate) fn position(&self) -> u64 {
        self.next - (self.latest.len() - self.at) as u64
    }

    /// The host took this many of the next bytes: those that were read, and then from the stream.
    pub(crate) fn passed(&mut self, length: u64) {
        let here = (self.latest.len() - self.at) as u64;
        self.next += length.saturating_sub(here);
        self.at += length.min(here) as usize;
    }

    fn more(&mut self) -> Result<bool> {
        (self.latest, self.at) = (self.source.read(WINDOW)?, 0);
        self.next += self.latest.len() as u64;
        Ok(!self.latest.is_empty())
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.at == self.latest.len() && !self.more()? {
            return Ok(0);
        }
        let length = buffer.len().min(self.latest.len() - self.at);
        buffer[..length].copy_from_slice(&self.latest[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// What decoders read from.
struct Below {
    stream: Stream,
    failure: Rc<RefCell<Option<Error>>>,
}

impl Read for Below {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer).map_err(|error| {
            self.failure.replace(Some(error));
            io::Error::other("the stream failed")
        })
    }
}

/// A file of zstd: frames, one after the other, some of them to be skipped.
struct Zstd {
    below: Below,
    decoder: FrameDecoder,
    /// Whether a frame has begun and has not ended.
    within: bool,
}

impl Read for Zstd {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.within {
                let mut first = [0];
                if self.below.read(&mut first)? == 0 {
                    return Ok(0);
                }
                match self.decoder.init(Cursor::new(first).chain(&mut self.below)) {
                    Ok(()) => self.within = true,
                    Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                        length,
                        ..
                    })) => {
                        let length = u64::from(length);
                        if io::copy(&mut (&mut self.below).take(length), &mut io::sink())? != length {
                            return Err(io::ErrorKind::UnexpectedEof.into());
                        }
                    }
                    Err(error) => return Err(io::Error::other(error)),
                }
            } else if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            } else if !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.below, one).map_err(io::Error::other)?;
            } else {
                // The decoder computes the checksum, and leaves the comparison to others.
                let told = self.decoder.get_checksum_from_data();
                if told.is_some() && told != self.decoder.get_calculated_checksum() {
                    return Err(io::Error::other("a wrong checksum"));
                }
                self.within = false;
            }
        }
    }
}
