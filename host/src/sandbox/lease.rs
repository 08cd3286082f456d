//! What a call is lent: the capability table of the driver, as one value.
//!
//! A lease is made by the driver before the call and dies with it. Every import asks it first, and answers
//! `denied` where it says no. It names layers by id; paths and descriptors stay in the host.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use layerbox_privileged::Error;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Filler, Room, Tree};
use layerbox_privileged::mount::{Backend, Unions};
use layerbox_privileged::node::Totals;
use layerbox_privileged::references::References;
use layerbox_privileged::stream::{Sink, Source};

use super::{FREE_EXPANSION, Limits, types};
use crate::error::Failure;
use crate::store::Store;

/// How `/layers` is lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// To read.
    Read,
    /// To read and write: to the calls that make and remove layers.
    Write,
}

/// How far the filling of a layer is, to be read from another thread.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries that were put.
    pub entries: AtomicU64,
    /// Entries that got another time than theirs, the nearest that the file system can hold; known at the
    /// end.
    pub clamped: AtomicU64,
}

impl Progress {
    /// What is to be said of a layer that was filled; nothing where all is as the archive has it.
    pub fn said(&self) -> Option<String> {
        let clamped = self.clamped.load(Ordering::Relaxed);
        let entries = if clamped == 1 { "entry has" } else { "entries have" };
        (clamped > 0)
            .then(|| format!("{clamped} {entries} the nearest time to theirs that this file system can hold"))
    }
}

/// What one call is lent.
#[derive(Debug)]
pub struct Lease {
    pub(super) layers: Access,
    pub(super) store: Arc<Store>,
    pub(super) trees: BTreeSet<LayerId>,
    pub(super) live: BTreeSet<LayerId>,
    /// Those of the trees that were opened. However many handles there are of one, it is one.
    open: BTreeMap<LayerId, Arc<Tree>>,
    /// What the walks of the call may hold in memory.
    room: Arc<Room>,
    pub(super) filler: Option<(LayerId, Filler)>,
    pub(super) filled: Option<Totals>,
    pub(super) progress: Arc<Progress>,
    pub(super) expansion: u64,
    pub(super) source: Option<Source>,
    pub(super) sink: Option<Sink>,
    pub(super) making: Option<LayerId>,
    pub(super) discarding: Option<LayerId>,
    pub(super) unions: Option<UnionLease>,
    pub(super) limits: Option<Limits>,
}

/// Mounts and reference counts that a call is lent.
#[derive(Debug, Clone)]
pub struct UnionLease {
    /// The mounts of the store.
    pub unions: Arc<Unions>,
    /// The counts of the store.
    pub references: Arc<References>,
    /// The layer whose mount and count may be changed; none for a call over all of them.
    pub target: Option<LayerId>,
    /// What may be changed of them.
    pub change: Change,
}

impl UnionLease {
    /// The count of a layer. A count without a mount belongs to a mount that somebody else took away: it
    /// counts nothing, and is cleared where counts may be changed. Or to one in another mount namespace or by
    /// way of another mount of the store, which cannot be changed from here.
    ///
    /// # Errors
    ///
    /// Those of reading the count and of asking for the mount; [`Failure::Busy`] where the count may be
    /// changed, and the mount is in a namespace in which somebody lives, or at another path.
    pub fn count(&self, id: &LayerId) -> Result<u32, Failure> {
        let count = self.references.count(id)?;
        if count > 0 && !self.unions.mounted(id)? {
            if let Some(place) = self.references.elsewhere(id)? {
                let what = || format!("it is mounted {place}");
                return if self.change == Change::Nothing { Ok(count) } else { Err(Failure::Busy(what())) };
            }
            if self.change != Change::Nothing {
                self.references.clear(id)?;
            }
            return Ok(0);
        }
        Ok(count)
    }
}

/// What a call may change of mounts and counts. A component that does other than its call is for gets no
/// further than this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// They may only be asked for.
    Nothing,
    /// The layer may be mounted, with this label, over these of its ancestors, and counted once more.
    Get {
        /// The label that the caller named.
        label: Option<String>,
        /// The layers that may be branches below it.
        branches: BTreeSet<LayerId>,
    },
    /// One user less may be counted, and the layer unmounted if that was the last.
    Put,
    /// The layer may be unmounted; with `force` whoever uses it.
    Remove {
        /// Whether users are passed over: those that are counted, and files that are open in the union.
        force: bool,
    },
    /// What is mounted may be unmounted, whoever is counted, unless files are open in it.
    Cleanup,
}

impl Lease {
    /// A lease of `/layers` and nothing else.
    pub fn new(store: Arc<Store>, layers: Access) -> Lease {
        Lease {
            layers,
            store,
            trees: BTreeSet::new(),
            live: BTreeSet::new(),
            open: BTreeMap::new(),
            room: Arc::default(),
            filler: None,
            filled: None,
            progress: Arc::default(),
            expansion: u64::MAX,
            source: None,
            sink: None,
            making: None,
            discarding: None,
            unions: None,
            limits: None,
        }
    }

    /// Bounds the call by these limits instead of the sandbox's.
    pub fn within(mut self, limits: Limits) -> Lease {
        self.limits = Some(limits);
        self
    }

    /// Also lends layers to read. Those in `live` may change while they are read.
    pub fn trees(
        mut self,
        ids: impl IntoIterator<Item = LayerId>,
        live: impl IntoIterator<Item = LayerId>,
    ) -> Lease {
        self.trees.extend(ids);
        self.live.extend(live);
        self
    }

    /// Also lends a layer to fill, and the stream that it is filled from.
    pub fn filling(mut self, id: LayerId, filler: Filler, source: Source) -> Lease {
        self.filler = Some((id, filler));
        self.source = Some(source);
        self
    }

    /// Tells how far the filling is.
    pub fn telling(mut self, progress: Arc<Progress>) -> Lease {
        self.progress = progress;
        self
    }

    /// Bounds what is filled to so many times what was read ([`super::Limits::expansion`]).
    pub fn expanding(mut self, times: u64) -> Lease {
        self.expansion = times;
        self
    }

    /// Holds what was filled to what was read. More ends the filling, so that a component which goes on does
    /// not get further.
    pub(super) fn check_expansion(&mut self) -> Result<(), Failure> {
        let (Some((_, filler)), Some(source)) = (&mut self.filler, &self.source) else { return Ok(()) };
        let (written, read) = (filler.written(), source.bytes_read());
        let allowed = read.saturating_mul(self.expansion).saturating_add(FREE_EXPANSION);
        if written > allowed {
            let bound =
                format!("expansion ({} times the archive: {written} bytes of {read})", self.expansion);
            let error = Error::Limit { entry: None, bound };
            filler.fail(&error);
            return Err(error.into());
        }
        Ok(())
    }

    /// How many bytes of an archive were written.
    pub(super) fn written(&self) -> u64 {
        self.sink.as_ref().map_or(0, Sink::bytes_written)
    }

    /// How long the bytes of archives and files were moved and waited for.
    pub(super) fn waited(&self) -> Duration {
        let filled = self.filler.as_ref().map(|(_, filler)| filler.waited());
        let read = self.source.as_ref().map(Source::waited);
        let written = self.sink.as_ref().map(Sink::waited);
        [filled, read, written].into_iter().flatten().sum()
    }

    /// Also lends the stream that goes out.
    pub fn writing_to(mut self, sink: Sink) -> Lease {
        self.sink = Some(sink);
        self
    }

    /// Also lends the making of one layer's directories.
    pub fn making(mut self, id: LayerId) -> Lease {
        self.making = Some(id);
        self
    }

    /// Also lends the discarding of one layer's directories.
    pub fn discarding(mut self, id: LayerId) -> Lease {
        self.discarding = Some(id);
        self
    }

    /// Also lends mounts and counts.
    pub fn unions(mut self, unions: UnionLease) -> Lease {
        self.unions = Some(unions);
        self
    }

    /// What the filled layer holds; none where it was not finished.
    pub(super) fn filled(&self) -> Option<Totals> {
        self.filled
    }

    /// Ends the call: work under way is waited for, what is buffered is written.
    pub(super) fn close(&mut self) -> Result<(), Failure> {
        self.filler = None;
        match self.sink.take() {
            Some(mut sink) => Ok(sink.flush()?),
            None => Ok(()),
        }
    }

    /// Opens a layer for reading.
    pub(super) fn open_tree(&mut self, id: &LayerId) -> Result<Arc<Tree>, Failure> {
        if !self.trees.contains(id) {
            return Err(Failure::Denied(format!("the tree of layer {id}")));
        }
        if let Some(open) = self.open.get(id) {
            return Ok(open.clone());
        }
        let tree = Tree::new(self.store.content(id)?, self.live.contains(id));
        let tree = Arc::new(tree.within(self.room.clone()));
        self.open.insert(id.clone(), tree.clone());
        Ok(tree)
    }

    pub(super) fn dialect(&self) -> types::Dialect {
        match self.store.format().backend() {
            Backend::Aufs => types::Dialect::Aufs,
            Backend::Overlay => types::Dialect::Overlay,
            Backend::OverlayUser => types::Dialect::OverlayUser,
        }
    }

    /// Mounts and counts, to be asked.
    pub(super) fn querying(&self) -> Result<&UnionLease, Failure> {
        self.unions.as_ref().ok_or_else(|| Failure::Denied("mounts and reference counts".to_owned()))
    }

    /// Mounts and counts of one layer, to be changed.
    pub(super) fn changing(&self, id: &LayerId) -> Result<&UnionLease, Failure> {
        let lease = self.querying()?;
        let covered = lease.target.as_ref().is_none_or(|target| target == id);
        if lease.change == Change::Nothing || !covered {
            return Err(Failure::Denied(format!("the mount and the count of layer {id}")));
        }
        Ok(lease)
    }

    /// As that, for a call that mounts the layer.
    pub(super) fn mounting(&self, id: &LayerId) -> Result<&UnionLease, Failure> {
        let denied = || Failure::Denied(format!("mounting layer {id}"));
        let lease = self.changing(id)?;
        if matches!(lease.change, Change::Get { .. }) { Ok(lease) } else { Err(denied()) }
    }

    /// The count of the layer, for a call that may count so.
    pub(super) fn counting(&self, id: &LayerId, may: fn(&Change) -> bool) -> Result<&UnionLease, Failure> {
        let lease = self.changing(id)?;
        if may(&lease.change) {
            Ok(lease)
        } else {
            Err(Failure::Denied(format!("counting users of layer {id}")))
        }
    }

    /// Whether users of a layer may be passed over: those that are counted, up to so many, and files that are
    /// open in it.
    ///
    /// # Errors
    ///
    /// [`Failure::Denied`] for what is not lent at all, [`Failure::Busy`] where too many are counted, and
    /// where the layer would stay mounted for those who did.
    pub(super) fn unmounting(&self, id: &LayerId, force: bool) -> Result<&UnionLease, Failure> {
        let lease = self.changing(id)?;
        let users = match lease.change {
            Change::Remove { force: true } | Change::Cleanup => u32::MAX,
            Change::Put => 1,
            Change::Get { .. } | Change::Remove { force: false } | Change::Nothing => 0,
        };
        if force && lease.change != (Change::Remove { force: true }) {
            return Err(Failure::Denied(format!("unmounting layer {id} by force")));
        }
        if users < u32::MAX && lease.count(id)? > users {
            return Err(Failure::Busy("the layer is mounted for others".to_owned()));
        }
        if let Some(place) = lease.references.apart(id)? {
            return Err(Failure::Busy(format!("it is mounted {place} as well")));
        }
        Ok(lease)
    }
}
