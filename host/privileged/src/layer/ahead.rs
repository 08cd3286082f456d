//! A long walk goes on in a thread of its own, while what it found before is worked with: looking at names
//! and moving what files hold are each half of the work of an archive.

use std::cmp;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use super::permit::Permit;
use super::walk::{Batch, Names, Walk};
use crate::{Error, Node};

/// The most nodes of one answer.
const MOST_NODES: u32 = 4096;
/// The most nodes of an answer whose files are opened: few, because so many for each answer are open at once.
pub(super) const SHORT: usize = 64;
/// How many answers are kept ready.
pub(super) const READY: usize = 2;
/// How many walks of this process may have a thread; more go without. A component can begin as many walks as
/// it has handles.
const MOST_THREADS: usize = 16;

static THREADS: AtomicUsize = AtomicUsize::new(0);

/// A walk under way.
#[derive(Debug)]
pub struct Walker {
    way: Way,
    /// What the thread gave and was not asked for yet.
    rest: Batch,
}

#[derive(Debug)]
enum Way {
    Here(Box<Walk>),
    Ahead(Ahead),
    Over,
}

impl Walker {
    pub(super) fn new(walk: Walk) -> Self {
        Self { way: Way::Here(Box::new(walk)), rest: Batch::Nodes(Vec::new()) }
    }

    /// The next nodes: at most `max` (clamped to 4,096), fewer when they are large. None is the end.
    ///
    /// # Errors
    /// [`Error::Io`], with EXDEV where something is mounted inside the layer; [`Error::Conflict`] when a name
    /// disappears from a layer that is not live, or a directory is moved in any. The walk is over then.
    pub fn next(&mut self, max: u32) -> Result<Vec<Node>, Error> {
        self.batch(max).map(Batch::into_nodes)
    }

    /// As [`Walker::next`], and of each node no more than its name and its kind.
    ///
    /// # Errors
    /// As [`Walker::next`].
    pub fn names(&mut self, max: u32) -> Result<Names, Error> {
        self.batch(max).map(Batch::into_names)
    }

    fn batch(&mut self, max: u32) -> Result<Batch, Error> {
        let most = max.clamp(1, MOST_NODES) as usize;
        if self.rest.is_empty() {
            let found = match &mut self.way {
                Way::Here(walk) => walk.next(most),
                Way::Ahead(ahead) => ahead.next(),
                Way::Over => Ok(Batch::Nodes(Vec::new())),
            };
            self.rest = match found {
                Ok(found) if !found.is_empty() => found,
                ended => {
                    self.way = Way::Over;
                    return ended;
                }
            };
            // What ends within one answer needs no thread.
            if self.rest.len() == most {
                self.go_ahead(most)?;
            }
        }
        let later = self.rest.split_off(most.min(self.rest.len()));
        Ok(mem::replace(&mut self.rest, later))
    }

    fn go_ahead(&mut self, most: usize) -> Result<(), Error> {
        if !matches!(self.way, Way::Here(_)) || thread::available_parallelism().is_ok_and(|it| it.get() < 2) {
            return Ok(());
        }
        let Some(permit) = Permit::take(&THREADS, MOST_THREADS) else { return Ok(()) };
        if let Way::Here(walk) = mem::replace(&mut self.way, Way::Over) {
            self.way = Way::Ahead(Ahead::new(*walk, most, permit)?);
        }
        Ok(())
    }
}

/// The thread, and what comes from it. It ends with the walker, which waits for it.
#[derive(Debug)]
struct Ahead {
    found: Option<Receiver<Result<Batch, Error>>>,
    thread: Option<JoinHandle<()>>,
}

impl Ahead {
    fn new(mut walk: Walk, most: usize, permit: Permit) -> Result<Self, Error> {
        let most = if walk.open_files() { cmp::min(most, SHORT) } else { most };
        let (sender, found) = sync_channel(READY);
        let work = move || {
            let _permit = permit;
            // A panic must not look like the end of the layer.
            if catch_unwind(AssertUnwindSafe(|| walk_on(&mut walk, most, &sender))).is_err() {
                let _ = sender.send(Err(Error::Conflict("the thread that walks panicked".into())));
            }
        };
        let thread = thread::Builder::new().name("layer walk".into()).spawn(work);
        Ok(Self { found: Some(found), thread: Some(thread.map_err(Error::io("clone"))?) })
    }

    fn next(&mut self) -> Result<Batch, Error> {
        let gone = || Error::Conflict("the thread that walks is gone".into());
        self.found.as_ref().and_then(|found| found.recv().ok()).ok_or_else(gone)?
    }
}

/// Walks to the end, which is told as well, or until nobody listens any more.
fn walk_on(walk: &mut Walk, most: usize, to: &SyncSender<Result<Batch, Error>>) {
    loop {
        let found = walk.next(most);
        let is_over = !matches!(&found, Ok(batch) if !batch.is_empty());
        if to.send(found).is_err() || is_over {
            return;
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.found = None;
        if let Some(thread) = self.thread.take() {
            // It catches its own panics, so there is nothing to be told.
            let _ = thread.join();
        }
    }
}
