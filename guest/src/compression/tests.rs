//! Streams, whole and damaged.

use std::io::{self, ErrorKind, Read};
use std::process::{Command, Stdio};

use flate2::Crc;

use super::*;
use crate::skip::skip;

/// Content that packs to something with all kinds of blocks in it.
fn content() -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    let mut content = Vec::new();
    for round in 0..40u8 {
        content.extend_from_slice(&[round; 10_000]);
        content.extend((0..3000).map(|_| noise()));
        content.extend_from_slice("the same words again and again, ".repeat(100).as_bytes());
    }
    content
}

/// A member of one stored block, with whatever header and trailer.
fn stored(flags: u8, extra: &[u8], body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    let mut crc = Crc::new();
    crc.update(body);
    [
        &[0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255][..],
        extra,
        &[1],
        &length.to_le_bytes(),
        &(!length).to_le_bytes(),
        body,
        &crc.sum().to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

/// A frame of one raw block, without a checksum.
fn raw_frame(body: &[u8]) -> Vec<u8> {
    let block = 1 | (u32::try_from(body.len()).unwrap() << 3);
    let length = u8::try_from(body.len()).unwrap();
    [&b"\x28\xb5\x2f\xfd\x20"[..], &[length], &block.to_le_bytes()[..3], body].concat()
}

/// Packs with a tool; `None`, and a message, when it is not installed.
fn pack(tool: &str, arguments: &[&str], content: &[u8]) -> Option<Vec<u8>> {
    let Ok(mut child) =
        Command::new(tool).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
    else {
        skip(&format!("{tool} is not installed, so its streams are not tested"), true);
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let content = content.to_vec();
    let writer = std::thread::spawn(move || io::Write::write_all(&mut stdin, &content));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{tool}");
    Some(output.stdout)
}

/// Gives bytes in pieces of a few, as a pipe might.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.0.len()).min(7);
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}

fn unpack(packed: &[u8]) -> io::Result<Vec<u8>> {
    let format = detect(packed).expect("a format that is supported");
    let mut whole = Vec::new();
    let result = Unpacker::new(format, packed).read_to_end(&mut whole);
    let mut trickled = Vec::new();
    let other = Unpacker::new(format, Trickle(packed)).read_to_end(&mut trickled);
    assert_eq!(result.as_ref().map_err(UnpackError::of), other.as_ref().map_err(UnpackError::of));
    assert_eq!(whole, trickled);
    result.map(|_| whole)
}

fn assert_fault(case: &str, packed: &[u8], kind: ErrorKind, what: &str) {
    let error = unpack(packed).expect_err(case);
    assert_eq!(error.kind(), kind, "{case}: {error}");
    assert!(UnpackError::of(&error).is_some(), "{case}: {error}");
    assert!(error.to_string().contains(what), "{case}: {error}");
}

#[test]
fn formats_are_told_by_their_magic() {
    let cases: [(&[u8], Result<Format, &str>); 14] = [
        (b"\x1f\x8b\x08", Ok(Format::Gzip)),
        (b"\x28\xb5\x2f\xfd", Ok(Format::Zstd)),
        (b"\x50\x2a\x4d\x18", Ok(Format::Zstd)),
        (b"\x5f\x2a\x4d\x18", Ok(Format::Zstd)),
        (b"dir/\0\0\0\0\0\0", Ok(Format::Plain)),
        (b"\0\0\0\0\0\0", Ok(Format::Plain)),
        (b"", Ok(Format::Plain)),
        (b"BZhang.txt\0", Ok(Format::Plain)),
        (b"\xfd7zXZ\0", Err("xz is not supported")),
        (b"BZh91AY&SY", Err("bzip2 is not supported")),
        (b"\x04\x22\x4d\x18", Err("lz4 is not supported")),
        (b"LZIP\x01", Err("lzip is not supported")),
        (b"\x1f\x9d\x90", Err("compress is not supported")),
        (b"PK\x03\x04", Err("zip is not supported")),
    ];
    for (first, expected) in cases {
        let found = detect(first).map_err(|error| error.rule);
        assert_eq!(found, expected.map_err(str::to_owned), "{}", first.escape_ascii());
    }
}

#[test]
fn a_name_that_begins_like_a_packed_stream_is_told_from_one() {
    let cases: [(&[u8], Result<Format, &str>); 11] = [
        (b"PK\x03\x04", Ok(Format::Plain)),
        (b"\x04\x22\x4d\x18", Ok(Format::Plain)),
        (b"LZIP\x01", Ok(Format::Plain)),
        (b"\x1f\x9d\x90", Ok(Format::Plain)),
        (b"\x1f\x8b\x07", Ok(Format::Plain)),
        (b"BZh9", Ok(Format::Plain)),
        (b"\x1f\x8b\x08", Err("gzip stream as well")),
        (b"\x28\xb5\x2f\xfd", Err("zstd stream as well")),
        (b"\x50\x2a\x4d\x18\xf8\x01", Err("zstd stream as well")),
        (b"\xfd7zXZ", Err("xz stream as well")),
        (b"BZh91AY&SY", Err("bzip2 stream as well")),
    ];
    for (name, expected) in cases {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_cksum();
        let found = detect(header.as_bytes()).map_err(|error| error.rule);
        match (&found, expected) {
            (Err(rule), Err(part)) => assert!(rule.ends_with(part), "{rule}"),
            _ => assert_eq!(found, expected.map_err(str::to_owned), "{}", name.escape_ascii()),
        }
        assert!(may_seem_packed(header.as_bytes()), "{}", name.escape_ascii());
    }
}

#[test]
fn streams_of_the_tools_are_read() {
    let content = content();
    let lines: [(&str, &[&str]); 8] = [
        ("gzip", &["-1", "-c"]),
        ("gzip", &["-9", "-c"]),
        ("zstd", &["-1", "-q", "-c"]),
        ("zstd", &["-19", "-q", "-c"]),
        ("zstd", &["--no-check", "-q", "-c"]),
        ("zstd", &["--long=26", "-q", "-c"]),
        ("zstd", &["-q", "-c", "-T2", "-B65536"]),
        ("cat", &[]),
    ];
    for (tool, arguments) in lines {
        let Some(packed) = pack(tool, arguments, &content) else { continue };
        assert!(unpack(&packed).unwrap() == content, "{tool} {arguments:?}");
        if tool == "cat" {
            continue;
        }
        let twice = [&packed[..], &packed].concat();
        assert!(unpack(&twice).unwrap() == content.repeat(2), "{tool} {arguments:?}");
    }
}

#[test]
fn members_and_frames_follow_each_other() {
    let all_fields = [&b"\x02\0xy"[..], b"name\0", b"comment\0"].concat();
    let skippable = b"\x53\x2a\x4d\x18\x03\0\0\0abc";
    let cases: [(&str, Vec<u8>, &[u8]); 8] = [
        ("a member", stored(0, b"", b"one"), b"one"),
        ("an empty member", stored(0, b"", b""), b""),
        ("optional fields", stored(0b1_1101, &all_fields, b"one"), b"one"),
        (
            "members",
            [stored(0, b"", b"one"), stored(0, b"", b""), stored(0, b"", b"two")].concat(),
            b"onetwo",
        ),
        ("zeros after the last", [stored(0, b"", b"one"), vec![0; 10_000]].concat(), b"one"),
        ("a frame", raw_frame(b"one"), b"one"),
        (
            "frames",
            [&raw_frame(b"one")[..], skippable, &raw_frame(b""), &raw_frame(b"two")].concat(),
            b"onetwo",
        ),
        ("skippable frames", skippable.repeat(2), b""),
    ];
    for (case, packed, expected) in cases {
        assert_eq!(unpack(&packed).unwrap(), expected, "{case}");
    }
}

#[test]
fn damaged_streams_are_errors() {
    let member = stored(0, b"", b"one");
    let end = member.len();
    let flip = |packed: &[u8], at: usize| {
        let mut packed = packed.to_vec();
        packed[at] ^= 0x40;
        packed
    };
    let frame = raw_frame(b"one");
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("content", flip(&member, end - 9), "wrong checksum"),
        ("checksum", flip(&member, end - 8), "wrong checksum"),
        ("length", flip(&member, end - 4), "wrong length"),
        ("block", flip(&member, 12), "damaged deflate data"),
        ("method", flip(&member, 2), "not a gzip header"),
        ("reserved flags", flip(&member, 3), "reserved flags"),
        ("checksum of the header", stored(0b10, b"\0\0", b""), "checksum of a header"),
        ("garbage after the last", [&member[..], b"garbage"].concat(), "something else"),
        ("garbage after zeros", [&member[..], &[0; 600], b"x"].concat(), "something else"),
        ("garbage after a frame", [&frame[..], b"garbage"].concat(), "something else"),
        ("zeros after a frame", [&frame[..], &[0; 512]].concat(), "something else"),
        ("reserved bit of a frame", flip(&[&frame[..4], &[0x68], &frame[5..]].concat(), 4), "reserved bit"),
        ("length of a frame", [&frame[..5], &[9], &frame[6..]].concat(), "wrong length"),
    ];
    for (case, packed, what) in cases {
        assert_fault(case, &packed, ErrorKind::InvalidData, what);
    }
    if let Some(packed) = pack("zstd", &["-q", "-c", "--check"], &content()) {
        assert_fault(
            "checksum of a frame",
            &flip(&packed, packed.len() - 1),
            ErrorKind::InvalidData,
            "wrong checksum",
        );
    }
}

#[test]
fn streams_that_are_cut_off_are_errors_wherever_it_is() {
    let small = b"some content, and some content";
    let gzip = pack("gzip", &["-9", "-c"], small);
    let zstd = pack("zstd", &["-q", "-c", "--check"], small);
    for packed in
        [Some(stored(0b1000, b"name\0", b"one")), Some(raw_frame(b"one")), gzip, zstd].into_iter().flatten()
    {
        for length in 4..packed.len() {
            assert_fault("cut", &packed[..length], ErrorKind::UnexpectedEof, "cut off");
        }
        for extra in 4..packed.len() {
            let two = [&packed[..], &packed[..extra]].concat();
            assert_fault("second cut", &two, ErrorKind::UnexpectedEof, "cut off");
        }
    }
}

#[test]
fn windows_are_bounded() {
    // Window descriptors: the exponent in five bits, the mantissa in three (RFC 8878, section 3.1.1.1.2).
    let frame = |descriptor: u8| [&b"\x28\xb5\x2f\xfd\0"[..], &[descriptor], &[1, 0, 0]].concat();
    assert_eq!(unpack(&frame(16 << 3)).unwrap(), b"");
    for descriptor in [16 << 3 | 1, 17 << 3, 30 << 3] {
        assert_fault("window", &frame(descriptor), ErrorKind::QuotaExceeded, "window");
    }
    let single = [&b"\x28\xb5\x2f\xfd\xe0"[..], &(1u64 << 40).to_le_bytes(), &[1, 0, 0]].concat();
    assert_fault("content of one segment", &single, ErrorKind::QuotaExceeded, "window");
}

#[test]
fn bombs_unpack_only_as_far_as_they_are_read() {
    let zeros = vec![0; 32 << 20];
    for (tool, arguments) in [("gzip", ["-9", "-c"]), ("zstd", ["-q", "-c"])] {
        let Some(packed) = pack(tool, &arguments, &zeros) else { continue };
        let mut unpacker = Unpacker::new(detect(&packed).unwrap(), &packed[..packed.len() / 2]);
        let mut some = [1; 4096];
        unpacker.read_exact(&mut some).unwrap();
        assert_eq!(some, [0; 4096]);
    }
}

#[test]
fn errors_of_the_stream_below_are_passed_on() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other("the client is gone")),
                length => Ok(length),
            }
        }
    }
    for packed in [stored(0, b"", b"one"), raw_frame(b"one")] {
        for length in 4..packed.len() {
            let mut unpacker = Unpacker::new(detect(&packed).unwrap(), Broken(&packed[..length]));
            let error = unpacker.read_to_end(&mut Vec::new()).expect_err("broken");
            assert_eq!(error.to_string(), "the client is gone");
            assert_eq!(UnpackError::of(&error), None);
            let again = unpacker.read(&mut [0; 8]).expect_err("still broken");
            assert_eq!(again.kind(), ErrorKind::InvalidData);
        }
    }
}
