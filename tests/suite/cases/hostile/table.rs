//! The table of hostile archives, printed: a line a row, and what came of it in each run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use layerbox_catalogue::Row;

use super::RUNNERS;
use crate::command::run;
use crate::harness::is_root;
use crate::scratch::Place;
use crate::store::{Dialect, bare};

/// What came of the rows in one run, by their names: nothing, or why it is not what it must be.
type Run = BTreeMap<String, Option<String>>;

/// Runs the rows whose names hold one of the words (all where there are none) in all runs and prints the
/// table. Answers whether each row had its outcome everywhere.
///
/// # Errors
///
/// It needs root; the binary does not start.
pub fn print(words: &[&String], place: &Place) -> Result<bool> {
    ensure!(is_root(), "layers can be filled by root only");
    let mut rows = layerbox_catalogue::all();
    rows.retain(|row| words.is_empty() || words.iter().any(|word| row.name().contains(word.as_str())));
    ensure!(!rows.is_empty(), "no row has such a name");
    let mut runs: Vec<(String, Run)> = Vec::new();
    for runner in RUNNERS {
        for dialect in Dialect::ALL {
            let try_row = |row: &Row| {
                let inner = place.directory_for(row.title)?;
                runner.try_row(&inner, dialect, row)
            };
            runs.push((format!("{}, {}", runner.name, dialect.name()), all(&rows, try_row)));
        }
    }
    runs.extend(contract(words)?);
    show(&rows, &runs)
}

fn all(rows: &[Row], try_row: impl Fn(&Row) -> Result<()> + Sync) -> Run {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Run::new()));
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let why = try_row(row).err().map(|error| format!("{error:#}"));
                    found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(row.name(), why);
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The calls of the contract, which the binary itself makes.
fn contract(words: &[&String]) -> Result<Vec<(String, Run)>> {
    let mut command = bare();
    command.args(["--json", "guest", "verify", "--strict"]);
    let only =
        if words.is_empty() { vec!["hostile/"] } else { words.iter().map(|word| word.as_str()).collect() };
    for word in only {
        command.args(["--only", word]);
    }
    let output = run(&mut command, b"")?;
    let answer: serde_json::Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("guest verify: {output}"))?;
    let mut runs: BTreeMap<&str, Run> = Dialect::ALL.map(|dialect| (dialect.name(), Run::new())).into();
    for case in answer["cases"].as_array().map(Vec::as_slice).unwrap_or_default() {
        let name = case["name"].as_str().and_then(|name| name.strip_prefix("hostile/"));
        if let Some((name, dialect)) = name.and_then(|name| name.split_once('@'))
            && let Some(run) = runs.get_mut(dialect)
        {
            let why =
                (case["result"] != "ok").then(|| case["why"].as_str().unwrap_or("no reason").to_owned());
            run.insert(name.to_owned(), why);
        }
    }
    Ok(runs.into_iter().map(|(dialect, run)| (format!("contract, {dialect}"), run)).collect())
}

fn show(rows: &[Row], runs: &[(String, Run)]) -> Result<bool> {
    println!("What came of each archive. Runs, in the order of the columns:");
    for (number, (name, _)) in runs.iter().enumerate() {
        println!("  {}  {name}", number + 1);
    }
    let (mut failures, mut words) = (Vec::new(), BTreeMap::new());
    let mut group = "";
    for row in rows {
        if row.group != group {
            group = row.group;
            let numbers: Vec<String> = (1..=runs.len()).map(|number| format!("{number:<7}")).collect();
            println!("\n{:<8} {} {group}", "must be", numbers.join(" "));
        }
        let word = row.outcome.word();
        let cells: Vec<String> = runs
            .iter()
            .map(|(run, found)| {
                let why = match found.get(&row.name()) {
                    Some(None) => return format!("{word:<7}"),
                    Some(Some(why)) => why.as_str(),
                    None => "it was not run",
                };
                failures.push(format!("{} ({run}): {why}", row.name()));
                "FAILED ".to_owned()
            })
            .collect();
        println!("{word:<8} {} {}", cells.join(" "), row.title);
        *words.entry(word).or_insert(0) += 1;
    }
    println!();
    for failure in &failures {
        println!("FAILED  {failure}");
    }
    let counts: Vec<String> = words.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let outcomes = rows.len() * runs.len();
    println!(
        "hostile: {} rows ({}), {} runs, {outcomes} outcomes, {} wrong",
        rows.len(),
        counts.join(", "),
        runs.len(),
        failures.len()
    );
    Ok(failures.is_empty())
}
