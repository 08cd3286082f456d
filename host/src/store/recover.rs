//! What an interrupted process left behind is taken away when a store is opened.
//!
//! Only the traces themselves are looked at (`pending/`, `stage/`), never all layers, so that opening a store does not take longer when it has more of
//! them. What lies in `trash/` is out of sight already and goes with the next removal. [`super::check`] looks at everything.

use layerbox_privileged::id::LayerId;

use super::Store;
use super::files::ids_in;
use super::lock::{Guard, Mode};
use crate::error::Failure;

impl Store {
    /// Ends or undoes what was interrupted.
    pub(super) fn recover(&self) -> Result<(), Failure> {
        for id in ids_in(&self.dir, "pending")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // Committed: its making ended, or its removal had not begun. Not committed: it never was, or is no more.
            if self.record(&id)?.is_some() {
                self.conclude(&id)?;
            } else {
                self.unmark(&id)?;
                self.undo_make(&id)?;
            }
        }
        let mut swept = false;
        for id in ids_in(&self.dir, "stage")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            self.to_trash(&format!("stage/{id}"))?;
            swept = true;
        }
        if swept {
            self.empty_trash()?;
        }
        Ok(())
    }

    /// The lock of a layer that no living process works on. Whoever works on it holds the lock and cleans up itself.
    fn unclaimed(&self, id: &LayerId) -> Result<Option<Guard>, Failure> {
        match Guard::try_layer(&self.runtime, id, Mode::Exclusive) {
            Ok(guard) => Ok(Some(guard)),
            Err(Failure::Busy(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }
}
