//! Access control lists: as the kernel keeps them (`linux/posix_acl_xattr.h`), and as text, which archives
//! hold beside that.

/// Keys of archives, and the attributes that say the same.
pub(crate) const KEYS: [(&[u8], &[u8]); 2] = [
    (b"SCHILY.acl.access", b"system.posix_acl_access"),
    (b"SCHILY.acl.default", b"system.posix_acl_default"),
];

/// The words for the kernel's tags, whether a number goes with them, and the tags, which are in the kernel's
/// order.
const TAGS: [(&str, bool, u16); 6] = [
    ("user", false, 1),
    ("user", true, 2),
    ("group", false, 4),
    ("group", true, 8),
    ("mask", false, 16),
    ("other", false, 32),
];

/// What the kernel has in the place of a number that an entry does not have.
const NOBODY: u32 = u32::MAX;

/// The text of a list; none where the value is no list.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut words = Vec::new();
    for entry in entries.chunks(8) {
        let [tag, tag_high, bits, 0, a, b, c, d] = *entry else { return None };
        let tag = u16::from_le_bytes([tag, tag_high]);
        let (word, numbered, _) = TAGS.iter().find(|(.., known)| *known == tag)?;
        let number = if *numbered { u32::from_le_bytes([a, b, c, d]).to_string() } else { String::new() };
        let letters: String = ['r', 'w', 'x']
            .into_iter()
            .zip([4, 2, 1])
            .map(|(letter, bit)| if bits & bit == 0 { '-' } else { letter })
            .collect();
        (bits < 8).then(|| words.push(format!("{word}:{number}:{letters}")))?;
    }
    Some(words.join(","))
}

/// Why a text is no list.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is none.
    Form,
    /// It names somebody without a number.
    Name,
}

/// The value of a text: entries with commas or newlines between them.
pub(crate) fn value(text: &[u8]) -> Result<Vec<u8>, Fault> {
    let text = std::str::from_utf8(text).map_err(|_| Fault::Form)?;
    let (mut entries, mut named) = (Vec::new(), false);
    for line in text.split([',', '\n']).map(str::trim).filter(|line| !line.is_empty()) {
        match entry(line) {
            Ok(entry) => entries.push(entry),
            Err(Fault::Name) => named = true,
            Err(Fault::Form) => return Err(Fault::Form),
        }
    }
    if named {
        return Err(Fault::Name);
    }
    entries.sort_unstable();
    let count = |wanted| entries.iter().filter(|(tag, ..)| *tag == wanted).count();
    let has_mask = count(16) == 1 || (count(16) == 0 && count(2) + count(8) == 0);
    let is_distinct = entries.windows(2).all(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1));
    if [1, 4, 32].map(count) != [1; 3] || !has_mask || !is_distinct {
        return Err(Fault::Form);
    }
    let bytes = |(tag, number, bits): (u16, u32, u16)| {
        [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &number.to_le_bytes()].concat()
    };
    Ok(2u32.to_le_bytes().into_iter().chain(entries.into_iter().flat_map(bytes)).collect())
}

/// One entry: tag, number, permissions.
fn entry(line: &str) -> Result<(u16, u32, u16), Fault> {
    // star writes the number of a name behind all else.
    let (word, who, letters, number) = match line.split(':').collect::<Vec<_>>()[..] {
        [word @ ("mask" | "other"), letters] => (word, "", letters, ""),
        [word, who, letters] => (word, who, letters, who),
        [word, who, letters, number] if !who.is_empty() => (word, who, letters, number),
        _ => return Err(Fault::Form),
    };
    let is_known = |(known, numbered, _): &&(&str, bool, u16)| *known == word && *numbered != who.is_empty();
    let (.., tag) = TAGS.iter().find(is_known).ok_or(Fault::Form)?;
    let mut bits = 0;
    for (found, (letter, bit)) in letters.chars().zip([('r', 4), ('w', 2), ('x', 1)]) {
        match found {
            '-' => {}
            _ if found == letter => bits |= bit,
            _ => return Err(Fault::Form),
        }
    }
    if letters.len() != 3 {
        return Err(Fault::Form);
    }
    match number {
        "" => Ok((*tag, NOBODY, bits)),
        _ => Ok((*tag, number.parse().ok().filter(|id| *id != NOBODY).ok_or(Fault::Name)?, bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::{Fault, text, value};

    #[test]
    fn there_and_back() {
        for list in [
            "user::rwx,group::r-x,other::---",
            "user::rw-,user:7:r--,group::r--,group:9:-w-,mask::rw-,other::r--",
        ] {
            assert_eq!(text(&value(list.as_bytes()).unwrap()).as_deref(), Some(list));
        }
    }

    #[test]
    fn what_is_no_list() {
        for bad in ["", "user::rwx", "user::rwx,group::r-x,other::--", "user::rwx,group::r-x,other:5:---"] {
            assert_eq!(value(bad.as_bytes()), Err(Fault::Form), "{bad}");
        }
        let named = "user::rwx,user:bob:r--,group::r-x,mask::rwx,other::---";
        assert_eq!(value(named.as_bytes()), Err(Fault::Name));
        assert_eq!(text(b"\x02\0\0\0\x01"), None);
    }
}
