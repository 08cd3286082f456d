//! containerd's content store and its leases, as far as the service asks for them; with a memory of what was
//! asked, and manners of its own.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use layerbox_containerd::services::content::v1::content_server::{Content, ContentServer};
use layerbox_containerd::services::content::v1::{
    AbortRequest, ReadContentRequest, ReadContentResponse, UpdateRequest, UpdateResponse, WriteAction,
    WriteContentRequest, WriteContentResponse,
};
use layerbox_containerd::services::leases::v1::leases_server::{Leases, LeasesServer};
use layerbox_containerd::services::leases::v1::{AddResourceRequest, CreateRequest, CreateResponse, Lease};
use layerbox_tests::archive::file;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tonic::codegen::Service as _;
use tonic::codegen::tokio_stream::Stream;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::scratch::Place;

/// What is said by a store that refuses.
pub const REFUSAL: &str = "this store takes nothing on Sundays";

/// The name of all leases.
const LEASE: &str = "a-lease";

/// How the store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It takes what is written.
    Takes,
    /// It takes what is written, once it is told that it may.
    TakesLater,
    /// It has all that is committed already.
    HasIt,
    /// It refuses what is written.
    Refuses,
    /// It refuses to have anything read, with this code.
    Lacks(Code),
}

/// What was asked.
#[derive(Debug, Default)]
pub struct Asked {
    /// The names of writings that began.
    pub begun: Vec<String>,
    /// Those of blobs that were made.
    pub committed: Vec<String>,
    /// Those of writings that were ended.
    pub aborted: Vec<String>,
    /// Blobs whose labels were changed, with the fields that were and all labels.
    pub updated: Vec<(String, Vec<String>, HashMap<String, String>)>,
    /// Leases, and the blobs that they keep.
    pub kept: Vec<(String, String)>,
    /// Whether one that takes later may.
    pub may_take: bool,
    /// The names under which something is written at the moment.
    open: Vec<String>,
}

/// The store, which listens where the service of the place looks for containerd.
#[derive(Debug)]
pub struct Blobs {
    asked: Arc<Mutex<Asked>>,
    _runtime: tokio::runtime::Runtime,
}

impl Blobs {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// It cannot listen.
    pub fn start(place: &Place, manner: Manner) -> Result<Blobs> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let asked = Arc::<Mutex<Asked>>::default();
        let store = Store { asked: asked.clone(), manner };
        let path = place.join("engine.sock");
        let listener = runtime.block_on(async { UnixListener::bind(path) })?;
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let store = store.clone();
                let answer = service_fn(move |request: hyper::Request<Incoming>| {
                    let store = store.clone();
                    async move {
                        if request.uri().path().contains("Leases") {
                            LeasesServer::new(store).call(request).await
                        } else {
                            ContentServer::new(store).call(request).await
                        }
                    }
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let connection = builder.serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(async move { drop(connection.await) });
            }
            Ok::<_, Infallible>(())
        });
        Ok(Blobs { asked, _runtime: runtime })
    }

    /// What was asked so far.
    pub fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Clone)]
struct Store {
    asked: Arc<Mutex<Asked>>,
    manner: Manner,
}

impl Store {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does one step of a writing.
    fn step(&self, asked: &WriteContentRequest) -> Result<WriteContentResponse, Status> {
        let name = &asked.r#ref;
        match asked.action() {
            WriteAction::Stat => {
                let mut seen = self.asked();
                if seen.open.contains(name) {
                    return Err(Status::unavailable(format!("ref {name} locked")));
                }
                seen.open.push(name.clone());
                seen.begun.push(name.clone());
            }
            WriteAction::Write if self.manner == Manner::Refuses => {
                return Err(Status::resource_exhausted(REFUSAL));
            }
            WriteAction::Write => {}
            WriteAction::Commit => {
                self.asked().committed.push(name.clone());
                if self.manner == Manner::HasIt {
                    return Err(Status::already_exists(asked.expected.clone()));
                }
            }
        }
        Ok(WriteContentResponse { action: asked.action, ..WriteContentResponse::default() })
    }
}

/// A stream of answers.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Content for Store {
    type ReadStream = Answers<ReadContentResponse>;
    type WriteStream = Answers<WriteContentResponse>;

    /// A blob that does not end, and comes drop by drop.
    async fn read(&self, _: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        if let Manner::Lacks(code) = self.manner {
            return Err(Status::new(code, REFUSAL));
        }
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut data = file("large", vec![]).size(1 << 30).header().to_vec();
            let response = |data| Ok(ReadContentResponse { offset: 0, data });
            while sender.send(response(std::mem::replace(&mut data, vec![0; 64]).into())).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteContentRequest>>,
    ) -> Result<Response<Self::WriteStream>, Status> {
        let store = self.clone();
        let mut requests = request.into_inner();
        let (sender, answers) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut name = String::new();
            while let Ok(Some(asked)) = requests.message().await {
                name.clone_from(&asked.r#ref);
                let answer = store.step(&asked);
                let ends = answer.is_err();
                // A disk takes its time, in which others come.
                while {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    store.manner == Manner::TakesLater && !store.asked().may_take
                } {}
                if sender.send(answer).await.is_err() || ends {
                    break;
                }
            }
            store.asked().open.retain(|open| *open != name);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<()>, Status> {
        self.asked().aborted.push(request.into_inner().r#ref);
        Ok(Response::new(()))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<UpdateResponse>, Status> {
        let UpdateRequest { info, update_mask } = request.into_inner();
        let (info, mask) = (info.unwrap_or_default(), update_mask.unwrap_or_default());
        self.asked().updated.push((info.digest.clone(), mask.paths, info.labels.clone()));
        Ok(Response::new(UpdateResponse { info: Some(info) }))
    }
}

#[tonic::async_trait]
impl Leases for Store {
    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<CreateResponse>, Status> {
        let labels = request.into_inner().labels;
        Ok(Response::new(CreateResponse { lease: Some(Lease { id: LEASE.to_owned(), labels }) }))
    }

    async fn add_resource(&self, request: Request<AddResourceRequest>) -> Result<Response<()>, Status> {
        let AddResourceRequest { id, resource } = request.into_inner();
        self.asked().kept.push((id, resource.unwrap_or_default().id));
        Ok(Response::new(()))
    }
}
