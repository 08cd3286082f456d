//! `/layers`: one file a layer, its name the id, its text the ancestors, nearest first, a line each.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use crate::error::{Error, Result, disk};

/// The directory that every call finds.
const LAYERS: &str = "/layers";

/// Refuses what is not a layer id.
pub(crate) fn check(id: &str) -> Result<()> {
    let bytes = id.as_bytes();
    let first = bytes.first().is_some_and(u8::is_ascii_alphanumeric);
    let all = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte));
    if first && all && bytes.len() <= 128 && !id.ends_with("-removing") {
        Ok(())
    } else {
        Err(Error::InvalidId(id.to_owned()))
    }
}

/// The ancestors of a layer, nearest first.
pub(crate) fn ancestors(id: &str) -> Result<Vec<String>> {
    check(id)?;
    let text = match fs::read(path(id)) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(Error::NotFound(id.to_owned())),
        Err(error) => return Err(disk("read", &error)),
    };
    let text = String::from_utf8(text).map_err(|_| Error::Corrupt(format!("layers/{id} is not text")))?;
    let ancestors: Vec<String> = text.lines().map(str::to_owned).collect();
    for (index, ancestor) in ancestors.iter().enumerate() {
        if check(ancestor).is_err() || ancestor == id || ancestors[..index].contains(ancestor) {
            return Err(Error::Corrupt(format!("layers/{id}, line {}: no ancestor", index + 1)));
        }
    }
    Ok(ancestors)
}

/// Whether there is a layer of this id.
pub(crate) fn exists(id: &str) -> Result<bool> {
    check(id)?;
    fs::exists(path(id)).map_err(|error| disk("stat", &error))
}

/// All layers with their ancestors, sorted by id. What lies there and has no id's name (a record that is
/// being written) is no layer.
pub(crate) fn all() -> Result<Vec<(String, Vec<String>)>> {
    let mut layers = Vec::new();
    for id in ids()? {
        match ancestors(&id) {
            // Other calls make and remove layers meanwhile.
            Err(Error::NotFound(_)) => {}
            found => layers.push((id, found?)),
        }
    }
    layers.sort();
    Ok(layers)
}

fn ids() -> Result<Vec<String>> {
    'again: loop {
        let mut ids = Vec::new();
        for entry in fs::read_dir(LAYERS).map_err(|error| disk("readdir", &error))? {
            match entry {
                Ok(entry) => {
                    ids.extend(entry.file_name().to_str().filter(|id| check(id).is_ok()).map(str::to_owned))
                }
                // WASI looks at each name, and fails where one has gone since the directory was read.
                Err(error) if error.kind() == ErrorKind::NotFound => continue 'again,
                Err(error) => return Err(disk("readdir", &error)),
            }
        }
        return Ok(ids);
    }
}

/// Writes the record of a layer in one step: under a name that is no id, synced, renamed, the directory
/// synced.
pub(crate) fn write(id: &str, ancestors: &[String]) -> Result<()> {
    let temporary = path(&format!(".{id}.tmp"));
    let text: String = ancestors.iter().map(|ancestor| format!("{ancestor}\n")).collect();
    let mut file = File::create(&temporary).map_err(|error| disk("open", &error))?;
    file.write_all(text.as_bytes()).map_err(|error| disk("write", &error))?;
    file.sync_all().map_err(|error| disk("fsync", &error))?;
    fs::rename(&temporary, path(id)).map_err(|error| disk("rename", &error))?;
    sync()
}

/// Removes the record of a layer.
pub(crate) fn delete(id: &str) -> Result<()> {
    fs::remove_file(path(id)).map_err(|error| disk("unlink", &error))?;
    sync()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(LAYERS).join(name)
}

fn sync() -> Result<()> {
    let directory = File::open(LAYERS).map_err(|error| disk("open", &error))?;
    directory.sync_all().map_err(|error| disk("fsync", &error))
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn ids_are() {
        for (id, want) in [
            ("a", true),
            ("0_.-", true),
            ("a-init", true),
            ("", false),
            (".a", false),
            ("-a", false),
            ("a/b", false),
            ("a\n", false),
            ("a-removing", false),
        ] {
            assert_eq!(check(id).is_ok(), want, "{id:?}");
        }
        assert!(check(&"a".repeat(128)).is_ok() && check(&"a".repeat(129)).is_err());
    }
}
