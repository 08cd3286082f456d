//! What came of all points, as tables.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::injector::Fault;

/// What came of the points of one operation with one fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    /// How many there were.
    pub points: usize,
    /// After how many a layer was missing, not whole, or seen that should not be, or the operation could not
    /// be repeated.
    pub lost: usize,
    /// After how many something was left behind.
    pub leaked: usize,
}

/// By operation, in the order of the suite, and fault.
static COUNTS: Mutex<BTreeMap<(usize, &'static str, Fault), Count>> = Mutex::new(BTreeMap::new());

/// Adds what came of one operation with one fault.
pub fn add(order: usize, operation: &'static str, fault: Fault, count: Count) {
    COUNTS.lock().unwrap_or_else(PoisonError::into_inner).insert((order, operation, fault), count);
}

/// Prints the tables, where any operation was run.
pub fn print() {
    let counts = COUNTS.lock().unwrap_or_else(PoisonError::into_inner);
    let faults: Vec<Fault> = [Fault::Kill].into_iter().chain(Fault::ERRORS).collect();
    for fault in faults {
        let rows: Vec<_> = counts.iter().filter(|((_, _, of), _)| *of == fault).collect();
        if rows.iter().all(|(_, count)| count.points == 0) {
            continue;
        }
        let title = match fault {
            Fault::Kill => "killed before a call".to_owned(),
            Fault::Error(name) => format!("a call fails with {name}"),
        };
        println!("\n{title:<44} {:>12} {:>6} {:>6}", "crash points", "lost", "leaked");
        let mut total = Count::default();
        for ((_, operation, _), count) in rows {
            println!("  {operation:<42} {:>12} {:>6} {:>6}", count.points, count.lost, count.leaked);
            total.points += count.points;
            total.lost += count.lost;
            total.leaked += count.leaked;
        }
        println!("  {:<42} {:>12} {:>6} {:>6}", "all", total.points, total.lost, total.leaked);
    }
    println!();
}
