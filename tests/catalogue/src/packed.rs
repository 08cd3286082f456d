//! Writers of gzip (RFC 1952, RFC 1951) and Zstandard (RFC 8878) that compress nothing, or zeros only, and do
//! as they are told.

/// A gzip member.
#[derive(Debug, Clone)]
pub(crate) struct Gzip {
    /// The flags of the header.
    pub(crate) flags: u8,
    /// What follows the fixed header because of the flags.
    pub(crate) extra: Vec<u8>,
    /// What is added to the checksum in the trailer.
    pub(crate) sum_error: u32,
    /// What is added to the length in the trailer.
    pub(crate) length_error: u32,
}

impl Gzip {
    /// A member as it should be.
    pub(crate) fn new() -> Gzip {
        Gzip { flags: 0, extra: Vec::new(), sum_error: 0, length_error: 0 }
    }

    /// The member, its content in stored blocks.
    pub(crate) fn stored(&self, content: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        let mut blocks = content.chunks(65_535).peekable();
        if content.is_empty() {
            body.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
        }
        while let Some(block) = blocks.next() {
            let length = block.len() as u16;
            body.push(u8::from(blocks.peek().is_none()));
            body.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(&(!length).to_le_bytes());
            body.extend_from_slice(block);
        }
        self.member(&body, crc(content), content.len())
    }

    /// A member of a `head` and then zeros, `matches` times 258 of them, 159 of them for each byte.
    pub(crate) fn zeros(&self, head: &[u8], matches: usize) -> Vec<u8> {
        let mut body = Vec::new();
        for block in head.chunks(65_535) {
            let length = block.len() as u16;
            body.push(0);
            body.extend_from_slice(&length.to_le_bytes());
            body.extend_from_slice(&(!length).to_le_bytes());
            body.extend_from_slice(block);
        }
        let mut bits = Bits::default();
        // The last block, with the fixed codes (RFC 1951, section 3.2.6): a zero, then length 258 (285: 11000101) at distance 1 (0: 00000).
        bits.push(0b1, 1);
        bits.push(0b01, 2);
        bits.code(0b0011_0000, 8);
        for _ in 0..matches {
            bits.code(0b1100_0101, 8);
            bits.code(0, 5);
        }
        bits.code(0, 7);
        body.extend_from_slice(&bits.finish());
        let mut content = head.to_vec();
        content.resize(head.len() + 1 + 258 * matches, 0);
        self.member(&body, crc(&content), content.len())
    }

    /// A member with this deflate stream.
    pub(crate) fn member(&self, body: &[u8], sum: u32, length: usize) -> Vec<u8> {
        let mut bytes = vec![0x1f, 0x8b, 8, self.flags, 0, 0, 0, 0, 0, 255];
        bytes.extend_from_slice(&self.extra);
        bytes.extend_from_slice(body);
        bytes.extend_from_slice(&sum.wrapping_add(self.sum_error).to_le_bytes());
        bytes.extend_from_slice(&(length as u32).wrapping_add(self.length_error).to_le_bytes());
        bytes
    }
}

/// Bits, the lowest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    fn push(&mut self, value: u32, count: usize) {
        for place in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let bit = (value >> place & 1) as u8;
            if let Some(last) = self.bytes.last_mut() {
                *last |= bit << (self.used % 8);
            }
            self.used += 1;
        }
    }

    /// A Huffman code, which has its highest bit first.
    fn code(&mut self, code: u32, count: usize) {
        self.push(code.reverse_bits() >> (32 - count), count);
    }

    fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// The checksum of gzip: CRC-32 of ISO 3309.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut index = 0;
        while index < 256 {
            let mut value = index as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { 0xedb8_8320 ^ (value >> 1) } else { value >> 1 };
                bit += 1;
            }
            table[index] = value;
            index += 1;
        }
        table
    };
    !bytes.iter().fold(!0, |sum: u32, &byte| TABLE[((sum ^ u32::from(byte)) & 0xff) as usize] ^ (sum >> 8))
}

/// A block of a Zstandard frame.
#[derive(Debug, Clone)]
pub(crate) enum Block {
    /// Bytes as they are.
    Raw(Vec<u8>),
    /// A byte so many times.
    Repeated(u8, u32),
    /// The type that is reserved.
    Reserved,
}

/// A frame whose header has this descriptor and these fields (section 3.1.1.1).
pub(crate) fn zstd_frame(descriptor: u8, fields: &[u8], blocks: &[Block]) -> Vec<u8> {
    let mut bytes = vec![0x28, 0xb5, 0x2f, 0xfd, descriptor];
    bytes.extend_from_slice(fields);
    for (index, block) in blocks.iter().enumerate() {
        let (kind, size, content) = match block {
            Block::Raw(content) => (0, content.len() as u32, content.clone()),
            Block::Repeated(byte, count) => (1, *count, vec![*byte]),
            Block::Reserved => (3, 1, vec![0]),
        };
        let last = u32::from(index + 1 == blocks.len());
        bytes.extend_from_slice(&(last | kind << 1 | size << 3).to_le_bytes()[..3]);
        bytes.extend_from_slice(&content);
    }
    bytes
}

/// The window of 8 MiB that compressors ask for (section 3.1.1.1.2: exponent 13, mantissa 0).
pub(crate) const USUAL_WINDOW: u8 = 13 << 3;

/// A frame of this content as it should be.
pub(crate) fn zstd(content: &[u8]) -> Vec<u8> {
    let blocks: Vec<Block> = content.chunks(128 * 1024).map(|part| Block::Raw(part.to_vec())).collect();
    zstd_frame(0, &[USUAL_WINDOW], &blocks)
}

/// A frame that carries no content.
pub(crate) fn skippable(content: &[u8]) -> Vec<u8> {
    [&b"\x50\x2a\x4d\x18"[..], &(content.len() as u32).to_le_bytes(), content].concat()
}
