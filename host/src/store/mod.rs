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
//! The host keeps its own record of the ancestors because they decide what a call is lent: if it took the component's word (or `layers/`, which
//! the component writes), a component gone wrong could read any layer of the store.

mod adopt;
pub mod check;
pub(crate) mod convert;
mod files;
pub(crate) mod inodes;
pub mod lock;
pub mod maps;
mod marks;
mod opening;
mod place;
pub mod record;
mod recover;
pub(crate) mod runtime;
mod stage;
mod strays;
mod trash;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt as _};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Backend, Choice};
use rustix::io::Errno;

use crate::error::Failure;
use files::{exists, ids_in, ignore_missing, make_directory, mark_child, sync_directory, touch};
use lock::{Claims, Guard, Mode, PATIENCE, Unclaimed};
pub(crate) use opening::identity;
use opening::require_backend;
pub use opening::{Opening, Owner};
use place::Place;
use record::{Format, Record};
use runtime::{LOCKS, MOUNT_LOCKS, existing_directories, runtime_directory};
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
    /// Where `dir` is.
    place: Place,
    format: Format,
    /// Whether the machine has started since the store was last open: then no lock tells which layers were worked on.
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
    /// Opens the store at `root`, which no service or, for a service, nobody else may use meanwhile.
    ///
    /// A root with Docker's three directories and no `layerbox.json` is adopted as an aufs store. What an interrupted process left is still there:
    /// that is for [`Store::recover`].
    ///
    /// # Errors
    ///
    /// [`Failure::NoStore`], [`Failure::StoreInUse`], [`Failure::Converting`]; [`Failure::Conflict`] for a root that holds something else, a store of another
    /// format, of another backend than the one asked for by name, or of other id maps; [`Failure::InvalidArgument`] for a new one where its layers could
    /// never be mounted. A root that is refused is as it was.
    pub fn open(root: &Path, opening: Opening) -> Result<Store, Failure> {
        let Opening { owner, backend: choice, make, unfinished, patience, .. } = opening;
        let missing = || Failure::NoStore(root.display().to_string());
        if make {
            if !root.exists() {
                let path = std::path::absolute(root).map_err(|e| Failure::io("getcwd", &e))?;
                opening.require_path(&path)?;
            }
            // Only root looks into a store: set-user-id programs and device nodes of images lie in it.
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(root)
                .map_err(|e| Failure::io_at("mkdir", root, &e))?;
        }
        let given = root;
        let root = root.canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => Failure::io_at("open", given, &e),
        })?;
        let dir = Dir::open_ambient_dir(&root, cap_std::ambient_authority()).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(),
            _ => Failure::io_at("open", given, &e),
        })?;
        let place = Place::of(&dir).map_err(|errno| Failure::io("statx", &errno.into()))?;
        let state = adopt::survey(&dir)?;
        if matches!(state, adopt::State::Empty) && !make {
            return Err(missing());
        }
        opening.require_fit(&root, &state)?;
        let maps = opening.maps.clone();
        let (lock, format) = match state {
            adopt::State::Store => {
                let mode = if owner == Owner::Service { Mode::Exclusive } else { Mode::Shared };
                let lock = Guard::store(&dir, mode, patience)?;
                (lock, Format::read(&dir)?)
            }
            adopt::State::Empty | adopt::State::Docker => {
                let lock = Guard::store(&dir, Mode::Exclusive, patience)?;
                // Another process may have made it while this one waited for the lock.
                let format = match adopt::survey(&dir)? {
                    adopt::State::Store => Format::read(&dir)?,
                    adopt::State::Empty => {
                        adopt::make(&dir, opening.new_backend(), maps.clone().unwrap_or_default())?
                    }
                    adopt::State::Docker => adopt::adopt(&dir, maps.clone().unwrap_or_default())?,
                };
                let lock = if owner == Owner::Service { lock } else { lock.share()? };
                (lock, format)
            }
        };
        if !unfinished {
            convert::require_whole(&dir)?;
        }
        require_backend(&root, format.backend(), choice)?;
        if maps.is_some_and(|maps| maps != *format.maps()) {
            return Err(Failure::Conflict(format!("the store at {} has other id maps", root.display())));
        }
        let first_since_boot = existing_directories(&format.id).next().is_none();
        let runtime = runtime_directory(&format.id)?;
        let (recovered, strays, claims) = (Mutex::default(), Mutex::default(), Claims::default());
        Ok(Store { root, runtime, first_since_boot, dir, place, format, recovered, strays, claims, lock })
    }

    /// Takes the lock on a layer; waits up to half a minute for others.
    ///
    /// # Errors
    ///
    /// [`Failure::Locked`] when it is held all that time.
    pub(crate) fn lock(&self, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::layer(&self.runtime.join(LOCKS), self.claims.claim(id), mode, PATIENCE)
    }

    /// Takes the lock on a layer's mount and count, as [`Store::lock`] does on the layer, which the caller has locked.
    ///
    /// # Errors
    ///
    /// Those of [`Store::lock`].
    pub(crate) fn lock_mount(&self, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        Guard::layer(&self.runtime.join(MOUNT_LOCKS), self.claims.claim(id), mode, PATIENCE)
    }

    /// The lock of a layer that no living process works on; none where one does. Whoever works on it cleans up itself.
    fn unclaimed(&self, id: &LayerId) -> Result<Option<Guard>, Failure> {
        match Guard::layer(&self.runtime.join(LOCKS), self.claims.claim(id), Mode::Exclusive, Duration::ZERO)
        {
            Ok(guard) => Ok(Some(guard)),
            Err(Failure::Locked(_)) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Keeps others from locking a layer that nobody has locked, for what takes some microseconds and is worth less than the making of a lock. None where
    /// somebody has, where another process may use the store, and where another call is here already.
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
                Failure::io("open", &io::Error::from_raw_os_error(nix::libc::EROFS)).of_store(&self.root)
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

    /// Whether the path of the root still leads to what was opened there. It does not when the directory was removed, emptied or replaced, or something was
    /// mounted or unmounted on the way: then nothing that is done here comes to be where the path leads. Where that cannot be told, calls will say why.
    pub fn is_in_place(&self) -> bool {
        match Place::at(&self.root) {
            Ok(now) => now == self.place && self.lock.is_to_be_found(),
            Err(errno) => errno != Errno::NOENT && errno != Errno::NOTDIR,
        }
    }

    /// The directory on a tmpfs for what a reboot must clear: locks, reference counts.
    pub fn runtime(&self) -> &Path {
        &self.runtime
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

    /// Holds the place of a layer that is to be made to be free. What a call that was cut off has left there has a note, and is nobody's; an empty mount
    /// point is nothing.
    ///
    /// # Errors
    ///
    /// [`Failure::Occupied`] where something else lies there; it is left alone.
    pub fn require_room(&self, id: &LayerId) -> Result<(), Failure> {
        if exists(&self.dir, &format!("pending/{id}"))? {
            return Ok(());
        }
        for kind in ["layers", "diff", "work"] {
            let place = format!("{kind}/{id}");
            if exists(&self.dir, &place)? {
                return Err(Failure::Occupied(place));
            }
        }
        let place = format!("mnt/{id}");
        match self.dir.remove_dir(&place) {
            Err(e) if e.kind() != io::ErrorKind::NotFound && exists(&self.dir, &place)? => {
                Err(Failure::Occupied(place))
            }
            _ => Ok(()),
        }
    }

    /// Makes the directories of a layer of which [`Store::announce`] has noted that it will be made.
    ///
    /// # Errors
    ///
    /// Those of making directories. What was made is taken away by [`Store::undo_make`].
    pub fn make_directories(&self, id: &LayerId) -> Result<(), Failure> {
        for kind in self.kinds() {
            let path = format!("{kind}/{id}");
            make_directory(&self.dir, &path, 0o755)?;
            self.give_to_root(&path)?;
        }
        Ok(())
    }

    /// Makes root of the id map the owner of a directory.
    fn give_to_root(&self, path: &str) -> Result<(), Failure> {
        let maps = self.format.maps();
        if maps.is_empty() {
            return Ok(());
        }
        let (uid, gid) = maps.root()?;
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        let (uid, gid) = (nix::unistd::Uid::from_raw(uid), nix::unistd::Gid::from_raw(gid));
        nix::unistd::fchownat(&self.dir, path, Some(uid), Some(gid), flags)
            .map_err(|e| Failure::io("fchownat", &e.into()))
    }

    /// Whether a layer has all its directories.
    pub fn has_directories(&self, id: &LayerId) -> bool {
        let is_directory =
            |kind: &&str| self.dir.symlink_metadata(format!("{kind}/{id}")).is_ok_and(|found| found.is_dir());
        self.kinds().iter().all(is_directory)
    }

    fn kinds(&self) -> &'static [&'static str] {
        if self.format.backend() == Backend::Aufs { &["diff", "mnt"] } else { &["diff", "mnt", "work"] }
    }

    /// Notes that a layer is being made or removed, so that a crash in the midst of it leaves a trace.
    ///
    /// # Errors
    ///
    /// Those of making a file.
    pub fn announce(&self, id: &LayerId) -> Result<(), Failure> {
        touch(&self.dir, &format!("pending/{id}"))
    }

    /// Ends what [`Store::announce`] began.
    ///
    /// # Errors
    ///
    /// Those of removing a file.
    pub fn conclude(&self, id: &LayerId) -> Result<(), Failure> {
        ignore_missing(self.dir.remove_file(format!("pending/{id}")), "unlink")
    }

    /// Brings the names in `layers/` to the disk, and notes that they are ours; the component brings the bytes there itself.
    ///
    /// # Errors
    ///
    /// Those of syncing.
    pub fn sync_layers(&self) -> Result<(), Failure> {
        self.sync_directory("layers")?;
        self.see_layers();
        Ok(())
    }

    /// Brings all names of a new layer to the disk, and before them the mark that it lies on its parent. A file system that logs what is synced alone (btrfs)
    /// would else keep the record of a layer and lose its directories, or the mark, without which the parent could be removed.
    ///
    /// # Errors
    ///
    /// Those of making a file and of syncing.
    pub fn sync_made(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        if let Some(parent) = record.ancestors.first() {
            // First: where one sync brings everything to the disk, those behind it find nothing left to do.
            let first = mark_child(&self.dir, parent, id)?;
            self.sync_directory(&format!("children/{parent}"))?;
            if first {
                self.sync_directory("children")?;
            }
        }
        self.kinds().iter().try_for_each(|kind| self.sync_directory(kind))?;
        self.sync_layers()
    }

    /// Makes the layer exist: from here on it is whole, and survives a crash. Its names must be on the disk ([`Store::sync_made`]).
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn commit(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        record.write(&self.dir, id)
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

    /// A layer that has `id` as its parent, where there is one.
    ///
    /// # Errors
    ///
    /// Those of reading a directory; [`Failure::Corrupt`] where there may be one, and the records of it are damaged.
    pub fn child(&self, id: &LayerId) -> Result<Option<LayerId>, Failure> {
        let entries = match self.dir.read_dir(format!("children/{id}")) {
            Ok(entries) => Some(entries),
            Err(e) if e.kind() == io::ErrorKind::NotFound && exists(&self.dir, "children")? => None,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::Corrupt(
                    "children/ is missing, which tells what lies on a layer".to_owned(),
                ));
            }
            Err(e) => return Err(Failure::io("open", &e)),
        };
        for entry in entries.into_iter().flatten() {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            let Some(child) = name.to_str().and_then(|name| LayerId::new(name).ok()) else { continue };
            match self.record(&child)? {
                Some(record) if record.ancestors.first() == Some(id) => return Ok(Some(child)),
                Some(_) => {}
                None => self.require_no_child(&child)?,
            }
        }
        match self.stray_on(id)? {
            Some(stray) => {
                Err(Failure::Corrupt(format!("layers/{stray} lies on it, and has no record in meta/")))
            }
            None => Ok(None),
        }
    }

    /// Holds a mark of a child without a record to be one that a crash has left of a child that never came to be, or is no more: not of one whose record was lost.
    fn require_no_child(&self, child: &LayerId) -> Result<(), Failure> {
        // Whoever works on it is about to remove it.
        let Some(_guard) = self.unclaimed(child)? else { return Ok(()) };
        if self.lacks_record(child)? {
            return Err(Failure::Corrupt(format!("meta/{child} is missing, and the layer lies on it")));
        }
        Ok(())
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
