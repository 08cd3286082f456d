//! Sparse files of GNU tar: the type `S`, and versions 0.0, 0.1 and 1.0 of the pax form. The map says which
//! parts of the file are in the archive.

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

use crate::error::{Result, limit, refused};
use crate::member::{Archive, field};
use crate::pax;

/// The largest map: as large as the largest extended header.
const MAP: usize = 1 << 20;

/// A file with holes.
pub(crate) struct Sparse {
    /// Its size.
    pub(crate) size: u64,
    /// Where its parts are, and how long they are; what is between them is hole.
    pub(crate) parts: Vec<(u64, u64)>,
    /// What the archive calls it, where the header says something else.
    pub(crate) name: Option<Vec<u8>>,
}

/// Reads the map of a member of type `S`: in the header, and in the blocks after it.
pub(crate) fn old(archive: &mut Archive, header: &GnuHeader) -> Result<Sparse> {
    let mut parts = Vec::new();
    let mut add = |maps: &[GnuSparseHeader]| -> Result<usize> {
        for map in maps.iter().filter(|map| map.offset[0] != 0) {
            parts.push((field(&map.offset)?, field(&map.numbytes)?));
        }
        Ok(parts.len())
    };
    add(&header.sparse)?;
    let mut more = header.isextended[0] != 0;
    while more {
        let mut block = GnuExtSparseHeader::new();
        block.as_mut_bytes().copy_from_slice(&archive.exactly(512)?);
        if add(&block.sparse)? > MAP / 24 {
            return Err(limit(b"", "bytes of a map of a sparse file", MAP as u64));
        }
        more = block.isextended[0] != 0;
    }
    Ok(Sparse { size: field(&header.realsize)?, parts, name: None })
}

/// Reads the map that the records of an extended header tell, or for version 1.0 the beginning of the body.
pub(crate) fn pax(archive: &mut Archive, records: &[(Vec<u8>, Vec<u8>)]) -> Result<Sparse> {
    let get = |key: &str| {
        records.iter().find(|(found, _)| found == key.as_bytes()).map(|(_, value)| value.as_slice())
    };
    let name = get("name").map(|name| pax::text(b"GNU.sparse.name", name)).transpose()?;
    let size = get("realsize").or(get("size")).ok_or_else(|| refused(b"", "a sparse file without a size"))?;
    let size = pax::number(b"GNU.sparse.size", size)?;
    let numbers = match (get("major"), get("minor"), get("map")) {
        (Some(b"1"), Some(b"0"), None) => body(archive)?,
        (None, None, Some(map)) => split(map, b',')?,
        (None, None, None) => {
            let row: Vec<_> =
                records.iter().filter(|(key, _)| matches!(key.as_slice(), b"offset" | b"numbytes")).collect();
            // Strictly in turn, or readers would pair them differently.
            if row.iter().enumerate().any(|(index, (key, _))| (key == b"offset") != (index % 2 == 0)) {
                return Err(refused(b"", "a map of a sparse file out of order"));
            }
            row.iter().map(|(key, value)| pax::number(key, value)).collect::<Result<_>>()?
        }
        _ => return Err(refused(b"", "a sparse file of an unknown version")),
    };
    if numbers.len() % 2 != 0 {
        return Err(refused(b"", "half a part in the map of a sparse file"));
    }
    let parts: Vec<_> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    if let Some(count) = get("numblocks")
        && pax::number(b"GNU.sparse.numblocks", count)? != parts.len() as u64
    {
        return Err(refused(b"", "a map of a sparse file of another length than it says"));
    }
    Ok(Sparse { size, parts, name })
}

/// Version 1.0: the number of parts, then the parts, a number a line, up to the end of a block.
fn body(archive: &mut Archive) -> Result<Vec<u64>> {
    let (mut text, mut lines, mut wanted) = (Vec::new(), 0, None);
    while wanted.is_none_or(|wanted| lines < wanted) {
        if text.len() >= MAP {
            return Err(limit(b"", "bytes of a map of a sparse file", MAP as u64));
        }
        let block = archive.body(512)?;
        if block.len() < 512 {
            return Err(refused(b"", "a map of a sparse file that does not end"));
        }
        lines += block.iter().filter(|&&byte| byte == b'\n').count() as u64;
        text.extend_from_slice(&block);
        if wanted.is_none()
            && let Some(end) = text.iter().position(|&byte| byte == b'\n')
        {
            let count = pax::number(b"the count of a sparse map", &text[..end])?;
            wanted = Some(count.saturating_mul(2).saturating_add(1));
        }
    }
    let numbers = text.split(|&byte| byte == b'\n').take(wanted.unwrap_or(0) as usize).skip(1);
    numbers.map(|line| pax::number(b"a sparse map", line)).collect()
}

fn split(text: &[u8], by: u8) -> Result<Vec<u64>> {
    text.split(|&byte| byte == by).map(|number| pax::number(b"a sparse map", number)).collect()
}

impl Sparse {
    /// Refuses a map that goes backwards or past the file, or that is not as long as what the archive holds.
    /// GNU tar has each part begin a block, and the others do not, so all but the last must be whole blocks.
    pub(crate) fn check(&self, packed: u64) -> Result<()> {
        let (mut end, mut sum) = (0u64, 0u64);
        for &(offset, length) in &self.parts {
            let next = offset.checked_add(length).filter(|&next| offset >= end && next <= self.size);
            end = next
                .ok_or_else(|| refused(b"", "a map of a sparse file that goes backwards or past its end"))?;
            if length > 0 && sum % 512 != 0 {
                return Err(refused(b"", "a map of a sparse file with parts that share a block"));
            }
            sum += length;
        }
        if sum == packed {
            Ok(())
        } else {
            Err(refused(b"", "a map of a sparse file that does not fit its body"))
        }
    }
}
