//! Today's Docker Engines, which keep images in containerd's store: over the service they do what they do
//! over containerd's own overlayfs.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::harness::{Case, Need, Skip, case};
use layerbox_tests::scratch::Place;

use crate::containerd::{Containerd, Differ, NAME, Version};
use crate::engine::{Engine, search_path};
use crate::rig::{small_root, until};
use crate::script::{side_by_side, transcript};

/// What a case does with an engine.
type Body = fn(&Place, Version) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let bodies: [(&str, Body); 2] = [
        ("a script prints over the service what it prints over overlayfs, line for line", same),
        ("the service and containerd are killed in the midst of a build, and all goes on", killed),
    ];
    let mut cases = Vec::new();
    for (label, version) in [("26", Version::Trixie), ("28", Version::Sid)] {
        for (name, body) in bodies {
            let run = move |place: &Place| match (version.programs(), version.docker()) {
                (Some(_), Some(_)) => body(place, version),
                _ => Err(Skip("there is no such engine here".to_owned()).into()),
            };
            let tools = ["runc", "tini", "python3", "busybox"];
            let new = case(format!("docker {label}, images in containerd: {name}"), run);
            let new = new.needs(Need::Filesystem("overlay"));
            cases.push(tools.into_iter().fold(new, |case, tool| case.needs(Need::Tool(tool))));
        }
    }
    cases
}

/// A containerd, and an engine that has its images and containers there. The engine goes first.
#[derive(Debug)]
struct Rig {
    engine: Engine,
    containerd: Containerd,
}

impl Rig {
    fn start(place: &Place, name: &str, version: Version, snapshotter: &str) -> Result<Rig> {
        let directory = place.make(name)?;
        let differ = if snapshotter == NAME { Differ::Service } else { Differ::Own };
        let containerd = Containerd::start_with(&directory.join("containerd"), version, differ)?;
        let settings = directory.join("daemon.json");
        fs::write(&settings, r#"{"features":{"containerd-snapshotter":true}}"#)?;
        let of = version.programs().context("no containerd")?;
        let docker = version.docker().context("no engine")?;
        let clients = docker.with_file_name("bin");
        let path = format!("{}:{}:{}:{}", docker.display(), clients.display(), of.display(), search_path());
        let socket = containerd.socket();
        let (socket, settings) = (socket.to_string_lossy(), settings.to_string_lossy());
        let options = ["--containerd", &socket, "--config-file", &settings];
        let engine = Engine::start_at(&path, &directory.join("engine"), snapshotter, &options)
            .map_err(|error| error.context(containerd.logged()))?;
        // Without its plugin for builds the command line has only the old builder.
        let plugins = engine.directory().join("config/cli-plugins");
        fs::create_dir_all(&plugins)?;
        let buildx = clients.with_file_name("libexec/docker/cli-plugins/docker-buildx");
        std::os::unix::fs::symlink(buildx, plugins.join("docker-buildx"))?;
        Ok(Rig { engine, containerd })
    }

    fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let engine = self.engine.log_end();
            error.context(format!("the engine's log ends:\n{engine}\n{}", self.containerd.logged()))
        })
    }

    /// Ends all in good order; nothing may be left then.
    fn finish(mut self) -> Result<()> {
        // A container of a build that was cut off may have lost its layer when containerd was killed; pruning
        // stumbles over it, and removing it by force does not ("rw layer snapshot not found").
        for container in self.engine.ok(["ps", "--all", "--quiet", "--no-trunc"])?.lines() {
            self.engine.ok(["rm", "--force", container])?;
        }
        self.engine.ok(["system", "prune", "--force", "--all"])?;
        self.engine.ok(["builder", "prune", "--force", "--all"])?;
        self.engine.stop()?;
        self.containerd.finish()
    }
}

fn same(place: &Place, version: Version) -> Result<()> {
    let archive = small_root(place)?;
    let run = |name: &str, snapshotter: &str| -> Result<Vec<String>> {
        let rig = Rig::start(place, name, version, snapshotter)?;
        let empty = Rig::start(place, &format!("{name}-empty"), version, snapshotter)?;
        let directory = place.join(format!("{name}-work"));
        let lines = transcript("image_store.sh", &directory, &archive, &rig.engine, &empty.engine);
        let lines = rig.explained(lines)?;
        if snapshotter == NAME {
            ensure!(
                rig.containerd.unpacked() > 0,
                "the service unpacked nothing:\n{}",
                rig.containerd.logged()
            );
        }
        empty.finish().context("the second engine")?;
        rig.finish()?;
        Ok(lines)
    };
    side_by_side(("overlayfs", || run("o", "overlayfs")), (NAME, || run("l", NAME)))
}

fn killed(place: &Place, version: Version) -> Result<()> {
    let archive = small_root(place)?;
    let mut rig = Rig::start(place, "k", version, NAME)?;
    rig.explained(rig.engine.ok(["import".as_ref(), archive.as_os_str(), "small:1".as_ref()]))?;
    let context = place.make("context")?;
    let mut file = "FROM small:1\n".to_owned();
    for step in 0..8 {
        file.push_str(&format!(
            "RUN mkdir /s{step} && for i in 1 2 3 4 5 6 7 8; do echo {step} >/s{step}/$i; done\n"
        ));
    }
    fs::write(context.join("Dockerfile"), file)?;
    let path = context.to_string_lossy();
    for round in 0..2u64 {
        let tag = format!("built:{round}");
        let build = ["build", "--no-cache", "--network", "none", "--tag", &tag, &path];
        let null = std::process::Stdio::null;
        let mut cut = rig.engine.command(build).stdout(null()).stderr(null()).spawn()?;
        std::thread::sleep(Duration::from_millis(700 * (round + 1)));
        if round % 2 == 0 {
            rig.containerd.kill_service()?;
            rig.containerd.start_service()?;
        } else {
            rig.containerd.kill_daemon()?;
            rig.containerd.start_daemon()?;
        }
        // An engine whose containerd was killed may wait for the end of a step for ever.
        std::thread::sleep(Duration::from_secs(2));
        cut.kill()?;
        cut.wait()?;
        until(Duration::from_secs(60), "the build does not succeed", || {
            Ok(rig.engine.docker(build)?.code == 0)
        })
        .map_err(|error| error.context(rig.engine.log_end()))?;
        let seen = rig.engine.ok(["run", "--rm", "--network", "none", &tag, "cat", "/s7/8", "/s0/1"])?;
        ensure!(seen == "7\n0\n", "round {round}: {seen}");
    }
    rig.finish()
}
