//! One header block, field by field, so that a case can put anything into any of them.

/// The size of a block in bytes.
pub const BLOCK: usize = 512;

/// A header under construction: ustar, all numbers 0, until something else is set.
#[derive(Debug, Clone)]
pub struct Header {
    block: [u8; BLOCK],
}

/// Offsets and lengths of the fields (pax, "ustar Interchange Format").
pub(super) const NAME: (usize, usize) = (0, 100);
pub(super) const MODE: (usize, usize) = (100, 8);
pub(super) const UID: (usize, usize) = (108, 8);
pub(super) const GID: (usize, usize) = (116, 8);
pub(super) const SIZE: (usize, usize) = (124, 12);
pub(super) const MTIME: (usize, usize) = (136, 12);
pub(super) const CHECKSUM: (usize, usize) = (148, 8);
pub(super) const FLAG: usize = 156;
pub(super) const LINK: (usize, usize) = (157, 100);
pub(super) const MAGIC: (usize, usize) = (257, 8);
pub(super) const MAJOR: (usize, usize) = (329, 8);
pub(super) const MINOR: (usize, usize) = (337, 8);
pub(super) const PREFIX: (usize, usize) = (345, 155);

/// POSIX' magic and version.
pub(super) const USTAR: &[u8; 8] = b"ustar\x0000";

impl Header {
    /// A header of a type.
    pub fn new(flag: u8) -> Header {
        let mut header = Header { block: [0; BLOCK] };
        for field in [MODE, UID, GID, SIZE, MTIME, MAJOR, MINOR] {
            header.number(field, 0);
        }
        header.block[FLAG] = flag;
        header.put(MAGIC, USTAR);
        header
    }

    /// The name, cut to what fits.
    pub fn name(mut self, name: &[u8]) -> Header {
        self.put(NAME, name);
        self
    }

    /// The target of a link, cut to what fits.
    pub fn link(mut self, target: &[u8]) -> Header {
        self.put(LINK, target);
        self
    }

    /// The size.
    pub fn size(mut self, size: u64) -> Header {
        self.number(SIZE, size);
        self
    }

    /// The size, exactly these bytes.
    pub fn size_field(mut self, bytes: &[u8]) -> Header {
        self.put(SIZE, bytes);
        self
    }

    /// The mode, exactly these bytes.
    pub fn mode_field(mut self, bytes: &[u8]) -> Header {
        self.put(MODE, bytes);
        self
    }

    /// The magic, exactly these bytes.
    pub fn magic(mut self, bytes: &[u8]) -> Header {
        self.put(MAGIC, bytes);
        self
    }

    /// Mode, owner, group, time and device numbers. What does not fit its field becomes 0.
    pub fn numbers(mut self, mode: u32, owner: (u32, u32), mtime: u64, device: (u32, u32)) -> Header {
        self.number(MODE, mode.into());
        self.number(UID, owner.0.into());
        self.number(GID, owner.1.into());
        self.number(MTIME, mtime);
        self.number(MAJOR, device.0.into());
        self.number(MINOR, device.1.into());
        self
    }

    /// The block with its checksum.
    pub fn seal(self) -> [u8; BLOCK] {
        self.seal_wrongly(0)
    }

    /// The block with a checksum that is wrong by `by`.
    pub fn seal_wrongly(mut self, by: u32) -> [u8; BLOCK] {
        let sum = checksum(&self.block) + by;
        self.put(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.block
    }

    fn put(&mut self, (start, length): (usize, usize), bytes: &[u8]) {
        let field = &mut self.block[start..start + length];
        field.fill(0);
        let count = bytes.len().min(length);
        field[..count].copy_from_slice(&bytes[..count]);
    }

    fn number(&mut self, field: (usize, usize), value: u64) {
        let digits = field.1 - 1;
        let value = if fits(value, digits) { value } else { 0 };
        self.put(field, format!("{value:0digits$o}").as_bytes());
    }
}

/// Whether a number fits so many octal digits.
pub(super) fn fits(value: u64, digits: usize) -> bool {
    value >> (3 * digits) == 0
}

/// The sum of all bytes, those of the checksum's own field taken as spaces.
pub(super) fn checksum(block: &[u8; BLOCK]) -> u32 {
    let own = CHECKSUM.0..CHECKSUM.0 + CHECKSUM.1;
    let byte = |(at, &byte): (usize, &u8)| u32::from(if own.contains(&at) { b' ' } else { byte });
    block.iter().enumerate().map(byte).sum()
}
