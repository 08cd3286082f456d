//! What durability costs: an archive that is on the disk when the call is answered, beside one that is not.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use layerbox_tests::archive::{dir, file, tar};
use layerbox_tests::fixture::debian_root;
use layerbox_tests::race::Race;

use crate::harness::{Case, Skip, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// How many times the time without it durability may take.
const FACTOR: f64 = 2.0;

/// How often each is measured at least, and at most.
const ROUNDS: [usize; 2] = [5, 15];

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
    let mut race = Race::new(["without", "with"], FACTOR);
    let apply = |index: usize| {
        store.create("layer", None)?;
        // What others have left to write is not counted.
        nix::unistd::sync();
        let begin = Instant::now();
        let option = (index == 0).then_some("--no-sync");
        store.ok(["apply-diff", "layer", path.as_str()].into_iter().chain(option))?;
        let taken = begin.elapsed();
        store.ok(["remove", "layer"])?;
        Ok(taken)
    };
    // The first round only warms up.
    apply(0)?;
    race.run(ROUNDS, apply)?;
    println!("         {race}");
    if !race.is_kept() {
        let disk = disk(place, fs::metadata(&archive)?.len())?;
        // Then no order of writes could keep to it.
        if disk > race.best()[0].mul_f64(FACTOR - 1.0) {
            let milliseconds = disk.as_millis();
            return Err(Skip(format!(
                "{race}; this disk takes {milliseconds} ms for so many bytes in one file"
            ))
            .into());
        }
    }
    race.require()
}

/// What the disk takes for so many bytes, at best: one file, written and flushed.
fn disk(place: &Place, bytes: u64) -> Result<Duration> {
    let path = place.join("piece");
    let piece = vec![0x5a; 1 << 20];
    let mut file = fs::File::create(&path)?;
    for _ in 0..bytes / piece.len() as u64 {
        file.write_all(&piece)?;
    }
    let begin = Instant::now();
    file.sync_all()?;
    let taken = begin.elapsed();
    fs::remove_file(path)?;
    Ok(taken)
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
