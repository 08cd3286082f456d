//! Between the contract's types and the host's: every conversion in one place, and every check of what a
//! component hands in.

use layerbox_privileged::error::Error as Privileged;
use layerbox_privileged::id::LayerId;
use layerbox_privileged::layer::{Body, Detail, Entry, Extent};
use layerbox_privileged::name::Name;
use layerbox_privileged::node::{Attributes, Device, Kind, Node, Timestamp, Totals, Xattr};

use super::bindings::layerbox::driver::{tree as wit_tree, types, writer as wit_writer};
use crate::error::Failure;

/// The component's id of a layer, checked.
pub(super) fn layer_id(text: &str) -> Result<LayerId, Failure> {
    LayerId::new(text).map_err(|_| Failure::InvalidId(text.to_owned()))
}

/// The component's name of an entry, checked.
pub(super) fn name(bytes: Vec<u8>) -> Result<Name, Failure> {
    Name::new(bytes).map_err(|bad| Failure::Refused { entry: bad.name, rule: bad.rule.to_string() })
}

/// Names, checked.
pub(super) fn names(list: Vec<Vec<u8>>) -> Result<Vec<Name>, Failure> {
    list.into_iter().map(name).collect()
}

pub(super) fn xattr(xattr: types::Xattr) -> Xattr {
    Xattr { name: xattr.name, value: xattr.value }
}

fn attributes(attributes: types::Attributes) -> Result<Attributes, Failure> {
    if attributes.mtime.nanoseconds >= 1_000_000_000 {
        return Err(Failure::InvalidArgument("nanoseconds are 0 to 999,999,999".to_owned()));
    }
    Ok(Attributes {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        mtime: Timestamp { seconds: attributes.mtime.seconds, nanoseconds: attributes.mtime.nanoseconds },
        xattrs: attributes.xattrs.into_iter().map(xattr).collect(),
    })
}

fn kind(kind: types::Kind) -> Result<Kind, Failure> {
    let device = |device: types::Device| Device { major: device.major, minor: device.minor };
    Ok(match kind {
        types::Kind::File(size) => Kind::File(size),
        types::Kind::Directory => Kind::Directory,
        types::Kind::Symlink(target) => Kind::Symlink(target),
        types::Kind::HardLink(target) => Kind::HardLink(name(target)?),
        types::Kind::CharacterDevice(number) => Kind::CharacterDevice(device(number)),
        types::Kind::BlockDevice(number) => Kind::BlockDevice(device(number)),
        types::Kind::Fifo => Kind::Fifo,
        types::Kind::Socket => Kind::Socket,
    })
}

/// What a component puts, checked as far as it can be without looking at the layer.
pub(super) fn entry(entry: wit_writer::Entry) -> Result<Entry, Failure> {
    let body = match entry.body {
        wit_writer::Body::None => Body::None,
        wit_writer::Body::Bytes(bytes) => Body::Bytes(bytes),
        wit_writer::Body::Stream(position) => Body::Stream(position),
        wit_writer::Body::Extents(extents) => Body::Extents(
            extents
                .into_iter()
                .map(|e| Extent { offset: e.offset, length: e.length, position: e.position })
                .collect(),
        ),
        wit_writer::Body::Later => Body::Later,
    };
    Ok(Entry {
        name: name(entry.name)?,
        kind: kind(entry.kind)?,
        attributes: attributes(entry.attributes)?,
        body,
    })
}

pub(super) fn detail(detail: wit_tree::Detail) -> Detail {
    match detail {
        wit_tree::Detail::Names => Detail::Names,
        wit_tree::Detail::Status => Detail::Status,
        wit_tree::Detail::Full => Detail::Full,
    }
}

/// What a directory says of a node.
pub(super) fn class(kind: &Kind) -> wit_tree::Class {
    match kind {
        // A walk over one layer meets no hard link as such: each of its names is a file.
        Kind::File(_) | Kind::HardLink(_) => wit_tree::Class::File,
        Kind::Directory => wit_tree::Class::Directory,
        Kind::Symlink(_) => wit_tree::Class::Symlink,
        Kind::CharacterDevice(Device { major: 0, minor: 0 }) => wit_tree::Class::Whiteout,
        Kind::CharacterDevice(_) => wit_tree::Class::CharacterDevice,
        Kind::BlockDevice(_) => wit_tree::Class::BlockDevice,
        Kind::Fifo => wit_tree::Class::Fifo,
        Kind::Socket => wit_tree::Class::Socket,
    }
}

/// A node, for the component.
pub(super) fn node(node: Node) -> types::Node {
    let device = |device: Device| types::Device { major: device.major, minor: device.minor };
    let kind = match node.kind {
        Kind::File(size) => types::Kind::File(size),
        Kind::Directory => types::Kind::Directory,
        Kind::Symlink(target) => types::Kind::Symlink(target),
        Kind::HardLink(target) => types::Kind::HardLink(target.as_bytes().to_vec()),
        Kind::CharacterDevice(number) => types::Kind::CharacterDevice(device(number)),
        Kind::BlockDevice(number) => types::Kind::BlockDevice(device(number)),
        Kind::Fifo => types::Kind::Fifo,
        Kind::Socket => types::Kind::Socket,
    };
    let a = node.attributes;
    types::Node {
        name: node.name.into_bytes(),
        kind,
        attributes: types::Attributes {
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            mtime: types::Timestamp { seconds: a.mtime.seconds, nanoseconds: a.mtime.nanoseconds },
            xattrs: a.xattrs.into_iter().map(|x| types::Xattr { name: x.name, value: x.value }).collect(),
        },
        identity: types::Identity { device: node.device, inode: node.inode },
        links: node.links,
    }
}

pub(super) fn totals(totals: Totals) -> types::Totals {
    types::Totals { entries: totals.entries, bytes: totals.bytes }
}

/// An error of the host, for the component.
pub(super) fn error(failure: Failure) -> types::Error {
    use types::Error as E;
    let some = |entry: Vec<u8>| (!entry.is_empty()).then_some(entry);
    let code = |code: i32| u32::try_from(code).unwrap_or_default();
    match failure {
        Failure::NotFound(id) => E::NotFound(id),
        Failure::Exists => E::Exists(String::new()),
        Failure::NoSuchParent(id) => E::NoSuchParent(id),
        Failure::InvalidId(text) => E::InvalidId(text),
        Failure::TooDeep(limit) => E::TooDeep(limit),
        Failure::Incomplete(id) => E::Incomplete(id),
        Failure::Busy(who) => E::Busy(who),
        Failure::HasChildren(id) => E::HasChildren(id),
        Failure::Refused { entry, rule } => E::Refused(types::Refusal { entry, rule }),
        Failure::Limit { entry, bound } => E::Limit(types::Excess { entry: some(entry), bound }),
        Failure::Denied(what) => E::Denied(what),
        Failure::MountFailed { layer, filesystem, detail, code: errno } => {
            E::MountFailed(types::MountFailure {
                layer,
                filesystem,
                cause: types::IoFailure { entry: None, operation: detail, code: code(errno) },
            })
        }
        Failure::Io { entry, operation, code: errno } => {
            E::Io(types::IoFailure { entry: some(entry), operation, code: code(errno) })
        }
        // The contract has numbers only; what the host itself failed at, it tells by itself where no call of
        // the component comes between.
        Failure::Other { entry, operation, what } => E::Io(types::IoFailure {
            entry: some(entry),
            operation: format!("{operation}: {what}"),
            code: code(nix::libc::EIO),
        }),
        Failure::Corrupt(what) => E::Corrupt(what),
        Failure::InvalidArgument(what) => E::InvalidArgument(what),
        Failure::Unsupported(what) => E::Unsupported(what),
        other => E::Conflict(other.to_string()),
    }
}

/// The longest name in a component's error that goes on, in bytes: 4,096 components of 255.
const MAX_NAME: usize = 1 << 20;

/// The longest text of a component's error that goes on, in bytes; a message for a person is shorter.
const LONGEST_TEXT: usize = 4096;

/// What a component says of an error, as much of it as goes on.
fn said(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT));
        text.push('…');
    }
    text
}

/// An answer of the component, for the caller.
pub(super) fn failure(error: types::Error) -> Failure {
    use types::Error as E;
    let code = |code: u32| i32::try_from(code).unwrap_or_default();
    let entry = |name: Option<Vec<u8>>| {
        let mut name = name.unwrap_or_default();
        name.truncate(MAX_NAME);
        name
    };
    match error {
        E::NotFound(id) => Failure::NotFound(said(id)),
        E::Exists(_) => Failure::Exists,
        E::NoSuchParent(id) => Failure::NoSuchParent(said(id)),
        E::InvalidId(text) => Failure::InvalidId(said(text)),
        E::TooDeep(limit) => Failure::TooDeep(limit),
        E::Incomplete(id) => Failure::Incomplete(said(id)),
        E::Busy(who) => Failure::Busy(said(who)),
        E::HasChildren(id) => Failure::HasChildren(said(id)),
        E::Conflict(what) => Failure::Conflict(said(what)),
        E::Refused(types::Refusal { entry: name, rule }) => {
            Failure::Refused { entry: entry(Some(name)), rule: said(rule) }
        }
        E::Limit(types::Excess { entry: name, bound }) => {
            Failure::Limit { entry: entry(name), bound: said(bound) }
        }
        E::Denied(what) => Failure::Denied(said(what)),
        E::MountFailed(types::MountFailure { layer, filesystem, cause }) => Failure::MountFailed {
            layer: layer.map(said),
            filesystem: filesystem.map(said),
            detail: said(cause.operation),
            code: code(cause.code),
        },
        E::Io(types::IoFailure { entry: name, operation, code: errno }) => {
            Failure::Io { entry: entry(name), operation: said(operation), code: code(errno) }
        }
        E::Corrupt(what) => Failure::Corrupt(said(what)),
        E::InvalidArgument(what) => Failure::InvalidArgument(said(what)),
        E::Unsupported(what) => Failure::Unsupported(said(what)),
    }
}

/// An error of the privileged part, for the component.
pub(super) fn privileged(privileged: Privileged) -> types::Error {
    error(Failure::from(privileged))
}
