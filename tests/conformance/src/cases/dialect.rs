//! The same layers in both dialects, and how each writes its marks on disk.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use super::{Case, Context, Outcome, Scope, broad, case, layer};
use crate::check::{equal, holds};
use crate::model::Layer;
use crate::model::verify::same_bytes;
use crate::subject::Dialect;
use crate::tar::{Entry, Kind, archive};

pub(super) fn cases() -> Vec<Case> {
    use Scope::Across;
    vec![
        broad(Across, "dialect/same-bytes-in-both", "one layer, one archive", same_in_both),
        broad(Across, "dialect/from-one-to-the-other-and-back", "nothing is lost on the way", there_and_back),
        broad(
            Across,
            "dialect/same-difference-in-both",
            "between layers that are not parent and child",
            between_in_both,
        ),
        case(
            Across,
            "dialect/aufs-writes-whiteouts-as-links",
            "of .wh..wh.aufs: 0444, empty, root's",
            aufs_whiteouts,
        ),
        case(Across, "dialect/aufs-writes-opaque-as-a-file", ".wh..wh..opq", aufs_opaque),
        case(Across, "dialect/overlay-writes-whiteouts-as-devices", "0:0", overlay_whiteouts),
        case(
            Across,
            "dialect/overlay-writes-opaque-as-an-attribute",
            "trusted.overlay.opaque = y",
            overlay_opaque,
        ),
        case(
            Across,
            "dialect/no-marks-of-the-other",
            "no .wh. file in overlay, no device in aufs",
            no_marks_of_the_other,
        ),
    ]
}

/// A layer with some of everything, in order.
fn everything() -> Vec<Entry> {
    vec![
        Entry::directory("").mode(0o711).owner(9, 9).time(3, 3),
        Entry::file(b"\xfe\xff", "bytes").time(-3, 500_000_000),
        Entry::file("a", "x").mode(0o4755).owner(1, 2).xattr("user.a", b"\0"),
        Entry::directory("d").mode(0o700).time(5, 0),
        Entry::opaque("d"),
        Entry::whiteout("d/gone"),
        Entry::hard_link("d/link", "a"),
        Entry::symlink("l", "/somewhere"),
        Entry::node("n", Kind::Character(1, 3)),
        Entry::whiteout("w"),
    ]
}

fn same_in_both(context: &Context<'_>) -> Outcome {
    let mut archives = Vec::new();
    for dialect in Dialect::ALL {
        let store = context.quick_of(dialect)?;
        layer(store.as_ref(), "a", None, &everything())?;
        archives.push(store.diff("a", None)?.archive);
    }
    Ok(same_bytes(&archives[1], &archives[0]).map_err(|why| format!("aufs and overlay: {why}"))?)
}

fn there_and_back(context: &Context<'_>) -> Outcome {
    let entries = everything();
    let expected = Layer::of(&entries)?;
    let mut bytes = archive(&entries);
    let mut first = None;
    for dialect in [Dialect::Overlay, Dialect::Aufs, Dialect::Overlay, Dialect::Aufs] {
        let store = context.quick_of(dialect)?;
        store.create("a", None)?;
        store.apply("a", None, &bytes)?;
        bytes = store.diff("a", None)?.archive;
        Layer::of(&crate::tar::read(&bytes)?)?
            .same_as(&expected)
            .map_err(|why| format!("{}: {why}", dialect.name()))?;
        same_bytes(&bytes, first.get_or_insert_with(|| bytes.clone()))?;
    }
    Ok(())
}

fn between_in_both(context: &Context<'_>) -> Outcome {
    let mut archives = Vec::new();
    for dialect in Dialect::ALL {
        let store = context.quick_of(dialect)?;
        layer(
            store.as_ref(),
            "base",
            None,
            &[Entry::file("d/a", "x"), Entry::file("d/b", "x"), Entry::file("w", "x")],
        )?;
        layer(store.as_ref(), "middle", Some("base"), &[Entry::file("m", "x")])?;
        layer(store.as_ref(), "top", Some("middle"), &everything())?;
        archives.push(store.diff("top", Some("base"))?.archive);
    }
    Ok(same_bytes(&archives[1], &archives[0]).map_err(|why| format!("aufs and overlay: {why}"))?)
}

/// Two whiteouts, one in a directory.
fn whiteouts() -> [Entry; 3] {
    [Entry::directory("d"), Entry::whiteout("d/two"), Entry::whiteout("one")]
}

fn aufs_whiteouts(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Aufs)?;
    layer(store.as_ref(), "a", None, &whiteouts())?;
    let content = store.content_path("a");
    let base = fs::symlink_metadata(content.join(".wh..wh.aufs"))?;
    for name in [".wh..wh.aufs", ".wh.one", "d/.wh.two"] {
        let found = fs::symlink_metadata(content.join(name))?;
        holds(&format!("{name} is an empty file"), found.is_file() && found.len() == 0)?;
        equal(&format!("mode of {name}"), found.mode() & 0o7777, 0o444)?;
        equal(&format!("owners of {name}"), (found.uid(), found.gid()), (0, 0))?;
        equal(&format!("file that {name} is a name of"), found.ino(), base.ino())?;
    }
    Ok(())
}

fn aufs_opaque(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Aufs)?;
    layer(store.as_ref(), "a", None, &[Entry::directory("d"), Entry::opaque("d")])?;
    let found = fs::symlink_metadata(store.content_path("a").join("d/.wh..wh..opq"))?;
    holds("d/.wh..wh..opq is an empty file", found.is_file() && found.len() == 0)?;
    Ok(())
}

fn overlay_whiteouts(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Overlay)?;
    layer(store.as_ref(), "a", None, &whiteouts())?;
    let content = store.content_path("a");
    for name in ["one", "d/two"] {
        let found = fs::symlink_metadata(content.join(name))?;
        holds(&format!("{name} is a device"), found.file_type().is_char_device())?;
        equal(&format!("number of {name}"), found.rdev(), 0)?;
    }
    equal("names at the root", fs::read_dir(&content)?.count(), 2)?;
    Ok(())
}

fn overlay_opaque(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Overlay)?;
    layer(store.as_ref(), "a", None, &[Entry::directory("d"), Entry::opaque("d"), Entry::directory("e")])?;
    let content = store.content_path("a");
    let mut value = [0; 16];
    let length = rustix::fs::lgetxattr(content.join("d"), "trusted.overlay.opaque", &mut value[..])?;
    equal("its value", &value[..length], &b"y"[..])?;
    equal("names in it", fs::read_dir(content.join("d"))?.count(), 0)?;
    let other = rustix::fs::lgetxattr(content.join("e"), "trusted.overlay.opaque", &mut value[..]);
    holds("another directory has none", other.is_err())?;
    Ok(())
}

fn no_marks_of_the_other(context: &Context<'_>) -> Outcome {
    for dialect in Dialect::ALL {
        let store = context.quick_of(dialect)?;
        layer(
            store.as_ref(),
            "a",
            None,
            &[&whiteouts()[..], &[Entry::directory("e"), Entry::opaque("e")]].concat(),
        )?;
        let mut open = vec![store.content_path("a")];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                let (name, kind) = (entry.file_name(), entry.file_type()?);
                let is_wh = name.to_string_lossy().starts_with(".wh.");
                let is_foreign = if dialect == Dialect::Aufs { kind.is_char_device() } else { is_wh };
                holds(&format!("{} is no mark of the other dialect", entry.path().display()), !is_foreign)?;
                if kind.is_dir() {
                    open.push(entry.path());
                }
            }
        }
    }
    Ok(())
}
