//! The service of a case, and how an engine finds it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::command::{Output, run};
use layerbox_tests::http::Connection;
use layerbox_tests::store::bare;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::engine::end;

/// Where an engine looks up a plugin by its name (Docker's documentation, "Plugin discovery").
pub const PLUGINS: &str = "/etc/docker/plugins";

/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// `layerbox serve`, running or not. Dropped, it is gone.
#[derive(Debug)]
pub struct Service {
    plugins: Vec<String>,
    directory: PathBuf,
    options: Vec<String>,
    process: Option<Child>,
}

impl Service {
    /// Starts it, known to engines as the storage driver `plugin`.
    ///
    /// # Errors
    ///
    /// It does not start, or does not say that it is ready.
    pub fn start(directory: &Path, plugin: &str, options: &[&str]) -> Result<Service> {
        Service::start_for(directory, &[plugin.to_owned()], options)
    }

    /// Starts it with a socket for each of these storage drivers.
    ///
    /// # Errors
    ///
    /// As [`Service::start`].
    pub fn start_for(directory: &Path, plugins: &[String], options: &[&str]) -> Result<Service> {
        fs::create_dir_all(directory)?;
        let mut service = Service {
            plugins: plugins.to_vec(),
            directory: directory.to_owned(),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            process: None,
        };
        fs::create_dir_all(PLUGINS)?;
        for plugin in plugins {
            fs::write(spec(plugin), format!("unix://{}", service.socket_of(plugin).display()))?;
        }
        service.restart()?;
        Ok(service)
    }

    /// Starts it again.
    ///
    /// # Errors
    ///
    /// As [`Service::start`].
    pub fn restart(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the service runs already");
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = bare();
        command
            .arg("--root")
            .arg(self.directory.join("root"))
            .arg("serve")
            .args(self.plugins.iter().flat_map(|plugin| [PathBuf::from("--docker"), self.socket_of(plugin)]))
            .arg("--admin")
            .arg(self.admin())
            .args(&self.options);
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("layerbox serve")?;
        let stdout = process.stdout.take().context("its standard output")?;
        self.process = Some(process);
        let (sender, receiver) = mpsc::channel();
        // It goes on reading, so that nothing that is printed later finds a closed pipe; it ends with the
        // service.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        if receiver.recv_timeout(PATIENCE).is_err() {
            self.kill()?;
            bail!("the service prints no line that says it is ready:\n{}", self.log_end());
        }
        Ok(())
    }

    /// Kills it, as a crash would.
    ///
    /// # Errors
    ///
    /// It cannot be waited for.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Ends it in good order.
    ///
    /// # Errors
    ///
    /// It does not end, or not with 0.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        kill(Pid::from_raw(i32::try_from(process.id())?), Signal::SIGTERM)?;
        let started = Instant::now();
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if started.elapsed() > PATIENCE {
                process.kill()?;
                process.wait()?;
                bail!("the service does not end:\n{}", self.log_end());
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        ensure!(status.success(), "the service ends with {status}:\n{}", self.log_end());
        Ok(())
    }

    fn socket_of(&self, plugin: &str) -> PathBuf {
        self.directory.join(format!("{plugin}.sock"))
    }

    /// The socket for whoever watches it.
    pub fn admin(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// How many layers of a store it says are mounted, as its metrics have it.
    ///
    /// # Errors
    ///
    /// It does not answer, or does not know the store.
    pub fn mounts_of(&self, home: &Path) -> Result<usize> {
        let answer = Connection::new(&self.admin())?.call("GET", "/metrics", b"")?;
        let text = String::from_utf8(answer.body)?;
        ensure!(answer.status == 200, "/metrics: status {}\n{text}", answer.status);
        let series = format!("layerbox_mounts{{store=\"{}\"}} ", home.display());
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value.with_context(|| format!("no {series}in the metrics:\n{text}"))?.parse().context("a number")
    }

    /// The end of its log, for a person, and before it the lines about layers whose ids are in `text`.
    pub fn log_about(&self, text: &str) -> String {
        let log = fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        let named: Vec<&str> =
            text.split(|c: char| !c.is_ascii_hexdigit()).filter(|word| word.len() == 64).collect();
        let about = |line: &&str| named.iter().any(|id| line.contains(id));
        let about: Vec<&str> = log.lines().filter(about).collect();
        format!("{}\n…\n{}", about.join("\n"), self.log_end())
    }

    /// The end of its log, for a person.
    pub fn log_end(&self) -> String {
        end(&fs::read_to_string(self.directory.join("log")).unwrap_or_default())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.kill();
        for plugin in &self.plugins {
            let _ = fs::remove_file(spec(plugin));
        }
    }
}

fn spec(plugin: &str) -> PathBuf {
    Path::new(PLUGINS).join(format!("{plugin}.spec"))
}

/// Calls the command line on a store, with no service in between.
///
/// # Errors
///
/// It does not start, or hangs.
pub fn layerbox(home: &Path, arguments: &[&str]) -> Result<Output> {
    run(bare().arg("--root").arg(home).args(arguments), b"")
}
