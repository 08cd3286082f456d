//! Mounts and the counts of who holds them.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{file, tar, whiteout};
use layerbox_tests::tree::{Except, names, picture, same};
use nix::mount::{MsFlags, mount};

use crate::command::{binary, code, run, shell, under};
use crate::harness::{Case, Need, case};
use crate::plant::{Features, noise, plant};
use crate::scratch::{Place, mounts_below, unmount};
use crate::service::eventually;
use crate::store::{Dialect, Store};

type Body = fn(&Place) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let mounted: [(&str, Body); 11] = [
        ("two gets want two puts; one too many changes nothing", |place| {
            let store = stack(place)?;
            let path = store.get("child")?;
            ensure!(store.get("child")? == path, "the second get gives another path");
            ensure!(
                mounts_below(store.root()).len() == 1,
                "two gets mounted {:?}",
                mounts_below(store.root())
            );
            for (left, mounts) in [(1, 1), (0, 0), (0, 0)] {
                store.put("child")?;
                ensure!(
                    store.references("child")? == left,
                    "the count is {} and not {left}",
                    store.references("child")?
                );
                ensure!(
                    mounts_below(store.root()).len() == mounts,
                    "mounted: {:?}",
                    mounts_below(store.root())
                );
            }
            ensure!(store.get("child")? == path && path.join("from-base").exists(), "it cannot be got again");
            store.put("child")
        }),
        ("a put and a get go beside a slow reader, and leave it what it reads", beside_a_reader),
        ("remove while mounted: 4; with --force it goes", |place| {
            let store = stack(place)?;
            let path = store.get("child")?;
            store.run(["remove", "child"])?.expect(4)?;
            ensure!(path.join("from-base").exists(), "the mount is gone");
            store.ok(["remove", "child", "--force"])?;
            ensure!(mounts_below(store.root()).is_empty(), "still mounted: {:?}", mounts_below(store.root()));
            store.knows_nothing_of("child")
        }),
        ("the counts and mounts are as they were when a process was killed", |place| {
            let store = stack(place)?;
            store.get("child")?;
            // Each command is a process of its own; this one dies while it holds the store.
            let mut child =
                store.command(["diff", "base"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            child.kill()?;
            child.wait()?;
            ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
            store.get("child")?;
            store.put("child")?;
            ensure!(mounts_below(store.root()).len() == 1, "the mount of the first get is gone");
            store.put("child")?;
            ensure!(mounts_below(store.root()).is_empty(), "still mounted: {:?}", mounts_below(store.root()));
            Ok(())
        }),
        ("what is written through the mount stays in the layer, and not in its parent", |place| {
            let store = stack(place)?;
            let before = picture(&store.content("base"))?;
            let path = store.get("child")?;
            fs::write(path.join("new"), "n")?;
            fs::remove_file(path.join("from-base"))?;
            store.put("child")?;
            same(&before, &picture(&store.content("base"))?, Except::default())?;
            ensure!(
                store.changes("child")? == ["D /from-base", "A /new"],
                "changes: {:?}",
                store.changes("child")?
            );
            let again = store.get("child")?;
            ensure!(names(&again)? == ["kept", "new"], "mounted again it holds {:?}", names(&again)?);
            store.put("child")
        }),
        ("a directory deleted and made anew through the mount hides what lay below it", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("d/a", "a"), file("d/b", "b")])?;
            store.create("child", Some("base"))?;
            let path = store.get("child")?;
            fs::remove_dir_all(path.join("d"))?;
            fs::create_dir(path.join("d"))?;
            fs::write(path.join("d/c"), "c")?;
            let seen = picture(&path)?;
            store.put("child")?;
            ensure!(
                store.changes("child")? == ["C /d", "D /d/a", "D /d/b", "A /d/c"],
                "changes: {:?}",
                store.changes("child")?
            );
            store.create("copy", Some("base"))?;
            store.apply("copy", &store.diff("child")?)?.expect(0)?;
            same(&seen, &store.merged("copy")?, Except { root: true, ..Except::default() })
        }),
        ("cleanup unmounts all of the root and nothing else", |place| {
            let (store, other) = (stack(place)?, Store::new(place.join("other"), Dialect::Overlay));
            other.layer("base", None, &[file("a", "a")])?;
            other.create("child", Some("base"))?;
            other.get("child")?;
            store.create("second", Some("base"))?;
            for id in ["child", "child", "second"] {
                store.get(id)?;
            }
            store.ok(["cleanup"])?;
            ensure!(mounts_below(store.root()).is_empty(), "still mounted: {:?}", mounts_below(store.root()));
            ensure!(store.references("child")? == 0, "the count is {}", store.references("child")?);
            ensure!(mounts_below(other.root()).len() == 1, "the other store's mount is gone");
            other.put("child")
        }),
        ("what somebody else mounts over a layer is not unmounted but by force: 4", |place| {
            let store = stack(place)?;
            let path = store.get("child")?;
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
            fs::write(path.join("theirs"), "x")?;
            for call in [&["put", "child"][..], &["cleanup"], &["remove", "child"]] {
                store.run(call.iter().copied())?.expect(4)?;
                ensure!(path.join("theirs").exists(), "{call:?} unmounted it");
            }
            store.run(["put", "child"])?.expect(4)?.says("tmpfs is mounted over layer child")?;
            ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
            unmount(&path)?;
            ensure!(path.join("from-base").exists(), "the union is gone");
            mount(Some("tmpfs"), &path, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
            store.ok(["remove", "child", "--force"])?;
            ensure!(mounts_below(store.root()).is_empty(), "still mounted: {:?}", mounts_below(store.root()));
            store.knows_nothing_of("child")
        }),
        ("a mount that somebody else took away is noticed", |place| {
            let store = stack(place)?;
            let path = store.get("child")?;
            unmount(&path)?;
            let again = store.get("child")?;
            ensure!(again.join("from-base").exists(), "get gave a path with nothing mounted on it");
            store.ok(["cleanup"]).map(drop)
        }),
        ("the read-only layers below a mount can be read and archived meanwhile", |place| {
            let store = stack(place)?;
            store.get("child")?;
            ensure!(
                store.diff("base")?.len() > 1024 && store.diff("child")? == [0; 1024],
                "an archive is not as expected"
            );
            store.put("child")
        }),
        ("no archive is applied below a mounted layer, and nothing is mounted over one being filled", below),
    ];
    let mut cases: Vec<Case> = mounted
        .into_iter()
        .map(|(title, body)| case(format!("mounts: {title}"), body).needs(Need::Filesystem("overlay")))
        .collect();
    cases.extend([
        case(
            "mounts: a layer that is read is mounted and removed when the reader is done; who reads is named",
            kept_by_a_reader,
        )
        .early()
        .needs(Need::Filesystem("overlay")),
        // The kernel gives the number of a namespace that is gone to the next one, which may be that of
        // another case.
        case(
            "mounts: what is mounted in another mount namespace is in use while somebody is there",
            elsewhere,
        )
        .alone()
        .needs(Need::Filesystem("overlay")),
        case("mounts: a copy of the mount namespace takes nothing away from those in the first", copied)
            .alone()
            .needs(Need::Filesystem("overlay")),
        case("mounts: a copy of a store counts for itself", of_a_copy).needs(Need::Filesystem("overlay")),
        case("mounts: by another path of the store a layer is in use as well: 4", by_another_path)
            .needs(Need::Filesystem("overlay")),
        case("mounts: what is mounted by another path stays, and keeps the layer: 4", kept_by_another_path)
            .needs(Need::Filesystem("overlay")),
        case("mounts: a busy mount point of a removal that was cut off keeps no store closed", busy_point),
        case("references: a layer with children is not removed: 4", |place| {
            let store = stack(place)?;
            store.run(["remove", "base"])?.expect(4)?;
            store.run(["remove", "base", "--force"])?.expect(4)?;
            ensure!(store.content("base").join("from-base").exists(), "its content is gone");
            store.ok(["remove", "child", "base"])?;
            store.knows_nothing_of("base")
        }),
        case("references: two processes at once: diff into apply-diff, on one store", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            plant(&store.content("base"), Features::ALL)?;
            store.create("copy", None)?;
            let mut diff =
                store.command(["diff", "base"]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
            let archive = diff.stdout.take().context("no pipe")?;
            let mut apply = store.command(["apply-diff", "copy"]);
            let status = apply.stdin(archive).stdout(Stdio::null()).status()?;
            ensure!(code(diff.wait()?) == 0 && code(status) == 0, "one of the two failed");
            same(&picture(&store.content("base"))?, &picture(&store.content("copy"))?, Except::default())
        }),
        case("references: many processes at once make, fill and remove layers", crowd),
        case("references: whoever uses a layer that is mounted here looks at no other process", no_look)
            .needs(Need::Filesystem("overlay"))
            .needs(Need::Tool("strace")),
    ]);
    cases
}

/// A diff whose archive nobody takes but for its beginning: it goes on for as long as that is so.
fn slow_diff(store: &Store, id: &str) -> Result<Child> {
    let mut diff = store.command(["diff", id]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let out = diff.stdout.as_mut().context("no pipe")?;
    out.read_exact(&mut [0; 512])?;
    Ok(diff)
}

/// Takes the rest, and answers how many bytes that were.
fn taken(mut diff: Child) -> Result<usize> {
    let mut rest = Vec::new();
    diff.stdout.take().context("no pipe")?.read_to_end(&mut rest)?;
    let status = diff.wait()?;
    ensure!(status.success(), "diff: {status}");
    Ok(rest.len())
}

fn beside_a_reader(place: &Place) -> Result<()> {
    let store = stack(place)?;
    noise(&store.get("child")?.join("large"), 4 << 20)?;
    let diff = slow_diff(&store, "child")?;
    let begin = Instant::now();
    store.put("child")?;
    ensure!(mounts_below(store.root()).is_empty(), "still mounted: {:?}", mounts_below(store.root()));
    let path = store.get("child")?;
    store.get("child")?;
    store.put("child")?;
    ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
    ensure!(path.join("large").exists(), "it is not mounted");
    // They do not wait for the reader, which waits for us.
    ensure!(begin.elapsed() < Duration::from_secs(20), "they took {:.1?}", begin.elapsed());
    ensure!(taken(diff)? > 4 << 20, "the archive is cut short");
    store.put("child")
}

fn kept_by_a_reader(place: &Place) -> Result<()> {
    let store = stack(place)?;
    // Of a layer that was lent since it was filled nobody says that it does not change, so it could be got
    // meanwhile.
    store.apply("child", &tar(&[file("large", vec![7; 5 << 20])]))?.expect(0)?;
    let diff = slow_diff(&store, "child")?;
    let process = diff.id();
    let owned = &store;
    std::thread::scope(|scope| {
        let waiting =
            [["get", "child"], ["remove", "child"]].map(|call| scope.spawn(move || owned.run(call)));
        // A second owner of the store waits as long, and hears of those who have it now.
        let socket = place.join("sock");
        let serve = run(store.command(["serve", "--socket"]).arg(&socket), b"")?.expect(4)?;
        ensure!(
            serve.stderr.contains("in use by process") && serve.stderr.contains(&process.to_string()),
            "{serve}"
        );
        for call in waiting {
            let output = call.join().map_err(|_| anyhow::anyhow!("a panic"))??.expect(4)?;
            let named =
                output.stderr.contains("in work by process") && output.stderr.contains(&process.to_string());
            ensure!(
                named && output.stderr.contains("try again") && !output.stderr.contains("--force"),
                "{output}"
            );
        }
        Ok(())
    })?;
    ensure!(taken(diff)? > 4 << 20, "the archive is cut short");
    store.get("child")?;
    store.put("child")?;
    store.ok(["remove", "child"]).map(drop)
}

/// `base` with two files, and `child` over it.
fn stack(place: &Place) -> Result<Store> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("from-base", "b"), file("kept", "k")])?;
    store.create("child", Some("base"))?;
    Ok(store)
}

fn elsewhere(place: &Place) -> Result<()> {
    let store = stack(place)?;
    let mut inside = Command::new("unshare");
    inside.args(["--mount", "--propagation", "private", "sh", "-c", "\"$@\" && read line", "sh"]);
    let mut inside = under(inside, &store.command(["get", "child"]));
    let mut inside = inside.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut got = String::new();
    BufReader::new(inside.stdout.take().context("no pipe")?).read_line(&mut got)?;
    ensure!(got.trim_end().ends_with("/mnt/child"), "it was not got there: {got:?}");
    let who = format!("process {} (sh)", inside.id());
    for call in
        [&["get", "child"][..], &["put", "child"], &["remove", "child"], &["remove", "child", "--force"]]
    {
        store.run(call.iter().copied())?.expect(4)?.says("busy")?.says(&who)?;
    }
    ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
    ensure!(store.ok(["--json", "check", "--repair"])?.trim() == "[]", "a check finds something");
    ensure!(store.references("child")? == 1, "after a check the count is {}", store.references("child")?);
    drop(inside.stdin.take());
    inside.wait()?;
    ensure!(store.references("child")? == 0, "it is counted, and nobody is there any more");
    let again = store.get("child")?;
    ensure!(again.join("from-base").exists(), "it cannot be got again");
    store.put("child")?;
    store.ok(["remove", "child"])?;
    store.knows_nothing_of("child")
}

/// What a private copy of the namespace unmounts stays mounted here.
fn copied(place: &Place) -> Result<()> {
    let store = stack(place)?;
    let merged = store.get("child")?;
    let there = |call: &[&str]| {
        let mut copy = Command::new("unshare");
        copy.args(["--mount", "--propagation", "private"]);
        run(&mut under(copy, &store.command(call.iter().copied())), b"")
    };
    for call in [&["put", "child"][..], &["remove", "child"], &["remove", "child", "--force"], &["cleanup"]] {
        there(call)?.expect(4)?;
    }
    there(&["put", "child"])?.says("as well")?.says("process")?;
    ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
    // It is seen there, so it can be used there.
    there(&["get", "child"])?.expect(0)?;
    there(&["put", "child"])?.expect(0)?;
    ensure!(merged.join("from-base").exists(), "it is gone here");
    store.put("child")?;
    ensure!(store.references("child")? == 0, "it is still counted");
    store.ok(["remove", "child"])?;
    store.ok(["check"]).map(drop)
}

fn of_a_copy(place: &Place) -> Result<()> {
    let store = stack(place)?;
    let copy = Store::new(place.join("copy"), Dialect::Overlay);
    shell("cp -a \"$1\" \"$2\"", [store.root(), copy.root()])?;
    let merged = store.get("child")?;
    ensure!(copy.references("child")? == 0, "it is counted in the copy");
    ensure!(copy.ok(["--json", "check", "--repair"])?.trim() == "[]", "a check finds something");
    ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
    store.run(["remove", "child"])?.expect(4)?;
    ensure!(copy.get("child")?.starts_with(copy.root()), "it is got from the first one");
    copy.put("child")?;
    copy.ok(["remove", "child"])?;
    ensure!(
        merged.join("from-base").exists() && store.content("child").exists(),
        "it is gone from the first one"
    );
    store.put("child")
}

/// The store by another path, which sees nothing of what is mounted later by the first one.
fn bound(place: &Place, store: &Store, flags: MsFlags) -> Result<Store> {
    let path = place.make("bound")?;
    mount(Some(store.root()), &path, None::<&str>, MsFlags::MS_BIND | flags, None::<&str>)?;
    Ok(Store::new(path, store.dialect()))
}

fn by_another_path(place: &Place) -> Result<()> {
    let store = stack(place)?;
    let bound = bound(place, &store, MsFlags::empty())?;
    for (here, there) in [(&store, &bound), (&bound, &store)] {
        let merged = here.get("child")?;
        let at = format!("{merged:?}");
        for call in
            [&["get", "child"][..], &["put", "child"], &["remove", "child"], &["remove", "child", "--force"]]
        {
            there.run(call.iter().copied())?.expect(4)?.says("busy")?.says(&at)?;
        }
        ensure!(there.ok(["--json", "check", "--repair"])?.trim() == "[]", "a check finds something");
        there.ok(["cleanup"])?;
        for store in [here, there] {
            ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
        }
        ensure!(merged.join("from-base").exists(), "it is not mounted any more");
        here.put("child")?;
        ensure!(there.references("child")? == 0, "it is still counted");
    }
    bound.ok(["remove", "child"])?;
    store.knows_nothing_of("child")
}

fn kept_by_another_path(place: &Place) -> Result<()> {
    let store = stack(place)?;
    let merged = store.get("child")?;
    // A copy of the mount comes along, which stays when the first one goes.
    let bound = bound(place, &store, MsFlags::MS_REC)?;
    bound.get("child")?;
    bound.put("child")?;
    bound.run(["put", "child"])?.expect(4)?.says("as well")?.says(&format!("{merged:?}"))?;
    bound.run(["remove", "child", "--force"])?.expect(4)?.says("as well")?;
    ensure!(store.references("child")? == 1 && merged.join("from-base").exists(), "it is gone");
    store.put("child")?;
    // Nobody counts that one, and the layer is as it was.
    let before = picture(store.root())?;
    store.run(["remove", "child"])?.expect(4)?.says("by another path")?;
    same(&before, &picture(store.root())?, Except { directory_times: true, ..Except::default() })?;
    ensure!(store.ok(["--json", "check"])?.trim() == "[]", "a check finds something");
    unmount(&bound.root().join("mnt/child"))?;
    store.ok(["remove", "child"])?;
    store.knows_nothing_of("child")
}

fn busy_point(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("f", "f")])?;
    let bound = bound(place, &store, MsFlags::empty())?;
    let point = bound.root().join("mnt/base");
    mount(Some("none"), &point, Some("tmpfs"), MsFlags::empty(), None::<&str>)?;
    // A removal that was killed after its first step.
    fs::rename(store.root().join("meta/base"), store.root().join("pending/base"))?;
    store.run(["exists", "base"])?.expect(3)?;
    let found: serde_json::Value = serde_json::from_slice(&store.run(["--json", "check"])?.stdout)?;
    ensure!(found[0]["place"] == "pending/base" && found[0]["repaired"] == false, "{found}");
    ensure!(found[0]["what"].as_str().is_some_and(|what| what.contains("by another path")), "{found}");
    ensure!(found.as_array().map(Vec::len) == Some(1), "{found}");
    store.run(["create", "base"])?.expect(4)?.says("busy")?;
    store.create("other", None)?;
    ensure!(!store.content("base").exists(), "its content is still there");
    unmount(&point)?;
    store.create("base", None)?;
    ensure!(store.ok(["--json", "check"])?.trim() == "[]", "a check finds something");
    store.is_empty_and_reusable("base")
}

fn no_look(place: &Place) -> Result<()> {
    let store = stack(place)?;
    store.get("child")?;
    let log = place.join("calls");
    for call in
        [&["list"][..], &["exists", "child"], &["get", "child"], &["put", "child"], &["metadata", "child"]]
    {
        let mut traced = Command::new("strace");
        traced.args(["-f", "-qq", "-e", "trace=open,openat,openat2", "-o"]).arg(&log);
        run(&mut under(traced, &store.command(call.iter().copied())), b"")?.expect(0)?;
        let calls = fs::read_to_string(&log)?;
        ensure!(calls.contains("layerbox.json"), "the case does not see the calls of {call:?}");
        ensure!(!calls.contains("\"/proc\""), "{call:?} looks at all processes");
    }
    store.put("child")
}

fn below(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let archive = tar(&[file("from-base", "b")]);
    store.create("base", None)?;
    store.create("middle", Some("base"))?;
    store.create("child", Some("middle"))?;
    store.create("other", None)?;
    let merged = store.get("child")?;
    for id in ["base", "middle"] {
        store.apply(id, &archive)?.expect(4)?.says("child")?;
        ensure!(names(&store.root().join("stage"))?.is_empty(), "something is left in stage/");
    }
    store.apply("other", &archive)?.expect(0)?;
    fs::write(merged.join("new"), "n")?;
    store.put("child")?;
    let (half, rest) = archive.split_at(700);
    let states = |state: &str| -> Result<()> {
        let layers: serde_json::Value = serde_json::from_str(&store.ok(["--json", "list"])?)?;
        let base = layers.as_array().into_iter().flatten().find(|layer| layer["id"] == "base");
        ensure!(base.is_some_and(|base| base["state"] == state), "not {state}: {layers}");
        let text = store.ok(["metadata", "base"])?;
        ensure!(text.lines().any(|line| line == format!("State: {state}")), "not {state}: {text}");
        Ok(())
    };
    states("complete")?;
    let filled = store.apply_with("base", |mut pipe| {
        let mut during = || -> Result<()> {
            pipe.write_all(half)?;
            let filled = || Ok(store.root().join("stage/base").exists());
            eventually("base is being filled", filled)?;
            states("incomplete")?;
            store.run(["get", "child"])?.expect(4)?.says("base")?;
            ensure!(mounts_below(store.root()).is_empty(), "it is mounted");
            ensure!(store.references("child")? == 0, "it is counted");
            pipe.write_all(rest)?;
            Ok(())
        };
        if let Err(error) = during() {
            panic!("{error:#}");
        }
    })?;
    filled.expect(0)?;
    states("complete")?;
    let merged = store.get("child")?;
    ensure!(names(&merged)? == ["from-base", "new"], "the mount holds {:?}", names(&merged)?);
    store.put("child")
}

fn crowd(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("a", "a")])?;
    let archive = layerbox_tests::archive::tar(&[file("b", "b"), whiteout("a")]);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6)
            .map(|worker| {
                let (store, archive) = (&store, &archive);
                scope.spawn(move || -> Result<()> {
                    for round in 0..5 {
                        let id = format!("w{worker}-{round}");
                        store.create(&id, Some("base"))?;
                        store.apply(&id, archive)?.expect(0)?;
                        ensure!(
                            store.changes(&id)? == ["D /a", "A /b"],
                            "changes of {id}: {:?}",
                            store.changes(&id)?
                        );
                        if round % 2 == 0 {
                            store.ok(["remove", &id])?;
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        // One that shall not be made twice: exactly one of two succeeds.
        for _ in 0..5 {
            let codes: Vec<i32> = std::thread::scope(|scope| {
                let both: Vec<_> = (0..2)
                    .map(|_| {
                        scope.spawn(|| store.run(["create", "contested"]).map_or(-1, |output| output.code))
                    })
                    .collect();
                both.into_iter().map(|one| one.join().unwrap_or(-1)).collect()
            });
            ensure!(codes.contains(&0) && codes.contains(&4), "two creates of one id end with {codes:?}");
            store.ok(["remove", "contested"])?;
        }
        for worker in workers {
            worker.join().map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        }
        Ok(())
    })?;
    let mut list = Command::new(binary());
    list.arg("--root").arg(store.root()).args(["--json", "list"]);
    let layers: serde_json::Value = serde_json::from_slice(&run(&mut list, b"")?.expect(0)?.stdout)?;
    ensure!(layers.as_array().map(Vec::len) == Some(1 + 6 * 2), "{layers}");
    Ok(())
}
