//! Lets in gRPC clients that name the path of the socket as the authority of their requests.
//!
//! On a unix socket there is no host to name. Clients of the C core (Python, C++, Ruby, PHP) send
//! `:authority: run%2Flayerbox.sock`, others `/run/layerbox.sock`; those of Go send `localhost`, and its
//! servers take anything. h2 resets a stream whose authority is no host of a URI, and has no option for it
//! (hyperium/h2#487). Here nobody looks at the authority, so each one is replaced by letters on its way to
//! h2.
//!
//! Each is replaced by as many octets as it has ([`fields`]). What is not understood, or is longer than a
//! frame, is left as it is; h2 judges it as it did before.

mod fields;

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use fields::replace;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The head of a frame in bytes (section 4.1).
const HEAD: usize = 9;
/// The longest payload of a frame that h2 takes, as it says to the client; a list of header fields it takes
/// up to the same size, so what is longer is refused by it.
const LONGEST: usize = 16_384;
/// The kinds of frames that carry header fields (sections 6.2 and 6.10), and their flags.
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

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

/// Replaces authorities in what a client sends. It holds back what it has not seen the end of: at most the
/// header fields of one request, and those no longer than a frame.
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
    /// Those at the beginning of `bytes`, and the length of their frames. None where there are none that are
    /// understood; `Some(None)` where more must come.
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

    /// Appends them to `out`, in one frame, with another authority. False where there is nothing to replace,
    /// or it does not fit.
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

#[cfg(test)]
mod tests {
    use super::fields::LETTER;
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short");
        [&length.to_be_bytes()[1..], &[kind, flags, 0, 0, 0, 3], payload].concat()
    }

    /// What comes out of a filter when all comes at once, which must be what comes out when it comes byte by
    /// byte.
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
    fn frames() {
        // A literal of the field that the table has from the start, and its length.
        let authority = |value: &[u8; 11]| [&[0x41, 11], value.as_slice()].concat();
        let (before, after) = (authority(b"/run/x.sock"), authority(&[LETTER; 11]));
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
}
