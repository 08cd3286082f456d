//! `directories`, `mounts`, `references`: what a call may do to the layer that it was lent as a whole.
//!
//! The worst that a component can do: make, discard, mount or unmount the one layer that the call is about,
//! as far as that call may ([`Change`]), and mount it over some of its own ancestors only, or in another
//! order. A call over all layers may unmount them and clear their counts, and makes none.

use layerbox_privileged::id::LayerId;
use wasmtime::component::Resource;

use super::driver::{directories, mounts, references};
use super::{Answer, Change, Failure, State, convert};

impl directories::Host for State {
    fn make(&mut self, id: String) -> Answer<()> {
        let id = convert::layer_id(&id)?;
        if self.lease.making.as_ref() != Some(&id) {
            return Err(Failure::Denied(format!("making layer {id}")).into());
        }
        Ok(self.lease.store.make_directories(&id)?)
    }

    fn discard(&mut self, id: String) -> Answer<()> {
        let id = convert::layer_id(&id)?;
        if self.lease.discarding.as_ref() != Some(&id) {
            return Err(Failure::Denied(format!("discarding layer {id}")).into());
        }
        if let Some(child) = self.lease.store.child(&id)? {
            return Err(Failure::HasChildren(child.to_string()).into());
        }
        let lease = self.lease.changing(&id)?;
        if lease.count(&id)? > 0 {
            return Err(Failure::Busy("the layer is mounted".to_owned()).into());
        }
        // Nobody counts on what a killed process may have left mounted.
        lease.unions.unmount(&id, false)?;
        Ok(self.lease.store.discard(&id)?)
    }
}

/// A branch of a union: a layer that was lent for it.
#[derive(Debug)]
pub struct Branch(LayerId);

impl mounts::Host for State {
    fn mount(&mut self, id: String, branches: Vec<Resource<Branch>>, label: Option<String>) -> Answer<()> {
        let id = convert::layer_id(&id)?;
        let mut ids = Vec::with_capacity(branches.len());
        for branch in &branches {
            ids.push(self.table.get(branch)?.0.clone());
        }
        let lease = self.lease.mounting(&id)?;
        match &lease.change {
            Change::Get { label: lent, .. } if *lent == label => {}
            _ => return Err(Failure::Denied(format!("mounting layer {id} with another label")).into()),
        }
        if lease.count(&id)? > 0 {
            return Err(Failure::Busy("the layer is mounted for others".to_owned()).into());
        }
        // With nobody counting on it, what is there was left by a killed process, perhaps with other
        // branches.
        if lease.unions.mounted(&id)? {
            lease.unions.unmount(&id, false)?;
        }
        let ancestors = ids.get(1..).unwrap_or_default();
        self.lease.store.require_filled(ancestors)?;
        lease.unions.mount(&id, &ids, label.as_deref())?;
        // Once more: an apply-diff that began meanwhile has looked for mounts before this one was there, or
        // sees it.
        if let Err(failure) = self.lease.store.require_filled(ancestors) {
            lease.unions.unmount(&id, false)?;
            return Err(failure.into());
        }
        Ok(())
    }

    fn unmount(&mut self, id: String, force: bool) -> Answer<()> {
        let id = convert::layer_id(&id)?;
        self.lease.unmounting(&id, force)?.unions.unmount(&id, force)?;
        Ok(())
    }

    fn mounted(&mut self, id: String) -> Answer<bool> {
        let id = convert::layer_id(&id)?;
        Ok(self.lease.querying()?.unions.mounted(&id)?)
    }

    fn all(&mut self) -> Answer<Vec<String>> {
        let lease = self.lease.querying()?;
        if lease.target.is_some() {
            return Err(Failure::Denied("the mounts of the whole store".to_owned()).into());
        }
        Ok(lease.unions.all()?.iter().map(LayerId::to_string).collect())
    }
}

impl mounts::HostBranch for State {
    fn open(&mut self, id: String, access: mounts::Access) -> Answer<Resource<Branch>> {
        let id = convert::layer_id(&id)?;
        match (access, &self.lease.querying()?.change) {
            (mounts::Access::ReadWrite, _) => drop(self.lease.mounting(&id)?),
            (mounts::Access::ReadOnly, Change::Get { branches, .. }) if branches.contains(&id) => {}
            _ => return Err(Failure::Denied(format!("layer {id} as a branch")).into()),
        }
        Ok(self.table.push(Branch(id))?)
    }

    fn drop(&mut self, handle: Resource<Branch>) -> wasmtime::Result<()> {
        self.table.delete(handle)?;
        Ok(())
    }
}

impl references::Host for State {
    fn count(&mut self, id: String) -> Answer<u32> {
        let id = convert::layer_id(&id)?;
        Ok(self.lease.querying()?.count(&id)?)
    }

    fn acquire(&mut self, id: String) -> Answer<u32> {
        let id = convert::layer_id(&id)?;
        let lease = self.lease.counting(&id, |change| matches!(change, Change::Get { .. }))?;
        Ok(lease.references.acquire(&id)?)
    }

    fn release(&mut self, id: String) -> Answer<u32> {
        let id = convert::layer_id(&id)?;
        let lease = self.lease.counting(&id, |change| *change == Change::Put)?;
        Ok(lease.references.release(&id)?)
    }

    fn clear(&mut self, id: String) -> Answer<()> {
        let id = convert::layer_id(&id)?;
        // What counts nobody can be cleared by all.
        self.lease.unmounting(&id, false)?.references.clear(&id)?;
        Ok(())
    }
}
