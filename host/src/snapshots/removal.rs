//! Layers whose snapshots are no more: removed one after the other, by whoever has the time.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::SnapshotError;
use crate::driver::Driver;
use crate::error::Failure;

/// The layers that are to be removed.
#[derive(Debug, Default)]
pub(super) struct Removal {
    waiting: Mutex<VecDeque<String>>,
    /// Held by the one who removes.
    sweeping: Mutex<()>,
}

impl Removal {
    /// Adds a layer.
    pub(super) fn add(&self, layer: String) {
        self.lock().push_back(layer);
    }

    /// Removes them all. What cannot be removed yet, because another layer lies on it, comes after that one.
    pub(super) fn sweep(&self, driver: &Driver) -> Result<(), SnapshotError> {
        let _one = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let batch = std::mem::take(&mut *self.lock());
            let before = batch.len();
            let mut first = None;
            let mut left = Vec::new();
            for layer in batch {
                match driver.remove(&layer, true) {
                    Ok(()) => {}
                    Err(error) if matches!(error.failure, Failure::NotFound(_)) => {}
                    Err(error) => {
                        first.get_or_insert(error);
                        left.push(layer);
                    }
                }
            }
            let stuck = left.len() == before;
            self.lock().extend(left);
            match first {
                None if self.lock().is_empty() => return Ok(()),
                Some(error) if stuck => return Err(error.into()),
                _ => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<String>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
