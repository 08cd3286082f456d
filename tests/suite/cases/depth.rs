//! Many layers on top of each other.

use std::fs;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, file, whiteout};
use layerbox_tests::model::Model;
use layerbox_tests::tree::{Except, same};

use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// So many that neither a page of options nor a table of a hundred entries holds them.
const MANY: usize = 127;

/// The deepest stack that overlayfs mounts (`OVL_MAX_STACK` in fs/overlayfs/params.c): 500 layers below the
/// uppermost.
const DEEPEST: usize = 500;

pub(super) fn cases() -> Vec<Case> {
    let mut cases =
        vec![case("depth (overlay): the 501st layer is refused as too deep, and nothing is made", too_deep)];
    for (dialect, filesystem) in [(Dialect::Overlay, "overlay"), (Dialect::Aufs, "aufs")] {
        cases.push(
            case(
                format!("depth ({filesystem}): {MANY} layers that add, overwrite and delete"),
                move |place| many(place, dialect),
            )
            .needs(Need::Filesystem(filesystem)),
        );
    }
    cases
}

/// As long as Docker's ids are: what they add up to is what once did not fit.
fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn members(number: usize) -> Vec<Member> {
    let mut members = vec![
        file(format!("file-{number}"), format!("of {number}")),
        file("common", format!("by {number}")).mtime(1_000_000_000 + number as i64),
    ];
    if number > 0 {
        members.push(whiteout(&format!("file-{}", number - 1)));
        members.push(file(format!("kept/{number}"), ""));
    }
    members
}

fn many(place: &Place, dialect: Dialect) -> Result<()> {
    let store = Store::new(place.join("s"), dialect);
    let mut model = Model::new();
    for number in 0..MANY {
        let parent = number.checked_sub(1).map(id);
        store.layer(&id(number), parent.as_deref(), &members(number))?;
        model.apply(&members(number));
    }
    let except = Except { directory_times: true, root: true, ..Except::default() };
    same(model.tree(), &store.merged(&id(MANY - 1))?, except)?;
    let changes = store.changes(&id(MANY - 1))?;
    let want = ["C /common", "D /file-125", "A /file-126", "C /kept", "A /kept/126"];
    ensure!(changes == want, "changes of the uppermost: {changes:?}");
    Ok(())
}

fn too_deep(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create(&id(0), None)?;
    for number in 1..DEEPEST {
        store.create(&id(number), Some(&id(number - 1)))?;
    }
    let (top, over) = (id(DEEPEST - 1), id(DEEPEST));
    store.run(["create", &over, "--parent", &top])?.expect(6)?;
    store.knows_nothing_of(&over)?;
    fs::write(store.content(&id(0)).join("at-the-bottom"), "x")?;
    let mounted = store.get(&top)?;
    ensure!(mounted.join("at-the-bottom").exists(), "the lowest of {DEEPEST} layers is not seen");
    store.put(&top)
}
