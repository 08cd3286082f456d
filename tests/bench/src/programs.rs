//! Who is measured, and how each is told to do the same work.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use layerbox_tests::command::shell;
use layerbox_tests::harness::has_tool;
use layerbox_tests::scratch::Place;
use layerbox_tests::store::{Dialect, Store};

use crate::inputs::Input;

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// From an archive to a tree, with nothing promised about a power cut.
    Apply,
    /// The same, and all of it on the disk at the end.
    ApplySynced,
    /// From a tree to an archive.
    Diff,
    /// The list of what a tree holds.
    Changes,
}

impl Work {
    pub(crate) const ALL: [Work; 4] = [Work::Apply, Work::ApplySynced, Work::Diff, Work::Changes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Work::Apply => "apply",
            Work::ApplySynced => "synced",
            Work::Diff => "diff",
            Work::Changes => "changes",
        }
    }

    /// Whether the work is measured on an input.
    pub(crate) fn is_for(self, input: &str) -> bool {
        match self {
            Work::Apply => true,
            Work::ApplySynced => ["base", "many", "links"].contains(&input),
            // An archive of `big` would hold all its holes.
            Work::Diff => input != "big",
            Work::Changes => ["base", "many"].contains(&input),
        }
    }

    fn fills(self) -> bool {
        matches!(self, Work::Apply | Work::ApplySynced)
    }
}

/// Who does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Layerbox,
    /// The same logic without the sandbox.
    Native,
    /// The system calls alone.
    Floor,
    GnuTar,
    Bsdtar,
    /// The storage library of podman and CRI-O.
    ContainersStorage,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Who::Layerbox => "layerbox",
            Who::Native => "  without sandbox",
            Who::Floor => "floor",
            Who::GnuTar => "GNU tar",
            Who::Bsdtar => "bsdtar",
            Who::ContainersStorage => "containers-storage",
        }
    }

    /// Those that can do a piece of work here.
    pub(crate) fn able(work: Work, input: &str) -> Vec<Who> {
        // It refuses sparse files.
        let engine = work == Work::Apply && input != "big" && has_tool("containers-storage");
        let all: &[Who] = match work {
            Work::Apply | Work::Diff => {
                &[Who::Layerbox, Who::Native, Who::Floor, Who::GnuTar, Who::Bsdtar, Who::ContainersStorage]
            }
            Work::ApplySynced => &[Who::Layerbox, Who::GnuTar],
            Work::Changes => &[Who::Layerbox, Who::Native, Who::Floor],
        };
        all.iter()
            .copied()
            .filter(|who| match who {
                // It resolves each name from the top again: more than a minute for one deep directory.
                Who::Bsdtar => has_tool("bsdtar") && input != "deep",
                Who::ContainersStorage => engine,
                _ => true,
            })
            .collect()
    }
}

/// Where they all work: on one file system, with one layer that is kept to be read.
pub(crate) struct Field {
    place: PathBuf,
    store: Store,
    archive: PathBuf,
    programs: PathBuf,
    next: u32,
}

/// The layer that is read.
const KEPT: &str = "kept";

impl Field {
    /// Copies the archive to the place, and fills the layer that is kept where one is to be read.
    pub(crate) fn new(place: &Place, input: &Input, reads: bool) -> Result<Field> {
        let archive = place.join("in.tar");
        fs::copy(&input.archive, &archive)?;
        let store = Store::new(place.join("store"), Dialect::Overlay);
        store.create(KEPT, None)?;
        let field = Field {
            place: place.path().to_owned(),
            store,
            archive,
            programs: std::env::current_exe()?.parent().context("no directory")?.to_owned(),
            next: 0,
        };
        if reads {
            field.store.ok(["apply-diff", KEPT, text(&field.archive)?])?;
        }
        Ok(field)
    }

    /// What is needed before the work: an empty place to fill. Its name is answered.
    pub(crate) fn prepare(&mut self, work: Work, who: Who) -> Result<String> {
        self.next += 1;
        let target = format!("target-{}", self.next);
        match who {
            _ if !work.fills() => {}
            Who::Layerbox => self.store.create(&target, None)?,
            Who::ContainersStorage => {
                let mut create = self.containers_storage();
                create.args(["create-layer", "--id", &target]);
                layerbox_tests::command::run(&mut create, b"")?.expect(0)?;
            }
            _ => fs::create_dir(self.place.join(&target))?,
        }
        Ok(target)
    }

    /// The program with its arguments.
    pub(crate) fn command(&self, work: Work, who: Who, target: &str) -> Result<Command> {
        let directory = self.place.join(target);
        let kept = self.store.content(KEPT);
        let archive = text(&self.archive)?;
        let helper = |name: &str, word: &str| {
            let mut command = Command::new(self.programs.join(name));
            command.arg(word);
            command
        };
        let mut command = match (who, work) {
            (Who::Layerbox, Work::Apply) => {
                return Ok(self.store.command(["apply-diff", target, archive, "--no-sync"]));
            }
            (Who::Layerbox, Work::ApplySynced) => {
                return Ok(self.store.command(["apply-diff", target, archive]));
            }
            (Who::Layerbox, _) => return Ok(self.store.command([work.name(), KEPT])),
            (Who::ContainersStorage, _) => {
                let mut command = self.containers_storage();
                command.args(["apply-diff", "--file", archive, target]);
                return Ok(command);
            }
            (Who::Native, Work::Changes) => helper("bench-native", "changes"),
            (Who::Floor, Work::Changes) => helper("bench-floor", "walk"),
            (Who::Native, Work::Diff) => helper("bench-native", "diff"),
            (Who::Floor, Work::Diff) => helper("bench-floor", "diff"),
            (Who::Native, _) => helper("bench-native", "apply"),
            (Who::Floor, _) => helper("bench-floor", "apply"),
            (Who::GnuTar, _) => {
                let mut command = Command::new("tar");
                command.args(["--xattrs", "--xattrs-include=*", "--numeric-owner"]);
                command
            }
            (Who::Bsdtar, _) => {
                let mut command = Command::new("bsdtar");
                command.args(["--xattrs", "--numeric-owner"]);
                command
            }
        };
        match (who, work) {
            (Who::GnuTar, Work::ApplySynced) => {
                command = Command::new("sh");
                let script = "tar --xattrs --xattrs-include='*' --numeric-owner -p -xf \"$1\" -C \"$2\" && sync -f \"$2\"";
                command.args(["-c", script, "sh", archive]).arg(&directory);
            }
            (Who::GnuTar | Who::Bsdtar, Work::Apply | Work::ApplySynced) => {
                command.args(["-p", "-xf", archive, "-C"]).arg(&directory);
            }
            (Who::GnuTar, _) => {
                command.args(["--format=pax", "--sort=name", "-c", "-C"]).arg(&kept).arg(".");
            }
            (Who::Bsdtar, _) => {
                command.args(["--format=pax", "-cf", "-", "-C"]).arg(&kept).arg(".");
            }
            (_, Work::Apply | Work::ApplySynced) => {
                command.arg(&self.archive).arg(&directory);
            }
            _ => {
                command.arg(&kept);
            }
        }
        Ok(command)
    }

    /// Removes what was filled, and waits until the disk knows: what deletions leave in the journal is
    /// nobody's part of the next run.
    pub(crate) fn clean(&self, work: Work, who: Who, target: &str) -> Result<()> {
        if work.fills() {
            match who {
                Who::Layerbox => drop(self.store.ok(["remove", target])?),
                Who::ContainersStorage => {
                    let mut delete = self.containers_storage();
                    delete.args(["delete-layer", target]);
                    layerbox_tests::command::run(&mut delete, b"")?.expect(0)?;
                }
                _ => drop(shell("rm -rf --one-file-system \"$1\"", [self.place.join(target).as_path()])?),
            }
        }
        let _ = fs::remove_file(self.output());
        rustix::fs::syncfs(fs::File::open(&self.place)?)?;
        Ok(())
    }

    /// Where the standard output goes.
    pub(crate) fn output(&self) -> PathBuf {
        self.place.join("out")
    }

    /// Where reports go.
    pub(crate) fn report(&self) -> PathBuf {
        self.place.join("report")
    }

    fn containers_storage(&self) -> Command {
        let mut command = Command::new("containers-storage");
        command.arg("--root").arg(self.place.join("containers"));
        command.arg("--runroot").arg(self.place.join("containers-run"));
        command.args(["--storage-driver", "overlay"]);
        command
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
