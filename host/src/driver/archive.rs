//! The calls that move content: diff, apply-diff, changes, diff-size.

use std::io::{Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

pub use crate::sandbox::Progress;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Filler, Policy};
pub use layerbox_privileged::node::Totals;
use layerbox_privileged::stream::{Sink, Source};
use nix::poll::PollFlags;
use serde::{Deserialize, Serialize};

use super::patience::{self, Timed};
use super::writeback::Writeback;
use super::{ChangeKind, Changes, Driver, IdRange, Limits, layer_id, require_root};
use crate::error::{Error, Failure};
use crate::sandbox::differ;
use crate::sandbox::types;
use crate::sandbox::{Access, Lease, MOST_DIRECTORIES};
use crate::store::lock::{Guard, Mode};
use crate::store::record::{Record, Size};

/// What a diff wrote.
#[derive(Debug, Clone)]
pub struct DiffOutcome {
    /// What the archive holds.
    pub totals: Totals,
    /// Sockets that were left out, because an archive cannot hold them; the first 100.
    pub skipped: Vec<Vec<u8>>,
}

/// How an archive is applied.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Whether the layer must survive a power cut once the call has succeeded.
    pub sync: bool,
    /// Whether the archive may hold device nodes; none: as the store's settings say.
    pub devices: Option<bool>,
    /// Limits that are given for this call.
    pub given: CallLimits,
    /// Where it is told how far it is.
    pub progress: Arc<Progress>,
}

/// Limits that are given for one call. What is not given is as in the store's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallLimits {
    /// Bytes of linear memory for the component.
    pub memory: Option<usize>,
    /// Time in which the component itself runs.
    pub guest_time: Option<Duration>,
    /// Names that the archive may make.
    pub entries: Option<u64>,
    /// Bytes that it may write.
    pub bytes: Option<u64>,
    /// How many times its own size it may write.
    pub expansion: Option<u64>,
    /// Time without a byte of the archive.
    pub stall_time: Option<Duration>,
    /// Time of the archive in all.
    pub total_time: Option<Duration>,
}

impl CallLimits {
    /// These limits, and for the rest others.
    pub(crate) fn over(&self, limits: &Limits) -> Limits {
        let mut limits = limits.clone();
        if let Some(time) = self.guest_time {
            limits.set_guest_time(time);
        }
        limits.memory = self.memory.unwrap_or(limits.memory);
        limits.entries = self.entries.unwrap_or(limits.entries);
        limits.bytes = self.bytes.unwrap_or(limits.bytes);
        limits.expansion = self.expansion.unwrap_or(limits.expansion);
        limits.stall_time = self.stall_time.or(limits.stall_time);
        limits.total_time = self.total_time.or(limits.total_time);
        limits
    }
}

/// What an archive is held to before its layer is shown.
pub struct Acceptance {
    /// Where a packed archive goes as it is unpacked. Of a plain one nothing comes here.
    pub unpacked: Box<dyn Write + Send>,
    /// Asked when all was read: whether the archive is what it was said to be.
    pub accept: Box<dyn FnOnce() -> Result<(), Failure> + Send>,
}

impl std::fmt::Debug for Acceptance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptance").finish_non_exhaustive()
    }
}

impl Driver {
    /// Writes the archive of a layer's own content to `out`; with a `parent` that is not the layer's own, of
    /// the difference between their whole trees. On an error what was written is worthless.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; those of reading the layer and writing the archive.
    pub fn diff(&self, id: &str, parent: Option<&str>, out: OwnedFd) -> Result<DiffOutcome, Error> {
        // Whoever handed it over may have made it non-blocking.
        let polled = out.try_clone().map_err(|error| Failure::io("duplicate a descriptor", &error));
        let polled = polled.map_err(|failure| failure.during("diff", LayerId::new(id).ok().as_ref()))?;
        let ready = move || patience::wait(polled.as_fd(), PollFlags::POLLOUT);
        self.diff_into(id, parent, Sink::watched(out, Box::new(ready))).map(|(outcome, _)| outcome)
    }

    /// As [`Driver::diff`], into a sink; answers also how many bytes the archive has.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::diff`].
    pub(crate) fn diff_into(
        &self,
        id: &str,
        parent: Option<&str>,
        out: Sink,
    ) -> Result<(DiffOutcome, u64), Error> {
        self.reading_call("diff", id, |id| {
            let comparison = self.comparison(id, parent)?;
            let own = comparison.is_own();
            let (lease, _guards) = self.reading(id, &comparison, !own)?;
            let lease = lease.writing_to(out);
            let other = comparison.other.as_ref().map(LayerId::to_string);
            let (outcome, leftovers) = self.sandbox.run(lease, |guest, call| {
                guest.diff(call, &id.to_string(), other.as_ref(), &self.owners())
            })?;
            let totals = Totals { entries: outcome.totals.entries, bytes: outcome.totals.bytes };
            Ok((DiffOutcome { totals, skipped: outcome.skipped }, leftovers.written))
        })
    }

    /// What differs between `parent` (by default the layer's own) and the layer, sorted by path.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; those of reading the layers.
    pub fn changes(&self, id: &str, parent: Option<&str>) -> Result<Changes, Error> {
        self.reading_call("changes", id, |id| {
            let comparison = self.comparison(id, parent)?;
            let (lease, _guards) = self.reading(id, &comparison, true)?;
            let other = comparison.other.as_ref().map(LayerId::to_string);
            let (changes, _) = self
                .sandbox
                .run(lease, |guest, call| guest.changes(call, &id.to_string(), other.as_ref()))?;
            let kind = |kind| match kind {
                types::ChangeKind::Modified => ChangeKind::Modified,
                types::ChangeKind::Added => ChangeKind::Added,
                types::ChangeKind::Deleted => ChangeKind::Deleted,
            };
            let entries = changes.entries.into_iter().map(|(length, of)| (length, kind(of)));
            Changes::packed(changes.names, entries).ok_or_else(|| {
                Failure::GuestFailed("the names of its changes are not as long as it says".to_owned())
            })
        })
    }

    /// What the layer's own content adds up to: known since apply-diff while the layer was not got, else
    /// counted.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; those of reading the layer.
    pub fn diff_size(&self, id: &str, parent: Option<&str>) -> Result<Totals, Error> {
        self.reading_call("diff-size", id, |id| {
            let record = self.store.existing(id)?;
            let parent = parent.map(str::to_owned);
            if let Some(parent) = &parent {
                self.store.existing(&layer_id(parent)?)?;
            }
            if let Some(size) = record.size {
                return Ok(Totals { entries: size.entries, bytes: size.bytes });
            }
            let comparison = Comparison { record, other: None, other_record: None };
            let (lease, _guards) = self.reading(id, &comparison, false)?;
            let (totals, _) = self
                .sandbox
                .run(lease, |guest, call| guest.diff_size(call, &id.to_string(), parent.as_ref()))?;
            Ok(Totals { entries: totals.entries, bytes: totals.bytes })
        })
    }

    /// Fills an empty layer from an archive: plain, gzip or zstd. All or nothing: when it fails, the layer is
    /// empty as before.
    ///
    /// # Errors
    ///
    /// [`Failure::Conflict`] where the layer has content, or it or a layer above is mounted;
    /// [`Failure::Refused`] and [`Failure::Limit`] for what the archive holds; [`Failure::Io`].
    pub fn apply_diff(
        &self,
        id: &str,
        parent: Option<&str>,
        archive: Box<dyn Read + Send>,
        options: &ApplyOptions,
    ) -> Result<Totals, Error> {
        self.apply(id, parent, archive, options, None)
    }

    /// As [`Driver::apply_diff`], and only if the archive is what it is said to be.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::apply_diff`] and what [`Acceptance::accept`] answers; the layer is empty as before
    /// then.
    pub fn apply_tested(
        &self,
        id: &str,
        archive: Box<dyn Read + Send>,
        options: &ApplyOptions,
        acceptance: Acceptance,
    ) -> Result<Totals, Error> {
        self.apply(id, None, archive, options, Some(acceptance))
    }

    fn apply(
        &self,
        id: &str,
        parent: Option<&str>,
        archive: Box<dyn Read + Send>,
        options: &ApplyOptions,
        acceptance: Option<Acceptance>,
    ) -> Result<Totals, Error> {
        self.call("apply-diff", id, |id| {
            require_root("filling layers")?;
            let _guard = self.lock(id, Mode::Exclusive)?;
            let record = self.store.existing(id)?;
            if let Some(parent) = parent {
                let parent = layer_id(parent)?;
                self.store.existing(&parent)?;
                if record.ancestors.first() != Some(&parent) {
                    return Err(Failure::Conflict(format!("{parent} is not the layer's parent")));
                }
            }
            if self.is_mounted(id)? {
                return Err(Failure::Conflict("the layer is mounted".to_owned()));
            }
            if !self.store.vacate(id)? {
                return Err(Failure::Conflict("the layer has content already".to_owned()));
            }
            self.store.forget_size(id, &record)?;
            let filled = self.fill(id, parent, archive, options, acceptance);
            let totals =
                filled.map_err(|failure| self.explain_by_file_system(failure)).inspect_err(|_| {
                    // The first error is told. What cannot be taken away now is when the store is next
                    // opened.
                    drop(self.store.unstage(id));
                })?;
            let size = Some(Size { entries: totals.entries, bytes: totals.bytes });
            // The layer is whole and in its place. A disk too full to keep its size makes the next question
            // for that slower, not this call a failed one.
            drop(self.store.update(id, &Record { size, unsynced: !options.sync, ..record }));
            Ok(totals)
        })
    }

    fn fill(
        &self,
        id: &LayerId,
        parent: Option<&str>,
        archive: Box<dyn Read + Send>,
        options: &ApplyOptions,
        acceptance: Option<Acceptance>,
    ) -> Result<Totals, Failure> {
        let ApplyOptions { sync, devices, given, progress } = options;
        let limits = given.over(self.sandbox.limits());
        let devices = devices.unwrap_or(self.devices);
        let root = self.store.format().maps().root()?;
        let policy = Policy {
            root,
            devices,
            max_entries: limits.entries,
            max_directories: MOST_DIRECTORIES,
            max_bytes: limits.bytes,
        };
        let stage = self.store.stage(id)?;
        // In this order: whoever mounts a layer above looks into stage/ once it is mounted, so one of the two
        // sees the other.
        self.require_unmounted_above(id)?;
        let (writeback, archive): (_, Box<dyn Read + Send>) = if *sync {
            let stage = stage.try_clone().map_err(|e| Failure::io("dup", &e))?;
            let (writeback, noticed) = Writeback::begin(stage, archive)?;
            (Some(writeback), Box::new(noticed))
        } else {
            (None, archive)
        };
        let filler = Filler::new(stage, policy)?;
        let lease = self
            .lease(Access::Read)
            .filling(id.clone(), filler, Source::new(Box::new(Timed::new(archive, &limits))))
            .expanding(limits.expansion)
            .telling(progress.clone())
            .within(limits.clone());
        let (lease, accept) = match acceptance {
            Some(Acceptance { unpacked, accept }) => (lease.writing_to(Sink::new(unpacked)), Some(accept)),
            None => (lease, None),
        };
        let parent = parent.map(str::to_owned);
        let options = differ::ApplyOptions {
            devices,
            maps: self.owners(),
            max_entries: limits.entries,
            max_bytes: limits.bytes,
        };
        let (told, leftovers) = self
            .sandbox
            .run(lease, |guest, call| guest.apply_diff(call, &id.to_string(), parent.as_ref(), &options))?;
        let counted =
            leftovers.filled.ok_or_else(|| Failure::GuestFailed("it did not finish the layer".to_owned()))?;
        // The host's own count, but for the marks of deletions, which it cannot tell from entries and the
        // component can.
        let totals = Totals { entries: told.entries.min(counted.entries), bytes: counted.bytes };
        accept.map_or(Ok(()), |accept| accept())?;
        writeback.map_or(Ok(()), Writeback::finish)?;
        self.store.publish(id, *sync)?;
        Ok(totals)
    }

    /// Holds nothing that lies on a layer to be mounted: the layer gets another directory, which a union over
    /// it would not see. With its lock held, it gets no children meanwhile.
    fn require_unmounted_above(&self, id: &LayerId) -> Result<(), Failure> {
        if self.store.child(id)?.is_none() {
            return Ok(());
        }
        for above in self.unions.all()? {
            if self.store.record(&above)?.is_some_and(|record| record.ancestors.contains(id)) {
                return Err(Failure::Conflict(format!("layer {above}, which lies on it, is mounted")));
            }
        }
        Ok(())
    }

    /// The store's id maps, for the component.
    fn owners(&self) -> types::IdMaps {
        let ranges = |ranges: &[IdRange]| {
            let one = |range: &IdRange| types::IdRange {
                inside: range.inside,
                outside: range.outside,
                length: range.length,
            };
            ranges.iter().map(one).collect()
        };
        let maps = self.store.format().maps();
        types::IdMaps { uids: ranges(&maps.uids), gids: ranges(&maps.gids) }
    }

    /// Which layers a comparison is about.
    fn comparison(&self, id: &LayerId, parent: Option<&str>) -> Result<Comparison, Failure> {
        let record = self.store.existing(id)?;
        let other = parent.map(layer_id).transpose()?;
        let other_record = other.as_ref().map(|other| self.store.existing(other)).transpose()?;
        Ok(Comparison { record, other, other_record })
    }

    /// A lease of the layers that a comparison reads, and the locks on them. With `ancestors`, of those below
    /// as well.
    ///
    /// A layer may change while it is read unless its size is known: that is forgotten when the layer is
    /// mounted, or lent to an engine to be mounted, and when its directory itself is handed out.
    fn reading(
        &self,
        id: &LayerId,
        comparison: &Comparison,
        ancestors: bool,
    ) -> Result<(Lease, Vec<Guard>), Failure> {
        let (mut guards, mut live) = (Vec::new(), Vec::new());
        let mut lock = |id: &LayerId| -> Result<(), Failure> {
            let (held, is_live) = self.lock_to_read(id)?;
            guards.extend(held);
            live.extend(is_live.then(|| id.clone()));
            Ok(())
        };
        lock(id)?;
        let mut below = Vec::new();
        let mut trees = vec![id.clone()];
        if ancestors {
            below.extend(comparison.record.ancestors.iter().cloned());
            if let (Some(other), Some(record)) = (&comparison.other, &comparison.other_record) {
                if other != id && !comparison.record.ancestors.contains(other) {
                    lock(other)?;
                    trees.push(other.clone());
                }
                below.extend(record.ancestors.iter().cloned());
            }
        }
        // Of the layers below nobody knows so quickly whether they change. It makes a difference only where
        // content of them is sent.
        live.extend(below.iter().cloned());
        trees.extend(below);
        Ok((self.lease(Access::Read).trees(trees, live), guards))
    }
}

/// A layer and what it is compared with.
struct Comparison {
    record: Record,
    other: Option<LayerId>,
    other_record: Option<Record>,
}

impl Comparison {
    /// Whether the layer's own content is the answer: its own parent, or none, was named.
    fn is_own(&self) -> bool {
        self.other.is_none() || self.other.as_ref() == self.record.ancestors.first()
    }
}
