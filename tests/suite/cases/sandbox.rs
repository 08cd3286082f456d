//! What a component may ask for.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use anyhow::{Result, bail, ensure};
use layerbox_tests::archive::{file, tar};

use crate::command::{repository, run};
use crate::harness::{Case, Skip, case, strict};
use crate::scratch::Place;
use crate::store::{Dialect, Store, bare};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("sandbox: the component imports no network, and no file system but WASI's own", imports),
        case("sandbox: a component that imports wasi:sockets is refused, with a list", sockets_inspected),
        case("sandbox: a store does not run a component that imports wasi:sockets", sockets_run),
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
            let sockets = component(place, "sockets.wasm")?;
            let wit = run(bare().args(["guest", "inspect", "--wit"]).arg(sockets), b"")?.expect(0)?.text();
            ensure!(wit.contains("import wasi:sockets/network@"), "{wit}");
            Ok(())
        }),
        case("sandbox: nothing of the environment reaches the component", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let mut command = store.command(["-v", "apply-diff", "base"]);
            // What would change the behaviour of a program that heeded it.
            command.env("RUST_BACKTRACE", "full").env("TZ", "Nowhere/None").env("LANG", "xx");
            run(&mut command, &tar(&[file("a", "b")]))?.expect(0)?;
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

/// A component that `make` or `make guests` builds, in a place that is trusted wherever the repository lies.
pub(super) fn component(place: &Place, name: &str) -> Result<PathBuf> {
    let built = repository().join("target/component").join(name);
    if !built.exists() {
        let text = format!("target/component/{name} is not there: make guests");
        if strict() {
            bail!(text);
        }
        return Err(Skip(text).into());
    }
    let path = place.join(name);
    fs::write(&path, fs::read(built)?)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

fn sockets_inspected(place: &Place) -> Result<()> {
    let sockets = component(place, "sockets.wasm")?;
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
    command.arg("--guest").arg(component(place, "sockets.wasm")?);
    run(&mut command, b"")?.expect(5)?.says("wasi:sockets")?.says("another world")?;
    store.run(["exists", "base"])?.expect(3)?;
    Ok(())
}
