//! Where cases work: an ext4 file system with a journal and extended attributes, in an image of its own, so
//! that what is measured and what is possible do not depend on what the machine's disk is like.
//!
//! The suite runs in a mount namespace of its own: when it ends, however it ends, the kernel takes away all
//! that was mounted in it.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::command::tool;

/// The size of the image. It is sparse: only what cases write takes room.
const IMAGE_SIZE: u64 = 24 << 30;

/// A directory for one case, or for the whole run. What is in it goes with it.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    owner: bool,
}

static NEXT: AtomicUsize = AtomicUsize::new(0);

impl Place {
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// A directory in it, made.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make(&self, name: impl AsRef<Path>) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(path)
    }

    /// A directory for a case, named after a number: the names of cases are long and would eat into the
    /// length of paths.
    pub fn directory_for(&self, _case: &str) -> Result<Place> {
        let path = self.path.join(format!("c{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Place { path, owner: true })
    }

    /// A directory that does not go with this one, for what several cases share.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn beside(&self) -> Result<Place> {
        let above = self.path.parent().context("no directory above")?;
        Place { path: above.to_owned(), owner: false }.directory_for("")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.owner {
            unmount_below(&self.path);
            // Cases mount the machine's own root in here. Nothing is deleted while anything is mounted, and
            // nothing beyond this file system.
            if mounts_below(&self.path).is_empty() {
                let _ = tool("rm", ["-rf".as_ref(), "--one-file-system".as_ref(), self.path.as_os_str()]);
            }
        }
    }
}

/// Unmounts what nobody uses. Another case that starts a program at this moment has all open files of this
/// process in the child for a while, those below the mount among them; so what is busy is tried again for
/// some seconds.
///
/// # Errors
///
/// It stays busy, or is no mount.
pub fn unmount(path: &Path) -> Result<()> {
    let started = Instant::now();
    loop {
        match umount2(path, MntFlags::empty()) {
            Err(Errno::EBUSY) if started.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            ended => return ended.with_context(|| format!("unmount {}", path.display())),
        }
    }
}

/// Unmounts all that is mounted below a directory, the last first.
pub fn unmount_below(path: &Path) {
    for mount_point in mounts_below(path).iter().rev() {
        let _ = umount2(mount_point.as_str(), MntFlags::MNT_DETACH);
    }
}

/// The mount points below a directory.
pub fn mounts_below(path: &Path) -> Vec<String> {
    let prefix = format!("{}/", path.display());
    mounts().into_iter().filter(|mount_point| mount_point.starts_with(&prefix)).collect()
}

/// The mount points of this namespace, in the order in which they were mounted (proc(5), mountinfo).
fn mounts() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect()
}

/// The place of the whole run, and what must go with it.
#[derive(Debug)]
pub struct Ground {
    place: Place,
    mounted: bool,
    _directory: tempfile::TempDir,
}

impl Ground {
    /// As root, mounts the image; else takes the temporary directory.
    ///
    /// # Errors
    ///
    /// The image cannot be made or mounted.
    pub fn new() -> Result<Ground> {
        let directory = tempfile::Builder::new().prefix("layerbox-tests.").tempdir()?;
        // Cases start the binary as other users, too.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        let root = nix::unistd::geteuid().is_root();
        let path = directory.path().join("fs");
        fs::create_dir(&path)?;
        if root {
            unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace")?;
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
                .context("make / private")?;
            // The reference counts of the stores of the cases must not outlive the run.
            cover(Path::new("/run/layerbox")).context("a tmpfs on /run/layerbox")?;
            // Nor does the configuration of the machine count for the cases.
            let configuration = Path::new("/etc/layerbox");
            if configuration.exists() {
                cover(configuration).context("a tmpfs on /etc/layerbox")?;
            }
            let file = directory.path().join("image");
            image(&file, IMAGE_SIZE, &path)?;
            // The loop device holds it; by name it would outlive a run that is killed.
            fs::remove_file(&file)?;
        }
        Ok(Ground { place: Place { path, owner: false }, mounted: root, _directory: directory })
    }

    /// The place that cases get their directories in.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// From now on a synced file does not wait for the machine's disk, only for the image's journal (ext4(5),
    /// `nobarrier`). For runs in which nothing depends on what a sync costs, and the power stays on.
    ///
    /// # Errors
    ///
    /// The image cannot be mounted so.
    pub fn skip_flushes(&self) -> Result<()> {
        if self.mounted {
            let none = None::<&str>;
            mount(none, &self.place.path, none, MsFlags::MS_REMOUNT, Some("nobarrier"))
                .context("nobarrier")?;
        }
        Ok(())
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.mounted {
            unmount_below(self.place.path());
            let _ = umount2(self.place.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// Mounts an empty file system over a directory, which is made if it is not there.
///
/// # Errors
///
/// Any of it fails.
pub fn cover(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))?;
    Ok(())
}

/// Makes a file of this size, an ext4 in it, and mounts it.
///
/// # Errors
///
/// Any of it fails.
pub fn image(file: &Path, size: u64, on: &Path) -> Result<()> {
    fs::File::create(file)?.set_len(size)?;
    tool(
        "mkfs.ext4",
        ["-q".as_ref(), "-F".as_ref(), "-O".as_ref(), "has_journal".as_ref(), file.as_os_str()],
    )?;
    fs::create_dir_all(on)?;
    tool("mount", ["-o".as_ref(), "loop".as_ref(), file.as_os_str(), on.as_os_str()])?;
    fs::set_permissions(on, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// Writes to a file until its file system has no room, down to the last block.
///
/// # Errors
///
/// The file cannot be opened.
pub fn fill(path: &Path) -> Result<()> {
    let mut filler = fs::File::options().append(true).create(true).open(path)?;
    for size in [1 << 20, 4096, 512] {
        while filler.write_all(&vec![3; size]).is_ok() {}
    }
    // What is allocated late must not be there for others meanwhile.
    let _ = filler.sync_all();
    while filler.write_all(&[3; 512]).is_ok() {}
    let _ = filler.sync_all();
    Ok(())
}
