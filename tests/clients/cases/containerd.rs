//! containerd on the service: the life of an image and of its containers, crashes in the middle of it, and
//! blobs that only the component unpacks.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{Member, dir, file, tar};
use layerbox_tests::command::shell;
use layerbox_tests::harness::{Case, Need, Skip, case};
use layerbox_tests::race::Race;
use layerbox_tests::scratch::Place;
use layerbox_tests::tree::{Except, picture, same};

use super::fixture;
use crate::containerd::{Containerd, Differ, NAME, Version, image};
use crate::rig::{small_root, until};

/// The image of these cases.
const SMALL: &str = "example.com/small:1";

/// The case that measures.
const SPEED: &str = "an image of 200 MB is unpacked in 0.7 of the time of its own overlayfs and differ";

/// What a case does with a containerd.
type Body = fn(&Place, Version) -> Result<()>;

pub(super) fn cases() -> Vec<Case> {
    let all: [(&str, Body); 3] = [
        ("an image is imported, run, looked at, committed and removed, and nothing is left", life),
        ("its snapshots show what those of its own overlayfs show", same_as_overlayfs),
        ("killed in the middle, it and the service go on", killed),
    ];
    let newer: [(&str, Body); 4] = [
        ("an image is unpacked by the component, and by nobody else", unpacked),
        ("a hostile layer is refused, and ctr says why", hostile),
        ("differences are packed as asked for, and the same each time", differences),
        (SPEED, speed),
    ];
    let mut cases = Vec::new();
    for (label, version) in [("1.6", Version::Own), ("1.7", Version::Trixie), ("2", Version::Sid)] {
        let further = if version == Version::Own { &[][..] } else { &newer[..] };
        for (name, body) in all.iter().chain(further) {
            let body = *body;
            let run = move |place: &Place| {
                match version.programs() {
                    Some(_) => body(place, version),
                    // Only the engine of this Debian must be there.
                    None => Err(Skip("there is no such containerd here".to_owned()).into()),
                }
            };
            let tools = ["containerd", "ctr", "runc", "python3", "busybox", "zstd"];
            let mut new = case(format!("containerd {label}: {name}"), run).needs(Need::Filesystem("overlay"));
            if *name == SPEED {
                new = new.alone();
            }
            cases.push(tools.into_iter().fold(new, |case, tool| case.needs(Need::Tool(tool))));
        }
    }
    cases
}

/// An archive with these members, packed or not, in a file.
fn layer(place: &Place, name: &str, members: &[Member], packer: &str) -> Result<PathBuf> {
    let plain = place.join(format!("{name}.tar"));
    fs::write(&plain, tar(members))?;
    let packed = place.join(name);
    shell(&format!(r#"{packer} <"$1" >"$2""#), [plain.as_path(), packed.as_path()])?;
    Ok(packed)
}

/// The small image: a root, and a layer on it that adds, changes and deletes.
fn small(place: &Place, engine: &Containerd) -> Result<()> {
    let archive = place.join("small.oci");
    if !archive.exists() {
        let members = [dir("data"), file("data/.wh.1", ""), file("data/2", "changed"), file("new", "new")];
        let second = layer(place, "second", &members, "gzip -n")?;
        image(&archive, SMALL, &[&small_root(place)?, &second])?;
    }
    engine.import(&archive, NAME).map(drop)
}

/// Kills the processes of a container, and waits until containerd has forgotten them.
fn task_ends(engine: &Containerd, container: &str) -> Result<()> {
    engine.ok(&["task", "kill", "--signal", "KILL", container])?;
    until(Duration::from_secs(10), "the task does not end", || {
        engine.ctr(["task", "rm", container])?;
        Ok(!engine.ok(&["task", "ls"])?.contains(container))
    })
}

fn life(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start(&place.join("e"), version)?;
    small(place, &engine)?;
    let seen = engine.shell(SMALL, "one", &["--rm"], "cat /data/2 /new; ls /data; echo x >/data/3; id -u")?;
    ensure!(seen == "changednew2\n3\n4\n5\n6\n7\n8\n0\n", "{seen}");
    engine.shell(SMALL, "two", &["--detach"], "sleep 1000")?;
    let said = engine.exec("two", &["sh", "-c", "echo hi >/more; rm /data/2; cat /more"])?;
    ensure!(said == "hi\n", "{said}");
    let list = engine.snapshots(&["ls"])?;
    ensure!(
        list.matches("Committed").count() == 2 && list.contains("two") && list.contains("Active"),
        "{list}"
    );
    let tree = engine.snapshots(&["tree"])?;
    ensure!(tree.lines().count() == 3 && tree.contains("  \\_ two"), "{tree}");
    let usage = engine.snapshots(&["usage"])?;
    let mounts = engine.snapshots(&["mounts", "/mnt", "two"])?;
    let upper = mounts.split([',', ' ']).find_map(|option| option.strip_prefix("upperdir="));
    let upper = Path::new(upper.with_context(|| format!("no upper directory: {mounts}"))?.trim());
    let inodes = String::from_utf8(shell(r#"du -s --inodes "$1" | cut -f1"#, [upper])?)?;
    let of_two = usage.lines().find(|line| line.starts_with("two")).unwrap_or_default();
    ensure!(
        of_two.contains("KiB") && of_two.split_whitespace().last() == Some(inodes.trim()),
        "{usage} and {inodes}"
    );
    let info: serde_json::Value = serde_json::from_str(&engine.snapshots(&["info", "two"])?)?;
    ensure!(info["Kind"] == "Active" && info["Name"] == "two" && info["Parent"].is_string(), "{info}");
    let diff = place.join("diff.tgz");
    fs::write(&diff, engine.ctr(["snapshots", "--snapshotter", NAME, "diff", "two"])?.expect(0)?.stdout)?;
    let listed = shell(r#"tar -tzf "$1" | sort"#, [diff.as_path()])?;
    let listed = String::from_utf8(listed)?;
    ensure!(
        listed.contains("data/.wh.2\n") && listed.contains("more\n") && !listed.contains("bin"),
        "{listed}"
    );
    task_ends(&engine, "two")?;
    engine.snapshots(&["commit", "committed", "two"])?;
    engine.snapshots(&["prepare", "again", "committed"])?;
    engine.snapshots(&["rm", "again"])?;
    engine.snapshots(&["rm", "committed"])?;
    engine.ok(&["container", "rm", "two"])?;
    let mounted = place.make("mounted")?;
    let at = mounted.to_str().unwrap_or_default();
    engine.ok(&["images", "mount", "--snapshotter", NAME, SMALL, at])?;
    ensure!(fs::read(mounted.join("data/2"))? == b"changed" && !mounted.join("data/1").exists());
    ensure!(fs::write(mounted.join("f"), "x").is_err(), "the mounted image can be written");
    engine.ok(&["images", "unmount", "--snapshotter", NAME, "--rm", at])?;
    engine.finish()
}

fn same_as_overlayfs(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start(&place.join("e"), version)?;
    let archive = place.join("debian.oci");
    let members = [
        dir("usr/share/doc"),
        file("usr/share/doc/.wh..wh..opq", ""),
        file("usr/share/doc/new", "new"),
        dir("etc"),
        file("etc/.wh.debian_version", ""),
        file("etc/issue", "changed"),
    ];
    let second = layer(place, "second", &members, "zstd -q")?;
    let name = "example.com/debian:1";
    image(&archive, name, &[&fixture()?, &second])?;
    let look = |snapshotter: &str| -> Result<_> {
        let at = place.make(snapshotter)?;
        let text = at.to_str().unwrap_or_default();
        engine.ok(&["images", "mount", "--snapshotter", snapshotter, name, text])?;
        let tree = picture(&at);
        engine.ok(&["images", "unmount", "--snapshotter", snapshotter, "--rm", text])?;
        tree
    };
    engine.import(&archive, NAME)?;
    let ours = look(NAME)?;
    if version == Version::Own {
        engine.import(&archive, "overlayfs")?;
        same(&look("overlayfs")?, &ours, Except::default())?;
    } else {
        // Those have no differ but ours; what it unpacked is held against what tar and the rules of deletion
        // make of it.
        let expected = place.make("expected")?;
        let script = r#"
            tar --numeric-owner --xattrs --xattrs-include='*' -xpf "$1" -C "$2"
            rm -rf "$2"/usr/share/doc/* "$2"/etc/debian_version
            tar --numeric-owner -xpf "$3" --exclude='.wh.*' -C "$2"
        "#;
        let plain = place.join("second.tar");
        shell(script, [fixture()?.as_path(), expected.as_path(), plain.as_path()])?;
        let except = Except { directory_times: true, root: true, ..Except::default() };
        same(&picture(&expected)?, &ours, except)?;
    }
    engine.finish()
}

fn killed(place: &Place, version: Version) -> Result<()> {
    let mut engine = Containerd::start(&place.join("e"), version)?;
    small(place, &engine)?;
    engine.shell(SMALL, "lives", &["--detach"], "while :; do echo tick >>/ticks; sleep 0.1; done")?;
    let ticks = |engine: &Containerd| -> Result<usize> {
        // Its shell may not have begun yet.
        Ok(engine.exec("lives", &["sh", "-c", "cat /ticks || true"])?.len())
    };
    let mut before = 0;
    until(Duration::from_secs(10), "the container writes nothing", || {
        before = ticks(&engine)?;
        Ok(before > 0)
    })?;
    // Imports that are cut off at different moments, by the end of the one or the other.
    for round in 0..6u64 {
        let name = format!("example.com/cut:{round}");
        let archive = place.join(format!("cut-{round}.oci"));
        let members: Vec<Member> =
            (0..2000).map(|number| file(format!("f{number}"), vec![round as u8; 4000])).collect();
        image(
            &archive,
            &name,
            &[&small_root(place)?, &layer(place, &format!("cut-{round}"), &members, "cat")?],
        )?;
        let null = std::process::Stdio::null;
        let mut import = engine.command(import_of(&archive)).stdout(null()).stderr(null()).spawn()?;
        std::thread::sleep(Duration::from_millis(60 * (round + 1)));
        if round % 2 == 0 {
            engine.kill_service()?;
            engine.start_service()?;
        } else {
            engine.kill_daemon()?;
            engine.start_daemon()?;
        }
        import.wait()?;
        // What was cut off is done again, and is whole then. containerd waits for some seconds before it
        // calls a service again that was gone.
        until(Duration::from_secs(30), "the import does not succeed", || {
            Ok(engine.ctr(import_of(&archive))?.code == 0)
        })?;
        let count = engine.shell(&name, &format!("count-{round}"), &["--rm"], "set -- /f*; echo $#")?;
        ensure!(count.trim() == "2000", "round {round}: {count} files");
    }
    until(Duration::from_secs(10), "the container does not go on", || Ok(ticks(&engine)? > before))?;
    task_ends(&engine, "lives")?;
    engine.ok(&["container", "rm", "lives"])?;
    engine.finish()
}

fn unpacked(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start(&place.join("e"), version)?;
    let layers: Vec<PathBuf> = [("plain", "cat"), ("gzip", "gzip -n"), ("zstd", "zstd -q")]
        .into_iter()
        .map(|(name, packer)| layer(place, name, &[file(name, name), file("last", name)], packer))
        .collect::<Result<_>>()?;
    let root = small_root(place)?;
    let mut all: Vec<&Path> = vec![&root];
    all.extend(layers.iter().map(PathBuf::as_path));
    let archive = place.join("all.oci");
    image(&archive, SMALL, &all)?;
    engine.import(&archive, NAME)?;
    let seen = engine.shell(SMALL, "one", &["--rm"], "cat /plain /gzip /zstd /last")?;
    ensure!(seen == "plaingzipzstdzstd", "{seen}");
    ensure!(engine.unpacked() == 4, "{}", engine.service_logged());
    engine.finish()
}

/// What `ctr` is told to import an image.
fn import_of(archive: &Path) -> [&OsStr; 5] {
    ["images".as_ref(), "import".as_ref(), "--snapshotter".as_ref(), NAME.as_ref(), archive.as_os_str()]
}

fn hostile(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start(&place.join("e"), version)?;
    for (number, (member, rule)) in
        [(file("../../escape", "x"), "`..` in a name"), (file("a//../../b", "x"), "`..` in a name")]
            .into_iter()
            .enumerate()
    {
        let archive = place.join(format!("hostile-{number}.oci"));
        let hostile = layer(place, &format!("hostile-{number}"), &[member], "gzip -n")?;
        // The second has no layer below it: the collector may still be at what the first one left when it was
        // refused.
        let below = small_root(place)?;
        let layers = [below.as_path(), hostile.as_path()];
        let layers = if number == 0 { &layers[..] } else { &layers[1..] };
        image(&archive, &format!("example.com/hostile:{number}"), layers)?;
        let output = engine.ctr(import_of(&archive))?;
        let said = &output.stderr;
        ensure!(output.code != 0 && said.contains(rule) && said.contains("apply-diff"), "{output}");
    }
    let left = engine.snapshots(&["ls"])?;
    ensure!(!left.contains("Active"), "{left}");
    engine.finish()
}

fn differences(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start(&place.join("e"), version)?;
    small(place, &engine)?;
    engine.shell(SMALL, "one", &[], "echo more >/more; rm /data/2; rm -r /tmp; mkdir /tmp")?;
    let diff = |packed: &str| -> Result<Vec<u8>> {
        let media_type = format!("application/vnd.oci.image.layer.v1.tar{packed}");
        let arguments = ["snapshots", "--snapshotter", NAME, "diff", "--media-type", &media_type, "one"];
        Ok(engine.ctr(arguments)?.expect(0)?.stdout)
    };
    let plain = diff("")?;
    for (packed, unpacker) in [("+gzip", "gzip -dc"), ("+zstd", "zstd -dc")] {
        let (first, second) = (diff(packed)?, diff(packed)?);
        ensure!(first == second, "{packed}: it is another one the second time");
        let (from, to) = (place.join("packed"), place.join("unpacked"));
        fs::write(&from, first)?;
        shell(&format!(r#"{unpacker} <"$1" >"$2""#), [from.as_path(), to.as_path()])?;
        ensure!(fs::read(&to)? == plain, "{packed}: it is not the plain one, packed");
    }
    let at = place.join("plain");
    fs::write(&at, plain)?;
    let listed = String::from_utf8(shell(r#"tar -tf "$1""#, [at.as_path()])?)?;
    ensure!(listed.contains("data/.wh.2") && listed.contains("more"), "{listed}");
    ensure!(engine.service_logged().contains("operation=compare"), "the service did not do it");
    engine.ok(&["container", "rm", "one"])?;
    engine.finish()
}

/// How often each unpacks at the least, and at the most.
const ROUNDS: [usize; 2] = [3, 12];
/// The most that the service may take of the time of containerd's own.
const SHARE: f64 = 0.7;

fn speed(place: &Place, version: Version) -> Result<()> {
    let engine = Containerd::start_with(&place.join("e"), version, Differ::Both)?;
    let packed = place.join("root.tar.gz");
    shell(r#"gzip -n <"$1" >"$2""#, [fixture()?.as_path(), packed.as_path()])?;
    let archive = place.join("root.oci");
    let name = "example.com/root:1";
    image(&archive, name, &[&packed])?;
    engine.ok(&["images", "import", "--no-unpack", archive.to_str().context("no text")?])?;
    let listed = engine.ok(&["images", "ls", &format!("name=={name}")])?;
    let digest = listed.split_whitespace().find(|word| word.starts_with("sha256:"));
    let digest = digest.context("an image without a digest")?;
    let mut race = Race::new(["overlayfs", "layerbox"], SHARE);
    race.run(ROUNDS, |index| {
        let snapshotter = ["overlayfs", NAME][index];
        shell(r#"sync -f "$1""#, [place.path()])?;
        let started = Instant::now();
        engine.ok(&["snapshots", "unpack", "--snapshotter", snapshotter, digest])?;
        let taken = started.elapsed();
        until(Duration::from_secs(20), "the snapshot is left", || {
            let listed = engine.ok(&["snapshots", "--snapshotter", snapshotter, "ls"])?;
            match listed.split_whitespace().find(|word| word.starts_with("sha256:")) {
                // The collector may be faster, or at it.
                Some(key) => {
                    engine.ctr(["snapshots", "--snapshotter", snapshotter, "rm", key]).map(|_| false)
                }
                None => Ok(true),
            }
        })?;
        // It is taken away by the collector, for which this waits; what it has not taken yet would be found
        // again instead of unpacked.
        engine.ok(&["images", "tag", "--force", name, "other"])?;
        engine.ok(&["images", "rm", "--sync", "other"])?;
        until(Duration::from_secs(20), "a layer is left", || {
            let names = |directory: &str| layerbox_tests::tree::names(&engine.store().join(directory));
            Ok(names("diff").unwrap_or_default().is_empty() && names("trash").unwrap_or_default().is_empty())
        })?;
        Ok(taken)
    })?;
    let times = engine.unpacked();
    ensure!(times == race.count(), "the service has unpacked {times} times");
    println!("         {race}");
    race.require()?;
    engine.finish()
}
