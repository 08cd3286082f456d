//! Archives that are small to send and large to unpack.

use std::fs;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Tar, dir, file, member};

use super::{Row, exact, limit, refused, tar};
use crate::command::shell;
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub(super) fn rows() -> Vec<Row> {
    let empty_files: Vec<_> = (0..2000).map(|number| file(format!("f{number}"), "")).collect();
    // The sparse form 1.0 of GNU tar (its manual, "Storing Sparse Files"): a map in front of the data.
    let sparse = |size: u64, map: &str, data: &[u8]| {
        let mut body = map.as_bytes().to_vec();
        body.resize(512, 0);
        body.extend_from_slice(data);
        file("GNUSparseFile.0/a", body)
            .pax("GNU.sparse.major", "1")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.name", "a")
            .pax("GNU.sparse.realsize", size.to_string())
    };
    vec![
        limit(
            "a body larger than the set bound",
            tar(&[file("a", vec![0; 2 << 20])]),
            &["--max-bytes", "1M"],
        ),
        limit("more entries than the set bound", tar(&empty_files), &["--max-entries", "1000"]),
        exact("as many entries as the set bound", tar(&empty_files[..1]), &["f0 file of 0"]),
        limit(
            "a sparse file larger than the set bound",
            tar(&[sparse(10 << 40, "1\n0\n1\n", b"x")]),
            &["--max-bytes", "1G"],
        ),
        refused("a sparse map that overlaps", tar(&[sparse(100, "2\n0\n10\n5\n10\n", &[1; 20])])),
        refused("a sparse map beyond the file's size", tar(&[sparse(100, "1\n90\n20\n", &[1; 20])])),
        refused("a sparse map that wraps round", tar(&[sparse(100, "1\n18446744073709551615\n2\n", b"xy")])),
        refused("a sparse map with more entries than it has", tar(&[sparse(100, "9\n0\n1\n", b"x")])),
        refused(
            "a sparse map that says more data than there is",
            tar(&[sparse(1 << 20, "1\n0\n1000\n", b"x")]),
        ),
        exact(
            "a sparse file is read as what it is",
            tar(&[sparse(5000, "1\n4999\n1\n", b"x")]),
            &["a file of 5000"],
        ),
        limit(
            "a size that no disk has, and no body",
            Tar::new().raw(&member("a", b'0').size(1 << 62).header()).bytes(),
            &[],
        ),
        exact(
            "a thousand directories deep and wide",
            tar(&(0..3).map(|number| dir(format!("d{number}/e/"))).collect::<Vec<_>>()),
            &[
                "d0 directory",
                "d0/e directory",
                "d1 directory",
                "d1/e directory",
                "d2 directory",
                "d2/e directory",
            ],
        ),
    ]
}

/// Cases that are about the stream and not about what it says.
pub(super) fn streams() -> Vec<Case> {
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
        archive.write_all(&member("zeros", b'0').size(8 << 30).header())?;
        archive.set_len(512 + (8 << 30) + 1024)?;
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
            // A client that has more to say than it has to do: the end is read, as rule 10 says, and costs no memory.
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
    // Zeros are the end of an archive, and what follows it is read and ignored; or a bound is reached; or it is no archive.
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
