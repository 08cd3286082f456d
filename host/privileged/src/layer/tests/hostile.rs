//! Attacks: links that lead out, and somebody who changes the layer meanwhile.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::super::delete::remove;
use super::*;

#[test]
fn links_on_the_way_lead_inside_or_nowhere() {
    // What is put, and where the last one ends up, or that it is refused.
    let rows: Vec<(&str, Vec<Entry>, Option<&str>)> = vec![
        (
            "relative, inside",
            vec![dir("usr/bin"), link("bin", "usr/bin"), file("bin/x", b"1")],
            Some("usr/bin/x"),
        ),
        (
            "absolute is the layer's root",
            vec![dir("usr/bin"), link("bin", "/usr/bin"), file("bin/x", b"1")],
            Some("usr/bin/x"),
        ),
        (
            "`..` stops at the root",
            vec![dir("victim"), link("l", "../../../victim"), file("l/x", b"1")],
            Some("victim/x"),
        ),
        (
            "missing below a link",
            vec![dir("usr/bin"), link("bin", "usr/bin"), file("bin/a/b/x", b"1")],
            Some("usr/bin/a/b/x"),
        ),
        ("link to the root", vec![link("l", "/"), file("l/x", b"1")], Some("x")),
        ("link over a link", vec![dir("d"), link("a", "d"), link("b", "a"), file("b/x", b"1")], Some("d/x")),
        (
            "directory made through a link",
            vec![dir("d"), link("l", "d"), dir("l/e"), link("l", "elsewhere")],
            Some("d/e"),
        ),
        ("out, dangling in the layer", vec![link("l", "../victim"), file("l/x", b"1")], None),
        ("absolute out", vec![link("l", "/tmp"), file("l/x", b"1")], None),
        ("to proc", vec![link("l", "/proc/self/root"), file("l/x", b"1")], None),
        ("loop", vec![link("a", "a"), file("a/b", b"1")], None),
        ("two of a loop", vec![link("a", "b"), link("b", "a"), dir("a/x")], None),
        ("over a file", vec![file("f", b"1"), file("f/x", b"1")], None),
        ("over a link to a file", vec![file("f", b"1"), link("l", "f"), file("l/x", b"1")], None),
        (
            "over a device",
            vec![entry("d", Kind::CharacterDevice(Device { major: 1, minor: 3 })), file("d/x", b"1")],
            None,
        ),
        (
            "long way over a link",
            vec![dir("d"), link("l", "d"), file(&format!("l/{}/x", ["y"; 2500].join("/")), b"1")],
            Some(""),
        ),
        (
            "link deep inside a long way",
            vec![
                link(&format!("{}/l", ["y"; 2500].join("/")), "/"),
                file(&format!("{}/l/x", ["y"; 2500].join("/")), b"1"),
            ],
            None,
        ),
        ("last is not followed", vec![link("l", "../victim/hello"), file("l", b"1")], Some("l")),
        ("last is not followed when dangling", vec![link("l", "../victim/new"), file("l", b"1")], Some("l")),
    ];
    for (case, entries, place) in rows {
        let Some(scene) = Scene::new("links") else { return };
        match (scene.fill(entries), place) {
            (Ok(_), Some("")) => {}
            (Ok(_), Some(place)) => assert!(scene.layer().join(place).symlink_metadata().is_ok(), "{case}"),
            (Err(Error::Refused { entry, .. }), None) => assert!(!entry.is_empty(), "{case}"),
            (outcome, _) => panic!("{case}: {outcome:?}"),
        }
    }
}

#[test]
fn attributes_of_a_directory_stay_with_it_when_the_way_to_it_changes() {
    let Some(scene) = Scene::new("way") else { return };
    let mut through = dir("l/e");
    through.attributes.mode = 0o711;
    through.attributes.uid = 9;
    scene.fill(vec![dir("d"), dir("other/e"), link("l", "d"), through.clone(), link("l", "other")]).unwrap();
    let nodes = scene.tree().stat(&[name("d/e"), name("other/e")], Detail::Full).unwrap();
    assert_eq!(nodes[0].as_ref().unwrap().attributes, through.attributes);
    assert_eq!(nodes[1].as_ref().unwrap().attributes, dir("x").attributes);
}

/// Exchanges `layer/swap` (a directory) for a link to the victim and back until told to stop.
fn swapping(scene: &Scene, work: impl FnOnce()) -> u64 {
    let (layer, stop) = (scene.layer(), Arc::new(AtomicBool::new(false)));
    let swapper = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            let mut count = 0;
            let victim = std::path::Path::new("../victim");
            while !stop.load(Ordering::Relaxed) {
                let _ = std::fs::rename(layer.join("swap"), layer.join("aside"));
                let _ = std::os::unix::fs::symlink(victim, layer.join("swap"));
                let _ = std::fs::remove_file(layer.join("swap"));
                let _ = std::fs::rename(layer.join("aside"), layer.join("swap"));
                count += 1;
            }
            count
        }
    });
    work();
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap()
}

#[test]
fn a_layer_that_is_changed_meanwhile_shows_nothing_from_outside() {
    let Some(scene) = Scene::new("live") else { return };
    scene.fill(vec![file("swap/hello", b"mine!"), file("swap/z", b"mine!"), file("other", b"x")]).unwrap();
    let victim =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(scene.top.join("victim/hello")).unwrap());
    let out = scene.top.join("out");
    swapping(&scene, || {
        for round in 0..3000 {
            let tree = Tree::new(scene.dir(), true);
            for detail in [Detail::Names, Detail::Full] {
                for node in walked(&tree, Name::root(), detail).unwrap() {
                    assert_ne!(node.inode, victim);
                }
            }
            let found = tree.stat(&[name("swap/hello")], Detail::Full).unwrap().remove(0);
            assert!(found.is_none_or(|node| node.inode != victim));
            if round % 10 == 0 {
                let mut sink = Sink::from_fd(File::create(&out).unwrap().into());
                if tree.send(&name("swap/hello"), 5, &mut sink).is_ok() {
                    sink.flush().unwrap();
                    assert_eq!(std::fs::read(&out).unwrap(), b"mine!");
                }
            }
        }
    });
}

#[test]
fn filling_a_layer_that_is_changed_meanwhile_never_leaves_it() {
    let Some(scene) = Scene::new("live-fill") else { return };
    let mut filler = scene.filler();
    filler.put(dir("swap"), None).unwrap();
    swapping(&scene, || {
        for index in 0..5000 {
            // A new parent each time, so that descriptors are opened anew. Errors are expected; effects outside are not.
            let _ = filler.put(file(&format!("swap/{}/f{index}", index % 300), b"x"), None);
            let _ = filler.put(hard(&format!("swap/h{index}"), "swap/hello"), None);
            let _ = filler.put(file("swap/hello", b"mine!"), None);
        }
        let _ = filler.finish();
    });
}

#[test]
fn deleting_a_layer_that_is_changed_meanwhile_never_leaves_it() {
    let Some(scene) = Scene::new("live-delete") else { return };
    let fresh = scene.layer().join("fresh");
    swapping(&scene, || {
        for _ in 0..10_000 {
            // Made aside, as the swapper may have put a link in its place.
            let _ = std::fs::create_dir(&fresh);
            let _ = std::fs::write(fresh.join("hello"), b"mine!");
            let _ = std::fs::rename(&fresh, scene.layer().join("swap"));
            let _ = delete_tree(scene.dir().as_fd(), OsStr::new("swap"));
        }
    });
}

#[test]
fn a_directory_that_becomes_something_else_before_it_is_removed_is_deleted_as_that() {
    // What is done to the empty directory `d` at the moment before it is removed, whether each time or only the first, and whether it is gone then.
    type Change = fn(&Path);
    let refill: Change = |d| std::fs::write(d.join("again"), b"1").unwrap();
    let to_file: Change = |d| {
        std::fs::remove_dir(d).unwrap();
        std::fs::write(d, b"1").unwrap();
    };
    let to_link: Change = |d| {
        std::fs::remove_dir(d).unwrap();
        std::os::unix::fs::symlink("../../victim", d).unwrap();
    };
    let rows = [
        ("a file", to_file, false, true),
        ("a link out of the layer", to_link, false, true),
        ("a directory that is not empty", refill, false, true),
        ("filled for ever", refill, true, false),
    ];
    for (row, change, for_ever, gone) in rows {
        let Some(scene) = Scene::new("becomes") else { return };
        let d = scene.layer().join("x/d");
        std::fs::create_dir_all(&d).unwrap();
        let mut changes = 0;
        let removed = remove(scene.dir().as_fd(), b"x", &mut |_, name, directory| {
            if directory && name == b"d" && (for_ever || changes == 0) {
                changes += 1;
                change(&d);
            }
            Ok(())
        });
        assert!(changes > 0, "{row}");
        assert_eq!(removed.is_ok(), gone, "{row}: {removed:?}");
        assert_eq!(!scene.layer().join("x").exists(), gone, "{row}");
    }
}

#[test]
fn a_way_over_many_links_is_gone_once() {
    let Some(scene) = Scene::new("long-ways") else { return };
    let deep = vec!["d"; 1999].join("/");
    let mut filler = scene.filler();
    filler.put(dir(&deep), None).unwrap();
    filler.put(link(&format!("{deep}/s"), format!("/{deep}")), None).unwrap();
    filler.put(link("s", &deep), None).unwrap();
    let way = vec!["s"; 39].join("/");
    let began = std::time::Instant::now();
    for index in 0..200 {
        filler.put(file(&format!("{way}/f{index}"), b""), None).unwrap();
        filler.put(file(&format!("o/f{index}"), b""), None).unwrap();
    }
    // Each of the names would be a tenth of a second of the kernel's, were it not remembered.
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
    filler.finish().unwrap();
}

#[test]
fn a_link_that_is_replaced_leads_elsewhere() {
    let Some(scene) = Scene::new("replaced-links") else { return };
    let entries = vec![
        dir("a/x"),
        dir("b/x"),
        link("l", "a"),
        file("l/x/1", b""),
        file("a/2", b""),
        link("l", "b"),
        file("l/x/3", b""),
        file("a/4", b""),
        dir("l"),
        file("l/x/5", b""),
    ];
    scene.fill(entries).unwrap();
    assert_eq!(scene.names().join(" "), " a a/2 a/4 a/x a/x/1 b b/x b/x/3 l l/x l/x/5");
}
