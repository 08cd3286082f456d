//! Names inside a layer: bytes below its root, checked once.

use std::fmt;
use std::fmt::Write as _;

use crate::Error;

/// A path below the root of one layer, such as `usr/bin/env`; empty for the root itself.
///
/// It neither begins nor ends with `/`, and no component is empty, `.`, `..`, longer than 255 bytes, or holds
/// a NUL. No encoding is assumed. [`Display`](fmt::Display) is fit for a log or a terminal: what is not
/// printable UTF-8, and the backslash, is written `\xNN`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// The longest component in bytes (`NAME_MAX` of Linux).
const LONGEST_COMPONENT: usize = 255;
/// The most components. Nothing honest is as deep, and work that is quadratic in the depth stays small.
const MOST_COMPONENTS: usize = 4096;

impl Name {
    /// Checks bytes.
    ///
    /// # Errors
    /// [`BadName`] with the rule that they break.
    pub fn new(bytes: Vec<u8>) -> Result<Self, BadName> {
        let broken =
            bytes.split(|byte| *byte == b'/').enumerate().find_map(|(index, component)| match component {
                b"" => Some("a component is empty"),
                b"." => Some("a component is `.`"),
                b".." => Some("a component is `..`"),
                _ if component.len() > LONGEST_COMPONENT => Some("a component is longer than 255 bytes"),
                _ if component.contains(&0) => Some("it holds a NUL"),
                _ if index == MOST_COMPONENTS => Some("it has more than 4096 components"),
                _ => None,
            });
        match broken {
            Some(rule) if !bytes.is_empty() => Err(BadName { name: bytes, rule }),
            _ => Ok(Self(bytes)),
        }
    }

    /// The root of the layer.
    pub fn root() -> Self {
        Self(Vec::new())
    }

    /// A name that was read from a directory: the kernel lets no `/`, NUL, `.` or `..` through, but a file
    /// system may hold deeper trees and longer components than may be put.
    pub(crate) fn found(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, without copying them.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The parent directory (empty: the root) and the last component. Both are empty for the root.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&self.0[..slash], &self.0[slash + 1..]),
            None => (&[], &self.0),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_root() { "/" } else { "" })?;
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Name(\"{}\")", escape(&self.0))
    }
}

/// Bytes that are not a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadName {
    /// The bytes, as they came.
    pub name: Vec<u8>,
    /// The rule that they break, in words for a person.
    pub rule: &'static str,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is not a name: {}", escape(&self.name), self.rule)
    }
}

impl std::error::Error for BadName {}

impl From<BadName> for Error {
    fn from(bad: BadName) -> Self {
        Self::Refused { entry: bad.name, rule: bad.rule.to_owned() }
    }
}

/// Hostile bytes for a person: printable UTF-8 as it is, every other byte, and the backslash, as `\xNN`.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escaped = |text: &mut String, bytes: &[u8]| {
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            // `escape_debug` knows what is printable: controls, line breaks and the marks that turn text
            // around are not.
            if matches!(character, '"' | '\'') || character.escape_debug().len() == 1 {
                text.push(character);
            } else {
                escaped(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            }
        }
        escaped(&mut text, chunk.invalid());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{Name, escape};

    #[test]
    fn only_plain_relative_paths_are_names() {
        let long = [b'x'; 256];
        let deep = vec!["d"; 4097].join("/");
        let rows: &[(&[u8], bool)] = &[
            (b"", true),
            (b"a", true),
            (b"a/b", true),
            (b"...", true),
            (b"a\n\xff", true),
            (&long[..255], true),
            (&deep.as_bytes()[2..], true),
            (&long, false),
            (deep.as_bytes(), false),
            (b"/", false),
            (b"/a", false),
            (b"a/", false),
            (b"a//b", false),
            (b".", false),
            (b"a/.", false),
            (b"./a", false),
            (b"..", false),
            (b"a/../b", false),
            (b"a\0b", false),
        ];
        for (bytes, good) in rows {
            assert_eq!(Name::new(bytes.to_vec()).is_ok(), *good, "{}", escape(bytes));
        }
    }

    #[test]
    fn a_name_splits_into_parent_and_last_component() {
        let rows: &[(&[u8], &[u8], &[u8])] =
            &[(b"", b"", b""), (b"a", b"", b"a"), (b"a/b", b"a", b"b"), (b"a/b/c", b"a/b", b"c")];
        for (name, parent, last) in rows {
            assert_eq!(Name::new(name.to_vec()).unwrap().split(), (*parent, *last));
        }
    }

    #[test]
    fn bytes_are_shown_without_what_moves_a_terminal() {
        let rows: &[(&[u8], &str)] = &[
            (b"plain 'name'", "plain 'name'"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"a\\b", "a\\x5cb"),
            (b"\x1b[0m\n", "\\x1b[0m\\x0a"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}".as_bytes(), "\\xe2\\x80\\xae"),
        ];
        for (bytes, shown) in rows {
            assert_eq!(escape(bytes), *shown);
        }
    }
}
