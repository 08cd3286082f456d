//! A packed archive: unpacked here, its bodies handed to the host in pieces.

use std::cell::RefCell;
use std::io::{self, Read};

use super::batch::Batch;
use super::{Feed, Meter, Stored, WINDOW, cut_off};
use crate::archive::Malformed;
use crate::compression::{Format, UnpackError, Unpacker};
use crate::error;
use crate::host::{Body, Entry, Error, Result, Source, Writer};

/// Blocks of this size that are all zeros are left to be holes: the usual block of a file system, in bytes.
const BLOCK: usize = 4096;

/// The unpacked bytes that are here.
#[derive(Debug)]
pub(super) struct Packed<'a, S> {
    unpacker: Unpacker<PackedBytes<'a, S>>,
    source: &'a S,
    /// The host's own error, which cannot pass through the unpacker.
    failure: &'a RefCell<Option<Error>>,
    window: Vec<u8>,
    /// How much of the window was gone past.
    at: usize,
    at_end: bool,
    meter: Meter,
}

impl<'a, S: Source> Packed<'a, S> {
    /// The stream from which `head` was read.
    pub(super) fn new(
        format: Format,
        source: &'a S,
        head: Vec<u8>,
        failure: &'a RefCell<Option<Error>>,
        bound: u64,
    ) -> Self {
        let unpacker = Unpacker::new(format, PackedBytes { source, window: head, at: 0, failure });
        let window = Vec::with_capacity(2 * WINDOW as usize);
        Self { unpacker, source, failure, window, at: 0, at_end: false, meter: Meter { read: 0, bound } }
    }

    /// Reads on until so many bytes are here or the end is reached.
    fn fetch(&mut self, wanted: usize) -> Result<()> {
        self.window.drain(..self.at);
        self.at = 0;
        let mut end = self.window.len();
        self.window.resize(wanted.max(WINDOW as usize).max(end), 0);
        while end < wanted && !self.at_end {
            match self.unpacker.read(&mut self.window[end..]) {
                Ok(0) => self.at_end = true,
                Ok(count) => {
                    self.source.unpacked(&self.window[end..end + count])?;
                    end += count;
                    self.meter.count(count)?;
                }
                Err(failure) if failure.kind() == io::ErrorKind::Interrupted => {}
                Err(failure) => return Err(self.explain(&failure)),
            }
        }
        self.window.truncate(end);
        Ok(())
    }

    fn explain(&self, failure: &io::Error) -> Error {
        if let Some(own) = self.failure.borrow_mut().take() {
            return own;
        }
        match UnpackError::of(failure) {
            Some(fault) => {
                let limit = matches!(fault, UnpackError::Limit(_));
                Malformed { entry: Vec::new(), rule: fault.to_string(), limit }.into()
            }
            None => error::io(None, "read", failure),
        }
    }

    fn here(&self) -> usize {
        self.window.len() - self.at
    }
}

impl<W: Writer> Feed<W> for Packed<'_, W::Source> {
    fn available(&self) -> (&[u8], bool) {
        (&self.window[self.at..], self.at_end)
    }

    fn more(&mut self) -> Result<()> {
        // One byte more than is here is enough to go on; a whole window is read where it is there.
        let wanted = (self.here() + 1).next_multiple_of(WINDOW as usize);
        self.fetch(wanted)
    }

    fn pass(&mut self, count: usize) {
        self.at += count;
    }

    fn put(&mut self, mut file: Entry, stored: Stored, batch: &mut Batch<'_, W>) -> Result<()> {
        if stored.extents.is_none() && stored.length <= u64::from(WINDOW) {
            let length = stored.length as usize;
            if self.here() < length {
                self.fetch(length)?;
            }
            let Some(body) = self.window.get(self.at..self.at + length) else {
                return Err(cut_off(&file.name));
            };
            file.body = Body::Bytes(body.to_vec());
            self.at += length;
            return batch.push(file, length);
        }
        file.body = Body::Later;
        let name = file.name.clone();
        batch.push(file, 0)?;
        batch.flush()?;
        for (offset, length) in stored.extents.unwrap_or_else(|| vec![(0, stored.length)]) {
            let (mut offset, mut rest) = (offset, length);
            while rest > 0 {
                if self.here() == 0 {
                    self.fetch(WINDOW as usize)?;
                }
                let piece = self.here().min(usize::try_from(rest).unwrap_or(usize::MAX)).min(WINDOW as usize);
                if piece == 0 {
                    return Err(cut_off(&name));
                }
                fill(batch.writer, offset, &self.window[self.at..self.at + piece])?;
                self.at += piece;
                offset += piece as u64;
                rest -= piece as u64;
            }
        }
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        while !self.at_end {
            self.at = self.window.len();
            self.fetch(WINDOW as usize)?;
        }
        Ok(())
    }
}

/// Hands over bytes of a file, less the blocks that are all zeros at its ends.
fn fill<W: Writer>(writer: &W, offset: u64, bytes: &[u8]) -> Result<()> {
    let is_zero = |block: &&[u8]| block.iter().all(|&byte| byte == 0);
    let leading = bytes.chunks(BLOCK).take_while(is_zero).count() * BLOCK;
    let Some(rest) = bytes.get(leading..).filter(|rest| !rest.is_empty()) else {
        return Ok(());
    };
    let trailing = rest.rchunks(BLOCK).take_while(is_zero).count() * BLOCK;
    writer.fill(offset + leading as u64, &rest[..rest.len().saturating_sub(trailing)])
}

/// The packed bytes, as the unpacker reads them.
#[derive(Debug)]
struct PackedBytes<'a, S> {
    source: &'a S,
    window: Vec<u8>,
    at: usize,
    failure: &'a RefCell<Option<Error>>,
}

impl<S: Source> Read for PackedBytes<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.window.len() {
            self.window = self.source.read(WINDOW).map_err(|failure| {
                *self.failure.borrow_mut() = Some(failure);
                io::Error::other("the source failed")
            })?;
            self.at = 0;
        }
        let count = buffer.len().min(self.window.len() - self.at);
        buffer[..count].copy_from_slice(&self.window[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
