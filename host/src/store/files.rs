//! The small files and directories that the store's records are made of, and how they are written so that a
//! crash leaves the old or the new.

use std::io::{self, Write};

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, OpenOptions, OpenOptionsExt};
use layerbox_privileged::id::LayerId;

use crate::error::Failure;

/// The names in a directory of the store that are layer ids, sorted.
pub(super) fn ids_in(dir: &Dir, name: &str) -> Result<Vec<LayerId>, Failure> {
    let entries = match dir.read_dir(name) {
        Ok(entries) => entries,
        // Something else in its place holds no layers either; `check` tells of it.
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(e) => return Err(Failure::io("open", &e)),
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
        if let Some(id) = name.to_str().and_then(|name| LayerId::new(name).ok()) {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// Writes a file so that after a crash it has its old content or its new one: temporary name, sync, rename,
/// sync of the directory.
pub(super) fn write_atomically(dir: &Dir, directory: &str, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    let temporary = format!("{directory}/.{name}.tmp");
    // What a write that was cut off has left is taken away, and never written through: in `layers/` a
    // component that has gone wrong could have put a link there to a record of the host's.
    if dir.symlink_metadata(&temporary).is_ok_and(|found| found.is_dir()) {
        dir.remove_dir_all(&temporary).map_err(|e| Failure::io("rmdir", &e))?;
    }
    ignore_missing(dir.remove_file(&temporary), "unlink")?;
    let written = write_synced(dir, &temporary, bytes).and_then(|()| {
        dir.rename(&temporary, dir, format!("{directory}/{name}")).map_err(|e| Failure::io("rename", &e))
    });
    if written.is_err() {
        // The error to tell is the first one. What stays behind is overwritten by the next attempt.
        drop(dir.remove_file(&temporary));
    }
    written?;
    sync_directory(dir, directory)
}

fn write_synced(dir: &Dir, path: &str, bytes: &[u8]) -> Result<(), Failure> {
    let options = OpenOptions::new().write(true).create_new(true).mode(0o600).clone();
    let mut file = dir.open_with(path, &options).map_err(|e| Failure::io("open", &e))?;
    file.write_all(bytes).map_err(|e| Failure::io("write", &e))?;
    file.sync_all().map_err(|e| Failure::io("fsync", &e))
}

/// Makes a directory with exactly this mode: whatever the umask is, and without a set-gid bit that the
/// directory above handed down.
pub(super) fn make_directory(dir: &Dir, path: &str, mode: u32) -> Result<(), Failure> {
    dir.create_dir_with(path, DirBuilder::new().mode(mode)).map_err(|e| Failure::io("mkdir", &e))?;
    set_mode(dir, path, mode)
}

/// Sets the mode of a directory. By its descriptor: for a path, the library goes by way of `/proc`, and
/// panics where that fails.
pub(super) fn set_mode(dir: &Dir, path: &str, mode: u32) -> Result<(), Failure> {
    let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW;
    let options = OpenOptions::new().read(true).custom_flags(flags.bits()).clone();
    let made = dir.open_with(path, &options).map_err(|e| Failure::io("open", &e))?;
    let mode = nix::sys::stat::Mode::from_bits_truncate(mode);
    nix::sys::stat::fchmod(&made, mode).map_err(|e| Failure::io("fchmod", &e.into()))
}

/// Brings the names in a directory to the disk. Opened as a file, because a `Dir` is a descriptor that cannot
/// be synced.
pub(super) fn sync_directory(dir: &Dir, name: &str) -> Result<(), Failure> {
    let directory = dir.open(name).map_err(|e| Failure::io("open", &e))?;
    directory.sync_all().map_err(|e| Failure::io("fsync", &e))
}

/// Whether there is something at this path. That it cannot be told is an error: whoever asks takes something
/// away, or not, by the answer.
pub(super) fn exists(dir: &Dir, path: &str) -> Result<bool, Failure> {
    match dir.symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Failure::io("stat", &e)),
    }
}

/// Whether an error of a look at something says that nothing of the store's lies there: it is not there, or
/// what should lead to it is a file, or a link that leads out of the store (cap-std's word for which has no
/// number of the kernel's).
pub(super) fn is_absent(error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        kind => kind == io::ErrorKind::PermissionDenied && error.raw_os_error().is_none(),
    }
}

/// Makes an empty file; one that is there already is fine.
pub(super) fn touch(dir: &Dir, path: &str) -> Result<(), Failure> {
    let options = OpenOptions::new().write(true).create(true).mode(0o600).clone();
    dir.open_with(path, &options).map_err(|e| Failure::io("open", &e))?;
    Ok(())
}

pub(super) fn ignore_missing(result: io::Result<()>, operation: &str) -> Result<(), Failure> {
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Failure::io(operation, &e)),
        _ => Ok(()),
    }
}

/// The layer whose record a temporary file was to become.
pub(super) fn id_of_temporary(name: &str) -> Option<LayerId> {
    LayerId::new(name.strip_prefix('.')?.strip_suffix(".tmp")?).ok()
}
