//! Clients that name the path of the socket as the authority of their requests. The libraries of the suite
//! cannot, so the frames are written by hand.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::snapshotter::{Snapshotter, serve};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("snapshots: clients that name the socket as the authority are answered", answered)
            .needs(Need::Filesystem("overlay")),
    ]
}

/// Authorities, packed as literals (RFC 7541, section 5.2): plain, and in Huffman's code.
const AUTHORITIES: [(&str, &[u8]); 5] = [
    ("Go's", b"\x09localhost"),
    ("the C core's", b"\x13run%2Flayerbox.sock"),
    ("Java's", b"\x12/run/layerbox.sock"),
    ("the C core's, packed", b"\x8e\xb2\xda\x95\x16\x1a\x07\xe8\xb6\x46\x7f\x2b\xa0\xe4\xeb"),
    ("Java's, packed", b"\x8e\x62\xcb\x6a\x62\x81\xfa\x2d\x91\x9f\xca\xe8\x39\x3a\xff"),
];

/// How an authority is said, and then said again: the C core names the field itself, others by its index in
/// the static table; of what is kept, the index is sent from then on.
const FORMS: [(&str, &[u8], bool); 3] =
    [("named and kept", b"\x40\x0a:authority", true), ("kept", b"\x41", true), ("not kept", b"\x01", false)];

fn answered(place: &Place) -> Result<()> {
    let service = serve(place)?;
    let name = "a-name-to-be-found";
    // In no namespace, and of a snapshotter without a name.
    Snapshotter::connect(place)?.beside("", None)?.prepare(name, "")?;
    for (form, field, kept) in FORMS {
        for (whose, value) in AUTHORITIES {
            calls(place, name, &[field, value].concat(), kept)
                .with_context(|| format!("{whose}, {form}"))
                .with_context(|| service.log().unwrap_or_default())?;
        }
    }
    Ok(())
}

/// Three calls on one connection.
fn calls(place: &Place, name: &str, authority: &[u8], kept: bool) -> Result<()> {
    let mut stream = UnixStream::connect(place.join("containerd.sock"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    send(&mut stream, 4, 0, 0, b"")?;
    // `:method: POST` and `:scheme: http` are in the static table. What is kept is counted from the last one:
    // `te`, `content-type`, and behind them what came before.
    let path = "/containerd.services.snapshots.v1.Snapshots/Stat";
    let path = [b"\x40\x05:path".as_slice(), &[u8::try_from(path.len())?], path.as_bytes()].concat();
    let rest = b"\x40\x0ccontent-type\x10application/grpc\x40\x02te\x08trailers";
    let first = [b"\x83\x86", path.as_slice(), authority, rest].concat();
    let again = match kept {
        true => b"\x83\x86\xc1\xc0\xbf\xbe".to_vec(),
        false => [b"\x83\x86\xc0", authority, b"\xbf\xbe"].concat(),
    };
    let key = [&[0x12, u8::try_from(name.len())?], name.as_bytes()].concat();
    let message = [&[0, 0, 0, 0, u8::try_from(key.len())?], key.as_slice()].concat();
    for (number, fields) in [(1, &first), (3, &again), (5, &again)] {
        send(&mut stream, 1, 0x4, number, fields)?;
        send(&mut stream, 0, 0x1, number, &message)?;
        let mut body = Vec::new();
        loop {
            let (kind, flags, of, payload) = receive(&mut stream)?;
            ensure!(kind != 3, "call {number} is reset: {payload:?}");
            ensure!(kind != 7, "the connection is ended: {payload:?}");
            if kind == 0 {
                body.extend(payload);
            }
            if of == number && flags & 0x1 != 0 && kind < 2 {
                break;
            }
        }
        let is_named = body.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        ensure!(is_named, "call {number} is answered with {body:?}");
    }
    Ok(())
}

fn send(stream: &mut UnixStream, kind: u8, flags: u8, number: u8, payload: &[u8]) -> Result<()> {
    let length = u32::try_from(payload.len())?.to_be_bytes();
    stream.write_all(&[&length[1..], &[kind, flags, 0, 0, 0, number], payload].concat())?;
    Ok(())
}

/// A frame: its kind, its flags, the last byte of its stream's number, and its payload.
fn receive(stream: &mut UnixStream) -> Result<(u8, u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload)?;
    Ok((head[3], head[4], head[8], payload))
}
