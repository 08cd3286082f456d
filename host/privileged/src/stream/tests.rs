use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use super::{PIECE, Sink, Source};
use crate::Error;

fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 7 + index / 251) as u8).collect()
}

fn source(length: usize) -> Source {
    Source::new(Box::new(io::Cursor::new(bytes(length))))
}

fn taken(source: &mut Source, position: u64, length: u64) -> Result<Vec<u8>, Error> {
    let mut all = Vec::new();
    source.take(position, length, |chunk| {
        all.extend_from_slice(&chunk);
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn bodies_are_taken_from_the_window_and_beyond() {
    let all = bytes(3 * PIECE);
    // window read first, position, length
    let rows: &[(u32, u64, u64)] = &[
        (1000, 0, 1000),
        (1000, 0, 0),
        (1000, 999, 1),
        (1000, 1000, 0),
        (1000, 1000, 10),
        (1000, 500, 5000),
        (1000, 500, 2 * PIECE as u64 + 17),
    ];
    for (window, position, length) in rows {
        let mut source = source(all.len());
        assert_eq!(source.read(*window).unwrap().len(), *window as usize);
        let got = taken(&mut source, *position, *length).unwrap();
        assert_eq!(got, all[*position as usize..][..*length as usize], "{window} {position} {length}");
        let end = (*position + *length).max(u64::from(*window));
        assert_eq!(source.bytes_read(), end);
        assert_eq!(
            *source.read(1).unwrap(),
            all[end as usize..][..1],
            "reading goes on after what was taken"
        );
    }
}

#[test]
fn positions_outside_the_window_are_invalid() {
    for position in [0, 99, 301, u64::MAX] {
        let mut source = source(1000);
        source.read(100).unwrap();
        source.read(200).unwrap();
        let outcome = source.take(position, 1, |_| Ok(()));
        assert!(matches!(outcome, Err(Error::InvalidArgument(_))), "{position}");
    }
    let mut source = source(1000);
    source.read(100).unwrap();
    source.take(50, 100, |_| Ok(())).unwrap();
    assert!(source.take(50, 1, |_| Ok(())).is_err(), "what went past the window is gone");
    assert!(source.take(150, 1, |_| Ok(())).is_ok());
}

#[test]
fn a_stream_that_ends_early_is_refused_and_one_that_breaks_is_an_error() {
    let mut short = source(100);
    short.read(10).unwrap();
    assert!(matches!(short.take(0, 101, |_| Ok(())), Err(Error::Refused { .. })));

    struct Broken(Option<io::Error>);
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.0.take().map_or(Ok(0), Err)
        }
    }
    let limit = Error::Limit { entry: None, bound: "time".into() };
    let rows = [
        (io::Error::from_raw_os_error(104), Error::Io { entry: None, operation: "read", errno: 104 }),
        (
            io::Error::other("no number"),
            Error::Other { entry: None, operation: "read", what: "no number".into() },
        ),
        (io::Error::other(limit.clone()), limit),
    ];
    for (thrown, told) in rows {
        assert_eq!(Source::new(Box::new(Broken(Some(thrown)))).read(10).unwrap_err(), told);
    }
}

#[test]
fn a_chunk_outlives_the_window_it_came_from() {
    let mut source = source(100 * 1000);
    let all = bytes(100 * 1000);
    let mut chunks = Vec::new();
    for _ in 0..100 {
        chunks.push(source.read(1000).unwrap());
    }
    for (index, chunk) in chunks.iter().enumerate() {
        assert_eq!(**chunk, all[index * 1000..][..1000]);
    }
    assert!(source.read(1000).unwrap().is_empty());
}

/// A socket that takes little at a time, and says that it would block.
#[test]
fn a_watched_sink_waits_where_it_is_told_to_and_ends_where_it_is_told_to() {
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    let all = bytes(5 * PIECE + 99);
    let path = std::env::temp_dir().join(format!("layerbox-watched-{}", std::process::id()));
    std::fs::write(&path, &all).unwrap();
    let patient = || {
        std::thread::sleep(Duration::from_micros(100));
        Ok(())
    };
    let (far, mut near) = UnixStream::pair().unwrap();
    far.set_nonblocking(true).unwrap();
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        near.read_to_end(&mut got).map(|_| got)
    });
    let mut sink = Sink::watched(far.into(), Box::new(patient));
    sink.write(&all).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    assert_eq!(sink.send_file(&file, all.len() as u64).unwrap(), all.len() as u64);
    sink.write(&all[..100]).unwrap();
    sink.flush().unwrap();
    drop(sink);
    let got = reader.join().unwrap().unwrap();
    assert!(got == [&all[..], &all[..], &all[..100]].concat());

    // Nobody reads, so that only the third answer ends it.
    type Act = fn(&mut Sink, &std::fs::File, &[u8]) -> Result<(), Error>;
    let acts: [Act; 2] =
        [|sink, _, all| sink.write(all), |sink, file, all| sink.send_file(file, all.len() as u64).map(drop)];
    for act in acts {
        let (far, _near) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        let ready = move || match count.fetch_add(1, Ordering::Relaxed) {
            0..3 => Ok(()),
            _ => Err(io::Error::from_raw_os_error(103)),
        };
        let mut sink = Sink::watched(far.into(), Box::new(ready));
        let file = std::fs::File::open(&path).unwrap();
        let outcome = act(&mut sink, &file, &all);
        assert!(matches!(outcome, Err(Error::Io { errno: 103, .. })), "{outcome:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 4);
    }
    std::fs::remove_file(path).unwrap();
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_sink_keeps_the_order_of_bytes_and_files_whatever_its_far_end() {
    let path = std::env::temp_dir().join(format!("layerbox-sink-{}", std::process::id()));
    let out = path.with_extension("out");
    let all = bytes(2 * PIECE + 99);
    std::fs::write(&path, &all).unwrap();
    // a writer, a file (sendfile), a file opened to append (no sendfile)
    for far in ["writer", "file", "append"] {
        let shared = Shared::default();
        std::fs::write(&out, b"").unwrap();
        let mut sink = match far {
            "writer" => Sink::new(Box::new(shared.clone())),
            "file" => Sink::from_fd(std::fs::File::create(&out).unwrap().into()),
            _ => Sink::from_fd(std::fs::OpenOptions::new().append(true).open(&out).unwrap().into()),
        };
        let mut expected = Vec::new();
        for length in [0, 1, 512, 70_000, PIECE, PIECE + 1, all.len()] {
            sink.write(&all[..length / 2]).unwrap();
            expected.extend_from_slice(&all[..length / 2]);
            let file = std::fs::File::open(&path).unwrap();
            assert_eq!(sink.send_file(&file, length as u64).unwrap(), length as u64);
            expected.extend_from_slice(&all[..length]);
        }
        let file = std::fs::File::open(&path).unwrap();
        let more = all.len() as u64 + 1;
        assert_eq!(sink.send_file(&file, more).unwrap(), all.len() as u64, "a short file is told");
        expected.extend_from_slice(&all);
        sink.flush().unwrap();
        assert_eq!(sink.bytes_written(), expected.len() as u64);
        let got =
            if far == "writer" { shared.0.lock().unwrap().clone() } else { std::fs::read(&out).unwrap() };
        assert!(got == expected, "{far}");
    }
    std::fs::remove_file(path).unwrap();
    std::fs::remove_file(out).unwrap();
}

/// Takes a while for each byte, as the other end of a pipe may.
struct Slow;

const WHILE: std::time::Duration = std::time::Duration::from_millis(20);

impl Read for Slow {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        std::thread::sleep(WHILE);
        buffer[0] = 1;
        Ok(1)
    }
}

impl Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::sleep(WHILE);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn time_at_the_other_end_is_told_apart_from_work() {
    let mut source = Source::new(Box::new(Slow));
    source.read(10).unwrap();
    source
        .take(1, 2, |_| {
            std::thread::sleep(10 * WHILE);
            Ok(())
        })
        .unwrap();
    assert!((3 * WHILE..9 * WHILE).contains(&source.waited()), "{:?}", source.waited());
    let mut sink = Sink::new(Box::new(Slow));
    sink.write(&[1]).unwrap();
    assert!(sink.waited() < WHILE, "it is in the buffer");
    sink.write(&vec![1; 2 * PIECE]).unwrap();
    assert!(sink.waited() >= 2 * WHILE, "{:?}", sink.waited());
}
