//! How a store is opened: by whom, as what, and whether it is made or taken over; and what can be told of one
//! that is not open.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use cap_std::fs::Dir;
use layerbox_privileged::mount::{Backend, Choice};

use super::adopt::State;
use super::lock::{Claims, Guard, Mode, PATIENCE};
use super::maps::IdMaps;
use super::record::Format;
use super::root_identity::RootIdentity;
use super::{Store, adopt, convert, runtime};
use crate::error::Failure;

/// Who opens a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Owner {
    /// A command line, beside others.
    #[default]
    CommandLine,
    /// A service, alone.
    Service,
}

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Opening {
    /// Who opens it.
    pub owner: Owner,
    /// The backend that it must have, or gets when it is made.
    pub backend: Choice,
    /// The backend that it gets when it is made and `backend` leaves that open.
    pub usual_backend: Choice,
    /// The id maps that it must have, or gets when it is made; none: those that it has.
    pub maps: Option<IdMaps>,
    /// Whether a root that is missing or empty becomes a store.
    pub make: bool,
    /// Whether it is opened although its conversion was cut off: to go on with that.
    pub(crate) unfinished: bool,
    /// How long to wait for others that use it.
    pub patience: Duration,
}

impl Default for Opening {
    fn default() -> Opening {
        Opening {
            owner: Owner::default(),
            backend: Choice::default(),
            usual_backend: Choice::default(),
            maps: None,
            make: false,
            unfinished: false,
            patience: PATIENCE,
        }
    }
}

impl Store {
    /// Opens the store at `given`, which no service or, for a service, nobody else may use meanwhile.
    ///
    /// A root with Docker's three directories and no `layerbox.json` is adopted as an aufs store. What an
    /// interrupted process left is still there: that is for [`Store::recover`].
    ///
    /// # Errors
    ///
    /// [`Failure::NoStore`], [`Failure::StoreInUse`], [`Failure::Converting`]; [`Failure::Conflict`] for a
    /// root that holds something else, a store of another format, of another backend than the one asked for
    /// by name, or of other id maps; [`Failure::InvalidArgument`] for a new one where its layers could never
    /// be mounted. A root that is refused is as it was.
    pub fn open(given: &Path, opening: Opening) -> Result<Store, Failure> {
        let missing = || Failure::NoStore(given.display().to_string());
        if opening.make {
            opening.make_root(given)?;
        }
        let root = given.canonicalize().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => missing(),
            _ => Failure::io_at("open", given, &e),
        })?;
        let dir = Dir::open_ambient_dir(&root, cap_std::ambient_authority()).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(),
            _ => Failure::io_at("open", given, &e),
        })?;
        let identity = RootIdentity::of(&dir).map_err(|errno| Failure::io("statx", &errno.into()))?;
        let state = adopt::survey(&dir)?;
        if matches!(state, State::Empty) && !opening.make {
            return Err(missing());
        }
        opening.require_fit(&root, &state)?;
        let (lock, format) = opening.lock(&dir, &state)?;
        if !opening.unfinished {
            convert::require_whole(&dir)?;
        }
        require_backend(&root, format.backend(), opening.backend)?;
        if opening.maps.is_some_and(|maps| maps != *format.maps()) {
            return Err(Failure::Conflict(format!("the store at {} has other id maps", root.display())));
        }
        let name = runtime::name(&format.id, &identity);
        let first_since_boot = runtime::existing_directories(&name).next().is_none();
        let runtime = runtime::runtime_directory(&name)?;
        let (recovered, strays, claims) = (Mutex::default(), Mutex::default(), Claims::default());
        Ok(Store { root, runtime, first_since_boot, dir, identity, format, recovered, strays, claims, lock })
    }
}

impl Opening {
    /// Makes the directory that is to become a store, where there is none.
    fn make_root(&self, root: &Path) -> Result<(), Failure> {
        if !root.exists() {
            let path = std::path::absolute(root).map_err(|e| Failure::io("getcwd", &e))?;
            self.require_path(&path)?;
        }
        // Only root looks into a store: set-user-id programs and device nodes of images lie in it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)
            .map_err(|e| Failure::io_at("mkdir", root, &e))
    }

    /// Locks the store and reads what it is; makes it what it is not yet.
    fn lock(&self, dir: &Dir, state: &State) -> Result<(Guard, Format), Failure> {
        let is_service = self.owner == Owner::Service;
        if matches!(state, State::Store) {
            let mode = if is_service { Mode::Exclusive } else { Mode::Shared };
            let lock = Guard::store(dir, mode, self.patience)?;
            return Ok((lock, Format::read(dir)?));
        }
        let lock = Guard::store(dir, Mode::Exclusive, self.patience)?;
        let maps = || self.maps.clone().unwrap_or_default();
        // Another process may have made it while this one waited for the lock.
        let format = match adopt::survey(dir)? {
            State::Store => Format::read(dir)?,
            State::Empty => adopt::make(dir, self.new_backend(), maps())?,
            State::Docker => adopt::adopt(dir, maps())?,
        };
        Ok((if is_service { lock } else { lock.share()? }, format))
    }

    /// Holds a path that is to become a new store to be one that its backend can be told: a store that could
    /// never be mounted is not made.
    fn require_path(&self, root: &Path) -> Result<(), Failure> {
        Backend::detect(self.new_backend())?.can_name(root).map_err(Failure::InvalidArgument)
    }

    /// Holds a root to what it can become, before anything is written to it.
    fn require_fit(&self, root: &Path, state: &State) -> Result<(), Failure> {
        if let Some(maps) = &self.maps {
            maps.root()?;
        }
        match state {
            State::Store => Ok(()),
            State::Docker => require_backend(root, Backend::Aufs, self.backend),
            State::Empty => self.require_path(root),
        }
    }

    /// The backend that a store gets when it is made.
    fn new_backend(&self) -> Choice {
        if self.backend == Choice::Auto { self.usual_backend } else { self.backend }
    }
}

/// Holds a store of one backend to be of another that is asked for by name.
pub(super) fn require_backend(root: &Path, backend: Backend, choice: Choice) -> Result<(), Failure> {
    let wanted = match choice {
        Choice::Auto => return Ok(()),
        Choice::Aufs => "aufs",
        Choice::Overlay => "overlay",
    };
    let has = if backend == Backend::Aufs { "aufs" } else { "overlay" };
    if wanted == has {
        return Ok(());
    }
    Err(Failure::Conflict(format!("the store at {} is of backend {has}", root.display())))
}

/// The [`Store::name`] of the store at `root`, and the directories on a tmpfs that may be its own; none where
/// there is no store to be seen. Takes no lock.
pub(crate) fn name(root: &Path) -> Option<(String, Vec<PathBuf>)> {
    let dir = Dir::open_ambient_dir(root, cap_std::ambient_authority()).ok()?;
    let name = runtime::name(&Format::read(&dir).ok()?.id, &RootIdentity::of(&dir).ok()?);
    let directories = runtime::existing_directories(&name).collect();
    Some((name, directories))
}
