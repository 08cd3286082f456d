//! How calls of the driver are run: on threads of their own, so many at a time, for so long, and so that a
//! fault in one ends that one only.
//!
//! Calls that wait for a stream have a limit of their own: a client that does not send on can hold one of
//! those, and never one that get and put need. And so few calls on one layer are let in at a time that those
//! which wait for one whose lock is held leave places to calls on others. What operators ask has places that
//! no client can take.

mod layers;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

pub use layers::Subject;

use crate::error::Error;
use crate::serve::threads::Threads;
use crate::snapshots::error::SnapshotError;
use layers::Layers;

/// Threads that may be in calls at once, those that nobody waits for any more among them: they sit in the
/// kernel, on a dead disk for instance.
const THREADS: usize = 512;
/// Calls without a stream at once; more wait.
const SHORT: usize = 64;
/// Questions of operators at once.
const OPERATORS: usize = 4;
/// Calls with a stream at once, each way; more wait.
const STREAMS: usize = 128;

/// Which way the stream of a call goes. An engine that makes a layer of another (`docker commit`) sends what
/// comes out of one call into another one; were their places the same, calls that wait for those behind them
/// could have them all.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    /// The call reads it.
    In,
    /// The call writes it.
    Out,
}

/// Why a call has no answer of its own.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The driver's error.
    #[error(transparent)]
    Driver(#[from] Error),
    /// The error of a call on snapshots.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The request makes no sense.
    #[error("{0}")]
    Request(String),
    /// There is no answer in time.
    #[error("no answer within {0} s; what cannot be interrupted goes on")]
    Deadline(u64),
    /// The other end of a stream does nothing.
    #[error("the client did nothing for {0} s")]
    Stalled(u64),
    /// The other end of a stream is gone.
    #[error("the client went away")]
    Gone,
    /// The engine that was asked for something failed.
    #[error("{0}")]
    Engine(String),
    /// The engine that was asked for something said no.
    #[error("{1}")]
    Refusal(tonic::Code, String),
    /// Too many threads are stuck.
    #[error("{0} calls are under way, and none ends")]
    Overloaded(usize),
    /// A fault of the service.
    #[error("an internal fault ended the call; the log has it")]
    Panicked,
}

impl CallError {
    /// A stable name, for the log and the metrics.
    pub fn code(&self) -> &'static str {
        match self {
            CallError::Driver(error) => error.failure.code(),
            CallError::Snapshot(error) => error.code(),
            CallError::Request(_) => "bad-request",
            CallError::Deadline(_) => "deadline",
            CallError::Stalled(_) => "stalled",
            CallError::Gone => "gone",
            CallError::Engine(_) | CallError::Refusal(..) => "engine",
            CallError::Overloaded(_) => "overloaded",
            CallError::Panicked => "panicked",
        }
    }
}

/// The bounds of calls, and what runs.
#[derive(Debug)]
pub struct Calls {
    /// For calls without a stream.
    deadline: Duration,
    /// For calls with one.
    transfer_deadline: Duration,
    /// For the other end of a stream to do something.
    stall: Duration,
    short: Arc<Semaphore>,
    operators: Arc<Semaphore>,
    layers: Layers,
    incoming: Arc<Semaphore>,
    outgoing: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    threads: Threads,
}

/// A thread that is in a call.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A call with a stream that is under way.
#[derive(Debug)]
pub struct Transfer<T> {
    /// Until when it must be over.
    pub until: Instant,
    worker: oneshot::Receiver<Result<T, Error>>,
    seconds: u64,
    _permit: OwnedSemaphorePermit,
}

impl<T> Transfer<T> {
    /// Its end.
    ///
    /// # Errors
    ///
    /// The driver's; [`CallError::Deadline`] where it does not come in time.
    pub async fn end(&mut self) -> Result<T, CallError> {
        match timeout_at(self.until, &mut self.worker).await {
            Ok(Ok(answer)) => Ok(answer?),
            Ok(Err(_)) => Err(CallError::Panicked),
            Err(_) => Err(self.late()),
        }
    }

    /// The error of a transfer that takes too long.
    pub fn late(&self) -> CallError {
        CallError::Deadline(self.seconds)
    }

    /// What its steps are held to, where the other end of its stream may do nothing for so long.
    pub fn bounds(&self, stall: Duration) -> Bounds {
        Bounds { until: self.until, seconds: self.seconds, stall }
    }
}

/// How long a step of a transfer may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    until: Instant,
    seconds: u64,
    stall: Duration,
}

impl Bounds {
    /// Waits for the other end of the stream.
    ///
    /// # Errors
    ///
    /// [`CallError::Stalled`] and, where that is nearer, [`CallError::Deadline`].
    pub async fn theirs<T>(&self, step: impl Future<Output = T>) -> Result<T, CallError> {
        let stalled = Instant::now() + self.stall;
        if self.until < stalled {
            return self.ours(step).await;
        }
        timeout_at(stalled, step).await.map_err(|_| CallError::Stalled(self.stall.as_secs()))
    }

    /// Waits for what is done here.
    ///
    /// # Errors
    ///
    /// [`CallError::Deadline`].
    pub async fn ours<T>(&self, step: impl Future<Output = T>) -> Result<T, CallError> {
        timeout_at(self.until, step).await.map_err(|_| CallError::Deadline(self.seconds))
    }
}

impl Calls {
    /// Calls with these bounds.
    pub fn new(deadline: Duration, transfer_deadline: Duration, stall: Duration) -> Calls {
        Calls {
            deadline,
            transfer_deadline,
            stall,
            short: Arc::new(Semaphore::new(SHORT)),
            operators: Arc::new(Semaphore::new(OPERATORS)),
            layers: Layers::default(),
            incoming: Arc::new(Semaphore::new(STREAMS)),
            outgoing: Arc::new(Semaphore::new(STREAMS)),
            running: Arc::default(),
            threads: Threads::default(),
        }
    }

    /// How many threads are in calls: each runs an instance of the component, or waits for one to end.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// How long the other end of a stream may do nothing.
    pub fn stall(&self) -> Duration {
        self.stall
    }

    /// How long a call without a stream may take.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Runs a call without a stream that is about no single layer.
    ///
    /// # Errors
    ///
    /// The call's own; else why it has no answer.
    pub async fn short<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CallError> {
        self.within(&self.short, Until::of(self.deadline), work, drop).await
    }

    /// As [`Calls::short`], for a call on a layer. What comes when nobody waits any more (the deadline
    /// passed, the client is gone) is given to `undo`.
    ///
    /// # Errors
    ///
    /// As [`Calls::short`].
    pub async fn on<T: Send + 'static>(
        &self,
        subject: Subject,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, CallError> {
        let until = Until::of(self.deadline);
        let wanted = self.layers.want(subject);
        let place = acquire(wanted.places(), until).await?;
        let work = move || {
            // Given back when the thread is done, whether somebody waits for it or not: those that nobody
            // waits for any more wait for a lock like others.
            let _place = (place, wanted);
            work()
        };
        self.within(&self.short, until, work, undo).await
    }

    /// Runs what an operator asks, with a deadline of its own.
    ///
    /// # Errors
    ///
    /// As [`Calls::short`].
    pub async fn for_operators<T: Send + 'static>(
        &self,
        deadline: Duration,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, CallError> {
        self.within(&self.operators, Until::of(deadline), work, drop).await
    }

    async fn within<T: Send + 'static>(
        &self,
        places: &Arc<Semaphore>,
        until: Until,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> Result<T, CallError> {
        let _permit = acquire(places, until).await?;
        let running = self.enter()?;
        let (sender, mut receiver) = oneshot::channel();
        self.threads.run(move || {
            let _running = running;
            // A panic ends this call and nothing else; its message is on stderr already.
            let answer = std::panic::catch_unwind(AssertUnwindSafe(work));
            if let Err(Ok(Ok(late))) = sender.send(answer) {
                undo(late);
            }
        })?;
        let answer = match timeout_at(until.at, &mut receiver).await {
            Ok(answer) => answer.map_err(|_| CallError::Panicked)?,
            Err(_) => {
                receiver.close();
                // It may have come in this very moment.
                receiver.try_recv().map_err(|_| until.late())?
            }
        };
        Ok(answer.map_err(|_| CallError::Panicked)??)
    }

    /// Begins a call with a stream.
    ///
    /// # Errors
    ///
    /// Why it does not begin.
    pub async fn transfer<T: Send + 'static>(
        &self,
        way: Way,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<Transfer<T>, CallError> {
        let until = Until::of(self.transfer_deadline);
        let places = match way {
            Way::In => &self.incoming,
            Way::Out => &self.outgoing,
        };
        let permit = acquire(places, until).await?;
        let running = self.enter()?;
        let (sender, worker) = oneshot::channel();
        self.threads.run(move || {
            let _running = running;
            // After a panic nothing is sent; nobody may wait any more.
            if let Ok(answer) = std::panic::catch_unwind(AssertUnwindSafe(work)) {
                drop(sender.send(answer));
            }
        })?;
        Ok(Transfer { until: until.at, worker, seconds: self.transfer_deadline.as_secs(), _permit: permit })
    }

    fn enter(&self) -> Result<Running, CallError> {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let running = Running(self.running.clone());
        if before >= THREADS { Err(CallError::Overloaded(before)) } else { Ok(running) }
    }
}

/// Until when an answer must come.
#[derive(Debug, Clone, Copy)]
struct Until {
    at: Instant,
    seconds: u64,
}

impl Until {
    fn of(deadline: Duration) -> Until {
        Until { at: Instant::now() + deadline, seconds: deadline.as_secs() }
    }

    fn late(self) -> CallError {
        CallError::Deadline(self.seconds)
    }
}

async fn acquire(places: &Arc<Semaphore>, until: Until) -> Result<OwnedSemaphorePermit, CallError> {
    match timeout_at(until.at, places.clone().acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        // It is closed by nobody.
        Ok(Err(_)) => Err(CallError::Panicked),
        Err(_) => Err(until.late()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, mpsc};

    use super::*;

    fn calls(milliseconds: u64) -> Calls {
        let time = Duration::from_millis(milliseconds);
        Calls::new(time, time, time)
    }

    fn subject(layer: &str) -> Subject {
        ("/root".into(), layer.to_owned())
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime").block_on(future)
    }

    #[test]
    fn a_panic_ends_its_own_call_only() {
        run(async {
            let calls = calls(5000);
            let broken = calls.short(|| -> Result<(), Error> { panic!("on purpose") }).await;
            assert!(matches!(broken, Err(CallError::Panicked)), "{broken:?}");
            assert_eq!(calls.short(|| Ok(1)).await.expect("an answer"), 1);
            // A thread is counted for a moment beyond its answer.
            let until = Instant::now() + Duration::from_secs(5);
            while calls.running() > 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(calls.running(), 0);
        });
    }

    #[test]
    fn what_comes_too_late_is_undone() {
        run(async {
            let calls = calls(50);
            let (begin, wait) = mpsc::channel::<()>();
            let (undone, seen) = mpsc::channel();
            let late = calls
                .on(
                    subject("a"),
                    move || {
                        wait.recv().expect("a signal");
                        Ok(7)
                    },
                    move |value| undone.send(value).expect("a receiver"),
                )
                .await;
            assert!(matches!(late, Err(CallError::Deadline(_))), "{late:?}");
            assert_eq!(calls.running(), 1, "the thread is still counted");
            begin.send(()).expect("a waiter");
            assert_eq!(seen.recv().expect("an undoing"), 7);
        });
    }

    #[test]
    fn calls_that_wait_for_a_layer_hold_up_neither_other_layers_nor_operators() {
        run(async {
            let calls = Arc::new(calls(5000));
            let (end, wait) = mpsc::channel::<()>();
            let wait = Arc::new(Mutex::new(wait));
            let stuck = || {
                let wait = wait.clone();
                move || {
                    drop(wait.lock().map(|wait| wait.recv()));
                    Ok(())
                }
            };
            let mut waiting = Vec::new();
            for _ in 0..2 * SHORT {
                let (calls, stuck) = (calls.clone(), stuck());
                waiting.push(tokio::spawn(async move { calls.on(subject("a"), stuck, drop).await }));
            }
            let until = Instant::now() + Duration::from_secs(5);
            while calls.layers.lock().get(&subject("a")).is_none_or(|(_, calls)| *calls < 2 * SHORT) {
                assert!(Instant::now() < until, "they do not begin");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(calls.on(subject("b"), || Ok(1), drop).await.expect("an answer"), 1);
            assert_eq!(calls.short(|| Ok(1)).await.expect("an answer"), 1);
            for _ in 0..SHORT {
                let (calls, stuck) = (calls.clone(), stuck());
                waiting.push(tokio::spawn(async move { calls.short(stuck).await }));
            }
            while calls.short.available_permits() > 0 && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let asked = calls.for_operators(Duration::from_secs(5), || Ok(1)).await;
            assert_eq!(asked.expect("an answer"), 1);
            drop(end);
            for call in waiting {
                call.await.expect("no panic").expect("an end");
            }
            assert!(calls.layers.lock().is_empty(), "layers are kept that no call is on");
        });
    }

    #[test]
    fn streams_take_neither_the_place_of_short_calls_nor_of_those_the_other_way() {
        run(async {
            let calls = calls(5000);
            let (end, wait) = mpsc::channel::<()>();
            let wait = Arc::new(Mutex::new(wait));
            let mut transfers = Vec::new();
            for _ in 0..STREAMS {
                let wait = wait.clone();
                let stuck = move || {
                    drop(wait.lock().map(|wait| wait.recv()));
                    Ok(())
                };
                transfers.push(calls.transfer(Way::Out, stuck).await.expect("a place"));
            }
            calls.transfer(Way::In, || Ok(())).await.expect("a place").end().await.expect("an end");
            assert_eq!(calls.short(|| Ok(1)).await.expect("an answer"), 1);
            drop(end);
            for mut transfer in transfers {
                transfer.end().await.expect("an end");
            }
        });
    }
}
