//! Names for people: bytes on one line.

use std::fmt;

/// Bytes, printable ASCII as it is and all else as `\xNN`.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a>(pub &'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name of 4,000 bytes helps nobody.
        const SHOWN: usize = 120;
        if self.0.is_empty() {
            return f.write_str("(root)");
        }
        for &byte in self.0.iter().take(SHOWN) {
            if (b' '..=b'~').contains(&byte) && byte != b'\\' {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        if self.0.len() > SHOWN { write!(f, "… ({} bytes)", self.0.len()) } else { Ok(()) }
    }
}

/// A name as text.
pub fn name(bytes: &[u8]) -> String {
    Name(bytes).to_string()
}
