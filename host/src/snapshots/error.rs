//! What a snapshot service refuses, in the classes that containerd tells apart.

use crate::error::{Error, Failure, Shortage};

/// Why a call on snapshots failed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot.
    #[error("snapshot {0}: not found")]
    NotFound(String),
    /// There is one of that name already.
    #[error("snapshot {0}: already exists")]
    Exists(String),
    /// The snapshot is not in a state for this.
    #[error("{0}: failed precondition")]
    Precondition(String),
    /// An argument makes no sense.
    #[error("{0}: invalid argument")]
    Argument(String),
    /// The layers are not this store's, or this cannot be done with them: an engine does it some other way.
    #[error("{0}: not implemented")]
    NotOurs(String),
    /// The driver's error.
    #[error(transparent)]
    Driver(#[from] Error),
    /// The record of the snapshots cannot be read or written.
    #[error("the record of the snapshots: {0}")]
    Record(String),
    /// There is no room for the record of the snapshots.
    #[error("the record of the snapshots: {0}")]
    Full(Shortage),
}

impl SnapshotError {
    /// As an error of the driver, in an operation on layers that it belongs to.
    pub fn during(self, operation: &'static str) -> Error {
        let failure = match self {
            SnapshotError::Driver(error) => return error,
            SnapshotError::Full(what) => Failure::Full {
                entry: Vec::new(),
                operation: "write the record of the snapshots".to_owned(),
                what,
            },
            other => Failure::Corrupt(other.to_string()),
        };
        failure.during(operation, None)
    }

    /// A stable name, for the log and the metrics.
    pub fn code(&self) -> &'static str {
        match self {
            SnapshotError::NotFound(_) => "not-found",
            SnapshotError::Exists(_) => "exists",
            SnapshotError::Precondition(_) => "precondition",
            SnapshotError::Argument(_) => "invalid-argument",
            SnapshotError::NotOurs(_) => "not-ours",
            SnapshotError::Driver(error) => error.failure.code(),
            SnapshotError::Record(_) => "corrupt",
            SnapshotError::Full(Shortage::Quota) => "quota",
            SnapshotError::Full(_) => "no-space",
        }
    }
}

impl From<redb::Error> for SnapshotError {
    fn from(error: redb::Error) -> SnapshotError {
        let shortage = match &error {
            redb::Error::Io(error) => Shortage::of(&Failure::io("write", error)),
            _ => None,
        };
        shortage.map_or_else(|| SnapshotError::Record(error.to_string()), SnapshotError::Full)
    }
}

/// Errors of the single steps of a transaction, which redb has a type each for.
macro_rules! steps {
    ($($step:ident),*) => {
        $(impl From<redb::$step> for SnapshotError {
            fn from(error: redb::$step) -> SnapshotError {
                redb::Error::from(error).into()
            }
        })*
    };
}

steps!(CommitError, DatabaseError, StorageError, TableError, TransactionError);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_can_act_on_stays_itself() {
        let driver = Failure::NotRoot("x".into()).during("get", None);
        for (error, operation, code) in [
            (SnapshotError::Driver(driver), "get", "not-root"),
            (SnapshotError::Full(Shortage::Space), "diff", "no-space"),
            (SnapshotError::Full(Shortage::Quota), "diff", "quota"),
            (SnapshotError::Record("x".to_owned()), "diff", "corrupt"),
        ] {
            let told = error.during("diff");
            assert_eq!((told.operation, told.failure.code()), (operation, code));
        }
    }
}
