//! Layers built with plain system calls in a temporary directory, in either dialect, and the calls over them.

use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use layerbox_guest::apply::apply;
use layerbox_guest::archive::{Decoder, MemberKind, Step, padding};
use layerbox_guest::differ::Differ;
use layerbox_guest::host::{ApplyOptions, ChangeKind, Dialect, IdMaps, Outcome, Result, Totals, Trees};
use layerbox_guest::layers::{LayerId, Records};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;

use crate::host::{Sink, Source, Tree, Writer};

/// The dialects that a test runs in.
pub const DIALECTS: [Dialect; 2] = [Dialect::Aufs, Dialect::Overlay];

/// The time of whatever a test gives none.
pub const TIME: i64 = 1_000_000_000;

/// A store of one dialect in a temporary directory, which needs root: it makes devices and `trusted.`
/// attributes.
pub struct Store {
    root: PathBuf,
    pub dialect: Dialect,
    pub records: Records,
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

impl Store {
    pub fn new(dialect: Dialect) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests make devices and trusted attributes: run them as root"
        );
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("layerbox-guest-{}-{number}", std::process::id()));
        fs::create_dir_all(root.join("layers")).expect("a temporary directory");
        fs::create_dir_all(root.join("diff")).expect("a temporary directory");
        Self { records: Records::new(root.join("layers")), root, dialect }
    }

    pub fn path(&self, id: &str) -> PathBuf {
        self.root.join("diff").join(id)
    }

    /// Makes a layer on those below it, nearest first.
    pub fn layer(&self, id: &str, ancestors: &[&str]) -> Layer {
        let parse = |id: &&str| LayerId::parse(id).expect("an id");
        let ancestors: Vec<_> = ancestors.iter().map(parse).collect();
        self.records.create(&parse(&id), &ancestors).expect("a record");
        let path = self.path(id);
        fs::create_dir(&path).expect("a layer");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("chmod");
        Layer { path, dialect: self.dialect }.settle()
    }

    fn differ(&self) -> Differ<'_, Self> {
        Differ::new(&self.records, self)
    }

    pub fn try_diff(&self, id: &str, parent: Option<&str>) -> Result<(Vec<u8>, Outcome)> {
        self.try_diff_with(id, parent, no_maps())
    }

    pub fn try_diff_with(&self, id: &str, parent: Option<&str>, maps: IdMaps) -> Result<(Vec<u8>, Outcome)> {
        let sink = Sink::new();
        let outcome = self.differ().diff(id, parent, maps, &sink)?;
        Ok((sink.into_bytes(), outcome))
    }

    pub fn diff(&self, id: &str, parent: Option<&str>) -> Vec<u8> {
        self.try_diff(id, parent).expect("a diff").0
    }

    pub fn size(&self, id: &str) -> Totals {
        self.differ().size(id, None).expect("a size")
    }

    /// The changes, as the command line prints them.
    pub fn changes(&self, id: &str, parent: Option<&str>) -> Vec<String> {
        let changes = self.differ().changes(id, parent).expect("changes");
        let letter = |kind| match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        changes.iter().map(|(name, kind)| format!("{} /{}", letter(kind), name.escape_ascii())).collect()
    }

    /// Makes a layer from an archive.
    pub fn try_apply(&self, id: &str, archive: &[u8], options: ApplyOptions) -> Result<Totals> {
        let layer = self.layer(id, &[]);
        let source = Source::new(archive.to_vec(), usize::MAX);
        apply(&Writer::new(&layer.path, self.dialect), &source, options)
    }

    pub fn apply(&self, id: &str, archive: &[u8]) -> Totals {
        self.try_apply(id, archive, options()).expect("an archive that can be applied")
    }
}

impl Trees for Store {
    type Tree = Tree;

    fn tree(&self, id: &LayerId) -> Result<Tree> {
        Ok(Tree::new(&self.path(id.as_str()), self.dialect))
    }
}

pub fn no_maps() -> IdMaps {
    IdMaps { uids: Vec::new(), gids: Vec::new() }
}

pub fn options() -> ApplyOptions {
    ApplyOptions { devices: true, maps: no_maps(), max_entries: 1 << 20, max_bytes: 1 << 40 }
}

/// A layer's directory.
pub struct Layer {
    pub path: PathBuf,
    dialect: Dialect,
}

impl Layer {
    fn at(&self, name: &[u8]) -> PathBuf {
        self.path.join(Path::new(std::ffi::OsStr::from_bytes(name)))
    }

    fn parents(&self, name: &[u8]) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("below the layer")).expect("parents");
        path
    }

    pub fn file(self, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> Self {
        fs::write(self.parents(name.as_ref()), content).expect("write");
        self.settle()
    }

    pub fn directory(self, name: impl AsRef<[u8]>) -> Self {
        fs::create_dir_all(self.at(name.as_ref())).expect("mkdir");
        self.settle()
    }

    pub fn symlink(self, name: impl AsRef<[u8]>, target: &str) -> Self {
        symlink(target, self.parents(name.as_ref())).expect("symlink");
        self.settle()
    }

    pub fn link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        fs::hard_link(self.at(target.as_ref()), self.parents(name.as_ref())).expect("link");
        self.settle()
    }

    pub fn node(self, name: impl AsRef<[u8]>, kind: SFlag, device: u64) -> Self {
        mknod(&self.parents(name.as_ref()), kind, Mode::from_bits_truncate(0o600), device).expect("mknod");
        self.settle()
    }

    pub fn device(self, name: impl AsRef<[u8]>, major: u64, minor: u64) -> Self {
        self.node(name, SFlag::S_IFCHR, makedev(major, minor))
    }

    pub fn socket(self, name: impl AsRef<[u8]>) -> Self {
        UnixListener::bind(self.parents(name.as_ref())).expect("bind");
        self.settle()
    }

    pub fn mode(self, name: impl AsRef<[u8]>, mode: u32) -> Self {
        fs::set_permissions(self.at(name.as_ref()), Permissions::from_mode(mode)).expect("chmod");
        self
    }

    pub fn owner(self, name: impl AsRef<[u8]>, uid: u32, gid: u32) -> Self {
        std::os::unix::fs::lchown(self.at(name.as_ref()), Some(uid), Some(gid)).expect("chown");
        self
    }

    pub fn xattr(self, name: impl AsRef<[u8]>, key: &str, value: &[u8]) -> Self {
        xattr::set(self.at(name.as_ref()), key, value).expect("setxattr");
        self
    }

    pub fn time(self, name: impl AsRef<[u8]>, seconds: i64, nanoseconds: i64) -> Self {
        set_time(&self.at(name.as_ref()), seconds, nanoseconds);
        self
    }

    /// Hides a name as the dialect does it.
    pub fn hide(self, name: &str) -> Self {
        match self.dialect {
            Dialect::Aufs => {
                let base = self.path.join(".wh..wh.aufs");
                if !base.exists() {
                    File::create(&base).expect("the file that aufs keeps");
                }
                let (directory, last) = name.rsplit_once('/').unwrap_or((".", name));
                self.link(format!("{directory}/.wh.{last}"), ".wh..wh.aufs")
            }
            _ => self.device(name, 0, 0),
        }
    }

    /// Makes a directory opaque as the dialect does it.
    pub fn opaque(self, name: &str) -> Self {
        let layer = self.directory(name);
        match layer.dialect {
            Dialect::Aufs => {
                let marker =
                    if name.is_empty() { ".wh..wh..opq".into() } else { format!("{name}/.wh..wh..opq") };
                layer.file(marker, "")
            }
            _ => layer.xattr(name, "trusted.overlay.opaque", b"y"),
        }
    }

    /// Gives everything one time.
    fn settle(self) -> Self {
        settle(&self.path);
        self
    }
}

fn settle(path: &Path) {
    if path.symlink_metadata().expect("stat").is_dir() {
        fs::read_dir(path).expect("readdir").for_each(|entry| settle(&entry.expect("readdir").path()));
    }
    set_time(path, TIME, 0);
}

pub fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink).expect("utimensat");
}

/// The members of an archive: a letter for the kind, the name, and the target of a link.
pub fn members(archive: &[u8]) -> Vec<String> {
    let mut decoder = Decoder::new();
    let mut at = 0;
    let mut found = Vec::new();
    loop {
        match decoder.step(&archive[at..], true).expect("an archive of ours") {
            Step::Need(_) => unreachable!("all is there"),
            Step::End { consumed } => {
                assert_eq!(at + consumed, archive.len(), "nothing after the end");
                return found;
            }
            Step::Member { member, consumed } => {
                let name = member.name.escape_ascii().to_string();
                found.push(match &member.kind {
                    MemberKind::File(_) => format!("f {name}"),
                    MemberKind::Directory => format!("d {name}/"),
                    MemberKind::Symlink(target) => format!("l {name} -> {}", target.escape_ascii()),
                    MemberKind::HardLink(target) => format!("h {name} = {}", target.escape_ascii()),
                    MemberKind::CharacterDevice { major, minor } => format!("c {name} {major}:{minor}"),
                    MemberKind::BlockDevice { major, minor } => format!("b {name} {major}:{minor}"),
                    MemberKind::Fifo => format!("p {name}"),
                });
                at += consumed + (member.stored + padding(member.stored)) as usize;
            }
        }
    }
}
