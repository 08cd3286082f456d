//! Where the output goes: to a full disk, to a reader that goes away, to a file.

use std::fs;
use std::io::{ErrorKind, PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};
use layerbox_tests::archive::file;
use layerbox_tests::tree::names;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::command::{run, shell, utf8};
use crate::harness::{Case, Need, case};
use crate::plant::noise;
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("errors: a get whose path cannot be told is given back", untold_get)
            .needs(Need::Filesystem("overlay")),
        case("errors: an output that is full: 1, with the command, and not the store's disk", full_output),
        case("errors: a reader that goes away changes no exit status", closed_output),
        case("errors: diff -o - writes to stdout", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            let here = place.make("here")?;
            let output =
                run(store.command(["diff", "base", "-o", "-"]).current_dir(&here), b"")?.expect(0)?;
            ensure!(output.stdout == store.diff("base")?, "another archive");
            ensure!(names(&here)?.is_empty(), "a file was made: {:?}", names(&here)?);
            Ok(())
        }),
        case("errors: archives go through pipes that do not block", without_blocking),
        case("errors: stdout closed early by its reader is no failure of diff's store", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            noise(&store.content("base").join("n"), 8 << 20)?;
            let script = "\"$1\" --root \"$2\" diff base | head -c 1000 >/dev/null";
            shell(script, [crate::command::binary().as_path(), store.root()])?;
            ensure!(store.diff("base")?.len() > 8 << 20, "the store does not answer any more");
            Ok(())
        }),
    ]
}

/// Slowly, so that each end finds the pipe full or empty.
fn without_blocking(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    noise(&store.content("base").join("n"), 3 << 20)?;
    let archive = store.diff("base")?;
    let pipe = || -> Result<(PipeReader, PipeWriter)> {
        let (reader, writer) = std::io::pipe()?;
        for end in [reader.as_fd(), writer.as_fd()] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok((reader, writer))
    };
    let slowly = || sleep(Duration::from_millis(2));

    let (mut reader, writer) = pipe()?;
    let mut child = store.command(["diff", "base"]).stdout(writer).spawn()?;
    let (mut came, mut piece) = (Vec::new(), [0; 40_000]);
    loop {
        match reader.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => came.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        slowly();
    }
    ensure!(child.wait()?.success() && came == archive, "{} bytes of {}", came.len(), archive.len());

    store.create("copy", None)?;
    let (reader, mut writer) = pipe()?;
    let mut child = store.command(["apply-diff", "copy"]).stdin(reader).stdout(Stdio::null()).spawn()?;
    let mut rest = &archive[..];
    while !rest.is_empty() {
        match writer.write(&rest[..rest.len().min(40_000)]) {
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        slowly();
    }
    drop(writer);
    ensure!(child.wait()?.success() && store.diff("copy")? == archive, "another archive");
    Ok(())
}

fn untold_get(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    store.create("child", Some("base"))?;
    let untold = |says: &str, told: (Option<i32>, String)| -> Result<()> {
        ensure!(told.0 == Some(1) && told.1.contains(says), "{told:?}");
        ensure!(store.references("child")? == 0, "it is still counted");
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        ensure!(!mounts.contains(&*store.root().to_string_lossy()), "it is still mounted");
        Ok(())
    };
    let get = || store.command(["get", "child"]);
    untold(
        "layerbox: get child: write (standard output): No space left on device",
        into(&mut get(), full()?)?,
    )?;
    untold("layerbox: get child: write (standard output): Broken pipe", into(&mut get(), closed()?)?)?;
    // Of two gets only the one that nobody knows of.
    store.get("child")?;
    into(&mut get(), full()?)?;
    ensure!(store.references("child")? == 1, "the other one was given back");
    store.put("child")
}

fn full_output(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("small", "x")])?;
    store.create("large", None)?;
    noise(&store.content("large").join("n"), 8 << 20)?;
    let json = |arguments: &[&str]| -> Result<serde_json::Value> {
        let (code, told) = into(store.command(["--json"]).args(arguments), full()?)?;
        ensure!(code == Some(1), "{arguments:?}: {code:?}, {told}");
        Ok(serde_json::from_str(told.trim())?)
    };
    for (arguments, layer) in [
        (["list"].as_slice(), None),
        (&["status"], None),
        (&["check"], None),
        (&["metadata", "base"], Some("base")),
        (&["changes", "base"], Some("base")),
    ] {
        let object = json(arguments)?;
        let right = object["code"] == "io" && object["layer"].as_str() == layer;
        ensure!(right && object["entry"] == "standard output", "{arguments:?}: {object}");
    }
    for arguments in [["--help"].as_slice(), &["--version"], &["help", "create"], &["create", "--help"]] {
        let object = json(arguments)?;
        ensure!(object["code"] == "io" && object["entry"] == "standard output", "{arguments:?}: {object}");
    }
    for id in ["base", "large"] {
        let object = json(&["diff", id])?;
        let text = object["error"].as_str().unwrap_or_default();
        let right = text.contains("write the archive") && text.contains("No space left on device");
        // The store has room: that layers are removed would help nothing.
        let advice = object["hint"].as_str().unwrap_or_default();
        ensure!(right && object["code"] == "io" && !advice.contains("remove"), "{object}");
    }
    Ok(())
}

fn closed_output(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    fs::create_dir(store.content("stray"))?;
    let (asks, wrong) =
        (crate::command::component(place, "sockets")?, super::wrong::planted(place, "list-backwards")?);
    let (asks, wrong) = (utf8(&asks)?, utf8(&wrong)?);
    for (arguments, status) in [
        (["list"].as_slice(), 0),
        (&["man"], 0),
        (&["--help"], 0),
        (&["check"], 1),
        (&["--json", "check"], 1),
        (&["--json", "exists", "base"], 0),
        (&["--json", "exists", "nobody"], 3),
        (&["guest", "inspect", asks], 5),
        (&["guest", "verify", "--only", "lifecycle/list-", wrong], 1),
        (&["--json", "guest", "verify", "--only", "lifecycle/list-", wrong], 1),
    ] {
        let (code, told) = into(store.command([]).args(arguments), closed()?)?;
        ensure!(code == Some(status), "{arguments:?}: {code:?}, {told}");
        ensure!(!told.contains("Broken pipe"), "{arguments:?}: {told}");
    }
    Ok(())
}

/// Runs a program that writes to this, and gives its exit status and what it says.
fn into(command: &mut Command, out: impl Into<Stdio>) -> Result<(Option<i32>, String)> {
    let output = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// A pipe that nobody reads from.
fn closed() -> Result<std::io::PipeWriter> {
    let (_, writer) = std::io::pipe()?;
    Ok(writer)
}

fn full() -> Result<fs::File> {
    Ok(fs::OpenOptions::new().write(true).open("/dev/full")?)
}
