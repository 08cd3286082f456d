//! `GraphDriver.Diff`: the archive is the body of the answer.
//!
//! The archive goes through a pipe, into which the kernel copies large files by itself. The status is sent
//! with the first bytes: an error before them is an error of the call, one after them breaks the connection,
//! so that nobody takes half an archive for a whole one.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

use super::protocol::{LayerRequest, Operation, parse};
use super::{Docker, stream_error};
use crate::driver::DiffOutcome;
use crate::error::{Escaped, Failure};
use crate::serve::Service;
use crate::serve::calls::{CallError, Transfer, Way};
use crate::serve::http::{Client, Content, Piece};
use crate::serve::observer::Watched;

/// The size of the pipe in bytes: more than the default saves switches between two threads, and 1 MiB is what
/// anybody may have (pipe(7)).
const PIPE: i32 = 1 << 20;
/// The longest piece in bytes.
const PIECE: usize = 256 << 10;
/// How many pieces wait to be sent.
const QUEUE: usize = 2;

/// An archive that is being sent.
struct Download {
    service: Arc<Service>,
    pipe: pipe::Receiver,
    transfer: Transfer<DiffOutcome>,
    watched: Watched,
    client: Client,
}

impl Docker {
    pub(super) async fn diff(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: &Client,
        mut watched: Watched,
    ) -> Response<Content> {
        let (pipe, transfer, first) = match self.begin(request.into_body(), client, &mut watched).await {
            Ok(begun) => begun,
            Err(failed) => {
                watched.end(Some(&failed));
                return stream_error(&failed);
            }
        };
        let (sender, pieces) = mpsc::channel(QUEUE);
        let service = self.service.clone();
        let download = Download { service, pipe, transfer, watched, client: client.clone() };
        tokio::spawn(download.run(first, sender));
        let mut response = Response::new(Content::Stream(pieces));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
        response
    }

    /// Begins the call, and waits for its first bytes.
    async fn begin(
        &self,
        body: Incoming,
        client: &Client,
        watched: &mut Watched,
    ) -> Result<(pipe::Receiver, Transfer<DiffOutcome>, Bytes), CallError> {
        let body = self.body(body).await?;
        let request: LayerRequest = parse(&body, Operation::Diff).map_err(CallError::Request)?;
        request.id().clone_into(&mut watched.layer);
        let (reader, writer) = std::io::pipe().map_err(|e| io("pipe", &e))?;
        // It may be refused where a user has many pipes; the default does as well.
        let _ = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE));
        let mut pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(|e| io("epoll", &e))?;
        let target = self.engines.target(client.process);
        let service = self.service.clone();
        let begun = self.service.calls.transfer(Way::Out, move || {
            let driver = target.driver(&service.stores, false)?;
            driver.diff(request.id(), request.parent(), OwnedFd::from(writer))
        });
        let mut transfer = begun.await?;
        let first = next(&mut pipe, &transfer).await?;
        if first.is_empty() {
            // Nothing was written: it failed, for even an archive of nothing is 1024 bytes.
            transfer.end().await?;
            let what = "it wrote no archive".to_owned();
            return Err(CallError::Driver(Failure::GuestFailed(what).during("diff", None)));
        }
        Ok((pipe, transfer, first))
    }
}

impl Download {
    /// Sends the archive, and writes down what came of it.
    async fn run(mut self, first: Bytes, sender: mpsc::Sender<Piece>) {
        let result = self.pump(first, &sender).await;
        // Before the end is sent, so that the log has the call when the client has the archive.
        self.watched.end(result.as_ref().err());
        match result {
            // A client that is gone by now is of no interest.
            Ok(()) => drop(sender.send(Piece::End).await),
            // Its connection waits for room to send more, and would for ever.
            Err(CallError::Stalled(_) | CallError::Deadline(_)) => self.client.cut.notify_one(),
            Err(_) => {}
        }
    }

    async fn pump(&mut self, mut piece: Bytes, sender: &mpsc::Sender<Piece>) -> Result<(), CallError> {
        let stall = self.service.calls.stall();
        while !piece.is_empty() {
            self.watched.bytes_out += piece.len() as u64;
            match timeout(stall, sender.send(Piece::Data(piece))).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(CallError::Gone),
                Err(_) => return Err(CallError::Stalled(stall.as_secs())),
            }
            piece = tokio::select! {
                () = sender.closed() => return Err(CallError::Gone),
                piece = next(&mut self.pipe, &self.transfer) => piece?,
            };
        }
        let outcome = self.transfer.end().await?;
        if let Some(first) = outcome.skipped.first() {
            let fields = [
                ("layer", self.watched.layer.as_str().into()),
                ("count", outcome.skipped.len().into()),
                ("first", Escaped(first).to_string().into()),
            ];
            self.service.observer.log.warn("sockets cannot be in an archive and were left out", &fields);
        }
        Ok(())
    }
}

/// The next bytes of an archive; none at its end.
async fn next(pipe: &mut pipe::Receiver, transfer: &Transfer<DiffOutcome>) -> Result<Bytes, CallError> {
    let mut buffer = BytesMut::with_capacity(PIECE);
    match timeout_at(transfer.until, pipe.read_buf(&mut buffer)).await {
        Ok(Ok(_)) => Ok(buffer.freeze()),
        Ok(Err(e)) => Err(io("read", &e)),
        Err(_) => Err(transfer.late()),
    }
}

fn io(operation: &str, error: &std::io::Error) -> CallError {
    CallError::Driver(Failure::io(operation, error).during("diff", None))
}
