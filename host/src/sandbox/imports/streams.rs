//! `streams`: the archive of a call. The worst that a component can do is to read less, or write something else, than it should: the call that
//! it serves is wrong then, and no other.

use wasmtime::component::Resource;

use super::driver::streams::{Host, HostSink, HostSource};
use super::{Answer, Failure, State};

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

impl Host for State {}

impl HostSource for State {
    fn open(&mut self) -> Answer<Resource<SourceHandle>> {
        if self.lease.source.is_none() {
            return Err(Failure::Denied("an archive to read".to_owned()).into());
        }
        Ok(self.table.push(SourceHandle)?)
    }

    fn read(&mut self, handle: Resource<SourceHandle>, max: u32) -> Answer<Vec<u8>> {
        self.table.get(&handle)?;
        let Some(source) = &mut self.lease.source else {
            return Err(Failure::Denied("an archive to read".to_owned()).into());
        };
        Ok(source.read(max.clamp(1, MAX_READ))?.to_vec())
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
