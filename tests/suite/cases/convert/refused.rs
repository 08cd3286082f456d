//! A conversion that is refused, because of what the layers hold or of who uses them, and one that was cut
//! off.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{dir, file, whiteout};
use layerbox_tests::tree::{Except, Tree, names, picture, same};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::{Value, json};

use super::Thing::{Dir, Mark, Plain};
use super::{old, pictures, said};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, unmount};
use crate::service::Service;
use crate::store::{Dialect, Filling, Store, bare};

pub(super) fn cases() -> Vec<Case> {
    let refusals = REFUSALS.iter().map(|refusal| {
        case(format!("convert: {}: 5, and nothing is changed", refusal.title), move |place| {
            refused(place, refusal)
        })
    });
    let others = [
        case("convert: what is in use is left alone: 4", in_use).needs(Need::Filesystem("overlay")),
        case("convert: a store that a service owns is left alone: 4", owned),
        case("convert: half a conversion: nobody opens the store but to go on or to turn back", half),
    ];
    refusals.chain(others).collect()
}

/// What a layer cannot hold in the other form.
struct Refusal {
    title: &'static str,
    dialect: Dialect,
    /// Puts it into the content of the layer `top`.
    plant: fn(&Path) -> Result<()>,
    entry: &'static str,
}

const REFUSALS: &[Refusal] = &[
    Refusal {
        title: "a 0/0 device in a layer of aufs",
        dialect: Dialect::Aufs,
        plant: |top| Ok(mknod(&top.join("dir/device"), SFlag::S_IFCHR, Mode::empty(), 0)?),
        entry: "dir/device",
    },
    Refusal {
        title: "an attribute of overlay in a layer of aufs",
        dialect: Dialect::Aufs,
        plant: |top| Ok(xattr::set(top.join("dir"), "trusted.overlay.opaque", b"y")?),
        entry: "dir",
    },
    Refusal {
        title: "a name of aufs in a layer of overlay",
        dialect: Dialect::Overlay,
        plant: |top| Ok(fs::create_dir(top.join("dir/.wh.kept"))?),
        entry: "dir/.wh.kept",
    },
    Refusal {
        title: "a deletion in a layer of overlay whose name is too long for aufs",
        dialect: Dialect::Overlay,
        plant: |top| Ok(mknod(&top.join("n".repeat(252)), SFlag::S_IFCHR, Mode::empty(), 0)?),
        entry: "nnnnnnnn",
    },
    Refusal {
        title: "a directory of overlay that has its content elsewhere",
        dialect: Dialect::Overlay,
        plant: |top| Ok(xattr::set(top.join("dir"), "trusted.overlay.redirect", b"/other")?),
        entry: "dir",
    },
];

fn refused(place: &Place, refusal: &Refusal) -> Result<()> {
    let named = Store::new(place.join("s"), refusal.dialect);
    named.layer("base", None, &[file("file", "file"), dir("dir/"), file("dir/x", "x")])?;
    // The layers before it in the order of their ids are not rewritten either.
    named.layer("a", Some("base"), &[whiteout("file")])?;
    named.layer("top", Some("base"), &[whiteout("file"), dir("dir/"), whiteout("dir/x")])?;
    (refusal.plant)(&named.content("top"))?;
    let store = Store::new(named.root().to_owned(), refusal.dialect).of_any_backend();
    let look =
        || -> Result<Vec<Tree>> { ["a", "top"].map(|id| picture(&store.content(id))).into_iter().collect() };
    let before = (look()?, names(store.root())?);
    let output = store.run(["convert", "--backend", refusal.dialect.other().name()])?.expect(5)?;
    output.says("convert top: ")?.says(refusal.entry)?;
    ensure!((look()?, names(store.root())?) == before, "something was changed");
    ensure!(
        store.ok(["status"])?.contains(&format!("Backend: {}", refusal.dialect.name())),
        "it is of another backend"
    );
    Ok(())
}

fn in_use(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("file", "file")])?;
    store.layer("top", Some("base"), &[whiteout("file")])?;
    let store = Store::new(store.root().to_owned(), Dialect::Overlay).of_any_backend();
    let to_aufs = ["convert", "--backend", "aufs"];
    let before = pictures(&store)?;
    store.get("top")?;
    store.run(to_aufs)?.expect(4)?.says("mounted")?;
    store.put("top")?;

    // As containerd does it.
    let (work, point) = (place.make("work")?, place.make("point")?);
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        store.content("base").display(),
        store.content("top").display(),
        store.root().join("work/top").display()
    );
    mount(Some("overlay"), &point, Some("overlay"), MsFlags::empty(), Some(data.as_str()))
        .with_context(|| format!("{data} {}", work.display()))?;
    let output = store.run(to_aufs)?;
    unmount(&point)?;
    output.expect(4)?.says("point")?;

    // Another command that has the store open: it reads an archive that does not come.
    store.create("slow", Some("base"))?;
    let slow = Filling::begin(&store, "slow")?;
    let output = store.run(to_aufs)?;
    slow.end()?;
    output.expect(4)?;

    let status = store.ok(["status"])?;
    ensure!(status.contains("Backend: overlay"), "it was converted: {status}");
    let except = Except { root: true, xattrs: true, ..Except::default() };
    before.iter().zip(pictures(&store)?).try_for_each(|(before, now)| same(before, &now, except))
}

fn owned(place: &Place) -> Result<()> {
    let store = old(place, &[Plain(b".wh.file")])?;
    store.ok(["list"])?;
    let socket = place.join("control.sock");
    let mut command = bare();
    command.arg("--root").arg(store.root()).arg("--socket").arg(&socket);
    command.arg("serve").arg("--docker").arg(place.join("docker.sock"));
    let _service = Service::spawn(place, command)?;
    // The service has the store open once it was asked for something.
    store.ok(["--socket", &socket.to_string_lossy(), "list"])?;
    store.run(["convert"])?.expect(4)?.says("in use")?;
    ensure!(store.content("top").join(".wh.file").exists(), "it was converted");
    Ok(())
}

/// A journal in an aufs store in which nothing was rewritten yet, and one with a mark in both forms.
fn half(place: &Place) -> Result<()> {
    let store = old(place, &[Dir(b"d"), Mark(b"d/.wh.a"), Plain(b".wh.file")])?;
    store.ok(["list"])?;
    let (before, said_before) = (pictures(&store)?, said(&store)?);
    let format: Value = serde_json::from_slice(&fs::read(store.root().join("layerbox.json"))?)?;
    let (seconds, nanoseconds) = before[1][&b""[..]].mtime;
    let root = json!({"path": "", "seconds": seconds, "nanoseconds": nanoseconds});
    let batch = json!({"layer": "top", "deletions": 1, "directories": [root]});
    let journal =
        json!({"from": "aufs", "to": "overlay", "id": format["id"], "deletions": 0, "batch": batch});
    let begin = || -> Result<()> {
        fs::write(store.root().join("convert.json"), journal.to_string())?;
        Ok(mknod(&store.content("top").join("file"), SFlag::S_IFCHR, Mode::empty(), 0)?)
    };
    begin()?;
    for arguments in [
        &["list"][..],
        &["status"],
        &["get", "top"],
        &["put", "top"],
        &["create", "new"],
        &["diff", "top"],
        &["remove", "top"],
        &["exists", "top"],
        &["cleanup"],
        &["--backend", "overlay", "metadata", "top"],
    ] {
        let output = store.run(arguments.iter().copied())?.expect(4)?;
        output.says("half converted from aufs to overlay")?.says("hint: run layerbox convert again")?;
    }
    let found = store.run(["--json", "check", "--repair"])?.expect(1)?;
    let found: Vec<Value> = serde_json::from_slice(&found.stdout)?;
    ensure!(found.len() == 1 && found[0]["place"] == "convert.json", "{found:?}");

    store.ok(["convert", "--backend", "aufs"])?;
    for (before, now) in before.iter().zip(pictures(&store)?) {
        same(before, &now, Except::default())?;
    }
    ensure!(said(&store)? == said_before, "turned back, the layers are others");

    begin()?;
    store.ok(["convert"])?;
    ensure!(said(&store)? == said_before, "gone on with, the layers are others");
    let time = picture(&store.content("top"))?[&b""[..]].mtime;
    ensure!(time == (seconds, nanoseconds), "the time is another: {time:?}");
    ensure!(store.ok(["status"])?.contains("Backend: overlay"), "it is not overlay's");
    store.ok(["check", "--deep"]).map(drop)
}
