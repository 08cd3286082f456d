//! `Diff`: what differs between two snapshots, written by the component, packed here, and streamed into the
//! engine's content store.
//!
//! The same layers give the same bytes: the component's archive has no times of its own, and the compressors
//! have none either.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use layerbox_containerd::services::content::v1::{WriteAction, WriteContentRequest, WriteContentResponse};
use layerbox_containerd::services::diff::v1::DiffRequest;
use layerbox_containerd::types::Descriptor;
use nix::fcntl::{FcntlArg, fcntl};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use super::Containerd;
use super::content::{Content, engine};
use super::diff::{mounts, not_ours};
use super::digest::{Digested, Digesting, Passing};
use super::media::{LAYER, Packing, packing};
use crate::driver::DiffOutcome;
use crate::error::Failure;
use crate::serve::calls::{Bounds, CallError, Transfer, Way};
use crate::serve::observer::Watched;
use crate::snapshots::error::SnapshotError;
use crate::snapshots::model::Time;
use crate::snapshots::mounts::{Mount, Named, named};

/// The label of a packed blob that says what it is unpacked, as containerd's own differ sets it.
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
/// The size of the pipe in bytes, as for archives that go to Docker.
const PIPE: i32 = 1 << 20;
/// Bytes in a message to the content store, of which containerd takes 4 MiB at most.
const PIECE: usize = 1 << 20;
/// How many messages wait.
const QUEUE: usize = 4;

/// Two sides: the layer, and what it is compared with.
#[derive(Debug)]
struct Sides {
    layer: String,
    other: Other,
    /// Whose they are.
    namespace: Option<String>,
}

/// What a layer is compared with.
#[derive(Debug)]
enum Other {
    /// Its parent or, where it has none, nothing.
    Parent,
    /// This layer.
    Layer(String),
    /// Nothing, though it has a parent: all that it shows is the difference.
    Nothing,
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
    let mut upload = Upload::new(&content, &sides.layer, asked.r#ref);
    let (mut archive, mut packer, pieces) = begin(front, sides, packing).await?;
    let bounds = archive.bounds(stall);
    let sent = upload.send(pieces, bounds, watched).await;
    // Whoever comes first, no blob is made of an archive before it is known to be whole.
    let (packed, written) = (packer.end().await, archive.end().await);
    let made = match cause(sent, packed, written) {
        Ok((whole, blob)) => {
            let uncompressed = (packing != Packing::Plain).then_some(whole.digest);
            upload.commit(blob, asked.labels, uncompressed, bounds).await
        }
        Err(error) => Err(error),
    };
    if made.is_err() {
        upload.abort(stall).await;
    }
    let blob = made?;
    Ok(Descriptor {
        media_type,
        digest: blob.digest,
        size: i64::try_from(blob.length).unwrap_or(i64::MAX),
        annotations: HashMap::new(),
    })
}

/// What was packed or, where something failed, the first cause: an error of the archive, but that nobody read
/// it any more; then one of who reads.
fn cause<W>(
    sent: Result<(), CallError>,
    packed: Result<Packed, CallError>,
    written: Result<W, CallError>,
) -> Result<Packed, CallError> {
    let nobody_read = |error: &CallError| match error {
        CallError::Driver(error) => {
            matches!(error.failure, Failure::Io { code, .. } if code == nix::libc::EPIPE)
        }
        _ => false,
    };
    match written {
        Err(error) if !nobody_read(&error) => Err(error),
        written => {
            sent?;
            let packed = packed?;
            written?;
            Ok(packed)
        }
    }
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
        // No mounts at all are an empty directory to containerd's own differ. BuildKit asks so for a layer
        // that lies on nothing.
        let lower = if left.is_empty() { None } else { Some(layer(&left)?) };
        let layer = layer(&right)?;
        let namespace = open.namespace_of(&layer)?;
        let layer = open.content_of(layer)?;
        let lower = lower.map(|lower| open.content_of(lower)).transpose()?;
        let parent = driver.ancestors(&layer)?.first().map(|parent| parent.to_string());
        let other = match lower {
            None if parent.is_none() => Other::Parent,
            None => Other::Nothing,
            Some(lower) if parent.as_ref() == Some(&lower) => Other::Parent,
            Some(lower) if parent.is_none() && driver.is_empty(&lower)? => Other::Parent,
            Some(lower) => Other::Layer(lower),
        };
        Ok(Sides { layer, other, namespace })
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
    let archive = front.service.calls.transfer(Way::Out, move || {
        let plain = |error: SnapshotError| error.during("diff");
        let open = this.snapshots().map_err(plain)?;
        let write = |other: Option<&str>| open.driver().diff(&sides.layer, other, OwnedFd::from(writer));
        match &sides.other {
            Other::Parent => write(None),
            Other::Layer(other) => write(Some(other)),
            Other::Nothing => open.with_nothing(|nothing| write(Some(nothing))).map_err(plain)?,
        }
    });
    let archive = archive.await?;
    let (sender, pieces) = mpsc::channel(QUEUE);
    let packed = front.service.calls.transfer(Way::In, move || {
        pack(reader, packing, Outgoing(sender)).map_err(|e| Failure::io("pack", &e).during("diff", None))
    });
    Ok((archive, packed.await?, pieces))
}

/// Packs an archive. Blocks.
fn pack(archive: io::PipeReader, packing: Packing, out: Outgoing) -> io::Result<Packed> {
    let no_input = || io::Error::other("no input");
    let (mut whole, mut blob) = (Digesting::begin()?, Digesting::begin()?);
    let mut archive = InBlocks(Passing::new(archive, whole.input().ok_or_else(no_input)?));
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

/// A stream of which each read but the last fills its buffer: what a packer makes of bytes depends on the
/// pieces in which it gets them, and a pipe gives them as it happens to be filled.
struct InBlocks<S>(S);

impl<S: Read> Read for InBlocks<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
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

/// Tells the writings of this process from each other.
static WRITINGS: AtomicU64 = AtomicU64::new(0);

/// A writing to the content store.
struct Upload<'a> {
    content: &'a Content,
    /// Its name there.
    reference: String,
    /// Whether the name was made here: then the writing is ours to end.
    own: bool,
    /// How many bytes were sent.
    offset: i64,
    /// Once it is open.
    stream: Option<(mpsc::Sender<WriteContentRequest>, Streaming<WriteContentResponse>)>,
}

impl<'a> Upload<'a> {
    /// One of a layer, under the name that the client gives.
    fn new(content: &'a Content, layer: &str, given: String) -> Upload<'a> {
        let own = given.is_empty();
        let reference = if own {
            let began = Time::now();
            let number = WRITINGS.fetch_add(1, Ordering::Relaxed);
            format!("layerbox-{layer}-{}.{}-{number}", began.seconds, began.nanos)
        } else {
            given
        };
        Upload { content, reference, own, offset: 0, stream: None }
    }

    /// A request of this writing.
    fn request(&self, action: WriteAction, data: Bytes) -> WriteContentRequest {
        WriteContentRequest {
            action: action.into(),
            r#ref: self.reference.clone(),
            offset: self.offset,
            data,
            ..WriteContentRequest::default()
        }
    }

    /// Sends all pieces.
    async fn send(
        &mut self,
        mut pieces: mpsc::Receiver<Bytes>,
        bounds: Bounds,
        watched: &mut Watched,
    ) -> Result<(), CallError> {
        let (requests, feed) = mpsc::channel(QUEUE);
        // Before the call: containerd does not answer at all until it has heard something.
        requests.send(self.request(WriteAction::Stat, Bytes::new())).await.map_err(|_| gone())?;
        let request = self.content.request(ReceiverStream::new(feed))?;
        let mut client = bounds.theirs(self.content.connect()).await??;
        let opened = bounds.theirs(client.write(request)).await?;
        let answers = opened.map_err(|status| engine(&status))?.into_inner();
        self.stream = Some((requests, answers));
        self.answered(bounds).await?;
        while let Some(data) = bounds.ours(pieces.recv()).await? {
            let length = data.len() as u64;
            self.ask(self.request(WriteAction::Write, data), bounds).await?;
            self.answered(bounds).await?;
            self.offset += i64::try_from(length).unwrap_or_default();
            watched.bytes_out += length;
        }
        Ok(())
    }

    /// Makes a blob of all that was sent. `uncompressed` is the digest of what is packed in it.
    async fn commit(
        &mut self,
        blob: Digested,
        mut labels: HashMap<String, String>,
        uncompressed: Option<String>,
        bounds: Bounds,
    ) -> Result<Digested, CallError> {
        let label = uncompressed.map(|digest| (UNCOMPRESSED, digest));
        labels.extend(label.iter().map(|(name, digest)| ((*name).to_owned(), digest.clone())));
        let request = WriteContentRequest {
            total: self.offset,
            expected: blob.digest.clone(),
            labels,
            ..self.request(WriteAction::Commit, Bytes::new())
        };
        self.ask(request, bounds).await?;
        let (_, answers) = self.stream.as_mut().ok_or_else(gone)?;
        match bounds.theirs(answers.message()).await? {
            // Somebody has written the same bytes before.
            Err(status) if status.code() == Code::AlreadyExists => {
                bounds.theirs(self.content.adopt(&blob.digest, label)).await??;
            }
            answer => drop(answer.map_err(|status| engine(&status))?.ok_or_else(gone)?),
        }
        Ok(blob)
    }

    async fn ask(&self, request: WriteContentRequest, bounds: Bounds) -> Result<(), CallError> {
        let (requests, _) = self.stream.as_ref().ok_or_else(gone)?;
        bounds.theirs(requests.send(request)).await?.map_err(|_| gone())
    }

    async fn answered(&mut self, bounds: Bounds) -> Result<(), CallError> {
        let (_, answers) = self.stream.as_mut().ok_or_else(gone)?;
        let answer = bounds.theirs(answers.message()).await?.map_err(|status| engine(&status))?;
        answer.map(drop).ok_or_else(gone)
    }

    /// Ends a writing that came to nothing, if it is ours: under a name that a client gives, it can go on
    /// with it. Where ending it fails, containerd's garbage collector does it.
    async fn abort(&mut self, stall: Duration) {
        // It holds the name as long as it is open.
        if self.stream.take().is_some() && self.own {
            drop(timeout(stall, self.content.abort(&self.reference)).await);
        }
    }
}

/// The error of a stream that ended before its time.
fn gone() -> CallError {
    CallError::Engine("containerd's content store does not listen any more".to_owned())
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
