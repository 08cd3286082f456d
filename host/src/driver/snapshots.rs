//! The record of the snapshots beside the layers: opened once, and held against them by `check`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use layerbox_privileged::id::LayerId;

use super::{Driver, Finding};
use crate::error::{Escaped, Failure};
use crate::snapshots::database::{Database, FILE, Key};
use crate::snapshots::error::SnapshotError;
use crate::snapshots::model::{Kind, Row};

impl Driver {
    /// The record of the store's snapshots, made where there is none.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub(crate) fn snapshots(&self) -> Result<Arc<Database>, SnapshotError> {
        let mut open = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*open {
            return Ok(database.clone());
        }
        let database = Arc::new(Database::open(&self.root().join(FILE))?);
        *open = Some(database.clone());
        Ok(database)
    }

    /// Finds out whether the record of the snapshots can be read, where somebody uses it.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub(crate) fn probe_snapshots(&self) -> Result<(), SnapshotError> {
        let open = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).clone();
        open.map_or(Ok(()), |database| database.read()?.probe())
    }

    /// The layers that containerd may have mounted by itself: those of snapshots that are in use.
    pub(super) fn lent_to_containerd(&self) -> Result<BTreeSet<LayerId>, Failure> {
        if std::fs::symlink_metadata(self.root().join(FILE)).is_err() {
            return Ok(BTreeSet::new());
        }
        let database = self.snapshots().map_err(corrupt)?;
        let rows = database.read().and_then(|reading| reading.all()).map_err(corrupt)?;
        let in_use = rows.iter().filter(|(_, row)| row.kind != Kind::Committed);
        Ok(in_use.filter_map(|(_, row)| LayerId::new(&row.layer).ok()).collect())
    }

    /// Looks whether names and layers agree.
    pub(super) fn check_snapshots(&self, repair: bool) -> Result<Vec<Finding>, Failure> {
        if std::fs::symlink_metadata(self.root().join(FILE)).is_err() {
            return Ok(Vec::new());
        }
        let database = self.snapshots().map_err(corrupt)?;
        let read = || database.read().and_then(|reading| reading.all()).map_err(corrupt);
        let mut rows = read()?;
        let mut wrong = self.wrong_rows(&rows)?;
        if !wrong.is_empty() {
            // A snapshot that was removed meanwhile had lost its row before its layer.
            rows = read()?;
            let again = self.wrong_rows(&rows)?;
            wrong.retain(|row| again.contains(row));
        }
        let mut findings = Vec::new();
        for (key, what, lost) in wrong {
            let repaired = if repair && lost {
                let row = rows.iter().find(|(other, _)| *other == key).map(|(_, row)| row);
                let forget = |row: &Row| -> Result<(), SnapshotError> {
                    let change = database.removal()?;
                    change.remove(&key, row)?;
                    change.commit()
                };
                row.is_some_and(|row| forget(row).is_ok())
            } else {
                false
            };
            findings.push(Finding {
                place: format!("{FILE}: {}", Escaped(key.name().as_bytes())),
                what,
                repair: if lost { "forget the snapshot".to_owned() } else { String::new() },
                repaired,
                ..Finding::default()
            });
        }
        findings.extend(self.nameless(&database, repair)?);
        Ok(findings)
    }

    /// The rows that are wrong, what is, and whether nothing is lost when the row is forgotten.
    fn wrong_rows(&self, rows: &[(Key, Row)]) -> Result<Vec<(Key, String, bool)>, Failure> {
        let by_key: BTreeMap<&Key, &Row> = rows.iter().map(|(key, row)| (key, row)).collect();
        let mut wrong = Vec::new();
        for (key, row) in rows {
            let Ok(layer) = LayerId::new(&row.layer) else {
                wrong.push((key.clone(), "its layer has no valid id".to_owned(), false));
                continue;
            };
            let Some(record) = self.store.record(&layer)? else {
                let is_parent = rows.iter().any(|(other, below)| {
                    below.parent.as_deref().is_some_and(|parent| other.beside(parent) == *key)
                });
                wrong.push((key.clone(), format!("its layer {layer} is missing"), !is_parent));
                continue;
            };
            let Some(parent) = &row.parent else {
                if !record.ancestors.is_empty() {
                    wrong.push((key.clone(), "it has no parent, and its layer has one".to_owned(), false));
                }
                continue;
            };
            match by_key.get(&key.beside(parent)) {
                None => wrong.push((key.clone(), "its parent is missing".to_owned(), false)),
                Some(above) if above.kind != Kind::Committed => {
                    wrong.push((key.clone(), "its parent is not committed".to_owned(), false));
                }
                Some(above) if record.ancestors.first().map(LayerId::as_str) != Some(&above.layer) => {
                    wrong.push((key.clone(), "its parent's layer is not that of its own".to_owned(), false));
                }
                Some(_) => {}
            }
        }
        Ok(wrong)
    }

    /// Layers of this record that no row names. Whoever serves it makes and removes such layers all the time,
    /// and takes away by himself what is left of that.
    fn nameless(&self, database: &Database, repair: bool) -> Result<Vec<Finding>, Failure> {
        let mut found = self.beginning(&database.prefix()).map_err(|error| error.failure)?;
        let rows = database.read().and_then(|reading| reading.all()).map_err(corrupt)?;
        let named: BTreeSet<&str> = rows.iter().map(|(_, row)| row.layer.as_str()).collect();
        found.retain(|id| !named.contains(id.as_str()));
        // Asked last: the layers may be of somebody who has begun meanwhile.
        if database.is_served() {
            return Ok(Vec::new());
        }
        let finding = |id: LayerId| Finding {
            place: format!("meta/{id}"),
            what: "it was a snapshot's layer, and no snapshot names it".to_owned(),
            repair: "remove it".to_owned(),
            repaired: repair && self.remove(id.as_str(), true).is_ok(),
            ..Finding::default()
        };
        Ok(found.into_iter().map(finding).collect())
    }
}

fn corrupt(error: SnapshotError) -> Failure {
    Failure::Corrupt(error.to_string())
}
