//! Damaged stores: each is found by `check`, mended by `check --repair`, and clean at the second look.

mod kinds;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{dir, file, whiteout};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};
use serde_json::Value;

use super::operations::docker;
use super::world::{leftovers, look, names_if_any};
use crate::command::run;
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, unmount};
use crate::store::{Dialect, Store, bare};
use kinds::{DAMAGES, Damage, counts, filled};

pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = DAMAGES
        .iter()
        .map(|damage| {
            let damage = *damage;
            case(format!("damage: {}", damage.name), move |place| mend(place, &damage))
                .needs(Need::Filesystem("overlay"))
        })
        .collect();
    cases.push(
        case(
            "damage: a store whose form is forgotten is opened by nobody, and mended for what it is",
            formless,
        )
        .needs(Need::Filesystem("overlay")),
    );
    cases.push(
        case("damage: content whose name is a deletion to aufs is told of, and stays", not_a_mark)
            .needs(Need::Filesystem("overlay")),
    );
    cases.push(
        case("damage: marks in a union that is mounted stay until it is not", mounted)
            .needs(Need::Filesystem("overlay")),
    );
    cases.push(case(
        "damage: more directories and marks than descriptors are looked at and mended",
        descriptors,
    ));
    cases.push(case(
        "damage: content to which a link leads is not lost, and no layer is taken for lost",
        linked,
    ));
    cases.push(case("damage: what is in the file of the lock does not matter", signed));
    cases.push(case("damage: what a call works on all the time is told as that, and is no error", worked_on));
    cases.push(
        case(
            "damage: what the opening of a store does not come to delete is told, and goes with --repair",
            long_removal,
        )
        .needs(Need::Tool("strace")),
    );
    cases.push(case("damage: what a repair has moved away stays until it is purged", purge));
    cases
}

fn mend(place: &Place, damage: &Damage) -> Result<()> {
    let store = Store::new(place.join("s"), damage.dialect.unwrap_or(Dialect::Aufs));
    match damage.dialect {
        Some(_) => layers(&store)?,
        None => docker(&store)?,
    }
    // Before a store of Docker's is looked at: looking adopts it.
    let before = if damage.dialect.is_some() { Some(look(&store)?) } else { None };
    (damage.to)(&store).context("the damage")?;

    let mut check = vec!["--json", "check"];
    check.extend(damage.deep.then_some("--deep"));
    let found = findings(&store, &check)?;
    let about = found.iter().find(|finding| finding["place"] == damage.place);
    let about = about.with_context(|| format!("not found, but: {found:?}"))?;
    for part in ["what", "repair"] {
        ensure!(
            about[part].as_str().is_some_and(|text| !text.is_empty()),
            "it does not say the {part}: {about}"
        );
    }

    let repair = [&check[..], &["--repair"]].concat();
    let repaired = findings(&store, &repair)?;
    for finding in &repaired {
        ensure!(finding["repaired"] == true, "not repaired: {finding}");
    }
    let again = store.run(check.iter().copied())?.expect(0)?;
    ensure!(again.text().trim() == "[]", "the second look finds {}", again.text());

    let world = look(&store)?;
    let left: Vec<String> =
        leftovers(&store, &world)?.into_iter().filter(|name| name != "lost+found").collect();
    ensure!(left.is_empty(), "left behind: {left:?}");
    let moved = names_if_any(&store.root().join("lost+found"))?;
    for name in damage.moved {
        ensure!(moved.iter().any(|found| found == name), "{name} is not in lost+found/, but {moved:?}");
    }
    ensure!(!damage.moved.is_empty() || moved.is_empty(), "moved away: {moved:?}");
    let purge = [&check[..], &["--purge"]].concat();
    store.run(purge.iter().copied())?.expect(0)?;
    let kept = names_if_any(&store.root().join("lost+found"))?;
    ensure!(kept.is_empty(), "a purge leaves {kept:?}");
    if let Some(before) = before {
        for (id, layer) in before {
            let lost = damage.lost.contains(&id.as_str());
            ensure!(lost != world.contains_key(&id), "layer {id} is there, or not: {:?}", world.keys());
            // What was damaged may be in the content itself.
            if !lost && !damage.deep {
                ensure!(world.get(&id) == Some(&layer), "layer {id} is not what it was");
            }
        }
    } else {
        ensure!(world.keys().eq(["base", "top", "top-init"]), "the layers are {:?}", world.keys());
    }
    if damage.lost.is_empty() && damage.dialect == Some(Dialect::Overlay) {
        let merged = store.get("top")?;
        ensure!(!merged.join("kept").exists(), "what the layer deletes is seen");
        ensure!(
            merged.join("of-base").exists() && merged.join("of-top").exists(),
            "it does not hold what it should"
        );
        store.put("top")?;
    }
    Ok(())
}

/// Runs a check that ends as its findings say.
fn findings(store: &Store, arguments: &[&str]) -> Result<Vec<Value>> {
    let output = store.run(arguments.iter().copied())?;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout).with_context(|| output.to_string())?;
    let repaired = found.iter().all(|finding| finding["repaired"] == true);
    ensure!(output.code == i32::from(!repaired), "{output}: {found:?}");
    Ok(found)
}

/// To overlayfs `.wh.NAME` is a name like others, and a container may have made it.
fn not_a_mark(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    let merged = store.get("top")?;
    for directory in [".wh.d", ".wh..wh.plnk", "in"] {
        fs::create_dir(merged.join(directory))?;
    }
    let files = [
        (".wh.d/file", "x"),
        (".wh.kept", "content"),
        (".wh.of-base", ""),
        (".wh..wh.aufs", ""),
        ("in/.wh..wh..opq", ""),
        ("in/.wh..wh.x", ""),
    ];
    for (name, content) in files {
        fs::write(merged.join(name), content)?;
    }
    std::os::unix::fs::symlink("x", merged.join(".wh.link"))?;
    store.put("top")?;
    let before = look(&store)?;
    let found = store.run(["--json", "check", "--deep", "--repair"])?.expect(1)?;
    let found: Vec<Value> = serde_json::from_slice(&found.stdout)?;
    let places: Vec<&str> = found.iter().filter_map(|finding| finding["place"].as_str()).collect();
    let wanted = [
        ".wh..wh.aufs",
        ".wh..wh.plnk",
        ".wh.d",
        ".wh.kept",
        ".wh.link",
        ".wh.of-base",
        "in/.wh..wh..opq",
        "in/.wh..wh.x",
    ];
    ensure!(places == wanted.map(|name| format!("diff/top/{name}")), "{found:?}");
    ensure!(found.iter().all(|finding| finding["repaired"] == false && finding["repair"] == ""), "{found:?}");
    ensure!(look(&store)? == before, "it was changed");
    ensure!(!store.root().join("lost+found").exists(), "something was moved away");
    Ok(())
}

/// Whatever is mounted there: a union of aufs takes a kernel that has it.
fn mounted(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Aufs);
    layers(&store)?;
    let (point, count) = (store.root().join("mnt/top"), counts(&store)?.join("top"));
    mount(Some("tmpfs"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    fs::write(&count, "1\n")?;
    let mark = store.content("middle").join("of-base");
    mknod(&mark, SFlag::S_IFCHR, Mode::empty(), 0)?;
    let repair = ["--json", "check", "--deep", "--repair"];
    let output = store.run(repair)?.expect(1)?;
    let found: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let says = |finding: &Value| finding["repair"].as_str().is_some_and(|text| text.contains("part of top"));
    ensure!(found.len() == 1 && found.iter().all(says), "{found:?}");
    ensure!(mark.exists(), "a layer was changed below a mount");
    unmount(&point)?;
    fs::remove_file(&count)?;
    store.run(repair)?.expect(0)?;
    ensure!(!mark.exists() && store.content("middle").join(".wh.of-base").exists(), "it is not mended");
    Ok(())
}

fn descriptors(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Aufs);
    layers(&store)?;
    let top = store.content("top").join("many");
    for number in 0..200 {
        let directory = top.join(number.to_string());
        fs::create_dir_all(&directory)?;
        mknod(&directory.join("x"), SFlag::S_IFCHR, Mode::empty(), 0)?;
    }
    let few = |arguments: &[&str]| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
        crate::command::run(&mut crate::command::under(shell, &store.command(arguments.iter().copied())), b"")
    };
    let found = few(&["--json", "check", "--deep"])?.expect(1)?;
    let found: Vec<Value> = serde_json::from_slice(&found.stdout)?;
    ensure!(found.len() == 200, "{} findings", found.len());
    few(&["check", "--deep", "--repair"])?.expect(0)?;
    few(&["check", "--deep"])?.expect(0).map(drop)
}

fn linked(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    let before = look(&store)?;
    for kind in ["diff", "meta"] {
        let (there, elsewhere) = (store.root().join(kind), place.join(kind));
        fs::rename(&there, &elsewhere)?;
        std::os::unix::fs::symlink(&elsewhere, &there)?;
        for check in [&["--json", "check"][..], &["--json", "check", "--deep", "--repair"]] {
            let found = findings(&store, check)?;
            ensure!(found.len() == 1 && found[0]["place"] == kind, "{found:?}");
            let repair = found[0]["repair"].as_str().unwrap_or_default();
            ensure!(found[0]["repaired"] == false && repair.contains("mount that there"), "{found:?}");
        }
        fs::remove_file(&there)?;
        fs::rename(&elsewhere, &there)?;
    }
    ensure!(!store.root().join("lost+found").exists(), "something was moved away");
    store.ok(["check", "--deep"])?;
    ensure!(look(&store)? == before, "it was changed");
    Ok(())
}

fn signed(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    for bytes in [&[0xff, 0xfe, 0][..], &[b'x'; 5000]] {
        fs::write(store.root().join("lock"), bytes)?;
        store.ok(["list"])?;
        ensure!(store.ok(["--json", "check"])?.trim() == "[]", "a check finds something");
    }
    Ok(())
}

fn worked_on(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    let list = store.root().join("layers/top");
    fs::remove_file(&list)?;
    let locks = counts(&store)?.with_file_name("locks");
    let lock = fs::File::create(locks.join("top"))?;
    lock.lock_shared()?;
    for check in [&["--json", "check"][..], &["--json", "check", "--repair"]] {
        let found: Vec<Value> = serde_json::from_str(&store.ok(check.iter().copied())?)?;
        ensure!(found.len() == 1 && found[0]["place"] == "layers/top", "{found:?}");
        ensure!(found[0]["passing"] == true && found[0]["repaired"] == false, "{found:?}");
    }
    ensure!(!list.exists(), "it was mended under the call");
    drop(lock);
    let found = findings(&store, &["--json", "check", "--repair"])?;
    ensure!(found.len() == 1 && found[0]["passing"] == false && list.exists(), "{found:?}");
    Ok(())
}

fn long_removal(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    let left = store.root().join("trash/diff.x.1.0");
    fs::create_dir(&left)?;
    for number in 0..4 {
        fs::write(left.join(number.to_string()), "")?;
    }
    let slow = |arguments: &[&str]| -> Result<Vec<Value>> {
        let mut traced = std::process::Command::new("strace");
        // More than the opening of a store takes for all of it.
        traced.args(["-f", "-qq", "-e", "trace=unlinkat", "-e", "inject=unlinkat:delay_enter=150000", "-o"]);
        traced.arg(place.join("calls"));
        let output = run(&mut crate::command::under(traced, &store.command(arguments.iter().copied())), b"")?;
        Ok(serde_json::from_slice(&output.expect(0)?.stdout)?)
    };
    let found = slow(&["--json", "check"])?;
    ensure!(found.len() == 1 && found[0]["place"] == "trash" && found[0]["passing"] == true, "{found:?}");
    ensure!(left.exists(), "all of it is deleted: the case is about what is not");
    let found = slow(&["--json", "check", "--repair"])?;
    ensure!(found.len() == 1 && found[0]["place"] == "trash" && found[0]["repaired"] == true, "{found:?}");
    ensure!(!left.exists(), "it is not deleted");
    Ok(())
}

fn purge(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    layers(&store)?;
    filled(&store, "diff/x")?;
    store.ok(["check", "--repair"])?;
    let lost = store.root().join("lost+found");
    let mode = fs::metadata(&lost)?.permissions().mode() & 0o7777;
    ensure!(mode == 0o700, "others can look into lost+found/ (mode {mode:04o})");
    let kept = lost.join("diff.x.0/file");
    ensure!(fs::read(&kept)? == b"x", "it was not kept");
    store.ok(["check", "--repair"])?;
    store.ok(["remove", "other"])?;
    ensure!(kept.exists(), "it went without being purged");
    // Where the store is the top of a file system, e2fsck has its finds here as well.
    filled(&store, "lost+found/#131")?;
    store.ok(["check", "--purge"])?;
    let left = names_if_any(&store.root().join("lost+found"))?;
    ensure!(left == ["#131"], "after the purge there is {left:?}");
    Ok(())
}

/// A store whose form nobody knows any more is opened by nobody, and changed by nobody.
fn formless(place: &Place) -> Result<()> {
    for (dialect, mounted) in [(Dialect::Overlay, true), (Dialect::Overlay, false), (Dialect::Aufs, false)] {
        let store = Store::new(place.join(format!("{}-{mounted}", dialect.name())), dialect);
        layers(&store)?;
        let path = if mounted { Some(store.get("top")?) } else { None };
        let (file, kept) = (store.root().join("layerbox.json"), place.join("kept"));
        fs::copy(&file, &kept)?;
        fs::remove_file(&file)?;
        let run = |arguments: &[&str]| {
            let mut command = bare();
            run(command.arg("--root").arg(store.root()).args(arguments), b"")
        };
        for call in [&["list"][..], &["create", "new"], &["get", "top"], &["remove", "top", "--force"]] {
            run(call)?.expect(1)?.says("layerbox.json is missing")?.says("layerbox check")?;
        }
        let other = if dialect == Dialect::Aufs { "overlay" } else { "aufs" };
        let wrong = run(&["check", "--repair", "--backend", other])?.expect(1)?;
        ensure!(wrong.text().contains(dialect.name()), "it says {}", wrong.text());
        ensure!(!file.exists(), "it was written for another backend");
        if let Some(path) = path {
            let refused = run(&["check", "--repair"])?.expect(1)?;
            ensure!(refused.text().contains("layer top is mounted"), "it says {}", refused.text());
            ensure!(path.join("of-base").exists() && !file.exists(), "it was mended under a mount");
            fs::copy(&kept, &file)?;
            store.put("top")?;
            continue;
        }
        if dialect == Dialect::Overlay {
            // Without the working directories nothing tells the one from the other.
            fs::rename(store.root().join("work"), place.join("work"))?;
            let asks = run(&["check", "--repair"])?.expect(1)?;
            ensure!(asks.text().contains("--backend"), "it says {}", asks.text());
            run(&["check", "--repair", "--backend", "overlay"])?.expect(0)?;
        } else {
            run(&["check", "--repair"])?.expect(0)?;
        }
        let backend = format!("\"backend\":\"{}\"", dialect.name());
        ensure!(fs::read_to_string(&file)?.contains(&backend), "it is of another backend");
        ensure!(store.run(["check"])?.expect(0)?.text().is_empty(), "the second look finds something");
        ensure!(look(&store)?.len() == 4, "the layers are {:?}", look(&store)?.keys());
    }
    Ok(())
}

fn layers(store: &Store) -> Result<()> {
    store.layer("base", None, &[dir("d/"), file("of-base", "base"), file("kept", "kept")])?;
    store.layer("middle", Some("base"), &[file("of-middle", "middle")])?;
    store.layer("top", Some("middle"), &[file("of-top", "top"), whiteout("kept")])?;
    store.layer("other", Some("base"), &[file("of-other", "other")])
}
