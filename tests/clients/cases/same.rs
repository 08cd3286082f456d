//! An engine over layerbox does what it does over overlay2, line for line.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::command::{repository, tool};
use layerbox_tests::harness::Case;
use layerbox_tests::scratch::Place;

use super::{docker, fixture};
use crate::engine::{MAPPED, MAPPED_USER};
use crate::rig::{Driver, Rig, small_root};
use crate::script::{side_by_side, transcript};

pub(super) fn cases() -> Vec<Case> {
    vec![
        docker("a script prints over layerbox what it prints over overlay2, line for line", |place| {
            both(place, "steps.sh", &fixture()?, &[])
        }),
        docker("the same with user ids mapped", |place| {
            let option = format!("--userns-remap={MAPPED_USER}:{MAPPED_USER}");
            both(place, "mapped.sh", &small_root(place)?, &[&option])
        }),
        docker("with user ids mapped, root's files belong to the mapped root on disk", owners),
        docker("an image saved over one driver has the same digests loaded over the other", digests),
    ]
}

/// Runs the steps over both drivers at the same time.
fn both(place: &Place, steps: &str, archive: &Path, options: &[&str]) -> Result<()> {
    side_by_side(
        ("overlay2", || run_over(place, "o", Driver::Overlay2, steps, archive, options)),
        ("layerbox", || run_over(place, "l", Driver::Layerbox, steps, archive, options)),
    )
}

fn run_over(
    place: &Place,
    name: &str,
    driver: Driver,
    steps: &str,
    archive: &Path,
    options: &[&str],
) -> Result<Vec<String>> {
    let rig = Rig::start(place, name, driver, options)?;
    let empty = Rig::start(place, &format!("{name}-empty"), driver, options)?;
    let directory = place.join(format!("{name}-work"));
    let lines = rig.explained(transcript(steps, &directory, archive, &rig.engine, &empty.engine))?;
    empty.finish().context("the second engine")?;
    rig.finish()?;
    Ok(lines)
}

fn owners(place: &Place) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let option = format!("--userns-remap={MAPPED_USER}:{MAPPED_USER}");
    let rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[&option])?;
    let script = "echo x >/mine; echo x >/yours; chown 1:2 /yours; sleep 0";
    let run = rig.engine.ok(["run", "--network", "none", "--name", "work", "small:1", "sh", "-c", script]);
    rig.explained(run)?;
    let mut seen = Vec::new();
    for layer in std::fs::read_dir(rig.engine.home().join("diff"))? {
        for (name, uid, gid) in [("mine", 0, 0), ("yours", 1, 2), ("data/2", 0, 0)] {
            if let Ok(found) =
                layer.as_ref().map_err(|e| anyhow::anyhow!("{e}"))?.path().join(name).metadata()
            {
                let owner = (found.uid(), found.gid());
                ensure!(owner == (MAPPED + uid, MAPPED + gid), "{name} belongs to {owner:?} on disk");
                seen.push(name);
            }
        }
    }
    seen.sort_unstable();
    ensure!(seen == ["data/2", "mine", "yours"], "on disk there are only {seen:?}");
    rig.engine.ok(["rm", "work"])?;
    rig.finish()
}

/// Makes an image of three layers over each driver, and loads each over the other.
fn digests(place: &Place) -> Result<()> {
    let saved = |archive: &Path| -> Result<String> {
        let script = repository().join("tests/clients/script/saved.py");
        let output = tool("python3", [script.as_os_str(), "--digests".as_ref(), archive.as_os_str()])?;
        Ok(String::from_utf8(output)?)
    };
    let drivers = [("o", Driver::Overlay2), ("l", Driver::Layerbox)];
    let mut images = Vec::new();
    for (name, driver) in drivers {
        let rig = Rig::with_small_image(place, &format!("make-{name}"), driver, &[])?;
        let steps = [
            "echo new >/new; rm /data/1 /data/2; chmod 700 /data",
            "rm -r /data; mkdir /data; echo again >/data/1; mkdir -p /a/b/c; echo deep >/a/b/c/d",
        ];
        for (from, to, step) in [("small:1", "two:1", steps[0]), ("two:1", "three:1", steps[1])] {
            rig.engine.ok(["run", "--network", "none", "--name", "work", from, "sh", "-c", step])?;
            rig.engine.ok(["commit", "work", to])?;
            rig.engine.ok(["rm", "work"])?;
        }
        let archive = place.join(format!("made-{name}.tar"));
        rig.engine.ok(["save".as_ref(), "--output".as_ref(), archive.as_os_str(), "three:1".as_ref()])?;
        rig.finish()?;
        images.push(archive);
    }
    for (name, driver) in drivers {
        let rig = Rig::start(place, &format!("load-{name}"), driver, &[])?;
        for (index, image) in images.iter().enumerate() {
            let again = place.join(format!("again-{name}-{index}.tar"));
            let load = rig.engine.ok(["load".as_ref(), "--input".as_ref(), image.as_os_str()]);
            rig.explained(load)?;
            rig.engine.ok(["save".as_ref(), "--output".as_ref(), again.as_os_str(), "three:1".as_ref()])?;
            let (before, after) = (saved(image)?, saved(&again)?);
            ensure!(before == after, "saved first:\n{before}saved over {driver:?}:\n{after}");
            let id = rig.engine.ok(["inspect", "--format", "{{.Id}}", "three:1"])?;
            let digest = id.trim().trim_start_matches("sha256:").to_owned();
            ensure!(before.contains(&digest), "the image is {id}, and was saved as\n{before}");
            let listed = ["run", "--rm", "--network", "none", "three:1", "ls", "-A", "/data", "/a/b/c"];
            let listed = rig.engine.ok(listed)?;
            ensure!(listed == "/a/b/c:\nd\n\n/data:\n1\n", "the loaded image holds {listed:?}");
            rig.engine.ok(["rmi", "three:1"])?;
        }
        rig.finish()?;
    }
    Ok(())
}
