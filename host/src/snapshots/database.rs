//! The record of the snapshots: `snapshots.redb` in the store's root.
//!
//! One transaction a change, on the disk when it is committed. A row is written after its layer is there, and
//! taken away before its layer is: what a crash leaves is a layer without a row, which is removed when the
//! record is next opened.
//!
//! An error of the disk ends the call that met it, and no other: the file is opened anew for the next one.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use redb::{
    MultimapTableDefinition, ReadTransaction, ReadableDatabase as _, ReadableMultimapTable as _,
    ReadableTable, TableDefinition, TableError, WriteTransaction,
};

use super::disk::{Disk, Sparing, State};
use super::error::SnapshotError;
use super::model::{Row, Scope, Snapshot};

/// The name of the file.
pub const FILE: &str = "snapshots.redb";

/// Rows as JSON, by [`Key`].
const ROWS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("snapshots");
/// The names of the snapshots that lie on one, by its [`Key`].
const CHILDREN: MultimapTableDefinition<'static, &str, &str> = MultimapTableDefinition::new("children");
/// What the file says of itself.
const ABOUT: TableDefinition<'static, &str, &str> = TableDefinition::new("about");
/// In [`ABOUT`]: what the ids of its layers begin with.
const TOKEN: &str = "token";

/// Bytes of pages that are kept in memory. Rows are small, and few are asked for at once.
const CACHE: usize = 4 << 20;
/// The longest name, namespace or snapshotter in bytes. containerd's keys hold a namespace and what its
/// client calls the snapshot, which may be anything.
const LONGEST: usize = 4096;

type Result<T> = std::result::Result<T, SnapshotError>;

/// The record, open. One process has it open at a time.
pub struct Database {
    path: PathBuf,
    token: String,
    /// Held by every transaction, so that none is under way when the file is opened anew. None where that
    /// failed.
    open: RwLock<Option<Open>>,
    /// Whether somebody here makes layers that have no row yet, and removes those that have none any more.
    served: AtomicBool,
}

/// The file, open.
struct Open {
    file: redb::Database,
    state: Arc<State>,
}

/// A use of the file.
type Held<'a> = RwLockReadGuard<'a, Option<Open>>;

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("token", &self.token).finish_non_exhaustive()
    }
}

/// Where a row is: snapshotter, namespace and name, with a NUL between them, which none of them holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The key of a name.
    fn new(snapshotter: &str, namespace: &str, name: &str) -> Key {
        Key(format!("{snapshotter}\0{namespace}\0{name}"))
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.rsplit('\0').next().unwrap_or_default()
    }

    /// The namespace; empty where none was named.
    pub fn namespace(&self) -> &str {
        self.0.rsplit('\0').nth(1).unwrap_or_default()
    }

    /// The key of another name in the same scope.
    pub fn beside(&self, name: &str) -> Key {
        let scope = self.0.rsplit_once('\0').map_or("", |(scope, _)| scope);
        Key(format!("{scope}\0{name}"))
    }
}

impl Database {
    /// Opens the file, made where it is missing. One that a crash left is mended by redb.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`], also where another process has it open; [`SnapshotError::Full`].
    pub fn open(path: &Path) -> Result<Database> {
        let open = Open::new(path, true)?;
        // Looked for before it is made: a disk that is full must not keep a service from starting.
        let token = match open.token()? {
            Some(token) => token,
            None => open.begin()?,
        };
        Ok(Database {
            path: path.to_owned(),
            token,
            open: RwLock::new(Some(open)),
            served: AtomicBool::new(false),
        })
    }

    /// What the ids of the layers begin with that belong to this file and nothing else.
    pub fn prefix(&self) -> String {
        format!("snapshot-{}-", self.token)
    }

    /// Says that a layer without a row is from now on the business of the caller, for as long as this process
    /// has the record open.
    pub fn serve(&self) {
        self.served.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has said so.
    pub fn is_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    /// The file, opened anew where it failed.
    fn held(&self) -> Result<Held<'_>> {
        let is_well = |open: &Option<Open>| open.as_ref().is_some_and(|open| !open.state.failed());
        let held = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if is_well(&held) {
            return Ok(held);
        }
        drop(held);
        let mut held = self.open.write().unwrap_or_else(PoisonError::into_inner);
        // Another call may have been faster.
        if !is_well(&held) {
            // It is closed first, for it is locked while it is open.
            *held = None;
            let open = Open::new(&self.path, false)?;
            if open.token()?.as_ref() != Some(&self.token) {
                let path = self.path.display();
                return Err(SnapshotError::Record(format!("{path} is another file than it was")));
            }
            *held = Some(open);
        }
        Ok(RwLockWriteGuard::downgrade(held))
    }

    /// Reads.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn read(&self) -> Result<Reading<'_>> {
        let held = self.held()?;
        let transaction = opened(&held)?.file.begin_read()?;
        Ok(Reading { transaction, _held: held })
    }

    /// Begins a change. Others wait until it is committed or dropped.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn change(&self) -> Result<Change<'_>> {
        let begin = || -> Result<Change<'_>> {
            let held = self.held()?;
            let open = opened(&held)?;
            // It refuses after a commit that failed in whatever way.
            let transaction = open.file.begin_write().inspect_err(|_| open.state.fail())?;
            Ok(Change { transaction, _sparing: None, _held: held })
        };
        // The change that this one waited for may have failed.
        begin().or_else(|_| begin())
    }

    /// As [`Database::change`], for one that makes room: on a disk that is full it uses what was set apart
    /// for it.
    ///
    /// # Errors
    ///
    /// As [`Database::change`].
    pub fn removal(&self) -> Result<Change<'_>> {
        let mut change = self.change()?;
        change._sparing = Some(opened(&change._held)?.state.spare());
        Ok(change)
    }
}

/// The file of a use.
fn opened<'a>(held: &'a Held<'_>) -> Result<&'a Open> {
    held.as_ref().ok_or_else(|| SnapshotError::Record("it is not open".to_owned()))
}

impl Open {
    fn new(path: &Path, make: bool) -> Result<Open> {
        let failed = |e: std::io::Error| SnapshotError::from(redb::Error::Io(e));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(make).mode(0o600);
        let file = options.open(path).map_err(failed)?;
        let state = Arc::new(State::default());
        // What a crash left is mended with what was set apart.
        let _sparing = state.spare();
        let disk = Disk::new(file, state.clone())?;
        let file = redb::Builder::new().set_cache_size(CACHE).create_with_backend(disk)?;
        Ok(Open { file, state })
    }

    /// The token; none in a file that is new. It comes together with all tables.
    fn token(&self) -> Result<Option<String>> {
        let transaction = self.file.begin_read()?;
        let about = match transaction.open_table(ABOUT) {
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            about => about?,
        };
        let token = about.get(TOKEN)?;
        Ok(token.map(|token| token.value().to_owned()))
    }

    /// Makes the tables and the token of a new file.
    fn begin(&self) -> Result<String> {
        let token = new_token()?;
        let transaction = self.file.begin_write()?;
        transaction.open_table(ROWS)?;
        transaction.open_multimap_table(CHILDREN)?;
        transaction.open_table(ABOUT)?.insert(TOKEN, token.as_str())?;
        transaction.commit()?;
        Ok(token)
    }
}

/// Tells this file's layers from those of a file that was there before it.
fn new_token() -> Result<String> {
    let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid")
        .map_err(|e| SnapshotError::Record(e.to_string()))?;
    Ok(uuid.chars().take(8).collect())
}

/// A view of all rows as they were at one moment.
pub struct Reading<'a> {
    transaction: ReadTransaction,
    /// Let go last.
    _held: Held<'a>,
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Reading<'_> {
    /// The row of a name.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`].
    pub fn row(&self, scope: &Scope, name: &str) -> Result<(Key, Row)> {
        find(&self.transaction.open_table(ROWS)?, scope, name)
    }

    /// Finds out whether the record can be read.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn probe(&self) -> Result<()> {
        self.transaction.open_table(ROWS)?.first()?;
        Ok(())
    }

    /// All rows of a scope, in the order of their names (of namespaces first, where the scope is of all).
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn list(&self, scope: &Scope) -> Result<Vec<Snapshot>> {
        check_scope(scope)?;
        let prefix = match &scope.namespace {
            Some(namespace) => format!("{}\0{namespace}\0", scope.snapshotter),
            None => format!("{}\0", scope.snapshotter),
        };
        let rows = below(&self.transaction.open_table(ROWS)?, &prefix)?;
        Ok(rows.into_iter().map(|(key, row)| Snapshot { name: key.name().to_owned(), row }).collect())
    }

    /// All rows of all scopes.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn all(&self) -> Result<Vec<(Key, Row)>> {
        below(&self.transaction.open_table(ROWS)?, "")
    }
}

/// A change under way. Dropped without a commit, nothing has changed.
pub struct Change<'a> {
    transaction: WriteTransaction,
    _sparing: Option<Sparing>,
    /// Let go last.
    _held: Held<'a>,
}

impl fmt::Debug for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Change")
    }
}

impl Change<'_> {
    /// The row of a name.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::NotFound`].
    pub fn row(&self, scope: &Scope, name: &str) -> Result<(Key, Row)> {
        find(&self.transaction.open_table(ROWS)?, scope, name)
    }

    /// The key that a new name gets. In a scope of all namespaces none of them may have it, or nobody could
    /// say which is meant.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Exists`]; [`SnapshotError::Argument`] for what cannot be a name.
    pub fn vacant(&self, scope: &Scope, name: &str) -> Result<Key> {
        check_scope(scope)?;
        check_name("a name", name)?;
        let key = Key::new(&scope.snapshotter, scope.namespace.as_deref().unwrap_or_default(), name);
        let rows = self.transaction.open_table(ROWS)?;
        let is_used = match &scope.namespace {
            Some(_) => rows.get(key.0.as_str())?.is_some(),
            None => !having(&rows, &scope.snapshotter, name)?.is_empty(),
        };
        if is_used { Err(SnapshotError::Exists(name.to_owned())) } else { Ok(key) }
    }

    /// Writes a row; a new one is noted with its parent.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn put(&self, key: &Key, row: &Row) -> Result<()> {
        let bytes = serde_json::to_vec(row).map_err(|e| SnapshotError::Record(e.to_string()))?;
        self.transaction.open_table(ROWS)?.insert(key.0.as_str(), bytes.as_slice())?;
        if let Some(parent) = &row.parent {
            let parent = key.beside(parent);
            self.transaction.open_multimap_table(CHILDREN)?.insert(parent.0.as_str(), key.name())?;
        }
        Ok(())
    }

    /// Takes a row away.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn remove(&self, key: &Key, row: &Row) -> Result<()> {
        self.transaction.open_table(ROWS)?.remove(key.0.as_str())?;
        if let Some(parent) = &row.parent {
            let parent = key.beside(parent);
            self.transaction.open_multimap_table(CHILDREN)?.remove(parent.0.as_str(), key.name())?;
        }
        Ok(())
    }

    /// A snapshot that lies on this one.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`].
    pub fn child(&self, key: &Key) -> Result<Option<String>> {
        let children = self.transaction.open_multimap_table(CHILDREN)?;
        let mut names = children.get(key.0.as_str())?;
        Ok(names.next().transpose()?.map(|name| name.value().to_owned()))
    }

    /// Makes the change last.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Record`], [`SnapshotError::Full`]; whether something has changed only reading tells
    /// then.
    pub fn commit(self) -> Result<()> {
        Ok(self.transaction.commit()?)
    }
}

/// The row of a name. A scope of all namespaces finds a name that one namespace has, and takes none of
/// several. containerd's begin with theirs, which then is the one that is meant.
fn find(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    scope: &Scope,
    name: &str,
) -> Result<(Key, Row)> {
    check_scope(scope)?;
    let get = |namespace: &str| -> Result<Option<(Key, Row)>> {
        let key = Key::new(&scope.snapshotter, namespace, name);
        match rows.get(key.0.as_str())? {
            Some(bytes) => Ok(Some((key, parse(bytes.value())?))),
            None => Ok(None),
        }
    };
    let missing = || SnapshotError::NotFound(name.to_owned());
    let Some(namespace) = &scope.namespace else {
        if let Some((first, _)) = name.split_once('/')
            && let Some(found) = get(first)?
        {
            return Ok(found);
        }
        let mut found = having(rows, &scope.snapshotter, name)?;
        if found.len() > 1 {
            let what = format!("namespace is required: several have a snapshot {name}");
            return Err(SnapshotError::Precondition(what));
        }
        return found.pop().ok_or_else(missing);
    };
    get(namespace)?.ok_or_else(missing)
}

/// The rows of a name in all namespaces.
fn having(
    rows: &impl ReadableTable<&'static str, &'static [u8]>,
    snapshotter: &str,
    name: &str,
) -> Result<Vec<(Key, Row)>> {
    let prefix = format!("{snapshotter}\0");
    let mut found = Vec::new();
    for entry in rows.range(prefix.as_str()..)? {
        let (key, row) = entry?;
        let Some((_, own)) = key.value().strip_prefix(&prefix).and_then(|rest| rest.split_once('\0')) else {
            break;
        };
        if own == name {
            found.push((Key(key.value().to_owned()), parse(row.value())?));
        }
    }
    Ok(found)
}

/// The rows whose keys begin so, in order.
fn below(rows: &impl ReadableTable<&'static str, &'static [u8]>, prefix: &str) -> Result<Vec<(Key, Row)>> {
    let mut found = Vec::new();
    for entry in rows.range(prefix..)? {
        let (key, row) = entry?;
        if !key.value().starts_with(prefix) {
            break;
        }
        found.push((Key(key.value().to_owned()), parse(row.value())?));
    }
    Ok(found)
}

fn parse(bytes: &[u8]) -> Result<Row> {
    serde_json::from_slice(bytes).map_err(|e| SnapshotError::Record(e.to_string()))
}

fn check_scope(scope: &Scope) -> Result<()> {
    let namespace = scope.namespace.as_deref().unwrap_or_default();
    let plain = |text: &str| text.len() <= LONGEST && !text.contains('\0');
    if plain(&scope.snapshotter) && plain(namespace) {
        return Ok(());
    }
    Err(SnapshotError::Argument(
        "the name of a snapshotter or a namespace is too long or holds a NUL".to_owned(),
    ))
}

/// Holds a text to what can be a name.
fn check_name(what: &str, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > LONGEST || name.contains('\0') {
        let what = format!("{what} is empty, longer than {LONGEST} bytes, or holds a NUL");
        return Err(SnapshotError::Argument(what));
    }
    Ok(())
}
