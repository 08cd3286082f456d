//! What an interrupted process left behind is taken away when a store is opened.
//!
//! Only the traces themselves are looked at (`pending/`, `stage/`, `trash/`, and locks that nobody holds),
//! never all layers, so that opening a store does not take longer when it has more of them. [`super::check`]
//! looks at everything.

use std::collections::BTreeSet;
use std::io;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::Store;
use super::adopt::MARKER;
use super::check::Finding;
use super::files::{exists, id_of_temporary, ids_in, ignore_missing};
use super::lock::Mode;
use super::runtime::{LOCKS, MOUNT_LOCKS};
use crate::error::Failure;

/// How long the opening of a store goes on deleting what a removal has left. The rest goes with the next
/// removal, or in the background of a service.
const DELETING: Duration = Duration::from_millis(100);

impl Store {
    /// Ends or undoes what was interrupted.
    ///
    /// # Errors
    ///
    /// Those of renaming, removing and unmounting. That there is no room on the disk is none: it must not
    /// keep anybody from removing layers.
    pub fn recover(&self, unions: &Unions, references: &References) -> Result<(), Failure> {
        if self.is_read_only() {
            // What lies there stays as it is; mounts and counts lie elsewhere.
            return self.recover_abandoned(unions, references, false).and_then(|()| self.recover_strays());
        }
        let recovered = super::convert::forget_draft(self)
            .and_then(|()| self.recover_pending())
            .and_then(|()| self.recover_stage())
            .and_then(|()| self.recover_temporary())
            .and_then(|()| self.recover_abandoned(unions, references, true))
            .and_then(|()| self.recover_strays())
            .map(|()| self.recover_trash());
        match recovered {
            Err(failure) if failure.is_shortage() => Ok(()),
            other => other,
        }
    }

    /// Goes on with the deletion that another process did not get to. That something cannot be deleted is no
    /// reason to keep the store closed.
    fn recover_trash(&self) {
        if self.is_trash_empty() {
            return;
        }
        let begin = Instant::now();
        match self.empty_trash(&|| begin.elapsed() < DELETING) {
            Ok(true) => {
                let what = "a removal that was cut off, or is under way, left something to delete";
                self.note("trash".to_owned(), what, "delete it");
            }
            Ok(false) => {
                let what = "a removal that was cut off, or is under way, left more to delete than the opening of the store waits for";
                self.keep(Finding {
                    place: "trash".to_owned(),
                    what: what.to_owned(),
                    repair: "delete it".to_owned(),
                    repaired: false,
                    passing: true,
                });
            }
            Err(failure) => {
                let what = format!("it cannot be emptied: {failure}");
                self.keep(Finding { place: "trash".to_owned(), what, ..Finding::default() });
            }
        }
    }

    fn recover_pending(&self) -> Result<(), Failure> {
        if exists(&self.dir, MARKER)? {
            ignore_missing(self.dir.remove_file(MARKER), "unlink")?;
            self.note(MARKER.to_owned(), "an adoption that was cut off had come to its end", "remove it");
        }
        for id in ids_in(&self.dir, "pending")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // The call that made it has ended since; or it is not ours, and for `check` to tell of.
            if !self.dir.symlink_metadata(format!("pending/{id}")).is_ok_and(|found| found.is_file()) {
                continue;
            }
            // Committed: its making ended. Not committed: it never was, or is no more.
            if exists(&self.dir, &format!("meta/{id}"))? {
                self.conclude(&id)?;
                self.note(format!("pending/{id}"), "a call that was cut off left it behind", "remove it");
            } else {
                self.unmark_everywhere(&id)?;
                let place = format!("pending/{id}");
                match self.undo_make(&id, None) {
                    // That is no reason to keep the store closed. The note stays, for the next opening.
                    Err(failure @ Failure::Busy(_)) => {
                        let what = format!("a call that was cut off had not made or removed it; {failure}");
                        let repair = "unmount that, and open the store again".to_owned();
                        self.keep(Finding { place, what, repair, ..Finding::default() });
                    }
                    undone => {
                        undone?;
                        self.note(place, "a call that was cut off had not made or removed it", "undo it");
                    }
                }
            }
        }
        Ok(())
    }

    fn recover_stage(&self) -> Result<(), Failure> {
        for id in ids_in(&self.dir, "stage")? {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // The call that it belonged to may have ended since it was found.
            if self.throw_away(&format!("stage/{id}"))? {
                self.note(format!("stage/{id}"), "a call that was cut off left it behind", "delete it");
            }
        }
        Ok(())
    }

    /// Takes away records that were being written when the machine went down. To find them takes a look at
    /// all layers, once after each start of the machine.
    fn recover_temporary(&self) -> Result<(), Failure> {
        if !self.first_since_boot {
            return Ok(());
        }
        for directory in ["meta", "layers"] {
            let entries = match self.dir.read_dir(directory) {
                // `check` makes it anew.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(|e| Failure::io("open", &e))?,
            };
            for entry in entries {
                let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
                let Some(id) = name.to_str().and_then(id_of_temporary) else { continue };
                let Some(_guard) = self.unclaimed(&id)? else { continue };
                let path = format!("{directory}/.{id}.tmp");
                // A directory is nothing that a write leaves: `check` tells of it.
                if self.dir.symlink_metadata(&path).is_ok_and(|found| !found.is_dir()) {
                    ignore_missing(self.dir.remove_file(&path), "unlink")?;
                    self.note(path, "a write that was cut off left it behind", "remove it");
                }
            }
        }
        Ok(())
    }

    /// Looks at the layers that a process worked on when it was killed: their locks are still there, and
    /// nobody holds them.
    fn recover_abandoned(
        &self,
        unions: &Unions,
        references: &References,
        writable: bool,
    ) -> Result<(), Failure> {
        let locks = cap_std::fs::Dir::open_ambient_dir(&self.runtime, cap_std::ambient_authority())
            .map_err(|e| Failure::io("open", &e))?;
        let mut ids: BTreeSet<LayerId> = ids_in(&locks, LOCKS)?.into_iter().collect();
        ids.extend(ids_in(&locks, MOUNT_LOCKS)?);
        for id in ids {
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // Nobody holds it without the other one. With it goes what a killed process left of it.
            let _mount = self.lock_mount(&id, Mode::Exclusive)?;
            for directory in ["meta", "layers"].into_iter().filter(|_| writable) {
                ignore_missing(self.dir.remove_file(format!("{directory}/.{id}.tmp")), "unlink")?;
            }
            references.forget_draft(&id)?;
            // It was mounted, and nobody was told. Somebody may have found it even so, and keep it busy: then
            // `check` tells of it.
            let unused = unions.mounted(&id)? && matches!(references.count(&id), Ok(0));
            if unused && unions.unmount(&id, false).is_ok() {
                self.note(format!("mnt/{id}"), "a call that was cut off left it mounted", "unmount it");
            }
        }
        // `cleanup` holds no lock of a layer. Counts lie on the tmpfs, and only layers in use have one.
        for id in references.counted()? {
            if unions.mounted(&id)? {
                continue;
            }
            let Some(_guard) = self.unclaimed(&id)? else { continue };
            // One that cannot be read counts nobody, here or elsewhere.
            let elsewhere = matches!(references.elsewhere(&id), Ok(Some(_)));
            // It may have been given back since it was found.
            if !unions.mounted(&id)? && !elsewhere && references.clear(&id)? {
                self.note(format!("mnt/{id}"), "it was counted, and is not mounted", "set it to 0");
            }
        }
        Ok(())
    }

    /// Keeps what was done for the next check to tell.
    pub(super) fn note(&self, place: String, what: &str, repair: &str) {
        let (what, repair) = (what.to_owned(), repair.to_owned());
        self.keep(Finding { place, what, repair, repaired: true, passing: false });
    }

    fn keep(&self, finding: Finding) {
        self.recovered.lock().unwrap_or_else(PoisonError::into_inner).push(finding);
    }

    /// What was mended when the store was opened, once.
    pub(crate) fn take_recovered(&self) -> Vec<Finding> {
        std::mem::take(&mut self.recovered.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
