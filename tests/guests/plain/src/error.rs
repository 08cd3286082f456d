//! Errors of the contract, shortly said.

use crate::bindings::layerbox::driver::types::{Excess, IoFailure, Refusal};

pub(crate) use crate::bindings::layerbox::driver::types::Error;

/// What almost every function here answers.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The archive breaks a rule; `entry` is empty where the archive as a whole is meant.
pub(crate) fn refused(entry: &[u8], rule: impl Into<String>) -> Error {
    Error::Refused(Refusal { entry: entry.to_vec(), rule: rule.into() })
}

/// A bound was reached at this entry.
pub(crate) fn limit(entry: &[u8], what: &str, value: u64) -> Error {
    let entry = (!entry.is_empty()).then(|| entry.to_vec());
    Error::Limit(Excess { entry, bound: format!("{what} ({value})") })
}

/// The same error, with the entry where it has none.
pub(crate) fn of(entry: &[u8], mut error: Error) -> Error {
    match &mut error {
        Error::Refused(refusal) if refusal.entry.is_empty() => refusal.entry = entry.to_vec(),
        Error::Limit(excess) if excess.entry.is_none() => excess.entry = Some(entry.to_vec()),
        _ => {}
    }
    error
}

/// An operation on `layers/` failed. WASI numbers errors in its own way, and the contract wants Linux'
/// numbers.
pub(crate) fn disk(operation: &str, error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    let code = match error.kind() {
        ErrorKind::NotFound => 2,
        ErrorKind::PermissionDenied => 13,
        ErrorKind::AlreadyExists => 17,
        ErrorKind::StorageFull => 28,
        ErrorKind::ReadOnlyFilesystem => 30,
        ErrorKind::QuotaExceeded => 122,
        _ => 5,
    };
    Error::Io(IoFailure { entry: None, operation: operation.to_owned(), code })
}

/// Bytes of a name in words for a person: what is not printable is escaped.
pub(crate) fn printable(name: &[u8]) -> String {
    name.escape_ascii().to_string()
}
