//! What a component may ask for.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::command::{Output, component, run};
use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store, bare};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("sandbox: the component imports no network, and no file system but WASI's own", imports),
        case("sandbox: a component that imports wasi:sockets is refused, with a list", sockets_inspected),
        case("sandbox: a store does not run a component that imports wasi:sockets", sockets_run),
        case("sandbox: a component written in C is one, and asks for files only", c_inspected),
        case("sandbox: a component written in C answers calls", c_run),
        case("sandbox: the smallest component answers the call that it has", minimal_run),
        case("sandbox: what is no component at all is refused", |place| {
            let path = place.join("no.wasm");
            for bytes in [&b""[..], b"text", b"\0asm\x01\0\0\0", b"\0asm\x0d\0\x01\0\x07"] {
                std::fs::write(&path, bytes)?;
                run(bare().args(["guest", "inspect"]).arg(&path), b"")?.expect(5)?;
            }
            Ok(())
        }),
        case("sandbox: the WIT of the component names its interfaces, from its own types", |place| {
            let wit = run(bare().args(["guest", "inspect", "--wit"]), b"")?.expect(0)?.text();
            for line in ["export layerbox:driver/differ@0.1.0;", "resource writer {", "apply-diff: func("] {
                ensure!(wit.contains(line), "{line} is not in it:\n{wit}");
            }
            let sockets = component(place, "sockets")?;
            let wit = run(bare().args(["guest", "inspect", "--wit"]).arg(sockets), b"")?.expect(0)?.text();
            ensure!(wit.contains("import wasi:sockets/network@"), "{wit}");
            Ok(())
        }),
    ]
}

fn imports(_: &Place) -> Result<()> {
    let text = run(bare().args(["guest", "inspect"]), b"")?.expect(0)?.text();
    for needed in [
        "layerbox:driver/tree@0.1.0",
        "layerbox:driver/writer@0.1.0",
        "layerbox:driver/lifecycle@0.1.0",
        "layerbox:driver/differ@0.1.0",
    ] {
        ensure!(text.contains(needed), "{needed} is not in the list:\n{text}");
    }
    for forbidden in ["wasi:sockets", "wasi:http", "wasi:keyvalue", "wasi:nn", "wasi:config"] {
        ensure!(!text.contains(forbidden), "{forbidden} is in the list:\n{text}");
    }
    let known =
        ["layerbox:driver/", "wasi:io/", "wasi:cli/", "wasi:clocks/", "wasi:filesystem/", "wasi:random/"];
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| line.contains('/') && line.contains('@') && !line.starts_with("World"))
    {
        ensure!(known.iter().any(|prefix| line.starts_with(prefix)), "an import from elsewhere: {line}");
    }
    Ok(())
}

fn sockets_inspected(place: &Place) -> Result<()> {
    let sockets = component(place, "sockets")?;
    let output = run(bare().args(["guest", "inspect"]).arg(sockets), b"")?.expect(5)?;
    let all = output.text() + &output.stderr;
    for interface in ["wasi:sockets/network", "wasi:sockets/instance-network"] {
        ensure!(all.contains(interface), "{interface} is not named:\n{all}");
    }
    Ok(())
}

fn sockets_run(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let mut command = store.command(["create", "base"]);
    command.arg("--guest").arg(component(place, "sockets")?);
    run(&mut command, b"")?.expect(5)?.says("wasi:sockets")?.says("another world")?;
    store.run(["exists", "base"])?.expect(3)?;
    Ok(())
}

fn c_inspected(place: &Place) -> Result<()> {
    let text = run(bare().args(["guest", "inspect"]).arg(component(place, "c")?), b"")?.expect(0)?.text();
    for needed in
        ["wasi:filesystem/preopens@0.2", "layerbox:driver/lifecycle@0.1.0", "layerbox:driver/differ@0.1.0"]
    {
        ensure!(text.contains(needed), "{needed} is not in the list:\n{text}");
    }
    for forbidden in
        ["Refused Imports", "Missing Exports", "layerbox:driver/writer", "layerbox:driver/mounts"]
    {
        ensure!(!text.contains(forbidden), "{forbidden} is in the list:\n{text}");
    }
    Ok(())
}

/// A store with a layer and its child, for another component.
struct Foreign {
    store: Store,
    guest: PathBuf,
}

impl Foreign {
    fn new(place: &Place, guest: &str) -> Result<Foreign> {
        let guest = component(place, guest)?;
        let store = Store::new(place.join("s"), Dialect::Overlay);
        store.create("base", None)?;
        store.create("child", Some("base"))?;
        Ok(Foreign { store, guest })
    }

    /// Calls the other component.
    fn call(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.store.command(arguments.iter().copied());
        command.arg("--guest").arg(&self.guest);
        run(&mut command, b"")
    }
}

fn c_run(place: &Place) -> Result<()> {
    let foreign = Foreign::new(place, "c")?;
    foreign.call(&["exists", "base"])?.expect(0)?;
    foreign.call(&["exists", "bas"])?.expect(3)?;
    for question in [["list", "--json"].as_slice(), &["metadata", "child", "--json"]] {
        let theirs = foreign.call(question)?.expect(0)?.text();
        let ours = foreign.store.ok(question.iter().copied())?;
        ensure!(theirs == ours, "{question:?}: {theirs}\nand of the shipped component: {ours}");
    }
    let status = foreign.call(&["status"])?.expect(0)?.text();
    ensure!(status.contains("Dirs: 2"), "{status}");
    foreign.call(&["metadata", "bas"])?.expect(3)?;
    foreign.call(&["changes", "child"])?.expect(1)?.says("compares nothing")?;
    std::fs::write(foreign.store.root().join("layers/broken"), "base")?;
    foreign.call(&["metadata", "broken"])?.says("layers/broken is cut off in a line")?;
    Ok(())
}

fn minimal_run(place: &Place) -> Result<()> {
    let foreign = Foreign::new(place, "minimal")?;
    foreign.call(&["exists", "base"])?.expect(0)?;
    foreign.call(&["exists", "bas"])?.expect(3)?;
    foreign.call(&["list"])?.expect(1)?.says("list")?;
    Ok(())
}
