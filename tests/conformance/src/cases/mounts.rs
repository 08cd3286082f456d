//! Layers mounted and unmounted, and counted.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::{Case, Context, Outcome, Scope, Stop, case, empty, layer};
use crate::check::{equal, fails, holds};
use crate::subject::Store;
use crate::tar::{Entry, archive};

pub(super) fn cases() -> Vec<Case> {
    use Scope::{Each, Mounted};
    vec![
        case(Each, "lifecycle/get-of-base-is-its-content", "without a parent nothing is mounted", get_base),
        case(Each, "lifecycle/get-of-unknown-is-not-found", "not-found", get_unknown),
        case(Each, "lifecycle/put-of-unknown-is-not-found", "not-found", put_unknown),
        case(Each, "lifecycle/put-of-base-changes-nothing", "however often", put_base),
        case(Each, "lifecycle/put-of-what-was-never-got-changes-nothing", "a success", put_never_got),
        case(
            Mounted,
            "lifecycle/get-of-child-is-mounted",
            "the mount point, with the content of both",
            get_child,
        ),
        case(Mounted, "lifecycle/get-twice-put-twice", "the first get mounts, the last put unmounts", twice),
        case(
            Mounted,
            "lifecycle/put-too-many-is-not-counted",
            "the next get wants its own put, no more and no less",
            put_too_many,
        ),
        case(Mounted, "lifecycle/put-while-in-use-is-busy", "and the user still counts", put_in_use),
        case(
            Mounted,
            "lifecycle/failed-get-is-not-counted",
            "counted only after the mount succeeded",
            failed_get,
        ),
        case(Mounted, "lifecycle/remove-while-mounted-is-busy", "and changes nothing", remove_mounted),
        case(Mounted, "lifecycle/remove-by-force-unmounts", "and takes the count along", remove_by_force),
        case(
            Mounted,
            "lifecycle/remove-by-force-with-children-leaves-the-mount",
            "refused before anything is unmounted",
            force_with_children,
        ),
        case(Mounted, "lifecycle/cleanup-unmounts-all", "and sets the counts to 0", cleanup),
        case(
            Mounted,
            "lifecycle/mounts-and-counts-outlast-a-restart",
            "reopened, it is mounted, and a put unmounts it",
            reopen,
        ),
    ]
}

/// Whether something is mounted on a directory: it is on another device than the directory that it is in.
fn is_mounted(path: &Path) -> Result<bool, Stop> {
    let above = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(above)?.dev())
}

/// Fails where a layer is not mounted, or is and must not be.
fn mounted(store: &dyn Store, id: &str, when: &str, expected: bool) -> Outcome {
    Ok(equal(&format!("{id} is mounted {when}"), is_mounted(&store.mount_point(id))?, expected)?)
}

/// A base and layers on it.
fn stack(store: &dyn Store, children: &[&str]) -> Outcome {
    layer(store, "base", None, &[Entry::file("low", "base")])?;
    children.iter().try_for_each(|id| Ok(store.create(id, Some("base"))?))
}

fn get_base(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let content = empty(store.as_ref(), "base", None)?;
    for _ in 0..2 {
        equal("place", store.get("base", None)?, content.clone())?;
    }
    mounted(store.as_ref(), "base", "after get", false)?;
    fs::write(content.join("f"), "x")?;
    store.put("base")?;
    // It counts no users, so one put less does not hold it.
    Ok(store.remove("base", false)?)
}

fn get_unknown(context: &Context<'_>) -> Outcome {
    fails("get", context.quick()?.get("a", None), "not-found")?;
    Ok(())
}

fn put_unknown(context: &Context<'_>) -> Outcome {
    fails("put", context.quick()?.put("a"), "not-found")?;
    Ok(())
}

fn put_base(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "x")])?;
    for _ in 0..3 {
        store.put("base")?;
    }
    let place = store.get("base", None)?;
    equal("content", fs::read(place.join("f"))?, b"x".to_vec())?;
    Ok(())
}

fn put_never_got(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    store.put("child")?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after put", false)?;
    Ok(store.remove("child", false)?)
}

fn get_child(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &[])?;
    layer(store.as_ref(), "child", Some("base"), &[Entry::file("high", "child")])?;
    let place = store.get("child", None)?;
    equal("place", place.clone(), store.mount_point("child"))?;
    mounted(store.as_ref(), "child", "after get", true)?;
    equal("content of the parent", fs::read_to_string(place.join("low"))?.as_str(), "base")?;
    equal("content of its own", fs::read_to_string(place.join("high"))?.as_str(), "child")?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after put", false)
}

fn twice(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    let place = store.get("child", None)?;
    equal("second place", store.get("child", None)?, place)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after the first of two puts", true)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after the second put", false)
}

fn put_too_many(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    store.get("child", None)?;
    store.put("child")?;
    for _ in 0..2 {
        // That it succeeds is said by another case.
        drop(store.put("child"));
    }
    store.get("child", None)?;
    mounted(store.as_ref(), "child", "after get, put, put, put, get", true)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after one more put", false)
}

fn put_in_use(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    let place = store.get("child", None)?;
    let mut open = File::open(place.join("low"))?;
    fails("put", store.put("child"), "busy")?;
    mounted(store.as_ref(), "child", "after a put that failed", true)?;
    let mut text = String::new();
    open.read_to_string(&mut text)?;
    equal("what the user reads", text.as_str(), "base")?;
    drop(open);
    store.put("child")?;
    mounted(store.as_ref(), "child", "after put", false)
}

fn failed_get(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    // A layer that somebody took away: the union cannot be mounted.
    let (content, away) = (store.content_path("base"), store.root().join("away"));
    fs::rename(&content, &away)?;
    let failed = store.get("child", None);
    fs::rename(&away, &content)?;
    holds("get fails where a layer is missing", failed.is_err())?;
    mounted(store.as_ref(), "child", "after a get that failed", false)?;
    store.get("child", None)?;
    mounted(store.as_ref(), "child", "after get", true)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after its put", false)
}

fn remove_mounted(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    let place = store.get("child", None)?;
    fs::write(place.join("new"), "x")?;
    fails("remove", store.remove("child", false), "busy")?;
    mounted(store.as_ref(), "child", "after a refused remove", true)?;
    equal("content", fs::read(place.join("new"))?, b"x".to_vec())?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after put", false)?;
    Ok(store.remove("child", false)?)
}

fn remove_by_force(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    store.get("child", None)?;
    store.get("child", None)?;
    store.remove("child", true)?;
    equal("exists", store.exists("child")?, false)?;
    holds("the mount point is gone", fs::symlink_metadata(store.mount_point("child")).is_err())?;
    store.create("child", Some("base"))?;
    store.get("child", None)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after get and put of a new layer of that name", false)
}

fn force_with_children(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    store.create("grandchild", Some("child"))?;
    store.get("child", None)?;
    fails("remove by force", store.remove("child", true), "has-children")?;
    mounted(store.as_ref(), "child", "after a refused remove", true)?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after put", false)
}

fn cleanup(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let ids = ["a", "b", "c"];
    stack(store.as_ref(), &ids)?;
    for id in ids {
        store.get(id, None)?;
    }
    store.get("b", None)?;
    equal("how many were unmounted", store.cleanup()?, 3)?;
    for id in ids {
        mounted(store.as_ref(), id, "after cleanup", false)?;
    }
    equal("how many more were unmounted", store.cleanup()?, 0)?;
    store.get("b", None)?;
    mounted(store.as_ref(), "b", "after get", true)?;
    store.put("b")?;
    mounted(store.as_ref(), "b", "after put", false)?;
    Ok(store.remove("a", false)?)
}

fn reopen(context: &Context<'_>) -> Outcome {
    let mut store = context.store()?;
    stack(store.as_ref(), &["child"])?;
    store.get("child", None)?;
    store.reopen()?;
    mounted(store.as_ref(), "child", "after a restart", true)?;
    fails("apply", store.apply("child", None, &archive(&[])), "conflict")?;
    store.put("child")?;
    mounted(store.as_ref(), "child", "after its put", false)
}
