//! Cases, and how they are run: those that may, side by side; those that measure, alone. A case passes, fails
//! with a reason, or is skipped with a reason, which is said loudly: in continuous integration what is
//! missing on the machine is a failure.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Error, Result, ensure};

use crate::command::binary;
use crate::scratch::{Ground, Place};
pub use crate::skip::strict;

/// What a case cannot do without.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// To be root: owners, devices, mounts.
    Root,
    /// A program on the path.
    Tool(&'static str),
    /// A file system of the kernel. One that the kernel has not is never a failure.
    Filesystem(&'static str),
}

type Body = Box<dyn Fn(&Place) -> Result<()> + Send + Sync>;

/// One behaviour.
pub struct Case {
    /// The behaviour, in words; the group comes first: `errors: …`.
    pub name: String,
    needs: Vec<Need>,
    turn: Turn,
    body: Body,
}

/// When a case is run, and beside what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Side by side with others, as many as keep the processors busy.
    Shared,
    /// From the beginning, beside those.
    Early,
    /// After all others, by itself.
    Alone,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// A case that needs root, as most do: what a layer holds (owners, devices, `trusted.*`) only root can make.
pub fn case(name: impl Into<String>, body: impl Fn(&Place) -> Result<()> + Send + Sync + 'static) -> Case {
    Case { name: name.into(), needs: vec![Need::Root], turn: Turn::Shared, body: Box::new(body) }
}

impl Case {
    /// With one more need.
    #[must_use]
    pub fn needs(mut self, need: Need) -> Case {
        self.needs.push(need);
        self
    }

    /// To be run by itself: it measures, fills memory or disk, or binds the whole tree, which keeps the
    /// mounts of other cases in use.
    #[must_use]
    pub fn alone(mut self) -> Case {
        self.turn = Turn::Alone;
        self
    }

    /// To be begun with the first: it takes long, and for most of the time sleeps.
    #[must_use]
    pub fn early(mut self) -> Case {
        self.turn = Turn::Early;
        self
    }
}

/// A whole suite: runs the cases whose names hold one of the words among the arguments, or all, and ends with
/// the line `NAME: N passed, N failed, N skipped`. With `--list` among the arguments it only prints the
/// names. `prepare` is called before the first case, in the mount namespace of the cases.
///
/// That no case has such a name is no failure: another suite may have one, and who runs them all counts.
pub fn suite(
    name: &str,
    cases: impl Fn() -> Vec<Case>,
    arguments: &[String],
    prepare: impl FnOnce(&Ground) -> Result<()>,
) -> ExitCode {
    suite_with_table(name, cases, arguments, prepare, || ())
}

/// As [`suite`], with something more to be printed before the last line.
pub fn suite_with_table(
    name: &str,
    cases: impl Fn() -> Vec<Case>,
    arguments: &[String],
    prepare: impl FnOnce(&Ground) -> Result<()>,
    table: impl FnOnce(),
) -> ExitCode {
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let mut cases = cases();
    cases.retain(|case| words.is_empty() || words.iter().any(|word| case.name.contains(word.as_str())));
    if arguments.iter().any(|argument| argument == "--list") {
        for case in &cases {
            println!("{}", case.name);
        }
        return ExitCode::SUCCESS;
    }
    match run_on_ground(&cases, prepare) {
        Ok(totals) => {
            table();
            println!(
                "{name}: {} passed, {} failed, {} skipped",
                totals.passed, totals.failed, totals.skipped
            );
            if totals.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_on_ground(cases: &[Case], prepare: impl FnOnce(&Ground) -> Result<()>) -> Result<Totals> {
    if cases.is_empty() {
        return Ok(Totals::default());
    }
    let binary = binary();
    ensure!(binary.exists(), "{} is not there: run make, or set LAYERBOX_BIN", binary.display());
    let ground = Ground::new()?;
    prepare(&ground)?;
    Ok(run(cases, ground.place()))
}

/// What came of the cases.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// How many did what they should.
    pub passed: usize,
    /// How many did not.
    pub failed: usize,
    /// How many could not be tried.
    pub skipped: usize,
}

/// A reason for a case to end as skipped, found only while it runs.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

/// Whether cases that need root can be run.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether the kernel has a file system.
pub fn has_filesystem(name: &str) -> bool {
    std::fs::read_to_string("/proc/filesystems")
        .is_ok_and(|text| text.lines().any(|line| line.split_whitespace().last() == Some(name)))
}

/// Whether a program can be found.
pub fn has_tool(name: &str) -> bool {
    Command::new("sh")
        .args(["-c", "command -v \"$0\" >/dev/null", name])
        .status()
        .is_ok_and(|status| status.success())
}

/// Runs the cases, prints a line for each, and counts.
pub fn run(cases: &[Case], place: &Place) -> Totals {
    let totals = Mutex::new(Totals::default());
    let failures = Mutex::new(Vec::new());
    let one = |case: &Case| {
        let started = Instant::now();
        let result = attempt(case, place);
        let time = started.elapsed().as_secs_f64();
        let mut totals = lock(&totals);
        match result {
            Ok(()) => {
                totals.passed += 1;
                println!("ok       {} ({time:.1} s)", case.name);
            }
            Err(error) if error.is::<Skip>() => {
                totals.skipped += 1;
                println!("SKIPPED  {}: {error}", case.name);
            }
            Err(error) => {
                totals.failed += 1;
                println!("FAILED   {} ({time:.1} s)\n{}", case.name, indent(&format!("{error:#}")));
                lock(&failures).push(case.name.clone());
            }
        }
    };
    let one = &one;
    let of = |turn| cases.iter().filter(|case| case.turn == turn).collect::<Vec<&Case>>();
    let (shared, early) = (of(Turn::Shared), of(Turn::Early));
    let nexts = [AtomicUsize::new(0), AtomicUsize::new(0)];
    // One more than there are processors: a case waits for the disk or for an engine a quarter of its time.
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(4)) + 1;
    std::thread::scope(|scope| {
        for (cases, next) in [&early, &shared].into_iter().zip(&nexts) {
            for _ in 0..workers {
                scope.spawn(move || {
                    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                        one(case);
                    }
                });
            }
        }
    });
    for case in of(Turn::Alone) {
        one(case);
    }
    for name in lock(&failures).iter() {
        println!("failed: {name}");
    }
    *lock(&totals)
}

/// A poisoned lock only means that another case panicked, which is counted as its failure.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn attempt(case: &Case, place: &Place) -> Result<()> {
    for need in &case.needs {
        let (met, what, kernel) = match *need {
            Need::Root => (nix::unistd::geteuid().is_root(), "it needs root".to_owned(), false),
            Need::Tool(name) => (has_tool(name), format!("it needs the program {name}"), false),
            Need::Filesystem(name) => (has_filesystem(name), format!("this kernel has no {name}"), true),
        };
        if !met {
            return Err(if strict() && !kernel { Error::msg(what) } else { Skip(what).into() });
        }
    }
    let inner = place.directory_for(&case.name)?;
    catch_unwind(AssertUnwindSafe(|| (case.body)(&inner))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("a panic");
        Err(Error::msg(format!("panic: {text}")))
    })
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("         {line}\n")).collect::<String>().trim_end().to_owned()
}
