//! What the component holds, and one step of the attack: a call of an import with whatever comes to hand.

use crate::SECRET;
use crate::bindings::layerbox::driver::mounts::{self, Access, Branch};
use crate::bindings::layerbox::driver::streams::{Sink, Source};
use crate::bindings::layerbox::driver::tree::{Content, Detail, Piece, Tree, WalkOptions, Walker};
use crate::bindings::layerbox::driver::types::{Attributes, Device, Error, Kind, Timestamp, Xattr};
use crate::bindings::layerbox::driver::writer::{Body, Entry, Extent, Writer};
use crate::bindings::layerbox::driver::{directories, references};
use crate::files::{self, Files};
use crate::random::Random;

/// How many calls of imports one call of the component makes.
const CALLS: u64 = 12_000;

/// The most handles of a kind that are kept.
const KEPT: usize = 16;

pub(crate) struct Hands {
    pub(crate) random: Random,
    pub(crate) own: String,
    pub(crate) files: Files,
    trees: Vec<Tree>,
    walkers: Vec<Walker>,
    writers: Vec<Writer>,
    branches: Vec<Branch>,
    sources: Vec<Source>,
    sinks: Vec<Sink>,
    count: u64,
    saw: u64,
}

impl Hands {
    pub(crate) fn new(call: &str, id: &str) -> Self {
        Self {
            random: Random::new(&format!("{call} {id}")),
            own: id.to_owned(),
            files: Files::new(),
            trees: Vec::new(),
            walkers: Vec::new(),
            writers: Vec::new(),
            branches: Vec::new(),
            sources: Vec::new(),
            sinks: Vec::new(),
            count: 0,
            saw: 0,
        }
    }

    pub(crate) fn work(&mut self) {
        while self.count < CALLS {
            self.count += 1;
            match self.random.below(16) {
                0..=2 => self.tree(),
                3..=6 => self.writer(),
                7 => self.streams(),
                8 => self.mounts(),
                9 => self.references(),
                10 => self.directories(),
                11 => self.forget(),
                _ => files::call(self),
            }
        }
    }

    /// Makes a layer that was filled be kept, now and then.
    pub(crate) fn finish(&mut self) {
        if let Some(writer) = self.writers.first() {
            let _ = writer.finish();
        }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// How often the secret was in what the component was told.
    pub(crate) fn saw(&self) -> u64 {
        self.saw
    }

    pub(crate) fn looked(&mut self, calls: u64) {
        self.count += calls;
    }

    pub(crate) fn look(&mut self, bytes: &[u8]) {
        self.saw += u64::from(bytes.windows(SECRET.len()).any(|window| window == SECRET));
    }

    /// An answer that is an error of any kind, sometimes.
    pub(crate) fn lie(&mut self) -> Option<Error> {
        match self.random.below(8) {
            0 => Some(Error::NotFound(self.random.id(&self.own))),
            1 => Some(Error::Conflict("\u{1b}[31m".repeat(10))),
            2 => Some(Error::Busy(String::new())),
            _ => None,
        }
    }

    fn tree(&mut self) {
        let name = self.random.name();
        match self.random.below(8) {
            0 => keep(&mut self.trees, Tree::open(&self.random.id(&self.own))),
            1 | 2 => {
                let options = WalkOptions {
                    start: name,
                    recursive: self.random.one_in(2),
                    detail: detail(&mut self.random),
                };
                if let Some(tree) = pick(&mut self.random, &self.trees) {
                    keep(&mut self.walkers, tree.walk(&options));
                }
            }
            3 | 4 => {
                let max = self.random.below(5000) as u32;
                let names = self.random.one_in(3);
                let Some(walker) = pick(&mut self.random, &self.walkers) else { return };
                if names {
                    let found = walker.names(max).map(|names| names.bytes);
                    self.look(&found.unwrap_or_default());
                } else {
                    for node in walker.next(max).unwrap_or_default() {
                        self.look(&node.name);
                        self.look(format!("{:?}", node.kind).as_bytes());
                    }
                }
            }
            5 => {
                let names: Vec<_> = (0..self.random.below(6)).map(|_| self.random.name()).collect();
                let detail = detail(&mut self.random);
                let found =
                    pick(&mut self.random, &self.trees).and_then(|tree| tree.stat(&names, detail).ok());
                for node in found.unwrap_or_default().into_iter().flatten() {
                    if let Kind::Symlink(target) = &node.kind {
                        self.look(target);
                    }
                    node.attributes
                        .xattrs
                        .iter()
                        .for_each(|xattr| self.saw += u64::from(xattr.value.starts_with(SECRET)));
                }
            }
            6 => {
                let piece = match self.random.one_in(3) {
                    true => Piece::Bytes(self.random.bytes(100)),
                    false => Piece::Content(Content { name, length: self.random.number() % 5000 }),
                };
                if let (Some(tree), Some(sink)) = (self.trees.last(), self.sinks.last()) {
                    let _ = tree.send(&[piece], sink);
                }
            }
            _ => drop(self.trees.last().map(Tree::dialect)),
        }
    }

    fn writer(&mut self) {
        match self.random.below(12) {
            0 => keep(&mut self.writers, Writer::open(&self.random.id(&self.own))),
            1..=6 => {
                let entries: Vec<_> = (0..=self.random.below(2)).map(|_| self.entry()).collect();
                let source = if self.random.one_in(2) { self.sources.last() } else { None };
                if let Some(writer) = self.writers.last() {
                    let _ = writer.put(&entries, source);
                }
            }
            7 => {
                let (offset, bytes) = (self.random.number(), self.random.bytes(200));
                drop(self.writers.last().map(|writer| writer.fill(offset, &bytes)));
            }
            8 => {
                let (names, xattr) = ([self.random.name(), self.random.name()], self.xattr());
                drop(self.writers.last().map(|writer| writer.mark(&names, &xattr)));
            }
            9 => {
                let names = [self.random.name(), self.random.name()];
                let found = self.writers.last().and_then(|writer| writer.stat(&names).ok());
                for node in found.unwrap_or_default().into_iter().flatten() {
                    self.look(&node.name);
                }
            }
            10 if self.random.one_in(2000) => self.finish(),
            _ => drop(self.writers.last().map(Writer::dialect)),
        }
    }

    fn streams(&mut self) {
        let (max, bytes) = (self.random.below(5000) as u32, self.random.bytes(300));
        match self.random.below(8) {
            0 | 1 => keep(&mut self.sources, Source::open()),
            2 | 3 => keep(&mut self.sinks, Sink::open()),
            4 | 5 => {
                let read = pick(&mut self.random, &self.sources).and_then(|source| source.read(max).ok());
                self.look(&read.unwrap_or_default());
            }
            _ => drop(self.sinks.last().map(|sink| sink.write(&bytes))),
        }
    }

    fn mounts(&mut self) {
        let id = self.random.id(&self.own);
        match self.random.below(64) {
            0..=19 => {
                let access = self.random.choose(&[Access::ReadOnly, Access::ReadWrite]);
                keep(&mut self.branches, Branch::open(&id, access));
            }
            20 => {
                let length = self.random.below(4);
                let branches: Vec<_> =
                    (0..length).filter_map(|_| pick(&mut self.random, &self.branches)).collect();
                let label = self.random.choose(&[None, Some("a,upperdir=/"), Some("\n"), Some("")]);
                let _ = mounts::mount(&id, &branches, label);
            }
            // A mount and an unmount are a hundred times as slow as the rest.
            21 => drop(mounts::unmount(&id, self.random.one_in(2))),
            22..=49 => drop(mounts::mounted(&id)),
            _ => drop(mounts::all()),
        }
    }

    fn references(&mut self) {
        let id = self.random.id(&self.own);
        match self.random.below(4) {
            0 => drop(references::count(&id)),
            1 => drop(references::acquire(&id)),
            2 => drop(references::release(&id)),
            _ => drop(references::clear(&id)),
        }
    }

    fn directories(&mut self) {
        let id = self.random.id(&self.own);
        match self.random.below(40) {
            0 => drop(directories::discard(&id)),
            _ => drop(directories::make(&id)),
        }
    }

    fn forget(&mut self) {
        match self.random.below(40) {
            0 => self.trees.clear(),
            1 => self.walkers.clear(),
            2 => self.writers.clear(),
            3 => self.branches.clear(),
            4 => self.sources.clear(),
            5 => self.sinks.clear(),
            6..=15 => drop(self.trees.pop()),
            16..=25 => drop(self.walkers.pop()),
            _ => drop(self.branches.pop()),
        }
    }

    fn entry(&mut self) -> Entry {
        let (major, minor) = (self.random.below(16) as u32, self.random.number() as u32);
        let kind = match self.random.below(12) {
            0..=2 => Kind::File(self.random.number()),
            3..=5 => Kind::Directory,
            6 | 7 => Kind::Symlink(self.random.target()),
            8 => Kind::HardLink(self.random.name()),
            9 => Kind::CharacterDevice(Device { major, minor }),
            10 => Kind::BlockDevice(Device { major, minor }),
            _ => self.random.choose(&[Kind::Fifo, Kind::Socket]),
        };
        let body = match self.random.below(10) {
            0..=4 => Body::None,
            5 => Body::Bytes(self.random.bytes(300)),
            6 => Body::Stream(self.random.number()),
            7 => Body::Later,
            _ => Body::Extents(vec![Extent {
                offset: self.random.number(),
                length: self.random.number(),
                position: self.random.number(),
            }]),
        };
        Entry { name: self.random.name(), kind, attributes: self.attributes(), body }
    }

    fn attributes(&mut self) -> Attributes {
        let mtime =
            Timestamp { seconds: self.random.number() as i64, nanoseconds: self.random.number() as u32 };
        match self.random.one_in(3) {
            false => Attributes {
                mode: 0o755,
                uid: 0,
                gid: 0,
                mtime: Timestamp { seconds: 1, nanoseconds: 0 },
                xattrs: Vec::new(),
            },
            true => Attributes {
                mode: self.random.number() as u32,
                uid: self.random.number() as u32,
                gid: self.random.number() as u32,
                mtime,
                xattrs: vec![self.xattr()],
            },
        }
    }

    fn xattr(&mut self) -> Xattr {
        const NAMES: [&str; 9] = [
            "user.a",
            "trusted.a",
            "trusted.overlay.opaque",
            "trusted.overlay.redirect",
            "trusted.overlay.metacopy",
            "trusted.overlay.origin",
            "security.capability",
            "system.posix_acl_default",
            "",
        ];
        let value = match self.random.below(3) {
            0 => b"y".to_vec(),
            1 => b"/../../../victim".to_vec(),
            _ => self.random.bytes(100),
        };
        Xattr { name: self.random.choose(&NAMES).as_bytes().to_vec(), value }
    }
}

fn detail(random: &mut Random) -> Detail {
    random.choose(&[Detail::Names, Detail::Status, Detail::Full])
}

fn keep<T>(all: &mut Vec<T>, more: Result<T, Error>) {
    if let Ok(more) = more {
        if all.len() == KEPT {
            all.remove(0);
        }
        all.push(more);
    }
}

fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> Option<&'a T> {
    all.get(random.below(all.len()))
}
