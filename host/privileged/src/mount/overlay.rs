//! overlayfs (Documentation/filesystems/overlayfs.rst in the kernel's source).
//!
//! Layers are told to the kernel one by one through the mount API of Linux 5.2 where its overlayfs knows
//! `lowerdir+` (Linux 6.7), else in the one page of options that mount(2) takes, with names so short that 500
//! fit.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::{Failure, at, bytes, mismatch, read_back};

/// Options that make a union mean what its directories show, whatever a layer's extended attributes say.
///
/// A layer must not reach into another by name: `redirect_dir=nofollow` (`off` still follows where the kernel
/// is built or told so) and `metacopy=off` refuse directories and files that claim to have their content
/// elsewhere. They also keep new such marks out of layers, which the archives could not carry: renaming a
/// lower directory is `EXDEV` as on aufs. `index=off` keeps `work/` free of state that outlives a union and
/// ties layers to inodes.
pub(super) const SAFE: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off")];

/// Longest value that `fsconfig(2)` takes, without its terminator.
const MAX_VALUE: usize = 255;

/// A union to mount.
#[derive(Debug)]
pub(super) struct Union<'a> {
    pub(super) upper: &'a Path,
    /// Nearest ancestor first.
    pub(super) lower: &'a [std::path::PathBuf],
    pub(super) work: &'a Path,
    pub(super) target: &'a Path,
    pub(super) label: Option<&'a str>,
    /// Marks in `user.overlay.*`.
    pub(super) user: bool,
}

/// Whether overlayfs takes layers one by one. An overlayfs from before its move to the new API collects
/// options it does not know and refuses them at the end only, hence the first question.
pub(super) fn has_new_api(directory: &Path) -> bool {
    let asked = || -> rustix::io::Result<bool> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let collects = fsconfig_set_string(&fs, "layerbox-asks", "x").is_ok();
        // A path of its own kind would not fit: the answer is about `lowerdir+` only.
        let path = if bytes(directory).len() <= MAX_VALUE { directory } else { Path::new("/") };
        Ok(!collects && fsconfig_set_string(&fs, "lowerdir+", path).is_ok())
    };
    asked().unwrap_or(false)
}

impl Union<'_> {
    /// Whether every path fits in a value of `fsconfig(2)`, and holds no backslash, which some versions take
    /// for an escape and some do not.
    pub(super) fn fits_new_api(&self) -> bool {
        let paths = self.lower.iter().map(|path| path.as_path()).chain([self.upper, self.work]);
        paths.map(bytes).all(|path| path.len() <= MAX_VALUE && !path.contains(&b'\\'))
    }

    /// Mounts by the new API.
    pub(super) fn mount_new(&self) -> Result<(), Failure> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("fsopen"))?;
        let explained = |operation| {
            let fs = &fs;
            move |errno: rustix::io::Errno| {
                let failure = at(operation)(errno);
                Failure { detail: format!("{} {}", failure.detail, messages(fs)), ..failure }
            }
        };
        if let Some(label) = self.label {
            fsconfig_set_string(&fs, "context", label).map_err(explained("label the mount"))?;
        }
        self.configure(&fs).map_err(explained("fsconfig"))?;
        fsconfig_create(&fs).map_err(explained("mount"))?;
        let made =
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).map_err(at("fsmount"))?;
        move_mount(&made, "", CWD, self.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(at("move_mount"))?;
        self.check_new()
    }

    /// Compares paths, in order.
    pub(super) fn check_new(&self) -> Result<(), Failure> {
        let lower: Vec<&[u8]> = self.lower.iter().map(|path| bytes(path)).collect();
        self.check(&lower, bytes(self.upper), bytes(self.work))
    }

    fn configure(&self, fs: &OwnedFd) -> rustix::io::Result<()> {
        fsconfig_set_string(fs, "source", "overlay")?;
        for (name, value) in SAFE {
            fsconfig_set_string(fs, name, value)?;
        }
        if self.user {
            fsconfig_set_flag(fs, "userxattr")?;
        }
        for layer in self.lower {
            fsconfig_set_string(fs, "lowerdir+", layer.as_path())?;
        }
        fsconfig_set_string(fs, "upperdir", self.upper)?;
        fsconfig_set_string(fs, "workdir", self.work)
    }

    /// Mounts by mount(2). The layers are named relative to `links`, a directory made for this and removed
    /// after, whose symbolic links lead to them; a thread with a working directory of its own goes there.
    pub(super) fn mount_old(&self, links: &Path) -> Result<(), Failure> {
        self.link(links).map_err(at("link the layers"))?;
        let options = self.options();
        let call = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_FS)?;
            nix::unistd::chdir(links)?;
            mount(Some("overlay"), self.target, Some("overlay"), MsFlags::empty(), Some(options.as_str()))
        };
        let mounted = thread::scope(|scope| {
            let thread = thread::Builder::new().spawn_scoped(scope, call)?;
            thread
                .join()
                .map_err(|_| io::Error::other("the mounting thread panicked"))?
                .map_err(io::Error::from)
        });
        fs::remove_dir_all(links).map_err(at("remove the links to the layers"))?;
        mounted.map_err(at("mount"))?;
        self.check_old()
    }

    /// Compares the number of layers: the kernel shows the names that it was given.
    pub(super) fn check_old(&self) -> Result<(), Failure> {
        let lower = self.short_names();
        let lower: Vec<&[u8]> = lower.iter().map(|name| name.as_bytes()).collect();
        self.check(&lower, b"u", b"w")
    }

    fn short_names(&self) -> Vec<String> {
        (0..self.lower.len()).map(|number| number.to_string()).collect()
    }

    fn link(&self, links: &Path) -> io::Result<()> {
        match fs::remove_dir_all(links) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir_all(links)?,
        }
        symlink(self.upper, links.join("u"))?;
        symlink(self.work, links.join("w"))?;
        self.short_names()
            .iter()
            .zip(self.lower)
            .try_for_each(|(name, layer)| symlink(layer, links.join(name)))
    }

    fn options(&self) -> String {
        let mut options = format!("lowerdir={},upperdir=u,workdir=w", self.short_names().join(":"));
        for (name, value) in SAFE {
            options.push_str(&format!(",{name}={value}"));
        }
        if self.user {
            options.push_str(",userxattr");
        }
        if let Some(label) = self.label {
            options.push_str(&format!(",context=\"{label}\""));
        }
        options
    }

    /// Compares what is mounted with what was asked.
    fn check(&self, lower: &[&[u8]], upper: &[u8], work: &[u8]) -> Result<(), Failure> {
        let seen = read_back(self.target).map_err(at("read mountinfo"))?;
        let layers = match seen.option("lowerdir+") {
            single if single.is_empty() => seen
                .option("lowerdir")
                .iter()
                .flat_map(|all| all.split(|byte| *byte == b':').map(<[u8]>::to_vec))
                .collect(),
            single => single,
        };
        if seen.filesystem != b"overlay"
            || seen.option("upperdir") != [upper]
            || seen.option("workdir") != [work]
        {
            return Err(mismatch("the kernel shows another file system or writable layer".to_owned()));
        }
        if layers != lower {
            return Err(mismatch(format!(
                "the kernel shows {} lower layers of {}",
                layers.len(),
                lower.len()
            )));
        }
        Ok(())
    }
}

/// What the kernel has to say about the last calls, one message a read: `e overlay: Unknown parameter
/// 'context'`, of which the letter says how grave it is.
fn messages(fs: &OwnedFd) -> String {
    let mut said = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = rustix::io::read(fs, &mut buffer) {
        let text = String::from_utf8_lossy(buffer[..length].trim_ascii()).into_owned();
        let plain = ["e ", "w ", "i "].iter().find_map(|level| text.strip_prefix(level));
        said.push(plain.map_or(text.clone(), str::to_owned));
    }
    said.join("; ")
}
