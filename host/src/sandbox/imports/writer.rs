//! `writer`: filling the layer that was lent. The worst that a component can do is to fill it wrongly:
//! whatever it puts, with whatever owner, mode or attributes, lies in a directory that becomes this one
//! layer.

use std::sync::atomic::Ordering;

use layerbox_privileged::layer::Filler;
use wasmtime::component::Resource;

use super::driver::writer::{Entry, Host, HostWriter};
use super::{Answer, Failure, SourceHandle, State, convert, names as checked, types};

/// A handle of the layer that is filled; the layer itself is in the lease.
#[derive(Debug)]
pub struct WriterHandle;

impl Host for State {}

impl State {
    fn filler(&mut self, handle: &Resource<WriterHandle>) -> Answer<&mut Filler> {
        self.table.get(handle)?;
        match &mut self.lease.filler {
            Some((_, filler)) => Ok(filler),
            None => Err(Failure::Denied("a layer to fill".to_owned()).into()),
        }
    }
}

impl HostWriter for State {
    fn open(&mut self, id: String) -> Answer<Resource<WriterHandle>> {
        let id = convert::layer_id(&id)?;
        match &self.lease.filler {
            Some((lent, _)) if *lent == id => Ok(self.table.push(WriterHandle)?),
            _ => Err(Failure::Denied(format!("filling layer {id}")).into()),
        }
    }

    fn dialect(&mut self, handle: Resource<WriterHandle>) -> wasmtime::Result<types::Dialect> {
        self.table.get(&handle)?;
        Ok(self.lease.dialect())
    }

    fn put(
        &mut self,
        handle: Resource<WriterHandle>,
        entries: Vec<Entry>,
        bodies: Option<Resource<SourceHandle>>,
    ) -> Answer<()> {
        self.table.get(&handle)?;
        if let Some(bodies) = &bodies {
            self.table.get(bodies)?;
        }
        for entry in entries {
            let lease = &mut self.lease;
            let Some((_, filler)) = &mut lease.filler else {
                return Err(Failure::Denied("a layer to fill".to_owned()).into());
            };
            let source = if bodies.is_some() { lease.source.as_mut() } else { None };
            filler.put(convert::entry(entry)?, source)?;
            lease.progress.entries.fetch_add(1, Ordering::Relaxed);
            // The same bytes may be the body of every entry.
            lease.check_expansion()?;
            // Finding the way to a name can take as long as the archive likes.
            self.in_time()?;
        }
        Ok(())
    }

    fn fill(&mut self, handle: Resource<WriterHandle>, offset: u64, bytes: Vec<u8>) -> Answer<()> {
        self.filler(&handle)?.fill(offset, bytes)?;
        Ok(self.lease.check_expansion()?)
    }

    fn mark(
        &mut self,
        handle: Resource<WriterHandle>,
        directories: Vec<Vec<u8>>,
        attribute: types::Xattr,
    ) -> Answer<()> {
        let directories = checked(directories)?;
        Ok(self.filler(&handle)?.mark(&directories, &convert::xattr(attribute))?)
    }

    fn stat(
        &mut self,
        handle: Resource<WriterHandle>,
        names: Vec<Vec<u8>>,
    ) -> Answer<Vec<Option<types::Node>>> {
        let names = checked(names)?;
        let nodes = self.filler(&handle)?.stat(&names)?;
        Ok(nodes.into_iter().map(|node| node.map(convert::node)).collect())
    }

    fn finish(&mut self, handle: Resource<WriterHandle>) -> Answer<types::Totals> {
        let filler = self.filler(&handle)?;
        let totals = filler.finish()?;
        let clamped = filler.clamped();
        self.lease.filled = Some(totals);
        self.lease.progress.clamped.store(clamped, Ordering::Relaxed);
        Ok(convert::totals(totals))
    }

    fn drop(&mut self, handle: Resource<WriterHandle>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}
