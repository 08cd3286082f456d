//! `GraphDriver.ApplyDiff`: the archive is the body of the request.
//!
//! Pieces go, a batch at a time, through a short queue to the thread that applies them, so memory does not
//! grow with the archive, and a client that stops sending holds nothing but that thread. The queue says where
//! the body really ended: one that breaks off is an error for the reader, and the layer is emptied.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::protocol::answer;
use super::{Docker, stream_error};
use crate::driver::{ApplyOptions, Totals};
use crate::serve::calls::{CallError, Transfer, Way};
use crate::serve::http::{Client, Content, broken_off};
use crate::serve::observer::Watched;

/// The least bytes that are handed on at once: a body comes in pieces of 32 KiB from dockerd, and to wake the
/// other thread for each would cost more than to write it.
const BATCH: usize = 256 << 10;
/// What is shorter is copied together with what comes before and after it: a piece takes some dozens of bytes
/// beside its own, and a client may send as many pieces as bytes.
const SMALL: usize = 4 << 10;
/// How many batches wait to be applied.
const QUEUE: usize = 4;
/// How long the rest of a body is read after the call has failed: dockerd does not look at an answer before
/// it has sent all.
const DRAIN: Duration = Duration::from_secs(60);

/// What the thread that applies an archive is given.
pub(in crate::serve) enum Batch {
    /// The next pieces of it.
    Pieces(Vec<Bytes>),
    /// The clean end. What ends without one broke off.
    End,
}

/// What became of the body.
enum Sent {
    /// It came to its end, or there is no need for the rest of it.
    Enough,
    /// Its sender does nothing, or is gone.
    Broken(CallError),
}

impl Docker {
    pub(super) async fn apply_diff(
        self: Arc<Self>,
        request: Request<Incoming>,
        client: &Client,
        mut watched: Watched,
    ) -> Response<Content> {
        let mut id = String::new();
        let mut parent = None;
        for (key, value) in form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes()) {
            match &*key {
                "id" => id = value.into_owned(),
                "parent" => parent = Some(value.into_owned()).filter(|parent| !parent.is_empty()),
                _ => {}
            }
        }
        watched.layer.clone_from(&id);
        let result = self.upload(id, parent, request.into_body(), client, &mut watched).await;
        watched.end(result.as_ref().err());
        match result {
            Ok(totals) => answer(StatusCode::OK, &json!({ "Size": totals.bytes })),
            Err(failed) => stream_error(&failed),
        }
    }

    async fn upload(
        &self,
        id: String,
        parent: Option<String>,
        mut body: Incoming,
        client: &Client,
        watched: &mut Watched,
    ) -> Result<Totals, CallError> {
        let service = self.service.clone();
        let target = self.engines.target(client.process);
        let options = ApplyOptions {
            sync: target.options.sync,
            devices: target.options.devices,
            ..ApplyOptions::default()
        };
        let (sender, batches) = mpsc::channel(QUEUE);
        let archive = Box::new(Archive::new(batches));
        let begun = self.service.calls.transfer(Way::In, move || {
            let totals = target.driver(&service.stores, false)?.apply_diff(
                &id,
                parent.as_deref(),
                archive,
                &options,
            )?;
            service.observer.filled(&id, &options.progress);
            Ok(totals)
        });
        let stall = self.service.calls.stall();
        let mut transfer = begun.await?;
        let sent = pump(&mut body, sender, &transfer, stall, &mut watched.bytes_in).await;
        let result = transfer.end().await;
        match sent {
            Sent::Broken(why) => Err(why),
            Sent::Enough => {
                drain(&mut body, stall, &mut watched.bytes_in).await;
                result
            }
        }
    }
}

/// Hands the body on until it ends, or nobody wants more of it.
async fn pump(
    body: &mut Incoming,
    sender: mpsc::Sender<Batch>,
    transfer: &Transfer<Totals>,
    stall: Duration,
    count: &mut u64,
) -> Sent {
    let mut closed = std::pin::pin!(sender.closed());
    // One timer for all pieces, and looked at only when it rings: to set one for each would wake the timers'
    // thread each time.
    let mut alarm = std::pin::pin!(sleep(stall));
    let mut deadline = std::pin::pin!(sleep_until(transfer.until));
    let mut gathered = Gathered::default();
    loop {
        let idle_since = Instant::now();
        let frame = loop {
            tokio::select! {
                biased;
                () = closed.as_mut() => return Sent::Enough,
                // However steadily it comes.
                () = deadline.as_mut() => return Sent::Broken(transfer.late()),
                frame = body.frame() => break frame,
                () = alarm.as_mut() => {
                    let late = idle_since + stall;
                    if late <= Instant::now() {
                        return Sent::Broken(CallError::Stalled(stall.as_secs()));
                    }
                    alarm.as_mut().reset(late);
                }
            }
        };
        match frame {
            Some(Err(error)) => return Sent::Broken(broken_off(&error)),
            Some(Ok(frame)) => {
                // Trailers say nothing here.
                let Ok(data) = frame.into_data() else { continue };
                *count += data.len() as u64;
                gathered.add(data);
                if gathered.length < BATCH {
                    continue;
                }
            }
            // dockerd's second try after a connection that broke: the body it had is gone, and nothing is no
            // archive.
            None if *count == 0 => {
                return Sent::Broken(CallError::Request("the request has no body".to_owned()));
            }
            None => {}
        }
        let ended = gathered.length < BATCH;
        let rest = Batch::Pieces(std::mem::take(&mut gathered).pieces());
        for batch in [Some(rest), ended.then_some(Batch::End)].into_iter().flatten() {
            match timeout_at(transfer.until, sender.send(batch)).await {
                Err(_) => return Sent::Broken(transfer.late()),
                Ok(Err(_)) => return Sent::Enough,
                Ok(Ok(())) => {}
            }
        }
        if ended {
            return Sent::Enough;
        }
    }
}

/// Pieces on their way into a batch.
#[derive(Default)]
struct Gathered {
    pieces: Vec<Bytes>,
    /// The small ones since the last one that was not.
    small: BytesMut,
    length: usize,
}

impl Gathered {
    fn add(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() < SMALL {
            self.small.extend_from_slice(&piece);
        } else {
            self.end_small();
            self.pieces.push(piece);
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(std::mem::take(&mut self.small).freeze());
        }
    }

    fn pieces(mut self) -> Vec<Bytes> {
        self.end_small();
        self.pieces
    }
}

/// Reads what is left of a body, within bounds.
async fn drain(body: &mut Incoming, stall: Duration, count: &mut u64) {
    let until = Instant::now() + DRAIN;
    while Instant::now() < until {
        match timeout(stall.min(DRAIN), body.frame()).await {
            Ok(Some(Ok(frame))) => *count += frame.data_ref().map_or(0, |data| data.len() as u64),
            _ => return,
        }
    }
}

/// The archive, for the thread that applies it.
pub(in crate::serve) struct Archive {
    batches: mpsc::Receiver<Batch>,
    pieces: std::vec::IntoIter<Bytes>,
    rest: Bytes,
    ended: bool,
}

impl Archive {
    /// The archive that comes through a queue.
    pub(in crate::serve) fn new(batches: mpsc::Receiver<Batch>) -> Archive {
        Archive { batches, pieces: Vec::new().into_iter(), rest: Bytes::new(), ended: false }
    }
}

impl Read for Archive {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            if let Some(piece) = self.pieces.next() {
                self.rest = piece;
                continue;
            }
            match self.batches.blocking_recv() {
                Some(Batch::Pieces(pieces)) => self.pieces = pieces.into_iter(),
                Some(Batch::End) => self.ended = true,
                None => return Err(io::Error::from_raw_os_error(nix::libc::ECONNRESET)),
            }
        }
        let length = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(batches: Vec<Batch>) -> io::Result<Vec<u8>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        for batch in batches {
            assert!(sender.try_send(batch).is_ok(), "no room in the queue");
        }
        drop(sender);
        let mut bytes = Vec::new();
        Archive::new(receiver).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    #[test]
    fn only_a_clean_end_is_one() {
        let data = |pieces: &[&'static [u8]]| {
            Batch::Pieces(pieces.iter().map(|bytes| Bytes::from_static(bytes)).collect())
        };
        let whole = vec![data(&[b"ab", b"", b"c"]), data(&[]), data(&[b"d"]), Batch::End];
        assert_eq!(read(whole).expect("an end"), b"abcd");
        assert!(read(vec![data(&[b"ab"])]).is_err());
        assert!(read(vec![]).is_err());
    }

    #[test]
    fn small_pieces_are_copied_together() {
        // The length of each piece in turn, and how many pieces become of a batch of them.
        for (lengths, most) in [
            ([1, 1], 1),
            ([SMALL - 1, SMALL - 1], 1),
            ([SMALL, SMALL], 64),
            ([SMALL, 1], 128),
            ([BATCH, 1], 2),
        ] {
            let (mut gathered, mut sent) = (Gathered::default(), Vec::new());
            while gathered.length < BATCH + 1 {
                let piece = vec![u8::try_from(sent.len() % 251).expect("small"); lengths[sent.len() % 2]];
                sent.extend_from_slice(&piece);
                gathered.add(piece.into());
            }
            let pieces = gathered.pieces();
            assert!(pieces.len() <= most + 1, "{lengths:?}: {} pieces", pieces.len());
            assert!(pieces.concat() == sent, "{lengths:?}: not what was sent");
        }
    }
}
