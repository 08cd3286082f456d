//! Extended attributes in PAX records, in the three ways in which they are written.
//!
//! `SCHILY.xattr.NAME` (star, GNU tar, Go, and bsdtar beside its own) holds the value as it is.
//! `LIBARCHIVE.xattr.NAME` (bsdtar) holds it in base 64 under a URL-encoded name. `RHT.security.selinux` (GNU
//! tar) is one attribute by another name.

use std::collections::BTreeMap;

use super::{Fault, MAX_XATTR_BYTES, MAX_XATTRS, Xattr, acl};

/// The longest name of an extended attribute in bytes: XATTR_NAME_MAX of Linux.
const MAX_NAME: usize = 255;

/// The label of SELinux.
const SELINUX: &[u8] = b"security.selinux";

/// What the records of one member say about its extended attributes.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    /// By the names as they stand in the keys.
    schily: BTreeMap<Vec<u8>, Vec<u8>>,
    /// By the names as they stand in the keys.
    libarchive: BTreeMap<Vec<u8>, Vec<u8>>,
    selinux: Option<Vec<u8>>,
    /// ACLs as text, by the names of their attributes.
    acls: BTreeMap<&'static [u8], Vec<u8>>,
    count: usize,
    bytes: usize,
}

impl Xattrs {
    /// Takes `SCHILY.xattr.NAME`.
    pub(super) fn add_schily(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.count_in(name, value)?;
        once(self.schily.insert(name.to_vec(), value.to_vec()))
    }

    /// Takes `LIBARCHIVE.xattr.NAME`.
    pub(super) fn add_libarchive(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        let value = decode_base64(value)?;
        self.count_in(name, &value)?;
        once(self.libarchive.insert(name.to_vec(), value))
    }

    /// Takes `RHT.security.selinux`.
    pub(super) fn add_selinux(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.count_in(SELINUX, value)?;
        once(self.selinux.replace(value.to_vec()))
    }

    /// Takes `SCHILY.acl.access` and `SCHILY.acl.default`: an ACL as text, for the attribute `name`.
    pub(super) fn add_acl(&mut self, name: &'static [u8], text: &[u8]) -> Result<(), Fault> {
        self.count_in(name, text)?;
        once(self.acls.insert(name, text.to_vec()))
    }

    /// All of them together, sorted by name.
    pub(super) fn finish(mut self) -> Result<Vec<Xattr>, Fault> {
        let mut all = BTreeMap::new();
        for (key, value) in self.libarchive {
            // bsdtar writes both, under the same key: what it calls a name there is the URL-encoded one.
            if self.schily.remove(&key).is_some_and(|other| other != value) {
                return Err(Fault::rule("extended attribute given twice, with different values"));
            }
            once(all.insert(decode_url(&key)?, value))?;
        }
        for (key, value) in self.schily {
            agree(&mut all, unescape(&key), value, |one, other| one == other)?;
        }
        if let Some(value) = self.selinux {
            // The kernel's value ends in a NUL, GNU tar's record does not.
            let trim = |value: &[u8]| value.strip_suffix(&[0]).map_or(value.to_vec(), <[u8]>::to_vec);
            agree(&mut all, SELINUX.to_vec(), value, |one, other| trim(one) == trim(other))?;
        }
        for (name, text) in self.acls {
            // GNU tar writes down the default list that a directory does not have.
            if text.trim_ascii().is_empty() && !all.contains_key(name) {
                continue;
            }
            match acl::encode(&text) {
                Ok(value) => agree(&mut all, name.to_vec(), value, |one, other| one == other)?,
                // Names of users mean nothing here, but the ids are there as well when the kernel's form is.
                Err(acl::Error::UnknownName) if all.contains_key(name) => {}
                Err(error) => return Err(Fault::rule(error.to_string())),
            }
        }
        if all.keys().any(|name| name.is_empty() || name.len() > MAX_NAME || name.contains(&0)) {
            return Err(Fault::rule(
                "extended attribute whose name is empty, longer than 255 bytes or holds a NUL",
            ));
        }
        if all.len() > MAX_XATTRS {
            return Err(Fault::limit(format!("extended attributes of one entry ({MAX_XATTRS})")));
        }
        Ok(all.into_iter().collect())
    }

    /// Counts an attribute in, before it is kept. An attribute may come twice, once in each notation.
    fn count_in(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.count += 1;
        self.bytes += name.len() + value.len();
        if self.count > 2 * MAX_XATTRS {
            return Err(Fault::limit(format!("extended attributes of one entry ({MAX_XATTRS})")));
        }
        if self.bytes > MAX_XATTR_BYTES {
            return Err(Fault::limit(format!(
                "bytes of extended attributes of one entry ({MAX_XATTR_BYTES})"
            )));
        }
        Ok(())
    }
}

fn once<T>(before: Option<T>) -> Result<(), Fault> {
    match before {
        Some(_) => Err(Fault::rule("extended attribute given twice")),
        None => Ok(()),
    }
}

/// Adds an attribute unless it is there already, in which case the two must say the same.
fn agree(
    all: &mut BTreeMap<Vec<u8>, Vec<u8>>,
    name: Vec<u8>,
    value: Vec<u8>,
    same: impl Fn(&[u8], &[u8]) -> bool,
) -> Result<(), Fault> {
    match all.get(&name) {
        Some(known) if same(known, &value) => Ok(()),
        Some(_) => Err(Fault::rule("extended attribute given twice, with different values")),
        None => {
            all.insert(name, value);
            Ok(())
        }
    }
}

/// Puts a name into the key of a PAX record, where it cannot hold a `=`: GNU tar's notation. A `%` is escaped
/// only where [`unescape`] would take it for the beginning of an escape, because bsdtar and Go take every one
/// as it is.
pub(super) fn escape(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for (at, &byte) in name.iter().enumerate() {
        match byte {
            b'%' if matches!(name.get(at + 1..at + 3), Some(b"25" | b"3D")) => {
                escaped.extend_from_slice(b"%25");
            }
            b'=' => escaped.extend_from_slice(b"%3D"),
            _ => escaped.push(byte),
        }
    }
    escaped
}

/// Undoes [`escape`], and what GNU tar does, which escapes each `%`. Any other `%` stands for itself, because
/// only GNU tar escapes.
fn unescape(text: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, length) = match rest {
            [b'%', b'2', b'5', ..] => (b'%', 3),
            [b'%', b'3', b'D', ..] => (b'=', 3),
            _ => (first, 1),
        };
        name.push(byte);
        rest = after.get(length - 1..).unwrap_or_default();
    }
    name
}

fn decode_url(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut name = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'%' {
            name.push(byte);
            continue;
        }
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        let value = digit().and_then(|high| Some(high << 4 | digit()?));
        let value = value.and_then(|value| u8::try_from(value).ok());
        name.push(value.ok_or_else(|| Fault::rule("LIBARCHIVE.xattr: malformed name"))?);
    }
    Ok(name)
}

/// Base 64 (RFC 4648), with or without padding: bsdtar writes none.
fn decode_base64(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let malformed = || Fault::rule("LIBARCHIVE.xattr: malformed value");
    let digits = text.strip_suffix(b"==").or_else(|| text.strip_suffix(b"=")).unwrap_or(text);
    let mut value = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut bits: u32 = 0;
        for place in 0..4 {
            let digit = match chunk.get(place) {
                Some(&digit) => sextet(digit).ok_or_else(malformed)?,
                None => 0,
            };
            bits = bits << 6 | u32::from(digit);
        }
        let [_, bytes @ ..] = bits.to_be_bytes();
        let length = match chunk.len() {
            4 => 3,
            3 => 2,
            2 => 1,
            _ => return Err(malformed()),
        };
        value.extend_from_slice(&bytes[..length]);
    }
    Ok(value)
}

fn sextet(digit: u8) -> Option<u8> {
    match digit {
        b'A'..=b'Z' => Some(digit - b'A'),
        b'a'..=b'z' => Some(digit - b'a' + 26),
        b'0'..=b'9' => Some(digit - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}
