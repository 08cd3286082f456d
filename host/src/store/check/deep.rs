//! What is in the layers: whether the size on record is that of the files, and whether deletions are written in the form of the store's backend.
//!
//! The component alone knows what a layer means. Of deletions the host knows here what their names and numbers are, so that a store in which the two
//! forms are mixed (copied from elsewhere, or mounted by another program) is found: the union would show the marks as files, and what they delete as well.

use std::collections::BTreeSet;
use std::io;

use cap_std::fs::{Dir, FileTypeExt, Metadata, MetadataExt};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags};

use super::mend::Repair;
use super::{Records, Search};
use crate::error::{Escaped, Failure};

/// The mark that hides all that lies below a directory, in the aufs form.
const OPAQUE: &str = ".wh..wh..opq";

/// A deletion in the form of the other backend.
#[derive(Debug)]
pub(super) struct Deletion {
    /// The directory that it is in.
    directory: Dir,
    /// The mark as it is: `.wh.NAME`, `.wh..wh..opq`, or the name of a 0/0 device; empty for the directory's own attribute.
    name: std::ffi::OsString,
}

/// What was counted of a layer.
#[derive(Default)]
struct Counted {
    bytes: u64,
    /// Files of several names that were counted.
    linked: BTreeSet<(u64, u64)>,
}

impl Search<'_> {
    /// Looks into every layer that nobody can change meanwhile.
    pub(super) fn content(&mut self, records: &Records) -> Result<(), Failure> {
        for (id, record) in records {
            // Its directory may be missing or something else: that is found elsewhere.
            if self.unions.mounted(id)? || !self.store.is_directory(&format!("diff/{id}"))? {
                continue;
            }
            let top = self.store.dir.open_dir(format!("diff/{id}")).map_err(|e| Failure::io("open", &e))?;
            let mut counted = Counted::default();
            self.walk(id, top, &mut counted)?;
            if let Some(size) = record.size.filter(|size| size.bytes != counted.bytes) {
                let unsynced = if record.unsynced { "; it was applied without sync" } else { "" };
                let what = format!(
                    "its files have {} bytes, and {} are on record{unsynced}",
                    counted.bytes, size.bytes
                );
                self.add(format!("meta/{id}"), what, Repair::ForgetSize(id.clone(), record.clone()));
            }
        }
        Ok(())
    }

    fn walk(&mut self, id: &LayerId, top: Dir, counted: &mut Counted) -> Result<(), Failure> {
        let backend = self.store.format().backend();
        let mut directories = vec![(top, format!("diff/{id}"))];
        while let Some((directory, place)) = directories.pop() {
            if backend == Backend::Aufs && is_opaque(&directory) {
                let what = "everything below is hidden in overlay's form";
                let deletion = Deletion { directory: again(&directory)?, name: "".into() };
                self.add(place.clone(), what, Repair::Translate(deletion));
            }
            for entry in directory.entries().map_err(|e| Failure::io("getdents", &e))? {
                let entry = entry.map_err(|e| Failure::io("getdents", &e))?;
                let name = entry.file_name();
                let found = directory.symlink_metadata(&name).map_err(|e| Failure::io("stat", &e))?;
                let shown = format!("{place}/{}", Escaped(name.as_encoded_bytes()));
                if is_foreign(backend, &name, &found) {
                    let form = if backend == Backend::Aufs { "overlay's" } else { "aufs'" };
                    let deletion = Deletion { directory: again(&directory)?, name };
                    self.add(shown, format!("a deletion in {form} form"), Repair::Translate(deletion));
                } else if found.is_dir() {
                    let inner = directory.open_dir(&name).map_err(|e| Failure::io("open", &e))?;
                    directories.push((inner, shown));
                } else if found.is_file() && !name.as_encoded_bytes().starts_with(b".wh.") {
                    let first = found.nlink() < 2 || counted.linked.insert((found.dev(), found.ino()));
                    counted.bytes += if first { found.len() } else { 0 };
                }
            }
        }
        Ok(())
    }
}

/// Whether it is a deletion in the form of the other backend.
fn is_foreign(backend: Backend, name: &std::ffi::OsStr, found: &Metadata) -> bool {
    match backend {
        Backend::Aufs => found.file_type().is_char_device() && found.rdev() == 0,
        Backend::Overlay | Backend::OverlayUser => name.as_encoded_bytes().starts_with(b".wh."),
    }
}

fn is_opaque(directory: &Dir) -> bool {
    let mut value = [0; 1];
    let mut read = || rustix::fs::fgetxattr(readable(directory)?, "trusted.overlay.opaque", &mut value);
    read().is_ok_and(|length| length == 1) && value == *b"y"
}

/// A `Dir` is a descriptor of a path, of which attributes cannot be read.
fn readable(directory: &Dir) -> rustix::io::Result<std::os::fd::OwnedFd> {
    rustix::fs::openat(directory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn again(directory: &Dir) -> Result<Dir, Failure> {
    directory.try_clone().map_err(|e| Failure::io("dup", &e))
}

impl Deletion {
    /// Writes the deletion in the form of `backend`, then takes the other one away.
    pub(super) fn translate(&self, backend: Backend) -> Result<(), Failure> {
        match backend {
            Backend::Aufs => self.to_aufs(),
            Backend::Overlay => self.to_overlay("trusted.overlay.opaque"),
            Backend::OverlayUser => self.to_overlay("user.overlay.opaque"),
        }
    }

    fn to_aufs(&self) -> Result<(), Failure> {
        let opaque = self.name.is_empty();
        let mut mark = std::ffi::OsString::from(if opaque { OPAQUE } else { ".wh." });
        mark.push(&self.name);
        let made =
            self.directory.open_with(mark, cap_std::fs::OpenOptions::new().write(true).create_new(true));
        match made {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(Failure::io("open", &e)),
            _ => {}
        }
        if opaque {
            let directory = readable(&self.directory).map_err(|e| Failure::io("open", &e.into()))?;
            return rustix::fs::fremovexattr(directory, "trusted.overlay.opaque")
                .map_err(|e| Failure::io("fremovexattr", &e.into()));
        }
        self.directory.remove_file(&self.name).map_err(|e| Failure::io("unlink", &e))
    }

    fn to_overlay(&self, attribute: &str) -> Result<(), Failure> {
        let bytes = self.name.as_encoded_bytes();
        let hidden = bytes.strip_prefix(b".wh.").unwrap_or_default();
        if bytes == OPAQUE.as_bytes() {
            let directory = readable(&self.directory).map_err(|e| Failure::io("open", &e.into()))?;
            rustix::fs::fsetxattr(directory, attribute, b"y", XattrFlags::empty())
                .map_err(|e| Failure::io("fsetxattr", &e.into()))?;
        } else if !hidden.starts_with(b".wh.") && !hidden.is_empty() {
            use std::os::unix::ffi::OsStrExt;
            let hidden = std::ffi::OsStr::from_bytes(hidden);
            let device = rustix::fs::mknodat(
                &self.directory,
                hidden,
                rustix::fs::FileType::CharacterDevice,
                Mode::empty(),
                0,
            );
            match device {
                // What the layer holds itself it does not delete.
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(Failure::io("mknodat", &e.into())),
            }
        }
        // The rest is aufs' own bookkeeping (`.wh..wh.aufs`, `.wh..wh.plnk/`, `.wh..wh.orph/`), which says nothing of the layer.
        match rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) => {
                layerbox_privileged::layer::delete_tree(
                    std::os::fd::AsFd::as_fd(&self.directory),
                    &self.name,
                )?;
                Ok(())
            }
            other => other.map_err(|e| Failure::io("unlinkat", &e.into())),
        }
    }
}
