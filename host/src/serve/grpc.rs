//! gRPC over a unix socket: HTTP/2 connections, and how they end when the service does.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;

use super::http::{Phase, accept, passed};
use super::http2_authority::Filtered;

/// Answers requests.
pub trait Router: Send + Sync + 'static {
    /// Answers one.
    fn answer(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;
}

/// How many connections a socket has at once; more wait to be taken. An engine has a few, with many calls on
/// each.
const CONNECTIONS: usize = 256;
/// Calls at once on a connection; more wait.
const CALLS: u32 = 512;
/// How often it is looked whether a connection has no call under way any more.
const PAUSE: Duration = Duration::from_millis(50);

/// Answers on a socket until the phase is [`Phase::Draining`], and returns when all connections are closed.
pub async fn serve<R: Router>(listener: UnixListener, router: Arc<R>, phase: watch::Receiver<Phase>) {
    let watcher = phase.clone();
    accept(listener, CONNECTIONS, phase, |stream| connection(stream, router.clone(), watcher.clone())).await;
}

async fn connection<R: Router>(stream: UnixStream, router: Arc<R>, mut phase: watch::Receiver<Phase>) {
    let calls = Arc::new(());
    let under_way = calls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let counted = under_way.clone();
        let wanted = timeout(request.headers().get("grpc-timeout").map(|value| value.as_bytes()));
        let answer = router.clone().answer(request);
        async move {
            let _counted = counted;
            let Some(wanted) = wanted else { return Ok::<_, Infallible>(answer.await) };
            let late = || Status::deadline_exceeded("no answer in the time that the caller gave").into_http();
            Ok(tokio::time::timeout(wanted, answer).await.unwrap_or_else(|_| late()))
        }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(CALLS);
    let mut connection =
        std::pin::pin!(builder.serve_connection(TokioIo::new(Filtered::new(stream)), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = passed(&mut phase, Phase::Running) => connection.as_mut().graceful_shutdown(),
    }
    // Who has said nothing yet, and an engine that keeps its connection, would hold up the end.
    let idle = async {
        loop {
            tokio::time::sleep(PAUSE).await;
            // This one, and that of the service.
            if Arc::strong_count(&calls) <= 2 {
                return;
            }
        }
    };
    tokio::select! {
        _ = connection.as_mut() => {}
        () = idle => {}
        () = passed(&mut phase, Phase::Draining) => {}
    }
}

/// The time that a caller gives (`grpc-timeout`, gRPC over HTTP2): at most 8 digits and a unit.
fn timeout(header: Option<&[u8]>) -> Option<Duration> {
    let (unit, digits) = header?.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(number * 3600)),
        b'M' => Some(Duration::from_secs(number * 60)),
        b'S' => Some(Duration::from_secs(number)),
        b'm' => Some(Duration::from_millis(number)),
        b'u' => Some(Duration::from_micros(number)),
        b'n' => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts() {
        for (header, expected) in [
            (None, None),
            (Some("1S"), Some(Duration::from_secs(1))),
            (Some("99999999H"), Some(Duration::from_secs(99_999_999 * 3600))),
            (Some("250m"), Some(Duration::from_millis(250))),
            (Some("5u"), Some(Duration::from_micros(5))),
            (Some("7n"), Some(Duration::from_nanos(7))),
            (Some("2M"), Some(Duration::from_secs(120))),
            (Some(""), None),
            (Some("S"), None),
            (Some("123456789S"), None),
            (Some("1s"), None),
            (Some("-1S"), None),
        ] {
            assert_eq!(timeout(header.map(str::as_bytes)), expected, "{header:?}");
        }
    }
}
