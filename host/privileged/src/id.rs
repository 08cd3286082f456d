//! Layer ids: the text that becomes a directory name, checked once.

use std::fmt;

use crate::name::escape;

/// The identity of a layer: 1 to 128 of `A-Z a-z 0-9 _ . -`, the first a letter or a digit, not ending in
/// `-removing`.
///
/// As a component of a path it therefore names what lies in the directory it is used in, and as a part of a
/// mount option it ends neither the option nor the branch.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

/// The longest id in bytes. Docker's are at most 69.
const LONGEST: usize = 128;

impl LayerId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidId`] for everything that is not in the grammar.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
        let text = text.as_ref();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
        let good = text.len() <= LONGEST
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(allowed)
            && !text.ends_with("-removing");
        if good { Ok(Self(text.to_owned())) } else { Err(InvalidId(text.to_owned())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LayerId({})", self.0)
    }
}

/// A text that is no layer id, as it came. Only [`Display`](fmt::Display) is fit for a log: it escapes and
/// shortens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidId(pub String);

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.as_bytes();
        let shown = escape(&bytes[..bytes.len().min(40)]);
        let more = if bytes.len() > 40 { "..." } else { "" };
        write!(f, "not a layer id: \"{shown}{more}\" ({} bytes)", bytes.len())
    }
}

impl std::error::Error for InvalidId {}

#[cfg(test)]
mod tests {
    use super::LayerId;

    #[test]
    fn the_grammar_decides() {
        let rows: &[(&str, bool)] = &[
            ("a", true),
            ("0123456789abcdef-init", true),
            ("A_b.c-d", true),
            (&"f".repeat(128), true),
            (&"f".repeat(129), false),
            ("", false),
            (".", false),
            ("..", false),
            (".a", false),
            ("-a", false),
            ("_a", false),
            ("../x", false),
            ("a/b", false),
            ("a:b=rw", false),
            ("a,upperdir=/", false),
            ("a\n", false),
            ("a\0", false),
            ("\u{e9}", false),
            ("x-removing", false),
            ("x-removing-y", true),
        ];
        for (text, good) in rows {
            assert_eq!(LayerId::new(text).is_ok(), *good, "{text:?}");
        }
    }

    #[test]
    fn hostile_text_is_shown_short_and_without_controls() {
        let shown = LayerId::new(format!("a\n\x1b[31m{}", "x".repeat(5000))).unwrap_err().to_string();
        assert!(shown.len() < 120, "{shown}");
        assert!(shown.contains("\\x0a\\x1b[31m"), "{shown}");
    }
}
