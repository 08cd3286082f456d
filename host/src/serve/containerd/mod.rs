//! containerd's services: snapshots, and what turns blobs into them and back.
//!
//! An engine is told of the socket in its configuration (`proxy_plugins`), and reaches the store of the
//! service's own root. Each call runs on a thread, within the service's deadline and the caller's.

mod answer;
mod compare;
mod content;
mod diff;
mod digest;
mod media;
mod snapshots;

use std::path::PathBuf;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::{Request, Response};
use layerbox_containerd::services::diff::v1::diff_server::DiffServer;
use layerbox_containerd::services::snapshots::v1::snapshots_server::SnapshotsServer;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service as _;
use tonic::metadata::MetadataMap;

use super::Service;
use super::calls::CallError;
use super::grpc::Router;
use crate::snapshots::Snapshots;
use crate::snapshots::error::SnapshotError;
use crate::snapshots::model::Scope;

/// The header that names containerd's namespace.
const NAMESPACE: &str = "containerd-namespace";

/// What is answered on one socket.
#[derive(Debug)]
pub struct Containerd {
    service: Arc<Service>,
    root: PathBuf,
    /// The engine's own socket, behind which its blobs are.
    content: PathBuf,
}

impl Containerd {
    /// Answers for the store at `root`. Blobs are read from the engine that listens at `content`.
    pub fn new(service: Arc<Service>, root: PathBuf, content: PathBuf) -> Containerd {
        Containerd { service, root, content }
    }

    /// The snapshots of the store, which is made where it is not there: with the first call, and when its
    /// directory was removed. Blocks.
    fn snapshots(&self) -> Result<Arc<Snapshots>, SnapshotError> {
        self.service.stores.snapshots(&self.root)
    }

    /// Opens the store, if there is one, before the first call.
    ///
    /// # Errors
    ///
    /// Why it does not open; it is tried again with the first call.
    pub async fn resume(self: &Arc<Self>) -> Result<(), CallError> {
        if !self.root.join("layerbox.json").exists() {
            return Ok(());
        }
        let this = self.clone();
        self.service.calls.short(move || Ok(this.snapshots().map(drop))).await?.map_err(CallError::Snapshot)
    }

    /// Runs a call on the snapshots, and writes down what came of it. `name` is the snapshot that it is
    /// about.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        operation: &'static str,
        name: &str,
        call: impl FnOnce(&Snapshots) -> Result<T, SnapshotError> + Send + 'static,
    ) -> Result<T, Status> {
        let mut watched = self.service.observer.begin(operation);
        name.clone_into(&mut watched.layer);
        let this = self.clone();
        let work = move || Ok(this.snapshots().and_then(|open| call(&open)));
        let calls = &self.service.calls;
        let answer = match name {
            "" => calls.short(work).await,
            // Which layer it has, only the record knows; what waits for the layer's lock is on the snapshot.
            _ => calls.on((self.root.clone(), name.to_owned()), work, drop).await,
        };
        let answer = answer.and_then(|answer| answer.map_err(CallError::Snapshot));
        watched.end(answer.as_ref().err());
        answer.map_err(|error| answer::status(&error))
    }

    /// Deletes what removed snapshots held, while nobody waits for it.
    fn sweep_later(self: &Arc<Self>) {
        let this = self.clone();
        tokio::spawn(async move {
            let sweeping = this.clone();
            let sweep = move || Ok(sweeping.snapshots().and_then(|open| open.sweep_unless_swept()));
            let error = match this.service.calls.short(sweep).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(error) => error.to_string(),
            };
            let what = "the layer of a removed snapshot is not deleted yet";
            this.service.observer.log.warn(what, &[("error", error.into())]);
        });
    }
}

/// A socket's services, with what they share.
#[derive(Debug, Clone)]
struct Front(Arc<Containerd>);

impl Router for Containerd {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let service = request.uri().path().split('/').nth(1).unwrap_or_default();
        let answered = match service {
            "containerd.services.snapshots.v1.Snapshots" => {
                SnapshotsServer::new(Front(self)).call(request).await
            }
            "containerd.services.diff.v1.Diff" => DiffServer::new(Front(self)).call(request).await,
            other => Ok(Status::unimplemented(format!("there is no service {other:?} here")).into_http()),
        };
        answered.unwrap_or_else(|never| match never {})
    }
}

/// Whose snapshots a call is about.
fn scope(metadata: &MetadataMap, snapshotter: String) -> Result<Scope, Status> {
    let namespace = match metadata.get(NAMESPACE) {
        None => None,
        Some(value) => {
            let text =
                value.to_str().map_err(|_| Status::invalid_argument("the namespace is no plain text"))?;
            Some(text.to_owned()).filter(|text| !text.is_empty())
        }
    };
    Ok(Scope { snapshotter, namespace })
}
