//! Where what a reboot must clear lies: locks and reference counts.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The directory for what a reboot must clear of a store. It has a directory `locks` in it.
///
/// It is named after the store's identity, not its path, so that a store that is reached by two paths has one.
pub(super) fn runtime_directory(identity: &str) -> Result<PathBuf, Failure> {
    let mut directory = private_directory(&[identity, "locks"])?;
    directory.pop();
    Ok(directory)
}

/// A directory for what a reboot must clear: below `/run/layerbox` for root, below `$XDG_RUNTIME_DIR` where that cannot be written. Only its owner can
/// enter it.
///
/// # Errors
///
/// Those of making directories.
pub(crate) fn private_directory(names: &[&str]) -> Result<PathBuf, Failure> {
    let mut candidates = vec![PathBuf::from("/run")];
    candidates.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from));
    candidates.push(PathBuf::from("/dev/shm"));
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for base in candidates {
        let uid = nix::unistd::geteuid();
        let mut directory = base.join(if base == Path::new("/dev/shm") {
            format!("layerbox-{uid}")
        } else {
            "layerbox".to_owned()
        });
        let mut made = make_private(&directory);
        for name in names {
            directory.push(name);
            made = made.and_then(|()| make_private(&directory));
        }
        match made {
            Ok(()) => return Ok(directory),
            Err(e) => last = e,
        }
    }
    Err(Failure::io("mkdir", &last))
}

/// Makes a directory that only its owner can enter; one that is there already must be the caller's own.
fn make_private(path: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let found = std::fs::symlink_metadata(path)?;
            if found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0 {
                Ok(())
            } else {
                Err(io::Error::from(io::ErrorKind::PermissionDenied))
            }
        }
        other => other,
    }
}
