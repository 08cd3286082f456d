//! A store, driven through the command line.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

pub use layerbox_catalogue::Dialect;

use crate::archive::{Member, file, tar};
use crate::tree::{Tree, names, picture};
use anyhow::{Context as _, Result, bail, ensure};

use crate::command::{Output, binary, run, run_with};
use crate::service::eventually;

/// Where a store keeps what a reboot must clear; none where there is no store.
pub fn runtime(root: &Path) -> Option<PathBuf> {
    let format: serde_json::Value =
        serde_json::from_slice(&fs::read(root.join("layerbox.json")).ok()?).ok()?;
    let (found, identity) = (fs::metadata(root).ok()?, format["id"].as_str()?);
    let (major, minor) = (nix::sys::stat::major(found.dev()), nix::sys::stat::minor(found.dev()));
    Some(Path::new("/run/layerbox").join(format!("{identity}.{major}-{minor}.{}", found.ino())))
}

/// A store in a directory.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    dialect: Dialect,
    /// Whether calls name its backend.
    named: bool,
}

impl Store {
    /// A store that does not exist yet: the first layer makes it.
    pub fn new(root: PathBuf, dialect: Dialect) -> Store {
        Store { root, dialect, named: true }
    }

    /// The same, without a word about its backend in calls: one that is rewritten for the other.
    #[must_use]
    pub fn of_any_backend(self) -> Store {
        Store { named: false, ..self }
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// How it writes deletions down.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The content of a layer, as it lies on disk.
    pub fn content(&self, id: &str) -> PathBuf {
        self.root.join("diff").join(id)
    }

    /// A call of the binary on this store, not yet made.
    pub fn command<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = bare();
        command.arg("--root").arg(&self.root);
        if self.named {
            command.args(["--backend", self.dialect.name()]);
        }
        command.args(arguments);
        command
    }

    /// Calls the binary.
    ///
    /// # Errors
    ///
    /// It does not start, or hangs.
    pub fn run<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<Output> {
        run(&mut self.command(arguments), b"")
    }

    /// Calls the binary, which must succeed, and gives what it prints.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn ok<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Result<String> {
        Ok(self.run(arguments)?.expect(0)?.text())
    }

    /// Makes a layer.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn create(&self, id: &str, parent: Option<&str>) -> Result<()> {
        match parent {
            Some(parent) => self.ok(["create", id, "--parent", parent])?,
            None => self.ok(["create", id])?,
        };
        Ok(())
    }

    /// Fills a layer from an archive on standard input, whatever comes of it.
    ///
    /// # Errors
    ///
    /// The binary does not start, or hangs.
    pub fn apply(&self, id: &str, archive: &[u8]) -> Result<Output> {
        run(&mut self.command(["apply-diff", id]), archive)
    }

    /// As [`Store::apply`], with a function that writes the archive.
    ///
    /// # Errors
    ///
    /// As [`Store::apply`].
    pub fn apply_with(&self, id: &str, feed: impl FnOnce(std::process::ChildStdin) + Send) -> Result<Output> {
        run_with(&mut self.command(["apply-diff", id]), feed)
    }

    /// Makes a layer of these members.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn layer(&self, id: &str, parent: Option<&str>, members: &[Member]) -> Result<()> {
        self.create(id, parent)?;
        self.apply(id, &tar(members))?.expect(0)?;
        Ok(())
    }

    /// The archive of a layer.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn diff(&self, id: &str) -> Result<Vec<u8>> {
        Ok(self.run(["diff", id])?.expect(0)?.stdout)
    }

    /// The lines that `changes` prints.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn changes(&self, id: &str) -> Result<Vec<String>> {
        Ok(self.ok(["changes", id])?.lines().map(str::to_owned).collect())
    }

    /// Mounts a layer and gives the path.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn get(&self, id: &str) -> Result<PathBuf> {
        Ok(PathBuf::from(self.ok(["get", id])?.trim_end_matches('\n')))
    }

    /// Gives it back.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn put(&self, id: &str) -> Result<()> {
        self.ok(["put", id]).map(drop)
    }

    /// The picture of the merged tree of a layer, mounted for as long as that takes.
    ///
    /// # Errors
    ///
    /// It cannot be mounted or read.
    pub fn merged(&self, id: &str) -> Result<Tree> {
        let path = self.get(id)?;
        let tree = picture(&path);
        self.put(id)?;
        tree
    }

    /// How many hold a layer.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn references(&self, id: &str) -> Result<u64> {
        let metadata: serde_json::Value = serde_json::from_str(&self.ok(["--json", "metadata", id])?)?;
        match metadata["references"].as_u64() {
            Some(count) => Ok(count),
            None => bail!("metadata has no references: {metadata}"),
        }
    }

    /// Holds the layer to exist and to be empty, and so fit to be filled.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn is_empty_and_reusable(&self, id: &str) -> Result<()> {
        let left = names(&self.content(id))?;
        ensure!(left.is_empty(), "layer {id} is not empty: {left:?}");
        let staged = names(&self.root.join("stage")).unwrap_or_default();
        ensure!(staged.is_empty(), "something is left in stage/: {staged:?}");
        self.apply(id, &tar(&[crate::archive::file("reused", "yes")]))?.expect(0)?;
        ensure!(
            fs::read(self.content(id).join("reused"))? == b"yes",
            "layer {id} was not filled by the second archive"
        );
        Ok(())
    }

    /// Holds the store to know nothing of an id, in any of its directories.
    ///
    /// # Errors
    ///
    /// It does.
    pub fn knows_nothing_of(&self, id: &str) -> Result<()> {
        self.run(["exists", id])?.expect(3)?;
        for directory in ["layers", "diff", "mnt", "work", "meta", "pending", "stage"] {
            let path = self.root.join(directory);
            if path.exists() {
                let found = names(&path)?;
                ensure!(!found.iter().any(|name| name.starts_with(id)), "{directory}/ holds {found:?}");
            }
        }
        Ok(())
    }
}

/// The binary without what the environment of the run says about stores.
pub fn bare() -> Command {
    let mut command = Command::new(binary());
    for variable in [
        "LAYERBOX_BACKEND",
        "LAYERBOX_CONFIG",
        "LAYERBOX_DEVICES",
        "LAYERBOX_GUEST",
        "LAYERBOX_GUEST_SHA256",
        "LAYERBOX_GUEST_TIME",
        "LAYERBOX_ROOT",
        "LAYERBOX_SOCKET",
        "NO_COLOR",
    ] {
        command.env_remove(variable);
    }
    // A run leaves nothing in the machine's own cache, and takes nothing from it.
    command.env("LAYERBOX_CACHE", "false");
    // A group of its own: what a case kills is this and nothing else.
    command.process_group(0);
    command
}

/// An archive that is being applied to a layer, and has not come in whole.
#[derive(Debug)]
pub struct Filling {
    process: Child,
    rest: Vec<u8>,
}

impl Filling {
    /// Begins, and comes back when the layer has its stage.
    ///
    /// # Errors
    ///
    /// The binary does not start, or does not stage the layer.
    pub fn begin(store: &Store, id: &str) -> Result<Filling> {
        let mut archive = tar(&[file("file", vec![1; 1 << 20])]);
        // More than a pipe takes: so somebody reads it.
        let rest = archive.split_off(1 << 19);
        let mut process =
            store.command(["apply-diff", id]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        process.stdin.as_mut().context("no standard input")?.write_all(&archive)?;
        let stage = store.root().join("stage").join(id);
        eventually("it is staged", || Ok(stage.is_dir()))?;
        Ok(Filling { process, rest })
    }

    /// Gives the rest, and waits until it is applied.
    ///
    /// # Errors
    ///
    /// The binary fails.
    pub fn end(mut self) -> Result<()> {
        self.process.stdin.take().context("no standard input")?.write_all(&self.rest)?;
        ensure!(self.process.wait()?.success(), "it was not applied");
        Ok(())
    }
}
