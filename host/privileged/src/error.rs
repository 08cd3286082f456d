//! What can go wrong: one case for each thing that a caller can act on.

use std::io;

use nix::libc;

use crate::LayerId;
use crate::name::{Name, escape};

/// Why an operation was not done. The cases are those of `error` in `wit/types.wit` that privileged code
/// meets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An operation of the kernel failed.
    #[error("{}{operation}: {}", at(entry.as_ref()), io::Error::from_raw_os_error(*errno))]
    Io {
        /// The name in the layer that was worked on, where there was one.
        entry: Option<Name>,
        /// The operation, in the words of the manual pages.
        operation: &'static str,
        /// The error number of Linux (errno(3)).
        errno: i32,
    },
    /// An operation failed for a reason that is no error number of the kernel.
    #[error("{}{operation}: {what}", at(entry.as_ref()))]
    Other {
        /// The name in the layer that was worked on, where there was one.
        entry: Option<Name>,
        /// The operation, in the words of the manual pages.
        operation: &'static str,
        /// Why it failed, in words for a person.
        what: String,
    },
    /// What came in is malformed or hostile.
    #[error("{}: refused: {rule}", escape(entry))]
    Refused {
        /// The entry; empty where the archive as a whole is meant.
        entry: Vec<u8>,
        /// The rule that it breaks, in words for a person.
        rule: String,
    },
    /// A limit was reached.
    #[error("{}limit reached: {bound}", at(entry.as_ref()))]
    Limit {
        /// The entry at which it was reached, where there was one.
        entry: Option<Name>,
        /// The bound and its value, in words for a person.
        bound: String,
    },
    /// Somebody holds what was asked for; says who.
    #[error("busy: {0}")]
    Busy(String),
    /// Something is not in a state in which this can be done; says what.
    #[error("conflict: {0}")]
    Conflict(String),
    /// This cannot be done here; says what and why.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// An argument is out of its bounds; says which.
    #[error("invalid argument: {0}")]
    InvalidArgument(String),
    /// The kernel did not mount a union.
    #[error("mount failed: {operation}: {}: {detail}", io::Error::from_raw_os_error(*errno))]
    MountFailed {
        /// The layer that the kernel did not take, where that is known.
        layer: Option<LayerId>,
        /// The file system that this layer lies on, where that is known.
        filesystem: Option<String>,
        /// The operation, in the words of the manual pages.
        operation: &'static str,
        /// The error number of Linux (errno(3)).
        errno: i32,
        /// What is known beyond the number, in words for a person.
        detail: String,
    },
}

impl Error {
    /// A failure of the kernel, to be used as `map_err(Error::io("openat2"))`.
    ///
    /// A stream may carry one of our own errors inside its `io::Error`; that one comes out as it is. What the
    /// file system cannot hold, a file that is too large or has too many names (errno(3)), is a limit.
    pub(crate) fn io<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Self {
        move |error| match error.into().downcast::<Self>() {
            Ok(own) => own,
            Err(other) => match other.raw_os_error() {
                Some(libc::EFBIG) => {
                    Self::Limit { entry: None, bound: "the size of a file on this file system".into() }
                }
                // Of hard links to a file, and of directories in a directory.
                Some(libc::EMLINK) => {
                    Self::Limit { entry: None, bound: "the names of one file on this file system".into() }
                }
                Some(errno) => Self::Io { entry: None, operation, errno },
                None => Self::Other { entry: None, operation, what: other.to_string() },
            },
        }
    }

    /// Says at which entry it happened, where that is not said yet.
    pub(crate) fn at(mut self, name: &Name) -> Self {
        match &mut self {
            Self::Io { entry, .. } | Self::Other { entry, .. } | Self::Limit { entry, .. }
                if entry.is_none() =>
            {
                *entry = Some(name.clone())
            }
            Self::Refused { entry, .. } if entry.is_empty() => *entry = name.as_bytes().to_vec(),
            _ => {}
        }
        self
    }
}

/// The entry as the beginning of a message.
fn at(entry: Option<&Name>) -> String {
    entry.map(|name| format!("{name}: ")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Error, io};

    #[test]
    fn numbers_of_the_kernel_become_cases() {
        let limit_of = |what| Error::Limit { entry: None, bound: format!("the {what} on this file system") };
        let limit = limit_of("size of a file");
        let io = |errno| Error::Io { entry: None, operation: "write", errno };
        let rows = [
            (io::Error::from_raw_os_error(28), io(28)),
            (
                io::Error::other("without a number"),
                Error::Other { entry: None, operation: "write", what: "without a number".into() },
            ),
            (io::Error::from_raw_os_error(27), limit.clone()),
            (io::Error::from_raw_os_error(31), limit_of("names of one file")),
            (io::Error::other(limit.clone()), limit),
        ];
        for (from, to) in rows {
            assert_eq!(Error::io("write")(from), to);
        }
    }
}
