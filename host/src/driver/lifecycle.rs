//! The calls that move no content: create, remove, get, put, exists, list, status, metadata, cleanup.

use std::path::PathBuf;
use std::time::Duration;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use layerbox_privileged::references::References;

use super::{Driver, LayerSummary, Metadata, Settled, layer_id, require_root};
use crate::error::{Error, Escaped, Failure};
use crate::sandbox::{Access, Change, FREE_EXPANSION, lifecycle::Place};
use crate::store::lock::Mode;
use crate::store::record::Record;

/// The key of the exact bytes of the root in the answer of `status`, where they are not UTF-8: for programs.
pub(crate) const HEXADECIMAL_ROOT: &str = "Root Dir_hex";

impl Driver {
    /// Makes an empty layer on `parent`.
    ///
    /// # Errors
    ///
    /// [`Failure::Exists`], [`Failure::NoSuchParent`], [`Failure::InvalidId`], [`Failure::TooDeep`];
    /// [`Failure::Occupied`] where content without a record lies in the layer's place. Nothing was made then.
    pub fn create(&self, id: &str, parent: Option<&str>) -> Result<(), Error> {
        self.call("create", id, |id| {
            require_root("making layers")?;
            let parent = parent.map(layer_id).transpose()?;
            if parent.as_ref() == Some(id) {
                return Err(Failure::NoSuchParent(id.to_string()));
            }
            let _guard = self.lock(id, Mode::Exclusive)?;
            // Shared: the parent cannot be removed before its child is there, and can have other children
            // meanwhile.
            let _parent_guard = parent.as_ref().map(|parent| self.lock(parent, Mode::Shared)).transpose()?;
            if self.store.record(id)?.is_some() {
                return Err(Failure::Exists);
            }
            let record = match &parent {
                Some(parent) => self.child_record(parent)?,
                None => Record::default(),
            };
            let depth = self.unions.depth_limit();
            if record.ancestors.len() > depth as usize {
                return Err(Failure::TooDeep(depth));
            }
            // What fails below is undone, and everything of the layer goes with it: it must be nothing but
            // what is made here.
            self.store.require_room(id)?;
            self.store.announce(id)?;
            let made = self
                .make(id, parent.as_ref(), depth, &record)
                .map_err(|failure| self.explain_by_file_system(failure));
            made.inspect_err(|_| {
                // What cannot be undone now is undone when the store is next opened: the intent is on record.
                drop(self.store.undo_create(id, parent.as_ref()));
            })
        })
    }

    /// The record of a new child.
    fn child_record(&self, parent: &LayerId) -> Result<Record, Failure> {
        let above = self.store.record(parent)?.ok_or_else(|| Failure::NoSuchParent(parent.to_string()))?;
        let mut ancestors = Vec::with_capacity(above.ancestors.len() + 1);
        ancestors.push(parent.clone());
        ancestors.extend(above.ancestors);
        Ok(Record { ancestors, ..Record::default() })
    }

    fn make(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
        depth: u32,
        record: &Record,
    ) -> Result<(), Failure> {
        let lease = self.lease(Access::Write).making(id.clone());
        let parent = parent.map(LayerId::to_string);
        self.sandbox.run(lease, |guest, call| guest.create(call, &id.to_string(), parent.as_ref(), depth))?;
        // The list of ancestors decides what later calls see; the component must not get it wrong.
        if !self.store.is_recorded(id, record) {
            return Err(Failure::GuestFailed("it did not write the ancestors that the layer has".to_owned()));
        }
        if !self.store.has_directories(id) {
            return Err(Failure::GuestFailed("it did not make the layer's directories".to_owned()));
        }
        self.store.sync_made(id, record)?;
        self.store.commit(id, record)?;
        self.store.conclude(id)
    }

    /// Removes a layer; with `force` it is unmounted first, whoever uses it.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`], [`Failure::Busy`], [`Failure::HasChildren`]; the layer is as it was then.
    pub fn remove(&self, id: &str, force: bool) -> Result<(), Error> {
        self.call("remove", id, |id| {
            require_root("removing layers")?;
            // Before anything is unmounted for it.
            self.store.require_writable()?;
            let guard = self.lock(id, Mode::Exclusive)?;
            let record = self.store.existing(id)?;
            let lease = self.lease(Access::Write).discarding(id.clone());
            let lease = lease.unions(self.unions(Some(id), Change::Remove { force }));
            let removed = self.sandbox.run(lease, |guest, call| guest.remove(call, &id.to_string(), force));
            let is_left = self.store.record(id)?.is_some();
            let ended = if is_left {
                self.correct_count(id);
                self.store.restore_ancestors(id, &record)
            } else {
                let undone = self.store.undo_make(id, record.ancestors.first());
                undone.and_then(|()| self.store.sync_layers())
            };
            removed?;
            ended?;
            if is_left {
                return Err(Failure::GuestFailed("it did not remove the layer".to_owned()));
            }
            drop(guard);
            self.sweep(Some(id))
        })
    }

    /// Makes the whole tree of a layer visible, and answers where.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; [`Failure::MountFailed`], with the count as it was.
    pub fn get(&self, id: &str, label: Option<&str>) -> Result<PathBuf, Error> {
        self.call("get", id, |id| {
            require_root("mounting")?;
            let _guards = self.lock_to_mount(id)?;
            let record = self.store.existing(id)?;
            // From now on the layer can change.
            self.store.forget_size(id, &record)?;
            let mut stack = vec![id.clone()];
            stack.extend(record.ancestors.iter().cloned());
            let (label_lent, branches) =
                (label.map(str::to_owned), record.ancestors.iter().cloned().collect());
            let change = Change::Get { label: label_lent, branches };
            // The layer may be mounted already, and whoever uses it at work.
            let lease = self.lease(Access::Read).trees(stack.clone(), stack);
            let lease = lease.unions(self.unions(Some(id), change));
            let got = self.sandbox.run(lease, |guest, call| guest.get(call, &id.to_string(), label));
            let (place, _) = got.map_err(|failure| {
                // The error to tell is the first one; a mount that stays behind is found by the next get.
                drop(self.unmount_unused(id));
                self.explain_mount_failure(failure)
            })?;
            match place {
                Place::Content => Ok(self.store.content_path(id)),
                Place::Merged if self.is_mounted(id)? => Ok(self.store.mount_point(id)),
                Place::Merged => Err(Failure::GuestFailed("it did not mount the layer".to_owned())),
            }
        })
    }

    /// Says of a mount that failed that the store cannot be written, or that the kernel has no aufs, where
    /// that is so: then the store can be converted.
    fn explain_mount_failure(&self, failure: Failure) -> Failure {
        if let Failure::MountFailed { .. } = failure
            && let Err(read_only) = self.store.require_writable()
        {
            return read_only;
        }
        let is_aufs = self.store.format().backend() == Backend::Aufs;
        match failure {
            Failure::Unsupported(_) | Failure::MountFailed { .. } if is_aufs && !self.unions.available() => {
                Failure::NoAufs
            }
            other => other,
        }
    }

    /// Counts one get more of a layer that is got already, and answers the path of its mount. None where it
    /// is not got, and where that cannot be told at once: then [`Driver::get`] has the answer. Neither the
    /// component nor anything that a stranger wrote has a part in it.
    pub fn get_again(&self, id: &str) -> Option<PathBuf> {
        self.count_at_once(id, References::acquire_more).map(|id| self.store.mount_point(&id))
    }

    /// Ends one get of a layer that is got more than once. None as for [`Driver::get_again`]; then
    /// [`Driver::put`] does it.
    pub fn put_one_of_many(&self, id: &str) -> Option<()> {
        self.count_at_once(id, References::release_one_of_many).map(drop)
    }

    /// Writes over the count of a layer that is mounted and that nobody works on. None, with nothing changed,
    /// where that is not so or cannot be told at once.
    fn count_at_once(
        &self,
        id: &str,
        count: impl FnOnce(&References, &LayerId) -> Result<Option<u32>, layerbox_privileged::Error>,
    ) -> Option<LayerId> {
        let id = layer_id(id).ok()?;
        let _unlocked = self.store.unlocked(&id)?;
        let counted = self.unions.mounted_at_once(&id) && count(&self.references, &id).ok()?.is_some();
        counted.then_some(id)
    }

    /// Takes away the mount of a layer that nobody was told of.
    fn unmount_unused(&self, id: &LayerId) -> Result<(), Failure> {
        if self.unions(Some(id), Change::Put).count(id)? == 0 {
            self.unions.unmount(id, false)?;
        }
        Ok(())
    }

    /// Takes away the count of a layer that was unmounted before something failed.
    fn correct_count(&self, id: &LayerId) {
        // The error to tell is the first one; a count without a mount counts nothing in any case.
        drop(self.unions(Some(id), Change::Put).count(id));
    }

    /// Ends one get; the last one unmounts.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; [`Failure::Busy`], with the count as it was.
    pub fn put(&self, id: &str) -> Result<(), Error> {
        self.call("put", id, |id| {
            require_root("unmounting")?;
            let _guards = self.lock_to_mount(id)?;
            self.store.existing(id)?;
            let lease = self.lease(Access::Read).unions(self.unions(Some(id), Change::Put));
            let put = self.sandbox.run(lease, |guest, call| guest.put(call, &id.to_string()));
            put.inspect_err(|_| self.correct_count(id))?;
            Ok(())
        })
    }

    /// Whether there is such a layer.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidId`].
    pub fn exists(&self, id: &str) -> Result<bool, Error> {
        self.call("exists", id, |id| {
            let lease = self.lease(Access::Read);
            let (exists, _) = self.sandbox.run(lease, |guest, call| guest.exists(call, &id.to_string()))?;
            Ok(exists)
        })
    }

    /// All layers, in the order of their ids.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn list(&self) -> Result<Vec<LayerSummary>, Error> {
        let list = || -> Result<Vec<LayerSummary>, Failure> {
            let lease = self.lease(Access::Read);
            let (layers, _) = self.sandbox.run(lease, |guest, call| guest.list(call))?;
            let filled = self.store.being_filled(|_| true)?;
            let mut summaries = Vec::with_capacity(layers.len());
            for layer in layers {
                let id = layer_id(&layer.id)?;
                let record = self.store.record(&id)?;
                summaries.push(LayerSummary {
                    parent: layer.ancestors.first().map(|parent| layer_id(parent)).transpose()?,
                    size: record.as_ref().and_then(|record| record.size).map(|size| size.bytes),
                    mounts: self.count(&id)?,
                    state: state(record.as_ref(), filled.contains(&id)),
                    id,
                });
            }
            Ok(summaries)
        };
        list().map_err(|failure| failure.during("list", None))
    }

    /// Rows about the store: Docker's four first, then ours.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn status(&self) -> Result<Vec<(String, String)>, Error> {
        let status = || -> Result<Vec<(String, String)>, Failure> {
            let lease = self.lease(Access::Read).unions(self.unions(None, Change::Nothing));
            let (theirs, _) = self.sandbox.run(lease, |guest, call| guest.status(call))?;
            let root = self.store.root().as_os_str().as_encoded_bytes();
            let mut rows = match std::str::from_utf8(root) {
                Ok(text) => vec![("Root Dir".to_owned(), text.to_owned())],
                Err(_) => vec![
                    ("Root Dir".to_owned(), Escaped(root).to_string()),
                    (HEXADECIMAL_ROOT.to_owned(), root.iter().map(|byte| format!("{byte:02x}")).collect()),
                ],
            };
            let features = self.unions.features();
            let docker = |key: &str| key == "Backing Filesystem" || key == "Dirperm1 Supported";
            rows.extend(features.iter().filter(|(key, _)| key == "Backing Filesystem").cloned());
            rows.extend(theirs.iter().filter(|(key, _)| key == "Dirs").cloned());
            rows.extend(features.iter().filter(|(key, _)| key == "Dirperm1 Supported").cloned());
            let backend = self.store.format().backend();
            rows.push(("Backend".to_owned(), backend.as_str().to_owned()));
            rows.push(("Dialect".to_owned(), backend.as_str().to_owned()));
            rows.extend(features.into_iter().filter(|(key, _)| !docker(key)));
            rows.extend(theirs.into_iter().filter(|(key, _)| key != "Dirs" && key != "Mounted"));
            let ids = self.store.ids()?;
            rows.push(("Layers".to_owned(), ids.len().to_string()));
            // Only those that `apply-diff --no-sync` filled: a power cut may have left them with holes.
            let unsynced =
                |id: &&LayerId| matches!(self.store.record(id), Ok(Some(record)) if record.unsynced);
            let unsynced = ids.iter().filter(unsynced).count();
            rows.push(("Applied Without Sync".to_owned(), unsynced.to_string()));
            rows.push(("Mounts".to_owned(), self.unions.all()?.len().to_string()));
            rows.push(("Guest Digest".to_owned(), self.sandbox.digest().to_string()));
            let limits = self.sandbox.limits();
            rows.push(("Depth Limit".to_owned(), format!("{} ancestors", self.unions.depth_limit())));
            rows.push(("Memory Limit".to_owned(), format!("{} bytes a call", limits.memory)));
            rows.push((
                "Time Limit".to_owned(),
                format!("{} s of the component a call", limits.guest_time.as_secs()),
            ));
            rows.push((
                "Host Time Limit".to_owned(),
                format!("{} s of the host for a call", limits.host_time.as_secs()),
            ));
            rows.push(("Handle Limit".to_owned(), format!("{} open in a call", limits.handles)));
            rows.push(("Entry Limit".to_owned(), format!("{} an archive", limits.entries)));
            rows.push(("Byte Limit".to_owned(), format!("{} bytes an archive", limits.bytes)));
            rows.push((
                "Expansion Limit".to_owned(),
                format!("{} times an archive, beyond {FREE_EXPANSION} bytes", limits.expansion),
            ));
            let time = |time: Option<Duration>| match time {
                Some(time) => format!("{} s", time.as_secs()),
                None => "none".to_owned(),
            };
            rows.push(("Stall Time Limit".to_owned(), time(limits.stall_time)));
            rows.push(("Total Time Limit".to_owned(), time(limits.total_time)));
            rows.push((
                "Device Nodes".to_owned(),
                if self.devices { "allowed" } else { "refused" }.to_owned(),
            ));
            Ok(rows)
        };
        status().map_err(|failure| failure.during("status", None))
    }

    /// How many layers there are, and how many of them are mounted: the host's own records, which need no
    /// instance.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn counts(&self) -> Result<(usize, usize), Error> {
        let counts = || Ok((self.store.ids()?.len(), self.unions.all()?.len()));
        counts().map_err(|failure: Failure| failure.during("status", None))
    }

    /// All about one layer.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`].
    pub fn metadata(&self, id: &str) -> Result<Metadata, Error> {
        self.call("metadata", id, |id| {
            let lease = self.lease(Access::Read).unions(self.unions(None, Change::Nothing));
            let (layer, _) = self.sandbox.run(lease, |guest, call| guest.metadata(call, &id.to_string()))?;
            let ancestors =
                layer.ancestors.iter().map(|id| layer_id(id)).collect::<Result<Vec<_>, Failure>>()?;
            let record = self.store.record(id)?;
            let size = record.as_ref().and_then(|record| record.size);
            Ok(Metadata {
                id: id.clone(),
                ancestors,
                size: size.map(|size| size.bytes),
                entries: size.map(|size| size.entries),
                mounts: self.count(id)?,
                state: state(record.as_ref(), !self.store.being_filled(|filled| filled == id)?.is_empty()),
                content: self.store.content_path(id),
                mount_point: self.store.mount_point(id),
                work: self.store.work_path(id),
            })
        })
    }

    /// Gives back what a client got that has forgotten it, and answers what came of it. Of a layer that
    /// `remembered` knows (it is told the layer and its ancestors, the parent first) one get stays counted,
    /// whatever was counted before: the client finds it mounted, and gives it back once.
    ///
    /// # Errors
    ///
    /// Those of reading and writing the counts.
    pub fn settle(&self, remembered: impl Fn(&LayerId, &[LayerId]) -> bool) -> Result<Settled, Error> {
        let settle = || -> Result<Vec<LayerId>, Failure> {
            let mut forgotten = Vec::new();
            for (id, _) in self.references.all()? {
                {
                    let _guards = self.lock_to_mount(&id)?;
                    self.references.settle(&id)?;
                }
                // Of a layer whose metadata cannot be read nothing is known, and it stays as it is.
                if self.metadata(id.as_str()).is_ok_and(|layer| !remembered(&id, &layer.ancestors)) {
                    forgotten.push(id);
                }
            }
            Ok(forgotten)
        };
        let forgotten = settle().map_err(|failure| failure.during("settle", None))?;
        let mut settled = Settled::default();
        for id in forgotten {
            match self.put(id.as_str()) {
                Ok(()) => settled.given_back.push(id),
                Err(error) => settled.failed.push(error),
            }
        }
        Ok(settled)
    }

    /// Unmounts all that belongs to the store, and answers how many mounts that were.
    ///
    /// # Errors
    ///
    /// [`Failure::Busy`] for what could not be unmounted.
    pub fn cleanup(&self) -> Result<u32, Error> {
        let cleanup = || -> Result<u32, Failure> {
            require_root("unmounting")?;
            let lease = self.lease(Access::Read).unions(self.unions(None, Change::Cleanup));
            let cleaned = self.sandbox.run(lease, |guest, call| guest.cleanup(call));
            let (count, _) = cleaned.inspect_err(|_| {
                // As in `put`, for all of them.
                let counted = self.references.all().unwrap_or_default();
                counted.iter().for_each(|(id, _)| drop(self.unions(None, Change::Cleanup).count(id)));
            })?;
            self.sweep(None)?;
            Ok(count)
        };
        cleanup().map_err(|failure| failure.during("cleanup", None))
    }

    fn count(&self, id: &LayerId) -> Result<u32, Failure> {
        self.unions(None, Change::Nothing).count(id)
    }
}

fn state(record: Option<&Record>, is_being_filled: bool) -> &'static str {
    if record.is_some() && !is_being_filled { "complete" } else { "incomplete" }
}
