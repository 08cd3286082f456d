//! Extended headers: POSIX.1-2017, "pax Extended Header".

use std::collections::{BTreeMap, BTreeSet};

use crate::acl;
use crate::bindings::layerbox::driver::types::{Timestamp, Xattr};
use crate::error::{Error, Result, limit, printable, refused};
use crate::view::{OVERLAY_ATTRIBUTES, is_label};

/// A record: key and value.
type Record<'a> = (&'a [u8], &'a [u8]);

/// What the headers before a member say of it.
#[derive(Default)]
pub(crate) struct Extension {
    /// The types of these headers.
    pub(crate) headers: BTreeSet<u8>,
    /// What has been said.
    keys: BTreeSet<Vec<u8>>,
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) target: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    pub(crate) mtime: Option<Timestamp>,
    /// Whether there are device numbers, which readers take differently.
    pub(crate) device: bool,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Access control lists as text, by their keys.
    lists: Vec<(Vec<u8>, Vec<u8>)>,
    /// The records of GNU's sparse files, in their order, without `GNU.sparse.` in their keys.
    pub(crate) sparse: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Extension {
    /// Takes an extension header: pax (`x`), pax for all entries (`g`), GNU's long name (`L`) or target
    /// (`K`).
    pub(crate) fn add(&mut self, flag: u8, body: &[u8]) -> Result<()> {
        if flag == b'g' && self.headers.is_empty() {
            return global(body);
        }
        if flag == b'g' || !self.headers.insert(flag) {
            return Err(refused(b"", "extension headers in an order that readers understand differently"));
        }
        // GNU ends these with a NUL.
        let long = body.strip_suffix(b"\0").unwrap_or(body);
        match flag {
            b'L' => self.record(b"path", long),
            b'K' => self.record(b"linkpath", long),
            _ => records(body)?.into_iter().try_for_each(|(key, value)| self.record(key, value)),
        }
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        // Version 0.0 of sparse files writes its map as a row of two records.
        let row = matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes");
        if !self.keys.insert(key.to_vec()) && !row {
            return Err(junk(key, "given twice"));
        }
        match key {
            b"path" => self.path = Some(text(key, value)?),
            b"linkpath" => self.target = Some(text(key, value)?),
            b"size" => self.size = Some(number(key, value)?),
            b"uid" => self.uid = Some(number(key, value)?),
            b"gid" => self.gid = Some(number(key, value)?),
            b"mtime" => self.mtime = Some(time(value).ok_or_else(|| junk(key, "no time"))?),
            b"SCHILY.acl.access" | b"SCHILY.acl.default" => self.lists.push((key.to_vec(), value.to_vec())),
            b"hdrcharset" if !matches!(value, b"BINARY" | b"ISO-IR 10646 2000 UTF-8") => {
                return Err(junk(key, "of an encoding that is not known"));
            }
            b"SCHILY.devmajor" | b"SCHILY.devminor" => self.device = true,
            b"GNU.volume.filename" | b"GNU.volume.size" | b"GNU.volume.offset" => {
                return Err(junk(key, "of a file that begins in another volume"));
            }
            b"SCHILY.realsize" => {
                return Err(junk(key, "a sparse file of star's, whose body is not its content"));
            }
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    self.sparse.push((key.to_vec(), value.to_vec()));
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                    && self.xattrs.insert(unescape(name), value.to_vec()).is_some()
                {
                    return Err(junk(key, "given twice"));
                }
            }
        }
        Ok(())
    }

    /// The extended attributes, if they are few and such that a layer may hold.
    pub(crate) fn attributes(&self) -> Result<Vec<Xattr>> {
        if self.xattrs.len() > 64 {
            return Err(limit(b"", "extended attributes of an entry", 64));
        }
        if self.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > 1 << 20 {
            return Err(limit(b"", "bytes of extended attributes", 1 << 20));
        }
        let mut xattrs = self.xattrs.clone();
        for (key, text) in &self.lists {
            let Some((_, name)) = acl::KEYS.iter().find(|(known, _)| known == key) else { continue };
            if text.trim_ascii().is_empty() && !xattrs.contains_key(*name) {
                // GNU tar writes it so where there is none.
                continue;
            }
            match acl::value(text) {
                Ok(list) if xattrs.get(*name).is_none_or(|known| *known == list) => {
                    xattrs.insert(name.to_vec(), list);
                }
                // The attribute has the numbers.
                Err(acl::Fault::Name) if xattrs.contains_key(*name) => {}
                Ok(_) => return Err(junk(key, "another list than the attribute")),
                Err(acl::Fault::Name) => return Err(junk(key, "somebody by name, without a number")),
                Err(acl::Fault::Form) => return Err(junk(key, "no access control list")),
            }
        }
        // A form that is here to be read by other tools. What is here in no other form would be lost.
        for key in &self.keys {
            let name = key.strip_prefix(b"LIBARCHIVE.xattr.").unwrap_or_default();
            if !name.is_empty() && !xattrs.contains_key(name) {
                return Err(Error::Unsupported(format!(
                    "{} without SCHILY.xattr.{}",
                    printable(key),
                    printable(name)
                )));
            }
        }
        xattrs.retain(|name, _| !is_label(name));
        let xattr = |(name, value): (&Vec<u8>, &Vec<u8>)| {
            check_attribute(name).map(|()| Xattr { name: name.clone(), value: value.clone() })
        };
        xattrs.iter().map(xattr).collect()
    }
}

/// The name that a key has with `=` and `%` as GNU tar writes them.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::new();
    let mut rest = text;
    while let [byte, after @ ..] = rest {
        let (byte, after) = match rest {
            [b'%', b'2', b'5', after @ ..] => (b'%', after),
            [b'%', b'3', b'D', after @ ..] => (b'=', after),
            _ => (*byte, after),
        };
        name.push(byte);
        rest = after;
    }
    name
}

/// Reads the body of a global header, which may say nothing that would count.
fn global(body: &[u8]) -> Result<()> {
    for (key, _) in records(body)? {
        if matches!(key, b"path" | b"linkpath" | b"size") || key.starts_with(b"GNU.sparse.") {
            return Err(junk(key, "given for all entries"));
        }
    }
    Ok(())
}

/// The records of a body: a length in decimal that counts all of the record, a space, key, `=`, value,
/// newline.
fn records(mut body: &[u8]) -> Result<Vec<Record<'_>>> {
    let mut records = Vec::new();
    while !body.is_empty() {
        let (record, rest) =
            record(body).ok_or_else(|| refused(b"", "a malformed record in a pax header"))?;
        records.push(record);
        body = rest;
    }
    Ok(records)
}

fn record(body: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let space = body.iter().position(|&byte| byte == b' ')?;
    let length = usize::try_from(decimal(&body[..space])?).ok()?;
    let (record, rest) = body.split_at_checked(length)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=').filter(|&at| at > 0)?;
    Some(((&record[..equals], &record[equals + 1..]), rest))
}

/// A number in decimal, and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Option<u64> {
    // What Rust would take beside digits is a sign.
    let digits = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    digits.parse().ok()
}

/// A number that a key has.
pub(crate) fn number(key: &[u8], value: &[u8]) -> Result<u64> {
    decimal(value).ok_or_else(|| junk(key, "no number"))
}

/// A name that a key has.
pub(crate) fn text(key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
    if value.is_empty() || value.contains(&0) {
        return Err(junk(key, "no name"));
    }
    Ok(value.to_vec())
}

/// Seconds with a sign and a fraction, of which nine digits count.
fn time(value: &[u8]) -> Option<Timestamp> {
    let (negative, value) = value.strip_prefix(b"-").map_or((false, value), |value| (true, value));
    let point = value.iter().position(|&byte| byte == b'.');
    let (whole, fraction) = point.map_or((value, &[][..]), |point| (&value[..point], &value[point + 1..]));
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let whole = i64::try_from(decimal(whole)?).ok()?;
    let digits: Vec<u8> = fraction.iter().copied().chain([b'0'; 9]).take(9).collect();
    let mut nanoseconds = u32::try_from(decimal(&digits)?).ok()?;
    // What is finer is rounded towards the past, which before 1970 is away from 0.
    let finer = fraction.iter().skip(9).any(|&digit| digit != b'0');
    nanoseconds += u32::from(negative && finer);
    Some(match (negative, nanoseconds) {
        (false, _) => Timestamp { seconds: whole, nanoseconds },
        (true, 0) => Timestamp { seconds: -whole, nanoseconds },
        (true, _) => Timestamp { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// Refuses extended attributes that layers do not hold.
fn check_attribute(name: &[u8]) -> Result<()> {
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let known = spaces.iter().any(|space| name.len() > space.len() && name.starts_with(space))
        || matches!(name, b"system.posix_acl_access" | b"system.posix_acl_default");
    if !known || name.len() > 255 || name.contains(&0) {
        return Err(junk(name, "no extended attribute that a layer holds"));
    }
    if OVERLAY_ATTRIBUTES.iter().any(|prefix| name.starts_with(prefix)) {
        return Err(junk(name, "an attribute that overlayfs keeps for itself"));
    }
    Ok(())
}

fn junk(key: &[u8], what: &str) -> Error {
    refused(b"", format!("{} in a pax header: {what}", printable(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_as_long_as_they_say() {
        for (body, want) in [
            ("6 a=b\n", Some(1)),
            ("6 a=b\n5 c=\n", Some(2)),
            ("", Some(0)),
            ("7 a=b\n", None),
            ("5 a=b\n", None),
            ("+6 a=b\n", None),
            ("6 a=bx", None),
            ("5 =b\n", None),
            ("4 a\n", None),
            ("2 a=b\n", None),
            ("0 a=b\n", None),
        ] {
            assert_eq!(records(body.as_bytes()).ok().map(|found| found.len()), want, "{body:?}");
        }
    }

    #[test]
    fn times_count_forwards() {
        for (text, want) in [
            ("1", Some((1, 0))),
            ("1.5", Some((1, 500_000_000))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.000000001", Some((-1, 999_999_999))),
            ("0.1234567899", Some((0, 123_456_789))),
            ("-0.1234567891", Some((-1, 876_543_210))),
            ("-1.9999999999", Some((-2, 0))),
            ("1.", Some((1, 0))),
            ("", None),
            ("-", None),
            ("+1", None),
            ("1.-5", None),
            ("99999999999999999999", None),
        ] {
            let found = time(text.as_bytes()).map(|time| (time.seconds, time.nanoseconds));
            assert_eq!(found, want, "{text:?}");
        }
    }
}
