//! An engine over layerbox does what it does over overlay2, line for line.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::fixture::debian_root;
use layerbox_tests::harness::{Case, Skip, strict};
use layerbox_tests::scratch::Place;

use super::docker;
use crate::rig::{Driver, Rig};
use crate::script::{difference, transcript};

pub(super) fn cases() -> Vec<Case> {
    vec![docker("the script prints twice the same over overlay2", |place| {
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| run_over(place, "first", Driver::Overlay2));
            let second = run_over(place, "second", Driver::Overlay2);
            (first.join(), second)
        });
        let first = first.map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        let second = second?;
        let difference = difference(&first, &second);
        ensure!(difference.is_empty(), "{difference}");
        Ok(())
    })]
}

fn run_over(place: &Place, name: &str, driver: Driver) -> Result<Vec<String>> {
    let archive = fixture()?;
    let rig = Rig::start(place, name, driver, &[])?;
    let empty = Rig::start(place, &format!("{name}-empty"), driver, &[])?;
    let directory = place.join(format!("{name}-work"));
    let lines = rig.explained(transcript(&directory, &archive, &rig.engine, &empty.engine))?;
    empty.finish().context("the second engine")?;
    rig.finish()?;
    Ok(lines)
}

/// A Debian root, without which these cases say little.
fn fixture() -> Result<PathBuf> {
    match debian_root()? {
        Some(archive) => Ok(archive),
        None if strict() => anyhow::bail!("there is no Debian root: debootstrap fails"),
        None => Err(Skip("there is no Debian root: debootstrap is missing or fails".to_owned()).into()),
    }
}
