//! Packed header fields (HPACK, RFC 7541), with another authority.
//!
//! What they unpack to is kept on both sides in a table that forgets by size. So **an authority is replaced
//! by as many octets as it has**: both tables forget the same, and later references to the field find the one
//! that was replaced. A literal that names its field by a reference to the table is left as it is: which
//! field that is, only who keeps the table knows.

/// The name of the field, as it is and in Huffman's code; and its index in the table that all have from the
/// start (appendix A).
const NAME: &[u8] = b":authority";
const PACKED_NAME: &[u8] = &[0xb8, 0x3b, 0x53, 0x39, 0xec, 0x32, 0x7d, 0x7f];
const INDEX: usize = 1;
/// What an authority is made of.
pub(super) const LETTER: u8 = b'a';

/// Replaces the authorities in packed header fields (section 6). None where there are none, or the fields are
/// not well packed.
pub(super) fn replace(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    let mut rest = block;
    let mut replaced = false;
    while let Some(&first) = rest.first() {
        let field = rest;
        let bits = match first {
            0x80.. => 7,
            0x40..=0x7f => 6,
            0x20..=0x3f => 5,
            _ => 4,
        };
        let index = integer(&mut rest, bits)?;
        // Others are fields of the table, and changes of its size.
        let is_literal = bits == 6 || bits == 4;
        let mut authority = None;
        if is_literal {
            let is_authority = if index == 0 { string(&mut rest)?.is_name() } else { index == INDEX };
            let before = rest;
            let value = string(&mut rest)?;
            if is_authority && !value.bytes.is_empty() {
                authority = Some((field.len() - before.len(), value.length()?));
            }
        }
        match authority {
            Some((before, length)) => {
                out.extend_from_slice(&field[..before]);
                write_length(&mut out, length);
                out.resize(out.len() + length, LETTER);
                replaced = true;
            }
            None => out.extend_from_slice(&field[..field.len() - rest.len()]),
        }
    }
    replaced.then_some(out)
}

/// A string of a packed field.
struct Text<'a> {
    bytes: &'a [u8],
    huffman: bool,
}

impl Text<'_> {
    fn is_name(&self) -> bool {
        self.bytes == if self.huffman { PACKED_NAME } else { NAME }
    }

    /// How many octets it unpacks to.
    fn length(&self) -> Option<usize> {
        if self.huffman { unpacked_length(self.bytes) } else { Some(self.bytes.len()) }
    }
}

/// Takes a string (section 5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<Text<'a>> {
    let huffman = rest.first()? & 0x80 != 0;
    let length = integer(rest, 7)?;
    let (bytes, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(Text { bytes, huffman })
}

/// Takes an integer that begins in the low `bits` of the first byte (section 5.1). None that is of use here
/// is longer than four bytes.
fn integer(rest: &mut &[u8], bits: u32) -> Option<usize> {
    let (&first, after) = rest.split_first()?;
    *rest = after;
    let most = (1 << bits) - 1;
    let mut value = usize::from(first) & most;
    if value < most {
        return Some(value);
    }
    for shift in [0, 7, 14] {
        let (&next, after) = rest.split_first()?;
        *rest = after;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Writes the length of a string that is not in Huffman's code.
fn write_length(out: &mut Vec<u8>, length: usize) {
    const MOST: usize = 127;
    if length < MOST {
        out.extend(u8::try_from(length));
        return;
    }
    out.push(127);
    let mut rest = length - MOST;
    while rest > 127 {
        out.extend(u8::try_from(rest & 0x7f | 0x80));
        rest >>= 7;
    }
    out.extend(u8::try_from(rest));
}

/// Of how many bits how many codes there are, without that for the end of a string, which no string holds
/// (appendix B). The code is canonical: those of as many bits follow each other, and where those of fewer
/// bits end they begin. So a code is told by these numbers alone.
const CODES: [(u32, u32); 21] = [
    (5, 10),
    (6, 26),
    (7, 32),
    (8, 6),
    (10, 5),
    (11, 3),
    (12, 2),
    (13, 6),
    (14, 2),
    (15, 3),
    (19, 3),
    (20, 8),
    (21, 13),
    (22, 26),
    (23, 29),
    (24, 12),
    (25, 4),
    (26, 15),
    (27, 19),
    (28, 29),
    (30, 3),
];

/// How many octets a string in Huffman's code unpacks to; none where it is not well packed.
fn unpacked_length(bytes: &[u8]) -> Option<usize> {
    let (mut length, mut code, mut bits) = (0, 0, 0);
    for byte in bytes {
        for shift in (0..8).rev() {
            code = code << 1 | u32::from(byte >> shift & 1);
            bits += 1;
            if is_code(code, bits) {
                length += 1;
                (code, bits) = (0, 0);
            } else if bits == 30 {
                return None;
            }
        }
    }
    // What is left of the last byte begins the code of the end, which is ones.
    (bits < 8 && code == (1 << bits) - 1).then_some(length)
}

fn is_code(code: u32, bits: u32) -> bool {
    let (mut first, mut before) = (0, 0);
    for (length, count) in CODES {
        first <<= length - before;
        if length == bits {
            return code < first + count;
        }
        first += count;
        before = length;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In place of a name: it is one of the table.
    const KNOWN: &[u8] = b"known";

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte =
            |two: &[u8]| std::str::from_utf8(two).ok().and_then(|two| u8::from_str_radix(two, 16).ok());
        digits.chunks(2).map(|two| byte(two).expect("two digits")).collect()
    }

    /// A literal: its first byte, its name where it has one of its own, and its value.
    fn literal(first: u8, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut field = vec![first];
        for text in [name, value] {
            if text != KNOWN {
                write_length(&mut field, text.len());
                field.extend_from_slice(text);
            }
        }
        field
    }

    #[test]
    fn header_fields() {
        let path = b"run%2Flayerbox.sock";
        let letters = [LETTER; 19];
        let resized = [0x3f, 0xe1, 0x1f];
        let cases = [
            // The examples of RFC 7541, C.3.1 and C.4.1: `www.example.com`.
            (
                "plain",
                bytes("8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d"),
                Some(bytes("8286 8441 0f61 6161 6161 6161 6161 6161 6161 6161")),
            ),
            (
                "in Huffman's code",
                bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff"),
                Some(bytes("8286 8441 0f61 6161 6161 6161 6161 6161 6161 6161")),
            ),
            // A reference to what was kept, and another field (C.3.2).
            ("kept", bytes("8286 84be 5808 6e6f 2d63 6163 6865"), None),
            ("named by the C core", literal(0x40, NAME, path), Some(literal(0x40, NAME, &letters))),
            ("not to be kept", literal(0x01, KNOWN, path), Some(literal(0x01, KNOWN, &letters))),
            ("never to be kept", literal(0x10, NAME, path), Some(literal(0x10, NAME, &letters))),
            (
                "after a change of the table's size",
                [&resized, literal(0x41, KNOWN, path).as_slice()].concat(),
                Some([&resized, literal(0x41, KNOWN, &letters).as_slice()].concat()),
            ),
            (
                "its name in Huffman's code",
                [&[0x40, 0x88], PACKED_NAME, &[2, b'/', b'a']].concat(),
                Some([&[0x40, 0x88], PACKED_NAME, &[2, LETTER, LETTER]].concat()),
            ),
            ("long", literal(0x41, KNOWN, &[b'/'; 5000]), Some(literal(0x41, KNOWN, &[LETTER; 5000]))),
            ("empty", literal(0x41, KNOWN, b""), None),
            ("another name", literal(0x40, b":authoritx", path), None),
            ("a name that was kept", literal(0x7e, KNOWN, path), None),
            ("cut short", literal(0x41, KNOWN, path)[..12].to_vec(), None),
            ("not well packed", bytes("4181 00"), None),
            ("a number without end", bytes("417f ffff ffff ffff"), None),
        ];
        for (what, sent, expected) in cases {
            assert_eq!(replace(&sent), expected, "{what}");
        }
    }

    /// The examples of RFC 7541, C.4 and C.6; and no bits are left over but those of the end.
    #[test]
    fn strings_in_huffmans_code() {
        for (string, packed) in [
            ("no-cache", "a8eb 1064 9cbf"),
            ("custom-value", "25a8 49e9 5bb8 e8b4 bf"),
            ("Mon, 21 Oct 2013 20:13:21 GMT", "d07a be94 1054 d444 a820 0595 040b 8166 e082 a62d 1bff"),
            ("https://www.example.com", "9d29 ad17 1863 c78f 0b97 c8e9 ae82 ae43 d3"),
            (":authority", "b83b 5339 ec32 7d7f"),
            ("", ""),
        ] {
            assert_eq!(unpacked_length(&bytes(packed)), Some(string.len()), "{string}");
        }
        for not_well_packed in ["ff", "ffff ffff", "00", "07ff"] {
            assert_eq!(unpacked_length(&bytes(not_well_packed)), None, "{not_well_packed}");
        }
        let used: u32 = CODES.iter().map(|(bits, count)| count << (30 - bits)).sum();
        assert_eq!(used, (1 << 30) - 1);
    }
}
