//! The directory that the demo works in: chosen, used to run commands in, and cleared, whatever happens.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use layerbox_privileged::mount::mountinfo;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::super::context::Context;
use super::super::interrupt;
use super::place::{self, Place};
use crate::driver::BackendChoice;
use crate::store::{Opening, Store};

/// Somebody pressed Ctrl-C, or asked the program in another way to end.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(super) struct Interrupted;

/// The directory, with two stores in it at most: `store` and `elsewhere`.
#[derive(Debug)]
pub(super) struct Stage {
    place: Place,
    /// What the shell needs to know before a command: where `layerbox` is.
    preamble: OsString,
    interrupted: Arc<AtomicBool>,
    progress: bool,
}

/// How a command ended.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) success: bool,
    /// What it printed.
    pub(super) text: String,
    errors: String,
    status: ExitStatus,
    late: bool,
}

impl Output {
    /// What went wrong, in a line.
    pub(super) fn complaint(&self) -> String {
        if self.late {
            return "it took too long".to_owned();
        }
        let lines: Vec<&str> = self.errors.lines().filter(|line| !line.trim().is_empty()).collect();
        match (lines.as_slice(), self.text.lines().last()) {
            // The last two: `layerbox: …` and its hint.
            ([.., error, hint], _) if hint.starts_with("hint:") => format!("{error} ({hint})"),
            ([.., error], _) => (*error).to_owned(),
            // debootstrap says why on its standard output.
            ([], Some(last)) if last.starts_with("E:") => last.to_owned(),
            ([], _) => self.status.to_string(),
        }
    }
}

impl Stage {
    /// Finds a place and makes the directory. From now on SIGINT, SIGTERM and SIGHUP do not end the process;
    /// they end what runs, and then there is clearing to be done.
    pub(super) fn new(context: &Context) -> Result<Stage> {
        let interrupted = interrupt::catch()?;
        let place = place::find()?;
        let program = std::env::current_exe().context("finding this program")?;
        let mut words = vec![program.into_os_string()];
        match context.settings.new_backend() {
            BackendChoice::Auto => words.extend(["--backend", "auto"].map(OsString::from)),
            BackendChoice::Aufs => words.extend(["--backend", "aufs"].map(OsString::from)),
            BackendChoice::Overlay => words.extend(["--backend", "overlay"].map(OsString::from)),
        }
        if let Some(guest) = &context.settings.guest {
            let guest = std::path::absolute(guest).context("--guest")?;
            words.extend(["--guest".into(), guest.into_os_string()]);
        }
        if let Some(digest) = context.settings.guest_sha256 {
            words.extend(["--guest-sha256".into(), OsString::from(digest.to_string())]);
        }
        if let Some(config) = &context.config {
            let config = std::path::absolute(config).context("--config")?;
            words.extend(["--config".into(), config.into_os_string()]);
        }
        let devices = if context.settings.devices { "allow" } else { "refuse" };
        words.extend(["--devices", devices].map(OsString::from));
        let mut preamble = OsString::from("umask 022; layerbox() { ");
        for word in &words {
            preamble.push(quoted(word));
            preamble.push(" ");
        }
        preamble.push("\"$@\"; }\n");
        Ok(Stage { place, preamble, interrupted, progress: context.log.shows_progress() })
    }

    /// The directory.
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }

    /// Where it is, and on what.
    pub(super) fn describe(&self) -> String {
        self.place.describe()
    }

    /// Ends what goes on if somebody wants it to end.
    pub(super) fn pulse(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Runs a command line in a shell. One that fails is no error here.
    pub(super) fn run(&self, directory: &Path, command: &str) -> Result<Output> {
        self.run_within(directory, command, None)
    }

    /// The same; with a limit of time, after which it is ended.
    pub(super) fn run_within(
        &self,
        directory: &Path,
        command: &str,
        most: Option<Duration>,
    ) -> Result<Output> {
        self.pulse()?;
        self.shell(directory, command, most, true)
    }

    fn shell(
        &self,
        directory: &Path,
        command: &str,
        most: Option<Duration>,
        interruptible: bool,
    ) -> Result<Output> {
        let mut script = self.preamble.clone();
        script.push(command);
        let mut path = std::env::var_os("PATH").unwrap_or_default();
        path.push(":/usr/sbin:/sbin:/usr/bin:/bin");
        let mut child = Command::new("/bin/sh")
            .arg("-c")
            .arg(script)
            .current_dir(directory)
            .env("PATH", path)
            .env("LAYERBOX_ROOT", self.path().join("store"))
            // The store of the demonstration is its own.
            .env_remove("LAYERBOX_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // A group of its own, so that all of a pipeline can be ended.
            .process_group(0)
            .spawn()
            .context("running /bin/sh")?;
        let (text, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let (status, late) = self.wait(&mut child, most, interruptible)?;
        let (text, errors) = (finish(text), finish(errors));
        if interruptible {
            self.pulse()?;
        }
        Ok(Output { success: status.success() && !late, text, errors, status, late })
    }

    fn wait(
        &self,
        child: &mut Child,
        most: Option<Duration>,
        interruptible: bool,
    ) -> Result<(ExitStatus, bool)> {
        let started = Instant::now();
        let mut spinner = None;
        let ended = loop {
            if let Some(status) = child.try_wait().context("waiting for a command")? {
                break (status, false);
            }
            let late = most.is_some_and(|most| started.elapsed() > most);
            if late || (interruptible && self.interrupted.load(Ordering::Relaxed)) {
                // SIGKILL: the signals that ask politely are blocked in the child as they are here. It is
                // made for that: a store outlives it. Where the group is gone already there is nothing to
                // end.
                let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
                break (child.wait().context("waiting for a command")?, late);
            }
            if self.progress && spinner.is_none() && started.elapsed() > Duration::from_millis(700) {
                spinner = Some(show_spinner(started));
            }
            thread::sleep(Duration::from_millis(5));
        };
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        Ok(ended)
    }

    /// Mount points in the directory.
    pub(super) fn mounts(&self) -> Result<Vec<PathBuf>> {
        let mounts = mountinfo::read("self").context("/proc/self/mountinfo")?;
        Ok(mounts
            .into_iter()
            .map(|mount| mount.point)
            .filter(|point| point.starts_with(self.path()))
            .collect())
    }

    /// Unmounts what is mounted in the directory and removes it, and what the stores keep outside of it. May
    /// be called again after a failure.
    pub(super) fn clear(&self) -> Result<()> {
        let mut runtimes = Vec::new();
        for name in ["store", "elsewhere"] {
            let root = self.path().join(name);
            if !root.join("layerbox.json").exists() {
                continue;
            }
            // Where it cannot be opened there may still be mounts to look for below.
            if let Ok(store) = Store::open(&root, Opening::default()) {
                runtimes.push(store.runtime().to_owned());
            }
            self.shell(self.path(), &format!("layerbox --root {name} cleanup"), None, false)?;
        }
        // The last one mounted lies on top.
        for point in self.mounts()?.iter().rev() {
            // Layer ids and the directory's own name need no quotes.
            self.shell(Path::new("/"), &format!("umount {}", point.display()), None, false)?;
        }
        if let Some(point) = self.mounts()?.first() {
            // Removing would reach through the mount.
            bail!("{} is still mounted; {} was not removed", point.display(), self.path().display());
        }
        for directory in runtimes.iter().map(PathBuf::as_path).chain([self.path()]) {
            match fs::remove_dir_all(directory) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", directory.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Stage {
    /// For the case that the demo itself fails in an unforeseen way; else it is cleared by now.
    fn drop(&mut self) {
        if self.path().exists() {
            let _ = self.clear();
        }
    }
}

/// A word as a shell reads it back: in single quotes, unless it is made of characters that need none.
pub(super) fn quoted(word: &OsStr) -> OsString {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._+-:=@%".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return word.to_owned();
    }
    let mut quoted = vec![b'\''];
    for &byte in word.as_bytes() {
        match byte {
            b'\'' => quoted.extend(b"'\\''"),
            byte => quoted.push(byte),
        }
    }
    quoted.push(b'\'');
    OsString::from_vec(quoted)
}

fn show_spinner(started: Instant) -> ProgressBar {
    let style = ProgressStyle::with_template("    {spinner} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_elapsed(started.elapsed());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// Reads all of a pipe while the process that fills it runs.
fn collect(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    let mut pipe = pipe?;
    Some(thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read up to an error is what there is to show.
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    }))
}

fn finish(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_for_a_shell() {
        let cases =
            [("a/b.tar", "a/b.tar"), ("", "''"), ("a b", "'a b'"), ("it's", "'it'\\''s'"), ("$x", "'$x'")];
        for (word, shell) in cases {
            assert_eq!(quoted(OsStr::new(word)), shell);
        }
    }
}
