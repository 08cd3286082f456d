//! `layers/`: which layers there are, and what each of them lies on.
//!
//! One file a layer, as Docker's aufs driver has it: the file's name is the layer's id, its text the
//! ancestors, nearest first, a line each; the file of a base layer is empty. It is read through plain
//! `std::fs`, which in the component means WASI and the one directory that was opened for it. A record that
//! is not exactly of this form is [`Error::Corrupt`]: a guess here would show one layer's files in another.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use crate::error;
use crate::host::{Error, Layer, Result};

/// The longest record that is read, in bytes.
const MAX_RECORD: u64 = 1 << 20;

/// The most ancestors that a record may list: eight times what any union takes today.
const MAX_ANCESTORS: usize = 4096;

/// How often the directory is read anew because a record in it went away while it was read.
const ATTEMPTS: u32 = 1000;

/// The longest id, in bytes.
const MAX_ID: usize = 128;

/// The identity of a layer: 1 to 128 bytes of `A-Z a-z 0-9 _ . -`, the first a letter or a digit, not ending
/// in `-removing` (Docker's driver leaves directories of that form behind). So it is never a path, an option
/// or a temporary name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

impl LayerId {
    /// Checks the grammar.
    ///
    /// # Errors
    /// [`Error::InvalidId`].
    pub fn parse(text: &str) -> Result<Self> {
        let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let is_id = text.len() <= MAX_ID
            && text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
            && text.bytes().all(is_inner)
            && !text.ends_with("-removing");
        if is_id { Ok(Self(text.to_owned())) } else { Err(Error::InvalidId(text.to_owned())) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> Self {
        id.0
    }
}

/// The records of a store.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// The records in a directory: `/layers` in the component.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Whether there is such a layer.
    ///
    /// # Errors
    /// [`Error::Corrupt`] where something other than a file has its name.
    pub fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    /// The ancestors of a layer, nearest first.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Corrupt`] for a damaged record.
    pub fn ancestors(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let path = self.find(id)?.ok_or_else(|| Error::NotFound(id.0.clone()))?;
        let mut text = Vec::new();
        File::open(path).and_then(|file| file.take(MAX_RECORD + 1).read_to_end(&mut text)).map_err(
            |failure| match failure.kind() {
                // It was there a moment ago, and another call has removed it.
                ErrorKind::NotFound => Error::NotFound(id.0.clone()),
                _ => error::io(None, "read", &failure),
            },
        )?;
        parse(id, &text)
    }

    /// The layer and its ancestors, uppermost first: the order in which they hide each other.
    ///
    /// # Errors
    /// As [`Self::ancestors`].
    pub fn stack(&self, id: &LayerId) -> Result<Vec<LayerId>> {
        let mut stack = self.ancestors(id)?;
        stack.insert(0, id.clone());
        Ok(stack)
    }

    /// What is known of one layer.
    ///
    /// # Errors
    /// As [`Self::ancestors`].
    pub fn layer(&self, id: &LayerId) -> Result<Layer> {
        let ancestors = self.ancestors(id)?.into_iter().map(String::from).collect();
        Ok(Layer { id: id.0.clone(), ancestors })
    }

    /// All layers, in the order of their ids. Other calls may remove layers meanwhile: what has gone is left
    /// out.
    ///
    /// # Errors
    /// [`Error::Corrupt`] for a damaged record.
    pub fn all(&self) -> Result<Vec<Layer>> {
        self.each()?.collect()
    }

    /// A layer whose parent is this one, if there is any.
    ///
    /// # Errors
    /// As [`Self::all`].
    pub fn child(&self, parent: &LayerId) -> Result<Option<String>> {
        for layer in self.each()? {
            let layer = layer?;
            if layer.ancestors.first() == Some(&parent.0) {
                return Ok(Some(layer.id));
            }
        }
        Ok(None)
    }

    /// The layers one by one, each read when its turn comes; without those that have gone by then.
    fn each(&self) -> Result<impl Iterator<Item = Result<Layer>> + '_> {
        let found = self.ids()?.into_iter().map(|id| self.layer(&id));
        Ok(found.filter(|layer| !matches!(layer, Err(Error::NotFound(_)))))
    }

    /// The names in the directory that are ids. What is there and is not named as a layer is, is none:
    /// temporary files, and what Docker's driver was removing when it was stopped.
    fn ids(&self) -> Result<Vec<LayerId>> {
        for _ in 0..ATTEMPTS {
            let entries =
                fs::read_dir(&self.directory).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
            match entries {
                Ok(entries) => {
                    let id = |entry: fs::DirEntry| LayerId::parse(entry.file_name().to_str()?).ok();
                    let mut ids: Vec<LayerId> = entries.into_iter().filter_map(id).collect();
                    ids.sort_unstable();
                    return Ok(ids);
                }
                // WASI looks at what each name stands for, and fails where that has gone since the name was
                // read. Which of the two calls tells it depends on the version of the standard library.
                Err(failure) if failure.kind() == ErrorKind::NotFound => {}
                Err(failure) => return Err(error::io(None, "readdir", &failure)),
            }
        }
        Err(Error::Busy("layers/ changes faster than it can be read".to_owned()))
    }

    /// Writes a record: first under another name, then, once its bytes are on the disk, under its own.
    /// Whoever looks sees all of it or nothing, whenever the power goes. The new name itself is brought to
    /// the disk by the host: not every WASI can sync a directory.
    ///
    /// # Errors
    /// Those of the file system; nothing is left behind then.
    pub fn create(&self, id: &LayerId, ancestors: &[LayerId]) -> Result<()> {
        let text: String = ancestors.iter().flat_map(|ancestor| [ancestor.as_str(), "\n"]).collect();
        let temporary = self.directory.join(format!(".{}.tmp", id.0));
        let written = write_synced(&temporary, text.as_bytes()).and_then(|()| {
            fs::rename(&temporary, self.path(id)).map_err(|failure| error::io(None, "rename", &failure))
        });
        if let Err(failure) = written {
            // What failed is told; that the half-written file could not be removed as well adds nothing to
            // it, and the next attempt overwrites it.
            let _ = fs::remove_file(&temporary);
            return Err(failure);
        }
        Ok(())
    }

    /// Removes a record.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn remove(&self, id: &LayerId) -> Result<()> {
        fs::remove_file(self.path(id)).map_err(|failure| error::io(None, "unlink", &failure))
    }

    fn path(&self, id: &LayerId) -> PathBuf {
        self.directory.join(&id.0)
    }

    /// Where the record of a layer is, if there is one.
    fn find(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let path = self.path(id);
        // Not through a link: its target would be the record of another layer.
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(path)),
            Ok(_) => Err(corrupt(id, "is not a regular file")),
            Err(failure) if failure.kind() == ErrorKind::NotFound => Ok(None),
            Err(failure) => Err(error::io(None, "stat", &failure)),
        }
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let open = || OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = match open() {
        // Left by a write that was cut off. It is not written through: should it be a link, that would be
        // another layer's record.
        Err(failure) if failure.kind() == ErrorKind::AlreadyExists => {
            fs::remove_file(path).and_then(|()| open())
        }
        other => other,
    }
    .map_err(|failure| error::io(None, "open", &failure))?;
    file.write_all(bytes).map_err(|failure| error::io(None, "write", &failure))?;
    file.sync_all().map_err(|failure| error::io(None, "fsync", &failure))
}

/// Reads a record's text.
fn parse(id: &LayerId, text: &[u8]) -> Result<Vec<LayerId>> {
    if text.len() as u64 > MAX_RECORD {
        return Err(corrupt(id, "is larger than 1 MiB"));
    }
    let Ok(text) = str::from_utf8(text) else {
        return Err(corrupt(id, "is not text"));
    };
    if !text.is_empty() && !text.ends_with('\n') {
        return Err(corrupt(id, "is cut off in a line"));
    }
    let mut ancestors = Vec::new();
    for line in text.split_terminator('\n') {
        let Ok(ancestor) = LayerId::parse(line) else {
            return Err(corrupt(id, "has a line that is not a layer id"));
        };
        if ancestor == *id {
            return Err(corrupt(id, "lists the layer among its own ancestors"));
        }
        if ancestors.len() == MAX_ANCESTORS {
            return Err(corrupt(id, "lists more than 4096 ancestors"));
        }
        ancestors.push(ancestor);
    }
    let mut sorted: Vec<_> = ancestors.iter().collect();
    sorted.sort_unstable();
    if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(corrupt(id, "lists an ancestor twice"));
    }
    Ok(ancestors)
}

fn corrupt(id: &LayerId, how: &str) -> Error {
    Error::Corrupt(format!("layers/{} {how}", id.0))
}
