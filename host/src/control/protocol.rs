//! What the command line and the service say to each other.
//!
//! The service begins with [`Hello`]. The command line names a store with [`Open`] and is answered
//! [`Opened`]; then it sends any number of [`Call`]s, one after the other, each of which is answered by any
//! number of [`Reply::Reading`] and [`Reply::Part`], and [`Reply::Done`] or [`Reply::Failed`]. The archive of
//! a call is a descriptor that comes with it.

use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::values::{Change, Finding, Layer, Summary, Totals};
use crate::driver::{BackendChoice, CallLimits, CheckOptions};
use crate::error::Failure;

/// The version of all that is said after [`Hello`] and the version in [`Open`].
pub(super) const VERSION: u32 = 1;

/// The service's first word. In every version it has these fields.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Hello {
    /// The version that the service speaks.
    pub(super) version: u32,
    /// Its process id.
    pub(super) process: u32,
}

/// That part of [`Open`] which it has in every version.
#[derive(Debug, Deserialize)]
pub(super) struct Versioned {
    /// The version that the command line speaks.
    pub(super) version: u32,
}

/// Names the store that all calls on the connection are about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    /// The version that the command line speaks.
    pub(super) version: u32,
    /// Which store.
    pub(super) store: Which,
    /// The backend that it must have, or gets when it is made.
    pub(super) backend: Backend,
    /// The backend that it gets when it is made and `backend` leaves that open; auto: as the service has it.
    pub(super) usual_backend: Backend,
    /// The digest of the component that must work on it; none: whichever does.
    pub(super) guest: Option<String>,
    /// Whether a root that is missing or empty becomes a store.
    pub(super) make: bool,
}

/// How a store is named.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Which {
    /// By its name, which is the same by whichever path it is reached: one that the service owns already.
    Name(String),
    /// By its root: the service opens it where it has not.
    Root(Bytes),
}

/// As `--backend` has it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Backend {
    /// Whichever.
    Auto,
    /// aufs.
    Aufs,
    /// overlayfs.
    Overlay,
}

impl From<BackendChoice> for Backend {
    fn from(choice: BackendChoice) -> Backend {
        match choice {
            BackendChoice::Auto => Backend::Auto,
            BackendChoice::Aufs => Backend::Aufs,
            BackendChoice::Overlay => Backend::Overlay,
        }
    }
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> BackendChoice {
        match backend {
            Backend::Auto => BackendChoice::Auto,
            Backend::Aufs => BackendChoice::Aufs,
            Backend::Overlay => BackendChoice::Overlay,
        }
    }
}

/// The answer to [`Open`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Opened {
    /// Calls may come.
    Yes,
    /// The service owns no store of that name.
    NotMine,
    /// It cannot be opened.
    No(Failure),
}

/// A call of the driver.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are the parameters of the driver's methods")]
pub(super) enum Call {
    Create {
        id: String,
        parent: Option<String>,
    },
    /// With the archive to read.
    ApplyDiff {
        id: String,
        parent: Option<String>,
        sync: bool,
        devices: Option<bool>,
        given: CallLimits,
        progress: bool,
    },
    /// With the file to write the archive to.
    Diff {
        id: String,
        parent: Option<String>,
    },
    Changes {
        id: String,
        parent: Option<String>,
    },
    DiffSize {
        id: String,
        parent: Option<String>,
    },
    Get {
        id: String,
        label: Option<String>,
    },
    Put {
        id: String,
    },
    Remove {
        id: String,
        force: bool,
    },
    Exists {
        id: String,
    },
    List,
    Status,
    Metadata {
        id: String,
    },
    Cleanup,
    Check {
        options: CheckOptions,
    },
}

impl Call {
    /// The operation as errors name it.
    pub(super) fn operation(&self) -> &'static str {
        match self {
            Call::Create { .. } => "create",
            Call::ApplyDiff { .. } => "apply-diff",
            Call::Diff { .. } => "diff",
            Call::Changes { .. } => "changes",
            Call::DiffSize { .. } => "diff-size",
            Call::Get { .. } => "get",
            Call::Put { .. } => "put",
            Call::Remove { .. } => "remove",
            Call::Exists { .. } => "exists",
            Call::List => "list",
            Call::Status => "status",
            Call::Metadata { .. } => "metadata",
            Call::Cleanup => "cleanup",
            Call::Check { .. } => "check",
        }
    }

    /// The layer that it is about.
    pub(super) fn layer(&self) -> Option<&str> {
        match self {
            Call::Create { id, .. }
            | Call::ApplyDiff { id, .. }
            | Call::Diff { id, .. }
            | Call::Changes { id, .. }
            | Call::DiffSize { id, .. }
            | Call::Get { id, .. }
            | Call::Put { id }
            | Call::Remove { id, .. }
            | Call::Exists { id }
            | Call::Metadata { id } => Some(id),
            Call::List | Call::Status | Call::Cleanup | Call::Check { .. } => None,
        }
    }

    /// Whether a descriptor comes with it.
    pub(super) fn wants_descriptor(&self) -> bool {
        matches!(self, Call::ApplyDiff { .. } | Call::Diff { .. })
    }
}

/// What is said in answer to a call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Reply {
    /// So much of an archive was read so far.
    Reading {
        /// Entries that were made.
        entries: u64,
        /// Bytes that were read.
        bytes: u64,
    },
    /// The beginning, or a further part, of an answer that is a list.
    Part(Answer),
    /// The answer, or its last part.
    Done(Answer),
    /// It failed, and why. Operation and layer are those of the call.
    Failed {
        /// The layer that it was about.
        layer: Option<String>,
        /// Why.
        failure: Failure,
    },
}

/// What a call answers.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the cases are what the driver's methods answer")]
pub(super) enum Answer {
    Nothing,
    Flag(bool),
    Count(u32),
    Totals(Totals),
    Written {
        totals: Totals,
        skipped: Vec<Bytes>,
    },
    /// A path, and device and inode of what the service sees there.
    Place {
        path: Bytes,
        device: u64,
        inode: u64,
    },
    Rows(Vec<(String, String)>),
    Layers(Vec<Summary>),
    Changes(Vec<Change>),
    Findings(Vec<Finding>),
    Layer(Box<Layer>),
}
