//! The owners in archives and those on disk.

use crate::bindings::layerbox::driver::types::IdRange;

/// The owner in an archive for one on disk; the one on disk again where no range covers it. No ranges at all change nothing.
pub(crate) fn inside(ranges: &[IdRange], outside: u32) -> Result<u32, u32> {
    map(ranges, outside, |range| (range.outside, range.inside))
}

/// The owner on disk for one in an archive, likewise.
pub(crate) fn outside(ranges: &[IdRange], inside: u32) -> Result<u32, u32> {
    map(ranges, inside, |range| (range.inside, range.outside))
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
