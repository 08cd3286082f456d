//! Names: as the contract has them (no `/` at either end, the root is empty), as archives spell them, and the
//! marks of deletion that archives and aufs hide in them.

use crate::error::{Result, limit, refused};

/// What the names of marks begin with.
pub(crate) const MARK: &[u8] = b".wh.";
/// What the names of aufs' bookkeeping begin with.
pub(crate) const BOOKKEEPING: &[u8] = b".wh..wh.";
/// The file that makes the directory it lies in opaque.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// The file in a layer's root that aufs' marks are hard links of.
pub(crate) const AUFS: &[u8] = b".wh..wh.aufs";

/// What a name in an archive stands for.
#[derive(Debug, PartialEq)]
pub(crate) enum Place {
    /// An entry of this name; empty: the root.
    Entry(Vec<u8>),
    /// The deletion of this name.
    Whiteout(Vec<u8>),
    /// The mark that makes this directory opaque.
    Opaque(Vec<u8>),
    /// What aufs keeps for itself in the root of a branch. It is dropped.
    Bookkeeping,
}

/// Tells what a name in an archive stands for.
pub(crate) fn place(raw: &[u8]) -> Result<Place> {
    let name = clean(raw)?;
    let first = name.split(|&byte| byte == b'/').next().unwrap_or_default();
    if first.starts_with(BOOKKEEPING) && first != OPAQUE {
        return Ok(Place::Bookkeeping);
    }
    let (directory, last) = split(&name);
    if directory.split(|&byte| byte == b'/').any(|component| component.starts_with(MARK)) {
        return Err(refused(raw, "`.wh.` may begin the last component only"));
    }
    if last == OPAQUE {
        return Ok(Place::Opaque(directory.to_vec()));
    }
    let Some(hidden) = last.strip_prefix(MARK) else { return Ok(Place::Entry(name)) };
    if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(MARK) {
        return Err(refused(raw, "a whiteout of no name"));
    }
    Ok(Place::Whiteout(join(directory, hidden)))
}

/// Takes away what says nothing (a `/` at the beginning, `.`, empty components), and refuses what could lead
/// out or cannot be a name.
pub(crate) fn clean(raw: &[u8]) -> Result<Vec<u8>> {
    if raw.is_empty() {
        return Err(refused(raw, "an empty name"));
    }
    if raw.contains(&0) {
        return Err(refused(raw, "NUL in a name"));
    }
    let mut components = Vec::new();
    for component in raw.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(refused(raw, "`..` in a name")),
            long if long.len() > 255 => return Err(refused(raw, "a component of more than 255 bytes")),
            _ => components.push(component),
        }
    }
    if components.len() > 4096 {
        return Err(limit(raw, "components of a name", 4096));
    }
    Ok(components.join(&b'/'))
}

/// The directory that a name is in, and the last component.
pub(crate) fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&[], name),
    }
}

/// A name in a directory.
pub(crate) fn join(directory: &[u8], last: &[u8]) -> Vec<u8> {
    if directory.is_empty() { last.to_vec() } else { [directory, b"/", last].concat() }
}

/// The mark of the deletion of a name.
pub(crate) fn whiteout(name: &[u8]) -> Vec<u8> {
    let (directory, last) = split(name);
    join(directory, &[MARK, last].concat())
}

/// Whether there is such a mark.
pub(crate) fn can_be_deleted(name: &[u8]) -> bool {
    let last = split(name).1;
    last.len() + MARK.len() <= 255 && !last.starts_with(MARK)
}

/// What sorts names as archives have them: a directory, all that is in it, then its next sibling. A `/` must
/// then sort before all other bytes, and NUL is free, because no name holds it.
pub(crate) fn key(name: &[u8]) -> Vec<u8> {
    name.iter().map(|&byte| if byte == b'/' { 0 } else { byte }).collect()
}

/// The name that a [`key`] was made of.
pub(crate) fn of_key(key: &[u8]) -> Vec<u8> {
    key.iter().map(|&byte| if byte == 0 { b'/' } else { byte }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_archives_stand_for() {
        let entry = |name: &str| Some(Place::Entry(name.into()));
        for (raw, want) in [
            ("a", entry("a")),
            ("./a/./b//c", entry("a/b/c")),
            ("/etc/", entry("etc")),
            ("./", entry("")),
            ("/", entry("")),
            ("", None),
            ("..", None),
            ("a/../b", None),
            ("a\0", None),
            (".wh", entry(".wh")),
            ("d/.wh.a", Some(Place::Whiteout("d/a".into()))),
            (".wh.a", Some(Place::Whiteout("a".into()))),
            (".wh..wh..opq", Some(Place::Opaque("".into()))),
            ("d/.wh..wh..opq", Some(Place::Opaque("d".into()))),
            (".wh..wh.plnk/1.2", Some(Place::Bookkeeping)),
            ("d/.wh..wh.aufs", None),
            (".wh.", None),
            (".wh..", None),
            (".wh...", None),
            (".wh.a/b", None),
            (".wh..wh..opq/b", None),
        ] {
            assert_eq!(place(raw.as_bytes()).ok(), want, "{raw:?}");
        }
        assert!(clean(&[b'n'; 255]).is_ok() && clean(&[b'n'; 256]).is_err());
        assert!(clean("a/".repeat(4096).as_bytes()).is_ok() && clean("a/".repeat(4097).as_bytes()).is_err());
    }

    #[test]
    fn keys_sort_directories_with_their_content() {
        let mut names = ["a-b", "a/z", "a", "", "a.b", "a/b/c"].map(str::as_bytes);
        names.sort_by_key(|name| key(name));
        assert_eq!(names, ["", "a", "a/b/c", "a/z", "a-b", "a.b"].map(str::as_bytes));
        assert!(names.iter().all(|name| of_key(&key(name)) == *name));
    }
}
