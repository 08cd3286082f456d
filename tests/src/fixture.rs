//! What takes long to make and is kept from run to run, in `target/fixtures`.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::command::{repository, shell};
use crate::harness::has_tool;

/// A Debian minbase root as an archive, made by debootstrap at the first call; none where that cannot be
/// done, and why is printed.
///
/// # Errors
///
/// The directory cannot be made.
pub fn debian_root() -> Result<Option<PathBuf>> {
    let directory = repository().join("target/fixtures");
    fs::create_dir_all(&directory)?;
    let archive = directory.join("minbase.tar");
    if archive.exists() {
        return Ok(Some(archive));
    }
    if !has_tool("debootstrap") {
        return Ok(None);
    }
    // Two processes may want it at once.
    let script = "
        exec 9>\"$1.lock\"; flock 9; [ ! -e \"$1\" ] || exit 0
        work=$(mktemp -d); trap 'rm -rf --one-file-system \"$work\"' EXIT
        debootstrap --variant=minbase bookworm \"$work/root\" >\"$work/log\" 2>&1 || { tail -3 \"$work/log\" >&2; exit 1; }
        rm -rf \"$work\"/root/var/cache/apt/archives/*.deb
        tar --format=pax --xattrs --xattrs-include='*' --numeric-owner -C \"$work/root\" -cf \"$1.new\" .
        mv \"$1.new\" \"$1\"
    ";
    match shell(script, [archive.as_path()]) {
        Ok(_) => Ok(Some(archive)),
        Err(error) => {
            println!("         debootstrap failed: {error:#}");
            Ok(None)
        }
    }
}
