//! A component, held against the contract as it is deployed: the driver's own sandbox, directories and
//! mounts, in stores that are made for a case and go away with it.

use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use layerbox_conformance as suite;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::delete_tree;
use layerbox_privileged::mount::{Backend, Layout, Unions};
use rustix::fs::{MemfdFlags, XattrFlags};

use crate::digest::Digest;
use crate::driver::{ApplyOptions, BackendChoice, CallLimits, ChangeKind, Code, Driver, Settings, Shipped};
use crate::error::{Error, Failure};
use crate::sandbox::Sandbox;
use crate::store::Store;

/// Attributes that a place for layers takes.
const TRUSTED: &str = "trusted.layerbox";
const USER: &str = "user.layerbox";

/// What the suite drives: a component that is compiled once, and scratch directories for its stores.
#[derive(Debug)]
pub struct Verification {
    sandbox: Arc<Sandbox>,
    settings: Settings,
    /// On a disk, and in memory where there is such a file system.
    disk: Scratch,
    memory: Option<Scratch>,
    count: AtomicU64,
    mounts: [OnceLock<Result<(), String>>; 2],
}

impl Verification {
    /// Makes the component of `settings` ready; the root in them is not used.
    ///
    /// # Errors
    ///
    /// Those of the sandbox; [`Failure::NotRoot`] where layers cannot be made; [`Failure::Unsupported`] where
    /// no directory takes the attributes that overlayfs needs.
    pub fn open(settings: &Settings, shipped: Shipped) -> Result<Verification, Error> {
        let open = || -> Result<Verification, Failure> {
            if !nix::unistd::geteuid().is_root() {
                return Err(Failure::NotRoot("verifying a component".into()));
            }
            let sandbox = Driver::sandbox(settings, shipped)?;
            // The usual place first, and one that is on a disk where that is a union itself.
            let places = [std::env::temp_dir(), PathBuf::from("/var/tmp")];
            let among = |wanted: &[&str]| places.iter().find_map(|parent| Scratch::new(parent, wanted).ok());
            // tmpfs takes no user.* attributes before Linux 6.6. Where nothing else is there, the cases with
            // such attributes fail.
            let disk = among(&[TRUSTED, USER]).or_else(|| among(&[TRUSTED]));
            let disk = disk.ok_or_else(|| {
                Failure::Unsupported(
                    "no directory takes trusted.* attributes; name one with TMPDIR".to_owned(),
                )
            })?;
            let memory = Scratch::new(Path::new("/dev/shm"), &[TRUSTED, USER]).ok();
            Ok(Verification {
                sandbox: Arc::new(sandbox),
                settings: settings.clone(),
                disk,
                memory,
                count: AtomicU64::new(0),
                mounts: Default::default(),
            })
        };
        open().map_err(|failure| failure.during("guest verify", None))
    }

    /// The digest of the component.
    pub fn digest(&self) -> Digest {
        self.sandbox.digest()
    }

    /// Where the machine code of the component came from.
    pub fn code(&self) -> &Code {
        self.sandbox.code()
    }

    fn make(&self, scratch: &Scratch, dialect: suite::Dialect) -> Result<Box<dyn suite::Store>, String> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let backend = match dialect {
            suite::Dialect::Aufs => BackendChoice::Aufs,
            suite::Dialect::Overlay => BackendChoice::Overlay,
        };
        let settings =
            Settings { root: scratch.path.join(format!("store{number}")), backend, ..self.settings.clone() };
        let store = Place::make(&settings).map_err(|failure| failure.to_string())?;
        let driver = Driver::with_sandbox(&settings, self.sandbox.clone(), false)
            .map_err(|error| error.to_string())?;
        Ok(Box::new(Verified { driver: Some(driver), sandbox: self.sandbox.clone(), settings, place: store }))
    }
}

impl suite::Subject for Verification {
    fn store(&self, dialect: suite::Dialect) -> Result<Box<dyn suite::Store>, String> {
        self.make(&self.disk, dialect)
    }

    fn quick_store(&self, dialect: suite::Dialect) -> Result<Box<dyn suite::Store>, String> {
        self.make(self.memory.as_ref().unwrap_or(&self.disk), dialect)
    }

    fn can_mount(&self, dialect: suite::Dialect) -> Result<(), String> {
        let (slot, choice) = match dialect {
            suite::Dialect::Aufs => (&self.mounts[0], BackendChoice::Aufs),
            suite::Dialect::Overlay => (&self.mounts[1], BackendChoice::Overlay),
        };
        slot.get_or_init(|| {
            let root = self.disk.path.join(format!("mount-{}", dialect.name()));
            let settings = Settings { root, backend: choice, ..self.settings.clone() };
            Place::make(&settings).and_then(|place| place.try_mount()).map_err(|failure| failure.to_string())
        })
        .clone()
    }
}

/// A directory of this process' own, removed when it is dropped.
#[derive(Debug)]
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes one where layers can lie: where there can be attributes of these names.
    fn new(parent: &Path, attributes: &[&str]) -> io::Result<Scratch> {
        let parent = parent.canonicalize()?;
        let path = nix::unistd::mkdtemp(&parent.join("layerbox-verify-XXXXXX"))?;
        let scratch = Scratch { path };
        for attribute in attributes {
            rustix::fs::setxattr(&scratch.path, *attribute, b"y", XattrFlags::empty())?;
            rustix::fs::removexattr(&scratch.path, *attribute)?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// Where a store lies, on disk and on the tmpfs of what a reboot clears. Both go away when it is dropped, and
/// so does whatever is mounted, whatever a faulty component left.
#[derive(Debug)]
struct Place {
    root: PathBuf,
    runtime: PathBuf,
    backend: Backend,
}

impl Place {
    fn make(settings: &Settings) -> Result<Place, Failure> {
        let store = Store::open(&settings.root, settings.opening(true))?;
        let backend = store.format().backend();
        let place = Place { root: store.root().to_owned(), runtime: store.runtime().to_owned(), backend };
        if backend == Backend::OverlayUser {
            return Err(Failure::Unsupported(
                "verifying in a user namespace, where layers cannot hold trusted.* attributes".to_owned(),
            ));
        }
        Ok(place)
    }

    fn unions(&self) -> Result<Unions, Failure> {
        Ok(Unions::new(self.backend, Layout { root: self.root.clone(), runtime: self.runtime.clone() })?)
    }

    /// Mounts two layers that no component has to do with.
    fn try_mount(&self) -> Result<(), Failure> {
        let unions = self.unions()?;
        if !unions.available() {
            return Err(Failure::Unsupported(format!("this kernel has no {}", self.backend.as_str())));
        }
        let ids = ["upper", "lower"].map(LayerId::new);
        let [Ok(upper), Ok(lower)] = ids else { return Err(Failure::Corrupt("ids".to_owned())) };
        for kind in ["diff", "mnt", "work"] {
            for id in [&upper, &lower] {
                let path = self.root.join(kind).join(id.as_str());
                std::fs::DirBuilder::new().mode(0o755).create(path).map_err(|e| Failure::io("mkdir", &e))?;
            }
        }
        unions.mount(&upper, &[upper.clone(), lower], None)?;
        unions.unmount(&upper, true)?;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be unmounted cannot be removed either, and stays to be seen; there is nobody to tell.
        if let Ok(unions) = self.unions() {
            for id in unions.all().unwrap_or_default() {
                drop(unions.unmount(&id, true));
            }
        }
        remove(&self.runtime);
        remove(&self.root);
    }
}

/// Removes a tree of any depth, never through a mount.
fn remove(path: &Path) {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return };
    if let Ok(parent) = std::fs::File::open(parent) {
        drop(delete_tree(parent.as_fd(), name));
    }
}

/// A store, for the suite.
#[derive(Debug)]
struct Verified {
    /// None only while it is opened anew. Closed before its place goes away.
    driver: Option<Driver>,
    sandbox: Arc<Sandbox>,
    settings: Settings,
    place: Place,
}

impl Verified {
    /// Calls the driver.
    fn call<T>(&self, call: impl FnOnce(&Driver) -> Result<T, Error>) -> Result<T, suite::Failure> {
        match &self.driver {
            Some(driver) => call(driver).map_err(failure),
            None => Err(suite::Failure {
                code: "closed".to_owned(),
                entry: None,
                message: "the store is closed".to_owned(),
            }),
        }
    }

    fn apply_given(
        &self,
        id: &str,
        parent: Option<&str>,
        archive: &[u8],
        options: ApplyOptions,
    ) -> Result<suite::Totals, suite::Failure> {
        let options = ApplyOptions { sync: false, ..options };
        let archive = Box::new(io::Cursor::new(archive.to_vec()));
        self.call(|driver| driver.apply_diff(id, parent, archive, &options)).map(totals)
    }

    fn path(&self, kind: &str, id: &str) -> PathBuf {
        self.place.root.join(kind).join(id)
    }
}

fn failure(error: Error) -> suite::Failure {
    suite::Failure {
        code: error.failure.code().to_owned(),
        entry: error.failure.entry().map(<[u8]>::to_vec),
        message: error.to_string(),
    }
}

fn totals(totals: crate::driver::Totals) -> suite::Totals {
    suite::Totals { entries: totals.entries, bytes: totals.bytes }
}

impl suite::Store for Verified {
    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), suite::Failure> {
        self.call(|driver| driver.create(id, parent))
    }

    fn remove(&self, id: &str, force: bool) -> Result<(), suite::Failure> {
        self.call(|driver| driver.remove(id, force))
    }

    fn get(&self, id: &str, label: Option<&str>) -> Result<PathBuf, suite::Failure> {
        self.call(|driver| driver.get(id, label))
    }

    fn put(&self, id: &str) -> Result<(), suite::Failure> {
        self.call(|driver| driver.put(id))
    }

    fn exists(&self, id: &str) -> Result<bool, suite::Failure> {
        self.call(|driver| driver.exists(id))
    }

    fn list(&self) -> Result<Vec<suite::Layer>, suite::Failure> {
        let layers = self.call(Driver::list)?;
        let layer = |layer: crate::driver::LayerSummary| suite::Layer {
            id: layer.id.to_string(),
            ancestors: layer.parent.iter().map(LayerId::to_string).collect(),
        };
        Ok(layers.into_iter().map(layer).collect())
    }

    fn metadata(&self, id: &str) -> Result<suite::Layer, suite::Failure> {
        let metadata = self.call(|driver| driver.metadata(id))?;
        let ancestors = metadata.ancestors.iter().map(LayerId::to_string).collect();
        Ok(suite::Layer { id: metadata.id.to_string(), ancestors })
    }

    fn status(&self) -> Result<Vec<(String, String)>, suite::Failure> {
        self.call(Driver::status)
    }

    fn cleanup(&self) -> Result<u32, suite::Failure> {
        self.call(Driver::cleanup)
    }

    fn diff(&self, id: &str, parent: Option<&str>) -> Result<suite::Diff, suite::Failure> {
        self.call(|driver| {
            let io = |error: io::Error| Failure::io("memfd", &error).during("diff", None);
            let file =
                rustix::fs::memfd_create("diff", MemfdFlags::CLOEXEC).map_err(|errno| io(errno.into()))?;
            let mut file = std::fs::File::from(file);
            let outcome = driver.diff(id, parent, file.try_clone().map_err(io)?.into())?;
            let mut archive = Vec::new();
            file.rewind().and_then(|()| file.read_to_end(&mut archive)).map_err(io)?;
            Ok(suite::Diff { archive, totals: totals(outcome.totals), skipped: outcome.skipped })
        })
    }

    fn apply(&self, id: &str, parent: Option<&str>, archive: &[u8]) -> Result<suite::Totals, suite::Failure> {
        self.apply_given(id, parent, archive, ApplyOptions::default())
    }

    fn apply_within(
        &self,
        id: &str,
        archive: &[u8],
        bounds: suite::Bounds,
    ) -> Result<suite::Totals, suite::Failure> {
        let suite::Bounds { entries, bytes, no_devices } = bounds;
        let given = CallLimits { entries, bytes, ..CallLimits::default() };
        let options = ApplyOptions { devices: no_devices.then_some(false), given, ..ApplyOptions::default() };
        self.apply_given(id, None, archive, options)
    }

    fn changes(&self, id: &str, parent: Option<&str>) -> Result<Vec<suite::Change>, suite::Failure> {
        let kind = |kind| match kind {
            ChangeKind::Modified => suite::ChangeKind::Modified,
            ChangeKind::Added => suite::ChangeKind::Added,
            ChangeKind::Deleted => suite::ChangeKind::Deleted,
        };
        let changes = self.call(|driver| driver.changes(id, parent))?;
        let change = |(name, of): (&[u8], _)| suite::Change { name: name.to_vec(), kind: kind(of) };
        Ok(changes.iter().map(change).collect())
    }

    fn diff_size(&self, id: &str, parent: Option<&str>) -> Result<suite::Totals, suite::Failure> {
        self.call(|driver| driver.diff_size(id, parent)).map(totals)
    }

    fn content_path(&self, id: &str) -> PathBuf {
        self.path("diff", id)
    }

    fn mount_point(&self, id: &str) -> PathBuf {
        self.path("mnt", id)
    }

    fn root(&self) -> &Path {
        &self.place.root
    }

    fn reopen(&mut self) -> Result<(), suite::Failure> {
        self.driver = None;
        let driver = Driver::with_sandbox(&self.settings, self.sandbox.clone(), false).map_err(failure)?;
        self.driver = Some(driver);
        Ok(())
    }
}
