//! Where the demo can work: a directory on a file system that can hold the upper layer of a union.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use layerbox_privileged::mount::mountinfo;
use rustix::fs::XattrFlags;

use super::super::output::human_size;

/// A directory that was made for the demo.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    filesystem: String,
    free: u64,
}

impl Place {
    /// In a line.
    pub(super) fn describe(&self) -> String {
        let parent = self.path.parent().unwrap_or(Path::new("/"));
        format!(
            "{} is on {}, which a union can write to; {} are free.",
            parent.display(),
            self.filesystem,
            human_size(self.free)
        )
    }
}

/// File systems that the kernel's unions do not take, or not for writing: unions themselves, those of a
/// network or of a user process, those without extended attributes or device nodes (overlayfs.rst, "Upper and
/// lower file systems"; aufs(5)).
const UNFIT: [&str; 14] = [
    "overlay", "aufs", "nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "vfat", "exfat", "msdos", "ramfs",
    "squashfs", "iso9660",
];

/// Makes a directory in the first of the usual places that is fit.
pub(super) fn find() -> Result<Place> {
    let wished = std::env::var_os("TMPDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let usual = ["/var/tmp", "/tmp", "/dev/shm"].map(PathBuf::from);
    let mut reasons = Vec::new();
    for parent in wished.into_iter().chain(usual) {
        match try_place(&parent) {
            Ok(place) => return Ok(place),
            Err(error) => reasons.push(format!("{}: {error:#}", parent.display())),
        }
    }
    bail!("no directory is fit for layers ({}); name one with TMPDIR", reasons.join("; "))
}

fn try_place(parent: &Path) -> Result<Place> {
    let parent = parent.canonicalize()?;
    if parent.to_str().is_none_or(|path| path.contains(char::is_whitespace)) {
        bail!("its name would need quotes");
    }
    let mounts = mountinfo::read("self").context("/proc/self/mountinfo")?;
    let mount = mountinfo::holding(&mounts, &parent).context("not in /proc/self/mountinfo")?;
    let filesystem = String::from_utf8_lossy(&mount.filesystem).into_owned();
    if UNFIT.contains(&filesystem.as_str()) || filesystem.starts_with("fuse") {
        bail!("a union cannot write to {filesystem}");
    }
    let stat = nix::sys::statvfs::statvfs(&parent)?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    let path = nix::unistd::mkdtemp(&parent.join("layerbox-demo-XXXXXX")).context("mkdtemp")?;
    let place = Place { path, filesystem, free };
    if let Err(error) = takes_attributes(&place.path) {
        fs::remove_dir(&place.path)?;
        bail!("{} takes no extended attributes: {error}", place.filesystem);
    }
    Ok(place)
}

/// Tries the attributes in which overlayfs keeps its books: `trusted.`, or `user.` in a user namespace.
fn takes_attributes(path: &Path) -> rustix::io::Result<()> {
    let try_name = |name: &str| {
        rustix::fs::setxattr(path, name, b"y", XattrFlags::empty())?;
        rustix::fs::removexattr(path, name)
    };
    try_name("trusted.layerbox").or_else(|_| try_name("user.layerbox"))
}
