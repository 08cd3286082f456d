//! The diff service: blobs become the content of snapshots, and snapshots blobs, by way of the component.
//!
//! A blob is streamed from the engine's content store into the component, which unpacks it; what it unpacks
//! comes back by a sink and is digested here. The layer is shown only if the blob was what its digest says.
//! What is not a layer of this store is left to the engine (`UNIMPLEMENTED`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use layerbox_containerd::services::content::v1::ReadContentResponse;
use layerbox_containerd::services::diff::v1::diff_server;
use layerbox_containerd::services::diff::v1::{ApplyRequest, ApplyResponse, DiffRequest, DiffResponse};
use layerbox_containerd::types::{self, Descriptor};
use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout, timeout_at};
use tonic::{Request, Response, Status, Streaming};

use super::content::{Content, engine};
use super::digest::{Digested, Digesting, Passing};
use super::media::{LAYER, packing};
use super::{Containerd, Front, answer, compare, scope};
use crate::driver::{Acceptance, ApplyOptions, Driver, Totals};
use crate::error::{Error, Failure};
use crate::serve::calls::{CallError, Transfer, Way};
use crate::serve::docker::upload::{Archive, Batch};
use crate::serve::observer::Observer;
use crate::snapshots::error::SnapshotError;
use crate::snapshots::mounts::{Mount, Named, named};

/// How many pieces of a blob wait to be applied. containerd's are of 1 MiB.
const QUEUE: usize = 8;

/// What is unpacked is digested in pieces of so many bytes: each that is handed on can cost as much as a
/// thread that is woken.
const PIECE: usize = 512 << 10;

/// A blob to unpack.
struct Unpacking {
    layer: String,
    blob: Descriptor,
    content: Content,
}

#[tonic::async_trait]
impl diff_server::Diff for Front {
    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let namespace = scope(&metadata, String::new())?.namespace;
        let content = Content::of_call(self.0.content.clone(), namespace, &metadata);
        let mut watched = self.0.service.observer.begin("apply-blob");
        let blob = asked.diff.unwrap_or_default();
        watched.layer.clone_from(&blob.digest);
        let unpacked = async {
            if packing(&blob.media_type).is_none() {
                return Err(not_ours(format!("blobs of media type {:?}", blob.media_type)));
            }
            let (layer, own) = self.0.layer_to_fill(mounts(asked.mounts)).await?;
            self.0.unpack(Unpacking { layer, blob, content: content.or_in(own) }, &mut watched.bytes_in).await
        };
        let result = unpacked.await;
        watched.end(result.as_ref().err());
        let unpacked = result.map_err(|error| answer::status(&error))?;
        let applied = Descriptor {
            media_type: LAYER.to_owned(),
            digest: unpacked.digest,
            size: i64::try_from(unpacked.length).unwrap_or(i64::MAX),
            annotations: Default::default(),
        };
        Ok(Response::new(ApplyResponse { applied: Some(applied) }))
    }

    async fn diff(&self, request: Request<DiffRequest>) -> Result<Response<DiffResponse>, Status> {
        let (metadata, _, asked) = request.into_parts();
        let namespace = scope(&metadata, String::new())?.namespace;
        let content = Content::of_call(self.0.content.clone(), namespace, &metadata);
        let mut watched = self.0.service.observer.begin("compare");
        let result = compare::compare(&self.0, asked, content, &mut watched).await;
        watched.end(result.as_ref().err());
        let blob = result.map_err(|error| answer::status(&error))?;
        Ok(Response::new(DiffResponse { diff: Some(blob) }))
    }
}

/// The mounts of a request.
pub(super) fn mounts(mounts: Vec<types::Mount>) -> Vec<Mount> {
    let mount =
        |mount: types::Mount| Mount { kind: mount.r#type, source: mount.source, options: mount.options };
    mounts.into_iter().map(mount).collect()
}

/// This is left to the engine.
pub(super) fn not_ours(what: String) -> CallError {
    CallError::Snapshot(SnapshotError::NotOurs(what))
}

impl Containerd {
    /// The layer that mounts name, which must be one to write, and the namespace of its snapshot.
    async fn layer_to_fill(
        self: &Arc<Self>,
        mounts: Vec<Mount>,
    ) -> Result<(String, Option<String>), CallError> {
        let this = self.clone();
        let look = move || {
            Ok(this.snapshots().and_then(|open| match named(open.driver(), &mounts)? {
                Named::Writable(layer) => {
                    let namespace = open.to_fill(&layer)?;
                    Ok((layer, namespace))
                }
                Named::ReadOnly(layer) => {
                    Err(SnapshotError::Precondition(format!("layer {layer} is to be read only")))
                }
            }))
        };
        self.service.calls.short(look).await?.map_err(CallError::Snapshot)
    }

    /// Unpacks a blob, and answers what it is without compression.
    async fn unpack(self: &Arc<Self>, unpacking: Unpacking, count: &mut u64) -> Result<Digested, CallError> {
        let Unpacking { layer, blob, content } = unpacking;
        let stall = self.service.calls.stall();
        let opened = timeout(stall, content.read(&blob.digest)).await;
        let mut stream = opened.map_err(|_| CallError::Stalled(stall.as_secs()))??;
        let (sender, batches) = mpsc::channel(QUEUE);
        let this = self.clone();
        let begun = self.service.calls.transfer(Way::In, move || {
            let snapshots = this.snapshots().map_err(|error| error.during("apply-diff"))?;
            fill(&this.service.observer, snapshots.driver(), &layer, &blob, Archive::new(batches))
        });
        let mut transfer = begun.await?;
        let sent = pump(&mut stream, sender, &transfer, stall, count).await;
        let result = transfer.end().await;
        sent?;
        Ok(result?.1)
    }
}

/// Hands a blob on until it ends, or nobody wants more of it.
async fn pump(
    stream: &mut Streaming<ReadContentResponse>,
    sender: mpsc::Sender<Batch>,
    transfer: &Transfer<(Totals, Digested)>,
    stall: Duration,
    count: &mut u64,
) -> Result<(), CallError> {
    let mut deadline = std::pin::pin!(sleep_until(transfer.until));
    loop {
        let message = tokio::select! {
            biased;
            () = sender.closed() => return Ok(()),
            // However steadily it comes.
            () = deadline.as_mut() => return Err(transfer.late()),
            message = timeout(stall, stream.message()) => message,
        };
        let batch = match message {
            Err(_) => return Err(CallError::Stalled(stall.as_secs())),
            Ok(Err(status)) => return Err(engine(&status)),
            Ok(Ok(Some(message))) => {
                *count += message.data.len() as u64;
                Batch::Pieces(vec![message.data])
            }
            Ok(Ok(None)) => Batch::End,
        };
        let ended = matches!(batch, Batch::End);
        match timeout_at(transfer.until, sender.send(batch)).await {
            Err(_) => return Err(transfer.late()),
            Ok(Err(_)) => return Ok(()),
            Ok(Ok(())) if ended => return Ok(()),
            Ok(Ok(())) => {}
        }
    }
}

/// Fills a layer from a blob. Blocks.
fn fill(
    observer: &Observer,
    driver: &Driver,
    layer: &str,
    blob: &Descriptor,
    archive: Archive,
) -> Result<(Totals, Digested), Error> {
    let during = |e: io::Error| Failure::io("digest", &e).during("apply-diff", None);
    let (mut packed, mut unpacked) =
        (Digesting::begin().map_err(during)?, Digesting::begin().map_err(during)?);
    let no_input = || during(io::Error::other("no input"));
    let archive = Passing::new(archive, packed.input().ok_or_else(no_input)?);
    let sink = unpacked.input().ok_or_else(no_input)?;
    let (told, answer) = std::sync::mpsc::channel();
    let wanted = (blob.digest.clone(), u64::try_from(blob.size).unwrap_or(0));
    let accept = move || {
        let io = |e: io::Error| Failure::io("digest", &e);
        let (packed, unpacked) = (packed.end().map_err(io)?, unpacked.end().map_err(io)?);
        if packed.digest != wanted.0 || (wanted.1 > 0 && packed.length != wanted.1) {
            let rule = format!(
                "the blob is not what its digest says: it has {} and {} bytes",
                packed.digest, packed.length
            );
            return Err(Failure::Refused { entry: Vec::new(), rule });
        }
        // An archive that is not packed does not come by as one that was unpacked.
        let whole = if unpacked.length == 0 { packed } else { unpacked };
        drop(told.send(whole));
        Ok(())
    };
    // A union that the host mounted is taken away while its layer is filled; the engine has not mounted it
    // yet.
    let was_mounted = driver.metadata(layer)?.mounts > 0;
    if was_mounted {
        driver.put(layer)?;
    }
    let acceptance = Acceptance {
        unpacked: Box::new(io::BufWriter::with_capacity(PIECE, sink)),
        accept: Box::new(accept),
    };
    let options = ApplyOptions { sync: true, ..ApplyOptions::default() };
    let result = driver.apply_tested(layer, Box::new(archive), &options, acceptance);
    let mounted_again = if was_mounted { driver.get(layer, None).map(drop) } else { Ok(()) };
    // What the blob was refused for is told before what went wrong after it.
    let totals = result?;
    mounted_again?;
    observer.filled(layer, &options.progress);
    let whole = answer.recv().map_err(|_| no_input())?;
    Ok((totals, whole))
}
