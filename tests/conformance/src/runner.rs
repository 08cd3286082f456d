//! Goes through the cases, and tells of each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::cases::{self, Case, Context, Scope, Stop};
use crate::subject::{Dialect, Subject};

/// What is run, and how much of it.
#[derive(Debug, Clone)]
pub struct Options {
    /// Only cases whose name holds one of these; all where there are none.
    pub only: Vec<String>,
    /// No cases whose name holds one of these.
    pub except: Vec<String>,
    /// How many sequences the model is held against.
    pub sequences: u64,
    /// The seed of the first; those after it count up.
    pub seed: u64,
    /// Whether a component is also held to what the contract leaves open, as the one that layerbox carries
    /// decides it.
    pub strict: bool,
    /// Set by somebody else: no further case is begun, and long ones end.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            only: Vec::new(),
            except: Vec::new(),
            sequences: 200,
            seed: 1,
            strict: false,
            stop: Arc::default(),
        }
    }
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let holds = |words: &[String]| words.iter().any(|word| name.contains(word.as_str()));
        (self.only.is_empty() || holds(&self.only)) && !holds(&self.except)
    }
}

/// How a case ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The component does what it must.
    Ok,
    /// It does not; and what it does instead.
    Failed(String),
    /// It cannot be told on this machine; and why.
    Skipped(String),
}

/// A case that ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// The case, with the dialect behind an `@` where it is run for each.
    pub name: String,
    /// What it is about.
    pub about: &'static str,
    /// Whether it looks at many rules at once ([`Case::broad`]).
    pub broad: bool,
    /// How it ended.
    pub verdict: Verdict,
    /// What else there is to say, such as the seeds.
    pub notes: Vec<String>,
    /// How long it took.
    pub time: Duration,
}

/// How all of them ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many were as they must be.
    pub passed: usize,
    /// How many were not.
    pub failed: usize,
    /// How many could not be told.
    pub skipped: usize,
}

/// A case, for one dialect or for both.
fn runs(options: &Options) -> Vec<(String, Case, Option<Dialect>)> {
    let mut runs = Vec::new();
    for case in cases::all() {
        let dialects: &[Option<Dialect>] = match case.scope {
            Scope::Each | Scope::Mounted => &[Some(Dialect::Overlay), Some(Dialect::Aufs)],
            Scope::MountedOverlay => &[Some(Dialect::Overlay)],
            Scope::Across => &[None],
        };
        for &dialect in dialects {
            let name = match dialect {
                Some(dialect) => format!("{}@{}", case.name, dialect.name()),
                None => case.name.clone(),
            };
            if options.wants(&name) {
                runs.push((name, case.clone(), dialect));
            }
        }
    }
    runs
}

/// The cases that [`run`] would run, by the names that it would report.
pub fn names(options: &Options) -> Vec<(String, Case)> {
    runs(options).into_iter().map(|(name, case, _)| (name, case)).collect()
}

/// Runs cases one after another; `tell` hears of each as it ends, and says whether to go on.
pub fn run(subject: &dyn Subject, options: &Options, mut tell: impl FnMut(&Report) -> bool) -> Summary {
    let mut summary = Summary::default();
    for (name, case, dialect) in runs(options) {
        if options.stop.load(Ordering::Relaxed) {
            break;
        }
        let context = Context::new(subject, dialect.unwrap_or(Dialect::Overlay), options);
        let begin = Instant::now();
        let verdict = verdict(&case, &context);
        match verdict {
            Verdict::Ok => summary.passed += 1,
            Verdict::Failed(_) => summary.failed += 1,
            Verdict::Skipped(_) => summary.skipped += 1,
        }
        let report = Report {
            name,
            about: case.about,
            broad: case.broad,
            verdict,
            notes: context.into_notes(),
            time: begin.elapsed(),
        };
        if !tell(&report) {
            break;
        }
    }
    summary
}

fn verdict(case: &Case, context: &Context<'_>) -> Verdict {
    if matches!(case.scope, Scope::Mounted | Scope::MountedOverlay)
        && let Err(why) = context.can_mount()
    {
        return Verdict::Skipped(why);
    }
    // Stores are closed while the panic unwinds, so nothing stays mounted.
    match catch_unwind(AssertUnwindSafe(|| (case.run)(context))) {
        Ok(Ok(())) => Verdict::Ok,
        Ok(Err(Stop::Failed(why))) => Verdict::Failed(why),
        Ok(Err(Stop::Skipped(why))) => Verdict::Skipped(why),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("");
            Verdict::Failed(format!("the case panicked: {text}"))
        }
    }
}
