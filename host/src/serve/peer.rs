//! Who is at the other end of a socket, and whether it will see what is mounted here.

use std::path::Path;

use layerbox_privileged::mount::mountinfo::{self, Mount, holding};
use layerbox_privileged::mount::thread;
use serde::{Deserialize, Serialize};

/// A process, told from every other one that had its number before: by when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, as this process sees it.
    pub pid: i32,
    /// When it started, in ticks since the boot (proc(5), stat, field 22).
    pub started: u64,
}

impl Process {
    /// The number of the process that connected. None where it cannot be told: it lives in a pid namespace
    /// that is not seen from here.
    pub fn pid_of(stream: &tokio::net::UnixStream) -> Option<i32> {
        stream.peer_cred().ok()?.pid()
    }

    /// The process that has this number now; none where it has ended.
    pub fn with_pid(pid: i32) -> Option<Process> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program, in parentheses, may hold anything, parentheses and spaces among it.
        let after = stat.rsplit_once(") ")?.1;
        let started = after.split(' ').nth(19)?.parse().ok()?;
        Some(Process { pid, started })
    }

    /// Whether it still runs.
    pub fn is_alive(self) -> bool {
        Process::with_pid(self.pid) == Some(self)
    }
}

/// Whether another process sees what is mounted here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// It does: one mount namespace, or mounts are handed on to its own.
    Seen,
    /// It does not.
    Unseen,
    /// That cannot be told.
    Unknown,
}

/// Whether a process sees mounts that are made below `root` here.
pub fn sight(pid: i32, root: &Path) -> Sight {
    let root = root.to_owned();
    // Looking at another process needs what only that thread keeps.
    thread::run(move || look(pid, &root)).unwrap_or(Sight::Unknown)
}

fn look(pid: i32, root: &Path) -> Sight {
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/mnt"));
    let (Ok(ours), Ok(theirs)) = (namespace("self"), namespace(&pid.to_string())) else {
        return Sight::Unknown;
    };
    if ours == theirs {
        return Sight::Seen;
    }
    let (Ok(ours), Ok(theirs)) = (mountinfo::read("self"), mountinfo::read(&pid.to_string())) else {
        return Sight::Unknown;
    };
    if hands_on(&ours, &theirs, root) { Sight::Seen } else { Sight::Unseen }
}

/// Whether the mount that holds `root` here is in a group whose mounts appear there as well: as a peer of the
/// group, or as its slave (mount_namespaces(7), SHARED SUBTREES).
fn hands_on(ours: &[Mount], theirs: &[Mount], root: &Path) -> bool {
    holding(ours, root).zip(holding(theirs, root)).is_some_and(|(here, there)| here.hands_on_to(there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_told_apart() {
        let own = i32::try_from(std::process::id()).expect("a small number");
        let process = Process::with_pid(own).expect("this process");
        assert!(process.is_alive() && process.started > 0);
        assert!(!Process { started: process.started + 1, ..process }.is_alive());
    }

    #[test]
    fn mounts_are_handed_on_by_groups() {
        let root = Path::new("/var/lib/docker/x");
        let parsed = |text: &str| mountinfo::parse(text.as_bytes()).expect("mounts");
        let shared =
            parsed("21 1 0:1 / / rw shared:1 - ext4 /dev/a rw\n30 21 0:2 / /var/lib rw shared:7 - ext4 b rw");
        let cases = [
            // A peer of the group, its slave, a mount of its own, another group, and one that only looks like
            // ours.
            ("21 1 0:1 / / rw shared:1 - ext4 a rw\n30 21 0:2 / /var/lib rw shared:7 - ext4 b rw", true),
            ("30 21 0:2 / /var/lib rw master:7 - ext4 b rw", true),
            ("30 21 0:2 / /var/lib rw - ext4 b rw", false),
            ("30 21 0:2 / /var/lib rw shared:70 - ext4 b rw", false),
            ("30 21 0:2 / / rw shared:7 - ext4 b rw\n31 30 0:3 / /var/lib/docker rw - ext4 c rw", false),
            ("", false),
        ];
        for (theirs, seen) in cases {
            assert_eq!(hands_on(&shared, &parsed(theirs), root), seen, "{theirs}");
        }
        let (private, other) = ("30 21 0:2 / / rw - ext4 b rw", "30 21 0:2 / / rw shared:7 - ext4 b rw");
        assert!(!hands_on(&parsed(private), &parsed(other), root));
    }
}
