//! A client of HTTP/1.1 over a unix socket that does as it is told: half a body, no body, no reading of the
//! answer.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The media type.
    pub kind: String,
    /// The methods that are allowed, where it names them.
    pub allow: String,
    /// The body.
    pub body: Vec<u8>,
    /// Whether the body came to its clean end.
    pub whole: bool,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    ///
    /// It is none, or it is cut short.
    pub fn json(&self) -> Result<Value> {
        ensure!(self.whole, "the answer is cut short");
        serde_json::from_slice(&self.body)
            .with_context(|| format!("{:?}", String::from_utf8_lossy(&self.body)))
    }

    /// The text of the error that the answer is.
    ///
    /// # Errors
    ///
    /// It is none, or has another status.
    pub fn error(&self, status: u16) -> Result<String> {
        let json = self.json()?;
        match json["Err"].as_str() {
            Some(text) if self.status == status && !text.is_empty() => Ok(text.to_owned()),
            _ => bail!("status {} with {json} is no error of status {status}", self.status),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// Nobody listens.
    pub fn new(socket: &Path) -> Result<Connection> {
        let stream =
            UnixStream::connect(socket).with_context(|| format!("connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a whole request and reads the answer.
    ///
    /// # Errors
    ///
    /// Either fails.
    pub fn call(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
        let sent = self.ask(method, path, body);
        // Who refuses a body answers and hangs up before it has read all of it.
        self.answer().or_else(|no_answer| sent.and(Err(no_answer)))
    }

    /// Sends a whole request, and leaves it to be answered.
    ///
    /// # Errors
    ///
    /// Writing fails.
    pub fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Result<()> {
        // In one piece, as engines send what is short.
        let head = head(method, path, &format!("Content-Length: {}", body.len()));
        self.send(&[head.as_bytes(), body].concat())
    }

    /// Begins a request whose body comes in chunks.
    ///
    /// # Errors
    ///
    /// Writing fails.
    pub fn begin(&mut self, path: &str) -> Result<()> {
        self.send(head("POST", path, "Transfer-Encoding: chunked").as_bytes())
    }

    /// Sends a chunk of a body; one of no bytes is the end.
    ///
    /// # Errors
    ///
    /// Writing fails.
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<()> {
        self.send(format!("{:x}\r\n", bytes.len()).as_bytes())?;
        self.send(bytes)?;
        self.send(b"\r\n")
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// Writing fails.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.get_mut().write_all(bytes)?)
    }

    /// Says that nothing more is sent.
    ///
    /// # Errors
    ///
    /// The other end is gone.
    pub fn send_no_more(&self) -> Result<()> {
        Ok(self.stream.get_ref().shutdown(Shutdown::Write)?)
    }

    /// Whether the other end closes the connection, and says no more before that.
    ///
    /// # Errors
    ///
    /// It stays open.
    pub fn is_closed(&mut self) -> Result<bool> {
        Ok(self.stream.fill_buf().context("it stays open")?.is_empty())
    }

    /// Reads an answer.
    ///
    /// # Errors
    ///
    /// There is none, or it is no HTTP.
    pub fn answer(&mut self) -> Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.with_context(|| format!("no status: {line:?}"))?;
        let (mut length, mut chunked) = (None, false);
        let (mut kind, mut allow) = (String::new(), String::new());
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = Some(value.trim().parse::<u64>()?),
                "transfer-encoding" => chunked = true,
                "content-type" => kind = value.trim().to_owned(),
                "allow" => allow = value.trim().to_owned(),
                _ => {}
            }
        }
        let mut body = Vec::new();
        let whole = if chunked {
            self.chunks(&mut body).is_ok()
        } else {
            let length = length.context("an answer without a length")?;
            (&mut self.stream).take(length).read_to_end(&mut body)?;
            body.len() as u64 == length
        };
        Ok(Answer { status, kind, allow, body, whole })
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> Result<()> {
        loop {
            let length = u64::from_str_radix(&self.line()?, 16)?;
            let before = body.len() as u64;
            (&mut self.stream).take(length).read_to_end(body)?;
            ensure!(body.len() as u64 == before + length, "a chunk is cut short");
            ensure!(self.line()?.is_empty(), "a chunk has no end");
            if length == 0 {
                return Ok(());
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line)?;
        ensure!(line.ends_with(b"\r\n"), "the connection is closed");
        line.truncate(line.len() - 2);
        Ok(String::from_utf8(line)?)
    }
}

fn head(method: &str, path: &str, length: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: plugin\r\n{length}\r\n\r\n")
}
