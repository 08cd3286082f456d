//! What an interrupted process left behind is taken away when a store is opened.
//!
//! Only the traces themselves are looked at (`pending/`, `stage/`, `trash/`, and locks that nobody holds), never all layers, so that opening a store does not
//! take longer when it has more of them. [`super::check`] looks at everything.

use std::time::{Duration, Instant};

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::Store;
use super::files::{ids_in, ignore_missing};
use super::lock::{Guard, Mode};
use crate::error::Failure;

/// How long the opening of a store goes on deleting what a removal has left. The rest goes with the next removal, or in the background of a service.
const DELETING: Duration = Duration::from_millis(100);

impl Store {
    /// Ends or undoes what was interrupted.
    ///
    /// # Errors
    ///
    /// Those of renaming, removing and unmounting. That there is no room on the disk is none: it must not keep anybody from removing layers.
    pub fn recover(&self, unions: &Unions, references: &References) -> Result<(), Failure> {
        let recovered = self
            .recover_pending()
            .and_then(|()| self.recover_stage())
            .and_then(|()| self.recover_abandoned(unions, references))
            .and_then(|()| {
                let begin = Instant::now();
                self.empty_trash(&|| begin.elapsed() < DELETING).map(drop)
            });
        match recovered {
            Err(failure) if failure.is_shortage() => Ok(()),
            other => other,
        }
    }

    fn recover_pending(&self) -> Result<(), Failure> {
        for id in ids_in(&self.dir, "pending")? {
            // Anything else is not ours, and for `check` to tell of.
            if !self.dir.symlink_metadata(format!("pending/{id}")).is_ok_and(|found| found.is_file()) {
                continue;
            }
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // Committed: its making ended. Not committed: it never was, or is no more.
            if self.dir.symlink_metadata(format!("meta/{id}")).is_ok() {
                self.conclude(&id)?;
            } else {
                self.unmark_everywhere(&id)?;
                self.undo_make(&id, None)?;
            }
        }
        Ok(())
    }

    fn recover_stage(&self) -> Result<(), Failure> {
        for id in ids_in(&self.dir, "stage")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            self.throw_away(&format!("stage/{id}"))?;
        }
        Ok(())
    }

    /// Looks at the layers that a process worked on when it was killed: their locks are still there, and nobody holds them.
    fn recover_abandoned(&self, unions: &Unions, references: &References) -> Result<(), Failure> {
        let locks = cap_std::fs::Dir::open_ambient_dir(&self.runtime, cap_std::ambient_authority())
            .map_err(|e| Failure::io("open", &e))?;
        for id in ids_in(&locks, "locks")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            for directory in ["meta", "layers"] {
                ignore_missing(self.dir.remove_file(format!("{directory}/.{id}.tmp")), "unlink")?;
            }
            references.forget_draft(&id)?;
            let mounted = unions.mounted(&id)?;
            match references.count(&id) {
                // It was mounted, and nobody was told. Somebody may have found it even so, and keep it busy: then `check` tells of it.
                Ok(0) if mounted => drop(unions.unmount(&id, false)),
                // It was unmounted, and still counted.
                Ok(1..) if !mounted => references.clear(&id)?,
                _ => {}
            }
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
