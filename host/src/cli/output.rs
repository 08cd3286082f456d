//! The forms of things that are printed: names that are bytes, text that must stay on one line, sizes,
//! colors.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::io;

use super::arguments::Color;
use crate::error::Escaped;

/// A name of bytes, in the form that JSON has for it: exact text where the bytes are UTF-8, else a form to
/// read, with the exact bytes beside it in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ByteName {
    /// The name itself; or, if there is `hex`, the name as [`Escaped`] writes it.
    pub(super) text: String,
    /// All bytes in hexadecimal, where they are not UTF-8.
    pub(super) hex: Option<String>,
}

impl ByteName {
    /// The form of these bytes.
    pub(super) fn of(bytes: &[u8]) -> ByteName {
        match std::str::from_utf8(bytes) {
            Ok(text) => ByteName { text: text.to_owned(), hex: None },
            Err(_) => ByteName { text: Escaped(bytes).to_string(), hex: Some(hex(bytes)) },
        }
    }

    /// The form for text.
    pub(super) fn escaped(&self) -> Cow<'_, str> {
        match self.hex {
            Some(_) => Cow::Borrowed(&self.text),
            None => Cow::Owned(Escaped(self.text.as_bytes()).to_string()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Text that others composed, with each control character as `\xNN`: it stays on its line and cannot steer a
/// terminal. Parts of it may come from a component or a damaged store.
#[derive(Debug, Clone, Copy)]
pub(super) struct OneLine<'a>(pub(super) &'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in self.0.split_inclusive(char::is_control) {
            match part.chars().next_back().filter(|last| last.is_control()) {
                Some(last) => {
                    f.write_str(&part[..part.len() - last.len_utf8()])?;
                    write!(f, "{}", Escaped(&part.as_bytes()[part.len() - last.len_utf8()..]))?;
                }
                None => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

/// Whether something was printed. Whoever has closed the other end has seen enough (`layerbox list | head -1`): the command did what it was asked to, and its
/// exit status is that of what it found.
pub(super) fn unless_enough(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// A number of bytes for people: `999 B`, `1.2 KiB`, `340 MiB`; with a decimal below 100, where it tells
/// something.
pub(super) fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    // The greatest unit of which there is at least one: 10 bits each.
    let unit = (bytes.checked_ilog2().unwrap_or(0) / 10) as usize;
    if unit == 0 {
        return format!("{bytes} B");
    }
    // A size above 2^53 loses digits that are not shown anyway.
    let value = bytes as f64 / (1u64 << (10 * unit)) as f64;
    let decimals = if value < 99.95 { 1 } else { 0 };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// A count with its noun: `1 entry`, `1,234 entries`.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    format!("{text} {}", if number == 1 { one } else { many })
}

/// Colors, or none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    on: bool,
}

impl Paint {
    /// The choice of `--color` for a stream that is a terminal or not.
    pub(super) fn new(choice: Color, terminal: bool) -> Paint {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        // NO_COLOR counts when it is set and not empty (no-color.org).
        let on = match choice {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !set("NO_COLOR") && !dumb,
        };
        Paint { on }
    }

    pub(super) fn bold<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("1", text)
    }

    pub(super) fn dim<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("2", text)
    }

    pub(super) fn red<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("1;31", text)
    }

    pub(super) fn green<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("32", text)
    }

    pub(super) fn yellow<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("33", text)
    }

    pub(super) fn cyan<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.with("36", text)
    }

    /// Select graphic rendition (ECMA-48 8.3.117) around the text.
    fn with<'a>(&self, code: &str, text: &'a str) -> Cow<'a, str> {
        if self.on { Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m")) } else { Cow::Borrowed(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_bytes() {
        let cases: [(&[u8], &str, Option<&str>, &str); 5] = [
            (b"etc/motd", "etc/motd", None, "etc/motd"),
            (b"a\\b", "a\\b", None, "a\\x5cb"),
            (b"a\nb", "a\nb", None, "a\\x0ab"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n", None, "gr\u{fc}n"),
            (b"a\xff\\", "a\\xff\\x5c", Some("61ff5c"), "a\\xff\\x5c"),
        ];
        for (bytes, text, hex, escaped) in cases {
            let name = ByteName::of(bytes);
            assert_eq!(name.text, text);
            assert_eq!(name.hex.as_deref(), hex);
            assert_eq!(name.escaped(), escaped);
        }
    }

    #[test]
    fn text_of_others_stays_on_its_line() {
        let cases = [
            ("plain \\ text", "plain \\ text"),
            ("two\nlines", "two\\x0alines"),
            ("\u{1b}[2Jred", "\\x1b[2Jred"),
            ("\n\n", "\\x0a\\x0a"),
            ("\u{85}end", "\\xc2\\x85end"),
        ];
        for (text, line) in cases {
            assert_eq!(OneLine(text).to_string(), line);
        }
    }

    #[test]
    fn what_nobody_reads_any_more_is_no_failure() {
        let cases = [(io::ErrorKind::BrokenPipe, true), (io::ErrorKind::StorageFull, false)];
        for (kind, fine) in cases {
            assert_eq!(unless_enough(Err(kind.into())).is_ok(), fine, "{kind}");
        }
        assert!(unless_enough(Ok(())).is_ok());
    }

    #[test]
    fn sizes_to_read() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (102_400, "100 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn counts_to_read() {
        let cases =
            [(0, "0 entries"), (1, "1 entry"), (999, "999 entries"), (1_234_567, "1,234,567 entries")];
        for (number, text) in cases {
            assert_eq!(count(number, "entry", "entries"), text);
        }
    }
}
