//! How many users each mounted layer has.
//!
//! One small file an id on a tmpfs, replaced by rename or written over at once: a process that is killed
//! loses no count, and the machine's restart, which ends every mount, ends them as well. Beside the count
//! stands how the layer was mounted: in which mount namespace, and by way of which mount, the one that the
//! store's mount points lie on: `2 4026531841 29`. Whoever comes to the store another way, from another
//! namespace or through a bind mount of its root, may not see what is mounted, and takes nothing for unused
//! that is. Callers hold a lock of their own per layer.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::mount::mountinfo::{self, Mount};
use crate::mount::{mount_of, same_directory, thread};
use crate::namespace::{Namespace, named};
use crate::{Error, LayerId};

/// The reference counts of one store.
#[derive(Debug)]
pub struct References {
    counts: PathBuf,
    /// Where a count is written before it is renamed: of the same name as its layer, so what a killed process
    /// left is overwritten by the next.
    drafts: PathBuf,
    /// The directory of the mount points.
    points: PathBuf,
    /// The mount that this lies on. None before Linux 5.8: then all ways within a namespace count as one.
    way: Option<u64>,
    /// A process that was found in another namespace: most likely it still is there when it is asked for
    /// again.
    found: Arc<Mutex<Option<u32>>>,
}

/// How a layer was mounted that is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The caller's own, or none that is known; or it is not counted.
    Own,
    /// In another mount namespace.
    Namespace(Namespace),
    /// In this one, by way of another mount.
    Mount,
}

/// What the file of a layer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Count {
    users: u32,
    /// Where the layer is mounted. An earlier version did not write it down.
    namespace: Option<Namespace>,
    /// By way of which mount of that namespace.
    way: Option<u64>,
}

impl References {
    /// Opens the counts in `dir`, a directory of this store's own on a tmpfs; makes what is missing (mode
    /// 0700). `points` is the canonical path of the directory of the mount points.
    pub fn new(dir: &Path, points: PathBuf) -> Result<References, Error> {
        let (counts, drafts) = (dir.join("references"), dir.join("references.new"));
        let way = mount_of(&points);
        let references = References { counts, drafts, points, way, found: Arc::default() };
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
        Ok(self.read(id)?.map_or(0, |count| count.users))
    }

    fn read(&self, id: &LayerId) -> Result<Option<Count>, Error> {
        match File::open(self.counts.join(id.as_str())) {
            Ok(file) => read(&file, id).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read the reference count")(error)),
        }
    }

    /// Where a layer is mounted that is counted and not mounted at its mount point here, as a message goes on
    /// after "it is mounted"; none where it is nowhere, and where nothing is counted.
    ///
    /// It is in another namespace while somebody is there (its mounts have gone with the last one); only for
    /// that all processes are looked at. Or it is in this one, and the caller came to the store another way.
    ///
    /// # Errors
    ///
    /// Those of reading the count and what is mounted.
    pub fn elsewhere(&self, id: &LayerId) -> Result<Option<String>, Error> {
        match self.way_to(id)? {
            Way::Own => Ok(None),
            Way::Namespace(namespace) => self.somebody(namespace, |_| true),
            // At its own path as well: what another mount of the root hides there is mounted.
            Way::Mount => self.by_another_way(id, |_, _| true),
        }
    }

    /// As [`References::elsewhere`], and only what stays there when the layer is not mounted here any more:
    /// no peer and no slave of a mount here.
    ///
    /// # Errors
    ///
    /// Those of [`References::elsewhere`].
    pub fn apart(&self, id: &LayerId) -> Result<Option<String>, Error> {
        let point = self.points.join(id.as_str());
        let stays = |here: Option<&Mount>, there: &Mount| here.is_none_or(|here| !here.hands_on_to(there));
        match self.way_to(id)? {
            Way::Own => Ok(None),
            Way::Namespace(namespace) => self.somebody(namespace, move |process| {
                let mounts = |process: &str| mountinfo::read(process).unwrap_or_default();
                let (ours, theirs) = (mounts("self"), mounts(&process.to_string()));
                seen_at(&theirs, &point).is_some_and(|there| stays(seen_at(&ours, &point), there))
            }),
            Way::Mount => self.by_another_way(id, |here, there| there.point != point && stays(here, there)),
        }
    }

    /// How a layer is counted.
    fn way_to(&self, id: &LayerId) -> Result<Way, Error> {
        let Some(Count { namespace: Some(namespace), way, .. }) = self.read(id)? else { return Ok(Way::Own) };
        if Namespace::own().is_some_and(|own| own != namespace) {
            return Ok(Way::Namespace(namespace));
        }
        let is_own = way.is_none() || self.way.is_none() || way == self.way;
        Ok(if is_own { Way::Own } else { Way::Mount })
    }

    /// A process in another namespace that counts.
    fn somebody(
        &self,
        namespace: Namespace,
        counts: impl FnOnce(u32) -> bool + Send + 'static,
    ) -> Result<Option<String>, Error> {
        let last = self.found.clone();
        let find = move || {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = last.filter(|&process| namespace.holds(process)).or_else(|| namespace.somebody());
            let process = last.filter(|&process| counts(process))?;
            Some(format!("in the mount namespace of {}", named(process)))
        };
        // Who is where, root may not ask who has given up rights that they have (ptrace(2)).
        thread::run(find)
    }

    /// A mount in this namespace that lies on the mount point of a layer, by whatever path, and that counts:
    /// that is told the one which is seen at the caller's path, and it.
    fn by_another_way(
        &self,
        id: &LayerId,
        counts: impl Fn(Option<&Mount>, &Mount) -> bool,
    ) -> Result<Option<String>, Error> {
        let mounts = mountinfo::read("self").map_err(Error::io("read mountinfo"))?;
        let here = seen_at(&mounts, &self.points.join(id.as_str()));
        let is_it = |mount: &&Mount| {
            mount.point.file_name().is_some_and(|name| name == id.as_str())
                && counts(here, mount)
                && mount.point.parent().is_some_and(|parent| same_directory(parent, &self.points))
        };
        let found = mounts.iter().find(is_it);
        Ok(found.map(|mount| format!("on {:?}, by way of another mount of the store", mount.point)))
    }

    /// Adds one and answers the new count.
    pub fn acquire(&self, id: &LayerId) -> Result<u32, Error> {
        let before = self.read(id)?;
        let count = before.map_or(0, |count| count.users).checked_add(1);
        let users = count.ok_or_else(|| Error::Conflict(format!("layer {id} has too many users")))?;
        // The first one has mounted it here.
        let count = before.unwrap_or_else(|| Count { users, namespace: Namespace::own(), way: self.way });
        self.write(id, Count { users, ..count })
    }

    /// As [`References::acquire`], where that is a matter of writing over a count; none, with nothing
    /// changed, where it is not.
    pub fn acquire_more(&self, id: &LayerId) -> Result<Option<u32>, Error> {
        self.write_over(id, |count| count.checked_add(1))
    }

    /// As [`References::release`], where that is a matter of writing over a count: some are left then. None,
    /// with nothing changed, where it is not.
    pub fn release_one_of_many(&self, id: &LayerId) -> Result<Option<u32>, Error> {
        self.write_over(id, |count| count.checked_sub(1).filter(|&left| left > 0))
    }

    /// Takes one off and answers the new count; 0 stays 0.
    pub fn release(&self, id: &LayerId) -> Result<u32, Error> {
        match self.read(id)? {
            None => Ok(0),
            Some(Count { users: 1, .. }) => self.clear(id).map(|_| 0),
            Some(count) => self.write(id, Count { users: count.users - 1, ..count }),
        }
    }

    /// Counts one user of a layer that has more, and answers how many there were.
    ///
    /// # Errors
    ///
    /// Those of reading and writing the count.
    pub fn settle(&self, id: &LayerId) -> Result<u32, Error> {
        let Some(count) = self.read(id)? else { return Ok(0) };
        if count.users > 1 {
            self.write(id, Count { users: 1, ..count })?;
        }
        Ok(count.users)
    }

    /// Makes the count 0, whatever the file holds; whether there was one.
    pub fn clear(&self, id: &LayerId) -> Result<bool, Error> {
        match fs::remove_file(self.counts.join(id.as_str())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            other => other.map(|()| true).map_err(Error::io("remove the reference count")),
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

    /// Writes a few bytes of one page over as many others: there is no moment at which a kill finds half of
    /// them written.
    fn write_over(&self, id: &LayerId, next: impl Fn(u32) -> Option<u32>) -> Result<Option<u32>, Error> {
        let file = match OpenOptions::new().read(true).write(true).open(self.counts.join(id.as_str())) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open the reference count")(error)),
        };
        let before = read(&file, id)?.users;
        let Some(count) = next(before) else { return Ok(None) };
        let digits = count.to_string();
        if digits.len() != before.to_string().len() {
            return Ok(None);
        }
        file.write_all_at(digits.as_bytes(), 0).map_err(Error::io("write the reference count"))?;
        Ok(Some(count))
    }

    fn write(&self, id: &LayerId, count: Count) -> Result<u32, Error> {
        let draft = self.drafts.join(id.as_str());
        let written =
            fs::write(&draft, count.text()).map_err(Error::io("write the reference count")).and_then(|()| {
                fs::rename(&draft, self.counts.join(id.as_str()))
                    .map_err(Error::io("rename the reference count"))
            });
        if written.is_err() {
            // The error to tell is the first one; a draft that stays counts nothing.
            let _ = self.forget_draft(id);
        }
        written.map(|()| count.users)
    }
}

/// The mount that is seen at a point: of several there, the last.
fn seen_at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rfind(|mount| mount.point == point)
}

fn read(mut file: &File, id: &LayerId) -> Result<Count, Error> {
    // One read: a count is shorter than this, and what is longer is none.
    let mut text = [0; 64];
    let length = file.read(&mut text).map_err(Error::io("read the reference count"))?;
    Count::parse(&text[..length]).ok_or_else(|| {
        let text = text[..length].escape_ascii();
        Error::Conflict(format!("the reference count of layer {id} is corrupt: \"{text}\""))
    })
}

impl Count {
    fn text(self) -> String {
        match (self.namespace, self.way) {
            (Some(Namespace(inode)), Some(way)) => format!("{} {inode} {way}\n", self.users),
            (Some(Namespace(inode)), None) => format!("{} {inode}\n", self.users),
            (None, _) => format!("{}\n", self.users),
        }
    }

    /// Exactly what [`Count::text`] gives, for a count above 0.
    fn parse(text: &[u8]) -> Option<Count> {
        let line = std::str::from_utf8(text.strip_suffix(b"\n")?).ok()?;
        let mut fields = line.split(' ');
        let users = fields.next()?.parse().ok()?;
        let mut number = || fields.next().map(|field| field.parse::<u64>().ok());
        let (namespace, way) = (number(), number());
        // One that is there and is no number.
        if namespace == Some(None) || way == Some(None) {
            return None;
        }
        let count = Count { users, namespace: namespace.flatten().map(Namespace), way: way.flatten() };
        (count.users > 0 && count.text().as_bytes() == text).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(name: &str) -> (PathBuf, References) {
        let dir = std::env::temp_dir().join(format!("mounts-test/references-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        let references = References::new(&dir, dir.clone()).unwrap();
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
        assert_eq!(all(&References::new(&dir, dir.clone()).unwrap()), all(&references));
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
                .into_iter()
                .chain([
                    "1 \n",
                    "1 x\n",
                    "1  1\n",
                    "1 01\n",
                    "1 -1\n",
                    "0 1\n",
                    "1 1 x\n",
                    "1 1 01\n",
                    "1 1 1 1\n",
                    "1 1  1\n",
                    " 1\n",
                    "1 18446744073709551616\n",
                ])
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
    fn a_count_knows_where_the_layer_was_mounted() {
        let (dir, references) = store("namespaces");
        let (a, own) = (id("a"), Namespace::own().unwrap());
        let text = || fs::read_to_string(dir.join("references/a")).unwrap();
        references.acquire(&a).unwrap();
        let (own, way) = (own.0, mount_of(&dir).unwrap());
        assert_eq!(text(), format!("1 {own} {way}\n"));
        assert_eq!(references.elsewhere(&a).unwrap(), None, "it is here");
        // What others have mounted stays theirs, however it is counted; of what does not say how it was
        // mounted it is ours.
        let rests = [
            " 7\n".to_owned(),
            " 7 8\n".to_owned(),
            format!(" {own}\n"),
            format!(" {own} 0\n"),
            "\n".to_owned(),
        ];
        for rest in &rests {
            let before = format!("1{rest}");
            fs::write(dir.join("references/a"), &before).unwrap();
            let steps: [(&str, &dyn Fn() -> u32); 5] = [
                ("2", &|| references.acquire(&a).unwrap()),
                ("3", &|| references.acquire_more(&a).unwrap().unwrap()),
                ("2", &|| references.release_one_of_many(&a).unwrap().unwrap()),
                ("1", &|| references.release(&a).unwrap()),
                ("1", &|| references.settle(&a).unwrap()),
            ];
            for (number, (count, step)) in steps.into_iter().enumerate() {
                assert_eq!(step().to_string(), count, "{before:?}, step {number}");
                assert_eq!(text(), format!("{count}{rest}"), "{before:?}, step {number}");
            }
            assert_eq!(references.elsewhere(&a).unwrap(), None, "{before:?}: nobody is there");
            assert_eq!(references.apart(&a).unwrap(), None, "{before:?}: it is nowhere");
        }
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
