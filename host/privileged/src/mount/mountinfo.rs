//! What is mounted, from `/proc/PID/mountinfo` (format: proc_pid_mountinfo(5)). Names of mount points are
//! bytes; the kernel writes those that would split a line as a backslash and three octal digits.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, PartialEq, Eq)]
pub struct Mount {
    /// What statx calls `stx_mnt_id`.
    pub id: u64,
    /// Where it is mounted, below the root of the process.
    pub point: PathBuf,
    /// The file system's name.
    pub filesystem: Vec<u8>,
    /// The optional fields: to which groups it belongs.
    optional: Vec<u8>,
    options: Vec<u8>,
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Mount> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(3)?)));
        let optional: Vec<&[u8]> = fields.by_ref().skip(1).take_while(|field| *field != b"-").collect();
        let filesystem = unescape(fields.next()?);
        let options = fields.nth(1)?.to_vec();
        Some(Mount { id, point, filesystem, optional: optional.join(&b' '), options })
    }

    /// The number of the group of a kind, `shared` or `master`, that it belongs to (mount_namespaces(7),
    /// SHARED SUBTREES).
    pub fn group(&self, kind: &str) -> Option<&[u8]> {
        let mut fields = self.optional.split(|byte| *byte == b' ');
        fields.find_map(|field| field.strip_prefix(kind.as_bytes())?.strip_prefix(b":"))
    }

    /// Whether what is mounted and unmounted here is so there as well: this one is in a group of which the
    /// other is a peer or a slave.
    pub fn hands_on_to(&self, other: &Mount) -> bool {
        let group = self.group("shared");
        group.is_some() && ["shared", "master"].iter().any(|kind| other.group(kind) == group)
    }

    /// The values of a file system's option, in order, as they were given to the kernel.
    pub(super) fn option(&self, name: &str) -> Vec<Vec<u8>> {
        self.options
            .split(|byte| *byte == b',')
            .filter_map(|option| option.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .map(unescape)
            .collect()
    }
}

/// The kernel makes the line of a union anew for every read that it does not fit in with others; small reads
/// make it once (20 unions of 100 layers: 3 ms against 6 to 10 with 64 KiB).
const READ: usize = 4096;

/// Calls `visit` for every mount, until it answers false.
pub(super) fn each(mut visit: impl FnMut(Mount) -> bool) -> io::Result<()> {
    for line in BufReader::with_capacity(READ, File::open("/proc/self/mountinfo")?).split(b'\n') {
        let mount = Mount::parse(&line?).ok_or_else(unreadable)?;
        if !visit(mount) {
            break;
        }
    }
    Ok(())
}

/// All mounts of a process, of this one by the name `self`, in the order in which the kernel has them.
///
/// # Errors
///
/// That of reading the file, which for another process takes rights over it; a line that cannot be read is
/// `InvalidData`.
pub fn read(process: &str) -> io::Result<Vec<Mount>> {
    let text = std::fs::read(format!("/proc/{process}/mountinfo"))?;
    parse(&text)
}

/// The mounts of a text as the kernel writes it.
///
/// # Errors
///
/// As for [`read`].
pub fn parse(text: &[u8]) -> io::Result<Vec<Mount>> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| Mount::parse(line).ok_or_else(unreadable)).collect()
}

fn unreadable() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a line of mountinfo that cannot be read")
}

/// The mount that a path lies on: that of the longest mount point above it, of those stacked there the last.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.point));
    above.max_by_key(|mount| mount.point.components().count())
}

/// The last mount that fits: of mounts stacked on one point it is the one on top.
pub(super) fn find(fits: impl Fn(&Mount) -> bool) -> io::Result<Option<Mount>> {
    let mut found = None;
    each(|mount| {
        if fits(&mount) {
            found = Some(mount);
        }
        true
    })?;
    Ok(found)
}

/// Undoes the kernel's escapes: a backslash and three octal digits.
pub fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
                rest = after;
            }
            _ => plain.push(*first),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        type Row<'a> = (&'a str, Option<(u64, &'a str, &'a str)>);
        let rows: [Row; 6] = [
            (
                "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
                Some((36, "/mnt2", "ext3")),
            ),
            (
                "40 35 0:50 / /a\\040b\\134c\\012d rw - overlay overlay rw",
                Some((40, "/a b\\c\nd", "overlay")),
            ),
            (
                "41 35 0:50 / /x rw shared:1 master:2 unbindable - aufs none rw,si=1f",
                Some((41, "/x", "aufs")),
            ),
            ("42 35 0:50 / /x rw - aufs none", None),
            ("no number 0:50 / /x rw - aufs none rw", None),
            ("", None),
        ];
        for (line, expected) in rows {
            let parsed = Mount::parse(line.as_bytes());
            let seen = parsed.as_ref().map(|mount| {
                (mount.id, mount.point.to_str().unwrap(), std::str::from_utf8(&mount.filesystem).unwrap())
            });
            assert_eq!(seen, expected, "{line}");
        }
    }

    #[test]
    fn groups_are_told_by_kind() {
        let rows = [
            ("shared:7 master:2", "shared", Some("7")),
            ("shared:7 master:2", "master", Some("2")),
            ("unbindable", "shared", None),
            ("", "shared", None),
            ("shared:70", "share", None),
        ];
        for (optional, kind, expected) in rows {
            let space = if optional.is_empty() { "" } else { " " };
            let line = format!("36 35 98:0 / /shared:1 rw{space}{optional} - ext4 master:9 rw");
            let mount = Mount::parse(line.as_bytes()).unwrap();
            assert_eq!(mount.group(kind), expected.map(str::as_bytes), "{line}");
        }
    }

    #[test]
    fn the_nearest_mount_holds_a_path() {
        let mounts =
            b"1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /var rw - xfs a rw\n3 1 0:3 / /tmp rw - btrfs a rw\n\
            4 3 0:4 / /tmp rw - tmpfs a rw\n5 1 0:5 / /caf\xe9\\040x rw - fuse a rw\n";
        let mounts = parse(mounts).unwrap();
        let odd = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"/caf\xe9 x/y"));
        let rows = [
            ("/var/tmp".as_ref(), "xfs"),
            ("/variable".as_ref(), "ext4"),
            ("/tmp".as_ref(), "tmpfs"),
            (odd, "fuse"),
        ];
        for (path, filesystem) in rows {
            assert_eq!(holding(&mounts, path).unwrap().filesystem, filesystem.as_bytes(), "{path:?}");
        }
        assert_eq!(holding(&[], odd), None);
    }

    #[test]
    fn options_keep_their_order_and_lose_their_escapes() {
        let line =
            br"1 1 0:1 / / rw - overlay overlay rw,lowerdir+=/a\054b,lowerdir+=/c\075d,lowerdir=no,si=0";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.option("lowerdir+"), [b"/a,b".to_vec(), b"/c=d".to_vec()]);
        assert_eq!(mount.option("lowerdir"), [b"no".to_vec()]);
        assert_eq!(mount.option("upperdir"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn escapes_that_are_none_stay() {
        for (escaped, plain) in [
            (r"\040", " "),
            (r"\04", r"\04"),
            (r"\", r"\"),
            (r"\999", r"\999"),
            (r"a\\134", r"a\\"),
            (r"\134040", r"\040"),
        ] {
            assert_eq!(unescape(escaped.as_bytes()), plain.as_bytes(), "{escaped}");
        }
    }
}
