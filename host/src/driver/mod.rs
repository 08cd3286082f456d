//! The driver: one method for each call of Docker's graph driver, and `check`.
//!
//! A method takes the locks, decides what the call is lent (README has the table), runs the component, and
//! makes what came of it last. What the component says is never believed where the host knows better: which
//! layers exist, and what their ancestors are, is the host's own record.

mod archive;
mod convert;
mod lend;
mod lifecycle;
mod model;
mod patience;
mod snapshots;
mod sweeper;
mod usage;
mod writeback;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Choice, Layout, Unions};
use layerbox_privileged::references::References;

use crate::digest::Digest;
use crate::error::{Error, Failure};
use crate::sandbox::inspect;
pub use crate::sandbox::inspect::{Inspection, Interface};
use crate::sandbox::{Access, Change, Lease, Sandbox, UnionLease};
pub use crate::sandbox::{Code, Limits, Shipped};
use crate::snapshots::database::Database;
pub use crate::store::check::{CheckOptions, Finding};
use crate::store::lock::{Guard, Mode, PATIENCE};
pub use crate::store::maps::{IdMaps, IdRange};
use crate::store::{self, Store};
pub use crate::store::{Opening, Owner};
use crate::trust;
pub use archive::{Acceptance, ApplyOptions, CallLimits, DiffOutcome, Progress, Totals};
pub use convert::{Conversion, convert};
pub use layerbox_privileged::mount::Choice as BackendChoice;
pub use lend::Lent;
pub(crate) use lifecycle::HEXADECIMAL_ROOT;
pub use model::{ChangeKind, Changes, LayerSummary, Metadata, Settled};
pub use patience::Patient;
use sweeper::Sweeper;
pub use usage::DiskUsage;

/// How a store is opened.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The directory of the store.
    pub root: PathBuf,
    /// The backend that the store must have, or gets when it is made.
    pub backend: Choice,
    /// The backend that it gets when it is made and `backend` leaves that open. A store that is there may
    /// have any.
    pub usual_backend: Choice,
    /// Who opens it.
    pub owner: Owner,
    /// The id maps that the store must have, or gets when it is made; none: those that it has.
    pub maps: Option<IdMaps>,
    /// A component to run instead of the shipped one. The file must be such that only root and we can have
    /// written it ([`crate::trust`]).
    pub guest: Option<PathBuf>,
    /// Runs a component of `guest` that anybody may have written: for who tries one, in stores of its own.
    pub stranger: bool,
    /// The digest that the component must have, the shipped one as well.
    pub guest_sha256: Option<Digest>,
    /// The directory in which compiled code of components other than the shipped one is kept; none: it is
    /// not.
    pub cache: Option<PathBuf>,
    /// What a call may use.
    pub limits: Limits,
    /// Whether archives may hold device nodes.
    pub devices: bool,
    /// Whether what the component writes to its standard error is shown.
    pub guest_log: bool,
}

impl Settings {
    /// The backend that a new store gets.
    pub(crate) fn new_backend(&self) -> Choice {
        if self.backend == Choice::Auto { self.usual_backend } else { self.backend }
    }

    /// Those of them that are the store's.
    pub(crate) fn opening(&self, make: bool) -> Opening {
        Opening {
            owner: self.owner,
            backend: self.backend,
            usual_backend: self.usual_backend,
            maps: self.maps.clone(),
            make,
            unfinished: false,
            patience: PATIENCE,
        }
    }
}

/// A store that is open, with the component that works on it.
#[derive(Debug)]
pub struct Driver {
    /// The record of the snapshots, once somebody asked for it. It is closed before the store's lock is given
    /// back: whoever takes that opens it anew.
    snapshots: Mutex<Option<Arc<Database>>>,
    store: Arc<Store>,
    sandbox: Arc<Sandbox>,
    unions: Arc<Unions>,
    references: Arc<References>,
    devices: bool,
    /// A service's.
    sweeper: Option<Sweeper>,
}

impl Driver {
    /// Opens the store at the root of `settings`. With `make`, a root that is missing or empty becomes a
    /// store.
    ///
    /// A root with the directories of Docker's aufs driver is adopted as an aufs store.
    ///
    /// # Errors
    ///
    /// Those of [`Store::open`] and of the sandbox; [`Failure::NotRoot`] for `make` without the rights to
    /// make layers.
    pub fn open(settings: &Settings, shipped: Shipped, make: bool) -> Result<Driver, Error> {
        Driver::open_within(settings, shipped, make, PATIENCE)
    }

    /// As [`Driver::open`], waiting no longer than `patience` for others that use the store.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`].
    pub(crate) fn open_within(
        settings: &Settings,
        shipped: Shipped,
        make: bool,
        patience: Duration,
    ) -> Result<Driver, Error> {
        let open = || -> Result<Driver, Failure> {
            if make {
                require_root("making layers")?;
            }
            let sandbox = Driver::sandbox(settings, shipped)?;
            let opening = Opening { patience, ..settings.opening(make) };
            Driver::assemble(settings, Arc::new(sandbox), opening)
        };
        open().map_err(|failure| failure.during("open", None))
    }

    /// As [`Driver::open`], with a component that is ready already: many stores can share it.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`], but for the sandbox's.
    pub fn with_sandbox(settings: &Settings, sandbox: Arc<Sandbox>, make: bool) -> Result<Driver, Error> {
        Driver::assemble(settings, sandbox, settings.opening(make))
            .map_err(|failure| failure.during("open", None))
    }

    /// Makes the component of `settings` ready.
    pub(crate) fn sandbox(settings: &Settings, shipped: Shipped) -> Result<Sandbox, Failure> {
        let limits = settings.limits.clone();
        let mut sandbox = match component(settings, shipped)? {
            Cow::Owned(bytes) => Sandbox::other(bytes, settings.cache.as_deref(), limits)?,
            Cow::Borrowed(_) => Sandbox::shipped(shipped, limits)?,
        };
        sandbox.show_log(settings.guest_log);
        Ok(sandbox)
    }

    /// Where the machine code of the component came from.
    pub fn code(&self) -> &Code {
        self.sandbox.code()
    }

    fn assemble(settings: &Settings, sandbox: Arc<Sandbox>, opening: Opening) -> Result<Driver, Failure> {
        let store =
            Store::open(&settings.root, opening).map_err(|failure| failure.name_store(&settings.root))?;
        let layout = Layout { root: store.root().to_owned(), runtime: store.runtime().to_owned() };
        let unions = Unions::new(store.format().backend(), layout)?;
        let references = References::new(store.runtime(), store.root().join("mnt"))?;
        store.recover(&unions, &references).map_err(|failure| failure.name_store(&settings.root))?;
        let store = Arc::new(store);
        let background = settings.owner == Owner::Service;
        let sweeper = background.then(|| Sweeper::start(store.clone())).transpose()?;
        Ok(Driver {
            sweeper,
            store,
            sandbox,
            unions: Arc::new(unions),
            references: Arc::new(references),
            devices: settings.devices,
            snapshots: Mutex::default(),
        })
    }

    /// The canonical path of the store's root.
    pub fn root(&self) -> &std::path::Path {
        self.store.root()
    }

    /// The records of the store.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The digest of the component that works on it.
    pub(crate) fn digest(&self) -> Digest {
        self.sandbox.digest()
    }

    /// The limits that a call has which brings none of its own.
    pub(crate) fn limits(&self) -> &Limits {
        self.sandbox.limits()
    }

    /// The id maps of the store.
    pub fn maps(&self) -> &IdMaps {
        self.store.format().maps()
    }

    /// Looks through the whole store for what is wrong, and repairs it on request.
    ///
    /// # Errors
    ///
    /// Those of reading the store.
    pub fn check(&self, options: CheckOptions) -> Result<Vec<Finding>, Error> {
        let check = || {
            if options.repair || options.purge {
                require_root("repairing a store")?;
            }
            let lent = if options.deep { self.lent_to_containerd()? } else { BTreeSet::new() };
            let mut findings = self.store.check(&self.unions, &self.references, options, &lent)?;
            findings.extend(self.check_snapshots(options.repair)?);
            Ok(findings)
        };
        check().map_err(|failure: Failure| failure.during("check", None))
    }

    /// What was mended when the store was opened, once. Whoever does not ask hears of it from
    /// [`Driver::check`].
    pub(crate) fn take_mended(&self) -> Vec<Finding> {
        self.store.take_recovered()
    }

    /// Runs the body of a call that writes to the store, and says which call on which layer it was when it
    /// fails.
    fn call<T>(
        &self,
        operation: &'static str,
        id: &str,
        body: impl FnOnce(&LayerId) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        self.reading_call(operation, id, |id| {
            body(id).map_err(|failure| self.explain_by_file_system(failure))
        })
    }

    /// As `call`, for one that writes nothing to the store: where there was no room, that was not on the
    /// store's file system.
    fn reading_call<T>(
        &self,
        operation: &'static str,
        id: &str,
        body: impl FnOnce(&LayerId) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        layer_id(id).and_then(|id| body(&id)).map_err(|failure| Error {
            operation,
            layer: Some(id.to_owned()),
            failure,
        })
    }

    /// Says of what the store's file system has none left, where that is why a call failed.
    fn explain_by_file_system(&self, failure: Failure) -> Failure {
        failure.explain_by_file_system(self.store.root())
    }

    /// Deletes what the removal of a layer, or of any, has taken out of sight: a service in the background,
    /// so that nobody waits for it.
    fn sweep(&self, removed: Option<&LayerId>) -> Result<(), Failure> {
        match (&self.sweeper, removed) {
            (Some(sweeper), _) => sweeper.wake(),
            // Not what others have just removed, which may take long.
            (None, Some(id)) => self.store.empty_trash_of(id)?,
            (None, None) if self.store.is_read_only() => {}
            (None, None) => drop(self.store.empty_trash(&|| true)?),
        }
        Ok(())
    }

    fn lease(&self, layers: Access) -> Lease {
        Lease::new(self.store.clone(), layers)
    }

    /// The mount and the count of one layer, or those of the whole store.
    fn unions(&self, target: Option<&LayerId>, change: Change) -> UnionLease {
        let (unions, references) = (self.unions.clone(), self.references.clone());
        UnionLease { unions, references, target: target.cloned(), change }
    }

    fn lock(&self, id: &LayerId, mode: Mode) -> Result<Guard, Failure> {
        self.store.lock(id, mode)
    }

    /// Locks a layer whose mount or count is to be changed: beside those who read it, and against all others.
    /// The locks are given back in their order.
    fn lock_to_mount(&self, id: &LayerId) -> Result<[Guard; 2], Failure> {
        let layer = self.lock(id, Mode::Shared)?;
        Ok([self.store.lock_mount(id, Mode::Exclusive)?, layer])
    }

    /// Locks a layer that is to be read, and tells whether it is live, which is how it has to be read then. A
    /// layer that is not is kept from being mounted meanwhile; of one that is, the mount may go and come.
    fn lock_to_read(&self, id: &LayerId) -> Result<(Vec<Guard>, bool), Failure> {
        let layer = self.lock(id, Mode::Shared)?;
        let mount = self.store.lock_mount(id, Mode::Shared)?;
        Ok(if self.is_live(id)? { (vec![layer], true) } else { (vec![mount, layer], false) })
    }

    /// Whether a layer may change at any time: it is mounted, or has been lent to be written since it was
    /// filled, which took its size away.
    fn is_live(&self, id: &LayerId) -> Result<bool, Failure> {
        Ok(self.is_mounted(id)? || self.store.existing(id)?.size.is_none())
    }

    /// Whether a layer is mounted.
    fn is_mounted(&self, id: &LayerId) -> Result<bool, Failure> {
        Ok(self.unions.mounted(id)?)
    }
}

/// Looks for what keeps the store of `settings` from being opened, in its `layerbox.json`, its directories
/// and its lock, and mends it on request: what [`Driver::check`] cannot do, which is of a store that is open.
///
/// # Errors
///
/// Those of reading the store.
pub fn check_unopened(settings: &Settings, options: CheckOptions) -> Result<Vec<Finding>, Error> {
    let check = || {
        if options.repair {
            require_root("repairing a store")?;
        }
        store::check::check_unopened(&settings.root, settings.backend, settings.maps.as_ref(), options)
    };
    check().map_err(|failure: Failure| failure.during("check", None))
}

/// Reads the component of `settings`, and tells what it asks for, without running it.
///
/// # Errors
///
/// Those of reading; [`Failure::GuestRefused`] where it is no component, or not the one of the digest.
pub fn inspect(settings: &Settings, shipped: Shipped) -> Result<Inspection, Error> {
    let read = || inspect::inspect(&component(settings, shipped)?);
    read().map_err(|failure| failure.during("guest inspect", None))
}

/// Reads the component of `settings`, and prints its types as WIT.
///
/// # Errors
///
/// As [`inspect()`].
pub fn wit(settings: &Settings, shipped: Shipped) -> Result<String, Error> {
    let read = || crate::sandbox::wit::text(&component(settings, shipped)?);
    read().map_err(|failure| failure.during("guest inspect", None))
}

/// The digest of the component that `settings` ask for; none where they leave it to whoever runs one.
pub(crate) fn wanted(settings: &Settings) -> Result<Option<Digest>, Failure> {
    if settings.guest_sha256.is_some() {
        return Ok(settings.guest_sha256);
    }
    let read = |file: &std::path::Path| trust::read(file, inspect::MAX_COMPONENT);
    Ok(settings.guest.as_deref().map(read).transpose()?.map(|bytes| Digest::of(&bytes)))
}

/// The component of `settings`: borrowed where it is the shipped one. Its digest is right.
fn component(settings: &Settings, shipped: Shipped) -> Result<Cow<'static, [u8]>, Failure> {
    let bytes = match &settings.guest {
        None => Cow::Borrowed(shipped.component),
        Some(file) if settings.stranger => Cow::Owned(trust::read_unchecked(file, inspect::MAX_COMPONENT)?),
        Some(file) => Cow::Owned(trust::read(file, inspect::MAX_COMPONENT)?),
    };
    if let Some(wanted) = settings.guest_sha256 {
        let found = Digest::of(&bytes);
        if found != wanted {
            return Err(Failure::GuestRefused(format!(
                "its digest is {found}, and guest-sha256 wants {wanted}"
            )));
        }
    }
    Ok(bytes)
}

/// Layers keep owners, device nodes and attributes that only root of a user namespace can write.
fn require_root(what: &'static str) -> Result<(), Failure> {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err(Failure::NotRoot(what.into())) }
}

/// A layer id from outside.
fn layer_id(text: &str) -> Result<LayerId, Failure> {
    LayerId::new(text).map_err(|_| Failure::InvalidId(text.to_owned()))
}
