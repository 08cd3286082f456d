//! Docker's graph driver protocol: JSON over HTTP, one request a call.
//!
//! What is odd about it is dockerd's doing: errors come with status 200, but for the two calls with a stream;
//! a request may come a second time without its body; a plugin that was restarted is not told where its
//! layers are (see [`super::engines`]).

mod download;
pub mod protocol;
pub(in crate::serve) mod upload;

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use layerbox_privileged::id::LayerId;
use serde_json::{Value, json};

use super::Service;
use super::calls::CallError;
use super::engines::{Engine, Engines, Options, Target, check_home};
use super::http::{Client, Content, Handler, broken_off, only};
use super::log::Log;
use super::observer::Watched;
use super::peer::{Sight, sight};
use crate::driver::{ChangeKind, Driver, IdMaps, Settled};
use crate::error::{Class, Error, Failure};
use protocol::{ChangeAnswer, InitRequest, LayerRequest, Operation, answer, error, parse};

/// The longest body of a call without a stream, in bytes.
const LONGEST: usize = 1 << 20;

/// What is answered on one socket.
#[derive(Debug)]
pub struct Docker {
    service: Arc<Service>,
    engines: Engines,
}

impl Docker {
    /// Answers for the engines of a socket.
    pub fn new(service: Arc<Service>, engines: Engines) -> Docker {
        Docker { service, engines }
    }

    /// Opens the stores of the engines that are known from before, and looks whether they will see what is
    /// mounted. What fails is said in the log: it is tried again with the first call.
    pub fn resume(&self) {
        let log = self.service.observer.log;
        for Engine { home, maps, process, .. } in self.engines.all() {
            let root = home.display().to_string();
            match self.service.stores.open(&home, Some(maps), false) {
                Ok(_) => log.info("the store of an engine is open again", &[("root", root.into())]),
                Err(e) => log.warn(
                    "the store of an engine did not open",
                    &[("root", root.into()), ("error", e.to_string().into())],
                ),
            }
            if let Some(process) = process.filter(|process| process.is_alive()) {
                self.warn_unseen(process.pid, &home);
            }
        }
    }

    fn warn_unseen(&self, pid: i32, home: &std::path::Path) -> Sight {
        let sight = sight(pid, home);
        if sight == Sight::Unseen {
            let fields = [("root", home.display().to_string().into()), ("engine", pid.into())];
            let what =
                "the engine lives in another mount namespace, and mounts made here will not be seen there";
            self.service.observer.log.warn(what, &fields);
        }
        sight
    }

    /// The answer to a call without a stream.
    async fn call(
        &self,
        operation: Operation,
        body: Incoming,
        client: &Client,
        watched: &mut Watched,
    ) -> Result<Value, CallError> {
        let body = self.body(body).await?;
        let target = self.engines.target(client.process);
        if operation == Operation::Init {
            let request = parse(&body, operation).map_err(CallError::Request)?;
            return self.init(request, client).await;
        }
        let request: LayerRequest = parse(&body, operation).map_err(CallError::Request)?;
        request.id().clone_into(&mut watched.layer);
        match operation {
            Operation::Activate => Ok(json!({ "Implements": ["GraphDriver"] })),
            // Archives are not byte for byte what was applied (names, order, padding); said otherwise,
            // `docker save` would not verify them.
            Operation::Capabilities => Ok(json!({ "Capabilities": { "ReproducesExactDiffs": false } })),
            Operation::Status => self.status(target, client).await,
            Operation::Get => {
                let opened = target.opened(&self.service.stores);
                if let Some(path) = opened.and_then(|driver| driver.get_again(request.id())) {
                    return Ok(json!({ "Dir": path.display().to_string() }));
                }
                let undo = target.clone();
                let stores = self.service.clone();
                let (put_id, get) = (request.id().to_owned(), request);
                let driver = move |target: &Target| target.driver(&stores.stores, false);
                let again = driver.clone();
                let path = self.service.calls.on(
                    (target.root.clone(), put_id.clone()),
                    move || driver(&target)?.get(get.id(), get.label()),
                    // Nobody got it, so nobody will put it.
                    move |_| drop(again(&undo).and_then(|driver| driver.put(&put_id))),
                );
                Ok(json!({ "Dir": path.await?.display().to_string() }))
            }
            Operation::Put => {
                let opened = target.opened(&self.service.stores);
                if opened.and_then(|driver| driver.put_one_of_many(request.id())).is_some() {
                    return Ok(json!({}));
                }
                self.run_on(target, false, request, |driver, request| {
                    driver.put(request.id()).map(|()| json!({}))
                })
                .await
            }
            Operation::Create | Operation::CreateReadWrite => {
                request.no_options().map_err(|f| CallError::Driver(f.during("create", None)))?;
                self.run_on(target, true, request, |driver, request| {
                    driver.create(request.id(), request.parent())?;
                    Ok(json!({}))
                })
                .await
            }
            Operation::Cleanup => {
                let service = self.service.clone();
                let clean = move || {
                    target.driver(&service.stores, false)?.cleanup()?;
                    service.stores.close_unused(&target.root);
                    Ok(json!({}))
                };
                self.service.calls.short(clean).await
            }
            Operation::Remove => {
                self.run_on(target, false, request, |driver, request| remove(driver, request.id())).await
            }
            _ => {
                let call = move |driver: &Driver, request: &LayerRequest| simple(driver, operation, request);
                self.run_on(target, false, request, call).await
            }
        }
    }

    /// Runs a call of the driver on the store of an engine.
    async fn run(
        &self,
        target: Target,
        make: bool,
        call: impl FnOnce(&Driver) -> Result<Value, Error> + Send + 'static,
    ) -> Result<Value, CallError> {
        let service = self.service.clone();
        self.service.calls.short(move || call(&*target.driver(&service.stores, make)?)).await
    }

    /// As [`Docker::run`], for a call on a layer.
    async fn run_on(
        &self,
        target: Target,
        make: bool,
        request: LayerRequest,
        call: impl FnOnce(&Driver, &LayerRequest) -> Result<Value, Error> + Send + 'static,
    ) -> Result<Value, CallError> {
        let service = self.service.clone();
        let subject = (target.root.clone(), request.id().to_owned());
        let work = move || call(&*target.driver(&service.stores, make)?, &request);
        self.service.calls.on(subject, work, drop).await
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, CallError> {
        let whole = Limited::new(body, LONGEST).collect();
        let deadline = self.service.calls.stall();
        match tokio::time::timeout(deadline, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
                Err(CallError::Request(format!("the body is longer than {LONGEST} bytes")))
            }
            Ok(Err(error)) => Err(broken_off(&*error)),
            Err(_) => Err(CallError::Stalled(deadline.as_secs())),
        }
    }

    async fn init(&self, request: InitRequest, client: &Client) -> Result<Value, CallError> {
        let read = || -> Result<(std::path::PathBuf, IdMaps, Options), Failure> {
            let home = check_home(request.home.as_deref().unwrap_or_default())?;
            let options = Options::parse(request.opts.iter().flatten().map(String::as_str))?;
            Ok((home, request.maps()?, options))
        };
        let (home, maps, options) = read().map_err(|failure| failure.during("init", None))?;
        let engine = Engine { home: home.clone(), maps: maps.clone(), options, process: client.process };
        let service = self.service.clone();
        let root = home.clone();
        // An engine that was killed gives back nothing of what it got. The next one knows only its
        // containers' layers, and gives each of them back once, as the counts of Docker's own drivers have
        // it.
        let is_new = client.process.is_some() && !self.engines.is_served(&home);
        self.service
            .calls
            .short(move || {
                let driver = service.stores.open(&root, Some(maps), true)?;
                if is_new {
                    tell_settled(&service.observer.log, driver.root(), &driver.settle(is_of_a_container)?);
                }
                Ok(())
            })
            .await?;
        if let Some(process) = client.process {
            self.warn_unseen(process.pid, &home);
        }
        self.engines.admit(engine).map_err(|failure| failure.during("init", None))?;
        self.service
            .observer
            .log
            .info("an engine uses a store", &[("root", home.display().to_string().into())]);
        self.close_displaced_later();
        Ok(json!({}))
    }

    /// Closes the stores of engines that were killed, and their data removed, while nobody waits for it.
    fn close_displaced_later(&self) {
        let service = self.service.clone();
        tokio::spawn(async move {
            let stores = service.stores.clone();
            let close = move || {
                stores.close_all_displaced();
                Ok(())
            };
            // The next one tries again.
            drop(service.calls.short(close).await);
        });
    }

    async fn status(&self, target: Target, client: &Client) -> Result<Value, CallError> {
        let process = client.process;
        self.run(target.clone(), false, move |driver| {
            let mut rows = driver.status()?;
            if let Some(devices) = target.options.devices {
                let value = if devices { "allowed" } else { "refused" };
                rows.iter_mut()
                    .filter(|(key, _)| key == "Device Nodes")
                    .for_each(|row| row.1 = value.to_owned());
            }
            rows.push(("Sync".to_owned(), if target.options.sync { "yes" } else { "no" }.to_owned()));
            if process.map(|process| sight(process.pid, driver.root())) == Some(Sight::Unseen) {
                let value = "not the engine's: mounts will not be seen".to_owned();
                rows.push(("Mount Namespace".to_owned(), value));
            }
            Ok(json!({ "Status": rows }))
        })
        .await
    }
}

/// Logs what was taken from an engine that is gone, and may be missed by one that only seems to be: a client
/// that starts a process for each call, for instance.
fn tell_settled(log: &Log, root: &std::path::Path, settled: &Settled) {
    for error in &settled.failed {
        let what = "an engine that is gone left a layer mounted";
        log.warn(what, &[("error", error.to_string().into())]);
    }
    if settled.given_back.is_empty() {
        return;
    }
    let layers: Vec<&str> = settled.given_back.iter().map(LayerId::as_str).collect();
    let fields = [
        ("root", root.display().to_string().into()),
        ("count", layers.len().into()),
        ("layers", layers.join(" ").into()),
    ];
    log.info("an engine that is gone had got layers: they are unmounted", &fields);
}

/// The calls that need nothing but the driver.
fn simple(driver: &Driver, operation: Operation, request: &LayerRequest) -> Result<Value, Error> {
    let (id, parent) = (request.id(), request.parent());
    Ok(match operation {
        Operation::Exists => json!({ "Exists": driver.exists(id)? }),
        Operation::GetMetadata => match driver.metadata(id) {
            Ok(metadata) => json!({ "Metadata": protocol::metadata(&metadata) }),
            Err(error) if error.failure.class() == Class::NotFound => json!({ "Metadata": {} }),
            Err(error) => return Err(error),
        },
        Operation::Changes => {
            let changes = driver.changes(id, parent)?;
            json!({ "Changes": changes.iter().map(ChangeAnswer::from).collect::<Vec<_>>() })
        }
        Operation::DiffSize => json!({ "Size": driver.diff_size(id, parent)?.bytes }),
        other => {
            return Err(Failure::Unsupported(other.name().to_owned()).during("serve", None));
        }
    })
}

/// Whether a layer is a container's. Such a layer stands on one of the same name with `-init`, of which
/// nothing but the making of the container is written; what else an engine gets (that one, an image's layer
/// for an archive of it, a step of a build), it gets for the length of one call of its own.
fn is_of_a_container(id: &LayerId, ancestors: &[LayerId]) -> bool {
    ancestors.first().is_some_and(|parent| is_init_of(parent.as_str(), id.as_str()))
}

fn is_init_of(parent: &str, container: &str) -> bool {
    parent.strip_suffix("-init") == Some(container)
}

/// A layer that is not there is removed already: dockerd asks again when it did not hear the answer, and
/// keeps a container for ever whose layer it cannot remove. And one that is still got is given back first: an
/// engine that was killed while it started a container has got a layer that it knows nothing of.
fn remove(driver: &Driver, id: &str) -> Result<Value, Error> {
    let mut given_back = false;
    loop {
        let Err(error) = driver.remove(id, false) else { return Ok(json!({})) };
        let child = match &error.failure {
            Failure::NotFound(_) => return Ok(json!({})),
            Failure::HasChildren(child) => Some(child.clone()),
            // Nothing is given back of a layer that cannot be removed even then.
            Failure::Busy(_) => child_of(driver, id)?,
            _ => return Err(error),
        };
        match child {
            Some(child) if is_of_no_container(driver, &child, id)? => {
                remove(driver, &child)?;
            }
            Some(child) => return Err(Error { failure: Failure::HasChildren(child), ..error }),
            None if given_back => return Err(error),
            None => {
                give_back(driver, id, error)?;
                given_back = true;
            }
        }
    }
}

/// A layer that lies on this one.
fn child_of(driver: &Driver, id: &str) -> Result<Option<String>, Error> {
    let child = LayerId::new(id)
        .map_err(|_| Failure::InvalidId(id.to_owned()))
        .and_then(|id| driver.store().child(&id));
    Ok(child.map_err(|failure| failure.during("remove", None))?.map(|child| child.to_string()))
}

/// More than an engine can have got a layer when it was killed.
const MOST_GETS: u32 = 100;

/// Ends all gets of a layer. Where that cannot be done, because somebody is in the mount, none is ended.
fn give_back(driver: &Driver, id: &str, busy: Error) -> Result<(), Error> {
    let gets = driver.metadata(id)?.mounts;
    if gets > MOST_GETS {
        return Err(busy);
    }
    for ended in 0..gets {
        if let Err(error) = driver.put(id) {
            for _ in 0..ended {
                // It is mounted still: this counts, and no more. The error to tell is the first one.
                drop(driver.get(id, None));
            }
            return Err(Error { operation: "remove", ..error });
        }
    }
    Ok(())
}

/// Whether `child` is what is left of a container that never came to be, because the service ended while its
/// layers were made: dockerd forgets them then. It asks for the removal of their parent only when it knows of
/// no container on it. Such is an `-init` layer that holds nothing but what dockerd makes in it, and on it
/// the container's own, while that holds nothing and nobody has got it.
fn is_of_no_container(driver: &Driver, child: &str, parent: &str) -> Result<bool, Error> {
    let container = child.strip_suffix("-init").unwrap_or(child);
    let is_dockers = container.len() == 64 && container.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_dockers {
        return Ok(false);
    }
    let changes = || driver.changes(child, Some(parent));
    if child == container {
        let is_unused = is_init_of(parent, container) && driver.metadata(child)?.mounts == 0;
        return Ok(is_unused && changes()?.is_empty());
    }
    // It may have been got when the service ended. What stands on it is looked at when its own removal fails.
    let is_made = |(name, kind)| kind != ChangeKind::Deleted && MADE_IN_INIT.contains(&name);
    Ok(changes()?.iter().all(is_made) && driver.diff_size(child, Some(parent))?.bytes == 0)
}

/// What dockerd makes in an `-init` layer where the image has it not (`setupInitLayer`, daemon/initlayer):
/// mount points, none of which holds a byte, and the directories that they are in.
const MADE_IN_INIT: [&[u8]; 12] = [
    b".dockerenv",
    b"dev",
    b"dev/console",
    b"dev/pts",
    b"dev/shm",
    b"etc",
    b"etc/hostname",
    b"etc/hosts",
    b"etc/mtab",
    b"etc/resolv.conf",
    b"proc",
    b"sys",
];

impl Handler for Docker {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, client: Client) -> Response<Content> {
        let Some(operation) = Operation::of(request.uri().path()) else {
            return error(StatusCode::NOT_FOUND, "there is no such call");
        };
        if request.method() != Method::POST {
            return only("POST", error(StatusCode::METHOD_NOT_ALLOWED, "calls are sent with POST"));
        }
        let mut watched = self.service.observer.begin(operation.name());
        match operation {
            Operation::ApplyDiff => self.apply_diff(request, &client, watched).await,
            Operation::Diff => self.diff(request, &client, watched).await,
            _ => {
                let result = self.call(operation, request.into_body(), &client, &mut watched).await;
                watched.end(result.as_ref().err());
                match result {
                    Ok(value) => answer(StatusCode::OK, &value),
                    Err(CallError::Request(text)) => error(StatusCode::BAD_REQUEST, &text),
                    Err(other) => error(StatusCode::OK, &other.to_string()),
                }
            }
        }
    }
}

/// The status of an error of a call with a stream: never 200, which dockerd takes for an archive, and never
/// 404, which it takes for a missing call.
fn stream_error(failed: &CallError) -> Response<Content> {
    let status = match failed {
        CallError::Request(_) => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, &failed.to_string())
}
