//! The directories of the store itself and its lock: whether they are what they must be, before anything is
//! looked for in them.
//!
//! With a file, a FIFO or a link in the place of one of them a store cannot be opened, or all that lies in
//! the others would seem to belong to no layer. So these come first, and where they cannot be mended nothing
//! else is looked at. Links are not followed: what they lead to may be anybody's.

use std::path::Path;

use cap_std::fs::Dir;

use super::super::DIRECTORIES;
use super::super::files;
use super::super::lock::{Guard, Mode, PATIENCE};
use super::mend::{self, Repair};
use super::{CheckOptions, Finding};
use crate::error::Failure;

/// The file that the lock on the store is taken on.
const LOCK: &str = "lock";

/// Those of which nothing else in the store says what was in them.
const CONTENT: [&str; 2] = ["diff", "meta"];

/// What lies in the place of a directory of the store, or of its lock.
pub(super) struct Other {
    place: &'static str,
    is_link: bool,
    /// A link to a directory that nothing can stand for: what belongs there is somewhere else, and not lost.
    leads_to_content: bool,
}

/// What is wrong with them in the store at `root`, before it is opened; nothing where there is no store. With
/// `repair` they are moved away and made anew.
///
/// # Errors
///
/// Those of looking at them. What fails in a repair is in its finding.
pub(super) fn check_unopened(root: &Path, options: CheckOptions) -> Result<Vec<Finding>, Failure> {
    // That there is none, or that it cannot be opened, is told by its opening.
    let Ok(root) = root.canonicalize() else { return Ok(Vec::new()) };
    let Ok(dir) = Dir::open_ambient_dir(&root, cap_std::ambient_authority()) else { return Ok(Vec::new()) };
    if dir.symlink_metadata("layerbox.json").is_err() {
        return Ok(Vec::new());
    }
    let mut others = search(&root, &dir)?;
    if others.is_empty() || !options.repair {
        return Ok(others.iter().map(Other::finding).collect());
    }
    let guard = match Guard::store(&dir, Mode::Exclusive, PATIENCE) {
        // Nobody can have the store while its lock cannot even be opened.
        Err(Failure::Io { .. } | Failure::Corrupt(_)) if others.iter().any(|other| other.place == LOCK) => {
            Ok(None)
        }
        other => other.map(Some),
    };
    if guard.is_ok() {
        others = search(&root, &dir)?;
    }
    let mend = |other: &Other| match &guard {
        Ok(_) => other.mended(&dir),
        Err(failure) => other.failed(failure),
    };
    Ok(others.iter().map(mend).collect())
}

/// Looks for what is not a directory among those of a store, nor a file in the place of its lock. What is
/// missing is told of by [`super::places`].
pub(super) fn search(root: &Path, dir: &Dir) -> Result<Vec<Other>, Failure> {
    let mut others = Vec::new();
    for place in DIRECTORIES.into_iter().chain([LOCK]) {
        let found = match dir.symlink_metadata(place) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            other => other.map_err(|e| Failure::io("stat", &e))?,
        };
        let fits = if place == LOCK { found.is_file() } else { found.is_dir() };
        if !fits {
            let is_link = found.is_symlink();
            let leads_to_content = is_link && CONTENT.contains(&place) && root.join(place).is_dir();
            others.push(Other { place, is_link, leads_to_content });
        }
    }
    Ok(others)
}

impl Other {
    /// What is told where nothing is mended.
    pub(super) fn finding(&self) -> Finding {
        let what = match (self.is_link, self.place) {
            (true, _) => "it is a symbolic link, which is not followed",
            (false, LOCK) => "it is not a regular file",
            (false, _) => "it is not a directory",
        };
        let repair = match self.leads_to_content {
            true => "none: put there the directory that it leads to, or mount that there".to_owned(),
            false => self.repair().text(),
        };
        Finding { place: self.place.to_owned(), what: what.to_owned(), repair, ..Finding::default() }
    }

    /// Moves it away, and makes what must be there.
    pub(super) fn mended(&self, dir: &Dir) -> Finding {
        if self.leads_to_content {
            return self.finding();
        }
        let moved = mend::move_away(dir, self.place, Path::new(self.place));
        let made = moved.and_then(|()| match self.repair() {
            Repair::MoveAwayAndMake(mode) => files::make_directory(dir, self.place, mode),
            // The lock is made by whoever locks it.
            _ => Ok(()),
        });
        match made {
            Ok(()) => Finding { repaired: true, ..self.finding() },
            Err(failure) => self.failed(&failure),
        }
    }

    fn failed(&self, failure: &Failure) -> Finding {
        let mut finding = self.finding();
        finding.repair.push_str(&format!("; that failed: {failure}"));
        finding
    }

    fn repair(&self) -> Repair {
        if self.place == LOCK { Repair::MoveAway } else { Repair::MoveAwayAndMake(0o700) }
    }
}
