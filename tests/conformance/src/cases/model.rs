//! Random layers, held against the model.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Instant;

use super::{Case, Context, Outcome, Scope, Stop, broad};
use crate::model::verify::Bench;
use crate::model::{Sequence, shrink};
use crate::subject::{Dialect, Subject};

/// How many sequences go through one pair of stores: after that they only take room.
const EACH: u64 = 100;

/// One in so many sequences is mounted: that costs as much as all else.
const MOUNTED: u64 = 10;

/// How often a smaller sequence is tried.
const TRIES: usize = 400;

pub(super) fn cases() -> Vec<Case> {
    vec![
        broad(
            Scope::Across,
            "model/apply-diff-changes-size",
            "random layers, in both dialects, from one to the other",
            archives,
        ),
        broad(Scope::Mounted, "model/merged-view", "random layers, mounted", merged_view),
    ]
}

type Check = dyn Fn(&mut Bench, &Sequence) -> Result<(), String> + Sync;

fn archives(context: &Context<'_>) -> Outcome {
    sequences(context, context.options.sequences, &|bench, sequence| bench.archives(sequence))
}

fn merged_view(context: &Context<'_>) -> Outcome {
    let dialect = context.dialect;
    let count = context.options.sequences.div_ceil(MOUNTED);
    sequences(context, count, &move |bench, sequence| bench.merged_view(sequence, dialect))
}

fn bench(subject: &dyn Subject) -> Result<Bench, String> {
    Ok(Bench {
        overlay: subject.quick_store(Dialect::Overlay)?,
        aufs: subject.quick_store(Dialect::Aufs)?,
        count: 0,
    })
}

/// Goes through sequences, on all processors, until one fails; of that one a smaller one is told.
fn sequences(context: &Context<'_>, count: u64, check: &Check) -> Outcome {
    let (subject, seed, stop) = (context.subject(), context.options.seed, &context.options.stop);
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<(Sequence, String)>> = Mutex::new(None);
    let worker = || -> Result<(), String> {
        let mut work = bench(subject)?;
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count || stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            if work.count >= EACH {
                work = bench(subject)?;
            }
            let sequence = Sequence::random(seed.wrapping_add(number));
            if let Err(why) = check(&mut work, &sequence) {
                next.store(count, Ordering::Relaxed);
                // A poisoned lock means that another thread panicked, which is told below.
                if let Ok(mut failed) = failed.lock() {
                    failed.get_or_insert((sequence, why));
                }
                return Ok(());
            }
        }
    };
    let begin = Instant::now();
    let threads = thread::available_parallelism().map_or(1, usize::from).min(8);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        let outcome = |worker: ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        };
        workers.into_iter().try_for_each(outcome)
    })?;
    if stop.load(Ordering::Relaxed) {
        return Err(Stop::Skipped("interrupted".into()));
    }
    let Some((sequence, why)) = failed.into_inner().map_err(|_| "a thread panicked".to_owned())? else {
        let rate = count as f64 / begin.elapsed().as_secs_f64();
        context.note(format!(
            "{count} sequences, seeds {seed} to {}, {rate:.0} a second",
            seed.wrapping_add(count) - 1
        ));
        return Ok(());
    };
    let seed = sequence.seed;
    let mut work = bench(subject)?;
    let (smallest, why) = shrink::shrink(sequence, why, TRIES, |candidate| check(&mut work, candidate).err());
    Err(Stop::Failed(format!("seed {seed}: {why}; the smallest sequence that does it: {smallest}")))
}
