//! A strict reader: what `diff` writes must be an archive that no reader takes differently.

use super::header::{
    BLOCK, CHECKSUM, FLAG, GID, LINK, MAGIC, MAJOR, MINOR, MODE, MTIME, NAME, PREFIX, SIZE, UID, USTAR,
    checksum,
};
use super::{Entry, Kind, Time, Xattrs, join};
use crate::escape;

/// Reads a whole archive. Names come without `./` in front and `/` at the end.
///
/// # Errors
/// What is wrong with it.
pub fn read(archive: &[u8]) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    let mut rest = archive;
    let mut extended = Extended::default();
    loop {
        let (block, after) = rest.split_first_chunk::<BLOCK>().ok_or("the archive is cut off")?;
        rest = after;
        if block == &[0; BLOCK] {
            if rest.len() < BLOCK || rest.iter().any(|&byte| byte != 0) {
                return Err("the archive does not end with two blocks of zeros and nothing else".into());
            }
            return Ok(entries);
        }
        let size = check(block)?;
        let mut take = |size: u64| {
            let size = usize::try_from(size).map_err(|_| "a size that cannot be")?;
            let whole = size.next_multiple_of(BLOCK);
            let body = rest.get(..whole).ok_or("a body is cut off")?;
            rest = &rest[whole..];
            if body[size..].iter().any(|&byte| byte != 0) {
                return Err("padding that is not zero");
            }
            Ok(&body[..size])
        };
        match block[FLAG] {
            b'x' => extended.add(take(size)?)?,
            flag => {
                let extended = std::mem::take(&mut extended);
                let body = take(extended.size.unwrap_or(size))?;
                entries.push(entry(block, flag, extended, body)?);
            }
        }
    }
}

/// Checks what all headers have in common, and gives the size.
fn check(block: &[u8; BLOCK]) -> Result<u64, String> {
    if octal(block, CHECKSUM)? != u64::from(checksum(block)) {
        return Err("a wrong checksum".into());
    }
    if field(block, MAGIC) != USTAR {
        return Err("a header that is not ustar".into());
    }
    octal(block, SIZE)
}

fn entry(block: &[u8; BLOCK], flag: u8, extended: Extended, body: &[u8]) -> Result<Entry, String> {
    let raw = match extended.path {
        Some(path) => path,
        None => join(text(block, PREFIX)?, text(block, NAME)?),
    };
    let link = match extended.link {
        Some(link) => link,
        None => text(block, LINK)?.to_vec(),
    };
    let device = |field| {
        let number = octal(block, field)?;
        u32::try_from(number).map_err(|_| "a device number that cannot be".to_owned())
    };
    let kind = match flag {
        b'0' => Kind::File,
        b'1' => Kind::HardLink(name(&link, false)?),
        b'2' => Kind::Symlink(link),
        b'3' => Kind::Character(device(MAJOR)?, device(MINOR)?),
        b'4' => Kind::Block(device(MAJOR)?, device(MINOR)?),
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => return Err(format!("an entry of type {}", escape::name(&[other]))),
    };
    if kind != Kind::File && !body.is_empty() {
        return Err(format!("{}: a body on an entry that has none", escape::name(&raw)));
    }
    let id = |record: Option<u64>, field| {
        let number = record.map_or_else(|| octal(block, field), Ok)?;
        u32::try_from(number).map_err(|_| "an owner that cannot be".to_owned())
    };
    let mtime = match extended.mtime {
        Some(mtime) => mtime,
        None => Time::at(octal(block, MTIME)? as i64),
    };
    Ok(Entry {
        name: name(&raw, kind == Kind::Directory)?,
        kind,
        mode: u32::try_from(octal(block, MODE)?)
            .ok()
            .filter(|mode| mode & !0o7777 == 0)
            .ok_or("a mode that cannot be")?,
        uid: id(extended.uid, UID)?,
        gid: id(extended.gid, GID)?,
        mtime,
        xattrs: extended.xattrs,
        body: body.to_vec(),
    })
}

/// Checks a name and takes off what says nothing.
fn name(raw: &[u8], is_directory: bool) -> Result<Vec<u8>, String> {
    let bad = |why: &str| Err(format!("{}: a name {why}", escape::name(raw)));
    if is_directory != raw.ends_with(b"/") {
        return bad("that says directory or not against its type");
    }
    let name = raw.strip_suffix(b"/").unwrap_or(raw);
    let name = name.strip_prefix(b"./").unwrap_or(name);
    if name == b"." {
        return Ok(Vec::new());
    }
    for component in name.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." | b".." => return bad("with an empty component, or one that is only dots"),
            _ if component.len() > 255 => return bad("with a component that no directory can hold"),
            _ => {}
        }
    }
    Ok(name.to_vec())
}

/// What extended headers say of the next entry.
#[derive(Debug, Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<Time>,
    xattrs: Xattrs,
}

impl Extended {
    fn add(&mut self, mut body: &[u8]) -> Result<(), String> {
        while !body.is_empty() {
            let space = body.iter().position(|&byte| byte == b' ').ok_or("a record without a length")?;
            let length = decimal(&body[..space])? as usize;
            let record = body.get(space + 1..length).ok_or("a record of a wrong length")?;
            body = &body[length..];
            let record = record.strip_suffix(b"\n").ok_or("a record without an end")?;
            let equals = record.iter().position(|&byte| byte == b'=').ok_or("a record without a value")?;
            self.record(&record[..equals], &record[equals + 1..])?;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(decimal(value)?),
            b"uid" => self.uid = Some(decimal(value)?),
            b"gid" => self.gid = Some(decimal(value)?),
            b"mtime" => self.mtime = Some(time(value)?),
            // What they say is in an attribute as well.
            b"hdrcharset" | b"SCHILY.acl.access" | b"SCHILY.acl.default" => {}
            _ => match key.strip_prefix(b"SCHILY.xattr.") {
                Some(key) => drop(self.xattrs.insert(attribute(key)?, value.to_vec())),
                // Times of access and the like would make the archive of one layer differ from one time to
                // the next.
                None => return Err(format!("a record {}", escape::name(key))),
            },
        }
        Ok(())
    }
}

/// The name of an attribute that a key has: `=` is `%3D` there and `%` is `%25`, and nothing else is escaped.
fn attribute(key: &[u8]) -> Result<Vec<u8>, String> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((&byte, after)) = rest.split_first() {
        rest = match rest {
            [b'%', b'2', b'5', after @ ..] => {
                name.push(b'%');
                after
            }
            [b'%', b'3', b'D', after @ ..] => {
                name.push(b'=');
                after
            }
            [b'%', ..] => return Err("a `%` in the key of an attribute".into()),
            _ => {
                name.push(byte);
                after
            }
        };
    }
    Ok(name)
}

fn field(block: &[u8; BLOCK], (start, length): (usize, usize)) -> &[u8] {
    &block[start..start + length]
}

/// Bytes up to the first NUL; nothing but NULs may follow it.
fn text(block: &[u8; BLOCK], at: (usize, usize)) -> Result<&[u8], String> {
    let field = field(block, at);
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    match field[end..].iter().all(|&byte| byte == 0) {
        true => Ok(&field[..end]),
        false => Err("bytes after the end of a text".into()),
    }
}

/// Octal digits, then NULs and spaces.
fn octal(block: &[u8; BLOCK], at: (usize, usize)) -> Result<u64, String> {
    let field = field(block, at);
    let end = field.iter().position(|byte| !matches!(byte, b'0'..=b'7')).unwrap_or(field.len());
    if end == 0 || field[end..].iter().any(|byte| !matches!(byte, 0 | b' ')) {
        return Err("a number that is not octal".into());
    }
    Ok(field[..end].iter().fold(0, |value, digit| value << 3 | u64::from(digit - b'0')))
}

fn decimal(digits: &[u8]) -> Result<u64, String> {
    let text = std::str::from_utf8(digits).map_err(|_| "a number that is not decimal")?;
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a number that is not decimal".into());
    }
    text.parse().map_err(|_| "a number that is too large".into())
}

/// Decimal seconds with an optional sign and up to nine digits of a fraction.
fn time(text: &[u8]) -> Result<Time, String> {
    let (is_negative, magnitude) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = magnitude.splitn(2, |&byte| byte == b'.');
    let whole = decimal(parts.next().unwrap_or_default())? as i64;
    let fraction = match parts.next() {
        None => 0,
        Some(digits) if digits.len() <= 9 => {
            let padded = [digits, &b"000000000"[digits.len()..]].concat();
            decimal(&padded)? as u32
        }
        Some(_) => return Err("a time finer than a nanosecond".into()),
    };
    Ok(match (is_negative, fraction) {
        (false, nanoseconds) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds: 0 },
        (true, below) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - below },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Archive, Header, archive, records};

    #[test]
    fn what_readers_take_differently_is_an_error() {
        let file = |flag| Header::new(flag).name(b"f");
        let cases: [(&str, Vec<u8>); 9] = [
            ("cut", archive(&[Entry::file("f", "x")])[..1024].to_vec()),
            ("one block of zeros", vec![0; BLOCK]),
            ("bytes after the end", Archive::new().end().into_iter().chain([1]).collect()),
            ("checksum", Archive::new().raw(&file(b'0').seal_wrongly(1)).end()),
            ("magic", Archive::new().member(file(b'0').magic(b"ustar  \0"), b"").end()),
            ("type", Archive::new().member(file(b'S'), b"").end()),
            ("dots", archive(&[Entry::file("a/../b", "")])),
            ("directory without a slash", Archive::new().member(file(b'5'), b"").end()),
            (
                "record",
                Archive::new()
                    .extension(b'x', &records(&[(b"atime", b"1")]))
                    .entry(&Entry::file("f", ""))
                    .end(),
            ),
        ];
        for (what, bytes) in cases {
            assert!(read(&bytes).is_err(), "{what}");
        }
        assert_eq!(read(&[0; 1024]), Ok(Vec::new()));
    }
}
