//! A service in a directory of its own, and Docker's calls to it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::archive::{Member, tar};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::command::code;
use crate::http::{Answer, Connection};
use crate::scratch::Place;
use crate::store::bare;

/// A running service. It is killed when it is dropped.
#[derive(Debug)]
pub struct Service {
    directory: PathBuf,
    child: Child,
}

impl Service {
    /// Starts a service with these further arguments, and waits for its ready line.
    ///
    /// # Errors
    ///
    /// It does not become ready.
    pub fn start(place: &Place, arguments: &[&str]) -> Result<Service> {
        let directory = place.path().to_owned();
        let mut command = bare();
        command.arg("--root").arg(directory.join("root")).arg("serve");
        command.arg("--docker").arg(directory.join("docker.sock"));
        command.arg("--admin").arg(directory.join("admin.sock")).args(arguments);
        Service::spawn(place, command)
    }

    /// Starts a command that becomes a service. What it logs is in the file `log`.
    ///
    /// # Errors
    ///
    /// It does not become ready.
    pub fn spawn(place: &Place, mut command: Command) -> Result<Service> {
        let directory = place.path().to_owned();
        let log = File::options().append(true).create(true).open(directory.join("log"))?;
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no pipe")?).read_line(&mut line)?;
        let service = Service { directory, child };
        ensure!(line.starts_with("layerbox: ready: "), "it said {line:?} and logged {}", service.log()?);
        Ok(service)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A path in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// What it logged, and all those before it in this directory.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(self.path("log"))?)
    }

    /// A connection to its socket for Docker.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn connect(&self) -> Result<Connection> {
        Connection::new(&self.path("docker.sock"))
    }

    /// A call of Docker's protocol: `GraphDriver.` and the name.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub fn raw(&self, name: &str, body: &[u8]) -> Result<Answer> {
        self.connect()?.call("POST", &format!("/GraphDriver.{name}"), body)
    }

    /// A call that must succeed.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn ok(&self, name: &str, body: &Value) -> Result<Value> {
        let answer = self.raw(name, body.to_string().as_bytes())?;
        let json = answer.json()?;
        ensure!(answer.status == 200 && json.get("Err").is_none(), "{name} {body}: {} {json}", answer.status);
        Ok(json)
    }

    /// A call that must fail with status 200, and the text of its error.
    ///
    /// # Errors
    ///
    /// It does not fail so.
    pub fn fails(&self, name: &str, body: &Value) -> Result<String> {
        self.raw(name, body.to_string().as_bytes())?.error(200).with_context(|| format!("{name} {body}"))
    }

    /// Says that the store is in the directory `home`.
    ///
    /// # Errors
    ///
    /// The call fails.
    pub fn init(&self) -> Result<()> {
        let init = json!({ "Home": self.path("home"), "Opts": null, "UIDMaps": null, "GIDMaps": null });
        self.ok("Init", &init).map(drop)
    }

    /// Sends an archive to a layer.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub fn apply(&self, id: &str, archive: &[u8]) -> Result<Answer> {
        let mut connection = self.connect()?;
        connection.begin(&format!("/GraphDriver.ApplyDiff?id={id}&parent="))?;
        for chunk in archive.chunks(32 << 10) {
            connection.chunk(chunk)?;
        }
        connection.chunk(b"")?;
        connection.answer()
    }

    /// Makes a layer of these members.
    ///
    /// # Errors
    ///
    /// A call fails.
    pub fn layer(&self, id: &str, parent: &str, members: &[Member]) -> Result<()> {
        self.ok("Create", &json!({ "ID": id, "Parent": parent }))?;
        let answer = self.apply(id, &tar(members))?;
        ensure!(answer.status == 200, "ApplyDiff: {:?}", answer.json()?);
        Ok(())
    }

    /// Holds a layer to be empty and fit to be filled.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn is_empty_and_reusable(&self, id: &str) -> Result<()> {
        let staged: Vec<_> = std::fs::read_dir(self.path("home/stage"))?.collect();
        ensure!(staged.is_empty(), "something is left in stage/: {staged:?}");
        let left: Vec<_> = std::fs::read_dir(self.path("home/diff").join(id))?.collect();
        ensure!(left.is_empty(), "the layer is not empty: {left:?}");
        let answer = self.apply(id, &tar(&[crate::archive::file("reused", "yes")]))?;
        ensure!(answer.status == 200, "it is not reusable: {:?}", answer.json()?);
        Ok(())
    }

    /// What the socket for operators answers.
    ///
    /// # Errors
    ///
    /// There is no answer.
    pub fn admin(&self, path: &str) -> Result<(u16, String)> {
        let answer = Connection::new(&self.path("admin.sock"))?.call("GET", path, b"")?;
        Ok((answer.status, String::from_utf8(answer.body)?))
    }

    /// Sends a signal.
    ///
    /// # Errors
    ///
    /// It is gone.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// Waits for its end, and gives the exit status.
    ///
    /// # Errors
    ///
    /// It does not end within half a minute.
    pub fn wait(&mut self) -> Result<i32> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(30) {
            if let Some(status) = self.child.try_wait()? {
                return Ok(code(status));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("no end after 30 s")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has ended already, or ends now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How long is waited for what takes milliseconds where nothing else is under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something holds that does at once, or nearly.
///
/// # Errors
///
/// It does not hold after ten seconds.
pub fn eventually(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    within(PATIENCE, what, holds)
}

/// Waits until something holds, for at most so long.
///
/// # Errors
///
/// It does not hold by then.
pub fn within(patience: Duration, what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds()? {
        ensure!(started.elapsed() < patience, "not so after {} s: {what}", patience.as_secs());
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
