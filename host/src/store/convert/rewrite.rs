//! Doing what is planned, some directories at a time: their times go on record, their steps are done, their
//! times are set again.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::Backend;
use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use super::super::Store;
use super::super::marks::{self, Mark, There, failed};
use super::journal::{Batch, Journal, Time};
use super::plan::{Known, Plan, Step, plan};
use super::source::Source;
use super::{aside, forget_draft};
use crate::error::Failure;

/// A conversion under way.
#[derive(Debug)]
pub(super) struct Rewrite<'a> {
    store: &'a Store,
    from: Backend,
    to: Backend,
    journal: Journal,
    source: Source<'a>,
    /// The root. Opened before anything is written: an error is told to whom had it open then (syncfs(2),
    /// since Linux 5.8; older ones tell of none).
    root: File,
}

impl<'a> Rewrite<'a> {
    /// Brings the journal to the disk.
    pub(super) fn begin(store: &'a Store, journal: Journal) -> Result<Rewrite<'a>, Failure> {
        journal.require(&store.format.id)?;
        let (from, to) = journal.direction();
        let owner = store.format.maps().root()?;
        let root = store.dir.open(".").map_err(|e| Failure::io("open", &e))?.into_std();
        journal.write(&store.dir)?;
        Ok(Rewrite { store, from, to, journal, source: Source::new(&store.dir, to, owner), root })
    }

    /// Ends what was cut off in the midst of it: the directories whose times are on record.
    pub(super) fn resume(&mut self) -> Result<(), super::Stop> {
        let Some(batch) = self.journal.batch().cloned() else { return Ok(()) };
        let id = batch.layer()?;
        let mut resume = || -> Result<(), Failure> {
            let layer = self.store.content(&id)?;
            let (mut left, known) = plan(self.store, &id, self.from, self.to)?;
            let times: BTreeMap<Vec<u8>, Time> = batch.directories()?.into_iter().collect();
            left.retain(|directory, _| times.contains_key(directory));
            self.source.resume(&id)?;
            self.follow(&layer, known)?;
            self.run(&id, &layer, left)?;
            times.iter().try_for_each(|(directory, time)| set_time(layer.as_fd(), directory, *time))
        };
        resume().map_err(super::at(&id))
    }

    /// Rewrites a layer.
    pub(super) fn layer(&mut self, id: &LayerId) -> Result<(), Failure> {
        let (mut left, known) = plan(self.store, id, self.from, self.to)?;
        let layer = self.store.content(id)?;
        if !left.is_empty() {
            self.source.begin(id)?;
            self.follow(&layer, known)?;
        }
        while !left.is_empty() {
            let (mut batch, mut steps) = (Batch::new(id), Plan::new());
            while !batch.is_full()
                && let Some((directory, of_it)) = left.pop_first()
            {
                let deletions = of_it.iter().filter(|step| step.is_deletion()).count() as u64;
                batch.add(&directory, time(layer.as_fd(), &directory)?, deletions);
                steps.insert(directory, of_it);
            }
            let times = batch.directories()?;
            // What was done before must be on the disk before its record is gone.
            self.sync()?;
            self.journal.next(batch);
            self.journal.write(&self.store.dir)?;
            self.run(id, &layer, steps)?;
            times.iter().try_for_each(|(directory, time)| set_time(layer.as_fd(), directory, *time))?;
        }
        if self.to == Backend::Aufs {
            aside::end(self.store, id)?;
        }
        Ok(())
    }

    /// Brings all to the disk, and answers how many deletions were rewritten.
    pub(super) fn end(mut self) -> Result<u64, Failure> {
        self.source.renew()?;
        forget_draft(self.store)?;
        if self.to == Backend::Aufs {
            aside::close(&self.store.dir);
        }
        self.sync()?;
        Ok(self.journal.deletions())
    }

    /// Has the new marks be names of what a mark in the layer is a name of.
    fn follow(&mut self, layer: &OwnedFd, known: Known) -> Result<(), Failure> {
        match known {
            Some((directory, last)) if !self.source.is_made() => {
                self.source.follow(open(layer.as_fd(), &directory)?.as_fd(), &last)
            }
            _ => Ok(()),
        }
    }

    fn sync(&self) -> Result<(), Failure> {
        nix::unistd::syncfs(&self.root).map_err(|e| Failure::io("syncfs", &e.into()))
    }

    fn run(&mut self, id: &LayerId, layer: &OwnedFd, plan: Plan) -> Result<(), Failure> {
        for (path, steps) in plan {
            let directory = open(layer.as_fd(), &path)?;
            for step in steps {
                self.step(id, &path, &directory, step)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, id: &LayerId, path: &[u8], directory: &OwnedFd, step: Step) -> Result<(), Failure> {
        let fd = directory.as_fd();
        match step {
            Step::GiveBack(last) => aside::give_back(self.store, id, path, directory, &last).map(drop),
            Step::MakeBase => match marks::look(fd, marks::BASE)? {
                There::Empty => self.source.follow(fd, marks::BASE),
                There::Nothing => self.source.link(fd, marks::BASE),
                There::Directory | There::Device | There::Other => Ok(()),
            },
            Step::Leave(last) => {
                self.leave(fd, &last)?;
                aside::keep(self.store, id, path, directory, &last)
            }
            Step::Enter(last) => {
                let Some(mark) = marks::deletion_of(&last) else { return Ok(()) };
                self.enter(id, path, directory, &mark)?;
                if marks::look(fd, &last)? == There::Device {
                    rustix::fs::unlinkat(fd, &last, AtFlags::empty())
                        .map_err(|errno| failed("unlinkat", &last, errno))?;
                }
                Ok(())
            }
            Step::EnterOpaque => {
                self.enter(id, path, directory, marks::OPAQUE)?;
                let attribute = marks::opaque_attribute(self.from).unwrap_or_default();
                match rustix::fs::fremovexattr(fd, attribute) {
                    Ok(()) | Err(Errno::NODATA) => Ok(()),
                    Err(errno) => Err(failed("fremovexattr", path, errno)),
                }
            }
            Step::Forget(last, attribute) => forget(fd, &last, &attribute),
        }
    }

    /// Writes what a mark of aufs means in overlayfs' form.
    fn leave(&mut self, directory: BorrowedFd<'_>, last: &[u8]) -> Result<(), Failure> {
        match marks::mark(last) {
            Some(Mark::Opaque) => self.make_opaque(directory),
            Some(Mark::Deletes(hidden)) => match marks::look(directory, hidden)? {
                There::Nothing => self.source.link(directory, hidden),
                // The layer has such a directory itself, and shows nothing of those that lie below it.
                There::Directory => self.make_opaque(open(directory, hidden)?.as_fd()),
                // It is written already; or it hides what lies below by being there.
                There::Device | There::Empty | There::Other => Ok(()),
            },
            Some(Mark::Bookkeeping) | None => Ok(()),
        }
    }

    fn make_opaque(&self, directory: BorrowedFd<'_>) -> Result<(), Failure> {
        let attribute = marks::opaque_attribute(self.to).unwrap_or_default();
        rustix::fs::fsetxattr(directory, attribute, b"y", XattrFlags::empty())
            .map_err(|errno| failed("fsetxattr", b"", errno))
    }

    /// Writes a mark of aufs where there is none: the one that was there once, or else another.
    fn enter(&mut self, id: &LayerId, path: &[u8], directory: &OwnedFd, mark: &[u8]) -> Result<(), Failure> {
        if marks::look(directory.as_fd(), mark)? != There::Nothing
            || aside::give_back(self.store, id, path, directory, mark)?
        {
            return Ok(());
        }
        self.source.link(directory.as_fd(), mark)
    }
}

fn open(top: BorrowedFd<'_>, path: &[u8]) -> Result<OwnedFd, Failure> {
    marks::directory(top, path).map_err(|errno| failed("openat2", path, errno))
}

/// What takes no descriptor of a directory takes the path by which the kernel finds the name in it.
fn forget(directory: BorrowedFd<'_>, last: &[u8], attribute: &[u8]) -> Result<(), Failure> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
    path.extend_from_slice(if last.is_empty() { b"." } else { last });
    match rustix::fs::lremovexattr(path, attribute) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(errno) => Err(failed("lremovexattr", last, errno)),
    }
}

/// The time of a directory of a layer.
fn time(layer: BorrowedFd<'_>, path: &[u8]) -> Result<Time, Failure> {
    let found = rustix::fs::fstat(open(layer, path)?).map_err(|errno| failed("fstat", path, errno))?;
    Ok((found.st_mtime, i64::try_from(found.st_mtime_nsec).unwrap_or_default()))
}

fn set_time(layer: BorrowedFd<'_>, path: &[u8], (tv_sec, tv_nsec): Time) -> Result<(), Failure> {
    let as_it_is = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = Timestamps { last_access: as_it_is, last_modification: Timespec { tv_sec, tv_nsec } };
    rustix::fs::futimens(open(layer, path)?, &times).map_err(|errno| failed("futimens", path, errno))
}
