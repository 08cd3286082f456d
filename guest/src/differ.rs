//! The calls that look at what layers hold: which layers they are about, and which module does the work.

use crate::changes::{self, Changes};
use crate::host::{IdMaps, Outcome, Result, Totals, Tree, Trees};
use crate::layers::{LayerId, Records};
use crate::{diff, size};

/// The calls, over the records and whatever a call was lent.
#[derive(Debug)]
pub struct Differ<'a, H> {
    records: &'a Records,
    host: &'a H,
}

impl<'a, H: Trees> Differ<'a, H> {
    /// The calls of one store.
    pub fn new(records: &'a Records, host: &'a H) -> Self {
        Self { records, host }
    }

    /// Writes the archive of a layer's own content where `parent` is its parent or none is given, else of the
    /// difference between the two whole trees.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::host::Error::NotFound), and those of [`diff`].
    pub fn diff(
        &self,
        id: &str,
        parent: Option<&str>,
        maps: IdMaps,
        sink: &<H::Tree as Tree>::Sink,
    ) -> Result<Outcome> {
        let stack = self.records.stack(&LayerId::parse(id)?)?;
        match parent.map(LayerId::parse).transpose()? {
            Some(parent) if stack.get(1) != Some(&parent) => {
                let two = self.open(self.records.stack(&parent)?, stack)?;
                diff::between(&two.trees, two.old, two.new, sink, maps)
            }
            _ => diff::own(&self.host.tree(&stack[0])?, stack.len() > 1, sink, maps),
        }
    }

    /// Lists what differs between the whole tree of `parent`, by default the layer's parent, and that of the
    /// layer.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::host::Error::NotFound), and those of [`changes`](changes::changes).
    pub fn changes(&self, id: &str, parent: Option<&str>) -> Result<Changes> {
        let stack = self.records.stack(&LayerId::parse(id)?)?;
        let below = match parent.map(LayerId::parse).transpose()? {
            Some(parent) if stack.get(1) != Some(&parent) => self.records.stack(&parent)?,
            _ => stack[1..].to_vec(),
        };
        let two = self.open(below, stack)?;
        changes::changes(&two.trees, &two.old, &two.new)
    }

    /// Counts what a layer itself holds.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::host::Error::NotFound), and those of the host.
    pub fn size(&self, id: &str, parent: Option<&str>) -> Result<Totals> {
        size::own(&self.host.tree(&self.check(id, parent)?)?)
    }

    /// Checks that there are such layers, in a call that is about the first only.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::host::Error::NotFound),
    /// [`Error::InvalidId`](crate::host::Error::InvalidId).
    pub fn check(&self, id: &str, parent: Option<&str>) -> Result<LayerId> {
        let id = LayerId::parse(id)?;
        self.records.ancestors(&id)?;
        if let Some(parent) = parent {
            self.records.ancestors(&LayerId::parse(parent)?)?;
        }
        Ok(id)
    }

    /// Opens the layers of two trees, each layer once.
    fn open(&self, old: Vec<LayerId>, new: Vec<LayerId>) -> Result<Two<H::Tree>> {
        let mut ids = new;
        let new = (0..ids.len()).collect();
        let old = old
            .into_iter()
            .map(|id| {
                ids.iter().position(|known| *known == id).unwrap_or_else(|| {
                    ids.push(id);
                    ids.len() - 1
                })
            })
            .collect();
        let trees = ids.iter().map(|id| self.host.tree(id)).collect::<Result<_>>()?;
        Ok(Two { trees, old, new })
    }
}

/// Two trees, as lists of layers, uppermost first.
struct Two<T> {
    /// The layers of both.
    trees: Vec<T>,
    /// Indices of them.
    old: Vec<usize>,
    new: Vec<usize>,
}
