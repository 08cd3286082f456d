//! The oracle: what an attack could reach, as it was before, and as it must still be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::look::{Found, look};

/// What only the victim has.
pub const SECRET: &[u8] = b"the secret of the victim";

/// What some archives name by an absolute path. It is nowhere on the machine.
const CANARY: &str = "/layerbox-canary";

/// A directory, with all that can be told about what is in it.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
    found: BTreeMap<Vec<u8>, Found>,
}

impl Snapshot {
    /// Takes it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn take(path: &Path) -> Result<Snapshot, String> {
        let found = look(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Snapshot { path: path.to_owned(), found })
    }

    /// Holds the directory to be as it was: names, types, modes, owners, sizes, content, extended attributes,
    /// times of modification and of change, and inode numbers.
    ///
    /// # Errors
    /// What has changed.
    pub fn still(&self) -> Result<(), String> {
        let now = look(&self.path).map_err(|error| format!("{}: {error}", self.path.display()))?;
        if now == self.found {
            return Ok(());
        }
        let changed = |name: &&Vec<u8>| self.found.get(*name) != now.get(*name);
        let name = self.found.keys().chain(now.keys()).find(changed);
        let name = name.map(|name| name.escape_ascii().to_string()).unwrap_or_default();
        Err(format!("{} has changed outside the layer: `{name}`", self.path.display()))
    }
}

/// Everything around a layer that is attacked.
#[derive(Debug)]
pub struct Oracle {
    snapshots: Vec<Snapshot>,
}

impl Oracle {
    /// Lays `victim/` in every directory that a wrong number of `..` in a layer of the store at `root` could
    /// lead to, and remembers them and the content of other layers. Call [`Oracle::still`] before anything
    /// else is done to the store that should change these.
    ///
    /// # Errors
    /// A victim cannot be made, or something cannot be read.
    pub fn new(root: &Path, layers: &[PathBuf]) -> Result<Oracle, String> {
        if fs::symlink_metadata(CANARY).is_ok() {
            return Err(format!("{CANARY} is there already"));
        }
        let beside = root.parent().unwrap_or(root);
        let mut snapshots = Vec::new();
        for directory in [beside.to_owned(), root.to_owned(), root.join("diff")] {
            let victim = directory.join("victim");
            let made = fs::create_dir_all(&victim).and_then(|()| fs::write(victim.join("hello"), SECRET));
            made.map_err(|error| format!("{}: {error}", victim.display()))?;
            snapshots.push(Snapshot::take(&victim)?);
        }
        // A sweep of `stage/` may take away what is no layer's; so this one is bait and no witness.
        let bait = root.join("stage/victim");
        let laid = fs::create_dir_all(&bait).and_then(|()| fs::write(bait.join("hello"), SECRET));
        laid.map_err(|error| format!("{}: {error}", bait.display()))?;
        for layer in layers {
            snapshots.push(Snapshot::take(layer)?);
        }
        Ok(Oracle { snapshots })
    }

    /// Holds all of it to be as it was, and the layer at `content`, where there is one, to hold nothing of
    /// the secret.
    ///
    /// # Errors
    /// What has changed, or leaked.
    pub fn still(&self, content: &Path) -> Result<(), String> {
        for snapshot in &self.snapshots {
            snapshot.still()?;
        }
        if fs::symlink_metadata(CANARY).is_ok() {
            return Err(format!("{CANARY} was made"));
        }
        if !content.exists() {
            return Ok(());
        }
        let layer = look(content).map_err(|error| format!("{}: {error}", content.display()))?;
        let leaked = |bytes: &[u8]| bytes.windows(SECRET.len()).any(|window| window == SECRET);
        match layer.iter().find(|(_, found)| found.content.as_deref().is_some_and(leaked)) {
            Some((name, _)) => Err(format!("`{}` holds what only the victim has", name.escape_ascii())),
            None => Ok(()),
        }
    }
}
