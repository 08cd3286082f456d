//! Deletions that delete the wrong thing, or come in by the side door.

use crate::archive::{Member, character, dir, file, hard_link, member, opaque, symlink, whiteout};

use super::{Row, exact, names, refused, tar};
use crate::look::show;

pub(super) fn rows() -> Vec<Row> {
    vec![
        refused("of the empty name", tar(&[file(".wh.", "")])).saying(".wh."),
        refused("of the directory itself, .", tar(&[file(".wh..", "")])),
        refused("of the parent, ..", tar(&[file("d/.wh...", "")])),
        exact("of a whiteout at the root, where it is bookkeeping", tar(&[file(".wh..wh.x", "")]), &[]),
        refused("of a whiteout, nested", tar(&[file("d/.wh..wh.x", "")])),
        refused("in the middle of a name", tar(&[file(".wh.d/file", "x")])),
        refused("that is a directory", tar(&[dir(".wh.d/")])),
        refused("that is a symlink", tar(&[symlink(".wh.d", "x")])),
        refused("opaque mark that is a directory", tar(&[dir("d/.wh..wh..opq/")])),
        exact(
            "that is a hard link to another",
            tar(&[whiteout("in-parent"), hard_link("d/.wh.lower", ".wh.in-parent")]),
            &["d directory, implied", "d/lower deleted", "in-parent deleted"],
        ),
        exact(
            "opaque mark that is a hard link to a whiteout",
            tar(&[whiteout("in-parent"), dir("d/"), hard_link("d/.wh..wh..opq", ".wh.in-parent")]),
            &["d directory", "d/ opaque", "in-parent deleted"],
        ),
        exact(
            "that are hard links to aufs' bookkeeping: a branch of aufs",
            tar(&[
                dir("./"),
                file("./.wh..wh.aufs", "").mode(0o444),
                dir("./d/"),
                hard_link("./d/.wh.lower", "./.wh..wh.aufs").mode(0o444),
                dir("./o/"),
                hard_link("./o/.wh..wh..opq", "./.wh..wh.aufs"),
                hard_link("./.wh.in-parent", "./.wh..wh.aufs").mode(0o444),
                dir("./.wh..wh.orph/").mode(0o700),
                dir("./.wh..wh.plnk/").mode(0o700),
                file("./a", "x"),
            ]),
            &[
                "a file \"x\"",
                "d directory",
                "d/lower deleted",
                "in-parent deleted",
                "o directory",
                "o/ opaque",
            ],
        ),
        exact(
            "that is a hard link to an opaque mark",
            tar(&[dir("d/"), opaque("d"), hard_link(".wh.in-parent", "d/.wh..wh..opq")]),
            &["d directory", "d/ opaque", "in-parent deleted"],
        ),
        refused("that is a hard link to a directory", tar(&[dir("d/"), hard_link(".wh.x", "d")])),
        refused("that is a hard link to what no whiteout can be named", tar(&[hard_link(".wh.x", "d/.wh.")])),
        refused("that is a hard link out", tar(&[hard_link(".wh.x", "../victim/.wh.hello")])),
        refused(
            "that is a hard link and has a body",
            tar(&[whiteout("a"), hard_link(".wh.x", ".wh.a").size(1)]),
        ),
        refused("opaque mark that is a hard link to a file", {
            tar(&[file("f", "x"), dir("d/"), hard_link("d/.wh..wh..opq", "f")])
        }),
        exact("of a lower file", tar(&[whiteout("in-parent")]), &["in-parent deleted"]),
        exact("with a body that is ignored", tar(&[file(".wh.in-parent", "body")]), &["in-parent deleted"]),
        exact(
            "below a symlink to a directory of the layer",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("l/lower")]),
            &["d directory", "d/lower deleted", "l -> d"],
        ),
        exact(
            "below a symlink out: it deletes in the layer, as in a chroot",
            tar(&[dir("victim/"), symlink("l", "../../victim"), whiteout("l/hello")]),
            &["l -> ../../victim", "victim directory", "victim/hello deleted"],
        ),
        exact(
            "below a symlink that comes again",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("l/lower"), symlink("l", "d")]),
            &["d directory", "d/lower deleted", "l -> d"],
        ),
        exact(
            "below a symlink that leads elsewhere afterwards",
            tar(&[dir("d/"), dir("e/"), symlink("l", "d"), whiteout("l/lower"), symlink("l", "e")]),
            &["d directory", "d/lower deleted", "e directory", "l -> e"],
        ),
        exact(
            "below a symlink that becomes a file",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("l/lower"), file("l", "x")]),
            &["d directory", "d/lower deleted", "l file \"x\""],
        ),
        exact(
            "below a symlink that becomes a directory",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("l/lower"), dir("l/"), whiteout("l/behind")]),
            &["d directory", "d/lower deleted", "l directory", "l/behind deleted"],
        ),
        exact(
            "below symlinks over each other that become files",
            tar(&[
                dir("d/"),
                dir("d/e/"),
                symlink("d/up", "e/.././"),
                symlink("l", "/d//up/"),
                hard_link("k", "l"),
                whiteout("k/up/new/lower"),
                file("k/up", "1"),
                file("l", "2"),
                file("k", "3"),
            ]),
            &[
                "d directory",
                "d/e directory",
                "d/new directory, implied",
                "d/new/lower deleted",
                "d/up file \"1\"",
                "k file \"3\"",
                "l file \"2\"",
            ],
        ),
        exact(
            "below a symlink, in a directory that becomes a file",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("l/e/lower"), opaque("l/e"), file("d/e", "x")]),
            &["d directory", "d/e file \"x\"", "l -> d"],
        ),
        exact(
            "in a directory that becomes a file below a symlink",
            tar(&[dir("d/"), symlink("l", "d"), whiteout("d/e/lower"), file("l/e", "x")]),
            &["d directory", "d/e file \"x\"", "l -> d"],
        ),
        refused(
            "below a symlink whose directory comes later",
            tar(&[symlink("l", "d"), whiteout("l/lower"), dir("d/")]),
        )
        .saying("l/.wh.lower"),
        refused(
            "below a symlink to nothing that becomes a file",
            tar(&[symlink("l", "d"), whiteout("l/lower"), file("l", "x")]),
        )
        .saying("l/.wh.lower"),
        exact(
            "below a symlink to a directory that only a whiteout speaks of",
            tar(&[whiteout("d/x"), symlink("l", "d"), whiteout("l/y"), file("l", "1")]),
            &["d directory, implied", "d/x deleted", "d/y deleted", "l file \"1\""],
        ),
        exact(
            "below a symlink to a directory that only an opaque mark speaks of",
            tar(&[opaque("d/e"), symlink("l", "d"), whiteout("l/y"), file("l", "1")]),
            &["d directory, implied", "d/e directory, implied", "d/e/ opaque", "d/y deleted", "l file \"1\""],
        ),
        exact(
            "in a directory that comes later, with attributes",
            tar(&[whiteout("d/e/x"), dir("d/e/").mode(0o700).owner(5, 6).mtime(7)]),
            &["d directory, implied", "d/e directory, time 7, mode 0700, owner 5:6", "d/e/x deleted"],
        ),
        refused("below a symlink to a file", tar(&[file("f", "x"), symlink("l", "f"), whiteout("l/lower")]))
            .saying("l/.wh.lower"),
        refused(
            "below a symlink out to what the layer does not have",
            tar(&[symlink("l", "../../victim"), whiteout("l/hello")]),
        ),
        exact(
            "and a file of the same name after it",
            tar(&[whiteout("in-parent"), file("in-parent", "new")]),
            &["in-parent file \"new\""],
        ),
        exact(
            "and a file of the same name before it",
            tar(&[file("in-parent", "new"), whiteout("in-parent")]),
            &["in-parent file \"new\""],
        ),
        exact(
            "opaque in the middle: what the archive holds survives",
            tar(&[file("d/a", "a"), opaque("d"), file("d/b", "b")]),
            &["d directory, implied", "d/ opaque", "d/a file \"a\"", "d/b file \"b\""],
        ),
        exact("an opaque root", tar(&[opaque(""), file("a", "x")]), &["/ opaque", "a file \"x\""]),
        exact(
            "of a directory that comes anew",
            tar(&[whiteout("d"), dir("d/"), file("d/x", "x")]),
            &["d directory", "d/ opaque", "d/x file \"x\""],
        ),
        exact(
            "of a directory whose name a file takes",
            tar(&[whiteout("d"), file("d", "x")]),
            &["d file \"x\""],
        ),
        exact(
            "aufs' bookkeeping at the root is dropped",
            tar(&[
                file(".wh..wh.aufs", ""),
                dir(".wh..wh.plnk/"),
                file(".wh..wh.plnk/1.2", "x"),
                dir(".wh..wh.orph/"),
                file("a", "x"),
            ]),
            &["a file \"x\""],
        ),
        refused("aufs' bookkeeping elsewhere", tar(&[file("d/.wh..wh.aufs", "")])),
        refused("a device 0:0", tar(&[character("dev", 0, 0)])).saying("dev"),
        refused("trusted.overlay.opaque", tar(&[dir("d/").xattr("trusted.overlay.opaque", "y")])),
        refused(
            "trusted.overlay.redirect",
            tar(&[dir("d/").xattr("trusted.overlay.redirect", "/../victim")]),
        ),
        refused("trusted.overlay.metacopy", tar(&[file("f", "x").xattr("trusted.overlay.metacopy", "")])),
        refused("user.overlay.opaque", tar(&[dir("d/").xattr("user.overlay.opaque", "y")])),
        exact(
            "a whiteout of something with a long name",
            tar(&[whiteout(&"n".repeat(251))]),
            &[&format!("{} deleted", show(&[b'n'; 251]))],
        ),
        refused("a whiteout over 255 bytes", tar(&[whiteout(&"n".repeat(252))])),
        refused("with a slash at its end", tar(&[file(".wh.x/", "")])),
        refused("of nothing, as a directory", tar(&[dir(".wh./")])),
        refused("that is a FIFO", tar(&[member(".wh.d", b'6')])),
        refused("that is a device", tar(&[character(".wh.d", 1, 3)])),
        refused("of the whiteout of a name", tar(&[file("d/.wh..wh.d", "")])),
        exact("twice", tar(&[whiteout("in-parent"), whiteout("in-parent")]), &["in-parent deleted"]),
        exact("of what no lower layer has", tar(&[whiteout("never")]), &["never deleted"]),
        exact(
            "of a name in a directory that no entry speaks of",
            tar(&[whiteout("d/lower")]),
            &["d directory, implied", "d/lower deleted"],
        ),
        exact(
            "of a directory and of what is in it",
            tar(&[whiteout("d"), whiteout("d/lower")]),
            &["d directory, implied", "d/ opaque"],
        ),
        exact(
            "in a directory that comes anew, and deep in it",
            tar(&[whiteout("d/lower"), whiteout("d"), dir("d/"), dir("d/e/"), whiteout("d/e/lower")]),
            &["d directory", "d/ opaque", "d/e directory"],
        ),
        exact(
            "in an opaque directory",
            tar(&[dir("d/"), whiteout("d/lower"), opaque("d"), file("d/x", "x")]),
            &["d directory", "d/ opaque", "d/x file \"x\""],
        ),
        exact(
            "in an opaque root",
            tar(&[opaque(""), whiteout("in-parent"), dir("d/"), whiteout("d/lower"), file("a", "x")]),
            &["/ opaque", "a file \"x\"", "d directory"],
        ),
        exact(
            "in an opaque directory by a symlink that leads out of it",
            tar(&[dir("d/"), dir("o/"), opaque("o"), symlink("o/l", "../d"), whiteout("o/l/lower")]),
            &["d directory", "d/lower deleted", "o directory", "o/ opaque", "o/l -> ../d"],
        ),
        exact(
            "in a directory of which a symlink takes the place, though it is deleted",
            tar(&[dir("d/"), whiteout("l"), symlink("l", "d"), whiteout("l/lower")]),
            &["d directory", "d/lower deleted", "l -> d"],
        ),
        exact(
            "of a directory of an opaque one, which comes anew",
            tar(&[opaque("d"), whiteout("d/e"), dir("d/e/"), whiteout("d/e/lower")]),
            &["d directory, implied", "d/ opaque", "d/e directory", "d/e/ opaque"],
        ),
        refused("below a file of an opaque directory", {
            tar(&[opaque("d"), file("d/f", "x"), whiteout("d/f/y")])
        })
        .saying("d/f/.wh.y"),
        exact(
            "of a name that the archive makes a symlink",
            tar(&[symlink("in-parent", "x"), whiteout("in-parent")]),
            &["in-parent -> x"],
        ),
        exact(
            "of a name below what the archive makes a file",
            tar(&[file("d/x", "1"), whiteout("d/x"), file("d", "2")]),
            &["d file \"2\""],
        ),
        exact(
            "of names below what becomes a symlink, and beside it",
            tar(&[
                dir("e/"),
                whiteout("d/x"),
                whiteout("d/y/z"),
                opaque("d/y"),
                whiteout("d.x"),
                whiteout("d0"),
                symlink("d", "e"),
                whiteout("d/behind"),
            ]),
            &["d -> e", "d.x deleted", "d0 deleted", "e directory", "e/behind deleted"],
        ),
        exact(
            "of a name below what is a file for a while",
            tar(&[whiteout("d/x"), file("d", "1"), dir("d/"), whiteout("d/y")]),
            &["d directory", "d/y deleted"],
        ),
        exact(
            "of a name below a directory that comes again, which it keeps",
            tar(&[dir("d/"), whiteout("d/x"), dir("d/")]),
            &["d directory", "d/x deleted"],
        ),
        refused("below a file", tar(&[file("f", "x"), whiteout("f/y")])).saying("f/.wh.y"),
        refused(
            "below a file that becomes a directory",
            tar(&[file("f", "x"), whiteout("f/y"), dir("f/"), file("f/z", "x")]),
        )
        .saying("f/.wh.y"),
        refused("deep below a file that goes", tar(&[file("d/f", "x"), whiteout("d/f/y/z"), file("d", "x")]))
            .saying("d/f/y/.wh.z"),
        refused("below a loop of symlinks", tar(&[symlink("l", "l"), whiteout("l/y")])),
        exact(
            "with attributes that say nothing",
            tar(&[whiteout("in-parent").mode(0o4777).owner(5, 6).xattr("user.x", "v")]),
            &["in-parent deleted"],
        ),
        exact(
            "opaque mark twice",
            tar(&[dir("d/"), opaque("d"), opaque("d")]),
            &["d directory", "d/ opaque"],
        ),
        exact(
            "opaque mark of a directory that no entry speaks of",
            tar(&[opaque("d/e")]),
            &["d directory, implied", "d/e directory, implied", "d/e/ opaque"],
        ),
        exact(
            "opaque mark in a symlink to a directory of the layer",
            tar(&[dir("d/"), symlink("l", "d"), opaque("l")]),
            &["d directory", "d/ opaque", "l -> d"],
        ),
        exact(
            "opaque mark in a symlink to a directory that only a whiteout speaks of",
            tar(&[whiteout("d/x"), symlink("l", "d"), opaque("l")]),
            &["d directory, implied", "d/ opaque", "l -> d"],
        ),
        exact(
            "opaque mark in a symlink that becomes a file",
            tar(&[dir("d/"), symlink("l", "d"), opaque("l"), file("l", "x")]),
            &["d directory", "d/ opaque", "l file \"x\""],
        ),
        refused("opaque mark in a symlink out", tar(&[symlink("l", "../../victim"), opaque("l")])),
        refused("opaque mark in a file", tar(&[file("f", "x"), opaque("f")])).saying("f/.wh..wh..opq"),
        refused(
            "opaque mark in a file that becomes a directory",
            tar(&[file("f", "x"), opaque("f"), dir("f/")]),
        )
        .saying("f/.wh..wh..opq"),
        refused("opaque mark that is a symlink", tar(&[dir("d/"), symlink("d/.wh..wh..opq", "x")])),
        refused("opaque mark that is a FIFO", tar(&[dir("d/"), member("d/.wh..wh..opq", b'6')])),
        refused("opaque mark on the way", tar(&[file("d/.wh..wh..opq/x", "x")])),
        exact(
            "opaque mark with a body that is ignored",
            tar(&[dir("d/"), file("d/.wh..wh..opq", "body")]),
            &["d directory", "d/ opaque"],
        ),
        exact(
            "opaque mark of a directory whose name a file takes",
            tar(&[dir("d/"), opaque("d"), file("e", "x")]),
            &["d directory", "d/ opaque", "e file \"x\""],
        ),
        exact(
            "opaque mark of a directory that becomes a file",
            tar(&[dir("d/"), opaque("d"), file("d", "x")]),
            &["d file \"x\""],
        ),
        exact(
            "a bookkeeping name that is nearly the opaque mark, at the root",
            tar(&[file(".wh..wh..opq.x", "x")]),
            &[],
        ),
        refused(
            "a bookkeeping name that is nearly the opaque mark, nested",
            tar(&[file("d/.wh..wh..opq.x", "x")]),
        ),
        refused("bookkeeping at the root, and .. in it", tar(&[file(".wh..wh.plnk/../../victim/x", "x")])),
        exact(
            "a body in bookkeeping is skipped",
            tar(&[file(".wh..wh.x", vec![7; 5000]), file("a", "x")]),
            &["a file \"x\""],
        ),
        exact(
            "a device 0:1 and a block device 0:0 are devices",
            tar(&[character("c", 0, 1), Member { kind: b'4', ..character("b", 0, 0) }]),
            &["b block 0:0", "c character 0:1"],
        ),
        refused("a device 0:0 over what is there", tar(&[file("f", "x"), character("f", 0, 0)])).saying("f"),
        refused("trusted.overlay.opaque under an encoded name", {
            tar(&[dir("d/").pax("LIBARCHIVE.xattr.trusted%2Eoverlay%2Eopaque", "eQ")])
        }),
        refused(
            "trusted.overlay with an escaped layer in it",
            tar(&[dir("d/").xattr("trusted.overlay.overlay.opaque", "y")]),
        ),
        refused("trusted.overlay.origin", tar(&[file("f", "x").xattr("trusted.overlay.origin", "\0")])),
        refused("user.overlay.whiteout", tar(&[file("f", "").xattr("user.overlay.whiteout", "")])),
        exact(
            "attributes whose names only begin as those of overlayfs",
            tar(&[file("f", "x").xattr("trusted.overlays", "v").xattr("trusted.overlay", "w")]),
            &["f file \"x\", trusted.overlay=w, trusted.overlays=v"],
        ),
        names(
            "40,000 in one directory",
            || tar(&(0..40_000).map(|number| whiteout(&format!("d/f{number}"))).collect::<Vec<_>>()),
            40_001,
        ),
    ]
}
