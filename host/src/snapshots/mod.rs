//! Snapshots, as containerd knows them: layers with names, labels, times and a kind.
//!
//! A snapshot is a layer of the driver. An active one is created on its parent; it is committed by a change
//! of the record alone. What an engine mounts by itself it is told by [`mounts`]; what it cannot (aufs, or
//! more layers than its options hold) the driver mounts, and the engine binds that.
//!
//! Names and layers agree after any crash: a name is recorded after its layer is made, and forgotten before
//! its layer is removed, so there are only ever layers too many. Their ids begin with the record's own token
//! ([`database::Database::prefix`]), and [`Snapshots::open`] removes them.

pub mod database;
mod disk;
pub mod error;
pub mod filter;
pub mod model;
pub mod mounts;
mod removal;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::driver::{DiskUsage, Driver};
use crate::error::{Error, Failure};
use database::{Database, Key};
use error::SnapshotError;
use filter::Filters;
use model::{Kind, Labels, Row, Scope, Snapshot, Time, Usage, without_empty};
use mounts::{Mount, bind, direct};
use removal::Removal;

type Result<T> = std::result::Result<T, SnapshotError>;

/// The snapshots of a store.
#[derive(Debug)]
pub struct Snapshots {
    /// Given back before the driver, with which the store may be closed.
    database: Arc<Database>,
    driver: Arc<Driver>,
    /// The number of the layer that is made next.
    next: AtomicU64,
    removal: Removal,
    /// Layers that may have a row or not.
    doubtful: Mutex<Vec<String>>,
}

/// What a new snapshot is to be.
#[derive(Debug, Clone)]
pub struct New {
    /// Its key.
    pub key: String,
    /// Its parent's name.
    pub parent: Option<String>,
    /// Its labels.
    pub labels: Labels,
    /// [`Kind::Active`] or [`Kind::View`].
    pub kind: Kind,
}

impl Snapshots {
    /// Opens the record of a store, made where there is none, and removes what a crash left.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn open(driver: Arc<Driver>) -> Result<Snapshots> {
        let database = driver.snapshots()?;
        database.serve();
        let prefix = database.prefix();
        let rows = database.read()?.all()?;
        let known: std::collections::BTreeSet<&str> =
            rows.iter().map(|(_, row)| row.layer.as_str()).collect();
        let removal = Removal::default();
        let mut next = 1;
        for id in driver.beginning(&prefix)? {
            let number = id.as_str().strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok());
            next = next.max(number.unwrap_or(0).saturating_add(1));
            if !known.contains(id.as_str()) {
                removal.add(id.to_string());
            }
        }
        let snapshots =
            Snapshots { driver, database, next: AtomicU64::new(next), removal, doubtful: Mutex::default() };
        // What cannot be removed now is tried again with the next removal.
        drop(snapshots.sweep());
        Ok(snapshots)
    }

    /// The driver of the store.
    pub fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Makes a snapshot, active or to be viewed, and says how it is mounted.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Exists`] for a key that is used; [`SnapshotError::NotFound`] for a parent that is not
    /// there, [`SnapshotError::Argument`] for one that is not committed.
    pub fn prepare(&self, scope: &Scope, new: New) -> Result<Vec<Mount>> {
        let New { key, parent, labels, kind } = new;
        // Where the row will be, and the parent's layer.
        let look = |change: &database::Change<'_>| -> Result<(Key, Option<String>)> {
            let place = change.vacant(scope, &key)?;
            let Some(parent) = &parent else { return Ok((place, None)) };
            // In the namespace of its parent, also where the call names none: else the parent could be
            // removed below it.
            let (above, layer) = self.parent(change, scope, parent)?;
            Ok((above.beside(&key), Some(layer)))
        };
        let parent_layer = look(&self.database.change()?)?.1;
        let layer = self.make(parent_layer.as_deref())?;
        let record = || -> Result<()> {
            let change = self.database.change()?;
            let (place, below) = look(&change)?;
            // Removed meanwhile, and made anew.
            if below != parent_layer {
                return Err(SnapshotError::NotFound(parent.clone().unwrap_or_default()));
            }
            let now = Time::now();
            let row = Row {
                layer: layer.clone(),
                kind,
                parent: parent.clone(),
                labels: without_empty(labels),
                created: now,
                updated: now,
                usage: None,
            };
            change.put(&place, &row)?;
            change.commit()
        };
        // Another call was faster, or the record cannot be written; the layer has no name and must go.
        record().inspect_err(|error| match error {
            SnapshotError::Record(_) | SnapshotError::Full(_) => self.doubt(layer.clone()),
            _ => self.removal.add(layer.clone()),
        })?;
        self.mounts_of(&layer, kind)
    }

    /// Makes a layer under the next number that is free.
    fn make(&self, parent: Option<&str>) -> Result<String> {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let layer = format!("{}{number}", self.database.prefix());
            match self.driver.create(&layer, parent) {
                Ok(()) => return Ok(layer),
                // Somebody at a command line has made one of this name. The snapshot is another thing, and
                // does not exist yet.
                Err(Error { failure: Failure::Exists, .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Has [`Snapshots::sweep`] remove a layer if it has no row: after an error of the disk only reading
    /// tells whether a change of the record was made.
    fn doubt(&self, layer: String) {
        self.doubtful.lock().unwrap_or_else(PoisonError::into_inner).push(layer);
    }

    /// Finds out about the layers of [`Snapshots::doubt`]; where the record cannot be read, the next time.
    fn settle(&self) -> Result<()> {
        let mut doubtful = self.doubtful.lock().unwrap_or_else(PoisonError::into_inner);
        if doubtful.is_empty() {
            return Ok(());
        }
        let rows = self.database.read()?.all()?;
        let named: std::collections::BTreeSet<&str> =
            rows.iter().map(|(_, row)| row.layer.as_str()).collect();
        let nameless = doubtful.drain(..).filter(|layer| !named.contains(layer.as_str()));
        nameless.for_each(|layer| self.removal.add(layer));
        Ok(())
    }

    /// Where a parent is and its layer. It must be committed.
    fn parent(&self, change: &database::Change<'_>, scope: &Scope, parent: &str) -> Result<(Key, String)> {
        let (place, row) = change.row(scope, parent)?;
        if row.kind != Kind::Committed {
            let what = format!("parent {parent:?} is not a committed snapshot");
            return Err(SnapshotError::Argument(what));
        }
        Ok((place, row.layer))
    }

    /// How an active snapshot or a view is mounted.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`]; [`SnapshotError::Precondition`] for a committed one.
    pub fn mounts(&self, scope: &Scope, key: &str) -> Result<Vec<Mount>> {
        let (_, row) = self.database.read()?.row(scope, key)?;
        if row.kind == Kind::Committed {
            let what = format!("snapshot {key} is neither active nor a view");
            return Err(SnapshotError::Precondition(what));
        }
        self.mounts_of(&row.layer, row.kind)
    }

    fn mounts_of(&self, layer: &str, kind: Kind) -> Result<Vec<Mount>> {
        let view = kind == Kind::View;
        let lent = self.driver.lend(layer, !view)?;
        let is_alone = lent.ancestors.is_empty();
        if (self.driver.is_overlay() || is_alone)
            && let Some(mount) = direct(&lent, view)
        {
            return Ok(vec![mount]);
        }
        // Got once, however often it is asked for.
        if self.driver.metadata(layer)?.mounts == 0 {
            self.driver.get(layer, None)?;
        }
        let merged = self.driver.metadata(layer)?.mount_point;
        let path = merged.to_str().ok_or_else(|| {
            SnapshotError::Precondition("the path of the store is no text, and cannot be told".to_owned())
        })?;
        Ok(vec![bind(path, view)])
    }

    /// Turns an active snapshot into a committed one of another name, with these labels and no others.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`], [`SnapshotError::Exists`] for the name; [`SnapshotError::Precondition`]
    /// for what is not active.
    pub fn commit(&self, scope: &Scope, name: &str, key: &str, labels: Labels) -> Result<()> {
        let (_, _, first) = committable(&self.database.change()?, scope, name, key)?;
        self.driver.seal(&first.layer)?;
        let usage = self.usage_of(&first.layer)?;
        let change = self.database.change()?;
        let (target, place, row) = committable(&change, scope, name, key)?;
        // Removed meanwhile, and made anew.
        if row.layer != first.layer {
            return Err(SnapshotError::NotFound(key.to_owned()));
        }
        change.remove(&place, &row)?;
        let now = Time::now();
        let labels = without_empty(labels);
        let committed =
            Row { kind: Kind::Committed, labels, created: now, updated: now, usage: Some(usage), ..row };
        change.put(&target, &committed)?;
        change.commit()
    }

    /// Forgets a snapshot at once. Its layer is deleted by [`Snapshots::sweep`].
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`]; [`SnapshotError::Precondition`] for one on which another lies.
    pub fn remove(&self, scope: &Scope, name: &str) -> Result<()> {
        let change = self.database.removal()?;
        let (key, row) = change.row(scope, name)?;
        if let Some(child) = change.child(&key)? {
            let what = format!("cannot remove snapshot {name} with child {child}");
            return Err(SnapshotError::Precondition(what));
        }
        change.remove(&key, &row)?;
        match change.commit() {
            Ok(()) => self.removal.add(row.layer),
            Err(error) => {
                self.doubt(row.layer);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the layers of removed snapshots. Returns when there is nothing left that can be deleted.
    ///
    /// # Errors
    ///
    /// The first layer that could not be deleted; it is tried again the next time.
    pub fn sweep(&self) -> Result<()> {
        self.settle()?;
        self.removal.sweep(&self.driver)
    }

    /// As [`Snapshots::sweep`]. Where another call is at it, this one leaves it to that.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshots::sweep`].
    pub fn sweep_unless_swept(&self) -> Result<()> {
        self.settle()?;
        self.removal.sweep_unless_swept(&|layer| self.driver.remove(layer, true))
    }

    /// All about a snapshot.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`].
    pub fn stat(&self, scope: &Scope, name: &str) -> Result<Snapshot> {
        let (key, row) = self.database.read()?.row(scope, name)?;
        Ok(Snapshot { name: key.name().to_owned(), row })
    }

    /// Changes labels: those that `fields` name (`labels.NAME`), all of them (`labels`, or no field at all).
    /// One that is to be empty is taken away.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`]; [`SnapshotError::Argument`] for another field.
    pub fn update(&self, scope: &Scope, name: &str, labels: Labels, fields: &[String]) -> Result<Snapshot> {
        let change = self.database.change()?;
        let (key, mut row) = change.row(scope, name)?;
        if fields.is_empty() {
            row.labels.clone_from(&labels);
        }
        for field in fields {
            match field.strip_prefix("labels.") {
                Some(label) => {
                    row.labels.insert(label.to_owned(), labels.get(label).cloned().unwrap_or_default());
                }
                None if field == "labels" => row.labels.clone_from(&labels),
                None => {
                    let what = format!("cannot update {field:?} field on snapshot {name:?}");
                    return Err(SnapshotError::Argument(what));
                }
            }
        }
        row.labels = without_empty(row.labels);
        row.updated = Time::now();
        change.put(&key, &row)?;
        change.commit()?;
        Ok(Snapshot { name: key.name().to_owned(), row })
    }

    /// The snapshots that a filter takes, in the order of their names.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn list(&self, scope: &Scope, filters: &Filters) -> Result<Vec<Snapshot>> {
        let mut all = self.database.read()?.list(scope)?;
        all.retain(|snapshot| filters.take(snapshot));
        Ok(all)
    }

    /// What a snapshot itself holds.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`]; those of counting.
    pub fn usage(&self, scope: &Scope, name: &str) -> Result<Usage> {
        let (_, row) = self.database.read()?.row(scope, name)?;
        match (row.usage, row.kind) {
            (Some(usage), _) => Ok(usage),
            // Nobody can write to it, and what mounts it leaves its own layer out.
            (None, Kind::View) => Ok(Usage::default()),
            (None, _) => self.usage_of(&row.layer),
        }
    }

    /// The layer in which a snapshot's content is whose own layer this is: a view's is its parent's.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn content_of(&self, layer: String) -> Result<String> {
        let rows = self.database.read()?.all()?;
        let is_view = rows.iter().any(|(_, row)| row.layer == layer && row.kind == Kind::View);
        let parent = if is_view { self.driver.ancestors(&layer)?.into_iter().next() } else { None };
        Ok(parent.map_or(layer, |parent| parent.to_string()))
    }

    /// The namespace of the snapshot whose layer this is: what it was made in or, where no namespace was
    /// named, what its name begins with, as all names do that containerd gives.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn namespace_of(&self, layer: &str) -> Result<Option<String>> {
        Ok(self.snapshot_of(layer)?.and_then(|(key, _)| namespace(&key)))
    }

    /// The namespace of the snapshot that a layer is to be filled of, as [`Snapshots::namespace_of`] has it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Precondition`] where it is committed, or a view: what mounts of it are still about
    /// says nothing of it any more.
    pub fn to_fill(&self, layer: &str) -> Result<Option<String>> {
        let found = self.snapshot_of(layer)?;
        if let Some((key, row)) = found.as_ref().filter(|(_, row)| row.kind != Kind::Active) {
            let what = format!("snapshot {} is {}, and not to be filled", key.name(), row.kind.name());
            return Err(SnapshotError::Precondition(what));
        }
        Ok(found.and_then(|(key, _)| namespace(&key)))
    }

    fn snapshot_of(&self, layer: &str) -> Result<Option<(Key, Row)>> {
        Ok(self.database.read()?.all()?.into_iter().find(|(_, row)| row.layer == layer))
    }

    /// Lends an empty layer, which is gone afterwards.
    ///
    /// # Errors
    ///
    /// Those of making one.
    pub fn with_nothing<T>(&self, work: impl FnOnce(&str) -> T) -> Result<T> {
        let nothing = Nothing { of: self, layer: self.make(None)? };
        Ok(work(&nothing.layer))
    }

    fn usage_of(&self, layer: &str) -> Result<Usage> {
        let DiskUsage { bytes, inodes } = self.driver.disk_usage(layer)?;
        Ok(Usage { bytes, inodes })
    }
}

/// The namespace that a snapshot's key or, for those who leave that to the name, its name says.
fn namespace(key: &Key) -> Option<String> {
    let from_name = || key.name().split_once('/').map(|(first, _)| first.to_owned());
    Some(key.namespace().to_owned()).filter(|own| !own.is_empty()).or_else(from_name)
}

/// An empty layer without a name, which goes when it is dropped.
struct Nothing<'a> {
    of: &'a Snapshots,
    layer: String,
}

impl Drop for Nothing<'_> {
    fn drop(&mut self) {
        self.of.removal.add(std::mem::take(&mut self.layer));
        // What cannot be removed now is tried again with the next removal.
        drop(self.of.sweep_unless_swept());
    }
}

/// Where an active snapshot is to be once it is committed, where it is, and its row. Both are in one
/// namespace, also where the call names none.
fn committable(
    change: &database::Change<'_>,
    scope: &Scope,
    name: &str,
    key: &str,
) -> Result<(Key, Key, Row)> {
    change.vacant(scope, name)?;
    let (place, row) = change.row(scope, key)?;
    if row.kind != Kind::Active {
        return Err(SnapshotError::Precondition(format!("snapshot {key} is not an active snapshot")));
    }
    Ok((place.beside(name), place, row))
}
