//! What is written down about each call: a line in the log, and the metrics.

use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::calls::CallError;
use super::log::Log;
use super::metrics::Metrics;
use crate::driver::Progress;
use crate::snapshots::error::SnapshotError;

/// Log and metrics of the service.
#[derive(Debug)]
pub struct Observer {
    /// The log.
    pub log: Log,
    /// The metrics.
    pub metrics: Metrics,
}

impl Observer {
    /// Begins to watch a call.
    pub fn begin(self: &Arc<Self>, operation: &'static str) -> Watched {
        self.metrics.begun(operation);
        Watched {
            observer: self.clone(),
            operation,
            layer: String::new(),
            begun: Instant::now(),
            bytes_in: 0,
            bytes_out: 0,
            ended: false,
        }
    }

    /// Says what is to be said of a layer that was filled.
    pub fn filled(&self, layer: &str, progress: &Progress) {
        if let Some(said) = progress.said() {
            self.log.warn(&said, &[("layer", layer.into())]);
        }
    }
}

/// A call that is watched. One that is dropped without an end is one whose client went away.
#[derive(Debug)]
pub struct Watched {
    observer: Arc<Observer>,
    operation: &'static str,
    /// The layer, as the client named it; empty where it is about none.
    pub layer: String,
    begun: Instant,
    /// Bytes of the archive that came in.
    pub bytes_in: u64,
    /// Bytes of the archive that went out.
    pub bytes_out: u64,
    ended: bool,
}

impl Watched {
    /// The call ended.
    pub fn end(mut self, error: Option<&CallError>) {
        self.finish(error);
    }

    fn finish(&mut self, error: Option<&CallError>) {
        self.ended = true;
        let outcome = error.map_or("ok", CallError::code);
        let time = self.begun.elapsed();
        let bytes = (self.bytes_in, self.bytes_out);
        self.observer.metrics.ended(self.operation, outcome, time, bytes);
        let mut fields = vec![("operation", Value::from(self.operation))];
        if !self.layer.is_empty() {
            // Ids are at most 128 bytes; what is longer is no id, and not the log's to keep.
            fields.push(("layer", self.layer.chars().take(140).collect::<String>().into()));
        }
        // To the microsecond.
        fields.push(("milliseconds", ((time.as_secs_f64() * 1e6).round() / 1e3).into()));
        for (key, count) in [("received", bytes.0), ("sent", bytes.1)] {
            if count > 0 {
                fields.push((key, count.into()));
            }
        }
        fields.push(("outcome", outcome.into()));
        match error {
            None => self.observer.log.info("call", &fields),
            Some(error) => {
                fields.push(("error", error.to_string().into()));
                match error {
                    // What is left to the engine's own differ went as it should.
                    CallError::Snapshot(SnapshotError::NotOurs(_)) => self.observer.log.info("call", &fields),
                    _ => self.observer.log.error("call", &fields),
                }
            }
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.finish(Some(&CallError::Gone));
        }
    }
}
