//! Holds stores against the model: the layers of one sequence, in both dialects.

use super::{Layer, Node, Sequence, Tree, changes, disguised};
use crate::check::{equal, same_changes};
use crate::subject::{Dialect, Store};
use crate::tar::{check_order, read};
use crate::view;

/// Two empty stores that sequences are verified in, one after another.
pub struct Bench {
    /// The overlay dialect.
    pub overlay: Box<dyn Store>,
    /// The aufs dialect.
    pub aufs: Box<dyn Store>,
    /// How many sequences came here: each has ids of its own.
    pub count: u64,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench").field("count", &self.count).finish_non_exhaustive()
    }
}

/// Whether a call answers as it must, with what it is about in front of the reason.
fn at<T, E: Into<String>>(what: impl FnOnce() -> String, result: Result<T, E>) -> Result<T, String> {
    result.map_err(|why| format!("{}: {}", what(), why.into()))
}

impl Bench {
    fn ids(&mut self, layers: &[Layer]) -> Vec<String> {
        self.count += 1;
        (0..layers.len()).map(|layer| format!("s{}-{layer}", self.count)).collect()
    }

    /// Verifies apply-diff, diff, changes and diff-size of a sequence: what the model's archive makes of a
    /// layer in one dialect, and what that layer's archive makes in the other.
    ///
    /// # Errors
    /// The first answer that is not the model's.
    pub fn archives(&mut self, sequence: &Sequence) -> Result<(), String> {
        let layers = sequence.layers();
        let ids = self.ids(&layers);
        let is_even = sequence.seed.is_multiple_of(2);
        let (first, second) = if is_even { (&self.overlay, &self.aufs) } else { (&self.aufs, &self.overlay) };
        let names = if is_even { ["overlay", "aufs"] } else { ["aufs", "overlay"] };
        let mut trees = vec![Tree::default()];
        for (index, layer) in layers.iter().enumerate() {
            let parent = index.checked_sub(1).and_then(|parent| ids.get(parent)).map(String::as_str);
            let seed = sequence.seed.wrapping_add(index as u64);
            let said = |store: &str, call: &str| format!("{call} of layer {index} in {store}");
            let archive = at(
                || said(names[0], "apply and diff"),
                filled(first.as_ref(), &ids[index], parent, &disguised(layer, seed), layer),
            )?;
            let entries = at(|| said(names[0], "diff"), read(&archive))?;
            at(|| said(names[0], "diff"), check_order(&entries))?;
            at(|| said(names[0], "diff"), Layer::of(&entries).and_then(|found| found.same_as(layer)))?;
            let again = at(
                || said(names[1], "apply and diff"),
                filled(second.as_ref(), &ids[index], parent, &archive, layer),
            )?;
            at(|| said(names[1], "diff"), same_bytes(&again, &archive))?;
            let tree = trees[index].with(layer);
            let expected = changes(&trees[index], &tree);
            for (store, name) in [(first, names[0]), (second, names[1])] {
                let found = at(|| said(name, "changes"), store.changes(&ids[index], None))?;
                at(|| said(name, "changes"), same_changes(&found, &expected))?;
            }
            trees.push(tree);
        }
        self.between(sequence, &ids, &trees)
    }

    /// Verifies changes and diff between two layers that are not child and parent.
    fn between(&self, sequence: &Sequence, ids: &[String], trees: &[Tree]) -> Result<(), String> {
        let count = ids.len();
        let old = (sequence.seed / 2) as usize % count;
        // Upwards from an ancestor; and downwards, which no driver asks and the contract answers all the
        // same.
        for (old, new) in [(old, count - 1), (count - 1, old)] {
            let mut archives = Vec::new();
            for (store, name) in [(&self.overlay, "overlay"), (&self.aufs, "aufs")] {
                let said = |call: &str| format!("{call} of layer {new} against layer {old} in {name}");
                let found = at(|| said("changes"), store.changes(&ids[new], Some(&ids[old])))?;
                // Compared with its parent by name, a layer is compared with its parent.
                at(|| said("changes"), same_changes(&found, &changes(&trees[old + 1], &trees[new + 1])))?;
                let diff = at(|| said("diff"), store.diff(&ids[new], Some(&ids[old])))?;
                let entries = at(|| said("diff"), read(&diff.archive))?;
                at(|| said("diff"), check_order(&entries))?;
                let layer = at(|| said("diff"), Layer::of(&entries))?;
                let merged = trees[old + 1].with(&layer);
                at(|| said("diff"), merged.same_below_root(&trees[new + 1]))?;
                archives.push(diff.archive);
            }
            let both = || format!("diff of layer {new} against layer {old} in aufs and overlay");
            at(both, same_bytes(&archives[1], &archives[0]))?;
        }
        Ok(())
    }

    /// Verifies what the uppermost layer of a sequence shows when it is mounted, and that having been mounted
    /// changes no answer.
    ///
    /// # Errors
    /// The first thing that is not as in the model.
    pub fn merged_view(&mut self, sequence: &Sequence, dialect: Dialect) -> Result<(), String> {
        let layers = sequence.layers();
        let ids = self.ids(&layers);
        let store = if dialect == Dialect::Overlay { &self.overlay } else { &self.aufs };
        let mut archive = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let parent = index.checked_sub(1).and_then(|parent| ids.get(parent)).map(String::as_str);
            let form = disguised(layer, sequence.seed.wrapping_add(index as u64));
            archive = at(
                || format!("apply of layer {index}"),
                filled(store.as_ref(), &ids[index], parent, &form, layer),
            )?;
        }
        let (Some(id), Some(layer)) = (ids.last(), layers.last()) else { return Ok(()) };
        let expected = Tree::of(&layers);
        seen(store.as_ref(), id, dialect, &expected)?;
        // With nothing on it, as a container begins; only the root is another.
        let empty = format!("{id}-init");
        store.create(&empty, Some(id))?;
        seen(store.as_ref(), &empty, dialect, &Tree { root: new_root(store.as_ref(), &empty)?, ..expected })?;
        // From now on nothing is known of the layer without looking.
        equal("diff-size once it was mounted", store.diff_size(id, None)?, layer.totals())?;
        let again = at(|| "diff once it was mounted".to_owned(), store.diff(id, None))?;
        at(|| "diff once it was mounted".to_owned(), same_bytes(&again.archive, &archive))
    }
}

/// Fails where a layer shows something else.
fn seen(store: &dyn Store, id: &str, dialect: Dialect, expected: &Tree) -> Result<(), String> {
    let path = at(|| "get".to_owned(), store.get(id, None))?;
    let seen = view::shown(store, id, &path, dialect);
    at(|| "put".to_owned(), store.put(id))?;
    let seen = seen.map_err(|why| format!("reading what {id} shows: {why}"))?;
    at(|| format!("what {id} shows"), seen.same_as(expected))
}

/// The root of a layer that was just made: its time is that of its making.
fn new_root(store: &dyn Store, id: &str) -> Result<Node, String> {
    view::node(&store.content_path(id)).map_err(|why| format!("reading the root of {id}: {why}"))
}

/// Makes a layer from an archive, and answers its own archive.
fn filled(
    store: &dyn Store,
    id: &str,
    parent: Option<&str>,
    archive: &[u8],
    layer: &Layer,
) -> Result<Vec<u8>, String> {
    store.create(id, parent)?;
    equal("totals of apply", store.apply(id, parent, archive)?, layer.totals())?;
    equal("diff-size", store.diff_size(id, parent)?, layer.totals())?;
    let diff = store.diff(id, parent)?;
    equal("totals of diff", diff.totals, layer.totals())?;
    Ok(diff.archive)
}

/// Fails where two archives are not the same, with the first entry that differs where there is one.
///
/// # Errors
/// In what they differ.
pub fn same_bytes(found: &[u8], expected: &[u8]) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    crate::check::same_entries(&read(found)?, &read(expected)?)?;
    let at = found.iter().zip(expected).position(|(one, other)| one != other);
    let at = at.unwrap_or_else(|| found.len().min(expected.len()));
    Err(format!("the archives say the same in different bytes, from byte {at} on"))
}
