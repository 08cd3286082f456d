//! What a stack of layers shows.

use std::collections::BTreeMap;

use super::{Layer, Node};
use crate::escape;

/// A tree: names and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The root.
    pub root: Node,
    /// All else.
    pub names: BTreeMap<Vec<u8>, Node>,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree { root: Node::bare(), names: BTreeMap::new() }
    }
}

impl Tree {
    /// What is at a name.
    pub fn get(&self, name: &[u8]) -> Option<&Node> {
        if name.is_empty() { Some(&self.root) } else { self.names.get(name) }
    }

    /// Whether there is a directory.
    pub fn has_directory(&self, name: &[u8]) -> bool {
        self.get(name).is_some_and(Node::is_directory)
    }

    /// This tree with a layer on it.
    pub fn with(&self, layer: &Layer) -> Tree {
        let shows = |name: &[u8]| {
            let mut above: &[u8] = b"";
            loop {
                if layer.is_opaque(above) || !layer.get(above).is_none_or(Node::is_directory) {
                    return false;
                }
                let rest = if above.is_empty() { name } else { &name[above.len() + 1..] };
                let length = rest.iter().position(|&byte| byte == b'/').unwrap_or(rest.len());
                above = &name[..name.len() - rest.len() + length];
                if layer.hides(above) {
                    return false;
                }
                if above.len() == name.len() {
                    return layer.get(name).is_none();
                }
            }
        };
        let below = self.names.iter().filter(|(name, _)| shows(name));
        // A directory that the layer puts over something else does not go on below: what is no directory has
        // nothing below it.
        let mut names: BTreeMap<Vec<u8>, Node> =
            below.map(|(name, node)| (name.clone(), node.clone())).collect();
        names.extend(layer.names().map(|(name, node)| (name.to_vec(), node.clone())));
        Tree { root: layer.root.clone(), names }
    }

    /// The layers, lowest first, as one tree.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Tree {
        layers.into_iter().fold(Tree::default(), |tree, layer| tree.with(layer))
    }

    /// Compares two trees.
    ///
    /// # Errors
    /// The first name at which they differ.
    pub fn same_as(&self, expected: &Tree) -> Result<(), String> {
        if self.root != expected.root {
            return Err(format!("the root is a {}, and must be a {}", self.root, expected.root));
        }
        self.same_below_root(expected)
    }

    /// Compares two trees, their roots left out.
    ///
    /// # Errors
    /// The first name at which they differ.
    pub fn same_below_root(&self, expected: &Tree) -> Result<(), String> {
        for (name, node) in &expected.names {
            match self.names.get(name) {
                None => return Err(format!("{} is missing, and must be a {node}", escape::name(name))),
                Some(found) if found != node => {
                    return Err(format!("{} is a {found}, and must be a {node}", escape::name(name)));
                }
                Some(_) => {}
            }
        }
        match self.names.iter().find(|(name, _)| !expected.names.contains_key(*name)) {
            Some((name, node)) => Err(format!("{} is there ({node}), and must not be", escape::name(name))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Entry;

    #[test]
    fn upper_layers_hide_lower_ones() {
        let file = |name: &str| Entry::file(name, "");
        let base = vec![file("d/a"), file("d/b/c"), file("e"), file("d.x")];
        let cases: [(&str, Vec<Entry>, &[&str]); 7] = [
            ("nothing", vec![], &["d", "d.x", "d/a", "d/b", "d/b/c", "e"]),
            ("deleted", vec![Entry::whiteout("d/a"), Entry::whiteout("e")], &["d", "d.x", "d/b", "d/b/c"]),
            ("deleted with all below", vec![Entry::whiteout("d")], &["d.x", "e"]),
            ("opaque", vec![Entry::opaque("d"), file("d/n")], &["d", "d.x", "d/n", "e"]),
            ("opaque root", vec![Entry::opaque(""), file("n")], &["n"]),
            ("a file over a directory", vec![file("d")], &["d", "d.x", "e"]),
            ("a directory over a file", vec![file("e/f")], &["d", "d.x", "d/a", "d/b", "d/b/c", "e", "e/f"]),
        ];
        let base = Layer::of(&base).unwrap();
        for (what, upper, expected) in cases {
            let tree = Tree::of([&base, &Layer::of(&upper).unwrap()]);
            let names: Vec<String> = tree.names.keys().map(|name| escape::name(name)).collect();
            assert_eq!(names, expected, "{what}");
        }
    }
}
