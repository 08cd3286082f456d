//! Changes to a tree, and what each leaves in the uppermost layer.
//!
//! An operation that makes no sense where it comes (a file in a directory that is not there) does nothing, so
//! any can be left out of a sequence.

use std::fmt;

use super::{Layer, Node, Tree, What};
use crate::escape::Name;
use crate::tar::{Time, split};

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Writes a file, new or old, with content of so many bytes that the second number fills.
    Write(Vec<u8>, usize, u8, Time),
    /// Makes a directory.
    Mkdir(Vec<u8>, Time),
    /// Makes a symbolic link, a device or a pipe.
    Make(Vec<u8>, What, Time),
    /// Gives the first another name, the second.
    Link(Vec<u8>, Vec<u8>),
    /// Copies the first to the second and removes the first, as `mv` does between file systems.
    Move(Vec<u8>, Vec<u8>),
    /// Removes a name and all below it.
    Remove(Vec<u8>),
    /// Removes a directory and makes it anew.
    Replace(Vec<u8>, Time),
    /// Hides all that lower layers have in a directory.
    Opaque(Vec<u8>),
    /// Hides a name that nothing has.
    Hide(Vec<u8>),
    /// Sets permission bits.
    Chmod(Vec<u8>, u32),
    /// Sets the owners.
    Chown(Vec<u8>, u32, u32),
    /// Sets the time.
    Touch(Vec<u8>, Time),
    /// Sets an extended attribute of a file or directory.
    Setxattr(Vec<u8>, Vec<u8>, Vec<u8>),
    /// Ends the layer and begins one on it.
    Commit,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Time| format!("{}.{:09}", time.seconds, time.nanoseconds);
        match self {
            Operation::Write(name, length, fill, at) => {
                write!(f, "write {} {length}×{fill} @{}", Name(name), time(at))
            }
            Operation::Mkdir(name, at) => write!(f, "mkdir {} @{}", Name(name), time(at)),
            Operation::Make(name, what, at) => {
                let node = Node { mtime: *at, ..Node::new(what.clone(), 0o644) };
                write!(f, "make {} {node}", Name(name))
            }
            Operation::Link(from, to) => write!(f, "link {} {}", Name(from), Name(to)),
            Operation::Move(from, to) => write!(f, "move {} {}", Name(from), Name(to)),
            Operation::Remove(name) => write!(f, "remove {}", Name(name)),
            Operation::Replace(name, at) => write!(f, "replace {} @{}", Name(name), time(at)),
            Operation::Opaque(name) => write!(f, "opaque {}", Name(name)),
            Operation::Hide(name) => write!(f, "hide {}", Name(name)),
            Operation::Chmod(name, mode) => write!(f, "chmod {} {mode:04o}", Name(name)),
            Operation::Chown(name, uid, gid) => write!(f, "chown {} {uid}:{gid}", Name(name)),
            Operation::Touch(name, at) => write!(f, "touch {} @{}", Name(name), time(at)),
            Operation::Setxattr(name, key, value) => {
                write!(f, "setxattr {} {}={}", Name(name), Name(key), Name(value))
            }
            Operation::Commit => f.write_str("commit"),
        }
    }
}

/// The layers so far, and the one that operations change.
#[derive(Debug, Default)]
pub struct Workspace {
    layers: Vec<Layer>,
    lower: Tree,
    layer: Layer,
    merged: Tree,
}

impl Workspace {
    /// Carries out one operation.
    pub fn apply(&mut self, operation: &Operation) {
        match operation {
            Operation::Commit => self.commit(),
            Operation::Write(name, length, fill, time) => self.write(name, *length, *fill, *time),
            Operation::Mkdir(name, time) => self.mkdir(name, *time),
            Operation::Make(name, what, time) => self.make(name, what, *time),
            Operation::Link(from, to) => self.link(from, to),
            Operation::Move(from, to) => {
                if let Some(node) = self.merged.get(from).filter(|node| !node.is_directory()).cloned()
                    && self.is_free(to)
                {
                    self.put(to, node);
                    self.remove(from);
                }
            }
            Operation::Remove(name) => self.remove(name),
            Operation::Replace(name, time) => {
                if !name.is_empty() && self.merged.has_directory(name) {
                    self.remove(name);
                    self.mkdir(name, *time);
                }
            }
            Operation::Opaque(name) => {
                if self.merged.has_directory(name) && self.copy_up(name) {
                    // It is a directory of this layer now.
                    drop(self.layer.make_opaque(name));
                }
            }
            Operation::Hide(name) => {
                if self.is_free(name) && self.copy_up(split(name).0) {
                    self.layer.hide(name);
                }
            }
            Operation::Chmod(name, mode) => self.change(name, |node| {
                if !matches!(node.what, What::Symlink(_)) {
                    node.mode = *mode;
                }
            }),
            Operation::Chown(name, uid, gid) => self.change(name, |node| (node.uid, node.gid) = (*uid, *gid)),
            Operation::Touch(name, time) => self.change(name, |node| node.mtime = *time),
            Operation::Setxattr(name, key, value) => self.change(name, |node| {
                // `user.` attributes are for files and directories only (xattr(7)).
                if matches!(node.what, What::File(_) | What::Directory) {
                    node.xattrs.insert(key.clone(), value.clone());
                }
            }),
        }
        self.merged = self.lower.with(&self.layer);
    }

    /// The layers, lowest first.
    pub fn finish(mut self) -> Vec<Layer> {
        self.commit();
        self.layers
    }

    /// What can be seen now.
    pub(super) fn merged(&self) -> &Tree {
        &self.merged
    }

    fn commit(&mut self) {
        self.layer.settle();
        self.lower = self.lower.with(&self.layer);
        self.layers.push(std::mem::take(&mut self.layer));
    }

    fn is_free(&self, name: &[u8]) -> bool {
        !name.is_empty() && self.merged.get(name).is_none() && self.merged.has_directory(split(name).0)
    }

    /// Takes what the tree has at a name into the layer, with the directories above it, as a union does
    /// before it changes something.
    fn copy_up(&mut self, name: &[u8]) -> bool {
        if self.layer.get(name).is_some() {
            return true;
        }
        let Some(node) = self.merged.get(name).cloned() else { return false };
        let has_parent = self.copy_up(split(name).0);
        if has_parent {
            self.layer.insert(name, node);
        }
        has_parent
    }

    fn put(&mut self, name: &[u8], node: Node) {
        if self.copy_up(split(name).0) {
            self.layer.insert(name, node);
            self.merged = self.lower.with(&self.layer);
        }
    }

    fn change(&mut self, name: &[u8], change: impl FnOnce(&mut Node)) {
        if self.copy_up(name)
            && let Some(node) = self.layer.get_mut(name)
        {
            change(node);
        }
    }

    fn write(&mut self, name: &[u8], length: usize, fill: u8, time: Time) {
        let content = What::File(vec![fill; length]);
        match self.merged.get(name).map(|node| &node.what) {
            Some(What::File(_)) => self.change(name, |node| (node.what, node.mtime) = (content, time)),
            None if self.is_free(name) => self.put(name, Node { mtime: time, ..Node::new(content, 0o644) }),
            _ => {}
        }
    }

    fn make(&mut self, name: &[u8], what: &What, time: Time) {
        if self.is_free(name) {
            let mode = if matches!(what, What::Symlink(_)) { 0o777 } else { 0o640 };
            self.put(name, Node { mtime: time, ..Node::new(what.clone(), mode) });
        }
    }

    fn mkdir(&mut self, name: &[u8], time: Time) {
        if self.is_free(name) {
            let was_hidden = self.layer.hides(name);
            self.put(name, Node { mtime: time, ..Node::bare() });
            if was_hidden {
                // What the mark hid must not come to light again.
                drop(self.layer.make_opaque(name));
            }
        }
    }

    fn link(&mut self, from: &[u8], to: &[u8]) {
        let is_linkable = self.merged.get(from).is_some_and(|node| !node.is_directory());
        if is_linkable && self.is_free(to) && self.copy_up(from) && self.copy_up(split(to).0) {
            self.layer.link(to, from);
        }
    }

    fn remove(&mut self, name: &[u8]) {
        if name.is_empty() || self.merged.get(name).is_none() || !self.copy_up(split(name).0) {
            return;
        }
        self.layer.forget(name);
        self.merged = self.lower.with(&self.layer);
        if self.merged.get(name).is_some() {
            self.layer.hide(name);
            self.merged = self.lower.with(&self.layer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Entry;

    fn layers(operations: &[Operation]) -> Vec<Vec<Entry>> {
        let mut workspace = Workspace::default();
        operations.iter().for_each(|operation| workspace.apply(operation));
        workspace.finish().iter().map(Layer::entries).collect()
    }

    fn names(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| crate::escape::name(&entry.name)).collect()
    }

    #[test]
    fn what_operations_leave_in_the_upper_layer() {
        let n = |name: &str| name.as_bytes().to_vec();
        let write = |name: &str| Operation::Write(n(name), 1, b'x', Time::at(1));
        let base = [Operation::Mkdir(n("d"), Time::at(1)), write("d/f"), write("d/g"), Operation::Commit];
        let cases: [(&str, Vec<Operation>, &[&str]); 9] = [
            ("write", vec![write("d/f")], &["d", "d/f"]),
            ("write nowhere", vec![write("x/f")], &[]),
            ("remove", vec![Operation::Remove(n("d/f"))], &["d", "d/.wh.f"]),
            ("remove what is new", vec![write("n"), Operation::Remove(n("n"))], &[]),
            ("remove all", vec![Operation::Remove(n("d"))], &[".wh.d"]),
            (
                "replace",
                vec![Operation::Replace(n("d"), Time::at(2)), write("d/n")],
                &["d", "d/.wh..wh..opq", "d/n"],
            ),
            ("link", vec![Operation::Link(n("d/f"), n("h"))], &["d", "d/f", "h"]),
            ("move", vec![Operation::Move(n("d/f"), n("h"))], &["d", "d/.wh.f", "h"]),
            ("write again", vec![Operation::Remove(n("d/f")), write("d/f")], &["d", "d/f"]),
        ];
        for (what, operations, expected) in cases {
            let layers = layers(&[base.to_vec(), operations].concat());
            assert_eq!(names(layers.last().unwrap()), expected, "{what}");
        }
    }

    #[test]
    fn hard_links_change_together_within_a_layer_only() {
        let n = |name: &str| name.as_bytes().to_vec();
        let write = |name: &str, length| Operation::Write(n(name), length, b'x', Time::at(1));
        let found = layers(&[
            write("a", 1),
            Operation::Link(n("a"), n("b")),
            write("b", 2),
            Operation::Commit,
            write("a", 3),
        ]);
        let sizes: Vec<Vec<usize>> =
            found.iter().map(|l| l.iter().map(|entry| entry.body.len()).collect()).collect();
        assert_eq!(sizes, [vec![2, 0], vec![3]]);
    }
}
