//! How a unit test says that it, or a part of it, was not run. libtest shows nothing of a test that passes; a
//! skip that nobody sees would count as passed.
//!
//! Crates that do not depend on this one take the file in by its path.

use std::io::Write as _;

/// Whether what is missing on the machine makes a case fail: in continuous integration, which sets the
/// machine up.
pub fn strict() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
        && std::env::var("SETUP").map_or(true, |value| value != "no")
}

/// Says loudly what was not tested. `set_up` is whether setting the machine up brings what is missing; a
/// property of the kernel or of a file system it does not.
///
/// # Panics
///
/// Where it should have been set up.
pub fn skip(what: &str, set_up: bool) {
    assert!(!(set_up && strict()), "not tested: {what}");
    // Not by a macro, of which libtest keeps the output.
    drop(writeln!(std::io::stderr(), "\n*** SKIPPED, NOT PASSED: {what} ***"));
}
