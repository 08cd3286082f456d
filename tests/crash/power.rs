//! The power goes: what layers are like on a disk of which only what was flushed is certain.
//!
//! Operations run on an ext4 whose disk notes every write and every flush ([`recorder`](super::recorder)).
//! Then, for each flush, disks are made as the power going just before it could have left them: with none of
//! what was written since the flush before, with all of it, and with parts of it. Each is mounted, the store
//! is opened, and every operation that had been reported done must be there whole; of the one that was under
//! way, all or nothing.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, dir, file, hard_link, symlink, tar};

use super::recorder::{Event, NAME, Recorder};
use super::world::{World, leftovers, look};
use crate::command::tool;
use crate::harness::{Case, Skip, case};
use crate::scratch::{Place, unmount};
use crate::store::{Dialect, Store, runtime};

/// The size of the disk in bytes: small, because a copy of it is made for each power cut.
const SIZE: usize = 48 << 20;

/// How many disks with parts of the unflushed writes are made for each flush.
const PARTS: u64 = 1;

pub fn cases() -> Vec<Case> {
    vec![case("power: whenever it goes, what was reported done is whole", cut).alone()]
}

/// What is done, a call a row.
fn calls() -> Vec<(&'static [&'static str], Vec<u8>)> {
    let large = |seed: u8| (0..400_000u32).map(move |at| (at.wrapping_mul(2_654_435_761) >> 13) as u8 ^ seed);
    let base = [
        dir("d"),
        file("d/large", large(1).collect::<Vec<u8>>()),
        file("small", "x"),
        hard_link("d/again", "d/large"),
        symlink("to", "d/large"),
    ];
    let many: Vec<Member> =
        (0..300).map(|number| file(format!("f{number}"), vec![number as u8; 700])).collect();
    vec![
        (&["create", "base"], Vec::new()),
        (&["apply-diff", "base"], tar(&base)),
        (&["create", "child", "--parent", "base"], Vec::new()),
        (&["apply-diff", "child"], tar(&many)),
        (&["create", "other"], Vec::new()),
        (&["apply-diff", "other"], tar(&[file("e", large(2).collect::<Vec<u8>>())])),
        (&["remove", "child"], Vec::new()),
        (&["remove", "other"], Vec::new()),
    ]
}

fn cut(place: &Place) -> Result<()> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Skip("there is no /dev/fuse to record a disk with".into()).into());
    }
    let (empty, fuse, on) = (place.join("empty"), place.make("fuse")?, place.make("disk")?);
    fs::File::create(&empty)?.set_len(SIZE as u64)?;
    tool("mkfs.ext4", ["-q".as_ref(), "-F".as_ref(), empty.as_os_str()])?;
    let empty = fs::read(&empty)?;
    let recorder = Recorder::mount(empty.clone(), &fuse)?;
    mount(&fuse.join(NAME), &on)?;
    // The store is made before the first cut: how a store comes to be is another row of `points`.
    let store = Store::new(on.join("s"), Dialect::Overlay);
    store.create("first", None)?;
    store.ok(["remove", "first"])?;
    let mut worlds = vec![look(&store)?];
    recorder.mark();
    for (arguments, input) in calls() {
        let output = crate::command::run(&mut store.command(arguments.iter().copied()), &input)?;
        recorder.mark();
        output.expect(0)?;
        worlds.push(look(&store)?);
    }
    unmount(&on)?;
    let events = recorder.end();
    replay(place, &empty, &events, &worlds)
}

/// Makes all disks, and looks at each.
fn replay(place: &Place, empty: &[u8], events: &[Event], worlds: &[World]) -> Result<()> {
    let (image, on) = (place.join("cut"), place.join("disk"));
    let store = Store::new(on.join("s"), Dialect::Overlay);
    let mut certain = empty.to_vec();
    let mut pending: Vec<(usize, &[u8])> = Vec::new();
    let (mut done, mut cuts, mut lost, mut leaked) = (0, 0, Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Write(offset, bytes) => pending.push((*offset, bytes)),
            Event::Mark => done += 1,
            Event::Flush => {
                // Before the first mark there is no store to lose.
                for choice in 0..if done > 0 && !pending.is_empty() { 2 + PARTS } else { 0 } {
                    let mut disk = certain.clone();
                    for (number, (offset, bytes)) in pending.iter().enumerate() {
                        if keeps(choice, number as u64) {
                            disk[*offset..offset + bytes.len()].copy_from_slice(bytes);
                        }
                    }
                    fs::write(&image, &disk)?;
                    mount(&image, &on)?;
                    // The boot after it begins without locks and counts.
                    if let Some(runtime) = runtime(store.root()) {
                        let _ = fs::remove_dir_all(runtime);
                    }
                    cuts += 1;
                    let what = format!("cut {cuts}, {done} calls done, choice {choice}");
                    // The last mark is that of the call before: that one is whole, and of the next all or
                    // nothing.
                    match look(&store).and_then(|world| Ok((leftovers(&store, &world)?, world))) {
                        Err(error) => lost.push(format!("{what}: {error:#}")),
                        Ok((left, world)) => {
                            if !worlds[done - 1..worlds.len().min(done + 1)].contains(&world) {
                                lost.push(format!("{what}: {world:?}"));
                            }
                            let check = store.run(["check"])?;
                            if !left.is_empty() || check.code != 0 {
                                leaked.push(format!("{what}: {left:?}, {check}"));
                            }
                        }
                    }
                    unmount(&on)?;
                }
                for (offset, bytes) in pending.drain(..) {
                    certain[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
            }
        }
    }
    println!("power cuts: {cuts}, lost: {}, leaked: {}", lost.len(), leaked.len());
    ensure!(done == worlds.len(), "{done} calls of {}", worlds.len());
    ensure!(cuts > 4 * worlds.len(), "only {cuts} power cuts");
    ensure!(lost.is_empty(), "lost: {}", lost.join("\n"));
    ensure!(leaked.is_empty(), "left behind: {}", leaked.join("\n"));
    Ok(())
}

/// Whether a disk keeps a write that was not flushed: none, all, or by the toss of a coin.
fn keeps(choice: u64, number: u64) -> bool {
    match choice {
        0 => false,
        1 => true,
        seed => (number + 1).wrapping_mul(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)) >> 63 == 1,
    }
}

fn mount(disk: &Path, on: &Path) -> Result<()> {
    // Reading changes nothing on the disk.
    tool("mount", ["-o".as_ref(), "loop,noatime".as_ref(), disk.as_os_str(), on.as_os_str()]).map(drop)
}
