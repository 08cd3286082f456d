//! The sockets that the service listens on: those that it makes, and those that systemd made for it.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use rustix::io::Errno;
use rustix::net::sockopt::socket_acceptconn;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use crate::digest::Digest;
use crate::error::Failure;
use crate::store::runtime::private_directory;

/// How many connections wait to be taken. Beyond them a client is refused that does not wait itself, as
/// programs of Go do not; and where somebody connects without end, as many are taken before that of an honest
/// client.
const BACKLOG: i32 = 512;

/// What is spoken on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Docker's graph driver protocol.
    Docker,
    /// containerd's services.
    Containerd,
    /// Metrics and health.
    Admin,
    /// The calls of command lines.
    Control,
}

impl Role {
    /// Its name, in the ready line and as a `FileDescriptorName=` of systemd.
    pub fn name(self) -> &'static str {
        match self {
            Role::Docker => "docker",
            Role::Containerd => "containerd",
            Role::Admin => "admin",
            Role::Control => "control",
        }
    }
}

/// A socket that is listened on. One that this process made is removed with it.
#[derive(Debug)]
pub struct Endpoint {
    /// What is spoken.
    pub role: Role,
    /// Where it is.
    pub path: PathBuf,
    listener: UnixListener,
    /// Where what must outlive the process, and not a reboot, is kept for this socket.
    pub state: PathBuf,
    made: Option<Claim>,
}

/// The sole right to a path: two services that start at once must not both take a stale socket for theirs.
#[derive(Debug)]
struct Claim {
    _lock: Flock<std::fs::File>,
}

impl Endpoint {
    /// Makes a socket that the owner and the group can reach, or for [`Role::Control`] the owner alone. A
    /// socket that nobody listens on any more is replaced.
    ///
    /// # Errors
    ///
    /// [`Failure::Conflict`] where somebody listens there, or something else lies there.
    pub fn bind(role: Role, path: &Path) -> Result<Endpoint, Failure> {
        let path = std::path::absolute(path).map_err(|e| Failure::io("open", &e))?;
        let at = |operation: &str, error: &io::Error| Failure::Io {
            entry: path.as_os_str().as_encoded_bytes().to_vec(),
            operation: operation.to_owned(),
            code: error.raw_os_error().unwrap_or(nix::libc::EINVAL),
        };
        if let Some(parent) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent);
            made.map_err(|e| at("mkdir", &e))?;
        }
        let state = state_of(&path)?;
        let busy = || Failure::Conflict(format!("a service listens on {} already", path.display()));
        let lock = std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(state.with_extension("lock"))
            .map_err(|e| Failure::io("open", &e))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|_| busy())?;
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.file_type().is_socket() => match UnixStream::connect(&path) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(&path).map_err(|e| at("unlink", &e))?;
                }
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                _ => return Err(busy()),
            },
            Ok(_) => {
                let what = format!("{} is there already, and is no socket", path.display());
                return Err(Failure::Conflict(what));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(at("stat", &e)),
        }
        let mode = if role == Role::Control { 0o600 } else { 0o660 };
        let listener = listening(&path, mode).map_err(|errno| at("bind", &errno.into()))?;
        Ok(Endpoint { role, path, listener, state, made: Some(Claim { _lock: lock }) })
    }

    /// The sockets that systemd made (sd_listen_fds(3)). Their names say what is spoken: `docker`,
    /// `containerd`, `admin` or `control`; one without a name of its own (then it has that of its unit) is
    /// Docker's.
    ///
    /// # Errors
    ///
    /// [`Failure::InvalidArgument`] for another name, or something that is no listening unix socket.
    pub fn activated() -> Result<Vec<Endpoint>, Failure> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = listenfd::ListenFd::from_env();
        let mut endpoints = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let role = match name {
                "docker" | "unknown" | "" => Role::Docker,
                "containerd" => Role::Containerd,
                "admin" => Role::Admin,
                "control" => Role::Control,
                unit if unit.ends_with(".socket") => Role::Docker,
                other => {
                    let what = format!(
                        "systemd passed a socket of the name {other}, and only docker, containerd, admin and control are known"
                    );
                    return Err(Failure::InvalidArgument(what));
                }
            };
            let listener = match passed.take_unix_listener(index) {
                Ok(Some(listener)) => listener,
                Ok(None) => continue,
                Err(e) => {
                    let what = format!("systemd passed something that is no unix socket: {e}");
                    return Err(Failure::InvalidArgument(what));
                }
            };
            // One that is bound and no more, or the connection of a client, as a unit with `Accept=yes` has
            // it: nobody could ever be answered.
            if !socket_acceptconn(&listener).map_err(|errno| Failure::io("getsockopt", &errno.into()))? {
                let what = format!("systemd passed a socket for {} that does not listen", role.name());
                return Err(Failure::InvalidArgument(what));
            }
            let address = listener.local_addr().map_err(|e| Failure::io("getsockname", &e))?;
            let path = address.as_pathname().unwrap_or(Path::new("(no path)")).to_owned();
            let state = state_of(&path)?;
            endpoints.push(Endpoint { role, path, listener, state, made: None });
        }
        Ok(endpoints)
    }

    /// The listener, for threads.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn blocking_listener(&self) -> Result<UnixListener, Failure> {
        self.listener.try_clone().map_err(|e| Failure::io("dup", &e))
    }

    /// The listener, for tokio.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub fn listener(&self) -> Result<tokio::net::UnixListener, Failure> {
        let listener = self.listener.try_clone().map_err(|e| Failure::io("dup", &e))?;
        listener.set_nonblocking(true).map_err(|e| Failure::io("fcntl", &e))?;
        tokio::net::UnixListener::from_std(listener).map_err(|e| Failure::io("epoll", &e))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if self.made.is_some() {
            // What is left behind is replaced at the next start.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// A socket at a path, listening, of a mode that the umask only takes from.
fn listening(path: &Path, mode: u32) -> Result<UnixListener, Errno> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Linux gives the file the mode that the socket has when it is bound: there is no moment in which others
    // can connect.
    rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(mode))?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

/// The file for what is to be remembered of a socket, on a tmpfs.
fn state_of(path: &Path) -> Result<PathBuf, Failure> {
    let name = Digest::of(path.as_os_str().as_encoded_bytes()).short(32);
    Ok(private_directory(&["sockets"])?.join(name + ".json"))
}
