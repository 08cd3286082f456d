//! A snapshot, as it is recorded and told.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// What a snapshot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It cannot be written, and nothing lies on it.
    View,
    /// It can be written.
    Active,
    /// It does not change any more, and others can lie on it.
    Committed,
}

impl Kind {
    /// Its name in filters.
    pub fn name(self) -> &'static str {
        match self {
            Kind::View => "view",
            Kind::Active => "active",
            Kind::Committed => "committed",
        }
    }
}

/// A moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds of the second.
    pub nanos: u32,
}

impl Time {
    /// This moment, as the machine's clock has it. A clock that stands before 1970 gives 1970.
    pub fn now() -> Time {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Time { seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }
}

/// What a snapshot itself holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// What its own content takes on the disk, in bytes: the blocks of each inode once.
    pub bytes: u64,
    /// Its own inodes, that of its root among them.
    pub inodes: u64,
}

/// Labels: what engines note of a snapshot.
pub type Labels = BTreeMap<String, String>;

/// What is recorded of a snapshot beside its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The layer that it is.
    pub layer: String,
    /// What it is.
    pub kind: Kind,
    /// The name of its parent, in the same scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its labels. None is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: Labels,
    /// When it was made, as what it is.
    pub created: Time,
    /// When what is said of it last changed.
    pub updated: Time,
    /// What it holds, once that cannot change any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// A snapshot with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its key or name.
    pub name: String,
    /// The rest.
    pub row: Row,
}

/// Whose snapshots a call is about. Two engines, or two snapshotters of one, do not see each other's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The snapshotter's name in the engine's configuration.
    pub snapshotter: String,
    /// containerd's namespace. None sees those of all namespaces: containerd's garbage collector works for
    /// all of them and names none. What is made without one is in its parent's namespace, or in the one
    /// without a name.
    pub namespace: Option<String>,
}

/// Labels without those that are empty: an empty one is how containerd takes a label away.
pub fn without_empty(labels: Labels) -> Labels {
    labels.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}
