//! What the driver answers, as values.

use std::path::PathBuf;

use layerbox_privileged::id::LayerId;

/// A layer, in a list.
#[derive(Debug, Clone)]
pub struct LayerSummary {
    /// The layer.
    pub id: LayerId,
    /// Its parent.
    pub parent: Option<LayerId>,
    /// The sum of its files' sizes in bytes, where it is known without looking.
    pub size: Option<u64>,
    /// How many users its mount has.
    pub mounts: u32,
    /// `complete`, or `incomplete` while it is being made or removed.
    pub state: &'static str,
}

/// All about one layer.
#[derive(Debug, Clone)]
pub struct Metadata {
    /// The layer.
    pub id: LayerId,
    /// Its ancestors, nearest first.
    pub ancestors: Vec<LayerId>,
    /// The sum of its files' sizes in bytes, where it is known without looking.
    pub size: Option<u64>,
    /// How many names it holds, where that is known without looking.
    pub entries: Option<u64>,
    /// How many users its mount has.
    pub mounts: u32,
    /// As in [`LayerSummary::state`].
    pub state: &'static str,
    /// Its own content.
    pub content: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// overlayfs' working directory; none for aufs.
    pub work: Option<PathBuf>,
}

/// What happened to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It differs.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// A path that differs between a layer and its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path below the root, without a leading slash, as bytes.
    pub name: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}
