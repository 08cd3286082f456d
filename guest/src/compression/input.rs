//! The packed side: a buffer that can be looked into ahead, and that remembers how its stream ended.

use std::io::{self, ErrorKind, Read};

/// How much is read at once, in bytes.
const CAPACITY: usize = 128 * 1024;

/// A stream that is read in large pieces.
pub(super) struct Input<R> {
    stream: R,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    failure: Option<io::Error>,
    starved: bool,
}

impl<R> std::fmt::Debug for Input<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Input").field("buffered", &(self.end - self.start)).finish_non_exhaustive()
    }
}

impl<R: Read> Input<R> {
    pub(super) fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: vec![0; CAPACITY].into_boxed_slice(),
            start: 0,
            end: 0,
            failure: None,
            starved: false,
        }
    }

    /// The bytes at hand: at least `least` of them (a few), fewer only at the end of the stream.
    pub(super) fn peek(&mut self, least: usize) -> io::Result<&[u8]> {
        if self.end - self.start < least {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        while self.end - self.start < least {
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(length) => self.end += length,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[self.start..self.end])
    }

    /// Drops bytes that were seen.
    pub(super) fn consume(&mut self, length: usize) {
        self.start = self.end.min(self.start + length);
    }

    /// The error of the stream, when that is why a decoder on top failed.
    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    /// Whether a decoder on top asked for more bytes than there were.
    pub(super) fn is_starved(&self) -> bool {
        self.starved
    }
}

/// For decoders that pull their input and bury its errors in their own. The error itself is kept aside.
impl<R: Read> Read for Input<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = match self.peek(1) {
            Ok(bytes) => {
                let length = bytes.len().min(buffer.len());
                buffer[..length].copy_from_slice(&bytes[..length]);
                length
            }
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                return Err(kind.into());
            }
        };
        self.starved |= length == 0 && !buffer.is_empty();
        self.consume(length);
        Ok(length)
    }
}
