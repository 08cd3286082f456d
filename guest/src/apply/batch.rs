//! Entries on their way to the host: many in one call.

use crate::host::{Entry, Result, Writer};

/// The most entries in one call.
const ENTRIES: usize = 512;

/// About the most bytes of bodies in one call.
const BYTES: usize = super::WINDOW as usize;

/// Entries that were admitted and not yet put.
#[derive(Debug)]
pub(super) struct Batch<'a, W: Writer> {
    pub(super) writer: &'a W,
    source: Option<&'a W::Source>,
    entries: Vec<Entry>,
    bytes: usize,
}

impl<'a, W: Writer> Batch<'a, W> {
    /// An empty batch, whose bodies may lie in `source`.
    pub(super) fn new(writer: &'a W, source: Option<&'a W::Source>) -> Self {
        Self { writer, source, entries: Vec::with_capacity(ENTRIES), bytes: 0 }
    }

    /// Adds an entry that carries `bytes` bytes of body.
    pub(super) fn push(&mut self, entry: Entry, bytes: usize) -> Result<()> {
        self.bytes += bytes;
        self.entries.push(entry);
        if self.entries.len() == ENTRIES || self.bytes >= BYTES { self.flush() } else { Ok(()) }
    }

    /// Puts what was added.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.entries.is_empty() {
            return Ok(());
        }
        self.writer.put(&self.entries, self.source)?;
        self.entries.clear();
        self.bytes = 0;
        Ok(())
    }
}
