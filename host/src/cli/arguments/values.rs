//! Values that options have: layer ids, sizes and times.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::{OsStringValueParser, TypedValueParser};

/// A layer id, as it was typed. The driver checks it, so that an invalid one has the same error wherever it
/// comes from; bytes that are no UTF-8 become U+FFFD, which no id holds.
pub(super) fn id() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|text: OsString| text.to_string_lossy().into_owned())
}

/// A number of bytes: `123`, `64K`, `10M`, `2G`, `1T`, the letters for powers of 1024; also as `10 MiB`.
pub(in crate::cli) fn bytes(text: &str) -> Result<u64, String> {
    const SHAPE: &str =
        "a number of bytes, with K, M, G or T after it (or KiB, MiB, GiB, TiB), or none of them";
    let whole = text;
    let text = text.strip_suffix("iB").unwrap_or(text);
    let (digits, shift) = match text.as_bytes().last().map(u8::to_ascii_uppercase) {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        Some(b'T') => (&text[..text.len() - 1], 40),
        _ if whole.ends_with("iB") => return Err(SHAPE.to_owned()),
        _ => (text, 0),
    };
    let number = number(digits.trim_end_matches(' ')).ok_or(SHAPE)?;
    number.checked_mul(1 << shift).ok_or_else(|| "more than fits 64 bits".to_owned())
}

/// A stretch of time, above zero: `90`, `90s`, `10m`, `2h`.
pub(in crate::cli) fn time(text: &str) -> Result<Duration, String> {
    const SHAPE: &str = "a number of seconds above 0, or one with s, m or h after it";
    let (digits, unit) = match text.as_bytes().last() {
        Some(b's') => (&text[..text.len() - 1], 1),
        Some(b'm') => (&text[..text.len() - 1], 60),
        Some(b'h') => (&text[..text.len() - 1], 3600),
        _ => (text, 1),
    };
    let seconds = number(digits).and_then(|number| number.checked_mul(unit)).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(|| SHAPE.to_owned())
}

/// A number in decimal digits; unlike [`str::parse`], without a sign.
fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let cases = [
            ("0", Some(0)),
            ("123", Some(123)),
            ("64K", Some(64 << 10)),
            ("64k", Some(64 << 10)),
            ("10M", Some(10 << 20)),
            ("2G", Some(2 << 30)),
            ("1T", Some(1 << 40)),
            ("10MiB", Some(10 << 20)),
            ("256 MiB", Some(256 << 20)),
            ("5iB", None),
            ("5 iB", None),
            (" MiB", None),
            ("", None),
            ("K", None),
            ("+1", None),
            ("-1", None),
            ("1.5G", None),
            ("1KB", None),
            ("16777216T", None),
            ("1\u{e9}", None),
        ];
        for (text, value) in cases {
            assert_eq!(bytes(text).ok(), value, "{text}");
        }
    }

    #[test]
    fn times() {
        let cases = [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("10m", Some(600)),
            ("2h", Some(7200)),
            ("0", None),
            ("", None),
            ("m", None),
            ("-5", None),
            ("99999999999999999999h", None),
        ];
        for (text, value) in cases {
            assert_eq!(time(text).ok(), value.map(Duration::from_secs), "{text}");
        }
    }
}
