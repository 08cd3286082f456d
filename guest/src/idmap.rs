//! Owners: ids inside a user namespace, which archives hold, and ids outside of it, which file systems hold
//! (`user_namespaces(7)`). There are some in extended attributes as well (`xattrs`).

mod xattrs;

use crate::host::{Error, IdMaps, IdRange, Result};

/// Which way ids are mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    /// From an archive to the disk.
    Outside,
    /// From the disk to an archive.
    Inside,
}

/// Both directions of both maps, checked.
#[derive(Clone, Debug)]
pub struct Owners {
    maps: IdMaps,
}

impl Owners {
    /// Checks the maps.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a range that is empty or does not fit, and for ranges that overlap.
    pub fn new(maps: IdMaps) -> Result<Self> {
        check(&maps.uids)?;
        check(&maps.gids)?;
        Ok(Self { maps })
    }

    /// Owner and group on disk for those in an archive.
    ///
    /// # Errors
    /// What is not mapped, in words.
    pub fn outside(&self, uid: u32, gid: u32) -> std::result::Result<(u32, u32), String> {
        Ok((self.uid(uid, Direction::Outside)?, self.gid(gid, Direction::Outside)?))
    }

    /// Owner and group in an archive for those on disk.
    ///
    /// # Errors
    /// What is not mapped, in words.
    pub fn inside(&self, uid: u32, gid: u32) -> std::result::Result<(u32, u32), String> {
        Ok((self.uid(uid, Direction::Inside)?, self.gid(gid, Direction::Inside)?))
    }

    /// The value on disk of an extended attribute in an archive: access control lists and capabilities with
    /// the ids on disk.
    ///
    /// # Errors
    /// What is not mapped, in words.
    pub fn xattr_outside(&self, name: &[u8], value: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
        xattrs::map(self, Direction::Outside, name, value)
    }

    /// The value in an archive of an extended attribute on disk, likewise.
    ///
    /// # Errors
    /// What is not mapped, in words.
    pub fn xattr_inside(&self, name: &[u8], value: Vec<u8>) -> std::result::Result<Vec<u8>, String> {
        xattrs::map(self, Direction::Inside, name, value)
    }

    /// The owner on disk of what no archive speaks of: root, where the maps have one.
    pub fn root(&self) -> (u32, u32) {
        self.outside(0, 0).unwrap_or_default()
    }

    fn uid(&self, uid: u32, direction: Direction) -> std::result::Result<u32, String> {
        map(&self.maps.uids, uid, direction).ok_or_else(|| format!("uid {uid} is not in the id map"))
    }

    fn gid(&self, gid: u32, direction: Direction) -> std::result::Result<u32, String> {
        map(&self.maps.gids, gid, direction).ok_or_else(|| format!("gid {gid} is not in the id map"))
    }
}

fn map(ranges: &[IdRange], id: u32, direction: Direction) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    ranges.iter().find_map(|range| {
        let (from, to) = match direction {
            Direction::Outside => (range.inside, range.outside),
            Direction::Inside => (range.outside, range.inside),
        };
        // `check` saw to it that the sum fits.
        id.checked_sub(from).filter(|offset| *offset < range.length).map(|offset| to + offset)
    })
}

fn check(ranges: &[IdRange]) -> Result<()> {
    let invalid = |how: &str| Err(Error::InvalidArgument(format!("id map: {how}")));
    // 4,294,967,295 is not an id.
    let fits = |start: u32, length: u32| start.checked_add(length).is_some();
    if ranges.iter().any(|range| range.length == 0) {
        return invalid("a range is empty");
    }
    if !ranges.iter().all(|range| fits(range.inside, range.length) && fits(range.outside, range.length)) {
        return invalid("a range goes past the last id");
    }
    let overlap = |side: fn(&IdRange) -> u32| {
        let mut runs: Vec<_> = ranges.iter().map(|range| (side(range), side(range) + range.length)).collect();
        runs.sort_unstable();
        runs.windows(2).any(|pair| pair[0].1 > pair[1].0)
    };
    if overlap(|range| range.inside) || overlap(|range| range.outside) {
        return invalid("ranges overlap");
    }
    Ok(())
}
