//! Layers that another program has added to `layers/` since, of which the host has no record.
//!
//! Docker's own driver does so, which knows nothing of `meta/` and `children/`, where it goes on with a store
//! that was taken over from it. Such a layer is taken over when the store is next opened; one of which that
//! cannot be done keeps its parent from being removed, until [`super::check`] has looked at it.
//!
//! To find them, the names in `layers/` are held against those in `meta/`. Only where `layers/` is not as a
//! call of ours has left it: that is on record on the tmpfs, so that opening a store does not take longer
//! when it has more layers.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use cap_std::fs::MetadataExt;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;

use super::Store;
use super::children::mark_child;
use super::files::{exists, ids_in};
use super::lock::{Guard, Mode};
use super::record::Record;
use super::runtime::LOCKS;
use crate::error::Failure;

/// The file on the tmpfs that says how a call of ours has left `layers/`.
const SEEN: &str = "layers";

/// What is known of the names in `layers/`.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// Whether all of them are ours.
    none: bool,
    /// Those that are not, by the layer that they lie on.
    on: BTreeMap<LayerId, LayerId>,
}

impl Store {
    /// Takes over what another program has added, where that is sound.
    ///
    /// # Errors
    ///
    /// Those of reading directories and of writing records.
    pub(super) fn recover_strays(&self) -> Result<(), Failure> {
        // Before the names are read: what changes meanwhile is seen the next time.
        let Some(now) = self.stamp() else { return Ok(()) };
        let mut strays = Strays { none: true, on: BTreeMap::new() };
        if std::fs::read_to_string(self.runtime.join(SEEN)).is_ok_and(|seen| seen == now) {
            self.set_strays(strays);
            return Ok(());
        }
        let named = ids_in(&self.dir, "layers")?;
        let known = ids_in(&self.dir, "meta")?;
        let mut found = Vec::new();
        for id in named.iter().filter(|id| known.binary_search(id).is_err()) {
            // Whoever works on it makes or removes it. A list that cannot be read is nobody's, and so is one
            // without content: `check` tells of them.
            if let Some(guard) = self.unclaimed(id)?
                && self.is_stray(id)?
                && let Ok(ancestors) = self.ancestors_on_disk(id)
            {
                found.push((ancestors, id, guard));
            }
        }
        let writable = !self.is_read_only();
        // Parents first.
        found.sort_by_key(|(ancestors, ..)| ancestors.len());
        for (ancestors, id, _guard) in found {
            let parent = ancestors.first().cloned();
            let record = Record { ancestors, ..Record::default() };
            if self.format.backend() == Backend::Aufs && writable && self.take_in(id, &record)? {
                self.note(
                    format!("layers/{id}"),
                    "another program has added the layer",
                    "write a record of it",
                );
            } else {
                strays.none = false;
                strays.on.extend(parent.map(|parent| (parent, id.clone())));
            }
        }
        if strays.none {
            self.write_seen(&now);
        }
        self.set_strays(strays);
        Ok(())
    }

    /// Whether a list of ancestors has content and no record, and is not left of a call that was cut off.
    fn is_stray(&self, id: &LayerId) -> Result<bool, Failure> {
        let content = self.dir.symlink_metadata(format!("diff/{id}")).is_ok_and(|found| found.is_dir());
        Ok(content && self.lacks_record(id)?)
    }

    /// Whether a list of ancestors has no record, and is not left of a call that was cut off.
    pub(super) fn lacks_record(&self, id: &LayerId) -> Result<bool, Failure> {
        let has = |kind: &str| exists(&self.dir, &format!("{kind}/{id}"));
        Ok(has("layers")? && !has("meta")? && !has("pending")?)
    }

    /// Writes the record of a layer; false, with nothing changed, where its ancestors are not its parent and
    /// that one's own, or somebody works on that.
    fn take_in(&self, id: &LayerId, record: &Record) -> Result<bool, Failure> {
        let mut _guard = None;
        if let Some(parent) = record.ancestors.first() {
            let claim = self.claims.claim(parent);
            match Guard::layer(&self.runtime.join(LOCKS), claim, Mode::Shared, Duration::ZERO) {
                Ok(guard) => _guard = Some(guard),
                Err(Failure::Locked(_)) => return Ok(false),
                Err(other) => return Err(other),
            }
            match self.record(parent) {
                Ok(Some(above)) if above.ancestors == record.ancestors[1..] => {}
                _ => return Ok(false),
            }
            mark_child(&self.dir, parent, id)?;
            self.sync_directory(&format!("children/{parent}"))?;
            self.sync_directory("children")?;
        }
        record.write(&self.dir, id)?;
        Ok(true)
    }

    /// Notes how a call of ours leaves `layers/`.
    pub(super) fn see_layers(&self) {
        let strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        if strays.none
            && let Some(now) = self.stamp()
        {
            self.write_seen(&now);
        }
    }

    /// A layer without a record that says to lie on this one.
    ///
    /// # Errors
    ///
    /// Those of looking whether it is still there.
    pub(super) fn stray_on(&self, id: &LayerId) -> Result<Option<LayerId>, Failure> {
        let stray = self.strays.lock().unwrap_or_else(PoisonError::into_inner).on.get(id).cloned();
        match stray {
            Some(stray) if self.is_stray(&stray)? => Ok(Some(stray)),
            _ => Ok(None),
        }
    }

    fn set_strays(&self, strays: Strays) {
        *self.strays.lock().unwrap_or_else(PoisonError::into_inner) = strays;
    }

    /// What is another one with every name that comes to `layers/` or goes, and that nobody can set.
    fn stamp(&self) -> Option<String> {
        let found = self.dir.symlink_metadata("layers").ok()?;
        Some(format!("{} {} {}.{:09}\n", found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
    }

    /// Where it is not written, the next opening looks at all names.
    fn write_seen(&self, stamp: &str) {
        drop(std::fs::write(self.runtime.join(SEEN), stamp));
    }
}
