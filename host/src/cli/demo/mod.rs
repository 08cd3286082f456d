//! `demo`: a small stack of layers made from a real root file system, step by step, with the commands that a
//! user would type.
//!
//! Each command that is shown is run as it stands there, by a shell, with this very program as `layerbox`;
//! what it prints is what is shown. The demo then checks by means of its own what should have come of it.
//! [`stage`] is the directory it all happens in and sees to it that nothing is left; [`base`] finds a root
//! file system; [`edits`] chooses what to change; [`compare`] compares trees; [`script`] prints.

mod base;
mod compare;
mod edits;
mod place;
mod script;
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::context::Context;
use super::output::{count, human_size};
use super::{Outcome, Stop};
use base::Base;
use compare::Roots;
use edits::Edits;
use script::Script;
use stage::{Interrupted, Stage};

/// The exit status of a program that Ctrl-C ended, as shells have it: 128 and SIGINT.
const INTERRUPTED: u8 = 130;

/// How many lines of a command's output are shown at most.
const SHOWN_LINES: usize = 40;

pub(super) fn demo(context: &Context, archive: Option<PathBuf>) -> Outcome {
    let archive =
        archive.map(|archive| archive.canonicalize().with_context(|| archive.display().to_string()));
    let archive = archive.transpose().map_err(Stop::Other)?;
    let mut script = Script::new(context);
    let stage = Stage::new(context).map_err(Stop::Other)?;
    let played = play(&stage, &mut script, archive.as_deref());
    let left = stage.clear();
    let interrupted = played.as_ref().is_err_and(|error| error.is::<Interrupted>());
    match (&played, &left) {
        (Err(_), Ok(())) => script.say("Cleaned up: nothing is left mounted, the directory is gone."),
        (_, Ok(())) => script.check("nothing is left mounted, and the directory is gone", true),
        (_, Err(_)) => script.check("nothing is left behind", false),
    }
    if interrupted {
        script.say("Interrupted.");
    }
    let ended = script.end(played.is_ok());
    match (played, left) {
        (Err(_), Ok(())) if interrupted => Err(Stop::Status(INTERRUPTED)),
        (Err(error), _) | (Ok(()), Err(error)) => Err(Stop::Other(error.context("demo"))),
        (Ok(()), Ok(())) if ended => Ok(()),
        (Ok(()), Ok(())) => Err(Stop::Other(anyhow::anyhow!("demo: not everything held"))),
    }
}

/// The steps.
fn play(stage: &Stage, script: &mut Script, archive: Option<&Path>) -> Result<()> {
    let mut play = Play { stage, script };
    play.place()?;
    play.base(archive)?;
    play.children()?;
    let (app, lab) = play.mount()?;
    let edits = play.change(&app)?;
    play.changes(&edits, &app, &lab)?;
    play.sizes(&app)?;
    play.archive()?;
    play.elsewhere(&app)?;
    play.end()
}

/// The demo while it runs.
struct Play<'a> {
    stage: &'a Stage,
    script: &'a mut Script,
}

impl Play<'_> {
    /// Shows a command, runs it in the stage's directory, shows its output and returns it.
    fn run(&mut self, command: &str) -> Result<String> {
        self.run_in(self.stage.path(), command)
    }

    /// The same in another directory.
    fn run_in(&mut self, directory: &Path, command: &str) -> Result<String> {
        self.script.command(command);
        let output = self.stage.run(directory, command)?;
        self.script.output(&output.text, SHOWN_LINES);
        if !output.success {
            bail!("{command}: {}", output.complaint());
        }
        Ok(output.text)
    }

    fn place(&mut self) -> Result<()> {
        self.script.step("A place to work in");
        self.script.say(&self.stage.describe());
        self.script.command(&format!("cd {}", self.stage.path().display()));
        self.script.command("export LAYERBOX_ROOT=$PWD/store");
        Ok(())
    }

    fn base(&mut self, archive: Option<&Path>) -> Result<()> {
        self.script.step("A base layer");
        // First of all, since it tells whether layers can be made here at all.
        self.run("layerbox create base")?;
        let base = match archive {
            Some(archive) => Base::of_archive(archive),
            None => self.debootstrap().transpose().unwrap_or_else(|| base::of_usr(self.stage.path()))?,
        };
        self.script.say(&base.description);
        let started = std::time::Instant::now();
        let size: u64 = self.run(&base.command)?.trim().parse().context("apply-diff printed no size")?;
        let seconds = started.elapsed().as_secs_f64();
        self.script.say(&format!("{} in {seconds:.1} s", human_size(size)));
        Ok(())
    }

    /// A fresh Debian, where that can be had.
    fn debootstrap(&mut self) -> Result<Option<Base>> {
        let Some(command) = base::debootstrap() else {
            self.script.say("debootstrap is not installed; with it the base would be a fresh Debian.");
            return Ok(None);
        };
        self.script.say("A minimal Debian, fetched now. This takes a minute or two.");
        self.script.command(command);
        let output = self.stage.run_within(self.stage.path(), command, Some(base::DEBOOTSTRAP_TIME))?;
        if output.success {
            return Ok(Some(base::of_debian()));
        }
        self.script.say(&format!("That did not work: {}. So something smaller.", output.complaint()));
        Ok(None)
    }

    fn children(&mut self) -> Result<()> {
        self.script.step("Two layers over it");
        self.run("layerbox create app --parent base")?;
        self.run("layerbox create lab --parent base")?;
        self.run("layerbox list --tree")?;
        Ok(())
    }

    fn mount(&mut self) -> Result<(PathBuf, PathBuf)> {
        self.script.step("Both mounted, each over the same base");
        let app = PathBuf::from(self.run("layerbox get app")?.trim_end());
        let lab = PathBuf::from(self.run("layerbox get lab")?.trim_end());
        let names = compare::names(&app)?;
        let same = compare::trees(&app, &lab, Roots::LeftOut, || self.stage.pulse())?;
        self.script.say(&count(names.len() as u64, "name in each", "names in each"));
        self.differences("both show the same tree", &same);
        Ok((app, lab))
    }

    fn change(&mut self, app: &Path) -> Result<Edits> {
        self.script.step("Changes through the mount of app");
        let edits = Edits::choose(app)?;
        self.script.command("cd \"$(layerbox get app)\"");
        for edit in &edits.edits {
            self.script.say(edit.why);
            self.run_in(app, &edit.command)?;
        }
        Ok(edits)
    }

    fn changes(&mut self, edits: &Edits, app: &Path, lab: &Path) -> Result<()> {
        self.script.step("What app changes");
        let listed = self.run("layerbox changes app")?;
        let listed: BTreeSet<&str> = listed.lines().collect();
        let expected = edits.expected();
        let same = listed.iter().copied().eq(expected.iter().map(String::as_str));
        self.script.check("these are exactly the changes that were made", same);
        if !same {
            let expected: BTreeSet<&str> = expected.iter().map(String::as_str).collect();
            for line in expected.difference(&listed) {
                self.script.say(&format!("missing: {line}"));
            }
            for line in listed.difference(&expected) {
                self.script.say(&format!("unexpected: {line}"));
            }
        }
        self.script.say("lab lies over the same base and has nothing of this:");
        let none = self.run("layerbox changes lab")?;
        let untouched = edits.deleted.iter().all(|name| lab.join(name).symlink_metadata().is_ok());
        let gone = edits.deleted.iter().all(|name| app.join(name).symlink_metadata().is_err());
        self.script
            .check("what app deleted is gone there and still in lab", none.is_empty() && untouched && gone);
        Ok(())
    }

    fn sizes(&mut self, app: &Path) -> Result<()> {
        self.script.step("Sizes");
        let size: u64 =
            self.run("layerbox diff-size app")?.trim().parse().context("diff-size printed no number")?;
        self.run("layerbox list")?;
        // The mount point is mnt/app, the layer's own content diff/app beside it: Docker's layout.
        let content = app.parent().and_then(Path::parent).context("an odd mount point")?.join("diff/app");
        let counted = compare::size(&content)?;
        self.script.check("the size is that of the files that app itself holds", size == counted);
        Ok(())
    }

    fn archive(&mut self) -> Result<()> {
        self.script.step("The layer as an archive");
        self.run("layerbox diff app -o app.tar")?;
        self.run("tar -tvf app.tar")?;
        self.script.say(".wh.NAME says that NAME is deleted, .wh..wh..opq that a directory starts afresh.");
        self.run("layerbox diff app | cmp - app.tar")?;
        self.script.check("a second archive is the same, byte for byte", true);
        Ok(())
    }

    fn elsewhere(&mut self, app: &Path) -> Result<()> {
        self.script.step("The archives applied in another store");
        self.run("layerbox --root elsewhere create base")?;
        self.run("layerbox diff base | layerbox --root elsewhere apply-diff base")?;
        self.run("layerbox --root elsewhere create app --parent base")?;
        self.run("layerbox --root elsewhere apply-diff app app.tar")?;
        let other = PathBuf::from(self.run("layerbox --root elsewhere get app")?.trim_end());
        let difference = compare::trees(app, &other, Roots::Compared, || self.stage.pulse())?;
        let names = compare::names(app)?.len() as u64;
        let what = format!(
            "{}: type, mode, owner, time, size, content, links, attributes are equal",
            count(names, "name", "names")
        );
        self.differences(&what, &difference);
        self.run("layerbox --root elsewhere diff app | cmp - app.tar")?;
        self.script.check("and its archive of app is the same, byte for byte", true);
        self.run("layerbox --root elsewhere put app")?;
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        self.script.step("Put away");
        self.run("layerbox put app")?;
        self.run("layerbox put lab")?;
        let mounted = self.stage.mounts()?;
        self.script.check("nothing is mounted any more", mounted.is_empty());
        self.run("layerbox check")?;
        self.script.check("the store is in order", true);
        self.run("layerbox remove app lab base")?;
        let rest = self.run("layerbox list")?;
        self.script.check("no layer is left", rest.lines().count() == 1);
        Ok(())
    }

    /// A check of two trees, with the first of what differs.
    fn differences(&mut self, what: &str, differences: &[String]) {
        self.script.check(what, differences.is_empty());
        for difference in differences.iter().take(10) {
            self.script.say(difference);
        }
        if differences.len() > 10 {
            self.script.say(&format!("and {} more", differences.len() - 10));
        }
    }
}
