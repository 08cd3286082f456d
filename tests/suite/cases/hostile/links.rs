//! Links that lead out, in circles, or to what is not there.

use layerbox_tests::archive::{dir, file, hard_link, symlink};

use super::{Row, exact, refused, tar};

pub(super) fn rows() -> Vec<Row> {
    vec![
        exact(
            "a symlink out, then a file through it: it ends in the layer, as in a chroot",
            tar(&[dir("victim/"), symlink("out", "../../victim"), file("out/x", "x")]),
            &["out -> ../../victim", "victim directory", "victim/x file of 1"],
        ),
        refused(
            "a symlink out to what the layer does not have, then a file through it",
            tar(&[symlink("out", "../../victim"), file("out/x", "x")]),
        )
        .saying("out/x"),
        exact(
            "an absolute symlink, then a file through it",
            tar(&[dir("etc/"), symlink("link", "/etc"), file("link/passwd", "x")]),
            &["etc directory", "etc/passwd file of 1", "link -> /etc"],
        ),
        refused("a symlink to itself, then a file below it", tar(&[symlink("a", "a"), file("a/b", "x")]))
            .saying("a/b"),
        refused("symlinks in a circle", tar(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "x")])),
        refused("a file as a directory", tar(&[file("a", "x"), file("a/b", "y")])),
        refused(
            "a file through a symlink to a file",
            tar(&[file("f", "x"), symlink("l", "f"), file("l/x", "y")]),
        ),
        exact(
            "bin -> usr/bin",
            tar(&[dir("usr/bin/"), symlink("bin", "usr/bin"), file("bin/sh", "x")]),
            &["bin -> usr/bin", "usr directory", "usr/bin directory", "usr/bin/sh file of 1"],
        ),
        exact(
            "bin -> /usr/bin",
            tar(&[dir("usr/bin/"), symlink("bin", "/usr/bin"), file("bin/sh", "x")]),
            &["bin -> /usr/bin", "usr directory", "usr/bin directory", "usr/bin/sh file of 1"],
        ),
        exact(
            "a dangling symlink out",
            tar(&[symlink("l", "../../victim/hello")]),
            &["l -> ../../victim/hello"],
        ),
        exact(
            "a symlink replaced by a file is not written through",
            tar(&[symlink("l", "../../victim/hello"), file("l", "mine")]),
            &["l file of 4"],
        ),
        exact(
            "a symlink to a directory replaced by a directory",
            tar(&[dir("d/"), file("d/f", "x"), symlink("l", "d"), dir("l/"), file("l/g", "y")]),
            &["d directory", "d/f file of 1", "l directory", "l/g file of 1"],
        ),
        exact(
            "a directory, a symlink over it, a file below that",
            tar(&[dir("d/"), file("d/old", "x"), dir("e/"), symlink("d", "e"), file("d/new", "y")]),
            &["d -> e", "e directory", "e/new file of 1"],
        ),
        exact(
            "a directory with a symlink out in it is replaced: nothing beyond the link is deleted",
            tar(&[dir("d/"), symlink("d/out", "../../../victim"), file("d", "now a file")]),
            &["d file of 10"],
        ),
        refused("a hard link to ../victim/hello", tar(&[hard_link("h", "../victim/hello")])).saying("h"),
        refused("a hard link to /etc/passwd", tar(&[hard_link("h", "/etc/passwd")])),
        refused(
            "a hard link through a symlink out",
            tar(&[symlink("out", "../../victim"), hard_link("h", "out/hello")]),
        ),
        refused(
            "a hard link through a symlink in the layer",
            tar(&[dir("d/"), file("d/f", "x"), symlink("l", "d"), hard_link("h", "l/f")]),
        ),
        exact(
            "a hard link to a symlink links the symlink",
            tar(&[symlink("l", "../../victim/hello"), hard_link("h", "l")]),
            &["h -> ../../victim/hello", "l -> ../../victim/hello"],
        ),
        refused("a hard link to a directory", tar(&[dir("d/"), hard_link("h", "d")])),
        refused("a hard link before its target", tar(&[hard_link("h", "f"), file("f", "x")])),
        refused("a hard link to a name that only the parent has", tar(&[hard_link("h", "in-parent")])),
        refused("a hard link to itself", tar(&[file("f", "x"), hard_link("f", "f")])),
        refused("a hard link to nothing", tar(&[hard_link("h", "")])),
        refused(
            "a hard link to a whiteout",
            tar(&[layerbox_tests::archive::whiteout("w"), hard_link("h", ".wh.w")]),
        ),
        exact(
            "a hard link whose own mode and owner say something else",
            tar(&[file("f", "x").mode(0o600), hard_link("h", "f").mode(0o4777).owner(1, 2)]),
            &["f file of 1", "h file of 1"],
        ),
        exact(
            "a symlink target of 4095 bytes",
            tar(&[symlink("l", "t".repeat(4095))]),
            &[
                "l -> tttttttttttttttttttttttttttttttttttttttt\u{2026}tttttttttttttttttttttttttttttttttttttttt (4095 bytes)",
            ],
        ),
        refused("a symlink target of 4096 bytes", tar(&[symlink("l", "t".repeat(4096))])),
        refused("a symlink target of 100 kB", tar(&[symlink("l", "t".repeat(100_000))])),
        refused("a hard link target of 100 kB", tar(&[hard_link("h", "t".repeat(100_000))])),
        refused("a symlink to nothing", tar(&[symlink("l", "")])),
        refused("a NUL in a PAX linkpath", tar(&[symlink("l", "x").pax("linkpath", b"a\0b")])),
    ]
}
