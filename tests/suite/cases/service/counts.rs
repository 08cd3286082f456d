//! What the service keeps of mounts and counts, whoever else meddles with them.

use anyhow::{Result, ensure};
use layerbox_tests::archive::{dir, file, symlink};
use layerbox_tests::tree::names;
use serde_json::json;

use crate::harness::{Case, case};
use crate::scratch::{Place, unmount};
use crate::service::Service;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case("service: gets and puts of one layer from many sides are all counted", counted),
        case("service: a mount that somebody else took away is noticed, however often it is got", taken_away),
        case(
            "service: what is left of a container that never came to be goes with its image",
            never_came_to_be,
        ),
        case("service: a removal that is refused as busy leaves all gets counted", busy),
    ]
}

/// A layer with a parent, got as often as asked for. Gives where.
pub(super) fn mounted(service: &Service, gets: usize) -> Result<std::path::PathBuf> {
    service.init()?;
    service.layer("base", "", &[file("f", "x")])?;
    service.ok("Create", &json!({ "ID": "top", "Parent": "base" }))?;
    for _ in 0..gets {
        service.ok("Get", &json!({ "ID": "top" }))?;
    }
    Ok(service.path("home/mnt/top"))
}

/// Counts go through all widths, and calls that take the layer's lock (the diff, the get that mounts, the put
/// that unmounts) run among those that do without.
fn counted(place: &Place) -> Result<()> {
    const CLIENTS: usize = 8;
    let service = Service::start(place, &[])?;
    let merged = mounted(&service, 0)?;
    let top = json!({ "ID": "top" }).to_string();
    let client = |rounds: usize, calls: &[(&str, usize)]| -> Result<()> {
        let mut connection = service.connect()?;
        for (name, times) in calls.iter().cycle().take(rounds * calls.len()) {
            for _ in 0..*times {
                let answer = connection.call("POST", &format!("/GraphDriver.{name}"), top.as_bytes())?;
                ensure!(answer.status == 200, "{name}: {:?}", answer.json()?);
            }
        }
        Ok(())
    };
    for calls in [[("Get", 1), ("Put", 1)], [("Get", 30), ("Put", 30)], [("Diff", 1), ("Diff", 1)]] {
        for first in [0, 1] {
            client(first, &[("Get", 1)])?;
            let ends = std::thread::scope(|scope| {
                let clients: Vec<_> = (0..CLIENTS)
                    .map(|number| {
                        let own = if number == 0 { [("Diff", 1), ("Get", 1)] } else { calls };
                        scope.spawn(move || client(20, &own))
                    })
                    .collect();
                clients.into_iter().map(|client| client.join()).collect::<Vec<_>>()
            });
            for end in ends {
                end.map_err(|_| anyhow::anyhow!("a client's fault"))??;
            }
            // What the first one got, and what was got before.
            client(20 + first - 1, &[("Put", 1)])?;
            ensure!(merged.join("f").exists(), "{calls:?}: it is unmounted, and one get is not put");
            client(1, &[("Put", 1)])?;
            ensure!(!merged.join("f").exists(), "{calls:?}: it is mounted, and all gets are put");
        }
    }
    Ok(())
}

/// dockerd does not hear that a layer of a new container was made when the service is killed in the midst of
/// it, and forgets what it had made until then.
fn never_came_to_be(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    service.init()?;
    let container = "c0".repeat(32);
    let init = format!("{container}-init");
    let make = |id: &str, parent: &str, gets: usize| -> Result<()> {
        service.ok("Create", &json!({ "ID": id, "Parent": parent }))?;
        (0..gets).try_for_each(|_| service.ok("Get", &json!({ "ID": id })).map(drop))
    };
    let remove = |id: &str| json!({ "ID": id });
    // How often each of the two layers was got; none: it was not made.
    for (of_init, of_container) in [(0, None), (1, None), (2, None), (0, Some(0)), (1, Some(0))] {
        service.layer("image", "", &[file("f", "x")])?;
        make(&init, "image", of_init)?;
        if let Some(gets) = of_container {
            make(&container, &init, gets)?;
        }
        service.ok("Remove", &remove("image"))?;
        let left = [service.path("home/layers"), service.path("home/mnt")];
        let left = left.iter().map(|path| names(path)).collect::<Result<Vec<_>>>()?.concat();
        ensure!(left.is_empty(), "got {of_init} and {of_container:?} times, these are left: {left:?}");
    }
    // With what dockerd makes in the first of them.
    service.layer("image", "", &[dir("etc"), file("etc/hosts", "x")])?;
    let made = [
        dir("dev"),
        file("dev/console", ""),
        dir("dev/pts"),
        dir("dev/shm"),
        dir("etc"),
        file("etc/hostname", ""),
        symlink("etc/mtab", "/proc/mounts"),
        file(".dockerenv", ""),
        dir("proc"),
    ];
    service.layer(&init, "image", &made)?;
    service.ok("Get", &json!({ "ID": init }))?;
    service.ok("Remove", &remove("image"))?;
    ensure!(names(&service.path("home/layers"))?.is_empty(), "what dockerd makes is taken for data");
    // What somebody may want stays, and with it all that it stands on.
    let other = "d0".repeat(32);
    let rows: [(&str, &[&str]); 4] = [
        ("the layer of an image", &[&other]),
        ("one that is no container's", &["keep-init"]),
        ("a container that runs", &[&init, &container]),
        ("another layer on that of a container", &[&init, &other]),
    ];
    for (what, chain) in rows {
        service.layer("image", "", &[file("f", "x")])?;
        let mut parent = "image";
        for id in chain {
            make(id, parent, usize::from(*id == container))?;
            parent = id;
        }
        let refused = service.fails("Remove", &remove("image"))?;
        ensure!(refused.contains("children"), "{what}: {refused}");
        ensure!(names(&service.path("home/layers"))?.len() == chain.len() + 1, "{what}: something is gone");
        for id in chain.iter().rev().chain(&["image"]) {
            service.ok("Remove", &remove(id))?;
        }
    }
    // A container that has written something, though nobody has got its layer now.
    service.layer("image", "", &[file("f", "x")])?;
    make(&init, "image", 0)?;
    service.layer(&container, &init, &[file("written", "x")])?;
    let refused = service.fails("Remove", &remove("image"))?;
    ensure!(refused.contains("children"), "{refused}");
    ensure!(service.path(&format!("home/diff/{container}/written")).exists(), "what it wrote is gone");
    for id in [&container, &init] {
        service.ok("Remove", &remove(id))?;
    }
    // Data in a layer of the kind that dockerd makes first.
    let rows = [
        ("a file of its own", vec![file("data", "")]),
        ("a file that is not empty", vec![dir("etc"), file("etc/hosts", "x")]),
        ("a deletion", vec![file(".wh.f", "")]),
    ];
    for (what, members) in rows {
        service.layer(&init, "image", &members)?;
        service.ok("Get", &json!({ "ID": init }))?;
        let refused = service.fails("Remove", &remove("image"))?;
        ensure!(refused.contains("children"), "{what}: {refused}");
        ensure!(names(&service.path("home/mnt"))?.contains(&init), "{what}: it is not mounted any more");
        service.ok("Remove", &remove(&init))?;
    }
    Ok(())
}

fn busy(place: &Place) -> Result<()> {
    let service = Service::start(place, &[])?;
    let gets = 3;
    let merged = mounted(&service, gets)?;
    let held = std::fs::File::open(merged.join("f"))?;
    for _ in 0..2 {
        let refused = service.fails("Remove", &json!({ "ID": "top" }))?;
        ensure!(refused.contains("busy"), "{refused}");
    }
    drop(held);
    // Nobody is in it, and it cannot be removed all the same.
    service.ok("Create", &json!({ "ID": "child", "Parent": "top" }))?;
    let refused = service.fails("Remove", &json!({ "ID": "top" }))?;
    ensure!(refused.contains("children"), "{refused}");
    service.ok("Remove", &json!({ "ID": "child" }))?;
    for left in (0..gets).rev() {
        ensure!(merged.join("f").exists(), "it is unmounted, and {} gets are not put", left + 1);
        service.ok("Put", &json!({ "ID": "top" }))?;
    }
    ensure!(!merged.join("f").exists(), "it is mounted, and all gets are put");
    // Nobody is in it now.
    for _ in 0..gets {
        service.ok("Get", &json!({ "ID": "top" }))?;
    }
    service.ok("Remove", &json!({ "ID": "top" }))?;
    ensure!(!merged.exists(), "it is not removed");
    Ok(())
}

fn taken_away(place: &Place) -> Result<()> {
    for gets in [1, 2, 3] {
        let inner = place.directory_for("")?;
        let service = Service::start(&inner, &[])?;
        let merged = mounted(&service, gets)?;
        unmount(&merged)?;
        service.ok("Get", &json!({ "ID": "top" }))?;
        ensure!(merged.join("f").exists(), "after {gets} gets: it is not mounted again");
        service.ok("Put", &json!({ "ID": "top" }))?;
        ensure!(
            !merged.join("f").exists(),
            "after {gets} gets: what was got before the mount went is counted"
        );
    }
    Ok(())
}
