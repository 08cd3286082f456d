//! How a command line finds the service that owns a store: a symbolic link in the store's directory on the
//! tmpfs, to the socket of the service.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::Failure;

/// The name of the link.
pub(super) const NAME: &str = "service";

/// Says that the store whose directory on the tmpfs is `runtime` is owned by the service that listens at
/// `socket`. The caller owns the store.
///
/// # Errors
///
/// Those of making a symbolic link.
pub fn announce(runtime: &Path, socket: &Path) -> Result<(), Failure> {
    let link = |operation: &'static str| move |error: io::Error| Failure::io(operation, &error);
    // One that a service left behind which was killed is replaced in one step: a command line sees either.
    let new = runtime.join(format!("{NAME}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(link("unlink")(error)),
        _ => {}
    }
    std::os::unix::fs::symlink(socket, &new).map_err(link("symlink"))?;
    std::fs::rename(&new, runtime.join(NAME)).map_err(link("rename"))
}

/// Ends [`announce`](announce()). The caller still owns the store.
pub fn withdraw(runtime: &Path) {
    // A link that stays behind leads to a socket where nobody listens, which is understood.
    drop(std::fs::remove_file(runtime.join(NAME)));
}

/// The name of the store at a root, and where its service would be found, the best place first.
pub(super) fn places(root: &Path) -> Option<(String, Vec<PathBuf>)> {
    let (name, directories) = crate::store::name(root)?;
    let places = directories.into_iter().map(|directory| directory.join(NAME)).collect();
    Some((name, places))
}
