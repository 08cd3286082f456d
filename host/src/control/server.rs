//! The service's end: a socket that command lines connect to, and a thread for each of them.
//!
//! Only root and the service's own user are answered: they could open the stores themselves. What
//! [`announce`](super::announce()) leaves with each store leads to this socket.

use std::collections::HashMap;
use std::io;
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::answer::answer;
use super::frame::{self, Frame};
use super::protocol::{Call, Hello, Open, Opened, VERSION, Versioned, Which};
use super::streams::Caller;
use crate::digest::Digest;
use crate::driver::Driver;
use crate::error::Failure;
use crate::serve::observer::Observer;
use crate::serve::stores::Stores;
use crate::store::runtime::private_directory;

/// How many command lines are served at a time. One more waits to be let in, as long as it likes.
pub(super) const CONNECTIONS: usize = 256;

/// How long the rest of a frame may take to come, once it has begun.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where a service listens whose socket nobody has named: below the directory for what a reboot must clear,
/// by the root of its store.
///
/// # Errors
///
/// Those of making the directory.
pub fn usual_socket(root: &Path) -> Result<PathBuf, Failure> {
    // Long enough to tell roots apart, and short: the path of a socket is at most 107 bytes (unix(7)).
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).short(16);
    Ok(private_directory(&["control"])?.join(name + ".sock"))
}

/// A server that runs. Dropped, it lets nobody in any more.
#[derive(Debug)]
pub struct Handle {
    shared: Arc<Shared>,
    wake: UnixStream,
}

/// Serves the command lines that connect to `listener`, on threads of its own. From now on every store that
/// is open, or is opened, is announced.
///
/// # Errors
///
/// Those of starting a thread and of announcing the stores that are open already.
pub fn start(
    listener: UnixListener,
    stores: Arc<Stores>,
    observer: Arc<Observer>,
) -> Result<Handle, Failure> {
    let io = |operation: &'static str| move |error: io::Error| Failure::io(operation, &error);
    let address = listener.local_addr().map_err(io("getsockname"))?;
    listener.set_nonblocking(true).map_err(io("fcntl"))?;
    let (wake, woken) = UnixStream::pair().map_err(io("socketpair"))?;
    let registry = Mutex::default();
    let shared = Arc::new(Shared { stores, observer, registry, ended: Condvar::new() });
    let theirs = shared.clone();
    thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || accept(&listener, &woken, &theirs))
        .map_err(io("clone"))?;
    if let Some(path) = address.as_pathname() {
        shared.stores.announce(std::path::absolute(path).map_err(io("getcwd"))?)?;
    }
    Ok(Handle { shared, wake })
}

impl Handle {
    /// Lets nobody in any more, and waits until all calls that are under way have ended.
    pub fn drain(&self) {
        // It cannot fail, and if it did, those who come would still be turned away.
        drop(self.wake.shutdown(Shutdown::Both));
        self.shared.stores.withdraw();
        let mut registry = self.shared.registry();
        registry.stopping = true;
        // Whoever waits for room need not.
        self.shared.ended.notify_all();
        registry.hang_up(|connection| !connection.busy);
        let under_way = |registry: &mut Registry| !registry.connections.is_empty();
        drop(self.shared.ended.wait_while(registry, under_way));
    }

    /// Has the calls under way end where they next wait for anybody.
    pub fn cut(&self) {
        self.shared.registry().hang_up(|_| true);
    }
}

#[cfg(test)]
impl Handle {
    /// How many calls are under way.
    pub(super) fn calls_under_way(&self) -> usize {
        self.shared.registry().connections.values().filter(|connection| connection.busy).count()
    }
}

/// What the threads have in common.
#[derive(Debug)]
struct Shared {
    stores: Arc<Stores>,
    observer: Arc<Observer>,
    registry: Mutex<Registry>,
    /// A connection has ended.
    ended: Condvar,
}

/// The connections there are.
#[derive(Debug, Default)]
struct Registry {
    stopping: bool,
    next: u64,
    connections: HashMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    stream: Arc<UnixStream>,
    /// Whether a call of it is under way.
    busy: bool,
}

impl Registry {
    /// Ends connections; a call under way sees it wherever it waits.
    fn hang_up(&self, which: impl Fn(&Connection) -> bool) {
        for connection in self.connections.values().filter(|connection| which(connection)) {
            // It may have ended by itself.
            drop(connection.stream.shutdown(Shutdown::Both));
        }
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room for one more connection, or no more are let in.
    fn wait_for_room(&self) {
        let is_full =
            |registry: &mut Registry| !registry.stopping && registry.connections.len() >= CONNECTIONS;
        drop(self.ended.wait_while(self.registry(), is_full));
    }
}

/// A place in the registry, given back when the thread ends, however it ends.
struct Seat<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Seat<'_> {
    /// Notes that a call begins or has ended; answers whether the connection may go on.
    fn busy(&self, busy: bool) -> bool {
        let mut registry = self.shared.registry();
        if let Some(connection) = registry.connections.get_mut(&self.number) {
            connection.busy = busy;
        }
        !registry.stopping
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.shared.registry().connections.remove(&self.number);
        self.shared.ended.notify_all();
    }
}

/// Lets command lines in until `woken` ends.
fn accept(listener: &UnixListener, woken: &UnixStream, shared: &Arc<Shared>) {
    loop {
        // Those who come meanwhile wait in the backlog. Were they turned away, they would take the service
        // for one that is gone, and wait for its stores.
        shared.wait_for_room();
        let mut both = [PollFd::new(listener, PollFlags::IN), PollFd::new(woken, PollFlags::IN)];
        match poll(&mut both, None) {
            Ok(_) if !both[1].revents().is_empty() => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
        match listener.accept() {
            Ok((stream, _)) => admit(stream, shared),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // Too many open files, mostly: that passes.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Gives a connection a thread. One that cannot have any is closed.
fn admit(stream: UnixStream, shared: &Arc<Shared>) {
    let stream = Arc::new(stream);
    let mut registry = shared.registry();
    if registry.stopping {
        return;
    }
    let number = registry.next;
    registry.next += 1;
    registry.connections.insert(number, Connection { stream: stream.clone(), busy: false });
    drop(registry);
    let theirs = shared.clone();
    let spawned = thread::Builder::new().name("control-call".to_owned()).spawn(move || {
        let seat = Seat { shared: &theirs, number };
        // Whatever was wrong, the connection is closed now, which says all that there is to say to its other
        // end.
        drop(serve(&seat, &Caller(stream)));
    });
    if spawned.is_err() {
        shared.registry().connections.remove(&number);
    }
}

/// Serves one connection to its end.
fn serve(seat: &Seat<'_>, caller: &Caller) -> io::Result<()> {
    let stream = &*caller.0;
    stream.set_nonblocking(false)?;
    let peer = rustix::net::sockopt::socket_peercred(stream)?.uid;
    if !peer.is_root() && peer.as_raw() != nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    stream.set_read_timeout(Some(PATIENCE))?;
    frame::send(stream, &Hello { version: VERSION, process: std::process::id() }, None)?;
    let Some(driver) = opened(seat, caller)? else { return Ok(()) };
    while let Some(frame) = next(caller)? {
        let call: Call = frame.message()?;
        let descriptor = frame.descriptor;
        if descriptor.is_some() != call.wants_descriptor() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if !seat.busy(true) {
            return Ok(());
        }
        let answered = answer(&driver, call, descriptor, caller, &seat.shared.observer);
        let may_go_on = seat.busy(false);
        answered?;
        if !may_go_on {
            return Ok(());
        }
    }
    Ok(())
}

/// The next frame. Waiting for its beginning takes as long as it takes.
fn next(caller: &Caller) -> io::Result<Option<Frame>> {
    let mut polled = [PollFd::new(&caller.0, PollFlags::IN)];
    while poll(&mut polled, None) == Err(Errno::INTR) {}
    frame::receive(&caller.0)
}

/// Opens the store that the connection is about; none where it cannot be, which is said.
fn opened(seat: &Seat<'_>, caller: &Caller) -> io::Result<Option<Arc<Driver>>> {
    let Some(frame) = next(caller)? else { return Ok(None) };
    let say = |opened: Opened| frame::send(&caller.0, &opened, None);
    let version = frame.message::<Versioned>()?.version;
    if version != VERSION {
        let what = format!("version {version} of the control protocol, by a service of version {VERSION}");
        say(Opened::No(Failure::Unsupported(what)))?;
        return Ok(None);
    }
    if !seat.busy(true) {
        return Ok(None);
    }
    let found = find(&seat.shared.stores, frame.message()?);
    seat.busy(false);
    match found {
        Ok(Some(driver)) => {
            say(Opened::Yes)?;
            Ok(Some(driver))
        }
        Ok(None) => {
            say(Opened::NotMine)?;
            Ok(None)
        }
        Err(failure) => {
            say(Opened::No(failure))?;
            Ok(None)
        }
    }
}

/// The store that is asked for, where it is as it is asked for.
fn find(stores: &Stores, open: Open) -> Result<Option<Arc<Driver>>, Failure> {
    let backends = (open.backend.into(), open.usual_backend.into());
    let opened =
        |root: &Path, make| stores.open_as(root, backends, None, make).map_err(|error| error.failure);
    let driver = match open.store {
        Which::Name(name) => {
            let is_it = |driver: &Arc<Driver>| driver.store().name() == name;
            let Some(known) = stores.all().into_iter().find(is_it) else { return Ok(None) };
            let root = known.root().to_owned();
            // Its path may lead elsewhere by now, and then it is to be closed.
            drop(known);
            match opened(&root, false) {
                Ok(driver) if is_it(&driver) => driver,
                Ok(_) | Err(Failure::NoStore(_)) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        Which::Root(root) => opened(&PathBuf::from(root), open.make)?,
    };
    match open.guest {
        Some(digest) if digest != driver.digest().to_string() => Err(Failure::Conflict(format!(
            "another component is asked for than the service runs ({}), and the service decides",
            driver.digest()
        ))),
        _ => Ok(Some(driver)),
    }
}
