//! The fixed fields of a header block: text that ends at a NUL, and numbers in octal or in GNU's base 256.

use super::Fault;

/// A text field. It may fill the field; if it does not, nothing but NULs may follow it.
pub(super) fn text<'a>(field: &'a [u8], what: &'static str) -> Result<&'a [u8], Fault> {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let (text, rest) = field.split_at(end);
    if !is_zero(rest) {
        return Err(Fault::rule(format!("NUL inside the {what}")));
    }
    Ok(text)
}

/// Whether all bytes are zero. It looks at eight of them at once: there is nothing wider in WebAssembly as it
/// is used here.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let all = words.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word));
    rest.iter().fold(all, |all, &byte| all | u64::from(byte)) == 0
}

/// A number: octal digits, or base 256 when the first byte is 0x80 (positive) or 0xff (negative).
///
/// Spaces before the digits are what V7 tar wrote, and the four readers skip them alike. After the digits
/// only spaces and NULs may follow. A field of nothing but NULs is 0 for all readers; one of spaces is an
/// error for GNU tar and 0 for the others, so it is refused. So are signs, which Python takes and GNU tar
/// reads as base 64, and a NUL before the digits, which GNU tar and Go skip and at which Python stops.
pub(super) fn number(field: &[u8], what: &'static str) -> Result<i64, Fault> {
    match field.first() {
        Some(0x80 | 0xff) => base256(field, what),
        _ => octal(field, what),
    }
}

/// A number in octal, as [`number`] reads it.
pub(super) fn octal(field: &[u8], what: &'static str) -> Result<i64, Fault> {
    let start = field.iter().position(|&byte| byte != b' ').unwrap_or(field.len());
    let digits = &field[start..];
    let length = digits.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at(length);
    if rest.iter().any(|&byte| byte != 0 && byte != b' ') {
        return Err(Fault::rule(format!("{what}: not an octal number")));
    }
    if digits.is_empty() && field.contains(&b' ') {
        return Err(Fault::rule(format!("{what}: blank")));
    }
    // At most twelve digits of three bits: this cannot overflow.
    Ok(digits.iter().fold(0, |value, digit| value << 3 | i64::from(digit - b'0')))
}

/// A number that no reader of this kind of entry uses: blanks are as good as zeros.
pub(super) fn unused(field: &[u8], what: &'static str) -> Result<(), Fault> {
    if field.iter().all(|&byte| byte == b' ' || byte == 0) {
        return Ok(());
    }
    number(field, what).map(drop)
}

fn base256(field: &[u8], what: &'static str) -> Result<i64, Fault> {
    // 0x80 and 0xff are the sign: the remaining bytes are two's complement with that sign extended to the
    // left.
    let mut value: i64 = if field[0] == 0xff { -1 } else { 0 };
    for &byte in &field[1..] {
        value = value
            .checked_mul(256)
            .map(|shifted| shifted | i64::from(byte))
            .ok_or_else(|| Fault::rule(format!("{what}: number too large")))?;
    }
    Ok(value)
}

/// A number in decimal: digits and nothing else, as PAX records and sparse maps have it.
pub(super) fn decimal(text: &[u8], what: &'static str) -> Result<u64, Fault> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Fault::rule(format!("{what}: not a decimal number")));
    }
    // So many digits cannot overflow; and a checked multiplication is one of 128 bits in WebAssembly.
    const SHORT: usize = 18;
    if text.len() <= SHORT {
        return Ok(text.iter().fold(0, |value, digit| value * 10 + u64::from(digit - b'0')));
    }
    text.iter()
        .try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
        .filter(|&value| i64::try_from(value).is_ok())
        .ok_or_else(|| Fault::rule(format!("{what}: number too large")))
}
