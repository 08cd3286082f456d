//! Whether anything grows worse than it should: stores of many layers, many mounts, layers of many entries, a
//! file that is nearly all hole.
//!
//! `SCALE=1` is the full size (100,000 layers, 10,000 mounts, 1,000,000 entries, 100 GB); the default, a
//! twentieth of it, shows the same slopes in minutes.

use std::fs;
use std::time::Instant;

use anyhow::Result;
use layerbox_tests::harness::has_filesystem;
use layerbox_tests::scratch::Place;
use layerbox_tests::store::{Dialect, Store};
use serde_json::json;

use crate::bounds::Verdict;
use crate::calls::Service;
use crate::inputs;
use crate::measure::measured;

/// What part of the full size is measured.
fn part() -> Result<f64> {
    Ok(std::env::var("SCALE").ok().map_or(Ok(0.05), |text| text.parse())?)
}

fn of(full: u64) -> Result<u64> {
    Ok((full as f64 * part()?) as u64)
}

pub(crate) fn measure(place: &Place) -> Result<Vec<Verdict>> {
    let mut verdicts = entries(place)?;
    verdicts.extend(hole(place)?);
    verdicts.extend(layers(place)?);
    Ok(verdicts)
}

/// One more layer beside many, against one beside a hundred; and the same beside many mounts.
fn layers(place: &Place) -> Result<Vec<Verdict>> {
    let (few, many, mounts) = (100, of(100_000)?, of(10_000)?);
    let mut small = Service::start(&place.make("few")?)?;
    let mut large = Service::start(&place.make("many")?)?;
    fill(&mut small, few)?;
    let started = Instant::now();
    fill(&mut large, many)?;
    eprintln!("\n({many} layers were made in {:.1} s)", started.elapsed().as_secs_f64());
    let mut verdicts = Vec::new();
    let mut compare = |name: String, small: &mut Service, large: &mut Service| -> Result<()> {
        let one = json!({ "ID": "one-more", "Parent": "layer-0", "MountLabel": "" });
        let mut round = vec![("Create", one.clone())];
        if has_filesystem("overlay") {
            round.extend([("Get", one.clone()), ("Put", one.clone())]);
        }
        round.push(("Remove", one));
        // In turn, so that whatever else the machine does falls on both.
        let (mut few, mut many) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            few.push(small.timed(1, &round)?);
            many.push(large.timed(1, &round)?);
        }
        let (few, many) = (crate::measure::median(few), crate::measure::median(many));
        eprintln!("({name}: {:.0} µs, beside 100: {:.0} µs)", many * 1e6, few * 1e6);
        verdicts.push(Verdict::new(&format!("{name}, against beside 100"), many / few, 1.2));
        let exists = [("Exists", json!({ "ID": "layer-7" }))];
        let (few, many) = (small.timed(500, &exists)?, large.timed(500, &exists)?);
        verdicts.push(Verdict::new(&format!("exists, {name}"), many / few, 1.2));
        Ok(())
    };
    compare(format!("create + get + put + remove beside {many} layers"), &mut small, &mut large)?;
    if has_filesystem("overlay") {
        for number in 1..=mounts {
            large.call("Get", &json!({ "ID": format!("layer-{number}"), "MountLabel": "" }))?;
        }
        compare(format!("the same beside {mounts} mounts"), &mut small, &mut large)?;
    }
    Ok(verdicts)
}

/// Layers on one base.
fn fill(service: &mut Service, count: u64) -> Result<()> {
    service.call("Create", &json!({ "ID": "layer-0" }))?;
    for number in 1..count {
        service.call("Create", &json!({ "ID": format!("layer-{number}"), "Parent": "layer-0" }))?;
    }
    Ok(())
}

/// A layer of many entries against one of a tenth: time, and memory.
fn entries(place: &Place) -> Result<Vec<Verdict>> {
    let store = Store::new(place.join("entries"), Dialect::Overlay);
    let count = of(1_000_000)?;
    let archive = place.join("in.tar");
    let text = archive.display().to_string();
    let mut taken = Vec::new();
    for (id, count) in [("tenth", count / 10), ("whole", count)] {
        inputs::entries(count, &archive)?;
        store.create(id, None)?;
        for arguments in [&["apply-diff", id, &text, "--no-sync"][..], &["diff", id]] {
            let command = store.command(arguments.iter().copied());
            taken.push(measured(&command, &place.join("out"), &place.join("report"))?);
        }
    }
    // The layers that come want the inodes.
    fs::remove_dir_all(place.join("entries"))?;
    let mut verdicts = Vec::new();
    for (name, small, large) in [("apply-diff", taken[0], taken[2]), ("diff", taken[1], taken[3])] {
        let title = format!("{name} of {count} entries, CPU per entry, against a tenth");
        verdicts.push(Verdict::new(&title, large.cpu / small.cpu / 10.0, 1.2));
        let title = format!("{name} of {count} entries, peak memory, MiB");
        verdicts.push(Verdict::new(&title, crate::bounds::mib(large.peak), 64.0));
    }
    Ok(verdicts)
}

/// A file of which next to nothing is there.
fn hole(place: &Place) -> Result<Vec<Verdict>> {
    let size = of(100_000_000_000)?.next_multiple_of(1 << 20);
    let archive = place.join("in.tar");
    inputs::hole(size, &archive)?;
    let store = Store::new(place.join("hole"), Dialect::Overlay);
    store.create("hole", None)?;
    let text = archive.display().to_string();
    let command = store.command(["apply-diff", "hole", &text]);
    let sample = measured(&command, &place.join("out"), &place.join("report"))?;
    fs::remove_file(&archive)?;
    let title = format!("apply-diff of a file of {} GB that is hole but for a MiB, s", size / 1_000_000_000);
    Ok(vec![Verdict::new(&title, sample.wall, 1.0)])
}
