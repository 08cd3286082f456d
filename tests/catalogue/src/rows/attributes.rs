//! Attributes that mean something to the kernel, or nothing to anybody.

use crate::archive::{Member, Tar, character, dir, file, member, pax_records, symlink};
use crate::look::show;

use super::{Row, exact, limit, refused, tar};
use crate::Bounds;

pub(super) fn rows() -> Vec<Row> {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let many = |count: usize| {
        (0..count).fold(file("a", "x"), |file, number| file.xattr(&format!("user.n{number}"), "v"))
    };
    vec![
        exact(
            "mode 6755 with a capability",
            tar(&[file("a", "x").mode(0o6755).owner(5, 6).xattr("security.capability", capability)]),
            &[
                "a file \"x\", mode 6755, owner 5:6, security.capability=\\x01\\x00\\x00\\x02\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00",
            ],
        ),
        refused("the owner that is none (2^32-1)", tar(&[file("a", "x").owner(4_294_967_295, 0)])),
        refused("the group that is none (2^32-1)", tar(&[file("a", "x").owner(0, 4_294_967_295)])),
        refused("an owner beyond 32 bits", tar(&[file("a", "x").owner(4_294_967_296, 0)])),
        exact(
            "the largest owner that is one",
            tar(&[file("a", "x").owner(4_294_967_294, 4_294_967_294)]),
            &["a file \"x\", owner 4294967294:4294967294"],
        ),
        exact(
            "a time in 1901, which the file system just holds",
            tar(&[file("a", "x").mtime(-2_147_483_648)]),
            &["a file \"x\", time -2147483648"],
        ),
        exact(
            "a time with more digits than nanoseconds",
            tar(&[file("a", "x").pax("mtime", "1.1234567891234")]),
            &["a file \"x\", time 1.123456789"],
        ),
        exact("a character device", tar(&[character("null", 1, 3)]), &["null character 1:3"]),
        exact(
            "a FIFO is made and never opened",
            tar(&[member("f", b'6'), file("g", "x")]),
            &["f fifo", "g file \"x\""],
        ),
        exact(
            "an entry in the place of a FIFO",
            tar(&[member("f", b'6'), file("f", "x")]),
            &["f file \"x\""],
        ),
        refused("a device number beyond what Linux has", tar(&[character("c", 4096, 0)])),
        refused("a minor number beyond what Linux has", tar(&[character("c", 1, 1 << 20)])),
        exact(
            "64 extended attributes",
            tar(&[many(64)]),
            &[
                "a file \"x\", user.n0=v, user.n1=v, user.n10=v, user.n11=v, user.n12=v, user.n13=v, user.n14=v, user.n15=v, user.n16=v, user.n17=v, user.n18=v, user.n19=v, user.n2=v, user.n20=v, user.n21=v, user.n22=v, user.n23=v, user.n24=v, user.n25=v, user.n26=v, user.n27=v, user.n28=v, user.n29=v, user.n3=v, user.n30=v, user.n31=v, user.n32=v, user.n33=v, user.n34=v, user.n35=v, user.n36=v, user.n37=v, user.n38=v, user.n39=v, user.n4=v, user.n40=v, user.n41=v, user.n42=v, user.n43=v, user.n44=v, user.n45=v, user.n46=v, user.n47=v, user.n48=v, user.n49=v, user.n5=v, user.n50=v, user.n51=v, user.n52=v, user.n53=v, user.n54=v, user.n55=v, user.n56=v, user.n57=v, user.n58=v, user.n59=v, user.n6=v, user.n60=v, user.n61=v, user.n62=v, user.n63=v, user.n7=v, user.n8=v, user.n9=v",
            ],
        ),
        limit("65 extended attributes", tar(&[many(65)])),
        refused("an extended attribute without a name", tar(&[file("a", "x").pax("SCHILY.xattr.", "v")])),
        refused("an extended attribute in no namespace", tar(&[file("a", "x").xattr("nonsense", "v")]))
            .saying("nonsense"),
        limit(
            "an extended header of more than 1 MiB",
            Tar::new()
                .extended(b'x', &pax_records(&[(b"comment".to_vec(), vec![b'c'; 1 << 20])]))
                .add(&file("a", "x"))
                .finish(),
        ),
        refused("a device where devices are refused", tar(&[character("null", 1, 3)]))
            .bounds(Bounds { no_devices: true, ..Bounds::default() })
            .saying("null"),
        exact(
            "permission bits beyond the twelve in the mode",
            tar(&[file("a", "x").mode(0o100_644)]),
            &["a file \"x\""],
        ),
        exact(
            "a directory that nobody may enter is filled all the same",
            tar(&[dir("d/").mode(0), file("d/f", "x")]),
            &["d directory, mode 0000", "d/f file \"x\""],
        ),
        exact(
            "a directory whose default access list would hinder",
            tar(&[dir("d/").xattr("system.posix_acl_default", acl()), file("d/f", "x").mode(0o666)]),
            &[
                "d directory, system.posix_acl_default=\\x02\\x00\\x00\\x00\\x01\\x00\\x00\\x00\\xff\\xff\\xff\\xff\\x04\\x00\\x00\\x00\\xff\\xff\\xff\\xff \\x00\\x00\\x00\\xff\\xff\\xff\\xff",
                "d/f file \"x\", mode 0666",
            ],
        ),
        exact(
            "the largest device number",
            tar(&[character("c", 4095, (1 << 20) - 1)]),
            &["c character 4095:1048575"],
        ),
        exact(
            "a block device 8:0",
            tar(&[Member { kind: b'4', ..character("sda", 8, 0) }]),
            &["sda block 8:0"],
        ),
        refused(
            "a block device 8:0 where devices are refused",
            tar(&[Member { kind: b'4', ..character("sda", 8, 0) }]),
        )
        .bounds(Bounds { no_devices: true, ..Bounds::default() })
        .saying("sda"),
        refused(
            "a device number below zero",
            tar(&[character("c", 1, 3).patch(329, b"\xff\xff\xff\xff\xff\xff\xff\xff")]),
        ),
        exact(
            "set-group-ID of a directory is not passed on",
            tar(&[dir("d/").mode(0o2775).owner(0, 50), file("d/f", "x"), dir("d/e/")]),
            &["d directory, mode 2775, owner 0:50", "d/e directory", "d/f file \"x\""],
        ),
        exact(
            "set-group-ID and a default access list of the root are not passed on",
            {
                tar(&[
                    dir("./").mode(0o2775).owner(0, 50).xattr("system.posix_acl_default", acl()),
                    file("f", "x"),
                    dir("e/"),
                ])
            },
            &[
                &format!("/ directory, mode 2775, owner 0:50, system.posix_acl_default={}", show(&acl())),
                "e directory",
                "f file \"x\"",
            ],
        ),
        exact(
            "a sticky directory, and all twelve bits",
            tar(&[dir("d/").mode(0o1777), file("f", "x").mode(0o7777)]),
            &["d directory, mode 1777", "f file \"x\", mode 7777"],
        ),
        exact(
            "set-user-ID is kept after the change of owner",
            tar(&[file("f", "x").mode(0o4755).owner(1, 2)]),
            &["f file \"x\", mode 4755, owner 1:2"],
        ),
        exact(
            "a directory of mode 0 whose sub-directories are mode 0",
            tar(&[dir("d/").mode(0), dir("d/e/").mode(0), file("d/e/f", "x").mode(0)]),
            &["d directory, mode 0000", "d/e directory, mode 0000", "d/e/f file \"x\", mode 0000"],
        ),
        exact(
            "the root of mode 0",
            tar(&[dir("./").mode(0), file("f", "x")]),
            &["/ directory, mode 0000", "f file \"x\""],
        ),
        exact(
            "capabilities of a user namespace's root",
            {
                // Version 3: as version 2, and whose root it is.
                let mut namespaced = capability.to_vec();
                namespaced[3] = 3;
                namespaced.extend_from_slice(&1000u32.to_le_bytes());
                tar(&[file("a", "x").xattr("security.capability", namespaced)])
            },
            &[
                "a file \"x\", security.capability=\\x01\\x00\\x00\\x03\\x00 \\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\xe8\\x03\\x00\\x00",
            ],
        ),
        refused("capabilities that are none", tar(&[file("a", "x").xattr("security.capability", "all")]))
            .saying("a"),
        refused(
            "an access list that is none",
            tar(&[file("a", "x").xattr("system.posix_acl_access", "u::rwx")]),
        )
        .saying("a"),
        refused(
            "a default access list on a file",
            tar(&[file("a", "x").xattr("system.posix_acl_default", acl())]),
        )
        .saying("a"),
        refused(
            "an access list as text that is none",
            tar(&[file("a", "x").pax("SCHILY.acl.access", "all of them")]),
        ),
        exact(
            "a default access list as text that is empty",
            {
                let list = "user::rwx\nuser:54321:rwx\ngroup::r-x\nmask::rwx\nother::r-x\n";
                tar(&[dir("d/").mode(0o775).pax("SCHILY.acl.access", list).pax("SCHILY.acl.default", "\n")])
            },
            &[&format!("d directory, mode 0775, system.posix_acl_access={}", show(&named_acl()))],
        ),
        refused("an access list as text that is empty and as an attribute that is not", {
            tar(&[dir("d/").pax("SCHILY.acl.default", "\n").xattr("system.posix_acl_default", acl())])
        }),
        refused(
            "an access list as text with names of users",
            tar(&[file("a", "x")
                .pax("SCHILY.acl.access", "user::rw-,user:somebody:r--,group::r--,mask::r--,other::r--")]),
        ),
        refused(
            "an access list as text and as an attribute that says something else",
            tar(&[file("a", "x")
                .pax("SCHILY.acl.access", "user::rwx,group::r--,other::r--")
                .xattr("system.posix_acl_access", acl())]),
        ),
        refused(
            "an access list of another system",
            tar(&[file("a", "x").pax("SCHILY.acl.ace", "owner@:r::allow")]),
        ),
        refused(
            "a user attribute on a symlink, which no file system takes",
            tar(&[symlink("l", "t").xattr("user.x", "v")]),
        )
        .saying("l"),
        refused(
            "a user attribute on a FIFO, which no file system takes",
            tar(&[member("f", b'6').xattr("user.x", "v")]),
        )
        .saying("f"),
        refused(
            "a user attribute on a device, which no file system takes",
            tar(&[character("c", 1, 3).xattr("user.x", "v")]),
        )
        .saying("c"),
        refused(
            "an access list on a symlink, which no file system takes",
            tar(&[symlink("l", "t").xattr("system.posix_acl_access", acl())]),
        )
        .saying("l"),
        exact(
            "attributes of three namespaces",
            tar(&[file("a", "x").xattr("user.u", "1").xattr("trusted.t", "2").xattr("security.s", "3")]),
            &["a file \"x\", security.s=3, trusted.t=2, user.u=1"],
        ),
        exact(
            "a label of SELinux, as GNU tar writes it",
            tar(&[file("a", "x").pax("RHT.security.selinux", "u:r:t:s0")]),
            &["a file \"x\""],
        ),
        exact(
            "labels that a host gives to every file",
            tar(&[
                dir("./").xattr("security.selinux", "u:r:t:s0\0").mtime(0),
                file("a", "x")
                    .xattr("security.SMACK64", "label")
                    .xattr("security.SMACK64EXEC", "label")
                    .xattr("security.evm", "\x02seal")
                    .xattr("security.ima", "\x04content")
                    .xattr("user.a", "b"),
                symlink("l", "t").xattr("security.selinux", "u:r:t:s0\0"),
            ]),
            &["a file \"x\", security.ima=\\x04content, user.a=b", "l -> t"],
        ),
        refused(
            "an attribute of the namespace system that is no access list",
            tar(&[file("a", "x").xattr("system.nfs4_acl", "v")]),
        ),
        refused("an attribute named by its namespace alone", tar(&[file("a", "x").xattr("user.", "v")])),
        exact(
            "an attribute name of 255 bytes",
            tar(&[file("a", "x").xattr(&format!("user.{}", "n".repeat(250)), "v")]),
            &[&format!("a file \"x\", {}=v", show(format!("user.{}", "n".repeat(250)).as_bytes()))],
        ),
        refused(
            "an attribute name of 256 bytes",
            tar(&[file("a", "x").xattr(&format!("user.{}", "n".repeat(251)), "v")]),
        ),
        exact(
            "an attribute with an empty value",
            tar(&[file("a", "x").xattr("user.e", "")]),
            &["a file \"x\", user.e=/"],
        ),
        refused(
            "an attribute value of 64 KiB and a byte",
            tar(&[file("a", "x").xattr("user.x", vec![b'v'; (64 << 10) + 1])]),
        )
        .saying("user.x"),
        refused(
            "an attribute given twice, with different values",
            tar(&[file("a", "x").xattr("user.x", "1").pax("LIBARCHIVE.xattr.user.x", "Mg")]),
        ),
        exact(
            "an attribute given twice, in both notations",
            tar(&[file("a", "x").xattr("user.x", "1").pax("LIBARCHIVE.xattr.user.x", "MQ")]),
            &["a file \"x\", user.x=1"],
        ),
        refused(
            "an attribute whose value is no base 64",
            tar(&[file("a", "x").pax("LIBARCHIVE.xattr.user.x", "?")]),
        ),
        limit("attributes of more than 1 MiB", {
            tar(&[(0..17).fold(file("a", "x"), |file, number| {
                file.xattr(&format!("user.n{number}"), vec![b'v'; 62 << 10])
            })])
        }),
        exact(
            "a time of 292 billion years: what the file system can hold",
            tar(&[file("a", "x").pax("mtime", "9223372036854775807")]),
            &["a file \"x\""],
        )
        .any_time(),
        exact(
            "a time 292 billion years ago: what the file system can hold",
            tar(&[file("a", "x").pax("mtime", "-9223372036854775807")]),
            &["a file \"x\""],
        )
        .any_time(),
        refused(
            "a time before the first second that can be said",
            tar(&[file("a", "x").pax("mtime", "-9223372036854775807.5")]),
        ),
        refused(
            "a time before the first second that can be said, in base 256",
            tar(&[file("a", "x").patch(136, b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0")]),
        ),
        exact(
            "a time of a nanosecond before 1970",
            tar(&[file("a", "x").pax("mtime", "-0.000000001")]),
            &["a file \"x\", time -1.999999999"],
        ),
        exact(
            "times of directories, set when all is in them",
            tar(&[dir("d/").mtime(5), dir("d/e/").mtime(6), file("d/e/f", "x").mtime(7)]),
            &["d directory, time 5", "d/e directory, time 6", "d/e/f file \"x\", time 7"],
        ),
    ]
}

/// A list that lets a user do all.
fn named_acl() -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u16, 7u16, u32::MAX), (2, 7, 54_321), (4, 5, u32::MAX), (16, 7, u32::MAX), (32, 5, u32::MAX)]
    {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

/// A default list that gives nothing: the kernel's form (linux/posix_acl_xattr.h), version 2, entries of tag,
/// permissions and id.
fn acl() -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0];
    for (tag, permissions) in [(1u16, 0u16), (4, 0), (32, 0)] {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
    }
    bytes
}
