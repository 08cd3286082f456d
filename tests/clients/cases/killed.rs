//! `kill -9`, of the service and of the engine, in the middle of what they do.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::harness::Case;
use layerbox_tests::scratch::{Place, mounts_below};
use layerbox_tests::tree::names;

use super::{docker, fixture};
use crate::engine::Engine;
use crate::rig::{Driver, Rig, until};
use crate::service::layerbox;

/// What is under way when the blow comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Run,
    Build,
    Load,
}

impl Work {
    const ALL: [Work; 3] = [Work::Run, Work::Build, Work::Load];

    fn name(self) -> &'static str {
        match self {
            Work::Run => "run",
            Work::Build => "build",
            Work::Load => "load",
        }
    }

    /// Makes ready what the work wants, in the directory of the engine.
    fn prepare(self, rig: &Rig) -> Result<()> {
        let directory = rig.engine.directory();
        match self {
            Work::Run => Ok(()),
            Work::Build => {
                fs::create_dir_all(directory.join("build"))?;
                let steps: String =
                    (1..=5).map(|step| format!("RUN echo {step} >/s{step}; rm /data/{step}\n")).collect();
                Ok(fs::write(directory.join("build/Dockerfile"), format!("FROM small:1\n{steps}"))?)
            }
            Work::Load => {
                rig.engine.ok(["import".as_ref(), fixture()?.as_os_str(), "big:1".as_ref()])?;
                rig.engine.ok(["save", "--output", "big.tar", "big:1"])?;
                rig.engine.ok(["rmi", "big:1"]).map(drop)
            }
        }
    }

    fn command(self, engine: &Engine) -> Command {
        let arguments: &[&str] = match self {
            Work::Run => &[
                "run",
                "--rm",
                "--network",
                "none",
                "small:1",
                "sh",
                "-c",
                "cat /data/*; echo x >/x; rm /data/1",
            ],
            Work::Build => &["build", "--no-cache", "--network", "none", "--tag", "built:1", "build"],
            Work::Load => &["load", "--input", "big.tar"],
        };
        engine.command(arguments)
    }

    /// Takes away what the work made, so that it is done anew.
    fn undo(self, engine: &Engine) -> Result<()> {
        match self {
            Work::Run => Ok(()),
            Work::Build => engine.ok(["rmi", "built:1"]).map(drop),
            Work::Load => engine.ok(["rmi", "big:1"]).map(drop),
        }
    }

    /// How long into the work the blows come, spread over what it takes.
    fn moments(self) -> [Duration; 3] {
        match self {
            Work::Run => [20, 90, 170],
            Work::Build => [100, 500, 1000],
            Work::Load => [150, 450, 850],
        }
        .map(Duration::from_millis)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for work in Work::ALL {
        let name = format!(
            "kill -9 of the service during a {}: the engine goes on, what ran still runs",
            work.name()
        );
        cases.push(docker(&name, move |place| service_killed(place, work)));
    }
    for work in Work::ALL {
        let name = format!(
            "kill -9 of the engine during a {}: counts and mounts are right after its restart",
            work.name()
        );
        cases.push(docker(&name, move |place| engine_killed(place, work)));
    }
    cases.push(docker(
        "kill -9 of the engine during an export: what it had got twice is given back",
        twice_got,
    ));
    cases.push(docker(
        "kill -9 of the engine in the midst of a call: what no container holds is given back",
        between_get_and_put,
    ));
    cases.push(docker("kill -9 of the engine with containers that go on without it", kept_alive));
    cases.push(docker(
        "an engine that ends and starts again goes on, where its data is a mount of its own",
        |place| {
            let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
            rig.engine.ok(["save", "--output", "small.tar", "small:1"])?;
            for _ in 0..2 {
                // dockerd binds its data on itself, and takes that away when it ends in good order: the
                // service has it open through a mount that is there no more.
                let data = rig.engine.data();
                let is_mount =
                    mounts_below(rig.engine.directory()).iter().any(|point| Path::new(point) == data);
                ensure!(is_mount, "the engine's data is no mount of its own, and this case says nothing");
                rig.engine.stop()?;
                let restarted = rig.engine.restart();
                rig.explained(restarted)?;
                rig.explained(rig.engine.ok(["rmi", "small:1"]))?;
                rig.explained(rig.engine.ok(["load", "--input", "small.tar"]))?;
                rig.start_ticking("up", &[])?;
                rig.explained(rig.engine.ok(["commit", "up", "two:1"]))?;
                rig.is_mounted(1)?;
                rig.explained(rig.engine.ok(["rm", "--force", "up"]))?;
                rig.explained(rig.engine.ok(["rmi", "two:1"]))?;
                rig.is_mounted(0)?;
            }
            rig.finish()
        },
    ));
    cases.push(docker("a restart of the service leaves mounts in use in place", |place| {
        let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
        rig.start_ticking("up", &[])?;
        rig.is_mounted(1)?;
        if let Some(service) = &mut rig.service {
            service.stop()?;
        }
        // Without the service nothing can be started, not even a look inside with exec; what runs goes on.
        let written = mounts_below(&rig.engine.home()).pop().context("nothing is mounted")? + "/ticks";
        let before = fs::metadata(&written)?.len();
        until(Duration::from_secs(10), "up writes nothing", || Ok(fs::metadata(&written)?.len() > before))?;
        if let Some(service) = &mut rig.service {
            service.restart()?;
        }
        rig.is_mounted(1)?;
        rig.ticks("up")?;
        rig.explained(rig.engine.ok(["rm", "--force", "up"]))?;
        rig.is_mounted(0)?;
        rig.finish()
    }));
    cases
}

fn service_killed(place: &Place, work: Work) -> Result<()> {
    let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
    work.prepare(&rig)?;
    rig.start_ticking("up", &[])?;
    for moment in work.moments() {
        let child = begin(&mut work.command(&rig.engine))?;
        std::thread::sleep(moment);
        if let Some(service) = &mut rig.service {
            service.kill()?;
            service.restart()?;
        }
        // It may succeed, since the engine asks again, or fail, since an archive cannot be sent again; it
        // must end.
        let succeeded = child.end()?;
        rig.explained(rig.ticks("up")).with_context(|| format!("after a kill at {moment:?}"))?;
        if succeeded {
            work.undo(&rig.engine)?;
        }
        rig.explained(work_again(work, &rig.engine))
            .with_context(|| format!("after a kill at {moment:?}"))?;
    }
    rig.explained(emptied(&rig))?;
    rig.finish()
}

fn engine_killed(place: &Place, work: Work) -> Result<()> {
    let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
    work.prepare(&rig)?;
    for moment in work.moments() {
        rig.start_ticking("up", &[])?;
        let child = begin(&mut work.command(&rig.engine))?;
        std::thread::sleep(moment);
        rig.engine.kill()?;
        let succeeded = child.end()?;
        let restarted = rig.engine.restart();
        rig.explained(restarted).with_context(|| format!("after a kill at {moment:?}"))?;
        // A new engine ends the containers that it finds. One that was being started it takes for one that
        // never was, and leaves its mount until it is removed.
        rig.explained(remove_all_but(&rig.engine, "up"))
            .with_context(|| format!("after a kill at {moment:?}"))?;
        rig.explained(rig.is_mounted(0)).with_context(|| format!("after a kill at {moment:?}"))?;
        if succeeded {
            work.undo(&rig.engine)?;
        }
        rig.engine.ok(["start", "up"])?;
        rig.ticks("up")?;
        rig.explained(work_again(work, &rig.engine))
            .with_context(|| format!("after a kill at {moment:?}"))?;
        rig.is_mounted(1)?;
        rig.engine.ok(["rm", "--force", "up"])?;
    }
    rig.explained(emptied(&rig))?;
    rig.finish()
}

fn twice_got(place: &Place) -> Result<()> {
    let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
    rig.start_ticking("up", &[])?;
    // Nobody reads the archive, so the export has no end, and the layer is held by the container and by it.
    let mut export = rig.engine.command(["export", "up"]);
    let export = Begun(export.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?);
    std::thread::sleep(Duration::from_millis(500));
    rig.engine.kill()?;
    drop(export);
    let restarted = rig.engine.restart();
    rig.explained(restarted)?;
    // The new engine ends the container and gives it back, once.
    rig.explained(rig.is_mounted(0))?;
    rig.engine.ok(["start", "up"])?;
    rig.is_mounted(1)?;
    rig.engine.ok(["rm", "--force", "up"])?;
    rig.is_mounted(0)?;
    rig.finish()
}

/// The moments in which an engine holds a layer of an image, or the one in which a container is made ready,
/// are too short to be hit: what it would have got then is got after it is dead.
fn between_get_and_put(place: &Place) -> Result<()> {
    let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &["--live-restore"])?;
    rig.start_ticking("up", &[])?;
    rig.engine.ok(["commit", "up", "two:1"])?;
    let home = rig.engine.home();
    let layers = names(&home.join("layers"))?;
    let container = layers.iter().find_map(|name| name.strip_suffix("-init")).context("no -init layer")?;
    rig.engine.kill()?;
    for layer in layers.iter().filter(|name| *name != container) {
        for _ in 0..2 {
            layerbox(&home, &["get", layer])?.expect(0)?;
        }
    }
    // All but the lowest one, which is its own content.
    rig.is_mounted(layers.len() - 1)?;
    let restarted = rig.engine.restart();
    rig.explained(restarted)?;
    rig.explained(rig.is_mounted(1))?;
    rig.explained(rig.ticks("up"))?;
    rig.explained(rig.engine.ok(["rm", "--force", "up"]))?;
    rig.is_mounted(0)?;
    rig.finish()
}

fn kept_alive(place: &Place) -> Result<()> {
    let mut rig = Rig::with_small_image(place, "a", Driver::Layerbox, &["--live-restore"])?;
    for name in ["one", "two"] {
        rig.start_ticking(name, &[])?;
    }
    for _ in 0..2 {
        rig.engine.kill()?;
        let restarted = rig.engine.restart();
        rig.explained(restarted)?;
        for name in ["one", "two"] {
            rig.explained(rig.ticks(name))?;
        }
        rig.explained(rig.is_mounted(2))?;
    }
    // A container that ends while nobody looks is given back at the restart.
    rig.engine.kill()?;
    let mut sent = 0;
    for entry in fs::read_dir("/proc")?.flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let group = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        if sent == 0 && line.starts_with(b"sh\0-c\0while") && group.contains(rig.engine.cgroup()) {
            let pid: i32 = entry.file_name().to_string_lossy().parse()?;
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
            sent += 1;
        }
    }
    ensure!(sent == 1, "no container was found to be ended");
    let restarted = rig.engine.restart();
    rig.explained(restarted)?;
    rig.explained(rig.is_mounted(1))?;
    rig.explained(rig.engine.ok(["rm", "--force", "one", "two"]))?;
    rig.is_mounted(0)?;
    rig.finish()
}

fn work_again(work: Work, engine: &Engine) -> Result<()> {
    let output = layerbox_tests::command::run(&mut work.command(engine), b"")?.expect(0)?;
    if work == Work::Run {
        ensure!(output.text() == "1\n2\n3\n4\n5\n6\n7\n8\n", "the container printed {:?}", output.text());
    }
    if work == Work::Build {
        let left = engine.ok(["run", "--rm", "--network", "none", "built:1", "ls", "/data"])?;
        ensure!(left == "6\n7\n8\n", "what was built holds {left:?}");
    }
    if work == Work::Load {
        let version =
            engine.ok(["run", "--rm", "--network", "none", "big:1", "cat", "/etc/debian_version"])?;
        ensure!(!version.is_empty(), "what was loaded says nothing of its version");
    }
    work.undo(engine)
}

/// Removes all containers and images: nothing is mounted then, and nothing is half done.
fn emptied(rig: &Rig) -> Result<()> {
    remove_all_but(&rig.engine, "")?;
    // Of a build that was interrupted images are left that have children, and prune leaves them. The order of
    // the list is by time.
    let list = || rig.engine.ok(["images", "--all", "--quiet"]);
    for image in list()?.lines() {
        rig.engine.docker(["rmi", "--force", image])?;
    }
    ensure!(list()?.is_empty(), "images are left: {}", list()?);
    rig.is_mounted(0)?;
    let stage = rig.engine.home().join("stage");
    until(Duration::from_secs(10), "stage/ is not empty", || Ok(empty(&stage)))
}

fn remove_all_but(engine: &Engine, kept: &str) -> Result<()> {
    for container in
        engine.ok(["ps", "--all", "--format", "{{.Names}}"])?.lines().filter(|name| *name != kept)
    {
        engine.ok(["rm", "--force", container])?;
    }
    Ok(())
}

fn empty(directory: &Path) -> bool {
    names(directory).unwrap_or_default().is_empty()
}

/// A command under way.
struct Begun(Child);

fn begin(command: &mut Command) -> Result<Begun> {
    Ok(Begun(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
}

impl Begun {
    /// Waits for its end, and says whether it succeeded.
    fn end(mut self) -> Result<bool> {
        let mut succeeded = false;
        until(Duration::from_secs(60), "the command does not end", || {
            Ok(self.0.try_wait()?.inspect(|status| succeeded = status.success()).is_some())
        })?;
        Ok(succeeded)
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
