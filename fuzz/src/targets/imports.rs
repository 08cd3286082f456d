//! The host's functions, called with arbitrary arguments in an arbitrary order, as a component could that has
//! gone entirely wrong.
//!
//! What stands between the sandbox and these functions (leases, handles) is tested with a component in
//! `tests/suite`; here the functions themselves must be safe for every argument.

use std::fs::{self, File};
use std::path::Path;
use std::sync::{Arc, Mutex};

use layerbox_privileged::mount::{Backend, Layout, Unions};
use layerbox_privileged::{
    Attributes, Body, Detail, Device, Entry, Extent, Filler, Kind, LayerId, Name, Policy, Sink, Source,
    Timestamp, Tree, WalkOptions, Xattr,
};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::input::Input;
use crate::scratch::{self, Watched, tells};

/// The most calls of one input.
const CALLS: usize = 64;

/// Names that lead out, where anything follows them, and names that meet each other.
const NAMES: [&[u8]; 16] = [
    b"",
    b"a",
    b"b",
    b"a/b",
    b"a/b/c",
    b"l",
    b"l/hello",
    b"l/d",
    b"up",
    b"up/victim/hello",
    b"abs/hello",
    b"x",
    b"..",
    b"/etc",
    b"a/../b",
    b".",
];

/// Targets of links: out of the layer in every way, and around in circles.
const TARGETS: [&[u8]; 8] =
    [b"..", b"../../victim", b"/", b"../../victim/hello", b"a", b"l", b"/proc/self/root", b""];

/// Ids of layers, and what is none.
const IDS: [&str; 10] =
    ["own", "other", "victim", "none", "..", "../victim", "own/../other", "", "a,b=rw", "-o"];

pub(crate) fn run(bytes: &[u8]) {
    if tells(bytes) {
        return;
    }
    in_own_namespace();
    scratch::with("imports", |place| {
        let store = Store::new(place);
        let watched = Watched::new(&["victim", "s/diff/other", "s/diff/victim"].map(|path| place.join(path)));
        let mut session = Session::new(&store, bytes);
        let mut input = Input::new(bytes);
        for _ in 0..CALLS {
            if input.is_empty() {
                break;
            }
            session.call(&mut input);
        }
        let sent = session.end();
        watched.is_unchanged();
        assert!(!tells(&sent), "what only the victim has was sent");
        store.own_holds_no_secret();
    });
}

/// Mounts of this process are its own, once for each thread that runs inputs.
fn in_own_namespace() {
    thread_local! {
        static DONE: () = {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace needs root");
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
        };
    }
    DONE.with(|()| ());
}

/// The layers of a store in the scratch: `own`, which is lent, and `other` and `victim`, which are not.
struct Store<'a> {
    place: &'a Path,
    unions: Unions,
}

impl<'a> Store<'a> {
    fn new(place: &'a Path) -> Self {
        let root = place.join("s");
        for folder in ["diff", "mnt", "work"] {
            for id in ["own", "other", "victim"] {
                fs::create_dir_all(root.join(folder).join(id)).expect("a directory of the scratch");
            }
        }
        for victim in ["victim", "s/diff/other", "s/diff/victim"] {
            Watched::victim(&place.join(victim));
        }
        let layout = Layout { runtime: place.join("run"), root };
        Self { place, unions: Unions::new(Backend::Overlay, layout).expect("a store") }
    }

    fn own(&self) -> File {
        File::open(self.place.join("s/diff/own")).expect("the layer")
    }

    fn own_holds_no_secret(&self) {
        let mut directories = vec![self.place.join("s/diff/own")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory).expect("a directory of the layer") {
                let path = entry.expect("an entry").path();
                let found = fs::symlink_metadata(&path).expect("stat");
                if found.is_dir() {
                    directories.push(path);
                } else if found.is_file() && found.len() <= 4 << 20 {
                    // A file can be as long as a number can say; of holes there is nothing to tell.
                    assert!(!tells(&fs::read(&path).expect("a file of the layer")), "{}", path.display());
                }
            }
        }
    }
}

/// What a component could hold.
struct Session<'a> {
    store: &'a Store<'a>,
    filler: Filler,
    tree: Tree,
    source: Source,
    sink: Sink,
    sent: Arc<Mutex<Vec<u8>>>,
    mounted: bool,
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> Session<'a> {
    fn new(store: &'a Store<'a>, bytes: &[u8]) -> Self {
        let policy = Policy {
            devices: false,
            root: (0, 0),
            max_entries: 200,
            max_directories: 100,
            max_bytes: 1 << 20,
        };
        let sent = Arc::default();
        Self {
            store,
            filler: Filler::new(store.own().into(), policy).expect("an empty layer"),
            tree: Tree::new(store.own().into(), bytes.len() % 2 == 1),
            source: Source::new(Box::new(std::io::Cursor::new(bytes.repeat(4)))),
            sink: Sink::new(Box::new(Shared(Arc::clone(&sent)))),
            sent,
            mounted: false,
        }
    }

    /// One call. Whether it answers with an error is of no interest.
    fn call(&mut self, input: &mut Input<'_>) {
        match input.byte() % 16 {
            0..=5 => {
                if let Some(entry) = entry(input) {
                    let with_source = input.byte().is_multiple_of(2);
                    let _ = self.filler.put(entry, with_source.then_some(&mut self.source));
                }
            }
            6 => drop(self.filler.fill(input.number(), input.bytes().to_vec())),
            7 => {
                let names: Vec<_> = (0..input.byte() % 4).filter_map(|_| name(input)).collect();
                let _ = self.filler.mark(&names, &xattr(input));
            }
            8 => {
                drop(self.filler.stat(&[name(input), name(input)].into_iter().flatten().collect::<Vec<_>>()))
            }
            9 => drop(self.source.read(input.number() as u32)),
            10 => self.walk(input),
            11 => {
                let names: Vec<_> = [name(input), name(input)].into_iter().flatten().collect();
                let _ = self.tree.stat(&names, detail(input));
            }
            12 => {
                if let Some(name) = name(input) {
                    let _ = self.tree.send(&name, input.number().min(1 << 16), &mut self.sink);
                }
            }
            13 => drop(self.filler.finish()),
            14 => self.mount(input),
            _ => self.unmount(input),
        }
    }

    fn walk(&mut self, input: &mut Input<'_>) {
        let Some(start) = name(input) else { return };
        let options = WalkOptions { start, recursive: input.byte().is_multiple_of(2), detail: detail(input) };
        let Ok(mut walker) = self.tree.walk(options) else { return };
        for _ in 0..4 {
            match walker.next(1 + u32::from(input.byte())) {
                Ok(nodes) if !nodes.is_empty() => {
                    for node in nodes {
                        assert!(!tells(node.name.as_bytes()));
                    }
                }
                _ => break,
            }
        }
    }

    fn mount(&mut self, input: &mut Input<'_>) {
        let Some(id) = id(input) else { return };
        let branches: Vec<_> = (0..input.byte() % 4).filter_map(|_| self::id(input)).collect();
        let label =
            (input.byte().is_multiple_of(4)).then(|| String::from_utf8_lossy(input.bytes()).into_owned());
        // Which layers may be mounted is the lease's to say. Here: never over what must not change.
        if id.as_str() == "own" && self.store.unions.mount(&id, &branches, label.as_deref()).is_ok() {
            self.mounted = true;
        }
    }

    fn unmount(&mut self, input: &mut Input<'_>) {
        let Some(id) = id(input) else { return };
        if self.store.unions.unmount(&id, input.byte().is_multiple_of(2)).is_ok() && id.as_str() == "own" {
            self.mounted = false;
        }
        assert!(self.store.unions.all().expect("mountinfo").iter().all(|id| id.as_str() == "own"));
    }

    /// Ends all that is under way and gives what was sent.
    fn end(self) -> Vec<u8> {
        let Session { store, filler, tree, mut sink, sent, .. } = self;
        drop((filler, tree));
        sink.flush().expect("memory takes all");
        let own = LayerId::new("own").expect("an id");
        store.unions.unmount(&own, true).expect("nobody holds it");
        std::mem::take(&mut sent.lock().expect("no panic"))
    }
}

fn id(input: &mut Input<'_>) -> Option<LayerId> {
    match input.byte() {
        known @ 0..=191 => LayerId::new(IDS[usize::from(known) % IDS.len()]).ok(),
        _ => LayerId::new(String::from_utf8_lossy(input.bytes())).ok(),
    }
}

/// A name as the imports' glue takes it: whatever is no name does not come this far.
fn name(input: &mut Input<'_>) -> Option<Name> {
    let bytes = match input.byte() {
        known @ 0..=199 => NAMES[usize::from(known) % NAMES.len()].to_vec(),
        long @ 200..=210 => vec![b'n'; 250 + usize::from(long - 200)],
        deep @ 211..=215 => vec!["d"; 20 * usize::from(deep - 210)].join("/").into_bytes(),
        _ => input.bytes().to_vec(),
    };
    Name::new(bytes).ok()
}

fn detail(input: &mut Input<'_>) -> Detail {
    input.choose(&[Detail::Names, Detail::Status, Detail::Full])
}

fn entry(input: &mut Input<'_>) -> Option<Entry> {
    Some(Entry { name: name(input)?, kind: kind(input)?, attributes: attributes(input), body: body(input) })
}

fn kind(input: &mut Input<'_>) -> Option<Kind> {
    let number =
        |input: &mut Input<'_>| Device { major: input.number() as u32, minor: input.number() as u32 };
    Some(match input.byte() % 10 {
        0..=2 => Kind::File(input.number()),
        3 | 4 => Kind::Directory,
        5 => Kind::Symlink(match input.byte() {
            known @ 0..=199 => TARGETS[usize::from(known) % TARGETS.len()].to_vec(),
            _ => input.bytes().to_vec(),
        }),
        6 => Kind::HardLink(name(input)?),
        7 => Kind::CharacterDevice(number(input)),
        8 => Kind::BlockDevice(number(input)),
        _ if input.byte().is_multiple_of(2) => Kind::Fifo,
        _ => Kind::Socket,
    })
}

fn attributes(input: &mut Input<'_>) -> Attributes {
    match input.byte() {
        0..=127 => Attributes { mode: 0o755, ..Attributes::default() },
        _ => Attributes {
            mode: input.number() as u32,
            uid: input.number() as u32,
            gid: input.number() as u32,
            mtime: Timestamp { seconds: input.number() as i64, nanoseconds: input.number() as u32 },
            xattrs: (0..input.byte() % 3).map(|_| xattr(input)).collect(),
        },
    }
}

fn xattr(input: &mut Input<'_>) -> Xattr {
    let known: [&[u8]; 8] = [
        b"user.a",
        b"trusted.overlay.opaque",
        b"trusted.overlay.redirect",
        b"security.capability",
        b"system.posix_acl_default",
        b"system.posix_acl_access",
        b"trusted.overlay.metacopy",
        b"",
    ];
    Xattr { name: input.choose(&known).to_vec(), value: input.bytes().to_vec() }
}

fn body(input: &mut Input<'_>) -> Body {
    match input.byte() % 8 {
        0..=2 => Body::None,
        3 => Body::Bytes(input.bytes().to_vec()),
        4 => Body::Stream(input.number()),
        5 => Body::Later,
        _ => {
            let extent = |input: &mut Input<'_>| Extent {
                offset: input.number(),
                length: input.number(),
                position: input.number(),
            };
            Body::Extents((0..input.byte() % 4).map(|_| extent(input)).collect())
        }
    }
}
