//! What is printed.

use serde_json::{Value, json};

use crate::bounds::{Verdict, mib};
use crate::inputs::Input;
use crate::programs::Who;
use crate::rounds::Figure;

/// One piece of work as a table: a row for everybody.
pub(crate) fn table(input: &Input, figures: &[Figure]) -> String {
    let Some(first) = figures.first() else { return String::new() };
    let mut text = format!("\n{} {} ({} entries)\n", first.work.name(), input.name, input.entries);
    text.push_str(&format!(
        "  {:18} {:>9} {:>9} {:>9} {:>9} {:>7} {:>11}\n",
        "", "wall s", "/ tar", "CPU s", "/ floor", "MiB", "calls/entry"
    ));
    let of = |who| figures.iter().find(|it| it.who == who).map(|it| it.sample);
    for figure in figures {
        let sample = figure.sample;
        let ratio =
            |mine: f64, theirs: Option<f64>| theirs.map_or("-".into(), |it| format!("{:.2}", mine / it));
        text.push_str(&format!(
            "  {:18} {:9.3} {:>9} {:9.3} {:>9} {:7.1} {:>11}\n",
            figure.who.name(),
            sample.wall,
            ratio(sample.wall, of(Who::GnuTar).map(|it| it.wall)),
            sample.cpu,
            ratio(sample.cpu, of(Who::Floor).map(|it| it.cpu)),
            mib(sample.peak),
            figure.calls.map_or("-".into(), |calls| format!("{calls:.2}")),
        ));
    }
    text
}

/// The bounds, and whether they hold.
pub(crate) fn verdicts(verdicts: &[Verdict]) {
    if verdicts.is_empty() {
        return;
    }
    println!("\n{:64} {:>10} {:>10}", "", "measured", "at most");
    for verdict in verdicts {
        let word = if verdict.holds() { "ok" } else { "MISSED" };
        println!("{:64} {:10.2} {:10.2}  {word}", verdict.what, verdict.measured, verdict.at_most);
    }
}

/// All of it for a program.
pub(crate) fn json(figures: &[Figure], verdicts: &[Verdict]) -> Value {
    let rows: Vec<Value> = figures
        .iter()
        .map(|it| {
            json!({
                "work": it.work.name(), "input": it.input, "who": it.who.name().trim(),
                "wall_seconds": it.sample.wall, "cpu_seconds": it.sample.cpu,
                "peak_bytes": it.sample.peak, "system_calls_per_entry": it.calls,
            })
        })
        .collect();
    json!({ "figures": rows, "bounds": verdicts.iter().map(Verdict::json).collect::<Vec<_>>() })
}
