//! Archives that are small to send and large to unpack, or ask for more than there is.

use super::{Row, bytes, empty_files, entries, exact, limit, names, tar};
use crate::archive::{Tar, dir, file, hard_link, member, symlink, whiteout};

pub(super) fn rows() -> Vec<Row> {
    vec![
        limit("a body larger than the set bound", tar(&[file("a", vec![0; 2 << 20])]))
            .bounds(bytes(1 << 20))
            .saying("bytes (1048576)"),
        exact(
            "a body as large as the set bound",
            tar(&[file("a", vec![7; 1 << 20])]),
            &["a file of 1048576"],
        )
        .bounds(bytes(1 << 20)),
        limit("two bodies that are larger together than the set bound", {
            tar(&[file("a", vec![7; 1 << 19]), file("b", vec![7; (1 << 19) + 1])])
        })
        .bounds(bytes(1 << 20)),
        limit("bodies that replace each other are counted all", {
            tar(&[file("a", vec![7; 1 << 19]), file("a", vec![7; 1 << 19]), file("a", "x")])
        })
        .bounds(bytes(1 << 20)),
        limit("extended attributes that are larger together than the set bound", {
            let marked = |name: &str| file(name, "").xattr("user.x", vec![b'v'; 600]);
            tar(&[marked("a"), marked("b")])
        })
        .bounds(bytes(1000))
        .saying("bytes (1000)"),
        limit("targets of symbolic links that are larger together than the set bound", {
            tar(&[symlink("a", "t/".repeat(300)), symlink("b", "t/".repeat(300))])
        })
        .bounds(bytes(1000))
        .saying("bytes (1000)"),
        limit("more entries than the set bound", empty_files("f", 2000))
            .bounds(entries(1000))
            .saying("entries (1000)"),
        limit("ten thousand empty files and one", || empty_files("f", 10_001)).bounds(entries(10_000)),
        names("ten thousand empty files", || empty_files("f", 10_000), 10_000).bounds(entries(10_000)),
        limit("entries that replace each other are counted all", tar(&vec![file("a", "x"); 11]))
            .bounds(entries(10)),
        limit("symlinks, hard links and directories are counted", {
            tar(&[file("a", "x"), hard_link("b", "a"), symlink("c", "a"), dir("d/")])
        })
        .bounds(entries(3)),
        limit("whiteouts are counted", tar(&[whiteout("a"), whiteout("b"), whiteout("c")]))
            .bounds(entries(2)),
        limit("directories that no entry speaks of are counted", tar(&[file("d/".repeat(500) + "f", "x")]))
            .bounds(entries(100)),
        limit(
            "a size that no disk has, and no body",
            Tar::new().raw(&member("a", b'0').size(1 << 62).header()).bytes(),
        ),
        limit("sizes that add up beyond 64 bits", {
            let header = member("a", b'0').size((1 << 63) - 1024).header();
            Tar::new().raw(&header).raw(&header).raw(&header).bytes()
        }),
        limit("bytes after the end of the archive that go on beyond all bounds", || {
            let mut bytes = tar(&[file("a", "x")]);
            bytes.resize(16 << 20, 0);
            bytes
        })
        .bounds(crate::Bounds { entries: Some(1), bytes: Some(1), ..crate::Bounds::default() }),
        limit("attributes of directories, which are kept to the end, of more than 64 MiB", || {
            let mut tar = Tar::new();
            for number in 0..70 {
                let values = (0..16).fold(dir(format!("d{number}/")), |dir, value| {
                    dir.xattr(&format!("user.n{value}"), vec![b'v'; 60 << 10])
                });
                tar.add(&values);
            }
            tar.finish()
        })
        .saying("67108864"),
        exact(
            "directories deep and wide",
            tar(&(0..2).map(|number| dir(format!("d{number}/e/"))).collect::<Vec<_>>()),
            &["d0 directory, implied", "d0/e directory", "d1 directory, implied", "d1/e directory"],
        ),
    ]
}
