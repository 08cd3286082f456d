//! How fast a real root file system goes in and out, beside GNU tar in the same minute on the same disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, bail, ensure};
use layerbox_tests::fixture::debian_root;

use crate::command::{code, repository, shell, utf8};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// How much slower than GNU tar a layer may be.
const FACTOR: f64 = 1.3;
const ROUNDS: usize = 7;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("speed: apply-diff and diff of a Debian root within 1.3 times GNU tar", beside_tar)
            .alone()
            .needs(Need::Tool("tar")),
    ]
}

/// A Debian root; where debootstrap is not to be had, a part of this machine.
fn fixture() -> Result<PathBuf> {
    match debian_root()? {
        Some(archive) => return Ok(archive),
        None => println!("         NO DEBIAN ROOT: the figures are of a part of this machine's /usr"),
    }
    let part = repository().join("target/fixtures/usr.tar");
    if !part.exists() {
        shell(
            "tar --format=pax --xattrs --numeric-owner -C / -cf \"$1.new\" usr/bin usr/lib/x86_64-linux-gnu/perl* usr/share/doc; mv \"$1.new\" \"$1\"",
            [part.as_path()],
        )?;
    }
    Ok(part)
}

fn beside_tar(place: &Place) -> Result<()> {
    let archive = place.join("in.tar");
    fs::copy(fixture()?, &archive)?;
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("kept", None)?;
    store.ok(["apply-diff", "kept", utf8(&archive)?])?;
    let content = store.content("kept");
    let xattrs = ["--xattrs", "--xattrs-include=*"];

    let mut times: [Vec<f64>; 4] = Default::default();
    for round in 0..ROUNDS {
        let into = place.make(format!("x{round}"))?;
        let mut extract = Command::new("tar");
        extract
            .arg("-x")
            .args(xattrs)
            .args(["-p", "--numeric-owner", "-f"])
            .arg(&archive)
            .arg("-C")
            .arg(&into);
        times[0].push(timed(&mut extract, None)?);

        store.create("fresh", None)?;
        // GNU tar promises nothing about a power cut; neither does this then.
        times[1]
            .push(timed(&mut store.command(["apply-diff", "fresh", utf8(&archive)?, "--no-sync"]), None)?);

        let out = place.join("out.tar");
        let mut create = Command::new("tar");
        create
            .arg("-c")
            .args(["--format=pax", "--sort=name", "--numeric-owner"])
            .args(xattrs)
            .arg("-C")
            .arg(&content)
            .arg(".");
        times[2].push(timed(&mut create, Some(&out))?);
        times[3].push(timed(&mut store.command(["diff", "kept"]), Some(&out))?);

        store.ok(["remove", "fresh"])?;
        shell("rm -rf --one-file-system \"$1\"", [into.as_path()])?;
        // What deletions leave in the journal is nobody's part of the next round.
        nix::unistd::sync();
    }
    let [extract, apply, create, diff] = times.map(median);
    println!(
        "         {}: GNU tar -x {extract:.3} s, apply-diff {apply:.3} s ({:.2}); GNU tar -c {create:.3} s, diff {diff:.3} s ({:.2})",
        size(&archive)?,
        apply / extract,
        diff / create
    );
    ensure!(apply <= FACTOR * extract, "apply-diff takes {:.2} times as long as GNU tar", apply / extract);
    ensure!(diff <= FACTOR * create, "diff takes {:.2} times as long as GNU tar", diff / create);
    Ok(())
}

fn timed(command: &mut Command, output: Option<&Path>) -> Result<f64> {
    let stdout = match output {
        Some(path) => Stdio::from(File::create(path)?),
        None => Stdio::null(),
    };
    let started = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(stdout).status()?;
    let time = started.elapsed().as_secs_f64();
    if code(status) != 0 {
        bail!("exit status {}: {command:?}", code(status));
    }
    Ok(time)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn size(path: &Path) -> Result<String> {
    Ok(format!("{} MB", fs::metadata(path)?.len() / 1_000_000))
}
