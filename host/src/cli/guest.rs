//! `guest inspect`: what a component asks for, and what it is lent.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use super::Outcome;
use super::context::Context;
use super::output::{OneLine, human_size};
use crate::driver::{self, Inspection};

/// The JSON of `guest inspect`.
#[derive(Debug, Serialize)]
struct InspectObject<'a> {
    digest: String,
    size: u64,
    world: &'a str,
    speaks: &'a [String],
    imports: Vec<ImportObject<'a>>,
    exports: &'a [String],
    refused: &'a [String],
    missing: &'a [String],
    memory_limit: usize,
}

/// An import in it.
#[derive(Debug, Serialize)]
struct ImportObject<'a> {
    interface: &'a str,
    lends: &'a str,
    calls: &'a [&'static str],
}

/// The JSON of `guest inspect --wit`.
#[derive(Debug, Serialize)]
struct WitObject<'a> {
    wit: &'a str,
}

pub(super) fn inspect(context: &Context, file: Option<PathBuf>, wit: bool) -> Outcome {
    let settings = context.trial(file);
    if wit {
        let wit = driver::wit(&settings, context.shipped)?;
        return context.print(&WitObject { wit: &wit }, |out| {
            wit.trim_end().lines().try_for_each(|line| writeln!(out, "{}", OneLine(line)))
        });
    }
    let inspection = driver::inspect(&settings, context.shipped)?;
    let object = InspectObject {
        digest: inspection.digest.to_string(),
        size: inspection.size,
        world: inspection.world,
        speaks: &inspection.speaks,
        imports: inspection
            .imports
            .iter()
            .map(|(name, lent)| ImportObject { interface: name, lends: lent.lends, calls: lent.calls })
            .collect(),
        exports: &inspection.exports,
        refused: &inspection.refused,
        missing: &inspection.missing,
        memory_limit: context.settings.limits.memory,
    };
    context.print(&object, |out| write_text(out, context, &inspection))?;
    // The list stands above, on stdout; the error says it once more, for those who only see stderr, and has
    // the exit status.
    Ok(inspection.allowed().map_err(|failure| failure.during("guest inspect", None))?)
}

fn write_text(out: &mut dyn Write, context: &Context, inspection: &Inspection) -> io::Result<()> {
    let head = |key| context.paint.bold(key);
    writeln!(out, "{}: {}", head("Digest"), inspection.digest)?;
    writeln!(out, "{}: {}", head("Size"), human_size(inspection.size))?;
    writeln!(out, "{}: {}", head("World"), inspection.world)?;
    let speaks = match inspection.speaks.as_slice() {
        [] => "another world's contract".to_owned(),
        speaks => speaks.join(", "),
    };
    writeln!(out, "{}: {}", head("Speaks"), OneLine(&speaks))?;
    let memory = context.settings.limits.memory as u64;
    writeln!(out, "{}: {} a call", head("Memory Limit"), human_size(memory))?;
    writeln!(out, "{}:", head("Imports"))?;
    for (name, lent) in &inspection.imports {
        writeln!(out, "  {}", OneLine(name))?;
        writeln!(out, "      lends  {}", lent.lends)?;
        if !lent.calls.is_empty() {
            writeln!(out, "      to     {}", lent.calls.join(", "))?;
        }
    }
    writeln!(out, "{}:", head("Exports"))?;
    names(out, &inspection.exports)?;
    for (heading, list) in
        [("Refused Imports", &inspection.refused), ("Missing Exports", &inspection.missing)]
    {
        if !list.is_empty() {
            writeln!(out, "{}:", context.paint.red(heading))?;
            names(out, list)?;
        }
    }
    Ok(())
}

fn names(out: &mut dyn Write, names: &[String]) -> io::Result<()> {
    names.iter().try_for_each(|name| writeln!(out, "  {}", OneLine(name)))
}
