//! Rewriting a store in the form of the other backend, so that an old aufs store mounts on a kernel without
//! aufs, and back.
//!
//! What differs between the two on disk are the marks of deletions. Layer by layer, each mark is written in
//! the new form before the old one is taken away, and the directories keep their times. A journal,
//! `convert.json`, is on the disk before the first change, and after the last one `layerbox.json` is renamed
//! to what it says from then on. While the journal is there the store is in both forms; nobody opens it but
//! to go on, or to turn back. Each step is such that it can be repeated, and neither form holds content that
//! is a mark in the other (that is looked for before the journal is written): so a store in both forms is
//! never taken for another.
//!
//! Nothing is deleted on the way to overlayfs: the marks of aufs, and what it kept for itself, go to
//! `aufs/ID/`, each to the place that it had, and from there back when the store is converted back. A layer's
//! `aufs/ID/` ends with the layer.
//!
//! - `journal`: what is under way;
//! - `survey`: what the other form cannot hold;
//! - `plan`: what is to be done in a layer;
//! - `rewrite`: doing it;
//! - `source`: the file or device that the new marks are names of;
//! - `aside`: `aufs/ID/`.

mod aside;
mod journal;
mod plan;
mod rewrite;
mod source;
mod survey;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::mount::{Backend, Choice, Layout, Unions, mountinfo};
use layerbox_privileged::references::References;

use super::files::{ignore_missing, make_directory};
use super::{Opening, Owner, Store};
use crate::error::Failure;
use journal::Journal;
pub(super) use journal::{FILE, TEMPORARY};
use rewrite::Rewrite;

/// How long to wait for others that use the store. Whoever has it does not end for this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The directory for what aufs keeps in layers beside their content, while the store is overlayfs'.
pub(super) const ASIDE: &str = "aufs";

/// What came of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Converted {
    /// The backend that the store was of.
    pub from: Backend,
    /// The one that it is of now; where it is the same, nothing was to be done.
    pub to: Backend,
    /// How many layers there are.
    pub layers: u64,
    /// How many deletions, opaque directories among them, were written in the new form.
    pub deletions: u64,
}

/// Why a conversion did not come to its end, and the layer at which it did not.
#[derive(Debug)]
pub(crate) struct Stop {
    pub(crate) layer: Option<LayerId>,
    pub(crate) failure: Failure,
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop { layer: None, failure }
    }
}

impl From<layerbox_privileged::Error> for Stop {
    fn from(error: layerbox_privileged::Error) -> Stop {
        Failure::from(error).into()
    }
}

/// Says at which layer something failed.
fn at(layer: &LayerId) -> impl Fn(Failure) -> Stop {
    move |failure| Stop { layer: Some(layer.clone()), failure }
}

/// Rewrites the store at `root` for a backend; [`Choice::Auto`] goes on with what was begun, or else is
/// overlayfs. One that was cut off is gone on with, or turned back.
///
/// # Errors
///
/// [`Failure::StoreInUse`], [`Failure::Conflict`] where a layer is mounted, [`Failure::Refused`] for a layer
/// that the other form cannot hold,
/// [`Failure::TooDeep`]: then nothing was changed, or nothing more. After any other failure it can be called again.
pub(crate) fn convert(root: &Path, target: Choice) -> Result<Converted, Stop> {
    let opening =
        Opening { owner: Owner::Service, patience: PATIENCE, unfinished: true, ..Opening::default() };
    let mut store = Store::open(root, opening)?;
    let begun = Journal::read(&store.dir)?;
    let Some((from, to)) = direction(store.format.backend(), begun.as_ref(), target)? else {
        let (backend, layers) = (store.format.backend(), store.ids()?.len() as u64);
        return Ok(Converted { from: backend, to: backend, layers, deletions: 0 });
    };
    let layers = store.quiet(to)?;
    let journal = match begun {
        Some(journal) => journal.towards(from, to),
        None => {
            for id in &layers {
                survey::survey(&store, id, from, to).map_err(at(id))?;
            }
            Journal::new(&store.format.id, from, to)
        }
    };
    let mut rewrite = Rewrite::begin(&store, journal)?;
    rewrite.resume()?;
    for id in &layers {
        rewrite.layer(id).map_err(at(id))?;
        store.fit(id, to).map_err(at(id))?;
    }
    let deletions = rewrite.end()?;
    // From here on it is a store of the other backend. The journal is still there, so that nobody opens it
    // before all is done.
    store.format = store.format.of(to);
    store.format.write(&store.dir)?;
    ignore_missing(store.dir.remove_file(FILE), "unlink")?;
    store.sync_directory(".")?;
    // Working directories of overlayfs. What is left of them is deleted when the store is next opened.
    drop(store.empty_trash(&|| true));
    Ok(Converted { from, to, layers: layers.len() as u64, deletions })
}

/// From which backend to which; none where the store is what it should be.
fn direction(
    now: Backend,
    begun: Option<&Journal>,
    target: Choice,
) -> Result<Option<(Backend, Backend)>, Failure> {
    let is_aufs = |backend| backend == Backend::Aufs;
    let (from, to) = match begun {
        Some(journal) => {
            let (from, to) = journal.direction();
            let turn = target != Choice::Auto && is_aufs(to) != (target == Choice::Aufs);
            if turn { (to, from) } else { (from, to) }
        }
        None if is_aufs(now) == (target == Choice::Aufs) => return Ok(None),
        None if target == Choice::Aufs => (now, Backend::Aufs),
        None => (now, Backend::detect(Choice::Overlay)?),
    };
    if [from, to].contains(&Backend::Overlay) && Backend::detect(Choice::Overlay)? != Backend::Overlay {
        let what = "its trusted.overlay.* attributes are seen by root of the machine only".to_owned();
        return Err(Failure::Unsupported(what));
    }
    Ok(Some((from, to)))
}

impl Store {
    /// Holds the store to be used by nobody and to be such as `to` can mount, and sweeps what is incomplete.
    /// Answers the layers.
    fn quiet(&self, to: Backend) -> Result<Vec<LayerId>, Stop> {
        let layout = || Layout { root: self.root().to_owned(), runtime: self.runtime().to_owned() };
        let unions = Unions::new(self.format.backend(), layout())?;
        let references = References::new(self.runtime(), self.root().join("mnt"))?;
        self.recover(&unions, &references)?;
        if let Some(id) = unions.all()?.into_iter().chain(references.counted()?).next() {
            let what = "it is mounted, or counted as in use: layerbox put or layerbox cleanup gives it back";
            return Err(at(&id)(Failure::Conflict(what.to_owned())));
        }
        if let Some(what) = mounted_by_others(self.root())? {
            return Err(Failure::Conflict(what).into());
        }
        let depth = Unions::new(to, layout())?.depth_limit();
        let layers = self.ids()?;
        for id in &layers {
            let record = self.existing(id).map_err(at(id))?;
            if record.ancestors.len() > depth as usize {
                return Err(at(id)(Failure::TooDeep(depth)));
            }
        }
        Ok(layers)
    }

    /// Gives a layer the directories that it needs with a backend, and takes away those that it does not.
    fn fit(&self, id: &LayerId, to: Backend) -> Result<(), Failure> {
        let work = format!("work/{id}");
        if to == Backend::Aufs {
            return self.throw_away(&work).map(drop);
        }
        if super::files::exists(&self.dir, &work)? {
            return Ok(());
        }
        make_directory(&self.dir, &work, 0o755)?;
        self.give_to_root(&work)
    }
}

/// What of the store somebody else has mounted, as containerd mounts layers by itself.
fn mounted_by_others(root: &Path) -> Result<Option<String>, Failure> {
    let mounts = std::fs::read("/proc/self/mountinfo").map_err(|e| Failure::io("read", &e))?;
    let content = [root.as_os_str().as_bytes(), b"/diff/"].concat();
    let shows = |line: &&[u8]| mountinfo::unescape(line).windows(content.len()).any(|part| part == content);
    Ok(mounts.split(|byte| *byte == b'\n').find(shows).map(|line| {
        let point = line.split(|byte| *byte == b' ').nth(4).unwrap_or_default();
        format!("layers are mounted on {}", crate::error::Escaped(point))
    }))
}

/// Takes away what a process left that was killed while it wrote the journal.
pub(super) fn forget_draft(store: &Store) -> Result<(), Failure> {
    ignore_missing(store.dir.remove_file(TEMPORARY), "unlink")
}

/// Holds a store to be in one form.
pub(super) fn require_whole(dir: &cap_std::fs::Dir) -> Result<(), Failure> {
    match dir.symlink_metadata(FILE) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(|e| Failure::io("stat", &e))?,
    };
    let Some(journal) = Journal::read(dir)? else { return Ok(()) };
    let (from, to) = journal.direction();
    Err(Failure::Converting { from: from.as_str().to_owned(), to: to.as_str().to_owned() })
}
