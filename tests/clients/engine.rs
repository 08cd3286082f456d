//! A Docker Engine of a case: its own data, sockets and containerd, no network.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::command::{Output, run};
use layerbox_tests::scratch::{mounts_below, unmount_below};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup;

/// How long an engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// The id on the machine of root in a container, for an engine with a map of user ids.
pub const MAPPED: u32 = 100_000;

/// Whose ids these are: a user and a group of this name are in every Debian.
pub const MAPPED_USER: &str = "games";

/// An engine, running or not. Dropped, it is gone with its containers and mounts.
#[derive(Debug)]
pub struct Engine {
    directory: PathBuf,
    driver: String,
    options: Vec<String>,
    /// Where its programs are looked up.
    path: String,
    cgroup: String,
    daemon: Option<Child>,
}

impl Engine {
    /// Starts one with this storage driver, its files below `directory`, whose name must be the only one of
    /// the run.
    ///
    /// # Errors
    ///
    /// It does not start; the error has the end of its log.
    pub fn start(directory: &Path, driver: &str, options: &[&str]) -> Result<Engine> {
        Engine::start_at(&search_path(), directory, driver, options)
    }

    /// As [`Engine::start`], with the programs that are found on this path.
    ///
    /// # Errors
    ///
    /// As [`Engine::start`].
    pub fn start_at(path: &str, directory: &Path, driver: &str, options: &[&str]) -> Result<Engine> {
        fs::create_dir_all(directory)?;
        // The last three: which case, which rig of it, which part of that.
        let parts = directory.components().rev().take(3).map(|part| part.as_os_str().to_string_lossy());
        let unique = parts.collect::<Vec<_>>().join("-");
        let mut engine = Engine {
            directory: directory.to_owned(),
            driver: driver.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            path: path.to_owned(),
            cgroup: cgroup::name(&unique),
            daemon: None,
        };
        engine.restart()?;
        Ok(engine)
    }

    /// Starts it again over what is on disk.
    ///
    /// # Errors
    ///
    /// As [`Engine::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        let started = Instant::now();
        while self.docker(["version"])?.code != 0 {
            let ended = match &mut self.daemon {
                Some(daemon) => daemon.try_wait()?.is_some(),
                None => true,
            };
            if ended || started.elapsed() > PATIENCE {
                self.kill()?;
                bail!("the engine does not start:\n{}", self.log_end());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Starts the daemon without waiting for it.
    ///
    /// # Errors
    ///
    /// There is no such program.
    pub fn launch(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the engine runs already");
        let log = File::options().create(true).append(true).open(self.log())?;
        // The file of a daemon that was killed would be taken for one that runs: numbers of processes are
        // small and come again in a namespace of its own.
        let _ = fs::remove_file(self.directory.join("pid"));
        let mut command = Command::new("dockerd");
        command
            .args(["--experimental", "--storage-driver", &self.driver])
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--bridge=none"])
            // systemd's way would need the machine's systemd to know about these groups.
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent"])
            .arg(&self.cgroup)
            .arg("--data-root")
            .arg(self.data())
            .arg("--exec-root")
            .arg(self.directory.join("exec"))
            .arg("--pidfile")
            .arg(self.directory.join("pid"))
            .arg("--host")
            .arg(self.host())
            .args(&self.options);
        self.daemon = Some(
            command
                .env("PATH", &self.path)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("dockerd")?,
        );
        Ok(())
    }

    /// A call of the engine's own command line, not yet made.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new("docker");
        command.args(arguments).current_dir(&self.directory);
        self.environment(&mut command);
        command
    }

    /// What the command line needs to reach this engine and no other, and nothing of the user's own settings.
    pub fn environment(&self, command: &mut Command) {
        for variable in ["DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            command.env_remove(variable);
        }
        command
            .env("PATH", &self.path)
            .env("DOCKER_HOST", self.host())
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CONFIG", self.directory.join("config"));
    }

    /// Calls it.
    ///
    /// # Errors
    ///
    /// It does not start, or hangs.
    pub fn docker<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Output> {
        run(&mut self.command(arguments), b"")
    }

    /// Calls it, which must succeed, and gives what it prints.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        Ok(self.docker(arguments)?.expect(0)?.text())
    }

    /// Kills the daemon, as a crash would. Its containers go on.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
            // Its containerd has asked the kernel to end with it; a new daemon would find the old one still
            // there.
            let containerd = fs::read_to_string(self.directory.join("exec/containerd/containerd.pid"));
            if let Ok(Ok(pid)) = containerd.map(|text| text.trim().parse::<i32>()) {
                let process = Path::new("/proc").join(pid.to_string()).join("exe");
                while fs::read_link(&process).is_ok_and(|program| program.ends_with("containerd")) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
        Ok(())
    }

    /// Ends the daemon in good order, with all its containers.
    ///
    /// # Errors
    ///
    /// It does not end.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut daemon) = self.daemon.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGTERM)?;
        let started = Instant::now();
        while daemon.try_wait()?.is_none() {
            if started.elapsed() > PATIENCE {
                daemon.kill()?;
                daemon.wait()?;
                bail!("the engine does not end:\n{}", self.log_end());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where everything of it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Its `--data-root`.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Where its storage driver keeps layers.
    pub fn home(&self) -> PathBuf {
        // With a map of user ids, an engine has a directory of its own for each map, named after the first
        // ids.
        let mapped = self.options.iter().any(|option| option.starts_with("--userns-remap"));
        let data = self.data();
        if mapped {
            data.join(format!("{MAPPED}.{MAPPED}")).join(&self.driver)
        } else {
            data.join(&self.driver)
        }
    }

    /// The name of the control group of its containers.
    pub fn cgroup(&self) -> &str {
        &self.cgroup
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// The end of its log, for a person.
    pub fn log_end(&self) -> String {
        end(&self.logged())
    }

    /// As `DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.directory.join("socket").display())
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.kill();
        // A shim is not in the group of its container. Its arguments name the socket of the containerd that
        // started it.
        let exec = self.directory.join("exec");
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            if line.contains("containerd-shim") && line.contains(&*exec.to_string_lossy()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        cgroup::end(&self.cgroup);
        while !mounts_below(&self.directory).is_empty() {
            let before = mounts_below(&self.directory).len();
            unmount_below(&self.directory);
            if mounts_below(&self.directory).len() == before {
                break;
            }
        }
    }
}

/// Debian's own programs first: a machine may have another `docker` in `/usr/local/bin`.
pub fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("/usr/bin:/usr/sbin:/bin:/sbin:{path}")
}

/// The last lines of a log.
pub fn end(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}
