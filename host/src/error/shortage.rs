//! No room on the disk: of what there is none left.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::libc;
use serde::{Deserialize, Serialize};

use super::{Escaped, Failure};

/// Of what a file system has none left; as text in the words of strerror(3), which people and scripts look
/// for, and then what they leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Shortage {
    /// Bytes (ENOSPC).
    #[error("No space left on device: the file system has no bytes left")]
    Space,
    /// Inodes (ENOSPC, and statvfs(3) says that there is none left).
    #[error("No space left on device: the file system has no inodes left")]
    Inodes,
    /// What the quota allows of either (EDQUOT).
    #[error("Disk quota exceeded")]
    Quota,
}

impl Shortage {
    /// The shortage that a failure is, as far as it tells by itself.
    pub fn of(failure: &Failure) -> Option<Shortage> {
        match failure {
            Failure::Full { what, .. } => Some(*what),
            Failure::Io { code: libc::EDQUOT, .. } => Some(Shortage::Quota),
            Failure::Io { code: libc::ENOSPC, .. } => Some(Shortage::Space),
            _ => None,
        }
    }
}

impl Failure {
    /// Whether it is that there is no room on the disk.
    pub fn is_shortage(&self) -> bool {
        Shortage::of(self).is_some()
    }

    /// Says of what there was no room below `root`, or that it cannot be written, where that is why it
    /// failed. To be asked before anything is taken away again.
    pub(crate) fn explain_by_file_system(self, root: &Path) -> Failure {
        // What has a path of the machine lies there: locks and counts are not in the store.
        let elsewhere = match &self {
            Failure::Io { entry, .. } if entry.starts_with(b"/") => {
                Path::new(OsStr::from_bytes(entry)).parent()
            }
            _ => None,
        };
        let elsewhere = elsewhere.filter(|directory| !directory.starts_with(root)).map(Path::to_owned);
        let what = match &self {
            Failure::Io { code: libc::EROFS, .. } if elsewhere.is_none() => {
                return Failure::ReadOnly(Escaped(root.as_os_str().as_encoded_bytes()).to_string());
            }
            Failure::Io { code: libc::EDQUOT, .. } => Shortage::Quota,
            Failure::Io { code: libc::ENOSPC, .. } => {
                match rustix::fs::statvfs(elsewhere.as_deref().unwrap_or(root)) {
                    // Some file systems have no fixed number of inodes, and tell none.
                    Ok(stat) if stat.f_files > 0 && stat.f_favail == 0 => Shortage::Inodes,
                    _ => Shortage::Space,
                }
            }
            _ => return self,
        };
        match self {
            Failure::Io { entry, operation, .. } => Failure::Full { entry, operation, what },
            other => other,
        }
    }
}
