//! Snapshots, as containerd meets them: the behaviour that containerd's documentation of `Snapshotter` and the names of its own suite ask for, over gRPC.

mod content;
mod record;
mod states;

use crate::harness::Case;

pub(super) fn cases() -> Vec<Case> {
    [states::cases(), content::cases(), record::cases()].into_iter().flatten().collect()
}
