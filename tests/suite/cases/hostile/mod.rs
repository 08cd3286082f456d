//! Archives from strangers: the table of `layerbox_catalogue` through everything that applies archives, in both dialects; what is about the stream and not about
//! what it says; and somebody who changes a layer while it is worked on.

mod guests;
mod limits;
mod line;
mod races;
mod streams;
pub(crate) mod table;

use anyhow::{Error, Result};
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

/// All of them, but for the contract: `layerbox guest verify` drives that, and the table of `make hostile` asks it.
const RUNNERS: &[Runner] = &[Runner { name: "command line", subject: command_line }];

fn command_line(place: &Place, dialect: Dialect) -> Result<Box<dyn Subject>> {
    Ok(Box::new(line::CommandLine::new(Store::new(place.join("s"), dialect))))
}

impl Runner {
    fn try_row(&self, place: &Place, dialect: Dialect, row: &Row) -> Result<()> {
        attempt(row, (self.subject)(place, dialect)?.as_ref(), true).map_err(Error::msg)
    }
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for row in layerbox_catalogue::all() {
        for runner in RUNNERS {
            for dialect in Dialect::ALL {
                let row = row.clone();
                let name =
                    format!("hostile ({}, {}), {}: {}", runner.name, dialect.name(), row.name(), row.title);
                cases.push(case(name, move |place| runner.try_row(place, dialect, &row)));
            }
        }
    }
    cases.extend(streams::cases());
    cases.extend(guests::cases());
    cases.extend(limits::cases());
    cases.extend(races::cases());
    cases
}
