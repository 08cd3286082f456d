//! A service with a store, for the tests of both ends.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::super::Calls;
use super::super::frame;
use super::super::protocol::{Call, Hello, Open, Opened, VERSION, Which};
use super::super::server::{self, Handle};
use crate::driver::{BackendChoice, CallLimits, Driver, Limits, Owner, Settings, Shipped};
use crate::serve::listen::{Endpoint, Role};
use crate::serve::log::Log;
use crate::serve::metrics::Metrics;
use crate::serve::observer::Observer;
use crate::serve::stores::Stores;
use crate::skip::skip;

pub(super) const SHIPPED: Shipped = Shipped {
    component: include_bytes!(env!("LAYERBOX_COMPONENT")),
    compiled: include_bytes!(env!("LAYERBOX_COMPONENT_AOT")),
};

/// A service with one store, in a directory that goes away with it.
pub(super) struct Scene {
    pub(super) path: PathBuf,
    pub(super) settings: Settings,
    pub(super) stores: Arc<Stores>,
    pub(super) handle: Handle,
    _endpoint: Endpoint,
}

impl Scene {
    /// None, loudly, where layers cannot be made.
    pub(super) fn new() -> Option<Scene> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            skip("control: it needs root", true);
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("layerbox-control-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        let settings = Settings {
            root: path.join("store"),
            backend: BackendChoice::Overlay,
            usual_backend: BackendChoice::Auto,
            owner: Owner::CommandLine,
            maps: None,
            guest: None,
            stranger: false,
            guest_sha256: None,
            cache: None,
            limits: Limits::default(),
            devices: true,
            guest_log: false,
        };
        let sandbox = Arc::new(Driver::sandbox(&settings, SHIPPED).unwrap());
        let log = Log { json: false, quiet: true };
        let stores = Arc::new(Stores::new(settings.clone(), sandbox, log));
        let endpoint = Endpoint::bind(Role::Control, &path.join("socket")).unwrap();
        let observer = Arc::new(Observer { log, metrics: Metrics::default() });
        let listener = endpoint.blocking_listener().unwrap();
        let handle = server::start(listener, stores.clone(), observer).unwrap();
        stores.open(&settings.root, None, true).unwrap();
        Some(Scene { path, settings, stores, handle, _endpoint: endpoint })
    }

    pub(super) fn calls(&self) -> Calls {
        let calls = Calls::open(&self.settings, None, SHIPPED, false).unwrap();
        assert!(matches!(calls, Calls::There(_)), "the store was opened beside its service");
        calls
    }

    /// A connection after the service's first word.
    pub(super) fn greeted(&self) -> UnixStream {
        let stream = UnixStream::connect(self.path.join("socket")).unwrap();
        let hello: Hello = frame::receive(&stream).unwrap().unwrap().message().unwrap();
        assert_eq!((hello.version, hello.process), (VERSION, std::process::id()));
        stream
    }

    /// One that may make calls.
    pub(super) fn opened(&self) -> UnixStream {
        let stream = self.greeted();
        frame::send(&stream, &self.open(), None).unwrap();
        let opened: Opened = frame::receive(&stream).unwrap().unwrap().message().unwrap();
        assert!(matches!(opened, Opened::Yes), "{opened:?}");
        stream
    }

    pub(super) fn open(&self) -> Open {
        Open {
            version: VERSION,
            store: Which::Root(self.settings.root.clone().into()),
            backend: BackendChoice::Auto.into(),
            usual_backend: BackendChoice::Auto.into(),
            guest: None,
            make: false,
        }
    }

    pub(super) fn layer(&self, id: &str) {
        self.calls().create(id, None).unwrap();
        // The answer goes out before the call counts as ended; a test that counts its own call must not see
        // this one.
        until("the layer is made", || self.handle.calls_under_way() == 0);
    }

    /// What lies in a directory of the store.
    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.settings.root.join(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.handle.cut();
        self.handle.drain();
        let runtimes: Vec<PathBuf> =
            self.stores.all().iter().map(|driver| driver.store().runtime().to_owned()).collect();
        for directory in runtimes.iter().chain([&self.path]) {
            fs::remove_dir_all(directory).unwrap();
        }
    }
}

/// A pipe: the end to read, the end to write.
pub(super) fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe().unwrap()
}

pub(super) fn apply(id: &str) -> Call {
    Call::ApplyDiff {
        id: id.into(),
        parent: None,
        sync: false,
        devices: None,
        given: CallLimits::default(),
        progress: true,
    }
}

pub(super) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(10), "not after 10 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A tar archive of one file, without its end.
pub(super) fn begun(name: &str, size: usize, body: &[u8]) -> Vec<u8> {
    let mut header = [0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[108..116].copy_from_slice(b"0000000\0");
    header[116..124].copy_from_slice(b"0000000\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[136..148].copy_from_slice(b"00000000000\0");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    [&header[..], body].concat()
}
