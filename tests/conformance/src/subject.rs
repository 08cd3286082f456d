//! What the suite drives: stores, through the calls of the graph driver.
//!
//! Whoever wants a component verified implements these two traits over whatever runs it. The suite itself has
//! no way to the component but these.

use std::path::{Path, PathBuf};

pub use layerbox_catalogue::{Bounds, Dialect};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The case of `error` in `wit/types.wit`: `no-such-parent`.
    pub code: String,
    /// The entry of the archive or layer that it is about.
    pub entry: Option<Vec<u8>>,
    /// Words for a person.
    pub message: String,
}

/// What a layer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Names, the root and marks of deletion not counted.
    pub entries: u64,
    /// Apparent sizes of the regular files in bytes, each file once.
    pub bytes: u64,
}

/// A layer, as `list` and `metadata` tell of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The layer.
    pub id: String,
    /// Its ancestors, nearest first; `list` tells of the nearest only.
    pub ancestors: Vec<String>,
}

/// What happened to a path. The order is that of the numbers in Docker's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It differs.
    Modified,
    /// It is new.
    Added,
    /// It is gone.
    Deleted,
}

/// A path that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path below the root, without a leading slash.
    pub name: Vec<u8>,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What `diff` wrote and said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diff {
    /// The archive.
    pub archive: Vec<u8>,
    /// What it says that the archive holds.
    pub totals: Totals,
    /// The sockets that were left out.
    pub skipped: Vec<Vec<u8>>,
}

/// What makes stores.
pub trait Subject: Sync {
    /// A fresh, empty store in a scratch directory. All of it goes away when it is dropped, mounts included.
    ///
    /// # Errors
    /// Why there cannot be one; the case fails with it.
    fn store(&self, dialect: Dialect) -> Result<Box<dyn Store>, String>;

    /// The same, where content need not outlast anything: it may lie in memory. For cases that make thousands
    /// of layers.
    ///
    /// # Errors
    /// As [`Subject::store`].
    fn quick_store(&self, dialect: Dialect) -> Result<Box<dyn Store>, String> {
        self.store(dialect)
    }

    /// Whether stores of this dialect can be mounted on this machine.
    ///
    /// # Errors
    /// Why not; cases that mount are skipped with it.
    fn can_mount(&self, dialect: Dialect) -> Result<(), String>;
}

/// A store, and the component that works on it. One method a call of the contract (`wit/driver.wit`); calls
/// may come from several threads at once.
///
/// # Errors
/// All methods fail as the calls do.
pub trait Store: Send + Sync {
    /// Makes an empty layer.
    fn create(&self, id: &str, parent: Option<&str>) -> Result<(), Failure>;
    /// Removes a layer.
    fn remove(&self, id: &str, force: bool) -> Result<(), Failure>;
    /// Makes the whole tree of a layer visible, and answers where.
    fn get(&self, id: &str, label: Option<&str>) -> Result<PathBuf, Failure>;
    /// Ends one get.
    fn put(&self, id: &str) -> Result<(), Failure>;
    /// Whether there is such a layer.
    fn exists(&self, id: &str) -> Result<bool, Failure>;
    /// All layers.
    fn list(&self) -> Result<Vec<Layer>, Failure>;
    /// One layer.
    fn metadata(&self, id: &str) -> Result<Layer, Failure>;
    /// Rows for people.
    fn status(&self) -> Result<Vec<(String, String)>, Failure>;
    /// Unmounts all, and answers how many that were.
    fn cleanup(&self) -> Result<u32, Failure>;
    /// Turns a layer into an archive.
    fn diff(&self, id: &str, parent: Option<&str>) -> Result<Diff, Failure>;
    /// Fills an empty layer from an archive. It need not outlast a power cut.
    fn apply(&self, id: &str, parent: Option<&str>, archive: &[u8]) -> Result<Totals, Failure>;
    /// As [`Store::apply`], within bounds.
    fn apply_within(&self, id: &str, archive: &[u8], bounds: Bounds) -> Result<Totals, Failure>;
    /// Lists what differs.
    fn changes(&self, id: &str, parent: Option<&str>) -> Result<Vec<Change>, Failure>;
    /// What a layer's own content adds up to.
    fn diff_size(&self, id: &str, parent: Option<&str>) -> Result<Totals, Failure>;

    /// The directory of a layer's own content.
    fn content_path(&self, id: &str) -> PathBuf;
    /// The directory that a layer is mounted on.
    fn mount_point(&self, id: &str) -> PathBuf;
    /// The directory of the store.
    fn root(&self) -> &Path;
    /// Closes the store and opens it again, as a restart of the program does. Mounts and counts stay.
    fn reopen(&mut self) -> Result<(), Failure>;
}
