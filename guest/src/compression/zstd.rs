//! Zstandard (RFC 8878): frames one after the other, skippable ones among them.

use std::io::{self, Read};

use ruzstd::decoding::errors::{FrameDecoderError, FrameHeaderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::input::Input;
use super::{MAX_ZSTD_WINDOW, UnpackError};

/// Whether a frame that carries no content begins here: 0x184D2A50 to 0x184D2A5F (section 3.1.2).
pub(super) fn is_skippable(first: &[u8]) -> bool {
    matches!(first, [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..])
}

/// Reads the frames of a stream as one.
pub(super) struct Reader<R> {
    input: Input<R>,
    decoder: FrameDecoder,
    place: Place,
    /// Whether the frame says how long its content is.
    sized: bool,
    /// How much of the frame's content was read.
    unpacked: u64,
}

/// Where in the stream the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Start,
    Frame,
    Between,
    End,
    /// After a fault; there is no going on.
    Failed,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Reader")
            .field("input", &self.input)
            .field("place", &self.place)
            .field("unpacked", &self.unpacked)
            .finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW);
        Self { input, decoder, place: Place::Start, sized: false, unpacked: 0 }
    }

    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let place = std::mem::replace(&mut self.place, Place::Failed);
        let (length, place) = self.go_on(place, buffer)?;
        self.place = place;
        Ok(length)
    }

    fn go_on(&mut self, mut place: Place, buffer: &mut [u8]) -> io::Result<(usize, Place)> {
        loop {
            match place {
                Place::Failed => return Err(corrupt("unusable after an error")),
                Place::End => return Ok((0, place)),
                Place::Start | Place::Between => place = self.next_frame(place)?,
                Place::Frame => {
                    let length = self.decoder.read(buffer)?;
                    if length > 0 {
                        self.unpacked += length as u64;
                        return Ok((length, place));
                    }
                    if self.decoder.is_finished() {
                        self.check()?;
                        place = Place::Between;
                        continue;
                    }
                    let step =
                        self.decoder.decode_blocks(&mut self.input, BlockDecodingStrategy::UptoBlocks(1));
                    step.map_err(|error| self.explain(&error))?;
                }
            }
        }
    }

    /// Begins the next frame, or finds the end.
    fn next_frame(&mut self, place: Place) -> io::Result<Place> {
        let first = self.input.peek(8)?;
        if first.is_empty() && place == Place::Between {
            return Ok(Place::End);
        }
        if is_skippable(first) {
            let Some(&[_, _, _, _, a, b, c, d]) = first.first_chunk() else { return Err(truncated()) };
            self.skip(8 + u64::from(u32::from_le_bytes([a, b, c, d])))?;
            return Ok(Place::Between);
        }
        let Some(&[m0, m1, m2, m3, descriptor]) = first.first_chunk() else { return Err(truncated()) };
        if [m0, m1, m2, m3] != [0x28, 0xb5, 0x2f, 0xfd] {
            return Err(corrupt("something else where a frame should begin"));
        }
        // Section 3.1.1.1.1: a bit that must be zero, and whether there is a content size.
        if descriptor & 0x08 != 0 {
            return Err(corrupt("reserved bit in a frame header"));
        }
        self.sized = descriptor & 0xe0 != 0;
        self.unpacked = 0;
        let step = self.decoder.reset(&mut self.input);
        step.map_err(|error| self.explain(&error))?;
        Ok(Place::Frame)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let mut rest = length;
        while rest > 0 {
            let some = self.input.peek(1)?.len();
            if some == 0 {
                return Err(truncated());
            }
            let length = rest.min(some as u64);
            self.input.consume(length as usize);
            rest -= length;
        }
        Ok(())
    }

    /// Compares a frame that was read to its end with what it says about itself.
    fn check(&self) -> io::Result<()> {
        if self
            .decoder
            .get_checksum_from_data()
            .is_some_and(|sum| Some(sum) != self.decoder.get_calculated_checksum())
        {
            return Err(corrupt("wrong checksum"));
        }
        if self.sized && self.decoder.content_size() != self.unpacked {
            return Err(corrupt("wrong length"));
        }
        Ok(())
    }

    fn explain(&mut self, error: &FrameDecoderError) -> io::Error {
        if let Some(failure) = self.input.take_failure() {
            return failure;
        }
        match error {
            _ if self.input.is_starved() => truncated(),
            FrameDecoderError::WindowSizeTooBig { requested, .. } => {
                UnpackError::Limit(format!("window of a zstd frame ({MAX_ZSTD_WINDOW} bytes): {requested}"))
                    .into()
            }
            FrameDecoderError::FailedToInitialize(FrameHeaderError::WindowTooBig { got })
            | FrameDecoderError::FrameHeaderError(FrameHeaderError::WindowTooBig { got }) => {
                UnpackError::Limit(format!("window of a zstd frame ({MAX_ZSTD_WINDOW} bytes): {got}")).into()
            }
            FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { .. }) => {
                corrupt("a skippable frame in the wrong place")
            }
            error => corrupt(&error.to_string()),
        }
    }
}

fn corrupt(what: &str) -> io::Error {
    UnpackError::Corrupt(format!("zstd stream: {what}")).into()
}

fn truncated() -> io::Error {
    UnpackError::Truncated("zstd").into()
}
