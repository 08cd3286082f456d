//! One entry: made where it belongs, over what was there.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, makedev, mknodat};
use nix::unistd::{linkat, symlinkat};
use rustix::fs::FileType;

use super::directories::changed;
use super::{Body, Extent, Filler, Place, SPARSE};
use crate::layer::attributes::{Made, refused, settle};
use crate::layer::bodies::{Data, Job, Target};
use crate::layer::delete::remove;
use crate::layer::read::{kind_of, status};
use crate::stream::Chunk;
use crate::{Attributes, Device, Error, Kind, Name, Source};

/// The longest target of a symbolic link.
const LONGEST_TARGET: usize = 4095;

/// What a regular file is to have.
struct Content<'a> {
    name: &'a Name,
    size: u64,
    attributes: Attributes,
    body: Body,
    source: Option<&'a mut Source>,
}

impl Filler {
    /// Puts anything but the root. Errors need not say the entry; `put` does.
    pub(super) fn put_named(
        &mut self,
        name: &Name,
        kind: Kind,
        attributes: Attributes,
        body: Body,
        source: Option<&mut Source>,
    ) -> Result<(), Error> {
        let (parent, last) = name.split();
        let parent = self.directory(parent, true)?.ok_or_else(changed)?;
        let place = &Place { parent, dir: self.handle(parent)?, last };
        let perm = Mode::from_bits_truncate(attributes.mode & 0o777);
        let made = self.made(attributes.mode);
        let special = |kind: SFlag, device: Device| {
            move |dir: BorrowedFd<'_>, last: &[u8]| {
                mknodat(dir, last, kind, perm, makedev(device.major.into(), device.minor.into()))
            }
        };
        match kind {
            Kind::File(size) => {
                return self.put_file(place, Content { name, size, attributes, body, source });
            }
            Kind::HardLink(target) => return self.put_hard_link(place, &target),
            Kind::Directory => {
                let known =
                    self.directories.get(&place.parent).and_then(|it| it.children.get(place.last)).copied();
                let inode = match known {
                    Some(inode) => {
                        self.count_entry()?;
                        inode
                    }
                    None => self.make_directory(place, attributes.mode)?,
                };
                return self.put_directory_attributes(inode, attributes);
            }
            Kind::Symlink(target)
                if target.is_empty() || target.len() > LONGEST_TARGET || target.contains(&0) =>
            {
                return Err(refused(
                    "a symbolic link's target is empty, longer than 4095 bytes, or holds a NUL",
                ));
            }
            Kind::Symlink(target) => {
                self.create(place, "symlinkat", |dir, last| symlinkat(target.as_slice(), dir, last))?;
                // A symbolic link has no mode of its own.
                let made = Made { mode: attributes.mode, ..made };
                return self.settle(place, made, &attributes);
            }
            Kind::CharacterDevice(device) | Kind::BlockDevice(device) => {
                let character = matches!(kind, Kind::CharacterDevice(_));
                if device.major > 0xfff || device.minor > 0xf_ffff {
                    return Err(refused("there is no such device number"));
                }
                let whiteout = character && device == Device::default();
                if !self.policy.devices && !whiteout {
                    return Err(refused("devices are not allowed"));
                }
                let kind = if character { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
                self.create(place, "mknodat", special(kind, device))?;
            }
            Kind::Fifo => self.create(place, "mknodat", special(SFlag::S_IFIFO, Device::default()))?,
            Kind::Socket => return Err(Error::InvalidArgument(format!("{name}: a socket cannot be put"))),
        }
        self.settle(place, made, &attributes)
    }

    fn settle(&mut self, place: &Place<'_>, made: Made, attributes: &Attributes) -> Result<(), Error> {
        self.clamped += u64::from(settle(place.dir.as_fd(), place.last, made, attributes)?);
        Ok(())
    }

    fn put_file(&mut self, place: &Place<'_>, content: Content<'_>) -> Result<(), Error> {
        let Content { name, size, ref attributes, ref body, .. } = content;
        if size > i64::MAX as u64 {
            return Err(Error::Limit {
                entry: None,
                bound: "the size of a file (9223372036854775807)".into(),
            });
        }
        let length = match body {
            Body::None | Body::Later => 0,
            Body::Bytes(bytes) if bytes.len() as u64 == size => size,
            Body::Stream(_) => size,
            Body::Extents(extents) => length_of(extents, size)?,
            Body::Bytes(_) => {
                return Err(Error::InvalidArgument("the body is not as long as the file".into()));
            }
        };
        self.count_bytes(length)?;
        self.count_size(size)?;
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let perm = Mode::from_bits_truncate(attributes.mode & 0o777);
        let file = File::from(self.create(place, "openat", |dir, last| openat(dir, last, flags, perm))?);
        let put = self.put_content(file, content);
        put.inspect_err(|error| self.fail(&error.clone().at(name)))
    }

    /// Gives a file that was made its content and its attributes.
    fn put_content(&mut self, file: File, content: Content<'_>) -> Result<(), Error> {
        let Content { name, size, attributes, body, source } = content;
        self.totals.bytes = self.totals.bytes.saturating_add(size);
        let made = self.made(attributes.mode);
        let target = Arc::new(Target { file, name: name.clone(), size, made, reached: AtomicU64::new(0) });
        let sparse = size >= SPARSE;
        // The last piece takes the attributes along, so it is held back until it is known to be the last.
        let mut held: Option<Data> = None;
        let bodies = &mut self.bodies;
        let mut deliver = |offset: u64, bytes: Chunk| match held.replace(Data { offset, bytes, sparse }) {
            Some(data) => bodies.push(Job { target: Arc::clone(&target), data: Some(data), last: None }),
            None => Ok(()),
        };
        match body {
            Body::None => {}
            Body::Later => {
                self.later = Some((target, attributes, 0));
                return Ok(());
            }
            Body::Bytes(bytes) => deliver(0, bytes.into())?,
            Body::Stream(position) => {
                take(source, &[Extent { offset: 0, length: size, position }], &mut deliver)?;
            }
            Body::Extents(extents) => take(source, &extents, &mut deliver)?,
        }
        self.bodies.push(Job { target, data: held, last: Some(attributes) })
    }

    /// The target is a name that was put before: found without following links, and no directory.
    fn put_hard_link(&mut self, place: &Place<'_>, target: &Name) -> Result<(), Error> {
        let refused = |rule: &str| refused(&format!("hard link to {target}: {rule}"));
        let (way, last) = target.split();
        let mut parent = Some(self.root_inode);
        for component in way.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            parent = parent.and_then(|inode| self.directories.get(&inode)?.children.get(component).copied());
        }
        let parent = parent.ok_or_else(|| refused("there is no such entry"))?;
        if target.is_root() || self.directories.get(&parent).is_some_and(|it| it.children.contains_key(last))
        {
            return Err(refused("a directory has one name"));
        }
        if (parent, last) == (place.parent, place.last) {
            return Err(refused("it names itself"));
        }
        let from = self.handle(parent)?;
        // What is replaced may hold the target, which is then gone when it is to be linked.
        self.create(place, "linkat", |dir, name| linkat(&from, last, dir, name, AtFlags::empty())).map_err(
            |error| match error {
                Error::Io { errno, .. } if errno == Errno::ENOENT as i32 => refused("there is no such entry"),
                other => other,
            },
        )
    }

    /// Makes a name, after what is there already was removed.
    pub(super) fn create<T>(
        &mut self,
        place: &Place<'_>,
        operation: &'static str,
        make: impl Fn(BorrowedFd<'_>, &[u8]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        self.count_entry()?;
        let made = match make(place.dir.as_fd(), place.last) {
            Err(Errno::EEXIST) => {
                self.replace(place)?;
                make(place.dir.as_fd(), place.last)
            }
            other => other,
        };
        let made = made.map_err(Error::io(operation))?;
        self.totals.entries += 1;
        Ok(made)
    }

    /// Removes what a name stands for, and what is known of it.
    fn replace(&mut self, place: &Place<'_>) -> Result<(), Error> {
        self.bodies.drain()?;
        self.latest = None;
        self.links.clear();
        self.linked = 0;
        let Self { totals, directories, handles, .. } = self;
        remove(place.dir.as_fd(), place.last, &mut |dir, last, as_directory| {
            let found = status(dir, last).map_err(Error::io("statx"))?;
            let kind = kind_of(&found);
            if (kind == FileType::Directory) != as_directory {
                return Ok(());
            }
            totals.entries = totals.entries.saturating_sub(1);
            if kind == FileType::RegularFile && found.stx_nlink == 1 {
                totals.bytes = totals.bytes.saturating_sub(found.stx_size);
            }
            if as_directory && let Some(gone) = directories.remove(&found.stx_ino) {
                handles.forget(&found.stx_ino);
                directories.get_mut(&gone.parent).map(|parent| parent.children.remove(&gone.last));
            }
            Ok(())
        })
    }
}

/// How many bytes extents hold.
fn length_of(extents: &[Extent], size: u64) -> Result<u64, Error> {
    let (mut end, mut length) = (0, 0);
    for extent in extents {
        let next =
            extent.offset.checked_add(extent.length).filter(|next| extent.offset >= end && *next <= size);
        end = next.ok_or_else(|| {
            Error::InvalidArgument("extents overlap, are not in order, or pass the end".into())
        })?;
        length += extent.length;
    }
    Ok(length)
}

/// Takes extents from the source.
fn take(
    source: Option<&mut Source>,
    extents: &[Extent],
    deliver: &mut dyn FnMut(u64, Chunk) -> Result<(), Error>,
) -> Result<(), Error> {
    let source =
        source.ok_or_else(|| Error::InvalidArgument("there is no source to take a body from".into()))?;
    for extent in extents {
        let mut offset = extent.offset;
        source.take(extent.position, extent.length, |chunk| {
            let start = offset;
            offset += chunk.len() as u64;
            deliver(start, chunk)
        })?;
    }
    Ok(())
}
