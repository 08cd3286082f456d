//! What a call may use of the machine's time: the component's own, the host's on its behalf, and how often it
//! may ask for that.
//!
//! Wasmtime interrupts a component when a counter of the engine, the epoch, has been moved on. A thread moves
//! it while calls are under way; at each interruption a call looks how long its component has really run.
//! What the host does for it is measured at each of its calls, so that a component cannot escape its bound by
//! spending its time there: in reading a layer again and again, say. Reading and writing the bytes of an
//! archive and of files, and waiting for whoever is at its other end, counts for neither; what is moved has
//! bounds of its own. What is done around it, such as finding and making files, counts.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasmtime::{CallHook, Engine};

use super::Limits;

/// How often a component that computes is interrupted to look at its clock.
const TICK: Duration = Duration::from_millis(10);
/// For how many ticks after the last call the thread goes on: to be woken costs each call as much as a tick
/// does, and calls seldom come alone.
const LINGER: u32 = 50;

/// What a call takes that is not about the content of a large layer. A longer one lets others go first where
/// the host says so.
const SHORT: Duration = Duration::from_millis(100);

/// A clock that stands still at times.
#[derive(Default)]
struct Stopwatch {
    used: Duration,
    since: Option<Instant>,
}

impl Stopwatch {
    fn start(&mut self, now: Instant) {
        self.since = Some(now);
    }

    fn stop(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.used += now.saturating_duration_since(since);
        }
    }

    /// What it shows, stopped or not.
    fn elapsed(&self) -> Duration {
        self.used + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// What one call has used.
pub(super) struct CallClock {
    guest_time: Duration,
    host_time: Duration,
    host_calls: u64,
    guest: Stopwatch,
    host: Stopwatch,
    /// How many calls of the host are under way, each made within the one before.
    host_depth: u32,
    /// How much of the host's time was spent in moving bytes.
    waited: Duration,
    calls: u64,
    spent: Option<String>,
    long: bool,
}

impl CallClock {
    pub(super) fn new(limits: &Limits) -> CallClock {
        CallClock {
            guest_time: limits.guest_time,
            host_time: limits.host_time,
            host_calls: limits.host_calls,
            guest: Stopwatch::default(),
            host: Stopwatch::default(),
            host_depth: 0,
            waited: Duration::ZERO,
            calls: 0,
            spent: None,
            long: false,
        }
    }

    /// Goes from one side to the other. `waited` is how long bytes were moved and waited for since the
    /// beginning of the call.
    ///
    /// # Errors
    ///
    /// The bound that was reached, in words for a person.
    pub(super) fn cross(&mut self, hook: CallHook, waited: Duration) -> Result<(), String> {
        // For each list that the host answers the component is asked for room, for a list of names as many
        // times as there are names: too often to look at a clock each time. It is time of the host's call,
        // and so is what the component calls in turn: to grow its memory is a call of the host, too.
        match hook {
            CallHook::CallingHost => {
                // A component that is asked for room is interrupted as well, before the call that asks has
                // ended.
                self.waited = waited;
                self.calls += 1;
                if self.calls > self.host_calls {
                    return Err(self.spend(format!("calls of the host ({})", self.host_calls)));
                }
                self.host_depth += 1;
                if self.host_depth == 1 {
                    let now = Instant::now();
                    self.guest.stop(now);
                    self.host.start(now);
                }
            }
            CallHook::ReturningFromHost => {
                self.host_depth -= 1;
                if self.host_depth == 0 {
                    let now = Instant::now();
                    self.host.stop(now);
                    self.guest.start(now);
                }
                return self.check_host(waited);
            }
            CallHook::CallingWasm if self.host_depth == 0 => self.guest.start(Instant::now()),
            CallHook::ReturningFromWasm if self.host_depth == 0 => self.guest.stop(Instant::now()),
            CallHook::CallingWasm | CallHook::ReturningFromWasm => {}
        }
        Ok(())
    }

    /// Holds the host's time to its bound, within something that may take long. `waited` as for
    /// [`CallClock::cross`].
    ///
    /// # Errors
    ///
    /// The bound that was reached, in words for a person.
    pub(super) fn check_host(&mut self, waited: Duration) -> Result<(), String> {
        self.waited = waited;
        if self.host_elapsed() > self.host_time { Err(self.spend_host_time()) } else { Ok(()) }
    }

    /// How long the host has worked.
    fn host_elapsed(&self) -> Duration {
        self.host.elapsed().saturating_sub(self.waited)
    }

    /// Whether the component has run for as long as it may.
    pub(super) fn is_over(&mut self) -> bool {
        if self.guest.elapsed() > self.guest_time {
            self.spend(format!("time of the component ({} s)", self.guest_time.as_secs()));
        } else if self.host_elapsed() > self.host_time {
            self.spend_host_time();
        } else {
            return false;
        }
        true
    }

    /// Whether the call has turned out to be a long one since this was last asked.
    pub(super) fn became_long(&mut self) -> bool {
        let became = !self.long && self.guest.elapsed() + self.host_elapsed() > SHORT;
        self.long |= became;
        became
    }

    fn spend_host_time(&mut self) -> String {
        self.spend(format!("time of the host ({} s)", self.host_time.as_secs()))
    }

    fn spend(&mut self, bound: String) -> String {
        self.spent = Some(bound.clone());
        bound
    }

    /// The bound for which the call was ended, if it was.
    pub(super) fn spent(&self) -> Option<&str> {
        self.spent.as_deref()
    }
}

/// Moves the epoch on while calls are under way. The thread sleeps when there have been none for a while, and
/// ends with the ticker.
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
    /// The thread waits to be woken.
    asleep: bool,
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
        let mut calls = self.shared.lock();
        calls.under_way += 1;
        let asleep = std::mem::take(&mut calls.asleep);
        drop(calls);
        if asleep {
            self.shared.changed.notify_all();
        }
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
        let mut quiet = 0;
        while !calls.closed {
            quiet = if calls.under_way == 0 { quiet + 1 } else { 0 };
            calls = if quiet > LINGER {
                calls.asleep = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    fn clock(limits: Limits) -> CallClock {
        let mut clock = CallClock::new(&limits);
        clock.cross(CallHook::CallingWasm, NONE).unwrap();
        clock
    }

    #[test]
    fn calls_of_the_host_are_counted() {
        let mut clock = clock(Limits { host_calls: 2, ..Limits::default() });
        for _ in 0..2 {
            clock.cross(CallHook::CallingHost, NONE).unwrap();
            clock.cross(CallHook::ReturningFromHost, NONE).unwrap();
        }
        assert_eq!(clock.cross(CallHook::CallingHost, NONE).unwrap_err(), "calls of the host (2)");
        assert_eq!(clock.spent(), Some("calls of the host (2)"));
    }

    #[test]
    fn time_of_the_host_counts_but_for_moving_bytes() {
        let mut clock = clock(Limits { host_time: Duration::from_millis(40), ..Limits::default() });
        let nap = || std::thread::sleep(Duration::from_millis(50));
        let began = Instant::now();
        clock.cross(CallHook::CallingHost, NONE).unwrap();
        nap();
        let waited = began.elapsed();
        clock.check_host(waited).unwrap();
        clock.cross(CallHook::ReturningFromHost, waited).unwrap();
        clock.cross(CallHook::CallingHost, waited).unwrap();
        nap();
        assert!(clock.check_host(waited).is_err(), "it is looked at within a call as well");
        assert!(clock.cross(CallHook::ReturningFromHost, waited).is_err());
        assert_eq!(clock.spent(), Some("time of the host (0 s)"), "none of it was the component's");
    }

    #[test]
    fn time_of_the_component_within_a_call_of_the_host_is_the_calls() {
        let mut clock = clock(Limits { host_time: Duration::from_millis(40), ..Limits::default() });
        clock.cross(CallHook::CallingHost, NONE).unwrap();
        clock.cross(CallHook::CallingWasm, NONE).unwrap();
        assert!(!clock.is_over());
        std::thread::sleep(Duration::from_millis(50));
        assert!(clock.is_over() && clock.spent().is_some_and(|bound| bound.starts_with("time of the host")));
        clock.cross(CallHook::ReturningFromWasm, NONE).unwrap();
        assert!(clock.cross(CallHook::ReturningFromHost, NONE).is_err());
    }

    #[test]
    fn a_call_of_the_host_within_another_takes_no_time_away() {
        let mut clock = clock(Limits { host_time: Duration::from_millis(70), ..Limits::default() });
        let nap = || std::thread::sleep(Duration::from_millis(40));
        clock.cross(CallHook::CallingHost, NONE).unwrap();
        nap();
        for hook in [
            CallHook::CallingWasm,
            CallHook::CallingHost,
            CallHook::ReturningFromHost,
            CallHook::ReturningFromWasm,
        ] {
            clock.cross(hook, NONE).unwrap();
        }
        nap();
        let ended = clock.cross(CallHook::ReturningFromHost, NONE);
        assert_eq!(ended.unwrap_err(), "time of the host (0 s)");
        assert!(clock.guest.elapsed() < Duration::from_millis(40), "none of it was the component's");
    }

    #[test]
    fn what_was_waited_for_is_known_when_the_component_is_interrupted_within_the_call() {
        let mut clock = clock(Limits { host_time: Duration::from_millis(40), ..Limits::default() });
        let began = Instant::now();
        clock.cross(CallHook::CallingHost, NONE).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        let waited = began.elapsed();
        clock.cross(CallHook::CallingWasm, waited).unwrap();
        clock.cross(CallHook::CallingHost, waited).unwrap();
        assert!(!clock.is_over());
        clock.cross(CallHook::ReturningFromHost, waited).unwrap();
        clock.cross(CallHook::ReturningFromWasm, waited).unwrap();
        clock.cross(CallHook::ReturningFromHost, waited).unwrap();
    }

    #[test]
    fn time_of_the_component_counts() {
        let mut clock = clock(Limits { guest_time: Duration::from_millis(40), ..Limits::default() });
        assert!(!clock.is_over() && !clock.became_long());
        std::thread::sleep(Duration::from_millis(50));
        assert!(clock.is_over());
        std::thread::sleep(SHORT);
        assert!(clock.became_long() && !clock.became_long(), "it becomes long once");
    }
}
