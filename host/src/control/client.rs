//! The command line's end: finds the service that owns a store, and calls it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use layerbox_privileged::id::LayerId;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::announce;
use super::frame::{self, Frame};
use super::protocol::{Answer, Call, Hello, Open, Opened, Reply, VERSION, Which};
use crate::driver::{self, ApplyOptions, DiffOutcome, Settings};
use crate::error::{Error, Failure};

/// How long a service may take to say its first word. It has nothing to do before it.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to a service, for the calls on one store.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// The service that owns the store of `settings`; none where there is no store, no service, or one that
    /// is gone.
    ///
    /// # Errors
    ///
    /// [`Failure::StoreInUse`] where there is one that does not answer; those of [`Client::named`].
    pub(super) fn find(settings: &Settings) -> Result<Option<Client>, Failure> {
        let Some((name, places)) = announce::places(&settings.root) else { return Ok(None) };
        for place in places {
            let stream = match connect(&place) {
                Ok(stream) => stream,
                // The backlog is full: somebody should be there.
                Err(Errno::AGAIN) => return Err(silent("a service that does not answer")),
                // A service that was killed leaves its link behind, and its socket.
                Err(_) => continue,
            };
            let client = match Client::greeted(stream) {
                Err(Failure::NoService { .. }) => continue,
                other => other?,
            };
            if client.open(settings, Which::Name(name.clone()), false)? {
                return Ok(Some(client));
            }
        }
        Ok(None)
    }

    /// The service at `socket`, which opens the store where it has not; with `make`, it makes it.
    ///
    /// # Errors
    ///
    /// [`Failure::NoService`]; [`Failure::Service`] for one that speaks another version;
    /// [`Failure::Conflict`] where it has another backend or component than `settings` ask for; those of
    /// opening a store.
    pub(super) fn named(socket: &Path, settings: &Settings, make: bool) -> Result<Client, Failure> {
        let no_service = |errno: Errno| Failure::NoService {
            socket: socket.display().to_string(),
            code: errno.raw_os_error(),
        };
        let client =
            Client::greeted(connect(socket).map_err(no_service)?).map_err(|failure| match failure {
                Failure::NoService { code, .. } => no_service(Errno::from_raw_os_error(code)),
                other => other,
            })?;
        client.open(settings, Which::Root(settings.root.clone().into()), make)?;
        Ok(client)
    }

    /// Hears the service's first word. [`Failure::NoService`] where the connection is closed before it.
    fn greeted(stream: UnixStream) -> Result<Client, Failure> {
        let peer = socket_peercred(&stream).map_err(|errno| Failure::io("getsockopt", &errno.into()))?;
        let gone = |errno: Errno| Failure::NoService { socket: String::new(), code: errno.raw_os_error() };
        // What is asked of a stranger's service may be answered with anything.
        if !peer.uid.is_root() && peer.uid.as_raw() != nix::unistd::geteuid().as_raw() {
            return Err(gone(Errno::ACCESS));
        }
        stream.set_read_timeout(Some(PATIENCE)).map_err(|error| Failure::io("setsockopt", &error))?;
        let frame = match frame::receive(&stream) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Err(gone(Errno::CONNRESET)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(silent(&format!("process {}, which does not answer", peer.pid.as_raw_pid())));
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(unclear()),
            Err(error) => return Err(gone(Errno::from_io_error(&error).unwrap_or(Errno::CONNRESET))),
        };
        let hello: Hello = frame.message().map_err(|_| unclear())?;
        if hello.version != VERSION {
            let (theirs, process) = (hello.version, hello.process);
            let what = format!(
                "speaks version {theirs} of the control protocol, this program version {VERSION}: restart it (process {process})"
            );
            return Err(Failure::Service(what.into()));
        }
        stream.set_read_timeout(None).map_err(|error| Failure::io("setsockopt", &error))?;
        Ok(Client { stream })
    }

    /// Names the store; false where the service does not own it.
    fn open(&self, settings: &Settings, store: Which, make: bool) -> Result<bool, Failure> {
        let guest = driver::wanted(settings)?.map(|digest| digest.to_string());
        let (backend, usual_backend) = (settings.backend.into(), settings.usual_backend.into());
        let open = Open { version: VERSION, store, backend, usual_backend, guest, make };
        frame::send(&self.stream, &open, None).map_err(|_| lost())?;
        match self.receive()?.message().map_err(|_| unclear())? {
            Opened::Yes => Ok(true),
            Opened::NotMine => Ok(false),
            Opened::No(failure) => Err(failure),
        }
    }

    fn receive(&self) -> Result<Frame, Failure> {
        match frame::receive(&self.stream) {
            Ok(Some(frame)) => Ok(frame),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(unclear()),
            Ok(None) | Err(_) => Err(lost()),
        }
    }

    /// Makes a call, and hands the parts of its answer to `part`, the last one included. What is read of an
    /// archive is told to `reading`.
    fn exchange(
        &self,
        call: Call,
        descriptor: Option<BorrowedFd<'_>>,
        mut reading: impl FnMut(u64, u64),
        mut part: impl FnMut(Answer) -> Result<(), Failure>,
    ) -> Result<(), Error> {
        let operation = call.operation();
        let about = call.layer().map(str::to_owned);
        let fail = |failure| Error { operation, layer: about.clone(), failure };
        frame::send(&self.stream, &call, descriptor).map_err(|_| fail(lost()))?;
        loop {
            match self.receive().and_then(|frame| frame.message().map_err(|_| unclear())).map_err(fail)? {
                Reply::Reading { entries, bytes } => reading(entries, bytes),
                Reply::Part(answer) => part(answer).map_err(fail)?,
                Reply::Done(answer) => return part(answer).map_err(fail),
                Reply::Failed { layer, failure } => return Err(Error { operation, layer, failure }),
            }
        }
    }

    /// Makes a call whose answer is one thing.
    fn call<T>(&self, call: Call, answer: impl Fn(Answer) -> Option<T>) -> Result<T, Error> {
        let (operation, layer) = (call.operation(), call.layer().map(str::to_owned));
        let mut found = None;
        self.exchange(
            call,
            None,
            |_, _| {},
            |part| {
                found = Some(answer(part).ok_or_else(unclear)?);
                Ok(())
            },
        )?;
        found.ok_or(Error { operation, layer, failure: unclear() })
    }

    /// Makes a call whose answer is a list, `L`.
    fn list<L: Default>(
        &self,
        call: Call,
        mut rows: impl FnMut(Answer, &mut L) -> Result<(), Failure>,
    ) -> Result<L, Error> {
        let mut all = L::default();
        self.exchange(call, None, |_, _| {}, |part| rows(part, &mut all))?;
        Ok(all)
    }
}

/// The calls, as [`Driver`](driver::Driver) has them.
#[allow(clippy::missing_errors_doc, reason = "the driver's own, and Failure::Service")]
impl Client {
    pub(super) fn create(&self, id: &str, parent: Option<&str>) -> Result<(), Error> {
        self.call(Call::Create { id: id.into(), parent: parent.map(Into::into) }, nothing)
    }

    pub(super) fn apply_diff(
        &self,
        id: &str,
        parent: Option<&str>,
        archive: &File,
        options: &ApplyOptions,
        mut meter: Option<super::Meter>,
    ) -> Result<driver::Totals, Error> {
        let call = Call::ApplyDiff {
            id: id.into(),
            parent: parent.map(Into::into),
            sync: options.sync,
            devices: options.devices,
            given: options.given.clone(),
            progress: meter.is_some(),
        };
        let reading = |entries, bytes| {
            options.progress.entries.store(entries, Ordering::Relaxed);
            if let Some(meter) = &mut meter {
                meter(bytes);
            }
        };
        let mut totals = None;
        self.exchange(call, Some(archive.as_fd()), reading, |part| match part {
            Answer::Totals(counted) => {
                options.progress.clamped.store(counted.clamped, Ordering::Relaxed);
                totals = Some(counted.into());
                Ok(())
            }
            _ => Err(unclear()),
        })?;
        totals.ok_or_else(|| in_call("apply-diff", id, unclear()))
    }

    pub(super) fn diff(&self, id: &str, parent: Option<&str>, out: OwnedFd) -> Result<DiffOutcome, Error> {
        let call = Call::Diff { id: id.into(), parent: parent.map(Into::into) };
        let mut outcome = None;
        self.exchange(
            call,
            Some(out.as_fd()),
            |_, _| {},
            |part| match part {
                Answer::Written { totals, skipped } => {
                    let skipped = skipped.into_iter().map(Into::into).collect();
                    outcome = Some(DiffOutcome { totals: totals.into(), skipped });
                    Ok(())
                }
                _ => Err(unclear()),
            },
        )?;
        outcome.ok_or_else(|| in_call("diff", id, unclear()))
    }

    pub(super) fn changes(&self, id: &str, parent: Option<&str>) -> Result<driver::Changes, Error> {
        let call = Call::Changes { id: id.into(), parent: parent.map(Into::into) };
        self.list(call, |part, all| match part {
            Answer::Changes(rows) => {
                rows.iter().for_each(|row| row.add_to(all));
                Ok(())
            }
            _ => Err(unclear()),
        })
    }

    pub(super) fn diff_size(&self, id: &str, parent: Option<&str>) -> Result<driver::Totals, Error> {
        let call = Call::DiffSize { id: id.into(), parent: parent.map(Into::into) };
        self.call(call, |answer| match answer {
            Answer::Totals(totals) => Some(totals.into()),
            _ => None,
        })
    }

    /// A mount in a mount namespace that this process does not see is given back, and is an error.
    pub(super) fn get(&self, id: &str, label: Option<&str>) -> Result<PathBuf, Error> {
        let call = Call::Get { id: id.into(), label: label.map(Into::into) };
        let (path, device, inode) = self.call(call, |answer| match answer {
            Answer::Place { path, device, inode } => Some((PathBuf::from(path), device, inode)),
            _ => None,
        })?;
        if std::fs::metadata(&path).is_ok_and(|seen| (seen.dev(), seen.ino()) == (device, inode)) {
            return Ok(path);
        }
        // The error to tell is the first one.
        drop(self.put(id));
        let what = format!("the service mounts where this process does not see it: {}", path.display());
        Err(in_call("get", id, Failure::Conflict(what)))
    }

    pub(super) fn put(&self, id: &str) -> Result<(), Error> {
        self.call(Call::Put { id: id.into() }, nothing)
    }

    pub(super) fn remove(&self, id: &str, force: bool) -> Result<(), Error> {
        self.call(Call::Remove { id: id.into(), force }, nothing)
    }

    pub(super) fn exists(&self, id: &str) -> Result<bool, Error> {
        self.call(Call::Exists { id: id.into() }, |answer| match answer {
            Answer::Flag(exists) => Some(exists),
            _ => None,
        })
    }

    pub(super) fn layers(&self) -> Result<Vec<driver::LayerSummary>, Error> {
        self.list(Call::List, |part, all: &mut Vec<_>| {
            let Answer::Layers(rows) = part else { return Err(unclear()) };
            for row in rows {
                all.push(row.try_into()?);
            }
            Ok(())
        })
    }

    pub(super) fn status(&self) -> Result<Vec<(String, String)>, Error> {
        self.call(Call::Status, |answer| match answer {
            Answer::Rows(rows) => Some(rows),
            _ => None,
        })
    }

    pub(super) fn metadata(&self, id: &str) -> Result<driver::Metadata, Error> {
        let layer = self.call(Call::Metadata { id: id.into() }, |answer| match answer {
            Answer::Layer(layer) => Some(*layer),
            _ => None,
        })?;
        layer.try_into().map_err(|failure| in_call("metadata", id, failure))
    }

    pub(super) fn cleanup(&self) -> Result<u32, Error> {
        self.call(Call::Cleanup, |answer| match answer {
            Answer::Count(count) => Some(count),
            _ => None,
        })
    }

    pub(super) fn check(&self, options: driver::CheckOptions) -> Result<Vec<driver::Finding>, Error> {
        self.list(Call::Check { options }, |part, all: &mut Vec<_>| match part {
            Answer::Findings(rows) => {
                all.extend(rows.into_iter().map(driver::Finding::from));
                Ok(())
            }
            _ => Err(unclear()),
        })
    }
}

/// Connects. A service that does not take the connection in time is `EAGAIN`.
fn connect(path: &Path) -> Result<UnixStream, Errno> {
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // connect(2) waits for as long as a send may where the backlog is full.
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    set_socket_timeout(&socket, Timeout::Send, None)?;
    Ok(UnixStream::from(socket))
}

fn nothing(answer: Answer) -> Option<()> {
    matches!(answer, Answer::Nothing).then_some(())
}

fn in_call(operation: &'static str, id: &str, failure: Failure) -> Error {
    failure.during(operation, LayerId::new(id).ok().as_ref())
}

fn silent(who: &str) -> Failure {
    Failure::StoreInUse(who.to_owned())
}

fn lost() -> Failure {
    Failure::Service("went away in the middle of the call".into())
}

fn unclear() -> Failure {
    Failure::Service("says what this program does not understand".into())
}
