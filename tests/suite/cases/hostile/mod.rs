//! Archives from strangers, through the command line: the table of `layerbox_catalogue` in both dialects, and what is about the stream and not about what it says.

mod guests;
mod line;
mod streams;

use crate::harness::{Case, case};
use crate::store::{Dialect, Store};
use anyhow::Error;
use line::CommandLine;

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for row in layerbox_catalogue::all() {
        for dialect in Dialect::ALL {
            let row = row.clone();
            let name = format!("hostile ({}), {}: {}", dialect.name(), row.name(), row.title);
            cases.push(case(name, move |place| {
                let subject = CommandLine::new(Store::new(place.join("s"), dialect));
                layerbox_catalogue::attempt(&row, &subject, true).map_err(Error::msg)
            }));
        }
    }
    cases.extend(streams::cases());
    cases.extend(guests::cases());
    cases
}
