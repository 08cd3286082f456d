//! Directories in memory for one input at a time, and the oracle beside them.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use layerbox_tests::tree::{Except, Tree, picture, same};

/// What only the victim has. No input holds it.
pub(crate) const SECRET: &[u8] = b"what nobody else should see: 7f3a9c52e1d84b06";

/// Runs `body` in an empty directory, which is emptied afterwards. The directories themselves are kept: one
/// for each name and thread.
pub(crate) fn with<R>(name: &'static str, body: impl FnOnce(&Path) -> R) -> R {
    thread_local! { static PLACES: RefCell<HashMap<&'static str, Place>> = RefCell::default(); }
    PLACES.with_borrow_mut(|places| {
        let place = places.entry(name).or_insert_with(Place::new);
        place.empty();
        let result = body(&place.0);
        place.empty();
        result
    })
}

struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // Extended attributes and devices are wanted, a disk is not.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("layerbox-fuzz-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::DirBuilder::new().mode(0o700).create(&path).expect("a directory for the scratch");
        Place(path)
    }

    fn empty(&self) {
        for entry in fs::read_dir(&self.0).expect("the scratch") {
            let path = entry.expect("the scratch").path();
            if path.is_dir() && !path.is_symlink() {
                let dir = fs::File::open(&self.0).expect("the scratch");
                // The standard library's own takes a path, and a layer can be deeper than one can say.
                let name = path.file_name().expect("a name");
                layerbox_privileged::delete_tree(std::os::fd::AsFd::as_fd(&dir), name)
                    .expect("it can be deleted");
            } else {
                fs::remove_file(&path).expect("the scratch");
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Everything that nobody may change or read: pictures, with the numbers that a picture leaves out.
#[derive(Debug)]
pub(crate) struct Watched {
    trees: Vec<(PathBuf, Tree, Vec<Numbers>)>,
}

/// Inode, number of names, and time of the last change of anything.
type Numbers = (u64, u64, i64, i64);

impl Watched {
    /// Makes a victim of a directory: a file with the secret, a link to it, a directory.
    pub(crate) fn victim(path: &Path) {
        fs::create_dir_all(path.join("d")).expect("a directory of the scratch");
        fs::write(path.join("hello"), SECRET).expect("write");
        fs::set_permissions(path.join("hello"), fs::Permissions::from_mode(0o600)).expect("chmod");
        symlink("hello", path.join("l")).expect("symlink");
    }

    /// Remembers how it is.
    pub(crate) fn new(paths: &[PathBuf]) -> Watched {
        let look = |path: &PathBuf| (path.clone(), picture(path).expect("a picture"), numbers(path));
        Watched { trees: paths.iter().map(look).collect() }
    }

    /// Panics unless all is as it was.
    pub(crate) fn is_unchanged(&self) {
        for (path, tree, before) in &self.trees {
            let now = picture(path).unwrap_or_else(|error| panic!("{}: {error:#}", path.display()));
            same(tree, &now, Except::default()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(*before, numbers(path), "{}: written to", path.display());
        }
    }
}

fn numbers(path: &Path) -> Vec<Numbers> {
    let mut paths = vec![path.to_owned()];
    let entries = fs::read_dir(path).expect("a directory of the scratch");
    paths.extend(entries.map(|entry| entry.expect("an entry").path()));
    paths.sort();
    let look = |path: &PathBuf| {
        let it = fs::symlink_metadata(path).expect("stat");
        (it.ino(), it.nlink(), it.ctime(), it.ctime_nsec())
    };
    paths.iter().map(look).collect()
}

/// Whether bytes hold the secret.
pub(crate) fn tells(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}
