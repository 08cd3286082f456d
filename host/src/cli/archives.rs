//! The commands that turn layers into archives and back, and tell what a layer changes.

use std::fs::File;
use std::io::{self, IsTerminal as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use serde::Serialize;

use super::arguments::{ApplyDiff, Diff};
use super::context::Context;
use super::destination::Destination;
use super::output::{ByteName, Paint, count, human_size};
use super::{Outcome, Stop, Usage};
use crate::control::Meter;
use crate::driver::{ApplyOptions, CallLimits, ChangeKind, Progress, Totals};
use crate::error::{Error, Escaped, Failure};

/// What `apply-diff` and `diff-size` print as JSON.
#[derive(Debug, Serialize)]
struct SizeObject {
    size: u64,
    entries: u64,
}

impl From<Totals> for SizeObject {
    fn from(totals: Totals) -> SizeObject {
        SizeObject { size: totals.bytes, entries: totals.entries }
    }
}

pub(super) fn apply_diff(context: &Context, arguments: ApplyDiff) -> Outcome {
    let id = arguments.id.as_str();
    let input = open_input(id, arguments.file.as_deref())?;
    let given = given(context, &arguments)?;
    let driver = context.open(false)?;
    let options =
        ApplyOptions { sync: !arguments.no_sync, devices: context.devices, given, ..ApplyOptions::default() };
    let bar = context.log.shows_progress().then(|| progress_bar(&input, &options.progress));
    let meter = bar.clone().map(|bar| -> Meter { Box::new(move |read| bar.set_position(read)) });
    let started = Instant::now();
    let result = driver.apply_diff(id, arguments.parent.as_deref(), input, &options, meter);
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let totals = result?;
    if let Some(said) = options.progress.said() {
        context.log.warn(said, None);
    }
    note_speed(context, id, totals, started.elapsed());
    context.print_line(&SizeObject::from(totals), totals.bytes)
}

/// The limits that were given for this call.
fn given(context: &Context, arguments: &ApplyDiff) -> Result<CallLimits, Stop> {
    let memory = arguments.max_memory.map(usize::try_from).transpose();
    let memory = memory
        .map_err(|_| Failure::InvalidArgument("--max-memory: more than this machine can address".into()))
        .map_err(|failure| failed("apply-diff", &arguments.id, failure))?;
    Ok(CallLimits {
        memory,
        guest_time: arguments.max_time.or(context.guest_time),
        entries: arguments.max_entries,
        bytes: arguments.max_bytes,
        expansion: arguments.max_expansion,
        stall_time: arguments.max_stall_time,
        total_time: arguments.max_total_time,
    })
}

/// Opens the archive to read.
fn open_input(id: &str, file: Option<&Path>) -> Result<File, Stop> {
    let io_error = |operation: &str, path: &[u8], error: &io::Error| {
        let failure = Failure::Io {
            entry: path.to_vec(),
            operation: operation.to_owned(),
            code: error.raw_os_error().unwrap_or_default(),
        };
        Stop::from(failed("apply-diff", id, failure))
    };
    let no_directory = |input: File, name: &[u8]| match input.metadata() {
        Ok(metadata) if metadata.is_dir() => {
            Err(io_error("open", name, &io::Error::from_raw_os_error(nix::libc::EISDIR)))
        }
        _ => Ok(input),
    };
    let Some(path) = file.filter(|&path| path != Path::new("-")) else {
        let input = io::stdin();
        if input.is_terminal() {
            return Err(Usage {
                operation: Some("apply-diff".into()),
                layer: Some(id.to_owned()),
                message: "standard input is a terminal, not an archive".to_owned(),
                hint: Some("name a file, or send the archive through a pipe".into()),
            }
            .into());
        }
        // The descriptor itself: Rust's own standard input would copy everything through a small buffer.
        let input = input.as_fd().try_clone_to_owned().map_err(|error| io_error("open", b"", &error))?;
        return no_directory(File::from(input), b"");
    };
    let name = path.as_os_str().as_bytes();
    no_directory(File::open(path).map_err(|error| io_error("open", name, &error))?, name)
}

/// The bar for an archive whose length is known.
const BAR: &str =
    "{bar:30} {binary_bytes}/{binary_total_bytes}  {entries}  {binary_bytes_per_sec}  {eta} left";
/// The line for one that comes through a pipe.
const SPINNER: &str = "{spinner} {binary_bytes}  {entries}  {binary_bytes_per_sec}  {elapsed}";

/// A bar on stderr: how much of the archive was read (of how much, for a regular file), the entries made, and
/// the rate.
fn progress_bar(input: &File, progress: &Arc<Progress>) -> ProgressBar {
    let metadata = input.metadata().ok().filter(|metadata| metadata.is_file());
    let length = metadata.map(|metadata| {
        // A shell may have read a part of it already.
        let mut input = input;
        metadata.len().saturating_sub(input.stream_position().unwrap_or(0))
    });
    let (bar, template) = match length {
        Some(length) => (ProgressBar::new(length), BAR),
        None => (ProgressBar::no_length(), SPINNER),
    };
    // Both templates are right, as a test shows; and a bar of the usual kind would do, too.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let progress = Arc::clone(progress);
    bar.set_style(style.with_key("entries", move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        // A line that cannot be drawn is drawn the next time.
        let _ = out.write_str(&count(progress.entries.load(Ordering::Relaxed), "entry", "entries"));
    }));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn note_speed(context: &Context, id: &str, totals: Totals, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let rate = human_size((totals.bytes as f64 / seconds.max(0.001)) as u64);
    let entries = count(totals.entries, "entry", "entries");
    let size = human_size(totals.bytes);
    context.log.note(format_args!("{id}: {entries}, {size} in {seconds:.1} s ({rate}/s)"));
}

pub(super) fn diff(context: &Context, arguments: &Diff) -> Outcome {
    let id = arguments.id.as_str();
    let destination = match &arguments.output {
        Some(path) if path != Path::new("-") => Destination::file(path, context.umask),
        _ => Destination::stdout(),
    };
    let destination = destination.map_err(|failure| failed("diff", id, failure))?;
    if destination.is_terminal() {
        return Err(Usage {
            operation: Some("diff".into()),
            layer: Some(id.to_owned()),
            message: "the archive would go to a terminal".to_owned(),
            hint: Some("name a file with -o, or send it through a pipe".into()),
        }
        .into());
    }
    let out = destination.descriptor().map_err(|failure| failed("diff", id, failure))?;
    let started = Instant::now();
    let outcome = context.open(false)?.diff(id, arguments.parent.as_deref(), out)?;
    destination.commit().map_err(|failure| failed("diff", id, failure))?;
    for name in &outcome.skipped {
        context.log.warn("a socket cannot be in an archive and was left out", Some(name));
    }
    note_speed(context, id, outcome.totals, started.elapsed());
    Ok(())
}

/// An error of the command line itself, in the form of the driver's.
fn failed(operation: &'static str, id: &str, failure: Failure) -> Error {
    Error { operation, layer: Some(id.to_owned()), failure }
}

/// A change as JSON.
#[derive(Debug, Serialize)]
struct ChangeObject {
    kind: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_hex: Option<String>,
}

pub(super) fn changes(context: &Context, id: &str, parent: Option<&str>) -> Outcome {
    let changes = context.open(false)?.changes(id, parent)?;
    // The driver's names are relative to the layer's root; seen from inside they begin there.
    let absolute = |name: &[u8]| [b"/", name].concat();
    let object = |(name, kind): (&[u8], ChangeKind)| {
        let ByteName { text, hex } = ByteName::of(&absolute(name));
        ChangeObject { kind: kind_word(kind), path: text, path_hex: hex }
    };
    let objects: Vec<ChangeObject> =
        if context.json { changes.iter().map(object).collect() } else { Vec::new() };
    context.print(&objects, |out| {
        let mut line = Vec::new();
        changes.iter().try_for_each(|(name, kind)| {
            line.clear();
            line.extend_from_slice(kind_letter(kind, context.paint).as_bytes());
            line.extend_from_slice(b" /");
            Escaped(name).write_to(&mut line)?;
            line.push(b'\n');
            out.write_all(&line)
        })
    })
}

fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Modified => "modified",
        ChangeKind::Added => "added",
        ChangeKind::Deleted => "deleted",
    }
}

fn kind_letter(kind: ChangeKind, paint: Paint) -> std::borrow::Cow<'static, str> {
    match kind {
        ChangeKind::Modified => paint.yellow("C"),
        ChangeKind::Added => paint.green("A"),
        ChangeKind::Deleted => paint.red("D"),
    }
}

pub(super) fn diff_size(context: &Context, id: &str, parent: Option<&str>) -> Outcome {
    let totals = context.open(false)?.diff_size(id, parent)?;
    context.print_line(&SizeObject::from(totals), totals.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_of_progress_can_be_read() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
