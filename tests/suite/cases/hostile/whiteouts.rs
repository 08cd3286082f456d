//! Deletions that delete the wrong thing, or come in by the side door.

use layerbox_tests::archive::{character, dir, file, opaque, symlink, whiteout};

use super::{Row, exact, refused, tar};
use crate::store::Dialect;

pub(super) fn rows() -> Vec<Row> {
    vec![
        refused("of the empty name", tar(&[file(".wh.", "")])).saying(".wh."),
        refused("of .", tar(&[file(".wh..", "")])),
        refused("of ..", tar(&[file("d/.wh...", "")])),
        exact("of a whiteout at the root, where it is bookkeeping", tar(&[file(".wh..wh.x", "")]), &[]),
        refused("of a whiteout, nested", tar(&[file("d/.wh..wh.x", "")])),
        refused("in the middle of a name", tar(&[file(".wh.d/file", "x")])),
        refused("that is a directory", tar(&[dir(".wh.d/")])),
        refused("that is a symlink", tar(&[symlink(".wh.d", "x")])),
        refused("opaque mark that is a directory", tar(&[dir("d/.wh..wh..opq/")])),
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
        refused(
            "below a symlink out to what the layer does not have",
            tar(&[symlink("l", "../../victim"), whiteout("l/hello")]),
        ),
        exact(
            "and a file of the same name after it",
            tar(&[whiteout("in-parent"), file("in-parent", "new")]),
            &["in-parent file of 3"],
        ),
        exact(
            "and a file of the same name before it",
            tar(&[file("in-parent", "new"), whiteout("in-parent")]),
            &["in-parent file of 3"],
        ),
        exact(
            "opaque in the middle: what the archive holds survives",
            tar(&[file("d/a", "a"), opaque("d"), file("d/b", "b")]),
            &["d directory", "d/ opaque", "d/a file of 1", "d/b file of 1"],
        ),
        exact("an opaque root", tar(&[opaque(""), file("a", "x")]), &["/ opaque", "a file of 1"]),
        exact(
            "of a directory that comes anew",
            tar(&[whiteout("d"), dir("d/"), file("d/x", "x")]),
            &["d directory", "d/ opaque", "d/x file of 1"],
        ),
        exact(
            "of a directory whose name a file takes",
            tar(&[whiteout("d"), file("d", "x")]),
            &["d file of 1"],
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
            &["a file of 1"],
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
            &[&format!("{} deleted", layerbox_tests::tree::show(&[b'n'; 251]))],
        )
        .only(Dialect::Overlay),
        refused("a whiteout over 255 bytes", tar(&[whiteout(&"n".repeat(252))])),
    ]
}
