//! Digests of streams, made on threads of their own, so that nobody who moves bytes waits for them.

use std::io::{self, Write};
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// How many pieces wait.
const QUEUE: usize = 8;

/// A digest that is being made.
#[derive(Debug)]
pub(super) struct Digesting {
    sender: Option<mpsc::SyncSender<Bytes>>,
    thread: JoinHandle<Digested>,
}

/// A stream that was digested.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Digested {
    /// `sha256:` and 64 hexadecimal digits.
    pub(super) digest: String,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// The end of a digest into which the stream goes.
#[derive(Debug, Clone)]
pub(super) struct Input(mpsc::SyncSender<Bytes>);

impl Digesting {
    /// Begins one.
    ///
    /// # Errors
    ///
    /// There is no thread left.
    pub(super) fn begin() -> io::Result<Digesting> {
        let (sender, pieces) = mpsc::sync_channel::<Bytes>(QUEUE);
        let work = move || {
            let (mut state, mut length) = (Sha256::new(), 0);
            for piece in pieces {
                state.update(&piece);
                length += piece.len() as u64;
            }
            Digested { digest: Digest::from(state).to_string(), length }
        };
        let thread = std::thread::Builder::new().name("digest".to_owned()).spawn(work)?;
        Ok(Digesting { sender: Some(sender), thread })
    }

    /// Where the stream goes. It ends when all of these are dropped.
    pub(super) fn input(&mut self) -> Option<Input> {
        self.sender.take().map(Input)
    }

    /// Waits for the end of the stream.
    ///
    /// # Errors
    ///
    /// The thread panicked.
    pub(super) fn end(mut self) -> io::Result<Digested> {
        self.sender = None;
        self.thread.join().map_err(|_| io::Error::other("the digest's thread panicked"))
    }
}

impl Input {
    /// Adds a piece, without a copy.
    ///
    /// # Errors
    ///
    /// The thread is gone.
    pub(super) fn add(&self, piece: Bytes) -> io::Result<()> {
        self.0.send(piece).map_err(|_| io::Error::other("the digest's thread is gone"))
    }
}

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.add(Bytes::copy_from_slice(bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Bytes on their way, digested as they pass.
#[derive(Debug)]
pub(super) struct Passing<S> {
    stream: S,
    input: Input,
}

impl<S> Passing<S> {
    /// Digests what is read from a stream, or written to it.
    pub(super) fn new(stream: S, input: Input) -> Passing<S> {
        Passing { stream, input }
    }
}

impl<S: io::Read> io::Read for Passing<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.read(buffer)?;
        self.input.add(Bytes::copy_from_slice(&buffer[..count]))?;
        Ok(count)
    }
}

impl<S: Write> Write for Passing<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.input.add(Bytes::copy_from_slice(&bytes[..count]))?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_passes() {
        let mut digesting = Digesting::begin().expect("a thread");
        let input = digesting.input().expect("an input");
        let mut text = String::new();
        io::Read::read_to_string(&mut Passing::new(&b"abc"[..], input), &mut text).expect("text");
        // FIPS 180-2, appendix B.1.
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digesting.end().expect("an end"), Digested { digest: expected.to_owned(), length: 3 });
    }
}
