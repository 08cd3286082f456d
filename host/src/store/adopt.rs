//! What a root is before it is opened: nothing yet, a store, or the store of Docker's aufs driver, which is
//! taken over as it lies.

use std::io;

use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, MetadataExt as _};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Backend, Choice};

use super::DIRECTORIES;
use super::children::mark_child;
use super::files::{ids_in, sync_directory, touch};
use super::maps::IdMaps;
use super::record::{Format, Record, read_small};
use crate::error::Failure;

/// Lies in the root while the store of Docker's driver is taken over. Records without it and without
/// `layerbox.json` are those of a store that has lost the latter.
pub(super) const MARKER: &str = ".adopting";

/// The directories that Docker's driver has as well.
const DOCKERS: [&str; 3] = ["layers", "diff", "mnt"];

/// What a root is.
pub(super) enum State {
    /// It holds nothing.
    Empty,
    /// It is a store.
    Store,
    /// It is a store of Docker's aufs driver.
    Docker,
}

/// Looks at a root.
///
/// # Errors
///
/// [`Failure::Corrupt`] for a store without `layerbox.json`; [`Failure::Conflict`] for something else.
pub(super) fn survey(dir: &Dir) -> Result<State, Failure> {
    let has = |name: &str| dir.symlink_metadata(name).is_ok();
    if has("layerbox.json") {
        return Ok(State::Store);
    }
    let mut others = Vec::new();
    for entry in dir.entries().map_err(|e| Failure::io("getdents", &e))? {
        let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
        let name = name.to_string_lossy().into_owned();
        // What the making of a store leaves when it is cut off counts as nothing, and so does what mkfs puts
        // into a new file system.
        if !["lock", ".layerbox.json.tmp", "lost+found", MARKER].contains(&name.as_str()) {
            others.push(name);
        }
    }
    let known = |name: &String| DIRECTORIES.contains(&name.as_str());
    let docker = DOCKERS.iter().all(|name| has(name));
    let ours = DIRECTORIES.iter().filter(|name| !DOCKERS.contains(name));
    if others.is_empty() || (others.iter().all(known) && unused(dir, DIRECTORIES.iter())?) {
        Ok(State::Empty)
    } else if docker && !has(MARKER) && !unused(dir, ours)? {
        Err(Failure::Corrupt("layerbox.json is missing".to_owned()))
    } else if docker {
        Ok(State::Docker)
    } else {
        Err(Failure::Conflict("the root is not empty and is no store".to_owned()))
    }
}

/// Whether none of these directories of the store holds anything.
pub(super) fn unused<'a>(dir: &Dir, names: impl Iterator<Item = &'a &'a str>) -> Result<bool, Failure> {
    for name in names {
        match dir.read_dir(name) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Ok(false);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::io("open", &e)),
        }
    }
    Ok(true)
}

/// Makes an empty store.
pub(super) fn make(dir: &Dir, choice: Choice, maps: IdMaps) -> Result<Format, Failure> {
    let format = Format::new(Backend::detect(choice)?, maps)?;
    close(dir, format.maps())?;
    make_directories(dir)?;
    let_root_pass(dir, format.maps())?;
    format.write(dir)?;
    Ok(format)
}

/// Takes from a root that was there before what group and others may: set-user-id programs and device nodes
/// of images lie in a store.
///
/// It is done when the root becomes a store, and never again: who opens it later is to have been asked. The
/// group may still pass with id maps ([`let_root_pass`]), as in Docker's own stores of such. A root that
/// belongs to another user is that one's to close.
fn close(dir: &Dir, maps: &IdMaps) -> Result<(), Failure> {
    let top = dir.dir_metadata().map_err(|e| Failure::io("stat", &e))?;
    let (mode, kept) = (top.mode() & 0o7777, if maps.is_empty() { 0o700 } else { 0o710 });
    if top.uid() != nix::unistd::geteuid().as_raw() || mode & 0o077 & !kept == 0 {
        return Ok(());
    }
    super::files::set_mode(dir, ".", mode & kept)
}

/// Lets root of the id maps pass on the way to a mounted layer: a container's first process opens its root
/// file system as that user.
fn let_root_pass(dir: &Dir, maps: &IdMaps) -> Result<(), Failure> {
    if maps.is_empty() {
        return Ok(());
    }
    let group = Some(nix::unistd::Gid::from_raw(maps.root()?.1));
    for name in [".", "diff", "mnt"] {
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        nix::unistd::fchownat(dir, name, None, group, flags)
            .map_err(|e| Failure::io("fchownat", &e.into()))?;
        super::files::set_mode(dir, name, 0o710)?;
    }
    Ok(())
}

/// Takes over the store of Docker's aufs driver: writes the host's records beside Docker's, changes nothing
/// of Docker's but what others may in its root.
///
/// A layer whose list of ancestors cannot be read, or names a layer that is not there, is left out; `check`
/// tells.
pub(super) fn adopt(dir: &Dir, maps: IdMaps) -> Result<Format, Failure> {
    touch(dir, MARKER)?;
    sync_directory(dir, ".")?;
    close(dir, &maps)?;
    make_directories(dir)?;
    let ids = ids_in(dir, "layers")?;
    let mut records = Vec::with_capacity(ids.len());
    for id in &ids {
        let Some(record) = docker_record(dir, id, &ids)? else { continue };
        if let Some(parent) = record.ancestors.first() {
            mark_child(dir, parent, id)?;
        }
        records.push((id, record));
    }
    // All marks before the first record: a parent is removed where no mark says that something lies on it.
    let top = dir.open(".").map_err(|e| Failure::io("open", &e))?;
    nix::unistd::syncfs(&top).map_err(|e| Failure::io("syncfs", &e.into()))?;
    for (id, record) in records {
        record.write(dir, id)?;
    }
    let format = Format::new(Backend::Aufs, maps)?;
    // Last: until it is there, adoption starts again.
    format.write(dir)?;
    // What stays behind is taken away when the store is next opened.
    drop(dir.remove_file(MARKER));
    Ok(format)
}

/// The record of a layer, from Docker's `layers/ID`: the ids of its ancestors, nearest first, one a line.
fn docker_record(dir: &Dir, id: &LayerId, all: &[LayerId]) -> Result<Option<Record>, Failure> {
    let Some(bytes) = read_small(dir, &format!("layers/{id}"))? else { return Ok(None) };
    let Ok(text) = String::from_utf8(bytes) else { return Ok(None) };
    let mut ancestors = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match LayerId::new(line) {
            Ok(ancestor) if all.binary_search(&ancestor).is_ok() && ancestor != *id => {
                ancestors.push(ancestor)
            }
            _ => return Ok(None),
        }
    }
    Ok(Some(Record { ancestors, ..Record::default() }))
}

fn make_directories(dir: &Dir) -> Result<(), Failure> {
    for name in DIRECTORIES {
        match dir.create_dir_with(name, DirBuilder::new().mode(0o700)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Failure::io("mkdir", &e)),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use super::*;
    use crate::skip::skip;

    #[test]
    fn a_root_that_becomes_a_store_is_closed_to_others() {
        type Become = fn(&Dir) -> Result<Format, Failure>;
        let made: Become = |dir| make(dir, Choice::Overlay, IdMaps::default());
        let adopted: Become = |dir| adopt(dir, IdMaps::default());
        let rows = [
            ("what others may is taken", made, 0o755, None, 0o700),
            ("what others may is taken from one of Docker's", adopted, 0o755, None, 0o700),
            ("no more than that", made, 0o500, None, 0o500),
            ("that of another user is left alone", made, 0o755, Some(65533), 0o755),
        ];
        let root = std::env::temp_dir().join(format!("layerbox-adopt-{}", std::process::id()));
        for (what, become_store, before, owner, after) in rows {
            if !nix::unistd::geteuid().is_root() && (owner.is_some() || before & 0o200 == 0) {
                skip(&format!("store: {what}: it needs root"), true);
                continue;
            }
            fs::create_dir(&root).unwrap();
            fs::set_permissions(&root, Permissions::from_mode(before)).unwrap();
            chown(&root, owner, None).unwrap();
            let dir = Dir::open_ambient_dir(&root, cap_std::ambient_authority()).unwrap();
            become_store(&dir).unwrap();
            assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, after, "{what}");
            fs::remove_dir_all(&root).unwrap();
        }
    }
}
