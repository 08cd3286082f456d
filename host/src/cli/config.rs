//! The configuration file: TOML, each key once, and none that we do not know.
//!
//! A key is given by the option of its name, by its environment variable, or here; the first one that says
//! something counts. The file decides what runs, so it is read by [`crate::trust`]. A section is a structure
//! of its own, in [`File`].

use std::ffi::OsString;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

use super::arguments::{Backend, Devices, values};
use super::{Stop, Usage};
use crate::digest::Digest;
use crate::driver::Limits;
use crate::error::Escaped;
use crate::trust;

/// Where the file of a whole machine is.
const SYSTEM_FILE: &str = "/etc/layerbox/config.toml";

/// The largest file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct File {
    pub(super) root: Option<Absolute>,
    pub(super) backend: Option<Word<Backend>>,
    pub(super) devices: Option<Word<Devices>>,
    pub(super) guest: Option<Absolute>,
    pub(super) guest_sha256: Option<Word<Digest>>,
    pub(super) cache: Option<Word<Cache>>,
    pub(super) limits: LimitsTable,
}

/// `[limits]`: what one call may use.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct LimitsTable {
    memory: Option<Word<Size>>,
    guest_time: Option<Word<Time>>,
    handles: Option<u32>,
    entries: Option<u64>,
    bytes: Option<Word<Size>>,
    expansion: Option<u64>,
    stall_time: Option<Word<Time>>,
    total_time: Option<Word<Time>>,
}

impl LimitsTable {
    /// These limits, and for the rest those that layerbox has.
    pub(super) fn limits(&self) -> Limits {
        let all = Limits::default();
        let size = |word: &Option<Word<Size>>| word.as_ref().map(|Word(Size(bytes))| *bytes);
        let time = |word: &Option<Word<Time>>| word.as_ref().map(|Word(Time(time))| *time);
        let mut limits = Limits {
            // More than an address space has is no limit.
            memory: size(&self.memory)
                .map_or(all.memory, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX)),
            handles: self.handles.map_or(all.handles, |count| usize::try_from(count).unwrap_or(usize::MAX)),
            entries: self.entries.unwrap_or(all.entries),
            bytes: size(&self.bytes).unwrap_or(all.bytes),
            expansion: self.expansion.unwrap_or(all.expansion),
            stall_time: time(&self.stall_time).or(all.stall_time),
            total_time: time(&self.total_time).or(all.total_time),
            ..all
        };
        if let Some(time) = time(&self.guest_time) {
            limits.set_guest_time(time);
        }
        limits
    }
}

/// Reads the file that `--config` or `LAYERBOX_CONFIG` names, or the usual one, which may be absent. Tells
/// which it was.
pub(super) fn read(named: Option<PathBuf>) -> Result<(File, Option<PathBuf>), Stop> {
    // Where there is no usual file, it does not matter what the directories there are like; one that we may
    // not even look for is not ours.
    let usual = || usual_file().filter(|path| path.symlink_metadata().is_ok());
    let Some(path) = named.or_else(usual) else { return Ok((File::default(), None)) };
    let bytes = trust::read(&path, MAX_FILE).map_err(|failure| failure.during("open", None))?;
    let file = parse(&bytes).map_err(|message| Usage {
        operation: None,
        layer: None,
        message: format!("{}: {message}", path.display()),
        hint: None,
    })?;
    Ok((file, Some(path)))
}

/// Whether this is root of the machine, or of a container, whose store, configuration and cache are the
/// system's. Root of a user namespace that a user has made is that user: what is root's there is somebody
/// else's.
pub(super) fn is_system() -> bool {
    if !nix::unistd::geteuid().is_root() {
        return false;
    }
    let initial = std::fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]));
    let owner = ["/var/lib", "/var", "/"].iter().find_map(|path| std::fs::metadata(path).ok());
    initial || owner.is_some_and(|found| found.uid() == 0)
}

fn usual_file() -> Option<PathBuf> {
    if is_system() {
        return Some(PathBuf::from(SYSTEM_FILE));
    }
    directory_of_user("XDG_CONFIG_HOME", ".config").map(|directory| directory.join("layerbox/config.toml"))
}

/// A directory of the XDG base directory specification; a relative path there is to be ignored.
pub(super) fn directory_of_user(variable: &str, below_home: &str) -> Option<PathBuf> {
    let named = environment(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    named.or_else(|| environment("HOME").map(|home| Path::new(&home).join(below_home)))
}

/// An environment variable that is set, and not to nothing.
pub(super) fn environment(variable: &str) -> Option<OsString> {
    std::env::var_os(variable).filter(|value| !value.is_empty())
}

/// An environment variable that holds a word. One that holds something else is an error: whoever sets it
/// wants something.
pub(super) fn word_of_environment<T>(variable: &str) -> Result<Option<T>, Usage>
where
    T: FromStr<Err = String>,
{
    let Some(value) = environment(variable) else { return Ok(None) };
    let text = value.to_str().ok_or_else(|| "it is no UTF-8".to_owned());
    text.and_then(str::parse).map(Some).map_err(|message| Usage {
        operation: None,
        layer: None,
        message: format!("{variable}: {message}"),
        hint: None,
    })
}

fn parse(bytes: &[u8]) -> Result<File, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is no UTF-8".to_owned())?;
    toml::from_str(text).map_err(|error| {
        let message = error.message().replace("unknown field", "unknown key").replace('\n', ", ");
        match error.span() {
            Some(span) => {
                let line = 1 + text.as_bytes().iter().take(span.start).filter(|&&byte| byte == b'\n').count();
                format!("line {line}: {message}")
            }
            None => message,
        }
    })
}

/// A path that means the same wherever the program is started.
#[derive(Debug)]
pub(super) struct Absolute(pub(super) PathBuf);

impl<'de> Deserialize<'de> for Absolute {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Absolute, D::Error> {
        let path = PathBuf::deserialize(deserializer)?;
        if path.is_absolute() {
            Ok(Absolute(path))
        } else {
            Err(D::Error::custom(format!(
                "{} does not begin with /",
                Escaped(path.as_os_str().as_encoded_bytes())
            )))
        }
    }
}

/// A value that is a string with a form of its own; where that makes sense it can also be written as a
/// number, or as true or false.
#[derive(Debug, Clone)]
pub(super) struct Word<T>(pub(super) T);

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Word<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Word<T>, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<T: FromStr<Err = String>> Visitor<'_> for Reader<T> {
            type Value = Word<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or true or false, as the key has it")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Word<T>, E> {
                text.parse().map(Word).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Word<T>, E> {
                let number = u64::try_from(number).map_err(|_| {
                    E::invalid_value(Unexpected::Signed(number), &"a number that is not negative")
                })?;
                self.visit_str(&number.to_string())
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Word<T>, E> {
                self.visit_str(if value { "true" } else { "false" })
            }
        }
        deserializer.deserialize_any(Reader(std::marker::PhantomData))
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Size, String> {
        values::bytes(text).map(Size)
    }
}

/// A stretch of time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Time(pub(super) Duration);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Time, String> {
        values::time(text).map(Time)
    }
}

/// `cache`: where compiled code is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cache {
    /// In the usual directory.
    Usual,
    /// Nowhere.
    Off,
    /// In this directory.
    In(PathBuf),
}

impl Cache {
    /// The directory, if there is one.
    pub(super) fn directory(self) -> Option<PathBuf> {
        match self {
            Cache::Off => None,
            Cache::In(path) => Some(path),
            Cache::Usual if is_system() => Some(PathBuf::from("/var/cache/layerbox")),
            Cache::Usual => directory_of_user("XDG_CACHE_HOME", ".cache").map(|home| home.join("layerbox")),
        }
    }
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Cache, String> {
        match text {
            "true" => Ok(Cache::Usual),
            "false" => Ok(Cache::Off),
            path if path.starts_with('/') => Ok(Cache::In(PathBuf::from(path))),
            _ => Err("cache is a directory whose path begins with /, or true or false".to_owned()),
        }
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Backend, String> {
        one_of(text)
    }
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(text: &str) -> Result<Devices, String> {
        one_of(text)
    }
}

/// A value that the option of the same name takes.
fn one_of<T: ValueEnum>(text: &str) -> Result<T, String> {
    T::from_str(text, false).map_err(|_| {
        let all: Vec<String> = T::value_variants()
            .iter()
            .filter_map(|value| Some(value.to_possible_value()?.get_name().to_owned()))
            .collect();
        format!("{} is none of {}", Escaped(text.as_bytes()), all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_configuration() {
        let cases = [
            ("rooot = \"/x\"", "line 1: unknown key `rooot`"),
            ("root = \"/x\"\n\nroot = \"/y\"", "line 3: "),
            ("root = \"/x\"\n[limits]\nmemroy = 5", "line 3: unknown key `memroy`"),
            ("root = \"x\"", "line 1: x does not begin with /"),
            ("backend = \"zfs\"", "line 1: zfs is none of auto, aufs, overlay"),
            ("\ndevices = true", "line 2: true is none of allow, refuse"),
            ("guest-sha256 = \"abc\"", "line 1: a digest is 64 hexadecimal digits"),
            ("cache = \"relative\"", "line 1: cache is a directory"),
            ("[limits]\nmemory = -1", "line 2: "),
            ("[limits]\nmemory = \"1 MB\"", "line 2: "),
            ("[limits]\nguest-time = 0", "line 2: "),
            ("[limits]\nhandles = \"many\"", "line 2: "),
            ("[limits\n", "line 1: "),
        ];
        for (text, expected) in cases {
            let message = parse(text.as_bytes()).unwrap_err();
            assert!(message.starts_with(expected) && !message.contains('\n'), "{text}: {message}");
        }
        assert!(parse(b"root = \"/\xff\"").is_err());
    }

    #[test]
    fn what_is_said_counts() {
        let text = "
            root = '/r'
            backend = 'aufs'
            devices = 'refuse'
            guest = '/g'
            guest-sha256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
            cache = false
            [limits]
            memory = '64 MiB'
            guest-time = '2m'
            handles = 5
            entries = 6
            bytes = 1000
            expansion = 7
            stall-time = '8s'
            total-time = '9s'";
        let file = parse(text.as_bytes()).unwrap();
        assert_eq!(file.root.map(|path| path.0), Some(PathBuf::from("/r")));
        assert_eq!(file.guest.map(|path| path.0), Some(PathBuf::from("/g")));
        assert_eq!(file.backend.map(|word| word.0), Some(Backend::Aufs));
        assert_eq!(file.devices.map(|word| word.0), Some(Devices::Refuse));
        assert_eq!(file.guest_sha256.map(|word| word.0), Some(Digest::of(b"")));
        assert_eq!(file.cache.map(|word| word.0), Some(Cache::Off));
        let limits = file.limits.limits();
        assert_eq!((limits.memory, limits.guest_time.as_secs()), (64 << 20, 120));
        assert_eq!((limits.handles, limits.entries, limits.bytes), (5, 6, 1000));
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs());
        assert_eq!(limits.expansion, 7);
        assert_eq!((seconds(limits.stall_time), seconds(limits.total_time)), (Some(8), Some(9)));
        assert_eq!(parse(b"").unwrap().limits.limits().handles, Limits::default().handles);
    }
}
