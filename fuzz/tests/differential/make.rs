//! Archives to differ on: members in every form that writers use, each with few things wrong, and the corpus
//! of the reader, changed and summed up anew.

use layerbox_tests::archive::{BLOCK, Member, Tar, member, pax_records};

/// SplitMix64 (Steele, Lea, Flood 2014): the same archives for a seed on every machine.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 33) as usize % bound.max(1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn choose<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

/// Fields of a header (POSIX pax, "ustar Header Block"; GNU's own behind the prefix): offset and width.
const FIELDS: [(usize, usize); 14] = [
    (0, 100),
    (100, 8),
    (108, 8),
    (116, 8),
    (124, 12),
    (136, 12),
    (156, 1),
    (157, 100),
    (257, 8),
    (265, 32),
    (329, 8),
    (337, 8),
    (345, 155),
    (500, 12),
];

const NAMES: [&[u8]; 18] = [
    b"a",
    b"b",
    b"d/",
    b"d/a",
    b"./a",
    b"/a",
    b"a//b",
    b"a/./b",
    b"d//",
    b"a/.",
    b"\xc3\xa9",
    b"\xff",
    b"a b",
    b"a\nb",
    b"a\\b",
    b"\"q\"",
    b".wh.a",
    b"./",
];

const NUMBERS: [&[u8]; 22] = [
    b"00000000000",
    b"0000001\0",
    b"1\0",
    b"1 ",
    b" 1",
    b"  1 \0",
    b"\0\0\0\0",
    b"",
    b"        ",
    b"+1\0",
    b"-1\0",
    b"0x1\0",
    b"8\0",
    b"1\x001\0",
    b"\x001\0",
    b"777777777777",
    b"\x80\0\0\0\0\0\0\0\0\0\0\x01",
    b"\x80\0\0\0\0\0\0\x01",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\x81\0\0\0\0\0\0\0\0\0\0\x01",
    b"1,\0",
    b"1\t\0",
];

/// Modes with the bits of a type before them.
const MODES: [&[u8]; 6] =
    [b"0100644\0", b"0120777\0", b"0040755\0", b"0060644\0", b"0140644\0", b"0200644\0"];

const KEYS: [&str; 27] = [
    "path",
    "linkpath",
    "linkpath",
    "size",
    "uid",
    "gid",
    "mtime",
    "atime",
    "ctime",
    "comment",
    "uname",
    "hdrcharset",
    "charset",
    "GNU.sparse.name",
    "GNU.sparse.major",
    "GNU.sparse.minor",
    "GNU.sparse.realsize",
    "GNU.sparse.size",
    "GNU.sparse.numblocks",
    "GNU.sparse.map",
    "GNU.sparse.offset",
    "GNU.sparse.numbytes",
    "SCHILY.xattr.user.a",
    "SCHILY.realsize",
    "SCHILY.devmajor",
    "LIBARCHIVE.creationtime",
    "SCHILY.filetype",
];

const VALUES: [&[u8]; 22] = [
    b"",
    b"a",
    b"b/c",
    b"d/",
    b"0",
    b"1",
    b"2",
    b"3",
    b"512",
    b"1.5",
    b"-1",
    b"-0.5",
    b"+1",
    b" 1",
    b"1 ",
    b"0,1",
    b"0,0,1,0",
    b"BINARY",
    b"\xff",
    b"a\0b",
    b"ISO-IR 10646 2000 UTF-8",
    b"9999999999999999999999",
];

const FLAGS: &[u8] = b"\x0001234567SxgLKDMNVXA?";

/// One archive.
pub(crate) fn archive(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    if !corpus.is_empty() && random.one_in(2) {
        return changed(random, corpus);
    }
    let mut tar = Tar::new();
    for _ in 0..=random.below(3) {
        if random.one_in(4) {
            let name = [b'n'].repeat(1 + random.below(300));
            let body = random.choose(&[name, b"long/name\0".to_vec(), b"d/\0".to_vec(), b"a".to_vec()]);
            let flag = random.choose(b"LLK");
            tar.raw(&dialect(random, member("././@LongLink", flag).size(body.len() as u64)).header())
                .raw(&body)
                .pad();
        }
        if random.one_in(3) {
            let records: Vec<_> = (0..=random.below(3))
                .map(|_| (random.choose(&KEYS).as_bytes().to_vec(), random.choose(&VALUES).to_vec()))
                .collect();
            let mut body = pax_records(&records);
            if random.one_in(8) {
                let at = random.below(body.len());
                body[at] = random.choose(b"0123456789= \n\0");
            }
            let flag = random.choose(b"xxxxg");
            tar.extended(flag, &body);
        }
        let mut it = member(random.choose(&NAMES), random.choose(b"000000\x001255734"));
        if matches!(it.kind, b'1' | b'2') {
            it.target = random.choose(&NAMES).to_vec();
        }
        if matches!(it.kind, b'0' | 0 | b'7') {
            it.body = vec![b'x'; random.choose(&[0, 1, 511, 512, 513])];
        }
        it = dialect(random, it);
        let body = it.body.clone();
        for _ in 0..random.choose(&[0, 0, 1, 1, 2]) {
            it = wrong(random, it);
        }
        tar.raw(&it.header()).raw(&body).pad();
    }
    let mut bytes = match random.below(8) {
        0 => tar.bytes(),
        1 => [tar.bytes(), vec![0; BLOCK]].concat(),
        2 => [tar.finish(), tar.bytes()].concat(),
        _ => tar.finish(),
    };
    if random.one_in(12) {
        bytes.truncate(random.below(bytes.len() + 1));
    }
    bytes
}

/// As another family of writers would have it: GNU's magic, Version 7 without any, or ustar with a prefix,
/// with times, or of another version.
fn dialect(random: &mut Random, it: Member) -> Member {
    match random.below(8) {
        0 | 1 => it.patch(257, b"ustar  \0"),
        2 => it.patch(257, [0; 255]),
        3 => it.patch(345, random.choose(&[&b"p"[..], b"p/q", b"p/", b"/", b"."])),
        4 => it.patch(263, random.choose(&[&b" \0"[..], b"\0\0", b"  ", b"01", b"xx"])),
        // Times behind a short prefix, as npm has them.
        5 => it
            .patch(345, random.choose(&[&b""[..], b"p", b"p/q", &[b'p'; 130], &[b'p'; 131]]))
            .patch(
                476,
                random.choose(&[
                    &b"00000000001\0"[..],
                    b"17777777777 ",
                    b"\0",
                    b"x",
                    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
                ]),
            )
            .patch(488, random.choose(&[&b"00000000001\0"[..], b"           1", b"\0", b"1x"])),
        _ => it,
    }
}

/// With one thing wrong in the header.
fn wrong(random: &mut Random, it: Member) -> Member {
    let (offset, width) = random.choose(&FIELDS);
    let mut bytes = match offset {
        156 => vec![random.choose(FLAGS)],
        100 => random.choose(&[&NUMBERS[..], &MODES].concat()).to_vec(),
        101..=147 | 329..=344 => random.choose(&NUMBERS).to_vec(),
        0 | 157 | 345 => random.choose(&NAMES).to_vec(),
        _ => vec![random.choose(b"\0 0u1x"); 1 + random.below(width)],
    };
    bytes.truncate(width);
    it.patch(offset + if random.one_in(8) { random.below(width - bytes.len() + 1) } else { 0 }, bytes)
}

/// One of the corpus with bytes changed, headers put together from two, and all checksums right.
fn changed(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.choose(corpus);
    let blocks = bytes.len() / BLOCK;
    if blocks == 0 {
        return bytes;
    }
    for _ in 0..random.below(3) {
        let block = random.below(blocks) * BLOCK;
        match random.below(4) {
            0 => bytes[block + random.below(BLOCK)] = random.choose(b"\0 0125789xgLKS/.=\n\x80\xff"),
            1 => {
                let (offset, width) = random.choose(&FIELDS);
                let number = random.choose(&NUMBERS);
                let length = number.len().min(width);
                bytes[block + offset..block + offset + length].copy_from_slice(&number[..length]);
            }
            2 => {
                let other = random.choose(corpus);
                if let Some(other) = other.get(..BLOCK) {
                    let (offset, width) = random.choose(&FIELDS);
                    bytes[block + offset..block + offset + width]
                        .copy_from_slice(&other[offset..offset + width]);
                }
            }
            _ => {
                let other = random.choose(corpus);
                let at = random.below(other.len() / BLOCK + 1) * BLOCK;
                bytes.splice(block..block, other[at..].iter().copied());
            }
        }
    }
    bytes.truncate(1 << 16);
    sum(&mut bytes);
    bytes
}

/// Puts right the checksum of whatever looks like a header.
fn sum(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(BLOCK) {
        let looks = block[148..154].iter().all(u8::is_ascii_digit) && block[154] == 0;
        if looks {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
