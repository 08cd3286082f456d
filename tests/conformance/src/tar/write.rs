//! Making archives: entries as they should be, and blocks as they should not.

use super::header::{BLOCK, Header, fits};
use super::{Entry, Kind, Time};

/// The largest numbers that the fields of a header hold, in octal digits.
const OWNER_DIGITS: usize = 7;
const TIME_DIGITS: usize = 11;

/// An archive under construction.
#[derive(Debug, Clone, Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

/// The archive of these entries, whole.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    entries.iter().fold(Archive::new(), Archive::entry).end()
}

impl Archive {
    /// Nothing yet.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds an entry, with an extended header for what its own header cannot hold.
    pub fn entry(mut self, entry: &Entry) -> Archive {
        let mut name = entry.name.clone();
        if entry.kind == Kind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let records = extended(entry, &name);
        if !records.is_empty() {
            self = self.extension(b'x', &records);
        }
        let (flag, link, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
            Kind::File => (b'0', b"", (0, 0)),
            Kind::HardLink(target) => (b'1', target, (0, 0)),
            Kind::Symlink(target) => (b'2', target, (0, 0)),
            Kind::Character(major, minor) => (b'3', b"", (*major, *minor)),
            Kind::Block(major, minor) => (b'4', b"", (*major, *minor)),
            Kind::Directory => (b'5', b"", (0, 0)),
            Kind::Fifo => (b'6', b"", (0, 0)),
        };
        let mtime = in_header(entry.mtime).unwrap_or(0);
        let header = Header::new(flag).name(&name).link(link).size(entry.body.len() as u64).numbers(
            entry.mode,
            (entry.uid, entry.gid),
            mtime,
            device,
        );
        self.bytes.extend_from_slice(&header.seal());
        self.padded(&entry.body)
    }

    /// Adds an extension header: `x` or `g` with PAX records, `L` or `K` with a long name.
    pub fn extension(self, flag: u8, body: &[u8]) -> Archive {
        let header = Header::new(flag).name(b"PaxHeaders/x").size(body.len() as u64);
        self.raw(&header.seal()).padded(body)
    }

    /// Adds the extension header that `diff` writes before the entry whose name's last component is `last`.
    pub fn extension_of(self, last: &[u8], body: &[u8]) -> Archive {
        let header = Header::new(b'x').name(&[b"PaxHeaders.0/", last].concat()).size(body.len() as u64);
        self.member(header.numbers(0o644, (0, 0), 0, (0, 0)), body)
    }

    /// Adds a header and a body, whatever they say.
    pub fn member(self, header: Header, body: &[u8]) -> Archive {
        self.raw(&header.seal()).padded(body)
    }

    /// Adds bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Archive {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// Adds bytes, and zeros up to the next block.
    pub fn padded(mut self, bytes: &[u8]) -> Archive {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The bytes, with the two blocks of zeros that end an archive.
    pub fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }

    /// The bytes as they are.
    pub fn cut(self) -> Vec<u8> {
        self.bytes
    }
}

/// The records of an extended header: `LENGTH KEY=VALUE\n`.
pub fn records(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in pairs {
        let rest = key.len() + value.len() + 3;
        // The length counts its own digits.
        let mut length = rest;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        out.extend_from_slice(length.to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(key);
        out.push(b'=');
        out.extend_from_slice(value);
        out.push(b'\n');
    }
    out
}

/// What the header of an entry cannot hold.
fn extended(entry: &Entry, name: &[u8]) -> Vec<u8> {
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut add = |key: &[u8], value: &[u8]| pairs.push((key.to_vec(), value.to_vec()));
    let link: &[u8] = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target,
        _ => b"",
    };
    let is_text = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok();
    if (name.len() > 100 && !is_text(name)) || (link.len() > 100 && !is_text(link)) {
        add(b"hdrcharset", b"BINARY");
    }
    if name.len() > 100 {
        add(b"path", name);
    }
    if link.len() > 100 {
        add(b"linkpath", link);
    }
    for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
        if !fits(id.into(), OWNER_DIGITS) {
            add(key, id.to_string().as_bytes());
        }
    }
    if in_header(entry.mtime).is_none() {
        add(b"mtime", decimal(entry.mtime).as_bytes());
    }
    for (xattr, value) in &entry.xattrs {
        add(&[b"SCHILY.xattr.", key_of(xattr).as_slice()].concat(), value);
    }
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(key, value)| (&key[..], &value[..])).collect();
    records(&pairs)
}

/// The name of an attribute in a key, which `=` would end: as GNU tar has it.
fn key_of(xattr: &[u8]) -> Vec<u8> {
    let byte = |byte: &u8| match byte {
        b'%' => b"%25".to_vec(),
        b'=' => b"%3D".to_vec(),
        other => vec![*other],
    };
    xattr.iter().flat_map(byte).collect()
}

/// The time as a header can hold it.
fn in_header(time: Time) -> Option<u64> {
    u64::try_from(time.seconds).ok().filter(|&seconds| time.nanoseconds == 0 && fits(seconds, TIME_DIGITS))
}

/// The time as a record has it: decimal seconds with their fraction, the sign in front of all.
fn decimal(time: Time) -> String {
    if time.seconds >= 0 || time.nanoseconds == 0 {
        return match time.nanoseconds {
            0 => time.seconds.to_string(),
            nanoseconds => format!("{}.{nanoseconds:09}", time.seconds),
        };
    }
    format!("-{}.{:09}", -(time.seconds + 1), 1_000_000_000 - time.nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::read;

    #[test]
    fn records_count_their_own_length() {
        for (value, expected) in [(1, 6), (93, 99), (94, 101)] {
            let body = records(&[(b"k", &vec![b'v'; value])]);
            let digits: String =
                body.iter().take_while(|byte| byte.is_ascii_digit()).map(|&b| char::from(b)).collect();
            assert_eq!(digits.parse::<usize>().unwrap(), body.len());
            assert_eq!(body.len(), expected);
        }
    }

    #[test]
    fn times_are_written_as_they_are_read() {
        for (seconds, nanoseconds, text) in [
            (5, 0, "5"),
            (5, 1, "5.000000001"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 1, "-1.999999999"),
        ] {
            assert_eq!(decimal(Time { seconds, nanoseconds }), text);
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let long: Vec<u8> = [vec![b'n'; 120], b"/\xff".to_vec()].concat();
        let entries = vec![
            Entry::directory(b"").mode(0o700),
            Entry::directory(&long[..120]),
            Entry::file(&long, vec![7; 700]).time(-7, 3).owner(u32::MAX - 1, 5).xattr("user.a", [0, 10]),
            Entry::symlink("l", vec![b't'; 300]),
            Entry::hard_link("h", &long),
            Entry::node("p", Kind::Fifo),
            Entry::node("c", Kind::Character(1, 3)).time(1 << 34, 0),
        ];
        assert_eq!(read(&archive(&entries)), Ok(entries));
    }
}
