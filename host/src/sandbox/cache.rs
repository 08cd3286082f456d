//! The cache of compiled code: what the compiler made of a component that is not built in.
//!
//! Loading compiled code is loading a shared library, so the cache is a directory of our own (mode 0700,
//! files 0600) and is read only where nobody but root and we could have written it or anything on the way to
//! it ([`crate::trust`]). An entry is named after the digest of the component, the release of the engine and
//! a digest of all its settings, those of the processor included; in it, a digest over that name and the code
//! comes first, so that one that was cut short, damaged or renamed is never loaded. Whatever is wrong with
//! the cache is told and done without: the component is compiled.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Stat};
use rustix::io::Errno;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::inspect;
use crate::digest::Digest;
use crate::error::Failure;
use crate::trust;

/// How many entries are kept; the oldest go first. One has some 2 MB.
const KEPT: usize = 16;

/// The largest entry that is read, in bytes.
const MAX_ENTRY: u64 = 1 << 30;

/// What an entry begins with, before the digest and the code.
const MAGIC: &[u8; 20] = b"layerbox compiled 1\n";

/// The end of the name of every entry; nothing else in the directory is touched.
const SUFFIX: &str = ".cwasm";

/// The end of the name of an entry that is being written.
const UNFINISHED: &str = ".new";

/// Where the machine code of a component came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// The build made it.
    BuiltIn,
    /// It was compiled now, and there is no cache.
    Compiled,
    /// It was compiled now, and is kept in this file; where `instead` says why, in the place of one that
    /// could not be used.
    Kept {
        /// The entry.
        file: PathBuf,
        /// What was wrong with the one before it.
        instead: Option<String>,
    },
    /// This file had it.
    Cached(PathBuf),
    /// It was compiled now, and could not be kept.
    NotKept {
        /// Why not.
        why: String,
        /// Whether that is more than a nuisance: somebody else could have written there, or what lay there
        /// was damaged.
        untrusted: bool,
    },
}

/// Why an entry was not used.
enum Trouble {
    /// There is no such entry yet.
    Absent,
    /// It is not to be used, and a good one may take its place.
    Entry(String),
}

/// A component from the cache, or compiled and put there.
pub(super) fn component(
    engine: &Engine,
    bytes: &[u8],
    cache: Option<&Path>,
) -> Result<(Component, Code), Failure> {
    let Some(path) = cache else {
        return Ok((inspect::parse(engine, bytes)?, Code::Compiled));
    };
    let cache = match Cache::open(path) {
        Ok(cache) => cache,
        Err(failure) => {
            let code = Code::NotKept { untrusted: is_untrusted(&failure), why: failure.to_string() };
            return Ok((inspect::parse(engine, bytes)?, code));
        }
    };
    let name = entry_name(engine, bytes);
    let instead = match cache.load(engine, &name) {
        Ok(component) => return Ok((component, Code::Cached(path.join(name)))),
        Err(Trouble::Absent) => None,
        Err(Trouble::Entry(why)) => Some(why),
    };
    inspect::sniff(bytes)?;
    let compiled = layerbox_aot::compile(engine, bytes).map_err(|error| inspect::no_component(&error))?;
    // In memory nobody changes it: what the compiler returned is what is loaded.
    let component = layerbox_aot::load(engine, &compiled)
        .map_err(|error| Failure::GuestFailed(format!("what the compiler made does not load: {error:#}")))?;
    // What is refused is compiled so rarely that keeping it only pushes others out.
    inspect::allow(engine, &component)?;
    let code = match cache.store(&name, &compiled) {
        Ok(()) => Code::Kept { file: path.join(name), instead },
        Err(failure) => {
            let untrusted = instead.is_some();
            Code::NotKept { why: instead.unwrap_or_else(|| failure.to_string()), untrusted }
        }
    };
    Ok((component, code))
}

/// `DIGEST-RELEASE-SETTINGS.cwasm`.
fn entry_name(engine: &Engine, bytes: &[u8]) -> String {
    let settings = Digest::of_value(&engine.precompile_compatibility_hash()).hex();
    // 128 bits tell settings apart well enough, and the name stays below 255 bytes; the engine checks them
    // once more.
    format!("{}-{}-{}{SUFFIX}", Digest::of(bytes).hex(), layerbox_aot::VERSION, &settings[..32])
}

fn is_untrusted(failure: &Failure) -> bool {
    matches!(failure, Failure::Untrusted { .. })
}

/// The directory, found to be our own.
struct Cache<'a> {
    fd: OwnedFd,
    path: &'a Path,
}

impl Cache<'_> {
    /// Opens it, and makes it where it is missing.
    fn open(path: &Path) -> Result<Cache<'_>, Failure> {
        let (fd, stat) = prepare(path)?;
        ours(path, &stat)?;
        Ok(Cache { fd, path })
    }

    fn load(&self, engine: &Engine, name: &str) -> Result<Component, Trouble> {
        let path = self.path.join(name);
        let entry =
            trust::read_at(self.fd.as_fd(), OsStr::new(name), &path, |stat| ours(&path, stat), MAX_ENTRY);
        let entry = match entry {
            Ok(entry) => entry,
            Err(failure) if is_missing(&failure) => return Err(Trouble::Absent),
            Err(failure) => return Err(Trouble::Entry(failure.to_string())),
        };
        let damaged = || Trouble::Entry(format!("{}: damaged", path.display()));
        let rest = entry.strip_prefix(MAGIC).ok_or_else(damaged)?;
        let (sum, compiled) = rest.split_first_chunk::<32>().ok_or_else(damaged)?;
        if Digest::of_parts(&[name.as_bytes(), compiled]).bytes() != sum {
            return Err(damaged());
        }
        layerbox_aot::load(engine, compiled)
            .map_err(|error| Trouble::Entry(format!("{}: {}", path.display(), error.root_cause())))
    }

    /// Writes an entry, which appears when it is whole. It is not synced: after a power cut its digest tells.
    fn store(&self, name: &str, compiled: &[u8]) -> Result<(), Failure> {
        let path = self.path.join(name);
        let temporary = format!("{name}.{}{UNFINISHED}", std::process::id());
        let write = || -> Result<(), Failure> {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let file = rustix::fs::openat(&self.fd, &temporary, flags, mode)
                .map_err(|errno| trust::io(&path, "make", errno))?;
            let mut file = File::from(file);
            let sum = Digest::of_parts(&[name.as_bytes(), compiled]);
            [&MAGIC[..], sum.bytes(), compiled]
                .iter()
                .try_for_each(|part| file.write_all(part))
                .map_err(|error| Failure::io("write", &error))?;
            rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)
                .map_err(|errno| trust::io(&path, "rename", errno))
        };
        let written = write();
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
        }
        // What is too much stays until the next time where it cannot be removed now.
        let _ = self.prune(name);
        written
    }

    /// Removes the oldest entries beyond [`KEPT`], never the one just written, and what a killed process did
    /// not finish.
    fn prune(&self, name: &str) -> Result<(), Errno> {
        const ABANDONED: i64 = 3600;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut entries = Vec::new();
        // The descriptor of the directory has no right to list it.
        let list = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = rustix::fs::openat(&self.fd, ".", list, Mode::empty())?;
        for entry in rustix::fs::Dir::new(list)? {
            let entry = entry?;
            let Ok(other) = entry.file_name().to_str() else { continue };
            let stat = rustix::fs::statat(&self.fd, other, AtFlags::SYMLINK_NOFOLLOW)?;
            if other.ends_with(SUFFIX) && other != name {
                entries.push((stat.st_mtime, stat.st_mtime_nsec, other.to_owned()));
            } else if other.ends_with(UNFINISHED) && stat.st_mtime.saturating_add(ABANDONED) < now {
                rustix::fs::unlinkat(&self.fd, other, AtFlags::empty())?;
            }
        }
        entries.sort();
        let excess = entries.len().saturating_sub(KEPT - 1);
        for (_, _, other) in &entries[..excess] {
            rustix::fs::unlinkat(&self.fd, other.as_str(), AtFlags::empty())?;
        }
        Ok(())
    }
}

/// Opens a directory by a trusted way, and makes what is missing of it for us alone.
fn prepare(path: &Path) -> Result<(OwnedFd, Stat), Failure> {
    let missing = match trust::directory(path) {
        Err(failure) if is_missing(&failure) => failure,
        answer => return answer,
    };
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(missing) };
    let (above, _) = prepare(parent)?;
    match rustix::fs::mkdirat(&above, name, Mode::RWXU) {
        // Another process of ours is as quick.
        Ok(()) | Err(Errno::EXIST) => trust::directory(path),
        Err(errno) => Err(trust::io(path, "make", errno)),
    }
}

/// Holds something to be ours alone to write.
fn ours(path: &Path, stat: &Stat) -> Result<(), Failure> {
    let user = nix::unistd::geteuid().as_raw();
    if stat.st_uid != user {
        return Err(trust::untrusted(
            path,
            &format!("belongs to user {}, and not to us ({user})", stat.st_uid),
        ));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(trust::untrusted(
            path,
            &format!("others can write it (mode {:04o})", stat.st_mode & 0o7777),
        ));
    }
    Ok(())
}

fn is_missing(failure: &Failure) -> bool {
    matches!(failure, Failure::Io { code, .. } if *code == Errno::NOENT.raw_os_error())
}
