//! `layerbox.json`, without which no store can be opened: whether it is there and can be read, and how it is
//! made again.
//!
//! It says how deletions are written down. Where that is forgotten, an overlay store must not be taken for
//! one of aufs, whose deletions would then be seen as devices, and the other way round: what the layers have
//! on the disk decides, and where that says nothing, the user.

use std::path::Path;

use cap_std::fs::{Dir, MetadataExt};
use layerbox_privileged::mount::{Backend, Choice, Layout, Unions};

use super::super::adopt;
use super::super::files::ids_in;
use super::super::lock::{Guard, Mode, PATIENCE};
use super::super::maps::IdMaps;
use super::super::record::Format;
use super::{CheckOptions, Finding, mend};
use crate::error::Failure;

/// The file.
const FILE: &str = "layerbox.json";

/// What is wrong with the `layerbox.json` of the store at `root`; none where nothing is, or where there is no
/// store. With `repair` it is written anew, for a store that `choice` and `maps` are asked for where the
/// store itself does not say.
///
/// # Errors
///
/// Those of reading the store. What fails in a repair is in the finding.
pub(super) fn check_format(
    root: &Path,
    choice: Choice,
    maps: Option<&IdMaps>,
    options: CheckOptions,
) -> Result<Option<Finding>, Failure> {
    // That there is none, or that it cannot be opened, is told by its opening.
    let Ok(root) = root.canonicalize() else { return Ok(None) };
    let Ok(dir) = Dir::open_ambient_dir(&root, cap_std::ambient_authority()) else { return Ok(None) };
    let Some(what) = damage(&dir)? else { return Ok(None) };
    let mut finding = Finding { place: FILE.to_owned(), what, ..Finding::default() };
    match backend(&dir, choice) {
        Ok(backend) => {
            finding.repair = format!("write it anew, for a store of {}", backend.as_str());
            if options.repair {
                match write(&root, &dir, backend, maps) {
                    Ok(()) => finding.repaired = true,
                    Err(failure) => finding.repair.push_str(&format!("; that failed: {failure}")),
                }
            }
        }
        Err(failure) => finding.repair = format!("none: {failure}"),
    }
    Ok(Some(finding))
}

/// What is wrong with the file.
fn damage(dir: &Dir) -> Result<Option<String>, Failure> {
    let found = match adopt::survey(dir) {
        Ok(adopt::State::Store) if dir.symlink_metadata(FILE).is_ok_and(|found| !found.is_file()) => {
            return Ok(Some("it is not a regular file".to_owned()));
        }
        Ok(adopt::State::Store) => Format::read(dir).map(drop),
        Ok(adopt::State::Empty | adopt::State::Docker) => return Ok(None),
        Err(failure) => Err(failure),
    };
    Ok(match found {
        Err(Failure::Corrupt(what)) => {
            let what = what.strip_prefix(FILE).unwrap_or(&what).trim_start_matches([':', ' ']);
            Some(if what.starts_with("is ") { format!("it {what}") } else { what.to_owned() })
        }
        // Of another format, or no store: the opening says so.
        _ => None,
    })
}

/// Of which backend the store is: every layer of overlayfs has a working directory, and none of aufs.
fn backend(dir: &Dir, choice: Choice) -> Result<Backend, Failure> {
    let is_empty = ids_in(dir, "meta")?.is_empty() && adopt::unused(dir, ["diff"].iter())?;
    let has_work = dir.symlink_metadata("work").is_ok_and(|found| found.is_dir());
    let says = match (is_empty, has_work) {
        (true, _) | (_, false) => Choice::Auto,
        _ if adopt::unused(dir, ["work"].iter())? => Choice::Aufs,
        _ => Choice::Overlay,
    };
    match (says, choice) {
        (Choice::Auto, Choice::Auto) if !is_empty => Err(Failure::InvalidArgument(
            "nothing says of which backend it is: name it with --backend".to_owned(),
        )),
        (Choice::Auto, choice) => Ok(Backend::detect(choice)?),
        (says, choice) if choice == Choice::Auto || choice == says => Ok(Backend::detect(says)?),
        (says, _) => {
            let says = Backend::detect(says)?.as_str();
            Err(Failure::Conflict(format!("its layers are those of a store of {says}")))
        }
    }
}

/// Writes it anew. With it the store gets another identity: locks and counts of before are forgotten.
fn write(root: &Path, dir: &Dir, backend: Backend, maps: Option<&IdMaps>) -> Result<(), Failure> {
    let _lock = Guard::store(dir, Mode::Exclusive, PATIENCE)?;
    if damage(dir)?.is_none() {
        return Ok(());
    }
    let unions = Unions::new(backend, Layout { root: root.to_owned(), runtime: root.to_owned() })?;
    if let Some(id) = unions.all()?.first() {
        let what = format!("layer {id} is mounted, and its users would be forgotten: unmount it first");
        return Err(Failure::Busy(what));
    }
    // A root that the group can pass is that of a store with id maps ([`adopt::make`]), which nothing else
    // tells.
    let top = dir.dir_metadata().map_err(|e| Failure::io("stat", &e))?;
    if maps.is_none() && top.mode() & 0o7777 == 0o710 && top.gid() != nix::unistd::getegid().as_raw() {
        let what = "it had id maps, which nothing else says: let the service that has them open it";
        return Err(Failure::Unsupported(what.to_owned()));
    }
    mend::move_away(dir, FILE, Path::new(FILE))?;
    Format::new(backend, maps.cloned().unwrap_or_default())?.write(dir)
}
