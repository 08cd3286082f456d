//! Reading: order, detail, depth, deletion.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use super::*;
use crate::layer::Names;

fn sample() -> Vec<Entry> {
    vec![
        file("a-b", b"1"),
        file("a/x", b"22"),
        file("a/\u{e9}", b""),
        file("a.b", b"1"),
        entry("dev/null", Kind::CharacterDevice(Device { major: 1, minor: 3 })),
        entry("dev/sda", Kind::BlockDevice(Device { major: 8, minor: 0 })),
        entry("fifo", Kind::Fifo),
        link("link", "a"),
        hard("same", "a-b"),
    ]
}

#[test]
fn a_walk_is_depth_first_and_in_the_order_of_bytes() {
    let Some(scene) = Scene::new("order") else { return };
    scene.fill(sample()).unwrap();
    let expected =
        ["", "a", "a/x", "a/\u{e9}", "a-b", "a.b", "dev", "dev/null", "dev/sda", "fifo", "link", "same"];
    // Within a directory `a` comes before `a-b`, whatever the whole paths would say.
    assert_eq!(scene.names(), expected);
    let below = walked(&scene.tree(), name("dev"), Detail::Names).unwrap();
    assert_eq!(
        below.iter().map(|node| node.name.to_string()).collect::<Vec<_>>(),
        ["dev", "dev/null", "dev/sda"]
    );
    for start in ["missing", "missing/x", "a-b", "link", "a-b/x"] {
        assert!(walked(&scene.tree(), name(start), Detail::Full).unwrap().is_empty(), "{start}");
    }
    let options = WalkOptions { start: Name::root(), recursive: false, detail: Detail::Names };
    let flat = scene.tree().walk(options).unwrap().next(4096).unwrap();
    assert!(flat.len() == 8 && flat.iter().all(|node| !node.name.as_bytes().contains(&b'/')));
}

#[test]
fn a_long_walk_gives_the_same_however_it_is_asked() {
    let Some(scene) = Scene::new("long") else { return };
    let names = (0..40).flat_map(|d| (0..40).map(move |f| format!("d{d:02}/f{f:02}")));
    scene.fill(names.map(|name| file(&name, b"")).collect()).unwrap();
    let tree = scene.tree();
    let walk_for = |detail| {
        let options = WalkOptions { start: Name::root(), recursive: true, detail };
        tree.walk(options).unwrap()
    };
    for detail in [Detail::Names, Detail::Full] {
        // More than all of it at once: no thread.
        let whole = walk_for(detail).next(4096).unwrap();
        assert_eq!(whole.len(), 1 + 40 + 40 * 40);
        for sizes in [&[1][..], &[7, 1, 4096], &[512], &[64, 3], &[1641, 1]] {
            let (mut walker, mut found) = (walk_for(detail), Vec::new());
            for size in sizes.iter().cycle() {
                let nodes = walker.next(*size).unwrap();
                assert!(nodes.len() <= *size as usize, "{sizes:?}");
                if nodes.is_empty() {
                    break;
                }
                found.extend(nodes);
            }
            assert_eq!(found, whole, "{detail:?}, {sizes:?}");
            assert!(walker.next(1).unwrap().is_empty(), "{detail:?}, {sizes:?}: after the end");
            // Every second answer packed.
            let (mut walker, mut found) = (walk_for(detail), Vec::new());
            for (turn, size) in sizes.iter().cycle().enumerate() {
                let before = found.len();
                if turn % 2 == 0 {
                    let Names { bytes, entries } = walker.names(*size).unwrap();
                    let mut rest = bytes.as_slice();
                    for (length, kind) in entries {
                        found.push((rest.split_off(..length).unwrap().to_vec(), kind));
                    }
                    assert!(rest.is_empty(), "{detail:?}, {sizes:?}: more names than entries");
                } else {
                    let nodes = walker.next(*size).unwrap();
                    found.extend(nodes.into_iter().map(|node| (node.name.as_bytes().to_vec(), node.kind)));
                }
                if found.len() == before {
                    break;
                }
            }
            let whole = whole.iter().map(|node| (node.name.as_bytes().to_vec(), node.kind.clone()));
            assert_eq!(found, whole.collect::<Vec<_>>(), "{detail:?}, {sizes:?}");
        }
    }
    let walk = || walk_for(Detail::Full);
    let whole = walk().next(4096).unwrap();
    // More walks than there may be threads, all dropped while they are under way.
    let mut walkers: Vec<Walker> = (0..40).map(|_| walk()).collect();
    for walker in &mut walkers {
        assert_eq!(walker.next(2).unwrap(), whole[..2]);
        assert_eq!(walker.next(2).unwrap(), whole[2..4]);
    }
    drop(walkers);
    // An error of the thread is told, and not taken for the end.
    let mut walker = walk();
    let mut seen = walker.next(8).unwrap().len();
    delete_tree(std::fs::File::open(scene.layer()).unwrap().as_fd(), OsStr::new("d39")).unwrap();
    let error = loop {
        match walker.next(8) {
            Ok(nodes) if nodes.is_empty() => panic!("the walk came to an end after {seen} nodes"),
            Ok(nodes) => seen += nodes.len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Conflict(_)), "{error}");
}

#[test]
fn names_that_begin_alike_are_in_the_order_of_bytes() {
    let rows: &[&[&str]] = &[
        &["file-00000001", "file-00000002", "file-00000010", "file-000000010", "file-0000001"],
        &[
            "long-enough-1",
            "long-enough-1-and-longer",
            "long-enough-1-and-longer-still",
            "long-enough-1\u{e9}",
        ],
        &[
            "same-eight-bytes-behind-12345678-b",
            "same-eight-bytes-behind-12345678-a",
            "same-eight-bytes-behind-1",
        ],
        &["common", "common1", "common12", "common12345678", "common123456789", "common\u{1}"],
        &["x"],
        &["\u{1}", "~", "\u{7f}", "\u{80}", "a"],
    ];
    for names in rows {
        let Some(scene) = Scene::new("alike") else { return };
        scene.fill(names.iter().map(|name| file(name, b"")).collect()).unwrap();
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        assert_eq!(scene.names()[1..], sorted);
    }
}

#[test]
fn files_are_sent_whatever_a_walk_has_opened_of_them() {
    let Some(scene) = Scene::new("opened") else { return };
    let text = |number: usize| format!("{number}").repeat(number % 7);
    let name_of = |number: usize| format!("d{}/f{number:04}", number / 500);
    scene.fill((0..1500).map(|number| file(&name_of(number), text(number).as_bytes())).collect()).unwrap();
    let files = || (0..1500).collect::<Vec<_>>();
    let rows: [(&str, Vec<usize>, bool); 5] = [
        ("as they come", files(), true),
        ("every third", (0..1500).step_by(3).collect(), true),
        ("each twice", files().into_iter().flat_map(|number| [number, number]).collect(), true),
        ("after the walk", files(), false),
        ("backwards", files().into_iter().rev().collect(), false),
    ];
    for (what, order, beside) in rows {
        let tree = scene.tree();
        let options = WalkOptions { start: Name::root(), recursive: true, detail: Detail::Full };
        let mut walker = tree.walk(options).unwrap();
        let mut walked = 0;
        let mut order = order.into_iter().peekable();
        loop {
            let nodes = walker.next(100).unwrap();
            let is_over = nodes.is_empty();
            walked += nodes.iter().filter(|node| matches!(node.kind, Kind::File(_))).count();
            while let Some(number) = order.next_if(|number| is_over || (beside && *number < walked)) {
                let (sent, out) = std::io::pipe().unwrap();
                let mut sink = Sink::from_fd(out.into());
                tree.send(&name(name_of(number)), text(number).len() as u64, &mut sink).unwrap();
                sink.flush().unwrap();
                drop(sink);
                assert_eq!(std::io::read_to_string(sent).unwrap(), text(number), "{what}: {number}");
            }
            if is_over {
                break;
            }
        }
        assert_eq!((walked, order.next()), (1500, None), "{what}");
    }
}

#[test]
fn detail_says_what_is_looked_up() {
    let Some(scene) = Scene::new("detail") else { return };
    scene.fill(sample()).unwrap();
    let null = Kind::CharacterDevice(Device { major: 1, minor: 3 });
    let rows = [
        (Detail::Names, "dev/null", null.clone()),
        (Detail::Names, "a/x", Kind::File(0)),
        (Detail::Names, "link", Kind::Symlink(vec![])),
        (Detail::Names, "fifo", Kind::Fifo),
        (Detail::Status, "dev/null", null),
        (Detail::Status, "a/x", Kind::File(2)),
        (Detail::Status, "link", Kind::Symlink(b"a".to_vec())),
        (Detail::Full, "dev/sda", Kind::BlockDevice(Device { major: 8, minor: 0 })),
    ];
    for (detail, text, kind) in rows {
        let walked = scene.walk(detail).into_iter().find(|node| node.name == name(text)).unwrap();
        let stat = scene.tree().stat(&[name(text)], detail).unwrap().remove(0).unwrap();
        assert_eq!(walked.kind, kind, "{text}");
        assert_eq!(walked, stat, "{text}");
        assert_eq!(walked.inode == 0, detail == Detail::Names, "{text}");
    }
    let nodes = scene
        .tree()
        .stat(&[name("a-b"), name("nothing"), name("same"), name("link/x")], Detail::Status)
        .unwrap();
    assert!(nodes[1].is_none() && nodes[3].is_none());
    let (one, other) = (nodes[0].as_ref().unwrap(), nodes[2].as_ref().unwrap());
    assert_eq!((one.inode, one.device, one.links), (other.inode, other.device, 2));
}

#[test]
fn only_regular_files_are_sent() {
    let Some(scene) = Scene::new("send") else { return };
    let mut entries = sample();
    entries.push(link("out", "../victim/hello"));
    entries.push(link("way", "../victim"));
    scene.fill(entries).unwrap();
    for live in [false, true] {
        let tree = Tree::new(scene.dir(), live);
        let rows = [
            ("a/x", 2, true),
            ("a/x", 1, true),
            ("a/x", 0, true),
            ("a/x", 3, false),
            ("same", 1, true),
            ("", 0, false),
            ("a", 0, false),
            ("fifo", 0, false),
            ("dev/null", 0, false),
            ("dev/sda", 0, false),
            ("out", 5, false),
            ("way/hello", 5, false),
            ("missing", 0, false),
        ];
        for (text, length, good) in rows {
            let mut sink = Sink::new(Box::new(std::io::sink()));
            match tree.send(&name(text), length, &mut sink) {
                Ok(()) => assert!(good && sink.bytes_written() == length, "{text} {live}"),
                Err(Error::Conflict(_)) => assert!(!good, "{text} {live}"),
                Err(other) => panic!("{text} {live}: {other}"),
            }
        }
    }
}

#[test]
fn trees_of_any_depth_are_filled_walked_and_deleted() {
    let Some(scene) = Scene::new("deep") else { return };
    // As deep as names go, with long components: the whole path is over half a mebibyte.
    let component = "d".repeat(150);
    let deepest = vec![component.as_str(); 4096].join("/");
    let mut beside = deepest.clone();
    beside.truncate(beside.len() - 1);
    let mut filler = scene.filler();
    filler.put(file(&deepest, b"deep"), None).unwrap();
    filler.put(file(&beside, b"deep"), None).unwrap();
    filler.put(hard("link", &deepest), None).unwrap();
    assert_eq!(filler.finish().unwrap(), Totals { entries: 4098, bytes: 8 });
    let nodes = scene.walk(Detail::Status);
    assert_eq!(nodes.len(), 4099);
    scene.tree().send(&name(&deepest), 4, &mut Sink::new(Box::new(std::io::sink()))).unwrap();

    let top = File::open(&scene.top).unwrap();
    delete_tree(top.as_fd(), OsStr::new("layer")).unwrap();
    assert!(!scene.layer().exists());
}

#[test]
fn trees_deeper_than_names_go_are_walked_and_deleted() {
    let Some(scene) = Scene::new("deeper") else { return };
    // Two branches now and then, so that the walk comes back.
    let mut dir = scene.dir();
    for level in 0..5000 {
        for last in ["a", "z"].iter().take(if level % 50 == 0 { 2 } else { 1 }) {
            nix::sys::stat::mkdirat(&dir, *last, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }
        let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_DIRECTORY;
        dir = nix::fcntl::openat(&dir, "a", flags, nix::sys::stat::Mode::empty()).unwrap();
    }
    drop(dir);
    let nodes = scene.walk(Detail::Names);
    assert_eq!(nodes.len(), 5101);
    let order: Vec<Vec<u8>> = nodes.iter().rev().take(2).map(|node| node.name.as_bytes().to_vec()).collect();
    assert_eq!(order, [b"z".to_vec(), format!("{}z", "a/".repeat(50)).into_bytes()]);
    delete_tree(File::open(&scene.top).unwrap().as_fd(), OsStr::new("layer")).unwrap();
    assert!(!scene.layer().exists());
}

#[test]
fn deletion_takes_one_component_and_follows_nothing() {
    let Some(scene) = Scene::new("delete") else { return };
    scene.fill(vec![link("a/out", "../../victim"), link("top", "../victim"), file("b", b"1")]).unwrap();
    let dir = scene.dir();
    for bad in ["", ".", "..", "a/out", "/", "../victim"] {
        assert!(matches!(delete_tree(dir.as_fd(), OsStr::new(bad)), Err(Error::InvalidArgument(_))), "{bad}");
    }
    for good in ["a", "top", "b", "missing"] {
        delete_tree(dir.as_fd(), OsStr::new(good)).unwrap();
    }
    assert_eq!(scene.names(), [""]);
}

#[test]
fn what_is_mounted_inside_a_layer_is_not_the_layers() {
    let Some(scene) = Scene::new("mounted") else { return };
    scene.fill(vec![dir("a/m"), file("a/f", b"1")]).unwrap();
    let (from, to) = (scene.top.join("victim"), scene.layer().join("a/m"));
    let run = |command: &str, arguments: &[&std::path::Path]| {
        std::process::Command::new(command).args(arguments).status().is_ok_and(|status| status.success())
    };
    if !run("mount", &["--bind".as_ref(), &from, &to]) {
        skip("what is mounted inside a layer: mount(8) fails here", false);
        return;
    }
    let walked_over = walked(&scene.tree(), Name::root(), Detail::Full);
    let names_only = walked(&scene.tree(), Name::root(), Detail::Names);
    let stat = scene.tree().stat(&[name("a/m/hello")], Detail::Status);
    let sent = scene.tree().send(&name("a/m/hello"), 5, &mut Sink::new(Box::new(std::io::sink())));
    let deleted = delete_tree(scene.dir().as_fd(), OsStr::new("a"));
    assert!(run("umount", &[&to]));
    for (case, error) in [
        ("walk", walked_over.map(drop).unwrap_err()),
        ("names", names_only.map(drop).unwrap_err()),
        ("stat", stat.map(drop).unwrap_err()),
        ("send", sent.unwrap_err()),
        ("delete", deleted.unwrap_err()),
    ] {
        assert!(matches!(error, Error::Io { errno: 18, .. }), "{case}: {error}");
    }
}

#[test]
fn extended_attributes_in_answers_are_bounded() {
    // Of the usual file systems only tmpfs takes so much.
    let Some(scene) = Scene::on("/dev/shm".as_ref(), "large-answers") else { return };
    let path = scene.layer().join("f");
    std::fs::write(&path, b"").unwrap();
    // What a file system does not take shows nothing.
    let set = |n: usize| {
        let name = format!("user.{n}");
        rustix::fs::setxattr(&path, name, &vec![7; 60_000], rustix::fs::XattrFlags::empty()).is_ok()
    };
    if !(0..18).all(set) {
        skip("large answers: this file system takes no 18 attributes of 60 kB", false);
    } else {
        for outcome in [
            walked(&scene.tree(), Name::root(), Detail::Full).map(drop),
            scene.tree().stat(&[name("f")], Detail::Full).map(drop),
        ] {
            assert!(matches!(outcome, Err(Error::Limit { entry: Some(_), .. })), "{outcome:?}");
        }
        assert_eq!(scene.walk(Detail::Status).len(), 2);
    }
    let path = scene.layer().join("g");
    std::fs::write(&path, b"").unwrap();
    rustix::fs::setxattr(&path, "user.g", &[7; 3000], rustix::fs::XattrFlags::empty()).unwrap();
    let names = |count| vec![name("g"); count];
    assert_eq!(scene.tree().stat(&names(20_000), Detail::Full).unwrap().len(), 20_000);
    let outcome = scene.tree().stat(&names(25_000), Detail::Full).map(drop);
    assert!(matches!(outcome, Err(Error::Limit { entry: Some(_), .. })), "{outcome:?}");
}

#[test]
fn walks_share_room_for_directories() {
    let Some(scene) = Scene::new("room") else { return };
    for index in 0..1000 {
        std::fs::write(scene.layer().join(format!("{index:0>200}")), b"").unwrap();
    }
    let options = || WalkOptions { start: Name::root(), recursive: true, detail: Detail::Names };
    let room = std::sync::Arc::new(super::super::walk::Room::new(500_000));
    let (one, other) = (scene.tree().within(room.clone()), scene.tree().within(room));
    let mut first = one.walk(options()).unwrap();
    let mut second = other.walk(options()).unwrap();
    let outcome = one.walk(options()).map(drop);
    assert!(matches!(outcome, Err(Error::Limit { entry: Some(_), .. })), "{outcome:?}");
    let is_over = |walker: &mut Walker| {
        std::iter::repeat_with(|| walker.next(4096).unwrap()).take_while(|nodes| !nodes.is_empty()).count()
    };
    assert!(is_over(&mut first) > 0, "what was begun goes on");
    one.walk(options()).unwrap();
    drop(second.next(1));
}

#[test]
fn a_large_directory_is_read_whole() {
    let Some(scene) = Scene::new("large") else { return };
    // More than is read before room is asked for.
    let count = 150_000;
    let first = scene.layer().join("0");
    for index in 0..count {
        if index % 50_000 == 0 {
            std::fs::write(scene.layer().join(index.to_string()), b"").unwrap();
            continue;
        }
        let original = scene.layer().join((index - index % 50_000).to_string());
        std::fs::hard_link(original, scene.layer().join(index.to_string())).unwrap();
    }
    assert!(first.exists());
    let found = scene.names();
    let mut wanted: Vec<String> = (0..count).map(|index| index.to_string()).collect();
    wanted.push(String::new());
    wanted.sort_unstable();
    assert!(found == wanted, "{} of {}", found.len(), wanted.len());
}

#[test]
fn what_becomes_a_device_is_not_read_in_a_layer_that_changes() {
    let Some(scene) = Scene::new("swapped") else { return };
    let layer = scene.layer();
    scene
        .fill(vec![file("f", &[1; 100]), entry("z", Kind::CharacterDevice(Device { major: 1, minor: 5 }))])
        .unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let exchange = nix::fcntl::RenameFlags::RENAME_EXCHANGE;
            let dir = File::open(&layer).unwrap();
            while !stop.load(Ordering::Relaxed) {
                nix::fcntl::renameat2(&dir, "f", &dir, "z", exchange).unwrap();
            }
        });
        let tree = Tree::new(scene.dir(), true);
        for _ in 0..20_000 {
            let found = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            let mut sink = Sink::new(Box::new(Kept(found.clone())));
            if tree.send(&name("f"), 100, &mut sink).is_ok() {
                sink.flush().unwrap();
                assert!(*found.lock().unwrap() == [1; 100], "it is /dev/zero's");
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
