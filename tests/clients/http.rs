//! A client of the service that is no engine: it can go away in the middle, which an engine does only when it dies.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks for a page.
///
/// # Errors
///
/// There is no answer, or not one with status 200.
pub fn get(socket: &Path, path: &str) -> Result<String> {
    let mut stream = connect(socket)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: layerbox\r\nConnection: close\r\n\r\n")?;
    let (status, body) = answer(stream)?;
    ensure!(status == 200, "GET {path}: status {status}: {body}");
    Ok(body)
}

/// Makes a call with a JSON object, and gives status and body of the answer.
///
/// # Errors
///
/// There is no answer.
pub fn call(socket: &Path, method: &str, body: &serde_json::Value) -> Result<(u16, String)> {
    let body = body.to_string();
    let mut stream = connect(socket)?;
    write!(
        stream,
        "POST /{method} HTTP/1.1\r\nHost: layerbox\r\nAccept: application/vnd.docker.plugins.v1.2+json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    answer(stream)
}

/// Begins a call with a body in chunks, as an engine sends an archive, and sends these bytes of it. The body is not ended: that is up to the caller.
///
/// # Errors
///
/// The service does not take it.
pub fn begin(socket: &Path, method: &str, bytes: &[u8]) -> Result<UnixStream> {
    let mut stream = connect(socket)?;
    write!(stream, "POST /{method} HTTP/1.1\r\nHost: layerbox\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for chunk in bytes.chunks(32 << 10) {
        write!(stream, "{:x}\r\n", chunk.len())?;
        stream.write_all(chunk)?;
        stream.write_all(b"\r\n")?;
    }
    Ok(stream)
}

/// Ends a body in chunks, and gives status and body of the answer.
///
/// # Errors
///
/// There is no answer.
pub fn end(mut stream: UnixStream) -> Result<(u16, String)> {
    stream.write_all(b"0\r\n\r\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    answer(stream)
}

fn connect(socket: &Path) -> Result<UnixStream> {
    let stream = UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn answer(mut stream: UnixStream) -> Result<(u16, String)> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).context("read the answer")?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, body.to_owned()))
}
