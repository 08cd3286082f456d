//! One layer, many archives: everything that an archive may say in another way, and mean the same.

use super::Layer;
use super::layer::is_below;
use crate::random::Random;
use crate::tar::{Archive, Entry, Kind, OPAQUE, WHITEOUT, gzip, join, records, split, zstd};

/// An archive that makes this layer, in a form that the seed decides: the order of the entries, directories
/// that are not spoken of, entries that later ones replace, whiteouts in front of or behind what they do not
/// hide, global headers, packing.
pub fn disguised(layer: &Layer, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed ^ 0xd15c_0151);
    let mut entries = layer.entries();
    if random.one_in(2) {
        entries.retain(|entry| !is_understood(entry, layer));
    }
    if random.one_in(2) {
        random.shuffle(&mut entries);
        links_behind_their_targets(&mut entries);
    }
    if random.one_in(3) {
        decoys(&mut entries, &mut random);
    }
    if random.one_in(3) {
        opaque_by_deletion(&mut entries, &mut random);
    }
    let mut archive = Archive::new();
    if random.one_in(4) {
        archive = archive.extension(b'g', &records(&[(b"comment", b"nothing")]));
    }
    let bytes = entries.iter().fold(archive, Archive::entry).end();
    match random.below(6) {
        0 => gzip(&bytes),
        1 => zstd(&bytes),
        _ => bytes,
    }
}

/// Whether a directory becomes the same without its entry, because something in it needs it.
fn is_understood(entry: &Entry, layer: &Layer) -> bool {
    let bare = Entry { mtime: crate::tar::Time::default(), ..Entry::directory(&entry.name) };
    !entry.name.is_empty() && *entry == bare && layer.names().any(|(name, _)| is_below(name, &entry.name))
}

/// Puts each hard link behind what it links to, which must be there before.
fn links_behind_their_targets(entries: &mut Vec<Entry>) {
    let (links, others): (Vec<Entry>, Vec<Entry>) =
        entries.drain(..).partition(|entry| matches!(entry.kind, Kind::HardLink(_)));
    entries.extend(others);
    entries.extend(links);
}

/// Puts entries in front that later ones of the same name replace.
fn decoys(entries: &mut Vec<Entry>, random: &mut Random) {
    let plain = |entry: &&Entry| entry.kind != Kind::Directory && !split(&entry.name).1.starts_with(WHITEOUT);
    let Some(name) =
        random.choose(&entries.iter().filter(plain).collect::<Vec<_>>()).map(|entry| entry.name.clone())
    else {
        return;
    };
    let mut decoy = vec![Entry::file(&name, b"to be replaced")];
    if random.one_in(2) {
        decoy = vec![Entry::directory(&name).mode(0o700), Entry::file(join(&name, b"child"), b"to go")];
    }
    decoy.append(entries);
    *entries = decoy;
}

/// Says of an opaque directory that it was deleted, and is there: the same (rule 7).
fn opaque_by_deletion(entries: &mut [Entry], random: &mut Random) {
    let marks: Vec<usize> = (0..entries.len())
        .filter(|&at| {
            let (directory, last) = split(&entries[at].name);
            last == OPAQUE && entries.iter().any(|entry| entry.name == directory && !directory.is_empty())
        })
        .collect();
    if let Some(&at) = random.choose(&marks) {
        entries[at] = Entry::whiteout(split(&entries[at].name).0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sequence;
    use crate::tar::read;

    #[test]
    fn the_form_does_not_change_the_meaning() {
        for seed in 0..2000 {
            for layer in Sequence::random(seed).layers() {
                let archive = disguised(&layer, seed);
                // What is packed, and global headers, the strict reader does not take.
                if let Ok(entries) = read(&archive) {
                    Layer::of(&entries)
                        .unwrap()
                        .same_as(&layer)
                        .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
                }
            }
        }
    }
}
