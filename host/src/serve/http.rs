//! HTTP over a unix socket: connections, bodies, and how they end when the service does.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{ALLOW, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use super::calls::CallError;
use super::peer::Process;

/// How far the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Calls are answered.
    Running,
    /// No more calls are taken; those under way go on.
    Draining,
    /// Calls under way are cut off.
    Ending,
}

/// A piece of a stream. The end is a piece of its own, so that a sender that is dropped, whatever for, does
/// not look like one.
#[derive(Debug)]
pub enum Piece {
    /// Bytes.
    Data(Bytes),
    /// The clean end.
    End,
}

/// A stream that broke off.
#[derive(Debug, thiserror::Error)]
#[error("the stream broke off")]
pub struct Broken;

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    /// All of it.
    Whole(Option<Bytes>),
    /// Piece by piece. What ends without [`Piece::End`] breaks the connection.
    Stream(mpsc::Receiver<Piece>),
    /// A stream that came to its end.
    Ended,
}

impl Body for Content {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut *self {
            Content::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Content::Ended => Poll::Ready(None),
            Content::Stream(pieces) => {
                let piece = std::task::ready!(pieces.poll_recv(context));
                Poll::Ready(match piece {
                    Some(Piece::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                    Some(Piece::End) => {
                        *self = Content::Ended;
                        None
                    }
                    None => {
                        *self = Content::Ended;
                        Some(Err(Broken))
                    }
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Content::Whole(None) | Content::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Content::Ended => SizeHint::with_exact(0),
            Content::Stream(_) => SizeHint::default(),
        }
    }
}

/// Names the methods that are allowed, as the answer to another one must (RFC 9110, section 15.5.6).
pub fn only(methods: &'static str, mut answer: Response<Content>) -> Response<Content> {
    answer.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

/// Why a body came to no end: it is not in the form that HTTP gives it, or its sender is gone.
pub fn broken_off(error: &(dyn std::error::Error + 'static)) -> CallError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)
        {
            return CallError::Request(format!("the body is malformed: {io}"));
        }
        cause = error.source();
    }
    CallError::Gone
}

/// A client of a connection.
#[derive(Debug, Clone)]
pub struct Client {
    /// Its process.
    pub process: Option<Process>,
    /// Cuts the connection off, where an answer that nobody reads is all that is left of it.
    pub cut: Arc<Notify>,
}

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Answers one.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: Client,
    ) -> impl Future<Output = Response<Content>> + Send;
}

/// Waits until a phase is over. Whoever would say so is gone at the end of the service; then all phases are.
pub async fn passed(watcher: &mut watch::Receiver<Phase>, phase: Phase) {
    drop(watcher.wait_for(|now| *now > phase).await);
}

/// How many connections a socket has at once; more wait to be taken.
const CONNECTIONS: usize = 1024;
/// How long after an error of accept(2), no descriptors left for one, it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is looked whether the client of a call under way is still there.
const LOOK: Duration = Duration::from_millis(100);

/// Answers on a socket until the phase is [`Phase::Draining`], and returns when all connections are closed.
pub async fn serve<H: Handler>(listener: UnixListener, handler: Arc<H>, phase: watch::Receiver<Phase>) {
    let watcher = phase.clone();
    accept(listener, CONNECTIONS, phase, |stream| connection(stream, handler.clone(), watcher.clone())).await;
}

/// Takes connections, at most so many at once, until the phase is [`Phase::Draining`], and returns when all
/// are closed.
pub(super) async fn accept<F>(
    listener: UnixListener,
    most: usize,
    mut phase: watch::Receiver<Phase>,
    connection: impl Fn(UnixStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = passed(&mut phase, Phase::Running) => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < most => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection<H: Handler>(stream: UnixStream, handler: Arc<H>, mut phase: watch::Receiver<Phase>) {
    let pid = Process::pid_of(&stream);
    // The stream itself goes to whoever reads requests from it.
    let Ok(line) = stream.as_fd().try_clone_to_owned() else { return };
    let line = Arc::new(line);
    // Looked up when there is a request: others may connect, and say nothing, as often as they like.
    let process = OnceLock::new();
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let process = *process.get_or_init(|| pid.and_then(Process::with_pid));
        let answer = handler.clone().answer(request, Client { process, cut: cut.clone() });
        let gone = hung_up(line.clone());
        async move {
            tokio::select! {
                biased;
                answer = answer => Ok(answer),
                () = gone => Err(CallError::Gone),
            }
        }
    });
    // A connection that idles is never closed here: dockerd keeps it for its next call, and what crosses the
    // closing it sends again with an empty body.
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.header_read_timeout(None::<Duration>);
    // A client may say that it sends no more, and wait for the answer.
    builder.half_close(true);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cut.notified() => return,
        () = passed(&mut phase, Phase::Running) => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        _ = connection.as_mut() => {}
        () = cut.notified() => {}
        () = passed(&mut phase, Phase::Draining) => {}
    }
}

/// Returns when the other end of a connection is closed, and not only for sending.
async fn hung_up(line: Arc<OwnedFd>) {
    loop {
        tokio::time::sleep(LOOK).await;
        // Without asking for anything: a hang-up and an error are told all the same (poll(2)).
        let mut polled = [PollFd::new(&*line, PollFlags::empty())];
        if poll(&mut polled, Some(&Timespec::default())).is_ok_and(|told| told > 0) {
            return;
        }
    }
}
