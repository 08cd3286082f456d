//! Mount namespaces: which one this process is in, and who is in another.
//!
//! A mount is seen where it was made and where it is propagated to (mount_namespaces(7)). That nothing is
//! mounted here says nothing of elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// A mount namespace: the inode of its file below `/proc`. No two that exist have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Namespace(pub(crate) u64);

impl Namespace {
    /// That of this process; none where `/proc` does not say.
    pub(crate) fn own() -> Option<Namespace> {
        fs::metadata("/proc/self/ns/mnt").ok().map(|found| Namespace(found.ino()))
    }

    /// The first process that is in it, of those that may be looked at. Whoever is in a user namespace of his
    /// own does not see into his other ones.
    pub(crate) fn somebody(self) -> Option<u32> {
        let mut processes: Vec<u32> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        processes.sort_unstable();
        processes.into_iter().find(|&process| self.holds(process))
    }

    /// Whether a process is in it.
    pub(crate) fn holds(self, process: u32) -> bool {
        fs::metadata(format!("/proc/{process}/ns/mnt")).is_ok_and(|found| found.ino() == self.0)
    }
}

/// A process as messages name it.
pub(crate) fn named(process: u32) -> String {
    let command = fs::read(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("process {process} ({})", command.trim_ascii_end().escape_ascii())
}
