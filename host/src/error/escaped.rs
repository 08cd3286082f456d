//! Names that strangers chose, for a terminal or a log: what would deceive a reader is written as bytes.

use std::{fmt, io};

/// Bytes for a terminal or a log: printable UTF-8 as it is, every other byte and the backslash as `\xNN`, so
/// that one rule reads it back.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a [u8]);

impl Escaped<'_> {
    /// Writes the name as it is displayed. A formatter costs more than the writing, and lists have a hundred
    /// thousand names, most of them plain.
    ///
    /// # Errors
    ///
    /// Those of writing.
    pub fn write_to(&self, out: &mut (impl io::Write + ?Sized)) -> io::Result<()> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'\\';
        // All bytes in any case: to stop at one would be to look at each by itself.
        let plain = self.0.iter().fold(true, |plain, byte| plain & is_plain(byte));
        if plain { out.write_all(self.0) } else { write!(out, "{self}") }
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            // A run between two that are escaped is written at once: lists have a hundred thousand names.
            let mut rest = chunk.valid();
            while let Some((at, character)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
                let end = at + character.len_utf8();
                f.write_str(&rest[..at])?;
                hexadecimal(&rest.as_bytes()[at..end], f)?;
                rest = &rest[end..];
            }
            f.write_str(rest)?;
            hexadecimal(chunk.invalid(), f)?;
        }
        Ok(())
    }
}

fn hexadecimal(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))
}

/// Whether a character is not shown as it is.
pub(super) fn is_escaped(c: char) -> bool {
    if c.is_ascii() { c == '\\' || c.is_control() } else { is_invisible(c) || !is_printable(c) }
}

/// Whether the standard library takes a character for one that prints something: no control, format character
/// (the bidirectional ones, tags), separator but the space, surrogate, private use or unassigned.
fn is_printable(c: char) -> bool {
    // After another character, because a combining one that stands alone is no text.
    let mut text = [b'a', 0, 0, 0, 0];
    let length = 1 + c.encode_utf8(&mut text[1..]).len();
    str::from_utf8(&text[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

/// Letters, marks and symbols that print nothing (Unicode, Default_Ignorable_Code_Point, and the blank of
/// Braille): two names with and without them look the same.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0100}'..='\u{e01ef}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_deceive_a_reader_is_escaped() {
        for deceptive in [
            "\u{61c}",
            "\u{200b}",
            "\u{200f}",
            "\u{2028}",
            "\u{202e}",
            "\u{2066}",
            "\u{feff}",
            "\u{7f}",
            "\\",
            "\u{85}",
            "\u{a0}",
            "\u{ad}",
            "\u{34f}",
            "\u{378}",
            "\u{115f}",
            "\u{180e}",
            "\u{3164}",
            "\u{e000}",
            "\u{fe0f}",
            "\u{fff9}",
            "\u{fffe}",
            "\u{1d173}",
            "\u{e0001}",
            "\u{e0041}",
            "\u{10ffff}",
        ] {
            let shown = Escaped(format!("a{deceptive}b").as_bytes()).to_string();
            assert!(shown.starts_with("a\\x") && shown.is_ascii(), "{shown}");
        }
        for plain in
            ["gr\u{fc}n \u{627}", "gru\u{308}n", "\u{6f22}\u{5b57}", "\u{1f600}", "\u{915}\u{94d}\u{937}"]
        {
            assert_eq!(Escaped(plain.as_bytes()).to_string(), plain);
        }
    }

    #[test]
    fn what_is_written_is_what_is_displayed() {
        for byte in 0..=u8::MAX {
            for name in [vec![byte], vec![b'a', byte, b'z'], vec![0xc3, byte]] {
                let mut written = Vec::new();
                Escaped(&name).write_to(&mut written).unwrap();
                assert_eq!(written, Escaped(&name).to_string().into_bytes(), "{name:?}");
            }
        }
    }
}
