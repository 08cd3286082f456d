//! Connections to whoever speaks these services on a unix socket.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::http::Uri;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::codegen::Service;

/// How many bytes may be on their way: containerd sends pieces of blobs of 1 MiB.
const WINDOW: u32 = 8 << 20;

/// A connection, as the generated clients want one. It is closed with the last of its clones.
#[derive(Debug, Clone)]
pub struct Channel(SendRequest<Body>);

/// What requests say about the server's name; on a unix socket it means nothing.
pub fn origin() -> Uri {
    Uri::from_static("http://localhost")
}

impl Channel {
    /// Connects to a socket. The connection is driven by the runtime that this is called in.
    ///
    /// # Errors
    ///
    /// Nobody listens there, or it does not speak HTTP/2.
    pub async fn connect(socket: &Path) -> io::Result<Channel> {
        let stream = UnixStream::connect(socket).await?;
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        // Its error is told to the calls that were under way.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Channel(sender))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
