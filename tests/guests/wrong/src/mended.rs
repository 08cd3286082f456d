//! Archives, as a component with a fault reads them: headers that it must refuse are mended before it looks.
//!
//! Only those in the first read are: the archives of the suite that matter here are smaller than that.
//! Nothing is made longer or shorter, so positions in the stream stay what they are.

use std::cell::Cell;

use layerbox_guest::bindings::layerbox::driver::{streams, writer};
use layerbox_guest::host::{Dialect, Entry, Name, Node, Result, Source, Totals, Writer, Xattr};

use crate::fault::Fault;

const BLOCK: usize = 512;

/// The archive of a call.
pub(crate) struct MendedSource {
    source: streams::Source,
    fault: Fault,
    is_first: Cell<bool>,
}

impl MendedSource {
    pub(crate) fn open(fault: Fault) -> Result<MendedSource> {
        Ok(MendedSource { source: streams::Source::open()?, fault, is_first: Cell::new(true) })
    }
}

impl Source for MendedSource {
    fn read(&self, max: u32) -> Result<Vec<u8>> {
        let mut bytes = self.source.read(max)?;
        if self.is_first.replace(false) {
            mend(&mut bytes, self.fault);
        }
        Ok(bytes)
    }
}

/// The layer that is filled from it: as it is, but for the type of the source.
pub(crate) struct Filled(pub(crate) writer::Writer);

impl Writer for Filled {
    type Source = MendedSource;

    fn dialect(&self) -> Dialect {
        self.0.dialect()
    }

    fn put(&self, entries: &[Entry], bodies: Option<&MendedSource>) -> Result<()> {
        self.0.put(entries, bodies.map(|bodies| &bodies.source))
    }

    fn fill(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.0.fill(offset, bytes)
    }

    fn mark(&self, directories: &[Name], attribute: &Xattr) -> Result<()> {
        self.0.mark(directories, attribute)
    }

    fn stat(&self, names: &[Name]) -> Result<Vec<Option<Node>>> {
        self.0.stat(names)
    }

    fn finish(&self) -> Result<Totals> {
        self.0.finish()
    }
}

/// Goes from header to header as a reader would that looks at nothing but the size (pax(1), ustar).
fn mend(archive: &mut [u8], fault: Fault) {
    let mut at = 0;
    while let Some(header) = archive.get_mut(at..at + BLOCK) {
        let Some(size) = octal(&header[124..136]) else { return };
        match fault {
            // The end of an archive is zeros, and has no checksum.
            Fault::IgnoresChecksums if header.iter().any(|&byte| byte != 0) => sign(header),
            Fault::AppliesDeletionsAsDevices
                if header[156] == b'3'
                    && octal(&header[329..337]) == Some(0)
                    && octal(&header[337..345]) == Some(0) =>
            {
                header[337..345].copy_from_slice(b"0000115\0");
                sign(header);
            }
            Fault::AppliesDotDot if header.starts_with(b"..\0") => {
                header[1] = 0;
                header[156] = b'5';
                sign(header);
            }
            _ => {}
        }
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
}

fn octal(field: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(field).ok()?.trim_matches(['\0', ' ']);
    if text.is_empty() { Some(0) } else { usize::from_str_radix(text, 8).ok() }
}

/// Writes the checksum that the header should have.
fn sign(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
