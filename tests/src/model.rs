//! What layers on top of each other must look like, computed from their archives and nothing else: the rules
//! of OCI image layers, "Representing Changes", in the plainest way. No file system is involved.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::archive::Member;
use crate::tree::{Entry, Tree};

/// A file system that is only thought of.
#[derive(Debug, Clone)]
pub struct Model {
    tree: Tree,
}

impl Default for Model {
    fn default() -> Model {
        Model::new()
    }
}

impl Model {
    /// An empty root directory, as a store makes it.
    pub fn new() -> Model {
        Model { tree: Tree::from([(Vec::new(), directory(0))]) }
    }

    /// Lays a layer over what is there: first all that it hides goes, whatever the order in its archive, then
    /// what it holds comes.
    pub fn apply(&mut self, layer: &[Member]) {
        for member in layer {
            let path = clean(&member.name);
            let (parent, base) = split(&path);
            if base == b".wh..wh..opq" {
                self.tree.retain(|path, _| !below(path, parent));
            } else if let Some(hidden) = base.strip_prefix(b".wh.") {
                let hidden = join(parent, hidden);
                self.tree.retain(|path, _| *path != hidden && !below(path, &hidden));
            }
        }
        for member in layer {
            let path = clean(&member.name);
            if !split(&path).1.starts_with(b".wh.") {
                self.put(path, member);
            }
        }
    }

    /// The result.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    fn put(&mut self, path: Vec<u8>, member: &Member) {
        let mut parent = split(&path).0.to_vec();
        let mut missing = Vec::new();
        while !parent.is_empty() && self.tree.get(&parent).is_none_or(|entry| entry.kind != "directory") {
            missing.push(parent.clone());
            parent = split(&parent).0.to_vec();
        }
        for parent in missing.into_iter().rev() {
            self.tree.insert(parent.clone(), Entry { first_name: parent, ..directory(0) });
        }
        if member.kind != b'5' || self.tree.get(&path).is_some_and(|entry| entry.kind != "directory") {
            self.tree.retain(|known, _| *known != path && !below(known, &path));
        }
        let entry = if member.kind == b'1' {
            // Where the rules hold there is one; where they do not, an empty entry shows it.
            self.tree.get(&clean(&member.target)).cloned().unwrap_or_else(|| directory(-1))
        } else {
            Entry { first_name: path.clone(), ..entry(member) }
        };
        self.tree.insert(path, entry);
    }
}

fn entry(member: &Member) -> Entry {
    let kind = match member.kind {
        b'5' => "directory",
        b'2' => "symlink",
        b'3' => "character",
        b'4' => "block",
        b'6' => "fifo",
        _ => "file",
    };
    let (major, minor) = member.device;
    Entry {
        kind,
        mode: member.mode,
        uid: u32::try_from(member.uid).unwrap_or(u32::MAX),
        gid: u32::try_from(member.gid).unwrap_or(u32::MAX),
        mtime: (member.mtime, 0),
        size: member.body.len() as u64,
        device: if matches!(member.kind, b'3' | b'4') { u64::from(major) << 8 | u64::from(minor) } else { 0 },
        target: member.target.clone(),
        content: if kind == "file" { format!("{:x}", Sha256::digest(&member.body)) } else { String::new() },
        first_name: Vec::new(),
        xattrs: member
            .pax
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
            .collect(),
        blocks: 0,
    }
}

fn directory(mtime: i64) -> Entry {
    Entry {
        kind: "directory",
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime: (mtime, 0),
        size: 0,
        device: 0,
        target: Vec::new(),
        content: String::new(),
        first_name: Vec::new(),
        xattrs: BTreeMap::new(),
        blocks: 0,
    }
}

fn clean(name: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> =
        name.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    parts.join(&b'/')
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.iter()
        .rposition(|&byte| byte == b'/')
        .map_or((b"", path), |slash| (&path[..slash], &path[slash + 1..]))
}

fn join(parent: &[u8], base: &[u8]) -> Vec<u8> {
    if parent.is_empty() { base.to_vec() } else { [parent, base].join(&b'/') }
}

fn below(path: &[u8], parent: &[u8]) -> bool {
    if parent.is_empty() {
        !path.is_empty()
    } else {
        path.starts_with(parent) && path.get(parent.len()) == Some(&b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::{dir, file, opaque, whiteout};

    #[test]
    fn upper_layers_hide_what_lower_ones_hold() {
        let lower = [dir("d/"), file("d/a", "1"), file("d/b", "2"), file("e", "3"), file("dx", "4")];
        let cases: [(&str, Vec<Member>, &[&str]); 4] = [
            ("whiteout of a file", vec![whiteout("d/a")], &["", "d", "d/b", "dx", "e"]),
            ("whiteout of a directory", vec![whiteout("d")], &["", "dx", "e"]),
            ("opaque, whatever the order", vec![file("d/c", "5"), opaque("d")], &["", "d", "d/c", "dx", "e"]),
            ("a file in place of a directory", vec![file("d", "6")], &["", "d", "dx", "e"]),
        ];
        for (what, upper, want) in cases {
            let mut model = Model::new();
            model.apply(&lower);
            model.apply(&upper);
            let got: Vec<_> = model.tree().keys().map(|path| String::from_utf8_lossy(path)).collect();
            assert_eq!(got, want, "{what}");
        }
    }
}
