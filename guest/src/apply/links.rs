//! Where a directory's name leads, over the symbolic links that the archive has put by then.
//!
//! Deletions are written down when all else is in the layer, and by then a link that they were named over may
//! be gone or lead elsewhere. So they are kept by the names that no link is in. What keeps a way from leading
//! anywhere is said as the host says it of any other entry.

use super::batch::Batch;
use crate::host::{Kind, Name, Result, Writer};
use crate::whiteout::{join, split};

/// The size of the set of bits. It holds a hundred thousand links with hardly a name that is taken for one
/// wrongly.
const BITS: usize = 1 << 22;

/// The most links that are followed for one name, as the kernel does.
const MAX_LINKS: usize = 40;

/// The longest component of a name that can be looked up, in bytes.
const MAX_COMPONENT: usize = 255;

/// The most components of a name that can be looked up.
const MAX_COMPONENTS: usize = 4096;

/// Why a way leads nowhere: over a link to what is missing.
const DANGLES: &str = "the way to it leads over a symbolic link that leads nowhere";

/// Over more links than [`MAX_LINKS`].
const CIRCLES: &str = "the way to it leads over a loop of symbolic links";

/// Over a file, say.
pub(super) const IS_NO_DIRECTORY: &str = "the way to it leads over something that is not a directory";

/// Where a way leads, or why it leads nowhere.
pub(super) type Way = std::result::Result<Name, &'static str>;

/// Knows of most names that they are no links, and asks the layer about the others.
///
/// An archive may have millions of links, of which hardly one is ever on the way to another entry. Their
/// names are not kept: two bits of a set say that there may be one (a Bloom filter), which costs nothing but
/// a look where it is wrong.
#[derive(Debug, Default)]
pub(super) struct Links {
    bits: Vec<u64>,
    /// The directory that the layer was asked about last, and where it is.
    latest: Option<(Name, Name)>,
}

impl Links {
    /// Whether a link was put there. The name is one that no link is in.
    pub(super) fn may_be(&self, name: &[u8]) -> bool {
        !self.bits.is_empty() && self.has(hash(name, START))
    }

    /// The name of a directory that no link is in, or why there can be none. The directory may be missing.
    pub(super) fn resolve<W: Writer>(&mut self, directory: &[u8], batch: &mut Batch<'_, W>) -> Result<Way> {
        if !self.may_pass(directory) {
            return Ok(Ok(directory.to_vec()));
        }
        if let Some((_, found)) = self.latest.as_ref().filter(|(asked, _)| asked == directory) {
            return Ok(Ok(found.clone()));
        }
        batch.flush()?;
        let way = follow(batch.writer, directory)?;
        if let Ok(found) = &way {
            self.latest = Some((directory.to_vec(), found.clone()));
        }
        Ok(way)
    }

    /// Takes notice of an entry by a name that no link is in.
    pub(super) fn put(&mut self, name: &[u8], is_link: bool) {
        if is_link {
            self.bits.resize(BITS / 64, 0);
            for bit in bits(hash(name, START)) {
                self.bits[bit / 64] |= 1 << (bit % 64);
            }
        }
        if self.may_be(name) {
            self.latest = None;
        }
    }

    /// Takes notice of an entry that is no link, by the name that the archive has for it.
    pub(super) fn put_as_named(&mut self, name: &[u8]) {
        if self.latest.is_some() && self.may_pass(name) {
            self.latest = None;
        }
    }

    /// Whether a link may be on the way to a name, or there.
    fn may_pass(&self, name: &[u8]) -> bool {
        if self.bits.is_empty() {
            return false;
        }
        let mut so_far = START;
        name.split_inclusive(|&byte| byte == b'/').any(|component| {
            let (last, slash) =
                component.strip_suffix(b"/").map_or((component, &b""[..]), |last| (last, b"/"));
            let here = hash(last, so_far);
            so_far = hash(slash, here);
            self.has(here)
        })
    }

    fn has(&self, hash: u64) -> bool {
        bits(hash).into_iter().all(|bit| self.bits[bit / 64] >> (bit % 64) & 1 == 1)
    }
}

/// The state of the hash before the first byte (FNV-1a).
const START: u64 = 0xcbf2_9ce4_8422_2325;

fn hash(bytes: &[u8], so_far: u64) -> u64 {
    bytes.iter().fold(so_far, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

fn bits(hash: u64) -> [usize; 2] {
    // The low bits of the product alone depend on the low bits of the bytes only.
    let mixed = (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [(mixed >> 40) as usize % BITS, (mixed >> 18) as usize % BITS]
}

/// Follows the links on the way to a directory and there. What is missing behind them is made as any entry's
/// parents are.
fn follow<W: Writer>(writer: &W, directory: &[u8]) -> Result<Way> {
    let components = |path: &[u8], is_target: bool| -> Vec<(Name, bool)> {
        path.rsplit(|&byte| byte == b'/').map(|component| (component.to_vec(), is_target)).collect()
    };
    let mut at = Name::new();
    let mut links = 0;
    // What is still to go, the nearest last, and whether a link says so.
    let mut rest = components(directory, false);
    while let Some((component, is_target)) = rest.pop() {
        match component.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.truncate(split(&at).0.len());
                continue;
            }
            _ => {}
        }
        let next = join(&at, &component);
        let depth = next.iter().filter(|&&byte| byte == b'/').count() + 1 + rest.len();
        if component.len() > MAX_COMPONENT || depth > MAX_COMPONENTS {
            return Ok(Err("the way to it is longer than a name can be"));
        }
        match writer.stat(std::slice::from_ref(&next))?.pop().flatten().map(|node| node.kind) {
            Some(Kind::Directory) => at = next,
            Some(Kind::Symlink(target)) if links < MAX_LINKS => {
                links += 1;
                if target.starts_with(b"/") {
                    at.clear();
                }
                rest.extend(components(&target, true));
            }
            None if !is_target => {
                let missing = rest.drain(..).rev();
                at = missing.fold(next, |at, (component, _)| join(&at, &component));
            }
            None => return Ok(Err(DANGLES)),
            Some(Kind::Symlink(_)) => return Ok(Err(CIRCLES)),
            Some(_) => return Ok(Err(IS_NO_DIRECTORY)),
        }
    }
    Ok(Ok(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_may_lead_over_a_link_are_found_and_hardly_any_other() {
        let mut links = Links::default();
        assert!(!links.may_pass(b"usr/bin"));
        links.put(b"usr/bin", true);
        links.put(b"d", false);
        for name in [&b"usr/bin"[..], b"usr/bin/x", b"usr/bin/x/y"] {
            assert!(links.may_pass(name), "{}", name.escape_ascii());
        }
        for name in [&b""[..], b"usr", b"usr/binx", b"usr/bi", b"bin", b"x/usr/bin", b"d"] {
            assert!(!links.may_pass(name), "{}", name.escape_ascii());
        }
        for number in 0..100_000 {
            links.put(format!("usr/share/{}/link-{number}", number % 97).as_bytes(), true);
        }
        let wrong = (0..10_000).filter(|number| links.may_be(format!("usr/lib/file-{number}").as_bytes()));
        assert!(wrong.count() < 100);
    }
}
