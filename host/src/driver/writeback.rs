//! Content is sent to the disk while its archive still comes, so that little is left to wait for at the end.
//!
//! A layer that is reported done must survive a power cut. The kernel begins to write by itself only seconds
//! later, so all of a layer would be written while the caller waits for the answer, after the archive has
//! been read. Instead a thread of its own has it written a stretch at a time, with one syncfs(2) and not an
//! fsync(2) for each file, which takes 20 times as long.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use nix::unistd::syncfs;

use crate::error::Failure;

/// How many bytes of an archive come between two beginnings. Less would commit the file system's journal more
/// often than is good for whoever makes files meanwhile; a layer that is smaller has little to wait for.
const STRETCH: usize = 32 << 20;

/// What the thread is told.
enum Say {
    /// Write what there is by now.
    Write,
    /// There is nothing to do any more.
    End,
}

/// The writing of one layer. Dropped, its thread has ended.
#[derive(Debug)]
pub(super) struct Writeback {
    /// The file system. Opened before anything was written: an error is told to whom had it open then
    /// (syncfs(2), since Linux 5.8; older ones tell of none).
    directory: Arc<OwnedFd>,
    sender: SyncSender<Say>,
    thread: Option<JoinHandle<nix::Result<()>>>,
}

impl Writeback {
    /// Begins it: what is written into the file system of `directory` while the archive that this gives is
    /// read.
    ///
    /// # Errors
    ///
    /// There can be no thread.
    pub(super) fn begin(
        directory: OwnedFd,
        archive: Box<dyn Read + Send>,
    ) -> Result<(Writeback, Noticed), Failure> {
        let directory = Arc::new(directory);
        // One that waits is enough: it writes all there is.
        let (sender, receiver) = sync_channel(1);
        let written = directory.clone();
        let thread = std::thread::Builder::new()
            .name("layer to disk".to_owned())
            .spawn(move || write(&written, &receiver))
            .map_err(|e| Failure::io("clone", &e))?;
        let noticed = Noticed { archive, sender: sender.clone(), come: 0 };
        Ok((Writeback { directory, sender, thread: Some(thread) }, noticed))
    }

    /// Ends it: all that was written is on the disk.
    ///
    /// # Errors
    ///
    /// Those of writing, of before as well.
    pub(super) fn finish(mut self) -> Result<(), Failure> {
        self.join().and_then(|()| syncfs(&*self.directory)).map_err(|e| Failure::io("syncfs", &e.into()))
    }

    fn join(&mut self) -> nix::Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // Where it has ended there is nobody to tell.
        drop(self.sender.send(Say::End));
        // It does nothing that could panic.
        thread.join().unwrap_or(Err(nix::errno::Errno::EIO))
    }
}

impl Drop for Writeback {
    fn drop(&mut self) {
        // The layer failed for a reason of its own.
        let _ = self.join();
    }
}

fn write(directory: &OwnedFd, told: &Receiver<Say>) -> nix::Result<()> {
    while let Ok(Say::Write) = told.recv() {
        syncfs(directory)?;
    }
    Ok(())
}

/// An archive of which it is noticed how far it has come.
pub(super) struct Noticed {
    archive: Box<dyn Read + Send>,
    sender: SyncSender<Say>,
    come: usize,
}

impl Read for Noticed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(buffer)?;
        self.come += count;
        if self.come >= STRETCH {
            self.come = 0;
            // Where it is still busy with what was before, it goes on with this when it is next told.
            drop(self.sender.try_send(Say::Write));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn what_is_read_is_the_archive_and_its_end_is_reached() {
        let directory = || OwnedFd::from(File::open(std::env::temp_dir()).expect("a directory"));
        for length in [0, 10, STRETCH - 1, STRETCH, 3 * STRETCH + 7] {
            let archive = Box::new(io::repeat(7).take(length as u64));
            let (writeback, mut noticed) = Writeback::begin(directory(), archive).expect("a thread");
            assert_eq!(io::copy(&mut noticed, &mut io::sink()).expect("readable"), length as u64);
            // With the archive still there, as with one that failed in the midst.
            if length % 2 == 0 {
                writeback.finish().expect("written");
            }
        }
    }

    #[test]
    fn an_error_of_before_is_one_at_the_end() {
        // A descriptor that only names something cannot be synced (EBADF).
        let path =
            nix::fcntl::open("/", nix::fcntl::OFlag::O_PATH, nix::sys::stat::Mode::empty()).expect("open");
        let (writeback, noticed) = Writeback::begin(path, Box::new(io::empty())).expect("a thread");
        drop(noticed.sender.send(Say::Write));
        assert!(writeback.finish().is_err());
    }
}
