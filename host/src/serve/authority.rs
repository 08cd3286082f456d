//! Lets in gRPC clients that name the path of the socket as the authority of their requests.
//!
//! On a unix socket there is no host to name. Clients of the C core (Python, C++, Ruby, PHP) send `:authority: run%2Flayerbox.sock`, others `/run/layerbox.sock`; those
//! of Go send `localhost`, and its servers take anything. h2 resets a stream whose authority is no host of a URI, and has no option for it (hyperium/h2#487). Here
//! nobody looks at the authority, so each one is replaced by letters on its way to h2.
//!
//! Header fields are packed (HPACK, RFC 7541), and what they unpack to is kept on both sides in a table that forgets by size. So **an authority is replaced by as many
//! octets as it has**: both tables forget the same, and later references to the field find the one that was replaced. A literal that names its field by a reference
//! to the table is left as it is: which field that is, only who keeps the table knows. So is everything else that is not understood, or is longer than a frame; h2
//! judges it as it did before.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame in bytes (section 4.1).
const HEAD: usize = 9;
/// The longest payload of a frame that h2 takes, as it says to the client; a list of header fields it takes up to the same size, so what is longer is refused by it.
const LONGEST: usize = 16_384;
/// The kinds of frames that carry header fields (sections 6.2 and 6.10), and their flags.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The name of the field, as it is and in Huffman's code; and its index in the table that all have from the start (RFC 7541, appendix A).
const NAME: &[u8] = b":authority";
const PACKED_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
const INDEX: usize = 1;
/// What an authority is made of.
const LETTER: u8 = b'a';
/// Bytes that are read from a client at once.
const PIECE: usize = 8192;

/// The connection of a client, read through a [`Filter`].
#[derive(Debug)]
pub struct Filtered {
    stream: UnixStream,
    filter: Filter,
    ready: Vec<u8>,
    taken: usize,
}

impl Filtered {
    /// A connection of which nothing was read yet.
    pub fn new(stream: UnixStream) -> Filtered {
        Filtered { stream, filter: Filter::default(), ready: Vec::new(), taken: 0 }
    }
}

impl AsyncRead for Filtered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.taken == this.ready.len() {
            let mut space = [MaybeUninit::uninit(); PIECE];
            let mut piece = ReadBuf::uninit(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(context, &mut piece))?;
            this.ready.clear();
            this.taken = 0;
            if piece.filled().is_empty() {
                this.filter.end(&mut this.ready);
                break;
            }
            this.filter.push(piece.filled(), &mut this.ready);
        }
        let rest = &this.ready[this.taken..];
        let length = rest.len().min(out.remaining());
        out.put_slice(&rest[..length]);
        this.taken += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Filtered {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Replaces authorities in what a client sends. It holds back what it has not seen the end of: at most the header fields of one request, and those no longer than
/// a frame.
#[derive(Debug, Default)]
struct Filter {
    held: Vec<u8>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    /// The preface comes.
    #[default]
    Preface,
    /// A frame begins.
    Frame,
    /// So many bytes are none of ours.
    Pass(usize),
    /// This is no HTTP/2.
    Off,
}

impl Filter {
    /// Takes what came, and appends to `out` what can go on.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(bytes);
        let mut done = 0;
        while done < self.held.len() {
            let Some(taken) = self.state.step(&self.held[done..], out) else { break };
            done += taken;
        }
        self.held.drain(..done);
    }

    /// No more will come.
    fn end(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }
}

impl State {
    /// Does the next step, and answers how many bytes are done with; none where more must come first.
    fn step(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        match *self {
            State::Preface if bytes.len() < PREFACE.len() && PREFACE.starts_with(bytes) => None,
            State::Preface if bytes.starts_with(PREFACE) => {
                *self = State::Pass(PREFACE.len());
                Some(0)
            }
            State::Preface => {
                *self = State::Off;
                Some(0)
            }
            State::Off => {
                out.extend_from_slice(bytes);
                Some(bytes.len())
            }
            State::Pass(left) => {
                let length = left.min(bytes.len());
                out.extend_from_slice(&bytes[..length]);
                *self = if length < left { State::Pass(left - length) } else { State::Frame };
                Some(length)
            }
            State::Frame => {
                let head = Head::of(bytes)?;
                if let Some(fields) = Fields::of(bytes) {
                    let (fields, length) = fields?;
                    if fields.replaced(out) {
                        return Some(length);
                    }
                }
                // What continues it is no frame of ours either.
                *self = State::Pass(HEAD + head.length);
                Some(0)
            }
        }
    }
}

/// The head of a frame.
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    fn of(bytes: &[u8]) -> Option<Head> {
        let &[a, b, c, kind, flags, d, e, f, g] = bytes.first_chunk::<HEAD>()?;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Some(Head { length, kind, flags, stream: [d, e, f, g] })
    }
}

/// The header fields of a request, put together from the frames that carry them.
struct Fields {
    flags: u8,
    stream: [u8; 4],
    priority: Vec<u8>,
    block: Vec<u8>,
}

impl Fields {
    /// Those at the beginning of `bytes`, and the length of their frames. None where there are none that are understood; `Some(None)` where more must come.
    fn of(bytes: &[u8]) -> Option<Option<(Fields, usize)>> {
        let mut fields: Option<Fields> = None;
        let mut at = 0;
        loop {
            let Some(head) = Head::of(&bytes[at..]) else { return Some(None) };
            let end = at + HEAD + head.length;
            // Nothing comes between the frames of a request (RFC 9113, section 4.3).
            let is_ours = match &fields {
                None => head.kind == HEADERS,
                Some(fields) => head.kind == CONTINUATION && head.stream == fields.stream,
            };
            if !is_ours || end > HEAD + LONGEST {
                return None;
            }
            let Some(payload) = bytes.get(at + HEAD..end) else { return Some(None) };
            let begun = match fields.take() {
                Some(mut fields) => {
                    fields.block.extend_from_slice(payload);
                    fields
                }
                None => Fields::begin(&head, payload)?,
            };
            at = end;
            if head.flags & END_HEADERS != 0 {
                return Some(Some((begun, at)));
            }
            fields = Some(begun);
        }
    }

    /// What a first frame holds.
    fn begin(head: &Head, mut payload: &[u8]) -> Option<Fields> {
        if head.flags & PADDED != 0 {
            let (&padding, rest) = payload.split_first()?;
            payload = rest.get(..rest.len().checked_sub(usize::from(padding))?)?;
        }
        let priority = if head.flags & PRIORITY != 0 { 5 } else { 0 };
        let (priority, block) = payload.split_at_checked(priority)?;
        let flags = head.flags & !PADDED | END_HEADERS;
        Some(Fields { flags, stream: head.stream, priority: priority.to_owned(), block: block.to_owned() })
    }

    /// Appends them to `out`, in one frame, with another authority. False where there is nothing to replace, or it does not fit.
    fn replaced(&self, out: &mut Vec<u8>) -> bool {
        let Some(block) = replace(&self.block) else { return false };
        let length = self.priority.len() + block.len();
        if length > LONGEST {
            return false;
        }
        let [_, a, b, c] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let [d, e, f, g] = self.stream;
        out.extend_from_slice(&[a, b, c, HEADERS, self.flags, d, e, f, g]);
        out.extend_from_slice(&self.priority);
        out.extend_from_slice(&block);
        true
    }
}

/// Replaces the authorities in packed header fields (RFC 7541, section 6). None where there are none, or the fields are not well packed.
fn replace(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    let mut rest = block;
    let mut replaced = false;
    while let Some(&first) = rest.first() {
        let field = rest;
        let bits = match first {
            0x80.. => 7,
            0x40..=0x7f => 6,
            0x20..=0x3f => 5,
            _ => 4,
        };
        let index = integer(&mut rest, bits)?;
        // Others are fields of the table, and changes of its size.
        let is_literal = bits == 6 || bits == 4;
        let mut authority = None;
        if is_literal {
            let is_authority = if index == 0 { string(&mut rest)?.is_name() } else { index == INDEX };
            let before = rest;
            let value = string(&mut rest)?;
            if is_authority && !value.bytes.is_empty() {
                authority = Some((field.len() - before.len(), value.length()?));
            }
        }
        match authority {
            Some((before, length)) => {
                out.extend_from_slice(&field[..before]);
                write_length(&mut out, length);
                out.resize(out.len() + length, LETTER);
                replaced = true;
            }
            None => out.extend_from_slice(&field[..field.len() - rest.len()]),
        }
    }
    replaced.then_some(out)
}

/// A string of a packed field.
struct Text<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

impl Text<'_> {
    fn is_name(&self) -> bool {
        self.bytes == if self.huffman { PACKED_NAME } else { NAME }
    }

    /// How many octets it unpacks to.
    fn length(&self) -> Option<usize> {
        if self.huffman { unpacked_length(self.bytes) } else { Some(self.bytes.len()) }
    }
}

/// Takes a string (section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Text { bytes, huffman })
}

/// Takes an integer that begins in the low `bits` of the first byte (section 5.1). None that is of use here is longer than four bytes.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    let most = (1 << bits) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let (&next, after) = rest.split_first()?;
        *rest = after;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes the length of a string that is not in Huffman's code.
fn write_length(out: &mut Vec<u8>, length: usize) {
    const MOST: usize = 127;
    if length < MOST {
        out.extend(u8::try_from(length));
        return;
    }
    out.push(127);
    let mut rest = length - MOST;
    while rest > 127 {
        out.extend(u8::try_from(rest & 0x7f | 0x80));
        rest >>= 7;
    }
    out.extend(u8::try_from(rest));
}

/// Of how many bits how many codes there are, without that for the end of a string, which no string holds (appendix B). The code is canonical: those of as many bits
/// follow each other, and where those of fewer bits end they begin. So a code is told by these numbers alone.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 3),
];

/// How many octets a string in Huffman's code unpacks to; none where it is not well packed.
fn unpacked_length(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut code, mut bits) = (0, 0, 0);
    for byte in bytes {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            if is_code(code, bits) {
                length += 1;
                (code, bits) = (0, 0);
            } else if bits == 30 {
                return None;
            }
        }
    }
    // What is left of the last byte begins the code of the end, which is ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(length)
}

fn is_code(code: u32, bits: u32) -> bool {
    let (mut first, mut before) = (0, 0);
    for (length, count) in CODES {
        first <<= length - before;
        if length == bits {
            return code < first + count;
        }
        first += count;
        before = length;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In place of a name: it is one of the table.
    const KNOWN: &[u8] = b"known";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte =
            |two: &[u8]| std::str::from_utf8(two).ok().and_then(|two| u8::from_str_radix(two, 16).ok());
        digits.chunks(2).map(|two| byte(two).expect("two digits")).collect()
    }

    /// A literal: its first byte, its name where it has one of its own, and its value.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut field = vec![first];
        for text in [name, value] {
            if text != KNOWN {
                write_length(&mut field, text.len());
                field.extend_from_slice(text);
            }
        }
        field
    }

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short");
        [&length.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 3], payload].concat()
    }

    /// What comes out of a filter when all comes at once, which must be what comes out when it comes byte by byte.
    fn filtered(sent: &[u8]) -> Vec<u8> {
        let (mut whole, mut single) = (Vec::new(), Vec::new());
        let mut filter = Filter::default();
        filter.push(sent, &mut whole);
        filter.end(&mut whole);
        let mut filter = Filter::default();
        for byte in sent {
            filter.push(&[*byte], &mut single);
            // The head of a part that is one too many comes before it is known to be.
            assert!(filter.held.len() <= HEAD + LONGEST + HEAD, "{} bytes are held", filter.held.len());
        }
        filter.end(&mut single);
        assert!(whole == single, "it depends on how the bytes come");
        whole
    }

    #[test]
    fn header_fields() {
        let path = b"run%2Flayerbox.sock";
        let letters = [LETTER; 19];
        let resized = [0x3f, 0xe1, 0x1f];
        let cases = [
            // The examples of RFC 7541, C.3.1 and C.4.1: `www.example.com`.
            (
                "plain",
                bytes("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"),
                Some(bytes("8286 8441 0f61 6161 6161 6161 6161 6161 6161 6161")),
            ),
            (
                "in Huffman's code",
                bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"),
                Some(bytes("8286 8441 0f61 6161 6161 6161 6161 6161 6161 6161")),
            ),
            // A reference to what was kept, and another field (C.3.2).
            ("kept", bytes("8286 84be 5808 6e6f 2d63 6163 6865"), None),
            ("named by the C core", literal(0x40, NAME, path), Some(literal(0x40, NAME, &letters))),
            ("not to be kept", literal(0x01, KNOWN, path), Some(literal(0x01, KNOWN, &letters))),
            ("never to be kept", literal(0x10, NAME, path), Some(literal(0x10, NAME, &letters))),
            (
                "after a change of the table's size",
                [&resized, literal(0x41, KNOWN, path).as_slice()].concat(),
                Some([&resized, literal(0x41, KNOWN, &letters).as_slice()].concat()),
            ),
            (
                "its name in Huffman's code",
                [&[0x40, 0x88], PACKED_NAME, &[2, b'/', b'a']].concat(),
                Some([&[0x40, 0x88], PACKED_NAME, &[2, LETTER, LETTER]].concat()),
            ),
            ("long", literal(0x41, KNOWN, &[b'/'; 5000]), Some(literal(0x41, KNOWN, &[LETTER; 5000]))),
            ("empty", literal(0x41, KNOWN, b""), None),
            ("another name", literal(0x40, b":authoritx", path), None),
            ("a name that was kept", literal(0x7e, KNOWN, path), None),
            ("cut short", literal(0x41, KNOWN, path)[..12].to_vec(), None),
            ("not well packed", bytes("4181 00"), None),
            ("a number without end", bytes("417f ffff ffff ffff"), None),
        ];
        for (what, sent, expected) in cases {
            assert_eq!(replace(&sent), expected, "{what}");
        }
    }

    #[test]
    fn frames() {
        let (before, after) = (literal(0x41, KNOWN, b"/run/x.sock"), literal(0x41, KNOWN, &[LETTER; 11]));
        let settings = frame(4, 0, &[0, 4, 0, 1, 0, 0]);
        let data = frame(0, 1, &before);
        let whole = frame(HEADERS, 0x5, &after);
        let padded = [&[3], before.as_slice(), &[0; 3]].concat();
        let urgent = [0, 0, 0, 0, 9];
        let parts = [
            frame(HEADERS, 0x1, &before[..3]),
            frame(CONTINUATION, 0, &[]),
            frame(CONTINUATION, 0x4, &before[3..]),
        ];
        for (what, sent, expected) in [
            ("one", frame(HEADERS, 0x5, &before), whole.clone()),
            ("padding", frame(HEADERS, 0xd, &padded), whole.clone()),
            (
                "priority",
                frame(HEADERS, 0x25, &[&urgent, before.as_slice()].concat()),
                frame(HEADERS, 0x25, &[&urgent, after.as_slice()].concat()),
            ),
            ("in parts", parts.concat(), whole.clone()),
            ("no fields", data.clone(), data.clone()),
            ("nothing to replace", frame(HEADERS, 0xd, &[0]), frame(HEADERS, 0xd, &[0])),
            ("more padding than there is", frame(HEADERS, 0xd, &[9, 1]), frame(HEADERS, 0xd, &[9, 1])),
        ] {
            let around = |middle: &[u8]| [PREFACE, &settings, middle, &data, &whole].concat();
            assert!(filtered(&around(&sent)) == around(&expected), "{what}");
        }
        let begun = [PREFACE, &frame(HEADERS, 0x1, &before)].concat();
        let longest = frame(CONTINUATION, 0x4, &[0x82; LONGEST]);
        for (what, unchanged) in [
            ("no HTTP/2", [b"GET / HTTP/1.1\r\n", whole.as_slice()].concat()),
            ("half a preface", PREFACE[..9].to_vec()),
            ("half a frame", begun[..begun.len() - 1].to_vec()),
            (
                "something between the parts",
                [&begun, &data, &frame(CONTINUATION, 0x4, &[])].map(|part| part.as_slice()).concat(),
            ),
            ("longer than a frame", [&begun, &longest, &data].map(|part| part.as_slice()).concat()),
            ("parts without end", [begun.clone(), frame(CONTINUATION, 0, &[]).repeat(5000)].concat()),
        ] {
            assert!(filtered(&unchanged) == unchanged, "{what}");
        }
    }

    /// The examples of RFC 7541, C.4 and C.6; and no bits are left over but those of the end.
    #[test]
    fn strings_in_huffmans_code() {
        for (string, packed) in [
            ("no-cache", "a8eb 1064 9cbf"),
            ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
            ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
            (":authority", "b83b 5339 ec32 7d7f"),
            ("", ""),
        ] {
            assert_eq!(unpacked_length(&bytes(packed)), Some(string.len()), "{string}");
        }
        for not_well_packed in ["ff", "ffff ffff", "00", "07ff"] {
            assert_eq!(unpacked_length(&bytes(not_well_packed)), None, "{not_well_packed}");
        }
        let used: u32 = CODES.iter().map(|(bits, count)| count << (30 - bits)).sum();
        assert_eq!(used, (1 << 30) - 1);
    }
}
