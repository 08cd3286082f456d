//! A root on disk: which directories it has, which layers exist, and which of them are whole.
//!
//! ```text
//! layerbox.json   format version, identity, dialect, backend: the file that makes a directory a store
//! layers/ID       Docker's: the ancestors of a layer, nearest first. The component reads and writes it
//! diff/ID/        Docker's: the layer's own content
//! mnt/ID/         Docker's: its mount point
//! work/ID/        overlayfs' working directory
//! meta/ID         ours: ancestors as the host knows them, sizes. A layer exists exactly while this file does; to remove it, it is renamed to pending/ID
//! children/ID/    ours: an empty file for each layer whose parent is ID
//! pending/ID      ours: a layer is being made or removed
//! stage/ID/       ours: the content of a layer that an archive is being applied to; renamed to diff/ID when it is whole
//! trash/          ours: content that is out of sight and being deleted
//! aufs/ID/        ours: what aufs kept in a layer for itself, while the store is overlayfs'; only where it was converted ([`convert`])
//! convert.json    ours: the store is being rewritten for the other backend, and nobody opens it meanwhile
//! snapshots.redb  ours: the names that containerd has for layers ([`crate::snapshots`]); only where it was ever served
//! lock            one service, or any number of command lines, hold it
//! ```
//!
//! The host keeps its own record of the ancestors because they decide what a call is lent: if it took the
//! component's word (or `layers/`, which the component writes), a component gone wrong could read any layer
//! of the store.

mod adopt;
pub mod check;
mod children;
pub(crate) mod convert;
mod files;
pub(crate) mod inodes;
pub mod lock;
mod making;
pub mod maps;
mod marks;
mod opening;
pub mod record;
mod recover;
mod root_identity;
pub(crate) mod runtime;
mod stage;
mod strays;
mod trash;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Backend, Choice};
use rustix::io::Errno;

use crate::error::Failure;
use files::{ids_in, sync_directory};
use lock::{Claims, Guard, Mode, PATIENCE, Unclaimed};
pub(crate) use opening::name;
use opening::require_backend;
pub use opening::{Opening, Owner};
use record::{Format, Record};
use root_identity::RootIdentity;
use runtime::{LOCKS, MOUNT_LOCKS};
use strays::Strays;

/// The directories of a store, all of them made when the store is.
const DIRECTORIES: [&str; 9] =
    ["layers", "diff", "mnt", "work", "meta", "children", "pending", "stage", "trash"];

/// A store that is open, and locked against other owners.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    runtime: PathBuf,
    dir: Dir,
    /// What `dir` is, and by way of which mount.
    identity: RootIdentity,
    format: Format,
    /// Whether the machine has started since the store was last open: then no lock tells which layers were
    /// worked on.
    first_since_boot: bool,
    /// What was mended when it was opened, for the next check to tell.
    recovered: Mutex<Vec<check::Finding>>,
    /// What was found in `layers/` when it was opened that no record knows.
    strays: Mutex<Strays>,
    /// The layers that this process has locked, or waits to lock.
    claims: Claims,
    lock: Guard,
}

impl Store {
    /// Takes the lock on a layer; waits up to half a minute for others.
    ///
    /// # Errors
    ///
    /// [`Failure::Locked`] when it is held all that time.
    pub(crate) fn lock(&self, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::layer(&self.runtime.join(LOCKS), self.claims.claim(id), mode, PATIENCE)
    }

    /// Takes the lock on a layer's mount and count, as [`Store::lock`] does on the layer, which the caller
    /// has locked.
    ///
    /// # Errors
    ///
    /// Those of [`Store::lock`].
    pub(crate) fn lock_mount(&self, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::layer(&self.runtime.join(MOUNT_LOCKS), self.claims.claim(id), mode, PATIENCE)
    }

    /// The lock of a layer that no living process works on; none where one does. Whoever works on it cleans
    /// up itself.
    fn unclaimed(&self, id: &LayerId) -> Result<Option<Guard>, Failure> {
        match Guard::layer(&self.runtime.join(LOCKS), self.claims.claim(id), Mode::Exclusive, Duration::ZERO)
        {
            Ok(guard) => Ok(Some(guard)),
            Err(Failure::Locked(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Keeps others from locking a layer that nobody has locked, for what takes some microseconds and is
    /// worth less than the making of a lock. None where somebody has, where another process may use the
    /// store, and where another call is here already.
    pub(crate) fn unlocked(&self, id: &LayerId) -> Option<Unclaimed<'_>> {
        self.lock.is_exclusive().then(|| self.claims.unclaimed(id)).flatten()
    }

    /// Holds the store to be of a backend that is asked for by name.
    ///
    /// # Errors
    ///
    /// [`Failure::Conflict`] where it is of another.
    pub fn require_backend(&self, choice: Choice) -> Result<(), Failure> {
        require_backend(&self.root, self.format.backend(), choice)
    }

    /// Holds the store to be on a file system that can be written.
    ///
    /// # Errors
    ///
    /// [`Failure::ReadOnly`] where it is not.
    pub(crate) fn require_writable(&self) -> Result<(), Failure> {
        if self.is_read_only() {
            return Err(
                Failure::io("open", &io::Error::from_raw_os_error(nix::libc::EROFS)).name_store(&self.root)
            );
        }
        Ok(())
    }

    /// Whether the file system cannot be written, now.
    pub(crate) fn is_read_only(&self) -> bool {
        rustix::fs::fstatvfs(&self.dir)
            .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }

    /// The canonical path of the root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether the path of the root still leads to what was opened there. It does not when the directory was
    /// removed, emptied or replaced, or something was mounted or unmounted on the way: then nothing that is
    /// done here comes to be where the path leads. Where that cannot be told, calls will say why.
    pub fn is_in_place(&self) -> bool {
        match RootIdentity::at(&self.root) {
            Ok(now) => now == self.identity && self.lock.is_to_be_found(),
            Err(errno) => errno != Errno::NOENT && errno != Errno::NOTDIR,
        }
    }

    /// The directory on a tmpfs for what a reboot must clear: locks, reference counts.
    pub fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// What tells the store from all others of this machine, copies of it included; by whichever path it was
    /// opened.
    pub(crate) fn name(&self) -> String {
        runtime::name(&self.format.id, &self.identity)
    }

    /// What `layerbox.json` says.
    pub fn format(&self) -> &Format {
        &self.format
    }

    /// The path of a layer's own content.
    pub fn content_path(&self, id: &LayerId) -> PathBuf {
        self.root.join("diff").join(id.as_str())
    }

    /// The path of a layer's mount point.
    pub fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.root.join("mnt").join(id.as_str())
    }

    /// The path of the working directory that overlayfs wants; none where the backend has none.
    pub fn work_path(&self, id: &LayerId) -> Option<PathBuf> {
        (self.format.backend() != Backend::Aufs).then(|| self.root.join("work").join(id.as_str()))
    }

    /// The directory of the ancestor lists, to be lent to the component.
    pub fn layers_path(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The record of a layer; none where there is no such layer.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] where the record cannot be understood.
    pub fn record(&self, id: &LayerId) -> Result<Option<Record>, Failure> {
        Record::read(&self.dir, id)
    }

    /// The record of a layer that must exist.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`], and those of [`Store::record`].
    pub fn existing(&self, id: &LayerId) -> Result<Record, Failure> {
        self.record(id)?.ok_or_else(|| Failure::NotFound(id.to_string()))
    }

    /// Opens a layer's own content.
    ///
    /// # Errors
    ///
    /// Those of opening a directory.
    pub fn content(&self, id: &LayerId) -> Result<OwnedFd, Failure> {
        self.open_directory("diff", id)
    }

    /// Opens a directory of a layer as what it is: a link in its place is an error.
    fn open_directory(&self, kind: &str, id: &LayerId) -> Result<OwnedFd, Failure> {
        let flags = nix::fcntl::OFlag::O_DIRECTORY | nix::fcntl::OFlag::O_NOFOLLOW;
        let options = OpenOptions::new().read(true).custom_flags(flags.bits()).clone();
        let directory =
            self.dir.open_with(format!("{kind}/{id}"), &options).map_err(|e| Failure::io("open", &e))?;
        Ok(directory.into_std().into())
    }

    /// Writes a layer's record anew.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn update(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        record.write(&self.dir, id)
    }

    /// Forgets what was known of a layer's size, before the layer can change.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn forget_size(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        if record.size.is_none() {
            return Ok(());
        }
        match self.update(id, &Record { size: None, ..record.clone() }) {
            // Then neither can the layer.
            Err(failure) if failure.is_read_only() => Ok(()),
            other => other,
        }
    }

    fn sync_directory(&self, name: &str) -> Result<(), Failure> {
        sync_directory(&self.dir, name)
    }

    /// The ids in `meta/`: all layers that exist, sorted.
    ///
    /// # Errors
    ///
    /// Those of reading a directory.
    pub fn ids(&self) -> Result<Vec<LayerId>, Failure> {
        ids_in(&self.dir, "meta")
    }
}
