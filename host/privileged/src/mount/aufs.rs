//! aufs, as observed on a real kernel (Linux 6.1, aufs 6.1-20240701).
//!
//! What shapes this module: options beyond a page are cut off in silence; one call takes 84 branches and
//! options, and a stock kernel panics at 85; further branches come by remounting with `append:`; there is no
//! escape for `:` and `,`; a mount shows its branches in `/sys/fs/aufs` only.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Failure, MAX_ANCESTORS, at, bytes, errno_of, mismatch, mountinfo, read_back};
use crate::layer::{LIST, Listing, beneath, touch};
use crate::{Error, LayerId};

/// Longest option string of one call, in bytes: mount(2) takes 4,095 on every architecture.
const CALL_BYTES: usize = 4095;

/// Most branches of one call. 81 passed, and 85 panicked the kernel; options count as well.
const CALL_BRANCHES: usize = 60;

/// The operation that meets the kernel's limit of branches.
pub(super) const APPEND: &str = "remount,append";

/// Where aufs keeps the files of which it has copied one name up, in the writable branch.
const PSEUDO_LINKS: &str = ".wh..wh.plnk";

/// A union to mount.
#[derive(Debug)]
pub(super) struct Union<'a> {
    pub(super) id: &'a LayerId,
    /// The writable branch, then the ancestors, nearest first.
    pub(super) layers: &'a [PathBuf],
    pub(super) target: &'a Path,
    pub(super) label: Option<&'a str>,
}

impl Union<'_> {
    /// Mounts, and leaves what is half mounted to the caller to unmount.
    pub(super) fn mount(&self, runtime: &Path, dirperm1: bool) -> Result<(), Failure> {
        let upper = self.layers.first().map_or(self.target, PathBuf::as_path);
        // Of a mount that ended with the machine. Their numbers would mean other files in this one.
        forget_pseudo_links(upper).map_err(io::Error::other).map_err(at("unlink"))?;
        let dir = open_branch(upper).map(File::from).map_err(at("open"))?;
        let untouched = dir.metadata().and_then(|found| Ok((found.modified()?, dir))).map_err(at("statx"))?;
        let xino = runtime.join(format!("xino-{}", self.id));
        let calls = calls(self.layers, &options(&xino, dirperm1, self.label)).ok_or_else(|| {
            let cause = Errno::NAMETOOLONG.into();
            Failure { operation: "mount", cause, detail: "a path does not fit in mount options".to_owned() }
        })?;
        {
            let _lock = lock(runtime).map_err(at("lock"))?;
            create(self.target, &xino, &calls[0]).map_err(at("mount"))?;
        }
        // aufs has made what it keeps in the branch, which is no change of the layer.
        let (time, dir) = untouched;
        dir.set_modified(time).map_err(at("futimens"))?;
        for call in &calls[1..] {
            append(self.target, call).map_err(at(APPEND))?;
        }
        let seen = branches(self.target).map_err(at("read /sys/fs/aufs"))?;
        let asked = self.layers.iter().enumerate().map(|(index, layer)| branch(index, layer));
        match asked.clone().eq(seen.iter().cloned()) {
            true => Ok(()),
            false => Err(mismatch(format!(
                "the kernel shows {} branches, {} were asked for, or their order differs",
                seen.len(),
                asked.len()
            ))),
        }
    }
}

/// What this kernel's aufs was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// Branches of one union.
    pub(super) branches: u32,
    /// Whether a lower directory's permissions no longer count once the union has changed them.
    pub(super) dirperm1: bool,
}

impl Limits {
    /// The usual build (`CONFIG_AUFS_BRANCH_MAX_127`); `dirperm1` is older than every kernel that can run
    /// this.
    pub(super) const USUAL: Limits = Limits { branches: 127, dirperm1: true };

    /// From the trial that was made since the machine started, or a new one.
    pub(super) fn find(runtime: &Path) -> Limits {
        let kept = runtime.join("aufs-limits");
        if let Some(known) = fs::read_to_string(&kept).ok().and_then(|text| Limits::parse(&text)) {
            return known;
        }
        // A trial that cannot be made (no privilege) says nothing about the kernel; a mount will say what is
        // wrong.
        let Ok(limits) = Limits::try_out(runtime) else { return Limits::USUAL };
        // Not kept means tried again next time.
        let _ = fs::write(kept, format!("{} {}\n", limits.branches, limits.dirperm1));
        limits
    }

    fn parse(text: &str) -> Option<Limits> {
        let (branches, dirperm1) = text.strip_suffix('\n')?.split_once(' ')?;
        let limits = Limits { branches: branches.parse().ok()?, dirperm1: dirperm1.parse().ok()? };
        (limits.branches > 1).then_some(limits)
    }

    fn try_out(runtime: &Path) -> io::Result<Limits> {
        let _lock = lock(runtime)?;
        let trial = runtime.join("aufs-trial");
        let target = trial.join("mnt");
        let layers: Vec<PathBuf> = (0..=MAX_ANCESTORS).map(|number| trial.join(number.to_string())).collect();
        layers.iter().chain([&target]).try_for_each(fs::create_dir_all)?;
        // Fails where nothing is mounted; before, that is unless a trial was killed.
        let unmount = || while umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {};
        unmount();
        let limits = Limits::measure(&layers, &target, &runtime.join("aufs-trial.xino"));
        unmount();
        fs::remove_dir_all(&trial)?;
        limits
    }

    fn measure(layers: &[PathBuf], target: &Path, xino: &Path) -> io::Result<Limits> {
        let first = |dirperm1| -> io::Result<()> {
            let calls = calls(&layers[..1], &options(xino, dirperm1, None)).ok_or(Errno::NAMETOOLONG)?;
            create(target, xino, &calls[0])
        };
        let dirperm1 = match first(true) {
            Err(error) if errno_of(&error) == Errno::INVAL.raw_os_error() => first(false).map(|()| false)?,
            mounted => mounted.map(|()| true)?,
        };
        let mut branches = 1;
        for layer in &layers[1..] {
            match append(target, &[b"append:", bytes(layer), b"=ro+wh"].concat()) {
                Ok(()) => branches += 1,
                Err(error) if errno_of(&error) == Errno::NOSPC.raw_os_error() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Limits { branches, dirperm1 })
    }
}

/// Makes hard links of the pseudo-links of a union that is about to be unmounted: of a file with several
/// names that was copied up aufs has copied one name, and forgets with the mount that the others are the same
/// file. Each name is copied up, which links it to the copy. `auplink` of aufs-util does the same; this needs
/// no program that runs with our rights. Needed before every attempt to unmount.
pub(super) fn flush(upper: &Path, target: &Path) -> Result<(), Error> {
    let inodes: HashSet<u64> = pseudo_links(upper)?
        .iter()
        .filter_map(|name| name.to_str()?.split_once('.')?.0.parse().ok())
        .collect();
    if inodes.is_empty() {
        return Ok(());
    }
    let union = File::open(target).map_err(Error::io("open"))?;
    touch(&union.into(), &inodes)
}

/// Takes away what stood for the pseudo-links of a union that is unmounted. aufs would take it for those of
/// the next mount.
pub(super) fn forget_pseudo_links(upper: &Path) -> Result<(), Error> {
    let Some(dir) = pseudo_link_directory(upper)? else { return Ok(()) };
    for name in names_in(&dir)? {
        unlinkat(&dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir).map_err(Error::io("unlinkat"))?;
    }
    Ok(())
}

/// The names of the pseudo-links in a writable branch: the number of the inode in the union, a dot, and that
/// in the branch.
fn pseudo_links(upper: &Path) -> Result<Vec<OsString>, Error> {
    pseudo_link_directory(upper)?.map_or(Ok(Vec::new()), |dir| names_in(&dir))
}

/// The directory of the pseudo-links. What else is there of that name is none: whoever wrote the layer (a
/// container, a component) may have made a symbolic link of it, and what that leads to is not the layer's.
fn pseudo_link_directory(upper: &Path) -> Result<Option<OwnedFd>, Error> {
    let branch = open_branch(upper).map_err(Error::io("open"))?;
    match beneath(branch.as_fd(), PSEUDO_LINKS.as_bytes(), LIST) {
        Ok(dir) => Ok(Some(dir)),
        Err(nix::Error::ENOENT | nix::Error::ENOTDIR | nix::Error::ELOOP) => Ok(None),
        Err(errno) => Err(Error::io("openat2")(errno)),
    }
}

/// A branch, which is a directory of the store and no symbolic link.
fn open_branch(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn names_in(dir: &OwnedFd) -> Result<Vec<OsString>, Error> {
    let listing = Listing::read(dir.as_fd(), usize::MAX)?;
    let name = |item| OsStr::from_bytes(listing.name(item)).to_owned();
    Ok(listing.items.iter().map(name).collect())
}

/// Whether a path can stand in aufs options.
pub(super) fn can_name(path: &Path) -> bool {
    !bytes(path).iter().any(|byte| b":,=\\\"\n".contains(byte))
}

/// The options that follow the branches of the first call. The inode table (`xino`) is on a tmpfs rather than
/// in the layer; `dio` allows direct input and output.
fn options(xino: &Path, dirperm1: bool, label: Option<&str>) -> Vec<u8> {
    let mut options = [b",dio,xino=", bytes(xino)].concat();
    if dirperm1 {
        options.extend_from_slice(b",dirperm1");
    }
    if let Some(label) = label {
        options.extend_from_slice(format!(",context=\"{label}\"").as_bytes());
    }
    options
}

/// The option strings of a stack: the first for the mount, each further one for a remount. None where a path
/// does not fit in one, or could be taken for more than a path.
fn calls(layers: &[PathBuf], options: &[u8]) -> Option<Vec<Vec<u8>>> {
    let (writable, ancestors) = layers.split_first()?;
    let mut calls = vec![[b"br:", bytes(writable), b"=rw"].concat()];
    let mut branches = 1;
    for layer in ancestors {
        let (separator, room) = match calls.len() {
            1 => (&b":"[..], CALL_BYTES.saturating_sub(options.len())),
            _ => (&b",append:"[..], CALL_BYTES),
        };
        let piece = [separator, bytes(layer), b"=ro+wh"].concat();
        match calls.last_mut() {
            Some(call) if branches < CALL_BRANCHES && call.len() + piece.len() <= room => call.extend(piece),
            _ => {
                calls.push([b"append:", bytes(layer), b"=ro+wh"].concat());
                branches = 0;
            }
        }
        branches += 1;
    }
    calls[0].extend_from_slice(options);
    let fit = calls.iter().all(|call| call.len() <= CALL_BYTES) && layers.iter().all(|path| can_name(path));
    fit.then_some(calls)
}

/// Makes a new superblock. The caller holds [`lock`].
fn create(target: &Path, xino: &Path, options: &[u8]) -> io::Result<()> {
    // aufs unlinks it at once; one that is still here is of a call that was killed, and would be EEXIST.
    match fs::remove_file(xino) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(mount(Some("none"), target, Some("aufs"), MsFlags::empty(), Some(options))?),
    }
}

fn append(target: &Path, options: &[u8]) -> io::Result<()> {
    Ok(mount(Some("none"), target, Some("aufs"), MsFlags::MS_REMOUNT, Some(options))?)
}

/// aufs races with itself when it makes two superblocks at once. Every open of the file is a lock of its own,
/// so this keeps threads apart as well as processes; it ends with the file.
fn lock(runtime: &Path) -> io::Result<File> {
    let file = File::create(runtime.join("aufs.lock"))?;
    file.lock()?;
    Ok(file)
}

/// A branch as sysfs shows it.
fn branch(index: usize, layer: &Path) -> Vec<u8> {
    [bytes(layer), if index == 0 { b"=rw" } else { b"=ro+wh" }].concat()
}

/// The branches of the union on a mount point, uppermost first, as sysfs shows them.
fn branches(target: &Path) -> io::Result<Vec<Vec<u8>>> {
    let seen = read_back(target)?;
    let Some(Ok(si)) = seen.option("si").pop().map(String::from_utf8) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the mount shows no si="));
    };
    // Never a way out of the directory.
    let union = Path::new("/sys/fs/aufs")
        .join(format!("si_{}", u64::from_str_radix(&si, 16).map(|_| si).map_err(io::Error::other)?));
    let mut branches = Vec::new();
    loop {
        match fs::read(union.join(format!("br{}", branches.len()))) {
            Ok(line) => branches.push(mountinfo::unescape(line.strip_suffix(b"\n").unwrap_or(&line))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(branches),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
#[path = "aufs_tests.rs"]
mod tests;
