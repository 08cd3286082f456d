//! What can go wrong, as a caller of the driver sees it.
//!
//! One [`Error`] says which operation on which layer failed, and [`Failure`] says why: one case for each
//! thing that a caller can act on. The component's own errors (`error` in `wit/types.wit`), those of the
//! privileged part and those of the sandbox all end here.

mod escaped;
mod json;
mod shortage;

use std::borrow::Cow;
use std::path::Path;
use std::{fmt, io};

use layerbox_privileged::id::LayerId;
use nix::libc;
use serde::{Deserialize, Serialize};

pub use escaped::Escaped;
pub use json::{json_line, write_json};
pub use shortage::Shortage;

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    /// The operation, by the name of its command: `apply-diff`.
    pub operation: &'static str,
    /// The layer it was about, as the caller named it; none for the store as a whole.
    pub layer: Option<String>,
    /// Why it failed.
    #[source]
    pub failure: Failure,
}

/// Why an operation failed. It crosses from the service to the command line as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Failure {
    /// There is no such layer.
    #[error("no such layer: {}", Escaped(.0.as_bytes()))]
    NotFound(String),
    /// There is such a layer already.
    #[error("the layer exists already")]
    Exists,
    /// The parent does not exist; nothing was made.
    #[error("no such parent: {}", Escaped(.0.as_bytes()))]
    NoSuchParent(String),
    /// The text is no layer id.
    #[error("invalid layer id: {}", shortened(.0))]
    InvalidId(String),
    /// The layer would have more ancestors than the store's backend can mount.
    #[error("too deep: a layer can have at most {0} ancestors")]
    TooDeep(u32),
    /// The layer is not whole.
    #[error("the layer is incomplete: {}", Escaped(.0.as_bytes()))]
    Incomplete(String),
    /// Somebody holds the layer.
    #[error("busy: {0}")]
    Busy(String),
    /// A call that is under way has locked the layer.
    #[error("busy: {0}")]
    Locked(String),
    /// Another layer lies on this one.
    #[error("the layer has children, such as {}", Escaped(.0.as_bytes()))]
    HasChildren(String),
    /// The layer or the store is not in a state for this.
    #[error("{0}")]
    Conflict(String),
    /// Where the layer would be lies what belongs to no layer.
    #[error("there is something that belongs to no layer: {0}")]
    Occupied(String),
    /// The store is being rewritten for another backend, and that was cut off.
    #[error("the store is half converted from {from} to {to}")]
    Converting {
        /// The backend that it was of.
        from: String,
        /// The one that it shall be of.
        to: String,
    },
    /// Another process owns the store.
    #[error("the store is in use by {0}")]
    StoreInUse(String),
    /// There is no store at this root.
    #[error("there is no store at {0}")]
    NoStore(String),
    /// The store is on a file system that cannot be written.
    #[error("the store at {0} is on a read-only file system")]
    ReadOnly(String),
    /// The store is not for this user.
    #[error("no access to the store at {0}: Permission denied")]
    NoAccess(String),
    /// What came in is malformed or hostile.
    #[error("{rule}{}", entry_suffix(.entry))]
    Refused {
        /// The entry, as the archive names it; empty for the archive as a whole.
        entry: Vec<u8>,
        /// The rule that it breaks.
        rule: String,
    },
    /// A limit was reached.
    #[error("limit reached: {bound}{}", entry_suffix(.entry))]
    Limit {
        /// The entry at which it was reached; may be empty.
        entry: Vec<u8>,
        /// The bound and its value.
        bound: String,
    },
    /// The component asked for what this call was not lent.
    #[error("the component was denied: {0}")]
    Denied(String),
    /// The kernel did not mount the union.
    #[error("mount failed{}: {detail}: {}", mount_suffix(.layer, .filesystem), os_text(*.code))]
    MountFailed {
        /// The layer that the kernel did not take, where known.
        layer: Option<String>,
        /// The file system it lies on, where known.
        filesystem: Option<String>,
        /// Which step failed.
        detail: String,
        /// The error number.
        code: i32,
    },
    /// An operation of the kernel failed.
    #[error("{operation}{}: {}", entry_suffix(.entry), os_text(*.code))]
    Io {
        /// The entry that was worked on; may be empty.
        entry: Vec<u8>,
        /// The operation.
        operation: String,
        /// The error number (errno(3)).
        code: i32,
    },
    /// An operation failed for a reason that is no error number of the kernel.
    #[error("{operation}{}: {what}", entry_suffix(.entry))]
    Other {
        /// The entry that was worked on; may be empty.
        entry: Vec<u8>,
        /// The operation.
        operation: String,
        /// Why it failed.
        what: String,
    },
    /// There is no room for it.
    #[error("{operation}{}: {what}", entry_suffix(.entry))]
    Full {
        /// The entry that was worked on; may be empty.
        entry: Vec<u8>,
        /// The operation of the kernel.
        operation: String,
        /// Of what there is none left.
        what: Shortage,
    },
    /// The store's records contradict each other.
    #[error("the store is damaged: {0}")]
    Corrupt(String),
    /// An argument is out of its bounds.
    #[error("{0}")]
    InvalidArgument(String),
    /// The store's layers are stacked by a file system that this kernel lacks.
    #[error("not supported: this kernel has no aufs")]
    NoAufs,
    /// This cannot be expressed or done here.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The component asks for more than its world allows, or is no component.
    #[error("the component is refused: {0}")]
    GuestRefused(String),
    /// Others could have written what decides what runs as this user, or where its locks and counts lie, or
    /// where an archive is written.
    #[error("not trusted: {}: {why}", Escaped(.path))]
    Untrusted {
        /// The file, or the directory on the way to it.
        path: Vec<u8>,
        /// What is wrong with it.
        why: String,
    },
    /// The component failed: it trapped, or broke the contract.
    #[error("the component failed: {0}")]
    GuestFailed(String),
    /// Only root of a user namespace may do this.
    #[error("{0} needs root, or a user namespace of one's own")]
    NotRoot(Cow<'static, str>),
    /// No service answers where one was named.
    #[error("no service answers at {socket}: {}", os_text(*.code))]
    NoService {
        /// The socket that was named.
        socket: String,
        /// The error number of connect(2).
        code: i32,
    },
    /// The service went away, or said what cannot be understood.
    #[error("the service {0}")]
    Service(Cow<'static, str>),
}

/// Exit statuses of the command line (`layerbox(1)`); the classes that scripts tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// 1: input, output or the kernel.
    Failed,
    /// 2: wrong usage.
    Usage,
    /// 3: not found.
    NotFound,
    /// 4: exists, busy, has children, in use.
    Conflict,
    /// 5: hostile or malformed.
    Refused,
    /// 6: a limit.
    Limit,
}

impl Class {
    /// The exit status.
    pub fn status(self) -> u8 {
        match self {
            Class::Failed => 1,
            Class::Usage => 2,
            Class::NotFound => 3,
            Class::Conflict => 4,
            Class::Refused => 5,
            Class::Limit => 6,
        }
    }
}

impl Failure {
    /// Which class of exit status this belongs to.
    pub fn class(&self) -> Class {
        match self {
            Failure::NotFound(_) | Failure::NoSuchParent(_) | Failure::NoStore(_) => Class::NotFound,
            Failure::Exists
            | Failure::Busy(_)
            | Failure::Locked(_)
            | Failure::HasChildren(_)
            | Failure::Conflict(_)
            | Failure::Incomplete(_)
            | Failure::Occupied(_)
            | Failure::Converting { .. }
            | Failure::StoreInUse(_) => Class::Conflict,
            Failure::InvalidId(_)
            | Failure::Refused { .. }
            | Failure::GuestRefused(_)
            | Failure::Untrusted { .. } => Class::Refused,
            Failure::Limit { .. } | Failure::TooDeep(_) => Class::Limit,
            Failure::InvalidArgument(_) => Class::Usage,
            Failure::Denied(_)
            | Failure::MountFailed { .. }
            | Failure::Io { .. }
            | Failure::Other { .. }
            | Failure::Full { .. }
            | Failure::Corrupt(_)
            | Failure::ReadOnly(_)
            | Failure::NoAccess(_)
            | Failure::NoAufs
            | Failure::Unsupported(_)
            | Failure::GuestFailed(_)
            | Failure::NotRoot(_)
            | Failure::NoService { .. }
            | Failure::Service(_) => Class::Failed,
        }
    }

    /// A stable name for programs: `no-such-parent`.
    pub fn code(&self) -> &'static str {
        match self {
            Failure::NotFound(_) => "not-found",
            Failure::Exists => "exists",
            Failure::NoSuchParent(_) => "no-such-parent",
            Failure::InvalidId(_) => "invalid-id",
            Failure::TooDeep(_) => "too-deep",
            Failure::Incomplete(_) => "incomplete",
            Failure::Busy(_) | Failure::Locked(_) => "busy",
            Failure::HasChildren(_) => "has-children",
            Failure::Conflict(_) => "conflict",
            Failure::Occupied(_) => "occupied",
            Failure::Converting { .. } => "converting",
            Failure::StoreInUse(_) => "store-in-use",
            Failure::NoStore(_) => "no-store",
            Failure::ReadOnly(_) => "read-only",
            Failure::NoAccess(_) => "no-access",
            Failure::Refused { .. } => "refused",
            Failure::Limit { .. } => "limit",
            Failure::Denied(_) => "denied",
            Failure::MountFailed { .. } => "mount-failed",
            Failure::Io { .. } | Failure::Other { .. } => "io",
            Failure::Full { what: Shortage::Space, .. } => "no-space",
            Failure::Full { what: Shortage::Inodes, .. } => "no-inodes",
            Failure::Full { what: Shortage::Quota, .. } => "quota",
            Failure::Corrupt(_) => "corrupt",
            Failure::InvalidArgument(_) => "invalid-argument",
            Failure::Unsupported(_) | Failure::NoAufs => "unsupported",
            Failure::GuestRefused(_) => "guest-refused",
            Failure::Untrusted { .. } => "untrusted",
            Failure::GuestFailed(_) => "guest-failed",
            Failure::NotRoot(_) => "not-root",
            Failure::NoService { .. } => "no-service",
            Failure::Service(_) => "service",
        }
    }

    /// The entry of the archive or layer, or the file, that it is about; none where it is not about one.
    pub fn entry(&self) -> Option<&[u8]> {
        match self {
            Failure::Refused { entry, .. }
            | Failure::Limit { entry, .. }
            | Failure::Io { entry, .. }
            | Failure::Other { entry, .. }
            | Failure::Full { entry, .. } => (!entry.is_empty()).then_some(entry.as_slice()),
            Failure::Untrusted { path, .. } => Some(path),
            _ => None,
        }
    }

    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        const UNPRIVILEGED: &str =
            "run as root, or inside user and mount namespaces of your own: unshare --map-root-user --mount";
        match self {
            Failure::NotRoot(_) => Some(UNPRIVILEGED),
            Failure::MountFailed { code: libc::EPERM | libc::EACCES, .. } => Some(UNPRIVILEGED),
            Failure::Full { what: Shortage::Space, .. } => {
                Some("make room: layerbox remove needs none; see df")
            }
            Failure::Full { what: Shortage::Inodes, .. } => {
                Some("remove layers, which needs no inode, or other files; see df -i")
            }
            Failure::Full { what: Shortage::Quota, .. } => {
                Some("remove layers, which needs no room, or ask for more; see quota")
            }
            Failure::Io { code: libc::ENOSPC, .. } => {
                Some("the file system is full, of bytes or of inodes: see df and df -i")
            }
            Failure::Exists => Some("remove it first, or choose another id"),
            Failure::Occupied(_) => {
                Some("layerbox check --repair moves it to lost+found/, or finds its layer")
            }
            Failure::HasChildren(_) => Some("remove the children first: layerbox list --tree"),
            Failure::Busy(_) => {
                Some("end what uses the layer, or use remove --force, which unmounts it first")
            }
            Failure::Locked(_) => Some("another call on the layer is under way: try again when it has ended"),
            Failure::NoStore(_) => {
                Some("create makes one; or name another root with --root or LAYERBOX_ROOT")
            }
            Failure::ReadOnly(_) => Some(
                "mount it writable, or copy it; what only reads a store works even so, but for one of Docker's that was never opened",
            ),
            Failure::NoAccess(_) => Some(
                "it belongs to another user: run as that one, or name a store of your own with --root or LAYERBOX_ROOT",
            ),
            Failure::InvalidId(_) => {
                Some("an id is 1 to 128 of A-Z a-z 0-9 _ . - and begins with a letter or a digit")
            }
            Failure::Untrusted { .. } => Some(
                "others could lead you astray by it: let it belong to root or to you (chown), and nobody else write it (chmod go-w), or name another place",
            ),
            Failure::Converting { .. } => Some(
                "run layerbox convert again, which goes on; with --backend, the backend that it was of, it turns back",
            ),
            Failure::NoAufs => Some(
                "layerbox convert --backend overlay rewrites the store for overlayfs, and then it mounts",
            ),
            Failure::Corrupt(_) => Some("layerbox check says more"),
            Failure::NoService { .. } => Some("start one: layerbox serve; or leave --socket out"),
            Failure::Service(_) => Some("layerbox list and metadata show whether the call was done"),
            _ => None,
        }
    }
}

impl Error {
    /// What the user can do about it, where there is something: as [`Failure::hint`], but for `check`, of
    /// which nobody knows more.
    pub fn hint(&self) -> Option<&'static str> {
        match self.failure {
            Failure::Corrupt(_) if self.operation == "check" => None,
            _ => self.failure.hint(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.operation)?;
        if let Some(layer) = self.layer.as_ref().filter(|layer| !layer.is_empty()) {
            write!(f, " {}", shortened(layer))?;
        }
        write!(f, ": {}", self.failure)
    }
}

impl Failure {
    /// Says which operation on which layer this was the end of.
    pub fn during(self, operation: &'static str, layer: Option<&LayerId>) -> Error {
        Error { operation, layer: layer.map(|id| id.as_str().to_owned()), failure: self }
    }
}

impl From<layerbox_privileged::error::Error> for Failure {
    fn from(error: layerbox_privileged::error::Error) -> Failure {
        use layerbox_privileged::error::Error as E;
        let bytes = |entry: Option<layerbox_privileged::name::Name>| {
            entry.map(|name| name.as_bytes().to_vec()).unwrap_or_default()
        };
        match error {
            E::Io { entry, operation, errno } => {
                Failure::Io { entry: bytes(entry), operation: operation.to_owned(), code: errno }
            }
            E::Other { entry, operation, what } => {
                Failure::Other { entry: bytes(entry), operation: operation.to_owned(), what }
            }
            E::Refused { entry, rule } => Failure::Refused { entry, rule },
            E::Limit { entry, bound } => Failure::Limit { entry: bytes(entry), bound },
            E::Busy(who) => Failure::Busy(who),
            E::Conflict(what) => Failure::Conflict(what),
            E::Unsupported(what) => Failure::Unsupported(what),
            E::InvalidArgument(what) => Failure::InvalidArgument(what),
            E::MountFailed { layer, filesystem, operation, errno, detail } => Failure::MountFailed {
                layer: layer.map(|id| id.as_str().to_owned()),
                filesystem,
                detail: if detail.is_empty() {
                    operation.to_owned()
                } else {
                    format!("{operation} ({detail})")
                },
                code: errno,
            },
        }
    }
}

impl Failure {
    /// As [`Failure::io`], at a path of the machine.
    pub(crate) fn io_at(operation: &str, path: &Path, error: &io::Error) -> Failure {
        let mut failure = Failure::io(operation, error);
        if let Failure::Io { entry, .. } | Failure::Other { entry, .. } = &mut failure {
            *entry = path.as_os_str().as_encoded_bytes().to_vec();
        }
        failure
    }

    /// Whether it is that a file system cannot be written.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self, Failure::ReadOnly(_) | Failure::Io { code: libc::EROFS, .. })
    }

    /// Says of what failed in the opening of the store at `root` that it is of the store, where it names no
    /// other file.
    pub(crate) fn name_store(self, root: &Path) -> Failure {
        let path = root.as_os_str().as_encoded_bytes();
        match self {
            Failure::Io { entry, operation, code } if entry.is_empty() || entry == path => match code {
                libc::EROFS => Failure::ReadOnly(Escaped(path).to_string()),
                libc::EACCES => Failure::NoAccess(Escaped(path).to_string()),
                _ => Failure::Io { entry: path.to_vec(), operation, code },
            },
            other => other,
        }
    }

    /// An operation of the standard library, or of cap-std's, that failed.
    pub fn io(operation: &str, error: &io::Error) -> Failure {
        let (entry, operation) = (Vec::new(), operation.to_owned());
        match error.raw_os_error() {
            Some(code) => Failure::Io { entry, operation, code },
            // cap-std's word for a path that leads out of a directory: a link that no store has.
            None if error.kind() == io::ErrorKind::PermissionDenied => {
                Failure::Corrupt(format!("{operation}: {error}"))
            }
            None => Failure::Other { entry, operation, what: error.to_string() },
        }
    }
}

/// Text from outside that should have been an id, for a message of one line.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 140;
    if text.is_empty() {
        return "(empty)".to_owned();
    }
    let mut characters = text.chars();
    let shown: String = characters.by_ref().take(SHOWN).collect();
    let rest = if characters.next().is_some() { "…" } else { "" };
    format!("{}{rest}", Escaped(shown.as_bytes()))
}

fn entry_suffix(entry: &[u8]) -> String {
    if entry.is_empty() { String::new() } else { format!(" ({})", Escaped(entry)) }
}

fn mount_suffix(layer: &Option<String>, filesystem: &Option<String>) -> String {
    match (layer, filesystem) {
        (Some(layer), Some(filesystem)) => format!(" at layer {layer} on {filesystem}"),
        (Some(layer), None) => format!(" at layer {layer}"),
        (None, Some(filesystem)) => format!(" on {filesystem}"),
        (None, None) => String::new(),
    }
}

fn os_text(code: i32) -> String {
    let text = std::io::Error::from_raw_os_error(code).to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
