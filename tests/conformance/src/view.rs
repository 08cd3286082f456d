//! Reading a real directory into a tree of the model.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use rustix::io::Errno;

use crate::model::{Node, Tree, What};
use crate::subject::{Dialect, Store};
use crate::tar::{Time, WHITEOUT, Xattrs, join};

/// All that is in a directory, through whatever is mounted there.
///
/// # Errors
/// Those of reading.
pub fn tree(root: &Path) -> io::Result<Tree> {
    let mut names = BTreeMap::new();
    let mut open = vec![Vec::new()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(at(root, &directory))? {
            let name = join(&directory, entry?.file_name().as_bytes());
            let node = match node(&at(root, &name)) {
                Ok(node) => node,
                // overlayfs lists a whiteout in a directory that no lower layer has, and says at once that
                // nothing is there.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if node.is_directory() {
                open.push(name.clone());
            }
            names.insert(name, node);
        }
    }
    Ok(Tree { root: node(root)?, names })
}

/// What a store shows of a layer at the place that `get` answered. A layer that lies on nothing, or on
/// nothing that can be seen, is shown where it lies: there its marks lie, too, and say nothing.
///
/// # Errors
/// Those of reading.
pub fn shown(store: &dyn Store, id: &str, place: &Path, dialect: Dialect) -> io::Result<Tree> {
    let mut tree = tree(place)?;
    if place == store.content_path(id) {
        tree.names.retain(|name, node| match dialect {
            Dialect::Overlay => node.what != What::Character(0, 0),
            Dialect::Aufs => {
                !name.split(|&byte| byte == b'/').any(|component| component.starts_with(WHITEOUT))
            }
        });
    }
    Ok(tree)
}

/// The path of a name below a directory.
pub fn at(root: &Path, name: &[u8]) -> std::path::PathBuf {
    root.join(OsString::from_vec(name.to_vec()))
}

/// What is at a path, without following it.
///
/// # Errors
/// Those of looking and reading.
pub fn node(path: &Path) -> io::Result<Node> {
    let found = fs::symlink_metadata(path)?;
    let kind = found.file_type();
    let device = || {
        let number = found.rdev();
        (rustix::fs::major(number), rustix::fs::minor(number))
    };
    let what = if kind.is_dir() {
        What::Directory
    } else if kind.is_symlink() {
        What::Symlink(fs::read_link(path)?.into_os_string().into_vec())
    } else if kind.is_file() {
        What::File(fs::read(path)?)
    } else if kind.is_char_device() {
        let (major, minor) = device();
        What::Character(major, minor)
    } else if kind.is_block_device() {
        let (major, minor) = device();
        What::Block(major, minor)
    } else if kind.is_fifo() {
        What::Fifo
    } else {
        What::Socket
    };
    let mtime = Time { seconds: found.mtime(), nanoseconds: found.mtime_nsec() as u32 };
    Ok(Node {
        what,
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime,
        xattrs: xattrs(path)?,
    })
}

/// The extended attributes, without those that unions and security modules keep for themselves.
fn xattrs(path: &Path) -> io::Result<Xattrs> {
    let mut names = vec![0; 1024];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Err(Errno::RANGE) => {
            names.resize(64 * 1024, 0);
            rustix::fs::llistxattr(path, &mut names[..])?
        }
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let mut xattrs = Xattrs::new();
    for name in names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let own: [&[u8]; 4] = [b"trusted.overlay.", b"user.overlay.", b"security.selinux", b"system."];
        if own.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let length = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(length);
        xattrs.insert(name.to_vec(), value);
    }
    Ok(xattrs)
}
