//! Where what a reboot must clear lies: locks and reference counts.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

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
/// Those of making directories; [`Failure::Untrusted`] for one that is there and is not the caller's alone. The error is that of the best place.
pub(crate) fn private_directory(names: &[&str]) -> Result<PathBuf, Failure> {
    let mut first = None;
    for mut directory in candidates() {
        let mut made = make_private(&directory);
        for name in names {
            directory.push(name);
            made = made.and_then(|()| make_private(&directory));
        }
        match made {
            Ok(()) => return Ok(directory),
            Err(failure) if is_for_others(&failure) => first = first.or(Some(failure)),
            Err(failure) => return Err(failure),
        }
    }
    Err(first.unwrap_or_else(|| Failure::io("mkdir", &io::ErrorKind::NotFound.into())))
}

/// Whether a place is not for this caller, now and at other times. After any other failure, such as a full disk, the next process may succeed there: this one
/// must not go elsewhere, where it would not see the locks and counts that the next one sees.
fn is_for_others(failure: &Failure) -> bool {
    use Errno::{EACCES, ENOENT, ENOTDIR, EPERM, EROFS};
    match failure {
        Failure::Untrusted { .. } => true,
        Failure::Io { code, .. } => {
            matches!(Errno::from_raw(*code), EACCES | ENOENT | ENOTDIR | EPERM | EROFS)
        }
        _ => false,
    }
}

/// The directories that [`runtime_directory`] would take, where they are there: the first is the one that it takes, unless that cannot be written any more.
pub(super) fn existing_directories(identity: &str) -> impl Iterator<Item = PathBuf> {
    let candidates = candidates().into_iter().filter(|ours| is_private(ours).unwrap_or(false));
    candidates.map(move |ours| ours.join(identity)).filter(|directory| is_private(directory).unwrap_or(false))
}

/// Where the directories of all stores may lie, the best place first.
fn candidates() -> Vec<PathBuf> {
    let mut candidates = vec![PathBuf::from("/run/layerbox")];
    candidates.extend(std::env::var_os("XDG_RUNTIME_DIR").map(|base| PathBuf::from(base).join("layerbox")));
    candidates.push(PathBuf::from(format!("/dev/shm/layerbox-{}", nix::unistd::geteuid())));
    candidates
}

/// Makes a directory that only its owner can enter; one that is there already must be the caller's own.
fn make_private(path: &Path) -> Result<(), Failure> {
    let entry = path.as_os_str().as_encoded_bytes();
    let failed = |operation: &str, error: &io::Error| Failure::Io {
        entry: entry.to_vec(),
        operation: operation.to_owned(),
        code: error.raw_os_error().unwrap_or_default(),
    };
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => match is_private(path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::Untrusted {
                path: entry.to_vec(),
                why: "it is no directory that belongs to this user and that nobody else can write".to_owned(),
            }),
            Err(e) => Err(failed("stat", &e)),
        },
        other => other.map_err(|e| failed("mkdir", &e)),
    }
}

/// Whether it is a directory of the caller that nobody else writes to.
fn is_private(path: &Path) -> io::Result<bool> {
    let found = std::fs::symlink_metadata(path)?;
    Ok(found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0)
}
