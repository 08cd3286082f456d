//! Links that lead out, in circles, or to what is not there.

use crate::archive::{character, dir, file, hard_link, member, symlink};

use super::{Row, exact, refused, tar};

pub(super) fn rows() -> Vec<Row> {
    vec![
        exact(
            "a symlink out, then a file through it: it ends in the layer, as in a chroot",
            tar(&[dir("victim/"), symlink("out", "../../victim"), file("out/x", "x")]),
            &["out -> ../../victim", "victim directory", "victim/x file \"x\""],
        ),
        refused(
            "a symlink out to what the layer does not have, then a file through it",
            tar(&[symlink("out", "../../victim"), file("out/x", "x")]),
        )
        .saying("out/x"),
        exact(
            "an absolute symlink, then a file through it",
            tar(&[dir("etc/"), symlink("link", "/etc"), file("link/passwd", "x")]),
            &["etc directory", "etc/passwd file \"x\"", "link -> /etc"],
        ),
        exact(
            "a symlink to a directory that only a whiteout speaks of, then a file through it",
            tar(&[crate::archive::whiteout("d/x"), symlink("l", "d"), file("l/f", "x")]),
            &["d directory, implied", "d/f file \"x\"", "d/x deleted", "l -> d"],
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
            "a symlink in the place of a directory: bin -> usr/bin",
            tar(&[dir("usr/bin/"), symlink("bin", "usr/bin"), file("bin/sh", "x")]),
            &["bin -> usr/bin", "usr directory, implied", "usr/bin directory", "usr/bin/sh file \"x\""],
        ),
        exact(
            "an absolute symlink in the place of a directory: bin -> /usr/bin",
            tar(&[dir("usr/bin/"), symlink("bin", "/usr/bin"), file("bin/sh", "x")]),
            &["bin -> /usr/bin", "usr directory, implied", "usr/bin directory", "usr/bin/sh file \"x\""],
        ),
        exact(
            "a dangling symlink out",
            tar(&[symlink("l", "../../victim/hello")]),
            &["l -> ../../victim/hello"],
        ),
        exact(
            "a symlink replaced by a file is not written through",
            tar(&[symlink("l", "../../victim/hello"), file("l", "mine")]),
            &["l file \"mine\""],
        ),
        exact(
            "a symlink to a directory replaced by a directory",
            tar(&[dir("d/"), file("d/f", "x"), symlink("l", "d"), dir("l/"), file("l/g", "y")]),
            &["d directory", "d/f file \"x\"", "l directory", "l/g file \"y\""],
        ),
        exact(
            "a directory, a symlink over it, a file below that",
            tar(&[dir("d/"), file("d/old", "x"), dir("e/"), symlink("d", "e"), file("d/new", "y")]),
            &["d -> e", "e directory", "e/new file \"y\""],
        ),
        exact(
            "a directory with a symlink out in it is replaced: nothing beyond the link is deleted",
            tar(&[dir("d/"), symlink("d/out", "../../../victim"), file("d", "now a file")]),
            &["d file \"now a file\""],
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
        refused("a hard link to a whiteout", tar(&[crate::archive::whiteout("w"), hard_link("h", ".wh.w")])),
        exact(
            "a hard link whose own mode and owner say something else",
            tar(&[file("f", "x").mode(0o600), hard_link("h", "f").mode(0o4777).owner(1, 2)]),
            &["f file \"x\", mode 0600", "h file \"x\", mode 0600"],
        ),
        exact(
            "a hard link with the type of a symlink in its mode",
            tar(&[symlink("l", "t").mode(0o120_777), hard_link("h", "l").mode(0o120_777)]),
            &["h -> t", "l -> t"],
        ),
        exact(
            "a hard link with the types of a directory and of nothing in its mode",
            tar(&[
                file("f", "x"),
                hard_link("g", "f").mode(0o040_755),
                hard_link("h", "f").mode(0o7_777_777),
            ]),
            &["f file \"x\"", "g file \"x\"", "h file \"x\""],
        ),
        exact(
            "a hard link whose owner is none",
            tar(&[file("f", "x").owner(1, 2), hard_link("h", "f").owner(4_294_967_295, 4_294_967_295)]),
            &["f file \"x\", owner 1:2", "h file \"x\", owner 1:2"],
        ),
        refused(
            "a hard link whose owner is beyond 32 bits",
            tar(&[file("f", "x"), hard_link("h", "f").owner(4_294_967_296, 0)]),
        ),
        refused(
            "a hard link whose mode is no number",
            tar(&[file("f", "x"), hard_link("h", "f").patch(100, b"junk\0")]),
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
        exact(
            "a symlink to ., gone through many times",
            tar(&[symlink("l", "."), file("l/l/l/l/x", "x")]),
            &["l -> .", "x file \"x\""],
        ),
        exact(
            "a symlink to .. at the root: the root is its own parent",
            tar(&[symlink("up", ".."), file("up/up/x", "x")]),
            &["up -> ..", "x file \"x\""],
        ),
        exact("symlinks one after the other, as many as a name may lead over", chain(30), &chained(30)),
        refused("more symlinks one after the other than a name may lead over", chain(45)).saying("loop"),
        refused(
            "a file through a symlink into /proc of the machine",
            tar(&[symlink("l", "/proc/self/root"), file("l/x", "x")]),
        ),
        refused(
            "a file through a symlink to a descriptor of the machine",
            tar(&[symlink("l", "/proc/self/fd/3"), file("l/x", "x")]),
        ),
        exact(
            "a tree named as /proc, with a root of its own",
            tar(&[dir("proc/self/"), symlink("proc/self/root", "/"), file("proc/self/root/x", "x")]),
            &["proc directory, implied", "proc/self directory", "proc/self/root -> /", "x file \"x\""],
        ),
        refused(
            "an absolute symlink out, then a file through it",
            tar(&[symlink("l", "/layerbox-canary"), file("l/x", "x")]),
        ),
        exact(
            "an absolute symlink out, then a file over it",
            tar(&[symlink("l", "/layerbox-canary"), file("l", "x")]),
            &["l file \"x\""],
        ),
        exact(
            "a symlink out, then a directory over it, then a file below",
            tar(&[symlink("l", "../../victim"), dir("l/"), file("l/hello", "mine")]),
            &["l directory", "l/hello file \"mine\""],
        ),
        exact(
            "attributes of a symlink out stay on the link",
            tar(&[symlink("l", "../../victim/hello").owner(5, 6).mtime(7)]),
            &["l -> ../../victim/hello, time 7, owner 5:6"],
        ),
        exact(
            "a symlink out with a trusted attribute",
            tar(&[symlink("l", "../../victim/hello").xattr("trusted.layer", "v")]),
            &["l -> ../../victim/hello, trusted.layer=v"],
        ),
        refused(
            "a directory that becomes a symlink when it holds what is linked to",
            tar(&[dir("bin/"), file("bin/sh", "x"), symlink("bin", "usr/bin"), file("bin/x", "y")]),
        )
        .saying("bin/x"),
        exact(
            "a symlink target with a newline and bytes that are not UTF-8",
            tar(&[symlink("l", b"a\n\xff".to_vec())]),
            &["l -> a\\n\\xff"],
        ),
        refused("a symlink target with a NUL in its field", tar(&[symlink("l", "t").patch(159, b"u")])),
        refused(
            "a hard link through a symlink in its directory",
            tar(&[dir("d/"), file("d/f", "x"), symlink("l", "d"), file("l/g", "y"), hard_link("h", "l/g")]),
        ),
        exact(
            "a hard link to what came through a symlink, by its real name",
            tar(&[dir("d/"), symlink("l", "d"), file("l/g", "y"), hard_link("l/h", "d/g")]),
            &["d directory", "d/g file \"y\"", "d/h file \"y\"", "l -> d"],
        ),
        refused("a hard link by ..", tar(&[dir("d/"), file("f", "x"), hard_link("h", "d/../f")])),
        refused(
            "a hard link to a name with a slash at its end",
            tar(&[file("f", "x"), hard_link("h", "f/")]),
        ),
        refused("a hard link to the root", tar(&[hard_link("h", "./")])),
        refused(
            "a hard link to itself by another way of writing it",
            tar(&[file("f", "x"), hard_link("./f", "/f")]),
        ),
        refused(
            "a hard link to itself through a symlink",
            tar(&[dir("d/"), file("d/f", "x"), symlink("l", "d"), hard_link("l/f", "d/f")]),
        ),
        refused(
            "a hard link over the directory that holds its target",
            tar(&[dir("d/"), file("d/f", "x"), hard_link("d", "d/f")]),
        ),
        refused(
            "a hard link to what was replaced",
            tar(&[dir("d/"), file("d/f", "x"), file("d", "y"), hard_link("h", "d/f")]),
        )
        .saying("h"),
        refused(
            "a hard link to a file that has a body of its own",
            tar(&[file("f", "x"), hard_link("h", "f").size(1)]),
        ),
        exact(
            "a hard link to a FIFO and to a device",
            tar(&[member("f", b'6'), hard_link("g", "f"), character("c", 1, 3), hard_link("d", "c")]),
            &["c character 1:3", "d character 1:3", "f fifo", "g fifo"],
        ),
        refused(
            "a hard link to aufs' bookkeeping",
            tar(&[dir(".wh..wh.plnk/"), file(".wh..wh.plnk/1.2", "x"), hard_link("h", ".wh..wh.plnk/1.2")]),
        ),
        refused(
            "a hard link to the opaque mark",
            tar(&[dir("d/"), crate::archive::opaque("d"), hard_link("h", "d/.wh..wh..opq")]),
        ),
        refused("a hard link that is a whiteout", tar(&[file("f", "x"), hard_link(".wh.in-parent", "f")])),
        refused(
            "a hard link to a NUL in its field",
            tar(&[file("f", "x"), hard_link("h", "f").patch(159, b"g")]),
        ),
    ]
}

/// A directory, so many symlinks one to the next, and a file through the last.
fn chain(length: usize) -> Vec<u8> {
    let link = |number: usize| match number {
        0 => symlink("l00", "d"),
        _ => symlink(format!("l{number:02}"), format!("l{:02}", number - 1)),
    };
    let mut members = vec![dir("d/")];
    members.extend((0..length).map(link));
    members.push(file(format!("l{:02}/x", length - 1), "x"));
    tar(&members)
}

fn chained(length: usize) -> Vec<&'static str> {
    const LINES: [&str; 30] = [
        "l00 -> d",
        "l01 -> l00",
        "l02 -> l01",
        "l03 -> l02",
        "l04 -> l03",
        "l05 -> l04",
        "l06 -> l05",
        "l07 -> l06",
        "l08 -> l07",
        "l09 -> l08",
        "l10 -> l09",
        "l11 -> l10",
        "l12 -> l11",
        "l13 -> l12",
        "l14 -> l13",
        "l15 -> l14",
        "l16 -> l15",
        "l17 -> l16",
        "l18 -> l17",
        "l19 -> l18",
        "l20 -> l19",
        "l21 -> l20",
        "l22 -> l21",
        "l23 -> l22",
        "l24 -> l23",
        "l25 -> l24",
        "l26 -> l25",
        "l27 -> l26",
        "l28 -> l27",
        "l29 -> l28",
    ];
    [&["d directory", "d/x file \"x\""][..], &LINES[..length]].concat()
}
