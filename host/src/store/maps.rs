//! The id maps of a store: which owners on the disk stand for which in archives (`user_namespaces(7)`).
//!
//! An engine that gives its containers a user namespace says so when it opens the store. The maps are
//! recorded there, so that whoever opens the store later reads the same owners out of it.

use serde::{Deserialize, Serialize};

use crate::error::Failure;

/// A run of ids that are mapped one to one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// The first id as archives have it.
    pub inside: u32,
    /// The first id as the disk has it.
    pub outside: u32,
    /// How many ids.
    pub length: u32,
}

/// Users and groups. An empty map changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMaps {
    /// Of users.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<IdRange>,
    /// Of groups.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gids: Vec<IdRange>,
}

impl IdMaps {
    /// Whether they change nothing.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// Holds them to what the component can work with: what it refuses would be recorded, and no layer of the
    /// store could be filled.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidArgument`] for ranges that are empty, go past the last id or overlap, and for maps
    /// that have no root.
    pub fn check(&self) -> Result<(), Failure> {
        for (ranges, whose) in [(&self.uids, "user"), (&self.gids, "group")] {
            let invalid =
                |how: &str| Err(Failure::InvalidArgument(format!("the map of {whose} ids has {how}")));
            if ranges.iter().any(|range| range.length == 0) {
                return invalid("an empty range");
            }
            for start in [|range: &IdRange| range.inside, |range: &IdRange| range.outside] {
                // 4,294,967,295 is no id.
                let end = |range: &IdRange| start(range).checked_add(range.length);
                let Some(mut runs) =
                    ranges.iter().map(|range| Some((start(range), end(range)?))).collect::<Option<Vec<_>>>()
                else {
                    return invalid("a range that goes past the last id");
                };
                runs.sort_unstable();
                if runs.windows(2).any(|pair| pair[0].1 > pair[1].0) {
                    return invalid("ranges that overlap");
                }
            }
        }
        self.root().map(|_| ())
    }

    /// Owner and group, on the disk, of root in archives: of what no archive speaks of.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidArgument`] for maps that have no root.
    pub fn root(&self) -> Result<(u32, u32), Failure> {
        let find = |ranges: &[IdRange], whose: &str| match ranges {
            [] => Ok(0),
            ranges => ranges
                .iter()
                .find(|range| range.inside == 0 && range.length > 0)
                .map(|range| range.outside)
                .ok_or_else(|| Failure::InvalidArgument(format!("the map of {whose} ids has no root"))),
        };
        Ok((find(&self.uids, "user")?, find(&self.gids, "group")?))
    }
}
