//! `apply-diff`: what it tries with the layer that it is to fill; and `diff`.

use crate::bindings::exports::layerbox::driver::differ::Outcome;
use crate::bindings::layerbox::driver::streams::{Sink, Source};
use crate::bindings::layerbox::driver::tree::{Content, Piece, Tree};
use crate::bindings::layerbox::driver::types::{Attributes, Error, Kind, Timestamp, Totals, Xattr};
use crate::bindings::layerbox::driver::writer::{Body, Entry, Extent, Writer};
use crate::{Result, must_fail, no_such_attack};

fn entry(name: &[u8], kind: Kind, body: Body) -> Entry {
    let mtime = Timestamp { seconds: 0, nanoseconds: 0 };
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() };
    Entry { name: name.to_vec(), kind, attributes, body }
}

fn file(name: &[u8]) -> Entry {
    entry(name, Kind::File(1), Body::Bytes(b"x".to_vec()))
}

fn opaque() -> Xattr {
    Xattr { name: b"trusted.overlay.opaque".to_vec(), value: b"y".to_vec() }
}

pub(crate) fn apply(id: &str) -> Result<Totals> {
    let writer = Writer::open(id)?;
    let put = |entry| writer.put(&[entry], None);
    match id {
        "traps-half-filled" => {
            put(entry(b"d", Kind::Directory, Body::None))?;
            put(file(b"d/file"))?;
            put(entry(b"open", Kind::File(1 << 20), Body::Later))?;
            writer.fill(0, b"half")?;
            panic!("in the middle of it");
        }
        "does-not-finish" => {
            put(file(b"file"))?;
            Ok(Totals { entries: 1, bytes: 1 })
        }
        "fails-half-filled" => {
            put(file(b"file"))?;
            Err(Error::Conflict("it does not like it".to_owned()))
        }
        "fills-a-neighbour" => Err(must_fail(id, Writer::open("stranger"))),
        "puts-outside" => {
            let mut last = Error::Denied(String::new());
            for name in [&b"../x"[..], b"..", b"a/../../x", b"../../victim/hello", b"a\0b", &[b'x'; 256]] {
                last = must_fail("put", put(file(name)));
                let attribute = Xattr { name: b"user.x".to_vec(), value: b"x".to_vec() };
                must_fail("mark", writer.mark(&[name.to_vec()], &attribute));
                must_fail("stat", writer.stat(&[name.to_vec()]));
            }
            Err(last)
        }
        "links-to-what-is-outside" => {
            put(entry(b"out", Kind::Symlink(b"/victim".to_vec()), Body::None))?;
            must_fail("through", put(entry(b"a", Kind::HardLink(b"out/hello".to_vec()), Body::None)));
            Err(must_fail(
                "link",
                put(entry(b"b", Kind::HardLink(b"../../victim/hello".to_vec()), Body::None)),
            ))
        }
        "fills-more-than-it-said" => {
            put(entry(b"open", Kind::File(10), Body::Later))?;
            must_fail("far out", writer.fill(u64::MAX, b"x"));
            Err(must_fail("past the end", writer.fill(5, b"123456")))
        }
        "fills-what-is-not-open" => Err(must_fail(id, writer.fill(0, b"x"))),
        "takes-bytes-that-are-gone" => {
            let source = Source::open()?;
            source.read(512)?;
            source.read(512)?;
            let take = |body| writer.put(&[entry(b"a", Kind::File(100), body)], Some(&source));
            must_fail(
                "extents",
                take(Body::Extents(vec![Extent { offset: u64::MAX, length: 9, position: 512 }])),
            );
            Err(must_fail("position", take(Body::Stream(0))))
        }
        "puts-after-the-end" => {
            writer.finish()?;
            Err(must_fail(id, put(file(b"late"))))
        }
        "brings-a-deletion-in-as-a-device" => {
            let number = crate::bindings::layerbox::driver::types::Device { major: 8, minor: 0 };
            Err(must_fail(id, put(entry(b"sda", Kind::BlockDevice(number), Body::None))))
        }
        "puts-more-entries-than-it-may" => loop {
            put(file(b"file"))?;
        },
        "puts-a-directory-for-ever" => loop {
            put(entry(b"d", Kind::Directory, Body::None))?;
        },
        "puts-too-many-attributes" => {
            let mut much = entry(b"f", Kind::File(0), Body::None);
            let xattr = |n| Xattr { name: format!("user.{n}").into_bytes(), value: vec![0; 1 << 16] };
            much.attributes.xattrs = (0..1000).map(xattr).collect();
            Err(must_fail(id, put(much)))
        }
        "marks-too-many-names" => Err(must_fail(id, writer.mark(&vec![b"d".to_vec(); 4097], &opaque()))),
        "looks-at-too-many-names" => Err(must_fail(id, writer.stat(&vec![b"d".to_vec(); 4097]))),
        "marks-on-behind-the-bound" => {
            let much = Xattr { name: b"user.x".to_vec(), value: vec![0; 1 << 16] };
            let mut names = (0..10_000).map(|n| format!("d{n}").into_bytes());
            let reached = names.any(|name| writer.mark(&[name], &much).is_err());
            assert!(reached, "it worked: 10,000 marks of 64 KiB");
            must_fail("put", put(file(b"file")));
            must_fail("mark", writer.mark(&[b"d".to_vec()], &opaque()));
            Err(must_fail("finish", writer.finish()))
        }
        "expands-on-behind-the-bound" => {
            let body = vec![b'x'; 1 << 20];
            let big = |n| entry(format!("f{n}").as_bytes(), Kind::File(1 << 20), Body::Bytes(body.clone()));
            let reached = (0..1000).any(|n| put(big(n)).is_err());
            assert!(reached, "it worked: a gigabyte of nothing");
            must_fail("put", put(file(b"file")));
            Err(must_fail("finish", writer.finish()))
        }
        // 500 MiB in one call, of the first block of the archive again and again.
        "gives-the-same-bytes-to-many" => {
            const TIMES: u64 = 2048;
            let source = Source::open()?;
            source.read(512)?;
            let extent = |n| Extent { offset: n * 512, length: 512, position: 0 };
            let body = || Body::Extents((0..TIMES).map(extent).collect());
            let big = |n| entry(format!("f{n}").as_bytes(), Kind::File(TIMES * 512), body());
            let many: Vec<Entry> = (0..500).map(big).collect();
            let error = must_fail("put", writer.put(&many, Some(&source)));
            let Error::Limit(excess) = &error else { return Err(error) };
            let mut numbers =
                excess.bound.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok());
            let written: u64 = numbers.nth(1).unwrap_or(u64::MAX);
            assert!(written < 100 << 20, "it worked: {}", excess.bound);
            Err(error)
        }
        "counts-what-never-came" => {
            let source = Source::open()?;
            let vast = entry(b"vast", Kind::File(1 << 40), Body::Stream(0));
            must_fail("put", writer.put(&[vast], Some(&source)));
            Err(must_fail("finish", writer.finish()))
        }
        "puts-the-root-for-ever" => loop {
            put(entry(b"", Kind::Directory, Body::None))?;
        },
        _ => no_such_attack(id),
    }
}

/// In `diff`, which is lent a layer and a stream to write to.
pub(crate) fn diff(id: &str) -> Result<Outcome> {
    let (tree, sink) = (Tree::open(id)?, Sink::open()?);
    match id {
        // Each of them is looked for and opened, and nothing goes out.
        "loops-in-empty-pieces" => {
            let pieces: Vec<Piece> =
                std::iter::repeat_with(|| Piece::Content(Content { name: b"f".to_vec(), length: 0 }))
                    .take(100_000)
                    .collect();
            loop {
                tree.send(&pieces, &sink)?;
            }
        }
        _ => no_such_attack(id),
    }
}
