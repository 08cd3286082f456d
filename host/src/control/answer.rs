//! Runs a call of a command line in the service.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::bytes::Bytes;
use super::frame;
use super::protocol::{Answer, Call, Reply};
use super::streams::{self, Caller, Input};
use super::values::Totals;
use crate::driver::{ApplyOptions, Driver, Patient};
use crate::error::{Error, Failure};
use crate::serve::calls::CallError;
use crate::serve::observer::Observer;

/// How many bytes of names go into one part of a list. As JSON they are at most six times as many, which is
/// still far from the longest frame.
const PART: usize = 256 << 10;

/// Runs a call and sends all that is to be said in answer.
///
/// # Errors
///
/// Those of sending, after which the connection is of no more use. A call that fails is an answer, too.
pub(super) fn answer(
    driver: &Driver,
    call: Call,
    descriptor: Option<OwnedFd>,
    caller: &Caller,
    observer: &Arc<Observer>,
) -> io::Result<()> {
    let mut watched = observer.begin(call.operation());
    watched.layer = call.layer().unwrap_or_default().to_owned();
    let send = |reply: Reply| frame::send(&caller.0, &reply, None);
    let got = if let Call::Get { id, .. } = &call { Some(id.clone()) } else { None };
    let read = Arc::new(AtomicU64::new(0));
    let result = run(driver, call, descriptor, caller, &read, &mut watched.bytes_out);
    let result = result.map_err(CallError::Driver);
    watched.bytes_in = read.load(Ordering::Relaxed);
    watched.end(result.as_ref().err());
    match result {
        Ok(Answer::Changes(rows)) => in_parts(rows, |row| row.weight(), Answer::Changes, send),
        Ok(Answer::Layers(rows)) => in_parts(rows, |row| row.weight(), Answer::Layers, send),
        Ok(Answer::Findings(rows)) => in_parts(rows, |row| row.weight(), Answer::Findings, send),
        Ok(answer) => send(Reply::Done(answer)).inspect_err(|_| {
            // Nobody knows of the mount, so nobody would ever give it back.
            if let Some(id) = &got {
                drop(driver.put(id));
            }
        }),
        Err(CallError::Driver(Error { layer, failure, .. })) => send(Reply::Failed { layer, failure }),
        Err(other) => {
            let failure = Failure::Service(format!("answers: {other}").into());
            send(Reply::Failed { layer: None, failure })
        }
    }
}

/// Sends a list that may be longer than a frame.
fn in_parts<T>(
    rows: Vec<T>,
    weight: impl Fn(&T) -> usize,
    answer: impl Fn(Vec<T>) -> Answer,
    send: impl Fn(Reply) -> io::Result<()>,
) -> io::Result<()> {
    let (mut part, mut used) = (Vec::new(), 0);
    for row in rows {
        used += weight(&row);
        part.push(row);
        if used > PART {
            send(Reply::Part(answer(std::mem::take(&mut part))))?;
            used = 0;
        }
    }
    send(Reply::Done(answer(part)))
}

/// Runs a call, and counts the bytes of the archive that it reads or writes.
fn run(
    driver: &Driver,
    call: Call,
    descriptor: Option<OwnedFd>,
    caller: &Caller,
    read: &Arc<AtomicU64>,
    written: &mut u64,
) -> Result<Answer, Error> {
    let operation = call.operation();
    // It was counted before; this only takes it out.
    let stream = || descriptor.ok_or_else(|| missing(operation));
    Ok(match call {
        Call::Create { id, parent } => {
            driver.create(&id, parent.as_deref())?;
            Answer::Nothing
        }
        Call::ApplyDiff { id, parent, sync, devices, given, progress } => {
            let options = ApplyOptions { sync, devices, given, progress: Arc::default() };
            let told = progress.then(|| options.progress.clone());
            let input = Input::new(stream()?, caller.clone(), read.clone(), told);
            let input = input.map_err(about(operation, &id))?;
            let input = Patient::new(input, &options.given.over(driver.limits()));
            let totals = driver.apply_diff(&id, parent.as_deref(), Box::new(input), &options)?;
            let clamped = options.progress.clamped.load(Ordering::Relaxed);
            Answer::Totals(Totals { clamped, ..totals.into() })
        }
        Call::Diff { id, parent } => {
            let out = streams::output(stream()?, caller.clone()).map_err(about(operation, &id))?;
            let (outcome, bytes) = driver.diff_into(&id, parent.as_deref(), out)?;
            *written = bytes;
            outcome.into()
        }
        Call::Changes { id, parent } => {
            let changes = driver.changes(&id, parent.as_deref())?;
            Answer::Changes(changes.iter().map(Into::into).collect())
        }
        Call::DiffSize { id, parent } => Answer::Totals(driver.diff_size(&id, parent.as_deref())?.into()),
        Call::Get { id, label } => {
            let path = driver.get(&id, label.as_deref())?;
            let seen = std::fs::metadata(&path)
                .map_err(|error| about(operation, &id)(Failure::io("stat", &error)))?;
            Answer::Place { path: Bytes::from(path), device: seen.dev(), inode: seen.ino() }
        }
        Call::Put { id } => {
            driver.put(&id)?;
            Answer::Nothing
        }
        Call::Remove { id, force } => {
            driver.remove(&id, force)?;
            Answer::Nothing
        }
        Call::Exists { id } => Answer::Flag(driver.exists(&id)?),
        Call::List => Answer::Layers(driver.list()?.into_iter().map(Into::into).collect()),
        Call::Status => Answer::Rows(driver.status()?),
        Call::Metadata { id } => Answer::Layer(Box::new(driver.metadata(&id)?.into())),
        Call::Cleanup => Answer::Count(driver.cleanup()?),
        Call::Check { options } => {
            Answer::Findings(driver.check(options)?.into_iter().map(Into::into).collect())
        }
    })
}

/// Says which call on which layer a failure of this module belongs to.
fn about(operation: &'static str, id: &str) -> impl Fn(Failure) -> Error {
    let layer = Some(id.to_owned());
    move |failure| Error { operation, layer: layer.clone(), failure }
}

fn missing(operation: &'static str) -> Error {
    Failure::InvalidArgument("no archive came with the call".to_owned()).during(operation, None)
}
