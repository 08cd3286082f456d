//! POSIX access control lists: between the text that archives hold (acl(5), and the fourth field that star
//! and bsdtar add) and the value that the kernel keeps in `system.posix_acl_access` and
//! `system.posix_acl_default` (`include/uapi/linux/posix_acl_xattr.h`).

/// The version of the kernel's form.
const VERSION: u32 = 2;

/// The id of an entry that has none.
const NO_ID: u32 = u32::MAX;

/// The attribute of the ACL that is asked when a file is used.
pub(super) const ACCESS: &[u8] = b"system.posix_acl_access";

/// The attribute of the ACL that files made in a directory begin with.
pub(super) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The kinds of entries, in the order and with the numbers that the kernel wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

/// Why a text is not an ACL that can be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is not the text of an ACL.
    #[error("ACL: not of the form `user:1000:rwx`")]
    Syntax,
    /// It lacks one of the entries that every ACL has, or has one twice.
    #[error("ACL: an entry is missing or given twice")]
    Incomplete,
    /// It names somebody, and there is no user database to look the name up in.
    #[error("ACL: a user or group by name, without its number")]
    UnknownName,
}

/// Turns text into the kernel's form.
pub(super) fn encode(text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut entries = Vec::new();
    let mut unknown = false;
    for line in text.split(|&byte| byte == b'\n' || byte == b',') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        match parse(line) {
            Ok(entry) => entries.push(entry),
            Err(Error::UnknownName) => unknown = true,
            Err(error) => return Err(error),
        }
    }
    if unknown {
        return Err(Error::UnknownName);
    }
    entries.sort_unstable();
    if !is_complete(&entries) {
        return Err(Error::Incomplete);
    }
    let mut value = VERSION.to_le_bytes().to_vec();
    for (tag, id, permissions) in entries {
        value.extend_from_slice(&(tag as u16).to_le_bytes());
        value.extend_from_slice(&permissions.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    Ok(value)
}

/// Turns the kernel's form into text, users and groups by number; none where the value is not exactly as the
/// kernel keeps it.
pub(super) fn decode(value: &[u8]) -> Option<Vec<u8>> {
    let (version, entries) = value.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*version) != VERSION {
        return None;
    }
    let (entries, []) = entries.as_chunks::<8>() else { return None };
    let mut lines = Vec::with_capacity(entries.len());
    for &[tag, tag_high, permissions, permissions_high, ref id @ ..] in entries {
        let permissions = u16::from_le_bytes([permissions, permissions_high]);
        if permissions > 7 {
            return None;
        }
        let id = u32::from_le_bytes(*id);
        let who = match u16::from_le_bytes([tag, tag_high]) {
            0x01 => "user:".to_owned(),
            0x02 => format!("user:{id}"),
            0x04 => "group:".to_owned(),
            0x08 => format!("group:{id}"),
            0x10 => "mask:".to_owned(),
            0x20 => "other:".to_owned(),
            _ => return None,
        };
        let letter = |bit, letter| if permissions & bit != 0 { letter } else { '-' };
        lines.push(format!("{who}:{}{}{}", letter(4, 'r'), letter(2, 'w'), letter(1, 'x')));
    }
    let text = lines.join(",").into_bytes();
    // The kernel keeps no other form. One that came in an archive would be read back from its text as another
    // value.
    (encode(&text).as_deref() == Ok(value)).then_some(text)
}

/// Whether the sorted entries are what `posix_acl_valid` of the kernel takes.
fn is_complete(entries: &[(Tag, u32, u16)]) -> bool {
    let count = |tag| entries.iter().filter(|entry| entry.0 == tag).count();
    let named = count(Tag::User) + count(Tag::Group) > 0;
    let distinct = entries.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1));
    let required = [Tag::Owner, Tag::OwningGroup, Tag::Other].into_iter().all(|tag| count(tag) == 1);
    required && distinct && (!named || count(Tag::Mask) == 1)
}

/// One entry: `TAG:QUALIFIER:PERMISSIONS`, with `:ID` after it where star or bsdtar wrote it. `mask` and
/// `other` may do without the empty qualifier, as in the text of Solaris and bsdtar.
fn parse(line: &[u8]) -> Result<(Tag, u32, u16), Error> {
    let line = line.strip_prefix(b"default:").unwrap_or(line);
    let mut fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    if fields.len() == 2 && matches!(fields[0], b"mask" | b"other" | b"m" | b"o") {
        fields.insert(1, b"");
    }
    let (tag, qualifier, permissions, id) = match fields[..] {
        [tag, qualifier, permissions] => (tag, qualifier, permissions, None),
        [tag, qualifier, permissions, id] => {
            (tag, qualifier, permissions, Some(number(id).ok_or(Error::Syntax)?))
        }
        _ => return Err(Error::Syntax),
    };
    let tag = match (tag, qualifier.is_empty()) {
        (b"user" | b"u", true) => Tag::Owner,
        (b"user" | b"u", false) => Tag::User,
        (b"group" | b"g", true) => Tag::OwningGroup,
        (b"group" | b"g", false) => Tag::Group,
        (b"mask" | b"m", true) => Tag::Mask,
        (b"other" | b"o", true) => Tag::Other,
        _ => return Err(Error::Syntax),
    };
    let permissions = bits(permissions)?;
    if qualifier.is_empty() {
        return if id.is_none() { Ok((tag, NO_ID, permissions)) } else { Err(Error::Syntax) };
    }
    let id = match (number(qualifier), id) {
        (Some(number), Some(id)) if number != id => return Err(Error::Syntax),
        (_, Some(id)) | (Some(id), None) => id,
        (None, None) if qualifier == b"root" => 0,
        (None, None) => return Err(Error::UnknownName),
    };
    Ok((tag, id, permissions))
}

fn number(text: &[u8]) -> Option<u32> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(text).ok()?.parse().ok().filter(|&id| id != NO_ID)
}

fn bits(text: &[u8]) -> Result<u16, Error> {
    let [read, write, execute] = *text else { return Err(Error::Syntax) };
    let mut bits = 0;
    for (value, letter, bit) in [(read, b'r', 4), (write, b'w', 2), (execute, b'x', 1)] {
        match value {
            b'-' => {}
            _ if value == letter => bits |= bit,
            _ => return Err(Error::Syntax),
        }
    }
    Ok(bits)
}
