//! `guest verify`: the conformance suite, a line a case.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::Ordering;

use layerbox_conformance::{Options, Report, Summary, Verdict, names, run};
use serde::Serialize;

use super::arguments::Verify;
use super::context::Context;
use super::output::{OneLine, unless_enough};
use super::{Outcome, Stop, interrupt};
use crate::driver::Settings;
use crate::error::Class;
use crate::verify::Verification;

/// The JSON of `guest verify`.
#[derive(Debug, Serialize)]
struct VerifyObject {
    digest: String,
    passed: usize,
    failed: usize,
    skipped: usize,
    cases: Vec<CaseObject>,
}

/// A case in it, and in that of `--list`.
#[derive(Debug, Serialize)]
struct CaseObject {
    name: String,
    about: &'static str,
    broad: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
}

pub(super) fn verify(context: &Context, arguments: Verify) -> Outcome {
    let Verify { file, only, except, sequences, seed, strict, list } = arguments;
    let mut options = Options { only, except, sequences, seed, strict, ..Options::default() };
    if list {
        return print_names(context, &options);
    }
    // Before there is any other thread.
    options.stop = interrupt::catch().map_err(Stop::Other)?;
    let verification = Verification::open(&settings(context, file), context.shipped)?;
    context.log.code(verification.code());
    let mut cases = Vec::new();
    let mut printed: io::Result<()> = Ok(());
    let summary = run(&verification, &options, |report| {
        if context.json {
            cases.push(object(report));
        } else if printed.is_ok() {
            printed = print_case(context, report);
        }
        // Whoever reads no more may still want to know how it ends.
        printed.as_ref().err().is_none_or(|error| error.kind() == io::ErrorKind::BrokenPipe)
    });
    unless_enough(printed)?;
    let Summary { passed, failed, skipped } = summary;
    let object = VerifyObject { digest: verification.digest().to_string(), passed, failed, skipped, cases };
    context.print(&object, |out| {
        writeln!(out, "conformance: {passed} passed, {failed} failed, {skipped} skipped ({})", object.digest)
    })?;
    if skipped > 0 {
        context
            .log
            .warn(format!("{skipped} cases were SKIPPED on this machine: of those nothing is known"), None);
    }
    if options.stop.load(Ordering::Relaxed) {
        return Err(Stop::Other(anyhow::anyhow!("guest verify: interrupted")));
    }
    if passed + failed + skipped == 0 {
        return Err(Stop::Other(anyhow::anyhow!("guest verify: no case has such a name")));
    }
    if failed > 0 { Err(Stop::Status(Class::Failed.status())) } else { Ok(()) }
}

/// The settings of the stores that the suite makes: they are the suite's affair, but for the component and
/// its limits.
fn settings(context: &Context, file: Option<PathBuf>) -> Settings {
    Settings { devices: true, ..context.trial(file) }
}

fn print_names(context: &Context, options: &Options) -> Outcome {
    let names = names(options);
    let objects: Vec<CaseObject> = names
        .iter()
        .map(|(name, case)| CaseObject {
            name: name.clone(),
            about: case.about,
            broad: case.broad,
            result: None,
            why: None,
            notes: Vec::new(),
            milliseconds: None,
        })
        .collect();
    context.print(&objects, |out| {
        names.iter().try_for_each(|(name, case)| writeln!(out, "{name}: {}", case.about))
    })
}

fn object(report: &Report) -> CaseObject {
    let (result, why) = match &report.verdict {
        Verdict::Ok => ("ok", None),
        Verdict::Failed(why) => ("failed", Some(why.clone())),
        Verdict::Skipped(why) => ("skipped", Some(why.clone())),
    };
    CaseObject {
        name: report.name.clone(),
        about: report.about,
        broad: report.broad,
        result: Some(result),
        why,
        notes: report.notes.clone(),
        milliseconds: Some(u64::try_from(report.time.as_millis()).unwrap_or(u64::MAX)),
    }
}

/// Prints a case as it ends: whoever waits sees what goes on.
fn print_case(context: &Context, report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let name = &report.name;
    match &report.verdict {
        Verdict::Ok if report.notes.is_empty() => writeln!(out, "{} {name}", context.paint.green("ok"))?,
        Verdict::Ok => writeln!(out, "{} {name}: {}", context.paint.green("ok"), report.notes.join("; "))?,
        Verdict::Failed(why) => writeln!(out, "{} {name}: {}", context.paint.red("FAILED"), OneLine(why))?,
        Verdict::Skipped(why) => {
            writeln!(out, "{} {name}: {}", context.paint.yellow("skipped"), OneLine(why))?
        }
    }
    out.flush()
}
