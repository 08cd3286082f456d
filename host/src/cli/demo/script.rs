//! What the demo prints: numbered steps, commands, their output, and whether what was expected held.

use std::io::{self, Write as _};

use serde_json::{Value, json};

use super::super::context::Context;
use super::super::output::{OneLine, Paint};

/// The printed side of the demo. With `--json` each of its lines is an object; with `-q` only what does not
/// hold is printed.
///
/// A reader that has gone away does not end the demo: it has a directory to clear.
#[derive(Debug)]
pub(super) struct Script {
    json: bool,
    quiet: bool,
    paint: Paint,
    steps: u32,
    held: u32,
    failed: u32,
}

impl Script {
    pub(super) fn new(context: &Context) -> Script {
        Script {
            json: context.json,
            quiet: context.log.is_quiet(),
            paint: context.paint,
            steps: 0,
            held: 0,
            failed: 0,
        }
    }

    /// Begins a step.
    pub(super) fn step(&mut self, title: &str) {
        self.steps += 1;
        let number = self.steps;
        let text = format!("\n{}", self.paint.bold(&format!("{number:2}  {title}")));
        self.print(&text, || json!({"step": number, "title": title}));
    }

    /// Explains.
    pub(super) fn say(&mut self, text: &str) {
        let line = format!("    {}", self.paint.dim(&OneLine(text).to_string()));
        self.print(&line, || json!({"note": text}));
    }

    /// Shows a command before it runs.
    pub(super) fn command(&mut self, command: &str) {
        let line = format!("    {} {}", self.paint.cyan("$"), OneLine(command));
        self.print(&line, || json!({"command": command}));
    }

    /// Shows what it printed, the first lines of it.
    pub(super) fn output(&mut self, text: &str, most: usize) {
        let total = text.lines().count();
        // One line more costs no more than the line that says there is one.
        let shown = if total <= most + 1 { total } else { most };
        for line in text.lines().take(shown) {
            self.print(&format!("      {}", OneLine(line)), || json!({"output": line}));
        }
        if shown < total {
            self.say(&format!("  … and {} more lines", total - shown));
        }
    }

    /// Tells whether something held.
    pub(super) fn check(&mut self, what: &str, holds: bool) {
        match holds {
            true => self.held += 1,
            false => self.failed += 1,
        }
        let mark = if holds { self.paint.green("ok:") } else { self.paint.red("NOT SO:") };
        let line = format!("    {mark} {}", OneLine(what));
        let object = || json!({"check": what, "holds": holds});
        if holds { self.print(&line, object) } else { self.print_always(&line, object) }
    }

    /// Prints the end, and tells whether all held. `complete`: the demo came to its end.
    pub(super) fn end(&mut self, complete: bool) -> bool {
        let all = complete && self.failed == 0;
        let (held, failed) = (self.held, self.failed);
        let line = match (complete, failed) {
            (true, 0) => format!("\n{}", self.paint.green(&format!("All {held} checks held."))),
            (true, _) => format!(
                "\n{}",
                self.paint.red(&format!("{failed} of {} checks did not hold.", held + failed))
            ),
            (false, _) => format!("\n{}", self.paint.red("The demo did not come to its end.")),
        };
        self.print(&line, || json!({"complete": complete, "held": held, "failed": failed}));
        all
    }

    fn print(&self, text: &str, object: impl FnOnce() -> Value) {
        if !self.quiet {
            self.print_always(text, object);
        }
    }

    fn print_always(&self, text: &str, object: impl FnOnce() -> Value) {
        let mut out = io::stdout().lock();
        let _ = if self.json { writeln!(out, "{}", object()) } else { writeln!(out, "{text}") };
    }
}
