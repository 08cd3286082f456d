//! Which system calls a run makes, read from what strace wrote, and at which of them it can be cut off.

use std::collections::{BTreeMap, BTreeSet};

/// The calls that change the disk, the mounts or the locks, or bring them to the disk, and those that open
/// files. Between two calls of these neither changes, so a kill anywhere between them leaves what a kill
/// right before the later one leaves. Some are not known to every architecture: strace skips what has a
/// question mark.
pub const CALLS: &[&str] = &[
    "?open",
    "openat",
    "openat2",
    "?creat",
    "?mkdir",
    "mkdirat",
    "?rename",
    "?renameat",
    "renameat2",
    "?unlink",
    "unlinkat",
    "?rmdir",
    "?link",
    "linkat",
    "?symlink",
    "symlinkat",
    "?mknod",
    "mknodat",
    "write",
    "pwrite64",
    "writev",
    "pwritev",
    "copy_file_range",
    "sendfile",
    "splice",
    "ftruncate",
    "fallocate",
    "fsync",
    "fdatasync",
    "syncfs",
    "?chmod",
    "fchmod",
    "fchmodat",
    "?chown",
    "fchown",
    "?lchown",
    "fchownat",
    "utimensat",
    "setxattr",
    "lsetxattr",
    "fsetxattr",
    "removexattr",
    "lremovexattr",
    "fremovexattr",
    "mount",
    "umount2",
    "fsopen",
    "fsconfig",
    "fsmount",
    "move_mount",
    "open_tree",
    "mount_setattr",
    "flock",
];

/// One call of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: String,
    /// Its name.
    pub name: String,
    /// Its arguments and its result, as strace shows them.
    pub text: String,
}

impl Call {
    /// Whether it may have changed something: it did not fail, and did more than open a file that was there.
    fn changes(&self) -> bool {
        let opens = matches!(self.name.as_str(), "open" | "openat" | "openat2");
        !self.text.contains(" = -1 E") && (!opens || self.text.contains("O_CREAT"))
    }
}

/// A point at which a run is cut off: the `number`th call of this name that a thread makes, from 1. strace
/// counts for each thread by itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Point {
    /// The name of the call.
    pub name: String,
    /// Which one.
    pub number: usize,
}

/// The calls in what `strace -f` wrote, in the order in which they began.
pub fn parse(text: &str) -> Vec<Call> {
    let call = |line: &str| {
        let (thread, rest) = line.split_once(' ')?;
        let rest = rest.trim_start();
        let (name, _) = rest.split_once('(')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        (!name.is_empty() && name.chars().all(plain)).then(|| Call {
            thread: thread.to_owned(),
            name: name.to_owned(),
            text: rest.to_owned(),
        })
    };
    text.lines().filter_map(call).collect()
}

/// The points at which a run can be cut off, from the first call that is about one of `places` on: what comes
/// before is the loading of the program. With `changing`, only those before a call that changes something.
pub fn points(calls: &[Call], places: &[&str], changing: bool) -> BTreeSet<Point> {
    let begin = calls.iter().position(|call| places.iter().any(|place| call.text.contains(place)));
    let mut counted: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut points = BTreeSet::new();
    for (at, call) in calls.iter().enumerate() {
        let number = counted.entry((&call.thread, &call.name)).or_default();
        *number += 1;
        if begin.is_some_and(|begin| at >= begin) && (!changing || call.changes()) {
            points.insert(Point { name: call.name.clone(), number: *number });
        }
    }
    points
}
