//! JSON that people get to see, on a terminal or in a log: the same values in characters that deceive no
//! reader.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter};

use super::escaped::is_escaped;

/// Writes a value as JSON without white space, every character that [`Escaped`](super::Escaped) would not
/// show as it is written as `\uNNNN`.
///
/// # Errors
///
/// Those of writing.
pub fn write_json(out: impl io::Write, value: &(impl Serialize + ?Sized)) -> io::Result<()> {
    value.serialize(&mut Serializer::with_formatter(out, Shown)).map_err(io::Error::from)
}

/// As [`write_json`], in one line with its end. The values have no map with keys that are not strings, so
/// this cannot fail; and an empty line would still say that something did.
pub fn json_line(value: &(impl Serialize + ?Sized)) -> String {
    let mut line = Vec::new();
    if write_json(&mut line, value).is_err() {
        line.clear();
    }
    line.push(b'\n');
    String::from_utf8(line).unwrap_or_default()
}

/// Escapes in strings what serde_json leaves as it is: DEL, and all that RFC 8259 (section 7) does not call a
/// control character.
struct Shown;

impl Formatter for Shown {
    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        // A run between two that are escaped is written at once: lists have a hundred thousand names, most of
        // them plain.
        let mut rest = text;
        while let Some((at, character)) = rest.char_indices().find(|&(_, c)| is_escaped(c)) {
            CompactFormatter.write_string_fragment(out, &rest[..at])?;
            // Beyond the first 65,536 characters there are two, a surrogate pair.
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = &rest[at + character.len_utf8()..];
        }
        CompactFormatter.write_string_fragment(out, rest)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_would_deceive_a_reader_is_escaped_and_means_the_same() {
        let rows = [
            (json!("plain"), r#""plain""#),
            (json!("gr\u{fc}n \u{6f22} \u{1f600}"), "\"gr\u{fc}n \u{6f22} \u{1f600}\""),
            (json!("a\\b\"c\nd\u{1b}"), r#""a\\b\"c\nd\u001b""#),
            (json!("\u{7f}"), r#""\u007f""#),
            (json!("a\u{9b}31m"), r#""a\u009b31m""#),
            (json!("\u{85}\u{2028}"), r#""\u0085\u2028""#),
            (json!("a\u{202e}b\u{2066}\u{61c}"), r#""a\u202eb\u2066\u061c""#),
            (json!("\u{e0041}\u{10ffff}x"), r#""\udb40\udc41\udbff\udfffx""#),
            (json!({ "k\u{202e}": ["\u{200b}", 1, null] }), r#"{"k\u202e":["\u200b",1,null]}"#),
        ];
        for (value, text) in rows {
            let line = json_line(&value);
            assert_eq!(line, format!("{text}\n"));
            assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value);
        }
    }
}
