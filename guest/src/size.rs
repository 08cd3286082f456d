//! What a layer adds up to.

use std::collections::BTreeSet;

use crate::host::{Kind, Result, Totals, Tree};
use crate::merge;

/// Counts what a layer itself holds, as its archive would hold it: without marks of deletion and sockets.
/// Each file counts once, however many names it has.
///
/// # Errors
/// Those of the host.
pub fn own<T: Tree>(tree: &T) -> Result<Totals> {
    let mut totals = Totals { entries: 0, bytes: 0 };
    let mut counted = BTreeSet::new();
    merge::content(tree, |node| {
        if node.kind != Kind::Socket {
            totals.entries += 1;
        }
        if let Kind::File(size) = node.kind
            && (node.links < 2 || counted.insert((node.identity.device, node.identity.inode)))
        {
            totals.bytes += size;
        }
    })?;
    Ok(totals)
}
