//! The known faults of Docker's aufs driver, a case for each: layerbox does not have them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, dir, file, opaque, symlink as link, whiteout};
use layerbox_tests::tree::names;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::command::{binary, run};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, mounts_below};
use crate::store::{Dialect, Store};

/// The layers of a row, the lowest first; one of them may lead to the case's own directory.
type Layers = fn(&Place) -> Vec<Vec<Member>>;

pub(super) fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    let mut cases = vec![
        case("faults of Docker: an unknown parent leaves no record that looks like a base layer", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.run(["create", "child", "--parent", "nobody"])?.expect(3)?;
            store.knows_nothing_of("child")?;
            let list = store.run(["list"])?;
            ensure!(!list.text().contains("child"), "{}", list.text());
            Ok(())
        }),
        case("faults: removals that were interrupted do not keep a store from being opened", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            store.layer("init", Some("base"), &[file("b", "b")])?;
            store.layer("top", Some("init"), &[file("c", "c")])?;
            // As a kill leaves them right after they were made not to exist: the marks that they are
            // somebody's children are still there.
            for id in ["init", "top"] {
                fs::write(store.root().join("pending").join(id), "")?;
                fs::remove_file(store.root().join("meta").join(id))?;
            }
            // The opening mends it, and check tells of that.
            let found = store.run(["check"])?.expect(0)?.text();
            ensure!(found.lines().all(|line| line.contains("(repaired: ")), "{found}");
            ensure!(store.ok(["check"])?.is_empty(), "the second check finds something");
            store.knows_nothing_of("top")?;
            store.knows_nothing_of("init")?;
            store.ok(["remove", "base"])?;
            store.knows_nothing_of("base")
        }),
        case(
            "faults: a parent stays while a child has lost its record, or the marks of children are gone",
            |place| {
                let store = Store::new(place.join("s"), Dialect::Overlay);
                for (id, parent) in [("a", None), ("b", Some("a")), ("c", Some("b"))] {
                    store.layer(id, parent, &[file(id, id)])?;
                }
                let refused =
                    |id: &str| store.run(["remove", id])?.expect(1)?.says("hint: layerbox check says more");
                for place in ["meta/b", "meta/c"] {
                    fs::remove_file(store.root().join(place))?;
                }
                refused("a")?;
                store.ok(["check", "--repair"])?;
                fs::remove_dir_all(store.root().join("children"))?;
                for id in ["a", "b", "c"] {
                    refused(id)?;
                }
                store.ok(["check", "--repair"])?;
                ensure!(store.ok(["check"])?.is_empty(), "the second check finds something");
                store.run(["remove", "a"])?.expect(4)?;
                store.ok(["remove", "c", "b", "a"]).map(drop)
            },
        ),
        case("faults: what Docker adds to a store that was adopted is adopted as well", |place| {
            let store = Store::new(place.join("s"), Dialect::Aufs);
            let add = |id: &str, ancestors: &str| -> Result<()> {
                for kind in ["diff", "mnt"] {
                    fs::create_dir_all(store.root().join(kind).join(id))?;
                }
                fs::create_dir_all(store.root().join("layers"))?;
                Ok(fs::write(store.root().join("layers").join(id), ancestors)?)
            };
            add("a", "")?;
            add("b", "a\n")?;
            store.ok(["list"])?;
            add("z", "a\n")?;
            add("n", "z\na\n")?;
            store.run(["remove", "a"])?.expect(4)?;
            store.run(["remove", "z"])?.expect(4)?;
            let found = store.ok(["list"])?;
            ensure!(found.matches("complete").count() == 4 && !found.contains("incomplete"), "{found}");
            // One that lies on what there is not is not taken over, and keeps its parent.
            add("odd", "b\n")?;
            store.run(["remove", "b"])?.expect(1)?.says("layers/odd")?;
            store.ok(["remove", "n", "z"]).map(drop)
        }),
        case("faults of Docker: the count does not stay up after a failed mount", failed_mount)
            .needs(overlay),
        case("faults of Docker: a base layer that was got leaves nothing when it is removed", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            ensure!(store.get("base")? == store.content("base"), "a base layer is seen where it lies");
            ensure!(mounts_below(store.root()).is_empty(), "a base layer was mounted");
            store.put("base")?;
            store.ok(["remove", "base"])?;
            store.knows_nothing_of("base")
        }),
        case("faults of Docker: layers/ID is written at once or not at all", atomically)
            .needs(Need::Tool("strace")),
        case("faults of Docker: what diff cannot read is an error that names it, not a gap", unreadable),
        case(
            "faults of Docker: a layer's path longer than any option buffer is mounted all the same",
            long_path,
        )
        .needs(overlay),
        case("faults of Docker: branches beyond a page of options are all there", beyond_a_page)
            .needs(overlay),
    ];
    for dialect in Dialect::ALL {
        let name = dialect.name();
        let rows: [(&str, Layers, &[&str]); 5] = [
            (
                "changes follows no symlink to the host",
                |place| {
                    vec![
                        vec![link("out", place.join("host").as_os_str().as_encoded_bytes())],
                        vec![dir("out/"), file("out/hello", "x")],
                    ]
                },
                &["C /out", "A /out/hello"],
            ),
            (
                "changes does not name the opaque mark",
                |_| vec![vec![dir("d/")], vec![dir("d/"), opaque("d"), file("d/new", "x")]],
                &["C /d", "A /d/new"],
            ),
            (
                "changes names what an opaque directory hides",
                |_| vec![vec![file("d/old", "x"), file("d/sub/older", "x")], vec![dir("d/"), opaque("d")]],
                &["C /d", "D /d/old", "D /d/sub"],
            ),
            (
                "changes calls a file added that the parent had deleted",
                |_| {
                    vec![
                        vec![file("f", "1"), file("g", "1")],
                        vec![whiteout("f"), whiteout("g")],
                        vec![file("f", "2")],
                    ]
                },
                &["A /f"],
            ),
            (
                "changes calls a file added where the parent had hidden its directory",
                |_| {
                    vec![
                        vec![file("d/f", "1")],
                        vec![dir("d/"), opaque("d")],
                        vec![dir("d/"), file("d/f", "2")],
                    ]
                },
                &["C /d", "A /d/f"],
            ),
        ];
        for (title, layers, want) in rows {
            cases.push(case(format!("faults of Docker ({name}): {title}"), move |place| {
                fs::create_dir(place.join("host"))?;
                fs::write(place.join("host/hello"), "x")?;
                symlink("hello", place.join("host/link"))?;
                let store = Store::new(place.join("s"), dialect);
                let layers = layers(place);
                for (number, members) in layers.iter().enumerate() {
                    let parent = number.checked_sub(1).map(|number| format!("l{number}"));
                    store.layer(&format!("l{number}"), parent.as_deref(), members)?;
                }
                let found = store.changes(&format!("l{}", layers.len() - 1))?;
                ensure!(found == want, "{found:?} and not {want:?}");
                Ok(())
            }));
        }
    }
    cases
}

fn failed_mount(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    store.create("child", Some("base"))?;
    // overlayfs wants a directory to work in.
    let work = store.root().join("work/child");
    fs::remove_dir_all(&work)?;
    fs::write(&work, "in the way")?;
    store.run(["get", "child"])?.expect(1)?;
    ensure!(store.references("child")? == 0, "the count is {}", store.references("child")?);
    fs::remove_file(&work)?;
    fs::create_dir(&work)?;
    store.get("child")?;
    ensure!(store.references("child")? == 1, "the count is {}", store.references("child")?);
    store.put("child")?;
    ensure!(mounts_below(store.root()).is_empty(), "one put did not unmount what one get mounted");
    Ok(())
}

/// Kills `create` at each of the system calls that change something, one after the other. Whatever is there
/// afterwards is whole.
fn atomically(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let calls = "mkdirat,mkdir,rename,renameat,renameat2,fsync,fdatasync,syncfs,unlink,unlinkat,write,writev,pwrite64,linkat,ftruncate";
    let (mut killed, mut number) = (0, 0);
    loop {
        number += 1;
        ensure!(number < 300, "create makes more than 300 of these calls");
        let id = format!("child{number}");
        let mut command = Command::new("strace");
        command
            .args([
                "-f",
                "-qq",
                "-o",
                "/dev/null",
                "-e",
                &format!("inject={calls}:signal=KILL:when={number}"),
            ])
            .arg(binary())
            .arg("--root")
            .arg(store.root())
            .args(["create", &id, "--parent", "base"]);
        let done = run(&mut command, b"")?.code == 0;
        let record = store.root().join("layers").join(&id);
        if record.exists() {
            let text = fs::read_to_string(&record)?;
            ensure!(text == "base\n", "killed at call {number}: layers/{id} holds {text:?}");
        } else {
            ensure!(!done, "create succeeded, and layers/{id} is not there");
        }
        if done {
            break;
        }
        killed += 1;
        // The next call sweeps what is half made; the layer is whole or not there, and its id can be used.
        match store.run(["exists", &id])?.code {
            0 => store.ok(["remove", &id]).map(drop)?,
            _ => store.create(&id, Some("base"))?,
        }
        for directory in ["stage", "pending"] {
            let left = names(&store.root().join(directory)).unwrap_or_default();
            ensure!(left.is_empty(), "killed at call {number}: {directory}/ holds {left:?}");
        }
    }
    ensure!(killed >= 5, "create was killed {killed} times only: the case does not see its calls");
    store.run(["check"])?.expect(0).map(drop)
}

/// A file of sysfs says that it has 4096 bytes and gives fewer.
fn unreadable(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("a", "a"), file("broken", "x"), file("z", "z")])?;
    let broken = store.content("base").join("broken");
    let lying = PathBuf::from("/sys/kernel/uevent_seqnum");
    ensure!(
        fs::metadata(&lying)?.len() != fs::read(&lying)?.len() as u64,
        "this file does not lie about its size"
    );
    mount(Some(&lying), &broken, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    let out = place.join("out.tar");
    let mut command = store.command(["diff", "base", "-o"]);
    command.arg(&out);
    let output = run(&mut command, b"");
    umount2(&broken, MntFlags::MNT_DETACH)?;
    output?.expect(1)?.says("broken")?;
    ensure!(!out.exists(), "an archive that is not whole was left as if it were");
    ensure!(store.diff("base")?.len() > 1024, "the layer cannot be read any more");
    Ok(())
}

fn long_path(place: &Place) -> Result<()> {
    for length in [300, 1000, 3800] {
        let mut root = place.path().to_owned();
        while root.as_os_str().len() + 101 < length {
            root.push("r".repeat(100));
        }
        fs::create_dir_all(&root)?;
        let store = Store::new(root.join("s"), Dialect::Overlay);
        store.layer("base", None, &[file("from-base", "b")])?;
        store.layer("middle", Some("base"), &[file("from-middle", "m")])?;
        store.create("top", Some("middle"))?;
        let mounted = store.get("top")?;
        let found = names(&mounted)?;
        store.put("top")?;
        ensure!(found == ["from-base", "from-middle"], "a root of {length} bytes: the mount holds {found:?}");
    }
    Ok(())
}

fn beyond_a_page(place: &Place) -> Result<()> {
    let store = Store::new(
        place.join("a-directory-with-a-long-name-so-that-few-branches-fill-a-page").join("s"),
        Dialect::Overlay,
    );
    fs::create_dir_all(store.root().parent().unwrap_or(place.path()))?;
    let id = |number: usize| format!("{number:0128}");
    for number in 0..60usize {
        let parent = number.checked_sub(1).map(id);
        store.layer(&id(number), parent.as_deref(), &[file(format!("f{number:02}"), "")])?;
    }
    let mounted = store.get(&id(59))?;
    let found = names(&mounted)?;
    store.put(&id(59))?;
    let want: Vec<String> = (0..60).map(|number| format!("f{number:02}")).collect();
    ensure!(found == want, "the mount holds {} of 60 files", found.len());
    Ok(())
}
