//! gzip (RFC 1952): members one after the other, each with a checksum and a length, and at most zeros after
//! the last.

use std::io::{self, Read};

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::UnpackError;
use super::input::Input;

/// The flags of a member's header (section 2.3.1).
const CHECKSUM: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0b1110_0000;

/// Reads the members of a stream as one.
#[derive(Debug)]
pub(super) struct Reader<R> {
    input: Input<R>,
    inflate: Decompress,
    crc: Crc,
    place: Place,
}

/// Where in the stream the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before the first member.
    Start,
    Body,
    /// After the body of a member.
    Trailer,
    /// After a member.
    Between,
    End,
    /// After a fault; there is no going on.
    Failed,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(input: Input<R>) -> Self {
        Self { input, inflate: Decompress::new(false), crc: Crc::new(), place: Place::Start }
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
                Place::Start => {
                    self.header()?;
                    place = Place::Body;
                }
                Place::Trailer => {
                    self.trailer()?;
                    place = Place::Between;
                }
                Place::Between => place = self.next_member()?,
                Place::Body => {
                    let (length, ended) = self.inflate(buffer)?;
                    if ended {
                        place = Place::Trailer;
                    }
                    if length > 0 {
                        return Ok((length, place));
                    }
                }
            }
        }
    }

    /// Unpacks some bytes; says how many, and whether the body ended with them.
    fn inflate(&mut self, buffer: &mut [u8]) -> io::Result<(usize, bool)> {
        let packed = self.input.peek(1)?;
        let at_end = packed.is_empty();
        let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(packed, buffer, FlushDecompress::None)
            .map_err(|_| corrupt("damaged deflate data"))?;
        let read = (self.inflate.total_in() - read) as usize;
        let written = (self.inflate.total_out() - written) as usize;
        self.input.consume(read);
        self.crc.update(&buffer[..written]);
        let ended = status == Status::StreamEnd;
        if read == 0 && written == 0 && !ended {
            return Err(if at_end { truncated() } else { corrupt("damaged deflate data") });
        }
        Ok((written, ended))
    }

    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.take(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer;
        if u32::from_le_bytes([a, b, c, d]) != self.crc.sum() {
            return Err(corrupt("wrong checksum"));
        }
        // The length is kept modulo 2^32, and `amount` counts like that.
        if u32::from_le_bytes([e, f, g, h]) != self.crc.amount() {
            return Err(corrupt("wrong length"));
        }
        Ok(())
    }

    /// What follows a member: another one, the end, or the zeros with which tapes and some tools fill up.
    fn next_member(&mut self) -> io::Result<Place> {
        match self.input.peek(2)? {
            [] => return Ok(Place::End),
            [0x1f, 0x8b, ..] => {
                self.inflate.reset(false);
                self.crc.reset();
                self.header()?;
                return Ok(Place::Body);
            }
            _ => {}
        }
        loop {
            let rest = self.input.peek(1)?;
            if rest.is_empty() {
                return Ok(Place::End);
            }
            if rest.iter().any(|&byte| byte != 0) {
                return Err(corrupt("something else after the last member"));
            }
            let length = rest.len();
            self.input.consume(length);
        }
    }

    fn header(&mut self) -> io::Result<()> {
        let mut crc = Crc::new();
        let mut fixed = [0; 10];
        self.take(&mut fixed)?;
        crc.update(&fixed);
        let [0x1f, 0x8b, 8, flags, ..] = fixed else { return Err(corrupt("not a gzip header")) };
        if flags & RESERVED != 0 {
            return Err(corrupt("reserved flags in a header"));
        }
        if flags & EXTRA != 0 {
            let mut length = [0; 2];
            self.take(&mut length)?;
            crc.update(&length);
            let mut extra = vec![0; u16::from_le_bytes(length).into()];
            self.take(&mut extra)?;
            crc.update(&extra);
        }
        for flag in [NAME, COMMENT] {
            if flags & flag != 0 {
                self.skip_text(&mut crc)?;
            }
        }
        if flags & CHECKSUM != 0 {
            let mut sum = [0; 2];
            self.take(&mut sum)?;
            let [low, high, ..] = crc.sum().to_le_bytes();
            if sum != [low, high] {
                return Err(corrupt("wrong checksum of a header"));
            }
        }
        Ok(())
    }

    /// Skips text up to its NUL. It may be of any length: nothing of it is kept.
    fn skip_text(&mut self, crc: &mut Crc) -> io::Result<()> {
        loop {
            let bytes = self.input.peek(1)?;
            if bytes.is_empty() {
                return Err(truncated());
            }
            let end = bytes.iter().position(|&byte| byte == 0);
            let length = end.map_or(bytes.len(), |end| end + 1);
            crc.update(&bytes[..length]);
            self.input.consume(length);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Fills `bytes` from the packed side.
    fn take(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            let some = self.input.peek(1)?;
            if some.is_empty() {
                return Err(truncated());
            }
            let length = some.len().min(bytes.len() - filled);
            bytes[filled..filled + length].copy_from_slice(&some[..length]);
            filled += length;
            self.input.consume(length);
        }
        Ok(())
    }
}

fn corrupt(what: &str) -> io::Error {
    UnpackError::Corrupt(format!("gzip stream: {what}")).into()
}

fn truncated() -> io::Error {
    UnpackError::Truncated("gzip").into()
}
