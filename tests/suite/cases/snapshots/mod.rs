//! Snapshots, as containerd meets them: the behaviour that containerd's documentation of `Snapshotter` and
//! the names of its own suite ask for, over gRPC.

mod authority;
mod blobs;
mod content;
mod record;
mod states;

use anyhow::Result;

use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::snapshotter::{Snapshotter, serve};

/// What a case does with a service that was just started.
type Body = fn(&Place, &Snapshotter) -> Result<()>;

/// A case with a service of its own. Its error has the service's log.
fn served((name, body): (&'static str, Body)) -> Case {
    let run = move |place: &Place| {
        let service = serve(place)?;
        body(place, &Snapshotter::connect(place)?)
            .map_err(|error| error.context(service.log().unwrap_or_default()))
    };
    case(format!("snapshots: {name}"), run).needs(Need::Filesystem("overlay"))
}

pub(super) fn cases() -> Vec<Case> {
    let groups = [states::cases(), content::cases(), record::cases(), blobs::cases(), authority::cases()];
    groups.into_iter().flatten().collect()
}
