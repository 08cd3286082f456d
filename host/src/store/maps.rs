//! The id maps of a store: which owners on the disk stand for which in archives (`user_namespaces(7)`).
//!
//! An engine that gives its containers a user namespace says so when it opens the store. The maps are recorded there, so that whoever opens the
//! store later reads the same owners out of it.

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
