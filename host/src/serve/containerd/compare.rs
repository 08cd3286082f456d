//! `Diff`: what differs between two snapshots, written by the component, packed here, and streamed into the engine's content store.
//!
//! The same layers give the same bytes: the component's archive has no times of its own, and the compressors have none either.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use layerbox_containerd::services::content::v1::{AbortRequest, WriteAction, WriteContentRequest};
use layerbox_containerd::services::diff::v1::DiffRequest;
use layerbox_containerd::types::Descriptor;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::Code;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;

use super::Containerd;
use super::content::{Content, engine};
use super::diff::{mounts, not_ours};
use super::digest::{Digested, Digesting, Passing};
use super::media::{LAYER, Packing, packing};
use crate::driver::DiffOutcome;
use crate::error::Failure;
use crate::serve::calls::{CallError, Transfer};
use crate::serve::observer::Watched;
use crate::snapshots::error::SnapshotError;
use crate::snapshots::mounts::{Mount, Named, named};

/// The label of a packed blob that says what it is unpacked, as containerd's own differ sets it.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The size of the pipe in bytes, as for archives that go to Docker.
const PIPE: i32 = 1 << 20;
/// Bytes in a message to the content store, of which containerd takes 4 MiB at most.
const PIECE: usize = 1 << 20;
/// How many messages wait.
const QUEUE: usize = 4;

/// Two sides: the layer, and the one that it is compared with where that is not its parent.
#[derive(Debug)]
struct Sides {
    layer: String,
    other: Option<String>,
    /// Whose they are.
    namespace: Option<String>,
}

/// Writes what differs between two snapshots into the content store, and answers with what was written.
pub(super) async fn compare(
    front: &Arc<Containerd>,
    asked: DiffRequest,
    content: Content,
    watched: &mut Watched,
) -> Result<Descriptor, CallError> {
    if asked.source_date_epoch.is_some() {
        return Err(not_ours("an archive whose times are cut off".to_owned()));
    }
    let media_type =
        if asked.media_type.is_empty() { format!("{LAYER}+gzip") } else { asked.media_type.clone() };
    let packing =
        packing(&media_type).ok_or_else(|| not_ours(format!("blobs of media type {media_type:?}")))?;
    let sides = sides(front, mounts(asked.left), mounts(asked.right)).await?;
    watched.layer.clone_from(&sides.layer);
    let mut content = content.or_in(sides.namespace.clone());
    let stall = front.service.calls.stall();
    timeout(stall, content.keep()).await.map_err(|_| CallError::Stalled(stall.as_secs()))??;
    let reference = match asked.r#ref.as_str() {
        "" => format!("layerbox-{}-{}", sides.layer, std::process::id()),
        given => given.to_owned(),
    };
    let (mut archive, mut packer, pieces) = begin(front, sides, packing).await?;
    let mut upload = Upload { front, content: &content, reference, labels: asked.labels, packing };
    let sent = upload.run(pieces, &mut packer, watched).await;
    let written = archive.end().await;
    if sent.is_err() || written.is_err() {
        upload.abort().await;
    }
    // The archive's own error says more than that of those who wait for it.
    written?;
    let blob = sent?;
    Ok(Descriptor {
        media_type,
        digest: blob.digest,
        size: i64::try_from(blob.length).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    })
}

/// Which layers the mounts of the two sides are of.
async fn sides(front: &Arc<Containerd>, left: Vec<Mount>, right: Vec<Mount>) -> Result<Sides, CallError> {
    let this = front.clone();
    let look = move || -> Result<Sides, SnapshotError> {
        let open = this.snapshots()?;
        let driver = open.driver();
        let layer = |mounts: &[Mount]| match named(driver, mounts)? {
            Named::Writable(layer) | Named::ReadOnly(layer) => Ok::<_, SnapshotError>(layer),
        };
        let (lower, layer) = (layer(&left)?, layer(&right)?);
        let namespace = open.namespace_of(&layer)?;
        let (lower, layer) = (open.content_of(lower)?, open.content_of(layer)?);
        let parent = driver.ancestors(&layer)?.first().map(|parent| parent.to_string());
        let lower_is_empty = parent.is_none() && driver.is_empty(&lower)?;
        let is_own = parent.as_ref() == Some(&lower) || lower_is_empty;
        Ok(Sides { layer, other: (!is_own).then_some(lower), namespace })
    };
    front.service.calls.short(move || Ok(look())).await?.map_err(CallError::Snapshot)
}

/// What was packed: the archive, and the blob.
type Packed = (Digested, Digested);

/// Begins to write and to pack.
async fn begin(
    front: &Arc<Containerd>,
    sides: Sides,
    packing: Packing,
) -> Result<(Transfer<DiffOutcome>, Transfer<Packed>, mpsc::Receiver<Bytes>), CallError> {
    let failed =
        |operation: &str, e: &io::Error| CallError::Driver(Failure::io(operation, e).during("diff", None));
    let (reader, writer) = io::pipe().map_err(|e| failed("pipe", &e))?;
    // It may be refused where a user has many pipes; the default does as well.
    let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE));
    let this = front.clone();
    let archive = front.service.calls.transfer(move || {
        let open = this.snapshots().map_err(|error| match error {
            SnapshotError::Driver(error) => error,
            other => Failure::Corrupt(other.to_string()).during("diff", None),
        })?;
        open.driver().diff(&sides.layer, sides.other.as_deref(), OwnedFd::from(writer))
    });
    let archive = archive.await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let packed = front.service.calls.transfer(move || {
        pack(reader, packing, Outgoing(sender)).map_err(|e| Failure::io("pack", &e).during("diff", None))
    });
    Ok((archive, packed.await?, pieces))
}

/// Packs an archive. Blocks.
fn pack(archive: io::PipeReader, packing: Packing, out: Outgoing) -> io::Result<Packed> {
    let no_input = || io::Error::other("no input");
    let (mut whole, mut blob) = (Digesting::begin()?, Digesting::begin()?);
    let mut archive = Passing::new(archive, whole.input().ok_or_else(no_input)?);
    let out = Passing::new(out, blob.input().ok_or_else(no_input)?);
    let mut out = io::BufWriter::with_capacity(PIECE, out);
    match packing {
        Packing::Plain => {
            io::copy(&mut archive, &mut out)?;
        }
        Packing::Gzip => {
            // Neither a name nor a time in the header: the same archive gives the same blob.
            let mut packer = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            io::copy(&mut archive, &mut packer)?;
            packer.finish()?;
        }
        Packing::Zstd => {
            let mut faults = (Ok(()), Ok(()));
            let source = Kept { stream: &mut archive, fault: &mut faults.0 };
            let drain = Kept { stream: &mut out, fault: &mut faults.1 };
            ruzstd::encoding::compress(source, drain, ruzstd::encoding::CompressionLevel::Fastest);
            faults.0.and(faults.1)?;
        }
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.flush()?;
    drop(archive);
    Ok((whole.end()?, blob.end()?))
}

/// A stream for a packer that knows no errors: the first ends it, and is kept.
struct Kept<'a, S> {
    stream: S,
    fault: &'a mut io::Result<()>,
}

impl<S: Read> Read for Kept<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_err() {
            return Ok(0);
        }
        match self.stream.read(buffer) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                *self.fault = Err(error);
                Ok(0)
            }
            other => other,
        }
    }
}

impl<S: Write> Write for Kept<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.fault.is_ok() {
            *self.fault = self.stream.write_all(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A writing to the content store.
struct Upload<'a> {
    front: &'a Arc<Containerd>,
    content: &'a Content,
    reference: String,
    labels: HashMap<String, String>,
    packing: Packing,
}

impl Upload<'_> {
    /// Sends all pieces, and makes a blob of them.
    async fn run(
        &mut self,
        mut pieces: mpsc::Receiver<Bytes>,
        packer: &mut Transfer<Packed>,
        watched: &mut Watched,
    ) -> Result<Digested, CallError> {
        let (requests, feed) = mpsc::channel(QUEUE);
        let mut offset = 0;
        let first = WriteContentRequest {
            action: WriteAction::Stat.into(),
            r#ref: self.reference.clone(),
            ..WriteContentRequest::default()
        };
        // Before the call: containerd does not answer at all until it has heard something.
        let gone = || CallError::Engine("containerd's content store does not listen any more".to_owned());
        requests.send(first).await.map_err(|_| gone())?;
        let stall = self.front.service.calls.stall();
        let late = |_| CallError::Stalled(stall.as_secs());
        let request = self.content.request(ReceiverStream::new(feed))?;
        let mut client = self.content.connect().await?;
        let opened = timeout(stall, client.write(request)).await.map_err(late)?;
        let mut answers = opened.map_err(|status| engine(&status))?.into_inner();
        timeout(stall, answers.message()).await.map_err(late)?.map_err(|status| engine(&status))?;
        while let Some(data) = pieces.recv().await {
            let length = data.len() as u64;
            let request = WriteContentRequest {
                action: WriteAction::Write.into(),
                r#ref: self.reference.clone(),
                offset,
                data,
                ..WriteContentRequest::default()
            };
            requests.send(request).await.map_err(|_| gone())?;
            timeout(stall, answers.message()).await.map_err(late)?.map_err(|status| engine(&status))?;
            offset += i64::try_from(length).unwrap_or_default();
            watched.bytes_out += length;
        }
        let (whole, blob) = packer.end().await?;
        if self.packing != Packing::Plain {
            self.labels.insert(UNCOMPRESSED.to_owned(), whole.digest);
        }
        let request = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: self.reference.clone(),
            total: offset,
            expected: blob.digest.clone(),
            offset,
            labels: std::mem::take(&mut self.labels),
            ..WriteContentRequest::default()
        };
        requests.send(request).await.map_err(|_| gone())?;
        match timeout(stall, answers.message()).await.map_err(late)? {
            Err(status) if status.code() == Code::AlreadyExists => Ok(blob),
            Err(status) => Err(engine(&status)),
            Ok(_) => Ok(blob),
        }
    }

    /// Ends a writing that came to nothing. Where that fails, containerd's garbage collector does it.
    async fn abort(&self) {
        let request = self.content.request(AbortRequest { r#ref: self.reference.clone() });
        if let (Ok(request), Ok(mut client)) = (request, self.content.connect().await) {
            drop(timeout(self.front.service.calls.stall(), client.abort(request)).await);
        }
    }
}

/// The end of a stream of pieces that is written to.
struct Outgoing(mpsc::Sender<Bytes>);

impl Write for Outgoing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..bytes.len().min(PIECE)];
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(Bytes::copy_from_slice(bytes)).map_err(gone)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
