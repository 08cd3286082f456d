//! The same script with a service and without.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, character, dir, file, symlink as link, tar, whiteout};

use super::{answers, on, serve, utf8};
use crate::command::{Output, run};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// A command of the script, and what it reads. `ARCHIVE` and `OUT` stand for files.
type Line<'a> = (&'static str, &'a [u8]);

/// Runs the same script with a service and without, and compares all that can be seen.
pub(super) fn alike(place: &Place) -> Result<()> {
    let base: Vec<Member> = vec![
        dir("d/"),
        file("d/f", "f"),
        file("d/g", vec![7; 200_000]).mode(0o4755).owner(1000, 1000).mtime(-5),
        file(&b"d/\xff\n\\"[..], "odd"),
        link("d/l", "f"),
        file("gone", "x"),
    ];
    let top = tar(&[whiteout("gone"), file("d/f", "other"), file("new", "new")]);
    let (base, device) = (tar(&base), tar(&[character("null", 1, 3)]));
    let hostile = tar(&[file("fine", "x"), file(&b"../up\xff"[..], "x")]);
    let many = tar(&[file("1", "1"), file("2", "2"), file("3", "3")]);
    fs::write(place.join("base.tar"), &base)?;
    let (archive, out) = (place.join("base.tar"), place.join("out.tar"));
    let (archive, out) = (utf8(&archive)?, utf8(&out)?);
    let script: Vec<Line<'_>> = vec![
        ("-v create base", b""),
        ("create base", b""),
        ("create child --parent base", b""),
        ("create x --parent nobody", b""),
        ("create ../x", b""),
        ("--json create ../x", b""),
        ("apply-diff base /nowhere", b""),
        ("apply-diff base /", b""),
        ("apply-diff nobody", &base),
        ("apply-diff base", &base[..base.len() / 2]),
        ("apply-diff base", &hostile),
        ("--json apply-diff base", &hostile),
        ("apply-diff base --max-entries 2", &many),
        ("apply-diff base --max-bytes 2", &many),
        ("apply-diff base --max-memory 64K", &many),
        ("apply-diff base --devices refuse", &device),
        ("apply-diff base --parent child", &many),
        ("apply-diff base ARCHIVE --no-sync", b""),
        ("apply-diff base", &base),
        ("--json apply-diff child --parent base", &top),
        ("create device", b""),
        ("apply-diff device --devices allow", &device),
        ("diff base", b""),
        ("plant a socket", b""),
        ("diff base", b""),
        ("--json diff base -o OUT", b""),
        ("diff child -o OUT", b""),
        ("diff child --parent device", b""),
        ("diff nobody", b""),
        ("diff child -o /nowhere/out", b""),
        ("changes base", b""),
        ("--json changes base", b""),
        ("changes child", b""),
        ("changes child --parent device", b""),
        ("changes nobody", b""),
        ("diff-size base", b""),
        ("--json diff-size child", b""),
        ("diff-size child --parent nobody", b""),
        ("get base", b""),
        ("get child", b""),
        ("--json get child", b""),
        ("get nobody", b""),
        ("list", b""),
        ("list --tree", b""),
        ("--json list", b""),
        ("status", b""),
        ("--json status", b""),
        ("metadata child", b""),
        ("--json metadata child", b""),
        ("--json metadata nobody", b""),
        ("apply-diff child", &top),
        ("remove base", b""),
        ("remove child", b""),
        ("put child", b""),
        ("check", b""),
        ("-v cleanup", b""),
        ("put child", b""),
        ("put nobody", b""),
        ("exists child", b""),
        ("exists nobody", b""),
        ("--json exists nobody", b""),
        ("exists ../x", b""),
        ("list --backend aufs", b""),
        ("-v remove child base nobody", b""),
        ("check", b""),
        ("plant a stray", b""),
        ("check", b""),
        ("--json check --repair", b""),
        ("check", b""),
    ];
    let mut told = Vec::new();
    for with_service in [false, true] {
        let directory = place.make(if with_service { "there" } else { "here" })?;
        let store = Store::new(directory.join("s"), Dialect::Overlay);
        store.create("first", None)?;
        let service = if with_service { Some(serve(place, &store)?) } else { None };
        let mut lines = Vec::new();
        for (line, input) in &script {
            match *line {
                // A socket cannot be in an archive, which is told.
                "plant a socket" => {
                    drop(UnixListener::bind(store.content("base").join("socket"))?);
                    // The archive tells when the layer was changed.
                    fs::File::open(store.content("base"))?.set_modified(UNIX_EPOCH)?;
                }
                "plant a stray" => fs::create_dir(store.root().join("diff/stray"))?,
                line => {
                    let words = line.split(' ').map(|word| match word {
                        "ARCHIVE" => archive,
                        "OUT" => out,
                        word => word,
                    });
                    let output = run(on(&store).args(words), input)?;
                    let mut all = seen(&output, &directory);
                    if line.contains("OUT") {
                        all.extend(fs::read(out)?);
                        fs::remove_file(out)?;
                    }
                    lines.push((line, all));
                }
            }
        }
        if let Some(service) = &service {
            answers(service, &store)?;
        }
        told.push(lines);
    }
    for ((words, here), (_, there)) in told[0].iter().zip(&told[1]) {
        ensure!(
            here == there,
            "{words}: without a service\n{}\nand with one\n{}",
            String::from_utf8_lossy(&here[..here.len().min(2000)]),
            String::from_utf8_lossy(&there[..there.len().min(2000)])
        );
    }
    Ok(())
}

/// All that can be seen of a command, but for the directory that it works in.
fn seen(output: &Output, directory: &Path) -> Vec<u8> {
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.replace(&directory.display().to_string(), "DIRECTORY").into_bytes(),
        Err(_) => bytes.to_vec(),
    };
    let mut all = format!("exit status {}\nstderr: ", output.code).into_bytes();
    all.extend(text(output.stderr.as_bytes()));
    all.extend(b"stdout: ");
    all.extend(text(&output.stdout));
    all
}
