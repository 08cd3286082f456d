//! What durability costs: an archive that is on the disk when the call is answered, beside one that is not.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use layerbox_tests::archive::{dir, file, tar};
use layerbox_tests::fixture::debian_root;

use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// How many times the time without it durability may take.
const FACTOR: f64 = 2.0;

/// How often each is measured.
const ROUNDS: usize = 5;

pub fn cases() -> Vec<Case> {
    vec![
        case("cost: apply-diff with durability takes at most twice as long as without", factor).alone(),
        case("cost: status tells how many layers were applied without", told),
    ]
}

fn factor(place: &Place) -> Result<()> {
    let archive = place.join("in.tar");
    match debian_root()? {
        Some(root) => drop(fs::copy(root, &archive)?),
        None => {
            println!("         NO DEBIAN ROOT: the figures are of 5000 files of 20 KiB");
            let mut members = vec![dir("d/")];
            members.extend((0..5000).map(|number| file(format!("d/{number}"), vec![number as u8; 20 << 10])));
            fs::write(&archive, tar(&members))?;
        }
    }
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let path = archive.to_string_lossy().into_owned();
    let mut times = [Vec::new(), Vec::new()];
    // The first round only warms up.
    for round in 0..=ROUNDS {
        for (which, option) in [None, Some("--no-sync")].into_iter().enumerate() {
            store.create("layer", None)?;
            // What others have left to write is not counted.
            nix::unistd::sync();
            let begin = Instant::now();
            store.ok(["apply-diff", "layer", path.as_str()].into_iter().chain(option))?;
            if round > 0 {
                times[which].push(begin.elapsed());
            }
            store.ok(["remove", "layer"])?;
        }
    }
    let [with, without] = times.map(median);
    let times = with.as_secs_f64() / without.as_secs_f64();
    println!("         with {with:.2?}, without {without:.2?}: {times:.2} times");
    ensure!(times <= FACTOR, "{times:.2} times, not {FACTOR}");
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn told(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let archive = place.join("in.tar");
    fs::write(&archive, tar(&[file("file", "x")]))?;
    let path = archive.to_string_lossy().into_owned();
    for (id, option, count) in [("a", None, 0), ("b", Some("--no-sync"), 1)] {
        store.create(id, None)?;
        store.ok(["apply-diff", id, path.as_str()].into_iter().chain(option))?;
        let status = store.ok(["status"])?;
        let row = format!("Applied Without Sync: {count}\n");
        ensure!(status.contains(&row), "not {row:?}: {status}");
    }
    Ok(())
}
