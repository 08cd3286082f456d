//! A containerd of a case: its own data and sockets, the service as its snapshotter, and where it can as its
//! differ.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::command::{Output, repository, run, shell};
use layerbox_tests::scratch::{mounts_below, unmount_below};
use layerbox_tests::store::bare;

use crate::cgroup;
use crate::engine::{end, search_path};
use crate::rig::{at_rest, until};

/// The snapshotter's name, and the differ's.
pub const NAME: &str = "layerbox";

/// How long a daemon may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 1.6, that of this Debian. It cannot be told of a differ: it panics.
    Own,
    /// 1.7, of trixie.
    Trixie,
    /// 2.x, of sid.
    Sid,
}

impl Version {
    /// The suite of Debian that it comes from; none for what is installed.
    fn suite(self) -> Option<&'static str> {
        match self {
            Version::Own => None,
            Version::Trixie => Some("trixie"),
            Version::Sid => Some("sid"),
        }
    }

    /// Where its programs are; none where they are not there and cannot be had.
    pub fn programs(self) -> Option<PathBuf> {
        match self.suite() {
            None => Some(PathBuf::from("/usr/bin")),
            Some(suite) => Newer::CONTAINERD.programs(suite),
        }
    }

    /// Where the programs of the Docker Engine of the same suite are, if that one is newer: 26 in trixie, 28
    /// in sid.
    pub fn docker(self) -> Option<PathBuf> {
        self.suite().and_then(|suite| Newer::DOCKER.programs(suite))
    }
}

/// What is unpacked of a newer Debian.
struct Newer {
    /// One of its programs, which must run.
    program: &'static str,
    packages: &'static [&'static str],
}

impl Newer {
    const CONTAINERD: Newer = Newer { program: "usr/bin/containerd", packages: &["containerd"] };
    const DOCKER: Newer =
        Newer { program: "usr/sbin/dockerd", packages: &["docker.io", "docker-cli", "docker-buildx"] };

    fn directory(&self, suite: &str) -> PathBuf {
        repository().join("target/fixtures").join(format!("{}-{suite}", self.packages[0]))
    }

    /// Where its programs are, if it is there.
    fn programs(&self, suite: &str) -> Option<PathBuf> {
        let program = self.directory(suite).join(self.program);
        program.exists().then(|| program.parent().map(Path::to_owned)).flatten()
    }

    /// Gets it, where that can be done; says why where it cannot.
    fn fetch(&self, suite: &str) {
        let mut command = Command::new(repository().join(".ci/newer"));
        command.arg(suite).arg(self.directory(suite)).arg(self.program).args(self.packages);
        let why = match command.output() {
            Ok(output) if output.status.success() => return,
            Ok(output) => end(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => error.to_string(),
        };
        println!("         no {} of {suite}: {why}", self.packages[0]);
    }
}

/// Gets the newer ones, where that can be done; says why where it cannot.
pub fn fetch() {
    for suite in [Version::Trixie, Version::Sid].into_iter().filter_map(Version::suite) {
        for newer in [Newer::CONTAINERD, Newer::DOCKER] {
            if newer.programs(suite).is_none() {
                newer.fetch(suite);
            }
        }
    }
}

/// Who unpacks layers and compares them, as containerd is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Differ {
    /// Its own.
    Own,
    /// The service's, and no other: what the service does not unpack is not unpacked.
    Service,
    /// The service's, and its own for what that one leaves to it.
    Both,
}

/// A containerd and a service. Dropped, both are gone with all containers and mounts.
#[derive(Debug)]
pub struct Containerd {
    directory: PathBuf,
    programs: PathBuf,
    cgroup: String,
    namespace: String,
    differ: Differ,
    daemon: Option<Child>,
    service: Option<Child>,
}

impl Containerd {
    /// Starts both, in a directory whose name must be the only one of the run.
    ///
    /// # Errors
    ///
    /// One of them does not start.
    pub fn start(directory: &Path, version: Version) -> Result<Containerd> {
        let differ = if version == Version::Own { Differ::Own } else { Differ::Service };
        Containerd::start_with(directory, version, differ)
    }

    /// As [`Containerd::start`], with a differ.
    ///
    /// # Errors
    ///
    /// As [`Containerd::start`].
    pub fn start_with(directory: &Path, version: Version, differ: Differ) -> Result<Containerd> {
        fs::create_dir_all(directory)?;
        let programs = version.programs().context("there are no such programs")?;
        let parts = directory.components().rev().take(2).map(|part| part.as_os_str().to_string_lossy());
        let unique = parts.collect::<Vec<_>>().join("-");
        let mut engine = Containerd {
            directory: directory.to_owned(),
            programs,
            cgroup: cgroup::name(&unique),
            namespace: format!("tests-{unique}"),
            differ,
            daemon: None,
            service: None,
        };
        fs::write(directory.join("config.toml"), engine.configuration())?;
        engine.start_service()?;
        engine.start_daemon()?;
        Ok(engine)
    }

    fn configuration(&self) -> String {
        let at = self.directory.display();
        let mut text = format!(
            r#"version = 2
root = "{at}/data"
state = "{at}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "{at}/socket"
[ttrpc]
address = "{at}/ttrpc"
[proxy_plugins.{NAME}]
type = "snapshot"
address = "{at}/layerbox.sock"
"#
        );
        if self.differ != Differ::Own {
            let further = if self.differ == Differ::Both { ", \"walking\"" } else { "" };
            text.push_str(&format!(
                r#"
[proxy_plugins.{NAME}-diff]
type = "diff"
address = "{at}/layerbox.sock"
[plugins."io.containerd.service.v1.diff-service"]
default = ["{NAME}-diff"{further}]
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/amd64"
snapshotter = "{NAME}"
differ = "{NAME}-diff"
"#
            ));
        }
        text
    }

    /// Starts the service.
    ///
    /// # Errors
    ///
    /// It does not become ready.
    pub fn start_service(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.join("service.log"))?;
        let mut command = bare();
        command.arg("--root").arg(self.store()).arg("serve");
        command.arg("--containerd").arg(self.directory.join("layerbox.sock"));
        command.arg("--containerd-address").arg(self.directory.join("socket"));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut line = String::new();
        let stdout = child.stdout.take().context("its standard output")?;
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line)?;
        self.service = Some(child);
        ensure!(line.starts_with("layerbox: ready: "), "it said {line:?}:\n{}", self.service_log());
        Ok(())
    }

    /// Starts the daemon.
    ///
    /// # Errors
    ///
    /// It does not answer.
    pub fn start_daemon(&mut self) -> Result<()> {
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = Command::new(self.programs.join("containerd"));
        command.arg("--config").arg(self.directory.join("config.toml")).env("PATH", self.path());
        let daemon = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.daemon = Some(daemon);
        let started = Instant::now();
        while self.ctr(["version"])?.code != 0 {
            if started.elapsed() > PATIENCE {
                bail!("containerd does not start:\n{}", self.log_end());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Kills the service, as a crash would.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn kill_service(&mut self) -> Result<()> {
        gone(&mut self.service)
    }

    /// Kills the daemon, as a crash would. Its containers go on.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn kill_daemon(&mut self) -> Result<()> {
        gone(&mut self.daemon)
    }

    /// Where its clients reach it.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("socket")
    }

    fn path(&self) -> String {
        format!("{}:{}", self.programs.display(), search_path())
    }

    /// A call of its own command line, not yet made.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(self.programs.join("ctr"));
        command.arg("--address").arg(self.directory.join("socket")).args(arguments);
        // All shims of the machine give runc one directory a namespace, and its containers must have names of
        // their own there.
        command
            .env("PATH", self.path())
            .env("CONTAINERD_NAMESPACE", &self.namespace)
            .current_dir(&self.directory);
        command
    }

    /// Calls it.
    ///
    /// # Errors
    ///
    /// It does not start, or hangs.
    pub fn ctr<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
        run(&mut self.command(arguments), b"")
    }

    /// Calls it, which must succeed, and gives what it prints.
    ///
    /// # Errors
    ///
    /// It fails; the error has the ends of the logs.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctr(arguments)?;
        if output.code == 0 {
            return Ok(output.text());
        }
        bail!("ctr {arguments:?}: {output}\n{}", self.logged())
    }

    /// Calls `ctr snapshots` on the service.
    ///
    /// # Errors
    ///
    /// As [`Containerd::ok`].
    pub fn snapshots(&self, arguments: &[&str]) -> Result<String> {
        self.ok(&[&["snapshots", "--snapshotter", NAME], arguments].concat())
    }

    /// Imports an image.
    ///
    /// # Errors
    ///
    /// As [`Containerd::ok`].
    pub fn import(&self, archive: &Path, snapshotter: &str) -> Result<String> {
        let archive = archive.to_str().context("a path that is no text")?;
        self.ok(&["images", "import", "--snapshotter", snapshotter, archive])
    }

    /// Runs a shell in a new container, and gives what it prints. `options` may say what becomes of the
    /// container.
    ///
    /// # Errors
    ///
    /// As [`Containerd::ok`].
    pub fn shell(&self, image: &str, container: &str, options: &[&str], script: &str) -> Result<String> {
        let group = format!("/{}/{container}", self.cgroup);
        let mut before = vec!["run", "--snapshotter", NAME, "--cgroup", &group];
        before.extend(options);
        self.printed(&before, &[image, container, "sh", "-c", script])
    }

    /// Runs a command in a container that runs, and gives what it prints.
    ///
    /// # Errors
    ///
    /// As [`Containerd::ok`].
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<String> {
        self.printed(&["task", "exec", "--exec-id", "one"], &[&[container], command].concat())
    }

    /// What a container prints under a call of `ctr` with these options and these words after them.
    /// containerd writes it into a file: what `ctr` itself has not read yet when the container ends, it
    /// drops.
    fn printed(&self, options: &[&str], words: &[&str]) -> Result<String> {
        let file = self.directory.join("printed");
        let uri = format!("file://{}", file.display());
        self.ok(&[options, &["--log-uri", &uri], words].concat())?;
        let text = fs::read_to_string(&file).context("what it printed")?;
        // A container that goes on keeps the file that it has.
        fs::remove_file(&file)?;
        Ok(text)
    }

    /// Ends both in good order once all is removed; the store must be at rest then and hold nothing.
    ///
    /// # Errors
    ///
    /// Something is left.
    pub fn finish(mut self) -> Result<()> {
        // What was cut off, an import or a container, has left its lease, which holds what it made for a day.
        for namespace in self.ok(&["namespaces", "ls", "-q"])?.lines() {
            let ok = |arguments: &[&str]| self.ok(&[&["--namespace", namespace], arguments].concat());
            for lease in ok(&["leases", "ls", "-q"])?.lines() {
                ok(&["leases", "rm", lease])?;
            }
            for image in ok(&["images", "ls", "-q"])?.lines() {
                ok(&["images", "rm", "--sync", image])?;
            }
        }
        // What is given up while the collector runs stays until it runs again, and it runs when something is
        // taken away.
        self.ok(&["leases", "create", "--id", "last"])?;
        self.ok(&["leases", "rm", "--sync", "last"])?;
        let store = self.store();
        until(Duration::from_secs(20), "layers are left", || {
            let left = |directory: &str| layerbox_tests::tree::names(&store.join(directory));
            Ok(!store.join("diff").exists() || left("diff")?.is_empty() && left("trash")?.is_empty())
        })
        .map_err(|error| error.context(self.snapshots(&["ls"]).unwrap_or_default()))?;
        self.kill_daemon()?;
        let mounted = mounts_below(&store);
        ensure!(mounted.is_empty(), "mounted at the end: {mounted:?}");
        if let Some(service) = &mut self.service {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(service.id())?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
            ensure!(service.wait()?.success(), "the service ends badly");
        }
        self.service = None;
        // Without a call there is no store.
        if store.join("diff").exists() { at_rest(&store) } else { Ok(()) }
    }

    /// The store of the service.
    pub fn store(&self) -> PathBuf {
        self.directory.join("store")
    }

    /// The log of the service.
    pub fn service_logged(&self) -> String {
        fs::read_to_string(self.directory.join("service.log")).unwrap_or_default()
    }

    /// How many blobs the service has unpacked, by its log: those that it left to another differ do not
    /// count.
    pub fn unpacked(&self) -> usize {
        let log = self.service_logged();
        let ours = |line: &&str| line.contains("operation=apply-blob") && line.contains("outcome=ok");
        log.lines().filter(ours).count()
    }

    /// The ends of both logs, for a person.
    pub fn logged(&self) -> String {
        format!("the service says:\n{}\ncontainerd says:\n{}", self.service_log(), self.log_end())
    }

    fn service_log(&self) -> String {
        end(&self.service_logged())
    }

    fn log_end(&self) -> String {
        end(&fs::read_to_string(self.directory.join("log")).unwrap_or_default())
    }
}

fn gone(child: &mut Option<Child>) -> Result<()> {
    if let Some(mut child) = child.take() {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = self.kill_daemon();
        let _ = self.kill_service();
        cgroup::end(&self.cgroup);
        unmount_below(&self.directory);
    }
}

/// Makes the archive of an OCI image from the archives of its layers.
///
/// # Errors
///
/// It cannot be made.
pub fn image(out: &Path, name: &str, layers: &[&Path]) -> Result<()> {
    let script = repository().join("tests/clients/script/oci.py");
    let mut arguments = vec![script.as_path(), out, Path::new(name)];
    arguments.extend(layers);
    shell(r#"exec python3 "$@""#, arguments).map(drop)
}
