//! The snapshots service: requests taken apart, and answers put together.

use std::collections::HashMap;
use std::pin::Pin;

use layerbox_containerd::services::snapshots::v1::snapshots_server;
use layerbox_containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, ListSnapshotsRequest, ListSnapshotsResponse, MountsRequest,
    MountsResponse, PrepareSnapshotRequest, PrepareSnapshotResponse, RemoveSnapshotRequest,
    StatSnapshotRequest, StatSnapshotResponse, UpdateSnapshotRequest, UpdateSnapshotResponse, UsageRequest,
    UsageResponse, ViewSnapshotRequest, ViewSnapshotResponse,
};
use tonic::codegen::tokio_stream::{self, Stream};
use tonic::{Request, Response, Status};

use super::{Front, answer, scope};
use crate::snapshots::New;
use crate::snapshots::filter::Filters;
use crate::snapshots::model::Kind;

/// How many snapshots a message of a list holds, as in containerd's own service.
const PER_MESSAGE: usize = 100;

type Answer<T> = Result<Response<T>, Status>;

/// A snapshot that is asked for.
fn new(key: String, parent: String, labels: HashMap<String, String>, kind: Kind) -> New {
    let parent = Some(parent).filter(|parent| !parent.is_empty());
    New { key, parent, labels: labels.into_iter().collect(), kind }
}

#[tonic::async_trait]
impl snapshots_server::Snapshots for Front {
    async fn prepare(&self, request: Request<PrepareSnapshotRequest>) -> Answer<PrepareSnapshotResponse> {
        let (metadata, _, asked) = request.into_parts();
        let scope = scope(&metadata, asked.snapshotter)?;
        let new = new(asked.key.clone(), asked.parent, asked.labels, Kind::Active);
        let prepared = self.0.run("prepare", &asked.key, move |open| open.prepare(&scope, new)).await?;
        Ok(Response::new(PrepareSnapshotResponse { mounts: answer::mounts(prepared) }))
    }

    async fn view(&self, request: Request<ViewSnapshotRequest>) -> Answer<ViewSnapshotResponse> {
        let (metadata, _, asked) = request.into_parts();
        let scope = scope(&metadata, asked.snapshotter)?;
        let new = new(asked.key.clone(), asked.parent, asked.labels, Kind::View);
        let prepared = self.0.run("view", &asked.key, move |open| open.prepare(&scope, new)).await?;
        Ok(Response::new(ViewSnapshotResponse { mounts: answer::mounts(prepared) }))
    }

    async fn mounts(&self, request: Request<MountsRequest>) -> Answer<MountsResponse> {
        let (metadata, _, MountsRequest { snapshotter, key }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let about = key.clone();
        let mounts = self.0.run("mounts", &about, move |open| open.mounts(&scope, &key)).await?;
        Ok(Response::new(MountsResponse { mounts: answer::mounts(mounts) }))
    }

    async fn commit(&self, request: Request<CommitSnapshotRequest>) -> Answer<()> {
        let (metadata, _, asked) = request.into_parts();
        let scope = scope(&metadata, asked.snapshotter)?;
        let (about, labels) = (asked.key.clone(), asked.labels.into_iter().collect());
        let call =
            self.0.run("commit", &about, move |open| open.commit(&scope, &asked.name, &asked.key, labels));
        call.await?;
        Ok(Response::new(()))
    }

    async fn remove(&self, request: Request<RemoveSnapshotRequest>) -> Answer<()> {
        let (metadata, _, RemoveSnapshotRequest { snapshotter, key }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let about = key.clone();
        self.0.run("remove-snapshot", &about, move |open| open.remove(&scope, &key)).await?;
        self.0.sweep_later();
        Ok(Response::new(()))
    }

    async fn stat(&self, request: Request<StatSnapshotRequest>) -> Answer<StatSnapshotResponse> {
        let (metadata, _, StatSnapshotRequest { snapshotter, key }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let about = key.clone();
        let found = self.0.run("stat", &about, move |open| open.stat(&scope, &key)).await?;
        Ok(Response::new(StatSnapshotResponse { info: Some(answer::info(found)) }))
    }

    async fn update(&self, request: Request<UpdateSnapshotRequest>) -> Answer<UpdateSnapshotResponse> {
        let (metadata, _, UpdateSnapshotRequest { snapshotter, info, update_mask }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let info = info.ok_or_else(|| Status::invalid_argument("the snapshot to update is not named"))?;
        let fields = update_mask.map(|mask| mask.paths).unwrap_or_default();
        let labels = info.labels.into_iter().collect();
        let about = info.name.clone();
        let call = self.0.run("update", &about, move |open| open.update(&scope, &info.name, labels, &fields));
        Ok(Response::new(UpdateSnapshotResponse { info: Some(answer::info(call.await?)) }))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<ListSnapshotsResponse, Status>> + Send>>;

    async fn list(&self, request: Request<ListSnapshotsRequest>) -> Answer<Self::ListStream> {
        let (metadata, _, ListSnapshotsRequest { snapshotter, filters }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let call = self.0.run("list-snapshots", "", move |open| {
            let filters = Filters::parse(filters.iter().map(String::as_str))?;
            open.list(&scope, &filters)
        });
        let mut infos = call.await?.into_iter().map(answer::info).peekable();
        let mut messages = Vec::new();
        while infos.peek().is_some() {
            messages.push(Ok(ListSnapshotsResponse { info: infos.by_ref().take(PER_MESSAGE).collect() }));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn usage(&self, request: Request<UsageRequest>) -> Answer<UsageResponse> {
        let (metadata, _, UsageRequest { snapshotter, key }) = request.into_parts();
        let scope = scope(&metadata, snapshotter)?;
        let about = key.clone();
        let usage = self.0.run("usage", &about, move |open| open.usage(&scope, &key)).await?;
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(Response::new(UsageResponse { size: number(usage.bytes), inodes: number(usage.inodes) }))
    }

    async fn cleanup(&self, _: Request<CleanupRequest>) -> Answer<()> {
        self.0.run("cleanup-snapshots", "", |open| open.sweep()).await?;
        Ok(Response::new(()))
    }
}
