//! `/layers`, as far as a call may change it.
//!
//! `create` and `remove` are lent the directory to write, and WASI would let them write all of it: the
//! records of other layers, which decide what later calls see. So the operations of `wasi:filesystem` that
//! change something are put behind a rule here. The one name that a call may write, rename and remove is the
//! record of the layer that it makes or removes, and the temporary name of that, `.ID.tmp`. Links could give
//! such a name to another record, directories have no place there, and times are nobody's business: none of
//! them can be made. What is written is bounded, because a record is small and a disk can be filled.
//!
//! Files are read and written on the thread of the call and at once. WASI's streams would leave both to a
//! pool of threads wherever a component does not wait, and keep what was read or is to be written for it: a
//! component that opens thousands of streams could have hundreds of threads and as many buffers by that,
//! which no bound of the call counts.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::p2::bindings::sync::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, Filesize, HostDescriptor, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, FsError, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use super::State;

/// The most bytes that a call may write to `layers/`: as much as a record is ever read of.
pub(super) const ROOM: u64 = 1 << 20;

/// How often a call may list `layers/`: each list lies in the host whole, for as long as the component keeps
/// its stream, and is as long as there are layers.
pub(super) const LISTINGS: u32 = 16;

/// More was written than there is room for.
#[derive(Debug)]
pub(super) struct NoRoom;

impl std::fmt::Display for NoRoom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "more than {ROOM} bytes were written to layers/")
    }
}

impl std::error::Error for NoRoom {}

/// How many bytes a call may still write, through whichever stream.
#[derive(Clone)]
pub(super) struct Room(Arc<AtomicU64>);

impl Room {
    pub(super) fn new() -> Room {
        Room(Arc::new(AtomicU64::new(ROOM)))
    }

    fn take(&self, bytes: usize) -> wasmtime::Result<()> {
        let less = |room: u64| room.checked_sub(bytes as u64);
        match self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(wasmtime::Error::new(NoRoom)),
        }
    }
}

/// Has a blocking operation of a stream done by this thread, as the context of WASI allows: it never is to be
/// waited for.
fn at_once<T>(operation: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    match pin!(operation).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => {
            Err(StreamError::Trap(wasmtime::Error::msg("a file of layers/ wants to be waited for")))
        }
    }
}

/// A stream out of a file.
struct Immediate(DynInputStream);

#[wasmtime_wasi::async_trait]
impl Pollable for Immediate {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl InputStream for Immediate {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        at_once(self.0.blocking_read(size))
    }
}

/// A stream into a file, with the room that there is for it.
struct Bounded {
    stream: DynOutputStream,
    room: Room,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Bounded {
    async fn ready(&mut self) {}
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Bounded {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.room.take(bytes.len()).map_err(StreamError::Trap)?;
        at_once(self.stream.blocking_write_and_flush(bytes))
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.stream.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.stream.check_write()
    }
}

impl State {
    /// Whether the call may change what has this name.
    fn may_change(&self, name: &str) -> bool {
        let own = self.lease.making.as_ref().or(self.lease.discarding.as_ref());
        own.is_some_and(|id| {
            let id = id.as_str();
            let temporary = name.strip_prefix('.').and_then(|name| name.strip_suffix(".tmp"));
            name == id || temporary == Some(id)
        })
    }

    /// Puts the bound around a stream that was just opened.
    fn bound(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream = self.table.delete(stream)?;
        let bounded: DynOutputStream = Box::new(Bounded { stream, room: self.record_room.clone() });
        Ok(self.table.push(bounded)?)
    }
}

/// The answer of an operation, as the component gets it.
type Answer<T> = wasmtime::Result<(Result<T, ErrorCode>,)>;

/// What wasmtime-wasi answers: an error for the component, or a fault that ends the call.
fn answer<T>(result: Result<T, FsError>) -> Answer<T> {
    match result {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(error.downcast()?.into()),)),
    }
}

fn refused<T>() -> Answer<T> {
    Ok((Err(ErrorCode::NotPermitted),))
}

/// Puts the rule before the operations, which are linked already.
pub(super) fn restrict(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::filesystem::WasiFilesystemView as _;
    type Fd = Resource<Descriptor>;
    let mut types = super::imports::replacing(linker, "filesystem/types", "[method]descriptor.write")?;
    types.func_wrap(
        "[method]descriptor.open-at",
        |mut store, (fd, follow, path, how, flags): (Fd, PathFlags, String, OpenFlags, DescriptorFlags)| {
            let state: &mut State = store.data_mut();
            let changes = flags.contains(DescriptorFlags::WRITE)
                || how.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::EXCLUSIVE);
            if changes && !state.may_change(&path) {
                return refused();
            }
            answer(state.filesystem().open_at(fd, follow, path, how, flags))
        },
    )?;
    types.func_wrap(
        "[method]descriptor.rename-at",
        |mut store, (fd, from, other, to): (Fd, String, Fd, String)| {
            let state: &mut State = store.data_mut();
            if !state.may_change(&from) || !state.may_change(&to) {
                return refused();
            }
            answer(state.filesystem().rename_at(fd, from, other, to))
        },
    )?;
    types.func_wrap("[method]descriptor.unlink-file-at", |mut store, (fd, path): (Fd, String)| {
        let state: &mut State = store.data_mut();
        if !state.may_change(&path) {
            return refused();
        }
        answer(state.filesystem().unlink_file_at(fd, path))
    })?;
    types.func_wrap(
        "[method]descriptor.write",
        |mut store, (fd, bytes, offset): (Fd, Vec<u8>, Filesize)| {
            let state: &mut State = store.data_mut();
            state.record_room.take(bytes.len())?;
            answer(state.filesystem().write(fd, bytes, offset))
        },
    )?;
    types.func_wrap("[method]descriptor.read-via-stream", |mut store, (fd, offset): (Fd, Filesize)| {
        let state: &mut State = store.data_mut();
        match answer(state.filesystem().read_via_stream(fd, offset))? {
            (Ok(stream),) => {
                let stream: DynInputStream = Box::new(Immediate(state.table.delete(stream)?));
                Ok((Ok(state.table.push(stream)?),))
            }
            refused => Ok(refused),
        }
    })?;
    types.func_wrap("[method]descriptor.write-via-stream", |mut store, (fd, offset): (Fd, Filesize)| {
        let state: &mut State = store.data_mut();
        match answer(state.filesystem().write_via_stream(fd, offset))? {
            (Ok(stream),) => Ok((Ok(state.bound(stream)?),)),
            refused => Ok(refused),
        }
    })?;
    types.func_wrap("[method]descriptor.append-via-stream", |mut store, (fd,): (Fd,)| {
        let state: &mut State = store.data_mut();
        match answer(state.filesystem().append_via_stream(fd))? {
            (Ok(stream),) => Ok((Ok(state.bound(stream)?),)),
            refused => Ok(refused),
        }
    })?;
    types.func_wrap("[method]descriptor.read-directory", |mut store, (fd,): (Fd,)| {
        let state: &mut State = store.data_mut();
        let Some(left) = state.listings.checked_sub(1) else { return Ok((Err(ErrorCode::Quota),)) };
        state.listings = left;
        answer(state.filesystem().read_directory(fd))
    })?;
    types.func_wrap("[method]descriptor.set-size", |_, _: (Fd, Filesize)| refused::<()>())?;
    types.func_wrap("[method]descriptor.set-times", |_, _: (Fd, NewTimestamp, NewTimestamp)| {
        refused::<()>()
    })?;
    types.func_wrap(
        "[method]descriptor.set-times-at",
        |_, _: (Fd, PathFlags, String, NewTimestamp, NewTimestamp)| refused::<()>(),
    )?;
    types.func_wrap("[method]descriptor.link-at", |_, _: (Fd, PathFlags, String, Fd, String)| {
        refused::<()>()
    })?;
    types.func_wrap("[method]descriptor.symlink-at", |_, _: (Fd, String, String)| refused::<()>())?;
    types.func_wrap("[method]descriptor.create-directory-at", |_, _: (Fd, String)| refused::<()>())?;
    types.func_wrap("[method]descriptor.remove-directory-at", |_, _: (Fd, String)| refused::<()>())?;
    linker.allow_shadowing(false);
    Ok(())
}
