//! Attacks: links that lead out, and somebody who changes the layer meanwhile.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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

/// Somebody who exchanges `layer/swap` (a directory) for a link to the victim and back, until dropped.
///
/// It counts, so that a test can tell that it raced: a swapper that is stuck, or work that never meets a
/// link, proves nothing.
#[derive(Debug)]
struct Race {
    began: Instant,
    rounds: u64,
    /// Rounds that met the directory, and rounds that met something else in its place.
    inside: u64,
    refused: u64,
    /// How often the link was there.
    links: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    swapper: Option<JoinHandle<()>>,
}

impl Race {
    /// How often a test must have met either, and the link been there.
    const ENOUGH: u64 = 20;
    /// How long it may take until then, on a machine that is slow and busy.
    const PATIENCE: Duration = Duration::from_secs(120);

    fn begin(scene: &Scene) -> Race {
        let (links, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (swap, aside) = (scene.layer().join("swap"), scene.layer().join("aside"));
        let swapper = std::thread::spawn({
            let (links, stop) = (Arc::clone(&links), Arc::clone(&stop));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    if std::fs::rename(&swap, &aside).is_err() {
                        // The test has made `swap` anew meanwhile: one of the two is too many.
                        let _ = std::fs::remove_dir_all(&aside);
                    }
                    let linked = std::os::unix::fs::symlink("../victim", &swap).is_ok();
                    links.fetch_add(linked.into(), Ordering::Relaxed);
                    let _ = std::fs::remove_file(&swap);
                    let _ = std::fs::rename(&aside, &swap);
                }
            }
        });
        let (began, swapper) = (Instant::now(), Some(swapper));
        Race { began, rounds: 0, inside: 0, refused: 0, links, stop, swapper }
    }

    /// Whether there is to be another round: so many at least, and until both sides have met.
    fn goes_on(&mut self, at_least: u64) -> bool {
        let fewest = self.inside.min(self.refused).min(self.links.load(Ordering::Relaxed));
        let raced = fewest >= Race::ENOUGH;
        assert!(raced || self.began.elapsed() < Race::PATIENCE, "no race took place: {self:?}");
        self.rounds += 1;
        self.rounds <= at_least || !raced
    }

    /// Counts what a round met.
    fn met(&mut self, directory: bool) {
        if directory {
            self.inside += 1;
        } else {
            self.refused += 1;
        }
    }
}

impl Drop for Race {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.swapper.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the swapper panicked");
    }
}

#[test]
fn a_layer_that_is_changed_meanwhile_shows_nothing_from_outside() {
    let Some(scene) = Scene::new("live") else { return };
    scene.fill(vec![file("swap/hello", b"mine!"), file("swap/z", b"mine!"), file("other", b"x")]).unwrap();
    let victim =
        std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(scene.top.join("victim/hello")).unwrap());
    let out = scene.top.join("out");
    let mut race = Race::begin(&scene);
    while race.goes_on(3000) {
        let tree = Tree::new(scene.dir(), true);
        for detail in [Detail::Names, Detail::Full] {
            for node in walked(&tree, Name::root(), detail).unwrap() {
                assert_ne!(node.inode, victim);
            }
        }
        let found = tree.stat(&[name("swap/hello")], Detail::Full).unwrap().remove(0);
        race.met(found.is_some());
        assert!(found.is_none_or(|node| node.inode != victim));
        if race.rounds.is_multiple_of(10) {
            let mut sink = Sink::from_fd(File::create(&out).unwrap().into());
            if tree.send(&name("swap/hello"), 5, &mut sink).is_ok() {
                sink.flush().unwrap();
                assert_eq!(std::fs::read(&out).unwrap(), b"mine!");
            }
        }
    }
}

#[test]
fn filling_a_layer_that_is_changed_meanwhile_never_leaves_it() {
    // More directories than the filler keeps open, and none whose parent is: each put goes the whole way
    // anew.
    const DIRECTORIES: u64 = 300;
    let Some(scene) = Scene::new("live-fill") else { return };
    let mut filler = scene.filler();
    for index in 0..DIRECTORIES {
        filler.put(dir(&format!("swap/{index}/d")), None).unwrap();
    }
    let mut race = Race::begin(&scene);
    while race.goes_on(5000) {
        // Errors are expected; effects outside are not.
        let put = filler.put(file(&format!("swap/{}/d/f", race.rounds % DIRECTORIES), b"x"), None);
        race.met(put.is_ok());
        let _ = filler.put(hard("swap/h", "swap/hello"), None);
        let _ = filler.put(file("swap/hello", b"mine!"), None);
    }
    let _ = filler.finish();
}

#[test]
fn deleting_a_layer_that_is_changed_meanwhile_never_leaves_it() {
    let Some(scene) = Scene::new("live-delete") else { return };
    let (fresh, swap) = (scene.layer().join("fresh"), scene.layer().join("swap"));
    let mut race = Race::begin(&scene);
    while race.goes_on(2000) {
        // Made aside, as the swapper may have put a link in its place.
        let _ = std::fs::create_dir(&fresh);
        let _ = std::fs::write(fresh.join("hello"), b"mine!");
        let moved = std::fs::rename(&fresh, &swap);
        // Refused is a move to where the link is; a directory that the swapper moved back is neither.
        if moved.is_ok() || moved.is_err_and(|error| error.kind() == ErrorKind::NotADirectory) {
            race.met(!fresh.exists());
        }
        let _ = delete_tree(scene.dir().as_fd(), OsStr::new("swap"));
    }
}

#[test]
fn a_directory_that_becomes_something_else_before_it_is_removed_is_deleted_as_that() {
    // What is done to the empty directory `d` at the moment before it is removed, whether each time or only
    // the first, and whether it is gone then.
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
