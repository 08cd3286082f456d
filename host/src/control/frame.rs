//! Frames: a length of four bytes, the most significant first, and so many bytes of JSON. A descriptor comes
//! with the first byte of its frame.
//!
//! A frame that is longer than [`LONGEST`], that is no JSON of its kind, or that brings more descriptors than
//! there is room for is an error, after which nothing on the connection can be understood.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest frame in bytes. Answers that can be longer go in parts.
pub(super) const LONGEST: usize = 16 << 20;

/// The bytes of a frame's length.
const HEAD: usize = 4;

/// A frame as it came.
#[derive(Debug)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    /// The descriptor that came with it.
    pub(super) descriptor: Option<OwnedFd>,
}

impl Frame {
    /// What it says.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::InvalidData`] where it is not of this kind.
    pub(super) fn message<T: DeserializeOwned>(&self) -> io::Result<T> {
        serde_json::from_slice(&self.bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - HEAD;
    let head = u32::try_from(length).ok().filter(|_| length <= LONGEST).ok_or(io::ErrorKind::InvalidData)?;
    bytes[..HEAD].copy_from_slice(&head.to_be_bytes());
    Ok(bytes)
}

/// Sends a message, and a descriptor with it.
///
/// # Errors
///
/// Those of sendmsg(2).
pub(super) fn send(
    stream: &UnixStream,
    message: &impl Serialize,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let bytes = encode(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = descriptor.into_iter().collect();
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = loop {
        match rustix::net::sendmsg(stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    (&mut &*stream).write_all(&bytes[sent..])
}

/// Sends a short message if that can be done at once, and else does not: it is one that will be followed by a
/// newer one.
///
/// # Errors
///
/// Those of send(2), [`io::ErrorKind::WouldBlock`] excepted.
pub(super) fn send_if_ready(stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let bytes = encode(message)?;
    match rustix::net::send(stream, &bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
        Ok(sent) => (&mut &*stream).write_all(&bytes[sent..]),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Receives a frame; none where the other side has ended the connection after the one before.
///
/// # Errors
///
/// Those of recvmsg(2); [`io::ErrorKind::InvalidData`] for what is no frame.
pub(super) fn receive(stream: &UnixStream) -> io::Result<Option<Frame>> {
    let mut head = [0; HEAD];
    let mut descriptors = Vec::new();
    let mut filled = 0;
    while filled < HEAD {
        match receive_some(stream, &mut head[filled..], &mut descriptors)? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => filled += count,
        }
    }
    let length = u32::from_be_bytes(head) as usize;
    if length > LONGEST || descriptors.len() > 1 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Memory is taken as the bytes come, not as they are promised. A descriptor that comes with them is
    // closed by the kernel.
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes)?;
    if bytes.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(Frame { bytes, descriptor: descriptors.pop() }))
}

fn receive_some(stream: &UnixStream, buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(buffer)];
    let received = loop {
        match rustix::net::recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(passed) = message {
            descriptors.extend(passed);
        }
    }
    // The kernel has closed those that there was no room for.
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(received.bytes)
}
