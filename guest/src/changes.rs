//! What differs between two trees, as a list.
//!
//! What counts as a difference is what Docker's overlay2 driver takes for one: kind, mode, owner, device
//! number, `security.capability`, and for all but directories size and time. The target of a symbolic link
//! counts as well, which two links of one length and time may differ in. A directory is also listed when
//! something in it is.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::mem::discriminant;
use std::rc::Rc;

use crate::host::{ChangeKind, ChangeList, Detail, Kind, Name, Node, Result, Timestamp, Tree};
use crate::merge::{Pair, Side, names, pairs};

/// The most names that the host looks up in one call.
const BATCH: usize = 4096;

/// Lists what differs between two trees, sorted by the bytes of the path. Both are lists of layers, uppermost
/// first, as indices of `trees`; an empty one stands for nothing at all.
///
/// # Errors
/// Those of the host.
pub fn changes<T: Tree>(trees: &[T], old: &[usize], new: &[usize]) -> Result<Changes> {
    let changes = Changes::default();
    let mut comparison = Comparison { trees, directories: Vec::new(), open: Vec::new(), changes };
    comparison.enter(Name::new(), None, true, old.to_vec(), new.to_vec());
    while let Some(index) = comparison.open.pop() {
        comparison.visit(index)?;
    }
    let Comparison { directories, mut changes, .. } = comparison;
    let touched = directories.into_iter().filter(|directory| directory.is_touched && !directory.is_listed);
    touched.for_each(|directory| changes.push(&directory.name, ChangeKind::Modified));
    changes.sort_by(compare);
    Ok(changes)
}

/// Paths that differ. There can be millions, so their names are in one piece.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    names: Vec<u8>,
    /// Where in `names` each begins, how long it is, and what happened there.
    entries: Vec<(usize, usize, ChangeKind)>,
}

impl Changes {
    /// Adds one.
    pub fn push(&mut self, name: &[u8], kind: ChangeKind) {
        self.entries.push((self.names.len(), name.len(), kind));
        self.names.extend_from_slice(name);
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], ChangeKind)> {
        self.entries.iter().map(|&(start, length, kind)| (&self.names[start..][..length], kind))
    }

    /// Puts them into an order of their names.
    pub fn sort_by(&mut self, order: impl Fn(&[u8], &[u8]) -> Ordering) {
        let names = &self.names;
        // A stable sort, because it is fast on what is nearly in order.
        self.entries.sort_by(|one, other| order(&names[one.0..][..one.1], &names[other.0..][..other.1]));
    }

    /// As the contract has them.
    pub fn packed(self) -> ChangeList {
        // No name is longer than the host's, which says so in 32 bits as well.
        let entries = self.entries.iter().map(|&(_, length, kind)| (length as u32, kind)).collect();
        if self.entries.is_sorted_by_key(|entry| entry.0) {
            return ChangeList { names: self.names, entries };
        }
        let mut names = Vec::with_capacity(self.names.len());
        self.iter().for_each(|(name, _)| names.extend_from_slice(name));
        ChangeList { names, entries }
    }
}

/// Compares bytes as slices do, eight at a time: what the component is linked with goes from byte to byte,
/// and names of one directory begin alike.
fn compare(one: &[u8], other: &[u8]) -> Ordering {
    let (eights, _) = one.as_chunks::<8>();
    let (others, _) = other.as_chunks::<8>();
    let alike = eights.iter().zip(others).take_while(|(one, other)| one == other).count() * 8;
    one[alike..].cmp(&other[alike..])
}

/// A directory that at least the newer tree has.
struct Directory {
    name: Name,
    /// The directory that it is in.
    parent: Option<usize>,
    /// The layers of the two trees in which it may go on.
    old: Vec<usize>,
    new: Vec<usize>,
    /// Whether it is listed for its own sake, or never.
    is_listed: bool,
    /// Whether something in it is listed.
    is_touched: bool,
}

struct Comparison<'a, T> {
    trees: &'a [T],
    directories: Vec<Directory>,
    /// Those still to be looked into.
    open: Vec<usize>,
    changes: Changes,
}

impl<T: Tree> Comparison<'_, T> {
    fn enter(
        &mut self,
        name: Name,
        parent: Option<usize>,
        is_listed: bool,
        old: Vec<usize>,
        new: Vec<usize>,
    ) {
        self.open.push(self.directories.len());
        self.directories.push(Directory { name, parent, old, new, is_listed, is_touched: false });
    }

    /// Lists a name in a directory.
    fn list(&mut self, name: &[u8], kind: ChangeKind, directory: usize) {
        self.changes.push(name, kind);
        let mut next = Some(directory);
        while let Some(directory) = next.map(|index| &mut self.directories[index])
            && !directory.is_touched
        {
            directory.is_touched = true;
            next = directory.parent;
        }
    }

    fn visit(&mut self, index: usize) -> Result<()> {
        let Directory { name, old, new, .. } = &self.directories[index];
        if old == new {
            return Ok(());
        }
        if let ([], [layer]) = (&old[..], &new[..]) {
            // All of it is new, and one layer has all of it.
            let changes = &mut self.changes;
            return names(&self.trees[*layer], name, |name| changes.push(name, ChangeKind::Added));
        }
        let mut pairs = pairs(self.trees, name, old, new, Detail::Names)?;
        pairs.retain(|pair| !pair.is_shared());
        self.look_up(&mut pairs, Detail::Status, |old, new| {
            discriminant(&old.kind) == discriminant(&new.kind)
        })?;
        // Nothing but an executable file can have capabilities that matter.
        self.look_up(&mut pairs, Detail::Full, |old, new| {
            matches!(new.kind, Kind::File(_)) && new.attributes.mode & 0o111 != 0 && !differ(old, new)
        })?;
        for Pair { name, old, new } in pairs {
            self.take(index, name, old, new);
        }
        Ok(())
    }

    /// Lists a name if the two sides differ, and sees to what is below it.
    fn take(&mut self, index: usize, name: Name, old: Option<Side>, new: Option<Side>) {
        let Some(new) = new else {
            return self.list(&name, ChangeKind::Deleted, index);
        };
        let kind = match &old {
            None => Some(ChangeKind::Added),
            Some(old) => differ(&old.node, &new.node).then_some(ChangeKind::Modified),
        };
        if let Some(kind) = kind {
            self.list(&name, kind, index);
        }
        if new.is_directory() {
            let before = old.filter(Side::is_directory).map(|old| old.layers).unwrap_or_default();
            self.enter(name, Some(index), kind.is_some(), before, new.layers);
        }
    }
    /// Looks up more of what both trees have, where it is wanted and not known.
    fn look_up(
        &self,
        pairs: &mut [Pair],
        detail: Detail,
        wanted: impl Fn(&Node, &Node) -> bool,
    ) -> Result<()> {
        let mut by_layer: BTreeMap<usize, Vec<&mut Side>> = BTreeMap::new();
        for pair in pairs {
            if let (Some(old), Some(new)) = (&mut pair.old, &mut pair.new)
                && wanted(&old.node, &new.node)
            {
                for side in [old, new] {
                    if detail == Detail::Full || !side.has_status {
                        by_layer.entry(side.layer).or_default().push(side);
                    }
                }
            }
        }
        for (layer, mut sides) in by_layer {
            for batch in sides.chunks_mut(BATCH) {
                let names: Vec<Name> = batch.iter().map(|side| side.node.name.clone()).collect();
                for (side, found) in batch.iter_mut().zip(self.trees[layer].stat(&names, detail)?) {
                    // What is gone meanwhile, from a layer that is mounted, stays as it was.
                    if let Some(node) = found {
                        side.node = Rc::new(node);
                        side.has_status = true;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether what two trees have at a name differs, as far as it was looked up.
fn differ(old: &Node, new: &Node) -> bool {
    let is_directory = old.kind == Kind::Directory;
    let (before, after) = (&old.attributes, &new.attributes);
    old.kind != new.kind
        || (before.mode, before.uid, before.gid) != (after.mode, after.uid, after.gid)
        || (!is_directory && !is_same_time(before.mtime, after.mtime))
        || capability(old) != capability(new)
}

/// Archives may keep whole seconds only, so a time without nanoseconds stands for any time in its second.
fn is_same_time(one: Timestamp, other: Timestamp) -> bool {
    one.seconds == other.seconds
        && (one.nanoseconds == other.nanoseconds || one.nanoseconds == 0 || other.nanoseconds == 0)
}

fn capability(node: &Node) -> Option<&[u8]> {
    let found = node.attributes.xattrs.iter().find(|xattr| xattr.name == b"security.capability");
    found.map(|xattr| xattr.value.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_by_their_bytes() {
        let names: &[&[u8]] = &[
            b"",
            b"a",
            b"directory",
            b"directory-0000001",
            b"directory-0000002",
            b"directory-0000002/x",
            b"directory/0000001",
            b"directory/00000010",
            b"directory/0000002",
            b"directory/\xff",
            b"\xffdirectory/0000001",
        ];
        for (at, one) in names.iter().enumerate() {
            for (other_at, other) in names.iter().enumerate() {
                assert_eq!(compare(one, other), at.cmp(&other_at), "{one:?} {other:?}");
            }
        }
    }
}
