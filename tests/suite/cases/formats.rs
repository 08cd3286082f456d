//! Archives that other programs made apply to the tree that they were made of, as far as their format can say
//! it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{dir, file, member, symlink, tar};
use layerbox_tests::tree::{Except, picture, same};

use crate::command::{run, shell};
use crate::harness::{Case, Need, case};
use crate::plant::{Features, plant};
use crate::scratch::Place;
use crate::service::Service;
use crate::store::{Dialect, Store};

/// Python's tarfile walks by itself; a file name of its own (`python3 -c`) keeps it free of helpers.
/// Arguments: format, tree, archive.
const PYTHON: &str = "
import sys, tarfile
form, tree, out = sys.argv[1:]
forms = {'ustar': tarfile.USTAR_FORMAT, 'gnu': tarfile.GNU_FORMAT, 'pax': tarfile.PAX_FORMAT}
with tarfile.open(out, 'w', format=forms[form]) as archive:
    archive.add(tree, '.')
";

const WHOLE: Features = Features { sparse: true, ..Features::PLAIN };
const LONG: Features = Features { names: true, targets: true, owners: true, ..WHOLE };

pub(super) fn cases() -> Vec<Case> {
    // The format's own limits: GNU's has no fractions of seconds and no extended attributes, ustar has
    // neither, nor long names and large owners. tarfile writes PAX names as UTF-8 with surrogates escaped,
    // which no other reader undoes: its names stay in UTF-8.
    let plain = Except { xattrs: true, nanoseconds: true, ..Except::default() };
    let gnu_tar = &["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"][..];
    // What bsdtar calls `--xattrs`, it also writes as LIBARCHIVE.xattr; access control lists go into
    // SCHILY.acl records as text. Of a time before 1970 with a fraction it writes the whole seconds and the
    // nanoseconds after them as if they were one number.
    let bsd = Except { xattrs: true, old_fractions: true, ..Except::default() };
    type Row = (&'static str, &'static str, Vec<&'static str>, Features, Except);
    let rows: Vec<Row> = vec![
        ("GNU tar, gnu", "tar", ["--format=gnu", "--numeric-owner"].to_vec(), LONG, plain),
        (
            "GNU tar, gnu, --sparse",
            "tar",
            ["--format=gnu", "--numeric-owner", "--sparse"].to_vec(),
            LONG,
            plain,
        ),
        ("GNU tar, ustar", "tar", ["--format=ustar", "--numeric-owner"].to_vec(), WHOLE, plain),
        ("GNU tar, pax", "tar", [&["--format=pax"], gnu_tar].concat(), Features::ALL, Except::default()),
        (
            "GNU tar, pax, --sparse",
            "tar",
            [&["--format=pax", "--sparse"], gnu_tar].concat(),
            Features::ALL,
            Except::default(),
        ),
        (
            "GNU tar, pax, sparse 0.0",
            "tar",
            [&["--format=pax", "--sparse", "--sparse-version=0.0"], gnu_tar].concat(),
            Features::ALL,
            Except::default(),
        ),
        (
            "GNU tar, pax, sparse 0.1",
            "tar",
            [&["--format=pax", "--sparse", "--sparse-version=0.1"], gnu_tar].concat(),
            Features::ALL,
            Except::default(),
        ),
        (
            "bsdtar, pax",
            "bsdtar",
            ["--format=pax", "--numeric-owner"].to_vec(),
            Features { xattrs: false, odd_xattrs: false, ..Features::ALL },
            bsd,
        ),
        ("bsdtar, gnutar", "bsdtar", ["--format=gnutar", "--numeric-owner"].to_vec(), LONG, plain),
        ("bsdtar, ustar", "bsdtar", ["--format=ustar", "--numeric-owner"].to_vec(), WHOLE, plain),
        ("Python, ustar", "python3", vec!["ustar"], WHOLE, plain),
        ("Python, gnu", "python3", vec!["gnu"], LONG, plain),
        ("Python, pax", "python3", vec!["pax"], Features { names: false, ..LONG }, plain),
    ];
    let mut cases = Vec::new();
    for (title, program, options, features, except) in rows {
        let body = move |place: &Place| {
            let tree = place.make("tree")?;
            plant(&tree, features)?;
            let archive = place.join("archive.tar");
            make(program, &options, &tree, &archive)?;
            applied(place, &tree, &fs::read(&archive)?, except)
        };
        cases.push(
            case(format!("formats: {title}: applies to the same tree"), body).needs(Need::Tool(program)),
        );
    }
    let compressed = [
        ("gzip", "gzip", "gzip -c \"$1\" > \"$2\""),
        (
            "gzip in several members",
            "gzip",
            "split -b 1500000 \"$1\" \"$1.part.\"; for part in \"$1\".part.*; do gzip -c \"$part\"; done > \"$2\"",
        ),
        (
            "gzip with its file's name",
            "gzip",
            "cp \"$1\" \"$1.named\"; gzip -N \"$1.named\"; mv \"$1.named.gz\" \"$2\"",
        ),
        ("zstd", "zstd", "zstd -q -c \"$1\" > \"$2\""),
        ("zstd, level 19, checksum", "zstd", "zstd -q -19 --check -c \"$1\" > \"$2\""),
        (
            "zstd in several frames",
            "zstd",
            "split -b 1500000 \"$1\" \"$1.part.\"; for part in \"$1\".part.*; do zstd -q -c \"$part\"; done > \"$2\"",
        ),
    ];
    for (title, program, script) in compressed {
        let body = move |place: &Place| {
            let tree = place.make("tree")?;
            plant(&tree, Features::ALL)?;
            let (archive, packed) = (place.join("archive.tar"), place.join("packed"));
            make("tar", &[&["--format=pax"], &GNU_TAR[..]].concat(), &tree, &archive)?;
            shell(script, [archive.as_path(), &packed])?;
            applied(place, &tree, &fs::read(&packed)?, Except::default())
        };
        cases.push(
            case(format!("formats: {title}: applies to the same tree"), body).needs(Need::Tool(program)),
        );
    }
    cases.push(case(
        "formats: a time that the file system cannot hold becomes the nearest, and that is said",
        far,
    ));
    cases.push(
        case("formats: xz is refused with its name", |place| {
            let archive = place.join("archive.tar");
            fs::write(&archive, tar(&[file("a", "x")]))?;
            shell("xz -k \"$1\"", [archive.as_path()])?;
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let output = store.apply("base", &fs::read(place.join("archive.tar.xz"))?)?;
            ensure!(output.code != 0, "xz was accepted");
            output.says("xz")?;
            store.is_empty_and_reusable("base")
        })
        .needs(Need::Tool("xz")),
    );
    cases
}

const GNU_TAR: [&str; 4] = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"];

fn make(program: &str, options: &[&str], tree: &Path, archive: &Path) -> Result<()> {
    let mut command = Command::new(program);
    if program == "python3" {
        command.args(["-c", PYTHON]).args(options).arg(tree).arg(archive);
    } else {
        command.arg("-c").args(options).arg("-f").arg(archive).arg("-C").arg(tree).arg(".");
    }
    run(&mut command, b"")?.expect(0).map(drop)
}

fn applied(place: &Place, tree: &Path, archive: &[u8], except: Except) -> Result<()> {
    let want = picture(tree)?;
    for dialect in Dialect::ALL {
        let store = Store::new(place.join(dialect.name()), dialect);
        store.create("base", None)?;
        store.apply("base", archive)?.expect(0)?;
        same(&want, &picture(&store.content("base"))?, except)?;
    }
    Ok(())
}

/// ext4 holds times from 1901 to 2446.
fn far(place: &Place) -> Result<()> {
    let (far, last) = (20_000_000_000, 15_032_385_535);
    let members = [
        dir("d/").mtime(far),
        file("f", "f").mtime(far),
        file("large", vec![1; 1 << 20]).mtime(-far),
        symlink("l", "f").mtime(far),
        member("p", b'6').mtime(far),
        file("held", "h").mtime(last),
        file("usual", "u"),
    ];
    let said = "5 entries have the nearest time to theirs that this file system can hold";
    let mut store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("a", None)?;
    store.apply("a", &tar(&members))?.expect(0)?.says(said)?;
    for (name, time) in
        [("d", last), ("f", last), ("large", -1 << 31), ("held", last), ("usual", 1_000_000_000)]
    {
        let found = fs::metadata(store.content("a").join(name))?.mtime();
        ensure!(found == time, "{name}: {found}, not {time}");
    }
    store.create("b", None)?;
    let quiet = store.apply("b", &tar(&members[5..]))?.expect(0)?;
    ensure!(!quiet.stderr.contains("nearest"), "{quiet}");
    // Through the service both sides say it.
    let beside = place.beside()?;
    let service = Service::start(&beside, &[])?;
    service.init()?;
    store = Store::new(service.path("home"), Dialect::Overlay);
    store.create("a", None)?;
    store.apply("a", &tar(&members))?.expect(0)?.says(said)?;
    store.create("b", None)?;
    ensure!(service.apply("b", &tar(&members))?.status == 200, "ApplyDiff");
    ensure!(service.log()?.contains(said), "the log does not say it: {}", service.log()?);
    Ok(())
}
