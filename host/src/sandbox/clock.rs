//! The time that a component may run, and the ticks that interrupt it.
//!
//! Wasmtime interrupts a component when a counter of the engine, the epoch, has been moved on. A thread moves it while calls are under way; at each
//! interruption a call looks how long its component has really run. Time spent in the host (waiting for an archive, writing files) is not the
//! component's and does not count.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::Engine;

/// How often a component that computes is interrupted to look at its clock.
const TICK: Duration = Duration::from_millis(10);

/// How long a component has run in one call.
pub(super) struct GuestClock {
    allowed: Duration,
    used: Duration,
    since: Option<Instant>,
    spent: bool,
}

impl GuestClock {
    pub(super) fn new(allowed: Duration) -> GuestClock {
        GuestClock { allowed, used: Duration::ZERO, since: None, spent: false }
    }

    /// The component begins or goes on to run.
    pub(super) fn guest_runs(&mut self) {
        self.since = Some(Instant::now());
    }

    /// The component has called the host, or returned to it.
    pub(super) fn guest_rests(&mut self) {
        if let Some(since) = self.since.take() {
            self.used += since.elapsed();
        }
    }

    /// Whether it has run for as long as it may.
    pub(super) fn is_over(&mut self) -> bool {
        let running = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.spent = self.used + running > self.allowed;
        self.spent
    }

    /// Whether the call was ended for that reason.
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }
}

/// Moves the epoch on while calls are under way. The thread sleeps when there are none, and ends with the ticker.
pub(super) struct Ticker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<Calls>,
    changed: Condvar,
}

#[derive(Default)]
struct Calls {
    under_way: usize,
    closed: bool,
}

/// A call that is under way, until it is dropped.
pub(super) struct Ticking {
    shared: Arc<Shared>,
}

impl Ticker {
    /// Starts the thread.
    pub(super) fn new(engine: Engine) -> std::io::Result<Ticker> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() });
        let thread = shared.clone();
        std::thread::Builder::new().name("epoch".to_owned()).spawn(move || thread.tick(&engine))?;
        Ok(Ticker { shared })
    }

    pub(super) fn begin(&self) -> Ticking {
        self.shared.lock().under_way += 1;
        self.shared.changed.notify_all();
        Ticking { shared: self.shared.clone() }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Calls> {
        // Nobody panics with this lock held; were it so, the numbers would still be right.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, engine: &Engine) {
        let mut calls = self.lock();
        while !calls.closed {
            calls = if calls.under_way == 0 {
                self.changed.wait(calls).unwrap_or_else(PoisonError::into_inner)
            } else {
                let (calls, timeout) =
                    self.changed.wait_timeout(calls, TICK).unwrap_or_else(PoisonError::into_inner);
                if timeout.timed_out() {
                    engine.increment_epoch();
                }
                calls
            };
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.lock().under_way -= 1;
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
    }
}
