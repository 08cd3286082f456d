//! Who keeps a union busy. Asked only after an unmount failed for good.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};

use super::mountinfo;
use crate::namespace::named;

/// How many holders are named; who ends these can ask again.
const NAMED: usize = 5;

/// Processes that work in, run from, or have a file open in what is mounted on `point`, and mounts below it.
pub(super) fn of(point: &Path) -> String {
    let mut found = mounts_below(point);
    if let Some(union) = identity(point) {
        found.extend(processes(&union));
    }
    found.truncate(NAMED);
    match found.is_empty() {
        true => "something that /proc does not show".to_owned(),
        false => found.join(", "),
    }
}

/// The answer of a stat that waits for no server: descriptors of other processes may lie on a dead one.
fn identity(path: &Path) -> Option<Statx> {
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::MNT_ID).ok()
}

fn mounts_below(point: &Path) -> Vec<String> {
    let mut found = Vec::new();
    // What cannot be listed is not named; the caller reports the union as busy all the same.
    let _ = mountinfo::each(|mount| {
        if mount.point != point && mount.point.starts_with(point) {
            found.push(format!("a mount on {:?}", mount.point));
        }
        found.len() < NAMED
    });
    found
}

fn processes(union: &Statx) -> impl Iterator<Item = String> {
    let ids: BTreeSet<u32> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    let holds = holds(union);
    ids.into_iter().filter(move |id| holds(*id)).take(NAMED).map(named)
}

/// By mount, and by device for the union's copies in other mount namespaces.
fn holds(union: &Statx) -> impl Fn(u32) -> bool {
    let (mount, device) = (union.stx_mnt_id, (union.stx_dev_major, union.stx_dev_minor));
    move |id| {
        let process = PathBuf::from(format!("/proc/{id}"));
        let open =
            fs::read_dir(process.join("fd")).into_iter().flatten().filter_map(|fd| Some(fd.ok()?.path()));
        ["cwd", "root", "exe"].iter().map(|name| process.join(name)).chain(open).any(|path| {
            identity(&path).is_some_and(|held| {
                held.stx_mnt_id == mount || (held.stx_dev_major, held.stx_dev_minor) == device
            })
        })
    }
}
