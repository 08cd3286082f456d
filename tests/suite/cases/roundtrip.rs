//! What goes into a layer comes out of its archive, and into a layer again, with nothing lost; and other
//! programs read the archive as we do.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use anyhow::{Result, ensure};
use layerbox_tests::tree::{Except, digest, picture, same};

use crate::command::{run, utf8};
use crate::harness::{Case, Need, case};
use crate::plant::{Features, noise, plant};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for dialect in Dialect::ALL {
        let name = dialect.name();
        cases.push(case(
            format!("round trip ({name}): all that a layer can hold survives diff and apply-diff"),
            move |place| everything(place, dialect),
        ));
        cases.push(case(format!("round trip ({name}): an empty layer is 1024 zero bytes"), move |place| {
            let store = Store::new(place.join("s"), dialect);
            store.create("base", None)?;
            store.create("child", Some("base"))?;
            for id in ["base", "child"] {
                ensure!(store.diff(id)? == [0; 1024], "the archive of {id} is not 1024 zero bytes");
            }
            Ok(())
        }));
    }
    // What each reader cannot restore, for reasons of its own: libarchive takes the fraction of a time before
    // 1970 for one after it, and leaves the root that it extracts into as it is.
    let bsd = Except { old_fractions: true, root: true, ..Except::default() };
    let readers = [
        (
            "tar",
            "GNU tar",
            &["--xattrs", "--xattrs-include=*", "--acls", "-p", "--numeric-owner"][..],
            Features::ALL,
            Except::default(),
        ),
        (
            "bsdtar",
            "bsdtar",
            &["--xattrs", "--acls", "-p", "--numeric-owner"],
            Features { odd_xattrs: false, ..Features::ALL },
            bsd,
        ),
    ];
    for (program, title, options, features, except) in readers {
        let body = move |place: &Place| read_by(place, program, options, features, except);
        cases.push(
            case(format!("round trip: {title} extracts the archive to the same tree"), body)
                .needs(Need::Tool(program)),
        );
    }
    cases.push(case("round trip: a file of 1 GiB and a sparse file of 1 GiB", gigabyte).alone());
    cases.push(case("round trip: a socket is left out of the archive, and that is said", socket));
    cases.push(case("round trip: diff-size counts each file once, and is what apply-diff printed", size));
    cases.push(
        case("round trip: a layer written through its mount comes out as it was written", through_mount)
            .needs(Need::Filesystem("overlay")),
    );
    cases
}

/// A store whose layer `base` holds the tree.
fn planted(place: &Place, name: &str, dialect: Dialect, features: Features) -> Result<Store> {
    let store = Store::new(place.join(name), dialect);
    store.create("base", None)?;
    let content = store.get("base")?;
    plant(&content, features)?;
    store.put("base")?;
    Ok(store)
}

fn everything(place: &Place, dialect: Dialect) -> Result<()> {
    let store = planted(place, "s", dialect, Features::ALL)?;
    let before = picture(&store.content("base"))?;
    let archive = store.diff("base")?;
    ensure!(archive == store.diff("base")?, "two diffs of one layer are not the same bytes");

    store.create("copy", None)?;
    store.apply("copy", &archive)?.expect(0)?;
    same(&before, &picture(&store.content("base"))?, Except::default())?;
    let copy = picture(&store.content("copy"))?;
    same(&before, &copy, Except::default())?;
    ensure!(store.diff("copy")? == archive, "the diff of the copy is not the archive that it was made of");
    let blocks = |name: &str| copy.get(name.as_bytes()).map_or(u64::MAX, |entry| entry.blocks);
    ensure!(blocks("sparse") <= 4096, "the holes of a sparse file are gone: {} blocks", blocks("sparse"));
    ensure!(blocks("all-hole") <= 512, "a file that was all hole takes {} blocks", blocks("all-hole"));
    Ok(())
}

fn read_by(place: &Place, program: &str, options: &[&str], features: Features, except: Except) -> Result<()> {
    let store = planted(place, "s", Dialect::Overlay, features)?;
    let archive = place.join("archive.tar");
    fs::write(&archive, store.diff("base")?)?;
    let into = place.make("extracted")?;
    let mut command = Command::new(program);
    command.arg("-x").args(options).arg("-f").arg(&archive).arg("-C").arg(&into);
    run(&mut command, b"")?.expect(0)?;
    same(&picture(&store.content("base"))?, &picture(&into)?, except)
}

fn gigabyte(place: &Place) -> Result<()> {
    const SIZE: u64 = 1 << 30;
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let content = store.content("base");
    noise(&content.join("noise"), SIZE + 1)?;
    let sparse = File::create(content.join("sparse"))?;
    sparse.set_len(SIZE)?;
    sparse.write_all_at(&[7; 5000], 300 << 20)?;
    sparse.write_all_at(b"end", SIZE - 3)?;

    let archive = place.join("archive.tar");
    store.ok(["diff", "base", "-o", utf8(&archive)?])?;
    store.create("copy", None)?;
    let size = store.ok(["apply-diff", "copy", utf8(&archive)?])?;
    ensure!(size.trim() == (2 * SIZE + 1).to_string(), "apply-diff printed {size}");
    let copy = store.content("copy");
    for name in ["noise", "sparse"] {
        ensure!(digest(&content.join(name))? == digest(&copy.join(name))?, "{name} is not the same");
    }
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(copy.join("sparse"))?);
    ensure!(blocks <= 65_536, "the holes are gone: {blocks} blocks");
    Ok(())
}

fn socket(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    fs::write(store.content("base").join("file"), "x")?;
    // A path to bind has room for 108 bytes; the scratch directory keeps below that.
    let listener = UnixListener::bind(store.content("base").join("socket"))?;
    drop(listener);
    let output = store.run(["diff", "base"])?.expect(0)?.says("socket")?;
    store.create("copy", None)?;
    store.apply("copy", &output.stdout)?.expect(0)?;
    let names = layerbox_tests::tree::names(&store.content("copy"))?;
    ensure!(names == ["file"], "the copy holds {names:?}");
    Ok(())
}

fn size(place: &Place) -> Result<()> {
    let store = planted(place, "s", Dialect::Overlay, Features::ALL)?;
    let tree = picture(&store.content("base"))?;
    let once: u64 =
        tree.iter().filter(|(path, entry)| **path == entry.first_name).map(|(_, entry)| entry.size).sum();
    store.create("copy", None)?;
    let printed = store.apply("copy", &store.diff("base")?)?.expect(0)?.text();
    for (what, text) in [
        ("apply-diff", printed),
        ("diff-size of the planted layer", store.ok(["diff-size", "base"])?),
        ("diff-size of the applied layer", store.ok(["diff-size", "copy"])?),
    ] {
        ensure!(text.trim() == once.to_string(), "{what}: {} and not {once}", text.trim());
    }
    Ok(())
}

fn through_mount(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    store.create("child", Some("base"))?;
    let mounted = store.get("child")?;
    plant(&mounted, Features::ALL)?;
    let seen = picture(&mounted)?;
    store.put("child")?;
    let archive = store.diff("child")?;
    store.create("copy", Some("base"))?;
    store.apply("copy", &archive)?.expect(0)?;
    same(&seen, &store.merged("copy")?, Except::default())?;
    let mut bytes = &archive[..];
    let mut head = [0; 512];
    bytes.read_exact(&mut head)?;
    Ok(())
}
