//! Where an archive is written: standard output, or a file that appears when it is whole.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::Mode;

use crate::error::Failure;

/// An output that is open for writing. Dropped without [`Destination::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Destination {
    file: File,
    place: Place,
}

/// What becomes of the file at the end.
#[derive(Debug)]
enum Place {
    /// It is where it should be: standard output, a device, a pipe.
    There,
    /// It has no name (`O_TMPFILE`) and gets this one.
    Unnamed { target: PathBuf },
    /// It has a temporary name, on file systems without files that have none.
    Temporary { temporary: PathBuf, target: PathBuf },
}

impl Destination {
    /// Standard output.
    pub(super) fn stdout() -> Result<Destination, Failure> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| Failure::io("open standard output", &error))?;
        Ok(Destination { file: File::from(descriptor), place: Place::There })
    }

    /// The file at `path`. Another file of that name stays as it is until [`Destination::commit`] puts the new one in its place.
    pub(super) fn file(path: &Path, umask: Mode) -> Result<Destination, Failure> {
        let failure = |error: &io::Error| Failure::io_at("open", path, error);
        // Through symbolic links to the file itself: it is that one that is to be replaced, or made.
        let target = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => followed(path),
            other => other.map_err(|error| failure(&error))?,
        };
        let old = match fs::metadata(&target) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(failure(&io::Error::from_raw_os_error(nix::libc::EISDIR)));
            }
            // A device or a pipe is written to; a file must not take its place.
            Ok(metadata) if !metadata.is_file() => {
                let file = OpenOptions::new().write(true).open(&target).map_err(|error| failure(&error))?;
                return Ok(Destination { file, place: Place::There });
            }
            other => other.ok(),
        };
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // What others may see of it, where it takes the place of another file, is decided before a byte is in it.
        let mode = if old.is_some() { 0o600 } else { 0o666 & !umask.bits() };
        let unnamed =
            OpenOptions::new().write(true).mode(mode).custom_flags(OFlag::O_TMPFILE.bits()).open(directory);
        let destination = match unnamed {
            Ok(file) => Destination { file, place: Place::Unnamed { target } },
            // open(2): EOPNOTSUPP from a file system without it, EISDIR and ENOENT from an old kernel. A directory that is not there gives its
            // error below as well.
            Err(_) => {
                let temporary = temporary_name(&target);
                let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
                let file = file.map_err(|error| failure(&error))?;
                Destination { file, place: Place::Temporary { temporary, target } }
            }
        };
        if let Some(old) = old {
            take_after(&destination.file, &old);
        }
        Ok(destination)
    }

    /// Whether a person would get to see the bytes.
    pub(super) fn is_terminal(&self) -> bool {
        self.file.is_terminal()
    }

    /// A descriptor to write to.
    pub(super) fn descriptor(&self) -> Result<OwnedFd, Failure> {
        self.file.as_fd().try_clone_to_owned().map_err(|error| Failure::io("duplicate a descriptor", &error))
    }

    /// Gives the file its name.
    pub(super) fn commit(self) -> Result<(), Failure> {
        match &self.place {
            Place::There => Ok(()),
            Place::Unnamed { target } => {
                // linkat(2) does not replace: the name it gives is a temporary one, and rename does the rest.
                let temporary = temporary_name(target);
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                nix::unistd::linkat(
                    AT_FDCWD,
                    unnamed.as_str(),
                    AT_FDCWD,
                    &temporary,
                    AtFlags::AT_SYMLINK_FOLLOW,
                )
                .map_err(|code| Failure::io_at("link", target, &code.into()))?;
                let renamed = fs::rename(&temporary, target);
                if renamed.is_err() {
                    // It is the first error that is told.
                    let _ = fs::remove_file(&temporary);
                }
                renamed.map_err(|error| Failure::io_at("rename", target, &error))
            }
            Place::Temporary { temporary, target } => {
                fs::rename(temporary, target).map_err(|error| Failure::io_at("rename", target, &error))
            }
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // After a commit it has that name no more, and there is nothing to remove.
        if let Place::Temporary { temporary, .. } = &self.place {
            let _ = fs::remove_file(temporary);
        }
    }
}

/// Where a path that leads to no file yet leads.
fn followed(path: &Path) -> PathBuf {
    let mut target = path.to_owned();
    // There is an end to it: a circle of links is an error of its own (ELOOP), and no missing file.
    while let Ok(next) = fs::read_link(&target) {
        target = target.parent().unwrap_or(Path::new("")).join(next);
    }
    target
}

/// Gives a file the owner and the mode of the one that it will replace, as far as that can be done: it is its writer's, for its writer alone, where nothing can.
fn take_after(file: &File, old: &Metadata) {
    // Only root gives files away; others can give theirs to a group that they are in (chown(2)).
    if fchown(file, Some(old.uid()), Some(old.gid())).is_err() {
        let _ = fchown(file, None, Some(old.gid()));
    }
    // What the old group may, another one may not.
    let same_group = file.metadata().is_ok_and(|new| new.gid() == old.gid());
    let mode = old.mode() & if same_group { 0o777 } else { 0o707 };
    // After it, because chown(2) takes bits away. A file system without modes has none to lose.
    let _ = file.set_permissions(Permissions::from_mode(mode));
}

/// A name beside the target that nobody else takes: `.app.tar.4711`.
fn temporary_name(target: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(target.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    target.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// A scratch directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Scratch {
            let path = std::env::temp_dir().join(format!("layerbox-{name}-{}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Scratch(path)
        }

        fn names(&self) -> Vec<OsString> {
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn write(path: &Path, commit: bool) -> Result<(), Failure> {
        let destination = Destination::file(path, Mode::from_bits_truncate(0o022))?;
        File::from(destination.descriptor()?).write_all(b"new").unwrap();
        if commit { destination.commit() } else { Ok(()) }
    }

    #[test]
    fn a_file_appears_when_it_is_whole() {
        let scratch = Scratch::new("whole");
        let path = scratch.0.join("a.tar");
        write(&path, false).unwrap();
        assert_eq!(scratch.names(), Vec::<OsString>::new());
        write(&path, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(scratch.names(), ["a.tar"]);
    }

    #[test]
    fn an_old_file_stays_until_then() {
        let scratch = Scratch::new("old");
        let path = scratch.0.join("a.tar");
        fs::write(&path, "old").unwrap();
        write(&path, false).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        write(&path, true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_file_that_is_replaced_lends_its_mode_and_owner() {
        let scratch = Scratch::new("mode");
        let path = scratch.0.join("a.tar");
        // As root any owner; else one's own group at least.
        let ids = if nix::unistd::geteuid().is_root() { (12_345, 54_321) } else { own_ids(&scratch.0) };
        for mode in [0o600, 0o640, 0o444, 0o4755] {
            fs::write(&path, "old").unwrap();
            fchown(File::open(&path).unwrap(), Some(ids.0), Some(ids.1)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            write(&path, true).unwrap();
            let new = fs::metadata(&path).unwrap();
            assert_eq!(new.mode() & 0o7777, mode & 0o777);
            assert_eq!((new.uid(), new.gid()), ids);
            assert_eq!(fs::read(&path).unwrap(), b"new");
            fs::remove_file(&path).unwrap();
        }
        write(&path, true).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o644);
    }

    fn own_ids(path: &Path) -> (u32, u32) {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid())
    }

    #[test]
    fn a_link_stays_and_what_it_names_is_replaced() {
        let scratch = Scratch::new("link");
        fs::write(scratch.0.join("file"), "old").unwrap();
        std::os::unix::fs::symlink("file", scratch.0.join("link")).unwrap();
        write(&scratch.0.join("link"), true).unwrap();
        assert!(fs::symlink_metadata(scratch.0.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read(scratch.0.join("file")).unwrap(), b"new");
    }

    #[test]
    fn a_link_to_nothing_stays_and_what_it_names_is_made() {
        let scratch = Scratch::new("dangling");
        fs::create_dir(scratch.0.join("d")).unwrap();
        std::os::unix::fs::symlink("d/next", scratch.0.join("link")).unwrap();
        std::os::unix::fs::symlink("../file", scratch.0.join("d/next")).unwrap();
        write(&scratch.0.join("link"), true).unwrap();
        assert!(fs::symlink_metadata(scratch.0.join("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(scratch.0.join("d/next")).unwrap().is_symlink());
        assert_eq!(fs::read(scratch.0.join("file")).unwrap(), b"new");
        std::os::unix::fs::symlink("circle", scratch.0.join("circle")).unwrap();
        assert!(write(&scratch.0.join("circle"), true).is_err());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        write(Path::new("/dev/null"), true).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn what_cannot_be_written_is_told() {
        for path in ["/", "/nowhere/at/all/a.tar"] {
            assert!(
                matches!(write(Path::new(path), true), Err(Failure::Io { operation, .. }) if operation == "open")
            );
        }
    }
}
