//! A picture of a directory tree, and what differs between two.
//!
//! All that a layer keeps is in it: type, mode, owner, time with nanoseconds, size, content, device number,
//! link target, which names are one file, extended attributes. Nothing is followed, and no FIFO or device is
//! opened.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, Metadata};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// What one name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `file`, `directory`, `symlink`, `character`, `block`, `fifo`, `socket`.
    pub kind: &'static str,
    /// The twelve permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds of the modification time.
    pub mtime: (i64, i64),
    /// Bytes, of a regular file.
    pub size: u64,
    /// Device number, of a device.
    pub device: u64,
    /// Where a symbolic link leads.
    pub target: Vec<u8>,
    /// The SHA-256 of a regular file's content.
    pub content: String,
    /// The first name, in byte order, of the same file.
    pub first_name: Vec<u8>,
    /// Extended attributes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Blocks of 512 bytes on disk, of a regular file.
    pub blocks: u64,
}

/// A tree: the entries by their path without a leading `/`; the empty path is the root.
pub type Tree = BTreeMap<Vec<u8>, Entry>;

/// What to leave out of a comparison, because one of the sides cannot hold it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Except {
    /// Extended attributes, access control lists among them.
    pub xattrs: bool,
    /// Access control lists alone.
    pub acls: bool,
    /// Fractions of seconds.
    pub nanoseconds: bool,
    /// Times before 1970 that have a fraction.
    pub old_fractions: bool,
    /// The attributes of the root itself.
    pub root: bool,
    /// The times of directories.
    pub directory_times: bool,
    /// The times of symbolic links.
    pub symlink_times: bool,
    /// Which names are one file.
    pub links: bool,
}

/// Takes the picture of what lies below `root`.
///
/// # Errors
///
/// What cannot be read, with its path.
pub fn picture(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut first = BTreeMap::new();
    walk(root, Vec::new(), &mut tree, &mut first)?;
    Ok(tree)
}

fn walk(
    path: &Path,
    name: Vec<u8>,
    tree: &mut Tree,
    first: &mut BTreeMap<(u64, u64), Vec<u8>>,
) -> Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| format!("lstat {}", path.display()))?;
    let mut entry = look(path, &metadata).with_context(|| format!("look at {}", path.display()))?;
    entry.first_name = first.entry((metadata.dev(), metadata.ino())).or_insert_with(|| name.clone()).clone();
    let directory = entry.kind == "directory";
    tree.insert(name.clone(), entry);
    if directory {
        let mut names = fs::read_dir(path)
            .with_context(|| format!("read {}", path.display()))?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<Vec<_>>>()?;
        names.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
        for base in names {
            let mut child = name.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(base.as_bytes());
            walk(&path.join(&base), child, tree, first)?;
        }
    }
    Ok(())
}

fn look(path: &Path, metadata: &Metadata) -> Result<Entry> {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_file() => "file",
        () if kind.is_dir() => "directory",
        () if kind.is_symlink() => "symlink",
        () if kind.is_char_device() => "character",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "fifo",
        () if kind.is_socket() => "socket",
        () => bail!("a type of file that is not known: {:o}", metadata.mode()),
    };
    let mut xattrs = BTreeMap::new();
    for name in xattr::list(path)? {
        let value = xattr::get(path, &name)?.unwrap_or_default();
        xattrs.insert(name.as_bytes().to_vec(), value);
    }
    let regular = kind == "file";
    let device = matches!(kind, "character" | "block");
    Ok(Entry {
        kind,
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: (metadata.mtime(), metadata.mtime_nsec()),
        size: if regular { metadata.size() } else { 0 },
        device: if device { metadata.rdev() } else { 0 },
        target: if kind == "symlink" {
            fs::read_link(path)?.as_os_str().as_bytes().to_vec()
        } else {
            Vec::new()
        },
        content: if regular { digest(path)? } else { String::new() },
        first_name: Vec::new(),
        xattrs,
        blocks: if regular { metadata.blocks() } else { 0 },
    })
}

/// The SHA-256 of a file's content, in hexadecimal.
///
/// # Errors
///
/// The file cannot be read.
pub fn digest(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let length = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if length == 0 {
            return Ok(format!("{:x}", hash.finalize()));
        }
        hash.update(&buffer[..length]);
    }
}

/// A path in a form that is safe to print.
pub fn show(path: &[u8]) -> String {
    let text = path.escape_ascii().to_string();
    match (text.len(), text.get(..40), text.get(text.len().saturating_sub(40)..)) {
        (0, _, _) => "/".to_owned(),
        (121.., Some(start), Some(end)) => format!("{start}…{end} ({} bytes)", path.len()),
        _ => text,
    }
}

/// Compares two trees. Nothing where they are equal, else a line for each difference, the first 40.
pub fn difference(want: &Tree, got: &Tree, except: Except) -> Option<String> {
    let mut lines = Vec::new();
    for (path, wanted) in want {
        match got.get(path) {
            None => lines.push(format!("  {}: missing ({})", show(path), wanted.kind)),
            Some(found) => {
                if !(path.is_empty() && except.root) {
                    lines.extend(compare(path, wanted, found, except));
                }
            }
        }
    }
    for (path, found) in got {
        if !want.contains_key(path) {
            lines.push(format!("  {}: should not be there ({})", show(path), found.kind));
        }
    }
    if lines.is_empty() {
        return None;
    }
    let mut text = format!("the trees differ in {} places (wanted | found):\n", lines.len());
    for line in lines.iter().take(40) {
        let _ = writeln!(text, "{line}");
    }
    Some(text)
}

/// As [`difference`], as an error.
///
/// # Errors
///
/// The trees differ.
pub fn same(want: &Tree, got: &Tree, except: Except) -> Result<()> {
    difference(want, got, except).map_or(Ok(()), |text| bail!(text))
}

fn compare(path: &[u8], want: &Entry, got: &Entry, except: Except) -> Vec<String> {
    let mut rows: Vec<(&str, String, String)> = vec![
        ("type", want.kind.into(), got.kind.into()),
        ("mode", format!("{:04o}", want.mode), format!("{:04o}", got.mode)),
        ("uid", want.uid.to_string(), got.uid.to_string()),
        ("gid", want.gid.to_string(), got.gid.to_string()),
        ("size", want.size.to_string(), got.size.to_string()),
        ("device", format!("{:x}", want.device), format!("{:x}", got.device)),
        ("target", show(&want.target), show(&got.target)),
        ("content", want.content.clone(), got.content.clone()),
    ];
    let untimed = (except.directory_times && want.kind == "directory")
        || (except.symlink_times && want.kind == "symlink");
    let untimed = untimed || (except.old_fractions && want.mtime.0 < 0 && want.mtime.1 != 0);
    if !untimed {
        let time = |(seconds, nanoseconds): (i64, i64)| {
            if except.nanoseconds { seconds.to_string() } else { format!("{seconds}.{nanoseconds:09}") }
        };
        rows.push(("mtime", time(want.mtime), time(got.mtime)));
    }
    if !except.links {
        rows.push(("same file as", show(&want.first_name), show(&got.first_name)));
    }
    if !except.xattrs {
        rows.push(("xattrs", xattrs(want, except), xattrs(got, except)));
    }
    rows.retain(|(_, wanted, found)| wanted != found);
    rows.into_iter()
        .map(|(what, wanted, found)| format!("  {}: {what}: {wanted} | {found}", show(path)))
        .collect()
}

fn xattrs(entry: &Entry, except: Except) -> String {
    let mut text = String::new();
    for (name, value) in &entry.xattrs {
        if except.acls && name.starts_with(b"system.posix_acl_") {
            continue;
        }
        let _ = write!(text, "{}={} ", name.escape_ascii(), value.escape_ascii());
    }
    text
}

/// The names of a directory, sorted.
///
/// # Errors
///
/// It cannot be read.
pub fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names = fs::read_dir(directory)
        .with_context(|| format!("read {}", directory.display()))?
        .map(|entry| Ok(OsStr::to_string_lossy(&entry?.file_name()).into_owned()))
        .collect::<Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}
