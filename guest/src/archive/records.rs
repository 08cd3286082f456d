//! PAX records as text: `LENGTH KEY=VALUE\n`, where the length counts the whole record, itself included.

use super::{Fault, Timestamp, field};

/// A key and its value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// Splits the body of an extended header into its records. It ends after the first fault.
pub(super) fn split(body: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Fault>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = first(rest);
        rest = match &record {
            Ok((_, length)) => &rest[*length..],
            Err(_) => &[],
        };
        Some(record.map(|(pair, _)| pair))
    })
}

/// The first record and its length.
fn first(body: &[u8]) -> Result<(Record<'_>, usize), Fault> {
    // Twenty digits hold any length; looking no further keeps a body without spaces cheap.
    let space = body
        .iter()
        .take(21)
        .position(|&byte| byte == b' ')
        .ok_or_else(|| Fault::rule("PAX record without a length"))?;
    let length = field::decimal(&body[..space], "length of a PAX record")?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let record = body
        .get(..length)
        .and_then(|record| record.get(space + 1..))
        .ok_or_else(|| Fault::rule("PAX record of the wrong length"))?;
    let Some((b'\n', pair)) = record.split_last() else {
        return Err(Fault::rule("PAX record that does not end where its length says"));
    };
    let equals = pair
        .iter()
        .position(|&byte| byte == b'=')
        .filter(|&equals| equals > 0)
        .ok_or_else(|| Fault::rule("PAX record without a key"))?;
    let (key, value) = (&pair[..equals], &pair[equals + 1..]);
    if key.contains(&0) || key.contains(&b'\n') {
        return Err(Fault::rule("PAX record with a NUL or a newline in its key"));
    }
    Ok(((key, value), length))
}

/// Appends a record. The length counts its own digits, so it is found by adding them until they fit.
pub(super) fn write(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    loop {
        let digits = length.to_string();
        if rest + digits.len() == length {
            out.extend_from_slice(digits.as_bytes());
            break;
        }
        length = rest + digits.len();
    }
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Reads a time: decimal seconds with an optional sign and fraction. What is finer than a nanosecond is cut
/// off towards minus infinity, as POSIX asks of times that cannot be kept exactly.
pub(super) fn parse_time(text: &[u8]) -> Result<Timestamp, Fault> {
    let malformed = || Fault::rule("mtime: not a decimal time");
    let (negative, magnitude) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match magnitude.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&magnitude[..dot], &magnitude[dot + 1..]),
        None => (magnitude, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(malformed());
    }
    let seconds = field::decimal(whole, "mtime")?.cast_signed();
    let nanoseconds = (0..9).fold(0u32, |value, place| {
        value * 10 + fraction.get(place).map_or(0, |digit| u32::from(digit - b'0'))
    });
    if !negative {
        return Ok(Timestamp { seconds, nanoseconds });
    }
    let finer = fraction.iter().skip(9).any(|&digit| digit != b'0');
    let below = nanoseconds + u32::from(finer);
    Ok(match below {
        0 => Timestamp { seconds: -seconds, nanoseconds: 0 },
        1_000_000_000 => Timestamp { seconds: -seconds - 1, nanoseconds: 0 },
        _ => Timestamp { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - below },
    })
}

/// Writes a time as [`parse_time`] reads it, with no more digits than it needs.
pub(super) fn format_time(time: Timestamp) -> String {
    let Timestamp { seconds, nanoseconds } = time;
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds)
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}
