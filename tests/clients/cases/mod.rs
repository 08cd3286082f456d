//! The cases, a module for each promise.

mod same;

use layerbox_tests::harness::{Case, Need, case};
use layerbox_tests::scratch::Place;

/// All of them, in the order in which they are run.
pub fn all() -> Vec<Case> {
    [same::cases()].into_iter().flatten().collect()
}

/// A case that runs an engine.
fn docker(name: &str, body: impl Fn(&Place) -> anyhow::Result<()> + Send + Sync + 'static) -> Case {
    ["dockerd", "docker", "containerd", "runc", "tini", "python3", "busybox"]
        .into_iter()
        .fold(case(format!("docker: {name}"), body).needs(Need::Filesystem("overlay")), |case, tool| {
            case.needs(Need::Tool(tool))
        })
}
