//! The traits of `layerbox_guest::host` over the code that the real host runs, so that what is tested here is
//! what happens in a store, less the crossing into the sandbox.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Cursor, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use layerbox_guest::bindings::layerbox::driver::types::{Excess, IoFailure, Refusal};
use layerbox_guest::host::{self, Dialect, Error, Result};
use layerbox_privileged as privileged;

fn error(error: privileged::Error) -> Error {
    use privileged::Error as From;
    let bytes = |name: Option<privileged::Name>| name.map(privileged::Name::into_bytes);
    match error {
        From::Io { entry, operation, errno } => {
            Error::Io(IoFailure { entry: bytes(entry), operation: operation.to_owned(), code: errno as u32 })
        }
        From::Refused { entry, rule } => Error::Refused(Refusal { entry, rule }),
        From::Limit { entry, bound } => Error::Limit(Excess { entry: bytes(entry), bound }),
        From::Busy(text) => Error::Busy(text),
        From::Conflict(text) => Error::Conflict(text),
        From::Unsupported(text) => Error::Unsupported(text),
        From::InvalidArgument(text) => Error::InvalidArgument(text),
        other => panic!("not an error of reading or filling: {other}"),
    }
}

fn name(bytes: &[u8]) -> Result<privileged::Name> {
    let entry = bytes.to_vec();
    privileged::Name::new(entry.clone())
        .map_err(|bad| Error::Refused(Refusal { entry, rule: bad.to_string() }))
}

fn detail(detail: host::Detail) -> privileged::Detail {
    match detail {
        host::Detail::Names => privileged::Detail::Names,
        host::Detail::Status => privileged::Detail::Status,
        host::Detail::Full => privileged::Detail::Full,
    }
}

fn kind_in(kind: &host::Kind) -> Result<privileged::Kind> {
    let device = |device: &host::Device| privileged::Device { major: device.major, minor: device.minor };
    Ok(match kind {
        host::Kind::File(size) => privileged::Kind::File(*size),
        host::Kind::Directory => privileged::Kind::Directory,
        host::Kind::Symlink(target) => privileged::Kind::Symlink(target.clone()),
        host::Kind::HardLink(target) => privileged::Kind::HardLink(name(target)?),
        host::Kind::CharacterDevice(it) => privileged::Kind::CharacterDevice(device(it)),
        host::Kind::BlockDevice(it) => privileged::Kind::BlockDevice(device(it)),
        host::Kind::Fifo => privileged::Kind::Fifo,
        host::Kind::Socket => privileged::Kind::Socket,
    })
}

fn kind_out(kind: privileged::Kind) -> host::Kind {
    let device = |device: privileged::Device| host::Device { major: device.major, minor: device.minor };
    match kind {
        privileged::Kind::File(size) => host::Kind::File(size),
        privileged::Kind::Directory => host::Kind::Directory,
        privileged::Kind::Symlink(target) => host::Kind::Symlink(target),
        privileged::Kind::HardLink(target) => host::Kind::HardLink(target.into_bytes()),
        privileged::Kind::CharacterDevice(it) => host::Kind::CharacterDevice(device(it)),
        privileged::Kind::BlockDevice(it) => host::Kind::BlockDevice(device(it)),
        privileged::Kind::Fifo => host::Kind::Fifo,
        privileged::Kind::Socket => host::Kind::Socket,
    }
}

fn attributes_in(attributes: &host::Attributes) -> privileged::Attributes {
    let host::Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    let mtime = privileged::Timestamp { seconds: mtime.seconds, nanoseconds: mtime.nanoseconds };
    let xattrs = xattrs.iter().map(xattr_in).collect();
    privileged::Attributes { mode: *mode, uid: *uid, gid: *gid, mtime, xattrs }
}

fn xattr_in(xattr: &host::Xattr) -> privileged::Xattr {
    privileged::Xattr { name: xattr.name.clone(), value: xattr.value.clone() }
}

fn node_out(node: privileged::Node) -> host::Node {
    let privileged::Node { name, kind, attributes, device, inode, links, .. } = node;
    let privileged::Attributes { mode, uid, gid, mtime, xattrs } = attributes;
    let mtime = host::Timestamp { seconds: mtime.seconds, nanoseconds: mtime.nanoseconds };
    let xattrs = xattrs.into_iter().map(|it| host::Xattr { name: it.name, value: it.value }).collect();
    host::Node {
        name: name.into_bytes(),
        kind: kind_out(kind),
        attributes: host::Attributes { mode, uid, gid, mtime, xattrs },
        identity: host::Identity { device, inode },
        links,
    }
}

fn open(path: &Path) -> OwnedFd {
    File::open(path).expect("a directory of the test").into()
}

/// The archive that comes in.
pub struct Source(pub RefCell<privileged::Source>);

impl Source {
    /// A source that answers at most `piece` bytes to a read, as a pipe may.
    pub fn new(bytes: Vec<u8>, piece: usize) -> Self {
        Self(RefCell::new(privileged::Source::new(Box::new(Pieces { bytes: Cursor::new(bytes), piece }))))
    }

    /// How many bytes were taken from it.
    pub fn taken(&self) -> u64 {
        self.0.borrow().bytes_read()
    }
}

struct Pieces {
    bytes: Cursor<Vec<u8>>,
    piece: usize,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.piece);
        self.bytes.read(&mut buffer[..length])
    }
}

impl host::Source for Source {
    fn read(&self, max: u32) -> Result<Vec<u8>> {
        Ok(self.0.borrow_mut().read(max).map_err(error)?.to_vec())
    }
}

/// The archive that goes out, kept.
pub struct Sink {
    pub sink: RefCell<privileged::Sink>,
    pub bytes: Arc<Mutex<Vec<u8>>>,
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    pub fn new() -> Self {
        let bytes = Arc::default();
        Self { sink: RefCell::new(privileged::Sink::new(Box::new(Shared(Arc::clone(&bytes))))), bytes }
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.sink.borrow_mut().flush().expect("memory takes all");
        std::mem::take(&mut self.bytes.lock().expect("no panic"))
    }
}

impl host::Sink for Sink {
    fn write(&self, bytes: &[u8]) -> Result<()> {
        self.sink.borrow_mut().write(bytes).map_err(error)
    }
}

/// A layer to read, and what it was asked.
pub struct Tree {
    tree: privileged::Tree,
    dialect: Dialect,
    /// The directories that were walked and the names that were looked up.
    pub asked: Rc<RefCell<Vec<String>>>,
}

impl Tree {
    pub fn new(path: &Path, dialect: Dialect) -> Self {
        Self { tree: privileged::Tree::new(open(path), false), dialect, asked: Rc::default() }
    }
}

pub struct Walker(RefCell<privileged::Walker>);

impl host::Walker for Walker {
    fn next(&self, max: u32) -> Result<Vec<host::Node>> {
        let nodes = self.0.borrow_mut().next(max).map_err(error)?;
        Ok(nodes.into_iter().map(node_out).collect())
    }
}

impl host::Tree for Tree {
    type Walker = Walker;
    type Sink = Sink;

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn walk(&self, options: &host::WalkOptions) -> Result<Walker> {
        self.asked.borrow_mut().push(format!("walk {}", options.start.escape_ascii()));
        let host::WalkOptions { start, recursive, detail: wanted } = options;
        let options =
            privileged::WalkOptions { start: name(start)?, recursive: *recursive, detail: detail(*wanted) };
        Ok(Walker(RefCell::new(self.tree.walk(options).map_err(error)?)))
    }

    fn stat(&self, names: &[host::Name], wanted: host::Detail) -> Result<Vec<Option<host::Node>>> {
        self.asked.borrow_mut().extend(names.iter().map(|name| format!("stat {}", name.escape_ascii())));
        let names: Vec<_> = names.iter().map(|bytes| name(bytes)).collect::<Result<_>>()?;
        let found = self.tree.stat(&names, detail(wanted)).map_err(error)?;
        Ok(found.into_iter().map(|node| node.map(node_out)).collect())
    }

    fn send(&self, pieces: &[host::Piece], to: &Sink) -> Result<()> {
        let mut sink = to.sink.borrow_mut();
        for piece in pieces {
            match piece {
                host::Piece::Bytes(bytes) => sink.write(bytes),
                host::Piece::Content(it) => self.tree.send(&name(&it.name)?, it.length, &mut sink),
            }
            .map_err(error)?;
        }
        Ok(())
    }
}

/// A layer to fill.
pub struct Writer {
    filler: RefCell<privileged::Filler>,
    dialect: Dialect,
}

impl Writer {
    pub fn new(path: &Path, dialect: Dialect) -> Self {
        let policy = privileged::Policy {
            root: (0, 0),
            devices: true,
            max_entries: 1 << 20,
            max_directories: 1 << 20,
            max_bytes: 1 << 40,
        };
        let filler = privileged::Filler::new(open(path), policy).expect("an empty directory");
        Self { filler: RefCell::new(filler), dialect }
    }
}

fn body(body: &host::Body) -> privileged::Body {
    match body {
        host::Body::None => privileged::Body::None,
        host::Body::Bytes(bytes) => privileged::Body::Bytes(bytes.clone()),
        host::Body::Stream(position) => privileged::Body::Stream(*position),
        host::Body::Later => privileged::Body::Later,
        host::Body::Extents(extents) => {
            let extent = |it: &host::Extent| privileged::Extent {
                offset: it.offset,
                length: it.length,
                position: it.position,
            };
            privileged::Body::Extents(extents.iter().map(extent).collect())
        }
    }
}

impl host::Writer for Writer {
    type Source = Source;

    fn dialect(&self) -> Dialect {
        self.dialect
    }

    fn put(&self, entries: &[host::Entry], bodies: Option<&Source>) -> Result<()> {
        let mut filler = self.filler.borrow_mut();
        for entry in entries {
            let entry = privileged::Entry {
                name: name(&entry.name)?,
                kind: kind_in(&entry.kind)?,
                attributes: attributes_in(&entry.attributes),
                body: body(&entry.body),
            };
            let mut source = bodies.map(|source| source.0.borrow_mut());
            filler.put(entry, source.as_deref_mut()).map_err(error)?;
        }
        Ok(())
    }

    fn fill(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.filler.borrow_mut().fill(offset, bytes.to_vec()).map_err(error)
    }

    fn mark(&self, directories: &[host::Name], attribute: &host::Xattr) -> Result<()> {
        let names: Vec<_> = directories.iter().map(|bytes| name(bytes)).collect::<Result<_>>()?;
        self.filler.borrow_mut().mark(&names, &xattr_in(attribute)).map_err(error)
    }

    fn stat(&self, names: &[host::Name]) -> Result<Vec<Option<host::Node>>> {
        let names: Vec<_> = names.iter().map(|bytes| name(bytes)).collect::<Result<_>>()?;
        let found = self.filler.borrow_mut().stat(&names).map_err(error)?;
        Ok(found.into_iter().map(|node| node.map(node_out)).collect())
    }

    fn finish(&self) -> Result<host::Totals> {
        let totals = self.filler.borrow_mut().finish().map_err(error)?;
        Ok(host::Totals { entries: totals.entries, bytes: totals.bytes })
    }
}
