//! Several engines at one service, each with a store of its own.

use anyhow::{Result, ensure};
use layerbox_tests::harness::Case;
use layerbox_tests::scratch::Place;
use layerbox_tests::tree::names;

use super::docker;
use crate::engine::Engine;
use crate::rig::{Rig, at_rest, plugin_name, small_root, until};
use crate::service::Service;

pub(super) fn cases() -> Vec<Case> {
    vec![
        docker("two engines on two sockets of one service keep apart", |place| two(place, 2)),
        docker("two engines on one socket keep apart, by the process that calls", |place| two(place, 1)),
    ]
}

fn two(place: &Place, sockets: usize) -> Result<()> {
    let archive = small_root(place)?;
    let directory = place.make("s")?;
    let plugins: Vec<String> = (0..sockets).map(|n| format!("{}-{n}", plugin_name(&directory))).collect();
    let mut service = Service::start_for(&directory.join("service"), &plugins, &[])?;
    let mut rigs = Vec::new();
    for (index, name) in ["one", "two"].into_iter().enumerate() {
        let engine = Engine::start(&place.make(name)?.join("engine"), &plugins[index % sockets], &[])?;
        rigs.push(Rig { engine, service: None });
    }
    let result = apart(&mut rigs, &mut service, &archive);
    result.map_err(|error| error.context(format!("the service says:\n{}", service.log_end())))?;
    for rig in &mut rigs {
        rig.engine.stop()?;
    }
    service.stop()?;
    for rig in &rigs {
        rig.is_mounted(0)?;
        at_rest(&rig.engine.home())?;
    }
    Ok(())
}

fn apart(rigs: &mut [Rig], service: &mut Service, archive: &std::path::Path) -> Result<()> {
    for rig in rigs.iter() {
        rig.engine.ok(["import".as_ref(), archive.as_os_str(), "small:1".as_ref()])?;
    }
    for (rig, count) in rigs.iter().zip([1, 2]) {
        for number in 0..count {
            rig.start_ticking(&format!("up-{number}"), &[])?;
        }
    }
    // Each round begins as the one before ended: with a container in one engine and two in the other.
    for round in ["at first", "after the service was killed", "after an engine was killed"] {
        match round {
            "after the service was killed" => {
                service.kill()?;
                service.restart()?;
            }
            "after an engine was killed" => {
                rigs[0].engine.kill()?;
                rigs[0].engine.restart()?;
                rigs[0].engine.ok(["start", "up-0"])?;
            }
            _ => {}
        }
        for (rig, count) in rigs.iter().zip([1, 2]) {
            for number in 0..count {
                rig.ticks(&format!("up-{number}"))?;
            }
            rig.is_mounted(count)?;
            let home = rig.engine.home();
            let counted = service.mounts_of(&home)?;
            ensure!(
                counted == count,
                "{round}: the service says that {counted} are mounted in {}",
                home.display()
            );
            // The image, and for each container its first layer and its own.
            let layers = names(&home.join("diff"))?;
            ensure!(layers.len() == 1 + 2 * count, "{round}: {} holds {layers:?}", home.display());
        }
    }
    for (rig, count) in rigs.iter().zip([1, 2]) {
        for number in 0..count {
            rig.engine.ok(["rm", "--force", &format!("up-{number}")])?;
        }
        let diff = rig.engine.home().join("diff");
        until(std::time::Duration::from_secs(10), "layers are left", || Ok(names(&diff)?.len() == 1))?;
    }
    Ok(())
}
