//! What one layer itself holds.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, What};
use crate::escape;
use crate::subject::Totals;
use crate::tar::{Entry, Kind, OPAQUE, WHITEOUT, split};

/// A layer. Every name in it has its parent in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The root's own attributes.
    pub root: Node,
    /// What has names, by numbers: names with one number are hard links of each other.
    nodes: BTreeMap<usize, Node>,
    names: BTreeMap<Vec<u8>, usize>,
    /// Names that it hides, none of which it has. Those in opaque directories have nothing to hide, and are
    /// not in its archive.
    hidden: BTreeSet<Vec<u8>>,
    /// Directories of its own, or the root, that show nothing of lower layers.
    opaque: BTreeSet<Vec<u8>>,
    next: usize,
}

impl Default for Layer {
    fn default() -> Layer {
        Layer {
            root: Node::bare(),
            nodes: BTreeMap::new(),
            names: BTreeMap::new(),
            hidden: BTreeSet::new(),
            opaque: BTreeSet::new(),
            next: 0,
        }
    }
}

impl Layer {
    /// What an archive makes of an empty layer (HOSTILE, rules 3 to 7, but for symbolic links on the way,
    /// which the model has not).
    ///
    /// # Errors
    /// What cannot be applied.
    pub fn of(entries: &[Entry]) -> Result<Layer, String> {
        let mut layer = Layer::default();
        let (mut deletions, mut opaque) = (Vec::new(), Vec::new());
        for entry in entries {
            let (directory, last) = split(&entry.name);
            if last == OPAQUE {
                opaque.push(directory.to_vec());
            } else if let Some(hidden) = last.strip_prefix(WHITEOUT) {
                deletions.push(crate::tar::join(directory, hidden));
            } else {
                layer.put(entry)?;
            }
        }
        // The marks come last: they never hide anything of this archive. Those of directories first, because
        // they make directories.
        for directory in opaque {
            layer.make_parents(&directory)?;
            layer.make_opaque(&directory)?;
        }
        deletions.sort_by_key(|name| std::cmp::Reverse(name.split(|&byte| byte == b'/').count()));
        for name in deletions {
            match layer.get(&name) {
                Some(node) if node.is_directory() => drop(layer.opaque.insert(name)),
                Some(_) => {}
                None => {
                    layer.make_parents(split(&name).0)?;
                    layer.hidden.insert(name);
                }
            }
        }
        Ok(layer)
    }

    fn put(&mut self, entry: &Entry) -> Result<(), String> {
        let name = &entry.name;
        let node = match (&entry.kind, Node::of(entry)) {
            (Kind::HardLink(target), _) => {
                let number = self.names.get(target).copied();
                let number = number.ok_or_else(|| format!("{}: a link to nothing", escape::name(name)))?;
                self.make_parents(split(name).0)?;
                self.forget(name);
                self.names.insert(name.clone(), number);
                return Ok(());
            }
            (_, Some(node)) => node,
            (_, None) => return Err(format!("{}: no node", escape::name(name))),
        };
        if name.is_empty() {
            self.root.replace_directory(node);
            return Ok(());
        }
        self.make_parents(split(name).0)?;
        self.insert(name, node);
        Ok(())
    }

    fn make_parents(&mut self, directory: &[u8]) -> Result<(), String> {
        if directory.is_empty() {
            return Ok(());
        }
        match self.get(directory) {
            Some(node) if node.is_directory() => Ok(()),
            Some(_) => Err(format!("{} is no directory", escape::name(directory))),
            None => {
                self.make_parents(split(directory).0)?;
                self.insert(directory, Node::bare());
                Ok(())
            }
        }
    }

    /// What it has at a name.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        if name.is_empty() {
            return Some(&self.root);
        }
        self.names.get(name).and_then(|number| self.nodes.get(number))
    }

    /// The same, to be changed: for all its names at once.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut Node> {
        if name.is_empty() {
            return Some(&mut self.root);
        }
        self.names.get(name).and_then(|number| self.nodes.get_mut(number))
    }

    /// Whether its entry for a name is new content or a mark that hides it.
    pub fn hides(&self, name: &[u8]) -> bool {
        self.hidden.contains(name)
    }

    /// Whether a directory, or the root, is opaque.
    pub fn is_opaque(&self, directory: &[u8]) -> bool {
        self.opaque.contains(directory)
    }

    /// Its names, without the root and the marks.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.names.iter().filter_map(|(name, number)| Some((name.as_slice(), self.nodes.get(number)?)))
    }

    /// Puts something at a name whose parent it has. A directory over a directory keeps what is in it, and
    /// the extended attributes of which the new one says nothing.
    pub fn insert(&mut self, name: &[u8], node: Node) {
        self.hidden.remove(name);
        match self.get_mut(name) {
            Some(old) if old.is_directory() && node.is_directory() => old.replace_directory(node),
            _ => {
                self.forget(name);
                self.nodes.insert(self.next, node);
                self.names.insert(name.to_vec(), self.next);
                self.next += 1;
            }
        }
    }

    /// Gives another name to something.
    pub fn link(&mut self, name: &[u8], target: &[u8]) {
        if let Some(&number) = self.names.get(target) {
            self.hidden.remove(name);
            self.names.insert(name.to_vec(), number);
        }
    }

    /// Takes a name away with all below it, marks included.
    pub fn forget(&mut self, name: &[u8]) {
        self.names.retain(|other, _| other != name && !is_below(other, name));
        self.hidden.retain(|other| !is_below(other, name));
        self.opaque.retain(|other| other != name && !is_below(other, name));
        let names = &self.names;
        self.nodes.retain(|number, _| names.values().any(|used| used == number));
    }

    /// Hides a name that it does not have.
    pub fn hide(&mut self, name: &[u8]) {
        self.hidden.insert(name.to_vec());
    }

    /// Makes a directory that it has opaque.
    ///
    /// # Errors
    /// There is no such directory.
    pub fn make_opaque(&mut self, directory: &[u8]) -> Result<(), String> {
        match self.get(directory) {
            Some(node) if node.is_directory() => {
                self.opaque.insert(directory.to_vec());
                Ok(())
            }
            _ => Err(format!("{} is no directory to be opaque", escape::name(directory))),
        }
    }

    /// The entries of its archive, in the one order that archives have ([`crate::tar::check_order`]).
    pub fn entries(&self) -> Vec<Entry> {
        let mut placed: Vec<(Vec<&[u8]>, Entry)> = Vec::new();
        let mut first: BTreeMap<usize, &[u8]> = BTreeMap::new();
        let mut names: Vec<(&Vec<u8>, &usize)> = self.names.iter().collect();
        names.sort_by_key(|(name, _)| components(name));
        for (name, number) in names {
            let Some(entry) = self.nodes.get(number).and_then(|node| node.entry(name)) else { continue };
            let entry = match first.get(number) {
                Some(first) => Entry { kind: Kind::HardLink(first.to_vec()), body: Vec::new(), ..entry },
                None => entry,
            };
            first.entry(*number).or_insert(name);
            placed.push((components(name), entry));
        }
        let is_seen = |name: &&Vec<u8>| !self.opaque.iter().any(|directory| is_below(name, directory));
        let hidden = self.hidden.iter().filter(is_seen);
        placed.extend(hidden.map(|name| (components(name), Entry::whiteout(name))));
        let mark = |directory: &'_ [u8]| Entry::opaque(directory);
        placed.extend(self.opaque.iter().map(|directory| {
            let mut place = if directory.is_empty() { Vec::new() } else { components(directory) };
            place.push(b"");
            (place, mark(directory))
        }));
        placed.sort_by(|one, other| one.0.cmp(&other.0));
        let mut entries: Vec<Entry> = placed.into_iter().map(|(_, entry)| entry).collect();
        if self.root_says(entries.is_empty())
            && let Some(root) = self.root.entry(b"")
        {
            entries.insert(0, root);
        }
        entries
    }

    /// Whether its root needs an entry. The time of an empty layer's root is not kept: the archive of an
    /// empty layer is always the same.
    fn root_says(&self, is_empty: bool) -> bool {
        let bare = Node { mtime: self.root.mtime, ..Node::bare() };
        self.root != bare || (!is_empty && self.root.mtime != Node::bare().mtime)
    }

    /// Forgets what its archive does not say: the time of the root, where nothing else is to be said.
    pub(super) fn settle(&mut self) {
        if self.entries().is_empty() {
            self.root = Node::bare();
        }
    }

    /// What it adds up to.
    pub fn totals(&self) -> Totals {
        let entries = self.names().filter(|(_, node)| node.what != What::Socket).count() as u64;
        Totals { entries, bytes: self.nodes.values().map(Node::size).sum() }
    }

    /// Compares two layers by what their archives say.
    ///
    /// # Errors
    /// The first entry in which they differ.
    pub fn same_as(&self, expected: &Layer) -> Result<(), String> {
        crate::check::same_entries(&self.entries(), &expected.entries())
    }
}

/// Whether a name lies below a directory.
pub(super) fn is_below(name: &[u8], directory: &[u8]) -> bool {
    name.strip_prefix(directory).is_some_and(|rest| directory.is_empty() || rest.first() == Some(&b'/'))
}

/// The components of a name; comparing lists of them is depth first.
pub(super) fn components(name: &[u8]) -> Vec<&[u8]> {
    name.split(|&byte| byte == b'/').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_become_layers() {
        let d = || Entry::directory("d").time(0, 0);
        let cases: [(&str, Vec<Entry>, Vec<Entry>); 7] = [
            ("missing parents", vec![Entry::file("d/f", "")], vec![d(), Entry::file("d/f", "")]),
            (
                "a whiteout of a file of the same layer",
                vec![Entry::whiteout("f"), Entry::file("f", "")],
                vec![Entry::file("f", "")],
            ),
            (
                "a whiteout of a directory of the same layer",
                vec![Entry::whiteout("d"), d()],
                vec![d(), Entry::opaque("d")],
            ),
            (
                "the last entry of a name",
                vec![Entry::file("d", ""), Entry::file("x", ""), d()],
                vec![d(), Entry::file("x", "")],
            ),
            (
                "links by the first name",
                vec![Entry::file("z", "1"), Entry::hard_link("a", "z")],
                vec![Entry::file("a", "1"), Entry::hard_link("z", "a")],
            ),
            (
                "order",
                vec![Entry::whiteout("a.b"), Entry::file("a/x", ""), Entry::opaque("a")],
                vec![
                    Entry::directory("a").time(0, 0),
                    Entry::opaque("a"),
                    Entry::file("a/x", ""),
                    Entry::whiteout("a.b"),
                ],
            ),
            (
                "a whiteout where nothing is left to hide",
                vec![Entry::whiteout("d/f"), Entry::opaque("d")],
                vec![d(), Entry::opaque("d")],
            ),
        ];
        for (what, entries, expected) in cases {
            let entries = Layer::of(&entries).unwrap().entries();
            crate::check::same_entries(&entries, &expected).unwrap_or_else(|why| panic!("{what}: {why}"));
            assert!(crate::tar::check_order(&entries).is_ok(), "{what}");
        }
    }

    #[test]
    fn totals_count_names_and_each_file_once() {
        let layer = Layer::of(&[
            Entry::file("d/f", "abc"),
            Entry::hard_link("g", "d/f"),
            Entry::whiteout("w"),
            Entry::opaque("d"),
        ]);
        assert_eq!(layer.unwrap().totals(), Totals { entries: 3, bytes: 3 });
    }
}
