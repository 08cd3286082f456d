//! Brings what is written to the disk while more is written.
//!
//! Without it the disk would idle while an archive is unpacked, and the call wait for all of it at the end. It is no promise: what must be on the disk is synced once
//! more when all is written.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};

use crate::error::Failure;

/// How long after one round the next begins: short beside the time that an archive takes for which it matters.
const PAUSE: Duration = Duration::from_millis(100);

/// A thread that syncs a file system, until this is dropped and its last round is over.
#[derive(Debug)]
pub(super) struct Flusher {
    _alive: Sender<()>,
}

impl Flusher {
    /// Syncs the file system that a directory lies on.
    pub(super) fn start(directory: &OwnedFd) -> Result<Flusher, Failure> {
        // Opened anew: an error is told once for each open file, and the other one is who must hear of it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory =
            openat(directory, ".", flags, Mode::empty()).map_err(|e| Failure::io("open", &e.into()))?;
        let (alive, waiting) = channel::<()>();
        let flush = move || {
            while waiting.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let _ = nix::unistd::syncfs(&directory);
            }
        };
        Builder::new().name("flusher".to_owned()).spawn(flush).map_err(|e| Failure::io("clone", &e))?;
        Ok(Flusher { _alive: alive })
    }
}
