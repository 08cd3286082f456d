//! Places for what a process has only so many of.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place(&'static AtomicUsize);

impl Place {
    /// One of `most` places; none where all are taken.
    pub(super) fn take(taken: &'static AtomicUsize, most: usize) -> Option<Self> {
        // Made first: where there is no place, dropping it counts back.
        let place = Place(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
