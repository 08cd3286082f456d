//! The threads that calls run on: a call has one to itself, and the next call may get it when the one before left it as it found it.
//!
//! Starting a thread takes longer than most calls. But a call that computes for long lowers the priority of its thread, and nobody without CAP_SYS_NICE can raise it
//! again: such a thread ends with its call.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::error::Failure;
use crate::serve::calls::CallError;

/// How long a thread waits for another call before it ends.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait for a call.
#[derive(Debug, Default, Clone)]
pub(super) struct Threads {
    waiting: Arc<Mutex<Waiting>>,
}

/// The ends of their channels, each with the number of its thread. The one that came last is taken first: its stack is still in the caches.
#[derive(Debug, Default)]
struct Waiting {
    threads: Vec<(u64, Sender<Work>)>,
    last: u64,
}

impl Threads {
    /// Runs something on a thread that nothing else runs on, within the runtime that this is called from.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
        let mut work: Work = Box::new(work);
        let waiting = self.lock().threads.pop();
        if let Some((_, thread)) = waiting {
            match thread.send(work) {
                Ok(()) => return Ok(()),
                Err(gone) => work = gone.0,
            }
        }
        let threads = self.clone();
        let runtime = tokio::runtime::Handle::current();
        let started = std::thread::Builder::new().name("call".to_owned()).spawn(move || {
            let _entered = runtime.enter();
            threads.serve(work);
        });
        started.map(drop).map_err(|e| CallError::Driver(Failure::io("clone", &e).during("serve", None)))
    }

    /// What a thread does: this, and then what comes, for as long as something does.
    fn serve(&self, first: Work) {
        let priority = priority();
        let (sender, receiver) = channel();
        let mut next = Some(first);
        while let Some(work) = next {
            work();
            next = if priority == self::priority() { self.wait(&sender, &receiver) } else { None };
        }
    }

    fn wait(&self, sender: &Sender<Work>, receiver: &Receiver<Work>) -> Option<Work> {
        let mut waiting = self.lock();
        waiting.last += 1;
        let own = waiting.last;
        waiting.threads.push((own, sender.clone()));
        drop(waiting);
        match receiver.recv_timeout(IDLE) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let mut waiting = self.lock();
                let before = waiting.threads.len();
                waiting.threads.retain(|(number, _)| *number != own);
                let was_taken = waiting.threads.len() == before;
                drop(waiting);
                // Who took it in this very moment sends something.
                if was_taken { receiver.recv().ok() } else { None }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The nice value of this thread; none where it cannot be told, which is the same each time.
fn priority() -> Option<i32> {
    rustix::process::getpriority_process(None).ok()
}
