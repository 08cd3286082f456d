//! What the driver answers, in the form in which it crosses to the command line. Each type stands for the
//! driver's of the same fields, and is made from it and back without loss.

use std::path::PathBuf;

use layerbox_privileged::id::LayerId;
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::protocol::Answer;
use crate::driver::{self, ChangeKind, DiffOutcome, LayerSummary, Metadata};
use crate::error::Failure;

/// [`driver::Totals`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Totals {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    /// [`driver::Progress::clamped`]. Older services do not tell.
    #[serde(default)]
    pub(super) clamped: u64,
}

impl From<driver::Totals> for Totals {
    fn from(driver::Totals { entries, bytes }: driver::Totals) -> Totals {
        Totals { entries, bytes, clamped: 0 }
    }
}

impl From<Totals> for driver::Totals {
    fn from(Totals { entries, bytes, .. }: Totals) -> driver::Totals {
        driver::Totals { entries, bytes }
    }
}

impl From<DiffOutcome> for Answer {
    fn from(outcome: DiffOutcome) -> Answer {
        let skipped = outcome.skipped.into_iter().map(Bytes::from).collect();
        Answer::Written { totals: outcome.totals.into(), skipped }
    }
}

/// One of [`driver::Changes`]. There can be millions of them, so they are short.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change(Kind, Bytes);

/// [`ChangeKind`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum Kind {
    #[serde(rename = "C")]
    Modified,
    #[serde(rename = "A")]
    Added,
    #[serde(rename = "D")]
    Deleted,
}

impl Change {
    /// How many bytes of names it holds.
    pub(super) fn weight(&self) -> usize {
        self.1.as_bytes().len() + 16
    }

    /// Adds it to a list.
    pub(super) fn add_to(&self, changes: &mut driver::Changes) {
        let kind = match self.0 {
            Kind::Modified => ChangeKind::Modified,
            Kind::Added => ChangeKind::Added,
            Kind::Deleted => ChangeKind::Deleted,
        };
        changes.push(self.1.as_bytes(), kind);
    }
}

impl From<(&[u8], ChangeKind)> for Change {
    fn from((name, kind): (&[u8], ChangeKind)) -> Change {
        let kind = match kind {
            ChangeKind::Modified => Kind::Modified,
            ChangeKind::Added => Kind::Added,
            ChangeKind::Deleted => Kind::Deleted,
        };
        Change(kind, name.to_vec().into())
    }
}

/// [`LayerSummary`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Summary {
    id: String,
    parent: Option<String>,
    size: Option<u64>,
    mounts: u32,
    complete: bool,
}

impl Summary {
    /// As [`Change::weight`]; ids are short.
    pub(super) fn weight(&self) -> usize {
        512
    }
}

impl From<LayerSummary> for Summary {
    fn from(layer: LayerSummary) -> Summary {
        Summary {
            id: layer.id.to_string(),
            parent: layer.parent.map(|parent| parent.to_string()),
            size: layer.size,
            mounts: layer.mounts,
            complete: is_complete(layer.state),
        }
    }
}

impl TryFrom<Summary> for LayerSummary {
    type Error = Failure;

    fn try_from(layer: Summary) -> Result<LayerSummary, Failure> {
        Ok(LayerSummary {
            id: layer_id(&layer.id)?,
            parent: layer.parent.as_deref().map(layer_id).transpose()?,
            size: layer.size,
            mounts: layer.mounts,
            state: state(layer.complete),
        })
    }
}

/// [`driver::Finding`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    place: String,
    what: String,
    repair: String,
    repaired: bool,
    /// An earlier version does not send it.
    #[serde(default)]
    passing: bool,
}

impl Finding {
    /// As [`Change::weight`].
    pub(super) fn weight(&self) -> usize {
        self.place.len() + self.what.len() + self.repair.len() + 64
    }
}

impl From<driver::Finding> for Finding {
    fn from(finding: driver::Finding) -> Finding {
        let driver::Finding { place, what, repair, repaired, passing } = finding;
        Finding { place, what, repair, repaired, passing }
    }
}

impl From<Finding> for driver::Finding {
    fn from(Finding { place, what, repair, repaired, passing }: Finding) -> driver::Finding {
        driver::Finding { place, what, repair, repaired, passing }
    }
}

/// [`Metadata`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Layer {
    id: String,
    ancestors: Vec<String>,
    size: Option<u64>,
    entries: Option<u64>,
    mounts: u32,
    complete: bool,
    content: Bytes,
    mount_point: Bytes,
    work: Option<Bytes>,
}

impl From<Metadata> for Layer {
    fn from(layer: Metadata) -> Layer {
        Layer {
            id: layer.id.to_string(),
            ancestors: layer.ancestors.iter().map(LayerId::to_string).collect(),
            size: layer.size,
            entries: layer.entries,
            mounts: layer.mounts,
            complete: is_complete(layer.state),
            content: layer.content.into(),
            mount_point: layer.mount_point.into(),
            work: layer.work.map(Bytes::from),
        }
    }
}

impl TryFrom<Layer> for Metadata {
    type Error = Failure;

    fn try_from(layer: Layer) -> Result<Metadata, Failure> {
        Ok(Metadata {
            id: layer_id(&layer.id)?,
            ancestors: layer.ancestors.iter().map(|id| layer_id(id)).collect::<Result<_, _>>()?,
            size: layer.size,
            entries: layer.entries,
            mounts: layer.mounts,
            state: state(layer.complete),
            content: layer.content.into(),
            mount_point: layer.mount_point.into(),
            work: layer.work.map(PathBuf::from),
        })
    }
}

/// The state of a layer is one of two words, and crosses as a flag.
const COMPLETE: &str = "complete";

fn is_complete(state: &str) -> bool {
    state == COMPLETE
}

fn state(complete: bool) -> &'static str {
    if complete { COMPLETE } else { "incomplete" }
}

fn layer_id(text: &str) -> Result<LayerId, Failure> {
    LayerId::new(text).map_err(|_| Failure::InvalidId(text.to_owned()))
}
