//! By whom and as what a store is opened, and what can be told of one that is not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cap_std::fs::Dir;
use layerbox_privileged::mount::{Backend, Choice};

use super::adopt::State;
use super::maps::IdMaps;
use super::record::Format;
use super::{lock, runtime};
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
            patience: lock::PATIENCE,
        }
    }
}

impl Opening {
    /// Holds a path that is to become a new store to be one that its backend can be told: a store that could never be mounted is not made.
    pub(super) fn require_path(&self, root: &Path) -> Result<(), Failure> {
        Backend::detect(self.new_backend())?.can_name(root).map_err(Failure::InvalidArgument)
    }

    /// Holds a root to what it can become, before anything is written to it.
    pub(super) fn require_fit(&self, root: &Path, state: &State) -> Result<(), Failure> {
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
    pub(super) fn new_backend(&self) -> Choice {
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

/// The identity of the store at `root`, and the directories on a tmpfs that may be its own; none where there is no store to be seen. Takes no lock.
pub(crate) fn identity(root: &Path) -> Option<(String, Vec<PathBuf>)> {
    let dir = Dir::open_ambient_dir(root, cap_std::ambient_authority()).ok()?;
    let id = Format::read(&dir).ok()?.id;
    let directories = runtime::existing_directories(&id).collect();
    Some((id, directories))
}
