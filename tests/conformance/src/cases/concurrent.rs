//! Many calls at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};

use super::{Case, Context, Outcome, Scope, broad, case, layer};
use crate::check::equal;
use crate::subject::{Dialect, Store};
use crate::tar::{Entry, archive};

/// How many layers are worked on.
const IDS: usize = 256;

/// How many threads do it; more only wait for processors.
const THREADS: usize = 32;

pub(super) fn cases() -> Vec<Case> {
    vec![
        broad(
            Scope::Each,
            "lifecycle/256-layers-at-once",
            "made, filled, read and removed by many threads",
            many,
        ),
        case(
            Scope::Each,
            "lifecycle/list-while-layers-come-and-go",
            "what is removed meanwhile is left out, and is no error",
            list_meanwhile,
        ),
        broad(
            Scope::Mounted,
            "lifecycle/256-mounts-at-once",
            "mounted, counted and unmounted by many threads",
            many_mounts,
        ),
        broad(
            Scope::Mounted,
            "lifecycle/one-layer-got-at-once",
            "many users of one layer: one mount, and none after the last",
            one_layer,
        ),
    ]
}

/// Calls `work` for all numbers, from many threads; the first failure ends it.
fn at_once(count: usize, work: impl Fn(usize) -> Result<(), String> + Sync) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            if let Err(why) = work(number) {
                next.store(count, Ordering::Relaxed);
                return Err(format!("number {number}: {why}"));
            }
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        let outcome = |worker: ScopedJoinHandle<'_, _>| {
            worker.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        };
        workers.into_iter().try_for_each(outcome)
    })
}

fn many(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "base")])?;
    let store: &dyn Store = store.as_ref();
    at_once(IDS, |number| {
        let id = format!("layer{number}");
        // Never as long as that of the base.
        let size = 10 + number;
        let content = vec![b'x'; size];
        store.create(&id, Some("base"))?;
        store.apply(&id, None, &archive(&[Entry::file("f", &content)]))?;
        equal("bytes", store.diff_size(&id, None)?.bytes, size as u64)?;
        equal("changes", store.changes(&id, None)?.len(), 1)?;
        let entries = crate::tar::read(&store.diff(&id, None)?.archive)?;
        equal("content", entries.first().map(|entry| entry.body.as_slice()), Some(&content[..]))?;
        if number % 2 == 0 { Ok(store.remove(&id, false)?) } else { Ok(()) }
    })?;
    equal("layers", store.list()?.len(), 1 + IDS / 2)?;
    Ok(())
}

fn list_meanwhile(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("stays", None)?;
    let store: &dyn Store = store.as_ref();
    at_once(400, |number| {
        let id = format!("layer{number}");
        store.create(&id, None)?;
        equal("layers that stay", store.list()?.iter().filter(|layer| layer.id == "stays").count(), 1)?;
        drop(store.status()?);
        Ok(store.remove(&id, false)?)
    })?;
    equal("layers", store.list()?.len(), 1)?;
    Ok(())
}

fn many_mounts(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "base")])?;
    let store: &dyn Store = store.as_ref();
    at_once(IDS, |number| {
        let id = format!("layer{number}");
        store.create(&id, Some("base"))?;
        for _ in 0..2 {
            let place = store.get(&id, None)?;
            let read = |name: &str| {
                std::fs::read_to_string(place.join(name)).map_err(|why| format!("{name}: {why}"))
            };
            equal("what all see", read("f")?.as_str(), "base")?;
            std::fs::write(place.join("own"), &id).map_err(|why| format!("writing: {why}"))?;
            equal("what it sees", read("own")?, id.clone())?;
        }
        store.put(&id)?;
        store.put(&id)?;
        Ok(store.remove(&id, false)?)
    })?;
    equal("layers", store.list()?.len(), 1)?;
    equal("mounts", store.cleanup()?, 0)?;
    Ok(())
}

fn one_layer(context: &Context<'_>) -> Outcome {
    // aufs takes a lock of the whole kernel for a mount; fewer rounds say as much there.
    let rounds = if context.dialect == Dialect::Aufs { 64 } else { 256 };
    let store = context.quick()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "base")])?;
    store.create("child", Some("base"))?;
    let store: &dyn Store = store.as_ref();
    at_once(rounds, |_| {
        let place = store.get("child", None)?;
        let found =
            std::fs::read_to_string(place.join("f")).map_err(|why| format!("reading in the union: {why}"))?;
        equal("content", found.as_str(), "base")?;
        Ok(store.put("child")?)
    })?;
    equal("mounts that are left", store.cleanup()?, 0)?;
    Ok(store.remove("child", false)?)
}
