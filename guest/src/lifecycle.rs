//! Layers as wholes: made, removed, mounted and unmounted, listed. No content is moved here.
//!
//! The order of the steps is what matters: a layer is in `layers/` only when its directories are there,
//! counted only when it is mounted, and no longer counted only when it is unmounted. Whatever fails undoes
//! the steps before it.

use crate::host::{Access, Directories, Error, Layer, Mounts, Place, References, Result, Trees};
use crate::layers::{LayerId, Records};
use crate::merge;

/// The calls, over the records and whatever a call was lent.
#[derive(Debug)]
pub struct Lifecycle<'a, H> {
    records: &'a Records,
    host: &'a H,
}

impl<'a, H> Lifecycle<'a, H> {
    /// The calls of one store.
    pub fn new(records: &'a Records, host: &'a H) -> Self {
        Self { records, host }
    }

    /// Whether there is such a layer.
    ///
    /// # Errors
    /// [`Error::InvalidId`], and [`Error::Corrupt`] for a damaged record.
    pub fn exists(&self, id: &str) -> Result<bool> {
        self.records.exists(&LayerId::parse(id)?)
    }

    /// All layers, in the order of their ids.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged record.
    pub fn list(&self) -> Result<Vec<Layer>> {
        self.records.all()
    }

    /// One layer.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Corrupt`] for a damaged record.
    pub fn metadata(&self, id: &str) -> Result<Layer> {
        self.records.layer(&LayerId::parse(id)?)
    }
}

impl<H: Directories> Lifecycle<'_, H> {
    /// Makes an empty layer on a parent, or on nothing.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::NoSuchParent`], [`Error::InvalidId`], [`Error::TooDeep`] when it would
    /// have more than `depth` ancestors.
    pub fn create(&self, id: &str, parent: Option<&str>, depth: u32) -> Result<()> {
        let id = LayerId::parse(id)?;
        if self.records.exists(&id)? {
            return Err(Error::Exists(id.into()));
        }
        let ancestors = match parent.map(LayerId::parse).transpose()? {
            None => Vec::new(),
            Some(parent) => match self.records.stack(&parent) {
                Err(Error::NotFound(parent)) => return Err(Error::NoSuchParent(parent)),
                other => other?,
            },
        };
        if ancestors.len() > depth as usize {
            return Err(Error::TooDeep(depth));
        }
        self.host.make(&id)?;
        self.records.create(&id, &ancestors).inspect_err(|_| {
            // The error to tell is the first one. Directories without a record are no layer; the host sweeps
            // them.
            let _ = self.host.discard(&id);
        })
    }
}

impl<H: Directories + Mounts + References> Lifecycle<'_, H> {
    /// Removes a layer; with `force` one that is mounted, too.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`], [`Error::HasChildren`].
    pub fn remove(&self, id: &str, force: bool) -> Result<()> {
        let id = LayerId::parse(id)?;
        if !self.records.exists(&id)? {
            return Err(Error::NotFound(id.into()));
        }
        let users = self.host.count(&id)?;
        if users > 0 && !force {
            return Err(Error::Busy(format!("mounted for {users} users")));
        }
        if force {
            // The host would refuse to discard it, but only once it had been unmounted for nothing.
            if let Some(child) = self.records.child(&id)? {
                return Err(Error::HasChildren(child));
            }
            self.host.unmount(&id, true)?;
            self.host.clear(&id)?;
        }
        self.host.discard(&id)?;
        self.records.remove(&id)
    }
}

impl<H: Mounts + References + Trees> Lifecycle<'_, H> {
    /// Makes a layer's whole tree visible and counts the user.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::MountFailed`].
    pub fn get(&self, id: &str, label: Option<&str>) -> Result<Place> {
        let stack = self.records.stack(&LayerId::parse(id)?)?;
        let [id, _, ..] = stack.as_slice() else {
            return Ok(Place::Content);
        };
        if self.host.count(id)? > 0 {
            self.host.acquire(id)?;
            return Ok(Place::Merged);
        }
        if self.host.mounted(id)? {
            // Nobody was told of it: the call that mounted it was cut off before it counted.
            self.host.unmount(id, false)?;
        }
        let visible = &stack[..self.visible(&stack)?];
        if visible.len() == 1 {
            // Its root is opaque: nothing of its ancestors shows, as if it had none.
            return Ok(Place::Content);
        }
        self.mount(id, visible, label)?;
        self.host.acquire(id).inspect_err(|_| {
            // The error to tell is the first one; a mount that stays behind is found by the next get.
            let _ = self.host.unmount(id, false);
        })?;
        Ok(Place::Merged)
    }

    /// Ends one get; the last unmounts.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Busy`] while files are open in the union: the user is still counted
    /// then.
    pub fn put(&self, id: &str) -> Result<()> {
        let stack = self.records.stack(&LayerId::parse(id)?)?;
        let [id, _, ..] = stack.as_slice() else {
            return Ok(());
        };
        match self.host.count(id)? {
            0 => return Ok(()),
            1 => self.host.unmount(id, false)?,
            _ => {}
        }
        self.host.release(id)?;
        Ok(())
    }

    fn mount(&self, id: &LayerId, visible: &[LayerId], label: Option<&str>) -> Result<()> {
        let mut branches = Vec::with_capacity(visible.len());
        for layer in visible {
            let access = if layer == id { Access::ReadWrite } else { Access::ReadOnly };
            branches.push(self.host.branch(layer, access)?);
        }
        let branches: Vec<_> = branches.iter().collect();
        self.host.mount(id, &branches, label)
    }

    /// How many layers from the top on can be seen: a layer whose root is opaque hides those below it, of
    /// which neither union file system takes notice.
    fn visible(&self, stack: &[LayerId]) -> Result<usize> {
        for (depth, layer) in stack.iter().enumerate().take(stack.len() - 1) {
            if merge::is_opaque(&self.host.tree(layer)?, b"")? {
                return Ok(depth + 1);
            }
        }
        Ok(stack.len())
    }
}

impl<H: Mounts + References> Lifecycle<'_, H> {
    /// Rows for people.
    ///
    /// # Errors
    /// Those of reading `layers/`, and [`Error::Corrupt`] for a damaged record.
    pub fn status(&self) -> Result<Vec<(String, String)>> {
        let layers = self.list()?;
        let deepest = layers.iter().map(|layer| layer.ancestors.len() + 1).max().unwrap_or_default();
        let mounted = self.host.all()?.len();
        let row = |key: &str, value: usize| (key.to_owned(), value.to_string());
        // "Dirs" is what Docker's aufs driver calls the number of layers.
        Ok(vec![row("Dirs", layers.len()), row("Deepest", deepest), row("Mounted", mounted)])
    }

    /// Unmounts all that is mounted, and answers how many that were. What is busy stays, with its count.
    ///
    /// # Errors
    /// The first that could not be unmounted, once all have been tried.
    pub fn cleanup(&self) -> Result<u32> {
        let mut unmounted = 0;
        let mut failure = None;
        for id in self.host.all()? {
            let done = LayerId::parse(&id).and_then(|id| {
                self.host.unmount(&id, false)?;
                self.host.clear(&id)
            });
            match done {
                Ok(()) => unmounted += 1,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        failure.map_or(Ok(unmounted), Err)
    }
}
