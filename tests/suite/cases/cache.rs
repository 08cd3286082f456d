//! Compiled code is kept, and what others could have changed of it never runs.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use layerbox_tests::tree::names;

use crate::command::{Output, component, run};
use crate::harness::{Case, case};
use crate::scratch::Place;
use crate::store::{Dialect, Store};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("cache: a component is compiled once, and its code is kept for us alone", |place| {
            let setting = Setting::new(place)?;
            setting.call()?.expect(0)?.says("compiled code kept in ")?;
            let (directory, entry) = (fs::metadata(&setting.cache)?, fs::metadata(setting.entry()?)?);
            ensure!(directory.mode() & 0o7777 == 0o700, "the directory has mode {:o}", directory.mode());
            ensure!(entry.mode() & 0o7777 == 0o600, "the file has mode {:o}", entry.mode());
            setting.call()?.expect(0)?.says("compiled code from ")?;
            let after = fs::metadata(setting.entry()?)?;
            ensure!(entry.ino() == after.ino(), "it was written again");
            Ok(())
        }),
        case("cache: false keeps nothing, by variable and file", |place| {
            let mut setting = Setting::new(place)?;
            let config = place.join("config.toml");
            fs::write(&config, format!("cache = {:?}", setting.cache))?;
            setting.arguments = vec!["--config".into(), config.clone()];
            setting.variable = Some("false".into());
            setting.call()?.expect(0)?;
            ensure!(!setting.cache.exists(), "the file counted, and not the variable");
            setting.variable = None;
            setting.call()?.expect(0)?.says("compiled code kept in ")?;
            fs::remove_dir_all(&setting.cache)?;
            fs::write(&config, "cache = false")?;
            setting.call()?.expect(0)?;
            ensure!(!setting.cache.exists(), "something was kept");
            Ok(())
        }),
        case("cache: where nothing can be kept the call works", |place| {
            let mut setting = Setting::new(place)?;
            for path in ["/proc/layerbox", "/dev/null", "/dev/null/x"] {
                setting.variable = Some(path.into());
                setting.call()?.expect(0)?.says("compiled code ")?;
            }
            Ok(())
        }),
        case("cache: what is refused is not kept", |place| {
            let setting = Setting::new(place)?;
            fs::write(&setting.guest, b"\0asm\x0d\0\x01\0")?;
            setting.call()?.expect(5)?;
            ensure!(names(&setting.cache)?.is_empty(), "it was kept");
            Ok(())
        }),
        case("cache: at most 16 are kept, the newest, and nothing else is touched", bound),
        case("cache: a directory that others can write is neither read nor written", |place| {
            let setting = Setting::new(place)?;
            setting.call()?.expect(0)?;
            let entry = setting.entry()?;
            let before = fs::metadata(&entry)?;
            fs::set_permissions(&setting.cache, fs::Permissions::from_mode(0o777))?;
            setting.call()?.expect(0)?.says("warning: ")?.says("neither used nor kept: not trusted")?;
            let after = fs::metadata(&entry)?;
            ensure!((before.ino(), before.mtime()) == (after.ino(), after.mtime()), "it was written");
            ensure!(before.atime_nsec() == after.atime_nsec(), "it was read");
            Ok(())
        }),
        case("cache: a directory of another user is neither read nor written", |place| {
            let setting = Setting::new(place)?;
            setting.call()?.expect(0)?;
            chown(&setting.cache, Some(65533), None)?;
            setting.call()?.expect(0)?.says("warning: ")?.says("neither used nor kept: not trusted")?;
            Ok(())
        }),
        case("cache: a link to a directory that others can write is not followed", |place| {
            let mut setting = Setting::new(place)?;
            let open = place.make("open")?;
            fs::set_permissions(&open, fs::Permissions::from_mode(0o777))?;
            let link = place.join("link");
            symlink(&open, &link)?;
            setting.variable = Some(link);
            setting.call()?.expect(0)?.says("neither used nor kept: not trusted")?;
            ensure!(names(&open)?.is_empty(), "something was kept");
            Ok(())
        }),
    ];
    let rows: [(&str, Poison); 8] = [
        ("is cut short", |entry, _| Ok(fs::File::options().write(true).open(entry)?.set_len(500_000)?)),
        ("is empty", |entry, _| Ok(fs::File::options().write(true).open(entry)?.set_len(0)?)),
        ("has one bit flipped in its code", |entry, _| flip(entry, 700_000)),
        ("has one bit flipped in its digest", |entry, _| flip(entry, 25)),
        ("everybody can write", |entry, _| {
            Ok(fs::set_permissions(entry, fs::Permissions::from_mode(0o666))?)
        }),
        ("belongs to another user", |entry, _| Ok(chown(entry, Some(65533), None)?)),
        ("is a link", |entry, place| {
            fs::rename(entry, place.join("elsewhere"))?;
            Ok(symlink(place.join("elsewhere"), entry)?)
        }),
        ("was made of another component", |entry, place| {
            // The same component with a section of no meaning has another digest, and other code by name.
            let inner = place.directory_for("other")?;
            let other = Setting::new(&inner)?;
            let mut bytes = fs::read(&other.guest)?;
            bytes.extend_from_slice(b"\0\x02\x01x");
            fs::write(&other.guest, bytes)?;
            other.call()?.expect(0)?;
            Ok(fs::rename(other.entry()?, entry)?)
        }),
    ];
    for (what, poison) in rows {
        cases.push(case(format!("cache: an entry that {what} is not used, and replaced"), move |place| {
            let setting = Setting::new(place)?;
            setting.call()?.expect(0)?;
            let entry = setting.entry()?;
            poison(&entry, place)?;
            setting.call()?.expect(0)?.says("warning: ")?.says("compiled code not used, made anew")?;
            let after = fs::symlink_metadata(&entry)?;
            ensure!(
                after.is_file() && after.uid() == 0 && after.mode() & 0o7777 == 0o600,
                "it was not replaced"
            );
            let output = setting.call()?.expect(0)?.says("compiled code from ")?;
            ensure!(!output.stderr.contains("warning"), "{output}");
            Ok(())
        }));
    }
    cases
}

/// What is done to an entry.
type Poison = fn(&Path, &Place) -> Result<()>;

fn flip(entry: &Path, at: usize) -> Result<()> {
    let mut bytes = fs::read(entry)?;
    bytes[at] ^= 1;
    // In place: mode and owner stay.
    Ok(fs::write(entry, bytes)?)
}

/// A store, a component from a file, and a cache.
struct Setting {
    store: Store,
    guest: PathBuf,
    cache: PathBuf,
    /// `LAYERBOX_CACHE`.
    variable: Option<PathBuf>,
    arguments: Vec<PathBuf>,
}

impl Setting {
    fn new(place: &Place) -> Result<Setting> {
        let store = Store::new(place.join("s"), Dialect::Overlay);
        store.create("base", None)?;
        // Two directories that are not there yet.
        let cache = place.join("var/cache");
        let variable = Some(cache.clone());
        Ok(Setting { store, guest: component(place, "driver")?, cache, variable, arguments: Vec::new() })
    }

    fn call(&self) -> Result<Output> {
        let mut command = self.store.command(["-v", "exists", "base"]);
        command.arg("--guest").arg(&self.guest).args(&self.arguments);
        match &self.variable {
            Some(value) => command.env("LAYERBOX_CACHE", value),
            None => command.env_remove("LAYERBOX_CACHE"),
        };
        run(&mut command, b"")
    }

    /// The only entry.
    fn entry(&self) -> Result<PathBuf> {
        let mut names = names(&self.cache)?;
        ensure!(names.len() == 1, "{names:?}");
        Ok(self.cache.join(names.pop().context("no entry")?))
    }
}

fn bound(place: &Place) -> Result<()> {
    let setting = Setting::new(place)?;
    fs::create_dir_all(&setting.cache)?;
    fs::set_permissions(&setting.cache, fs::Permissions::from_mode(0o700))?;
    let plant = |name: String, age: u64| -> Result<()> {
        let file = fs::File::create(setting.cache.join(name))?;
        Ok(file.set_modified(SystemTime::now() - Duration::from_secs(age))?)
    };
    for number in 0..20 {
        plant(format!("{number:02}.cwasm"), 1000 + number)?;
    }
    plant("killed.cwasm.1.new".to_owned(), 7200)?;
    plant("written.cwasm.2.new".to_owned(), 5)?;
    plant("notes.txt".to_owned(), 1_000_000)?;
    setting.call()?.expect(0)?;
    let left = names(&setting.cache)?;
    let planted: Vec<&String> = left.iter().filter(|name| name.len() == "00.cwasm".len()).collect();
    ensure!(planted.len() == 15 && planted.iter().all(|name| name.as_str() < "15.cwasm"), "{left:?}");
    let rest: Vec<&str> =
        left.iter().map(String::as_str).filter(|name| name.len() < 64 && name.len() != 8).collect();
    ensure!(rest == ["notes.txt", "written.cwasm.2.new"], "{left:?}");
    ensure!(left.len() == 18, "{left:?}");
    Ok(())
}
