//! How long an engine takes over layerbox and over overlay2, side by side.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::command::tool;
use layerbox_tests::harness::Case;
use layerbox_tests::race::Race;
use layerbox_tests::scratch::Place;
use layerbox_tests::tree::names;

use super::{docker, fixture};
use crate::rig::{Driver, Rig, until};

/// How often everything is done at least, and at most.
const ROUNDS: [usize; 2] = [2, 10];
/// How much slower than overlay2 is still as fast: a tenth, and what the clock and the scheduler make of the
/// shortest of these in spite of all care.
const TENTH: f64 = 1.1;
const JITTER: Duration = Duration::from_millis(10);

pub(super) fn cases() -> Vec<Case> {
    vec![
        docker(
            "import, load, save, build and the start of a container take what they take over overlay2",
            side,
        )
        .alone(),
    ]
}

/// What is measured: its name, the call of the engine's command line, and the one that takes away what it
/// made.
const STEPS: [(&str, &[&str], &[&str]); 5] = [
    ("import", &["import", "root.tar", "imported:1"], &["rmi", "imported:1"]),
    ("save", &["save", "--output", "saved.tar", "base:1"], &[]),
    ("load", &["load", "--input", "other.tar"], &["rmi", "other:1"]),
    (
        "build",
        &["build", "--no-cache", "--network", "none", "--tag", "built:1", "build"],
        &["rmi", "built:1"],
    ),
    ("start", &["run", "--network", "none", "--name", "started", "base:1", "true"], &["rm", "started"]),
];

/// An image of five steps: files made, changed, renamed and deleted, and directories.
const DOCKERFILE: &str = "FROM base:1
RUN mkdir -p /srv/a/b && cp -r /usr/share/perl* /srv/a/b
RUN rm -r /usr/share/doc /srv/a/b && chmod 0700 /etc/cron.d
RUN cp -r /etc /srv/etc && rm -r /srv/etc/alternatives
COPY files /srv/files
RUN mv /srv/files /srv/moved && rm /etc/motd && echo done >/srv/done
";

fn side(place: &Place) -> Result<()> {
    let rigs = [(Driver::Overlay2, "o"), (Driver::Layerbox, "l")]
        .into_iter()
        .map(|(driver, name)| prepared(place, name, driver))
        .collect::<Result<Vec<_>>>()?;
    let mut races = STEPS.map(|_| Race::new(["overlay2", "layerbox"], TENTH).slack(JITTER));
    // A step's rounds lie apart: what else the machine does passes in between.
    for round in 0..ROUNDS[1] {
        for (step, race) in STEPS.iter().zip(&mut races) {
            if round < ROUNDS[0] || !race.is_kept() {
                race.round(|index| timed(place, &rigs[index], step))?;
            }
        }
    }
    for ((name, ..), race) in STEPS.iter().zip(&races) {
        println!("         {name:<8} {race}");
    }
    for ((name, ..), race) in STEPS.iter().zip(&races) {
        race.require().with_context(|| format!("{name} is slower than over overlay2"))?;
    }
    rigs.into_iter().try_for_each(Rig::finish)
}

/// An engine with the image that is saved and built on, and with what is loaded.
fn prepared(place: &Place, name: &str, driver: Driver) -> Result<Rig> {
    let rig = Rig::start(place, name, driver, &[])?;
    let directory = rig.engine.directory();
    let build = directory.join("build");
    std::fs::create_dir_all(build.join("files"))?;
    for number in 0..50 {
        std::fs::write(build.join(format!("files/{number}")), vec![b'x'; 10_000])?;
    }
    std::fs::write(build.join("Dockerfile"), DOCKERFILE)?;
    std::os::unix::fs::symlink(fixture()?, directory.join("root.tar"))?;
    rig.explained(rig.engine.ok(["import", "root.tar", "base:1"]))?;
    // Layers that the engine has already are not loaded: the image is another one.
    for arguments in [
        &["run", "--network", "none", "--name", "change", "base:1", "sh", "-c", "echo other >/other"][..],
        &["export", "--output", "exported.tar", "change"],
        &["rm", "change"],
        &["import", "exported.tar", "other:1"],
        &["save", "--output", "other.tar", "other:1"],
        &["rmi", "other:1"],
    ] {
        rig.explained(rig.engine.ok(arguments))?;
    }
    Ok(rig)
}

/// Does a step once, and takes away what it made.
fn timed(place: &Place, rig: &Rig, (name, arguments, undo): &(&str, &[&str], &[&str])) -> Result<Duration> {
    // What the step before left to be written, and to be deleted, is not this one's.
    let trash = rig.engine.home().join("trash");
    until(Duration::from_secs(20), "trash/ is not emptied", || {
        Ok(names(&trash).unwrap_or_default().is_empty())
    })?;
    tool("sync", ["-f".as_ref(), place.path().as_os_str()])?;
    let mut command: Command = rig.engine.command(*arguments);
    let started = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let taken = started.elapsed();
    ensure!(status.success(), "{name}: {status}\n{}", rig.engine.log_end());
    if !undo.is_empty() {
        rig.explained(rig.engine.ok(*undo)).with_context(|| name.to_string())?;
    }
    Ok(taken)
}
