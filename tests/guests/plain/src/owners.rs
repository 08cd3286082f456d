//! The owners in archives and those on disk.

use crate::bindings::layerbox::driver::types::{IdMaps, IdRange, Xattr};

/// The owner in an archive for one on disk; the one on disk again where no range covers it. No ranges at all
/// change nothing.
pub(crate) fn inside(ranges: &[IdRange], outside: u32) -> Result<u32, u32> {
    map(ranges, outside, |range| (range.outside, range.inside))
}

/// The owner on disk for one in an archive, likewise.
pub(crate) fn outside(ranges: &[IdRange], inside: u32) -> Result<u32, u32> {
    map(ranges, inside, |range| (range.inside, range.outside))
}

/// Which way numbers go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// From an archive to the disk.
    Outside,
    /// From the disk to an archive.
    Inside,
}

impl Way {
    fn map(self, ranges: &[IdRange], id: u32) -> Result<u32, u32> {
        match self {
            Way::Outside => outside(ranges, id),
            Way::Inside => inside(ranges, id),
        }
    }
}

/// Attributes with the numbers in them mapped. One that no range covers is the error.
pub(crate) fn attributes(maps: &IdMaps, way: Way, xattrs: &[Xattr]) -> Result<Vec<Xattr>, u32> {
    let mapped = |Xattr { name, value }: &Xattr| {
        let value = match name.as_slice() {
            b"system.posix_acl_access" | b"system.posix_acl_default" => list(maps, way, value)?,
            b"security.capability" if !maps.uids.is_empty() => capability(&maps.uids, way, value)?,
            _ => value.clone(),
        };
        Ok(Xattr { name: name.clone(), value })
    };
    xattrs.iter().map(mapped).collect()
}

/// An access control list: a word, then entries of tag, permissions and, of users (2) and groups (8), a
/// number.
fn list(maps: &IdMaps, way: Way, value: &[u8]) -> Result<Vec<u8>, u32> {
    let mut value = value.to_vec();
    if value.len() % 8 != 4 || !value.starts_with(&2u32.to_le_bytes()) {
        return Ok(value);
    }
    for entry in value[4..].chunks_exact_mut(8) {
        let ranges = match entry[..2] {
            [2, 0] => &maps.uids,
            [8, 0] => &maps.gids,
            _ => continue,
        };
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        entry[4..].copy_from_slice(&way.map(ranges, id)?.to_le_bytes());
    }
    Ok(value)
}

/// The capabilities of a file: 20 bytes in version 2; in version 3 four more, which say below whose root they
/// count. In an archive of version 2 that is the root of whoever unpacks it.
fn capability(ranges: &[IdRange], way: Way, value: &[u8]) -> Result<Vec<u8>, u32> {
    let root = match (way, value) {
        (Way::Outside, [_, _, _, 2, ..]) if value.len() == 20 => 0,
        (_, [_, _, _, 3, .., a, b, c, d]) if value.len() == 24 => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => return Ok(value.to_vec()),
    };
    let root = way.map(ranges, root)?;
    let mut mapped = value[..20].to_vec();
    let needs_no_root = root == 0 && (way == Way::Inside || value.len() == 20);
    if needs_no_root {
        mapped[3] = 2;
    } else {
        mapped[3] = 3;
        mapped.extend_from_slice(&root.to_le_bytes());
    }
    Ok(mapped)
}

fn map(ranges: &[IdRange], id: u32, ends: impl Fn(&IdRange) -> (u32, u32)) -> Result<u32, u32> {
    let image = |range: &IdRange| {
        let (from, to) = ends(range);
        let at = id.checked_sub(from).filter(|&at| at < range.length)?;
        to.checked_add(at)
    };
    if ranges.is_empty() { Ok(id) } else { ranges.iter().find_map(image).ok_or(id) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_have_numbers_too() {
        let range = IdRange { inside: 0, outside: 100_000, length: 1000 };
        let maps = IdMaps { uids: vec![range], gids: vec![range] };
        let list = |user: u32, group: u32| {
            [&[2, 0, 0, 0, 2, 0, 7, 0][..], &user.to_le_bytes(), &[8, 0, 5, 0], &group.to_le_bytes()].concat()
        };
        let sets = [0; 16];
        let rootless = [&[1, 0, 0, 2][..], &sets].concat();
        let rooted = |root: u32| [&[1, 0, 0, 3][..], &sets, &root.to_le_bytes()].concat();
        for (name, archive, disk) in [
            ("system.posix_acl_default", list(5, 7), list(100_005, 100_007)),
            ("security.capability", rootless.clone(), rooted(100_000)),
            ("security.capability", rooted(9), rooted(100_009)),
            ("user.a", list(5, 7), list(5, 7)),
        ] {
            let xattrs = |value: Vec<u8>| [Xattr { name: name.into(), value }];
            let value = |found: Result<Vec<Xattr>, u32>| found.map(|mut all| all.remove(0).value);
            assert_eq!(value(attributes(&maps, Way::Outside, &xattrs(archive.clone()))), Ok(disk.clone()));
            assert_eq!(value(attributes(&maps, Way::Inside, &xattrs(disk))), Ok(archive));
        }
        let xattrs = [Xattr { name: b"system.posix_acl_access".to_vec(), value: list(5, 1000) }];
        assert_eq!(attributes(&maps, Way::Outside, &xattrs).map(|_| ()), Err(1000));
        let none = IdMaps { uids: Vec::new(), gids: Vec::new() };
        let xattrs = [Xattr { name: b"security.capability".to_vec(), value: rooted(0) }];
        let found = attributes(&none, Way::Inside, &xattrs).map(|mut all| all.remove(0).value);
        assert_eq!(found, Ok(rooted(0)));
    }

    #[test]
    fn ranges_map_both_ways() {
        let ranges = [(0, 100_000, 1000), (1000, 5, 1)].map(|(inside, outside, length)| IdRange {
            inside,
            outside,
            length,
        });
        for (archive, disk) in [(0, 100_000), (999, 100_999), (1000, 5)] {
            assert_eq!(outside(&ranges, archive), Ok(disk));
            assert_eq!(inside(&ranges, disk), Ok(archive));
        }
        assert_eq!(outside(&ranges, 1001), Err(1001));
        assert_eq!(inside(&ranges, 101_000), Err(101_000));
        assert_eq!(outside(&[], 7), Ok(7));
        assert_eq!(outside(&[IdRange { inside: 0, outside: u32::MAX, length: 2 }], 1), Err(1));
    }
}
