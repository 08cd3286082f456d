//! Deletions: both dialects keep the same, and show what the layers mean.

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, dir, file, hard_link, opaque, symlink, tar, whiteout};
use layerbox_tests::model::Model;
use layerbox_tests::tree::{Except, same};

use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// A layer to lay over [`lower`], and what `changes` must say of it.
struct Row {
    title: &'static str,
    upper: Vec<Member>,
    changes: &'static [&'static str],
}

fn lower() -> Vec<Member> {
    vec![
        dir("./"),
        dir("d/"),
        file("d/a", "a"),
        file("d/b", "b"),
        dir("d/sub/"),
        file("d/sub/deep", "deep"),
        dir("e/"),
        file("e/f", "f"),
        file("file", "file"),
        symlink("link", "d"),
        file("other", "other"),
        hard_link("other-name", "other"),
    ]
}

fn rows() -> Vec<Row> {
    let row = |title, upper, changes| Row { title, upper, changes };
    vec![
        row("a file is deleted", vec![whiteout("file")], &["D /file"]),
        row("a file in a directory is deleted", vec![dir("d/"), whiteout("d/a")], &["C /d", "D /d/a"]),
        row("a directory is deleted", vec![whiteout("d")], &["D /d"]),
        row("a symlink is deleted, not what it leads to", vec![whiteout("link")], &["D /link"]),
        row(
            "a directory is opaque",
            vec![dir("d/"), opaque("d"), file("d/c", "c")],
            &["C /d", "D /d/a", "D /d/b", "A /d/c", "D /d/sub"],
        ),
        row(
            "the opaque mark comes last",
            vec![dir("d/"), file("d/a", "new"), file("d/c", "c"), opaque("d")],
            &["C /d", "C /d/a", "D /d/b", "A /d/c", "D /d/sub"],
        ),
        row(
            "a directory is opaque, and a directory in it comes again",
            vec![dir("d/"), opaque("d"), dir("d/sub/"), file("d/sub/new", "n")],
            &["C /d", "D /d/a", "D /d/b", "C /d/sub", "D /d/sub/deep", "A /d/sub/new"],
        ),
        row(
            "whiteout, then a file of the same name",
            vec![whiteout("file"), file("file", "again!")],
            &["C /file"],
        ),
        row(
            "a file, then a whiteout of the same name",
            vec![file("file", "again!"), whiteout("file")],
            &["C /file"],
        ),
        row(
            "a directory is deleted, and a file takes its name",
            vec![whiteout("d"), file("d", "now a file")],
            &["C /d"],
        ),
        row(
            "a directory is deleted and made anew",
            vec![whiteout("d"), dir("d/"), file("d/c", "c")],
            &["C /d", "D /d/a", "D /d/b", "A /d/c", "D /d/sub"],
        ),
        row(
            "a file becomes a directory",
            vec![dir("file/"), file("file/in", "x")],
            &["C /file", "A /file/in"],
        ),
        row(
            "a symlink becomes a directory",
            vec![dir("link/"), file("link/a", "x")],
            &["C /link", "A /link/a"],
        ),
        row("a whiteout of nothing", vec![whiteout("never-was")], &[]),
        row("a directory changes its mode alone", vec![dir("d/").mode(0o700)], &["C /d"]),
        row("a file changes its owner alone", vec![file("file", "file").owner(5, 6)], &["C /file"]),
        row("a file changes its time alone", vec![file("file", "file").mtime(1_000_000_001)], &["C /file"]),
        row(
            "new things in new directories",
            vec![file("x/y/z", "z"), symlink("x/l", "y")],
            &["A /x", "A /x/l", "A /x/y", "A /x/y/z"],
        ),
        row(
            "hard links among what is new",
            vec![file("h1", "h"), hard_link("h2", "h1")],
            &["A /h1", "A /h2"],
        ),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for Row { title, upper, changes } in rows() {
        let layer = upper.clone();
        cases.push(case(
            format!("dialects: {title}: the same archive and the same changes in both"),
            move |place| both(place, &layer, changes),
        ));
        for (dialect, filesystem) in [(Dialect::Overlay, "overlay"), (Dialect::Aufs, "aufs")] {
            let layer = upper.clone();
            let body = move |place: &Place| merged(place, dialect, std::slice::from_ref(&layer));
            cases.push(
                case(
                    format!("dialects ({filesystem}): {title}: the merged view is what the layers mean"),
                    body,
                )
                .needs(Need::Filesystem(filesystem)),
            );
        }
    }
    for (dialect, filesystem) in [(Dialect::Overlay, "overlay"), (Dialect::Aufs, "aufs")] {
        let all = move |place: &Place| {
            // One layer after the other, each row over the last: what a whiteout hides may lie several layers
            // below.
            let layers: Vec<Vec<Member>> = rows().into_iter().map(|row| row.upper).collect();
            merged(place, dialect, &layers)
        };
        cases.push(
            case(format!("dialects ({filesystem}): all of these layers in one stack"), all)
                .needs(Need::Filesystem(filesystem)),
        );
        let root =
            move |place: &Place| merged(place, dialect, &[vec![dir("./"), opaque(""), file("only", "this")]]);
        cases.push(
            case(format!("dialects ({filesystem}): an opaque root hides all below"), root)
                .needs(Need::Filesystem(filesystem)),
        );
    }
    cases
}

fn both(place: &Place, upper: &[Member], changes: &[&str]) -> Result<()> {
    let mut archives = Vec::new();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        let store = Store::new(place.join(name), dialect);
        store.layer("base", None, &lower())?;
        store.create("top", Some("base"))?;
        store.apply("top", &tar(upper))?.expect(0)?;
        let archive = store.diff("top")?;
        store.create("again", Some("base"))?;
        store.apply("again", &archive)?.expect(0)?;
        ensure!(store.diff("again")? == archive, "{name}: the diff of the applied diff is another");
        for id in ["top", "again"] {
            let found = store.changes(id)?;
            ensure!(found == changes, "{name}: changes of {id} are {found:?} and not {changes:?}");
        }
        archives.push(archive);
    }
    ensure!(
        archives[0] == archives[1],
        "the dialects give different archives: {} and {} bytes",
        archives[0].len(),
        archives[1].len()
    );
    Ok(())
}

fn merged(place: &Place, dialect: Dialect, uppers: &[Vec<Member>]) -> Result<()> {
    let store = Store::new(place.join("s"), dialect);
    let mut model = Model::new();
    store.layer("l0", None, &lower())?;
    model.apply(&lower());
    for (number, upper) in uppers.iter().enumerate() {
        let (id, parent) = (format!("l{}", number + 1), format!("l{number}"));
        store.layer(&id, Some(&parent), upper)?;
        model.apply(upper);
    }
    // A directory that an archive only passes through has the time of the last layer that made it; the model
    // does not follow that. Hard links across layers are copies to a union.
    let except = Except { directory_times: true, links: true, root: true, ..Except::default() };
    same(model.tree(), &store.merged(&format!("l{}", uppers.len()))?, except)
}
