//! What the driver answers, as values.

use std::path::PathBuf;

use layerbox_privileged::id::LayerId;

use crate::error::Error;

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
    /// `complete`, or `incomplete` while it is being made, filled or removed.
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

/// What became of the gets that a client has forgotten.
#[derive(Debug, Default)]
pub struct Settled {
    /// The layers that were given back.
    pub given_back: Vec<LayerId>,
    /// Why others were not.
    pub failed: Vec<Error>,
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

/// Paths that differ between a layer and its parent. There can be millions, so their names are in one piece.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    names: Vec<u8>,
    /// Where in `names` each ends, and what happened to it.
    ends: Vec<(usize, ChangeKind)>,
}

impl Changes {
    /// All of them: the path below the root, without a leading slash, as bytes; and what happened to it.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], ChangeKind)> {
        let mut start = 0;
        self.ends.iter().map(move |&(end, kind)| {
            let name = &self.names[start..end];
            start = end;
            (name, kind)
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, name: &[u8], kind: ChangeKind) {
        self.names.extend_from_slice(name);
        self.ends.push((self.names.len(), kind));
    }

    /// What lies in `names` one behind the other, with the length of each; none where they do not add up to
    /// it.
    pub(super) fn packed(
        names: Vec<u8>,
        entries: impl Iterator<Item = (u32, ChangeKind)>,
    ) -> Option<Changes> {
        let mut end = 0_usize;
        let mut ends = Vec::with_capacity(entries.size_hint().0);
        for (length, kind) in entries {
            end = end.checked_add(usize::try_from(length).ok()?)?;
            ends.push((end, kind));
        }
        (end == names.len()).then_some(Changes { names, ends })
    }
}
