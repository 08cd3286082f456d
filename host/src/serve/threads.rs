//! The threads that calls run on: a call has one to itself, and the next call may get it when the one before
//! left it as it found it.
//!
//! Starting a thread takes longer than most calls. But a call that computes for long lowers the priority of
//! its thread, and nobody without CAP_SYS_NICE can raise it again: such a thread ends with its call.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Duration;

use crate::error::Failure;
use crate::serve::calls::CallError;

/// How long a thread waits for another call before it ends.
const IDLE: Duration = Duration::from_secs(10);

type Work = Box<dyn FnOnce() + Send>;

/// Threads that wait, with the ends of their channels. The one that came last is taken first: its stack is
/// still in the caches.
type Waiting = Vec<(ThreadId, Sender<Work>)>;

/// Threads for calls.
#[derive(Debug, Default, Clone)]
pub(super) struct Threads {
    waiting: Arc<Mutex<Waiting>>,
}

impl Threads {
    /// Runs something on a thread that nothing else runs on, within the runtime that this is called from.
    ///
    /// # Errors
    ///
    /// There is no thread to be had.
    pub(super) fn run(&self, work: impl FnOnce() + Send + 'static) -> Result<(), CallError> {
        let mut work: Work = Box::new(work);
        let waiting = self.lock().pop();
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
        let own = std::thread::current().id();
        self.lock().push((own, sender.clone()));
        match receiver.recv_timeout(IDLE) {
            Ok(work) => Some(work),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                let mut waiting = self.lock();
                let at = waiting.iter().position(|(thread, _)| *thread == own);
                let left = at.map(|at| waiting.remove(at));
                drop(waiting);
                // Who took it in this very moment sends something.
                if left.is_some() { None } else { receiver.recv().ok() }
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
