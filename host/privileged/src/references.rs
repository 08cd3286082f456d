//! How many users each mounted layer has.
//!
//! One small file an id on a tmpfs, replaced by rename or written over at once: a process that is killed loses no count, and the machine's
//! restart, which ends every mount, ends them as well. Callers hold a lock of their own per layer.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use crate::{Error, LayerId};

/// The reference counts of one store.
#[derive(Debug)]
pub struct References {
    counts: PathBuf,
    /// Where a count is written before it is renamed: of the same name as its layer, so what a killed process left
    /// is overwritten by the next.
    drafts: PathBuf,
}

impl References {
    /// Opens the counts in `dir`, a directory of this store's own on a tmpfs; makes what is missing (mode 0700).
    pub fn new(dir: &Path) -> Result<References, Error> {
        let references = References { counts: dir.join("references"), drafts: dir.join("references.new") };
        for made in [&references.counts, &references.drafts] {
            let mut builder = DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(made)
                .map_err(Error::io("make the reference directory"))?;
        }
        Ok(references)
    }

    /// The count; 0 for a layer that nobody uses. [`Error::Conflict`] where the file holds no count.
    pub fn count(&self, id: &LayerId) -> Result<u32, Error> {
        match File::open(self.counts.join(id.as_str())) {
            Ok(file) => read(&file, id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(Error::io("read the reference count")(error)),
        }
    }

    /// Adds one and answers the new count.
    pub fn acquire(&self, id: &LayerId) -> Result<u32, Error> {
        let count = self.count(id)?.checked_add(1);
        let count = count.ok_or_else(|| Error::Conflict(format!("layer {id} has too many users")))?;
        self.write(id, count)
    }

    /// As [`References::acquire`], where that is a matter of writing over a count; none, with nothing changed, where it is not.
    pub fn acquire_more(&self, id: &LayerId) -> Result<Option<u32>, Error> {
        self.write_over(id, |count| count.checked_add(1))
    }

    /// As [`References::release`], where that is a matter of writing over a count: some are left then. None, with nothing changed, where it is not.
    pub fn release_one_of_many(&self, id: &LayerId) -> Result<Option<u32>, Error> {
        self.write_over(id, |count| count.checked_sub(1).filter(|&left| left > 0))
    }

    /// Takes one off and answers the new count; 0 stays 0.
    pub fn release(&self, id: &LayerId) -> Result<u32, Error> {
        match self.count(id)? {
            0 => Ok(0),
            1 => self.clear(id).map(|()| 0),
            count => self.write(id, count - 1),
        }
    }

    /// Counts one user of a layer that has more, and answers how many there were.
    ///
    /// # Errors
    ///
    /// Those of reading and writing the count.
    pub fn settle(&self, id: &LayerId) -> Result<u32, Error> {
        let count = self.count(id)?;
        if count > 1 {
            self.write(id, 1)?;
        }
        Ok(count)
    }

    /// Makes the count 0, whatever the file holds.
    pub fn clear(&self, id: &LayerId) -> Result<(), Error> {
        match fs::remove_file(self.counts.join(id.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove the reference count")(error))
            }
            _ => Ok(()),
        }
    }

    /// Every layer with a count above 0, in order of ids. A layer released meanwhile is left out.
    pub fn all(&self) -> Result<Vec<(LayerId, u32)>, Error> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.counts).map_err(Error::io("list the reference counts"))? {
            let name = entry.map_err(Error::io("list the reference counts"))?.file_name();
            let id = name.to_str().and_then(|name| LayerId::new(name).ok());
            let id = id
                .ok_or_else(|| Error::Conflict(format!("{name:?} among the reference counts is no layer")))?;
            match self.count(&id)? {
                0 => {}
                count => all.push((id, count)),
            }
        }
        all.sort();
        Ok(all)
    }

    /// Every layer of which there is a count, sound or not.
    ///
    /// # Errors
    ///
    /// Those of reading a directory.
    pub fn counted(&self) -> Result<Vec<LayerId>, Error> {
        let mut counted = Vec::new();
        for entry in fs::read_dir(&self.counts).map_err(Error::io("list the reference counts"))? {
            let name = entry.map_err(Error::io("list the reference counts"))?.file_name();
            counted.extend(name.to_str().and_then(|name| LayerId::new(name).ok()));
        }
        Ok(counted)
    }

    /// Removes what a process that was killed may have left of the writing of a count.
    ///
    /// # Errors
    ///
    /// Those of removing a file.
    pub fn forget_draft(&self, id: &LayerId) -> Result<(), Error> {
        match fs::remove_file(self.drafts.join(id.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove a draft of the reference count")(error))
            }
            _ => Ok(()),
        }
    }

    /// Writes a few bytes of one page over as many others: there is no moment at which a kill finds half of them written.
    fn write_over(&self, id: &LayerId, next: impl Fn(u32) -> Option<u32>) -> Result<Option<u32>, Error> {
        let file = match OpenOptions::new().read(true).write(true).open(self.counts.join(id.as_str())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open the reference count")(error)),
        };
        let before = read(&file, id)?;
        let Some(count) = next(before) else { return Ok(None) };
        if count.to_string().len() != before.to_string().len() {
            return Ok(None);
        }
        file.write_all_at(format!("{count}\n").as_bytes(), 0)
            .map_err(Error::io("write the reference count"))?;
        Ok(Some(count))
    }

    fn write(&self, id: &LayerId, count: u32) -> Result<u32, Error> {
        let draft = self.drafts.join(id.as_str());
        let written = fs::write(&draft, format!("{count}\n"))
            .map_err(Error::io("write the reference count"))
            .and_then(|()| {
                fs::rename(&draft, self.counts.join(id.as_str()))
                    .map_err(Error::io("rename the reference count"))
            });
        if written.is_err() {
            // The error to tell is the first one; a draft that stays counts nothing.
            let _ = self.forget_draft(id);
        }
        written.map(|()| count)
    }
}

fn read(mut file: &File, id: &LayerId) -> Result<u32, Error> {
    // One read: a count is shorter than this, and what is longer is none.
    let mut text = [0; 32];
    let length = file.read(&mut text).map_err(Error::io("read the reference count"))?;
    parse(&text[..length]).ok_or_else(|| {
        let text = text[..length].escape_ascii();
        Error::Conflict(format!("the reference count of layer {id} is corrupt: \"{text}\""))
    })
}

/// Exactly what `write` writes: a count above 0 and a line feed.
fn parse(text: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
    let count: u32 = digits.parse().ok()?;
    (count > 0 && count.to_string() == digits).then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> (PathBuf, References) {
        let dir = std::env::temp_dir().join(format!("mounts-test/references-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let references = References::new(&dir).unwrap();
        (dir, references)
    }

    fn id(name: &str) -> LayerId {
        LayerId::new(name).unwrap()
    }

    #[test]
    fn counts_go_up_and_down_and_never_below_zero() {
        let (dir, references) = store("steps");
        let (a, b) = (id("a"), id("b"));
        let steps: [(&str, u32); 8] =
            [("-", 0), ("+", 1), ("+", 2), ("-", 1), ("-", 0), ("-", 0), ("+", 1), ("+", 2)];
        for (index, (step, expected)) in steps.into_iter().enumerate() {
            let count = if step == "+" { references.acquire(&a) } else { references.release(&a) };
            assert_eq!(count.unwrap(), expected, "step {index}");
            assert_eq!(references.count(&a).unwrap(), expected, "step {index}");
        }
        assert_eq!(references.acquire(&b).unwrap(), 1);
        let quick = [("-", None, 1), ("+", Some(2), 2), ("-", Some(1), 1), ("-", None, 1), ("+", Some(2), 2)];
        let more = (3..=9).map(|count| ("+", Some(count), count)).chain([("+", None, 9), ("-", Some(8), 8)]);
        for (step, expected, after) in quick.into_iter().chain(more) {
            let quick =
                if step == "+" { references.acquire_more(&b) } else { references.release_one_of_many(&b) };
            assert_eq!((quick.unwrap(), references.count(&b).unwrap()), (expected, after), "{step}");
        }
        assert_eq!(references.acquire_more(&self::id("none")).unwrap(), None);
        references.settle(&b).unwrap();
        let all = |references: &References| -> Vec<(String, u32)> {
            references.all().unwrap().into_iter().map(|(id, count)| (id.as_str().to_owned(), count)).collect()
        };
        assert_eq!(all(&references), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        // Another process, after this one was killed.
        assert_eq!(all(&References::new(&dir).unwrap()), all(&references));
        for (id, before, after) in [(&a, 2, 1), (&a, 1, 1), (&self::id("none"), 0, 0)] {
            assert_eq!(references.settle(id).unwrap(), before, "{id}");
            assert_eq!(references.count(id).unwrap(), after, "{id}");
        }
        references.clear(&a).unwrap();
        references.clear(&a).unwrap();
        assert_eq!(all(&references), [("b".to_owned(), 1)]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_corrupt_count_is_an_error_until_it_is_cleared() {
        let (dir, references) = store("corrupt");
        let a = id("a");
        for text in
            ["", "\n", "0\n", "1", "01\n", "+1\n", "-1\n", "4294967296\n", "1\n1\n", "x\n", "\u{e9}\n"]
        {
            fs::write(dir.join("references/a"), text).unwrap();
            for outcome in [references.count(&a), references.acquire(&a), references.release(&a)] {
                assert!(matches!(outcome, Err(Error::Conflict(_))), "{text:?}: {outcome:?}");
            }
            assert!(matches!(references.all(), Err(Error::Conflict(_))), "{text:?}");
        }
        references.clear(&a).unwrap();
        assert_eq!(references.acquire(&a).unwrap(), 1);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_count_does_not_wrap() {
        let (dir, references) = store("wrap");
        fs::write(dir.join("references/a"), format!("{}\n", u32::MAX)).unwrap();
        assert!(matches!(references.acquire(&id("a")), Err(Error::Conflict(_))));
        assert_eq!(references.count(&id("a")).unwrap(), u32::MAX);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn an_abandoned_draft_is_no_count() {
        let (dir, references) = store("draft");
        fs::write(dir.join("references.new/a"), "7").unwrap();
        assert_eq!(references.count(&id("a")).unwrap(), 0);
        assert!(references.all().unwrap().is_empty());
        assert_eq!(references.acquire(&id("a")).unwrap(), 1);
        fs::remove_dir_all(dir).unwrap();
    }
}
