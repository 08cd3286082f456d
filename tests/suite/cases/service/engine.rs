//! Which store an engine's calls are about, and what it sees.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{file, tar};
use serde_json::{Value, json};

use crate::command::run;
use crate::harness::{Case, Need, case};
use crate::scratch::Place;
use crate::service::Service;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service: two engines on a socket have each its own store", two_engines)
            .needs(Need::Tool("curl")),
        case("service: what is taken from an engine that is gone is told in the log", taken_back)
            .needs(Need::Tool("curl")),
        case("service: a client that no engine went before uses the store of --root", no_engine),
        case("service: an old aufs store in Home is taken over as it lies", old_store),
        case("service: id maps hold for owners, and root of them can pass", id_maps),
        case("service: an engine in another mount namespace is told that it sees nothing", namespaces)
            .needs(Need::Tool("curl"))
            .needs(Need::Tool("unshare")),
    ]
}

/// A call that another process makes.
fn elsewhere(service: &Service, before: &[&str], name: &str, body: &Value) -> Result<Value> {
    let mut words: Vec<String> = before.iter().map(|&word| word.to_owned()).collect();
    words.extend(["curl", "-s", "--unix-socket"].map(str::to_owned));
    words.push(service.path("docker.sock").display().to_string());
    words.extend(["-d".to_owned(), body.to_string(), format!("http://d/GraphDriver.{name}")]);
    let output = run(Command::new(&words[0]).args(&words[1..]), b"")?.expect(0)?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn two_engines(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    service.ok("Create", &json!({ "ID": "mine" }))?;
    let exists = |id: &str| json!({ "ID": id });
    let yes = json!({ "Exists": true });
    ensure!(
        elsewhere(&service, &[], "Exists", &exists("mine"))? == yes,
        "a stranger is not of the last engine"
    );
    let other = json!({ "Home": service.path("other:latest") });
    ensure!(elsewhere(&service, &[], "Init", &other)? == json!({}), "the other engine's Init");
    ensure!(elsewhere(&service, &[], "Create", &exists("theirs"))? == json!({}), "the other engine's Create");
    ensure!(service.path("other:latest/diff/theirs").is_dir(), "it is not in the other store");
    // This process said where its own is, and is still believed.
    ensure!(service.ok("Exists", &exists("mine"))? == yes, "the first engine's layer is not found");
    ensure!(service.ok("Exists", &exists("theirs"))? != yes, "the first engine sees the other's layer");
    Ok(())
}

fn taken_back(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    // Each of these calls is a process of its own, which is gone when the next one comes.
    let call = |name: &str, body: Value| -> Result<()> {
        let answer = elsewhere(&service, &[], name, &body)?;
        ensure!(answer.get("Err").is_none(), "{name}: {answer}");
        Ok(())
    };
    let init = json!({ "Home": service.path("home") });
    call("Init", init.clone())?;
    call("Create", json!({ "ID": "base" }))?;
    for id in ["c1", "c2"] {
        call("CreateReadWrite", json!({ "ID": id, "Parent": "base" }))?;
        call("Get", json!({ "ID": id }))?;
    }
    let told = || -> Result<Vec<String>> {
        let log = service.log()?;
        Ok(log.lines().filter(|line| line.contains("had got layers")).map(str::to_owned).collect())
    };
    ensure!(told()?.is_empty(), "{:?}", told()?);
    call("Init", init.clone())?;
    let lines = told()?;
    ensure!(lines.len() == 1 && lines[0].contains("c1 c2") && lines[0].contains("count=2"), "{lines:?}");
    // There is nothing more to be taken.
    call("Init", init)?;
    ensure!(told()?.len() == 1, "{:?}", told()?);
    Ok(())
}

fn no_engine(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let text = service.fails("Get", &json!({ "ID": "a" }))?;
    ensure!(text.contains("no store"), "{text}");
    service.ok("Create", &json!({ "ID": "a" }))?;
    ensure!(service.path("root/diff/a").is_dir(), "it is not in the store of --root");
    Ok(())
}

fn old_store(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let home = service.path("home");
    for (directory, id, ancestors) in [("base", "base", ""), ("top", "top", "base\n")] {
        std::fs::create_dir_all(home.join("diff").join(directory))?;
        std::fs::create_dir_all(home.join("mnt").join(directory))?;
        std::fs::create_dir_all(home.join("layers"))?;
        std::fs::write(home.join("layers").join(id), ancestors)?;
    }
    std::fs::write(home.join("diff/base/f"), "x")?;
    std::fs::write(home.join("diff/top/.wh.f"), "")?;
    service.init()?;
    let changes = service.ok("Changes", &json!({ "ID": "top", "Parent": "base" }))?;
    ensure!(changes == json!({ "Changes": [{ "Path": "/f", "Kind": 2 }] }), "{changes}");
    Ok(())
}

fn id_maps(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let ranges = |ranges: &[[i64; 3]]| -> Value {
        let range = |[inside, outside, size]: &[i64; 3]| json!({ "container_id": inside, "host_id": outside, "size": size });
        ranges.iter().map(range).collect()
    };
    let map = ranges(&[[0, 100_000, 65_536]]);
    let home = service.path("home");
    // What is refused is not recorded: the right maps are taken after it.
    for (wrong, text) in [
        (ranges(&[[1, 100_000, 65_536]]), "no root"),
        (ranges(&[[0, -1, 1]]), "-1"),
        (ranges(&[[0, 100_000, 0]]), "an empty range"),
        (ranges(&[[0, 4_294_967_290, 50]]), "past the last id"),
        (ranges(&[[0, 100_000, 10], [5, 200_000, 10]]), "overlap"),
        (ranges(&[[0, 100_000, 10], [10, 100_009, 10]]), "overlap"),
    ] {
        for [uids, gids] in [[&wrong, &map], [&map, &wrong]] {
            let said = service.fails("Init", &json!({ "Home": home, "UIDMaps": uids, "GIDMaps": gids }))?;
            ensure!(said.contains(text), "{wrong}: {said}");
        }
    }
    service.ok("Init", &json!({ "Home": home, "UIDMaps": map, "GIDMaps": map }))?;
    service.ok("Create", &json!({ "ID": "a" }))?;
    let archive = tar(&[file("root", "x"), file("user", "x").owner(7, 8)]);
    ensure!(service.apply("a", &archive)?.status == 200, "ApplyDiff");
    let owner = |path: &Path| std::fs::metadata(path).map(|found| (found.uid(), found.gid()));
    let content = home.join("diff/a");
    ensure!(owner(&content)? == (100_000, 100_000), "the layer's root: {:?}", owner(&content)?);
    ensure!(owner(&content.join("user"))? == (100_007, 100_008), "{:?}", owner(&content.join("user"))?);
    let diff = service.raw("Diff", json!({ "ID": "a" }).to_string().as_bytes())?;
    ensure!(String::from_utf8_lossy(&diff.body).contains("0000007\x000000010\0"), "owners in the archive");
    for name in ["", "diff", "mnt"] {
        let found = std::fs::metadata(home.join(name))?;
        let (mode, group) = (found.permissions().mode() & 0o777, found.gid());
        ensure!((mode, group) == (0o710, 100_000), "{name:?}: {mode:o}, group {group}");
    }
    let text = service.fails("Init", &json!({ "Home": home, "UIDMaps": null, "GIDMaps": null }))?;
    ensure!(text.contains("other id maps"), "{text}");
    Ok(())
}

fn namespaces(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let row = "Mount Namespace";
    let init = json!({ "Home": service.path("home") });
    ensure!(elsewhere(&service, &[], "Init", &init)? == json!({}), "Init");
    let same = elsewhere(&service, &[], "Status", &json!({}))?.to_string();
    ensure!(!same.contains(row), "{same}");
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    let other = elsewhere(&service, &unshare, "Status", &json!({}))?.to_string();
    ensure!(other.contains(row) && other.contains("will not be seen"), "{other}");
    ensure!(elsewhere(&service, &unshare, "Init", &init)? == json!({}), "Init from elsewhere");
    ensure!(service.log()?.contains("another mount namespace"), "the log does not warn");
    Ok(())
}
