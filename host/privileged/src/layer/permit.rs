//! Permits for what a process has only so many of: a semaphore that nobody waits for.

use std::sync::atomic::{AtomicUsize, Ordering};

/// One of them, until it is dropped.
#[derive(Debug)]
pub(super) struct Permit(&'static AtomicUsize);

impl Permit {
    /// One of `most`; none where all are taken.
    pub(super) fn take(taken: &'static AtomicUsize, most: usize) -> Option<Self> {
        // Made first: where there is none left, dropping it counts back.
        let permit = Permit(taken);
        (taken.fetch_add(1, Ordering::Relaxed) < most).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
