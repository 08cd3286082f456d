//! The limits that are no rows of the table, because they are about time and memory: each a typed error that
//! names the bound, with the layer empty after it and fit for the next archive. Entries, bytes, expansion,
//! extension headers, attributes and depth are rows.

use std::io::Write as _;
use std::process::ChildStdin;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use layerbox_tests::archive::{file, member, tar};

use crate::command::{run_with, shell};
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// What is sent: everything that the limit is about.
type Feed = fn(&Place, ChildStdin) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let rows: [(&str, &[&str], &str, Feed); 5] = [
        (
            "an archive of which no more comes",
            &["--max-stall-time", "1s"],
            "time without a byte of the archive (1 s)",
            stalls,
        ),
        (
            "an archive of which nothing comes",
            &["--max-stall-time", "1s"],
            "time without a byte of the archive (1 s)",
            |_, stdin| wait(stdin),
        ),
        ("an archive that comes slowly", &["--max-total-time", "1s"], "time of one archive (1 s)", drips),
        ("memory", &["--max-memory", "8M"], "memory (8388608 bytes)", wants_memory),
        ("computing", &["--max-time", "1s"], "time of the component (1 s)", computes),
    ];
    let case = |(what, options, says, feed): (&'static str, &'static [&'static str], &'static str, Feed)| {
        case(format!("hostile, limits: {what}"), move |place| limit(place, options, says, feed))
            .needs(Need::Tool("gzip"))
            .needs(Need::Tool("zstd"))
    };
    rows.into_iter().map(case).collect()
}

fn limit(place: &Place, options: &[&str], says: &str, feed: Feed) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("target", None)?;
    let mut command = store.command([&["apply-diff", "target"], options].concat());
    let started = Instant::now();
    // What cannot be sent any more is what the limit is for.
    let output = run_with(&mut command, |stdin| drop(feed(place, stdin)))?;
    output.expect(6)?.says(says)?;
    ensure!(started.elapsed() < Duration::from_secs(60), "it took {:?}", started.elapsed());
    store.is_empty_and_reusable("target")
}

/// Holds the pipe open until the other side has had enough.
fn wait(mut stdin: ChildStdin) -> Result<()> {
    std::thread::sleep(Duration::from_secs(3));
    Ok(stdin.write_all(b"late")?)
}

fn stalls(_: &Place, mut stdin: ChildStdin) -> Result<()> {
    stdin.write_all(&tar(&[file("a", vec![1; 100_000])])[..70_000])?;
    wait(stdin)
}

fn drips(_: &Place, mut stdin: ChildStdin) -> Result<()> {
    stdin.write_all(&member("a", b'0').size(1 << 30).header())?;
    loop {
        stdin.write_all(&[1; 64])?;
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wants_memory(place: &Place, mut stdin: ChildStdin) -> Result<()> {
    let packed = place.join("packed");
    shell("head -c 60M /dev/urandom | zstd -q --long=26 -c > \"$1\"", [packed.as_path()])?;
    Ok(stdin.write_all(&std::fs::read(packed)?)?)
}

fn computes(place: &Place, mut stdin: ChildStdin) -> Result<()> {
    let (plain, packed) = (place.join("plain"), place.join("packed"));
    std::fs::write(&plain, tar(&[file("a", "x")]))?;
    shell("gzip -1 < \"$1\" > \"$2\"", [plain.as_path(), packed.as_path()])?;
    stdin.write_all(&std::fs::read(&packed)?)?;
    // Six gigabytes in all, of which gzip makes only one part: packing them takes it longer than any
    // unpacking.
    shell("head -c 64M /dev/zero | gzip -1 > \"$1\"", [packed.as_path()])?;
    let zeros = std::fs::read(packed)?;
    for _ in 0..96 {
        stdin.write_all(&zeros)?;
    }
    Ok(())
}
