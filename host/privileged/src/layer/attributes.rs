//! Attributes: which may be set, in which order, and what is put off to the end.
//!
//! The order is owner, mode, extended attributes, time: a change of owner takes set-id bits and capabilities
//! away, a write takes them too, and each step but the last changes a time that nobody can set (ctime), or
//! none.
//!
//! A time that the file system cannot hold is clamped by the kernel to the nearest that it can, without a
//! word (`timestamp_truncate()` in the kernel's fs/inode.c, since Linux 5.4). That is accepted, and told:
//! what 32 bits hold every file system holds, and of other times, which are rare, it is read back what became
//! of them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::AtFlags;
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::resolve::by_descriptor;
use crate::{Attributes, Error, Timestamp, Xattr};

/// Owner and mode that something has had since it was made: what is right already is not set again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Made {
    fn owner_differs(self, attributes: &Attributes) -> bool {
        (self.uid, self.gid) != (attributes.uid, attributes.gid)
    }

    /// Nothing is made with set-id bits, so a change of owner has none to take away unseen.
    fn mode_differs(self, attributes: &Attributes) -> bool {
        self.mode != attributes.mode
    }
}

/// The attribute that holds an access control list, of which the mode is a part (acl(5)).
pub(super) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// The most extended attributes of one entry, and the most bytes of them: what is set waits in memory for it,
/// and what is found is kept there.
pub(super) const MOST_XATTRS: usize = 64;
pub(super) const MOST_XATTR_BYTES: usize = 1024 * 1024;

/// The longest name of one, and the largest value (XATTR_NAME_MAX and XATTR_SIZE_MAX of Linux).
const MOST_NAME: usize = 255;
const MOST_VALUE: usize = 64 * 1024;

/// Refuses what no file can have, and extended attributes that are not a layer's to set.
///
/// # Errors
/// [`Error::InvalidArgument`] for numbers out of their range, [`Error::Limit`] for too many extended
/// attributes, [`Error::Refused`] for the rest; all without an entry.
pub(super) fn check(attributes: &Attributes) -> Result<(), Error> {
    if attributes.mode > 0o7777 || attributes.mtime.nanoseconds > 999_999_999 {
        return Err(Error::InvalidArgument("mode or nanoseconds".into()));
    }
    if attributes.uid == u32::MAX || attributes.gid == u32::MAX {
        // To chown(2) this means: leave it as it is.
        return Err(refused("4294967295 is not an owner"));
    }
    if attributes.xattrs.len() > MOST_XATTRS {
        return Err(too_many());
    }
    if attributes.xattr_bytes() > MOST_XATTR_BYTES {
        return Err(too_large());
    }
    attributes.xattrs.iter().try_for_each(check_xattr)
}

/// More extended attributes than an entry may have.
pub(super) fn too_many() -> Error {
    let bound = format!("extended attributes of one entry ({MOST_XATTRS})");
    Error::Limit { entry: None, bound }
}

/// More bytes of extended attributes than an entry may have.
pub(super) fn too_large() -> Error {
    let bound = format!("bytes of extended attributes of one entry ({MOST_XATTR_BYTES})");
    Error::Limit { entry: None, bound }
}

/// As [`check`], for one extended attribute.
pub(super) fn check_xattr(xattr: &Xattr) -> Result<(), Error> {
    let name = xattr.name.as_slice();
    let prefixes: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    let allowed = prefixes.iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix))
        || name == ACCESS_LIST
        || name == b"system.posix_acl_default";
    let shown = name.get(..MOST_NAME).unwrap_or(name).escape_ascii();
    if !allowed || name.len() > MOST_NAME || name.contains(&0) {
        return Err(refused(&format!("layers do not hold the extended attribute `{shown}`")));
    }
    if xattr.value.len() > MOST_VALUE {
        return Err(refused(&format!("the extended attribute `{shown}` is larger than {MOST_VALUE} bytes")));
    }
    Ok(())
}

/// A rule that an entry breaks, the entry to be said by the caller.
pub(super) fn refused(rule: &str) -> Error {
    Error::Refused { entry: Vec::new(), rule: rule.into() }
}

/// Why an extended attribute was not set. The kernel checks values that it acts upon (capabilities, access
/// control lists), and some kinds of files take none of a namespace: then it is the archive that asks for
/// what cannot be, and not the machine that fails.
///
/// Some file systems say ENOSPC both of a value that is too large for them and of a disk that is full;
/// `place` lies on the file system.
fn not_set(operation: &'static str, name: &[u8], errno: Errno, place: BorrowedFd<'_>) -> Error {
    match errno {
        Errno::NOSPC if has_room(place) => refused(&format!(
            "the file system does not take an extended attribute as large as `{}`",
            name.escape_ascii()
        )),
        Errno::INVAL | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::RANGE | Errno::TOOBIG => {
            refused(&format!(
                "the kernel does not take the extended attribute `{}` ({errno})",
                name.escape_ascii()
            ))
        }
        other => Error::io(operation)(other),
    }
}

/// Whether a file system has room for all extended attributes that an entry can have.
fn has_room(place: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatvfs(place).is_ok_and(|it| {
        let inodes = it.f_files == 0 || it.f_ffree > 0;
        inodes && it.f_bfree.saturating_mul(it.f_frsize) > 2 * MOST_XATTR_BYTES as u64
    })
}

/// Whether the file system has made another time of one that was just set.
fn is_clamped(time: Timestamp, found: impl FnOnce() -> nix::Result<FileStat>) -> Result<bool, Error> {
    Ok(i32::try_from(time.seconds).is_err()
        && found().map_err(Error::io("fstatat"))?.st_mtime != time.seconds)
}

/// Sets the attributes of an open regular file. True where its time is another one, which the file system can
/// hold.
pub(super) fn settle_file(file: &File, made: Made, attributes: &Attributes) -> Result<bool, Error> {
    if made.owner_differs(attributes) {
        let (uid, gid) = owner(attributes);
        fchown(file, uid, gid).map_err(Error::io("fchown"))?;
    }
    if made.mode_differs(attributes) {
        fchmod(file, mode(attributes)).map_err(Error::io("fchmod"))?;
    }
    for Xattr { name, value } in &attributes.xattrs {
        rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())
            .map_err(|errno| not_set("fsetxattr", name, errno, file.as_fd()))?;
    }
    let time = time(attributes.mtime);
    futimens(file, &time, &time).map_err(Error::io("futimens"))?;
    is_clamped(attributes.mtime, || fstat(file))
}

/// Sets the attributes of anything, by its name in an open directory (`.`: of the directory), following
/// nothing. Answers as [`settle_file`].
pub(super) fn settle(
    dir: BorrowedFd<'_>,
    last: &[u8],
    made: Made,
    attributes: &Attributes,
) -> Result<bool, Error> {
    if made.owner_differs(attributes) {
        let (uid, gid) = owner(attributes);
        fchownat(dir, last, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(Error::io("fchownat"))?;
    }
    if made.mode_differs(attributes) {
        fchmodat(dir, last, mode(attributes), FchmodatFlags::NoFollowSymlink)
            .map_err(Error::io("fchmodat"))?;
    }
    for Xattr { name, value } in &attributes.xattrs {
        let path = by_descriptor(dir, last);
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty())
            .map_err(|errno| not_set("lsetxattr", name, errno, dir))?;
    }
    let time = time(attributes.mtime);
    utimensat(dir, last, &time, &time, UtimensatFlags::NoFollowSymlink).map_err(Error::io("utimensat"))?;
    is_clamped(attributes.mtime, || fstatat(dir, last, AtFlags::AT_SYMLINK_NOFOLLOW))
}

fn owner(attributes: &Attributes) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))
}

fn mode(attributes: &Attributes) -> Mode {
    Mode::from_bits_truncate(attributes.mode)
}

/// The access time is set to the same, so that an applied layer does not say when it was applied.
fn time(time: Timestamp) -> TimeSpec {
    TimeSpec::new(time.seconds, i64::from(time.nanoseconds))
}
