//! Archives that are about the stream and not about what it says: it never ends, or is a bomb of gigabytes.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use layerbox_tests::archive::{file, member, tar};

use crate::command::shell;
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub(super) fn cases() -> Vec<Case> {
    let bombs = [
        ("gzip", "head -c 3G /dev/zero | gzip -9 > \"$1\""),
        ("gzip", "head -c 200M /dev/zero | gzip -9 | gzip -9 > \"$1\""),
        ("zstd", "head -c 3G /dev/zero | zstd -q -c > \"$1\""),
    ];
    let mut cases: Vec<Case> = bombs
        .into_iter()
        .enumerate()
        .map(|(number, (program, script))| {
            case(format!("hostile, resources: {program} bomb {}", number + 1), move |place| {
                let bomb = place.join("bomb");
                shell(script, [bomb.as_path()])?;
                harmless(place, &fs::read(bomb)?)
            })
            .needs(Need::Tool(program))
        })
        .collect();
    cases.push(case("hostile, resources: a bomb in a body stops at the set bound", |place| {
        let plain = place.join("plain.tar");
        let mut archive = fs::File::create(&plain)?;
        archive.write_all(&member("zeros", b'0').size(2 << 30).header())?;
        archive.set_len(512 + (2 << 30) + 1024)?;
        shell("gzip -1 < \"$1\" > \"$2\"", [plain.as_path(), &place.join("bomb")])?;
        fs::remove_file(&plain)?;
        let store = Store::new(place.join("s"), Dialect::Overlay);
        store.create("target", None)?;
        let mut command = store.command(["apply-diff", "target", "--max-bytes", "1G"]);
        crate::command::run(&mut command, &fs::read(place.join("bomb"))?)?.expect(6)?;
        store.is_empty_and_reusable("target")
    }));
    cases.push(case("hostile, resources: a body that never ends stops at the set bound", |place| {
        let store = Store::new(place.join("s"), Dialect::Overlay);
        store.create("target", None)?;
        let mut command = store.command(["apply-diff", "target", "--max-bytes", "100M"]);
        let output = crate::command::run_with(&mut command, |mut stdin| {
            let _ = stdin.write_all(&member("a", b'0').size(1 << 33).header());
            while stdin.write_all(&[1; 1 << 16]).is_ok() {}
        })?;
        output.expect(6)?;
        store.is_empty_and_reusable("target")
    }));
    cases.push(case("hostile, resources: zeros for ever after the end of the archive", |place| {
        let store = Store::new(place.join("s"), Dialect::Overlay);
        store.create("target", None)?;
        let started = Instant::now();
        let output = store.apply_with("target", |mut stdin| {
            let _ = stdin.write_all(&tar(&[file("a", "x")]));
            // A client that has more to say than it has to do: the end is read, and costs no memory.
            while started.elapsed() < Duration::from_secs(2) && stdin.write_all(&[0; 1 << 16]).is_ok() {}
        })?;
        ensure!(matches!(output.code, 0 | 6), "{output}");
        Ok(())
    }));
    cases
}

fn harmless(place: &Place, archive: &[u8]) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("target", None)?;
    let output = store.apply("target", archive)?;
    // Zeros are the end of an archive, and what follows it is read and ignored; or a bound is reached; or it
    // is no archive.
    match output.code {
        0 => ensure!(
            layerbox_tests::tree::names(&store.content("target"))?.is_empty(),
            "something was made of nothing"
        ),
        5 | 6 => store.is_empty_and_reusable("target")?,
        _ => anyhow::bail!("{output}"),
    }
    Ok(())
}
