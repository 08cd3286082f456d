//! The archives of a call, in the service: descriptors of the command line, which the service reads and
//! writes itself for as long as the command line is there.
//!
//! A descriptor from outside can block for as long as whoever has its other end likes. Nothing here waits for
//! it alone: every wait is also for the end of the connection, and then the operation is an error, which ends
//! the call.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use layerbox_privileged::stream::Sink;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::frame;
use super::protocol::Reply;
use crate::driver::Progress;
use crate::error::Failure;

/// How often the command line is told how far its archive was read.
const TELLING: Duration = Duration::from_millis(100);

/// The command line at the other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Caller(pub(super) Arc<UnixStream>);

impl Caller {
    /// Waits until a descriptor is ready.
    ///
    /// # Errors
    ///
    /// `ECONNABORTED` when the connection has ended; those of poll(2).
    pub(super) fn wait(&self, descriptor: BorrowedFd<'_>, events: PollFlags) -> io::Result<()> {
        loop {
            let mut both =
                [PollFd::new(&self.0, PollFlags::RDHUP), PollFd::from_borrowed_fd(descriptor, events)];
            match poll(&mut both, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if !both[0].revents().is_empty() {
                return Err(Errno::CONNABORTED.into());
            }
            if !both[1].revents().is_empty() {
                return Ok(());
            }
        }
    }
}

/// An archive that is read.
#[derive(Debug)]
pub(super) struct Input {
    file: File,
    caller: Caller,
    read: Arc<AtomicU64>,
    telling: Option<(Arc<Progress>, Instant)>,
}

impl Input {
    /// Reads from a descriptor of the caller, and counts the bytes in `read`; with `progress`, tells the
    /// caller how far it is.
    ///
    /// # Errors
    ///
    /// Those of [`stream`].
    pub(super) fn new(
        descriptor: OwnedFd,
        caller: Caller,
        read: Arc<AtomicU64>,
        progress: Option<Arc<Progress>>,
    ) -> Result<Input, Failure> {
        let (file, _) = stream(descriptor)?;
        Ok(Input { file, caller, read, telling: progress.map(|progress| (progress, Instant::now())) })
    }

    fn tell(&mut self) -> io::Result<()> {
        let Some((progress, told)) = &mut self.telling else { return Ok(()) };
        if told.elapsed() < TELLING {
            return Ok(());
        }
        *told = Instant::now();
        let entries = progress.entries.load(Ordering::Relaxed);
        frame::send_if_ready(
            &self.caller.0,
            &Reply::Reading { entries, bytes: self.read.load(Ordering::Relaxed) },
        )
    }
}

impl AsFd for Input {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.tell()?;
        loop {
            self.caller.wait(self.file.as_fd(), PollFlags::IN)?;
            match self.file.read(buffer) {
                Ok(count) => {
                    self.read.fetch_add(count as u64, Ordering::Relaxed);
                    return Ok(count);
                }
                // Somebody else reads from the same pipe, or the command line's own end is non-blocking.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The sink that writes to a descriptor of the caller.
///
/// # Errors
///
/// Those of [`stream`].
pub(super) fn output(descriptor: OwnedFd, caller: Caller) -> Result<Sink, Failure> {
    let (file, kind) = stream(descriptor)?;
    if kind.is_socket() {
        return Ok(Sink::new(Box::new(Socket { file, caller })));
    }
    // A write to a pipe that has room for a part of it waits for the rest, unless the pipe is non-blocking.
    // That is a property of an open file which the command line shares with others, so the service opens the
    // pipe once more for itself.
    let own = if kind.is_fifo() {
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        std::fs::OpenOptions::new().write(true).custom_flags(flags.bits()).open(path).unwrap_or(file)
    } else {
        file
    };
    let polled = own.try_clone().map_err(|error| Failure::io("duplicate a descriptor", &error))?;
    let ready = move || caller.wait(polled.as_fd(), PollFlags::OUT);
    Ok(Sink::watched(own.into(), Box::new(ready)))
}

/// A socket that is written to. It, too, is shared, but each operation on it can say that it must not block.
struct Socket {
    file: File,
    caller: Caller,
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let flags = rustix::net::SendFlags::NOSIGNAL | rustix::net::SendFlags::DONTWAIT;
        loop {
            self.caller.wait(self.file.as_fd(), PollFlags::OUT)?;
            match rustix::net::send(&self.file, bytes, flags) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A descriptor as something that bytes flow through.
///
/// # Errors
///
/// [`Failure::InvalidArgument`] for anything else.
fn stream(descriptor: OwnedFd) -> Result<(File, std::fs::FileType), Failure> {
    let file = File::from(descriptor);
    let kind = file.metadata().map_err(|error| Failure::io("stat", &error))?.file_type();
    if kind.is_dir() || kind.is_symlink() {
        return Err(Failure::InvalidArgument("an archive is a file, a pipe or a socket".to_owned()));
    }
    Ok((file, kind))
}
