//! A writer of tar archives that does as it is told: any name, any number, any checksum. Formats:
//! POSIX.1-2017 pax, the section "ustar Interchange Format" for the header, "pax Header Block" for extended
//! headers.

/// The size of a header, and what bodies are padded to.
pub const BLOCK: usize = 512;

/// One member of an archive, as it is to be written.
#[derive(Debug, Clone)]
pub struct Member {
    /// The name, byte for byte. Over 100 bytes it goes into a PAX record as well.
    pub name: Vec<u8>,
    /// The type flag: `b'0'` file, `b'1'` hard link, `b'2'` symlink, `b'3'` and `b'4'` devices, `b'5'`
    /// directory, `b'6'` FIFO.
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Modification time in seconds; one that does not fit goes into a PAX record.
    pub mtime: i64,
    /// Where a link leads.
    pub target: Vec<u8>,
    /// Device number, major and minor.
    pub device: (u32, u32),
    /// Content.
    pub body: Vec<u8>,
    /// What the header says the content's size is, where that is not its length.
    pub size: Option<u64>,
    /// PAX records before the header.
    pub pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes to write over the finished header (offset, bytes) before the checksum is computed.
    pub patch: Vec<(usize, Vec<u8>)>,
    /// What to add to the checksum.
    pub checksum_error: i64,
}

/// A member of the given kind with the usual attributes: mode 0644 (0755 for directories), owner 0:0, time
/// 1,000,000,000.
pub fn member(name: impl Into<Vec<u8>>, kind: u8) -> Member {
    Member {
        name: name.into(),
        kind,
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_000_000_000,
        target: Vec::new(),
        device: (0, 0),
        body: Vec::new(),
        size: None,
        pax: Vec::new(),
        patch: Vec::new(),
        checksum_error: 0,
    }
}

/// A regular file.
pub fn file(name: impl Into<Vec<u8>>, body: impl Into<Vec<u8>>) -> Member {
    Member { body: body.into(), ..member(name, b'0') }
}

/// A directory. A `/` is not added.
pub fn dir(name: impl Into<Vec<u8>>) -> Member {
    member(name, b'5')
}

/// A symbolic link.
pub fn symlink(name: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Member {
    Member { target: target.into(), mode: 0o777, ..member(name, b'2') }
}

/// A hard link.
pub fn hard_link(name: impl Into<Vec<u8>>, target: impl Into<Vec<u8>>) -> Member {
    Member { target: target.into(), ..member(name, b'1') }
}

/// A character device.
pub fn character(name: impl Into<Vec<u8>>, major: u32, minor: u32) -> Member {
    Member { device: (major, minor), ..member(name, b'3') }
}

/// The whiteout of `name`: `dir/x` gives `dir/.wh.x`.
pub fn whiteout(name: &str) -> Member {
    let (directory, base) = name.rsplit_once('/').map_or(("", name), |(directory, base)| (directory, base));
    let slash = if directory.is_empty() { "" } else { "/" };
    file(format!("{directory}{slash}.wh.{base}"), "")
}

/// The mark that makes `directory` opaque; the empty name is the root.
pub fn opaque(directory: &str) -> Member {
    let slash = if directory.is_empty() { "" } else { "/" };
    file(format!("{directory}{slash}.wh..wh..opq"), "")
}

impl Member {
    /// With this mode.
    #[must_use]
    pub fn mode(mut self, mode: u32) -> Member {
        self.mode = mode;
        self
    }

    /// With this owner.
    #[must_use]
    pub fn owner(mut self, uid: u64, gid: u64) -> Member {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    /// With this time, in seconds.
    #[must_use]
    pub fn mtime(mut self, mtime: i64) -> Member {
        self.mtime = mtime;
        self
    }

    /// With this PAX record.
    #[must_use]
    pub fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Member {
        self.pax.push((key.as_bytes().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// With this extended attribute.
    #[must_use]
    pub fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Member {
        self.pax(&format!("SCHILY.xattr.{name}"), value)
    }

    /// With this size in the header, whatever the body is.
    #[must_use]
    pub fn size(mut self, size: u64) -> Member {
        self.size = Some(size);
        self
    }

    /// With these bytes in the header at this offset.
    #[must_use]
    pub fn patch(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Member {
        self.patch.push((offset, bytes.as_ref().to_vec()));
        self
    }

    /// With a checksum that is off by this much.
    #[must_use]
    pub fn checksum_error(mut self, error: i64) -> Member {
        self.checksum_error = error;
        self
    }

    /// The 512 bytes of the header alone.
    pub fn header(&self) -> [u8; BLOCK] {
        let mut header = [0; BLOCK];
        put(&mut header, 0, 100, &self.name);
        octal(&mut header, 100, 8, u64::from(self.mode));
        octal(&mut header, 108, 8, self.uid);
        octal(&mut header, 116, 8, self.gid);
        octal(&mut header, 124, 12, self.size.unwrap_or(self.body.len() as u64));
        octal(&mut header, 136, 12, u64::try_from(self.mtime).unwrap_or(0));
        header[156] = self.kind;
        put(&mut header, 157, 100, &self.target);
        put(&mut header, 257, 8, b"ustar\x0000");
        octal(&mut header, 329, 8, u64::from(self.device.0));
        octal(&mut header, 337, 8, u64::from(self.device.1));
        for (offset, bytes) in &self.patch {
            header[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        header[148..156].fill(b' ');
        let sum: i64 = header.iter().map(|&byte| i64::from(byte)).sum::<i64>() + self.checksum_error;
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    /// The PAX records that this member needs, those that were asked for first.
    fn records(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut records = self.pax.clone();
        let mut need = |key: &str, value: Vec<u8>| {
            if !records.iter().any(|(known, _)| known == key.as_bytes()) {
                records.push((key.as_bytes().to_vec(), value));
            }
        };
        if self.name.len() > 100 {
            need("path", self.name.clone());
        }
        if self.target.len() > 100 {
            need("linkpath", self.target.clone());
        }
        if !(0..1 << 33).contains(&self.mtime) {
            need("mtime", self.mtime.to_string().into_bytes());
        }
        for (key, id) in [("uid", self.uid), ("gid", self.gid)] {
            if id >= 1 << 21 {
                need(key, id.to_string().into_bytes());
            }
        }
        records
    }
}

/// An archive under construction.
#[derive(Debug, Clone, Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    /// An archive that holds nothing yet.
    pub fn new() -> Tar {
        Tar::default()
    }

    /// Adds a member: extended header, header, body, padding.
    pub fn add(&mut self, member: &Member) -> &mut Tar {
        let records = member.records();
        if !records.is_empty() {
            self.extended(b'x', &pax_records(&records));
        }
        self.raw(&member.header()).raw(&member.body).pad()
    }

    /// Adds an extended header (`x`, or `g` for a global one) with this body.
    pub fn extended(&mut self, kind: u8, body: &[u8]) -> &mut Tar {
        let header = Member { body: body.to_vec(), ..member("PaxHeaders.0/x", kind) };
        self.raw(&header.header()).raw(body).pad()
    }

    /// Adds bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Tar {
        self.0.extend_from_slice(bytes);
        self
    }

    /// Fills the block with zeros.
    pub fn pad(&mut self) -> &mut Tar {
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        self
    }

    /// The archive with its end: two blocks of zeros.
    pub fn finish(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.extend_from_slice(&[0; 2 * BLOCK]);
        bytes
    }

    /// The archive as it is, without an end, and without copying it.
    pub fn view(&self) -> &[u8] {
        &self.0
    }

    /// The archive as it is, without an end.
    pub fn bytes(&self) -> Vec<u8> {
        self.0.clone()
    }
}

/// A whole archive of these members.
pub fn tar(members: &[Member]) -> Vec<u8> {
    let mut tar = Tar::new();
    for member in members {
        tar.add(member);
    }
    tar.finish()
}

/// PAX records in their form: `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
pub fn pax_records(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length += 1;
        }
        bytes.extend_from_slice(format!("{length} ").as_bytes());
        bytes.extend_from_slice(key);
        bytes.push(b'=');
        bytes.extend_from_slice(value);
        bytes.push(b'\n');
    }
    bytes
}

/// Writes as much of the text as fits.
fn put(header: &mut [u8; BLOCK], offset: usize, width: usize, text: &[u8]) {
    let length = text.len().min(width);
    header[offset..offset + length].copy_from_slice(&text[..length]);
}

/// Writes a number in octal and a NUL, or zero where it does not fit (a PAX record has it then), or base 256
/// for sizes.
fn octal(header: &mut [u8; BLOCK], offset: usize, width: usize, number: u64) {
    let text = format!("{number:0digits$o}", digits = width - 1);
    if text.len() < width {
        put(header, offset, width, text.as_bytes());
    } else if offset == 124 {
        // GNU's base 256: the first bit is set, the number follows in big endian.
        header[offset] = 0x80;
        header[offset + 4..offset + 12].copy_from_slice(&number.to_be_bytes());
    } else {
        put(header, offset, width, "0".repeat(width - 1).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (key, value, want) in [
            ("a", "b", "6 a=b\n".to_owned()),
            ("path", "1234", "13 path=1234\n".to_owned()),
            ("k", &"v".repeat(94), format!("101 k={}\n", "v".repeat(94))),
        ] {
            assert_eq!(pax_records(&[(key.into(), value.into())]), want.as_bytes());
        }
    }

    #[test]
    fn archives_are_whole_blocks() {
        let bytes = tar(&[file("a", "x"), dir("d"), file("n".repeat(200), "y".repeat(513))]);
        assert_eq!(bytes.len(), (2 + 1 + 2 + 1 + 2 + 2) * BLOCK);
    }
}
