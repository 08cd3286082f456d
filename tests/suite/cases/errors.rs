//! What goes wrong has its exit status, says what and where, and leaves nothing behind.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{dir, file, tar};
use layerbox_tests::tree::names;

use crate::command::{copied, run, shell, tool, utf8};
use crate::harness::{Case, Need, case};
use crate::scratch::{Place, image};
use crate::store::{Dialect, Store, bare};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("errors: an unknown parent: 3, and nothing was made", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            store.run(["create", "child", "--parent", "nobody"])?.expect(3)?.says("nobody")?;
            store.knows_nothing_of("child")?;
            store.knows_nothing_of("nobody")
        }),
        case("errors: an id that exists: 4, and it stays as it is", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            store.run(["create", "base"])?.expect(4)?.says("base")?;
            ensure!(fs::read(store.content("base").join("a"))? == b"a", "the layer has changed");
            Ok(())
        }),
        case(
            "errors: a layer is not made where something lies that is not its own: 4, and it stays",
            occupied,
        ),
        case("errors: commands on a layer that does not exist: 3", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            for command in ["diff", "changes", "diff-size", "get", "remove", "exists", "metadata"] {
                store.run([command, "nobody"])?.expect(3)?;
            }
            store.apply("nobody", &tar(&[file("a", "a")]))?.expect(3)?;
            Ok(())
        }),
        case("errors: usage: 2", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            for arguments in [
                &[][..],
                &["frobnicate"],
                &["create"],
                &["create", "a", "b"],
                &["--nonsense", "list"],
                &["list", "--backend", "zfs"],
            ] {
                run(bare().args(arguments), b"")?.expect(2)?;
            }
            store.run(["apply-diff"])?.expect(2)?;
            Ok(())
        }),
        case("errors: an archive that is cut off: 5, and the layer is empty and reusable", truncated),
        case("errors: an archive with content left over after its end is read to the end", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let mut archive = tar(&[file("a", "a")]);
            archive.extend_from_slice(&[0xAA; 1 << 20]);
            // A writer whose pipe is closed early would die of it; the reader has to take all.
            let output = store.apply_with("base", |mut stdin| {
                let written = std::io::Write::write_all(&mut stdin, &archive);
                assert!(written.is_ok(), "the pipe was closed before the end");
            });
            output?.expect(0).map(drop)
        }),
        case("errors: a full disk: 1, named, and the layer is empty and reusable", full_disk),
        case("errors: a layer that has content or is mounted is not filled: 4", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            store.apply("base", &tar(&[file("b", "b")]))?.expect(4)?;
            ensure!(names(&store.content("base"))? == ["a"], "the layer has changed");
            store.create("child", Some("base"))?;
            store.get("child")?;
            store.apply("child", &tar(&[file("b", "b")]))?.expect(4)?;
            store.put("child")?;
            store.apply("child", &tar(&[file("b", "b")]))?.expect(0).map(drop)
        })
        .needs(Need::Filesystem("overlay")),
        case(
            "errors: a store on a read-only file system is read, and gives back what it has mounted",
            read_only,
        )
        .needs(Need::Filesystem("overlay")),
        case("errors: a directory that becomes a store is closed to others", |place| {
            let store = Store::new(place.make("s")?, Dialect::Overlay);
            fs::create_dir(store.root().join("diff"))?;
            for path in [store.root(), &store.root().join("diff")] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
            }
            store.create("base", None)?;
            let mode = || anyhow::Ok(fs::metadata(store.root())?.permissions().mode() & 0o7777);
            ensure!(mode()? == 0o700, "{:o}", mode()?);
            // Later it is as whoever it belongs to has it.
            fs::set_permissions(store.root(), fs::Permissions::from_mode(0o711))?;
            store.ok(["list"])?;
            ensure!(mode()? == 0o711, "{:o}", mode()?);
            Ok(())
        }),
        case("errors: a store of somebody else's: 1, named, with a hint", not_mine)
            .needs(Need::Tool("setpriv")),
        case("errors: a label that the kernel does not know is told as it says it", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a", "a")])?;
            store.create("top", Some("base"))?;
            let got = store.run(["get", "top", "--label", "system_u:object_r:x:s0"])?;
            if got.code == 0 {
                return store.put("top");
            }
            let got = got.expect(1)?;
            ensure!(!got.stderr.contains('\\') && !got.stderr.contains("(e "), "{got}");
            Ok(())
        })
        .needs(Need::Filesystem("overlay")),
        case("errors: an error and its hint are one write", one_write),
        case("errors: the exact bytes of a root that is not UTF-8 are told", |place| {
            let root = place.join(std::ffi::OsStr::from_bytes(b"s\xff"));
            let hex: String = root.as_os_str().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            let store = Store::new(root, Dialect::Overlay);
            store.create("base", None)?;
            let json = |command: &[&str]| -> Result<serde_json::Value> {
                Ok(serde_json::from_str(&store.ok(command.iter().copied())?)?)
            };
            ensure!(json(&["--json", "status"])?["Root Dir_hex"] == hex, "status: {hex}");
            let directories = &json(&["--json", "metadata", "base"])?["directories"];
            for (key, kind) in [("content_hex", "diff"), ("mount_point_hex", "mnt"), ("work_hex", "work")] {
                let tail: String =
                    format!("/{kind}/base").bytes().map(|byte| format!("{byte:02x}")).collect();
                ensure!(directories[key] == format!("{hex}{tail}"), "{key}: {directories}");
            }
            let status = store.ok(["status"])?;
            ensure!(status.contains("/s\\xff\n") && !status.contains("_hex"), "{status}");
            Ok(())
        }),
        case("errors: what is wrong with a variable names the command and the layer", |place| {
            let mut command = bare();
            command.arg("--root").arg(place.join("s")).args(["--json", "create", "base"]);
            let output = run(command.env("LAYERBOX_BACKEND", "zfs"), b"")?.expect(2)?;
            let object: serde_json::Value = serde_json::from_str(output.stderr.trim())?;
            let error = object["error"].as_str().unwrap_or_default();
            ensure!(error.starts_with("create base: ") && object["layer"] == "base", "{output}");
            Ok(())
        }),
        case("errors: a directory for an archive: 1, named or as standard input", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let mut named = store.command(["apply-diff", "base", utf8(place.path())?]);
            run(&mut named, b"")?.expect(1)?.says("Is a directory")?;
            let mut redirected = store.command(["apply-diff", "base"]);
            let output = redirected.stdin(fs::File::open(place.path())?).output()?;
            let told = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(1) && told.contains("Is a directory"), "{told}");
            Ok(())
        }),
        case("errors: a path that no file can have is no damage of the store", |place| {
            let config = place.join("config.toml");
            fs::write(&config, "root = \"/tmp/a\\u0000b\"\n")?;
            let mut command = bare();
            command.arg("--config").arg(&config).args(["--json", "list"]);
            let output = run(&mut command, b"")?.expect(1)?;
            let object: serde_json::Value = serde_json::from_str(output.stderr.trim())?;
            ensure!(object["code"] == "io" && !output.stderr.contains("damaged"), "{output}");
            Ok(())
        }),
        case("errors: not root and no user namespace: 1, with a hint", not_root)
            .alone()
            .needs(Need::Tool("chroot")),
        case("errors: --json gives an object with error, code, layer and entry", json),
        case("errors: --json has no character that deceives a reader as it is", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.layer("base", None, &[file("a\u{202e}b\u{9b}", "a")])?;
            let refused = tar(&[file("../\u{202e}", "a")]);
            store.create("next", Some("base"))?;
            let text = store.ok(["--json", "changes", "base"])?;
            ensure!(text.is_ascii() && text.contains(r"a\u202eb\u009b"), "{text}");
            let output = run(&mut store.command(["--json", "apply-diff", "next"]), &refused)?.expect(5)?;
            ensure!(output.stderr.is_ascii(), "{}", output.stderr);
            Ok(())
        }),
        case("errors: text is one line, with the names of entries escaped", |place| {
            let store = Store::new(place.join("s"), Dialect::Overlay);
            store.create("base", None)?;
            let output = store.apply("base", &tar(&[file(&b"d\x1b[31m\n\xff/../x"[..], "x")]))?.expect(5)?;
            let lines: Vec<&str> = output.stderr.lines().filter(|line| !line.starts_with("hint: ")).collect();
            ensure!(lines.len() == 1 && lines[0].starts_with("layerbox: apply-diff base: "), "{output}");
            ensure!(
                !output.stderr.contains('\u{1b}') && output.stderr.contains("\\x1b"),
                "the name is not escaped: {output}"
            );
            Ok(())
        }),
        case("errors: wrong usage is one line with all that is wrong, and a hint", usage),
    ];
    let long = "x".repeat(129);
    let huge = "y".repeat(4096);
    for (title, id) in [
        ("../x", "../x"),
        ("empty", ""),
        ("a/b", "a/b"),
        ("a:b=rw", "a:b=rw"),
        ("a,upperdir=/", "a,upperdir=/"),
        ("with a newline", "a\nb"),
        ("x-removing", "x-removing"),
        ("of 129 bytes", &long),
        ("of 4 kB", &huge),
        (".hidden", ".hidden"),
        ("..", ".."),
        ("not ASCII", "caf\u{e9}"),
        ("with a space", "a b"),
        ("with a backslash", "a\\b"),
    ] {
        let id = id.to_owned();
        cases.push(case(format!("errors: the id {title}: 5, and nothing was made"), move |place| {
            bad_id(place, &id)
        }));
    }
    cases
}

fn occupied(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("a", "a")])?;
    for kind in ["diff", "work", "mnt"] {
        let own = store.root().join(kind).join(format!("of-{kind}"));
        fs::create_dir(&own)?;
        fs::write(own.join("file"), "precious")?;
    }
    fs::write(store.root().join("layers/of-layers"), "base\n")?;
    let record = fs::read(store.root().join("meta/base"))?;
    fs::remove_file(store.root().join("meta/base"))?;
    let before = shell("cd \"$1\" && find . -type f -exec sha256sum {} + | sort", [store.root()])?;
    for (id, at) in [
        ("of-diff", "diff/of-diff"),
        ("of-work", "work/of-work"),
        ("of-mnt", "mnt/of-mnt"),
        ("of-layers", "layers/of-layers"),
        ("base", "layers/base"),
    ] {
        store.run(["create", id])?.expect(4)?.says(at)?.says("hint: layerbox check --repair")?;
    }
    let after = shell("cd \"$1\" && find . -type f -exec sha256sum {} + | sort", [store.root()])?;
    ensure!(before == after, "what was there has changed");
    // The layer is as it was once its record is back; an empty mount point holds nobody up.
    fs::write(store.root().join("meta/base"), record)?;
    fs::create_dir(store.root().join("mnt/new"))?;
    store.create("new", Some("base"))
}

fn bad_id(place: &Place, id: &str) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let before = shell("find \"$1\" | sort", [place.path()])?;
    store.run(["create", id])?.expect(5)?;
    store.run(["create", "child", "--parent", id])?.expect(5)?;
    for command in ["diff", "changes", "get", "put", "remove", "metadata"] {
        store.run([command, id])?.expect(5)?;
    }
    store.apply(id, &tar(&[file("a", "a")]))?.expect(5)?;
    ensure!(shell("find \"$1\" | sort", [place.path()])? == before, "something was made");
    Ok(())
}

fn truncated(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    let archive = tar(&[dir("d/"), file("d/a", vec![1; 3000]), file("d/b", "b").xattr("user.x", "y")]);
    // In the first header, in a body, in its padding, at the start of an extended header and in it, in the
    // last header.
    for (number, length) in [
        100,
        512 + 512 + 1000,
        512 + 512 + 3001,
        512 + 512 + 3072 + 511,
        512 + 512 + 3072 + 520,
        512 + 512 + 3072 + 1024 + 300,
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("l{number}");
        store.create(&id, None)?;
        store.apply(&id, &archive[..length])?.expect(5)?;
        store.is_empty_and_reusable(&id)?;
    }
    Ok(())
}

fn full_disk(place: &Place) -> Result<()> {
    let on = place.join("small");
    image(&place.join("image"), 24 << 20, &on)?;
    let store = Store::new(on.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let mut body = vec![0; 40 << 20];
    crate::plant::Noise::new(1).fill(&mut body);
    store
        .apply("base", &tar(&[file("fits", "x"), file("large", body)]))?
        .expect(1)?
        .says("No space left on device")?
        .says("large")?;
    store.is_empty_and_reusable("base")?;
    // Many small files run out of inodes before they run out of blocks.
    store.create("inodes", None)?;
    let many: Vec<_> = (0..30_000).map(|number| file(format!("f{number}"), "")).collect();
    store.apply("inodes", &tar(&many))?.expect(1)?.says("No space left on device")?;
    store.is_empty_and_reusable("inodes")
}

fn read_only(place: &Place) -> Result<()> {
    let on = place.join("disk");
    image(&place.join("image"), 24 << 20, &on)?;
    let store = Store::new(on.join("s"), Dialect::Overlay);
    store.layer("base", None, &[file("a", "a")])?;
    store.layer("top", Some("base"), &[file("b", "b")])?;
    let archive = store.diff("top")?;
    store.get("top")?;
    tool("mount", ["-o", "remount,ro", utf8(&on)?].map(AsRef::as_ref))?;
    for command in [&["list"][..], &["status"], &["exists", "top"], &["metadata", "top"], &["changes", "top"]]
    {
        store.ok(command.iter().copied())?;
    }
    store.ok(["diff-size", "base"])?;
    ensure!(store.diff("top")? == archive, "another archive");
    ensure!(store.ok(["check"])?.is_empty(), "check finds something");
    let refused = |arguments: &[&str]| -> Result<()> {
        let output = store.run(arguments.iter().copied())?.expect(1)?;
        output.says("is on a read-only file system")?.says("hint: mount it writable").map(drop)
    };
    refused(&["create", "new"])?;
    refused(&["remove", "--force", "top"])?;
    ensure!(store.references("top")? == 1, "the refused removal has unmounted it");
    store.put("top")?;
    refused(&["get", "top"])?;
    store.ok(["cleanup"])?;
    tool("mount", ["-o", "remount,rw", utf8(&on)?].map(AsRef::as_ref))?;
    store.ok(["remove", "top", "base"])?;
    // One of Docker's that was never opened cannot be adopted there.
    let old = Store::new(on.join("old"), Dialect::Aufs);
    for kind in ["layers", "diff/a", "mnt/a"] {
        fs::create_dir_all(old.root().join(kind))?;
    }
    fs::write(old.root().join("layers/a"), "")?;
    tool("mount", ["-o", "remount,ro", utf8(&on)?].map(AsRef::as_ref))?;
    old.run(["list"])?.expect(1)?.says("is on a read-only file system")?.says("hint: ").map(drop)
}

fn not_mine(place: &Place) -> Result<()> {
    let root = place.make("s")?;
    let store = Store::new(root.clone(), Dialect::Overlay);
    store.create("base", None)?;
    let binary = copied(place)?;
    for mode in [0o755, 0o711] {
        fs::set_permissions(&root, fs::Permissions::from_mode(mode))?;
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--clear-groups"]).arg(&binary).arg("--root").arg(&root).arg("list");
        run(&mut command, b"")?.expect(1)?.says("no access to the store at ")?.says("hint: ")?;
    }
    Ok(())
}

/// A socket of datagrams keeps apart what is written in one call and in another.
fn one_write(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let (ours, theirs) = UnixDatagram::pair()?;
    let mut command = store.command(["create", "base"]);
    let status = command.stderr(std::os::fd::OwnedFd::from(theirs)).status()?;
    drop(command);
    ensure!(status.code() == Some(4), "{status}");
    let mut text = [0; 4096];
    let length = ours.recv(&mut text)?;
    let text = String::from_utf8_lossy(&text[..length]);
    ensure!(text.starts_with("layerbox: create base: ") && text.contains("\nhint: "), "{text}");
    Ok(())
}

/// A process whose root is not its namespace's may not make a user namespace (user_namespaces(7), EPERM), so
/// chroot takes them away without a setting of the whole machine.
fn not_root(place: &Place) -> Result<()> {
    let root = place.make("root")?;
    tool("mount", ["--rbind", "/", utf8(&root)?].map(AsRef::as_ref))?;
    let own = place.make("own")?;
    chown(&own, Some(65534), Some(65534))?;
    let binary = copied(place)?;
    let layerbox = |arguments: &[&str]| {
        let mut command = Command::new("chroot");
        command
            .arg("--userspec=65534:65534")
            .arg(&root)
            .arg(&binary)
            .arg("--root")
            .arg(own.join("s"))
            .args(arguments);
        run(&mut command, b"")
    };
    let mut last = layerbox(&["create", "base"])?;
    if last.code == 0 {
        layerbox(&["create", "child", "--parent", "base"])?.expect(0)?;
        last = layerbox(&["get", "child"])?;
    }
    last.expect(1)?.says("hint: ").map(drop)
}

fn json(place: &Place) -> Result<()> {
    let store = Store::new(place.join("s"), Dialect::Overlay);
    store.create("base", None)?;
    let object = |output: crate::command::Output| -> Result<serde_json::Value> {
        Ok(serde_json::from_str(output.stderr.trim())?)
    };
    let refused = object(
        run(&mut store.command(["--json", "apply-diff", "base"]), &tar(&[file("../up", "x")]))?.expect(5)?,
    )?;
    ensure!(refused["layer"] == "base" && refused["entry"] == "../up", "{refused}");
    let missing = object(store.run(["--json", "get", "nobody"])?.expect(3)?)?;
    ensure!(missing["layer"] == "nobody" && missing["entry"].is_null(), "{missing}");
    for value in [refused, missing] {
        ensure!(value["error"].is_string() && value["code"].is_string(), "{value}");
    }
    Ok(())
}

fn usage(_: &Place) -> Result<()> {
    for (arguments, says, hint) in [
        (["create"].as_slice(), "create: missing argument: ID", "see layerbox create --help"),
        (&["create", "a", "b"], "create a: unexpected argument: b", "see layerbox create --help"),
        (
            &["list", "--rooot", "/r"],
            "list: unexpected argument: --rooot",
            "a similar argument exists: --root",
        ),
        (&["creat", "a"], "no such command: creat", "a similar command exists: create"),
    ] {
        let output = run(bare().args(arguments), b"")?.expect(2)?;
        ensure!(output.stderr == format!("layerbox: {says}\nhint: {hint}\n"), "{output}");
        let output = run(bare().arg("--json").args(arguments), b"")?.expect(2)?;
        let object: serde_json::Value = serde_json::from_str(output.stderr.trim())?;
        ensure!(object["error"] == says && object["code"] == "usage" && object["hint"] == hint, "{object}");
    }
    Ok(())
}
