//! What one layer has in one directory, in either dialect.

use std::cmp::Ordering;
use std::rc::Rc;

use crate::host::{Detail, Dialect, Kind, Name, Node, Result, Tree, WalkOptions, Walker};
use crate::whiteout::{self, Found};

/// How many nodes go over in one call: the most that the host takes.
pub(super) const BATCH: usize = 4096;

/// How many names go over in one call: few enough that the host's walk is soon ahead.
const NAMES: u32 = 1024;

/// A name in a directory of a layer.
#[derive(Clone, Debug)]
pub struct Item {
    /// Where.
    pub name: Name,
    /// What is there; `None` where only a whiteout is.
    pub node: Option<Rc<Node>>,
    /// Whether the layer hides what lower layers have there.
    pub hides: bool,
}

/// What one layer has in one directory.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The directory itself; `None` where the layer does not have it.
    pub directory: Option<Node>,
    /// Whether it shows nothing of lower layers. Known only where the dialect says so in a name, or for
    /// [`Detail::Full`].
    pub opaque: bool,
    /// What is in it, in the order of the names, each name once.
    pub items: Vec<Item>,
}

/// Lists a directory of a layer.
///
/// # Errors
/// Those of the host.
pub fn list<T: Tree>(tree: &T, directory: &[u8], detail: Detail) -> Result<Listing> {
    let dialect = tree.dialect();
    let walker = tree.walk(&WalkOptions { start: directory.to_vec(), recursive: false, detail })?;
    let mut listing = Listing::default();
    loop {
        let mut nodes = walker.next(BATCH as u32)?.into_iter();
        if nodes.len() == 0 {
            break;
        }
        if listing.directory.is_none() {
            listing.directory = nodes.next();
        }
        nodes.for_each(|node| listing.add(dialect, node));
    }
    if let Some(node) = &listing.directory {
        listing.opaque |= whiteout::has_opaque_attribute(dialect, &node.attributes.xattrs);
    }
    listing.settle();
    Ok(listing)
}

impl Listing {
    /// Adds something that was found in the layer.
    pub(super) fn add(&mut self, dialect: Dialect, node: Node) {
        let (directory, last) = whiteout::split(&node.name);
        match whiteout::found(dialect, last, &node.kind) {
            Found::Content => {
                self.items.push(Item { name: node.name.clone(), node: Some(Rc::new(node)), hides: false });
            }
            Found::Hides(hidden) => {
                self.items.push(Item { name: whiteout::join(directory, hidden), node: None, hides: true });
            }
            Found::Opaque => self.opaque = true,
            Found::Bookkeeping => {}
        }
    }

    /// Puts the items into the order of their names, which whiteouts of aufs may not be in, and makes one of
    /// a name and its own whiteout.
    pub(super) fn settle(&mut self) {
        let compare = |one: &Item, other: &Item| match one.name.cmp(&other.name) {
            Ordering::Equal => other.node.is_some().cmp(&one.node.is_some()),
            different => different,
        };
        if !self.items.is_sorted_by(|one, next| compare(one, next) == Ordering::Less) {
            self.items.sort_unstable_by(compare);
        }
        self.items.dedup_by(|later, first| {
            let same = later.name == first.name;
            first.hides |= same && later.hides;
            same
        });
    }
}

/// Whether a directory of a layer shows nothing of lower layers.
///
/// # Errors
/// Those of the host.
pub fn is_opaque<T: Tree>(tree: &T, directory: &[u8]) -> Result<bool> {
    let dialect = tree.dialect();
    let (name, detail) = match whiteout::opaque_attribute(dialect) {
        None => (whiteout::opaque(directory), Detail::Names),
        Some(_) => (directory.to_vec(), Detail::Full),
    };
    let found = tree.stat(&[name], detail)?.into_iter().flatten().next();
    Ok(found.is_some_and(|node| {
        dialect == Dialect::Aufs || whiteout::has_opaque_attribute(dialect, &node.attributes.xattrs)
    }))
}

/// Gives all that a layer itself has to `take`, with its status: content, and no marks.
///
/// # Errors
/// Those of the host.
pub fn content<T: Tree>(tree: &T, mut take: impl FnMut(Node)) -> Result<()> {
    let walker = tree.walk(&WalkOptions { start: Name::new(), recursive: true, detail: Detail::Status })?;
    let mut below = Below::new(tree.dialect());
    loop {
        let nodes = walker.next(BATCH as u32)?;
        if nodes.is_empty() {
            return Ok(());
        }
        nodes.into_iter().filter(|node| below.is_content(&node.name, &node.kind)).for_each(&mut take);
    }
}

/// Gives the names of all that a layer itself has below a directory to `take`, as [`content`] does.
///
/// # Errors
/// Those of the host.
pub fn names<T: Tree>(tree: &T, start: &[u8], mut take: impl FnMut(&[u8])) -> Result<()> {
    let walker = tree.walk(&WalkOptions { start: start.to_vec(), recursive: true, detail: Detail::Names })?;
    let mut below = Below::new(tree.dialect());
    let mut each = |name: &[u8], kind: Kind| {
        if below.is_content(name, &kind) {
            take(name);
        }
    };
    while walker.names(NAMES, &mut each)? {}
    Ok(())
}

/// What a walk has met, from its start on.
struct Below {
    dialect: Dialect,
    is_start: bool,
    /// The last mark that is a directory. What is below a mark is no content either: aufs keeps directories
    /// of its own, and a whiteout may be one.
    skipped: Option<Name>,
}

impl Below {
    fn new(dialect: Dialect) -> Self {
        Self { dialect, is_start: true, skipped: None }
    }

    /// Whether the next that the walk meets is content, and not the start.
    fn is_content(&mut self, name: &[u8], kind: &Kind) -> bool {
        if std::mem::take(&mut self.is_start)
            || self.skipped.as_ref().is_some_and(|above| is_below(name, above))
        {
            return false;
        }
        let is_content = whiteout::found(self.dialect, whiteout::split(name).1, kind) == Found::Content;
        if !is_content && *kind == Kind::Directory {
            self.skipped = Some(name.to_vec());
        }
        is_content
    }
}

fn is_below(name: &[u8], directory: &[u8]) -> bool {
    name.strip_prefix(directory).is_some_and(|rest| rest.first() == Some(&b'/'))
}
