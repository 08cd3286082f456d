//! The stores that the service owns: one driver for each root, all of them with the same component.
//!
//! A store is known by the path of its root, and that may come to lead elsewhere: somebody removes the
//! directory or puts another one there, or mounts something on the way. Such a store is closed, and what the
//! path leads to is opened instead, when it is next asked for. One whose engine has ended is closed as well:
//! its disk may be about to go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::control;
use crate::driver::{BackendChoice, Driver, Finding, IdMaps, Owner, Settings};
use crate::error::{Error, Failure};
use crate::sandbox::Sandbox;
use crate::serve::log::Log;
use crate::snapshots::Snapshots;
use crate::snapshots::error::SnapshotError;

/// How long a store that is to be closed may take to delete what was removed, and to see calls end.
const CLOSING: Duration = Duration::from_secs(2);

/// The stores that are open.
#[derive(Debug)]
pub struct Stores {
    settings: Settings,
    sandbox: Arc<Sandbox>,
    log: Log,
    /// Held while a store is opened.
    opening: Mutex<()>,
    /// By canonical root. Never held for long.
    open: Mutex<BTreeMap<PathBuf, Arc<Driver>>>,
    /// By canonical root: those of them that are asked for as snapshots. One for each store, however many
    /// sockets lead to it: it gives layers their ids.
    snapshots: Mutex<BTreeMap<PathBuf, Arc<Snapshots>>>,
    /// Where command lines reach the service, once they do.
    socket: OnceLock<PathBuf>,
}

impl Stores {
    /// No store yet. Those that are opened get everything but the root and the id maps from `settings`; what
    /// is mended then is told in `log`.
    pub fn new(settings: Settings, sandbox: Arc<Sandbox>, log: Log) -> Stores {
        let settings = Settings { owner: Owner::Service, ..settings };
        let (opening, open, snapshots) = (Mutex::default(), Mutex::default(), Mutex::default());
        Stores { settings, sandbox, log, opening, open, snapshots, socket: OnceLock::new() }
    }

    /// The store at `root`, opened where it is not. With `make`, a root that is missing or empty becomes a
    /// store.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::with_sandbox`]; [`Failure::Conflict`] where the store is open with other id maps
    /// than `maps`.
    pub fn open(&self, root: &Path, maps: Option<IdMaps>, make: bool) -> Result<Arc<Driver>, Error> {
        self.open_as(root, (self.settings.backend, BackendChoice::Auto), maps, make)
    }

    /// As [`Stores::open`], for a backend that it must have or gets when it is made, and one that it gets
    /// when it is made and the first leaves that open.
    ///
    /// # Errors
    ///
    /// Those of [`Stores::open`]; [`Failure::Conflict`] where the store is of another backend.
    pub(crate) fn open_as(
        &self,
        root: &Path,
        (backend, usual): (BackendChoice, BackendChoice),
        maps: Option<IdMaps>,
        make: bool,
    ) -> Result<Arc<Driver>, Error> {
        let found = |driver: Arc<Driver>| {
            driver.store().require_backend(backend).map_err(|failure| failure.during("open", None))?;
            with_maps(driver, maps.clone())
        };
        if let Some(driver) = self.get(root) {
            return found(driver);
        }
        // Two engines that come at once must not both try. Calls on stores that are open do not wait here:
        // opening may take as long as a command line holds the store.
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = self.get(root) {
            return found(driver);
        }
        // It is the same store on another mount, mostly, whose lock nobody can take before it is closed.
        // Calls under way end on what they began with, and are waited for as those of command lines are.
        if let Ok(root) = root.canonicalize() {
            self.close_displaced(&root);
        }
        let usual_backend = if usual == BackendChoice::Auto { self.settings.new_backend() } else { usual };
        let settings =
            Settings { root: root.to_owned(), backend, usual_backend, maps, ..self.settings.clone() };
        let driver = Arc::new(Driver::with_sandbox(&settings, self.sandbox.clone(), make)?);
        // One that was gone altogether has been made anew.
        self.close_displaced(driver.root());
        self.tell_mended(&driver);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(socket) = self.socket.get() {
            control::announce(driver.store().runtime(), socket)
                .map_err(|failure| failure.during("open", None))?;
        }
        open.insert(driver.root().to_owned(), driver.clone());
        Ok(driver)
    }

    /// The snapshots of the store at `root`, which is made where it is not there.
    ///
    /// # Errors
    ///
    /// Those of [`Stores::open`] and [`Snapshots::open`].
    pub fn snapshots(&self, root: &Path) -> Result<Arc<Snapshots>, SnapshotError> {
        let driver = self.open(root, None, true)?;
        let mut all = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshots) = all.get(driver.root()).filter(|open| Arc::ptr_eq(open.driver(), &driver)) {
            return Ok(snapshots.clone());
        }
        let snapshots = Arc::new(Snapshots::open(driver.clone())?);
        all.insert(driver.root().to_owned(), snapshots.clone());
        Ok(snapshots)
    }

    /// Closes the store that was opened at a canonical root, where that leads elsewhere now. Calls under way
    /// go on with it to their end.
    fn close_displaced(&self, root: &Path) {
        let Some(driver) = self.opened(root).filter(|driver| !driver.store().is_in_place()) else { return };
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            // Somebody else was faster.
            if !is_among(&open, &driver) {
                return;
            }
            open.remove(root);
            self.withdraw_from(&driver);
        }
        self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).remove(root);
        let what = "the path of a store leads elsewhere: it is closed";
        self.log.info(what, &[("root", root.display().to_string().into())]);
    }

    /// Closes all stores whose paths lead elsewhere now. Nobody says so when a directory is removed, and one
    /// that is may never be asked for again.
    pub fn close_all_displaced(&self) {
        let roots: Vec<PathBuf> =
            self.open.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        roots.iter().for_each(|root| self.close_displaced(root));
    }

    /// Closes the store at `root` if nothing of it is in use: nothing is mounted, no call stays under way,
    /// nobody has its snapshots. No file of it is open then, so that its disk can be taken away. It is opened
    /// again when it is next asked for.
    pub fn close_unused(&self, root: &Path) {
        let Some(driver) = self.get(root) else { return };
        let has_snapshots =
            self.snapshots.lock().unwrap_or_else(PoisonError::into_inner).contains_key(driver.root());
        if has_snapshots || driver.counts().is_ok_and(|(_, mounts)| mounts > 0) {
            return;
        }
        let begun = Instant::now();
        // What is left is deleted when it is next opened.
        drop(driver.store().empty_trash(&|| begun.elapsed() < CLOSING));
        loop {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if !is_among(&open, &driver) {
                return;
            }
            // That of the map and the one here. Further ones are made of the first only, which nobody can get
            // at meanwhile.
            if Arc::strong_count(&driver) <= 2 {
                open.remove(driver.root());
                self.withdraw_from(&driver);
                break;
            }
            drop(open);
            if begun.elapsed() > CLOSING {
                return;
            }
            sleep(Duration::from_millis(5));
        }
        let what = "an engine has ended, and its store is closed";
        self.log.info(what, &[("root", driver.root().display().to_string().into())]);
    }

    /// Logs what the opening of a store has mended. A `check` by somebody who comes later is about how the
    /// store is, so it is not told there again.
    fn tell_mended(&self, driver: &Driver) {
        for Finding { place, what, repair, repaired, passing } in driver.take_mended() {
            let root = driver.root().display().to_string();
            let fields = [
                ("root", root.into()),
                ("place", place.into()),
                ("what", what.into()),
                ("repair", repair.into()),
            ];
            if repaired {
                self.log.info("mended", &fields);
            } else if passing {
                // Deletions go on in the background.
                self.log.info("being mended", &fields);
            } else {
                self.log.warn("not mended", &fields);
            }
        }
    }

    /// Tells the command lines of all stores, those open and those to come, that the service listens at
    /// `socket`. Only the first socket counts.
    ///
    /// # Errors
    ///
    /// Those of [`control::announce`].
    pub(crate) fn announce(&self, socket: PathBuf) -> Result<(), Failure> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let socket = self.socket.get_or_init(|| socket);
        open.values().try_for_each(|driver| control::announce(driver.store().runtime(), socket))
    }

    /// Ends [`Stores::announce`], before the service ends.
    pub(crate) fn withdraw(&self) {
        self.all().iter().for_each(|driver| self.withdraw_from(driver));
    }

    /// Ends [`Stores::announce`] for one store, while it is still open.
    fn withdraw_from(&self, driver: &Driver) {
        if self.socket.get().is_some() {
            control::withdraw(driver.store().runtime());
        }
    }

    /// The store at `root`, if it is open and the path still leads there.
    pub fn get(&self, root: &Path) -> Option<Arc<Driver>> {
        self.opened(&root.canonicalize().ok()?).filter(|driver| driver.store().is_in_place())
    }

    /// As [`Stores::get`], for a root whose path is canonical, and wherever that leads now.
    pub fn opened(&self, root: &Path) -> Option<Arc<Driver>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(root).cloned()
    }

    /// All stores that are open, by their roots.
    pub fn all(&self) -> Vec<Arc<Driver>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Whether a store is open with this very driver.
fn is_among(open: &BTreeMap<PathBuf, Arc<Driver>>, driver: &Arc<Driver>) -> bool {
    open.get(driver.root()).is_some_and(|other| Arc::ptr_eq(other, driver))
}

/// The store of a driver, if it has these id maps.
fn with_maps(driver: Arc<Driver>, maps: Option<IdMaps>) -> Result<Arc<Driver>, Error> {
    if maps.is_some_and(|maps| maps != *driver.maps()) {
        let what = format!("the store at {} has other id maps", driver.root().display());
        return Err(Failure::Conflict(what).during("open", None));
    }
    Ok(driver)
}
