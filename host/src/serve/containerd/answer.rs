//! Values as containerd has them, and errors as codes of gRPC: containerd acts on the code alone.

use layerbox_containerd::services::snapshots::v1 as wire;
use layerbox_containerd::types;
use prost_types::Timestamp;
use tonic::{Code, Status};

use crate::error::{Class, Failure};
use crate::serve::calls::CallError;
use crate::snapshots::error::SnapshotError;
use crate::snapshots::model::{Kind, Snapshot, Time};
use crate::snapshots::mounts::Mount;

/// The status of a call that failed.
pub(super) fn status(error: &CallError) -> Status {
    Status::new(code(error), error.to_string())
}

fn code(error: &CallError) -> Code {
    match error {
        CallError::Snapshot(error) => match error {
            SnapshotError::NotFound(_) => Code::NotFound,
            SnapshotError::Exists(_) => Code::AlreadyExists,
            SnapshotError::Precondition(_) => Code::FailedPrecondition,
            SnapshotError::Argument(_) => Code::InvalidArgument,
            SnapshotError::NotOurs(_) => Code::Unimplemented,
            SnapshotError::Driver(error) => of_failure(&error.failure),
            SnapshotError::Record(_) => Code::Internal,
            SnapshotError::Full(_) => Code::ResourceExhausted,
        },
        CallError::Driver(error) => of_failure(&error.failure),
        CallError::Request(_) => Code::InvalidArgument,
        CallError::Deadline(_) | CallError::Stalled(_) => Code::DeadlineExceeded,
        CallError::Gone => Code::Cancelled,
        CallError::Engine(_) => Code::Unknown,
        // This one has a meaning of its own from us: that another differ is to be asked.
        CallError::Refusal(Code::Unimplemented, _) => Code::Unknown,
        CallError::Refusal(code, _) => *code,
        CallError::Overloaded(_) => Code::Unavailable,
        CallError::Panicked => Code::Internal,
    }
}

fn of_failure(failure: &Failure) -> Code {
    match (failure, failure.class()) {
        (Failure::Exists, _) => Code::AlreadyExists,
        (Failure::StoreInUse(_), _) => Code::Unavailable,
        (Failure::NotRoot(_), _) => Code::PermissionDenied,
        (Failure::Corrupt(_), _) => Code::DataLoss,
        (_, Class::NotFound) => Code::NotFound,
        (_, Class::Conflict) => Code::FailedPrecondition,
        (_, Class::Refused | Class::Usage) => Code::InvalidArgument,
        (_, Class::Limit) => Code::ResourceExhausted,
        _ if failure.is_shortage() => Code::ResourceExhausted,
        (_, Class::Failed) => Code::Internal,
    }
}

pub(super) fn mounts(mounts: Vec<Mount>) -> Vec<types::Mount> {
    let mount = |mount: Mount| types::Mount {
        r#type: mount.kind,
        source: mount.source,
        target: String::new(),
        options: mount.options,
    };
    mounts.into_iter().map(mount).collect()
}

pub(super) fn info(snapshot: Snapshot) -> wire::Info {
    let Snapshot { name, row } = snapshot;
    let kind = match row.kind {
        Kind::View => wire::Kind::View,
        Kind::Active => wire::Kind::Active,
        Kind::Committed => wire::Kind::Committed,
    };
    wire::Info {
        name,
        parent: row.parent.unwrap_or_default(),
        kind: kind.into(),
        created_at: Some(timestamp(row.created)),
        updated_at: Some(timestamp(row.updated)),
        labels: row.labels.into_iter().collect(),
    }
}

fn timestamp(time: Time) -> Timestamp {
    Timestamp { seconds: time.seconds, nanos: i32::try_from(time.nanos).unwrap_or_default() }
}
