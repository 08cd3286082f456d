//! Sparse files: the four ways in which GNU tar writes down where the stored bytes go.
//!
//! The old one is entry type `S`, whose map begins in the header and goes on in blocks after it. The three
//! PAX ones ("Storing Sparse Files" in the manual of GNU tar) are regular files with `GNU.sparse.` records:
//! 0.0 has a pair of records for each region, 0.1 has one record with all of them, and 1.0 has the map at the
//! beginning of the body.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use super::{BLOCK, Fault, MAX_EXTENTS, field, header, padding};

/// Regions with data: (offset, length).
pub(super) type Extents = Vec<(u64, u64)>;

/// The `GNU.sparse.` records of one member.
#[derive(Debug, Default)]
pub(super) struct Keys<'a> {
    present: bool,
    name: Option<&'a [u8]>,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    realsize: Option<u64>,
    blocks: Option<u64>,
    map: Option<Extents>,
    pairs: Extents,
    /// The offset of a pair whose length has not come yet.
    offset: Option<u64>,
}

/// What the records say about a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// A file of this size whose regions the records hold.
    Listed(u64, Extents),
    /// A file of this size whose map is at the beginning of the body.
    InBody(u64),
}

impl<'a> Keys<'a> {
    /// Takes a record; `key` is without `GNU.sparse.`.
    pub(super) fn add(&mut self, key: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        self.present = true;
        let number = |slot: &mut Option<u64>| once(slot, field::decimal(value, "GNU.sparse record")?);
        match key {
            b"name" if value.contains(&0) => Err(Fault::rule("NUL in a name")),
            b"name" => once(&mut self.name, value),
            b"major" => number(&mut self.major),
            b"minor" => number(&mut self.minor),
            b"size" => number(&mut self.size),
            b"realsize" => number(&mut self.realsize),
            b"numblocks" => number(&mut self.blocks),
            b"map" => once(&mut self.map, parse_list(value)?),
            b"offset" => number(&mut self.offset),
            b"numbytes" => {
                let length = field::decimal(value, "GNU.sparse record")?;
                let offset =
                    self.offset.take().ok_or_else(|| Fault::rule("GNU.sparse.numbytes without offset"))?;
                push(&mut self.pairs, offset, length)
            }
            _ => Err(Fault::rule("unknown GNU.sparse record")),
        }
    }

    /// The name of the file. The header names a directory beside it that nobody is meant to see.
    pub(super) fn name(&self) -> Option<&'a [u8]> {
        self.name
    }

    /// Decides which of the three ways it is. A mixture of them is refused.
    pub(super) fn layout(self) -> Result<Option<Layout>, Fault> {
        if !self.present {
            return Ok(None);
        }
        let in_body = (self.major, self.minor) == (Some(1), Some(0));
        let listed = (self.major, self.minor) == (None, None);
        let extents = match self.map {
            Some(map) if self.pairs.is_empty() => map,
            Some(_) => return Err(Fault::rule("two sparse maps")),
            None => self.pairs,
        };
        match (self.size, self.realsize, self.blocks) {
            (None, Some(real), None) if in_body && extents.is_empty() && self.offset.is_none() => {
                Ok(Some(Layout::InBody(real)))
            }
            (Some(real), None, Some(blocks)) if listed && self.offset.is_none() => {
                if extents.is_empty() || blocks != extents.len() as u64 {
                    return Err(Fault::rule("sparse map of another length than it says"));
                }
                Ok(Some(Layout::Listed(real, extents)))
            }
            _ => Err(Fault::rule("GNU.sparse records that do not make a sparse file of any known form")),
        }
    }
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    match slot.replace(value) {
        Some(_) => Err(Fault::rule("GNU.sparse record given twice")),
        None => Ok(()),
    }
}

fn push(extents: &mut Extents, offset: u64, length: u64) -> Result<(), Fault> {
    if extents.len() == MAX_EXTENTS {
        return Err(Fault::limit(format!("regions of a sparse file ({MAX_EXTENTS})")));
    }
    extents.push((offset, length));
    Ok(())
}

/// `OFFSET,LENGTH,OFFSET,LENGTH…`
fn parse_list(text: &[u8]) -> Result<Extents, Fault> {
    let mut extents = Vec::new();
    let mut numbers = text.split(|&byte| byte == b',').map(|number| field::decimal(number, "sparse map"));
    while let Some(offset) = numbers.next() {
        let length = numbers.next().ok_or_else(|| Fault::rule("sparse map with an offset and no length"))?;
        push(&mut extents, offset?, length?)?;
    }
    Ok(extents)
}

/// What came of looking for the map at the beginning of a body.
#[derive(Debug)]
pub(super) enum Found {
    /// It is this long, padding included.
    Map(Extents, usize),
    /// More bytes of the body are needed to tell.
    Need(usize),
}

/// Reads the map of version 1.0: decimal lines, first the number of regions, padded to a block.
///
/// `body` is what is there of the body of `size` bytes. What is asked for doubles each time, but never beyond
/// the body, so that a long map is not read over and over.
pub(super) fn parse_body(body: &[u8], size: u64) -> Result<Found, Fault> {
    let whole = usize::try_from(size).unwrap_or(usize::MAX);
    let body = &body[..body.len().min(whole)];
    let need = || match body.len() {
        length if length == whole => Err(Fault::rule("sparse map that does not end in its body")),
        length => Ok(Found::Need((2 * length).max(BLOCK).min(whole))),
    };
    let mut lines = Lines { text: body, at: 0 };
    let Some(count) = lines.next()? else { return need() };
    if count > MAX_EXTENTS as u64 {
        return Err(Fault::limit(format!("regions of a sparse file ({MAX_EXTENTS})")));
    }
    let mut extents = Vec::new();
    for _ in 0..count {
        let (Some(offset), Some(length)) = (lines.next()?, lines.next()?) else { return need() };
        push(&mut extents, offset, length)?;
    }
    let length = lines.at.next_multiple_of(BLOCK);
    if length > whole {
        return Err(Fault::rule("sparse map that does not end in its body"));
    }
    if length > body.len() {
        // The padding belongs to the headers, which a caller goes past as a whole.
        return Ok(Found::Need(length));
    }
    Ok(Found::Map(extents, length))
}

struct Lines<'a> {
    text: &'a [u8],
    at: usize,
}

impl Lines<'_> {
    /// The number in the next line; `None` when the line is not there in full.
    fn next(&mut self) -> Result<Option<u64>, Fault> {
        // Nineteen digits hold any size.
        let window = &self.text[self.at..self.text.len().min(self.at + 20)];
        match window.iter().position(|&byte| byte == b'\n') {
            Some(end) => {
                self.at += end + 1;
                field::decimal(&window[..end], "sparse map").map(Some)
            }
            None if window.len() == 20 => Err(Fault::rule("sparse map: not a decimal number")),
            None => Ok(None),
        }
    }
}

/// Reads the map of an entry of type `S`, and the real size of its file. `after` is what is there of the
/// bytes after the header, where the map goes on block by block as long as a flag says so; after that come
/// `stored` bytes of body.
pub(super) fn parse_old(gnu: &GnuHeader, after: &[u8], stored: u64) -> Result<(u64, Found), Fault> {
    let real = u64::try_from(field::number(&gnu.realsize, "real size")?)
        .map_err(|_| Fault::rule("negative real size"))?;
    let mut map = OldMap::default();
    map.read(&gnu.sparse)?;
    let mut extended = is_extended(gnu.isextended)?;
    let mut length = 0;
    while extended {
        let Some(block) = after.get(length..).and_then(|rest| rest.first_chunk::<BLOCK>()) else {
            // Another block comes for certain, and so does the body. Asking for some of it as well keeps a
            // long map from being read over and over.
            let body = usize::try_from(stored + padding(stored)).unwrap_or(usize::MAX);
            return Ok((real, Found::Need(length + BLOCK + body.min(length))));
        };
        let mut extension = GnuExtSparseHeader::new();
        extension.as_mut_bytes().copy_from_slice(block);
        map.read(extension.sparse())?;
        extended = is_extended(extension.isextended)?;
        length += BLOCK;
    }
    Ok((real, Found::Map(map.extents, length)))
}

fn is_extended(flag: [u8; 1]) -> Result<bool, Fault> {
    match flag {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(Fault::rule("sparse map: malformed continuation")),
    }
}

#[derive(Default)]
struct OldMap {
    extents: Extents,
    ended: bool,
}

impl OldMap {
    /// The map ends at the first slot that is not in use. Readers find that by its offset, by its length or
    /// by either, so a slot must be used or not used as a whole, and so must all the slots after it.
    fn read(&mut self, slots: &[GnuSparseHeader]) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::rule("sparse map that goes on after its end"));
        }
        for slot in slots {
            if header::is_blank(slot) {
                self.ended = true;
                continue;
            }
            if self.ended || slot.offset[0] == 0 || slot.numbytes[0] == 0 {
                return Err(Fault::rule("sparse map with a gap in it"));
            }
            let number = |bytes: &[u8]| {
                u64::try_from(field::number(bytes, "sparse map")?)
                    .map_err(|_| Fault::rule("sparse map: negative"))
            };
            push(&mut self.extents, number(&slot.offset)?, number(&slot.numbytes)?)?;
        }
        Ok(())
    }
}

/// Checks a map against the size of the file and the bytes stored, and drops the regions without data, with
/// which GNU tar marks a hole at the end.
///
/// GNU tar looks for the bytes of each region in a block of their own, and the others right behind those of
/// the region before: only the last bytes may leave a block unfinished, or what is body to the one is the
/// next header to the others. Whoever asks a file system for the regions gets them in whole blocks.
pub(super) fn check(mut extents: Extents, real: u64, stored: u64) -> Result<Extents, Fault> {
    let mut end = 0u64;
    let mut sum = 0u64;
    for &(offset, length) in &extents {
        let next = offset.checked_add(length).filter(|&next| next <= real);
        end = match next {
            Some(next) if offset >= end => next,
            _ => {
                return Err(Fault::rule("sparse map whose regions overlap, run backwards or leave the file"));
            }
        };
        if length != 0 && padding(sum) != 0 {
            return Err(Fault::rule("sparse map with a region that is no whole blocks before another"));
        }
        sum += length;
    }
    if sum != stored {
        return Err(Fault::rule("sparse map that does not account for the bytes stored"));
    }
    extents.retain(|&(_, length)| length != 0);
    Ok(extents)
}
