//! Where settings come from, which component runs, and which files are trusted to say so.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::archive::{file, tar};

use crate::command::{Output, binary, component, copied, run, shell};
use crate::harness::{Case, Need, Skip, case, has_filesystem};
use crate::scratch::Place;
use crate::store::{Dialect, Store, bare, runtime};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("config: the usual file of root is read", usual_of_root).needs(Need::Tool("unshare")),
        case("config: the usual file of a user is read, and may be absent", usual_of_user)
            .needs(Need::Tool("chroot")),
        case("config: a file that is named and missing is an error", |place| {
            let missing = place.join("missing.toml");
            run(bare().arg("--config").arg(&missing).arg("list"), b"")?.expect(1)?.says("missing.toml")?;
            run(bare().env("LAYERBOX_CONFIG", &missing).arg("list"), b"")?.expect(1)?.says("missing.toml")?;
            Ok(())
        }),
        case(
            "config: root of a user's namespace is that user, with or without a session",
            root_of_a_namespace,
        )
        .needs(Need::Tool("unshare"))
        .needs(Need::Tool("chroot")),
        case("config: a store that cannot be made is named", |_| {
            let root = "/proc/no/such/place";
            run(bare().args(["--root", root, "create", "base"]), b"")?.expect(1)?.says(root)?;
            Ok(())
        }),
        case("config: what explains the program works with a broken file", |place| {
            let config = config(place, "nonsense")?;
            for arguments in [&["man"][..], &["completions", "bash"], &["help"], &["--version"]] {
                run(bare().env("LAYERBOX_CONFIG", &config).args(arguments), b"")?.expect(0)?;
            }
            Ok(())
        }),
        case("config: what explains the program needs no home and no sense in the variables", |place| {
            let copy = copied(place)?;
            for arguments in [["man"].as_slice(), &["completions", "bash"]] {
                let mut command = Command::new("chroot");
                command.args(["--userspec=65533:65533", "/", "env", "-i", "LAYERBOX_BACKEND=zfs"]);
                run(command.arg(&copy).args(arguments), b"")?.expect(0)?;
            }
            Ok(())
        })
        .needs(Need::Tool("chroot")),
        case("config: the limits of a call", limits),
        case("config: the backend of a new store", |place| {
            let root = place.join("s");
            let config = config(place, &format!("root = {root:?}\nbackend = \"aufs\""))?;
            run(bare().arg("--config").arg(&config).args(["create", "base"]), b"")?.expect(0)?;
            let format = fs::read_to_string(root.join("layerbox.json"))?;
            ensure!(format.contains("aufs"), "another backend: {format}");
            Ok(())
        }),
        case("config: the backend of new stores keeps nobody from an old one", usual_backend),
        case("config: an old store of Docker's that is refused is as it was", refused_and_untouched),
        case("config: a path that aufs cannot be told is no reason not to read", untold_path),
    ];
    cases.extend(broken_files());
    cases.extend(precedence());
    cases.extend(trust());
    cases
}

/// A configuration that root alone can write.
pub(super) fn config(place: &Place, text: &str) -> Result<PathBuf> {
    let path = place.join("config.toml");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
    Ok(path)
}

fn broken_files() -> impl Iterator<Item = Case> {
    [
        ("an unknown key", "root = \"/x\"\nrooot = \"/y\"", "line 2: unknown key `rooot`"),
        ("an unknown limit", "[limits]\nmemroy = 1", "line 2: unknown key `memroy`"),
        ("a section that does not exist", "[nothing]\na = 1", "line 1: unknown key `nothing`"),
        ("a relative path", "\n\nroot = \"x\"", "line 3: x does not begin with /"),
        ("no TOML", "root is /x", "line 1: "),
        (
            "a word that is none of the key's",
            "backend = \"zfs\"",
            "line 1: zfs is none of auto, aufs, overlay",
        ),
        ("half a digest", "guest-sha256 = \"abcd\"", "line 1: a digest is 64 hexadecimal digits"),
    ]
    .into_iter()
    .map(|(what, text, says)| {
        case(format!("config: {what} is an error that names the line"), move |place| {
            let path = config(place, text)?;
            let output = run(bare().arg("--config").arg(&path).arg("list"), b"")?.expect(2)?.says(says)?;
            ensure!(output.stderr.contains("config.toml"), "the file is not named: {output}");
            Ok(())
        })
    })
}

fn precedence() -> impl Iterator<Item = Case> {
    // What is said where, and the root that counts.
    [
        ("option over variable and file", &["option", "variable", "file"][..], "option"),
        ("option over file", &["option", "file"], "option"),
        ("variable over file", &["variable", "file"], "variable"),
        ("the file alone", &["file"], "file"),
    ]
    .into_iter()
    .map(|(what, said, counts)| {
        case(format!("config: {what}"), move |place| {
            let mut command = bare();
            for at in said {
                let root = place.join(at);
                match *at {
                    "option" => command.arg("--root").arg(root),
                    "variable" => command.env("LAYERBOX_ROOT", root),
                    _ => command.arg("--config").arg(config(place, &format!("root = {root:?}"))?),
                };
            }
            run(command.args(["create", "base"]), b"")?.expect(0)?;
            for at in ["option", "variable", "file"] {
                let made = place.join(at).exists();
                ensure!(made == (at == counts), "the root of the {at}: made: {made}");
            }
            Ok(())
        })
    })
}

fn limits(place: &Place) -> Result<()> {
    let root = place.join("s");
    let config = config(place, &format!("root = {root:?}\n[limits]\nentries = 1\nmemory = \"128 MiB\""))?;
    let layerbox = |arguments: &[&str]| -> Result<Output> {
        run(bare().arg("--config").arg(&config).args(arguments), &tar(&[file("a", "a"), file("b", "b")]))
    };
    layerbox(&["create", "base"])?.expect(0)?;
    layerbox(&["apply-diff", "base"])?.expect(6)?;
    layerbox(&["apply-diff", "base", "--max-entries", "2"])?.expect(0)?;
    let inspected: serde_json::Value =
        serde_json::from_str(&layerbox(&["--json", "guest", "inspect"])?.text())?;
    ensure!(inspected["memory_limit"] == 128 << 20, "{inspected}");
    Ok(())
}

/// A store of Docker's aufs driver, with one layer.
fn dockers(root: &Path) -> Result<()> {
    for directory in ["layers", "diff/old", "mnt/old"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("layers/old"), "")?;
    Ok(fs::write(root.join("diff/old/file"), "content")?)
}

fn usual_backend(place: &Place) -> Result<()> {
    let old = Store::new(place.join("old"), Dialect::Overlay);
    old.create("base", None)?;
    let config = config(place, "backend = \"aufs\"")?;
    let layerbox = |root: &Path, how: &str, arguments: &[&str]| {
        let mut command = bare();
        command.arg("--root").arg(root);
        match how {
            "variable" => command.env("LAYERBOX_BACKEND", "aufs"),
            "file" => command.arg("--config").arg(&config),
            _ => command.args(["--backend", "aufs"]),
        };
        run(command.args(arguments), b"")
    };
    for how in ["variable", "file"] {
        layerbox(old.root(), how, &["exists", "base"])?.expect(0)?;
        layerbox(old.root(), how, &["create", how])?.expect(0)?;
        let new = place.join(how);
        layerbox(&new, how, &["create", "base"])?.expect(0)?;
        let format = fs::read_to_string(new.join("layerbox.json"))?;
        ensure!(format.contains("aufs"), "{how}: another backend: {format}");
    }
    layerbox(old.root(), "option", &["exists", "base"])?.expect(4)?.says("is of backend overlay")?;
    Ok(())
}

fn refused_and_untouched(place: &Place) -> Result<()> {
    let root = place.join("docker");
    dockers(&root)?;
    let before = shell("find \"$1\" | sort", [root.as_path()])?;
    let layerbox = |arguments: &[&str]| {
        let mut command = bare();
        command.arg("--root").arg(&root).args(arguments);
        command
    };
    for arguments in [["--backend=overlay", "list"].as_slice(), &["--backend=overlay", "create", "new"]] {
        run(&mut layerbox(arguments), b"")?.expect(4)?.says("is of backend aufs")?;
        ensure!(
            shell("find \"$1\" | sort", [root.as_path()])? == before,
            "{arguments:?}: something was made"
        );
    }
    // What is only meant for new stores refuses nothing.
    let listed = run(layerbox(&["list"]).env("LAYERBOX_BACKEND", "overlay"), b"")?.expect(0)?.text();
    ensure!(listed.contains("old"), "{listed}");
    Ok(())
}

fn untold_path(place: &Place) -> Result<()> {
    let layerbox = |root: &Path, arguments: &[&str]| {
        run(bare().arg("--root").arg(root).args(["--backend", "aufs"]).args(arguments), b"")
    };
    let new = place.join("n:ew");
    layerbox(&new, &["create", "base"])?.expect(2)?.says("aufs cannot be told the path")?;
    ensure!(!new.exists(), "something was made");
    fs::create_dir(&new)?;
    layerbox(&new, &["create", "base"])?.expect(2)?;
    ensure!(fs::read_dir(&new)?.next().is_none(), "something was made");
    let old = place.join("o:ld");
    dockers(&old)?;
    for arguments in
        [["list"].as_slice(), &["diff", "old"], &["create", "top", "--parent", "old"], &["status"]]
    {
        layerbox(&old, arguments)?.expect(0)?;
    }
    let why = if has_filesystem("aufs") { "aufs cannot be told the path" } else { "this kernel has no aufs" };
    layerbox(&old, &["get", "top"])?.expect(1)?.says(why)?;
    layerbox(&old, &["remove", "top"])?.expect(0)?;
    Ok(())
}

fn usual_of_root(place: &Place) -> Result<()> {
    let root = place.join("s");
    let config = config(place, &format!("root = {root:?}"))?;
    let script = "mount -t tmpfs -o mode=755 none /etc; mkdir -m 755 /etc/layerbox; cp \"$1\" /etc/layerbox; exec \"$2\" list";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", script, "sh"]).arg(config).arg(binary());
    for variable in ["LAYERBOX_CONFIG", "LAYERBOX_ROOT"] {
        command.env_remove(variable);
    }
    run(&mut command, b"")?.expect(3)?.says(&root.display().to_string()).map(drop)
}

/// A user's processes in user namespaces, with the variable that a session has and without it as in a job of
/// cron: they work on one store, the user's own, and have its locks and counts in one place, which lies on a
/// /run of their own here.
fn root_of_a_namespace(place: &Place) -> Result<()> {
    const SCRIPT: &str = r#"
        mount -t tmpfs -o mode=755 none /run
        mount -t tmpfs -o mode=1777 none /dev/shm
        mkdir -p /run/user/65533 "$1/run"
        chown 65533 /run/user/65533 "$1" "$1/run"
        user() {
            chroot --userspec=65533:65533 / env -i PATH="$PATH" HOME="$home" LAYERBOX_CACHE=false "$@"
        }
        home=$1 layerbox=$2
        user unshare --map-root-user --mount true || exit 77
        user XDG_RUNTIME_DIR=/run/user/65533 unshare --map-root-user --mount "$layerbox" create base
        user unshare --map-root-user --mount "$layerbox" create child --parent base
        user XDG_RUNTIME_DIR="$home/run" unshare --map-root-user --mount "$layerbox" create other --parent base
        test -d "$home/.local/share/layerbox/diff/other"
        ls -A /run/user/65533/layerbox /dev/shm "$home/run"
    "#;
    let (copy, home) = (copied(place)?, place.make("home")?);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-euc", SCRIPT, "sh"]).arg(&home).arg(copy);
    let output = run(&mut command, b"")?;
    if output.code == 77 {
        return Err(Skip("users may not make user namespaces here".to_owned()).into());
    }
    let text = output.expect(0)?.text();
    let names: Vec<&str> = text.lines().filter(|line| !line.is_empty() && !line.ends_with(':')).collect();
    let runtime = runtime(&home.join(".local/share/layerbox")).context("no store")?;
    let is_it = |name: &&str| runtime.file_name().is_some_and(|expected| expected == *name);
    ensure!(names.len() == 1 && names.iter().all(is_it), "locks and counts lie elsewhere as well: {text}");
    Ok(())
}

fn usual_of_user(place: &Place) -> Result<()> {
    let copy = copied(place)?;
    let home = place.make("home")?;
    let layerbox = |config: &Path| -> Result<Output> {
        let mut command = Command::new("chroot");
        command.arg("--userspec=65533:65533").arg("/").arg(&copy).arg("list").env("HOME", &home);
        command.env("XDG_CONFIG_HOME", config).env_remove("LAYERBOX_CONFIG").env_remove("LAYERBOX_ROOT");
        run(&mut command, b"")
    };
    layerbox(&home.join("nowhere"))?.expect(3)?;
    let config = place.make("home/config/layerbox")?.join("config.toml");
    fs::write(&config, "root = \"/named/by/the/file\"")?;
    chown(&config, Some(65533), Some(65533))?;
    // A group of its own may write what is the user's; another may not.
    fs::set_permissions(&config, fs::Permissions::from_mode(0o664))?;
    layerbox(&home.join("config"))?.expect(3)?.says("/named/by/the/file")?;
    chown(&config, Some(65533), Some(100))?;
    fs::set_permissions(&config, fs::Permissions::from_mode(0o664))?;
    layerbox(&home.join("config"))?.expect(5)?.says("group 100 can write it")?;
    Ok(())
}

/// What is done to `d/`, in which `d/f` is the file, and which path is used then.
type Change = fn(&Path) -> Result<&'static str>;

fn mode(path: PathBuf, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

fn trust() -> Vec<Case> {
    const STRANGER: Option<u32> = Some(65533);
    let rows: [(&str, Option<&str>, Change); 14] = [
        ("in /tmp, which is sticky", None, |place| mode(place.join("d"), 0o1777).map(|()| "d/f")),
        ("that root's group can write", None, |place| mode(place.join("d/f"), 0o664).map(|()| "d/f")),
        ("behind a link of root's", None, |place| {
            symlink("d/../d/f", place.join("link"))?;
            Ok("link")
        }),
        ("that everybody can write", Some("everybody can write it (mode 0666)"), |place| {
            mode(place.join("d/f"), 0o666).map(|()| "d/f")
        }),
        ("that another group can write", Some("group 65533 can write it (mode 0664)"), |place| {
            chown(place.join("d/f"), None, STRANGER)?;
            mode(place.join("d/f"), 0o664).map(|()| "d/f")
        }),
        ("that belongs to another user", Some("belongs to user 65533"), |place| {
            chown(place.join("d/f"), STRANGER, None)?;
            Ok("d/f")
        }),
        ("of another user in a sticky directory", Some("belongs to user 65533"), |place| {
            chown(place.join("d/f"), STRANGER, None)?;
            mode(place.join("d"), 0o1777).map(|()| "d/f")
        }),
        (
            "in a directory that everybody can write",
            Some("/d: everybody can write it (mode 0777)"),
            |place| mode(place.join("d"), 0o777).map(|()| "d/f"),
        ),
        ("in a directory that another group can write", Some("/d: group 65533"), |place| {
            chown(place.join("d"), None, STRANGER)?;
            mode(place.join("d"), 0o775).map(|()| "d/f")
        }),
        ("in a directory of another user", Some("/d: belongs to user 65533"), |place| {
            chown(place.join("d"), STRANGER, None)?;
            Ok("d/f")
        }),
        ("below a directory that everybody can write", Some("/d: everybody can write it"), |place| {
            fs::create_dir(place.join("d/e"))?;
            mode(place.join("d/e"), 0o755)?;
            fs::rename(place.join("d/f"), place.join("d/e/f"))?;
            mode(place.join("d"), 0o777).map(|()| "d/e/f")
        }),
        ("behind a link into such a directory", Some("/d: everybody can write it"), |place| {
            symlink("d/f", place.join("link"))?;
            mode(place.join("d"), 0o777).map(|()| "link")
        }),
        ("behind a link of another user", Some("/link: belongs to user 65533"), |place| {
            symlink("d/f", place.join("link"))?;
            lchown(place.join("link"), STRANGER, STRANGER)?;
            Ok("link")
        }),
        ("that is a FIFO", Some("not a regular file"), |place| {
            fs::remove_file(place.join("d/f"))?;
            shell("mkfifo -m 644 \"$1\"", [place.join("d/f").as_path()])?;
            Ok("d/f")
        }),
    ];
    let mut cases = Vec::new();
    for (what, refused, change) in rows {
        for option in ["--config", "--guest"] {
            let verb = if refused.is_some() { "refused" } else { "accepted" };
            cases.push(case(format!("trust: a file of {option} {what} is {verb}"), move |place| {
                let store = Store::new(place.join("s"), Dialect::Overlay);
                store.create("base", None)?;
                mode(place.make("d")?, 0o755)?;
                let path = place.join("d/f");
                match option {
                    "--guest" => drop(fs::rename(component(place, "driver")?, &path)?),
                    _ => fs::write(&path, "devices = \"refuse\"")?,
                }
                mode(path, 0o644)?;
                let path = place.join(change(place.path())?);
                let mut command = store.command(["exists", "base"]);
                let output = run(command.arg(option).arg(path), b"")?;
                match refused {
                    None => output.expect(0)?,
                    Some(why) => output.expect(5)?.says(why)?.says("not trusted: ")?.says("hint: ")?,
                };
                Ok(())
            }));
        }
    }
    cases
}
