//! How an engine is told to mount a snapshot, and which snapshot a mount that it was told is of.

use std::path::Path;

use layerbox_privileged::id::LayerId;

use super::error::SnapshotError;
use crate::driver::{Driver, Lent};

/// The arguments of a mount, for whoever will do it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// The file system's type, or `bind`.
    pub kind: String,
    /// What is mounted.
    pub source: String,
    /// As of mount(8).
    pub options: Vec<String>,
}

/// The room for options, which mount(2) takes a page of: containerd leaves 512 bytes of it free.
const ROOM: usize = 4096 - 512;

/// How a layer is mounted, if the engine can do it.
///
/// `view`: the layer itself is left out, and nothing can be written. None where the options would not fit, or
/// a path cannot stand in them: then the host mounts.
pub fn direct(lent: &Lent, view: bool) -> Option<Mount> {
    let content = lent.content.to_str()?;
    let mut lower = Vec::new();
    for path in &lent.ancestors {
        lower.push(path.to_str()?);
    }
    match (view, lower.as_slice()) {
        (_, []) => return Some(bind(content, view)),
        (true, [single]) => return Some(bind(single, true)),
        _ => {}
    }
    let work = lent.work.as_deref()?.to_str()?;
    let mut options = lent.options.clone();
    if !view {
        options.extend([format!("workdir={work}"), format!("upperdir={content}")]);
    }
    let plain = |path: &&str| !path.contains([':', ',', '\\', '"', '=']);
    if !lower.iter().chain([&content, &work]).all(plain) {
        return None;
    }
    // containerd names lower directories relative to the one that they have in common, once they take too
    // much room.
    let names = lower.iter().map(|path| path.rsplit('/').next().unwrap_or_default().len() + 1).sum::<usize>();
    let others = options.iter().map(|option| option.len() + 1).sum::<usize>();
    if names + others + "lowerdir=".len() > ROOM {
        return None;
    }
    options.push(format!("lowerdir={}", lower.join(":")));
    Some(Mount { kind: "overlay".to_owned(), source: "overlay".to_owned(), options })
}

/// The mount of a directory as it is.
pub fn bind(path: &str, read_only: bool) -> Mount {
    let access = if read_only { "ro" } else { "rw" };
    Mount {
        kind: "bind".to_owned(),
        source: path.to_owned(),
        options: vec![access.to_owned(), "rbind".to_owned()],
    }
}

/// What mounts are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// This layer on its ancestors, to be written.
    Writable(String),
    /// This layer on its ancestors, or their union without it, to be read.
    ReadOnly(String),
}

/// The layer that mounts are of, if they are such as [`direct`] gives, of this store.
///
/// # Errors
///
/// [`SnapshotError::NotOurs`].
pub fn named(driver: &Driver, mounts: &[Mount]) -> Result<Named, SnapshotError> {
    let [mount] = mounts else {
        let what = format!("{} mounts where one was expected", mounts.len());
        return Err(SnapshotError::NotOurs(what));
    };
    let not_ours =
        || SnapshotError::NotOurs(format!("a mount of {} that is no snapshot of this store", mount.kind));
    let layer = |path: &str| layer_at(driver.root(), path).ok_or_else(not_ours);
    let option = |name: &str| mount.options.iter().find_map(|option| option.strip_prefix(name));
    match mount.kind.as_str() {
        "bind" => {
            let id = layer(&mount.source)?;
            let read_only = mount.options.iter().any(|option| option == "ro");
            Ok(if read_only { Named::ReadOnly(id) } else { Named::Writable(id) })
        }
        "overlay" => {
            let mut lower = Vec::new();
            for path in option("lowerdir=").ok_or_else(not_ours)?.split(':') {
                lower.push(layer(path)?);
            }
            let top = match option("upperdir=") {
                Some(upper) => layer(upper)?,
                None => lower.remove(0),
            };
            // Any other stack is not what the layer stands for.
            let ancestors = driver.ancestors(&top)?;
            if !ancestors.iter().map(LayerId::as_str).eq(lower.iter().map(String::as_str)) {
                return Err(not_ours());
            }
            Ok(if option("upperdir=").is_some() { Named::Writable(top) } else { Named::ReadOnly(top) })
        }
        _ => Err(not_ours()),
    }
}

/// The layer whose content or mount point is at a path.
fn layer_at(root: &Path, path: &str) -> Option<String> {
    let mut parts = Path::new(path).strip_prefix(root).ok()?.iter();
    let (kind, id) = (parts.next()?.to_str()?, parts.next()?.to_str()?);
    let known = (kind == "diff" || kind == "mnt") && parts.next().is_none();
    LayerId::new(id).ok().filter(|_| known).map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lent(depth: usize, root: &str) -> Lent {
        let path = |kind: &str, number: usize| format!("{root}/{kind}/snapshot-0123abcd-{number}").into();
        Lent {
            content: path("diff", 1000),
            work: Some(path("work", 1000)),
            ancestors: (0..depth).map(|number| path("diff", 999 - number)).collect(),
            options: vec!["index=off".to_owned()],
        }
    }

    #[test]
    fn layers_are_bound_where_there_is_nothing_to_stack() {
        let root = "/var/lib/layerbox";
        let single = direct(&lent(0, root), false).expect("a mount");
        assert_eq!(single, bind("/var/lib/layerbox/diff/snapshot-0123abcd-1000", false));
        let view = direct(&lent(1, root), true).expect("a mount");
        assert_eq!(view, bind("/var/lib/layerbox/diff/snapshot-0123abcd-999", true));
    }

    #[test]
    fn unions_say_what_they_are_made_of() {
        for (depth, view, expected) in
            [(1, false, true), (128, false, true), (129, true, true), (300, false, false)]
        {
            let mount = direct(&lent(depth, "/var/lib/layerbox"), view);
            assert_eq!(mount.is_some(), expected, "{depth}");
            let Some(mount) = mount else { continue };
            let has = |name: &str| mount.options.iter().any(|option| option.starts_with(name));
            assert_eq!((has("upperdir="), has("workdir="), has("lowerdir=")), (!view, !view, true));
        }
        assert_eq!(direct(&lent(2, "/with:colon"), false), None);
        assert_eq!(direct(&lent(2, "/with,comma"), false), None);
    }

    #[test]
    fn paths_name_layers() {
        for (path, expected) in [
            ("/s/diff/a", Some("a")),
            ("/s/mnt/a", Some("a")),
            ("/s/diff/a/etc", None),
            ("/s/work/a", None),
            ("/s/diff/..", None),
            ("/s/diff", None),
            ("/other/diff/a", None),
            ("/s/x/../diff/a", None),
        ] {
            assert_eq!(layer_at(Path::new("/s"), path).as_deref(), expected, "{path}");
        }
    }
}
