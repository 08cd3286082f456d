//! The order of an archive that `diff` writes.

use std::collections::BTreeSet;

use super::{Entry, OPAQUE, WHITEOUT, split};
use crate::escape;

/// Checks that an archive is sorted, and says each name once: depth first, the entries of a directory by the
/// bytes of their names, a whiteout in the place of the name that it hides, the opaque mark right behind its
/// directory.
///
/// # Errors
/// The first entry that is out of order.
pub fn check_order(entries: &[Entry]) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    let mut last: Option<Vec<&[u8]>> = None;
    for entry in entries {
        if !seen.insert(&entry.name) {
            return Err(format!("{} is there twice", escape::name(&entry.name)));
        }
        let place = place(&entry.name);
        if last.as_ref().is_some_and(|last| *last > place) {
            return Err(format!(
                "{} comes too late: the order is by the bytes of names",
                escape::name(&entry.name)
            ));
        }
        last = Some(place);
    }
    Ok(())
}

/// Where a name belongs: lists of components compare depth first. An empty component, which no name has,
/// comes before all others.
fn place(name: &[u8]) -> Vec<&[u8]> {
    if name.is_empty() {
        return Vec::new();
    }
    let (directory, last) = split(name);
    let mut place: Vec<&[u8]> = match directory {
        b"" => Vec::new(),
        directory => directory.split(|&byte| byte == b'/').collect(),
    };
    place.push(if last == OPAQUE { b"" } else { last.strip_prefix(WHITEOUT).unwrap_or(last) });
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let cases: [(&[&str], bool); 7] = [
            (&["a", "a/b", "a.b"], true),
            (&["a", "a.b", "a/b"], false),
            (&["", "a", "a/.wh..wh..opq", "a/!"], true),
            (&["a", "a/!", "a/.wh..wh..opq"], false),
            (&["a", ".wh.b", "c"], true),
            (&[".wh.b", "a", "c"], false),
            (&["a", "a"], false),
        ];
        for (names, expected) in cases {
            let entries: Vec<Entry> = names.iter().map(|name| Entry::file(name, "")).collect();
            assert_eq!(check_order(&entries).is_ok(), expected, "{names:?}");
        }
    }
}
