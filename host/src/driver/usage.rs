//! What a layer takes on the disk, counted as du(1) and containerd do: each inode once, and its blocks. The
//! component knows nothing of blocks, and what they add up to asks for no knowledge of layers, so the host
//! counts by itself.

use layerbox_privileged::layer::{Detail, Tree, WalkOptions};
use layerbox_privileged::name::Name;

use super::Driver;
use crate::error::{Error, Failure};
use crate::store::inodes::Inodes;
use crate::store::lock::Mode;

/// How many names are looked at in one go.
const BATCH: u32 = 1024;
/// The bytes of a block in the status of a file, whatever the file system's own are (stat(3type)).
const BLOCK: u64 = 512;

/// What a layer's own content takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The blocks of all its inodes, in bytes.
    pub bytes: u64,
    /// Its inodes, that of the root and those of deletions among them.
    pub inodes: u64,
}

impl Driver {
    /// What a layer's own content takes on the disk. Nobody is kept from the layer meanwhile: what changes is
    /// counted as it is met.
    ///
    /// # Errors
    ///
    /// [`Failure::NotFound`]; those of reading the layer.
    pub fn disk_usage(&self, id: &str) -> Result<DiskUsage, Error> {
        self.reading_call("disk-usage", id, |id| {
            let content = {
                let _guard = self.lock(id, Mode::Shared)?;
                self.store.existing(id)?;
                self.store.content(id)?
            };
            // One that was removed while it was counted has come apart below the walk.
            count(&Tree::new(content, true)).or_else(|failure| self.store.existing(id).and(Err(failure)))
        })
    }
}

fn count(tree: &Tree) -> Result<DiskUsage, Failure> {
    let options = WalkOptions { start: Name::root(), recursive: true, detail: Detail::Status };
    let mut walker = tree.walk(options)?;
    let mut usage = DiskUsage::default();
    let mut inodes = Inodes::default();
    loop {
        let nodes = walker.next(BATCH)?;
        if nodes.is_empty() {
            return Ok(usage);
        }
        for node in nodes {
            if inodes.is_first(&node) {
                usage.inodes += 1;
                usage.bytes = usage.bytes.saturating_add(node.blocks.saturating_mul(BLOCK));
            }
        }
    }
}
