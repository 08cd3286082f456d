//! Owners: ids inside a user namespace, which archives hold, and ids outside of it, which file systems hold
//! (`user_namespaces(7)`).

use crate::host::{Error, IdMaps, IdRange, Result};

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
        let to = |ranges: &[IdRange], id| map(ranges, id, |range| (range.inside, range.outside));
        self.both(uid, gid, to)
    }

    /// Owner and group in an archive for those on disk.
    ///
    /// # Errors
    /// What is not mapped, in words.
    pub fn inside(&self, uid: u32, gid: u32) -> std::result::Result<(u32, u32), String> {
        let to = |ranges: &[IdRange], id| map(ranges, id, |range| (range.outside, range.inside));
        self.both(uid, gid, to)
    }

    /// The owner on disk of what no archive speaks of: root, where the maps have one.
    pub fn root(&self) -> (u32, u32) {
        self.outside(0, 0).unwrap_or_default()
    }

    fn both(
        &self,
        uid: u32,
        gid: u32,
        to: impl Fn(&[IdRange], u32) -> Option<u32>,
    ) -> std::result::Result<(u32, u32), String> {
        let uid = to(&self.maps.uids, uid).ok_or_else(|| format!("uid {uid} is not in the id map"))?;
        let gid = to(&self.maps.gids, gid).ok_or_else(|| format!("gid {gid} is not in the id map"))?;
        Ok((uid, gid))
    }
}

fn map(ranges: &[IdRange], id: u32, direction: impl Fn(&IdRange) -> (u32, u32)) -> Option<u32> {
    if ranges.is_empty() {
        return Some(id);
    }
    ranges.iter().find_map(|range| {
        let (from, to) = direction(range);
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
