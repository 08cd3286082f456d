//! What the service counts, in the text form of Prometheus (version 0.0.4). Few enough series that a library
//! would be longer than this.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The upper ends of the histogram's buckets, in seconds: a mount takes milliseconds, an unpack seconds to
/// minutes.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0];

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// By operation and outcome. Both are words of this program, never of a client, so there is no end of
    /// series.
    calls: BTreeMap<(&'static str, &'static str), u64>,
    durations: BTreeMap<&'static str, Histogram>,
    in_flight: BTreeMap<&'static str, u64>,
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Debug, Default)]
struct Histogram {
    /// Not yet added up: each value counts in one.
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// A store as it is now.
#[derive(Debug, Clone)]
pub struct StoreGauges {
    /// Its root.
    pub root: String,
    /// How many layers.
    pub layers: usize,
    /// How many mounts.
    pub mounts: usize,
}

impl Metrics {
    /// A call has begun.
    pub fn begun(&self, operation: &'static str) {
        *self.lock().in_flight.entry(operation).or_default() += 1;
    }

    /// A call has ended.
    pub fn ended(
        &self,
        operation: &'static str,
        outcome: &'static str,
        time: Duration,
        (bytes_in, bytes_out): (u64, u64),
    ) {
        let mut counted = self.lock();
        if let Some(in_flight) = counted.in_flight.get_mut(operation) {
            *in_flight = in_flight.saturating_sub(1);
        }
        *counted.calls.entry((operation, outcome)).or_default() += 1;
        counted.bytes_in += bytes_in;
        counted.bytes_out += bytes_out;
        let histogram = counted.durations.entry(operation).or_default();
        let seconds = time.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|&end| seconds <= end) {
            histogram.buckets[bucket] += 1;
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    /// The text for Prometheus.
    pub fn text(&self, running: usize, stores: &[StoreGauges]) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, running, stores);
        text
    }

    fn write(&self, out: &mut String, running: usize, stores: &[StoreGauges]) -> std::fmt::Result {
        let counted = self.lock();
        head(out, "layerbox_calls_total", "counter", "Calls that ended, by operation and outcome.")?;
        for ((operation, outcome), count) in &counted.calls {
            writeln!(out, "layerbox_calls_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} {count}")?;
        }
        head(out, "layerbox_call_duration_seconds", "histogram", "How long calls took.")?;
        for (operation, histogram) in &counted.durations {
            let mut below = 0;
            for (end, count) in BUCKETS.iter().zip(histogram.buckets) {
                below += count;
                writeln!(
                    out,
                    "layerbox_call_duration_seconds_bucket{{operation=\"{operation}\",le=\"{end}\"}} {below}"
                )?;
            }
            let Histogram { count, sum, .. } = histogram;
            writeln!(
                out,
                "layerbox_call_duration_seconds_bucket{{operation=\"{operation}\",le=\"+Inf\"}} {count}"
            )?;
            writeln!(out, "layerbox_call_duration_seconds_sum{{operation=\"{operation}\"}} {sum}")?;
            writeln!(out, "layerbox_call_duration_seconds_count{{operation=\"{operation}\"}} {count}")?;
        }
        head(out, "layerbox_calls_in_flight", "gauge", "Calls that have no answer yet.")?;
        for (operation, count) in &counted.in_flight {
            writeln!(out, "layerbox_calls_in_flight{{operation=\"{operation}\"}} {count}")?;
        }
        head(out, "layerbox_received_bytes_total", "counter", "Bytes of archives that came in.")?;
        writeln!(out, "layerbox_received_bytes_total {}", counted.bytes_in)?;
        head(out, "layerbox_sent_bytes_total", "counter", "Bytes of archives that went out.")?;
        writeln!(out, "layerbox_sent_bytes_total {}", counted.bytes_out)?;
        head(
            out,
            "layerbox_instances_running",
            "gauge",
            "Calls of the driver under way, each with an instance of the component; those that nobody waits for any more count.",
        )?;
        writeln!(out, "layerbox_instances_running {running}")?;
        head(out, "layerbox_stores", "gauge", "Stores that are open.")?;
        writeln!(out, "layerbox_stores {}", stores.len())?;
        head(out, "layerbox_layers", "gauge", "Layers of a store.")?;
        for store in stores {
            writeln!(out, "layerbox_layers{{store=\"{}\"}} {}", label(&store.root), store.layers)?;
        }
        head(out, "layerbox_mounts", "gauge", "Layers of a store that are mounted.")?;
        for store in stores {
            writeln!(out, "layerbox_mounts{{store=\"{}\"}} {}", label(&store.root), store.mounts)?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Counted> {
        // Numbers are right even if somebody panicked beside them.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}")
}

/// A value of a label: backslash, quote and line feed are escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_add_up_and_calls_are_told_apart() {
        let metrics = Metrics::default();
        for (milliseconds, outcome) in [(1, "ok"), (30, "ok"), (4_000_000, "limit")] {
            metrics.begun("get");
            metrics.ended("get", outcome, Duration::from_millis(milliseconds), (5, 7));
        }
        metrics.begun("diff");
        let stores = [StoreGauges { root: "/a\"b".to_owned(), layers: 3, mounts: 1 }];
        let text = metrics.text(2, &stores);
        for line in [
            "layerbox_calls_total{operation=\"get\",outcome=\"limit\"} 1",
            "layerbox_calls_total{operation=\"get\",outcome=\"ok\"} 2",
            "layerbox_call_duration_seconds_bucket{operation=\"get\",le=\"0.001\"} 1",
            "layerbox_call_duration_seconds_bucket{operation=\"get\",le=\"0.05\"} 2",
            "layerbox_call_duration_seconds_bucket{operation=\"get\",le=\"1800\"} 2",
            "layerbox_call_duration_seconds_bucket{operation=\"get\",le=\"+Inf\"} 3",
            "layerbox_calls_in_flight{operation=\"get\"} 0",
            "layerbox_calls_in_flight{operation=\"diff\"} 1",
            "layerbox_received_bytes_total 15",
            "layerbox_sent_bytes_total 21",
            "layerbox_instances_running 2",
            "layerbox_layers{store=\"/a\\\"b\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
