//! Reading what decides what runs as this user: the configuration, a component that takes the place of the
//! built-in one, compiled code.
//!
//! Whoever can change such a file, or any directory on the way to it, can decide for us. So the way is walked
//! a name at a time by descriptors, and each directory, symbolic link and the file itself is judged by the
//! descriptor that is used then: nothing can be swapped between the look and the use. The rule:
//!
//! - Everything belongs to root or to the user that we are.
//! - Nobody else can write it. A group may only where it is the user's own, the one with the user's number
//!   (for root: group 0).
//! - A directory that others can write is borne where it is sticky, as `/tmp` is: there they cannot touch
//!   what belongs to us or to root.
//!
//! In a user namespace, owners outside of it all show as one (`/proc/sys/kernel/overflowuid`), so root cannot
//! be told from the others. There that owner counts as root, but not in a sticky directory, which is where
//! others could have put a file. Access control lists are seen as far as the kernel shows them in the mode of
//! the group.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::Failure;

/// How many symbolic links are followed; as many as the kernel follows (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// Without following a link; a FIFO that lies there must not hold us up.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// A place, and no rights but to look at it and to go on from it.
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reads a file of at most `largest` bytes that only root and we can have written.
///
/// # Errors
///
/// [`Failure::Untrusted`] where others could; [`Failure::Refused`] where it is larger; [`Failure::Io`] where
/// it cannot be read.
pub fn read(path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    let people = People::here();
    let end = walk(path, &people)?;
    let Some(name) = end.name else {
        return Err(untrusted(&end.path, "a directory, and not a file"));
    };
    read_at(end.parent.as_fd(), &name, &end.path, |stat| people.judge(&end.path, stat, end.shared), largest)
}

/// Opens a directory that only root and we can have changed.
///
/// # Errors
///
/// As [`read`].
pub fn directory(path: &Path) -> Result<(OwnedFd, Stat), Failure> {
    let end = walk(path, &People::here())?;
    if end.name.is_some() {
        return Err(io(&end.path, "open", Errno::NOTDIR));
    }
    let stat = rustix::fs::fstat(&end.parent).map_err(|errno| io(&end.path, "stat", errno))?;
    Ok((end.parent, stat))
}

/// Reads a file of a directory that is held already; `judge` is asked before the first byte.
///
/// # Errors
///
/// As [`read`], and those of `judge`.
pub fn read_at(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    path: &Path,
    judge: impl FnOnce(&Stat) -> Result<(), Failure>,
    largest: u64,
) -> Result<Vec<u8>, Failure> {
    let fd = rustix::fs::openat(directory, name, READ, Mode::empty());
    let file = File::from(fd.map_err(|errno| match errno {
        // The end of the walk was no link: somebody is quick.
        Errno::LOOP => untrusted(path, "a symbolic link"),
        errno => io(path, "open", errno),
    })?);
    let stat = rustix::fs::fstat(&file).map_err(|errno| io(path, "stat", errno))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(untrusted(path, "not a regular file"));
    }
    judge(&stat)?;
    read_all(file, path, largest)
}

/// Reads a file that anybody may have written, with the same bound.
///
/// # Errors
///
/// [`Failure::Refused`] where it is larger; [`Failure::Io`] where it cannot be read.
pub fn read_unchecked(path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    let file = File::open(path).map_err(|error| std_io(path, "open", &error))?;
    read_all(file, path, largest)
}

fn read_all(file: File, path: &Path, largest: u64) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    file.take(largest.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| std_io(path, "read", &error))?;
    if bytes.len() as u64 > largest {
        let entry = path.as_os_str().as_bytes().to_vec();
        return Err(Failure::Refused { entry, rule: format!("the file is larger than {largest} bytes") });
    }
    Ok(bytes)
}

/// Where a walk ended.
struct End {
    /// The last directory of the way; with `name` none, the end itself.
    parent: OwnedFd,
    /// The file in it.
    name: Option<OsString>,
    /// The way without links.
    path: PathBuf,
    /// Whether others can write to `parent`, which is sticky then.
    shared: bool,
}

/// A directory of a walk.
struct Step {
    fd: OwnedFd,
    shared: bool,
}

/// Goes to a path by trusted directories and links alone. The file at its end is not judged yet.
fn walk(path: &Path, people: &People) -> Result<End, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| std_io(path, "open", &error))?;
    let root = Path::new("/");
    let fd = rustix::fs::open(root, LOOK, Mode::empty()).map_err(|errno| io(root, "open", errno))?;
    let stat = rustix::fs::fstat(&fd).map_err(|errno| io(root, "stat", errno))?;
    let mut steps = vec![Step { fd, shared: people.judge_directory(root, &stat, false)? }];
    let mut shown = root.to_owned();
    let mut links = 0;
    // The last is the next.
    let mut rest = names(&absolute);
    while let Some(name) = rest.pop() {
        if name == ".." {
            // As the kernel has it, / is its own parent.
            if steps.len() > 1 {
                steps.pop();
                shown.pop();
            }
            continue;
        }
        let Some(here) = steps.last() else { break };
        let path = shown.join(&name);
        let fd = rustix::fs::openat(&here.fd, &name, LOOK, Mode::empty())
            .map_err(|errno| io(&path, "open", errno))?;
        let stat = rustix::fs::fstat(&fd).map_err(|errno| io(&path, "stat", errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let shared = people.judge_directory(&path, &stat, here.shared)?;
                steps.push(Step { fd, shared });
                shown = path;
            }
            FileType::Symlink => {
                people.judge_owner(&path, &stat, here.shared)?;
                links += 1;
                if links > MAX_LINKS {
                    return Err(io(&path, "open", Errno::LOOP));
                }
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())
                    .map_err(|errno| io(&path, "readlink", errno))?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    steps.truncate(1);
                    root.clone_into(&mut shown);
                }
                rest.extend(names(&target));
            }
            _ if !rest.is_empty() => return Err(io(&path, "open", Errno::NOTDIR)),
            // Before it is opened: that alone can do something to a device.
            kind if kind != FileType::RegularFile => return Err(untrusted(&path, "not a regular file")),
            _ => {
                let shared = here.shared;
                let Some(Step { fd: parent, .. }) = steps.pop() else { break };
                return Ok(End { parent, name: Some(name), path, shared });
            }
        }
    }
    match steps.pop() {
        Some(Step { fd, shared }) => Ok(End { parent: fd, name: None, path: shown, shared }),
        // The first step is never taken back.
        None => Err(io(path, "open", Errno::NOENT)),
    }
}

/// The names of a path, the last one first.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect();
    names.reverse();
    names
}

/// Whom things may belong to.
struct People {
    /// We, and the number of our own group.
    user: u32,
    /// Whom an owner shows as that has no number in this user namespace.
    unmapped: Option<u32>,
}

impl People {
    fn here() -> People {
        People { user: nix::unistd::geteuid().as_raw(), unmapped: unmapped_owner() }
    }

    fn judge_owner(&self, path: &Path, stat: &Stat, in_shared: bool) -> Result<(), Failure> {
        let owner = stat.st_uid;
        if owner == 0 || owner == self.user || (!in_shared && Some(owner) == self.unmapped) {
            return Ok(());
        }
        let us = if self.user == 0 { String::new() } else { format!(" or to user {}", self.user) };
        Err(untrusted(path, &format!("belongs to user {owner}, and not to root{us}")))
    }

    /// Who else can write it, in words.
    fn writers(&self, stat: &Stat) -> Option<String> {
        let mode = stat.st_mode & 0o7777;
        if mode & 0o002 != 0 {
            Some(format!("everybody can write it (mode {mode:04o})"))
        } else if mode & 0o020 != 0 && stat.st_gid != self.user {
            Some(format!("group {} can write it (mode {mode:04o})", stat.st_gid))
        } else {
            None
        }
    }

    fn judge(&self, path: &Path, stat: &Stat, in_shared: bool) -> Result<(), Failure> {
        self.judge_owner(path, stat, in_shared)?;
        self.writers(stat).map_or(Ok(()), |who| Err(untrusted(path, &who)))
    }

    /// Judges a directory, and tells whether others can write it all the same, as it is sticky.
    fn judge_directory(&self, path: &Path, stat: &Stat, in_shared: bool) -> Result<bool, Failure> {
        const STICKY: u32 = 0o1000;
        if stat.st_mode & STICKY != 0 && self.writers(stat).is_some() {
            return self.judge_owner(path, stat, in_shared).map(|()| true);
        }
        self.judge(path, stat, in_shared).map(|()| false)
    }
}

/// The number that stands for all owners outside of the user namespace that we are in; none where each owner
/// has its own.
pub fn unmapped_owner() -> Option<u32> {
    let text = |path| std::fs::read_to_string(path).unwrap_or_default();
    unmapped(&text("/proc/self/uid_map"), &text("/proc/sys/kernel/overflowuid"))
}

/// The number that stands for all owners outside of a user namespace, unless somebody inside has it
/// (user_namespaces(7)). Where /proc tells nothing, there is none: that refuses more.
fn unmapped(map: &str, overflow: &str) -> Option<u32> {
    let overflow: u32 = overflow.trim().parse().ok()?;
    if map.trim().is_empty() {
        return None;
    }
    let taken = map.lines().any(|line| {
        let mut fields = line.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
        let (first, _, count) = (fields.next(), fields.next(), fields.next());
        let first = first.unwrap_or(0);
        (first..first.saturating_add(count.unwrap_or(0))).contains(&u64::from(overflow))
    });
    (!taken).then_some(overflow)
}

/// The refusal of a path, and why.
pub fn untrusted(path: &Path, why: &str) -> Failure {
    Failure::Untrusted { path: path.as_os_str().as_bytes().to_vec(), why: why.to_owned() }
}

/// An operation of the kernel on a path that failed.
pub fn io(path: &Path, operation: &str, errno: Errno) -> Failure {
    let entry = path.as_os_str().as_bytes().to_vec();
    Failure::Io { entry, operation: operation.to_owned(), code: errno.raw_os_error() }
}

fn std_io(path: &Path, operation: &str, error: &std::io::Error) -> Failure {
    match Errno::from_io_error(error) {
        Some(errno) => io(path, operation, errno),
        None => Failure::io(operation, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_outside_of_a_user_namespace() {
        let cases = [
            ("the first namespace", "         0          0 4294967295\n", "65534\n", None),
            ("one user mapped to root", "0 1000 1\n", "65534\n", Some(65534)),
            ("a range that reaches it", "0 1000 1\n1 100000 65535\n", "65534\n", None),
            ("a range that ends before it", "0 1000 1\n1 100000 65533\n", "65534\n", Some(65534)),
            ("no /proc", "", "", None),
            ("a namespace that nothing is mapped in yet", "", "65534\n", None),
        ];
        for (what, map, overflow, expected) in cases {
            assert_eq!(unmapped(map, overflow), expected, "{what}");
        }
    }

    /// Files and directories with the mode bits that decide, as the user who runs the test makes them.
    #[test]
    fn who_can_write() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let base = std::env::temp_dir().join(format!("layerbox-trust.{}", std::process::id()));
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir_all(base.join("d")).unwrap();
        std::fs::write(base.join("d/f"), "text").unwrap();
        symlink("d/f", base.join("link")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        let cases = [
            (0o755, 0o644, "d/f", true),
            (0o755, 0o644, "d/../d/./f", true),
            (0o755, 0o644, "link", true),
            (0o755, 0o600, "d/f", true),
            (0o755, 0o646, "d/f", false),
            (0o757, 0o644, "d/f", false),
            (0o757, 0o644, "link", false),
            (0o1777, 0o644, "d/f", true),
            (0o1777, 0o646, "d/f", false),
            (0o755, 0o644, "d", false),
            (0o755, 0o644, "loop", false),
            (0o755, 0o644, "d/f/g", false),
        ];
        for (directory, file, path, good) in cases {
            mode(&base.join("d"), directory);
            mode(&base.join("d/f"), file);
            let answer = read(&base.join(path), 100);
            assert_eq!(answer.is_ok(), good, "{path} of {file:o} in {directory:o}: {answer:?}");
        }
        assert!(matches!(read(&base.join("d/f"), 3), Err(Failure::Refused { .. })));
        std::fs::remove_dir_all(base).unwrap();
    }
}
