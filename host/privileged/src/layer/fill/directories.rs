//! The table of a layer's directories: from names to directories, and from directories to descriptors.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::stat::{Mode, mkdirat};

use super::{Directory, Filler, Place};
use crate::layer::attributes::{ACCESS_LIST, MOST_XATTRS, check_xattr, refused, settle, too_many};
use crate::layer::descent::Descent;
use crate::layer::read::status;
use crate::layer::resolve::{HANDLE, LONGEST, beneath, in_root};
use crate::{Attributes, Error, Name, Xattr};

/// How many symbolic links to directories are remembered.
const LINKS: usize = 4096;

/// The most bytes of directories' extended attributes that are kept until the end.
const MOST_PUT_OFF: usize = 64 * 1024 * 1024;

impl Filler {
    /// Makes a directory with its later mode, less what would hinder or be passed on, and answers its inode.
    pub(super) fn make_directory(&mut self, place: &Place<'_>, mode: u32) -> Result<u64, Error> {
        // The root is one of them.
        if self.directories.len() > self.policy.max_directories {
            let bound = format!("directories ({})", self.policy.max_directories);
            return Err(Error::Limit { entry: None, bound });
        }
        let made = self.made(mode | 0o700);
        let perm = Mode::from_bits_truncate(made.mode);
        self.create(place, "mkdirat", |dir, last| mkdirat(dir, last, perm))?;
        let inode = status(place.dir.as_fd(), place.last).map_err(Error::io("statx"))?.stx_ino;
        let last: Arc<[u8]> = place.last.into();
        let Some(parent) = self.directories.get_mut(&place.parent) else { return Err(changed()) };
        parent.children.insert(Arc::clone(&last), inode);
        let (uid, gid) = self.policy.root;
        let attributes = Attributes { mode: 0o755, uid, gid, ..Attributes::default() };
        let it = Directory { parent: place.parent, last, children: HashMap::new(), made, attributes };
        self.directories.insert(inode, it);
        Ok(inode)
    }

    /// Replaces what `finish` will set, but for extended attributes of which the new ones say nothing. Those
    /// of an access control list go with the mode.
    pub(super) fn put_directory_attributes(
        &mut self,
        inode: u64,
        attributes: Attributes,
    ) -> Result<(), Error> {
        let Some(directory) = self.directories.get_mut(&inode) else { return Err(changed()) };
        let before = directory.attributes.xattr_bytes();
        let old = std::mem::replace(&mut directory.attributes, attributes).xattrs;
        let xattrs = &mut directory.attributes.xattrs;
        for xattr in old {
            if xattr.name != ACCESS_LIST && !xattrs.iter().any(|new| new.name == xattr.name) {
                xattrs.push(xattr);
            }
        }
        // As many as an archive can put on one entry, and a mark.
        if xattrs.len() > MOST_XATTRS + 1 {
            return Err(too_many());
        }
        let after = directory.attributes.xattr_bytes();
        self.put_off(before, after)
    }

    /// Counts what is kept for `finish`.
    fn put_off(&mut self, before: usize, after: usize) -> Result<(), Error> {
        self.put_off = self.put_off.saturating_sub(before) + after;
        if self.put_off > MOST_PUT_OFF {
            let bound = format!("bytes of directories' extended attributes ({MOST_PUT_OFF})");
            return Err(Error::Limit { entry: None, bound });
        }
        Ok(())
    }

    /// Adds an extended attribute to what `finish` will set on a directory, which is made where it is
    /// missing.
    pub(super) fn mark_directory(&mut self, name: &Name, attribute: &Xattr) -> Result<(), Error> {
        check_xattr(attribute)?;
        let inode = self.directory(name.as_bytes(), true)?.ok_or_else(changed)?;
        let Some(Directory { attributes, .. }) = self.directories.get_mut(&inode) else {
            return Err(changed());
        };
        let before = attributes.xattr_bytes();
        attributes.xattrs.retain(|known| known.name != attribute.name);
        // A mark may come on top of all that an archive can have put.
        if attributes.xattrs.len() > MOST_XATTRS {
            return Err(too_many());
        }
        attributes.xattrs.push(attribute.clone());
        let after = attributes.xattr_bytes();
        self.put_off(before, after)
    }

    /// The inode of the directory that a name leads to. Missing ones are made, or else the answer is `None`,
    /// as where the way leads over something that is no directory.
    pub(super) fn directory(&mut self, name: &[u8], make: bool) -> Result<Option<u64>, Error> {
        if let Some((known, inode)) = &self.latest
            && known == name
        {
            return Ok(Some(*inode));
        }
        let (mut here, mut end) = (self.root_inode, 0);
        for component in name.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            end += component.len() + usize::from(end > 0);
            let own = self.directories.get(&here).and_then(|it| it.children.get(component));
            let known = own.or_else(|| self.links.get(&here)?.get(component));
            if let Some(next) = known {
                here = *next;
                continue;
            }
            let from = here;
            let found = match name.get(..end) {
                Some(way) if end <= LONGEST => in_root(self.root.as_fd(), way),
                _ => beneath(self.handle(here)?.as_fd(), component, HANDLE),
            };
            here = match found {
                Ok(dir) => status(dir.as_fd(), b"").map_err(Error::io("statx"))?.stx_ino,
                Err(Errno::ENOENT) if make => {
                    let place = Place { parent: here, dir: self.handle(here)?, last: component };
                    if status(place.dir.as_fd(), component).is_ok() {
                        return Err(refused("the way to it leads over a symbolic link that leads nowhere"));
                    }
                    self.make_directory(&place, 0o755)?
                }
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) if !make => return Ok(None),
                Err(Errno::ENOTDIR) => {
                    return Err(refused("the way to it leads over something that is not a directory"));
                }
                Err(Errno::ELOOP) => {
                    return Err(refused("the way to it leads over a loop of symbolic links"));
                }
                Err(error) => return Err(Error::io("openat2")(error)),
            };
            if !self.directories.contains_key(&here) {
                return Err(changed());
            }
            self.remember_link(from, component, here);
        }
        self.latest = Some((name.to_vec(), here));
        Ok(Some(here))
    }

    /// Remembers what a component led to, unless it is the directory of that name. Asking the kernel again
    /// costs the whole way over all links before it.
    fn remember_link(&mut self, from: u64, component: &[u8], to: u64) {
        if self.directories.get(&from).is_some_and(|it| it.children.contains_key(component)) {
            return;
        }
        if self.linked == LINKS {
            self.links.clear();
            self.linked = 0;
        }
        self.links.entry(from).or_default().insert(component.into(), to);
        self.linked += 1;
    }

    /// A descriptor of a directory in the table.
    pub(super) fn handle(&mut self, inode: u64) -> Result<Arc<OwnedFd>, Error> {
        if inode == self.root_inode {
            return Ok(Arc::clone(&self.root));
        }
        if let Some(known) = self.handles.get(&inode) {
            return Ok(known);
        }
        let parent = self.directories.get(&inode).ok_or_else(changed)?.parent;
        let opened = match self.handles.get(&parent) {
            Some(parent_dir) => beneath(parent_dir.as_fd(), &self.way(inode, parent).join(&b'/'), HANDLE),
            None => beneath(self.root.as_fd(), &self.way(inode, self.root_inode).join(&b'/'), HANDLE),
        };
        let opened = Arc::new(opened.map_err(Error::io("openat2"))?);
        self.handles.put(inode, Arc::clone(&opened));
        Ok(opened)
    }

    /// Sets what was put off, for inner directories first: an owner without privilege may lose the way to
    /// them with the attributes of the outer ones. Answers how many got another time than theirs, which the
    /// file system can hold.
    pub(super) fn settle_directories(&self) -> Result<u64, Error> {
        let mut descent = Descent::new();
        let mut clamped = 0;
        let children = |it: &Directory| it.children.values().copied().collect::<Vec<u64>>();
        let top = beneath(self.root.as_fd(), b"", HANDLE).map_err(Error::io("openat2"))?;
        let root = self.directories.get(&self.root_inode).ok_or_else(changed)?;
        descent.enter(top, (root, children(root)))?;
        while let Some((dir, (_, below))) = descent.inner() {
            let done = match below.pop().and_then(|inode| self.directories.get(&inode)) {
                Some(next) if !next.children.is_empty() => {
                    let inner = beneath(dir, &next.last, HANDLE).map_err(Error::io("openat2"))?;
                    descent.enter(inner, (next, children(next)))?;
                    continue;
                }
                Some(next) => next,
                None => match descent.leave()? {
                    Some((done, _)) => done,
                    None => break,
                },
            };
            let outer = descent.inner().map_or(self.root.as_fd(), |(outer, _)| outer);
            let settled = settle(outer, &done.last, done.made, &done.attributes);
            clamped += u64::from(settled.map_err(|error| error.at(&self.name_of(done)))?);
        }
        Ok(clamped)
    }

    /// The name of a directory in the table, for a message.
    fn name_of(&self, directory: &Directory) -> Name {
        let mut way = self.way(directory.parent, self.root_inode);
        way.push(Arc::clone(&directory.last));
        Name::found(way.join(&b'/'))
    }

    /// The components that lead to a directory in the table from one further out.
    fn way(&self, mut inode: u64, from: u64) -> Vec<Arc<[u8]>> {
        let mut way = Vec::new();
        while inode != from
            && let Some(it) = self.directories.get(&inode)
        {
            way.push(Arc::clone(&it.last));
            inode = it.parent;
        }
        way.reverse();
        way
    }
}

/// Somebody changed the layer while it was filled.
pub(super) fn changed() -> Error {
    Error::Conflict("the layer was changed by somebody else while it was filled".into())
}
