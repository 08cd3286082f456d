//! WASI's file system: the pre-opened `/layers`, and every way out of it that its interface has words for.

use crate::bindings::wasi::filesystem::preopens;
use crate::bindings::wasi::filesystem::types::{
    Descriptor, DescriptorFlags, NewTimestamp, OpenFlags, PathFlags,
};
use crate::hands::Hands;

/// The most descriptors that are kept.
const KEPT: usize = 24;

/// What is held of the file system.
pub(crate) struct Files {
    open: Vec<Descriptor>,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { open: preopens::get_directories().into_iter().map(|(directory, _)| directory).collect() }
    }
}

/// A path: up and out, through a link that was made, to another layer's record.
fn path(hands: &mut Hands) -> String {
    const PATHS: [&str; 22] = [
        ".",
        "..",
        "../victim/hello",
        "../../victim/hello",
        "../meta/foreign",
        "../diff/foreign/hello",
        "../layerbox.json",
        "/etc/passwd",
        "up",
        "up/victim/hello",
        "up/diff/foreign/hello",
        "abs",
        "abs/etc/passwd",
        "foreign",
        "held",
        "sub",
        "sub/../..",
        "new",
        "sub/up/victim",
        "",
        ".foreign.tmp",
        ".held.tmp",
    ];
    match hands.random.below(12) {
        0 => String::from_utf8_lossy(&hands.random.name()).into_owned(),
        1 => hands.own.clone(),
        _ => hands.random.choose(&PATHS).to_owned(),
    }
}

fn target(hands: &mut Hands) -> String {
    hands
        .random
        .choose(&[
            "..",
            "../..",
            "/",
            "../victim",
            "/etc",
            "up",
            "../diff/foreign",
            "../meta/parent",
            "../layerbox.json",
            "held",
        ])
        .to_owned()
}

/// One call.
pub(crate) fn call(hands: &mut Hands) {
    let at = hands.random.below(hands.files.open.len());
    let other = hands.random.below(hands.files.open.len());
    let (path, second, target) = (path(hands), path(hands), target(hands));
    let follow = if hands.random.one_in(2) { PathFlags::SYMLINK_FOLLOW } else { PathFlags::empty() };
    let choice = hands.random.below(18);
    let offset = hands.random.number();
    let time = NewTimestamp::Now;
    if at >= hands.files.open.len() {
        return;
    }
    if choice == 17 && hands.files.open.len() > KEPT {
        // The first is the directory that was lent, from which all else begins.
        hands.files.open.drain(1..KEPT / 2);
        return;
    }
    let bits = hands.random.next();
    let flags = DescriptorFlags::from_bits_retain((bits as u8) & 0x3f);
    let how = OpenFlags::from_bits_retain((bits >> 8) as u8 & 0x0f);
    let files = std::mem::take(&mut hands.files.open);
    let (it, there) = (&files[at], &files[other]);
    let mut opened = None;
    match choice {
        0..=3 => opened = it.open_at(follow, &path, how, flags).ok(),
        4 => drop(it.symlink_at(&target, &path)),
        5 => drop(it.link_at(follow, &path, there, &second)),
        6 => drop(it.rename_at(&path, there, &second)),
        7 => drop(it.unlink_file_at(&path)),
        8 => drop(it.create_directory_at(&path)),
        9 => drop(it.remove_directory_at(&path)),
        10 => {
            if let Ok(link) = it.readlink_at(&path) {
                hands.look(link.as_bytes());
            }
        }
        11 => drop(it.set_times_at(follow, &path, time, time)),
        12 => {
            // No file as long as a number can say: it is the layer of the store's own directory that would be
            // filled.
            let _ = it.set_size(offset % 100_000);
        }
        13 => {
            if let Ok((bytes, _)) = it.read(offset % 10_000 + 100, if bits & 1 == 0 { 0 } else { offset }) {
                hands.look(&bytes);
            }
        }
        14 => drop(it.write(b"parent\n", offset % 100_000)),
        15 => drop(it.stat_at(follow, &path)),
        16 => {
            if let Ok(entries) = it.read_directory() {
                while let Ok(Some(entry)) = entries.read_directory_entry() {
                    hands.looked(1);
                    hands.look(entry.name.as_bytes());
                }
            }
        }
        _ => drop(it.metadata_hash_at(follow, &path)),
    }
    hands.files.open = files;
    if let Some(opened) = opened {
        // Nothing is read that could be long: a device or a FIFO would show by hanging the call.
        hands.files.open.push(opened);
    }
    if hands.files.open.len() > 2 * KEPT {
        hands.files.open.truncate(KEPT);
    }
}
