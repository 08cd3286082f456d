//! What a snapshot shows through its mounts, whatever lies below it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::command::run;

use super::{Body, served};
use crate::harness::Case;
use crate::scratch::Place;
use crate::snapshotter::{Mounted, Snapshotter};

pub(super) fn cases() -> Vec<Case> {
    let all: [(&'static str, Body); 15] = [
        ("a file of the same size is overwritten", overwritten),
        ("a lower directory that was removed and made again is empty", remade),
        ("an owner that was changed is kept, and the parent has its own", chown),
        ("permissions of directories are kept by a commit", directory_permissions),
        ("the middle of a stack is not removed, and its ends work on", intermediate),
        ("a file that a child deleted is there in its parent", deleted_in_child),
        ("what lies below can be renamed and moved", moved),
        ("a view cannot be written", read_only),
        ("a view of nothing is empty", empty_view),
        ("the root of an active one has mode 0755", root_permission),
        ("files of lower layers are changed by name, mode, time and link", many_changes),
        ("128 layers, each with a file of its own", deep),
        ("170 layers: more than mount options hold", deeper),
        ("usage counts what a snapshot itself takes on the disk, as du does", usage),
        ("usage of one whose files come and go", usage_of_what_changes),
    ];
    all.into_iter().map(served).collect()
}

/// The names in a directory, sorted.
fn listed(path: &Path) -> Result<Vec<String>> {
    layerbox_tests::tree::names(path)
}

fn overwritten(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "aaaa")?))?;
    s.layer(place, "two", "one", |at| Ok(fs::write(at.join("f"), "bbbb")?))?;
    ensure!(fs::read(s.look(place, "two")?.path().join("f"))? == b"bbbb");
    ensure!(fs::read(s.look(place, "one")?.path().join("f"))? == b"aaaa");
    Ok(())
}

fn remade(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| {
        fs::create_dir_all(at.join("dir/inner"))?;
        Ok(fs::write(at.join("dir/f"), "old")?)
    })?;
    s.layer(place, "two", "one", |at| {
        fs::remove_dir_all(at.join("dir"))?;
        fs::create_dir(at.join("dir"))?;
        Ok(fs::write(at.join("dir/new"), "new")?)
    })?;
    let names = listed(&s.look(place, "two")?.path().join("dir"))?;
    ensure!(names == ["new"], "{names:?}");
    s.layer(place, "three", "two", |at| Ok(fs::write(at.join("dir/f"), "again")?))?;
    let names = listed(&s.look(place, "three")?.path().join("dir"))?;
    ensure!(names == ["f", "new"], "{names:?}");
    Ok(())
}

fn chown(place: &Place, s: &Snapshotter) -> Result<()> {
    use std::os::unix::fs::{chown, lchown};
    s.layer(place, "one", "", |at| {
        fs::create_dir(at.join("opt"))?;
        fs::write(at.join("opt/f"), "x")?;
        Ok(std::os::unix::fs::symlink("f", at.join("opt/link"))?)
    })?;
    s.layer(place, "two", "one", |at| {
        chown(at.join("opt"), Some(1), Some(2))?;
        chown(at.join("opt/f"), Some(3), Some(4))?;
        Ok(lchown(at.join("opt/link"), Some(5), Some(6))?)
    })?;
    let (one, two) = (s.look(place, "one")?, s.look(place, "two")?);
    let owners = |at: &Path| -> Result<Vec<(u32, u32)>> {
        let owner =
            |name: &&str| Ok(fs::symlink_metadata(at.join(name)).map(|found| (found.uid(), found.gid()))?);
        ["opt", "opt/f", "opt/link"].iter().map(owner).collect()
    };
    ensure!(owners(one.path())? == [(0, 0); 3], "{:?}", owners(one.path())?);
    ensure!(owners(two.path())? == [(1, 2), (3, 4), (5, 6)], "{:?}", owners(two.path())?);
    Ok(())
}

fn directory_permissions(place: &Place, s: &Snapshotter) -> Result<()> {
    let modes = [0o755, 0o700, 0o1777, 0o2750, 0o000];
    s.layer(place, "one", "", |at| {
        for mode in modes {
            let path = at.join(format!("{mode:o}"));
            fs::create_dir(&path)?;
            fs::set_permissions(&path, Permissions::from_mode(mode))?;
        }
        Ok(())
    })?;
    s.layer(place, "two", "one", |at| Ok(fs::write(at.join("700/f"), "x")?))?;
    for name in ["one", "two"] {
        let view = s.look(place, name)?;
        for mode in modes {
            let found = fs::metadata(view.path().join(format!("{mode:o}")))?.mode() & 0o7777;
            ensure!(found == mode, "{name}: {mode:o} has become {found:o}");
        }
    }
    Ok(())
}

fn intermediate(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "bottom", "", |at| Ok(fs::write(at.join("bottom"), "1")?))?;
    s.layer(place, "middle", "bottom", |at| Ok(fs::write(at.join("middle"), "2")?))?;
    let top = Mounted::new(place, &s.prepare("top", "middle")?)?;
    ensure!(s.remove("middle").is_err() && s.remove("bottom").is_err(), "removed below a child");
    fs::write(top.path().join("top"), "3")?;
    ensure!(listed(top.path())? == ["bottom", "middle", "top"], "{:?}", listed(top.path())?);
    top.end()?;
    s.remove("top")?;
    s.remove("middle")?;
    let again = Mounted::new(place, &s.prepare("again", "bottom")?)?;
    ensure!(listed(again.path())? == ["bottom"], "{:?}", listed(again.path())?);
    Ok(())
}

fn deleted_in_child(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| {
        fs::write(at.join("keep"), "1")?;
        Ok(fs::write(at.join("gone"), "2")?)
    })?;
    s.layer(place, "two", "one", |at| Ok(fs::remove_file(at.join("gone"))?))?;
    s.layer(place, "three", "two", |at| Ok(fs::write(at.join("more"), "3")?))?;
    ensure!(listed(s.look(place, "three")?.path())? == ["keep", "more"]);
    ensure!(listed(s.look(place, "one")?.path())? == ["gone", "keep"]);
    Ok(())
}

fn moved(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| {
        fs::create_dir_all(at.join("dir1/somefiles"))?;
        fs::create_dir_all(at.join("original"))?;
        fs::write(at.join("dir1/f"), "file")?;
        Ok(fs::write(at.join("original/foo"), "foo")?)
    })?;
    s.layer(place, "two", "one", |at| {
        fs::rename(at.join("dir1/f"), at.join("original/f"))?;
        fs::rename(at.join("original/foo"), at.join("original/bar"))?;
        // A directory that lies below cannot be renamed in one step; whoever moves it copies it then, as
        // mv(1) does.
        if fs::rename(at.join("dir1/somefiles"), at.join("somefiles")).is_err() {
            fs::create_dir(at.join("somefiles"))?;
            fs::remove_dir(at.join("dir1/somefiles"))?;
        }
        Ok(())
    })?;
    let two = s.look(place, "two")?;
    ensure!(listed(two.path())? == ["dir1", "original", "somefiles"], "{:?}", listed(two.path())?);
    ensure!(listed(&two.path().join("dir1"))?.is_empty());
    ensure!(listed(&two.path().join("original"))? == ["bar", "f"]);
    ensure!(fs::read(two.path().join("original/f"))? == b"file");
    Ok(())
}

fn read_only(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| Ok(fs::write(at.join("f"), "1")?))?;
    s.layer(place, "two", "one", |at| Ok(fs::write(at.join("g"), "2")?))?;
    for name in ["one", "two"] {
        let view = s.look(place, name)?;
        for what in ["f", "new"] {
            let code = fs::write(view.path().join(what), "x").map_err(|error| error.raw_os_error());
            ensure!(code == Err(Some(nix::libc::EROFS)), "{name}/{what}: {code:?}");
        }
        ensure!(fs::read(view.path().join("f"))? == b"1");
    }
    Ok(())
}

fn empty_view(place: &Place, s: &Snapshotter) -> Result<()> {
    let view = Mounted::new(place, &s.view("view", "")?)?;
    ensure!(listed(view.path())?.is_empty());
    ensure!(fs::write(view.path().join("f"), "x").is_err(), "it can be written");
    Ok(())
}

fn root_permission(place: &Place, s: &Snapshotter) -> Result<()> {
    let first = Mounted::new(place, &s.prepare("first", "")?)?;
    ensure!(fs::metadata(first.path())?.mode() & 0o7777 == 0o755, "{:o}", fs::metadata(first.path())?.mode());
    first.end()?;
    s.commit("one", "first")?;
    let second = Mounted::new(place, &s.prepare("second", "one")?)?;
    ensure!(
        fs::metadata(second.path())?.mode() & 0o7777 == 0o755,
        "{:o}",
        fs::metadata(second.path())?.mode()
    );
    Ok(())
}

fn many_changes(place: &Place, s: &Snapshotter) -> Result<()> {
    s.layer(place, "one", "", |at| {
        fs::create_dir_all(at.join("d"))?;
        for name in ["mode", "append", "link", "replaced"] {
            fs::write(at.join("d").join(name), "1")?;
        }
        Ok(())
    })?;
    s.layer(place, "two", "one", |at| {
        use std::io::Write as _;
        fs::set_permissions(at.join("d/mode"), Permissions::from_mode(0o600))?;
        fs::File::options().append(true).open(at.join("d/append"))?.write_all(b"2")?;
        fs::hard_link(at.join("d/link"), at.join("d/linked"))?;
        fs::remove_file(at.join("d/replaced"))?;
        fs::create_dir(at.join("d/replaced"))?;
        Ok(std::os::unix::fs::symlink("d/append", at.join("sym"))?)
    })?;
    let two = s.look(place, "two")?;
    let at = two.path();
    ensure!(fs::metadata(at.join("d/mode"))?.mode() & 0o7777 == 0o600);
    ensure!(fs::read(at.join("sym"))? == b"12" && at.join("d/replaced").is_dir());
    let (a, b) = (fs::metadata(at.join("d/link"))?, fs::metadata(at.join("d/linked"))?);
    ensure!(a.ino() == b.ino() && a.nlink() == 2, "the hard link is none");
    Ok(())
}

fn stacked(place: &Place, s: &Snapshotter, depth: usize) -> Result<()> {
    let mut parent = String::new();
    for number in 1..=depth {
        let key = format!("key-{number}");
        let mounts = s.prepare(&key, &parent)?;
        // Only some are mounted, which takes a while; the others are as empty as an image's layers that
        // change nothing.
        if number % 16 == 1 || number == depth {
            let mounted = Mounted::new(place, &mounts)?;
            fs::write(mounted.path().join(format!("f{number}")), number.to_string())?;
            fs::write(mounted.path().join("last"), number.to_string())?;
            mounted.end()?;
        }
        parent = format!("name-{number}");
        s.commit(&parent, &key)?;
    }
    let view = s.look(place, &parent)?;
    let names = listed(view.path())?;
    ensure!(names.len() == (1..=depth).filter(|n| n % 16 == 1 || *n == depth).count() + 1, "{names:?}");
    ensure!(fs::read(view.path().join("last"))? == depth.to_string().as_bytes());
    ensure!(fs::write(view.path().join("f1"), "x").is_err(), "the view can be written");
    let top = Mounted::new(place, &s.prepare("top", &parent)?)?;
    fs::remove_file(top.path().join("f1"))?;
    top.end()?;
    view.end()?;
    s.commit("end", "top")?;
    ensure!(!s.look(place, "end")?.path().join("f1").exists());
    Ok(())
}

fn deep(place: &Place, s: &Snapshotter) -> Result<()> {
    stacked(place, s, 128)?;
    let kinds: Vec<String> = s.prepare("again", "end")?.into_iter().map(|mount| mount.r#type).collect();
    ensure!(kinds == ["overlay"], "{kinds:?}");
    Ok(())
}

fn deeper(place: &Place, s: &Snapshotter) -> Result<()> {
    stacked(place, s, 170)?;
    let kinds: Vec<String> = s.prepare("again", "end")?.into_iter().map(|mount| mount.r#type).collect();
    // The host has mounted it.
    ensure!(kinds == ["bind"], "{kinds:?}");
    Ok(())
}

/// What du(1) says of a directory: bytes, and inodes.
fn du(path: &Path) -> Result<(i64, i64)> {
    let number = |arguments: &[&str]| -> Result<i64> {
        let mut command = std::process::Command::new("du");
        let text = run(command.args(arguments).arg(path), b"")?.text();
        Ok(text.split_whitespace().next().unwrap_or_default().parse()?)
    };
    Ok((number(&["-s", "-B1"])?, number(&["-s", "--inodes"])?))
}

fn usage(place: &Place, s: &Snapshotter) -> Result<()> {
    let first = s.prepare("first", "")?;
    let content = Path::new(&first[0].source);
    ensure!(s.usage("first")? == du(content)? && s.usage("first")?.1 == 1, "{:?}", s.usage("first")?);
    fs::create_dir(content.join("d"))?;
    fs::write(content.join("d/f"), vec![1; 5000])?;
    // Other names of it, and a file that is nearly all hole.
    for number in 0..100 {
        fs::hard_link(content.join("d/f"), content.join(number.to_string()))?;
    }
    fs::File::create(content.join("sparse"))?.set_len(1 << 40)?;
    // So that what it takes is settled.
    nix::unistd::sync();
    let told = s.usage("first")?;
    ensure!(told == du(content)? && told.1 == 4 && told.0 < 1 << 20, "{told:?}, not {:?}", du(content)?);
    s.commit("one", "first")?;
    ensure!(s.usage("one")? == told, "{:?} after the commit, {told:?} before", s.usage("one")?);
    let mounts = s.prepare("active", "one")?;
    let empty = s.usage("active")?;
    ensure!(empty.1 == 1, "{empty:?}");
    let active = Mounted::new(place, &mounts)?;
    fs::write(active.path().join("g"), vec![1; 100])?;
    // A deletion is an inode.
    fs::remove_file(active.path().join("sparse"))?;
    ensure!(s.usage("active")?.1 == 3, "{:?}", s.usage("active")?);
    active.end()?;
    s.commit("two", "active")?;
    let upper = mounts[0].options.iter().find_map(|option| option.strip_prefix("upperdir="));
    let upper = Path::new(upper.context("no upper directory")?);
    ensure!(s.usage("two")? == du(upper)?, "{:?}, not {:?}", s.usage("two")?, du(upper)?);
    ensure!(s.usage("two")?.0 >= empty.0 + 100 && s.usage("one")? == told, "{:?}", s.usage("two")?);
    Ok(())
}

fn usage_of_what_changes(place: &Place, s: &Snapshotter) -> Result<()> {
    let mounted = Mounted::new(place, &s.prepare("active", "")?)?;
    let directory = mounted.path().join("d");
    fs::create_dir(&directory)?;
    let make = |index: usize| fs::write(directory.join(index.to_string()), "x");
    (0..2000).try_for_each(make)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for index in 0..2000 {
                    // What goes wrong shows as a usage that stays the same.
                    drop(fs::remove_file(directory.join(index.to_string())));
                    drop(make(index));
                }
            }
        });
        let answers: Vec<_> = (0..50).map(|_| s.usage("active")).collect();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        answers
    });
    for answer in answers {
        ensure!(answer?.1 > 1000, "most of the files are there at any time");
    }
    mounted.end()
}
