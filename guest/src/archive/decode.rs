//! The reader: one step takes all the headers of a member.

use super::extended::{self, Extended, check_global};
use super::header::Fields;
use super::member::{Assembled, assemble};
use super::{BLOCK, Fault, MAX_EXTENSION, Malformed, Member, header, padding};

/// What was found at a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// This many bytes, counted from the header on, must be available to go on, or the end of the stream.
    Need(usize),
    /// A member. Its body begins `consumed` bytes after the beginning of what was available: `stored` bytes,
    /// then [`padding`].
    Member {
        /// The member.
        member: Member,
        /// The length of its headers, in bytes: extension headers, long names and sparse map included.
        consumed: usize,
    },
    /// The end of the archive. What comes after `consumed` bytes does not belong to it.
    End {
        /// The length of what marks the end, in bytes; 0 when the stream ends after a member.
        consumed: usize,
    },
}

/// Reads an archive, member by member.
///
/// ```
/// # use layerbox_guest::archive::{Decoder, Step, TRAILER};
/// let mut decoder = Decoder::new();
/// assert_eq!(decoder.step(&TRAILER[..100], false), Ok(Step::Need(512)));
/// assert_eq!(decoder.step(&TRAILER, false), Ok(Step::End { consumed: 1024 }));
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    begun: bool,
}

impl Decoder {
    /// A decoder at the beginning of an archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes what `available` begins with. `at_end` says that the stream has no bytes after these.
    ///
    /// After [`Step::Need`] the call is repeated with the same beginning and more bytes, or with `at_end`.
    /// After [`Step::Member`] it goes on behind the member's body and padding. An archive without an end
    /// marker ends where the stream ends after a member, so the caller must see to it that the whole body was
    /// there.
    ///
    /// # Errors
    /// [`Malformed`], after which nothing more can be read from the archive.
    pub fn step(&mut self, available: &[u8], at_end: bool) -> Result<Step, Malformed> {
        let mut label = &[][..];
        let step =
            decode(Input { available, at_end }, self.begun, &mut label).map_err(|fault| fault.at(label))?;
        self.begun |= !matches!(step, Step::Need(_));
        Ok(step)
    }
}

/// The bytes from the first header on.
#[derive(Clone, Copy)]
struct Input<'a> {
    available: &'a [u8],
    at_end: bool,
}

impl<'a> Input<'a> {
    /// The block at an offset, or `None` when it is not there yet.
    fn block(&self, at: usize) -> Option<&'a [u8; BLOCK]> {
        self.available.get(at..)?.first_chunk()
    }

    /// What the entry is called whose extended header has this body: by a record that was not taken, or by
    /// the header at `next`, where that is here. Many writers give all extended headers one name.
    fn entry_behind(&self, body: &'a [u8], next: usize) -> Option<&'a [u8]> {
        let is_entry = |block: &&[u8; BLOCK]| {
            header::parse(block).is_ok_and(|fields| !matches!(fields.flag, b'x' | b'L' | b'K' | b'g'))
        };
        let recorded = extended::recorded_name(body);
        recorded.or_else(|| self.block(next).filter(is_entry).map(header::label))
    }

    /// Asks for bytes; refuses when there are none to come.
    fn need(&self, total: usize) -> Result<Step, Fault> {
        if self.at_end {
            return Err(Fault::rule("archive cut off in an entry's headers"));
        }
        Ok(Step::Need(total))
    }

    /// Whether the stream ends exactly here.
    fn ends_at(&self, at: usize) -> bool {
        self.at_end && self.available.len() == at
    }
}

fn decode<'a>(input: Input<'a>, begun: bool, label: &mut &'a [u8]) -> Result<Step, Fault> {
    let mut extended = Extended::default();
    let mut global = false;
    let mut at = 0;
    loop {
        if input.ends_at(at) && !extended.is_pending() {
            if begun || global {
                return Ok(Step::End { consumed: at });
            }
            return Err(Fault::rule("nothing at all, not even the end of an archive"));
        }
        let Some(block) = input.block(at) else { return input.need(at + BLOCK) };
        if block == &[0; BLOCK] {
            if extended.is_pending() {
                return Err(Fault::rule("extension header without an entry"));
            }
            return end(input, at);
        }
        *label = extended.label().unwrap_or_else(|| header::label(block));
        let fields = header::parse(block)?;
        match fields.flag {
            b'x' | b'L' | b'K' | b'g' => {
                let is_global = fields.flag == b'g';
                if is_global && (global || extended.is_pending()) {
                    // Go drops what was said before a global header.
                    return Err(Fault::rule(
                        "global header between an extension header and its entry, or twice",
                    ));
                }
                let next = at + BLOCK + extension_length(&fields)?;
                let Some(body) = input.available.get(at + BLOCK..next) else {
                    return input.need(next + BLOCK);
                };
                let body = &body[..body.len() - padding(fields.size) as usize];
                if is_global {
                    check_global(body)?;
                    global = true;
                } else if let Err(fault) = extended.add(fields.flag, body) {
                    *label = extended.label().or_else(|| input.entry_behind(body, next)).unwrap_or(label);
                    return Err(fault);
                }
                at = next;
            }
            _ => {
                let headers = at + BLOCK;
                return match assemble(block, &fields, extended, &input.available[headers..])? {
                    Assembled::Member(member, map) => Ok(Step::Member { member, consumed: headers + map }),
                    Assembled::Need(more) => input.need(headers + more),
                };
            }
        }
    }
}

/// The space that the body of an extension header takes, once it is known to be within bounds.
fn extension_length(fields: &Fields<'_>) -> Result<usize, Fault> {
    if fields.size > MAX_EXTENSION {
        return Err(Fault::limit(format!("bytes of one extension header ({MAX_EXTENSION})")));
    }
    Ok((fields.size + padding(fields.size)) as usize)
}

/// Two blocks of zeros end an archive. One does if nothing follows; if something does, GNU tar stops and
/// others go on.
fn end(input: Input<'_>, at: usize) -> Result<Step, Fault> {
    let second = at + BLOCK;
    if input.ends_at(second) {
        return Ok(Step::End { consumed: second });
    }
    match input.block(second) {
        Some(block) if block == &[0; BLOCK] => Ok(Step::End { consumed: second + BLOCK }),
        Some(_) => Err(Fault::rule("a single block of zeros between entries")),
        None if input.at_end => Err(Fault::rule("archive cut off in its end marker")),
        None => Ok(Step::Need(second + BLOCK)),
    }
}
