//! Layers that others laid on disk: marks in every form that aufs and overlayfs take (AUFS: "On disk").
//!
//! What an upper layer hides is seen in `changes`, mark by mark, and in its own archive, all of them in one
//! case.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, FileType, Mode, XattrFlags};

use super::{Case, Context, Outcome, Scope, Stop, broad, case, changes_are, empty, entry_names, layer};
use crate::check::{equal, holds, same_lines};
use crate::subject::{Dialect, Store, Totals};
use crate::tar::{Entry, archive};

/// A name, what it is about, what is laid into a layer, what is listed of it, and the names in its archive.
type Row =
    (&'static str, &'static str, fn(&Path) -> Outcome, &'static [&'static str], &'static [&'static str]);

/// All lie over a base with `f`, `d/a` and `d/b`. Directories in the upper layer are like those in the base.
#[rustfmt::skip]
const AUFS: &[Row] = &[
    ("aufs-whiteout-plain", "an empty file", |at| put(at, ".wh.f", ""), &["D /f"], &[".wh.f"]),
    ("aufs-whiteout-with-content", "it hides as well", |at| put(at, ".wh.f", "text"), &["D /f"], &[".wh.f"]),
    ("aufs-whiteout-of-another-owner", "it hides as well", |at| {
        put(at, ".wh.f", "")?;
        Ok(chown(at.join(".wh.f"), Some(5), Some(5))?)
    }, &["D /f"], &[".wh.f"]),
    ("aufs-whiteout-symlink", "it hides as well", |at| Ok(symlink("f", at.join(".wh.f"))?), &["D /f"], &[".wh.f"]),
    ("aufs-whiteout-directory", "it hides as well, and what is in it is nothing", |at| {
        fs::create_dir(at.join(".wh.f"))?;
        put(at, ".wh.f/below", "text")
    }, &["D /f"], &[".wh.f"]),
    ("aufs-whiteout-of-a-directory", "all below is gone", |at| put(at, ".wh.d", ""), &["D /d"], &[".wh.d"]),
    ("aufs-whiteout-in-a-directory", "of a name in it", |at| {
        directory(at, "d")?;
        put(at, "d/.wh.a", "")
    }, &["C /d", "D /d/a"], &["d", "d/.wh.a"]),
    ("aufs-opaque-directory", "of the base nothing is seen in it", |at| {
        directory(at, "d")?;
        put(at, "d/.wh..wh..opq", "")?;
        put(at, "d/new", "")
    }, &["C /d", "D /d/a", "D /d/b", "A /d/new"], &["d", "d/.wh..wh..opq", "d/new"]),
    ("aufs-opaque-root", "of the base nothing is seen", |at| {
        put(at, ".wh..wh..opq", "")?;
        put(at, "new", "")
    }, &["D /d", "D /f", "A /new"], &[".wh..wh..opq", "new"]),
    ("aufs-ignores-wh-opq", ".wh..wh.opq is no mark", |at| {
        directory(at, "d")?;
        put(at, "d/.wh..wh.opq", "")?;
        put(at, "d/new", "")
    }, &["C /d", "A /d/new"], &["d", "d/new"]),
    ("aufs-file-and-its-whiteout", "the file is there, the whiteout hides what is below", |at| {
        put(at, "f", "another")?;
        put(at, ".wh.f", "")
    }, &["C /f"], &["f"]),
    ("aufs-directory-and-its-whiteout", "it is as good as opaque", |at| {
        directory(at, "d")?;
        put(at, ".wh.d", "")?;
        put(at, "d/new", "")
    }, &["C /d", "D /d/a", "D /d/b", "A /d/new"], &["d", "d/.wh..wh..opq", "d/new"]),
    ("aufs-bookkeeping-is-not-shown", "what a mounted branch keeps for itself", |at| {
        put(at, ".wh..wh.aufs", "")?;
        directory(at, ".wh..wh.plnk")?;
        put(at, ".wh..wh.plnk/17.18", "text")?;
        directory(at, ".wh..wh.orph")?;
        put(at, ".wh..wh.orph/x", "text")?;
        put(at, "new", "")
    }, &["A /new"], &["new"]),
    ("aufs-device-0-0-is-a-device", "overlay's mark means nothing here", |at| device(at, "new"), &["A /new"], &[]),
];

#[rustfmt::skip]
const OVERLAY: &[Row] = &[
    ("overlay-whiteout", "a 0:0 character device", |at| device(at, "f"), &["D /f"], &[".wh.f"]),
    ("overlay-whiteout-of-a-directory", "all below is gone", |at| device(at, "d"), &["D /d"], &[".wh.d"]),
    ("overlay-whiteout-in-a-directory", "of a name in it", |at| {
        directory(at, "d")?;
        device(at, "d/a")
    }, &["C /d", "D /d/a"], &["d", "d/.wh.a"]),
    ("overlay-opaque-directory", "of the base nothing is seen in it", |at| {
        directory(at, "d")?;
        mark(at, "d", "trusted.overlay.opaque", b"y")?;
        put(at, "d/new", "")
    }, &["C /d", "D /d/a", "D /d/b", "A /d/new"], &["d", "d/.wh..wh..opq", "d/new"]),
    ("overlay-opaque-of-another-value-is-none", "only y says it", |at| {
        directory(at, "d")?;
        mark(at, "d", "trusted.overlay.opaque", b"n")?;
        put(at, "d/new", "")
    }, &["C /d", "A /d/new"], &["d", "d/new"]),
    ("overlay-opaque-root", "of the base nothing is seen", |at| {
        mark(at, "", "trusted.overlay.opaque", b"y")?;
        put(at, "new", "")
    }, &["D /d", "D /f", "A /new"], &[".wh..wh..opq", "new"]),
    ("overlay-bookkeeping-stays", "attributes that a mounted upper layer keeps for itself", |at| {
        directory(at, "d")?;
        put(at, "d/new", "")?;
        mark(at, "d", "trusted.overlay.impure", b"y")?;
        mark(at, "d", "trusted.overlay.origin", b"\0\xfb")?;
        mark(at, "d/new", "trusted.overlay.origin", b"\0\xfb")
    }, &["C /d", "A /d/new"], &["d", "d/new"]),
    ("overlay-wh-name-hides-nothing", "aufs' mark means nothing here", |at| {
        directory(at, "d")?;
        put(at, "d/.wh.a", "")
    }, &["C /d", "A /d/.wh.a"], &[]),
];

pub(super) fn cases() -> Vec<Case> {
    let rows = |rows: &'static [Row], dialect| {
        rows.iter().map(move |&(name, about, lay, changes, _)| Case {
            name: format!("dialect/{name}"),
            about,
            scope: Scope::Across,
            broad: false,
            run: Arc::new(move |context: &Context<'_>| row(context, dialect, lay, changes)),
        })
    };
    let more = [
        case(Scope::Across, "dialect/bookkeeping-has-no-size", "nor have marks", bookkeeping_has_no_size),
        case(
            Scope::Across,
            "dialect/bookkeeping-is-no-content",
            "an archive goes over it",
            bookkeeping_is_no_content,
        ),
        broad(
            Scope::Across,
            "dialect/aufs-archives-of-laid-marks",
            "all of them, as archives have them",
            aufs_archives,
        ),
        broad(
            Scope::Across,
            "dialect/overlay-archives-of-laid-marks",
            "all of them, as archives have them",
            overlay_archives,
        ),
    ];
    rows(AUFS, Dialect::Aufs).chain(rows(OVERLAY, Dialect::Overlay)).chain(more).collect()
}

/// Lays one layer over a base.
fn lay_over_base(
    context: &Context<'_>,
    dialect: Dialect,
    lay: fn(&Path) -> Outcome,
) -> Result<Box<dyn Store>, Stop> {
    let store = context.quick_of(dialect)?;
    let base = [Entry::directory("d"), Entry::file("d/a", ""), Entry::file("d/b", ""), Entry::file("f", "")];
    layer(store.as_ref(), "base", None, &base)?;
    lay(&empty(store.as_ref(), "child", Some("base"))?)?;
    Ok(store)
}

fn row(context: &Context<'_>, dialect: Dialect, lay: fn(&Path) -> Outcome, changes: &[&str]) -> Outcome {
    changes_are(lay_over_base(context, dialect, lay)?.as_ref(), "child", None, changes)
}

fn aufs_archives(context: &Context<'_>) -> Outcome {
    archives(context, Dialect::Aufs, AUFS)
}

fn overlay_archives(context: &Context<'_>) -> Outcome {
    archives(context, Dialect::Overlay, OVERLAY)
}

/// Fails where the archive of a layer of the table holds other names.
fn archives(context: &Context<'_>, dialect: Dialect, rows: &[Row]) -> Outcome {
    for (row, _, lay, _, names) in rows {
        let store = lay_over_base(context, dialect, *lay)?;
        let found = entry_names(store.as_ref(), "child");
        if names.is_empty() {
            // There something would mean another thing.
            holds(&format!("there is no archive of {row}"), found.is_err())?;
            continue;
        }
        // The root was laid by hand, and has the time of that.
        let found: Vec<String> = found?.into_iter().filter(|name| name != "(root)").collect();
        same_lines(&found, names).map_err(|why| format!("{row}: {why}"))?;
    }
    Ok(())
}

fn bookkeeping_has_no_size(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Aufs)?;
    let at = empty(store.as_ref(), "a", None)?;
    for (name, text) in [(".wh..wh.aufs", "text"), (".wh.f", "text"), ("new", "12")] {
        put(&at, name, text)?;
    }
    directory(&at, ".wh..wh.plnk")?;
    put(&at, ".wh..wh.plnk/17.18", "text")?;
    equal("diff-size", store.diff_size("a", None)?, Totals { entries: 1, bytes: 2 })?;
    Ok(())
}

fn bookkeeping_is_no_content(context: &Context<'_>) -> Outcome {
    let store = context.quick_of(Dialect::Aufs)?;
    let at = empty(store.as_ref(), "a", None)?;
    put(&at, ".wh..wh.aufs", "")?;
    directory(&at, ".wh..wh.plnk")?;
    directory(&at, ".wh..wh.orph")?;
    store.apply("a", None, &archive(&[Entry::file("new", "12")]))?;
    changes_are(store.as_ref(), "a", None, &["A /new"])
}

fn put(at: &Path, name: &str, text: &str) -> Outcome {
    Ok(fs::write(at.join(name), text)?)
}

fn directory(at: &Path, name: &str) -> Outcome {
    fs::create_dir(at.join(name))?;
    // Whatever the umask is.
    Ok(fs::set_permissions(at.join(name), fs::Permissions::from_mode(0o755))?)
}

fn device(at: &Path, name: &str) -> Outcome {
    Ok(rustix::fs::mknodat(CWD, at.join(name), FileType::CharacterDevice, Mode::empty(), 0)?)
}

fn mark(at: &Path, name: &str, attribute: &str, value: &[u8]) -> Outcome {
    let path = if name.is_empty() { at.to_owned() } else { at.join(name) };
    Ok(rustix::fs::lsetxattr(path, attribute, value, XattrFlags::empty())?)
}
