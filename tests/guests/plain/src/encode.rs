//! Headers of archives: POSIX.1-2017 ustar, with a pax header for what does not fit into one.

use tar::Header;

use crate::acl;
use crate::bindings::layerbox::driver::types::{Attributes, Timestamp, Xattr};

/// One member of an archive.
pub(crate) struct Member<'a> {
    /// The name as the archive has it, with the `/` of a directory.
    pub(crate) name: &'a [u8],
    /// The type flag.
    pub(crate) flag: u8,
    /// Mode, owner, time, extended attributes.
    pub(crate) attributes: &'a Attributes,
    /// How many bytes follow.
    pub(crate) size: u64,
    /// Where a link leads.
    pub(crate) target: &'a [u8],
    /// The number of a device, major and minor.
    pub(crate) device: (u32, u32),
}

/// A member's headers, whole blocks.
pub(crate) fn headers(member: &Member<'_>) -> Vec<u8> {
    let mut pax = Vec::new();
    let attributes = member.attributes;
    let (name, target) = (member.name, member.target);
    let texts = [("path", name), ("linkpath", target)].map(|(key, text)| (key, text, text.len() > 100));
    if texts.iter().any(|(_, text, long)| *long && std::str::from_utf8(text).is_err()) {
        record(&mut pax, b"hdrcharset", b"BINARY");
    }
    for (key, text, _) in texts.iter().filter(|(_, _, long)| *long) {
        record(&mut pax, key.as_bytes(), text);
    }
    // A number that goes into the pax header is 0 in the other.
    let mut number = |key: &str, digits: u32, value: u64| {
        let fits = value < 1 << (3 * digits);
        if !fits {
            record(&mut pax, key.as_bytes(), value.to_string().as_bytes());
        }
        if fits { value } else { 0 }
    };
    let size = number("size", 11, member.size);
    let uid = number("uid", 7, attributes.uid.into());
    let gid = number("gid", 7, attributes.gid.into());
    let mtime = match u64::try_from(attributes.mtime.seconds) {
        Ok(seconds) if attributes.mtime.nanoseconds == 0 && seconds < 1 << 33 => seconds,
        _ => {
            record(&mut pax, b"mtime", decimal(&attributes.mtime).as_bytes());
            0
        }
    };
    for (key, attribute) in acl::KEYS {
        let list = attributes.xattrs.iter().find(|xattr| xattr.name == attribute);
        if let Some(text) = list.and_then(|xattr| acl::text(&xattr.value)) {
            record(&mut pax, key, text.as_bytes());
        }
    }
    for Xattr { name, value } in &attributes.xattrs {
        record(&mut pax, &[b"SCHILY.xattr.", escape(name).as_slice()].concat(), value);
    }

    let mut blocks = Vec::new();
    if !pax.is_empty() {
        let last =
            name.strip_suffix(b"/").unwrap_or(name).rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let attributes = Attributes { mode: 0o644, ..nothing() };
        let name = [b"PaxHeaders.0/", last].concat();
        let name = &name[..name.len().min(100)];
        let size = pax.len() as u64;
        blocks =
            headers(&Member { name, flag: b'x', attributes: &attributes, size, target: b"", device: (0, 0) });
        blocks.extend_from_slice(&pax);
        blocks.resize(blocks.len().next_multiple_of(512), 0);
    }
    let mut header = Header::new_ustar();
    if let Some(fields) = header.as_ustar_mut() {
        fill(&mut fields.name, name);
        octal(&mut fields.mode, attributes.mode.into());
        octal(&mut fields.uid, uid);
        octal(&mut fields.gid, gid);
        octal(&mut fields.size, size);
        octal(&mut fields.mtime, mtime);
        fields.typeflag = [member.flag];
        fill(&mut fields.linkname, target);
        octal(&mut fields.dev_major, member.device.0.into());
        octal(&mut fields.dev_minor, member.device.1.into());
        // The checksum counts itself as spaces.
        fields.cksum = *b"        ";
    }
    let sum: u64 = header.as_bytes().iter().map(|&byte| u64::from(byte)).sum();
    fill(&mut header.as_old_mut().cksum, format!("{sum:06o}\0 ").as_bytes());
    blocks.extend_from_slice(header.as_bytes());
    blocks
}

/// A name in a key, where `=` would end it: as GNU tar has it, but a `%` only where it would begin an escape.
fn escape(name: &[u8]) -> Vec<u8> {
    let byte = |at: usize| match &name[at..] {
        [b'%', b'2', b'5', ..] | [b'%', b'3', b'D', ..] => b"%25".to_vec(),
        [b'=', ..] => b"%3D".to_vec(),
        rest => rest[..1].to_vec(),
    };
    (0..name.len()).flat_map(byte).collect()
}

/// Attributes that say nothing.
pub(crate) fn nothing() -> Attributes {
    Attributes {
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp { seconds: 0, nanoseconds: 0 },
        xattrs: Vec::new(),
    }
}

/// Adds a pax record: its length in decimal, which counts itself, a space, key, `=`, value, newline.
fn record(pax: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    pax.extend_from_slice(format!("{length} ").as_bytes());
    pax.extend_from_slice(&[key, b"=", value, b"\n"].concat());
}

/// A time in decimal, without zeros at the end.
fn decimal(time: &Timestamp) -> String {
    // The contract counts nanoseconds forwards, decimals count away from 0.
    let (sign, seconds, nanoseconds) = match time.seconds < 0 {
        true if time.nanoseconds > 0 => {
            ("-", (time.seconds + 1).unsigned_abs(), 1_000_000_000 - time.nanoseconds)
        }
        true => ("-", time.seconds.unsigned_abs(), 0),
        false => ("", time.seconds.unsigned_abs(), time.nanoseconds),
    };
    let text = format!("{sign}{seconds}.{nanoseconds:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn fill(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits, as many as the field holds, and a NUL.
fn octal(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    fill(field, format!("{number:0digits$o}\0").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for (value, length) in [(1, 6), (3, 8), (4, 9), (5, 11), (94, 101)] {
            let mut pax = Vec::new();
            record(&mut pax, b"k", &vec![b'v'; value]);
            assert_eq!(pax.len(), length);
            assert!(pax.starts_with(format!("{length} k=").as_bytes()));
        }
    }

    #[test]
    fn times_in_decimal() {
        for (seconds, nanoseconds, want) in [
            (0, 1, "0.000000001"),
            (10, 0, "10"),
            (1, 500_000_000, "1.5"),
            (-1, 0, "-1"),
            (-1, 500_000_000, "-0.5"),
            (-2, 999_999_999, "-1.000000001"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            assert_eq!(decimal(&Timestamp { seconds, nanoseconds }), want);
        }
    }
}
