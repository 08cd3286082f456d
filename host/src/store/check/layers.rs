//! The records of layers: `meta/`, `layers/`, `children/` and the directories of each layer, held against
//! each other; mounts and counts.

use std::collections::{BTreeMap, BTreeSet};

use layerbox_privileged::id::LayerId;

use super::super::files::{ids_in, is_absent};
use super::super::record::Record;
use super::mend::{Repair, Was};
use super::{Records, Search};
use crate::error::Failure;

impl Search<'_> {
    /// The records of the layers that are whole. One that is damaged is made again from `layers/`, where that
    /// is sound; one that is missing, from a layer that lies on it, or from `layers/`, where its content is
    /// there. A layer whose content or ancestors are lost is whole no more.
    pub(super) fn records(&mut self) -> Result<Records, Failure> {
        let mut records = self.readable()?;
        self.restore_parents(&mut records)?;
        self.restore_listed(&mut records)?;
        loop {
            let mut lost = Vec::new();
            for (id, record) in &records {
                lost.extend(self.loss(id, record, &records)?.map(|why| (id.clone(), why)));
            }
            if lost.is_empty() {
                break;
            }
            for (id, why) in lost {
                let record = records.remove(&id).unwrap_or_default();
                self.add(format!("meta/{id}"), why, Repair::Lose(id, record));
            }
        }
        self.correct(&mut records);
        Ok(records)
    }

    fn readable(&mut self) -> Result<Records, Failure> {
        let mut records = Records::new();
        for id in self.store.ids()? {
            match self.store.record(&id) {
                Ok(Some(record)) => {
                    records.insert(id, record);
                }
                Ok(None) => {}
                Err(Failure::Corrupt(what)) => match self.store.ancestors_on_disk(&id) {
                    Ok(ancestors) => {
                        let record = Record { ancestors, ..Record::default() };
                        let repair = Repair::WriteRecord(id.clone(), record.clone(), Was::Damaged);
                        self.add(format!("meta/{id}"), what, repair);
                        records.insert(id, record);
                    }
                    Err(_) => self.add(format!("meta/{id}"), what, Repair::MoveAway),
                },
                Err(other) => return Err(other),
            }
        }
        Ok(records)
    }

    /// A record that is missing is what the layers on top say, where the content is still there.
    fn restore_parents(&mut self, records: &mut Records) -> Result<(), Failure> {
        let mut missing = BTreeMap::new();
        for record in records.values() {
            for (depth, ancestor) in record.ancestors.iter().enumerate() {
                if !records.contains_key(ancestor) && self.store.is_directory(&format!("diff/{ancestor}"))? {
                    missing.entry(ancestor.clone()).or_insert_with(|| record.ancestors[depth + 1..].to_vec());
                }
            }
        }
        for (id, ancestors) in missing {
            let record = Record { ancestors, ..Record::default() };
            let what = "it is missing, and other layers lie on it";
            let repair = Repair::WriteRecord(id.clone(), record.clone(), Was::Missing);
            self.add(format!("meta/{id}"), what, repair);
            records.insert(id, record);
        }
        Ok(())
    }

    /// A record that is missing is what `layers/` says, where that is sound and the content is still there:
    /// it was lost, or another program has added the layer.
    fn restore_listed(&mut self, records: &mut Records) -> Result<(), Failure> {
        let mut missing = Vec::new();
        for id in ids_in(&self.store.dir, "layers")? {
            let listed = !records.contains_key(&id)
                && !self.store.is_there(&format!("meta/{id}"))?
                && self.store.is_directory(&format!("diff/{id}"))?
                && self.is_idle(&id);
            if listed && let Ok(ancestors) = self.store.ancestors_on_disk(&id) {
                missing.push((id, ancestors));
            }
        }
        // Parents first.
        missing.sort_by_key(|(_, ancestors)| ancestors.len());
        for (id, ancestors) in missing {
            let sound = match ancestors.split_first() {
                Some((parent, rest)) => records.get(parent).is_some_and(|above| above.ancestors == rest),
                None => true,
            };
            if sound {
                let record = Record { ancestors, ..Record::default() };
                let what = "it is missing, and layers/ and diff/ have the layer";
                let repair = Repair::WriteRecord(id.clone(), record.clone(), Was::Missing);
                self.add(format!("meta/{id}"), what, repair);
                records.insert(id, record);
            }
        }
        Ok(())
    }

    /// Why a layer cannot be whole.
    fn loss(&self, id: &LayerId, record: &Record, records: &Records) -> Result<Option<String>, Failure> {
        if !self.store.is_directory(&format!("diff/{id}"))? {
            return Ok(Some("the content of the layer is lost".to_owned()));
        }
        let mut seen = BTreeSet::from([id]);
        let mut ancestor = record.ancestors.first();
        while let Some(id) = ancestor {
            let Some(above) = records.get(id) else {
                return Ok(Some(format!("its ancestor {id} is lost")));
            };
            if !seen.insert(id) {
                return Ok(Some("the layer is among its own ancestors".to_owned()));
            }
            ancestor = above.ancestors.first();
        }
        Ok(None)
    }

    /// Holds every list of ancestors to be the parent and the parent's own.
    fn correct(&mut self, records: &mut Records) {
        let mut right = Vec::new();
        for (id, record) in records.iter() {
            let mut ancestors = Vec::new();
            let mut next = record.ancestors.first();
            while let Some(id) = next {
                ancestors.push(id.clone());
                next = records.get(id).and_then(|above| above.ancestors.first());
            }
            if ancestors != record.ancestors {
                right.push((id.clone(), ancestors));
            }
        }
        for (id, ancestors) in right {
            let record = records.get(&id).cloned().unwrap_or_default();
            let was = Was::Of(record.ancestors);
            let record = Record { ancestors, ..record };
            let what = "its ancestors are not those of its parent";
            self.add(format!("meta/{id}"), what, Repair::WriteRecord(id.clone(), record.clone(), was));
            records.insert(id, record);
        }
    }

    /// `layers/` against the records.
    pub(super) fn ancestors(&mut self, records: &Records) -> Result<(), Failure> {
        for (id, record) in records {
            let what = match self.store.ancestors_on_disk(id) {
                Ok(ancestors) if ancestors == record.ancestors => continue,
                Ok(_) => "it names other ancestors than meta/".to_owned(),
                Err(Failure::Corrupt(what)) => {
                    what.split_once(": ").map_or(what.clone(), |(_, what)| what.to_owned())
                }
                Err(other) => return Err(other),
            };
            self.add(format!("layers/{id}"), what, Repair::WriteAncestors(id.clone(), record.clone()));
        }
        Ok(())
    }

    /// The directories of every layer.
    pub(super) fn directories(&mut self, records: &Records) -> Result<(), Failure> {
        for id in records.keys() {
            for kind in self.store.kinds() {
                let place = format!("{kind}/{id}");
                match self.store.dir.symlink_metadata(&place) {
                    Ok(found) if found.is_dir() => {}
                    Ok(_) => self.add(place, "it is not a directory", Repair::MoveAwayAndMake(0o755)),
                    Err(e) if is_absent(&e) => {
                        self.add(place, "it is missing", Repair::MakeDirectory(0o755));
                    }
                    Err(e) => return Err(Failure::io("stat", &e)),
                }
            }
            let point = format!("mnt/{id}");
            if !self.unions.mounted(id)? && self.store.holds_something(&point)? {
                let what = "it holds files, which a mount would hide";
                self.add(point, what, Repair::MoveAwayAndMake(0o755));
            }
        }
        Ok(())
    }

    /// The marks of children.
    pub(super) fn children(&mut self, records: &Records) -> Result<(), Failure> {
        let mut marked = BTreeSet::new();
        for parent in self.names("children")? {
            let place = format!("children/{parent}");
            let id = LayerId::new(&parent).ok().filter(|id| records.contains_key(id));
            let marks = self.names(&place)?;
            let sound = self.store.is_directory(&place)?;
            let Some(parent) = id.filter(|_| sound) else {
                self.add(place, "there is no such parent", Repair::MoveAway);
                continue;
            };
            for child in marks {
                let id = LayerId::new(&child).ok();
                let of = id.as_ref().and_then(|id| records.get(id)).and_then(|child| child.ancestors.first());
                match id {
                    Some(id) if of == Some(&parent) => {
                        marked.insert((parent.clone(), id));
                    }
                    _ => self.add(format!("{place}/{child}"), "there is no such child", Repair::Delete),
                }
            }
        }
        for (id, record) in records {
            if let Some(parent) = record.ancestors.first()
                && !marked.contains(&(parent.clone(), id.clone()))
            {
                let place = format!("children/{parent}/{id}");
                self.add(place, "it is missing", Repair::MarkChild(parent.clone(), id.clone()));
            }
        }
        Ok(())
    }

    /// Mounts that nobody counts, and counts without a mount.
    pub(super) fn mounts(&mut self, records: &Records) -> Result<(), Failure> {
        let mounted: BTreeSet<LayerId> = self.unions.all()?.into_iter().collect();
        let mut counted = BTreeMap::new();
        for id in self.references.counted()? {
            match self.references.count(&id) {
                Ok(count) => drop(counted.insert(id, count)),
                // One user: of those there may be more, but none of them could be told from another.
                Err(_) => {
                    let what = "its count of users is damaged";
                    self.add(format!("mnt/{id}"), what, Repair::ClearCount(id.clone()));
                    counted.insert(id, 0);
                }
            }
        }
        for id in &mounted {
            if counted.get(id).copied().unwrap_or_default() == 0 || !records.contains_key(id) {
                let what = "it is mounted, and nobody uses it";
                self.add(format!("mnt/{id}"), what, Repair::Unmount(id.clone()));
            }
        }
        for (id, count) in counted {
            if count > 0 && !mounted.contains(&id) {
                let what = format!("{count} users are counted, and it is not mounted");
                self.add(format!("mnt/{id}"), what, Repair::ClearCount(id));
            }
        }
        Ok(())
    }
}
