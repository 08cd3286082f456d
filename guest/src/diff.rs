//! From a layer, or from what two trees differ in, to an archive.
//!
//! The archive is in one form, whatever the dialect of the layer: depth first, the entries of a directory in
//! the order of their names, a deletion in the place of the name that it hides, the mark of an opaque
//! directory right behind the directory. So the same layer gives the same bytes in every store.

mod output;

mod ascent;

use std::rc::Rc;
use std::slice;

use crate::host::{Detail, Dialect, IdMaps, Kind, Name, Node, Outcome, Result, Tree, WalkOptions, Walker};
use crate::labels;
use crate::merge::{Pair, Side, list, pairs};
use crate::whiteout::{self, Found};
use ascent::{Ascent, Directory, Opened, Step};
use output::Output;

/// How many nodes are asked for at a time.
const NODES: u32 = 512;

/// Writes the archive of what a layer itself holds.
///
/// A socket is left out, but where the layer lies on others it hides what they have by its name, so the
/// archive has a deletion there. Whether they have anything is not looked at, only whether the directory goes
/// on in them: elsewhere the deletion of nothing would be seen in the union, and keep the directory from
/// being removed.
///
/// # Errors
/// [`Error::Unsupported`](crate::host::Error::Unsupported) for what an archive cannot hold, and those of the
/// host.
pub fn own<T: Tree>(tree: &T, lies_on_others: bool, sink: &T::Sink, maps: IdMaps) -> Result<Outcome> {
    let output = Output::new(slice::from_ref(tree), sink, maps)?;
    let sight = Sight { dialect: tree.dialect(), lies_on_others, merged: Vec::new() };
    match tree.dialect() {
        Dialect::Overlay | Dialect::OverlayUser => straight(tree, sight, output),
        Dialect::Aufs => sorted(tree, sight, output),
    }
}

/// Where on a way through a layer the layers below are in sight.
struct Sight {
    dialect: Dialect,
    lies_on_others: bool,
    /// The directories on the way that go on in the layers below, the root first.
    merged: Vec<Name>,
}

impl Sight {
    /// Takes notice of a directory, before anything that is in it.
    fn enter(&mut self, directory: &Node, is_opaque: bool) {
        let (above, name) = (whiteout::split(&directory.name).0, &directory.name);
        let goes_on = match name.is_empty() {
            true => self.lies_on_others,
            false => self.reaches(above) && whiteout::may_go_on(self.dialect, &directory.attributes.xattrs),
        };
        if goes_on && !is_opaque {
            while self.merged.last().is_some_and(|last| last != above) {
                self.merged.pop();
            }
            self.merged.push(name.clone());
        }
    }

    /// Whether what the layers below have in a directory is seen there.
    fn reaches(&self, directory: &[u8]) -> bool {
        self.merged.iter().any(|merged| merged == directory)
    }

    /// Whether something that the archive cannot hold must be a deletion there. One whose name is too long
    /// for that, or means something else, has the name of nothing that came out of an archive.
    fn is_hidden_by(&self, name: &[u8]) -> bool {
        self.reaches(whiteout::split(name).0) && whiteout::deletion(name).is_some()
    }
}

/// The overlay dialect: whiteouts have the very names that they hide, so a walk is in the archive's order
/// already.
fn straight<T: Tree>(tree: &T, mut sight: Sight, mut output: Output<'_, T>) -> Result<Outcome> {
    let dialect = tree.dialect();
    let walker = tree.walk(&WalkOptions { start: Name::new(), recursive: true, detail: Detail::Full })?;
    let mut root = None;
    loop {
        let nodes = walker.next(NODES)?;
        if nodes.is_empty() {
            return output.finish();
        }
        for node in nodes {
            let is_opaque = node.kind == Kind::Directory
                && whiteout::has_opaque_attribute(dialect, &node.attributes.xattrs);
            if node.kind == Kind::Directory {
                sight.enter(&node, is_opaque);
            }
            if node.name.is_empty() {
                let says = output.root_says(&node, 0)?;
                if says.always {
                    output.add(&node, 0)?;
                } else if says.with_content {
                    root = Some(node);
                }
                if is_opaque {
                    put_root(&mut root, &mut output)?;
                    output.make_opaque(b"")?;
                }
                continue;
            }
            if node.kind == Kind::Socket {
                if sight.is_hidden_by(&node.name) {
                    put_root(&mut root, &mut output)?;
                    output.delete(&node.name)?;
                }
                output.skip(node.name);
                continue;
            }
            put_root(&mut root, &mut output)?;
            match whiteout::found(dialect, &node.name, &node.kind) {
                Found::Hides(name) => output.delete(name)?,
                _ => output.add(&node, 0)?,
            }
            if is_opaque {
                output.make_opaque(&node.name)?;
            }
        }
    }
}

fn put_root<T: Tree>(root: &mut Option<Node>, output: &mut Output<'_, T>) -> Result<()> {
    root.take().map_or(Ok(()), |root| output.add(&root, 0))
}

/// The aufs dialect: `.wh.` names sort elsewhere than what they hide, so each directory is put in order
/// first.
fn sorted<T: Tree>(tree: &T, mut sight: Sight, output: Output<'_, T>) -> Result<Outcome> {
    let Some(root) = tree.stat(&[Name::new()], Detail::Full)?.into_iter().flatten().next() else {
        return output.finish();
    };
    let is_new = output.root_says(&root, 0)?.always;
    let root = Directory {
        node: Rc::new(root),
        layer: 0,
        old: Vec::new(),
        new: Vec::new(),
        is_new,
        is_opaque: false,
    };
    Ascent::new(output).run(root, |directory| {
        let listing = list(tree, &directory.node.name, Detail::Full)?;
        sight.enter(&directory.node, directory.is_opaque || listing.opaque);
        let steps = listing.items.into_iter().flat_map(|item| match item.node {
            None => vec![Step::Delete(item.name)],
            Some(node) if node.kind == Kind::Socket && sight.is_hidden_by(&node.name) => {
                vec![Step::Delete(node.name.clone()), Step::Skip(node.name.clone())]
            }
            // Its own whiteout hides what lies below it: for a directory that is to be opaque, for anything
            // else nothing.
            Some(node) => vec![found(node, 0, Vec::new(), item.hides)],
        });
        Ok(Opened { is_opaque: listing.opaque, steps: steps.collect() })
    })
}

/// The step for something that is new.
fn found(node: Rc<Node>, layer: usize, new: Vec<usize>, is_opaque: bool) -> Step {
    match node.kind {
        Kind::Directory => {
            Step::Enter(Directory { node, layer, old: Vec::new(), new, is_new: true, is_opaque })
        }
        Kind::Socket => Step::Skip(node.name.clone()),
        _ => Step::Put(node, layer),
    }
}

/// Writes the archive of what turns one tree into another. Both are lists of layers, uppermost first, as
/// indices of `trees`.
///
/// A directory above anything that differs has an entry, too, because applying an archive makes directories
/// that it does not speak of with attributes of its own.
///
/// # Errors
/// [`Error::Unsupported`](crate::host::Error::Unsupported) for what an archive cannot hold, and those of the
/// host.
pub fn between<T: Tree>(
    trees: &[T],
    old: Vec<usize>,
    new: Vec<usize>,
    sink: &T::Sink,
    maps: IdMaps,
) -> Result<Outcome> {
    let output = Output::new(trees, sink, maps)?;
    let root = |layers: &[usize]| -> Result<_> {
        let Some(&layer) = layers.first() else { return Ok(None) };
        let found = trees[layer].stat(&[Name::new()], Detail::Full)?.into_iter().flatten().next();
        Ok(found.map(|node| (node, layer)))
    };
    let Some((node, layer)) = root(&new)?.filter(|_| old != new) else {
        return output.finish();
    };
    let before = root(&old)?;
    let is_new = output.root_says(&node, layer)?.always
        && before.is_none_or(|(before, _)| !has_same_attributes(&before, &node));
    let root = Directory { node: Rc::new(node), layer, old, new, is_new, is_opaque: false };
    Ascent::new(output).run(root, |directory| {
        let pairs = pairs(trees, &directory.node.name, &directory.old, &directory.new, Detail::Full)?;
        Ok(Opened { is_opaque: false, steps: pairs.into_iter().flat_map(steps).collect() })
    })
}

/// What is to be done where two trees have something at a name.
fn steps(pair: Pair) -> Vec<Step> {
    if pair.is_shared() {
        return Vec::new();
    }
    match (pair.old, pair.new) {
        (None, None) => Vec::new(),
        (Some(_), None) => vec![Step::Delete(pair.name)],
        (None, Some(new)) => vec![found(new.node, new.layer, new.layers, false)],
        (Some(_), Some(new)) if new.node.kind == Kind::Socket => {
            vec![Step::Delete(pair.name.clone()), Step::Skip(pair.name)]
        }
        (Some(old), Some(new)) => match (old.is_directory(), new.is_directory()) {
            (true, true) => {
                let is_new = !has_same_attributes(&old.node, &new.node);
                let Side { node, layer, layers, .. } = new;
                vec![Step::Enter(Directory {
                    node,
                    layer,
                    old: old.layers,
                    new: layers,
                    is_new,
                    is_opaque: false,
                })]
            }
            (false, false) if is_same(&old.node, &new.node) => Vec::new(),
            _ => vec![found(new.node, new.layer, new.layers, false)],
        },
    }
}

/// Whether two things that are no directories are surely the same. Two files with the same size and time may
/// differ all the same, since builds that can be reproduced give all their files one time.
fn is_same(old: &Node, new: &Node) -> bool {
    match (&old.kind, &new.kind) {
        (Kind::File(_), Kind::File(_)) => old.identity == new.identity,
        (old_kind, new_kind) => old_kind == new_kind && has_same_attributes(old, new),
    }
}

fn has_same_attributes(old: &Node, new: &Node) -> bool {
    let (old, new) = (&old.attributes, &new.attributes);
    (old.mode, old.uid, old.gid, old.mtime) == (new.mode, new.uid, new.gid, new.mtime)
        && labels::content(&old.xattrs).eq(labels::content(&new.xattrs))
}
