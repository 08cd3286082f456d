//! The way through a tree that an archive is written along: down into each directory, and up again.
//!
//! Its own stack instead of the language's: trees are deeper than a sandbox's stack.

use std::rc::Rc;
use std::vec;

use super::output::Output;
use crate::host::{Name, Node, Outcome, Result, Tree};

/// Something to do in a directory.
#[derive(Debug)]
pub(super) enum Step {
    /// Put what this layer has, which is no directory.
    Put(Rc<Node>, usize),
    /// Go down.
    Enter(Directory),
    /// Hide a name.
    Delete(Name),
    /// Say of a socket that it was left out.
    Skip(Name),
}

/// A directory to go down into.
#[derive(Debug)]
pub(super) struct Directory {
    /// The directory as this layer has it.
    pub(super) node: Rc<Node>,
    /// That layer.
    pub(super) layer: usize,
    /// The layers of two trees in which it goes on.
    pub(super) old: Vec<usize>,
    pub(super) new: Vec<usize>,
    /// Whether it has an entry of its own, whatever is in it. For others it depends on that.
    pub(super) is_new: bool,
    /// Whether it is known to be opaque before it was opened.
    pub(super) is_opaque: bool,
}

/// What is in a directory.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) is_opaque: bool,
    /// In the order of the names.
    pub(super) steps: Vec<Step>,
}

/// The directories that the way has gone down into.
pub(super) struct Ascent<'a, T: Tree> {
    output: Output<'a, T>,
    levels: Vec<Level>,
    /// How many of them, from the root on, have their entries.
    put: usize,
}

struct Level {
    node: Rc<Node>,
    layer: usize,
    steps: vec::IntoIter<Step>,
}

impl<'a, T: Tree> Ascent<'a, T> {
    pub(super) fn new(output: Output<'a, T>) -> Self {
        Self { output, levels: Vec::new(), put: 0 }
    }

    /// Goes the whole way from the root; `open` tells what is in a directory.
    pub(super) fn run(
        mut self,
        root: Directory,
        mut open: impl FnMut(&Directory) -> Result<Opened>,
    ) -> Result<Outcome> {
        self.enter(root, &mut open)?;
        while let Some(level) = self.levels.last_mut() {
            match level.steps.next() {
                None => {
                    self.levels.pop();
                    self.put = self.put.min(self.levels.len());
                }
                Some(Step::Put(node, layer)) => {
                    self.put_directories()?;
                    self.output.add(&node, layer)?;
                }
                Some(Step::Delete(name)) => {
                    self.put_directories()?;
                    self.output.delete(&name)?;
                }
                Some(Step::Skip(name)) => self.output.skip(name),
                Some(Step::Enter(directory)) => self.enter(directory, &mut open)?,
            }
        }
        self.output.finish()
    }

    fn enter(
        &mut self,
        directory: Directory,
        open: &mut impl FnMut(&Directory) -> Result<Opened>,
    ) -> Result<()> {
        let Opened { is_opaque, steps } = open(&directory)?;
        let Directory { node, layer, is_new, is_opaque: is_known_opaque, .. } = directory;
        let name = node.name.clone();
        self.levels.push(Level { node, layer, steps: steps.into_iter() });
        let is_opaque = is_opaque || is_known_opaque;
        if is_new || is_opaque {
            self.put_directories()?;
        }
        if is_opaque { self.output.make_opaque(&name) } else { Ok(()) }
    }

    /// Adds the entries of all directories on the way that do not have theirs.
    fn put_directories(&mut self) -> Result<()> {
        for level in &self.levels[self.put..] {
            let is_root = level.node.name.is_empty();
            if !is_root || self.output.root_says(&level.node, level.layer)?.with_content {
                self.output.add(&level.node, level.layer)?;
            }
        }
        self.put = self.levels.len();
        Ok(())
    }
}
