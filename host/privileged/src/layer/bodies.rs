//! Bodies on their way to their files: a queue, and a second thread that works it off.
//!
//! Whatever changes names stays with the caller; what is left of a regular file once it is open (its bytes,
//! owner, mode, extended attributes and time) needs no name, and is half of the work. A file is closed by the
//! worker when the last job for it is done.

use std::collections::VecDeque;
use std::fs::File;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{cmp, fmt};

use super::attributes::{Made, settle_file};
use crate::stream::{Chunk, PIECE};
use crate::{Attributes, Error, Name};

/// The most jobs that the worker is given (each may hold a descriptor and a window of a source), and the most
/// bytes.
const MOST_JOBS: usize = 256;
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// How many jobs gather before they are handed over: waking the worker costs as much as some of them.
const BATCH: usize = 64;
/// Holes are made of whole blocks of this size, the usual one of file systems.
const BLOCK: usize = 4096;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file that was created and is being filled.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) file: File,
    pub(super) name: Name,
    pub(super) size: u64,
    pub(super) made: Made,
    /// The end of what was written.
    pub(super) reached: AtomicU64,
}

/// A step in the filling of a file.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) target: Arc<Target>,
    pub(super) data: Option<Data>,
    /// The attributes, with the last step.
    pub(super) last: Option<Attributes>,
}

/// Bytes to write.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) offset: u64,
    pub(super) bytes: Chunk,
    /// Whether blocks of zeros may be left out: nothing was written there before, and the file is large
    /// enough for it to pay.
    pub(super) sparse: bool,
}

/// Jobs that are handed over together: the lock is taken, and the worker woken, once for all of them.
#[derive(Debug, Default)]
struct Batch {
    jobs: Vec<Job>,
    bytes: usize,
}

/// The queue, and its worker once there is one.
pub(super) struct Bodies {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
    /// Whether there is a processor for a worker.
    parallel: bool,
    /// What gathers here.
    batch: Batch,
    waited: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// The first error; what came after it is dropped. It is set with the state locked, and read without.
    error: OnceLock<Error>,
    /// There is work, or none will come any more.
    work: Condvar,
    /// There is room, or all is done.
    room: Condvar,
}

#[derive(Default)]
struct State {
    batches: VecDeque<Batch>,
    /// How many jobs and bytes are with the worker, that on which it works among them.
    jobs: usize,
    bytes: usize,
    /// How many files got another time than theirs.
    clamped: u64,
    closed: bool,
    /// Who sleeps: nobody is woken (a system call) who does not.
    worker_sleeps: bool,
    caller_sleeps: bool,
}

impl Bodies {
    pub(super) fn new() -> Self {
        let parallel = thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
        Self {
            shared: Arc::default(),
            worker: None,
            parallel,
            batch: Batch::default(),
            waited: Duration::ZERO,
        }
    }

    /// The first error of work that was handed over.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.shared.error.get().cloned().map_or(Ok(()), Err)
    }

    /// Hands over a job, with others; waits while there are too many.
    pub(super) fn push(&mut self, job: Job) -> Result<(), Error> {
        self.check()?;
        self.batch.bytes += job.weight();
        self.batch.jobs.push(job);
        if self.batch.jobs.len() < BATCH && self.batch.bytes < PIECE {
            return Ok(());
        }
        if !self.parallel {
            return self.drain();
        }
        if self.worker.is_none() {
            let shared = Arc::clone(&self.shared);
            let worker = thread::Builder::new().name("layer bodies".into()).spawn(move || shared.work_off());
            self.worker = Some(worker.map_err(Error::io("clone"))?);
        }
        self.hand_over();
        self.check()
    }

    fn hand_over(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        let mut state = self.shared.lock();
        // After an error there is nothing with the worker.
        let is_full = |state: &State| state.jobs >= MOST_JOBS || state.bytes >= MOST_BYTES;
        if is_full(&state) {
            let began = Instant::now();
            while is_full(&state) {
                state = self.shared.wait_for_room(state);
            }
            self.waited += began.elapsed();
        }
        if self.shared.error.get().is_none() && !batch.jobs.is_empty() {
            state.jobs += batch.jobs.len();
            state.bytes += batch.bytes;
            state.batches.push_back(batch);
            drop(self.shared.wake(state));
        }
    }

    /// Waits until all that was pushed is done.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        let (waited, began) = (self.waited, Instant::now());
        if self.worker.is_none() {
            let batch = std::mem::take(&mut self.batch);
            let done = batch.run();
            self.shared.done(&mut self.shared.lock(), done);
        } else {
            self.hand_over();
            let mut state = self.shared.lock();
            while state.jobs > 0 {
                state = self.shared.wait_for_room(state);
            }
        }
        self.waited = waited + began.elapsed();
        self.check()
    }

    /// How many files have another time than the one that was put, once all is done.
    pub(super) fn clamped(&self) -> u64 {
        self.shared.lock().clamped
    }

    /// How long the work of the queue was waited for, or done here.
    pub(super) fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Bodies {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.batches.clear();
        drop(self.shared.wake(state));
        if let Some(worker) = self.worker.take() {
            // It catches its own panics, so there is nothing to be told.
            let _ = worker.join();
        }
    }
}

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bodies").field("worker", &self.worker.is_some()).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the worker where it sleeps.
    fn wake<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if std::mem::take(&mut state.worker_sleeps) {
            self.work.notify_one();
        }
        state
    }

    /// Sleeps until the worker has taken jobs off.
    fn wait_for_room<'a>(&self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        state.caller_sleeps = true;
        let state = self.wake(state);
        self.room.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// What the worker does.
    fn work_off(&self) {
        let mut state = self.lock();
        loop {
            if let Some(batch) = state.batches.pop_front() {
                drop(state);
                let (jobs, bytes) = (batch.jobs.len(), batch.bytes);
                let done = std::panic::catch_unwind(AssertUnwindSafe(|| batch.run()))
                    .unwrap_or_else(|_| Err(Error::Conflict("the thread that fills bodies panicked".into())));
                state = self.lock();
                state.jobs -= jobs;
                state.bytes -= bytes;
                self.done(&mut state, done);
            } else if state.closed {
                return;
            } else {
                state.worker_sleeps = true;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // Woken at half only, so that the two do not take turns.
            if state.caller_sleeps && state.jobs <= MOST_JOBS / 2 && state.bytes <= MOST_BYTES / 2 {
                state.caller_sleeps = false;
                self.room.notify_one();
            }
        }
    }

    /// Notes what came of a batch.
    fn done(&self, state: &mut State, done: Result<u64, Error>) {
        match done {
            Ok(clamped) => state.clamped += clamped,
            Err(error) => {
                self.error.get_or_init(|| error);
                state.batches.clear();
                (state.jobs, state.bytes) = (0, 0);
            }
        }
    }
}

impl Batch {
    /// Does the jobs, up to the first that fails. How many files got another time than theirs.
    fn run(self) -> Result<u64, Error> {
        // A job that is done is dropped, which closes the file if it was its last.
        self.jobs.into_iter().try_fold(0, |clamped, job| Ok(clamped + u64::from(job.run()?)))
    }
}

impl Job {
    /// What of it lies in memory, in bytes.
    fn weight(&self) -> usize {
        let data = self.data.as_ref().map_or(0, |data| data.bytes.len());
        let last = self.last.as_ref().map_or(0, Attributes::xattr_bytes);
        data + last + self.target.name.as_bytes().len()
    }

    /// True where the file's time became another one.
    fn run(&self) -> Result<bool, Error> {
        let target = &*self.target;
        let written = match &self.data {
            Some(data) if data.sparse => target.write_blocks(data.offset, &data.bytes),
            Some(data) => target.write(data.offset, &data.bytes),
            None => Ok(()),
        };
        let settled = written.and_then(|()| match &self.last {
            Some(attributes) => target.settle(attributes),
            None => Ok(false),
        });
        settled.map_err(|error| error.at(&target.name))
    }
}

impl Target {
    /// Writes all but the blocks that are zero.
    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        // `from..at` is what is still to be written.
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            let to_boundary = BLOCK - ((offset + at as u64) % BLOCK as u64) as usize;
            let end = cmp::min(at + to_boundary, bytes.len());
            if bytes[at..end] == ZEROS[..] {
                self.write(offset + from as u64, &bytes[from..at])?;
                from = end;
            }
            at = end;
        }
        self.write(offset + from as u64, &bytes[from..])
    }

    fn write(&self, mut offset: u64, mut bytes: &[u8]) -> Result<(), Error> {
        while !bytes.is_empty() {
            match rustix::io::pwrite(&self.file, bytes, offset) {
                Ok(count) => {
                    offset += count as u64;
                    bytes = &bytes[count..];
                    self.reached.fetch_max(offset, Ordering::Relaxed);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Error::io("pwrite")(error)),
            }
        }
        Ok(())
    }

    /// What is done to a file once its bytes are there.
    fn settle(&self, attributes: &Attributes) -> Result<bool, Error> {
        if self.reached.load(Ordering::Relaxed) < self.size {
            nix::unistd::ftruncate(&self.file, self.size as i64).map_err(Error::io("ftruncate"))?;
        }
        settle_file(&self.file, self.made, attributes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Timestamp, Xattr};

    #[test]
    fn what_waits_is_bounded_with_its_attributes() {
        let path = std::env::temp_dir().join(format!("layerbox-bodies-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let target = Arc::new(Target {
            file,
            name: Name::found(b"f".to_vec()),
            size: 0,
            made: Made::default(),
            reached: AtomicU64::new(0),
        });
        let value = vec![0; 60_000];
        let xattrs =
            (0..16).map(|n| Xattr { name: format!("user.{n}").into(), value: value.clone() }).collect();
        let last = Attributes { mtime: Timestamp::default(), xattrs, ..Attributes::default() };
        let mut bodies = Bodies::new();
        for _ in 0..100 {
            let job = Job { target: Arc::clone(&target), data: None, last: Some(last.clone()) };
            let pushed = bodies.push(job);
            let waiting = bodies.shared.lock().batches.iter().map(|batch| batch.jobs.len()).sum::<usize>()
                + bodies.batch.jobs.len();
            assert!(waiting <= 3, "{waiting} megabytes");
            // Few file systems take so much, and that is told.
            if pushed.is_err() {
                break;
            }
        }
    }
}
