//! Two trees side by side, one directory at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::listing::{BATCH, Listing, is_opaque, list};
use super::{Pair, Side};
use crate::host::{Detail, Dialect, Kind, Name, Result, Tree};
use crate::whiteout;

/// Up to so many names are looked up in a layer one by one; for more the directory is listed.
const LOOKUPS: usize = 1024;

/// What two trees have in a directory, in the order of the names. Names at which the two must be the same,
/// because the layers that they share decide, may be left out.
///
/// `old` and `new` are the layers in which the directory may go on ([`Side::layers`]); an empty list stands
/// for a tree that has no such directory.
///
/// # Errors
/// Those of the host.
pub fn pairs<T: Tree>(
    trees: &[T],
    directory: &[u8],
    old: &[usize],
    new: &[usize],
    detail: Detail,
) -> Result<Vec<Pair>> {
    let shared = old.iter().rev().zip(new.iter().rev()).take_while(|(old, new)| old == new).count();
    let (old_own, below) = old.split_at(old.len() - shared);
    let (new_own, _) = new.split_at(new.len() - shared);
    let mut stage = Stage { trees, directory, detail, layers: BTreeMap::new() };
    let old_ends = stage.list(old_own, !below.is_empty())?;
    let new_ends = stage.list(new_own, !below.is_empty())?;
    match (old_ends, new_ends) {
        (true, true) => {}
        // What only one of them shows of the shared layers must be known whole.
        (true, false) | (false, true) => {
            stage.list(below, false)?;
        }
        (false, false) => stage.look_up(below)?,
    }
    let old = stage.merge(old_own, if old_ends { &[] } else { below });
    let new = stage.merge(new_own, if new_ends { &[] } else { below });
    Ok(join(old, new))
}

/// What one layer is known to have in the directory.
struct Known {
    listing: Listing,
    has_status: bool,
    /// Whether it was found out if the directory is opaque.
    opacity: bool,
}

/// The layers that were looked at.
struct Stage<'a, T> {
    trees: &'a [T],
    directory: &'a [u8],
    detail: Detail,
    layers: BTreeMap<usize, Known>,
}

impl<T: Tree> Stage<'_, T> {
    /// Lists the directory in layers, down to one where it is opaque. Answers whether there was one. `more`
    /// says that there are layers below these.
    fn list(&mut self, layers: &[usize], more: bool) -> Result<bool> {
        for (index, &layer) in layers.iter().enumerate() {
            if !self.layers.contains_key(&layer) {
                let listing = list(&self.trees[layer], self.directory, self.detail)?;
                let opacity = self.detail == Detail::Full || listing.opaque || !self.says_by_attribute(layer);
                self.layers
                    .insert(layer, Known { listing, has_status: self.detail != Detail::Names, opacity });
            }
            let Some(known) = self.layers.get_mut(&layer) else { continue };
            let is_last = !more && index + 1 == layers.len();
            if !known.opacity && !is_last {
                known.listing.opaque = is_opaque(&self.trees[layer], self.directory)?;
                known.opacity = true;
            }
            if known.listing.opaque {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn says_by_attribute(&self, layer: usize) -> bool {
        whiteout::opaque_attribute(self.trees[layer].dialect()).is_some()
    }

    /// Looks in shared layers for no more than the names that the layers above them have.
    fn look_up(&mut self, layers: &[usize]) -> Result<()> {
        let above = self.layers.values().flat_map(|known| &known.listing.items);
        let mut wanted: BTreeSet<Name> = above.map(|item| item.name.clone()).collect();
        if wanted.len() > LOOKUPS {
            self.list(layers, false)?;
            for layer in layers {
                if let Some(known) = self.layers.get_mut(layer) {
                    known.listing.items.retain(|item| wanted.contains(&item.name));
                }
            }
            return Ok(());
        }
        for (index, &layer) in layers.iter().enumerate() {
            if wanted.is_empty() {
                break;
            }
            let is_last = index + 1 == layers.len();
            let listing = self.find(layer, &wanted, is_last)?;
            for item in &listing.items {
                if item.hides || item.node.as_ref().is_some_and(|node| node.kind != Kind::Directory) {
                    wanted.remove(&item.name);
                }
            }
            let is_opaque = listing.opaque;
            self.layers.insert(layer, Known { listing, has_status: true, opacity: true });
            if is_opaque {
                break;
            }
        }
        Ok(())
    }

    /// What a layer has at some names.
    fn find(&self, layer: usize, wanted: &BTreeSet<Name>, is_last: bool) -> Result<Listing> {
        let tree = &self.trees[layer];
        let dialect = tree.dialect();
        let marks = dialect == Dialect::Aufs;
        let mut names: Vec<Name> = wanted.iter().cloned().collect();
        if marks {
            names.push(whiteout::opaque(self.directory));
            names.extend(wanted.iter().filter_map(|name| whiteout::deletion(name)));
        }
        let mut listing = Listing::default();
        let detail = if self.detail == Detail::Full { Detail::Full } else { Detail::Status };
        for batch in names.chunks(BATCH) {
            for node in tree.stat(batch, detail)?.into_iter().flatten() {
                listing.add(dialect, node);
            }
        }
        listing.settle();
        if !marks && !is_last {
            listing.opaque = is_opaque(tree, self.directory)?;
        }
        Ok(listing)
    }

    /// One tree's view of the directory: its own layers, and then those below.
    fn merge(&self, own: &[usize], below: &[usize]) -> Vec<(Name, Side)> {
        let mut view: BTreeMap<&[u8], State> = BTreeMap::new();
        for &layer in own.iter().chain(below) {
            let Some(known) = self.layers.get(&layer) else { break };
            for item in &known.listing.items {
                let state = view.entry(&item.name).or_default();
                if state.is_closed {
                    continue;
                }
                if let Some(node) = &item.node {
                    let is_directory = node.kind == Kind::Directory;
                    state.is_closed = !is_directory;
                    match &mut state.side {
                        None => {
                            let (node, has_status) = (Rc::clone(node), known.has_status);
                            state.side = Some(Side { node, layer, layers: vec![layer], has_status });
                        }
                        Some(side) if is_directory => side.layers.push(layer),
                        Some(_) => {}
                    }
                }
                state.is_closed |= item.hides;
            }
            if known.listing.opaque {
                break;
            }
        }
        view.into_iter().filter_map(|(name, state)| Some((name.to_vec(), state.side?))).collect()
    }
}

/// What is known of a name on the way down.
#[derive(Default)]
struct State {
    side: Option<Side>,
    /// Whether nothing further down can be seen.
    is_closed: bool,
}

/// Puts two views side by side.
fn join(old: Vec<(Name, Side)>, new: Vec<(Name, Side)>) -> Vec<Pair> {
    let mut pairs = Vec::with_capacity(old.len().max(new.len()));
    let mut old = old.into_iter().peekable();
    for (name, side) in new {
        while let Some((name, old)) = old.next_if(|(other, _)| *other < name) {
            pairs.push(Pair { name, old: Some(old), new: None });
        }
        let old = old.next_if(|(other, _)| *other == name).map(|(_, old)| old);
        pairs.push(Pair { name, old, new: Some(side) });
    }
    pairs.extend(old.map(|(name, old)| Pair { name, old: Some(old), new: None }));
    pairs
}
