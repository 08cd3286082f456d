//! What is to be done in a layer: for each of its directories the steps that are left.
//!
//! It is made of what the layer holds, and so is right for one in which a conversion was cut off, whichever
//! way that went.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;

use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Detail, Tree, WalkOptions};
use layerbox_privileged::mount::Backend;
use layerbox_privileged::name::Name;
use layerbox_privileged::node::{Kind, Node};

use super::super::Store;
use super::super::marks::{self, Mark, failed, is_missing};
use super::{aside, survey};
use crate::error::Failure;

/// How many names are looked at in one go.
const BATCH: u32 = 1024;

/// A step, in one directory of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// What aufs keeps comes back from `aufs/ID/`: this name.
    GiveBack(Vec<u8>),
    /// The file that aufs links its deletions to is made where it is missing.
    MakeBase,
    /// This name, which is a mark of aufs, becomes one of overlayfs, and goes to `aufs/ID/`.
    Leave(Vec<u8>),
    /// This name, a 0/0 device, becomes a mark of aufs.
    Enter(Vec<u8>),
    /// The directory's attribute becomes a mark of aufs.
    EnterOpaque,
    /// An attribute of overlayfs that says nothing goes; of this name, or of the directory itself where that
    /// is empty.
    Forget(Vec<u8>, Vec<u8>),
}

impl Step {
    /// Whether it rewrites a deletion.
    pub(super) fn is_deletion(&self) -> bool {
        match self {
            Step::Leave(name) => matches!(marks::mark(name), Some(Mark::Deletes(_) | Mark::Opaque)),
            Step::Enter(_) | Step::EnterOpaque => true,
            Step::GiveBack(_) | Step::MakeBase | Step::Forget(..) => false,
        }
    }
}

/// Directories, each with its steps in their order.
pub(super) type Plan = BTreeMap<Vec<u8>, Vec<Step>>;

/// The directory and the name of a mark of overlayfs that a layer has already: the new ones become names of
/// the same device.
pub(super) type Known = Option<(Vec<u8>, Vec<u8>)>;

/// What is to be done in a layer.
pub(super) fn plan(
    store: &Store,
    id: &LayerId,
    from: Backend,
    to: Backend,
) -> Result<(Plan, Known), Failure> {
    match to {
        Backend::Aufs => to_aufs(store, id, from).map(|plan| (plan, None)),
        Backend::Overlay | Backend::OverlayUser => to_overlay(store, id),
    }
}

fn to_overlay(store: &Store, id: &LayerId) -> Result<(Plan, Known), Failure> {
    let (mut plan, mut known) = (Plan::new(), None);
    names_in(&Tree::new(store.content(id)?, false), |directory, last, kind| {
        if marks::mark(last).is_some() {
            plan.entry(directory.to_vec()).or_default().push(Step::Leave(last.to_vec()));
        } else if known.is_none() && marks::is_device(kind) {
            known = Some((directory.to_vec(), last.to_vec()));
        }
        Ok(())
    })?;
    Ok((plan, known))
}

/// Tells of every name in a tree, but for what is below marks of aufs: of its directory, itself, and its
/// kind.
fn names_in(
    tree: &Tree,
    mut tell: impl FnMut(&[u8], &[u8], &Kind) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut walker =
        tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Names })?;
    loop {
        let names = walker.names(BATCH)?;
        if names.entries.is_empty() {
            return Ok(());
        }
        let mut rest = names.bytes.as_slice();
        for (length, kind) in &names.entries {
            let (name, further) = rest.split_at(*length);
            rest = further;
            let (directory, last) = split(name);
            if !marks::is_below_mark(directory) {
                tell(directory, last, kind)?;
            }
        }
    }
}

fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&[], name),
    }
}

fn to_aufs(store: &Store, id: &LayerId, from: Backend) -> Result<Plan, Failure> {
    let Kept { bookkeeping, mut marks } = kept(store, id)?;
    let mut plan = Plan::new();
    let tree = Tree::new(store.content(id)?, false);
    let mut walker = tree.walk(WalkOptions { start: Name::root(), recursive: true, detail: Detail::Full })?;
    loop {
        let nodes = walker.next(BATCH)?;
        if nodes.is_empty() {
            break;
        }
        nodes.iter().for_each(|node| enter(node, from, &mut plan, &mut marks));
    }
    // Marks that come back are names of whatever they were names of.
    let is_new = |directory: &[u8], step: &Step| match step {
        Step::Enter(name) => {
            marks::deletion_of(name).is_some_and(|name| !marks.contains(&join(directory, &name)))
        }
        Step::EnterOpaque => !marks.contains(&join(directory, marks::OPAQUE)),
        _ => false,
    };
    let wants_base = plan.iter().any(|(directory, steps)| steps.iter().any(|step| is_new(directory, step)));
    let mut whole = bookkeeping;
    if wants_base {
        whole.entry(Vec::new()).or_default().push(Step::MakeBase);
    }
    for (directory, steps) in plan {
        whole.entry(directory).or_default().extend(steps);
    }
    Ok(whole)
}

fn join(directory: &[u8], last: &[u8]) -> Vec<u8> {
    if directory.is_empty() { last.to_vec() } else { [directory, b"/", last].concat() }
}

/// The steps for one name of a layer of overlayfs.
fn enter(node: &Node, from: Backend, plan: &mut Plan, marks: &mut BTreeSet<Vec<u8>>) {
    let (directory, last) = node.name.split();
    if marks::is_below_mark(directory) {
        return;
    }
    // What a conversion that was cut off has written already.
    if marks::mark(last).is_some() {
        marks.insert(node.name.as_bytes().to_vec());
        return;
    }
    let mut add = |directory: &[u8], step| plan.entry(directory.to_vec()).or_default().push(step);
    if marks::is_device(&node.kind) {
        add(directory, Step::Enter(last.to_vec()));
        return;
    }
    let (Some(own), Some(opaque)) = (marks::own_attributes(from), marks::opaque_attribute(from)) else {
        return;
    };
    for xattr in &node.attributes.xattrs {
        if xattr.name == opaque.as_bytes() {
            add(node.name.as_bytes(), Step::EnterOpaque);
        } else if survey::is_hint(&xattr.name, own) {
            add(directory, Step::Forget(last.to_vec(), xattr.name.clone()));
        }
    }
}

/// What comes back from `aufs/ID/`.
#[derive(Default)]
struct Kept {
    /// The bookkeeping.
    bookkeeping: Plan,
    /// The paths of all marks: those of them come back that take the place of one of overlayfs. A mark beside
    /// what it would delete does not: somebody has made that anew.
    marks: BTreeSet<Vec<u8>>,
}

fn kept(store: &Store, id: &LayerId) -> Result<Kept, Failure> {
    let mut kept = Kept::default();
    let Some(aside) = aside::open(store, id)? else { return Ok(kept) };
    let layer = store.content(id)?;
    names_in(&Tree::new(aside, false), |directory, name, _| {
        let Some(mark) = marks::mark(name) else { return Ok(()) };
        match marks::directory(layer.as_fd(), directory) {
            Ok(_) => {}
            // Somebody has removed it meanwhile.
            Err(errno) if is_missing(errno) => return Ok(()),
            Err(errno) => return Err(failed("openat2", directory, errno)),
        }
        if mark == Mark::Bookkeeping {
            kept.bookkeeping.entry(directory.to_vec()).or_default().push(Step::GiveBack(name.to_vec()));
        }
        kept.marks.insert(join(directory, name));
        Ok(())
    })?;
    Ok(kept)
}
