//! The files that the host writes about a store and its layers: `layerbox.json` and `meta/ID`, both JSON.

use std::io;

use cap_std::fs::{Dir, OpenOptions, OpenOptionsExt};
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use serde::{Deserialize, Serialize};

use super::files::write_atomically;
use super::maps::IdMaps;
use crate::error::Failure;

/// The version of the store's form that this program reads and writes.
const VERSION: u32 = 1;

/// Records are small: 500 ancestors of 128 bytes are some 70 KB. Anything larger is damage, and is not read
/// into memory.
const MAX_RECORD: u64 = 1 << 20;

/// `layerbox.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Format {
    /// The version of the store's form.
    version: u32,
    /// What tells this store from every other: a UUID.
    pub id: String,
    /// How deletions are written down, and by what the layers are mounted.
    backend: BackendName,
    /// Whose ids the owners of files are.
    #[serde(default, skip_serializing_if = "IdMaps::is_empty")]
    maps: IdMaps,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BackendName {
    Aufs,
    Overlay,
    OverlayUser,
}

impl From<Backend> for BackendName {
    fn from(backend: Backend) -> BackendName {
        match backend {
            Backend::Aufs => BackendName::Aufs,
            Backend::Overlay => BackendName::Overlay,
            Backend::OverlayUser => BackendName::OverlayUser,
        }
    }
}

impl From<BackendName> for Backend {
    fn from(name: BackendName) -> Backend {
        match name {
            BackendName::Aufs => Backend::Aufs,
            BackendName::Overlay => Backend::Overlay,
            BackendName::OverlayUser => Backend::OverlayUser,
        }
    }
}

impl Format {
    /// A new store's.
    pub(super) fn new(backend: Backend, maps: IdMaps) -> Result<Format, Failure> {
        let uuid =
            std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(|e| Failure::io("read", &e))?;
        Ok(Format { version: VERSION, id: uuid.trim().to_owned(), backend: backend.into(), maps })
    }

    /// That of the same store with another backend.
    pub(super) fn of(&self, backend: Backend) -> Format {
        Format { backend: backend.into(), ..self.clone() }
    }

    /// Whose ids the owners of files are.
    pub fn maps(&self) -> &IdMaps {
        &self.maps
    }

    /// By what the layers are mounted; the dialect follows from it.
    pub fn backend(&self) -> Backend {
        self.backend.into()
    }

    pub(super) fn read(dir: &Dir) -> Result<Format, Failure> {
        let bytes = read_small(dir, "layerbox.json")?
            .ok_or_else(|| Failure::Corrupt("layerbox.json is missing".to_owned()))?;
        let format: Format =
            serde_json::from_slice(&bytes).map_err(|e| Failure::Corrupt(format!("layerbox.json: {e}")))?;
        let plain = |c: char| c.is_ascii_hexdigit() || c == '-';
        if format.id.is_empty() || format.id.len() > 64 || !format.id.chars().all(plain) {
            return Err(Failure::Corrupt("layerbox.json: the id is no UUID".to_owned()));
        }
        if format.version != VERSION {
            return Err(Failure::Conflict(format!(
                "the store is of format {}, and this program knows format {VERSION}",
                format.version
            )));
        }
        Ok(format)
    }

    pub(super) fn write(&self, dir: &Dir) -> Result<(), Failure> {
        write_atomically(dir, ".", "layerbox.json", &to_json(self)?)
    }
}

/// `meta/ID`: what the host knows of a layer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The ancestors, nearest first.
    pub ancestors: Vec<LayerId>,
    /// What the layer holds, while nothing can have changed it.
    pub size: Option<Size>,
    /// Whether it was filled without being brought to the disk (`apply-diff --no-sync`): after a power cut it
    /// may not be whole.
    pub unsynced: bool,
}

/// What a layer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Names, the root not counted.
    pub entries: u64,
    /// Apparent sizes of regular files in bytes, each file once.
    pub bytes: u64,
}

/// The form of [`Record`] on disk, where ids are still text.
#[derive(Serialize, Deserialize)]
struct Written {
    ancestors: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<Size>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    unsynced: bool,
}

impl Record {
    pub(super) fn read(dir: &Dir, id: &LayerId) -> Result<Option<Record>, Failure> {
        let path = format!("meta/{id}");
        let corrupt = |what: String| Failure::Corrupt(format!("{path}: {what}"));
        let Some(bytes) = read_small(dir, &path)? else { return Ok(None) };
        let written: Written = serde_json::from_slice(&bytes).map_err(|e| corrupt(e.to_string()))?;
        let mut ancestors = Vec::with_capacity(written.ancestors.len());
        for ancestor in &written.ancestors {
            ancestors.push(LayerId::new(ancestor).map_err(|e| corrupt(e.to_string()))?);
        }
        if ancestors.contains(id) {
            return Err(corrupt("the layer is its own ancestor".to_owned()));
        }
        Ok(Some(Record { ancestors, size: written.size, unsynced: written.unsynced }))
    }

    pub(super) fn write(&self, dir: &Dir, id: &LayerId) -> Result<(), Failure> {
        let written = Written {
            ancestors: self.ancestors.iter().map(|id| id.as_str().to_owned()).collect(),
            size: self.size,
            unsynced: self.unsynced,
        };
        write_atomically(dir, "meta", id.as_str(), &to_json(&written)?)
    }
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let mut bytes = serde_json::to_vec(value).map_err(|e| Failure::Corrupt(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Reads a small regular file of the store; none where it is missing.
///
/// Anything else in its place is damage, and is not waited for: the open of a FIFO would last until somebody
/// writes to it.
pub(super) fn read_small(dir: &Dir, path: &str) -> Result<Option<Vec<u8>>, Failure> {
    use io::Read;
    let not_regular = || Failure::Corrupt(format!("{path}: it is not a regular file"));
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOFOLLOW;
    let options = OpenOptions::new().read(true).custom_flags(flags.bits()).clone();
    let file = match dir.open_with(path, &options) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        // A link and a socket do not even open.
        Err(_) if dir.symlink_metadata(path).is_ok_and(|found| !found.is_file()) => return Err(not_regular()),
        Err(e) => return Err(Failure::io("open", &e)),
    };
    if !file.metadata().map_err(|e| Failure::io("stat", &e))?.is_file() {
        return Err(not_regular());
    }
    let mut bytes = Vec::new();
    file.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(|e| Failure::io("read", &e))?;
    if bytes.len() as u64 > MAX_RECORD {
        return Err(Failure::Corrupt(format!("{path} is larger than {MAX_RECORD} bytes")));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn what_is_no_regular_file_is_told_at_once() {
        type Put = fn(&Path);
        let rows: [(&str, Put); 5] = [
            ("a FIFO", |path| nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap()),
            ("a directory", |path| std::fs::create_dir(path).unwrap()),
            ("a link to a file", |path| symlink("../other", path).unwrap()),
            ("a link out of the store", |path| symlink("/etc/passwd", path).unwrap()),
            ("a socket", |path| drop(UnixListener::bind(path).unwrap())),
        ];
        let root = std::env::temp_dir().join(format!("layerbox-record-{}", std::process::id()));
        let id = LayerId::new("a").unwrap();
        for (what, put) in rows {
            std::fs::create_dir_all(root.join("meta")).unwrap();
            std::fs::write(root.join("other"), "{}").unwrap();
            put(&root.join("layerbox.json"));
            put(&root.join("meta/a"));
            let dir = Dir::open_ambient_dir(&root, cap_std::ambient_authority()).unwrap();
            let answers = [Format::read(&dir).map(drop), Record::read(&dir, &id).map(drop)];
            for (answer, name) in answers.into_iter().zip(["layerbox.json", "meta/a"]) {
                let expected = Failure::Corrupt(format!("{name}: it is not a regular file"));
                assert_eq!(answer, Err(expected), "{what}");
            }
            std::fs::remove_dir_all(&root).unwrap();
        }
    }
}
