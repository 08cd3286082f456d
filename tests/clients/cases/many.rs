//! Many containers at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::harness::Case;
use layerbox_tests::scratch::Place;

use super::docker;
use crate::rig::{Driver, Rig, inventory, until};

/// How many are started, and how many at a time.
const CONTAINERS: usize = 50;
const AT_A_TIME: usize = 8;

pub(super) fn cases() -> Vec<Case> {
    vec![docker("50 containers, 8 at a time, leave no mount, directory or count", |place| {
        crowd(place, Driver::Layerbox)
    })]
}

fn crowd(place: &Place, driver: Driver) -> Result<()> {
    let rig = Rig::with_small_image(place, "a", driver, &[])?;
    let before = inventory(&rig.engine.home())?;
    let next = AtomicUsize::new(0);
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_A_TIME)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= CONTAINERS {
                            return Ok(());
                        }
                        one(&rig, number)?;
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
            .collect()
    });
    for result in results {
        rig.explained(result)?;
    }
    rig.explained(rig.is_mounted(0))?;
    // An engine takes the layers of some containers away after it has said that they are gone.
    let mut after = Vec::new();
    let gone = until(Duration::from_secs(10), "layers are left", || {
        after = inventory(&rig.engine.home())?;
        Ok(after == before)
    });
    rig.explained(gone).with_context(|| format!("before: {before:#?}\nafter: {after:#?}"))?;
    rig.finish()
}

/// Every second ends by itself and is removed by the engine, the others are killed when they are removed.
fn one(rig: &Rig, number: usize) -> Result<()> {
    let name = format!("c{number}");
    let script = format!("echo {number} >/mine; rm /data/1; cat /mine /data/2");
    let expected = format!("{number}\n2\n");
    if number.is_multiple_of(2) {
        let printed = rig.engine.ok(["run", "--rm", "--network", "none", "small:1", "sh", "-c", &script])?;
        ensure!(printed == expected, "container {number} printed {printed:?}");
        return Ok(());
    }
    rig.engine.ok(["run", "--detach", "--network", "none", "--name", &name, "small:1", "sleep", "1000"])?;
    let printed = rig.engine.ok(["exec", &name, "sh", "-c", &script])?;
    ensure!(printed == expected, "container {number} printed {printed:?}");
    rig.engine.ok(["rm", "--force", &name]).map(drop)
}
