//! Where errors of other kinds become the contract's one error type.

use std::io::{self, ErrorKind};

use crate::archive::{Malformed, Unrepresentable};
use crate::bindings::layerbox::driver::types::{Excess, IoFailure, Refusal};
use crate::host::Error;

/// What comes in breaks a rule.
pub(crate) fn refused(entry: &[u8], rule: impl Into<String>) -> Error {
    Error::Refused(Refusal { entry: entry.to_vec(), rule: rule.into() })
}

/// A bound of the call was reached at an entry; an empty name stands for the archive as a whole.
pub(crate) fn limit(entry: &[u8], what: &str, bound: u64) -> Error {
    Malformed { entry: entry.to_vec(), rule: format!("{what} ({bound})"), limit: true }.into()
}

/// The same error, about this entry where it is about none.
pub(crate) fn within(entry: &[u8], mut error: Error) -> Error {
    match &mut error {
        Error::Refused(refusal) if refusal.entry.is_empty() => refusal.entry = entry.to_vec(),
        Error::Limit(excess) if excess.entry.is_none() && !entry.is_empty() => {
            excess.entry = Some(entry.to_vec());
        }
        _ => {}
    }
    error
}

/// The same error, with another name for the entry that the host tells it of.
pub(crate) fn renamed(mut error: Error, name: impl Fn(&[u8]) -> Vec<u8>) -> Error {
    match &mut error {
        Error::Refused(refusal) => refusal.entry = name(&refusal.entry),
        Error::Limit(excess) => excess.entry = excess.entry.as_deref().map(name),
        _ => {}
    }
    error
}

/// An operation of the kernel failed.
pub(crate) fn io(entry: Option<&[u8]>, operation: &str, error: &io::Error) -> Error {
    Error::Io(IoFailure {
        entry: entry.map(<[u8]>::to_vec),
        operation: operation.to_owned(),
        code: linux_error_number(error),
    })
}

/// WASI numbers its errors in its own way, and differently from one libc to the next; the contract has
/// Linux's numbers.
fn linux_error_number(error: &io::Error) -> u32 {
    const EIO: u32 = 5;
    if cfg!(target_os = "linux") {
        return error.raw_os_error().and_then(|code| u32::try_from(code).ok()).unwrap_or(EIO);
    }
    match error.kind() {
        ErrorKind::NotFound => 2,
        ErrorKind::PermissionDenied => 13,
        ErrorKind::AlreadyExists => 17,
        ErrorKind::NotADirectory => 20,
        ErrorKind::IsADirectory => 21,
        ErrorKind::InvalidInput => 22,
        ErrorKind::FileTooLarge => 27,
        ErrorKind::StorageFull => 28,
        ErrorKind::ReadOnlyFilesystem => 30,
        ErrorKind::DirectoryNotEmpty => 39,
        ErrorKind::QuotaExceeded => 122,
        _ => EIO,
    }
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        let Malformed { entry, rule, limit } = malformed;
        if limit {
            Self::Limit(Excess { entry: (!entry.is_empty()).then_some(entry), bound: rule })
        } else {
            Self::Refused(Refusal { entry, rule })
        }
    }
}

impl From<Unrepresentable> for Error {
    fn from(what: Unrepresentable) -> Self {
        Self::Unsupported(format!("`{}` cannot be in an archive: {}", what.entry.escape_ascii(), what.reason))
    }
}
