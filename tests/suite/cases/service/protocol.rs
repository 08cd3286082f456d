//! What each call answers.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{dir, file};
use layerbox_tests::tree::names;
use serde_json::{Value, json};

use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::service::Service;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service: every call answers as dockerd expects", every_call),
        case("service: bad requests are errors in the form of each call", bad_requests),
        case("service: a request that comes again without its body has no effect", empty_bodies),
        case("service: no call takes an empty id for anything", empty_ids),
        case("service: options that there are not are refused by name", options),
        case("service: the archive of an empty layer is 1024 zeros", empty_layer),
        case("service: ids in all of Docker's forms", ids),
    ]
}

fn every_call(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let activated = service.connect()?.call("POST", "/Plugin.Activate", b"")?;
    ensure!(activated.json()? == json!({ "Implements": ["GraphDriver"] }), "{activated:?}");
    ensure!(activated.kind == "application/vnd.docker.plugins.v1.2+json", "{}", activated.kind);
    service.init()?;
    let home = service.path("home");
    let at = |path: &str| Value::from(home.join(path).display().to_string());

    let rows = [
        ("Capabilities", json!({}), json!({ "Capabilities": { "ReproducesExactDiffs": false } })),
        ("Create", json!({ "ID": "base", "Parent": "", "MountLabel": "", "StorageOpt": null }), json!({})),
        ("Exists", json!({ "ID": "base" }), json!({ "Exists": true })),
        ("Exists", json!({ "ID": "other" }), json!({ "Exists": false })),
        ("Get", json!({ "ID": "base", "MountLabel": "" }), json!({ "Dir": at("diff/base") })),
        ("Put", json!({ "ID": "base" }), json!({})),
    ];
    for (name, body, answer) in rows {
        let said = service.ok(name, &body)?;
        ensure!(said == answer, "{name} {body}: {said}");
    }
    let applied = service.apply(
        "base",
        &layerbox_tests::archive::tar(&[
            dir("etc"),
            file("etc/a", "12345"),
            file("etc/b", "x"),
            file("c", "y"),
        ]),
    )?;
    ensure!(applied.json()? == json!({ "Size": 7 }), "{applied:?}");

    service.ok("CreateReadWrite", &json!({ "ID": "top", "Parent": "base", "StorageOpt": {} }))?;
    let merged = home.join("mnt/top");
    let said = service.ok("Get", &json!({ "ID": "top" }))?;
    ensure!(said == json!({ "Dir": merged }), "Get: {said}");
    std::fs::write(merged.join("etc/a"), "1234567890")?;
    std::fs::write(merged.join("new"), "n")?;
    std::fs::remove_file(merged.join("c"))?;
    let rows = [
        (
            "Changes",
            json!({ "ID": "top", "Parent": "base" }),
            json!({ "Changes": [
                { "Path": "/c", "Kind": 2 }, { "Path": "/etc", "Kind": 0 }, { "Path": "/etc/a", "Kind": 0 },
                { "Path": "/new", "Kind": 1 }
            ] }),
        ),
        ("DiffSize", json!({ "ID": "top", "Parent": "base" }), json!({ "Size": 11 })),
        ("GetMetadata", json!({ "ID": "base" }), json!({ "Metadata": { "UpperDir": at("diff/base") } })),
        (
            "GetMetadata",
            json!({ "ID": "top" }),
            json!({ "Metadata": {
                "UpperDir": at("diff/top"), "LowerDir": at("diff/base"),
                "MergedDir": at("mnt/top"), "WorkDir": at("work/top")
            } }),
        ),
        ("GetMetadata", json!({ "ID": "other" }), json!({ "Metadata": {} })),
    ];
    for (name, body, answer) in rows {
        let said = service.ok(name, &body)?;
        ensure!(said == answer, "{name} {body}: {said}");
    }
    let status = service.ok("Status", &json!({}))?;
    let keys: Vec<&str> =
        status["Status"].as_array().context("rows")?.iter().filter_map(|row| row[0].as_str()).collect();
    let docker = ["Root Dir", "Backing Filesystem", "Dirs", "Dirperm1 Supported"];
    ensure!(keys[..4] == docker, "{keys:?}");

    let diff = service.raw("Diff", json!({ "ID": "top", "Parent": "base" }).to_string().as_bytes())?;
    ensure!(diff.status == 200 && diff.whole && diff.body.len() % 512 == 0, "{diff:?}");
    let text = String::from_utf8_lossy(&diff.body).into_owned();
    ensure!(text.contains(".wh.c") && text.contains("1234567890"), "the archive lacks something");

    // An engine that was killed has layers got that it does not know of; it must be able to remove them.
    service.ok("Create", &json!({ "ID": "forgotten", "Parent": "base" }))?;
    service.ok("Get", &json!({ "ID": "forgotten" }))?;
    service.ok("Remove", &json!({ "ID": "forgotten" }))?;
    ensure!(!home.join("mnt/forgotten").exists(), "Remove while mounted leaves the mount point");
    ensure!(service.fails("Remove", &json!({ "ID": "base" }))?.contains("children"), "Remove of a parent");
    // The surplus put is one more than there were gets.
    for _ in 0..2 {
        service.ok("Put", &json!({ "ID": "top" }))?;
    }
    service.ok("Get", &json!({ "ID": "top" }))?;
    ensure!(merged.join("new").exists(), "a surplus put spoilt the next get");
    service.ok("Cleanup", &json!({}))?;
    ensure!(!merged.join("new").exists(), "Cleanup left a mount");
    // A layer that is gone is what Remove is asked for.
    for id in ["top", "top", "base"] {
        service.ok("Remove", &json!({ "ID": id }))?;
    }
    ensure!(names(&home.join("diff"))?.is_empty(), "something is left");
    Ok(())
}

fn bad_requests(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    // Path, body, status, a part of the text.
    let rows: [(&str, Vec<u8>, u16, &str); 12] = [
        ("/GraphDriver.Destroy", b"{}".to_vec(), 404, "no such call"),
        ("/GraphDriver.Get", b"{".to_vec(), 400, "body"),
        ("/GraphDriver.Get", b"[]".to_vec(), 400, "body"),
        ("/GraphDriver.Get", br#"{"ID":7}"#.to_vec(), 400, "body"),
        ("/GraphDriver.Get", vec![b' '; (1 << 20) + 1], 400, "longer"),
        ("/GraphDriver.Get", br#"{"ID":"none"}"#.to_vec(), 200, "no such layer"),
        ("/GraphDriver.Get", br#"{"ID":"../../etc"}"#.to_vec(), 200, "invalid layer id"),
        ("/GraphDriver.Create", br#"{"ID":"a","Parent":"none"}"#.to_vec(), 200, "no such parent"),
        ("/GraphDriver.Init", br#"{"Home":"relative"}"#.to_vec(), 200, "absolute"),
        ("/GraphDriver.Diff", br#"{"ID":"none"}"#.to_vec(), 500, "no such layer"),
        ("/GraphDriver.ApplyDiff?id=none", b"x".to_vec(), 500, "no such layer"),
        ("/GraphDriver.ApplyDiff?id=a%2Fb", b"x".to_vec(), 500, "invalid layer id"),
    ];
    for (path, body, status, part) in rows {
        let answer = service.connect()?.call("POST", path, &body)?;
        let text = answer.error(status).with_context(|| path.to_owned())?;
        ensure!(text.contains(part), "{path}: {text}");
    }
    let answer = service.connect()?.call("GET", "/GraphDriver.Status", b"")?;
    ensure!(answer.status == 405 && answer.allow == "POST", "GET");
    // What others wrote stays a value of one line in the log.
    service.fails("Get", &json!({ "ID": "x\nlevel=info \u{1b}[2J" }))?;
    let log = service.log()?;
    ensure!(log.contains(r#"layer="x\x0alevel=info \x1b[2J""#), "{log}");
    Ok(())
}

fn empty_bodies(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("a", "", &[file("f", "x")])?;
    let before = tree(&service.path("home"))?;
    for name in [
        "Init",
        "Create",
        "CreateReadWrite",
        "Remove",
        "Get",
        "Put",
        "Changes",
        "DiffSize",
        "Cleanup",
        "Diff",
    ] {
        service.raw(name, b"")?.error(400).with_context(|| name.to_owned())?;
    }
    // Without a body there is no archive: the layer must not count as filled by nothing.
    service.ok("Create", &json!({ "ID": "b" }))?;
    service.connect()?.call("POST", "/GraphDriver.ApplyDiff?id=b", b"")?.error(400)?;
    service.ok("Remove", &json!({ "ID": "b" }))?;
    for name in ["Status", "Capabilities"] {
        ensure!(service.raw(name, b"")?.status == 200, "{name}");
    }
    ensure!(tree(&service.path("home"))? == before, "the store has changed");
    Ok(())
}

fn empty_ids(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("a", "", &[file("f", "x")])?;
    let before = tree(&service.path("home"))?;
    for body in [json!({}), json!({ "ID": "" }), json!({ "ID": null }), json!({ "ID": "." })] {
        for name in ["Create", "CreateReadWrite", "Remove", "Get", "Put", "Exists", "Changes", "DiffSize"] {
            let text = service.fails(name, &body)?;
            ensure!(text.contains("invalid layer id"), "{name}: {text}");
        }
        service.raw("Diff", body.to_string().as_bytes())?.error(500)?;
    }
    service.apply("", &layerbox_tests::archive::tar(&[]))?.error(500)?;
    ensure!(tree(&service.path("home"))? == before, "the store has changed");
    Ok(())
}

fn options(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let init = |options: Value| json!({ "Home": service.path("home"), "Opts": options });
    let text = service.fails("Init", &init(json!(["layerbox.devices=refuse", "overlay2.size=1G"])))?;
    ensure!(text.contains("overlay2.size=1G"), "{text}");
    ensure!(!service.path("home").exists(), "a refused Init made a store");
    service.ok("Init", &init(json!(["layerbox.devices=refuse", "layerbox.sync=no"])))?;
    let text = service.fails("Create", &json!({ "ID": "a", "StorageOpt": { "size": "10G" } }))?;
    ensure!(text.contains("size"), "{text}");
    let status = service.ok("Status", &json!({}))?.to_string();
    ensure!(
        status.contains(r#"["Device Nodes","refused"]"#) && status.contains(r#"["Sync","no"]"#),
        "{status}"
    );
    service.ok("Create", &json!({ "ID": "a" }))?;
    let null = layerbox_tests::archive::character("null", 1, 3);
    let text = service.apply("a", &layerbox_tests::archive::tar(&[null]))?.error(500)?;
    ensure!(text.contains("null"), "{text}");
    service.is_empty_and_reusable("a")
}

fn empty_layer(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.layer("base", "", &[file("f", "x")])?;
    service.ok("Create", &json!({ "ID": "empty", "Parent": "base" }))?;
    for body in [json!({ "ID": "empty", "Parent": "base" }), json!({ "ID": "empty" })] {
        let diff = service.raw("Diff", body.to_string().as_bytes())?;
        ensure!(diff.status == 200 && diff.body == [0; 1024], "{} bytes", diff.body.len());
    }
    Ok(())
}

fn ids(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let long = "0123456789abcdef".repeat(4);
    for id in [long.clone(), format!("{long}-init"), "x1l9fky7c6qj5q8z0w2v4t3ab".to_owned()] {
        service.ok("Create", &json!({ "ID": id }))?;
        let answer = service.apply(&id, &layerbox_tests::archive::tar(&[file("f", "x")]))?;
        ensure!(answer.status == 200, "{id}: {answer:?}");
        service.ok("Remove", &json!({ "ID": id }))?;
    }
    Ok(())
}

/// The names in the directories of a store.
fn tree(home: &Path) -> Result<Vec<(String, Vec<String>)>> {
    ["layers", "diff", "mnt", "work", "meta", "children", "pending", "stage", "trash", "diff/a"]
        .into_iter()
        .map(|directory| {
            let found = names(&home.join(directory))?;
            Ok((directory.to_owned(), found))
        })
        .collect()
}
