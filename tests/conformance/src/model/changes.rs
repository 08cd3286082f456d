//! What `changes` must answer.

use super::{Node, Tree, What};
use crate::subject::{Change, ChangeKind};
use crate::tar::{Time, split};

/// What differs between two trees, by the rules of Docker's overlay2 driver: a name is modified where kind,
/// mode, owner, device number, target or `security.capability` differ, and for all but directories where size
/// or time do; a directory also where something in it is listed. Of what is gone only the top is listed, the
/// root never is.
pub fn changes(old: &Tree, new: &Tree) -> Vec<Change> {
    let mut found: Vec<Change> = Vec::new();
    for (name, node) in &new.names {
        let kind = match old.names.get(name) {
            None => ChangeKind::Added,
            Some(before) if differ(before, node) => ChangeKind::Modified,
            Some(_) => continue,
        };
        found.push(Change { name: name.clone(), kind });
    }
    for name in old.names.keys().filter(|name| !new.names.contains_key(*name)) {
        // What lay below something that is gone, or is a directory no more, goes with it.
        if new.has_directory(split(name).0) {
            found.push(Change { name: name.clone(), kind: ChangeKind::Deleted });
        }
    }
    let listed: Vec<Vec<u8>> = found.iter().map(|change| change.name.clone()).collect();
    for name in listed {
        let mut above = split(&name).0;
        while !above.is_empty() {
            if !found.iter().any(|change| change.name == above) {
                found.push(Change { name: above.to_vec(), kind: ChangeKind::Modified });
            }
            above = split(above).0;
        }
    }
    found.sort();
    found
}

fn differ(old: &Node, new: &Node) -> bool {
    let what = match (&old.what, &new.what) {
        (What::File(old), What::File(new)) => old.len() != new.len(),
        (old, new) => old != new,
    };
    let capability = |node: &Node| node.xattrs.get(&b"security.capability"[..]).cloned();
    what || (old.mode, old.uid, old.gid) != (new.mode, new.uid, new.gid)
        || (!new.is_directory() && !same_time(old.mtime, new.mtime))
        || capability(old) != capability(new)
}

/// Archives may keep whole seconds only, so a time without nanoseconds stands for any in its second.
fn same_time(one: Time, other: Time) -> bool {
    one.seconds == other.seconds
        && (one.nanoseconds == other.nanoseconds || one.nanoseconds == 0 || other.nanoseconds == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::change_lines;
    use crate::model::Layer;
    use crate::tar::Entry;

    #[test]
    fn lists() {
        let d = || Entry::directory("d");
        let base = [d(), Entry::file("d/f", "x"), Entry::file("d/g/h", ""), Entry::file("k", "")];
        let cases: [(&str, Vec<Entry>, &[&str]); 6] = [
            ("nothing", vec![], &[]),
            ("copied up", vec![d(), Entry::file("d/f", "y")], &[]),
            ("size", vec![d(), Entry::file("d/f", "xy")], &["C /d", "C /d/f"]),
            ("gone", vec![d(), Entry::whiteout("d/g")], &["C /d", "D /d/g"]),
            (
                "another kind",
                vec![Entry::file("d", ""), Entry::directory("k"), Entry::file("k/n", "")],
                &["C /d", "C /k", "A /k/n"],
            ),
            (
                "opaque",
                vec![d(), Entry::opaque("d"), Entry::file("d/new", "")],
                &["C /d", "D /d/f", "D /d/g", "A /d/new"],
            ),
        ];
        let base = Tree::of([&Layer::of(&base).unwrap()]);
        for (what, upper, expected) in cases {
            let found = changes(&base, &base.with(&Layer::of(&upper).unwrap()));
            assert_eq!(change_lines(&found), expected, "{what}");
        }
    }
}
