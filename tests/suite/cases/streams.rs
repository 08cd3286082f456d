//! Archives larger than memory should ever be asked for.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::{Tar, file};
use sha2::{Digest as _, Sha256};

use crate::command::{code, run_with};
use crate::harness::{Case, case};
use crate::measure::{measured, peak};
use crate::plant::Noise;
use crate::scratch::Place;
use crate::store::{Dialect, Store};

const SIZE: u64 = 4 << 30;
const LIMIT: u64 = 64 << 20;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "streams: a layer of 4 GiB through stdin and stdout in less than 64 MiB of memory",
            four_gigabytes,
        )
        .alone(),
    ]
}

fn four_gigabytes(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;

    let report = place.join("apply");
    let mut written = Sha256::new();
    let output = run_with(&mut measured(&store.command(["apply-diff", "base"]), &report)?, |mut stdin| {
        // Two files: one that is most of it, and one after it, whose place is found only by reading right to
        // the end.
        let _ = archive(|bytes| {
            written.update(bytes);
            stdin.write_all(bytes)
        });
    })?;
    let output = output.expect(0)?;
    ensure!(output.text().trim() == (SIZE + 5).to_string(), "apply-diff printed {}", output.text());
    let taken = peak(&report)?;
    println!("         apply-diff of 4 GiB: peak memory {} MiB", taken >> 20);
    ensure!(taken < LIMIT, "apply-diff took {} MiB", taken >> 20);

    let report = place.join("diff");
    let mut command: Command = measured(&store.command(["diff", "base"]), &report)?;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("no pipe")?;
    let mut read = Sha256::new();
    let length = std::io::copy(&mut stdout, &mut read)?;
    let status = code(child.wait()?);
    if status != 0 {
        bail!("diff: exit status {status}");
    }
    let taken = peak(&report)?;
    println!("         diff of 4 GiB: peak memory {} MiB", taken >> 20);
    ensure!(taken < LIMIT, "diff took {} MiB", taken >> 20);
    ensure!(
        written.finalize() == read.finalize(),
        "the {length} bytes of the diff are not those of the archive"
    );
    Ok(())
}

/// The archive in the very form that `diff` gives: names in order, no owner names, two blocks of zeros at the
/// end.
fn archive(mut write: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    let large = file("large", "").size(SIZE);
    write(&large.header())?;
    let mut noise = Noise::new(4);
    let mut buffer = vec![0; 1 << 20];
    for _ in 0..SIZE >> 20 {
        noise.fill(&mut buffer);
        write(&buffer)?;
    }
    write(&Tar::new().add(&file("small", "small")).finish())
}
