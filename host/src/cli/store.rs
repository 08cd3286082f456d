//! The commands about the store as a whole.

use std::io::{self, IsTerminal as _};

use serde::ser::{Serialize, SerializeMap as _, Serializer};

use super::context::Context;
use super::output::{OneLine, count, human_size};
use super::table::{Align, Branches, Leaf, columns, tree};
use super::{Outcome, Stop};
use crate::driver::{
    self, CheckOptions, Conversion, Finding, HEXADECIMAL_ROOT, LayerSummary, check_unopened,
};
use crate::error::{Class, Error, Failure};

/// A layer in the JSON of `list`.
#[derive(Debug, serde::Serialize)]
struct LayerObject<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    size: Option<u64>,
    mounts: u32,
    state: &'a str,
}

pub(super) fn list(context: &Context, as_tree: bool) -> Outcome {
    let layers = context.open(false)?.list()?;
    let objects: Vec<LayerObject<'_>> = layers.iter().map(object).collect();
    // People read sizes, scripts add them up.
    let human = io::stdout().is_terminal();
    let size = |layer: &LayerObject<'_>| match layer.size {
        None => "-".to_owned(),
        Some(bytes) if human => human_size(bytes),
        Some(bytes) => bytes.to_string(),
    };
    let lines = if as_tree { tree_lines(&objects, size) } else { table_lines(&objects, size) };
    context.print(&objects, |out| {
        for (number, line) in lines.iter().enumerate() {
            match number {
                0 => writeln!(out, "{}", context.paint.bold(line))?,
                _ => writeln!(out, "{line}")?,
            }
        }
        Ok(())
    })
}

fn object(layer: &LayerSummary) -> LayerObject<'_> {
    LayerObject {
        id: layer.id.as_str(),
        parent: layer.parent.as_ref().map(|parent| parent.as_str()),
        size: layer.size,
        mounts: layer.mounts,
        state: layer.state,
    }
}

fn table_lines<'a>(layers: &[LayerObject<'a>], size: impl Fn(&LayerObject<'a>) -> String) -> Vec<String> {
    let mut rows = vec![["ID", "PARENT", "SIZE", "MOUNTS", "STATE"].map(str::to_owned)];
    rows.extend(layers.iter().map(|layer| {
        let parent = layer.parent.unwrap_or("-").to_owned();
        [layer.id.to_owned(), parent, size(layer), layer.mounts.to_string(), layer.state.to_owned()]
    }));
    columns([Align::Left, Align::Left, Align::Right, Align::Right, Align::Left], &rows)
}

fn tree_lines<'a>(layers: &[LayerObject<'a>], size: impl Fn(&LayerObject<'a>) -> String) -> Vec<String> {
    let leaves: Vec<Leaf<'_>> =
        layers.iter().map(|layer| Leaf { id: layer.id, parent: layer.parent }).collect();
    let mut rows = vec![["ID", "SIZE", "MOUNTS", "STATE"].map(str::to_owned)];
    rows.extend(tree(&leaves, Branches::of_locale()).into_iter().map(|(before, at)| {
        let layer = &layers[at];
        [format!("{before}{}", layer.id), size(layer), layer.mounts.to_string(), layer.state.to_owned()]
    }));
    columns([Align::Left, Align::Right, Align::Right, Align::Left], &rows)
}

/// Rows as an object, in their order.
#[derive(Debug)]
struct Rows<'a>(&'a [(String, String)]);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

pub(super) fn status(context: &Context) -> Outcome {
    let rows = context.open(false)?.status()?;
    context.print(&Rows(&rows), |out| {
        rows.iter().filter(|(key, _)| key != HEXADECIMAL_ROOT).try_for_each(|(key, value)| {
            writeln!(out, "{}: {}", context.paint.bold(&OneLine(key).to_string()), OneLine(value))
        })
    })
}

/// What `cleanup` did, as JSON.
#[derive(Debug, serde::Serialize)]
struct CleanupObject {
    unmounted: u32,
}

pub(super) fn cleanup(context: &Context) -> Outcome {
    let unmounted = context.open(false)?.cleanup()?;
    context.log.note(format_args!("unmounted {}", count(unmounted.into(), "layer", "layers")));
    context.print(&CleanupObject { unmounted }, |_| Ok(()))
}

/// What `convert` did, as JSON.
#[derive(Debug, serde::Serialize)]
struct ConversionObject {
    from: &'static str,
    to: &'static str,
    layers: u64,
    deletions: u64,
}

pub(super) fn convert(context: &Context) -> Outcome {
    let Conversion { from, to, layers, deletions } = driver::convert(&context.settings.root, context.target)?;
    if from == to {
        context.log.warn(format_args!("the store is of backend {to} already"), None);
    } else {
        let layers = count(layers, "layer", "layers");
        let deletions = count(deletions, "deletion", "deletions");
        context.log.note(format_args!("converted {layers} from {from} to {to}: {deletions}"));
    }
    context.print(&ConversionObject { from, to, layers, deletions }, |_| Ok(()))
}

/// All that `check` has to say of a store whose conversion was cut off.
fn half_converted(failure: &Failure) -> Finding {
    Finding {
        place: "convert.json".to_owned(),
        what: failure.to_string(),
        repair: "layerbox convert goes on with it, or turns back".to_owned(),
        ..Finding::default()
    }
}

/// A finding of `check` as JSON.
#[derive(Debug, serde::Serialize)]
struct FindingObject<'a> {
    place: &'a str,
    what: &'a str,
    repair: &'a str,
    repaired: bool,
    passing: bool,
}

pub(super) fn check(context: &Context, options: CheckOptions) -> Outcome {
    // A service that was named has the store open.
    let mut findings = match context.socket {
        None => check_unopened(&context.settings, options)?,
        Some(_) => Vec::new(),
    };
    let opens = findings.iter().all(Finding::is_settled);
    match opens.then(|| context.open(false)) {
        None => {}
        // Nothing else can be told of it.
        Some(Err(Error { failure: failure @ Failure::Converting { .. }, .. })) => {
            findings.push(half_converted(&failure))
        }
        Some(Err(Error { layer, failure: failure @ Failure::Corrupt(_), .. })) => {
            return Err(Error { operation: "check", layer, failure }.into());
        }
        Some(opened) => findings.extend(opened?.check(options)?),
    }
    let objects: Vec<FindingObject<'_>> = findings
        .iter()
        .map(|finding| FindingObject {
            place: &finding.place,
            what: &finding.what,
            repair: &finding.repair,
            repaired: finding.repaired,
            passing: finding.passing,
        })
        .collect();
    context.log.note(count(findings.len() as u64, "finding", "findings"));
    context.print(&objects, |out| {
        objects.iter().try_for_each(|finding| {
            let place = OneLine(finding.place).to_string();
            write!(out, "{}: {}", context.paint.bold(&place), OneLine(finding.what))?;
            match (finding.repair, finding.repaired) {
                ("", _) => writeln!(out),
                (repair, false) => writeln!(out, " (repair: {})", OneLine(repair)),
                (repair, true) => writeln!(out, " (repaired: {})", OneLine(repair)),
            }
        })
    })?;
    if findings.iter().all(Finding::is_settled) { Ok(()) } else { Err(Stop::Status(Class::Failed.status())) }
}
