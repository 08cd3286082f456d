//! Archives from strangers: the table of `layerbox_catalogue` through everything that applies archives, in
//! both dialects; what is about the stream and not about what it says; and somebody who changes a layer while
//! it is worked on.

mod guests;
mod limits;
mod line;
mod races;
mod served;
mod streams;
pub(crate) mod table;

use std::fs;
use std::path::Path;

use anyhow::{Error, Result, ensure};
use layerbox_catalogue::{Row, Subject, attempt};

use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// A way in which archives are applied, and what makes a fresh store for it.
#[derive(Debug, Clone, Copy)]
struct Runner {
    name: &'static str,
    subject: fn(&Place, Dialect) -> Result<Box<dyn Subject>>,
}

/// All of them, but for the contract: `layerbox guest verify` drives that, and the table of `make hostile`
/// asks it.
const RUNNERS: &[Runner] =
    &[Runner { name: "command line", subject: command_line }, Runner { name: "service", subject: service }];

fn command_line(place: &Place, dialect: Dialect) -> Result<Box<dyn Subject>> {
    Ok(Box::new(line::CommandLine::new(Store::new(place.join("s"), dialect))))
}

fn service(place: &Place, dialect: Dialect) -> Result<Box<dyn Subject>> {
    Ok(Box::new(served::Served::new(place, dialect)?))
}

impl Runner {
    fn try_row(&self, place: &Place, dialect: Dialect, row: &Row) -> Result<()> {
        attempt(row, (self.subject)(place, dialect)?.as_ref(), true).map_err(Error::msg)
    }
}

/// Writes every archive of the catalogue into a directory, a file each.
///
/// # Errors
///
/// They cannot be written.
pub fn write_archives(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    for (number, row) in layerbox_catalogue::all().iter().enumerate() {
        fs::write(directory.join(format!("{}-{number:03}", row.group)), row.archive())?;
    }
    Ok(())
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (number, row) in layerbox_catalogue::all().into_iter().enumerate() {
        // What an archive becomes is the component's doing, to which the contract brings each row in both
        // dialects. The runners only bring it in other ways: there the dialects take turns, so that each row
        // goes through every runner, and in each dialect through one of them. `make hostile` runs all.
        for (turn, runner) in RUNNERS.iter().enumerate() {
            let dialect = Dialect::ALL[(number + turn) % Dialect::ALL.len()];
            let row = row.clone();
            let name =
                format!("hostile ({}, {}), {}: {}", runner.name, dialect.name(), row.name(), row.title);
            cases.push(case(name, move |place| runner.try_row(place, dialect, &row)));
        }
    }
    cases.push(case("hostile: SECURITY.md names rows and cases that exist", |_| documented()));
    cases.extend(streams::cases());
    cases.extend(guests::cases());
    cases.extend(limits::cases());
    cases.extend(races::cases());
    cases
}

/// Each name in the last column of a table of SECURITY.md, where the column is "shown by".
fn documented() -> Result<()> {
    let text = std::fs::read_to_string(crate::command::repository().join("SECURITY.md"))?;
    let mut known: std::collections::BTreeSet<String> =
        layerbox_catalogue::all().iter().map(Row::name).collect();
    known.extend(super::all().into_iter().map(|case| case.name));
    let (mut shown, mut names) = (false, 0);
    for line in text.lines() {
        shown = (shown && line.starts_with('|')) || line.ends_with("| shown by |");
        let last = line.trim_end_matches(" |").rsplit(" | ").next().filter(|_| shown).unwrap_or_default();
        for name in last.split('`').skip(1).step_by(2) {
            ensure!(known.contains(name), "SECURITY.md names `{name}`, which is neither a row nor a case");
            names += 1;
        }
    }
    ensure!(names > 50, "only {names} names were found: the tables have another form");
    Ok(())
}
