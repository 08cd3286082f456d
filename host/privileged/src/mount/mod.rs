//! Union mounts: layers stacked on a mount point by overlayfs or aufs, read back from the kernel, and
//! unmounted.
//!
//! Callers name layers; every path and option string is built here from checked ids and the store's root.
//! Nothing is resolved through a symbolic link of the store: a layer that is not a plain directory is
//! refused.
//!
//! A caller holds a lock of its own per layer. Mount propagation is left as the administrator set it: under a
//! shared root (systemd's default) a union shows up in other mount namespaces too, and goes away from them
//! with the unmount. Whoever wants it private makes the store's root a private mount before starting
//! layerbox.

mod aufs;
mod backend;
mod holders;
pub mod mountinfo;
mod overlay;
#[cfg(test)]
mod tests;
pub mod thread;

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::Duration;

use nix::mount::{MntFlags, umount2};
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags, openat2, statx,
};
use rustix::io::Errno;
use rustix::mount::{FsOpenFlags, fsopen};

pub use self::backend::{Backend, Choice};
use self::backend::{FIT, filesystem_of, listed};
use crate::{Error, LayerId};

/// The most ancestors that a union of either backend may have: 500 layers with the writable one, so that the
/// same stack can be given to overlayfs as lower layers only (it takes 500, `OVL_MAX_STACK` in the kernel's
/// fs/overlayfs). An aufs that takes more is held to the same.
const MAX_ANCESTORS: u32 = 499;

/// Longest mount label in bytes: what `fsconfig(2)` takes as a value, without its terminator.
const MAX_LABEL: usize = 255;

/// How long an unmount waits for a busy union, in milliseconds a step: about 200 in all. Processes that end
/// let go of their files a moment later than their parent learns of it.
const PATIENCE: [u64; 5] = [10, 20, 40, 60, 70];

/// Where a store and its volatile state lie.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The store: `diff/`, `mnt/` and `work/` are below it. It exists.
    pub root: PathBuf,
    /// A directory of this store's own on a tmpfs. Made (mode 0700) where it is missing.
    pub runtime: PathBuf,
}

/// The unions of one store.
#[derive(Debug, Clone)]
pub struct Unions {
    backend: Backend,
    layout: Layout,
    new_api: Arc<OnceLock<bool>>,
    limits: Arc<OnceLock<aufs::Limits>>,
}

/// What an unmount takes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// The union, if nobody holds it.
    Own,
    /// All that is mounted there, if nobody holds it.
    All,
    /// All that is mounted there.
    Forced,
}

/// Why a backend did not mount.
#[derive(Debug)]
struct Failure {
    operation: &'static str,
    cause: io::Error,
    detail: String,
}

impl Unions {
    /// Opens the unions of a store.
    ///
    /// [`Error::Io`] where `root` does not exist.
    pub fn new(backend: Backend, layout: Layout) -> Result<Unions, Error> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&layout.runtime)
            .map_err(Error::io("make the runtime directory"))?;
        // mountinfo shows real paths.
        let root = fs::canonicalize(&layout.root).map_err(Error::io("resolve the root"))?;
        let runtime =
            fs::canonicalize(&layout.runtime).map_err(Error::io("resolve the runtime directory"))?;
        let layout = Layout { root, runtime };
        Ok(Unions { backend, layout, new_api: Arc::default(), limits: Arc::default() })
    }

    /// Mounts `branches`, uppermost first, on the mount point of `id`, and reads back what the kernel
    /// mounted. The first is `id` itself and takes the changes. `label` is an SELinux mount label (empty is
    /// none).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] for a list that is not such a stack or a malformed label,
    /// [`Error::Unsupported`] for one too deep, a kernel without the file system or a store whose path that
    /// one cannot be told ([`Backend::can_name`]), [`Error::Conflict`] where something is mounted already,
    /// and [`Error::MountFailed`] otherwise, naming the layer and the file system to blame where they can be
    /// told. Nothing stays mounted then.
    pub fn mount(&self, id: &LayerId, branches: &[LayerId], label: Option<&str>) -> Result<(), Error> {
        let (unions, id, branches) = (self.clone(), id.clone(), branches.to_vec());
        let label = label.map(str::to_owned);
        thread::run(move || unions.mount_here(&id, &branches, label.as_deref()))?
    }

    /// [`Unions::mount`], on the thread that may ([`thread`]).
    fn mount_here(&self, id: &LayerId, branches: &[LayerId], label: Option<&str>) -> Result<(), Error> {
        let label = label.filter(|label| !label.is_empty());
        check_label(label)?;
        for path in [&self.layout.root, &self.layout.runtime] {
            self.backend.can_name(path).map_err(Error::Unsupported)?;
        }
        self.check_stack(id, branches)?;
        let layers: Vec<PathBuf> = branches.iter().map(|layer| self.path("diff", layer)).collect();
        let target = self.path("mnt", id);
        for (layer, path) in branches.iter().zip(&layers).chain([(id, &target)]) {
            check_directory(layer, path)?;
        }
        // aufs would take it without a word, and two unions would then write to one layer.
        if self.mounted(id)? {
            return Err(Error::Conflict(format!("layer {id} is mounted already")));
        }
        let mounted = match self.backend {
            // Before anything in a branch is touched.
            Backend::Aufs if !self.available() => Err(at("mount")(Errno::NODEV)),
            Backend::Aufs => aufs::Union { id, layers: &layers, target: &target, label }
                .mount(&self.layout.runtime, self.limits().dirperm1),
            Backend::Overlay | Backend::OverlayUser => {
                let work = self.path("work", id);
                check_directory(id, &work)?;
                let union = overlay::Union {
                    upper: &layers[0],
                    lower: &layers[1..],
                    work: &work,
                    target: &target,
                    label,
                    user: self.backend == Backend::OverlayUser,
                };
                match self.new_api() && union.fits_new_api() {
                    true => union.mount_new(),
                    false => union.mount_old(&self.layout.runtime.join("links").join(id.as_str())),
                }
            }
        };
        mounted.map_err(|failure| {
            let undone = match self.mounted(id) {
                Ok(false) => Ok(()),
                _ => umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW),
            };
            self.explain(branches, &layers, failure, undone.is_err())
        })
    }

    /// Unmounts the union of `id` (twice the same, if a crash came between); false when nothing was mounted.
    /// A busy union is waited for (about 200 ms), then detached if `force`.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`] with the processes that hold it, or with what somebody else has mounted over it (an
    /// overlay that lies right over one of ours is not told from it), and what keeps hard links of an aufs
    /// union from being made: unless `force`, which takes all of it down. What the kernel says of the
    /// unmount.
    pub fn unmount(&self, id: &LayerId, force: bool) -> Result<bool, Error> {
        self.take_down(id, if force { Extent::Forced } else { Extent::Own })
    }

    /// Unmounts all that is mounted on the mount point of `id`, by whomever; false when nothing was.
    ///
    /// # Errors
    ///
    /// What is busy is an error as for [`Unions::unmount`].
    pub fn unmount_all(&self, id: &LayerId) -> Result<bool, Error> {
        self.take_down(id, Extent::All)
    }

    fn take_down(&self, id: &LayerId, extent: Extent) -> Result<bool, Error> {
        let (unions, id) = (self.clone(), id.clone());
        thread::run(move || unions.unmount_here(&id, extent))?
    }

    /// [`Unions::take_down`], on the thread that may.
    fn unmount_here(&self, id: &LayerId, extent: Extent) -> Result<bool, Error> {
        let target = self.path("mnt", id);
        let force = extent == Extent::Forced;
        let mut any = false;
        // That it is a union says the file system there, in the one call that would ask whether anything is
        // mounted. It may be that of the store itself: then the kernel knows of no mount. aufs does more than
        // to unmount, so it is asked first.
        if extent == Extent::Own && self.backend != Backend::Aufs && shows_overlay(&target) {
            any = self.unmount_one(id, &target, force)?;
        }
        while self.mounted(id)? {
            if extent == Extent::Own
                && let Some(other) = self.other_mount(id, &target)?
            {
                // What lay below the union is for `check` to tell of.
                return if any { Ok(true) } else { Err(Error::Busy(other)) };
            }
            any |= self.unmount_one(id, &target, force)?;
        }
        Ok(any)
    }

    /// What is mounted on the mount point of `id` that is no union of that layer, in words; none where it is
    /// one.
    fn other_mount(&self, id: &LayerId, target: &Path) -> Result<Option<String>, Error> {
        let top = mountinfo::find(|mount| mount.point == target).map_err(Error::io("read mountinfo"))?;
        let Some(top) = top else { return Ok(None) };
        let upper = top.option("upperdir");
        // Of a union that was mounted by mount(2) the kernel shows the short name.
        let is_ours = top.filesystem == self.backend.filesystem().as_bytes()
            && (self.backend == Backend::Aufs
                || [bytes(&self.path("diff", id)), &b"u"[..]].iter().any(|ours| upper == [*ours]));
        let filesystem = String::from_utf8_lossy(&top.filesystem);
        Ok((!is_ours).then(|| {
            format!("{filesystem} is mounted over layer {id}, by somebody else: unmount that first")
        }))
    }

    /// Unmounts what is on top; false where nothing was mounted.
    fn unmount_one(&self, id: &LayerId, target: &Path, force: bool) -> Result<bool, Error> {
        let is_aufs = self.backend == Backend::Aufs;
        let upper = self.path("diff", id);
        let gone = |flags: MntFlags| {
            if is_aufs {
                aufs::flush(&upper, target).or_else(|error| if force { Ok(()) } else { Err(error) })?;
            }
            match umount2(target, flags | MntFlags::UMOUNT_NOFOLLOW) {
                // A union that was only detached may still be used.
                Ok(()) if is_aufs && !flags.contains(MntFlags::MNT_DETACH) => {
                    aufs::forget_pseudo_links(&upper).map(|()| Some(true))
                }
                Ok(()) => Ok(Some(true)),
                Err(nix::Error::EBUSY) => Ok(None),
                // Not a mount point: somebody else was faster. If it is one, the kernel has locked it
                // (mount_namespaces(7)). Nor is it where the point is not even there, or where the kernel
                // asked for rights before it looked.
                Err(nix::Error::EINVAL | nix::Error::ENOENT | nix::Error::EPERM) if !self.mounted(id)? => {
                    Ok(Some(false))
                }
                Err(errno) => Err(Error::io("umount")(errno)),
            }
        };
        for pause in PATIENCE {
            if let Some(was_mounted) = gone(MntFlags::empty())? {
                return Ok(was_mounted);
            }
            sleep(Duration::from_millis(pause));
        }
        if let Some(was_mounted) = gone(if force { MntFlags::MNT_DETACH } else { MntFlags::empty() })? {
            return Ok(was_mounted);
        }
        Err(Error::Busy(format!("the union of layer {id} is held by {}", holders::of(target))))
    }

    /// Whether something is mounted on the mount point of `id`.
    pub fn mounted(&self, id: &LayerId) -> Result<bool, Error> {
        let path = self.path("mnt", id);
        match look(&path) {
            Ok(stat) if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) => {
                Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
            }
            // Linux before 5.8 does not say.
            Ok(_) => Ok(mountinfo::find(|mount| mount.point == path)
                .map_err(Error::io("read mountinfo"))?
                .is_some()),
            Err(Errno::NOENT) => Ok(false),
            // aufs answers so when its writable branch was deleted under it; it can still be unmounted.
            Err(Errno::STALE) => Ok(true),
            Err(errno) => Err(Error::io("statx")(errno)),
        }
    }

    /// Whether the caches of the kernel have it that something is mounted on the mount point of `id`: nothing
    /// is waited for, and where they do not say so (or the kernel cannot be asked so: before Linux 5.12), the
    /// answer is no.
    pub fn mounted_at_once(&self, id: &LayerId) -> bool {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = openat2(CWD, self.path("mnt", id), flags, Mode::empty(), ResolveFlags::CACHED);
        let at = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
        found
            .and_then(|found| statx(&found, c"", at, StatxFlags::TYPE))
            .is_ok_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }

    /// The layers of this store that have something mounted on their mount point, in order.
    pub fn all(&self) -> Result<Vec<LayerId>, Error> {
        let points = self.layout.root.join("mnt");
        let mut layers = BTreeSet::new();
        mountinfo::each(|mount| {
            if let Ok(name) = mount.point.strip_prefix(&points)
                && let Some(Ok(id)) = name.to_str().map(LayerId::new)
            {
                layers.insert(id);
            }
            true
        })
        .map_err(Error::io("read mountinfo"))?;
        Ok(layers.into_iter().collect())
    }

    /// How many ancestors a mounted layer can have. overlayfs: 499. aufs: what this kernel was built for,
    /// less the writable branch, found by a trial mount once after the machine started (it says so nowhere
    /// else that can be relied on); 126, its usual build, where that cannot be tried; never above 499.
    pub fn depth_limit(&self) -> u32 {
        match self.backend {
            Backend::Aufs => (self.limits().branches - 1).min(MAX_ANCESTORS),
            Backend::Overlay | Backend::OverlayUser => MAX_ANCESTORS,
        }
    }

    /// What the store lies on and what the kernel can do, as rows of a status table. The first two rows are
    /// those of Docker's aufs driver.
    pub fn features(&self) -> Vec<(String, String)> {
        let available = self.available();
        let aufs = self.backend == Backend::Aufs;
        let backing = filesystem_of(&self.layout.root).unwrap_or_else(|_| "<unknown>".to_owned());
        let dirperm1 = aufs && available && self.limits().dirperm1;
        let mut rows = vec![
            ("Backing Filesystem", backing),
            ("Dirperm1 Supported", dirperm1.to_string()),
            ("Kernel Supports Mounting", if available { "yes" } else { "no" }.to_owned()),
        ];
        if !aufs {
            rows.push(("Mount API", if self.new_api() { "new" } else { "old" }.to_owned()));
        }
        rows.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The options, but for the directories, that a union of overlayfs has here; none for aufs. Whoever
    /// mounts layers beside this gives the same, or its unions would mean something else.
    pub fn options(&self) -> Vec<String> {
        if self.backend == Backend::Aufs {
            return Vec::new();
        }
        let mut options: Vec<String> =
            overlay::SAFE.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if self.backend == Backend::OverlayUser {
            options.push("userxattr".to_owned());
        }
        options
    }

    /// Whether the kernel has the file system. It is asked for, so a module is loaded if there is one.
    pub fn available(&self) -> bool {
        let name = self.backend.filesystem();
        let opens = move || fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).is_ok();
        listed(name).unwrap_or(false) || thread::run(opens).unwrap_or(false)
    }

    fn path(&self, folder: &str, id: &LayerId) -> PathBuf {
        self.layout.root.join(folder).join(id.as_str())
    }

    fn new_api(&self) -> bool {
        *self.new_api.get_or_init(|| {
            let root = self.layout.root.clone();
            thread::run(move || overlay::has_new_api(&root)).unwrap_or(false)
        })
    }

    fn limits(&self) -> aufs::Limits {
        *self.limits.get_or_init(|| match aufs::can_name(&self.layout.runtime) && self.available() {
            true => {
                let runtime = self.layout.runtime.clone();
                thread::run(move || aufs::Limits::find(&runtime)).unwrap_or(aufs::Limits::USUAL)
            }
            false => aufs::Limits::USUAL,
        })
    }

    fn check_stack(&self, id: &LayerId, branches: &[LayerId]) -> Result<(), Error> {
        let invalid = |what: &str| Err(Error::InvalidArgument(format!("layer {id}: {what}")));
        if branches.len() < 2 || branches[0] != *id {
            return invalid("a union is the layer itself on one ancestor at least");
        }
        // aufs takes a branch twice without an error and then shows it twice.
        let mut seen = HashSet::new();
        if let Some(twice) = branches.iter().find(|branch| !seen.insert(*branch)) {
            return invalid(&format!("{twice} is in the union twice"));
        }
        let (ancestors, limit) = (branches.len() - 1, self.depth_limit());
        if ancestors > limit as usize {
            return Err(Error::Unsupported(format!(
                "layer {id} has {ancestors} ancestors; {} takes {limit}",
                self.backend.as_str()
            )));
        }
        Ok(())
    }

    /// Makes of a failure an error that names whom to blame.
    fn explain(&self, branches: &[LayerId], layers: &[PathBuf], failure: Failure, stays: bool) -> Error {
        let Failure { operation, mut detail, cause } = failure;
        let errno = errno_of(&cause);
        if cause.raw_os_error().is_none() {
            detail = format!("{detail} {cause}");
        }
        if errno == Errno::NODEV.raw_os_error() {
            return Error::Unsupported(format!("this kernel has no {}", self.backend.filesystem()));
        }
        if operation == aufs::APPEND && errno == Errno::NOSPC.raw_os_error() {
            let count = branches.len();
            return Error::Unsupported(format!(
                "this kernel's aufs does not take {count} branches: {}",
                detail
            ));
        }
        let names: Vec<Option<String>> = layers.iter().map(|path| filesystem_of(path).ok()).collect();
        let blamed = match errno == Errno::INVAL.raw_os_error() {
            true => names.iter().position(|name| name.as_deref().is_none_or(|name| !FIT.contains(&name))),
            false => None,
        };
        let at = blamed.unwrap_or(0);
        if blamed.is_some() {
            detail.push_str(" (this layer lies on a file system that may not be part of a union)");
        }
        if stays {
            detail.push_str(" (and what was mounted could not be unmounted)");
        }
        Error::MountFailed {
            layer: Some(branches[at].clone()),
            filesystem: names[at].clone(),
            operation,
            errno,
            detail: detail.trim().to_owned(),
        }
    }
}

/// Whether what is seen at a path is of overlayfs.
fn shows_overlay(path: &Path) -> bool {
    filesystem_of(path).is_ok_and(|found| found == "overlayfs")
}

/// Refuses what is no label: it goes between quotes into an option string. Commas are part of SELinux
/// categories.
fn check_label(label: Option<&str>) -> Result<(), Error> {
    match label {
        Some(label)
            if label.len() > MAX_LABEL
                || label.contains(|c: char| c == '"' || c == '\\' || c.is_control()) =>
        {
            Err(Error::InvalidArgument(format!("{label:?} is no mount label")))
        }
        _ => Ok(()),
    }
}

/// A layer's directory must be one, and so must what it lies in: the kernel would follow a symbolic link out
/// of the store. That of the root has none, for it is the real path.
fn check_directory(layer: &LayerId, path: &Path) -> Result<(), Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let cause = match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(_) => return Ok(()),
        // Its mount point holds a broken union; `mounted` says so next.
        Err(Errno::STALE) => return Ok(()),
        Err(errno) => errno,
    };
    Err(Error::MountFailed {
        layer: Some(layer.clone()),
        filesystem: None,
        operation: "openat2",
        errno: cause.raw_os_error(),
        detail: format!("{path:?} is not a directory that can be reached"),
    })
}

/// What lies at a path, without following a link, waiting for a server, or mounting something.
fn look(path: &Path) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    statx(CWD, path, flags, StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID)
}

/// The mount that a directory lies on; none where there is no such directory, and before Linux 5.8.
pub(crate) fn mount_of(path: &Path) -> Option<u64> {
    let found = look(path).ok()?;
    (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id)
}

/// Whether two paths lead to one directory, by whichever mounts.
pub(crate) fn same_directory(one: &Path, other: &Path) -> bool {
    let number = |path: &Path| {
        let found = look(path).ok()?;
        Some((found.stx_dev_major, found.stx_dev_minor, found.stx_ino))
    };
    number(one).is_some_and(|found| number(other) == Some(found))
}

/// The mount on a mount point as mountinfo has it.
fn read_back(target: &Path) -> io::Result<mountinfo::Mount> {
    let stat = look(target)?;
    let has_id = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    mountinfo::find(|mount| if has_id { mount.id == stat.stx_mnt_id } else { mount.point == target })?
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the mount is not in mountinfo"))
}

/// The kernel's error number; `EIO` for what is an error of ours (a read-back that does not fit), whose text
/// says more.
fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or_else(|| Errno::IO.raw_os_error())
}

fn at<E: Into<io::Error>>(operation: &'static str) -> impl Fn(E) -> Failure {
    move |error| {
        let cause = error.into();
        Failure { operation, detail: String::new(), cause }
    }
}

fn mismatch(detail: String) -> Failure {
    Failure { operation: "read back", detail: String::new(), cause: io::Error::other(detail) }
}

/// A path as the bytes that an option holds.
fn bytes(path: &Path) -> &[u8] {
    OsStr::as_bytes(path.as_os_str())
}
