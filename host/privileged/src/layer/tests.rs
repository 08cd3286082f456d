//! What layers promise, on real directories. Most of it needs root, as owners and devices do.

mod fill;
mod hostile;
mod read;
mod refuse;

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::skip::skip;
use crate::*;

/// A directory of its own for a test: `layer/`, and beside it `victim/hello`, which nothing may touch.
struct Scene {
    top: PathBuf,
    before: String,
}

impl Scene {
    /// `None`, loudly, without root.
    fn new(test: &str) -> Option<Self> {
        Self::on(&std::env::temp_dir(), test)
    }

    /// As that, on the file system of a directory.
    fn on(directory: &std::path::Path, test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            skip(&format!("{test}: it needs root"), true);
            return None;
        }
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let top = directory.join(format!("layerbox-{test}-{}-{count}", std::process::id()));
        std::fs::create_dir_all(top.join("layer")).unwrap();
        std::fs::create_dir(top.join("victim")).unwrap();
        std::fs::write(top.join("victim/hello"), b"hello").unwrap();
        let before = state(&top.join("victim"));
        Some(Self { top, before })
    }

    fn layer(&self) -> PathBuf {
        self.top.join("layer")
    }

    fn dir(&self) -> OwnedFd {
        File::open(self.layer()).unwrap().into()
    }

    fn filler(&self) -> Filler {
        Filler::new(self.dir(), ANYTHING).unwrap()
    }

    fn tree(&self) -> Tree {
        Tree::new(self.dir(), false)
    }

    /// Puts entries, then finishes.
    fn fill(&self, entries: Vec<Entry>) -> Result<Totals, Error> {
        let mut filler = self.filler();
        for entry in entries {
            filler.put(entry, None)?;
        }
        filler.finish()
    }

    fn walk(&self, detail: Detail) -> Vec<Node> {
        walked(&self.tree(), Name::root(), detail).unwrap()
    }

    fn names(&self) -> Vec<String> {
        self.walk(Detail::Names)
            .iter()
            .map(|node| String::from_utf8(node.name.as_bytes().to_vec()).unwrap())
            .collect()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let after = state(&self.top.join("victim"));
        let parent = File::open(self.top.parent().unwrap()).unwrap();
        let _ = delete_tree(std::os::fd::AsFd::as_fd(&parent), self.top.file_name().unwrap());
        if !std::thread::panicking() {
            assert_eq!(self.before, after, "the victim was touched");
        }
    }
}

const ANYTHING: Policy = Policy {
    root: (0, 0),
    devices: true,
    max_entries: u64::MAX,
    max_directories: usize::MAX,
    max_bytes: u64::MAX,
};

/// All that a victim could show of having been touched (but access times).
fn state(path: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    let of = |path: &Path| {
        let m = std::fs::symlink_metadata(path).unwrap();
        format!(
            "{} {} {} {} {} {}.{} {}.{}\n",
            m.ino(),
            m.mode(),
            m.uid(),
            m.gid(),
            m.nlink(),
            m.mtime(),
            m.mtime_nsec(),
            m.ctime(),
            m.ctime_nsec()
        )
    };
    let mut text = of(path);
    for entry in std::fs::read_dir(path).unwrap() {
        let entry = entry.unwrap().path();
        text += &format!("{} {:?} {}", entry.display(), std::fs::read(&entry).unwrap(), of(&entry));
    }
    text
}

fn name(text: impl AsRef<[u8]>) -> Name {
    Name::new(text.as_ref().to_vec()).unwrap()
}

fn entry(text: &str, kind: Kind) -> Entry {
    let attributes = Attributes {
        mode: 0o755,
        mtime: Timestamp { seconds: 1000, nanoseconds: 5 },
        ..Attributes::default()
    };
    Entry { name: name(text), kind, attributes, body: Body::None }
}

fn dir(text: &str) -> Entry {
    entry(text, Kind::Directory)
}

fn link(text: &str, target: impl AsRef<[u8]>) -> Entry {
    entry(text, Kind::Symlink(target.as_ref().to_vec()))
}

fn hard(text: &str, target: &str) -> Entry {
    entry(text, Kind::HardLink(name(target)))
}

fn file(text: &str, bytes: &[u8]) -> Entry {
    Entry { body: Body::Bytes(bytes.to_vec()), ..entry(text, Kind::File(bytes.len() as u64)) }
}

fn walked(tree: &Tree, start: Name, detail: Detail) -> Result<Vec<Node>, Error> {
    let mut walker = tree.walk(WalkOptions { start, recursive: true, detail })?;
    let mut nodes = Vec::new();
    loop {
        let next = walker.next(100)?;
        if next.is_empty() {
            return Ok(nodes);
        }
        nodes.extend(next);
    }
}

fn xattr(name: &str, value: &[u8]) -> Xattr {
    Xattr { name: name.as_bytes().to_vec(), value: value.to_vec() }
}
