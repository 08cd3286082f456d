//! Where an archive is written: standard output, or a file that appears when it is whole.

mod way;

use std::ffi::{OsStr, OsString};
use std::fs::{File, Permissions};
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use rustix::fs::{AtFlags, CWD, FileType, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Failure;

/// An output that is open for writing. Dropped without [`Destination::commit`], it leaves nothing behind.
#[derive(Debug)]
pub(super) struct Destination {
    file: File,
    on_commit: OnCommit,
}

/// What becomes of the file at the end.
#[derive(Debug)]
enum OnCommit {
    /// It is where it should be: standard output, a device, a pipe.
    Nothing,
    /// It has no name (`O_TMPFILE`) and gets this one.
    Link(Target),
    /// It has a temporary name, on file systems without files that have none.
    Rename(Target),
}

/// The name that a file gets.
#[derive(Debug)]
struct Target {
    /// Held open: a path could lead elsewhere at the end than at the beginning.
    directory: OwnedFd,
    name: OsString,
    /// As it was given, for messages.
    path: PathBuf,
}

impl Destination {
    /// Standard output.
    pub(super) fn stdout() -> Result<Destination, Failure> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(|error| Failure::io("open standard output", &error))?;
        Ok(Destination { file: File::from(descriptor), on_commit: OnCommit::Nothing })
    }

    /// The file at `path`. Another file of that name stays as it is until [`Destination::commit`] puts the
    /// new one in its place. Symbolic links are followed to the file itself: it is that one that is to be
    /// replaced, or made.
    ///
    /// # Errors
    ///
    /// [`Failure::Untrusted`] where others could have said what is replaced ([`way`]); [`Failure::Io`].
    pub(super) fn file(path: &Path, umask: Mode) -> Result<Destination, Failure> {
        let failure = |errno: Errno| Failure::io_at("open", path, &errno.into());
        let way::End { directory, name, old, is_descriptor } = way::walk(path)?;
        let open = |name: &OsStr, flags: OFlags, mode: u32| {
            let flags = OFlags::WRONLY | OFlags::CLOEXEC | flags;
            rustix::fs::openat(&directory, name, flags, rustix::fs::Mode::from_bits_truncate(mode))
                .map(File::from)
        };
        if old.as_ref().is_some_and(|old| FileType::from_raw_mode(old.st_mode) != FileType::RegularFile) {
            // A device or a pipe is written to; a file must not take its place.
            let follow = if is_descriptor { OFlags::empty() } else { OFlags::NOFOLLOW };
            let file = open(&name, follow, 0).map_err(failure)?;
            return Ok(Destination { file, on_commit: OnCommit::Nothing });
        }
        // What others may see of it, where it takes the place of another file, is decided before a byte is in
        // it.
        let mode = if old.is_some() { 0o600 } else { 0o666 & !umask.bits() };
        let unnamed = open(OsStr::new("."), OFlags::TMPFILE, mode);
        // open(2): EOPNOTSUPP from a file system without it, EISDIR and ENOENT from an old kernel. A
        // directory that cannot be written gives its error below as well.
        let (file, is_named) = match unnamed {
            Ok(file) => (file, false),
            Err(_) => {
                let flags = OFlags::CREATE | OFlags::EXCL;
                (open(&temporary_name(&name), flags, mode).map_err(failure)?, true)
            }
        };
        let target = Target { directory, name, path: path.to_owned() };
        let on_commit = if is_named { OnCommit::Rename(target) } else { OnCommit::Link(target) };
        let destination = Destination { file, on_commit };
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
        match &self.on_commit {
            OnCommit::Nothing => Ok(()),
            OnCommit::Link(target) => {
                // linkat(2) does not replace: the name it gives is a temporary one, and rename does the rest.
                let unnamed = format!("/proc/self/fd/{}", self.file.as_raw_fd());
                let temporary = temporary_name(&target.name);
                rustix::fs::linkat(CWD, unnamed, &target.directory, &temporary, AtFlags::SYMLINK_FOLLOW)
                    .map_err(|errno| target.failure("link", errno))?;
                let renamed = target.take();
                if renamed.is_err() {
                    target.forget();
                }
                renamed
            }
            OnCommit::Rename(target) => target.take(),
        }
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        // After a commit it has that name no more, and there is nothing to remove.
        if let OnCommit::Rename(target) = &self.on_commit {
            target.forget();
        }
    }
}

impl Target {
    /// Gives the file with the temporary name this one.
    fn take(&self) -> Result<(), Failure> {
        let temporary = temporary_name(&self.name);
        rustix::fs::renameat(&self.directory, temporary, &self.directory, &self.name)
            .map_err(|errno| self.failure("rename", errno))
    }

    /// Removes the temporary name. It is the first error that is told.
    fn forget(&self) {
        let _ = rustix::fs::unlinkat(&self.directory, temporary_name(&self.name), AtFlags::empty());
    }

    fn failure(&self, operation: &str, errno: Errno) -> Failure {
        Failure::io_at(operation, &self.path, &errno.into())
    }
}

/// Gives a file the owner and the mode of the one that it will replace, as far as that can be done: it is its
/// writer's, for its writer alone, where nothing can.
fn take_after(file: &File, old: &Stat) {
    // Only root gives files away; others can give theirs to a group that they are in (chown(2)).
    if fchown(file, Some(old.st_uid), Some(old.st_gid)).is_err() {
        let _ = fchown(file, None, Some(old.st_gid));
    }
    // What the old group may, another one may not.
    let same_group = file.metadata().is_ok_and(|new| new.gid() == old.st_gid);
    let mode = old.st_mode & if same_group { 0o777 } else { 0o707 };
    // After it, because chown(2) takes bits away. A file system without modes has none to lose.
    let _ = file.set_permissions(Permissions::from_mode(mode));
}

/// A name beside the target that nobody else takes: `.app.tar.4711`. Of a long one the beginning, so that it
/// is no longer than a name may be (255 bytes).
fn temporary_name(target: &OsStr) -> OsString {
    const LONGEST: usize = 240;
    let mut name = OsString::from(".");
    name.push(OsStr::from_bytes(&target.as_bytes()[..target.len().min(LONGEST)]));
    name.push(format!(".{}", std::process::id()));
    name
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::{chown, lchown, symlink};

    use super::*;
    use crate::skip::skip;

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
        symlink("file", scratch.0.join("link")).unwrap();
        write(&scratch.0.join("link"), true).unwrap();
        assert!(fs::symlink_metadata(scratch.0.join("link")).unwrap().is_symlink());
        assert_eq!(fs::read(scratch.0.join("file")).unwrap(), b"new");
    }

    #[test]
    fn a_link_to_nothing_stays_and_what_it_names_is_made() {
        let scratch = Scratch::new("dangling");
        fs::create_dir(scratch.0.join("d")).unwrap();
        symlink("d/next", scratch.0.join("link")).unwrap();
        symlink("../file", scratch.0.join("d/next")).unwrap();
        write(&scratch.0.join("link"), true).unwrap();
        assert!(fs::symlink_metadata(scratch.0.join("link")).unwrap().is_symlink());
        assert!(fs::symlink_metadata(scratch.0.join("d/next")).unwrap().is_symlink());
        assert_eq!(fs::read(scratch.0.join("file")).unwrap(), b"new");
        symlink("circle", scratch.0.join("circle")).unwrap();
        assert!(write(&scratch.0.join("circle"), true).is_err());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        write(Path::new("/dev/null"), true).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn an_open_pipe_is_written_to() {
        for directory in ["/proc/self/fd", "/dev/fd"] {
            let (mut reader, writer) = io::pipe().unwrap();
            let path = format!("{directory}/{}", writer.as_raw_fd());
            write(Path::new(&path), true).unwrap();
            drop(writer);
            let mut came = String::new();
            io::Read::read_to_string(&mut reader, &mut came).unwrap();
            assert_eq!(came, "new", "{path}");
        }
    }

    #[test]
    fn a_name_may_be_as_long_as_names_are() {
        let scratch = Scratch::new("long");
        for length in [200, 250, 255] {
            let path = scratch.0.join("x".repeat(length));
            write(&path, true).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"new", "{length}");
        }
    }

    /// What lies in a shared directory and leads to `victim`, or is one.
    #[derive(Debug, Clone, Copy)]
    enum Bait {
        Link,
        LinkOnTheWay,
        File,
        Fifo,
    }

    #[test]
    fn in_a_sticky_directory_others_say_nothing() {
        const OTHER: u32 = 65533;
        const THIRD: u32 = 65532;
        if !nix::unistd::geteuid().is_root() {
            skip("diff -o: baits of other users: it needs root", true);
            return;
        }
        // The bait, its owner, the directory's owner and mode, and whether it is taken.
        let rows = [
            (Bait::Link, OTHER, 0, 0o1777, false),
            (Bait::Link, OTHER, 0, 0o1775, false),
            (Bait::Link, OTHER, THIRD, 0o1777, false),
            (Bait::Link, OTHER, OTHER, 0o1777, true),
            (Bait::Link, 0, OTHER, 0o1777, true),
            (Bait::Link, OTHER, 0, 0o1755, true),
            (Bait::Link, OTHER, 0, 0o755, true),
            (Bait::LinkOnTheWay, OTHER, 0, 0o1777, false),
            (Bait::LinkOnTheWay, 0, 0, 0o1777, true),
            (Bait::File, OTHER, 0, 0o1777, false),
            (Bait::File, OTHER, 0, 0o1770, false),
            (Bait::File, 0, OTHER, 0o1777, true),
            (Bait::File, OTHER, OTHER, 0o1777, true),
            (Bait::File, OTHER, 0, 0o755, true),
            (Bait::Fifo, OTHER, 0, 0o1777, false),
        ];
        for row in rows {
            let (bait, owner, directory_owner, mode, taken) = row;
            let scratch = Scratch::new("sticky");
            let (shared, away) = (scratch.0.join("shared"), scratch.0.join("away"));
            fs::create_dir(&shared).unwrap();
            fs::create_dir(&away).unwrap();
            fs::write(away.join("victim"), "old").unwrap();
            let lies = shared.join("lies");
            let (path, victim) = match bait {
                Bait::Link => symlink("../away/victim", &lies).map(|()| (lies.clone(), away.join("victim"))),
                Bait::LinkOnTheWay => {
                    symlink(&away, &lies).map(|()| (lies.join("victim"), away.join("victim")))
                }
                Bait::File => fs::write(&lies, "old").map(|()| (lies.clone(), lies.clone())),
                Bait::Fifo => {
                    nix::unistd::mkfifo(&lies, Mode::S_IRWXU).unwrap();
                    Ok((lies.clone(), away.join("victim")))
                }
            }
            .unwrap();
            lchown(&lies, Some(owner), Some(owner)).unwrap();
            chown(&shared, Some(directory_owner), Some(0)).unwrap();
            fs::set_permissions(&shared, Permissions::from_mode(mode)).unwrap();
            let written = write(&path, true);
            if taken {
                written.unwrap_or_else(|failure| panic!("{row:?}: {failure}"));
            } else {
                let named = lies.as_os_str().as_encoded_bytes();
                assert!(
                    matches!(&written, Err(Failure::Untrusted { path, .. }) if path == named),
                    "{row:?}: {written:?}"
                );
            }
            let content: &[u8] = if taken { b"new" } else { b"old" };
            assert_eq!(fs::read(&victim).unwrap(), content, "{row:?}");
        }
    }

    #[test]
    fn what_names_a_directory_is_no_file() {
        let scratch = Scratch::new("directory");
        fs::write(scratch.0.join("file"), "old").unwrap();
        symlink("gone/", scratch.0.join("link")).unwrap();
        for path in [".", "..", "file/", "file/.", "new/", "link"] {
            let written = write(&scratch.0.join(path), true);
            assert!(matches!(written, Err(Failure::Io { .. })), "{path}: {written:?}");
        }
        assert_eq!(fs::read(scratch.0.join("file")).unwrap(), b"old");
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
