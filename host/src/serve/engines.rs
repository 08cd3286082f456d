//! Which store the calls on a socket are about.
//!
//! An engine says once where its layers are (`GraphDriver.Init`, with the `Home`), and never again in its
//! life; a plugin that is restarted is not told. So what engines said is kept in a file on the tmpfs, and
//! engines are known by their process: several may share a socket.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::peer::Process;
use super::stores::Stores;
use crate::driver::{Driver, IdMaps};
use crate::error::{Error, Failure};

/// What an engine said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// The root of its store.
    pub home: PathBuf,
    /// Its id maps.
    pub maps: IdMaps,
    /// Its options.
    pub options: Options,
    /// The process that said so; none where that cannot be told.
    pub process: Option<Process>,
}

/// What an engine can ask for with `--storage-opt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Whether archives may hold device nodes; none: as the service was started.
    pub devices: Option<bool>,
    /// Whether a layer must survive a power cut once it was reported done.
    pub sync: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { devices: None, sync: true }
    }
}

impl Options {
    /// Reads `layerbox.devices=refuse|allow` and `layerbox.sync=yes|no`; the name may stand without
    /// `layerbox.`.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidArgument`] for anything else.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Options, Failure> {
        let mut options = Options::default();
        for text in texts {
            let (key, value) = text.split_once('=').unwrap_or((text, ""));
            match (key.strip_prefix("layerbox.").unwrap_or(key), value) {
                ("devices", "allow") => options.devices = Some(true),
                ("devices", "refuse") => options.devices = Some(false),
                ("sync", "yes") => options.sync = true,
                ("sync", "no") => options.sync = false,
                _ => {
                    let known = "layerbox.devices=allow|refuse and layerbox.sync=yes|no";
                    let what = format!("unknown storage option {text:?}; there are {known}");
                    return Err(Failure::InvalidArgument(what));
                }
            }
        }
        Ok(options)
    }
}

/// The store of a call, and how it is used.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its root.
    pub root: PathBuf,
    /// What the engine asked for.
    pub options: Options,
    maps: Option<IdMaps>,
}

impl Target {
    /// The driver of the store if it is open by this very path, with no look at any disk.
    pub fn opened(&self, stores: &Stores) -> Option<Arc<Driver>> {
        let driver = stores.opened(&self.root)?;
        self.maps.as_ref().is_none_or(|maps| maps == driver.maps()).then_some(driver)
    }

    /// The driver of the store. With `make`, one that is not there is made.
    ///
    /// # Errors
    ///
    /// Those of opening a store.
    pub fn driver(&self, stores: &Stores, make: bool) -> Result<Arc<Driver>, Error> {
        stores.open(&self.root, self.maps.clone(), make)
    }
}

/// The engines of one socket.
#[derive(Debug)]
pub struct Engines {
    /// The store of clients that never said where theirs is, while no engine has.
    fallback: PathBuf,
    /// Where what they said is kept.
    file: PathBuf,
    /// The one that spoke last is the last.
    known: Mutex<Vec<Engine>>,
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    engines: Vec<Engine>,
}

impl Engines {
    /// Those that are known from before.
    ///
    /// # Errors
    ///
    /// [`Failure::Corrupt`] for a file that is not understood; it is not written over before it is.
    pub fn read(file: PathBuf, fallback: PathBuf) -> Result<Engines, Failure> {
        let kept = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice::<Kept>(&bytes)
                .map_err(|e| Failure::Corrupt(format!("{}: {e}", file.display())))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(e) => return Err(Failure::io("read", &e)),
        };
        Ok(Engines { fallback, file, known: Mutex::new(kept.engines) })
    }

    /// What is known.
    pub fn all(&self) -> Vec<Engine> {
        self.lock().clone()
    }

    /// Whether an engine that still runs said that its store is there.
    pub fn is_served(&self, home: &Path) -> bool {
        let runs = |engine: &Engine| engine.process.is_some_and(Process::is_alive);
        self.lock().iter().any(|engine| engine.home == home && runs(engine))
    }

    /// Keeps what an engine said.
    ///
    /// # Errors
    ///
    /// Those of writing the file; nothing has changed then.
    pub fn admit(&self, engine: Engine) -> Result<(), Failure> {
        let mut known = self.lock();
        let mut next = known.clone();
        // An engine that has ended is told from one that runs, and forgotten; and the same one says it anew.
        next.retain(|other| match (other.process, engine.process) {
            (Some(theirs), ours) => Some(theirs) != ours && theirs.is_alive(),
            (None, None) => false,
            (None, Some(_)) => other.home != engine.home,
        });
        next.push(engine);
        self.write(&next)?;
        *known = next;
        Ok(())
    }

    /// The store of a client's calls: its own; that of the engine that spoke last, where the client is not
    /// known; the service's own, where no engine has spoken.
    pub fn target(&self, client: Option<Process>) -> Target {
        let known = self.lock();
        let own = client.and_then(|client| known.iter().find(|engine| engine.process == Some(client)));
        match own.or(known.last()) {
            Some(engine) => {
                Target { root: engine.home.clone(), options: engine.options, maps: Some(engine.maps.clone()) }
            }
            None => Target { root: self.fallback.clone(), options: Options::default(), maps: None },
        }
    }

    fn write(&self, engines: &[Engine]) -> Result<(), Failure> {
        use std::io::Write as _;
        let kept = Kept { engines: engines.to_vec() };
        let bytes = serde_json::to_vec(&kept).map_err(|e| Failure::Corrupt(e.to_string()))?;
        let temporary = self.file.with_extension("tmp");
        // On a tmpfs nothing survives a power cut, so nothing is synced.
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&bytes))
            .map_err(|e| Failure::io("write", &e))?;
        std::fs::rename(&temporary, &self.file).map_err(|e| Failure::io("rename", &e))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Engine>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a path can be the root of a store.
///
/// # Errors
///
/// [`Failure::InvalidArgument`] where it cannot.
pub fn check_home(home: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(home);
    let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
    if path.is_absolute() && plain && !home.contains('\0') && path.file_name().is_some() {
        Ok(path.to_owned())
    } else {
        Err(Failure::InvalidArgument(format!("Home is no absolute path of a directory: {home:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(home: &str, process: Option<Process>) -> Engine {
        Engine { home: home.into(), maps: IdMaps::default(), options: Options::default(), process }
    }

    fn own() -> Process {
        Process::with_pid(i32::try_from(std::process::id()).expect("small")).expect("this process")
    }

    #[test]
    fn options() {
        let cases = [
            (vec![], Some((None, true))),
            (vec!["layerbox.devices=refuse"], Some((Some(false), true))),
            (vec!["devices=allow", "layerbox.sync=no"], Some((Some(true), false))),
            (vec!["layerbox.sync=maybe"], None),
            (vec!["layerbox.sync"], None),
            (vec!["overlay2.size=1G"], None),
            (vec![""], None),
        ];
        for (texts, expected) in cases {
            let parsed = Options::parse(texts.iter().copied()).ok();
            assert_eq!(parsed.map(|options| (options.devices, options.sync)), expected, "{texts:?}");
        }
    }

    #[test]
    fn engines_are_told_apart_and_remembered() {
        let directory = std::env::temp_dir().join(format!("layerbox-engines-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("engines.json");
        let dead = Process { pid: own().pid, started: own().started + 1 };
        let read = || Engines::read(file.clone(), "/fallback".into()).expect("readable");
        let engines = read();
        assert_eq!(engines.target(Some(own())).root, Path::new("/fallback"));
        engines.admit(engine("/a", Some(dead))).expect("admitted");
        assert_eq!(engines.target(None).root, Path::new("/a"), "the last one, alive or not");
        assert!(!engines.is_served(Path::new("/a")), "its engine is dead");
        engines.admit(engine("/b", Some(own()))).expect("admitted");
        assert!(engines.is_served(Path::new("/b")) && !engines.is_served(Path::new("/a")));
        engines.admit(engine("/c", None)).expect("admitted");
        for engines in [engines, read()] {
            assert_eq!(engines.target(Some(own())).root, Path::new("/b"));
            assert_eq!(engines.target(None).root, Path::new("/c"));
            assert_eq!(engines.target(Some(dead)).root, Path::new("/c"), "who has ended is forgotten");
        }
        std::fs::write(&file, "{").expect("written");
        assert!(Engines::read(file, "/fallback".into()).is_err());
        std::fs::remove_dir_all(directory).expect("removed");
    }

    #[test]
    fn homes() {
        for (home, good) in [
            ("/var/lib/docker/layerbox", true),
            ("/var/lib/docker/layerbox:latest", true),
            ("", false),
            ("relative", false),
            ("/", false),
            ("/a/../b", false),
            ("/a\0b", false),
        ] {
            assert_eq!(check_home(home).is_ok(), good, "{home:?}");
        }
    }
}
