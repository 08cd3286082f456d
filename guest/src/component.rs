//! The component: the exports, over the imports.
//!
//! The one module that only exists on `wasm32`. It has no logic: each export hands its arguments to the
//! module that has, with the records in `/layers` and the generated resources.

use crate::apply;
use crate::bindings::Component;
use crate::bindings::exports::layerbox::driver::{differ, lifecycle};
use crate::bindings::layerbox::driver::tree::{Class, Names};
use crate::bindings::layerbox::driver::{directories, mounts, references, streams, tree, writer};
use crate::changes::Changes;
use crate::differ::Differ;
use crate::host::{
    self, Access, ApplyOptions, ChangeList, Detail, Device, Dialect, Entry, Error, IdMaps, Kind, Layer, Name,
    Node, Outcome, Piece, Place, Result, Totals, WalkOptions, Xattr,
};
use crate::layers::{LayerId, Records};
use crate::lifecycle::Lifecycle;

/// Where the host opens the records.
pub const RECORDS: &str = "/layers";

/// The imports that are functions, and those that open resources.
#[derive(Debug)]
pub struct Imports;

/// The archive that comes in, and where the host sees it unpacked, if it wants to.
#[derive(Debug)]
pub struct Incoming {
    source: streams::Source,
    unpacked: Option<streams::Sink>,
}

impl Incoming {
    /// Opens what the call is lent.
    fn open() -> Result<Self> {
        Ok(Self { source: streams::Source::open()?, unpacked: streams::Sink::open().ok() })
    }
}

impl host::Source for Incoming {
    fn read(&self, max: u32) -> Result<Vec<u8>> {
        self.source.read(max)
    }

    fn unpacked(&self, bytes: &[u8]) -> Result<()> {
        self.unpacked.as_ref().map_or(Ok(()), |sink| sink.write(bytes))
    }
}

impl host::Sink for streams::Sink {
    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)
    }
}

impl host::Walker for tree::Walker {
    fn next(&self, max: u32) -> Result<Vec<Node>> {
        self.next(max)
    }

    fn names(&self, max: u32, mut each: impl FnMut(&[u8], Kind)) -> Result<bool> {
        let Names { bytes, entries } = self.names(max)?;
        let mut rest = bytes.as_slice();
        for (length, class) in &entries {
            let Some(name) = rest.split_off(..*length as usize) else {
                let what = "the host gave fewer bytes of names than it says";
                return Err(Error::Conflict(what.to_owned()));
            };
            let device = |minor| Device { major: 0, minor };
            let kind = match class {
                Class::File => Kind::File(0),
                Class::Directory => Kind::Directory,
                Class::Symlink => Kind::Symlink(Vec::new()),
                Class::Whiteout => Kind::CharacterDevice(device(0)),
                // Which one it is, is not said; it is no whiteout.
                Class::CharacterDevice => Kind::CharacterDevice(device(1)),
                Class::BlockDevice => Kind::BlockDevice(device(1)),
                Class::Fifo => Kind::Fifo,
                Class::Socket => Kind::Socket,
            };
            each(name, kind);
        }
        Ok(!entries.is_empty())
    }
}

impl host::Tree for tree::Tree {
    type Walker = tree::Walker;
    type Sink = streams::Sink;

    fn dialect(&self) -> Dialect {
        self.dialect()
    }

    fn walk(&self, options: &WalkOptions) -> Result<tree::Walker> {
        self.walk(options)
    }

    fn stat(&self, names: &[Name], detail: Detail) -> Result<Vec<Option<Node>>> {
        self.stat(names, detail)
    }

    fn send(&self, pieces: &[Piece], to: &streams::Sink) -> Result<()> {
        self.send(pieces, to)
    }
}

impl host::Writer for writer::Writer {
    type Source = Incoming;

    fn dialect(&self) -> Dialect {
        self.dialect()
    }

    fn put(&self, entries: &[Entry], bodies: Option<&Incoming>) -> Result<()> {
        self.put(entries, bodies.map(|bodies| &bodies.source))
    }

    fn fill(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.fill(offset, bytes)
    }

    fn mark(&self, directories: &[Name], attribute: &Xattr) -> Result<()> {
        self.mark(directories, attribute)
    }

    fn stat(&self, names: &[Name]) -> Result<Vec<Option<Node>>> {
        self.stat(names)
    }

    fn finish(&self) -> Result<Totals> {
        self.finish()
    }
}

impl host::Trees for Imports {
    type Tree = tree::Tree;

    fn tree(&self, id: &LayerId) -> Result<tree::Tree> {
        tree::Tree::open(id.as_str())
    }
}

impl host::Directories for Imports {
    fn make(&self, id: &LayerId) -> Result<()> {
        directories::make(id.as_str())
    }

    fn discard(&self, id: &LayerId) -> Result<()> {
        directories::discard(id.as_str())
    }
}

impl host::Mounts for Imports {
    type Branch = mounts::Branch;

    fn branch(&self, id: &LayerId, access: Access) -> Result<mounts::Branch> {
        mounts::Branch::open(id.as_str(), access)
    }

    fn mount(&self, id: &LayerId, branches: &[&mounts::Branch], label: Option<&str>) -> Result<()> {
        mounts::mount(id.as_str(), branches, label)
    }

    fn unmount(&self, id: &LayerId, force: bool) -> Result<()> {
        mounts::unmount(id.as_str(), force)
    }

    fn mounted(&self, id: &LayerId) -> Result<bool> {
        mounts::mounted(id.as_str())
    }

    fn all(&self) -> Result<Vec<String>> {
        mounts::all()
    }
}

impl host::References for Imports {
    fn count(&self, id: &LayerId) -> Result<u32> {
        references::count(id.as_str())
    }

    fn acquire(&self, id: &LayerId) -> Result<u32> {
        references::acquire(id.as_str())
    }

    fn release(&self, id: &LayerId) -> Result<u32> {
        references::release(id.as_str())
    }

    fn clear(&self, id: &LayerId) -> Result<()> {
        references::clear(id.as_str())
    }
}

fn with<R>(call: impl FnOnce(Lifecycle<'_, Imports>) -> R) -> R {
    call(Lifecycle::new(&Records::new(RECORDS), &Imports))
}

impl lifecycle::Guest for Component {
    fn create(id: String, parent: Option<String>, depth: u32) -> Result<()> {
        with(|calls| calls.create(&id, parent.as_deref(), depth))
    }

    fn remove(id: String, force: bool) -> Result<()> {
        with(|calls| calls.remove(&id, force))
    }

    fn get(id: String, label: Option<String>) -> Result<Place> {
        with(|calls| calls.get(&id, label.as_deref()))
    }

    fn put(id: String) -> Result<()> {
        with(|calls| calls.put(&id))
    }

    fn exists(id: String) -> Result<bool> {
        with(|calls| calls.exists(&id))
    }

    fn list() -> Result<Vec<Layer>> {
        with(|calls| calls.list())
    }

    fn metadata(id: String) -> Result<Layer> {
        with(|calls| calls.metadata(&id))
    }

    fn status() -> Result<Vec<(String, String)>> {
        with(|calls| calls.status())
    }

    fn cleanup() -> Result<u32> {
        with(|calls| calls.cleanup())
    }
}

impl differ::Guest for Component {
    fn diff(id: String, parent: Option<String>, maps: IdMaps) -> Result<Outcome> {
        Differ::new(&Records::new(RECORDS), &Imports).diff(
            &id,
            parent.as_deref(),
            maps,
            &streams::Sink::open()?,
        )
    }

    fn apply_diff(id: String, parent: Option<String>, options: ApplyOptions) -> Result<Totals> {
        let id = Differ::new(&Records::new(RECORDS), &Imports).check(&id, parent.as_deref())?;
        apply::apply(&writer::Writer::open(id.as_str())?, &Incoming::open()?, options)
    }

    fn changes(id: String, parent: Option<String>) -> Result<ChangeList> {
        let records = Records::new(RECORDS);
        Differ::new(&records, &Imports).changes(&id, parent.as_deref()).map(Changes::packed)
    }

    fn diff_size(id: String, parent: Option<String>) -> Result<Totals> {
        Differ::new(&Records::new(RECORDS), &Imports).size(&id, parent.as_deref())
    }
}
