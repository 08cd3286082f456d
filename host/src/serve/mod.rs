//! The service: keeps stores open and answers engines, operators and command lines.
//!
//! Waiting is done by one thread (tokio); calls of the driver, which block, are done by threads of their own
//! ([`calls`]). A front end ([`docker`], [`admin`]) is a [`http::Handler`] on a socket of [`listen`];
//! containerd's ([`containerd`]) is a [`grpc::Router`].

pub mod admin;
pub mod calls;
pub mod containerd;
pub mod docker;
pub mod engines;
pub mod grpc;
pub mod http;
mod http2_authority;
pub mod listen;
pub mod log;
pub mod metrics;
pub mod observer;
pub mod peer;
pub mod privileges;
pub mod stores;
mod threads;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::control::server;
use crate::driver::{Driver, Settings, Shipped};
use crate::error::{Error, Failure};
use admin::Admin;
use calls::Calls;
use containerd::Containerd;
use docker::Docker;
use engines::Engines;
use http::Phase;
use listen::{Endpoint, Role};
use log::Log;
use metrics::Metrics;
use observer::Observer;
use stores::Stores;

/// How the service is run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sockets to make for Docker's protocol.
    pub docker: Vec<PathBuf>,
    /// Sockets to make for containerd's services.
    pub containerd: Vec<PathBuf>,
    /// containerd's own socket, where its content store is.
    pub containerd_address: PathBuf,
    /// The socket to make for operators.
    pub admin: Option<PathBuf>,
    /// The socket to make for command lines; none: one that they find through the store.
    pub control: Option<PathBuf>,
    /// For a call without a stream.
    pub deadline: Duration,
    /// For a call with one.
    pub transfer_deadline: Duration,
    /// For the other end of a stream to do something.
    pub stall: Duration,
    /// For calls under way when the service is asked to end.
    pub grace: Duration,
    /// The log.
    pub log: Log,
}

/// What all front ends share.
#[derive(Debug)]
pub struct Service {
    /// The stores.
    pub stores: Arc<Stores>,
    /// How calls are run.
    pub calls: Calls,
    /// Log and metrics.
    pub observer: Arc<Observer>,
}

/// Threads that wait; none of them ever blocks. One, because two hand each call to each other, at the cost of
/// waking the other one each time.
const WAITERS: usize = 1;
/// How long calls that were cut off may take to clean up.
const CLEANING: Duration = Duration::from_secs(5);

/// Runs the service until it is asked to end. `ready` is given the line that says so, once calls are
/// answered.
///
/// # Errors
///
/// Why it does not start.
pub fn run(
    options: &Options,
    settings: Settings,
    shipped: Shipped,
    ready: impl FnOnce(&str),
) -> Result<(), Error> {
    start(options, settings, shipped, ready).map_err(|failure| failure.during("serve", None))
}

fn start(
    options: &Options,
    settings: Settings,
    shipped: Shipped,
    ready: impl FnOnce(&str),
) -> Result<(), Failure> {
    // Before there is any other thread: it reads and changes the environment.
    let mut endpoints = Endpoint::activated()?;
    for path in &options.docker {
        endpoints.push(Endpoint::bind(Role::Docker, path)?);
    }
    for path in &options.containerd {
        endpoints.push(Endpoint::bind(Role::Containerd, path)?);
    }
    if let Some(path) = &options.admin {
        endpoints.push(Endpoint::bind(Role::Admin, path)?);
    }
    match &options.control {
        Some(path) => endpoints.push(Endpoint::bind(Role::Control, path)?),
        None if endpoints.iter().any(|endpoint| endpoint.role == Role::Control) => {}
        None => endpoints.push(Endpoint::bind(Role::Control, &server::usual_socket(&settings.root)?)?),
    }
    raise_descriptors(options.log);
    privileges::reduce()?;
    let mut sandbox = Driver::sandbox(&settings, shipped)?;
    // Who asks for little is not to wait for those who ask for much.
    sandbox.give_way();
    let sandbox = Arc::new(sandbox);
    options.log.code(sandbox.code());
    let root = settings.root.clone();
    let service = Arc::new(Service {
        stores: Arc::new(Stores::new(settings, sandbox, options.log)),
        calls: Calls::new(options.deadline, options.transfer_deadline, options.stall),
        observer: Arc::new(Observer { log: options.log, metrics: Metrics::default() }),
    });
    match service.stores.open(&root, None, false) {
        Err(Error { failure: Failure::NoStore(_), .. }) | Ok(_) => {}
        Err(error) => return Err(error.failure),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WAITERS)
        .thread_name("serve")
        .enable_all()
        .build()
        .map_err(|e| Failure::io("clone", &e))?;
    let result = runtime.block_on(service.serve(&endpoints, &root, options, ready));
    // Calls that were cut off come to their end and clean up; one that is stuck in the kernel is left behind.
    let cut_off = Instant::now();
    while service.calls.running() > 0 && cut_off.elapsed() < CLEANING {
        std::thread::sleep(Duration::from_millis(10));
    }
    runtime.shutdown_background();
    result
}

impl Service {
    async fn serve(
        self: &Arc<Self>,
        endpoints: &[Endpoint],
        root: &std::path::Path,
        options: &Options,
        ready: impl FnOnce(&str),
    ) -> Result<(), Failure> {
        let caught = |kind| signal(kind).map_err(|e| Failure::io("sigaction", &e));
        let (mut terminate, mut interrupt) =
            (caught(SignalKind::terminate())?, caught(SignalKind::interrupt())?);
        // There is nothing to read again; but it must not end the service, as it does by default.
        let _ignored = caught(SignalKind::hangup())?;
        let (phase, watcher) = watch::channel(Phase::Running);
        let mut fronts = JoinSet::new();
        for endpoint in endpoints {
            match endpoint.role {
                Role::Docker => {
                    let engines = Engines::read(endpoint.state.clone(), root.to_owned())?;
                    let docker = Arc::new(Docker::new(self.clone(), engines));
                    let resuming = docker.clone();
                    let resume = move || {
                        resuming.resume();
                        Ok(())
                    };
                    let resumed = self.calls.short(resume);
                    if let Err(error) = resumed.await {
                        self.observer.log.error("resuming", &[("error", error.to_string().into())]);
                    }
                    fronts.spawn(http::serve(endpoint.listener()?, docker, watcher.clone()));
                }
                Role::Containerd => {
                    let containerd = Arc::new(Containerd::new(
                        self.clone(),
                        root.to_owned(),
                        options.containerd_address.clone(),
                    ));
                    if let Err(error) = containerd.resume().await {
                        self.observer.log.error("resuming", &[("error", error.to_string().into())]);
                    }
                    fronts.spawn(grpc::serve(endpoint.listener()?, containerd, watcher.clone()));
                }
                Role::Admin => {
                    let admin = Arc::new(Admin::new(self.clone()));
                    fronts.spawn(http::serve(endpoint.listener()?, admin, watcher.clone()));
                }
                Role::Control => {
                    let listener = endpoint.blocking_listener()?;
                    let server = server::start(listener, self.stores.clone(), self.observer.clone())?;
                    fronts.spawn(until_closed(server, watcher.clone()));
                }
            }
        }
        let names: Vec<String> = endpoints
            .iter()
            .map(|endpoint| format!("{} {}", endpoint.role.name(), endpoint.path.display()))
            .collect();
        ready(&format!("layerbox: ready: {}", names.join(", ")));
        notify(&[NotifyState::Ready, NotifyState::Status(&names.join(", "))]);
        let watchdog = tokio::spawn(feed_watchdog());
        let asked = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        self.observer.log.info("ending", &[("signal", asked.into())]);
        notify(&[NotifyState::Stopping]);
        phase.send_replace(Phase::Draining);
        let all_closed = async { while fronts.join_next().await.is_some() {} };
        let mut all_closed = std::pin::pin!(all_closed);
        let again = async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = tokio::time::sleep(options.grace) => {}
            }
        };
        tokio::select! {
            () = all_closed.as_mut() => {}
            // Time is up, or somebody is impatient.
            () = again => {
                phase.send_replace(Phase::Ending);
                all_closed.await;
            }
        }
        watchdog.abort();
        Ok(())
    }
}

/// Takes as many descriptors as this process may have. What a login gives by default, 1024, is for programs
/// that still use select(2); here a call holds one for each layer of a stack.
fn raise_descriptors(log: Log) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        log.warn("the limit on descriptors stays as it is", &[("error", errno.to_string().into())]);
    }
}

/// Ends the server of command lines as the service ends. It runs on threads of its own, and so does the
/// waiting for them.
async fn until_closed(server: server::Handle, mut phase: watch::Receiver<Phase>) {
    http::passed(&mut phase, Phase::Running).await;
    let server = Arc::new(server);
    let draining = server.clone();
    let mut drained = tokio::task::spawn_blocking(move || draining.drain());
    tokio::select! {
        _ = &mut drained => return,
        () = http::passed(&mut phase, Phase::Draining) => {}
    }
    server.cut();
    drop(tokio::time::timeout(CLEANING, drained).await);
}

/// Tells systemd; where there is none, nobody.
fn notify(states: &[NotifyState<'_>]) {
    drop(sd_notify::notify(false, states));
}

/// Tells systemd's watchdog, where there is one, that the waiting threads do not hang.
async fn feed_watchdog() {
    let mut microseconds = 0;
    if !sd_notify::watchdog_enabled(false, &mut microseconds) || microseconds == 0 {
        return;
    }
    let mut ticks = tokio::time::interval(Duration::from_micros(microseconds) / 2);
    loop {
        ticks.tick().await;
        notify(&[NotifyState::Watchdog]);
    }
}
