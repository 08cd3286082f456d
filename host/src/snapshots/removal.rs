//! Layers whose snapshots are no more: removed one after the other, by whoever has the time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

use super::error::SnapshotError;
use crate::driver::Driver;
use crate::error::{Error, Failure};

/// The layers that are to be removed.
#[derive(Debug, Default)]
pub(super) struct Removal {
    waiting: Mutex<Waiting>,
    /// Held by the one who removes.
    sweeping: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    layers: VecDeque<String>,
    /// How many were ever added.
    added: u64,
}

impl Removal {
    /// Adds a layer.
    pub(super) fn add(&self, layer: String) {
        let mut waiting = self.lock();
        waiting.layers.push_back(layer);
        waiting.added += 1;
    }

    /// Removes them all, once whoever else removes has ended. What cannot be removed yet, because another
    /// layer lies on it, comes after that one.
    pub(super) fn sweep(&self, driver: &Driver) -> Result<(), SnapshotError> {
        let _one = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_all(&|layer| driver.remove(layer, true))
    }

    /// As [`Removal::sweep`]. Does not wait for whoever else removes: that one removes what has been added
    /// meanwhile.
    pub(super) fn sweep_unless_swept(
        &self,
        remove: &dyn Fn(&str) -> Result<(), Error>,
    ) -> Result<(), SnapshotError> {
        loop {
            let one = match self.sweeping.try_lock() {
                Ok(one) => one,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Ok(()),
            };
            let before = self.lock().added;
            let swept = self.remove_all(remove);
            drop(one);
            // Whoever has added one since, and found the sweeping taken, relies on it.
            if self.lock().added == before {
                return swept;
            }
        }
    }

    fn remove_all(&self, remove: &dyn Fn(&str) -> Result<(), Error>) -> Result<(), SnapshotError> {
        loop {
            let batch = std::mem::take(&mut self.lock().layers);
            let before = batch.len();
            let mut first = None;
            let mut left = Vec::new();
            for layer in batch {
                match remove(&layer) {
                    Ok(()) => {}
                    Err(error) if matches!(error.failure, Failure::NotFound(_)) => {}
                    Err(error) => {
                        first.get_or_insert(error);
                        left.push(layer);
                    }
                }
            }
            let stuck = left.len() == before;
            self.lock().layers.extend(left);
            match first {
                None if self.lock().layers.is_empty() => return Ok(()),
                Some(error) if stuck => return Err(error.into()),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn who_finds_another_removing_does_not_wait_and_what_it_added_is_removed() {
        let removal = Removal::default();
        removal.add("first".to_owned());
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel();
        let gone = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            let (removal, gone) = (&removal, &gone);
            let one = scope.spawn(move || {
                removal.sweep_unless_swept(&|layer: &str| {
                    begun.send(()).expect("somebody who waits");
                    may_end.recv().expect("a word");
                    gone.lock().expect("a list").push(layer.to_owned());
                    Ok(())
                })
            });
            has_begun.recv().expect("a beginning");
            removal.add("second".to_owned());
            // It would wait for ever.
            removal.sweep_unless_swept(&|_| panic!("two remove at once")).expect("nothing to do");
            end.send(()).and_then(|()| end.send(())).expect("somebody who removes");
            one.join().expect("no panic").expect("all removed");
        });
        assert_eq!(*gone.lock().expect("a list"), ["first", "second"]);
    }

    #[test]
    fn what_cannot_be_removed_is_tried_once_and_kept() {
        let removal = Removal::default();
        removal.add("busy".to_owned());
        let busy = |_: &str| Err(Failure::Busy("it".to_owned()).during("remove", None));
        assert!(removal.sweep_unless_swept(&busy).is_err());
        assert!(removal.sweep_unless_swept(&|_| Ok(())).is_ok());
        assert!(removal.lock().layers.is_empty());
    }
}
