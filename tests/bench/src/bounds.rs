//! What layerbox is held to, and whether it is so.

use serde_json::{Value, json};

use crate::programs::{Who, Work};
use crate::rounds::Figure;

/// A quantity of layerbox.
#[derive(Debug, Clone, Copy)]
enum What {
    /// Time by the clock as a multiple of another's.
    Wall(Who),
    /// Time of processors as a multiple of another's.
    Cpu(Who),
    /// System calls for an entry.
    Calls,
}

/// One bound: the work, the input, the quantity, the most that it may be.
const BOUNDS: [(Work, &str, What, f64); 18] = [
    (Work::Apply, "base", What::Wall(Who::GnuTar), 0.75),
    (Work::Apply, "many", What::Wall(Who::GnuTar), 0.85),
    (Work::Apply, "links", What::Wall(Who::GnuTar), 0.65),
    (Work::ApplySynced, "base", What::Wall(Who::GnuTar), 0.8),
    (Work::ApplySynced, "many", What::Wall(Who::GnuTar), 0.9),
    (Work::ApplySynced, "links", What::Wall(Who::GnuTar), 0.75),
    (Work::Apply, "base", What::Cpu(Who::Floor), 1.2),
    (Work::Apply, "many", What::Cpu(Who::Floor), 1.4),
    (Work::Apply, "base", What::Calls, 5.0),
    (Work::Apply, "many", What::Calls, 5.5),
    (Work::Apply, "links", What::Calls, 3.0),
    (Work::Apply, "big", What::Wall(Who::GnuTar), 0.6),
    (Work::Diff, "base", What::Wall(Who::GnuTar), 0.9),
    (Work::Diff, "many", What::Wall(Who::GnuTar), 0.85),
    (Work::Changes, "many", What::Wall(Who::Floor), 1.5),
    // The price of the sandbox is not bounded by anybody; these keep it in sight.
    (Work::Apply, "base", What::Cpu(Who::Native), 1.25),
    (Work::Apply, "many", What::Cpu(Who::Native), 1.25),
    (Work::Diff, "many", What::Cpu(Who::Native), 1.25),
];

/// The most memory of any of these, in bytes.
const PEAK: u64 = 64 << 20;

/// A bound, and what was measured.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) what: String,
    pub(crate) measured: f64,
    pub(crate) at_most: f64,
}

impl Verdict {
    pub(crate) fn new(what: &str, measured: f64, at_most: f64) -> Verdict {
        Verdict { what: what.to_owned(), measured, at_most }
    }

    pub(crate) fn holds(&self) -> bool {
        self.measured <= self.at_most
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "what": self.what, "measured": self.measured, "at_most": self.at_most, "ok": self.holds() })
    }
}

/// The bounds that these figures are about.
pub(crate) fn verdicts(figures: &[Figure]) -> Vec<Verdict> {
    let find =
        |work, input, who| figures.iter().find(|it| it.work == work && it.input == input && it.who == who);
    let mut verdicts = Vec::new();
    for (work, input, what, at_most) in BOUNDS {
        let Some(ours) = find(work, input, Who::Layerbox) else { continue };
        let name = format!("{} {input}", work.name());
        let (what, measured) = match what {
            What::Calls => (format!("{name}, system calls per entry"), ours.calls),
            What::Wall(who) => (
                format!("{name}, wall, against {}", who.name().trim()),
                find(work, input, who).map(|theirs| ours.sample.wall / theirs.sample.wall),
            ),
            What::Cpu(who) => (
                format!("{name}, CPU, against {}", who.name().trim()),
                find(work, input, who).map(|theirs| ours.sample.cpu / theirs.sample.cpu),
            ),
        };
        verdicts.extend(measured.map(|measured| Verdict { what, measured, at_most }));
    }
    let peak = figures.iter().filter(|it| it.who == Who::Layerbox).map(|it| it.sample.peak).max();
    if let Some(peak) = peak {
        verdicts.push(Verdict { what: "peak memory, MiB".into(), measured: mib(peak), at_most: mib(PEAK) });
    }
    verdicts
}

/// Bytes as MiB.
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
