//! A store that is rewritten for the other backend holds the same layers, mounts, and is what it was when it
//! is rewritten back.

mod refused;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{Member, dir, file, hard_link, opaque, whiteout};
use layerbox_tests::tree::{Except, Tree, names, picture, same};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use serde_json::{Value, json};

use crate::command::{binary, shell};
use crate::harness::{Case, Need, case, has_filesystem};
use crate::scratch::Place;
use crate::store::{Dialect, Store, bare};

/// Something in a layer of Docker's aufs driver.
enum Thing {
    Dir(&'static [u8]),
    File(&'static [u8], &'static str),
    Symlink(&'static [u8]),
    /// A mark as aufs makes it: a name of `.wh..wh.aufs` in the root, which is made with the first.
    Mark(&'static [u8]),
    /// A mark as an unpacked image has it: an empty file.
    Plain(&'static [u8]),
}

use Thing::{Dir, File, Mark, Plain, Symlink};

/// A layer of aufs that lies on [`lower`].
struct Row {
    title: &'static str,
    layer: &'static [Thing],
    /// How many deletions are rewritten.
    deletions: u64,
    /// Whether the way back leads to the very same names.
    exact: bool,
}

const LOWER: &[Thing] = &[
    Dir(b"d"),
    File(b"d/a", "a"),
    File(b"d/b", "b"),
    Dir(b"d/sub"),
    File(b"d/sub/deep", "deep"),
    Dir(b"e"),
    File(b"e/f", "f"),
    File(b"file", "file"),
    File(b"other", "other"),
];

const LONG: &[u8] = &{
    let mut name = [b'n'; 255];
    (name[0], name[1], name[2], name[3]) = (b'.', b'w', b'h', b'.');
    name
};

const ROWS: &[Row] = &[
    Row { title: "nothing is deleted", layer: &[File(b"new", "new")], deletions: 0, exact: true },
    Row { title: "an empty layer", layer: &[], deletions: 0, exact: true },
    Row {
        title: "a container has deleted a file",
        layer: &[Mark(b".wh.file"), Dir(b".wh..wh.plnk"), Dir(b".wh..wh.orph")],
        deletions: 1,
        exact: true,
    },
    Row { title: "an image deletes a file", layer: &[Plain(b".wh.file")], deletions: 1, exact: true },
    Row {
        title: "deletions in directories",
        layer: &[Dir(b"d"), Mark(b"d/.wh.a"), Dir(b"d/sub"), Mark(b"d/sub/.wh.deep"), Mark(b".wh.e")],
        deletions: 3,
        exact: true,
    },
    Row {
        title: "a directory is opaque",
        layer: &[Dir(b"d"), Mark(b"d/.wh..wh..opq"), File(b"d/c", "c"), Dir(b"d/sub")],
        deletions: 1,
        exact: true,
    },
    Row {
        title: "the root is opaque",
        layer: &[Plain(b".wh..wh..opq"), File(b"only", "this")],
        deletions: 1,
        exact: true,
    },
    Row {
        title: "aufs keeps something for itself",
        layer: &[
            Mark(b".wh.file"),
            Dir(b".wh..wh.plnk"),
            File(b".wh..wh.plnk/12.34", "linked"),
            Dir(b".wh..wh.orph"),
            File(b".wh..wh.orph/5", "orphan"),
            Dir(b"d"),
            Dir(b"d/.wh..wh.sub.0001"),
            File(b"d/.wh..wh.sub.0001/left", "left"),
            Plain(b"d/.wh."),
            Plain(b"d/.wh..wh.opq"),
        ],
        deletions: 1,
        exact: true,
    },
    Row {
        title: "marks that are no empty files",
        layer: &[
            File(b".wh.file", "content"),
            Dir(b"d"),
            Dir(b"d/.wh.sub"),
            File(b"d/.wh.sub/x", "x"),
            Symlink(b"d/.wh.a"),
        ],
        deletions: 3,
        exact: true,
    },
    Row {
        title: "a file beside its own deletion",
        layer: &[File(b"file", "again"), Plain(b".wh.file")],
        deletions: 1,
        // The file says all that the mark says, and a mark beside what was made anew must not come back.
        exact: false,
    },
    Row {
        title: "a directory beside its own deletion",
        layer: &[Dir(b"d"), File(b"d/c", "c"), Plain(b".wh.d")],
        deletions: 1,
        // It is opaque, which aufs can say in two ways.
        exact: false,
    },
    Row {
        title: "deletions of names of all bytes and of all the length there is",
        layer: &[Mark(b".wh.\xff\n\\ "), Plain(LONG), Mark(b".wh...."), Mark(b".wh..hidden")],
        deletions: 4,
        exact: true,
    },
];

pub(super) fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = ROWS
        .iter()
        .map(|row| {
            case(format!("convert: {}: from aufs to overlay, mounted, and back", row.title), move |place| {
                there_and_back(place, row)
            })
            .needs(Need::Filesystem("overlay"))
        })
        .collect();
    let overlay = Need::Filesystem("overlay");
    cases.extend([
        case("convert: a store that was adopted, mounted and changed goes back as it is", changed)
            .needs(overlay),
        case(
            "convert: a store of overlay, mounted before, becomes one of aufs, and comes back",
            from_overlay,
        )
        .needs(overlay),
        case("convert: more deletions than a file can have names, and than a batch has directories", many),
        case("convert: in a user namespace, for that", in_user_namespace)
            .needs(overlay)
            .needs(Need::Tool("unshare")),
        case("convert: an aufs store on a kernel without aufs says how it can be mounted", |place| {
            let store = old(place, &[Plain(b".wh.file")])?;
            let output = store.run(["get", "top"])?;
            if has_filesystem("aufs") {
                return output.expect(0).map(drop);
            }
            output.expect(1)?.says("no aufs")?.says("hint: layerbox convert --backend overlay").map(drop)
        }),
        case("convert: what aufs kept goes with its layer", |place| {
            let store = old(place, &[Mark(b".wh.file")])?;
            store.ok(["convert"])?;
            ensure!(store.root().join("aufs/top/.wh..wh.aufs").exists(), "it is not kept");
            store.ok(["remove", "top"])?;
            ensure!(!store.root().join("aufs/top").exists(), "it stays behind");
            store.ok(["check", "--deep"]).map(drop)
        }),
    ]);
    cases.extend(refused::cases());
    cases
}

fn at(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

/// Lays things out in the content of a layer, all directories with times of their own.
fn lay(root: &Path, things: &[Thing]) -> Result<()> {
    fs::create_dir_all(root)?;
    let base = root.join(".wh..wh.aufs");
    for thing in things {
        match *thing {
            Dir(name) => fs::create_dir(at(root, name))?,
            File(name, content) => fs::write(at(root, name), content)?,
            Symlink(name) => symlink("nowhere", at(root, name))?,
            Plain(name) => fs::write(at(root, name), "")?,
            Mark(name) => {
                if !base.exists() {
                    fs::write(&base, "")?;
                    fs::set_permissions(&base, fs::Permissions::from_mode(0o444))?;
                }
                fs::hard_link(&base, at(root, name))?;
            }
        }
    }
    let directories = picture(root)?.into_iter().filter(|(_, entry)| entry.kind == "directory");
    for (number, (name, _)) in directories.enumerate() {
        let time = TimeSpec::new(1_500_000_000 + number as i64, 123_456_789);
        utimensat(AT_FDCWD, &at(root, &name), &time, &time, UtimensatFlags::NoFollowSymlink)?;
    }
    Ok(())
}

/// A store of Docker's aufs driver: `base`, and `top` on it.
fn old(place: &Place, top: &[Thing]) -> Result<Store> {
    let root = place.join("s");
    for (id, ancestors, things) in [("base", "", LOWER), ("top", "base\n", top)] {
        fs::create_dir_all(root.join("layers"))?;
        fs::create_dir_all(root.join("mnt").join(id))?;
        fs::write(root.join("layers").join(id), ancestors)?;
        lay(&root.join("diff").join(id), things)?;
    }
    Ok(Store::new(root, Dialect::Aufs).of_any_backend())
}

/// What a store says of its layers: the archives, and the changes.
fn said(store: &Store) -> Result<Vec<(Vec<u8>, Vec<String>)>> {
    ["base", "top"].into_iter().map(|id| Ok((store.diff(id)?, store.changes(id)?))).collect()
}

fn pictures(store: &Store) -> Result<Vec<Tree>> {
    ["base", "top"].into_iter().map(|id| picture(&store.content(id))).collect()
}

fn convert(store: &Store, to: &str) -> Result<Value> {
    let output = store.run(["--json", "convert", "--backend", to])?.expect(0)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn there_and_back(place: &Place, row: &Row) -> Result<()> {
    let store = old(place, row.layer)?;
    let (before, said_before) = (pictures(&store)?, said(&store)?);
    let done = convert(&store, "overlay")?;
    let wanted = json!({"from": "aufs", "to": "overlay", "layers": 2, "deletions": row.deletions});
    ensure!(done == wanted, "{done}");
    store.ok(["check", "--deep"])?;
    ensure!(said(&store)? == said_before, "the layers are others: {:?}", store.changes("top")?);

    // What the same archives are in a store that was overlay's from the beginning.
    let fresh = Store::new(place.join("fresh"), Dialect::Overlay);
    for (id, parent, (archive, _)) in
        [("base", None, &said_before[0]), ("top", Some("base"), &said_before[1])]
    {
        fresh.create(id, parent)?;
        fresh.apply(id, archive)?.expect(0)?;
    }
    same(
        &fresh.merged("top")?,
        &store.merged("top")?,
        Except { links: true, root: true, ..Except::default() },
    )?;

    let again = store.run(["convert"])?.expect(0)?.says("already")?;
    ensure!(again.stdout.is_empty(), "{}", again.text());
    let back = convert(&store, "aufs")?;
    ensure!(back["from"] == "overlay" && back["to"] == "aufs", "{back}");
    store.ok(["check", "--deep"])?;
    ensure!(said(&store)? == said_before, "back, the layers are others");
    let left = names(store.root())?;
    ensure!(!left.iter().any(|name| name == "aufs" || name.contains("convert")), "left behind: {left:?}");
    ensure!(names(&store.root().join("work"))?.is_empty(), "working directories are left");
    if row.exact {
        for (before, now) in before.iter().zip(pictures(&store)?) {
            same(before, &now, Except::default())?;
        }
    }
    Ok(())
}

fn changed(place: &Place) -> Result<()> {
    let store = old(place, &[Mark(b".wh.file"), Dir(b"d"), Mark(b"d/.wh.a"), Plain(b"d/.wh.b")])?;
    store.ok(["convert"])?;
    let merged = store.get("top")?;
    // One deletion is taken back, one is new, and a directory comes anew.
    fs::write(merged.join("file"), "here again")?;
    fs::remove_file(merged.join("other"))?;
    fs::remove_dir_all(merged.join("e"))?;
    fs::create_dir(merged.join("e"))?;
    fs::write(merged.join("e/g"), "g")?;
    store.put("top")?;
    let wanted = ["C /d", "D /d/a", "D /d/b", "C /e", "D /e/f", "A /e/g", "C /file", "D /other"];
    ensure!(store.changes("top")? == wanted, "{:?}", store.changes("top")?);
    let before = said(&store)?;
    for backend in ["aufs", "overlay", "aufs"] {
        convert(&store, backend)?;
        store.ok(["check", "--deep"])?;
        ensure!(said(&store)? == before, "as {backend}, the layers are others");
    }
    let content = picture(&store.content("top"))?;
    for (name, wanted) in
        [(&b".wh.other"[..], true), (b"e/.wh..wh..opq", true), (b"d/.wh.a", true), (b".wh.file", false)]
    {
        ensure!(content.contains_key(name) == wanted, "{}: not {wanted}", name.escape_ascii());
    }
    let marks = content.values().flat_map(|entry| entry.xattrs.keys());
    let left: Vec<_> = marks.filter(|name| name.starts_with(b"trusted.overlay.")).collect();
    ensure!(left.is_empty(), "attributes of overlayfs are left: {left:?}");
    Ok(())
}

fn from_overlay(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let top: Vec<Member> = vec![
        dir("d/").mtime(1_000),
        whiteout("d/a"),
        dir("d/sub/").mtime(2_000),
        opaque("d/sub"),
        whiteout("file"),
        file("h1", "h"),
        hard_link("h2", "h1"),
    ];
    let lower = [
        dir("d/"),
        file("d/a", "a"),
        file("d/b", "b"),
        dir("d/sub/"),
        file("d/sub/x", "x"),
        file("file", "f"),
    ];
    store.layer("base", None, &lower)?;
    store.layer("top", Some("base"), &top)?;
    store.layer("live", Some("top"), &[])?;
    let merged = store.get("live")?;
    fs::write(merged.join("d/b"), "copied up")?;
    fs::remove_file(merged.join("h1"))?;
    store.put("live")?;
    let store = Store::new(store.root().to_owned(), Dialect::Overlay).of_any_backend();
    let all = |store: &Store| {
        ["base", "top", "live"].map(|id| store.diff(id)).into_iter().collect::<Result<Vec<_>>>()
    };
    let (before, archives) = (picture(&store.content("top"))?, all(&store)?);
    let sizes = store.ok(["list"])?;

    let done = convert(&store, "aufs")?;
    ensure!(done["deletions"] == 4 && done["layers"] == 3, "{done}");
    let marks = picture(&store.content("top"))?;
    for name in [&b"d/.wh.a"[..], b"d/sub/.wh..wh..opq", b".wh.file"] {
        let mark = marks.get(name).with_context(|| format!("{} is missing", name.escape_ascii()))?;
        ensure!(mark.first_name == b".wh..wh.aufs" && mark.mode == 0o444 && mark.size == 0, "{mark:?}");
    }
    ensure!(marks[&b"d"[..]].mtime.0 == 1_000 && marks[&b"d/sub"[..]].mtime.0 == 2_000, "times have changed");
    store.ok(["check", "--deep"])?;
    ensure!(all(&store)? == archives, "as aufs, the layers are others");

    convert(&store, "overlay")?;
    store.ok(["check", "--deep"])?;
    ensure!(all(&store)? == archives, "back, the layers are others");
    ensure!(store.ok(["list"])? == sizes, "the list is another: {}", store.ok(["list"])?);
    same(&before, &picture(&store.content("top"))?, Except::default())?;
    let merged = store.merged("live")?;
    ensure!(merged.contains_key(&b"h2"[..]) && !merged.contains_key(&b"h1"[..]), "it shows others");
    Ok(())
}

/// On ext4 a file has at most 65,000 names; here the bound that counts is that of the journal.
fn many(place: &Place) -> Result<()> {
    let store = old(place, &[])?;
    let top = store.content("top");
    let long = "d".repeat(200);
    for number in 0..1_500 {
        let directory = top.join(format!("{long}{number}"));
        fs::create_dir(&directory)?;
        fs::write(directory.join(".wh.x"), "")?;
    }
    let one = top.join("one");
    fs::create_dir(&one)?;
    for number in 0..70_000 {
        fs::write(one.join(format!(".wh.{number}")), "")?;
    }
    let archive = store.diff("top")?;
    let times = |store: &Store| -> Result<Vec<_>> {
        let tree = picture(&store.content("top"))?;
        Ok(tree.into_values().filter(|entry| entry.kind == "directory").map(|entry| entry.mtime).collect())
    };
    let before = times(&store)?;
    for (backend, count) in [("overlay", 71_500), ("aufs", 71_500)] {
        let done = convert(&store, backend)?;
        ensure!(done["deletions"] == count, "{done}");
        ensure!(store.diff("top")? == archive, "as {backend}, the layer is another");
        ensure!(times(&store)? == before, "as {backend}, a directory has another time");
    }
    Ok(())
}

fn in_user_namespace(place: &Place) -> Result<()> {
    let store = old(place, &[Plain(b".wh.file"), Dir(b"d"), Plain(b"d/.wh..wh..opq"), File(b"d/c", "c")])?;
    let archive = store.diff("top")?;
    let script = r#"unshare --map-root-user --mount sh -ec '
        "$1" --root "$2" convert
        d=$("$1" --root "$2" get top)
        test ! -e "$d/file"
        test "$(ls "$d/d")" = c
        "$1" --root "$2" put top
    ' sh "$1" "$2""#;
    shell(script, [binary().as_path(), store.root()])?;
    ensure!(store.ok(["status"])?.contains("Backend: overlay-user"), "{}", store.ok(["status"])?);
    ensure!(store.diff("top")? == archive, "the layer is another");
    let opaque = xattr::get(store.content("top").join("d"), "user.overlay.opaque")?;
    ensure!(opaque.as_deref() == Some(b"y"), "it is not opaque: {opaque:?}");
    let mut back: Command = bare();
    back.arg("--root").arg(store.root()).args(["convert", "--backend", "aufs"]);
    crate::command::run(&mut back, b"")?.expect(0)?;
    ensure!(store.diff("top")? == archive, "back, the layer is another");
    Ok(())
}
