//! From an archive to a layer.
//!
//! Headers come in and are judged entry by entry (`admit`); what is admitted goes out in batches (`batch`).
//! Where the archive is plain, bodies never come in at all: the host is told their position in the stream
//! (`plain`). Packed archives are unpacked here, so their bodies are handed over piece by piece (`packed`).
//! Deletions are kept until all else is in the layer ([`Markers`](crate::whiteout::Markers)), by the names to
//! which links led when they came (`links`); only their directories are made at once.

mod admit;
mod batch;
mod links;
mod packed;
mod plain;

use crate::archive::{BLOCK, Decoder, Step, padding};
use crate::compression::{self, Format};
use crate::error;
use crate::host::{ApplyOptions, Entry, Result, Source, Totals, Writer};
use admit::{Admission, Admitted};
use batch::Batch;
use packed::Packed;
use plain::Plain;

/// How many bytes are read from the stream at a time, and handed over at a time.
const WINDOW: u32 = 256 * 1024;

/// The space that an entry may take in an archive beside its body, on average, in bytes: it bounds what an
/// archive can hold beyond the sizes that it admits to, such as what comes after its end.
const OVERHEAD: u64 = 8192;

/// Fills an empty layer from an archive, and answers what the layer then holds.
///
/// # Errors
/// [`Error::Refused`](crate::host::Error::Refused) for a malformed or hostile archive,
/// [`Error::Limit`](crate::host::Error::Limit), and those of the host. The layer is then to be thrown away.
pub fn apply<W: Writer>(writer: &W, source: &W::Source, options: ApplyOptions) -> Result<Totals> {
    let bound =
        (options.max_entries.saturating_add(256)).saturating_mul(OVERHEAD).saturating_add(options.max_bytes);
    let mut head = Vec::new();
    while head.len() < BLOCK {
        let more = source.read(WINDOW)?;
        if more.is_empty() {
            break;
        }
        head.extend_from_slice(&more);
    }
    let mut admission = Admission::new(options)?;
    let format = compression::detect(&head)?;
    match format {
        Format::Plain => {
            let batch = Batch::new(writer, Some(source));
            fill(Plain::new(source, head, bound), batch, &mut admission)?;
        }
        Format::Gzip | Format::Zstd => {
            let failure = Default::default();
            let batch = Batch::new(writer, None);
            fill(Packed::new(format, source, head, &failure, bound), batch, &mut admission)?;
        }
    }
    let (markers, owner) = admission.into_markers();
    let placed = markers.place(writer, owner)?;
    let held = writer.finish()?;
    Ok(Totals { entries: held.entries.saturating_sub(placed), bytes: held.bytes })
}

/// An archive's bytes, plain or unpacked.
trait Feed<W: Writer> {
    /// The bytes that are here and were not gone past, and whether there are no more to come.
    fn available(&self) -> (&[u8], bool);

    /// Brings in more bytes after those. What was put from the bytes that are here must have been handed
    /// over.
    fn more(&mut self) -> Result<()>;

    /// Goes past bytes that are here.
    fn pass(&mut self, count: usize);

    /// Puts a regular file whose body is next, and goes past that.
    fn put(&mut self, file: Entry, body: Stored, batch: &mut Batch<'_, W>) -> Result<()>;

    /// Reads to the end of all, and so finds out whether all was whole.
    fn drain(&mut self) -> Result<()>;
}

/// A body as it lies in an archive.
#[derive(Debug)]
struct Stored {
    /// How many bytes it has there.
    length: u64,
    /// Where in the file they go, where that is not from its beginning on: (offset, length).
    extents: Option<Vec<(u64, u64)>>,
}

fn fill<W: Writer>(mut feed: impl Feed<W>, mut batch: Batch<'_, W>, admission: &mut Admission) -> Result<()> {
    let mut decoder = Decoder::new();
    loop {
        let (available, at_end) = feed.available();
        match decoder.step(available, at_end)? {
            Step::Need(_) => {
                batch.flush()?;
                feed.more()?;
            }
            Step::End { consumed } => {
                feed.pass(consumed);
                break;
            }
            Step::Member { member, consumed } => {
                feed.pass(consumed);
                let label = member.name.clone();
                let mut rest = padding(member.stored);
                let passed = match admission.judge(member, &mut batch)? {
                    Admitted::File(entry, body) => feed.put(entry, body, &mut batch),
                    Admitted::Bodiless(entry) => batch.push(entry, 0),
                    Admitted::Nothing(stored) => {
                        rest += stored;
                        Ok(())
                    }
                };
                // What unpacks the stream, and what counts its bytes, know nothing of entries.
                passed
                    .and_then(|()| skip(&mut feed, &mut batch, rest, &label))
                    .map_err(|fault| error::within(&label, fault))?;
            }
        }
    }
    batch.flush()?;
    feed.drain()
}

/// Goes past bytes, wherever they end.
fn skip<W: Writer>(
    feed: &mut impl Feed<W>,
    batch: &mut Batch<'_, W>,
    mut rest: u64,
    entry: &[u8],
) -> Result<()> {
    loop {
        let (available, at_end) = feed.available();
        let here = available.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
        feed.pass(here);
        rest -= here as u64;
        if rest == 0 {
            return Ok(());
        }
        if at_end {
            return Err(cut_off(entry));
        }
        batch.flush()?;
        feed.more()?;
    }
}

fn cut_off(entry: &[u8]) -> crate::host::Error {
    error::refused(entry, "archive cut off in an entry's body")
}

/// Counts what is read of an archive, against a bound.
#[derive(Debug)]
struct Meter {
    read: u64,
    bound: u64,
}

impl Meter {
    fn count(&mut self, bytes: usize) -> Result<()> {
        self.read = self.read.saturating_add(bytes as u64);
        if self.read > self.bound {
            return Err(error::limit(b"", "bytes of the archive", self.bound));
        }
        Ok(())
    }
}
