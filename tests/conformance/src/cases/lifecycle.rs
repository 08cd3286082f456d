//! Layers made, removed and listed.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use super::{Case, Context, Outcome, Scope, case, empty, layer};
use crate::check::{equal, fails, holds};
use crate::subject::Store;
use crate::tar::Entry;

pub(super) fn cases() -> Vec<Case> {
    use Scope::Each;
    vec![
        case(
            Each,
            "lifecycle/create-makes-directories",
            "content and mount point: empty, 0755, 0:0",
            makes_directories,
        ),
        case(
            Each,
            "lifecycle/create-writes-ancestors-nearest-first",
            "layers/ID in Docker's form",
            writes_ancestors,
        ),
        case(
            Each,
            "lifecycle/create-on-unknown-parent-leaves-nothing",
            "an error, and no trace",
            unknown_parent,
        ),
        case(Each, "lifecycle/create-of-what-exists-changes-nothing", "exists", create_twice),
        case(Each, "lifecycle/create-refuses-what-is-no-id", "invalid-id", bad_ids),
        case(Each, "lifecycle/create-takes-every-id", "all that the grammar allows", good_ids),
        case(Each, "lifecycle/create-ends-at-the-depth-limit", "too-deep, and no trace", too_deep),
        case(Each, "lifecycle/remove-leaves-nothing", "the id is as good as new", remove_leaves_nothing),
        case(Each, "lifecycle/remove-of-unknown-is-not-found", "not-found", remove_unknown),
        case(
            Each,
            "lifecycle/remove-with-children-is-refused",
            "has-children, with force as well",
            remove_with_children,
        ),
        case(
            Each,
            "lifecycle/remove-leaves-others-alone",
            "parent, sibling, and names that begin alike",
            remove_leaves_others,
        ),
        case(Each, "lifecycle/exists", "what is there, was there and never was", exists),
        case(Each, "lifecycle/list-is-whole-and-sorted", "all layers by id, each with its parent", list),
        case(Each, "lifecycle/metadata-tells-all-ancestors", "nearest first, however deep", metadata),
        case(
            Each,
            "lifecycle/status-tells-docker-what-it-asks",
            "Docker's rows, and how many layers",
            status,
        ),
        case(Each, "lifecycle/layers-outlast-a-restart", "reopened, all is as it was", reopen),
        case(
            Each,
            "lifecycle/stale-removing-directories-are-no-layers",
            "what Docker's driver leaves behind",
            stale_removing,
        ),
    ]
}

fn makes_directories(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let content = empty(store.as_ref(), "base", None)?;
    for path in [content, store.mount_point("base")] {
        let found = fs::symlink_metadata(&path)?;
        let name = path.display();
        holds(&format!("{name} is a directory"), found.is_dir())?;
        equal(&format!("mode of {name}"), found.mode() & 0o7777, 0o755)?;
        equal(&format!("owners of {name}"), (found.uid(), found.gid()), (0, 0))?;
        equal(&format!("entries of {name}"), fs::read_dir(&path)?.count(), 0)?;
    }
    Ok(())
}

fn writes_ancestors(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    for (id, parent, text) in [("a", None, ""), ("b", Some("a"), "a\n"), ("c", Some("b"), "b\na\n")] {
        store.create(id, parent)?;
        let found = fs::read_to_string(store.root().join("layers").join(id))?;
        equal(&format!("layers/{id}"), found.as_str(), text)?;
    }
    Ok(())
}

/// Fails where anything of a layer is there.
fn is_gone(store: &dyn Store, id: &str) -> Outcome {
    equal(&format!("exists {id}"), store.exists(id)?, false)?;
    holds(&format!("{id} is not listed"), store.list()?.iter().all(|layer| layer.id != id))?;
    fails(&format!("metadata of {id}"), store.metadata(id), "not-found")?;
    for path in [store.content_path(id), store.mount_point(id), store.root().join("layers").join(id)] {
        holds(&format!("{} is not there", path.display()), fs::symlink_metadata(&path).is_err())?;
    }
    Ok(())
}

fn unknown_parent(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    fails("create", store.create("child", Some("nobody")), "no-such-parent")?;
    is_gone(store.as_ref(), "child")?;
    is_gone(store.as_ref(), "nobody")?;
    store.create("nobody", None)?;
    Ok(store.create("child", Some("nobody"))?)
}

fn create_twice(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    store.create("other", None)?;
    layer(store.as_ref(), "a", None, &[Entry::file("f", "x")])?;
    fails("create again", store.create("a", None), "exists")?;
    fails("create again on a parent", store.create("a", Some("other")), "exists")?;
    equal("content", fs::read(store.content_path("a").join("f"))?, b"x".to_vec())?;
    equal("ancestors", store.metadata("a")?.ancestors, vec![])?;
    Ok(())
}

fn bad_ids(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let long = "a".repeat(129);
    let bad = [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a:b=rw",
        "a,upperdir=x",
        "a\nb",
        "-a",
        "_a",
        ".a",
        "a b",
        "\u{e4}",
        "x-removing",
        &long,
    ];
    for id in bad {
        fails(&format!("create {id:?}"), store.create(id, None), "invalid-id")?;
        fails(&format!("create on {id:?}"), store.create("good", Some(id)), "invalid-id")?;
        fails(&format!("exists {id:?}"), store.exists(id), "invalid-id")?;
    }
    equal("list", store.list()?, vec![])?;
    Ok(())
}

fn good_ids(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let long = "z".repeat(128);
    let hex = "0123456789abcdef".repeat(4);
    let init = format!("{hex}-init");
    let mut ids = [
        "a",
        "0",
        "A",
        "a.b",
        "a-",
        "a_",
        "a..b",
        "removing",
        "x-removing-",
        hex.as_str(),
        init.as_str(),
        long.as_str(),
    ];
    for id in ids {
        store.create(id, None)?;
        equal(&format!("exists {id}"), store.exists(id)?, true)?;
    }
    let mut listed: Vec<String> = store.list()?.into_iter().map(|layer| layer.id).collect();
    ids.sort_unstable();
    listed.sort_unstable();
    equal("list", listed.iter().map(String::as_str).collect::<Vec<_>>(), ids.to_vec())?;
    Ok(())
}

fn too_deep(context: &Context<'_>) -> Outcome {
    // More than any union takes; where a store takes even more, there is nothing to be seen.
    const DEEP: usize = 600;
    let store = context.quick()?;
    store.create("d0", None)?;
    for depth in 1..DEEP {
        let (id, parent) = (format!("d{depth}"), format!("d{}", depth - 1));
        match store.create(&id, Some(&parent)) {
            Ok(()) => {}
            failed => {
                fails(&format!("create with {depth} ancestors"), failed, "too-deep")?;
                holds("a hundred ancestors are not too deep", depth > 100)?;
                return is_gone(store.as_ref(), &id);
            }
        }
    }
    Ok(())
}

fn remove_leaves_nothing(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    store.create("base", None)?;
    layer(store.as_ref(), "a", Some("base"), &[Entry::file("d/f", "x")])?;
    store.remove("a", false)?;
    is_gone(store.as_ref(), "a")?;
    let content = empty(store.as_ref(), "a", None)?;
    equal("entries of the new layer", fs::read_dir(content)?.count(), 0)?;
    equal("ancestors of the new layer", store.metadata("a")?.ancestors, vec![])?;
    store.remove("a", true)?;
    is_gone(store.as_ref(), "a")
}

fn remove_unknown(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    fails("remove", store.remove("a", false), "not-found")?;
    fails("remove by force", store.remove("a", true), "not-found")?;
    store.create("a", None)?;
    store.remove("a", false)?;
    fails("remove again", store.remove("a", false), "not-found")?;
    Ok(())
}

fn remove_with_children(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    layer(store.as_ref(), "base", None, &[Entry::file("f", "x")])?;
    store.create("child", Some("base"))?;
    store.create("grandchild", Some("child"))?;
    for force in [false, true] {
        for id in ["base", "child"] {
            fails(&format!("remove {id}, force {force}"), store.remove(id, force), "has-children")?;
            equal(&format!("exists {id}"), store.exists(id)?, true)?;
        }
        equal("content", fs::read(store.content_path("base").join("f"))?, b"x".to_vec())?;
    }
    for id in ["grandchild", "child", "base"] {
        store.remove(id, false)?;
    }
    Ok(())
}

fn remove_leaves_others(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    layer(store.as_ref(), "a", None, &[Entry::file("f", "a")])?;
    for id in ["a-init", "ab", "b"] {
        layer(store.as_ref(), id, Some("a"), &[Entry::file("f", id)])?;
    }
    store.remove("b", false)?;
    for id in ["a", "a-init", "ab"] {
        equal(&format!("exists {id}"), store.exists(id)?, true)?;
        equal(
            &format!("content of {id}"),
            fs::read_to_string(store.content_path(id).join("f"))?.as_str(),
            id,
        )?;
    }
    equal("ancestors of ab", store.metadata("ab")?.ancestors, vec!["a".to_owned()])?;
    Ok(())
}

fn exists(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    store.create("a", None)?;
    store.create("b", Some("a"))?;
    store.create("gone", None)?;
    store.remove("gone", false)?;
    for (id, expected) in [("a", true), ("b", true), ("gone", false), ("never", false), ("a-init", false)] {
        equal(&format!("exists {id}"), store.exists(id)?, expected)?;
    }
    Ok(())
}

fn list(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    equal("list of nothing", store.list()?.len(), 0)?;
    for (id, parent) in [
        ("m", None),
        ("z", Some("m")),
        ("B", None),
        ("a", Some("z")),
        ("a.b", Some("m")),
        ("10", None),
        ("9", None),
    ] {
        store.create(id, parent)?;
    }
    let found: Vec<(String, Option<String>)> =
        store.list()?.into_iter().map(|layer| (layer.id, layer.ancestors.into_iter().next())).collect();
    let expected = [
        ("10", None),
        ("9", None),
        ("B", None),
        ("a", Some("z")),
        ("a.b", Some("m")),
        ("m", None),
        ("z", Some("m")),
    ];
    let expected: Vec<_> =
        expected.iter().map(|(id, parent)| ((*id).to_owned(), parent.map(str::to_owned))).collect();
    equal("list", found, expected)?;
    Ok(())
}

fn metadata(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let ids = ["a", "b", "c", "d", "e"];
    for (depth, id) in ids.iter().enumerate() {
        store.create(id, depth.checked_sub(1).and_then(|parent| ids.get(parent)).copied())?;
        let found = store.metadata(id)?;
        let expected: Vec<String> = ids[..depth].iter().rev().map(|&id| id.to_owned()).collect();
        equal("id", found.id.as_str(), id)?;
        equal(&format!("ancestors of {id}"), found.ancestors, expected)?;
    }
    fails("metadata", store.metadata("f"), "not-found")?;
    Ok(())
}

fn status(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    for (id, parent) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
        store.create(id, parent)?;
    }
    let rows = store.status()?;
    let value = |key: &str| rows.iter().find(|row| row.0 == key).map(|row| row.1.as_str());
    equal("Root Dir", value("Root Dir"), store.root().to_str())?;
    equal("Dirs", value("Dirs"), Some("3"))?;
    for key in ["Backing Filesystem", "Dirperm1 Supported"] {
        holds(&format!("there is a row {key}"), value(key).is_some_and(|value| !value.is_empty()))?;
    }
    Ok(())
}

fn reopen(context: &Context<'_>) -> Outcome {
    let mut store = context.store()?;
    layer(store.as_ref(), "a", None, &[Entry::file("f", "x")])?;
    layer(store.as_ref(), "b", Some("a"), &[Entry::file("g", "y")])?;
    let before = (store.list()?, store.metadata("b")?, store.diff("b", None)?, store.changes("b", None)?);
    store.reopen()?;
    let after = (store.list()?, store.metadata("b")?, store.diff("b", None)?, store.changes("b", None)?);
    equal("answers after a restart", after, before)?;
    store.create("c", Some("b"))?;
    equal("ancestors", store.metadata("c")?.ancestors, vec!["b".to_owned(), "a".to_owned()])?;
    Ok(())
}

fn stale_removing(context: &Context<'_>) -> Outcome {
    let mut store = context.store()?;
    store.create("a", None)?;
    for kind in ["diff", "mnt"] {
        fs::create_dir_all(store.root().join(kind).join("b-removing"))?;
    }
    fs::write(store.root().join("layers/b-removing"), "a\n")?;
    store.reopen()?;
    equal("layers", store.list()?.iter().map(|layer| layer.id.as_str()).collect::<Vec<_>>(), vec!["a"])?;
    store.create("b", Some("a"))?;
    store.remove("b", false)?;
    // It lies on nothing that counts.
    store.remove("a", false)?;
    Ok(())
}
