//! Attributes that mean something to the kernel, or nothing to anybody.

use layerbox_tests::archive::{Tar, character, dir, file, member, pax_records};

use super::{Row, exact, limit, refused, tar};

pub(super) fn rows() -> Vec<Row> {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let many = |count: usize| {
        (0..count).fold(file("a", "x"), |file, number| file.xattr(&format!("user.n{number}"), "v"))
    };
    vec![
        exact(
            "mode 6755 with a capability",
            tar(&[file("a", "x").mode(0o6755).owner(5, 6).xattr("security.capability", capability)]),
            &["a file of 1"],
        ),
        refused("the owner that is none (2^32-1)", tar(&[file("a", "x").owner(4_294_967_295, 0)])),
        refused("the group that is none (2^32-1)", tar(&[file("a", "x").owner(0, 4_294_967_295)])),
        refused("an owner beyond 32 bits", tar(&[file("a", "x").owner(4_294_967_296, 0)])),
        exact(
            "the largest owner that is one",
            tar(&[file("a", "x").owner(4_294_967_294, 4_294_967_294)]),
            &["a file of 1"],
        ),
        exact(
            "a time in 1901, which the file system just holds",
            tar(&[file("a", "x").mtime(-2_147_483_648)]),
            &["a file of 1"],
        ),
        exact(
            "a time with more digits than nanoseconds",
            tar(&[file("a", "x").pax("mtime", "1.1234567891234")]),
            &["a file of 1"],
        ),
        exact("a character device", tar(&[character("null", 1, 3)]), &["null character 1:3"]),
        exact(
            "a FIFO is made and never opened",
            tar(&[member("f", b'6'), file("g", "x")]),
            &["f fifo", "g file of 1"],
        ),
        exact("an entry in the place of a FIFO", tar(&[member("f", b'6'), file("f", "x")]), &["f file of 1"]),
        refused("a device number beyond what Linux has", tar(&[character("c", 4096, 0)])),
        refused("a minor number beyond what Linux has", tar(&[character("c", 1, 1 << 20)])),
        exact("64 extended attributes", tar(&[many(64)]), &["a file of 1"]),
        limit("65 extended attributes", tar(&[many(65)]), &[]),
        refused("an extended attribute without a name", tar(&[file("a", "x").pax("SCHILY.xattr.", "v")])),
        refused("an extended attribute in no namespace", tar(&[file("a", "x").xattr("nonsense", "v")])),
        limit(
            "an extended header of more than 1 MiB",
            Tar::new()
                .extended(b'x', &pax_records(&[(b"comment".to_vec(), vec![b'c'; 1 << 20])]))
                .add(&file("a", "x"))
                .finish(),
            &[],
        ),
        Row {
            options: vec!["--devices", "refuse"],
            ..refused("a device where devices are refused", tar(&[character("null", 1, 3)]))
        }
        .saying("null"),
        exact(
            "permission bits beyond the twelve in the mode",
            tar(&[file("a", "x").mode(0o100_644)]),
            &["a file of 1"],
        ),
        exact(
            "a directory that nobody may enter is filled all the same",
            tar(&[dir("d/").mode(0), file("d/f", "x")]),
            &["d directory", "d/f file of 1"],
        ),
        exact(
            "a directory whose default access list would hinder",
            tar(&[dir("d/").xattr("system.posix_acl_default", acl()), file("d/f", "x").mode(0o666)]),
            &["d directory", "d/f file of 1"],
        ),
    ]
}

/// A default list that gives nothing: the kernel's form (linux/posix_acl_xattr.h), version 2, entries of tag, permissions and id.
fn acl() -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions) in [(1u16, 0u16), (4, 0), (32, 0)] {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    }
    bytes
}
