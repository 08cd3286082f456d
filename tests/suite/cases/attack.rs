//! A component that has gone entirely wrong: a million calls of its imports, in every call of the driver,
//! with arguments that lead out. Whatever it does, nothing outside the layer that the call is about is
//! changed or read.
//!
//! The component is `tests/guests/attack`. Beside what it is lent lie a directory `victim/`, in the store and
//! outside, a layer `foreign` with a secret in it, and a layer `held` that somebody has mounted.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use layerbox_tests::archive::{dir, file, symlink, tar};
use layerbox_tests::tree::{Except, Tree, picture, same};

use crate::command::{Output, component, run};
use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

/// What the component looks for, and what no output may hold. Its beginning is known to the component.
const SECRET: &[u8] = b"canary-7f3a9c52e1d84b06 of the victim";

/// How many calls of imports there must be in all.
const CALLS: u64 = 1_000_000;

/// As many rounds are tried at most: a bound on the calls of imports ends each earlier.
const ROUNDS: usize = 40;

pub(super) fn cases() -> Vec<Case> {
    vec![
        case(
            "attack: a million calls of imports by a component that has gone wrong change and read nothing outside (overlay)",
            |place| attack(place, Dialect::Overlay, CALLS),
        ),
        case(
            "attack: two hundred thousand calls of imports by a component that has gone wrong change and read nothing outside (aufs)",
            |place| attack(place, Dialect::Aufs, CALLS / 5),
        ),
    ]
}

fn attack(place: &Place, dialect: Dialect, calls: u64) -> Result<()> {
    let scene = Scene::new(place, dialect)?;
    let mut made = 0;
    for round in 0..ROUNDS {
        made += scene.round(&format!("t{round}"))?;
        if made >= calls {
            return Ok(());
        }
    }
    bail!("only {made} calls of imports were made in {ROUNDS} rounds")
}

/// What one call may change beside the layer that it is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entitled {
    Nothing,
    /// Its own record in `layers/`, or one that it makes there.
    Records,
    /// Every mount and count of the store.
    Mounts,
}

/// A store, and what lies around it.
struct Scene<'a> {
    place: &'a Place,
    store: Store,
    guest: PathBuf,
    mounts: bool,
    /// Directories and files that nobody may touch.
    watched: Vec<(PathBuf, Picture)>,
    /// The same for the records of layers.
    records: Vec<(PathBuf, Vec<u8>)>,
}

/// A tree with what pictures leave out: inode, number of names, time of the last change of anything.
type Picture = (Tree, Vec<(PathBuf, u64, u64, i64, i64)>);

impl<'a> Scene<'a> {
    fn new(place: &'a Place, dialect: Dialect) -> Result<Scene<'a>> {
        let guest = component(place, "attack")?;
        let store = Store::new(place.join("s"), dialect);
        let out = |name: &str, target: &str| symlink(name, target);
        store.layer(
            "parent",
            None,
            &[
                file("a", "p"),
                dir("d"),
                file("d/x", "x"),
                out("up", "../../../victim"),
                out("abs", "/etc"),
                out("self", "/proc/self/root"),
            ],
        )?;
        store.layer(
            "foreign",
            None,
            &[file("hello", SECRET), file("a", SECRET).xattr("user.a", SECRET), out("up", "../../victim")],
        )?;
        store.create("held", Some("foreign"))?;
        let mounts = crate::harness::has_filesystem(dialect.name());
        if mounts {
            store.get("held")?;
        }
        for directory in ["victim", "s/victim"] {
            let path = place.make(directory)?;
            fs::write(path.join("hello"), SECRET)?;
            fs::set_permissions(path.join("hello"), fs::Permissions::from_mode(0o600))?;
        }
        let mut watched: Vec<_> = ["parent", "foreign", "held"].iter().map(|id| store.content(id)).collect();
        watched.extend(["victim", "s/victim", "s/layerbox.json"].map(|path| place.join(path)));
        // The host's own records of the layers: of each layer one file in each of these.
        for id in ["parent", "foreign", "held"] {
            watched.push(store.root().join("meta").join(id));
        }
        let records = ["parent", "foreign", "held"]
            .into_iter()
            .map(|id| store.root().join("layers").join(id))
            .map(|path| Ok((path.clone(), fs::read(&path)?)))
            .collect::<Result<_>>()?;
        let watched =
            watched.into_iter().map(|path| Ok((path.clone(), look(&path)?))).collect::<Result<_>>()?;
        Ok(Scene { place, store, guest, mounts, watched, records })
    }

    /// Every call of the driver on one layer, and how many calls of imports came of it.
    fn round(&self, id: &str) -> Result<u64> {
        let new = format!("new-{id}");
        self.store.create(id, Some("parent"))?;
        let mut made = 0;
        let archive = tar(&[file("a", "b"), dir("c"), symlink("up", "../../../victim")]);
        let steps: [(&[&str], Entitled); 16] = [
            (&["exists", id], Entitled::Nothing),
            (&["apply-diff", id], Entitled::Nothing),
            (&["diff", id], Entitled::Nothing),
            (&["diff", id, "--parent", id], Entitled::Nothing),
            (&["changes", id], Entitled::Nothing),
            (&["diff-size", id], Entitled::Nothing),
            (&["metadata", id], Entitled::Nothing),
            (&["list"], Entitled::Nothing),
            (&["status"], Entitled::Nothing),
            (&["get", id], Entitled::Nothing),
            (&["diff", id], Entitled::Nothing),
            (&["put", id], Entitled::Nothing),
            (&["create", &new, "--parent", "parent"], Entitled::Records),
            (&["remove", id], Entitled::Records),
            (&["remove", &new, "--force"], Entitled::Records),
            (&["cleanup"], Entitled::Mounts),
        ];
        for (arguments, entitled) in steps {
            let mut command = self.store.command([&["-v"], arguments].concat());
            command.arg("--guest").arg(&self.guest);
            let output = run(&mut command, &archive)?;
            made += self
                .judge(&output, entitled)
                .with_context(|| format!("{} by the attacking component: {output}", arguments.join(" ")))?;
        }
        Ok(made)
    }

    /// Holds one call to have done no harm, and answers how many calls of imports it made.
    fn judge(&self, output: &Output, entitled: Entitled) -> Result<u64> {
        // 101 is a panic of the host, 128 and above a signal.
        ensure!(output.code < 100, "the host has not survived");
        for bytes in [&output.stdout, output.stderr.as_bytes()] {
            ensure!(!bytes.windows(SECRET.len()).any(|window| window == SECRET), "the secret has come out");
        }
        for (path, before) in &self.watched {
            unchanged(before, &look(path)?).with_context(|| path.display().to_string())?;
        }
        self.no_layer_holds_the_secret()?;
        for (path, before) in &self.records {
            let now = fs::read(path).with_context(|| path.display().to_string())?;
            ensure!(now == *before, "{}: another record", path.display());
        }
        if entitled == Entitled::Records {
            // What it made of its own record is told from the host's, and put right.
            self.store.run(["check", "--repair"])?;
        }
        self.store.run(["exists", "foreign"])?.expect(0)?;
        if self.mounts {
            if entitled == Entitled::Mounts {
                self.store.run(["cleanup"])?.expect(0)?;
                self.store.get("held")?;
            }
            ensure!(self.store.references("held")? == 1, "the count of another layer has changed");
            ensure!(self.place.join("s/mnt/held/hello").exists(), "another layer is mounted no more");
        }
        let said =
            output.stderr.lines().rev().find_map(|line| line.split_once("attack: ")).map(|(_, said)| said);
        let Some(said) = said else { return Ok(0) };
        ensure!(said.ends_with("saw 0"), "the component was told the secret: {said}");
        Ok(said.split(' ').find_map(|word| word.parse().ok()).unwrap_or_default())
    }

    fn no_layer_holds_the_secret(&self) -> Result<()> {
        for folder in ["diff", "stage", "layers", "work"] {
            for (path, found) in walk(&self.store.root().join(folder))? {
                let known = path.starts_with(self.store.root().join(folder).join("foreign"));
                if !known && found.is_file() && found.len() < 1 << 20 {
                    let bytes = fs::read(&path)?;
                    ensure!(
                        !bytes.windows(SECRET.len()).any(|window| window == SECRET),
                        "{} holds the secret",
                        path.display()
                    );
                }
            }
        }
        Ok(())
    }
}

fn look(path: &Path) -> Result<Picture> {
    let numbers = walk(path)?
        .into_iter()
        .map(|(path, it)| (path, it.ino(), it.nlink(), it.ctime(), it.ctime_nsec()))
        .collect();
    Ok((picture(path)?, numbers))
}

fn unchanged(before: &Picture, now: &Picture) -> Result<()> {
    same(&before.0, &now.0, Except::default())?;
    ensure!(before.1 == now.1, "written to: {:?}\nwas {:?}", now.1, before.1);
    Ok(())
}

/// All that lies at and below a path, nothing followed.
fn walk(path: &Path) -> Result<Vec<(PathBuf, fs::Metadata)>> {
    let mut found = Vec::new();
    let mut ahead = vec![path.to_owned()];
    while let Some(path) = ahead.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                ahead.push(entry?.path());
            }
        }
        found.push((path, metadata));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
