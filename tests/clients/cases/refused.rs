//! What a stranger made, in the hands of an engine.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Member, dir, file, hard_link, symlink, tar};
use layerbox_tests::command::shell;
use layerbox_tests::harness::Case;
use layerbox_tests::scratch::Place;
use layerbox_tests::tree::names;

use super::docker;
use crate::rig::{Driver, Rig, at_rest};

pub(super) fn cases() -> Vec<Case> {
    vec![docker("an image with a hostile layer is refused with its reason, and the next load works", hostile)]
}

/// A row: what the layer holds, and what the engine must say of it.
fn rows() -> Vec<(&'static str, Vec<Member>, &'static str)> {
    vec![
        ("climbs out", vec![file("a/../../../victim", "x")], ".."),
        ("writes through its own link", vec![symlink("out", "../../victim"), file("out/x", "x")], "out/x"),
        ("links to what is not in it", vec![hard_link("shadow", "/etc/shadow")], "shadow"),
        (
            "brings attributes of overlayfs",
            vec![dir("d").xattr("trusted.overlay.redirect", "/etc")],
            "trusted.overlay",
        ),
    ]
}

fn hostile(place: &Place) -> Result<()> {
    let rig = Rig::with_small_image(place, "a", Driver::Layerbox, &[])?;
    let good = image(place, "good", &tar(&[file("fine", "fine")]))?;
    for (title, members, reason) in rows() {
        let before = names(&rig.engine.home().join("diff"))?;
        let bad = image(place, "bad", &tar(&members))?;
        let output = rig.engine.docker(["load".as_ref(), "--input".as_ref(), bad.as_os_str()])?;
        ensure!(output.code != 0, "an image whose layer {title} was loaded: {}", output.text());
        // The reason is in what the command line prints, and so in what the engine answered.
        ensure!(output.stderr.contains(reason), "{title}: no {reason:?} in {}", output.stderr);
        let after = names(&rig.engine.home().join("diff"))?;
        ensure!(before == after, "{title}: layers are left: {after:?}");
        rig.engine.ok(["load".as_ref(), "--input".as_ref(), good.as_os_str()])?;
        rig.engine.ok(["rmi", "good:1"])?;
    }
    let home = rig.engine.home();
    rig.finish()?;
    at_rest(&home)
}

/// An image as `docker save` writes one, with one layer.
fn image(place: &Place, name: &str, layer: &[u8]) -> Result<std::path::PathBuf> {
    let directory = place.make(name)?;
    let digest = sha256(layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"history":[{{"created":"2020-01-01T00:00:00Z"}}],"created":"2020-01-01T00:00:00Z","rootfs":{{"type":"layers","diff_ids":["sha256:{digest}"]}}}}"#
    );
    fs::write(directory.join("layer.tar"), layer)?;
    fs::write(directory.join("config.json"), config)?;
    fs::write(
        directory.join("manifest.json"),
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}:1"],"Layers":["layer.tar"]}}]"#),
    )?;
    let archive = place.join(format!("{name}.tar"));
    shell("tar -C \"$1\" -cf \"$2\" .", [directory.as_path(), archive.as_path()] as [&Path; 2])?;
    Ok(archive)
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
