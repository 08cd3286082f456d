//! Looks through a whole store for what is wrong, and repairs it.
//!
//! Repair never deletes content: what belongs to no layer, and layers that cannot be whole any more, are
//! moved to `lost+found/`, for a person to look at, and stay there until they are purged. What only repeats
//! other records (ancestor lists, marks of children, empty directories, reference counts) is made anew.
//!
//! - `own`: the store's own directories and its lock, which come before all that is looked for in them.
//! - `format`: what must be read before a store can be opened.
//! - `places`: the directories of the store itself, and what lies in them that belongs to no layer.
//! - `layers`: the records of layers, held against each other.
//! - `deep`: what is in the layers: sizes, and deletions in the form of the other backend.
//! - `again`: the second look at what was found, since other calls go on meanwhile.
//! - `mend`: the repairs.

mod again;
mod deep;
mod format;
mod layers;
mod mend;
mod own;
mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Choice, Unions};
use layerbox_privileged::references::References;
use serde::{Deserialize, Serialize};

use super::Store;
use super::maps::IdMaps;
use super::record::{Record, read_small};
use crate::error::Failure;
use again::Again;
use mend::Repair;

/// Something that is wrong.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finding {
    /// Where, relative to the root: `diff/ID`.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What repair does about it, and why it could not be done; empty where it can do nothing.
    pub repair: String,
    /// Whether that was done.
    pub repaired: bool,
    /// Whether it may be no damage, and is nothing that anybody must see to: a call works there all the time,
    /// or it goes with a later call.
    pub passing: bool,
}

impl Finding {
    /// Whether nothing is left of it to be mended.
    pub fn is_settled(&self) -> bool {
        self.repaired || self.passing
    }
}

/// How a store is checked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckOptions {
    /// Mend what can be mended.
    pub repair: bool,
    /// Look into the layers as well: that takes as long as reading all their directories.
    pub deep: bool,
    /// Delete what repairs have moved to `lost+found/`, once all else is done.
    pub purge: bool,
}

/// A search under way.
struct Search<'a> {
    store: &'a Store,
    unions: &'a Unions,
    references: &'a References,
    lent: &'a BTreeSet<LayerId>,
    found: Vec<(String, String, Repair)>,
}

/// The records of all layers that are whole, as far as records can tell.
type Records = BTreeMap<LayerId, Record>;

/// What keeps the store at `root` from being opened, which [`Store::check`] cannot look at; nothing where
/// there is no store. With `repair` it is mended, for a store that `choice` and `maps` are asked for where
/// the store itself does not say.
///
/// # Errors
///
/// Those of reading the store. What fails in a repair is in its finding.
pub(crate) fn check_unopened(
    root: &Path,
    choice: Choice,
    maps: Option<&IdMaps>,
    options: CheckOptions,
) -> Result<Vec<Finding>, Failure> {
    let mut findings = own::check_unopened(root, options)?;
    if findings.iter().all(Finding::is_settled) {
        findings.extend(format::check_format(root, choice, maps, options)?);
    }
    Ok(findings)
}

impl Store {
    /// The ancestors of a layer as `layers/ID` has them.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] where the file is missing, or a line of it is no layer id.
    pub fn ancestors_on_disk(&self, id: &LayerId) -> Result<Vec<LayerId>, Failure> {
        let path = format!("layers/{id}");
        let corrupt = |what: &str| Failure::Corrupt(format!("{path}: {what}"));
        // A component that has gone wrong may have left anything here when it was lent `layers/`, a link or a
        // directory as well.
        if self.dir.symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
            return Err(corrupt("it is not a regular file"));
        }
        let bytes = read_small(&self.dir, &path)?.ok_or_else(|| corrupt("it is missing"))?;
        let text = String::from_utf8(bytes).map_err(|_| corrupt("it is no text"))?;
        if !text.is_empty() && !text.ends_with('\n') {
            return Err(corrupt("it is cut off in a line"));
        }
        let mut ancestors = Vec::new();
        for line in text.lines() {
            let ancestor = LayerId::new(line).map_err(|e| corrupt(&e.to_string()))?;
            if ancestor == *id || ancestors.contains(&ancestor) {
                return Err(corrupt("the list is cyclic"));
            }
            ancestors.push(ancestor);
        }
        Ok(ancestors)
    }

    /// Whether `layers/ID` says what the record says.
    pub fn is_recorded(&self, id: &LayerId, record: &Record) -> bool {
        self.ancestors_on_disk(id).is_ok_and(|ancestors| ancestors == record.ancestors)
    }

    /// Looks through the store; with `repair`, mends what can be mended. `lent`: the layers that somebody may
    /// have mounted of whose mounts the store does not know.
    ///
    /// # Errors
    ///
    /// Those of reading the store. What fails in a repair is in its finding.
    pub fn check(
        &self,
        unions: &Unions,
        references: &References,
        options: CheckOptions,
        lent: &BTreeSet<LayerId>,
    ) -> Result<Vec<Finding>, Failure> {
        // What the opening of the store has mended already.
        let mut findings = self.take_recovered();
        if options.repair {
            self.end_removals(&mut findings);
        }
        let others = own::search(&self.root, &self.dir)?;
        findings.extend(others.iter().map(|other| match options.repair {
            true => other.mended(&self.dir),
            false => other.finding(),
        }));
        if !others.is_empty() && !findings.iter().all(Finding::is_settled) {
            // Whatever lies in the other directories would seem to belong to nobody.
            return Ok(findings);
        }
        let mut search = Search { store: self, unions, references, lent, found: Vec::new() };
        search.store_directories()?;
        let records = search.records()?;
        search.mounts(&records)?;
        search.ancestors(&records)?;
        search.directories(&records)?;
        search.orphans(&records)?;
        search.children(&records)?;
        if options.deep {
            search.content(&records)?;
        }
        let mut again = Again::new(self, unions, references, options.repair);
        for (place, what, action) in search.found {
            let guards = again.guards(&place)?;
            if !again.holds(&place, &action)? {
                continue;
            }
            if guards.is_none() {
                // What a call does on the layer may be all that is wrong there.
                let what = format!("a call works on it, so it cannot be told whether this is damage: {what}");
                findings.push(Finding { place, what, passing: true, ..Finding::default() });
                continue;
            }
            let mut finding = Finding { what, repair: action.text(), place, ..Finding::default() };
            if options.repair && !matches!(action, Repair::None) {
                match self.mend(&finding.place, &action, unions, references) {
                    Ok(()) => finding.repaired = true,
                    Err(failure) => finding.repair.push_str(&format!("; that failed: {failure}")),
                }
            }
            findings.push(finding);
        }
        if options.purge {
            self.purge()?;
        }
        Ok(findings)
    }

    /// Ends the deletions that the opening of the store did not come to the end of.
    fn end_removals(&self, findings: &mut [Finding]) {
        for finding in findings.iter_mut().filter(|finding| finding.place == "trash" && finding.passing) {
            match self.empty_trash(&|| true) {
                Ok(_) => {
                    finding.passing = false;
                    finding.repaired = true;
                }
                Err(failure) => finding.repair.push_str(&format!("; that failed: {failure}")),
            }
        }
    }
}

impl Search<'_> {
    fn add(&mut self, place: impl Into<String>, what: impl Into<String>, repair: Repair) {
        self.found.push((place.into(), what.into(), repair));
    }
}
