//! Names that want to be somewhere else, or nowhere.

use std::io::Write as _;

use anyhow::{Result, ensure};
use layerbox_tests::archive::{Tar, dir, file};

use super::{Row, exact, limit, refused, tar};
use crate::harness::{Case, case};
use crate::store::{Dialect, Store};

pub(super) fn rows() -> Vec<Row> {
    let one = |name: &[u8]| tar(&[file(name, "x")]);
    let mut rows = vec![
        refused("../victim/x", one(b"../victim/x")).saying("../victim/x"),
        refused("/../victim/x", one(b"/../victim/x")),
        refused("..", one(b"..")),
        refused("a directory named ..", tar(&[dir("../")])),
        refused("a/../../victim/x", one(b"a/../../victim/x")),
        refused("a/..", tar(&[dir("a/"), file("a/..", "x")])),
        refused(".. in the middle, harmless by itself", one(b"a/b/../c")),
        refused("../victim in a PAX path", tar(&[file("a", "x").pax("path", "../victim/hello")])),
        exact("absolute /etc/passwd", one(b"/etc/passwd"), &["etc directory", "etc/passwd file of 1"]),
        exact(
            "many slashes at the front",
            one(b"///etc//passwd"),
            &["etc directory", "etc/passwd file of 1"],
        ),
        exact("./ at the front", one(b"./a/./b"), &["a directory", "a/b file of 1"]),
        refused("the empty name", one(b"")),
        refused("the empty name of a directory", tar(&[dir("")])),
        refused("a root that is a file", one(b"./")),
        refused("a root that is a symlink", tar(&[layerbox_tests::archive::symlink(".", "/etc")])),
        refused("a NUL in a PAX path", tar(&[file("a", "x").pax("path", b"a\0/../../victim/hello")])),
        refused("an empty PAX path", tar(&[file("a", "x").pax("path", "")])),
        refused("a component of 256 bytes", one("n".repeat(256).as_bytes())),
        limit("more than 4096 components", tar(&[file("c/".repeat(4097) + "f", "x")]), &[]),
        exact("three dots are a name", one(b"..."), &["... file of 1"]),
        exact(
            "..x and x.. are names",
            tar(&[file("..x", "x"), file("x..", "y")]),
            &["..x file of 1", "x.. file of 1"],
        ),
        exact(
            "bytes that are not UTF-8",
            one(b"\xff\xfe/\x80"),
            &["\\xff\\xfe directory", "\\xff\\xfe/\\x80 file of 1"],
        ),
        exact("newline, ESC and tab", one(b"a\nb\x1b[2J\tc"), &["a\\nb\\x1b[2J\\tc file of 1"]),
        exact("a backslash and a colon", one(b"a\\b:c,d=e"), &["a\\\\b:c,d=e file of 1"]),
        refused("a file with a slash at its end", one(b"a/")),
        exact(
            "a name that is 100 bytes to the last",
            one(&[b'h'; 100]),
            &[
                "hhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhhh file of 1",
            ],
        ),
    ];
    for length in [241, 242, 251, 252, 255] {
        let name: &'static str = match length {
            241 => "a component of 241 bytes",
            242 => "a component of 242 bytes",
            251 => "a component of 251 bytes",
            252 => "a component of 252 bytes",
            _ => "a component of 255 bytes",
        };
        let text = "n".repeat(length);
        let shown = format!("{} file of 1", layerbox_tests::tree::show(text.as_bytes()));
        rows.push(exact(name, one(text.as_bytes()), &[&shown]));
    }
    rows
}

/// Depths at which paths are longer than any system call takes.
pub(super) fn deep() -> Vec<Case> {
    Dialect::ALL
        .into_iter()
        .map(|dialect| {
            case(
                format!(
                    "hostile ({}), names: 4,000 nested directories can be applied, archived and removed",
                    dialect.name()
                ),
                move |place| {
                    let store = Store::new(place.join("s"), dialect);
                    store.create("target", None)?;
                    let mut archive = Tar::new();
                    archive.add(&dir("d/".repeat(4000)));
                    archive.add(&file("d/".repeat(4000) + "f", "at the bottom"));
                    store.apply("target", &archive.finish())?.expect(0)?;
                    let again = store.diff("target")?;
                    store.create("copy", None)?;
                    store.apply_with("copy", |mut stdin| drop(stdin.write_all(&again)))?.expect(0)?;
                    ensure!(store.diff("copy")? == again, "the diff of the copy is another");
                    ensure!(store.changes("copy")?.len() == 4001, "changes does not name them all");
                    store.ok(["remove", "copy", "target"])?;
                    swept(&store)
                },
            )
        })
        .collect()
}

/// What remove took out of sight is gone after a further call.
fn swept(store: &Store) -> Result<()> {
    store.create("next", None)?;
    let left = layerbox_tests::tree::names(&store.root().join("trash"))?;
    ensure!(left.is_empty(), "trash/ still holds {left:?}");
    Ok(())
}
