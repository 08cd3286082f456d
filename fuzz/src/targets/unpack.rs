//! The decompressors.

use std::io::{self, Read};

use layerbox_guest::compression::{Format, UnpackError, Unpacker};

/// The most that is unpacked of one input: a bomb is stopped by its reader, and here too.
const MOST: u64 = 1 << 20;

pub(crate) fn gzip(bytes: &[u8]) {
    let ours = unpack(Format::Gzip, bytes);
    // Another reader of the framing. It does not take the zeros after a member, so only what it gives counts.
    let mut theirs = Vec::new();
    let ended = flate2::read::MultiGzDecoder::new(bytes).take(MOST).read_to_end(&mut theirs).is_ok();
    if let Ok(ours) = &ours {
        assert!(theirs.len() as u64 == MOST || !ended || *ours == theirs, "another reader gives other bytes");
    }
    // Another inflater, on the first member where that has the plain header.
    if let (Ok(ours), Some(body), Some(0)) = (&ours, bytes.get(10..), bytes.get(3)) {
        let first = miniz_oxide::inflate::decompress_to_vec_with_limit(body, MOST as usize);
        assert!(ours.len() as u64 == MOST || first.is_ok_and(|first| ours.starts_with(&first)));
    }
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::new(6));
    let mut packed = Vec::new();
    encoder.read_to_end(&mut packed).expect("memory");
    assert_eq!(unpack(Format::Gzip, &packed).as_deref(), Ok(bytes), "what was packed is not unpacked");
}

pub(crate) fn zstd(bytes: &[u8]) {
    // There is no second decoder in Rust alone; what is compared is what was packed.
    let _ = unpack(Format::Zstd, bytes);
    let packed = ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    assert_eq!(unpack(Format::Zstd, &packed).as_deref(), Ok(bytes), "what was packed is not unpacked");
}

/// Unpacks a stream twice, whole and in pieces, which must come to the same.
fn unpack(format: Format, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let whole = take(Unpacker::new(format, bytes));
    let pieces = take(Unpacker::new(format, Pieces(bytes)));
    // A fault is found as early as there are bytes to find it in; up to there both have given the same.
    let common =
        if whole.1.is_some() { whole.0.len().min(pieces.0.len()) } else { whole.0.len().max(pieces.0.len()) };
    assert!(whole.0.get(..common) == pieces.0.get(..common), "read in pieces it is another stream");
    assert_eq!(whole.1, pieces.1, "read in pieces it ends otherwise");
    match whole {
        (bytes, None) => Ok(bytes),
        (_, Some(error)) => Err(error),
    }
}

fn take(unpacker: impl Read) -> (Vec<u8>, Option<String>) {
    let mut bytes = Vec::new();
    let result = unpacker.take(MOST).read_to_end(&mut bytes);
    let error = result.err().map(|error| {
        let fault = UnpackError::of(&error);
        fault.unwrap_or_else(|| panic!("not a fault of the stream: {error}")).to_string()
    });
    (bytes, error)
}

/// A stream that gives one byte, then two, and so on up to seven.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(1 + self.0.len() % 7).min(self.0.len());
        let (now, later) = self.0.split_at(length);
        buffer[..length].copy_from_slice(now);
        self.0 = later;
        Ok(length)
    }
}
