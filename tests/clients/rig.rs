//! An engine over a storage driver: what every case begins with.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::command::shell;
use layerbox_tests::scratch::{Place, mounts_below};
use layerbox_tests::tree::names;

use crate::engine::Engine;
use crate::service::{Service, layerbox};

/// Who keeps the layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// The engine's own driver: what is right.
    Overlay2,
    /// The service.
    Layerbox,
}

/// An engine, and the service that it uses, if it does. The engine goes first.
#[derive(Debug)]
pub struct Rig {
    /// The engine.
    pub engine: Engine,
    /// The service; none under overlay2.
    pub service: Option<Service>,
}

impl Rig {
    /// Starts both, in a directory of this name.
    ///
    /// # Errors
    ///
    /// One of them does not start.
    pub fn start(place: &Place, name: &str, driver: Driver, options: &[&str]) -> Result<Rig> {
        let directory = place.make(name)?;
        match driver {
            Driver::Overlay2 => {
                let engine = Engine::start(&directory.join("engine"), "overlay2", options)?;
                Ok(Rig { engine, service: None })
            }
            Driver::Layerbox => {
                let plugin = plugin_name(&directory);
                let service = Service::start(&directory.join("service"), &plugin, &[])?;
                match Engine::start(&directory.join("engine"), &plugin, options) {
                    Ok(engine) => Ok(Rig { engine, service: Some(service) }),
                    Err(error) => Err(error.context(format!("the service says:\n{}", service.log_end()))),
                }
            }
        }
    }

    /// Ends both in good order; of a store nothing may be mounted then, nobody counted as its user, and
    /// `check` must find nothing.
    ///
    /// # Errors
    ///
    /// It is not so.
    pub fn finish(mut self) -> Result<()> {
        let home = self.engine.home();
        self.engine.stop()?;
        let Some(mut service) = self.service.take() else { return Ok(()) };
        let mounted = mounts_below(&home);
        ensure!(mounted.is_empty(), "mounted after the engine has ended: {mounted:?}");
        service.stop()?;
        at_rest(&home)
    }

    /// The engine, with the small root as the image `small:1`.
    ///
    /// # Errors
    ///
    /// It cannot be imported.
    pub fn with_small_image(place: &Place, name: &str, driver: Driver, options: &[&str]) -> Result<Rig> {
        let archive = small_root(place)?;
        let rig = Rig::start(place, name, driver, options)?;
        let import = rig.engine.ok(["import".as_ref(), archive.as_os_str(), "small:1".as_ref()]);
        rig.explained(import)?;
        Ok(rig)
    }

    /// Starts a container from `small:1` that writes a line into its file `/ticks` ten times a second, and
    /// waits for the first.
    ///
    /// # Errors
    ///
    /// It does not run.
    pub fn start_ticking(&self, name: &str, options: &[&str]) -> Result<()> {
        let mut arguments =
            vec!["run", "--detach", "--network", "none", "--stop-signal", "KILL", "--name", name];
        arguments.extend(options);
        arguments.extend(["small:1", "sh", "-c", "while :; do echo tick >>/ticks; sleep 0.1; done"]);
        self.engine.ok(arguments)?;
        self.ticks(name)
    }

    /// Holds a container to run: its file grows, seen from inside.
    ///
    /// # Errors
    ///
    /// It does not grow for 10 seconds.
    pub fn ticks(&self, name: &str) -> Result<()> {
        let size = || -> Result<usize> {
            let output = self.engine.docker(["exec", name, "cat", "/ticks"])?;
            Ok(if output.code == 0 { output.stdout.len() } else { 0 })
        };
        let before = size()?;
        until(Duration::from_secs(10), &format!("{name} writes nothing"), || Ok(size()? > before))
    }

    /// Holds what is mounted below the home to be this many layers, for the kernel and for the service.
    ///
    /// # Errors
    ///
    /// It is not, for 10 seconds: an engine takes some things away after it has answered.
    pub fn is_mounted(&self, count: usize) -> Result<()> {
        let home = self.engine.home();
        until(Duration::from_secs(10), "the mounts", || Ok(mounts_below(&home).len() == count))
            .with_context(|| format!("{count} expected, mounted: {:?}", mounts_below(&home)))?;
        if let Some(service) = &self.service {
            let counted = service.mounts_of(&home)?;
            ensure!(counted == count, "the service says that {counted} layers are mounted, and {count} are");
        }
        Ok(())
    }

    /// Adds to an error what the engine and the service have said at the end.
    ///
    /// # Errors
    ///
    /// That of `result`.
    pub fn explained<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let mut text = format!("{error:#}\nthe engine's log ends:\n{}", self.engine.log_end());
            if let Some(service) = &self.service {
                text.push_str(&format!("\nthe service's log:\n{}", service.log_about(&text)));
            }
            anyhow::Error::msg(text)
        })
    }
}

/// Waits for a condition.
///
/// # Errors
///
/// It does not come true in time, or its own.
pub fn until(time: Duration, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !condition()? {
        ensure!(started.elapsed() < time, "{what}: not for {} s", time.as_secs());
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The name of a plugin is looked up in one directory by all engines: the directory of the case makes it the
/// only one.
pub fn plugin_name(directory: &Path) -> String {
    let parts: Vec<String> = directory
        .components()
        .rev()
        .take(2)
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    format!("layerbox-{}", parts.join("-"))
}

/// Holds a store that no service has open to be in order: `check` finds nothing, and nobody is counted as a
/// layer's user.
///
/// # Errors
///
/// It is not so.
pub fn at_rest(home: &Path) -> Result<()> {
    let check = layerbox(home, &["--json", "check"])?;
    ensure!(check.code == 0 && check.text().trim() == "[]", "check finds {}{check}", check.text());
    let list: serde_json::Value =
        serde_json::from_str(&layerbox(home, &["--json", "list"])?.expect(0)?.text())?;
    for layer in list.as_array().into_iter().flatten() {
        ensure!(layer["mounts"] == 0 && layer["state"] == "complete", "a layer is left as {layer}");
    }
    for directory in ["stage", "trash", "pending"] {
        let left = names(&home.join(directory)).unwrap_or_default();
        ensure!(left.is_empty(), "{directory}/ holds {left:?}");
    }
    Ok(())
}

/// The names in each of a store's directories: what must be the same again when all that was made has been
/// removed.
///
/// # Errors
///
/// One cannot be read.
pub fn inventory(home: &Path) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(home)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            all.extend(names(&entry.path())?.into_iter().map(|inner| format!("{name}/{inner}")));
        }
    }
    all.sort();
    Ok(all)
}

/// The archive of a root file system of one program, for cases that are not about what is in it.
///
/// # Errors
///
/// There is no busybox.
pub fn small_root(place: &Place) -> Result<PathBuf> {
    let archive = place.join("small.tar");
    if !archive.exists() {
        let script = r#"
            work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
            mkdir -p "$work/bin" "$work/etc" "$work/tmp" "$work/data"
            cp "$(PATH=/usr/bin:/bin command -v busybox)" "$work/bin/busybox"
            for applet in sh cat ls sleep rm mkdir touch find id chown stat dd sync; do ln -s busybox "$work/bin/$applet"; done
            echo 'root:x:0:0:root:/:/bin/sh' >"$work/etc/passwd"
            for file in 1 2 3 4 5 6 7 8; do echo "$file" >"$work/data/$file"; done
            # An old time: transcripts leave out times since their start, which may be in this very second.
            tar --format=pax --mtime=@1000000000 --numeric-owner --owner=0 --group=0 --sort=name -C "$work" -cf "$1" .
        "#;
        shell(script, [archive.as_path()])?;
    }
    Ok(archive)
}
