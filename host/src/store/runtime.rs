//! Where what a reboot must clear lies: locks, reference counts, and the way to the service that owns the
//! store.
//!
//! Each store has a directory for it, which is named after the store's identity and after the directory that
//! is its root: `ID.MAJOR-MINOR.INODE`. By whatever path that is reached, by a bind mount or after a rename,
//! it is one store and has one. A copy has the identity of its original and another root: it has locks,
//! counts and a service of its own. A file system may give a root another number when it is mounted anew;
//! then nothing below the root is mounted any more, and nobody holds a lock.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::root_identity::RootIdentity;
use crate::error::Failure;

/// Where in it the locks of layers are.
pub(super) const LOCKS: &str = "locks";

/// Where in it the locks of their mounts and counts are.
pub(super) const MOUNT_LOCKS: &str = "mount-locks";

/// The name of a store's directory: that of its identity, and of the directory that is its root.
pub(super) fn name(identity: &str, root: &RootIdentity) -> String {
    format!("{identity}.{}", root.number())
}

/// The directory for what a reboot must clear of the store of this [`name`]. It has directories for locks in
/// it.
///
/// One that is there is taken, whatever the environment has to say: a process in another one has made it, and
/// locks and counts there.
pub(super) fn runtime_directory(name: &str) -> Result<PathBuf, Failure> {
    let mut places = candidates();
    places.sort_by_key(|place| !is_private(&place.join(name)).unwrap_or(false));
    let mut directory = private_directory_in(places, &[name, LOCKS])?;
    directory.pop();
    make_private(&directory.join(MOUNT_LOCKS))?;
    Ok(directory)
}

/// A directory for what a reboot must clear: below `/run/layerbox` for root, below `$XDG_RUNTIME_DIR` or
/// `/run/user/UID` where that cannot be written. Only its owner can enter it.
///
/// # Errors
///
/// Those of making directories; [`Failure::Untrusted`] for one that is there and is not the caller's alone.
/// The error is that of the best place.
pub(crate) fn private_directory(names: &[&str]) -> Result<PathBuf, Failure> {
    private_directory_in(candidates(), names)
}

fn private_directory_in(places: Vec<PathBuf>, names: &[&str]) -> Result<PathBuf, Failure> {
    let mut first = None;
    for mut directory in places {
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

/// Whether a place is not for this caller, now and at other times. After any other failure, such as a full
/// disk, the next process may succeed there: this one must not go elsewhere, where it would not see the locks
/// and counts that the next one sees.
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

/// The directories that [`runtime_directory`] would take, where they are there: the first is the one that it
/// takes, unless that cannot be written any more.
pub(super) fn existing_directories(name: &str) -> impl Iterator<Item = PathBuf> {
    let candidates = candidates().into_iter().filter(|ours| is_private(ours).unwrap_or(false));
    candidates.map(move |ours| ours.join(name)).filter(|directory| is_private(directory).unwrap_or(false))
}

/// Where the directories of all stores may lie, the best place first.
fn candidates() -> Vec<PathBuf> {
    let user = outer_user();
    let mut bases = vec![PathBuf::from("/run")];
    bases.extend(std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|base| base.is_absolute()));
    // Where the session of the user has it: a job of cron has no such variable, and works on the same stores.
    bases.push(PathBuf::from(format!("/run/user/{user}")));
    let mut candidates: Vec<PathBuf> = bases.into_iter().map(|base| base.join("layerbox")).collect();
    candidates.push(PathBuf::from(format!("/dev/shm/layerbox-{user}")));
    candidates
}

/// The user, as the user namespace has it that this one was made in: root of a namespace is a different user
/// for each who made one.
fn outer_user() -> u32 {
    let own = nix::unistd::geteuid().as_raw();
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.lines().find_map(|line| mapped(line, own)).unwrap_or(own)
}

/// What a line of a map (user_namespaces(7): first id inside, first id outside, how many) makes of a user.
fn mapped(line: &str, user: u32) -> Option<u32> {
    let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
    let (inside, outside, length) = (numbers.next()??, numbers.next()??, numbers.next()??);
    let at = user.checked_sub(inside).filter(|&at| at < length)?;
    outside.checked_add(at)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_outside_of_a_namespace() {
        let cases = [
            ("         0          0 4294967295", 0, Some(0)),
            ("         0          0 4294967295", 1000, Some(1000)),
            ("0 1000 1", 0, Some(1000)),
            ("0 1000 1", 1, None),
            ("100 200000 65536", 150, Some(200_050)),
            ("100 200000 65536", 99, None),
            ("0 1000", 0, None),
            ("", 0, None),
        ];
        for (line, user, outside) in cases {
            assert_eq!(mapped(line, user), outside, "{line}: {user}");
        }
    }
}
