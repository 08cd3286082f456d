//! Layers as wholes: made, removed, mounted, counted.

use crate::Plain;
use crate::bindings::exports::layerbox::driver::lifecycle::{Guest, Layer, Place};
use crate::bindings::layerbox::driver::mounts::{self, Access, Branch};
use crate::bindings::layerbox::driver::{directories, references};
use crate::error::{Error, Result};
use crate::{records, view};

impl Guest for Plain {
    fn create(id: String, parent: Option<String>, depth: u32) -> Result<()> {
        if records::exists(&id)? {
            return Err(Error::Exists(id));
        }
        let mut ancestors = Vec::new();
        if let Some(parent) = parent {
            let above = records::ancestors(&parent).map_err(|error| match error {
                Error::NotFound(parent) => Error::NoSuchParent(parent),
                other => other,
            })?;
            ancestors = [vec![parent], above].concat();
        }
        if ancestors.len() > depth as usize {
            return Err(Error::TooDeep(depth));
        }
        // The record last: it is what makes the layer one.
        directories::make(&id)?;
        records::write(&id, &ancestors)
    }

    fn remove(id: String, force: bool) -> Result<()> {
        records::ancestors(&id)?;
        // Asked before anything is unmounted, although `discard` would find out as well.
        if let Some((child, _)) =
            records::all()?.into_iter().find(|(_, ancestors)| ancestors.first() == Some(&id))
        {
            return Err(Error::HasChildren(child));
        }
        let count = references::count(&id)?;
        if count > 0 && !force {
            return Err(Error::Busy(format!("got {count} times")));
        }
        mounts::unmount(&id, force)?;
        references::clear(&id)?;
        // The record last: should the host refuse, the layer is as whole as it was.
        directories::discard(&id)?;
        records::delete(&id)
    }

    fn get(id: String, label: Option<String>) -> Result<Place> {
        let mut layers = vec![id.clone()];
        layers.extend(records::ancestors(&id)?);
        // An opaque root hides all that is below. overlayfs would not know.
        for (index, layer) in layers.iter().enumerate() {
            if view::root_is_opaque(layer)? {
                layers.truncate(index + 1);
                break;
            }
        }
        if layers.len() == 1 {
            return Ok(Place::Content);
        }
        if !mounts::mounted(&id)? {
            let access = |index| if index == 0 { Access::ReadWrite } else { Access::ReadOnly };
            let branches: Vec<Branch> = (layers.iter().enumerate())
                .map(|(index, layer)| Branch::open(layer, access(index)))
                .collect::<Result<_>>()?;
            let borrowed: Vec<&Branch> = branches.iter().collect();
            mounts::mount(&id, &borrowed, label.as_deref())?;
        }
        references::acquire(&id)?;
        Ok(Place::Merged)
    }

    fn put(id: String) -> Result<()> {
        records::ancestors(&id)?;
        match references::count(&id)? {
            0 => return Ok(()),
            // Unmounted before it is counted: where that is not possible, the user is still one.
            1 => mounts::unmount(&id, false)?,
            _ => {}
        }
        references::release(&id)?;
        Ok(())
    }

    fn exists(id: String) -> Result<bool> {
        records::exists(&id)
    }

    fn list() -> Result<Vec<Layer>> {
        Ok(records::all()?.into_iter().map(|(id, ancestors)| Layer { id, ancestors }).collect())
    }

    fn metadata(id: String) -> Result<Layer> {
        let ancestors = records::ancestors(&id)?;
        Ok(Layer { id, ancestors })
    }

    fn status() -> Result<Vec<(String, String)>> {
        let layers = records::all()?;
        let deepest = layers.iter().map(|(_, ancestors)| ancestors.len() + 1).max().unwrap_or(0);
        let row = |key: &str, value: usize| (key.to_owned(), value.to_string());
        // `Dirs` is what Docker's aufs driver calls the number of layers.
        Ok(vec![row("Dirs", layers.len()), row("Deepest", deepest)])
    }

    fn cleanup() -> Result<u32> {
        let (mut unmounted, mut failure) = (0, None);
        let mounted = mounts::all()?;
        for id in &mounted {
            // One that is in use must not keep the others mounted.
            match mounts::unmount(id, false).and_then(|()| references::clear(id)) {
                Ok(()) => unmounted += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for (id, _) in records::all()?.iter().filter(|(id, _)| !mounted.contains(id)) {
            references::clear(id)?;
        }
        failure.map_or(Ok(unmounted), Err)
    }
}
