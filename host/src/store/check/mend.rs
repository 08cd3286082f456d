//! What a repair does.

use std::os::fd::AsFd;
use std::path::Path;

use cap_std::fs::Dir;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::delete_tree_while;
use layerbox_privileged::mount::Unions;
use layerbox_privileged::references::References;

use super::super::children::mark_child;
use super::super::convert::ASIDE;
use super::super::files::{self, exists, ignore_missing, write_atomically};
use super::super::record::Record;
use super::super::{DIRECTORIES, Store};
use super::deep;
use crate::digest::Digest;
use crate::error::Failure;

/// Where repairs move what belongs to no layer that is whole.
pub(super) const LOST: &str = "lost+found";

/// The longest name in `lost+found/` in bytes, without its number: Linux takes 255.
const LONGEST: usize = 240;

/// How many digits of a digest stand for the rest of a longer one.
const DIGITS: usize = 16;

/// What a repair does.
pub(super) enum Repair {
    /// It belongs to no layer that exists, or was about to.
    MoveAway,
    /// As that, for a name that is not UTF-8 in a directory of the store.
    MoveAwayOdd(String, std::ffi::OsString),
    /// A temporary file or an empty directory: nobody's content.
    Delete,
    WriteAncestors(LayerId, Record),
    /// The layer with this record cannot be whole.
    Lose(LayerId, Record),
    WriteRecord(LayerId, Record, Was),
    /// With this mode.
    MakeDirectory(u32),
    MoveAwayAndMake(u32),
    SetMode(u32),
    TakeOver,
    MarkChild(LayerId, LayerId),
    Unmount(LayerId),
    ClearCount(LayerId),
    ForgetSize(LayerId, Record),
    Translate(deep::Foreign),
    /// There is none.
    None,
}

/// What a record was before it is written anew.
pub(super) enum Was {
    /// There, and not to be read.
    Damaged,
    /// Not there.
    Missing,
    /// Of these ancestors.
    Of(Vec<LayerId>),
}

impl Repair {
    pub(super) fn text(&self) -> String {
        let text = match self {
            Repair::MoveAway | Repair::MoveAwayOdd(..) | Repair::Lose(..) => "move it to lost+found/",
            Repair::Delete => "delete it",
            Repair::WriteAncestors(..) => "write it from meta/",
            Repair::WriteRecord(..) => "write it from what layers/ and the other layers say",
            Repair::MakeDirectory(_) => "make it",
            Repair::MoveAwayAndMake(_) => "move it to lost+found/, and make it",
            Repair::SetMode(mode) => return format!("set its mode to {mode:04o}"),
            Repair::TakeOver => "make it ours",
            Repair::MarkChild(..) => "write it",
            Repair::Unmount(_) => "unmount it",
            Repair::ClearCount(_) => "set it to 0",
            Repair::ForgetSize(..) => "forget it, so that it is counted anew",
            Repair::Translate(_) => "write it in this store's form",
            Repair::None => "",
        };
        text.to_owned()
    }
}

impl Store {
    /// Does a repair. The layers that it is about are locked.
    pub(super) fn mend(
        &self,
        place: &str,
        action: &Repair,
        unions: &Unions,
        references: &References,
    ) -> Result<(), Failure> {
        match action {
            Repair::MoveAway | Repair::Lose(..) => self.move_away(place)?,
            Repair::MoveAwayOdd(directory, name) => {
                move_away(&self.dir, place, &Path::new(directory).join(name))?
            }
            Repair::Delete => match self.dir.symlink_metadata(place) {
                Ok(found) if found.is_dir() => ignore_missing(self.dir.remove_dir(place), "rmdir")?,
                _ => ignore_missing(self.dir.remove_file(place), "unlink")?,
            },
            Repair::WriteAncestors(id, record) => self.restore_ancestors(id, record)?,
            Repair::WriteRecord(id, record, _) => {
                if self.dir.symlink_metadata(place).is_ok_and(|found| !found.is_file()) {
                    self.move_away(place)?;
                }
                record.write(&self.dir, id)?;
            }
            Repair::MakeDirectory(mode) => files::make_directory(&self.dir, place, *mode)?,
            Repair::MoveAwayAndMake(mode) => {
                self.move_away(place)?;
                files::make_directory(&self.dir, place, *mode)?;
            }
            Repair::SetMode(mode) => files::set_mode(&self.dir, place, *mode)?,
            Repair::TakeOver => {
                let owner = Some(nix::unistd::geteuid());
                let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
                nix::unistd::fchownat(&self.dir, place, owner, None, flags)
                    .map_err(|e| Failure::io("fchownat", &e.into()))?;
            }
            Repair::MarkChild(parent, child) => {
                let marks = format!("children/{parent}");
                if self.dir.symlink_metadata(&marks).is_ok_and(|found| !found.is_dir()) {
                    self.move_away(&marks)?;
                }
                mark_child(&self.dir, parent, child)?;
            }
            Repair::Unmount(id) => {
                unions.unmount_all(id)?;
            }
            Repair::ClearCount(id) => {
                references.clear(id)?;
            }
            Repair::ForgetSize(id, record) => self.forget_size(id, record)?,
            Repair::Translate(foreign) => self.translate(foreign, unions)?,
            Repair::None => {}
        }
        Ok(())
    }

    /// Writes `layers/ID` anew where it does not say what the record says, and deletes what somebody may have
    /// begun to write there.
    ///
    /// # Errors
    ///
    /// Those of writing a file.
    pub fn restore_ancestors(&self, id: &LayerId, record: &Record) -> Result<(), Failure> {
        ignore_missing(self.dir.remove_file(format!("layers/.{id}.tmp")), "unlink")?;
        if self.is_recorded(id, record) {
            return Ok(());
        }
        let path = format!("layers/{id}");
        if self.dir.symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            self.move_away(&path)?;
        }
        let text: String = record.ancestors.iter().map(|id| format!("{id}\n")).collect();
        write_atomically(&self.dir, "layers", id.as_str(), text.as_bytes())
    }

    pub(in super::super) fn move_away(&self, place: &str) -> Result<(), Failure> {
        move_away(&self.dir, place, Path::new(place))
    }

    /// Deletes what repairs have moved to `lost+found/`. What else is there is not ours: at the top of a file
    /// system, e2fsck(8) puts there what it has found.
    pub(super) fn purge(&self) -> Result<(), Failure> {
        let lost = match self.dir.open_dir(LOST) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| Failure::io("open", &e))?,
        };
        for entry in lost.entries().map_err(|e| Failure::io("getdents", &e))? {
            let name = entry.map_err(|e| Failure::io("getdents", &e))?.file_name();
            if name.to_str().is_some_and(was_moved) {
                delete_tree_while(lost.as_fd(), &name, &|| true)?;
            }
        }
        Ok(())
    }
}

/// Moves what lies at `path` to `lost+found/`, under a name that says where it was.
pub(super) fn move_away(dir: &Dir, place: &str, path: &Path) -> Result<(), Failure> {
    match dir.symlink_metadata(path) {
        // It went with something else.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Failure::io("stat", &e))?,
    };
    make_lost(dir)?;
    let name = name_of(place);
    for attempt in 0u32..10_000 {
        let target = format!("{LOST}/{name}.{attempt}");
        if dir.symlink_metadata(&target).is_err() {
            return dir.rename(path, dir, &target).map_err(|e| Failure::io("rename", &e));
        }
    }
    Err(Failure::Conflict(format!("lost+found/ holds too many of {place}")))
}

/// Makes `lost+found/` where it is not there yet: what layers held is nobody else's to see.
fn make_lost(dir: &Dir) -> Result<(), Failure> {
    if exists(dir, LOST)? {
        return Ok(());
    }
    match files::make_directory(dir, LOST, 0o700) {
        // Another one that mends was faster.
        Err(Failure::Io { code, .. }) if code == nix::libc::EEXIST => Ok(()),
        other => other,
    }
}

/// The name in `lost+found/` of what lay at a place, but for the number behind it. A name that would be
/// longer than a directory can hold ends in a digest instead.
fn name_of(place: &str) -> String {
    let mut name = place.replace('/', ".");
    if name.len() > LONGEST {
        let digest = Digest::of(name.as_bytes()).short(DIGITS);
        let cut = (0..=LONGEST - DIGITS - 1).rev().find(|&at| name.is_char_boundary(at));
        name.truncate(cut.unwrap_or_default());
        name.push('~');
        name.push_str(&digest);
    }
    name
}

/// Whether a name in `lost+found/` is one that [`move_away`] gives: `KIND.NAME.N`.
fn was_moved(name: &str) -> bool {
    let Some((place, number)) = name.rsplit_once('.') else { return false };
    let kind = place.split('.').next().unwrap_or_default();
    number.parse::<u32>().is_ok_and(|attempt| attempt.to_string() == number)
        && (DIRECTORIES.contains(&kind) || kind == ASIDE || ["layerbox.json", "lock"].contains(&place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_away_is_told_from_what_others_put_there() {
        let long = format!("diff/{}", "x".repeat(252));
        let odd = format!("diff/{}", "\u{20ac}".repeat(85));
        for place in [
            "diff/x",
            "layers/x",
            "diff/a b",
            "children",
            "children/a/b",
            "aufs/x",
            "layerbox.json",
            "lock",
            &long,
            &odd,
        ] {
            let name = format!("{}.9999", name_of(place));
            assert!(was_moved(&name) && name.len() <= 255, "{place}: {name}");
        }
        assert_ne!(name_of(&long), name_of(&format!("{long}y")));
        for name in [
            "#131",
            "#131.0",
            "x",
            "diff",
            "diff.x",
            "diff.x.00",
            "diff.x.+1",
            "home.x.0",
            "x.layerbox.json.0",
            "lock.x.0",
        ] {
            assert!(!was_moved(name), "{name}");
        }
    }
}
