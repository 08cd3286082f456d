//! File systems with no room: errors that say of what there is none left, nothing half made, and layers that
//! can be removed.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, file, tar};
use serde_json::Value;

use super::world::{leftovers, look};
use crate::command::{run, tool};
use crate::harness::{Case, Need, Skip, case};
use crate::scratch::{Place, fill};
use crate::store::{Dialect, Store};

/// The size of a small file system in bytes.
const SIZE: u64 = 32 << 20;

/// Fewer inodes than an archive has entries.
const INODES: &str = "256";

pub fn cases() -> Vec<Case> {
    let overlay = Need::Filesystem("overlay");
    vec![
        case("full: an archive that needs more bytes than there are", |place| {
            let store = Store::new(disk(place, &[])?, Dialect::Overlay);
            store.create("base", None)?;
            says(&store, &["apply-diff", "base"], &tar(&large(SIZE)), "no-space")?;
            store.is_empty_and_reusable("base")
        }),
        case("full: an archive that needs more inodes than there are", |place| {
            let store = Store::new(disk(place, &["-N", INODES])?, Dialect::Overlay);
            store.create("base", None)?;
            says(&store, &["apply-diff", "base"], &tar(&many(500)), "no-inodes")?;
            store.is_empty_and_reusable("base")
        }),
        case("full: an archive that needs more than the quota allows", quota),
        case("full: without a byte left, nothing is half made, and layers are removed", |place| {
            let store = Store::new(disk(place, &[])?, Dialect::Overlay);
            stack(&store)?;
            let filler = store.root().with_file_name("filler");
            fill(&filler)?;
            no_room(&store, "no-space")
        })
        .needs(overlay),
        case("full: without an inode left, nothing is half made, and layers are removed", |place| {
            let store = Store::new(disk(place, &["-N", INODES])?, Dialect::Overlay);
            stack(&store)?;
            let files = store.root().with_file_name("files");
            fs::create_dir(&files)?;
            for number in 0.. {
                if File::create(files.join(number.to_string())).is_err() {
                    break;
                }
            }
            no_room(&store, "no-inodes")
        })
        .needs(overlay),
    ]
}

/// A small ext4 of its own, made with these options, and the place for a store on it.
fn disk(place: &Place, options: &[&str]) -> Result<PathBuf> {
    let (image, on) = (place.join("image"), place.make("disk")?);
    File::create(&image)?.set_len(SIZE)?;
    // No blocks are kept for root, who would else never see the disk full.
    let options = ["-q", "-F", "-m", "0"].iter().chain(options).map(AsRef::as_ref);
    tool("mkfs.ext4", options.chain([image.as_os_str()]))?;
    tool("mount", ["-o".as_ref(), "loop".as_ref(), image.as_os_str(), on.as_os_str()])?;
    Ok(on.join("s"))
}

fn stack(store: &Store) -> Result<()> {
    store.layer("base", None, &[file("of-base", vec![1; 100_000])])?;
    store.layer("top", Some("base"), &[file("of-top", vec![2; 100_000])])?;
    store.create("empty", Some("base"))
}

/// Holds a store without any room left to its promises.
fn no_room(store: &Store, code: &str) -> Result<()> {
    let before = look(store)?;
    says(store, &["create", "new"], b"", code)?;
    says(store, &["apply-diff", "empty"], &tar(&many(50)), code)?;
    let after = look(store)?;
    ensure!(before == after, "something was half made: {after:?}");
    let left = leftovers(store, &after)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    for id in ["top", "empty", "base"] {
        store.ok(["remove", id])?;
        store.knows_nothing_of(id)?;
    }
    let left = leftovers(store, &look(store)?)?;
    ensure!(left.is_empty(), "left behind by removals: {left:?}");
    store.ok(["check"])?;
    // There is room again.
    store.layer("again", None, &[file("file", "again")])
}

/// Holds a call to fail with a code, and to say where there is nothing left.
fn says(store: &Store, arguments: &[&str], input: &[u8], code: &str) -> Result<()> {
    let output = run(&mut store.command(["--json"].iter().chain(arguments).copied()), input)?.expect(1)?;
    let told = [output.stderr.as_bytes(), &output.stdout].into_iter().find_map(|text| {
        let line = text.split(|byte| *byte == b'\n').find(|line| line.starts_with(b"{"))?;
        serde_json::from_slice::<Value>(line).ok()
    });
    ensure!(told.as_ref().is_some_and(|told| told["code"] == code), "not {code}: {told:?} {output}");
    Ok(())
}

fn many(count: usize) -> Vec<Member> {
    (0..count).map(|number| file(format!("file-{number}"), "x".repeat(5000))).collect()
}

fn large(bytes: u64) -> Vec<Member> {
    let part = 1 << 20;
    (0..=bytes / part).map(|number| file(format!("part-{number}"), vec![4; part as usize])).collect()
}

/// A project quota of ext4 on the directory of the store.
fn quota(place: &Place) -> Result<()> {
    let (image, on) = (place.join("image"), place.make("disk")?);
    File::create(&image)?.set_len(SIZE)?;
    let options = ["-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota"].map(AsRef::as_ref);
    tool("mkfs.ext4", options.into_iter().chain([image.as_os_str()]))?;
    let mounted = tool("mount", ["-o".as_ref(), "loop,prjquota".as_ref(), image.as_os_str(), on.as_os_str()]);
    if mounted.is_err() {
        return Err(Skip(
            "this kernel has no project quota on ext4; that calls fail with EDQUOT is among the crash points"
                .to_owned(),
        )
        .into());
    }
    let root = on.join("s");
    fs::create_dir(&root)?;
    tool("chattr", ["-p", "7", "+P"].map(AsRef::as_ref).into_iter().chain([root.as_os_str()]))?;
    tool(
        "setquota",
        ["-P", "7", "0", "4096", "0", "0"].map(AsRef::as_ref).into_iter().chain([on.as_os_str()]),
    )?;
    let store = Store::new(root, Dialect::Overlay);
    store.create("base", None)?;
    says(&store, &["apply-diff", "base"], &tar(&large(8 << 20)), "quota")?;
    store.is_empty_and_reusable("base")?;
    store.ok(["remove", "base"]).map(drop)
}
