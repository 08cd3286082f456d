//! Deletes in the background what removals have taken out of sight.
//!
//! A service answers a removal once the layer is out of sight; a layer of a million files then takes seconds
//! to delete, for which nobody waits. What an earlier process did not get to is deleted as well, from the
//! start on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{Builder, JoinHandle};

use crate::error::Failure;
use crate::store::Store;

/// A thread that deletes. It ends when this is dropped, in the midst of its work if need be: the next one
/// goes on with it.
#[derive(Debug)]
pub(super) struct Sweeper {
    wake: Option<Sender<()>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts with what lies in the trash already.
    pub(super) fn start(store: Arc<Store>) -> Result<Sweeper, Failure> {
        let (wake, woken) = channel();
        let ending = Arc::new(AtomicBool::new(false));
        let ends = ending.clone();
        let work = move || {
            loop {
                // What cannot be deleted is found by `check`, and tried again with every removal.
                drop(store.empty_trash(&|| !ends.load(Ordering::Relaxed)));
                if woken.recv().is_err() {
                    break;
                }
                // Several removals are one round.
                while woken.try_recv().is_ok() {}
            }
        };
        let thread = Builder::new().name("sweeper".to_owned()).spawn(work);
        let thread = thread.map_err(|e| Failure::io("clone", &e))?;
        Ok(Sweeper { wake: Some(wake), ending, thread: Some(thread) })
    }

    /// There is something to delete.
    pub(super) fn wake(&self) {
        if let Some(wake) = &self.wake {
            // It listens until this is dropped.
            let _ = wake.send(());
        }
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        drop(self.wake.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
