//! The exports: the shipped component's, and around them the faults that are not in what it sees.

use layerbox_guest::apply;
use layerbox_guest::bindings::Component;
use layerbox_guest::bindings::exports::layerbox::driver::{differ, lifecycle};
use layerbox_guest::bindings::layerbox::driver::{streams, writer};
use layerbox_guest::changes::{self, Changes};
use layerbox_guest::component::{Imports, RECORDS};
use layerbox_guest::differ::Differ;
use layerbox_guest::host::{
    ApplyOptions, ChangeList, Error, IdMaps, Layer, Mounts, Outcome, Place, References, Result, Totals, Trees,
};
use layerbox_guest::layers::{LayerId, Records};

use crate::fault::Fault;
use crate::mended::{Filled, MendedSource};
use crate::seen::{Call, Seen};

struct Wrong;

layerbox_guest::bindings::export!(Wrong with_types_in layerbox_guest::bindings);

/// The shipped component's calls on layers as wholes.
type Shipped = Component;

impl lifecycle::Guest for Wrong {
    fn create(id: String, parent: Option<String>, depth: u32) -> Result<()> {
        while id.starts_with("loops") && Fault::own() == Fault::LoopsInCreate {
            std::hint::black_box(());
        }
        <Shipped as lifecycle::Guest>::create(id, parent, depth)
    }

    fn remove(id: String, force: bool) -> Result<()> {
        if force && Fault::own() == Fault::RemoveUnmountsParents {
            let id = LayerId::parse(&id)?;
            Imports.unmount(&id, true)?;
            Imports.clear(&id)?;
        }
        <Shipped as lifecycle::Guest>::remove(id, force)
    }

    fn get(id: String, label: Option<String>) -> Result<Place> {
        <Shipped as lifecycle::Guest>::get(id, label)
    }

    fn put(id: String) -> Result<()> {
        let fault = Fault::own();
        let layer = LayerId::parse(&id)?;
        if fault == Fault::PutTooManyIsAnError
            && !Records::new(RECORDS).ancestors(&layer)?.is_empty()
            && Imports.count(&layer)? == 0
        {
            return Err(Error::Conflict("the layer is not mounted".to_owned()));
        }
        <Shipped as lifecycle::Guest>::put(id)?;
        if fault == Fault::PutCountsTwice {
            Imports.release(&layer)?;
        }
        Ok(())
    }

    fn exists(id: String) -> Result<bool> {
        <Shipped as lifecycle::Guest>::exists(id)
    }

    fn list() -> Result<Vec<Layer>> {
        let mut layers = <Shipped as lifecycle::Guest>::list()?;
        if Fault::own() == Fault::ListBackwards {
            layers.reverse();
        }
        Ok(layers)
    }

    fn metadata(id: String) -> Result<Layer> {
        <Shipped as lifecycle::Guest>::metadata(id)
    }

    fn status() -> Result<Vec<(String, String)>> {
        <Shipped as lifecycle::Guest>::status()
    }

    fn cleanup() -> Result<u32> {
        <Shipped as lifecycle::Guest>::cleanup()
    }
}

impl differ::Guest for Wrong {
    fn diff(id: String, parent: Option<String>, maps: IdMaps) -> Result<Outcome> {
        let seen = Seen { fault: Fault::own(), call: Call::Diff };
        let sink = streams::Sink::open()?;
        Differ::new(&Records::new(RECORDS), &seen).diff(&id, parent.as_deref(), maps, &sink)
    }

    fn apply_diff(id: String, parent: Option<String>, options: ApplyOptions) -> Result<Totals> {
        let id = Differ::new(&Records::new(RECORDS), &Imports).check(&id, parent.as_deref())?;
        let filled = Filled(writer::Writer::open(id.as_str())?);
        apply::apply(&filled, &MendedSource::open(Fault::own())?, options)
    }

    fn changes(id: String, parent: Option<String>) -> Result<ChangeList> {
        let fault = Fault::own();
        let seen = Seen { fault, call: Call::Changes };
        let records = Records::new(RECORDS);
        if fault == Fault::ChangesForgetTheGrandparent {
            let stack = records.stack(&LayerId::parse(&id)?)?;
            if parent.is_none() || parent.as_deref() == stack.get(1).map(LayerId::as_str) {
                let trees = stack.iter().map(|id| seen.tree(id)).collect::<Result<Vec<_>>>()?;
                let new: Vec<usize> = (0..trees.len()).collect();
                let old: Vec<usize> = new.iter().copied().skip(1).take(1).collect();
                return changes::changes(&trees, &old, &new).map(Changes::packed);
            }
        }
        let mut changes = Differ::new(&records, &seen).changes(&id, parent.as_deref())?;
        if fault == Fault::ChangesSortedByComponents {
            let is_slash = |byte: &u8| *byte == b'/';
            changes.sort_by(|one, other| one.split(is_slash).cmp(other.split(is_slash)));
        }
        Ok(changes.packed())
    }

    fn diff_size(id: String, parent: Option<String>) -> Result<Totals> {
        let seen = Seen { fault: Fault::own(), call: Call::Size };
        Differ::new(&Records::new(RECORDS), &seen).size(&id, parent.as_deref())
    }
}
