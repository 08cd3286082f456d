//! Programs, and what came of them. Every one has a deadline: a program that hangs is a failed case, not a
//! hung run.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::harness::{Skip, strict};
use crate::scratch::Place;

/// How long a program may take.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a program left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended. For a signal, `128 + signal`, as shells have it.
    pub code: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    shown: String,
}

impl Output {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Holds it to an exit status.
    ///
    /// # Errors
    ///
    /// It had another.
    pub fn expect(self, code: i32) -> Result<Output> {
        if self.code != code {
            bail!("exit status {} and not {code}: {self}", self.code);
        }
        Ok(self)
    }

    /// Holds its standard error to contain a text.
    ///
    /// # Errors
    ///
    /// It does not.
    pub fn says(self, text: &str) -> Result<Output> {
        if !self.stderr.contains(text) {
            bail!("does not say {text:?}: {self}");
        }
        Ok(self)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nstderr: {}", self.shown, self.stderr.trim_end())
    }
}

/// Runs a program, feeds it, and collects what it says.
///
/// # Errors
///
/// It does not start, or does not end in time.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Output> {
    run_with(command, |mut stdin| {
        // A program that has seen enough closes its end: what it says of that is what counts.
        let _ = stdin.write_all(input);
    })
}

/// As [`run`], with a function that feeds the program.
///
/// # Errors
///
/// As [`run`].
pub fn run_with(command: &mut Command, feed: impl FnOnce(std::process::ChildStdin) + Send) -> Result<Output> {
    let shown = format!("{command:?}").chars().take(400).collect();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {shown}"))?;
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("{shown}: no pipes");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| feed(stdin));
        let stdout = scope.spawn(|| read_all(stdout));
        let stderr = scope.spawn(|| read_all(stderr));
        let started = Instant::now();
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if started.elapsed() > DEADLINE {
                child.kill()?;
                child.wait()?;
                bail!("no end after {} s: {shown}", DEADLINE.as_secs());
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        };
        Ok(Output {
            code: code(status),
            stdout: stdout.join().unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr.join().unwrap_or_default()).into_owned(),
            shown,
        })
    })
}

/// The exit status as shells number it.
pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn read_all(mut stream: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    bytes
}

/// Runs a program that must succeed, and gives its standard output.
///
/// # Errors
///
/// It fails.
pub fn tool<'a>(name: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<Vec<u8>> {
    // The directories of mkfs are not in everybody's path.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    // A program that is to be looked for in another path than this process has is started by fork(2), which
    // copies the page tables of all archives of the catalogue.
    let program =
        std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file());
    let mut command = Command::new(program.unwrap_or_else(|| name.into()));
    command.env("PATH", path).args(arguments);
    Ok(run(&mut command, b"")?.expect(0)?.stdout)
}

/// As [`tool`], for a line of shell. `$1` and further are the arguments.
///
/// # Errors
///
/// It fails.
pub fn shell<'a>(script: &str, arguments: impl IntoIterator<Item = &'a Path>) -> Result<Vec<u8>> {
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]).args(arguments);
    Ok(run(&mut command, b"")?.expect(0)?.stdout)
}

/// The binary under test: `LAYERBOX_BIN`, else the one that `make` builds.
pub fn binary() -> PathBuf {
    let path = std::env::var_os("LAYERBOX_BIN")
        .map_or_else(|| PathBuf::from("target/release/layerbox"), PathBuf::from);
    // Cargo starts a test in its package's directory, people type paths as seen from the top.
    if path.is_relative() { repository().join(path) } else { path }
}

/// A copy of [`binary`] that every user can reach, wherever the repository lies.
///
/// # Errors
///
/// It cannot be made.
pub fn copied(place: &Place) -> Result<PathBuf> {
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755))?;
    let copy = place.join("layerbox");
    // By another process: what other cases start meanwhile must not inherit a file that is open for writing,
    // which cannot be run then (execve(2), ETXTBSY).
    tool("install", ["-m755".as_ref(), binary().as_os_str(), copy.as_os_str()])?;
    Ok(copy)
}

/// The program of `command`, started by `outer`: it follows the arguments of that one, which gets the
/// environment that `command` was to have.
pub fn under(mut outer: Command, command: &Command) -> Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(key, value),
            None => outer.env_remove(key),
        };
    }
    outer
}

/// A component that `make` or `make guests` builds, copied to a place that is trusted wherever the repository
/// lies.
///
/// # Errors
///
/// It was not built: a skip, or in continuous integration a failure.
pub fn component(place: &Place, name: &str) -> Result<PathBuf> {
    let name = format!("{name}.wasm");
    let built = repository().join("target/component").join(&name);
    if !built.exists() {
        let text = format!("target/component/{name} is not there: make guests");
        return if strict() { bail!(text) } else { Err(Skip(text).into()) };
    }
    let path = place.join(name);
    // Not written over: threads of a case may read it.
    if !path.exists() {
        fs::write(&path, fs::read(built)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    }
    Ok(path)
}

/// A path as an argument beside words.
///
/// # Errors
///
/// It is not UTF-8.
pub fn utf8(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_owned).unwrap_or_default()
}
