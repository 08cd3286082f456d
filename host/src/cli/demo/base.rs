//! Where the demo's base layer comes from.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::super::output::{count, human_size};
use super::stage::quoted;

/// A root file system, and the command that makes a layer of it.
#[derive(Debug)]
pub(super) struct Base {
    /// What it is.
    pub(super) description: String,
    /// Fills the layer `base`; runs in the stage's directory.
    pub(super) command: String,
}

/// After this long debootstrap is not waited for: without a mirror it tries for a very long time.
pub(super) const DEBOOTSTRAP_TIME: Duration = Duration::from_secs(300);

impl Base {
    /// An archive that the user has.
    pub(super) fn of_archive(path: &Path) -> Base {
        let command = format!("layerbox apply-diff base {}", quoted(path.as_os_str()).to_string_lossy());
        Base { description: "From the archive that was given:".to_owned(), command }
    }
}

/// The command that fetches a minimal Debian into `debian`; none where debootstrap is not installed.
pub(super) fn debootstrap() -> Option<&'static str> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")])
        .any(|directory| directory.join("debootstrap").is_file());
    // In namespaces of its own, so that its mounts and processes are gone when it is ended half way.
    installed
        .then_some("unshare --mount --pid --fork --kill-child debootstrap --variant=minbase bookworm debian")
}

/// What debootstrap made.
pub(super) fn of_debian() -> Base {
    Base {
        description: "The tree goes through tar into the layer:".to_owned(),
        command: "tar -C debian -c . | layerbox apply-diff base".to_owned(),
    }
}

/// The parts of `/usr` that are taken, and how much of each at most: enough to look real, little enough to
/// take seconds on any machine.
const PARTS: [&str; 4] = ["usr/bin", "usr/sbin", "usr/lib", "usr/share"];
const PART_BYTES: u64 = 64 << 20;
const PART_NAMES: usize = 5_000;
const FILE_BYTES: u64 = 8 << 20;

/// How the kernel shows an owner that has no number here (`/proc/sys/kernel/overflowuid`).
const OVERFLOW_ID: u32 = 65_534;

/// A part of this machine's `/usr`. The list of its names is written to the file `usr.list` in `directory`.
pub(super) fn of_usr(directory: &Path) -> Result<Base> {
    let mut names = vec![PathBuf::from("usr")];
    let mut bytes = 0;
    for part in PARTS {
        bytes += gather(Path::new("/"), Path::new(part), &mut names)?;
    }
    let list: Vec<u8> = names.iter().flat_map(|name| [name.as_os_str().as_bytes(), b"\0"].concat()).collect();
    fs::write(directory.join("usr.list"), list).context("writing usr.list")?;
    let names = count(names.len() as u64, "name", "names");
    Ok(Base {
        description: format!("A part of this machine's /usr: {names}, {}.", human_size(bytes)),
        command: "tar -C / --null --no-recursion -T \"$PWD/usr.list\" -c | layerbox apply-diff base"
            .to_owned(),
    })
}

/// Adds a directory and what lies below it, breadth first and up to the limits, and returns the sum of the
/// sizes.
fn gather(root: &Path, part: &Path, names: &mut Vec<PathBuf>) -> Result<u64> {
    let (mut bytes, first) = (0, names.len());
    let mut open = std::collections::VecDeque::from([part.to_owned()]);
    while let Some(name) = open.pop_front() {
        // A part that is no directory of its own (a link, or missing) is left out, and so is what cannot be
        // looked at.
        let Ok(metadata) = root.join(&name).symlink_metadata() else { continue };
        // What belongs to somebody whom this user namespace does not know cannot be given to the same in a
        // layer.
        if metadata.uid() == OVERFLOW_ID || metadata.gid() == OVERFLOW_ID {
            continue;
        }
        if names.len() - first >= PART_NAMES || (name == part && !metadata.is_dir()) {
            break;
        }
        if metadata.is_dir() {
            let mut entries: Vec<PathBuf> = fs::read_dir(root.join(&name))
                .map(|entries| entries.flatten().map(|entry| name.join(entry.file_name())).collect())
                .unwrap_or_default();
            entries.sort_unstable_by(|a, b| bytes_of(a).cmp(bytes_of(b)));
            open.extend(entries);
        } else if metadata.is_file() {
            if metadata.size() > FILE_BYTES || bytes + metadata.size() > PART_BYTES {
                continue;
            }
            bytes += metadata.size();
        } else if !metadata.is_symlink() {
            continue;
        }
        names.push(name);
    }
    Ok(bytes)
}

fn bytes_of(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}
