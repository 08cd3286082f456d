//! What the demo changes in a mounted layer, and which changes should then be listed.
//!
//! The base may be any root file system, so the names are chosen from what is there: well-known ones where it
//! has them, else the first that fit.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::Result;

use super::compare;

/// One change: a command to run in the root of the mount, and what should be listed for it.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) why: &'static str,
    pub(super) command: String,
    /// Lines of `changes`, less those for the directories above.
    lines: Vec<String>,
}

/// All changes.
#[derive(Debug, Default)]
pub(super) struct Edits {
    pub(super) edits: Vec<Edit>,
    /// Names that are in the base and no more in the layer.
    pub(super) deleted: Vec<String>,
}

/// A regular file or a directory of the base.
#[derive(Debug)]
struct Candidate {
    name: String,
    directory: bool,
    /// Names in it, for a directory.
    children: Vec<String>,
    /// Whether all of them are files.
    flat: bool,
}

const DELETE: [&str; 4] = ["etc/issue.net", "usr/bin/yes", "usr/bin/arch", "bin/yes"];
const REPLACE: [&str; 4] = ["etc/issue", "usr/bin/whoami", "usr/bin/basename", "etc/passwd"];
const RESTRICT: [&str; 4] = ["etc/shells", "usr/bin/who", "usr/bin/env", "etc/group"];
const DELETE_DIRECTORY: [&str; 3] = ["usr/share/base-files", "usr/share/awk", "usr/share/misc"];
const AFRESH: [&str; 3] = ["etc/update-motd.d", "etc/skel", "usr/share/dict"];

impl Edits {
    /// Chooses from the tree at `root`.
    pub(super) fn choose(root: &Path) -> Result<Edits> {
        let mut candidates = candidates(root)?;
        let free = |name: &String| root.join(name).symlink_metadata().is_err();
        let mut names = (1..).map(|number| format!("demo-{number}"));
        let new = Some("demo".to_owned()).filter(free).or_else(|| names.find(free)).unwrap_or_default();
        let mut edits = Edits::default();
        // Directories first: no file below them may be chosen afterwards.
        let fresh =
            take(&mut candidates, &AFRESH, |c| c.directory && c.flat && (2..=6).contains(&c.children.len()));
        let tree = take(&mut candidates, &DELETE_DIRECTORY, |c| {
            c.directory && c.flat && (1..=100).contains(&c.children.len())
        });
        let file = take(&mut candidates, &DELETE, |c| !c.directory);
        let replaced = take(&mut candidates, &REPLACE, |c| !c.directory);
        let restricted = take(&mut candidates, &RESTRICT, |c| !c.directory);
        if let Some(Candidate { name, .. }) = file {
            edits.add("A file is deleted:", format!("rm {name}"), vec![format!("D /{name}")]);
            edits.deleted.push(name);
        }
        if let Some(Candidate { name, .. }) = tree {
            edits.add(
                "So is a directory with all that is in it:",
                format!("rm -r {name}"),
                vec![format!("D /{name}")],
            );
            edits.deleted.push(name);
        }
        if let Some(Candidate { name, .. }) = replaced {
            let command = format!("echo 'replaced by the demo' > {name}");
            edits.add("A file is replaced:", command, vec![format!("C /{name}")]);
        }
        if let Some(Candidate { name, .. }) = restricted {
            edits.add("Another gets a new mode:", format!("chmod 4711 {name}"), vec![format!("C /{name}")]);
        }
        if let Some(Candidate { name, children, .. }) = fresh {
            let mut lines = vec![format!("C /{name}"), format!("A /{name}/anew")];
            lines.extend(children.iter().map(|child| format!("D /{name}/{child}")));
            let command = format!("rm -r {name} && mkdir {name} && echo anew > {name}/anew");
            edits.add("A directory is replaced by a new one of the same name:", command, lines);
            edits.deleted.extend(children.iter().map(|child| format!("{name}/{child}")));
        }
        edits.add_new(&new);
        Ok(edits)
    }

    /// A directory with a bit of everything.
    fn add_new(&mut self, new: &str) {
        let added = |names: &[&str]| names.iter().map(|name| format!("A /{new}{name}")).collect::<Vec<_>>();
        self.add(
            "And a new directory with files, a hard link, a symbolic one, a pipe,",
            format!(
                "mkdir -p {new}/deep && echo hello > {new}/deep/hello && ln {new}/deep/hello {new}/hard && \
                 ln -s deep/hello {new}/soft && mkfifo {new}/pipe"
            ),
            added(&["", "/deep", "/deep/hello", "/hard", "/soft", "/pipe"]),
        );
        self.add(
            "a time before 1970 with nanoseconds, a sparse file, a name that is not UTF-8:",
            format!(
                "touch -d '1969-07-20 20:17:40.123456789 UTC' {new}/old && truncate -s 1M {new}/sparse && \
                 touch \"$(printf '{new}/caf\\351')\""
            ),
            added(&["/old", "/sparse", "/caf\\xe9"]),
        );
    }

    fn add(&mut self, why: &'static str, command: String, lines: Vec<String>) {
        self.edits.push(Edit { why, command, lines });
    }

    /// The lines that `changes` should print: those of the changes, and a `C` for each directory above one of
    /// them.
    pub(super) fn expected(&self) -> BTreeSet<String> {
        let mut lines: BTreeSet<String> =
            self.edits.iter().flat_map(|edit| edit.lines.iter().cloned()).collect();
        let paths: Vec<String> = lines.iter().map(|line| line[2..].to_owned()).collect();
        for path in &paths {
            let above = path.match_indices('/').map(|(at, _)| &path[..at]).filter(|above| !above.is_empty());
            for above in above {
                if !paths.iter().any(|path| path == above) {
                    lines.insert(format!("C {above}"));
                }
            }
        }
        lines
    }
}

/// Takes the first of the well-known names that fits, else the first candidate that does; and all that lies
/// below it.
fn take(
    candidates: &mut Vec<Candidate>,
    known: &[&str],
    fits: impl Fn(&Candidate) -> bool,
) -> Option<Candidate> {
    let wanted = known.iter().find_map(|name| candidates.iter().position(|c| c.name == *name && fits(c)));
    let at = wanted.or_else(|| candidates.iter().position(&fits))?;
    let taken = candidates.remove(at);
    // Neither may anything be chosen below it, nor a directory above it.
    let below = format!("{}/", taken.name);
    candidates.retain(|c| !c.name.starts_with(&below) && !below.starts_with(&format!("{}/", c.name)));
    Some(taken)
}

/// What could be chosen: found by a walk that follows no symbolic link, so that a command given such a name
/// stays inside the tree; with names that need no quotes; files with one name only, because a copied-up hard
/// link is a story of its own.
fn candidates(root: &Path) -> Result<Vec<Candidate>> {
    const MOST: usize = 50_000;
    let plain = |name: &str| {
        name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._+-".contains(&byte))
            && !name.starts_with('-')
    };
    let names = compare::names(root)?;
    let mut candidates = Vec::new();
    for name in names.iter().take(MOST) {
        let Some(name) = std::str::from_utf8(name).ok().filter(|name| plain(name)) else { continue };
        let metadata = root.join(name).symlink_metadata()?;
        let (mut children, mut flat) = (Vec::new(), true);
        if metadata.is_dir() {
            for entry in std::fs::read_dir(root.join(name))? {
                let entry = entry?;
                flat &= entry.file_type()?.is_file();
                // A name that is no plain text makes the directory unfit, by way of `flat`.
                let child = entry.file_name().into_string().unwrap_or_default();
                flat &= !child.is_empty() && plain(&child);
                children.push(child);
            }
        } else if !metadata.is_file() || metadata.nlink() > 1 || metadata.len() == 0 {
            continue;
        }
        candidates.push(Candidate { name: name.to_owned(), directory: metadata.is_dir(), children, flat });
    }
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_above_a_change_are_expected_too() {
        let mut edits = Edits::default();
        edits.add("", String::new(), vec!["D /usr/bin/yes".into(), "A /demo".into(), "A /demo/a".into()]);
        let lines: Vec<String> = edits.expected().into_iter().collect();
        assert_eq!(lines, ["A /demo", "A /demo/a", "C /usr", "C /usr/bin", "D /usr/bin/yes"]);
    }

    #[test]
    fn what_is_taken_is_not_touched_twice() {
        let candidate = |name: &str, directory| Candidate {
            name: name.to_owned(),
            directory,
            children: vec!["x".to_owned()],
            flat: true,
        };
        let mut all = vec![
            candidate("a", true),
            candidate("a/b", true),
            candidate("a/b/x", false),
            candidate("c", false),
        ];
        assert_eq!(take(&mut all, &["a/b"], |c| c.directory).map(|c| c.name).as_deref(), Some("a/b"));
        assert_eq!(all.len(), 1);
        assert_eq!(take(&mut all, &["z"], |c| !c.directory).map(|c| c.name).as_deref(), Some("c"));
        assert!(take(&mut all, &[], |_| true).is_none());
    }
}
