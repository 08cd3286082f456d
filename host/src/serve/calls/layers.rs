//! Few calls on one layer at a time: those that wait for one whose lock is held leave places to calls on
//! others.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

/// Calls without a stream on one layer at once; more wait before they take one of the places of all. So calls
/// on others find one unless sixteen layers are locked for long at once.
const ON_A_LAYER: usize = 4;

/// A layer: the root of its store, and its name there.
pub type Subject = (PathBuf, String);

/// The layers that calls are on, or wait to be.
#[derive(Debug, Default, Clone)]
pub(super) struct Layers(Arc<Mutex<Places>>);

/// With each layer its places, and how many calls want one or have one.
type Places = BTreeMap<Subject, (Arc<Semaphore>, usize)>;

impl Layers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a call wants a place.
    pub(super) fn want(&self, subject: Subject) -> Wanted {
        let mut layers = self.lock();
        let new = || (Arc::new(Semaphore::new(ON_A_LAYER)), 0);
        let (places, calls) = layers.entry(subject.clone()).or_insert_with(new);
        *calls += 1;
        Wanted { places: places.clone(), subject, layers: self.clone() }
    }
}

/// That a call wants a place on a layer, or has one, until it is dropped.
pub(super) struct Wanted {
    places: Arc<Semaphore>,
    subject: Subject,
    layers: Layers,
}

impl Wanted {
    /// The places on the layer.
    pub(super) fn places(&self) -> &Arc<Semaphore> {
        &self.places
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        let mut layers = self.layers.lock();
        if let Some((_, calls)) = layers.get_mut(&self.subject) {
            *calls -= 1;
            if *calls == 0 {
                layers.remove(&self.subject);
            }
        }
    }
}
