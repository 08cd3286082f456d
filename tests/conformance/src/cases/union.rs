//! What mounted layers show, and what writing to them leaves behind.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use super::{Case, Context, Outcome, Scope, Stop, broad, case, changes_are, entry_names, layer};
use crate::check::{equal, holds, same_lines};
use crate::model::{Layer, Tree};
use crate::subject::Store;
use crate::tar::{Entry, Kind, archive};
use crate::view;

pub(super) fn cases() -> Vec<Case> {
    use Scope::{Mounted, MountedOverlay};
    vec![
        broad(
            Mounted,
            "union/shows-base-with-odd-modes",
            "kinds, modes, owners, times and attributes as they are",
            odd_base,
        ),
        case(Mounted, "union/whiteout-hides", "a file, a directory, what is in one", whiteout_hides),
        case(
            Mounted,
            "union/whiteout-below-the-parent-hides",
            "of layers in the middle, too",
            whiteout_in_the_middle,
        ),
        case(Mounted, "union/replaced-directory-stays-opaque", "through a third layer", replaced_directory),
        case(Mounted, "union/opaque-root-hides-all-below", "of any layer", opaque_root),
        case(Mounted, "union/writes-stay-in-the-upper-layer", "parents are as they were", writes_stay),
        broad(Mounted, "union/written-and-archived", "what was done in the union is in the archive", written),
        broad(
            Mounted,
            "union/written-and-moved-to-the-other-dialect",
            "the archive of it says it all",
            moved_to_other,
        ),
        case(Mounted, "union/chown-and-chmod-stick", "of what a lower layer has", chown_and_chmod),
        broad(Mounted, "union/same-size-in-the-same-second", "is a change", same_second),
        broad(Mounted, "union/moved-by-hard-link", "linked, and the old name removed", moved_by_link),
        broad(Mounted, "union/sockets-are-skipped", "as in any layer, and hide what may lie below", sockets),
        case(
            MountedOverlay,
            "union/inode-of-a-directory-is-stable",
            "while things are made in it",
            directory_inode,
        ),
        broad(Mounted, "union/deleted-and-made-again", "what was hidden does not come back", made_again),
        case(Mounted, "union/size-after-writing", "it is counted anew", size_after_writing),
    ]
}

/// Mounts a layer for as long as `work` takes.
fn inside<T>(store: &dyn Store, id: &str, work: impl FnOnce(&Path) -> Result<T, Stop>) -> Result<T, Stop> {
    let place = store.get(id, None)?;
    let worked = work(&place);
    let put = store.put(id);
    let value = worked?;
    // Where nothing was mounted it was a put too many, which is another case's affair.
    if place != store.content_path(id) {
        put?;
    }
    Ok(value)
}

/// Makes layers from the lowest up, named `l0`, `l1` and so on, and answers the name of the uppermost.
fn stack(store: &dyn Store, layers: &[Vec<Entry>]) -> Result<String, Stop> {
    for (number, entries) in layers.iter().enumerate() {
        let parent = number.checked_sub(1).map(|below| format!("l{below}"));
        layer(store, &format!("l{number}"), parent.as_deref(), entries)?;
    }
    Ok(format!("l{}", layers.len().saturating_sub(1)))
}

/// Fails where the layers, mounted, show something else than the model's.
fn shows(context: &Context<'_>, layers: &[Vec<Entry>]) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), layers)?;
    let modelled = layers.iter().map(|entries| Layer::of(entries)).collect::<Result<Vec<_>, _>>()?;
    let found =
        inside(store.as_ref(), &top, |place| Ok(view::shown(store.as_ref(), &top, place, context.dialect)?))?;
    Ok(found.same_as(&Tree::of(&modelled))?)
}

fn odd_base(context: &Context<'_>) -> Outcome {
    shows(
        context,
        &[
            vec![
                Entry::directory("").mode(0o700).time(4, 4),
                Entry::directory("a").mode(0o1777).owner(1, 2).time(-5, 5),
                Entry::file("a/b", "text").mode(0o4711).time(4_000_000_000, 0).xattr("user.a", b"\0"),
                Entry::directory("c").mode(0),
                Entry::node("d", Kind::Fifo).mode(0o600),
                Entry::node("e", Kind::Character(1, 3)).mode(0o666),
                Entry::symlink("f", "/nowhere").owner(3, 3),
                Entry::file(b"\xff\n", "bytes"),
            ],
            vec![],
        ],
    )
}

fn whiteout_hides(context: &Context<'_>) -> Outcome {
    let base =
        vec![Entry::file("d/a", ""), Entry::file("d/b", ""), Entry::file("e/f", ""), Entry::file("g", "")];
    shows(context, &[base, vec![Entry::whiteout("d/a"), Entry::whiteout("e"), Entry::whiteout("g")]])
}

fn whiteout_in_the_middle(context: &Context<'_>) -> Outcome {
    let base = vec![Entry::file("d/a", ""), Entry::file("d/b", ""), Entry::file("g", "")];
    let middle = vec![Entry::whiteout("d/a"), Entry::whiteout("g")];
    shows(context, &[base, middle, vec![Entry::file("d/c", "")], vec![Entry::file("h", "")]])
}

fn replaced_directory(context: &Context<'_>) -> Outcome {
    let base = vec![Entry::file("d/old", ""), Entry::file("d/sub/old", "")];
    let middle = vec![Entry::directory("d"), Entry::opaque("d"), Entry::file("d/new", "")];
    shows(context, &[base.clone(), middle, vec![Entry::file("d/newer", "")]])?;
    // The same, done in the union.
    let store = context.store()?;
    let middle = stack(store.as_ref(), &[base, vec![]])?;
    inside(store.as_ref(), &middle, |place| {
        fs::remove_dir_all(place.join("d"))?;
        fs::create_dir(place.join("d"))?;
        Ok(fs::write(place.join("d/new"), "")?)
    })?;
    store.create("top", Some(&middle))?;
    let found = inside(store.as_ref(), "top", |place| {
        fs::write(place.join("d/newer"), "")?;
        Ok(view::tree(place)?)
    })?;
    let names: Vec<String> = found.names.keys().map(|name| crate::escape::name(name)).collect();
    same_lines(&names, &["d", "d/new", "d/newer"])?;
    Ok(())
}

fn opaque_root(context: &Context<'_>) -> Outcome {
    let base = vec![Entry::file("a", ""), Entry::file("d/b", "")];
    let opaque = vec![Entry::opaque(""), Entry::file("d/c", "")];
    shows(context, &[base.clone(), opaque.clone()])?;
    shows(context, &[base.clone(), opaque.clone(), vec![Entry::file("d/e", "")]])?;
    shows(context, &[base, vec![Entry::file("m", "")], opaque, vec![], vec![Entry::file("z", "")]])
}

fn writes_stay(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let base = vec![Entry::file("d/a", "base"), Entry::file("b", "base"), Entry::file("c", "")];
    let top = stack(store.as_ref(), &[base, vec![]])?;
    let before = view::tree(&store.content_path("l0"))?;
    inside(store.as_ref(), &top, |place| {
        fs::write(place.join("d/a"), "changed")?;
        fs::remove_file(place.join("b"))?;
        fs::set_permissions(place.join("c"), fs::Permissions::from_mode(0o600))?;
        Ok(fs::write(place.join("new"), "")?)
    })?;
    Ok(view::tree(&store.content_path("l0"))?.same_as(&before)?)
}

/// Some of everything that can be done to a tree.
fn work(place: &Path) -> Outcome {
    fs::write(place.join("d/changed"), "changed")?;
    fs::remove_file(place.join("d/gone"))?;
    fs::remove_dir_all(place.join("e"))?;
    fs::create_dir(place.join("e"))?;
    fs::set_permissions(place.join("e"), fs::Permissions::from_mode(0o755))?;
    fs::write(place.join("e/new"), "new")?;
    fs::hard_link(place.join("e/new"), place.join("link"))?;
    std::os::unix::fs::symlink("e/new", place.join("symlink"))?;
    Ok(())
}

/// What [`work`] is done on.
fn before_work() -> Vec<Entry> {
    vec![
        Entry::file("d/changed", "old"),
        Entry::file("d/gone", ""),
        Entry::file("e/old", ""),
        Entry::file("f", ""),
    ]
}

fn written(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[before_work(), vec![]])?;
    inside(store.as_ref(), &top, work)?;
    let mut names = entry_names(store.as_ref(), &top)?;
    names.retain(|name| name != "(root)");
    let expected = ["d", "d/changed", "d/.wh.gone", "e", "e/.wh..wh..opq", "e/new", "link", "symlink"];
    same_lines(&names, &expected)?;
    let changes =
        ["C /d", "C /d/changed", "D /d/gone", "C /e", "A /e/new", "D /e/old", "A /link", "A /symlink"];
    // Made anew, the directory is like the old one: it is listed for what is in it.
    changes_are(store.as_ref(), &top, None, &changes)
}

fn moved_to_other(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[before_work(), vec![]])?;
    let seen = inside(store.as_ref(), &top, |place| {
        work(place)?;
        Ok(view::tree(place)?)
    })?;
    let other = context.store_of(context.dialect.other())?;
    layer(other.as_ref(), "base", None, &before_work())?;
    let bytes = store.diff(&top, None)?.archive;
    other.create("child", Some("base"))?;
    other.apply("child", None, &bytes)?;
    crate::model::verify::same_bytes(&other.diff("child", None)?.archive, &bytes)?;
    equal("changes", other.changes("child", None)?, store.changes(&top, None)?)?;
    // What the archives say, put together, is what the union showed.
    let layers = [before_work(), crate::tar::read(&bytes)?];
    let layers = layers.iter().map(|entries| Layer::of(entries)).collect::<Result<Vec<_>, _>>()?;
    Ok(seen.same_as(&Tree::of(&layers))?)
}

fn chown_and_chmod(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(
        store.as_ref(),
        &[vec![Entry::file("f", "x"), Entry::directory("d"), Entry::file("d/g", "")], vec![]],
    )?;
    inside(store.as_ref(), &top, |place| {
        chown(place.join("f"), Some(1000), Some(100))?;
        fs::set_permissions(place.join("f"), fs::Permissions::from_mode(0o4750))?;
        Ok(fs::set_permissions(place.join("d"), fs::Permissions::from_mode(0o700))?)
    })?;
    store.create("top", Some(&top))?;
    inside(store.as_ref(), "top", |place| {
        let found = fs::metadata(place.join("f"))?;
        equal("f", (found.mode() & 0o7777, found.uid(), found.gid()), (0o4750, 1000, 100))?;
        equal("mode of d", fs::metadata(place.join("d"))?.mode() & 0o7777, 0o700)?;
        holds("d/g is there", place.join("d/g").exists())?;
        Ok(())
    })
}

fn same_second(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let base = store_base_written(store.as_ref())?;
    store.create("child", Some("base"))?;
    inside(store.as_ref(), "child", |place| Ok(fs::write(place.join("f"), "two")?))?;
    let now = fs::metadata(store.content_path("child").join("f"))?;
    let before = fs::metadata(base)?;
    if (before.mtime(), before.mtime_nsec()) == (now.mtime(), now.mtime_nsec()) {
        return Err(Stop::Skipped("this file system's clock did not go on between two writes".into()));
    }
    changes_are(store.as_ref(), "child", None, &["C /f"])
}

/// A base layer with a file that is written now, to the nanosecond.
fn store_base_written(store: &dyn Store) -> Result<PathBuf, Stop> {
    let path = super::empty(store, "base", None)?.join("f");
    fs::write(&path, "one")?;
    // The clock of file times goes on in steps of some milliseconds.
    std::thread::sleep(std::time::Duration::from_millis(20));
    Ok(path)
}

fn moved_by_link(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[vec![Entry::file("old", "x"), Entry::file("kept", "")], vec![]])?;
    inside(store.as_ref(), &top, |place| {
        fs::hard_link(place.join("old"), place.join("new"))?;
        Ok(fs::remove_file(place.join("old"))?)
    })?;
    changes_are(store.as_ref(), &top, None, &["A /new", "D /old"])?;
    store.create("top", Some(&top))?;
    let found = inside(store.as_ref(), "top", |place| Ok(view::tree(place)?))?;
    let names: Vec<String> = found.names.keys().map(|name| crate::escape::name(name)).collect();
    same_lines(&names, &["kept", "new"])?;
    equal("content", store.diff_size(&top, None)?.bytes, 1)?;
    Ok(())
}

fn sockets(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[vec![Entry::file("f", "")], vec![]])?;
    inside(store.as_ref(), &top, |place| {
        fs::write(place.join("new"), "x")?;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        Ok(rustix::fs::mknodat(rustix::fs::CWD, place.join("socket"), rustix::fs::FileType::Socket, mode, 0)?)
    })?;
    let mut names = entry_names(store.as_ref(), &top)?;
    names.retain(|name| name != "(root)");
    same_lines(&names, &["new", ".wh.socket"])?;
    equal("skipped", store.diff(&top, None)?.skipped, vec![b"socket".to_vec()])?;
    equal("size", store.diff_size(&top, None)?, crate::Totals { entries: 1, bytes: 1 })?;
    Ok(())
}

fn directory_inode(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[vec![Entry::file("d/f", "")], vec![]])?;
    inside(store.as_ref(), &top, |place| {
        let before = fs::metadata(place.join("d"))?.ino();
        fs::write(place.join("d/new"), "")?;
        fs::remove_file(place.join("d/f"))?;
        equal("inode", fs::metadata(place.join("d"))?.ino(), before)?;
        Ok(())
    })
}

fn made_again(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(
        store.as_ref(),
        &[
            vec![Entry::file("d/a", ""), Entry::file("f", "old")],
            vec![Entry::whiteout("d"), Entry::whiteout("f")],
            vec![],
        ],
    )?;
    inside(store.as_ref(), &top, |place| {
        fs::create_dir(place.join("d"))?;
        fs::write(place.join("f"), "new")?;
        equal("entries of the new directory", fs::read_dir(place.join("d"))?.count(), 0)?;
        Ok(())
    })?;
    changes_are(store.as_ref(), &top, None, &["A /d", "A /f"])
}

fn size_after_writing(context: &Context<'_>) -> Outcome {
    let store = context.store()?;
    let top = stack(store.as_ref(), &[vec![Entry::file("low", "base")], vec![Entry::file("f", "12345")]])?;
    equal("before", store.diff_size(&top, None)?, crate::Totals { entries: 1, bytes: 5 })?;
    inside(store.as_ref(), &top, |place| {
        fs::write(place.join("g"), "123")?;
        fs::write(place.join("low"), "1")?;
        Ok(fs::remove_file(place.join("f"))?)
    })?;
    equal("after", store.diff_size(&top, None)?, crate::Totals { entries: 2, bytes: 4 })?;
    // It is no empty layer any more, nor one that an archive could go into.
    crate::check::fails("apply", store.apply(&top, None, &archive(&[])), "conflict")?;
    diff_names(store.as_ref(), &top)
}

fn diff_names(store: &dyn Store, id: &str) -> Outcome {
    let found = super::entries(store, id)?;
    let names: Vec<&[u8]> =
        found.iter().map(|entry| entry.name.as_slice()).filter(|name| !name.is_empty()).collect();
    equal("names in the archive", names, vec![&b"g"[..], b"low"])?;
    let body = |name: &[u8]| found.iter().find(|entry| entry.name == name).map(|entry| entry.body.clone());
    equal("content", (body(b"g"), body(b"low")), (Some(b"123".to_vec()), Some(b"1".to_vec())))?;
    Ok(())
}
