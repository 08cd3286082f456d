//! From layers to answers: the archive of a layer or of a difference, the list of changes, the size.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::Plain;
use crate::bindings::exports::layerbox::driver::differ::{ApplyOptions, Guest, Outcome};
use crate::bindings::layerbox::driver::streams::Sink;
use crate::bindings::layerbox::driver::tree::{Content, Piece};
use crate::bindings::layerbox::driver::types::{
    Attributes, ChangeKind, ChangeList, Dialect, IdMaps, Kind, Node, Totals,
};
use crate::encode::{self, Member};
use crate::error::{Error, Result, printable};
use crate::owners::Way;
use crate::view::{Layer, Merged, Seen, WHITEOUT, merge};
use crate::{apply, names, owners, records};

impl Guest for Plain {
    fn diff(id: String, parent: Option<String>, maps: IdMaps) -> Result<Outcome> {
        let ancestors = records::ancestors(&id)?;
        if parent.is_none() || parent.as_ref() == ancestors.first() {
            let layer = Layer::read(&id)?;
            return write(&own(&layer, !ancestors.is_empty()), &maps);
        }
        let layers = Layers::read(&[Some(&id), parent.as_ref()])?;
        write(&difference(&layers.merged(parent.as_ref())?, &layers.merged(Some(&id))?), &maps)
    }

    fn apply_diff(id: String, parent: Option<String>, options: ApplyOptions) -> Result<Totals> {
        let ancestors = records::ancestors(&id)?;
        match parent {
            Some(parent) if ancestors.first() != Some(&parent) => {
                Err(Error::InvalidArgument(format!("{parent} is not the parent of {id}")))
            }
            _ => apply::apply(&id, &options),
        }
    }

    fn changes(id: String, parent: Option<String>) -> Result<ChangeList> {
        let parent = parent.or(records::ancestors(&id)?.into_iter().next());
        let layers = Layers::read(&[Some(&id), parent.as_ref()])?;
        Ok(changes(&layers.merged(parent.as_ref())?, &layers.merged(Some(&id))?))
    }

    fn diff_size(id: String, _parent: Option<String>) -> Result<Totals> {
        records::ancestors(&id)?;
        let layer = Layer::read(&id)?;
        let mut totals = Totals { entries: 0, bytes: 0 };
        let mut counted = BTreeSet::new();
        for node in layer.nodes.values().filter(|node| !node.name.is_empty() && node.kind != Kind::Socket) {
            totals.entries += 1;
            if let Kind::File(size) = node.kind
                && counted.insert((node.identity.device, node.identity.inode))
            {
                totals.bytes += size;
            }
        }
        Ok(totals)
    }
}

/// All layers that two stacks are made of, each read once.
struct Layers(BTreeMap<String, Layer>);

impl Layers {
    fn read(tops: &[Option<&String>]) -> Result<Layers> {
        let mut layers = BTreeMap::new();
        for top in tops.iter().copied().flatten() {
            for id in records::ancestors(top)?.into_iter().chain([top.clone()]) {
                if !layers.contains_key(&id) {
                    layers.insert(id.clone(), Layer::read(&id)?);
                }
            }
        }
        Ok(Layers(layers))
    }

    /// The whole tree of a layer; of none, nothing.
    fn merged(&self, top: Option<&String>) -> Result<Merged<'_>> {
        let Some(top) = top else { return Ok(Merged::new()) };
        let ancestors = records::ancestors(top)?;
        Ok(merge([top].into_iter().chain(&ancestors).rev().filter_map(|id| self.0.get(id))))
    }
}

/// What an archive is made of, by [`names::key`].
type Items<'a> = BTreeMap<Vec<u8>, Item<'a>>;

/// One item of an archive.
enum Item<'a> {
    /// The deletion of the name.
    Whiteout,
    /// The deletion of a name that a socket has now.
    Hidden(Seen<'a>),
    /// A node, and whether it is an opaque directory.
    Node(Seen<'a>, bool),
}

/// A layer's own content. Over others a socket deletes what they have by its name, where its directory goes
/// on in them: overlayfs writes down of each directory that it copied up where it came from, aufs nothing.
fn own(layer: &Layer, lies_on_others: bool) -> Items<'_> {
    let mut items = Items::new();
    items.extend(layer.hidden.iter().map(|key| (key.clone(), Item::Whiteout)));
    let above = |key: &[u8]| -> Vec<Vec<u8>> {
        std::iter::successors(parent(key), |key| parent(key)).map(<[u8]>::to_vec).collect()
    };
    let goes_on = |key: &[u8]| {
        let has_origin = |node: &Node| {
            let origins = [&b"trusted.overlay.origin"[..], b"user.overlay.origin"];
            node.attributes.xattrs.iter().any(|xattr| origins.contains(&xattr.name.as_slice()))
        };
        let may = key.is_empty()
            || layer.tree.dialect() == Dialect::Aufs
            || layer.nodes.get(key).is_some_and(has_origin);
        may && !layer.opaque.contains(key)
    };
    for (key, node) in &layer.nodes {
        let seen = Seen { layer, node };
        let deletes = lies_on_others
            && node.kind == Kind::Socket
            && names::can_be_deleted(&node.name)
            && above(key).iter().all(|directory| goes_on(directory));
        let item = if deletes { Item::Hidden(seen) } else { Item::Node(seen, layer.opaque.contains(key)) };
        items.insert(key.clone(), item);
    }
    items
}

/// What makes `new` of `old` when it is laid on it.
fn difference<'a>(old: &Merged<'a>, new: &Merged<'a>) -> Items<'a> {
    let mut items = Items::new();
    for (key, seen) in new {
        if !old.get(key).is_some_and(|before| same(before, seen)) {
            items.insert(key.to_vec(), Item::Node(*seen, false));
        }
    }
    for key in gone(old, new) {
        items.insert(key.to_vec(), Item::Whiteout);
    }
    // A socket cannot be in an archive; what it took the place of is gone all the same.
    for (key, seen) in new.iter().filter(|(_, seen)| seen.node.kind == Kind::Socket) {
        if old.get(key).is_some_and(|before| before.node.identity != seen.node.identity) {
            items.insert(key.to_vec(), Item::Hidden(*seen));
        }
    }
    // A directory that holds an item, or hides something, covers the one below it and must say what that
    // said. The root does so in any case.
    for key in items.keys().cloned().collect::<Vec<_>>() {
        let mut above = parent(&key);
        while let Some(directory) = above.filter(|directory| !items.contains_key(*directory)) {
            if let Some(seen) = new.get(directory) {
                items.insert(directory.to_vec(), Item::Node(*seen, false));
            }
            above = parent(directory);
        }
    }
    items
}

/// Whether nothing needs to be written to make the one of the other. The content of two files cannot be
/// compared from here, so only one and the same file is the same; anything else is what its kind and its
/// attributes are.
fn same(old: &Seen<'_>, new: &Seen<'_>) -> bool {
    match (&old.node.kind, &new.node.kind) {
        (Kind::File(_), Kind::File(_)) => old.node.identity == new.node.identity,
        (old_kind, new_kind) => {
            let (before, mut after) = (&old.node.attributes, new.node.attributes.clone());
            let usual = Attributes { mode: 0o755, mtime: after.mtime, ..encode::nothing() };
            if new.node.name.is_empty() && after == usual {
                // The time of a root that says nothing else alone says nothing.
                after.mtime = before.mtime;
            }
            old_kind == new_kind && *before == after
        }
    }
}

/// The keys that are in `old` only; of a directory that is gone not what lay in it, nor of one that is
/// something else now.
fn gone<'a>(old: &Merged<'a>, new: &Merged<'_>) -> Vec<&'a [u8]> {
    let stays = |directory: &[u8]| new.get(directory).is_some_and(|seen| seen.node.kind == Kind::Directory);
    old.keys().copied().filter(|key| !new.contains_key(key) && parent(key).is_none_or(stays)).collect()
}

/// The key of the directory that a key lies in; the root lies in none.
fn parent(key: &[u8]) -> Option<&[u8]> {
    let end = key.iter().rposition(|&byte| byte == 0).unwrap_or(0);
    (!key.is_empty()).then(|| &key[..end])
}

/// Writes the archive of some items.
fn write(items: &Items<'_>, maps: &IdMaps) -> Result<Outcome> {
    let sink = Sink::open()?;
    let totals = Totals { entries: 0, bytes: 0 };
    let outcome = Outcome { totals, skipped: Vec::new() };
    let mut output = Output { sink: &sink, maps, first: HashMap::new(), outcome };
    for (key, item) in items {
        match item {
            Item::Whiteout => output.mark(&names::whiteout(&names::of_key(key)))?,
            Item::Hidden(seen) => {
                output.mark(&names::whiteout(&seen.node.name))?;
                output.node(seen, true)?;
            }
            Item::Node(seen, opaque) => {
                output.node(seen, items.len() > 1 || *opaque)?;
                if *opaque {
                    output.mark(&names::join(&seen.node.name, names::OPAQUE))?;
                }
            }
        }
    }
    sink.write(&[0; 1024])?;
    Ok(output.outcome)
}

/// An archive under way.
struct Output<'a> {
    sink: &'a Sink,
    maps: &'a IdMaps,
    /// The first name of each file that has several.
    first: HashMap<(u64, u64), Vec<u8>>,
    outcome: Outcome,
}

impl Output<'_> {
    /// Writes the mark of a deletion or of an opaque directory.
    fn mark(&self, name: &[u8]) -> Result<()> {
        let nothing = encode::nothing();
        let member = Member { name, flag: b'0', attributes: &nothing, size: 0, target: b"", device: (0, 0) };
        self.sink.write(&encode::headers(&member))
    }

    /// Writes a node. The root is written where it says something; its time does so where there is something
    /// beside it.
    fn node(&mut self, seen: &Seen<'_>, others: bool) -> Result<()> {
        let Seen { layer, node } = *seen;
        let mut attributes = self.attributes(node)?;
        if node.name.is_empty() {
            let usual = Attributes { mode: 0o755, mtime: attributes.mtime, ..encode::nothing() };
            let timeless = attributes.mtime == encode::nothing().mtime;
            if attributes == usual && (timeless || !others) {
                return Ok(());
            }
        }
        if node.kind == Kind::Socket {
            if self.outcome.skipped.len() < 100 {
                self.outcome.skipped.push(node.name.clone());
            }
            return Ok(());
        }
        let mut name = node.name.clone();
        if node.kind == Kind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        self.outcome.totals.entries += u64::from(!node.name.is_empty());
        let first = self.first_name(node);
        let (flag, size, target, device): (_, _, &[u8], _) = match (&first, &node.kind) {
            (Some(first), _) => (b'1', 0, first, (0, 0)),
            (None, Kind::File(size)) => (b'0', *size, b"", (0, 0)),
            (None, Kind::Symlink(target)) => (b'2', 0, target, (0, 0)),
            (None, Kind::CharacterDevice(device)) => (b'3', 0, b"", (device.major, device.minor)),
            (None, Kind::BlockDevice(device)) => (b'4', 0, b"", (device.major, device.minor)),
            (None, Kind::Directory) => (b'5', 0, b"", (0, 0)),
            (None, Kind::Fifo) => (b'6', 0, b"", (0, 0)),
            (None, Kind::HardLink(_) | Kind::Socket) => {
                return Err(Error::Unsupported("an unknown kind".to_owned()));
            }
        };
        if first.is_some() {
            attributes.xattrs.clear();
        }
        let member = Member { name: &name, flag, attributes: &attributes, size, target, device };
        self.outcome.totals.bytes += member.size;
        let mut pieces = vec![Piece::Bytes(encode::headers(&member))];
        if member.size > 0 {
            pieces.push(Piece::Content(Content { name: node.name.clone(), length: member.size }));
            pieces.push(Piece::Bytes(vec![0; (member.size.next_multiple_of(512) - member.size) as usize]));
        }
        layer.tree.send(&pieces, self.sink)
    }

    /// The name under which the archive holds this file already, if it does.
    fn first_name(&mut self, node: &Node) -> Option<Vec<u8>> {
        if node.links < 2 || node.kind == Kind::Directory {
            return None;
        }
        let identity = (node.identity.device, node.identity.inode);
        let first = self.first.get(&identity).cloned();
        self.first.entry(identity).or_insert_with(|| node.name.clone());
        first
    }

    /// The attributes that the archive holds; refuses what it cannot say.
    fn attributes(&self, node: &Node) -> Result<Attributes> {
        let cannot = |what: String| Error::Unsupported(format!("{}: {what}", printable(&node.name)));
        if names::split(&node.name).1.starts_with(names::MARK) {
            return Err(cannot("in an archive its name would be a deletion".to_owned()));
        }
        // Only a layer of aufs shows it as a node.
        if node.kind == WHITEOUT {
            return Err(cannot("in a layer of overlayfs it would be a deletion".to_owned()));
        }
        let mut attributes = node.attributes.clone();
        let unmapped = |id: u32| cannot(format!("no range covers the owner {id}"));
        attributes.uid = owners::inside(&self.maps.uids, attributes.uid).map_err(unmapped)?;
        attributes.gid = owners::inside(&self.maps.gids, attributes.gid).map_err(unmapped)?;
        attributes.xattrs =
            owners::attributes(self.maps, Way::Inside, &attributes.xattrs).map_err(unmapped)?;
        Ok(attributes)
    }
}

/// What differs between two trees, as Docker's overlay2 driver tells it.
fn changes(old: &Merged<'_>, new: &Merged<'_>) -> ChangeList {
    let mut found = BTreeMap::new();
    for (key, seen) in new.iter().filter(|(key, _)| !key.is_empty()) {
        match old.get(key) {
            None => _ = found.insert(names::of_key(key), ChangeKind::Added),
            Some(before) if modified(before.node, seen.node) => {
                _ = found.insert(names::of_key(key), ChangeKind::Modified)
            }
            Some(_) => {}
        }
    }
    for key in gone(old, new).into_iter().filter(|key| !key.is_empty()) {
        found.insert(names::of_key(key), ChangeKind::Deleted);
    }
    // A directory in which something changed has changed. The way up ends at one that is listed: it has a way
    // of its own.
    for name in found.keys().cloned().collect::<Vec<_>>() {
        let mut directory = names::split(&name).0;
        while !directory.is_empty() && !found.contains_key(directory) {
            found.insert(directory.to_vec(), ChangeKind::Modified);
            directory = names::split(directory).0;
        }
    }
    let mut list = ChangeList { names: Vec::new(), entries: Vec::new() };
    for (name, kind) in found {
        list.entries.push((name.len() as u32, kind));
        list.names.extend(name);
    }
    list
}

/// Whether Docker calls a file modified. It does not look into files.
fn modified(old: &Node, new: &Node) -> bool {
    let (before, after) = (&old.attributes, &new.attributes);
    if old.kind != new.kind || (before.mode, before.uid, before.gid) != (after.mode, after.uid, after.gid) {
        return true;
    }
    let capability = |attributes: &Attributes| {
        attributes
            .xattrs
            .iter()
            .find(|xattr| xattr.name == b"security.capability")
            .map(|xattr| xattr.value.clone())
    };
    // An archive may have lost the nanoseconds of one of the two.
    let (then, now) = (before.mtime, after.mtime);
    let same_time =
        then == now || then.seconds == now.seconds && (then.nanoseconds == 0 || now.nanoseconds == 0);
    // Of what cannot be executed they say nothing.
    let executable = matches!(new.kind, Kind::File(_)) && after.mode & 0o111 != 0;
    executable && capability(before) != capability(after) || new.kind != Kind::Directory && !same_time
}
