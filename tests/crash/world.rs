//! What can be seen of a store from outside, to be compared: which layers there are, on what they lie, who
//! holds them, what is in them. And what nobody should be able to see: leftovers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::tree::{names, picture};
use sha2::{Digest as _, Sha256};

use crate::command::Output;
use crate::scratch::mounts_below;
use crate::store::{Store, runtime};

/// A layer as callers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The layer that it lies on.
    pub parent: Option<String>,
    /// How many hold it.
    pub mounts: u64,
    /// A digest of all that it holds, times and owners and attributes with it; but for the time of its root.
    pub content: String,
    /// How many names it holds.
    pub entries: usize,
}

/// All layers of a store.
pub type World = BTreeMap<String, Layer>;

/// Opens the store, and looks at every layer. Where there is no store, there are no layers.
///
/// # Errors
///
/// The store cannot be opened, a layer is not whole, or its size is not that of its files.
pub fn look(store: &Store) -> Result<World> {
    let output = store.run(["--json", "list"])?;
    if output.code == 3 {
        return Ok(World::new());
    }
    let list: Vec<serde_json::Value> = serde_json::from_str(&output.expect(0)?.text())?;
    let mut world = World::new();
    for layer in list {
        let id = layer["id"].as_str().context("a layer without id")?;
        ensure!(layer["state"] == "complete", "layer {id} is {}", layer["state"]);
        let (content, entries, size) = digest(&store.content(id))?;
        let told = layer["size"].as_u64();
        ensure!(told.is_none_or(|told| told == size), "layer {id} has {size} bytes, not {told:?}");
        let parent = layer["parent"].as_str().map(str::to_owned);
        let mounts = layer["mounts"].as_u64().context("a layer without mounts")?;
        world.insert(id.to_owned(), Layer { parent, mounts, content, entries });
    }
    Ok(world)
}

/// A digest of a tree, how many names it has, and the sum of its files' sizes, each file once.
fn digest(root: &Path) -> Result<(String, usize, u64)> {
    let mut hash = Sha256::new();
    let mut size = 0;
    let tree = picture(root)?;
    for (path, entry) in &tree {
        let mut entry = entry.clone();
        if path.is_empty() {
            entry.mtime = (0, 0);
            // The union's own notes on a directory that it was mounted on; one of them is random.
            entry.xattrs.retain(|name, _| !name.starts_with(b"trusted.overlay."));
        }
        // How a file system lays files out is no part of what they hold.
        entry.blocks = 0;
        if entry.kind == "file" && entry.first_name == *path {
            size += entry.size;
        }
        hash.update(format!("{path:?} {entry:?}\n"));
    }
    Ok((format!("{:x}", hash.finalize()), tree.len() - 1, size))
}

/// What is on the disk, the tmpfs or in the mount table, and belongs to no layer that can be seen.
///
/// # Errors
///
/// Something cannot be read.
pub fn leftovers(store: &Store, world: &World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // What the making of a store that was cut off leaves is what the next making begins with.
    if !store.root().join("layerbox.json").exists() {
        return Ok(found);
    }
    let known: BTreeSet<&str> = world.keys().map(String::as_str).collect();
    for directory in ["layers", "diff", "mnt", "work", "meta"] {
        let named = names_if_any(&store.root().join(directory))?;
        found.extend(
            named
                .iter()
                .filter(|name| !known.contains(name.as_str()))
                .map(|name| format!("{directory}/{name}")),
        );
    }
    for directory in ["pending", "stage", "trash"] {
        let named = names_if_any(&store.root().join(directory))?;
        found.extend(named.iter().map(|name| format!("{directory}/{name}")));
    }
    for parent in names_if_any(&store.root().join("children"))? {
        for child in names_if_any(&store.root().join("children").join(&parent))? {
            let sound = world.get(&child).is_some_and(|child| child.parent.as_ref() == Some(&parent));
            if !sound {
                found.push(format!("children/{parent}/{child}"));
            }
        }
    }
    for name in names_if_any(store.root())? {
        if name.starts_with('.') || name.starts_with("convert.") || name == "lost+found" {
            found.push(name);
        }
    }
    let mounted = mounts_below(store.root());
    for point in &mounted {
        let id = point.rsplit('/').next().unwrap_or_default();
        if world.get(id).is_none_or(|layer| layer.mounts == 0) {
            found.push(format!("a mount on {point}"));
        }
    }
    if let Some(runtime) = runtime(store.root()) {
        for directory in ["locks", "mount-locks", "references.new"] {
            let named = names_if_any(&runtime.join(directory))?;
            found.extend(named.iter().map(|name| format!("{directory}/{name} on the tmpfs")));
        }
        for id in names_if_any(&runtime.join("references"))? {
            if world.get(&id).is_none_or(|layer| layer.mounts == 0) {
                found.push(format!("a count of {id}"));
            }
        }
    }
    Ok(found)
}

/// The names in a directory; none where there is none.
pub fn names_if_any(directory: &Path) -> Result<Vec<String>> {
    if directory.exists() { names(directory) } else { Ok(Vec::new()) }
}

/// Whether a command that failed says so as it should: one line, with an exit status that has a meaning.
pub fn is_typed(output: &Output) -> bool {
    (1..=6).contains(&output.code)
        && output.stderr.starts_with("layerbox: ")
        && !output.stderr.contains("panicked")
}
