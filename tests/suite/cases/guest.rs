//! Which component runs: one whose digest is right, and none that is another's, of another world, or no
//! component at all.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::config::config;
use crate::command::{component, run};
use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store, bare};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("guest: one whose digest is right runs, by option, variable and file", right_digest),
        case("guest: one that others can write can still be looked at", |place| {
            let guest = component(place, "driver")?;
            fs::set_permissions(&guest, fs::Permissions::from_mode(0o666))?;
            run(bare().args(["guest", "inspect"]).arg(&guest), b"")?.expect(0)?;
            run(bare().args(["guest", "inspect", "--guest"]).arg(&guest), b"")?
                .expect(5)?
                .says("not trusted")?;
            Ok(())
        }),
    ];
    cases.extend(refused_guests());
    cases
}

/// Makes the file of a component that is refused, from the good one.
type Spoil = fn(Vec<u8>) -> Vec<u8>;

fn refused_guests() -> impl Iterator<Item = Case> {
    let rows: [(&str, Spoil, &[&str]); 8] = [
        (
            "of the next version of the contract",
            |bytes| renamed(bytes, "@0.2.0"),
            &["it speaks layerbox:driver@0.2.0, and this host speaks 0.1.0"],
        ),
        (
            "of a corrected version of the contract",
            |bytes| renamed(bytes, "@0.1.9"),
            &["layerbox:driver@0.1.9"],
        ),
        (
            "of another world",
            |_| b"\0asm\x0d\0\x01\0".to_vec(),
            &[
                "a component of another world",
                "layerbox:driver/lifecycle@0.1.0, layerbox:driver/differ@0.1.0",
            ],
        ),
        (
            "that is a core module",
            |_| b"\0asm\x01\0\0\0".to_vec(),
            &["it is a core module, and not a component"],
        ),
        ("that is text", |_| b"(component)".to_vec(), &["it is WebAssembly as text"]),
        ("that is something else", |_| b"\x7fELF\x02\x01\x01\0\0".to_vec(), &["it is no WebAssembly"]),
        ("that is empty", |_| Vec::new(), &["it is empty"]),
        ("that is cut short", |bytes| bytes[..bytes.len() / 2].to_vec(), &["it is no component: "]),
    ];
    let spoiled = rows.into_iter().map(|(what, spoil, says)| {
        case(format!("guest: one {what} is refused, and told to be that"), move |place| {
            let guest = component(place, "driver")?;
            fs::write(&guest, spoil(fs::read(&guest)?))?;
            for command in [&["list"][..], &["guest", "inspect"]] {
                let mut output = run(bare().arg("--guest").arg(&guest).args(command), b"")?.expect(5)?;
                for text in says {
                    output = output.says(text)?;
                }
            }
            Ok(())
        })
    });
    let pinned = [true, false].into_iter().map(|built_in| {
        let what = if built_in { "the one that is built in" } else { "one" };
        case(format!("guest: {what} of another digest is refused, and both are told"), move |place| {
            let guest = component(place, "driver")?;
            let wrong = "0".repeat(64);
            let mut command = bare();
            if !built_in {
                command.arg("--guest").arg(&guest);
            }
            // The component that is built in is this one, too.
            let found = format!("its digest is {}", digest(&guest)?);
            run(command.args(["--guest-sha256", &wrong, "list"]), b"")?
                .expect(5)?
                .says(&found)?
                .says(&wrong)?;
            Ok(())
        })
    });
    spoiled.chain(pinned)
}

/// With another version in every name of the contract; as long as before, so that the component stays one.
fn renamed(mut bytes: Vec<u8>, version: &str) -> Vec<u8> {
    let old = b"@0.1.0";
    let places: Vec<usize> =
        (0..bytes.len() - old.len()).filter(|&at| bytes[at..].starts_with(old)).collect();
    for at in places {
        bytes[at..at + old.len()].copy_from_slice(version.as_bytes());
    }
    bytes
}

fn digest(path: &Path) -> Result<String> {
    let hex: String = Sha256::digest(fs::read(path)?).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("sha256:{hex}"))
}

fn right_digest(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let guest = component(place, "driver")?;
    let right = digest(&guest)?;
    let digits = right.trim_start_matches("sha256:");
    let text = format!("guest = {guest:?}\nguest-sha256 = {right:?}");
    let config = config(place, &text)?;
    let exists = || store.command(["exists", "base"]);
    let with_option = |digest: &str| {
        let mut command = exists();
        run(command.arg("--guest").arg(&guest).args(["--guest-sha256", digest]), b"")
    };
    with_option(&right)?.expect(0)?;
    with_option(digits)?.expect(0)?;
    let mut command = exists();
    run(command.env("LAYERBOX_GUEST", &guest).env("LAYERBOX_GUEST_SHA256", digits), b"")?.expect(0)?;
    run(exists().arg("--config").arg(&config), b"")?.expect(0)?;
    // The digest of the file holds for a component from elsewhere.
    fs::write(place.join("other.wasm"), b"\0asm\x0d\0\x01\0")?;
    run(exists().arg("--config").arg(&config).arg("--guest").arg(place.join("other.wasm")), b"")?
        .expect(5)?
        .says("guest-sha256 wants")?;
    Ok(())
}
