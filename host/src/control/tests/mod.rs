//! The service's end and the command line's, in one process: a real socket, a real store, the shipped
//! component.

mod scene;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::announce;
use super::frame;
use super::protocol::{Call, Hello, Open, Opened, Reply, VERSION};
use super::server;
use crate::driver::ApplyOptions;
use crate::error::Failure;
use scene::{Scene, apply, begun, pipe, until};

#[test]
fn what_makes_no_sense_ends_the_connection_and_nothing_else() {
    type Row = (&'static str, fn(&Scene) -> UnixStream);
    let rows: [Row; 10] = [
        ("another protocol", |scene| {
            let stream = scene.greeted();
            (&stream).write_all(b"GET / HTTP/1.1\r\nHost: layerbox\r\n\r\n").unwrap();
            stream
        }),
        ("a frame that is too long", |scene| {
            let stream = scene.greeted();
            (&stream).write_all(&u32::try_from(frame::LONGEST + 1).unwrap().to_be_bytes()).unwrap();
            stream
        }),
        ("a frame that is cut off", |scene| {
            let stream = scene.greeted();
            (&stream).write_all(&[0, 0, 1, 0, b'{']).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        }),
        ("no JSON", |scene| {
            let stream = scene.greeted();
            (&stream).write_all(b"\0\0\0\x04{{{{").unwrap();
            stream
        }),
        ("a call before a store", |scene| {
            let stream = scene.greeted();
            frame::send(&stream, &Call::List, None).unwrap();
            stream
        }),
        ("a call that there is not", |scene| {
            let stream = scene.opened();
            frame::send(&stream, &"Frobnicate", None).unwrap();
            stream
        }),
        ("an archive that did not come", |scene| {
            let stream = scene.opened();
            frame::send(&stream, &apply("base"), None).unwrap();
            stream
        }),
        ("a descriptor that nobody wants", |scene| {
            let stream = scene.opened();
            frame::send(&stream, &Call::List, Some(stream.as_fd())).unwrap();
            stream
        }),
        ("more descriptors than one", |scene| {
            let stream = scene.opened();
            let bytes = [&[0, 0, 0, 6][..], b"\"List\""].concat();
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(5))];
            let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
            let five = [stream.as_fd(); 5];
            assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&five)));
            let buffers = [std::io::IoSlice::new(&bytes)];
            rustix::net::sendmsg(&stream, &buffers, &mut control, rustix::net::SendFlags::empty()).unwrap();
            stream
        }),
        ("a directory for an archive", |scene| {
            let stream = scene.opened();
            let directory = File::open("/").unwrap();
            frame::send(&stream, &apply("base"), Some(directory.as_fd())).unwrap();
            let reply: Reply = frame::receive(&stream).unwrap().unwrap().message().unwrap();
            assert!(matches!(reply, Reply::Failed { failure: Failure::InvalidArgument(_), .. }), "{reply:?}");
            stream.shutdown(Shutdown::Write).unwrap();
            stream
        }),
    ];
    let Some(scene) = Scene::new() else { return };
    scene.layer("base");
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    for (what, say) in rows {
        let stream = say(&scene);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut rest = Vec::new();
        // The end may come as a reset, where something was left unread.
        let end = (&stream).read_to_end(&mut rest);
        let reset = |error: &std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(end.is_ok() || end.as_ref().is_err_and(reset), "{what}: {end:?}");
        assert_eq!(rest, b"", "{what}");
        drop(stream);
        assert!(scene.calls().exists("base").unwrap(), "{what}: the service does not answer any more");
    }
    // Descriptors that came with what made no sense are not kept.
    until("the descriptors are closed", || {
        let before = descriptors();
        drop(scene.opened());
        descriptors() <= before
    });
    assert!(scene.names("stage").is_empty());
}

#[test]
fn another_version_is_told() {
    let Some(scene) = Scene::new() else { return };
    let stream = scene.greeted();
    frame::send(&stream, &Open { version: VERSION + 1, ..scene.open() }, None).unwrap();
    let opened: Opened = frame::receive(&stream).unwrap().unwrap().message().unwrap();
    assert!(matches!(opened, Opened::No(Failure::Unsupported(_))), "{opened:?}");
}

/// Whoever has the other end of an archive can keep it from going on for as long as he likes: that must not
/// keep the service.
#[test]
fn a_call_ends_with_its_caller() {
    let Some(scene) = Scene::new() else { return };
    scene.layer("full");
    fs::write(scene.settings.root.join("diff/full/large"), vec![7; 4 << 20]).unwrap();
    fs::write(scene.settings.root.join("diff/full/small"), vec![7; 1000]).unwrap();
    let diff = || Call::Diff { id: "full".into(), parent: None };
    let (silent_end, silent) = pipe();
    let (half_end, half) = pipe();
    File::from(half.try_clone().unwrap()).write_all(&begun("f", 9000, &[1; 4096])).unwrap();
    let (unread, unread_end) = pipe();
    let (socket, socket_end) = UnixStream::pair().unwrap();
    let (empty_socket, empty_socket_end) = UnixStream::pair().unwrap();
    let rows: [(&str, Call, OwnedFd); 5] = [
        ("nothing comes from a pipe", apply("silent"), silent_end),
        ("half an archive comes from a pipe", apply("half"), half_end),
        ("nothing comes from a socket", apply("socket"), empty_socket.into()),
        ("nobody reads a pipe", diff(), unread_end),
        ("nobody reads a socket", diff(), socket.into()),
    ];
    for (what, call, descriptor) in rows {
        let id = match &call {
            Call::ApplyDiff { id, .. } => {
                scene.layer(id);
                id.clone()
            }
            _ => "full".to_owned(),
        };
        let stream = scene.opened();
        let server = &scene.handle;
        frame::send(&stream, &call, Some(descriptor.as_fd())).unwrap();
        drop(descriptor);
        until(what, || server.calls_under_way() == 1);
        std::thread::sleep(Duration::from_millis(50));
        assert_eq!(server.calls_under_way(), 1, "{what}: it did not wait");
        drop(stream);
        until(what, || server.calls_under_way() == 0);
        // Its locks are gone, too.
        if matches!(call, Call::ApplyDiff { .. }) {
            assert!(scene.names("stage").is_empty(), "{what}");
            assert!(scene.names(&format!("diff/{id}")).is_empty(), "{what}");
            let archive = scene.path.join("archive");
            fs::write(&archive, [begun("f", 5, b"hello"), vec![0; 507 + 1024]].concat()).unwrap();
            let archive = File::open(archive).unwrap();
            let totals = scene.calls().apply_diff(&id, None, archive, &ApplyOptions::default(), None);
            assert_eq!(totals.unwrap().bytes, 5, "{what}");
        }
        scene.calls().remove(&id, false).unwrap();
        if id == "full" {
            scene.layer("full");
            fs::write(scene.settings.root.join("diff/full/large"), vec![7; 4 << 20]).unwrap();
        }
    }
    drop((silent, half, unread, socket_end, empty_socket_end));
}

#[test]
fn a_service_that_stops_ends_the_calls_that_would_not_end() {
    let Some(scene) = Scene::new() else { return };
    scene.layer("base");
    let (read, _write) = pipe();
    let stream = scene.opened();
    frame::send(&stream, &apply("base"), Some(read.as_fd())).unwrap();
    let handle = &scene.handle;
    // A call before it counts for a moment beyond its answer; what is being filled is this one's.
    until("the call begins", || handle.calls_under_way() == 1 && !scene.names("stage").is_empty());
    std::thread::scope(|scope| {
        let draining = scope.spawn(|| handle.drain());
        std::thread::sleep(Duration::from_millis(100));
        assert!(!draining.is_finished(), "a call under way was not waited for");
        handle.cut();
        until("the call has ended", || draining.is_finished());
    });
    assert!(scene.names("stage").is_empty() && scene.names("diff/base").is_empty());
    assert!(announce::places(&scene.settings.root).unwrap().1.iter().all(|place| !place.exists()));
}

#[test]
fn answers_of_many_parts_come_whole() {
    let Some(scene) = Scene::new() else { return };
    scene.layer("base");
    // Of names that are not UTF-8, each byte is up to four characters of JSON.
    for number in 0..3000 {
        use std::os::unix::ffi::OsStrExt as _;
        let name = [format!("{number}-").as_bytes(), &[0xFF; 240]].concat();
        fs::write(scene.settings.root.join("diff/base").join(std::ffi::OsStr::from_bytes(&name)), "")
            .unwrap();
    }
    let there = scene.calls().changes("base", None).unwrap();
    let here = scene.stores.all()[0].changes("base", None).unwrap();
    assert_eq!(there.iter().len(), 3000);
    assert_eq!(there, here);
}

#[test]
fn the_caller_is_told_how_far_its_archive_was_read() {
    let Some(scene) = Scene::new() else { return };
    scene.layer("base");
    let (read, write) = pipe();
    let mut archive = Vec::new();
    for number in 0..4 {
        archive.extend(begun(&format!("f{number}"), 1 << 20, &[1; 1 << 20]));
    }
    archive.extend([0; 1024]);
    let length = archive.len() as u64;
    let feeder = std::thread::spawn(move || {
        let mut write = File::from(write);
        archive.chunks(1 << 20).try_for_each(|chunk| {
            std::thread::sleep(Duration::from_millis(120));
            write.write_all(chunk)
        })
    });
    let told = Arc::new(Mutex::new(Vec::new()));
    let telling = told.clone();
    let options = ApplyOptions::default();
    let meter = Box::new(move |read| telling.lock().unwrap().push(read));
    let totals = scene.calls().apply_diff("base", None, File::from(read), &options, Some(meter)).unwrap();
    feeder.join().unwrap().unwrap();
    assert_eq!((totals.entries, totals.bytes), (4, 4 << 20));
    let told = told.lock().unwrap();
    assert!(
        told.len() >= 2 && told.is_sorted() && told.last().is_some_and(|last| *last <= length),
        "{told:?}"
    );
    assert!((1..=4).contains(&options.progress.entries.load(Ordering::Relaxed)));
}

#[test]
fn whoever_finds_no_room_waits_for_it_and_is_let_in() {
    let Some(scene) = Scene::new() else { return };
    let mut idle: Vec<UnixStream> = (0..server::CONNECTIONS).map(|_| scene.greeted()).collect();
    let late = UnixStream::connect(scene.path.join("socket")).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let error = frame::receive(&late).expect_err("it is let in, and there is no room");
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock, "it is turned away: {error}");
    late.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    drop(idle.pop());
    let hello: Hello = frame::receive(&late).unwrap().unwrap().message().unwrap();
    assert_eq!(hello.version, VERSION);
    // A service that ends does not wait for room.
    idle.push(late);
    let begun = Instant::now();
    scene.handle.drain();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn failures_cross_as_they_are() {
    let text = || "te\"xt\n".to_owned();
    let entry = || b"a\xff\n".to_vec();
    let failures = [
        Failure::NotFound(text()),
        Failure::Exists,
        Failure::NoSuchParent(text()),
        Failure::InvalidId(text()),
        Failure::TooDeep(500),
        Failure::Incomplete(text()),
        Failure::Busy(text()),
        Failure::Locked(text()),
        Failure::HasChildren(text()),
        Failure::Conflict(text()),
        Failure::StoreInUse(text()),
        Failure::NoStore(text()),
        Failure::Refused { entry: entry(), rule: text() },
        Failure::Limit { entry: entry(), bound: text() },
        Failure::Denied(text()),
        Failure::MountFailed { layer: Some(text()), filesystem: None, detail: text(), code: 1 },
        Failure::Io { entry: entry(), operation: text(), code: 28 },
        Failure::Other { entry: entry(), operation: text(), what: text() },
        Failure::Corrupt(text()),
        Failure::InvalidArgument(text()),
        Failure::Unsupported(text()),
        Failure::GuestRefused(text()),
        Failure::GuestFailed(text()),
        Failure::NotRoot("mounting".into()),
    ];
    let (one, other) = UnixStream::pair().unwrap();
    for failure in failures {
        let reply = Reply::Failed { layer: Some(text()), failure: failure.clone() };
        frame::send(&one, &reply, None).unwrap();
        match frame::receive(&other).unwrap().unwrap().message().unwrap() {
            Reply::Failed { layer, failure: crossed } => {
                assert_eq!((layer, crossed), (Some(text()), failure));
            }
            reply => panic!("{reply:?}"),
        }
    }
}
