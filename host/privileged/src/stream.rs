//! The two byte streams of a call: the archive that comes in and the archive that goes out.
//!
//! The sandbox sees of a [`Source`] what it reads in order to parse it, and tells the host by position where
//! a body begins; the body itself goes from the stream to the file without entering the sandbox. A [`Sink`]
//! is the same the other way round.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::{Deref, Range};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{cmp, fmt};

use rustix::io::Errno;

use crate::Error;

/// The size of a piece in bytes: large enough that a system call's cost vanishes, small enough for the
/// processor's cache.
pub(crate) const PIECE: usize = 256 * 1024;
/// The most bytes that one [`Source::read`] answers.
const LONGEST_READ: usize = 1024 * 1024;
/// Up to this size a file is read into the buffer of a sink; the kernel's own copying pays only beyond.
const SMALL: u64 = 64 * 1024;
/// What fails when the far end of a sink does. Files of a layer are read and archives of others written in
/// the same call, and an error says no more than this.
const WRITE: &str = "write the archive";
/// How many buffers are kept to be used again.
const SPARE: usize = 16;

/// A cheap share of bytes that were read.
#[derive(Clone, Default)]
pub struct Chunk {
    buffer: Arc<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Chunk {
    /// A part of it. The range must lie inside.
    fn slice(&self, range: Range<usize>) -> Self {
        Self {
            buffer: Arc::clone(&self.buffer),
            start: self.start + range.start,
            end: self.start + range.end,
        }
    }

    /// The bytes, to be shared with others; copied only where they do not fill the buffer that they came in.
    pub fn into_shared(self) -> Arc<Vec<u8>> {
        if self.len() == self.buffer.len() { self.buffer } else { Arc::new(self.to_vec()) }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(bytes: Vec<u8>) -> Self {
        Self { start: 0, end: bytes.len(), buffer: Arc::new(bytes) }
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len())
    }
}

/// The archive that comes in. Positions are bytes from its beginning.
pub struct Source {
    reader: Box<dyn Read + Send>,
    /// What the latest read answered; it ends at `position`.
    window: Chunk,
    position: u64,
    /// Buffers that were handed out, to be used again once nobody holds them.
    spare: Vec<Arc<Vec<u8>>>,
    waited: Duration,
}

impl Source {
    /// A source that reads from the beginning of `reader`. An [`Error`] wrapped in an `io::Error` is passed
    /// on as it is.
    pub fn new(reader: Box<dyn Read + Send>) -> Self {
        Self { reader, window: Chunk::default(), position: 0, spare: Vec::new(), waited: Duration::ZERO }
    }

    /// The next bytes: at least one and at most `max` (clamped to 1 MiB), or none at the end. They become the
    /// window.
    ///
    /// # Errors
    /// [`Error::Io`] when the stream breaks.
    pub fn read(&mut self, max: u32) -> Result<Chunk, Error> {
        self.window = Chunk::default();
        self.window = self.fetch((max as usize).clamp(1, LONGEST_READ), false)?;
        Ok(self.window.clone())
    }

    /// Delivers `length` bytes from `position` on, in chunks. What goes past the window is taken from the
    /// stream in pieces of 256 KiB, and then the window is empty and lies behind it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a position that lies neither in the window nor at its end,
    /// [`Error::Refused`] when the stream ends early, [`Error::Io`] when it breaks, and what `deliver`
    /// answers.
    pub fn take(
        &mut self,
        position: u64,
        length: u64,
        mut deliver: impl FnMut(Chunk) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let start = self.position - self.window.len() as u64;
        if position < start || position > self.position {
            return Err(Error::InvalidArgument(format!(
                "position {position} of the source is not in its window ({start} to {})",
                self.position
            )));
        }
        let offset = (position - start) as usize;
        let here = cmp::min(length, (self.window.len() - offset) as u64);
        if here > 0 {
            deliver(self.window.slice(offset..offset + here as usize))?;
        }
        let mut rest = length - here;
        while rest > 0 {
            self.window = Chunk::default();
            let wanted = cmp::min(rest, PIECE as u64);
            let chunk = self.fetch(wanted as usize, true)?;
            if (chunk.len() as u64) < wanted {
                return Err(Error::Refused { entry: Vec::new(), rule: "archive is cut short".into() });
            }
            rest -= wanted;
            deliver(chunk)?;
        }
        Ok(())
    }

    /// How many bytes were read from the stream so far.
    pub fn bytes_read(&self) -> u64 {
        self.position
    }

    /// How long the stream was read from and waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Reads once, or until there are `length` bytes or the stream ends.
    fn fetch(&mut self, length: usize, whole: bool) -> Result<Chunk, Error> {
        let free = self.spare.iter().position(|buffer| Arc::strong_count(buffer) == 1);
        let mut buffer = free.map(|index| self.spare.swap_remove(index)).unwrap_or_default();
        // Nobody else holds it, so this copies nothing.
        let bytes = Arc::make_mut(&mut buffer);
        if bytes.len() < length {
            bytes.resize(cmp::max(length, PIECE), 0);
        }
        let mut end = 0;
        while end < length {
            let began = Instant::now();
            let read = self.reader.read(&mut bytes[end..length]);
            self.waited += began.elapsed();
            match read {
                Ok(0) => break,
                Ok(count) => end += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read")(error)),
            }
            if !whole {
                break;
            }
        }
        self.position += end as u64;
        if self.spare.len() < SPARE {
            self.spare.push(Arc::clone(&buffer));
        }
        Ok(Chunk { buffer, start: 0, end })
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("position", &self.position)
            .field("window", &self.window)
            .finish_non_exhaustive()
    }
}

/// The far end of a sink.
enum Far {
    Writer(Box<dyn Write + Send>),
    /// A descriptor, whether sendfile(2) may be tried on it (it does not write to files opened to append),
    /// and what is asked before each operation.
    Descriptor(File, bool, Option<Ready>),
}

/// Waits until a descriptor takes bytes; an error says that nothing shall be written to it any more.
pub type Ready = Box<dyn FnMut() -> io::Result<()> + Send>;

/// How many bytes go to a descriptor in one operation where there is something to ask between them.
const STRETCH: u64 = 16 << 20;

impl Far {
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self {
            Self::Writer(writer) => writer.write_all(bytes),
            Self::Descriptor(file, _, None) => file.write_all(bytes),
            Self::Descriptor(file, _, Some(ready)) => write_when_ready(file, ready, bytes),
        }
        .map_err(Error::io(WRITE))
    }
}

/// Writes all the bytes, and adds to `waited` how long that took.
fn write_far(far: &mut Far, bytes: &[u8], waited: &mut Duration) -> Result<(), Error> {
    let began = Instant::now();
    let written = far.write_all(bytes);
    *waited += began.elapsed();
    written
}

/// Writes all the bytes, and asks before each operation.
fn write_when_ready(file: &mut File, ready: &mut Ready, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        ready()?;
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The archive that goes out. It is written by way of a buffer, which only [`Sink::flush`] is sure to empty.
pub struct Sink {
    far: Far,
    buffer: Vec<u8>,
    used: usize,
    written: u64,
    waited: Duration,
}

impl Sink {
    /// A sink that writes to `writer`.
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { far: Far::Writer(writer), buffer: vec![0; PIECE], used: 0, written: 0, waited: Duration::ZERO }
    }

    /// A sink that writes to a descriptor (blocking), and lets the kernel copy large files to it.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { far: Far::Descriptor(File::from(fd), true, None), ..Self::new(Box::new(std::io::sink())) }
    }

    /// As [`Sink::from_fd`], for a descriptor that may be non-blocking: `ready` is asked before each
    /// operation on it.
    pub fn watched(fd: OwnedFd, ready: Ready) -> Self {
        Self {
            far: Far::Descriptor(File::from(fd), true, Some(ready)),
            ..Self::new(Box::new(std::io::sink()))
        }
    }

    /// Writes all the bytes, to the buffer at least.
    ///
    /// # Errors
    /// [`Error::Io`] when the far end breaks.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if bytes.len() > self.buffer.len() - self.used {
            self.empty()?;
        }
        if bytes.len() >= self.buffer.len() {
            write_far(&mut self.far, bytes, &mut self.waited)?;
        } else {
            self.buffer[self.used..self.used + bytes.len()].copy_from_slice(bytes);
            self.used += bytes.len();
        }
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Sends the next `length` bytes of a file, or all that are left where it is shorter; answers how many.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read or the far end breaks.
    pub fn send_file(&mut self, file: &File, length: u64) -> Result<u64, Error> {
        let (waited, began) = (self.waited, Instant::now());
        let sent = self.copy(file, length);
        self.waited = waited + began.elapsed();
        sent
    }

    fn copy(&mut self, file: &File, length: u64) -> Result<u64, Error> {
        let mut rest = length;
        if length > SMALL && matches!(self.far, Far::Descriptor(_, true, _)) {
            self.empty()?;
        }
        while length > SMALL
            && rest > 0
            && let Far::Descriptor(far, kernel @ true, ready) = &mut self.far
        {
            let stretch = if ready.is_some() { STRETCH } else { 1 << 30 };
            if let Some(ready) = ready {
                ready().map_err(Error::io(WRITE))?;
            }
            match rustix::fs::sendfile(&*far, file, None, cmp::min(rest, stretch) as usize) {
                Ok(0) => return Ok(length - rest),
                Ok(count) => (rest, self.written) = (rest - count as u64, self.written + count as u64),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if ready.is_some() => {}
                Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => *kernel = false,
                // It may be either end.
                Err(Errno::IO) => return Err(Error::io("sendfile")(Errno::IO)),
                Err(error) => return Err(Error::io(WRITE)(error)),
            }
        }
        while rest > 0 {
            if self.used == self.buffer.len() {
                self.empty()?;
            }
            let end = cmp::min(self.buffer.len() as u64, self.used as u64 + rest) as usize;
            match (&mut &*file).read(&mut self.buffer[self.used..end]) {
                Ok(0) => break,
                Ok(count) => {
                    self.used += count;
                    (rest, self.written) = (rest - count as u64, self.written + count as u64);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read")(error)),
            }
        }
        Ok(length - rest)
    }

    /// Hands over what is still in the buffer.
    ///
    /// # Errors
    /// [`Error::Io`] when the far end breaks.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.empty()?;
        match &mut self.far {
            Far::Writer(writer) => writer.flush().map_err(Error::io(WRITE)),
            Far::Descriptor(..) => Ok(()),
        }
    }

    /// How many bytes were written to it, those in the buffer counted.
    pub fn bytes_written(&self) -> u64 {
        self.written
    }

    /// How long bytes were written to the far end, files read for it, and somebody there waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Empties the buffer.
    fn empty(&mut self) -> Result<(), Error> {
        let used = std::mem::take(&mut self.used);
        write_far(&mut self.far, &self.buffer[..used], &mut self.waited)
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("written", &self.written).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
