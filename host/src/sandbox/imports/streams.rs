//! `streams`: the archive of a call. The worst that a component can do is to read less, or write something
//! else, than it should: the call that it serves is wrong then, and no other.

use std::sync::Arc;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};

use super::driver::streams::{Host, HostSink, HostSource};
use super::driver::types::Host as _;
use super::{Answer, Failure, State, shadowing, types};

/// The most bytes that one read hands over.
const MAX_READ: u32 = 1 << 20;

/// A handle of the stream that comes in; the stream itself is in the lease.
#[derive(Debug)]
pub struct SourceHandle;

/// A handle of the stream that goes out; the stream itself is in the lease.
#[derive(Debug)]
pub struct SinkHandle;

/// Why no more of an archive goes out.
pub(super) fn too_long() -> Failure {
    Failure::Limit { entry: Vec::new(), bound: "bytes of the archive".to_owned() }
}

/// The interface and its function, as the linker knows them.
const INTERFACE: &str = "layerbox:driver/streams@0.1.0";
const READ: &str = "[method]source.read";

/// Links `source.read` once more, so that the bytes go from the host's buffer to the component's memory:
/// generated code answers a list that is its own, which is one copy more of half an archive.
pub(super) fn share_reads(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Given = (Resource<SourceHandle>, u32);
    type Answered = (Result<Arc<Vec<u8>>, types::Error>,);
    let read = |mut store: StoreContextMut<'_, State>, (handle, max): Given| -> wasmtime::Result<Answered> {
        let state = store.data_mut();
        match state.read_source(&handle, max) {
            Ok(bytes) => Ok((Ok(bytes),)),
            Err(refusal) => Ok((Err(state.convert_error(refusal)?),)),
        }
    };
    shadowing(linker, INTERFACE, READ)?.func_wrap(READ, read)?;
    linker.allow_shadowing(false);
    Ok(())
}

impl State {
    fn read_source(&mut self, handle: &Resource<SourceHandle>, max: u32) -> Answer<Arc<Vec<u8>>> {
        self.table.get(handle)?;
        let Some(source) = &mut self.lease.source else {
            return Err(Failure::Denied("an archive to read".to_owned()).into());
        };
        Ok(source.read(max.clamp(1, MAX_READ))?.into_shared())
    }
}

impl Host for State {}

impl HostSource for State {
    fn open(&mut self) -> Answer<Resource<SourceHandle>> {
        if self.lease.source.is_none() {
            return Err(Failure::Denied("an archive to read".to_owned()).into());
        }
        Ok(self.table.push(SourceHandle)?)
    }

    fn read(&mut self, handle: Resource<SourceHandle>, max: u32) -> Answer<Vec<u8>> {
        self.read_source(&handle, max).map(Arc::unwrap_or_clone)
    }

    fn drop(&mut self, handle: Resource<SourceHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl HostSink for State {
    fn open(&mut self) -> Answer<Resource<SinkHandle>> {
        if self.lease.sink.is_none() {
            return Err(Failure::Denied("an archive to write".to_owned()).into());
        }
        Ok(self.table.push(SinkHandle)?)
    }

    fn write(&mut self, handle: Resource<SinkHandle>, bytes: Vec<u8>) -> Answer<()> {
        self.table.get(&handle)?;
        let Some(sink) = &mut self.lease.sink else {
            return Err(Failure::Denied("an archive to write".to_owned()).into());
        };
        let room = &mut self.archive_room;
        *room = room.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
        Ok(sink.write(&bytes)?)
    }

    fn drop(&mut self, handle: Resource<SinkHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
