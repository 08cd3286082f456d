//! The digest by which a component is named: to people, in the configuration, and in the cache of compiled
//! code.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

/// A SHA-256 digest. As text it is `sha256:` and 64 hexadecimal digits, as image tools have it; the prefix
/// may be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// That of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::of_parts(&[bytes])
    }

    /// That of some bytes that lie in several places.
    pub(crate) fn of_parts(parts: &[&[u8]]) -> Digest {
        let mut sum = Sha256::new();
        parts.iter().for_each(|part| sum.update(part));
        sum.into()
    }

    /// That of a value, as it hashes itself. It is one only for the same build of this program: the standard
    /// library says nothing of others.
    pub(crate) fn of_value(value: &impl std::hash::Hash) -> Digest {
        let mut sum = Summing(Sha256::new());
        value.hash(&mut sum);
        sum.0.into()
    }

    /// The 32 bytes.
    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// So many of the digits, the first ones: a name for what must be told apart, not checked.
    pub(crate) fn short(&self, digits: usize) -> String {
        let mut name = self.hex();
        name.truncate(digits);
        name
    }

    /// The 64 digits.
    pub(crate) fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl From<Sha256> for Digest {
    /// That of all that was fed.
    fn from(sum: Sha256) -> Digest {
        Digest(sum.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Digest, String> {
        const SHAPE: &str = "a digest is 64 hexadecimal digits, with sha256: before them or not";
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let nibbles: Option<Vec<u8>> = digits
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|value| u8::try_from(value).ok()))
            .collect();
        let nibbles = nibbles.filter(|nibbles| nibbles.len() == 64).ok_or(SHAPE)?;
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(nibbles.chunks(2)) {
            *byte = pair.iter().fold(0, |byte, nibble| byte << 4 | nibble);
        }
        Ok(Digest(bytes))
    }
}

/// Feeds SHA-256 with what a value hashes. The number that a [`std::hash::Hasher`] has to end in is asked for
/// by nobody here.
struct Summing(Sha256);

impl std::hash::Hasher for Summing {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let sum = self.0.clone().finalize();
        sum.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_digests() {
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let empty = Digest::of(b"");
        assert_eq!(empty.to_string(), format!("sha256:{digits}"));
        let cases = [
            (digits.to_owned(), true),
            (format!("sha256:{digits}"), true),
            (digits.to_uppercase(), true),
            (format!("sha512:{digits}"), false),
            (format!("{digits}0"), false),
            (digits[1..].to_owned(), false),
            (digits.replace('e', "g"), false),
            (String::new(), false),
        ];
        for (text, good) in cases {
            assert_eq!(text.parse::<Digest>().ok(), good.then_some(empty), "{text}");
        }
    }
}
