//! What a component writes to its standard error: kept, bounded, for the host's log.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

/// How much of it is kept in one call; a component may write more, but to nobody.
const KEPT: usize = 16 << 10;

/// The standard error of one call.
#[derive(Clone, Default)]
pub(super) struct GuestLog {
    kept: Arc<Mutex<Vec<u8>>>,
}

impl GuestLog {
    fn text(&self) -> String {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    }

    /// The last line, for the message of a call that failed; not what Rust adds behind the message of a
    /// panic.
    pub(super) fn last_line(&self) -> String {
        let text = self.text();
        let line = text
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE"))
            .unwrap_or_default();
        crate::error::Escaped(line.chars().take(200).collect::<String>().as_bytes()).to_string()
    }

    /// Hands what was kept to the host's log.
    pub(super) fn write_out(&self) {
        for line in self.text().lines() {
            eprintln!("layerbox: component: {}", crate::error::Escaped(line.as_bytes()));
        }
    }
}

impl IsTerminal for GuestLog {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestLog {
    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        // Only preview 3 asks for this form, and nothing of preview 3 is linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestLog {
    async fn ready(&mut self) {}
}

impl OutputStream for GuestLog {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let room = KEPT.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}
