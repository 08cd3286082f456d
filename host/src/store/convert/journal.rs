//! `convert.json`: which conversion is under way, and the times of the directories that are being changed.
//!
//! To change what is in a directory changes its time, which is a part of the layer. So the times are on
//! record before, for as many directories at a time as make a file of some size, and are set again after:
//! when a conversion is gone on with, those of the directories that it was cut off in.

use std::io::{self, Read};

use cap_std::fs::Dir;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use serde::{Deserialize, Serialize};

use super::super::files::write_atomically;
use super::super::record::BackendName;
use crate::error::Failure;

/// Its name in the root.
pub(in super::super) const FILE: &str = "convert.json";

/// The name under which it is written.
pub(in super::super) const TEMPORARY: &str = ".convert.json.tmp";

/// About the most bytes of paths in one batch. A path can be longer than that, and is then alone.
const BATCH: usize = 128 * 1024;

/// The longest journal that is read: a path of the deepest directory takes two megabytes.
const LONGEST: u64 = 64 << 20;

/// A conversion that is under way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    from: BackendName,
    to: BackendName,
    /// The identity of the store.
    id: String,
    /// How many deletions were rewritten before this batch.
    deletions: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    batch: Option<Batch>,
}

/// Directories of one layer that are changed together.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Batch {
    layer: String,
    deletions: u64,
    directories: Vec<Directory>,
    #[serde(skip)]
    bytes: usize,
}

/// A time in seconds and nanoseconds.
pub(super) type Time = (i64, i64);

/// A directory and its time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Directory {
    /// Below the layer, in hexadecimal: it is bytes.
    path: String,
    seconds: i64,
    nanoseconds: i64,
}

impl Journal {
    pub(super) fn new(id: &str, from: Backend, to: Backend) -> Journal {
        Journal { from: from.into(), to: to.into(), id: id.to_owned(), deletions: 0, batch: None }
    }

    /// None where no conversion is under way.
    pub(super) fn read(dir: &Dir) -> Result<Option<Journal>, Failure> {
        let corrupt = |what: String| Failure::Corrupt(format!("{FILE}: {what}"));
        let file = match dir.open(FILE) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|e| Failure::io("open", &e))?,
        };
        let mut bytes = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|e| Failure::io("read", &e))?;
        if bytes.len() as u64 > LONGEST {
            return Err(corrupt(format!("it is larger than {LONGEST} bytes")));
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|e| corrupt(e.to_string()))
    }

    /// Brings it to the disk.
    pub(super) fn write(&self, dir: &Dir) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(self).map_err(|e| Failure::Corrupt(e.to_string()))?;
        write_atomically(dir, ".", FILE, &bytes)
    }

    pub(super) fn direction(&self) -> (Backend, Backend) {
        (self.from.into(), self.to.into())
    }

    /// The same conversion in this direction. Where that is the other one, what was rewritten does not count;
    /// the times do.
    pub(super) fn towards(mut self, from: Backend, to: Backend) -> Journal {
        if self.direction() != (from, to) {
            (self.from, self.to) = (from.into(), to.into());
            self.deletions = 0;
            if let Some(batch) = &mut self.batch {
                batch.deletions = 0;
            }
        }
        self
    }

    /// Holds it to be of the store with this identity.
    pub(super) fn require(&self, id: &str) -> Result<(), Failure> {
        if self.id == id {
            return Ok(());
        }
        Err(Failure::Corrupt(format!("{FILE} is that of another store")))
    }

    /// What was begun last.
    pub(super) fn batch(&self) -> Option<&Batch> {
        self.batch.as_ref()
    }

    /// Goes on to the next batch; that of before is done.
    pub(super) fn next(&mut self, batch: Batch) {
        self.deletions = self.deletions();
        self.batch = Some(batch);
    }

    /// How many deletions were rewritten, those of the last batch with them.
    pub(super) fn deletions(&self) -> u64 {
        self.deletions + self.batch.as_ref().map_or(0, |batch| batch.deletions)
    }
}

impl Batch {
    pub(super) fn new(layer: &LayerId) -> Batch {
        Batch { layer: layer.as_str().to_owned(), deletions: 0, directories: Vec::new(), bytes: 0 }
    }

    /// Adds a directory, its time, and how many deletions in it are to be rewritten.
    pub(super) fn add(&mut self, path: &[u8], (seconds, nanoseconds): Time, deletions: u64) {
        self.bytes += path.len() + 64;
        self.deletions += deletions;
        let path = path.iter().map(|byte| format!("{byte:02x}")).collect();
        self.directories.push(Directory { path, seconds, nanoseconds });
    }

    pub(super) fn is_full(&self) -> bool {
        self.bytes >= BATCH
    }

    pub(super) fn layer(&self) -> Result<LayerId, Failure> {
        LayerId::new(&self.layer).map_err(|e| Failure::Corrupt(format!("{FILE}: {e}")))
    }

    /// The directories, each with its time.
    pub(super) fn directories(&self) -> Result<Vec<(Vec<u8>, Time)>, Failure> {
        let bytes = |text: &str| {
            let digits = text.as_bytes().chunks(2);
            digits
                .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<Vec<u8>>>()
                .ok_or_else(|| Failure::Corrupt(format!("{FILE}: a path is not in hexadecimal")))
        };
        self.directories
            .iter()
            .map(|directory| Ok((bytes(&directory.path)?, (directory.seconds, directory.nanoseconds))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let place = std::env::temp_dir().join(format!("layerbox-journal-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let dir = Dir::open_ambient_dir(&place, cap_std::ambient_authority()).unwrap();
        assert!(Journal::read(&dir).unwrap().is_none());
        let mut journal = Journal::new("0-1", Backend::Aufs, Backend::OverlayUser);
        let mut batch = Batch::new(&LayerId::new("a").unwrap());
        batch.add(b"", (-1, 999_999_999), 2);
        batch.add(b"d\xff/\n", (1, 0), 3);
        journal.next(batch);
        journal.write(&dir).unwrap();

        let read = Journal::read(&dir).unwrap().unwrap();
        assert_eq!(read.direction(), (Backend::Aufs, Backend::OverlayUser));
        assert_eq!(read.deletions(), 5);
        assert!(read.require("0-1").is_ok() && read.require("0-2").is_err());
        let batch = read.batch().unwrap();
        assert_eq!(batch.layer().unwrap().as_str(), "a");
        let directories = vec![(Vec::new(), (-1, 999_999_999)), (b"d\xff/\n".to_vec(), (1, 0))];
        assert_eq!(batch.directories().unwrap(), directories);

        let turned = read.towards(Backend::OverlayUser, Backend::Aufs);
        assert_eq!(turned.direction(), (Backend::OverlayUser, Backend::Aufs));
        assert_eq!(turned.deletions(), 0);
        assert_eq!(turned.batch().unwrap().directories().unwrap(), directories);
        for text in ["", "{", "{\"from\":\"zfs\",\"to\":\"aufs\",\"id\":\"\",\"deletions\":0}"] {
            std::fs::write(place.join(FILE), text).unwrap();
            assert!(matches!(Journal::read(&dir), Err(Failure::Corrupt(_))), "{text}");
        }
        std::fs::remove_dir_all(place).unwrap();
    }

    #[test]
    fn a_batch_ends_before_the_journal_is_too_long() {
        let mut batch = Batch::new(&LayerId::new("a").unwrap());
        let mut count = 0;
        while !batch.is_full() {
            batch.add(&[b'x'; 200], (0, 0), 0);
            count += 1;
        }
        assert!((100..10_000).contains(&count), "{count}");
    }
}
