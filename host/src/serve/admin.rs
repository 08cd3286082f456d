//! The socket for operators: metrics, and whether the service is well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

use super::Service;
use super::http::{Client, Content, Handler, only};
use super::metrics::StoreGauges;

/// How long a store may take to answer the simplest question.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is answered on the socket.
#[derive(Debug)]
pub struct Admin {
    service: Arc<Service>,
}

impl Admin {
    /// Answers for a service.
    pub fn new(service: Arc<Service>) -> Admin {
        Admin { service }
    }

    async fn metrics(&self) -> Response<Content> {
        let service = self.service.clone();
        let count = move || {
            service.stores.close_all_displaced();
            let stores = service.stores.all().into_iter().filter_map(|driver| {
                // A store that cannot be read is not counted; health says so.
                let (layers, mounts) = driver.counts().ok()?;
                Some(StoreGauges { root: driver.root().display().to_string(), layers, mounts })
            });
            Ok(stores.collect::<Vec<_>>())
        };
        let calls = &self.service.calls;
        // Before the counting, which is one more.
        let running = calls.running();
        let stores = calls.for_operators(PATIENCE, count).await.unwrap_or_default();
        plain(StatusCode::OK, self.service.observer.metrics.text(running, &stores))
    }

    /// Asks every store, through the sandbox, whether it has a layer, and reads its record of snapshots.
    async fn health(&self) -> Response<Content> {
        let service = self.service.clone();
        let ask = move || {
            service.stores.close_all_displaced();
            let mut asked = Vec::new();
            for driver in service.stores.all() {
                let answer = driver.exists("health").map_err(|e| e.to_string());
                let answer = answer.and_then(|_| driver.probe_snapshots().map_err(|e| e.to_string()));
                asked.push((driver.root().display().to_string(), answer));
            }
            Ok(asked)
        };
        let (mut status, mut text) = (StatusCode::OK, String::new());
        match self.service.calls.for_operators(PATIENCE, ask).await {
            Ok(asked) => {
                for (root, answer) in asked {
                    let answer = answer.err().inspect(|_| status = StatusCode::SERVICE_UNAVAILABLE);
                    text += &format!("{root}: {}\n", answer.as_deref().unwrap_or("ok"));
                }
            }
            Err(error) => {
                status = StatusCode::SERVICE_UNAVAILABLE;
                text += &format!("{error}\n");
            }
        }
        if text.is_empty() {
            text += "ok, no store is open\n";
        }
        plain(status, text)
    }
}

impl Handler for Admin {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, _client: Client) -> Response<Content> {
        // Of an answer to HEAD no body is sent.
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let answer = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            return only("GET, HEAD", answer);
        }
        match request.uri().path() {
            "/metrics" => self.metrics().await,
            "/healthz" => self.health().await,
            _ => plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
        }
    }
}

fn plain(status: StatusCode, text: String) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(Bytes::from(text))));
    *response.status_mut() = status;
    // The version is that of Prometheus' text form; to everything else it says nothing.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
