//! The cases, a module for each promise.

mod containerd;
mod image_store;
mod killed;
mod many;
mod refused;
mod same;
mod several;
mod speed;

use std::path::PathBuf;

use anyhow::{Result, bail};
use layerbox_tests::fixture::debian_root;
use layerbox_tests::harness::{Case, Need, Skip, case, strict};
use layerbox_tests::scratch::Place;

/// All of them, in the order in which they are run.
pub fn all() -> Vec<Case> {
    [
        same::cases(),
        many::cases(),
        killed::cases(),
        refused::cases(),
        several::cases(),
        speed::cases(),
        containerd::cases(),
        image_store::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A case that runs an engine.
fn docker(name: &str, body: impl Fn(&Place) -> Result<()> + Send + Sync + 'static) -> Case {
    ["dockerd", "docker", "containerd", "runc", "tini", "python3", "busybox"]
        .into_iter()
        .fold(case(format!("docker: {name}"), body).needs(Need::Filesystem("overlay")), |case, tool| {
            case.needs(Need::Tool(tool))
        })
}

/// A Debian root, without which these cases say little.
fn fixture() -> Result<PathBuf> {
    match debian_root()? {
        Some(archive) => Ok(archive),
        None if strict() => bail!("there is no Debian root: debootstrap fails"),
        None => Err(Skip("there is no Debian root: debootstrap is missing or fails".to_owned()).into()),
    }
}
