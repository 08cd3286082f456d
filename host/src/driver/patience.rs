//! An archive that takes its time: bounds on how long it may give nothing, and how long it may take in all.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use layerbox_privileged::error::Error;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::sandbox::Limits;

/// A stream of which nobody waits for longer than is allowed. What comes after that is a
/// [`limit`](Error::Limit).
#[derive(Debug)]
pub struct Patient<R> {
    stream: R,
    stall_time: Option<Duration>,
    total: Deadline,
}

impl<R: Read + AsFd> Patient<R> {
    /// Waits for `stream`, a descriptor that poll(2) knows to wait for (a file always has something to give),
    /// as long as `limits` allow from now on.
    pub fn new(stream: R, limits: &Limits) -> Patient<R> {
        Patient { stream, stall_time: limits.stall_time, total: Deadline::new(limits) }
    }
}

impl<R: Read + AsFd> Read for Patient<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.total.left()?;
        let wait = match (self.stall_time, left) {
            (None, None) => return self.read_at_last(buffer),
            (stall, left) => stall.into_iter().chain(left).min().unwrap_or_default(),
        };
        let started = Instant::now();
        loop {
            let rest = wait.saturating_sub(started.elapsed());
            // Rounded up: a wait of nothing would be no wait.
            let rest = i32::try_from(rest.as_millis().saturating_add(1)).unwrap_or(i32::MAX);
            let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)], timeout) {
                Ok(0) if started.elapsed() >= wait => {
                    self.total.left()?;
                    return Err(limit("time without a byte of the archive", self.stall_time.unwrap_or(wait)));
                }
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return self.read_at_last(buffer),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<R: Read + AsFd> Patient<R> {
    /// Reads, and waits where whoever handed the stream over has made it non-blocking.
    fn read_at_last(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.stream.as_fd(), PollFlags::POLLIN)?;
                }
                other => return other,
            }
        }
    }
}

/// Waits until a descriptor can be read or written.
pub(super) fn wait(descriptor: BorrowedFd<'_>, how: PollFlags) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(descriptor, how)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            other => return Ok(other.map(drop)?),
        }
    }
}

/// The end of the time that an archive may take in all.
#[derive(Debug, Clone, Copy)]
struct Deadline {
    started: Instant,
    allowed: Option<Duration>,
}

impl Deadline {
    fn new(limits: &Limits) -> Deadline {
        Deadline { started: Instant::now(), allowed: limits.total_time }
    }

    /// What is left of it; an error where that is nothing.
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(allowed) = self.allowed else { return Ok(None) };
        match allowed.checked_sub(self.started.elapsed()) {
            Some(left) => Ok(Some(left)),
            None => Err(limit("time of one archive", allowed)),
        }
    }
}

/// A stream that is looked at only when it gives something: for those that bound their own waiting. See
/// [`Limits::total_time`].
#[derive(Debug)]
pub(super) struct Timed<R> {
    stream: R,
    total: Deadline,
}

impl<R: Read> Timed<R> {
    pub(super) fn new(stream: R, limits: &Limits) -> Timed<R> {
        Timed { stream, total: Deadline::new(limits) }
    }
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.total.left()?;
        self.stream.read(buffer)
    }
}

/// A bound that was reached, in the form that a source passes on as it is.
fn limit(what: &str, time: Duration) -> io::Error {
    io::Error::other(Error::Limit { entry: None, bound: format!("{what} ({} s)", time.as_secs_f64()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_no_longer_than_it_may() {
        let bounded = |stall, total| Limits { stall_time: stall, total_time: total, ..Limits::default() };
        let short = Some(Duration::from_millis(30));
        for (limits, says) in [
            (bounded(short, None), "time without a byte of the archive (0.03 s)"),
            (bounded(None, short), "time of one archive (0.03 s)"),
            (bounded(short, Some(Duration::from_secs(9))), "time without a byte"),
        ] {
            let (reader, _writer) = io::pipe().unwrap();
            let error = Patient::new(reader, &limits).read(&mut [0; 10]).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
    }

    #[test]
    fn passes_on_what_comes_in_time() {
        let limits = Limits { stall_time: Some(Duration::from_secs(9)), ..Limits::default() };
        let (reader, mut writer) = io::pipe().unwrap();
        io::Write::write_all(&mut writer, b"abc").unwrap();
        drop(writer);
        let mut bytes = Vec::new();
        Patient::new(reader, &limits).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
    }

    #[test]
    fn a_stream_that_always_has_something_is_bounded_in_all() {
        let limits = Limits { total_time: Some(Duration::from_millis(20)), ..Limits::default() };
        let mut timed = Timed::new(io::repeat(0), &limits);
        let error = loop {
            if let Err(error) = timed.read(&mut [0; 10]) {
                break error;
            }
        };
        assert!(error.to_string().contains("time of one archive"), "{error}");
    }
}
