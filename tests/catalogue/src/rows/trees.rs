//! Names that are one name, and what is put in the place of something else.

use super::{Row, exact, names, refused, tar};
use crate::archive::{Member, dir, file, hard_link, member, symlink};

pub(super) fn rows() -> Vec<Row> {
    let alternating = |count: usize, mut one: Vec<Member>, other: Vec<Member>| {
        one.extend(other);
        tar(&vec![one; count].concat())
    };
    vec![
        exact(
            "a later file replaces an earlier one",
            tar(&[file("a", "first"), file("a", "2nd")]),
            &["a file \"2nd\""],
        ),
        exact(
            "names that are one once they are cleaned: a, ./a, //a, ./././a",
            tar(&[file("a", "1"), file("./a", "2"), file("//a", "3"), file("./././a", "4")]),
            &["a file \"4\""],
        ),
        exact(
            "directories that are one once they are cleaned: d, d/, ./d, d//, d/., //d/./",
            tar(&[dir("d"), dir("d/"), dir("./d"), dir("d//"), dir("d/."), dir("//d/./").mode(0o700)]),
            &["d directory, mode 0700"],
        ),
        refused("a file named a/.", tar(&[file("a/.", "x")])),
        refused("a file named .", tar(&[file(".", "x")])),
        refused("a file named as the root, /", tar(&[file("/", "x")])),
        exact(
            "names that differ in case only",
            tar(&[file("a", "1"), file("A", "2"), dir("D/"), dir("d/")]),
            &["A file \"2\"", "D directory", "a file \"1\"", "d directory"],
        ),
        exact(
            "names that differ in their Unicode form only",
            tar(&[file("\u{e9}", "1"), file("e\u{301}", "2"), file("\u{fb01}", "3"), file("fi", "4")]),
            &[
                "\\xc3\\xa9 file \"1\"",
                "e\\xcc\\x81 file \"2\"",
                "\\xef\\xac\\x81 file \"3\"",
                "fi file \"4\"",
            ],
        ),
        exact(
            "a file replaces a directory with all in it",
            tar(&[dir("d/"), file("d/x", "x"), file("d", "f")]),
            &["d file \"f\""],
        ),
        exact(
            "a directory over a directory keeps what is in it",
            tar(&[dir("d/"), file("d/x", "x"), dir("d/").mode(0o700)]),
            &["d directory, mode 0700", "d/x file \"x\""],
        ),
        exact(
            "a directory over a directory keeps attributes that it does not speak of",
            tar(&[
                dir("d/").owner(5, 6).xattr("user.old", "v").xattr("user.both", "v"),
                dir("d/").xattr("user.new", "v").xattr("user.both", "w"),
            ]),
            &["d directory, user.both=w, user.new=v, user.old=v"],
        ),
        exact(
            "a directory replaces a file",
            tar(&[file("d", "x"), dir("d/"), file("d/x", "y")]),
            &["d directory", "d/x file \"y\""],
        ),
        refused(
            "a parent that is replaced by a file on the way",
            tar(&[dir("d/"), file("d/a", "x"), file("d", "f"), file("d/b", "y")]),
        )
        .saying("d/b"),
        refused(
            "a parent that is replaced by a FIFO on the way",
            tar(&[dir("d/"), file("d/a", "x"), member("d", b'6'), file("d/b", "y")]),
        )
        .saying("d/b"),
        exact(
            "a directory that comes and goes a hundred times",
            alternating(100, vec![dir("d/"), dir("d/e/f/"), file("d/e/f/x", "x")], vec![file("d", "f")]),
            &["d file \"f\""],
        ),
        exact(
            "a directory and a symlink to another that take turns",
            alternating(
                100,
                vec![dir("e/"), dir("d/"), file("d/x", "x"), symlink("d", "e"), file("d/y", "y")],
                vec![symlink("e2", "e"), file("e2/z", "z")],
            ),
            &["d -> e", "e directory", "e/y file \"y\"", "e/z file \"z\"", "e2 -> e"],
        ),
        exact(
            "a tree that is replaced while its directories are known",
            tar(&[
                dir("d/"),
                dir("d/e/"),
                dir("d/e/f/"),
                file("d/e/f/x", "old"),
                file("d/e", "file"),
                dir("d/e/"),
                dir("d/e/f/"),
                file("d/e/f/y", "new"),
            ]),
            &["d directory", "d/e directory", "d/e/f directory", "d/e/f/y file \"new\""],
        ),
        exact(
            "a file whose hard link stays when its name goes",
            tar(&[file("a", "1"), hard_link("b", "a"), file("a", "22")]),
            &["a file \"22\"", "b file \"1\""],
        ),
        exact(
            "a chain of hard links",
            tar(&[
                file("a", "1"),
                hard_link("b", "a"),
                hard_link("c", "b"),
                hard_link("d", "./c"),
                hard_link("e", "/d"),
            ]),
            &["a file \"1\"", "b file \"1\"", "c file \"1\"", "d file \"1\"", "e file \"1\""],
        ),
        exact(
            "a hard link over another name of the same file",
            tar(&[file("a", "1"), hard_link("b", "a"), hard_link("b", "a")]),
            &["a file \"1\"", "b file \"1\""],
        ),
        names("100,000 entries in one directory", || super::empty_files("d/f", 100_000), 100_001),
        names(
            "2,000 names of 255 bytes that differ in their last",
            || {
                let name = |number: usize| file(format!("{}{number:05}", "n".repeat(250)), "");
                tar(&(0..2000).map(name).collect::<Vec<_>>())
            },
            2000,
        ),
        names(
            "4,000 nested directories",
            || tar(&[dir("d/".repeat(4000)), file("d/".repeat(4000) + "f", "at the bottom")]),
            4001,
        ),
        names(
            "4,096 nested directories, each by an entry of its own",
            || tar(&(1..=4096).map(|depth| dir("d/".repeat(depth))).collect::<Vec<_>>()),
            4096,
        ),
    ]
}
