//! An archive that is not packed: the host takes the bodies from the stream itself.

use super::batch::Batch;
use super::{Feed, Meter, Stored, WINDOW};
use crate::host::{Body, Entry, Extent, Result, Source, Writer};

/// The part of the stream that was read last, with what was left over of the part before.
///
/// The host can reach bodies in what the latest read answered only. A header that had to wait for more bytes
/// ends in those, so the body after it begins in them.
#[derive(Debug)]
pub(super) struct Plain<'a, S> {
    source: &'a S,
    window: Vec<u8>,
    /// How much of the window was gone past.
    at: usize,
    /// Where in the stream the window ends.
    end: u64,
    at_end: bool,
    meter: Meter,
}

impl<'a, S: Source> Plain<'a, S> {
    /// The stream from which `head` was read.
    pub(super) fn new(source: &'a S, head: Vec<u8>, bound: u64) -> Self {
        let end = head.len() as u64;
        let at_end = head.is_empty();
        Self { source, window: head, at: 0, end, at_end, meter: Meter { read: end, bound } }
    }

    /// Where in the stream the next byte lies.
    fn position(&self) -> u64 {
        self.end - (self.window.len() - self.at) as u64
    }
}

impl<W: Writer> Feed<W> for Plain<'_, W::Source> {
    fn available(&self) -> (&[u8], bool) {
        (&self.window[self.at..], self.at_end)
    }

    fn more(&mut self) -> Result<()> {
        let read = self.source.read(WINDOW)?;
        self.meter.count(read.len())?;
        self.at_end = read.is_empty();
        self.end += read.len() as u64;
        if self.at == self.window.len() {
            self.window = read;
        } else {
            self.window.drain(..self.at);
            self.window.extend_from_slice(&read);
        }
        self.at = 0;
        Ok(())
    }

    fn pass(&mut self, count: usize) {
        self.at += count;
    }

    fn put(&mut self, mut file: Entry, stored: Stored, batch: &mut Batch<'_, W>) -> Result<()> {
        let begin = self.position();
        file.body = match stored.extents {
            None => Body::Stream(begin),
            Some(extents) => {
                let mut position = begin;
                Body::Extents(
                    extents
                        .into_iter()
                        .map(|(offset, length)| {
                            let extent = Extent { offset, length, position };
                            position += length;
                            extent
                        })
                        .collect(),
                )
            }
        };
        batch.push(file, 0)?;
        let here = (self.window.len() - self.at) as u64;
        if stored.length <= here {
            self.at += stored.length as usize;
            return Ok(());
        }
        // The host takes the rest from the stream, and we go on behind it.
        batch.flush()?;
        self.meter.read = self.meter.read.saturating_add(stored.length - here);
        self.end += stored.length - here;
        self.at = self.window.len();
        Ok(())
    }

    fn drain(&mut self) -> Result<()> {
        while !self.at_end {
            self.at = self.window.len();
            Feed::<W>::more(self)?;
        }
        Ok(())
    }
}
