//! What archives say of a file beside its content.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use rustix::fs::XattrFlags;

use super::{Case, Context, Outcome, Scope, broad, case, diff_is, layer};
use crate::check::{equal, holds};
use crate::tar::{Archive, Entry, Header, Kind, records};
use crate::view;

pub(super) fn cases() -> Vec<Case> {
    use Scope::Each;
    vec![
        case(Each, "archive/keeps-modes", "all twelve bits, of all kinds", modes),
        case(Each, "archive/keeps-owners", "up to 2^32-2", owners),
        case(Each, "archive/keeps-times", "before 1970, after 2038, nanoseconds", times),
        case(
            Each,
            "archive/keeps-times-of-directories",
            "whatever is put into them afterwards",
            directory_times,
        ),
        case(Each, "archive/keeps-xattrs", "of files and directories, values that are bytes", xattrs),
        case(
            Each,
            "archive/keeps-capabilities",
            "with set-id bits and an owner, which take them away when set later",
            capabilities,
        ),
        case(Each, "archive/keeps-root-attributes", "an entry for the root where it says something", root),
        case(
            Each,
            "archive/root-without-an-entry-has-no-time",
            "0755, 0:0, time 0: the archive is the same each time",
            bare_root,
        ),
        case(
            Each,
            "archive/keeps-holes",
            "a sparse file takes no space, and its archive says all of it",
            holes,
        ),
        broad(
            Each,
            "archive/reads-access-control-lists-as-text",
            "as GNU tar writes them, with numbers for names",
            acl_text,
        ),
        broad(
            Each,
            "archive/labels-of-the-host-are-no-content",
            "of an empty layer, of a file, of a directory that is the same but for its label",
            labels,
        ),
        case(
            Each,
            "archive/hard-link-attributes-are-ignored",
            "those of the first name count",
            link_attributes,
        ),
    ]
}

fn round_trip(context: &Context<'_>, entries: &[Entry]) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, entries)?;
    diff_is(store.as_ref(), "a", entries)
}

fn modes(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::file("a", "").mode(0),
            Entry::file("b", "").mode(0o777),
            Entry::file("c", "x").mode(0o4755),
            Entry::file("d", "x").mode(0o2711),
            Entry::file("e", "").mode(0o1644),
            Entry::directory("f").mode(0o2775),
            Entry::file("f/g", "").mode(0o600),
            Entry::directory("h").mode(0),
            Entry::file("h/i", "").mode(0o400),
            Entry::directory("j").mode(0o1777),
            Entry::node("k", Kind::Fifo).mode(0o7777),
        ],
    )
}

fn owners(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::directory("a").owner(1000, 100),
            Entry::file("a/b", "").owner(0, 5),
            Entry::file("c", "x").owner(2_097_151, 2_097_152),
            Entry::file("d", "x").owner(u32::MAX - 1, u32::MAX - 1).mode(0o6755),
            Entry::symlink("e", "x").owner(7, 8),
        ],
    )
}

fn times(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::file("a", "").time(0, 0),
            Entry::file("b", "").time(1, 1),
            Entry::file("c", "").time(-1, 0),
            Entry::file("d", "").time(-1, 999_999_999),
            Entry::file("e", "").time(-2_000_000_000, 500_000_000),
            Entry::directory("f").time(4_000_000_000, 0),
            Entry::file("g", "").time(8_589_934_591, 0),
            Entry::file("h", "").time(8_589_934_592, 123_456_789),
            Entry::symlink("i", "x").time(5, 5),
            Entry::node("j", Kind::Fifo).time(-5, 5),
        ],
    )
}

fn directory_times(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let directories = [
        Entry::directory("a").time(10, 0),
        Entry::directory("a/b").time(20, 0),
        Entry::directory("a/b/c").time(30, 0),
    ];
    let files = [Entry::file("a/f", ""), Entry::file("a/b/f", ""), Entry::file("a/b/c/f", "")];
    let [a, b, c] = directories.clone();
    let [fa, fb, fc] = files.clone();
    layer(store.as_ref(), "before", None, &[directories.to_vec(), files.to_vec()].concat())?;
    layer(store.as_ref(), "after", None, &[files.to_vec(), directories.to_vec()].concat())?;
    for id in ["before", "after"] {
        let expected = [&a, &b, &c, &fc, &fb, &fa].map(Clone::clone);
        diff_is(store.as_ref(), id, &expected)?;
    }
    Ok(())
}

fn xattrs(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::directory("a").xattr("user.on-directory", "v").mode(0o555),
            Entry::file("b", "x").xattr("user.empty", "").xattr("user.bytes", b"\0\n =\xff").mode(0o444),
            Entry::file("c", "x").xattr("user.z", "1").xattr("user.a", "2").xattr("trusted.layerbox", "3"),
            Entry::file("d", "x").xattr("user.long", vec![b'v'; 2000]),
            Entry::symlink("e", "x").xattr("trusted.on-link", "v"),
            Entry::file("f", "").xattr(b"user.\xffbytes", "v"),
        ],
    )
}

/// `cap_net_raw` effective and permitted, as the kernel keeps it (capability.h, version 2).
pub(super) const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn capabilities(context: &Context<'_>) -> Outcome {
    round_trip(
        context,
        &[
            Entry::file("empty", "").mode(0o755).owner(3, 4).xattr("security.capability", CAPABILITY),
            Entry::file("ping", "x").mode(0o6755).owner(1000, 1000).xattr("security.capability", CAPABILITY),
        ],
    )
}

fn root(context: &Context<'_>) -> Outcome {
    let f = || Entry::file("f", "");
    let cases = [
        vec![Entry::directory("").mode(0o700).time(0, 0)],
        vec![Entry::directory("").owner(5, 6).time(7, 0), f()],
        vec![Entry::directory("").mode(0o1777).time(9, 0), f()],
        vec![Entry::directory("").time(1_600_000_000, 0), f()],
    ];
    cases.iter().try_for_each(|entries| round_trip(context, entries))
}

fn bare_root(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    layer(store.as_ref(), "a", None, &[Entry::file("f", "")])?;
    let found = view::node(&store.content_path("a"))?;
    equal("the root", found, crate::model::Node::bare())?;
    diff_is(store.as_ref(), "a", &[Entry::file("f", "")])
}

fn holes(context: &Context<'_>) -> Outcome {
    const SIZE: u64 = 16 << 20;
    const AT: u64 = 9 << 20;
    // GNU tar's sparse form 1.0: the map stands in front of the bytes: how many runs, and each run's offset
    // and length.
    let map = format!("2\n{AT}\n5\n{SIZE}\n0\n");
    let mut body = map.into_bytes();
    body.resize(512, 0);
    body.extend_from_slice(b"bytes");
    let size = SIZE.to_string();
    let keys: [(&[u8], &[u8]); 4] = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"sparse"),
        (b"GNU.sparse.realsize", size.as_bytes()),
    ];
    let header = Header::new(b'0').name(b"GNUSparseFile.0/sparse").size(body.len() as u64);
    let bytes = Archive::new().extension(b'x', &records(&keys)).member(header, &body).end();
    let store = context.quick()?;
    store.create("a", None)?;
    equal("bytes", store.apply("a", None, &bytes)?.bytes, SIZE)?;
    let found = fs::metadata(store.content_path("a").join("sparse"))?;
    equal("size", found.len(), SIZE)?;
    holds("it takes less than a megabyte", found.blocks() * 512 < 1 << 20)?;
    let entries = super::entries(store.as_ref(), "a")?;
    let mut expected = vec![0; SIZE as usize];
    expected[AT as usize..AT as usize + 5].copy_from_slice(b"bytes");
    holds("its archive says all of it", entries.first().is_some_and(|entry| entry.body == expected))?;
    Ok(())
}

fn link_attributes(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let file = Entry::file("f", "x").mode(0o640).owner(1, 2).time(3, 0);
    let link = Entry::hard_link("g", "f").mode(0o777).owner(8, 8).time(9, 9);
    layer(store.as_ref(), "a", None, &[file.clone(), link])?;
    let found = view::node(&store.content_path("a").join("g"))?;
    equal("the file by its second name", Some(found), crate::model::Node::of(&file))?;
    Ok(())
}

fn labels(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let label = |id: &str, name: &str| {
        let path = match name {
            "" => store.content_path(id),
            _ => store.content_path(id).join(name),
        };
        for attribute in ["security.selinux", "security.SMACK64", "security.evm"] {
            // A kernel that has such labels may not take this one, and then has one on the file already.
            let _ = rustix::fs::lsetxattr(&path, attribute, b"label", XattrFlags::empty());
        }
    };
    store.create("empty", None)?;
    label("empty", "");
    holds("the archive of an empty layer is 1,024 zeros", store.diff("empty", None)?.archive == [0; 1024])?;
    let entries = [Entry::directory("d"), Entry::file("d/f", "x").xattr("user.a", "b")];
    layer(store.as_ref(), "a", None, &entries)?;
    ["", "d", "d/f"].into_iter().for_each(|name| label("a", name));
    diff_is(store.as_ref(), "a", &entries)?;
    layer(store.as_ref(), "b", None, &entries[..1])?;
    layer(store.as_ref(), "c", None, &entries[..1])?;
    label("c", "d");
    holds("the difference is 1,024 zeros", store.diff("c", Some("b"))?.archive == [0; 1024])?;
    Ok(())
}

fn acl_text(context: &Context<'_>) -> Outcome {
    let store = context.quick()?;
    let texts: [(&[u8], &[u8]); 2] = [
        (b"f", b"user::rw-,user:1000:r-x,group::r--,mask::r--,other::r--"),
        // star's fourth field, newlines, another order.
        (b"g", b"other::r--\nmask::r--\nuser::rw-\nuser:somebody:r-x:1000\ngroup::r--\n"),
    ];
    let bytes = texts.iter().fold(Archive::new(), |archive, (name, text)| {
        let header = Header::new(b'0').name(name).numbers(0o644, (0, 0), 1_600_000_000, (0, 0));
        archive.extension(b'x', &records(&[(b"SCHILY.acl.access", text)])).member(header, b"")
    });
    store.create("a", None)?;
    store.apply("a", None, &bytes.end())?;
    let entry = |name: &str| Entry::file(name, "").xattr("system.posix_acl_access", acl(Some(1000)));
    diff_is(store.as_ref(), "a", &[entry("f"), entry("g")])
}

/// An access control list as the kernel keeps it: `rw-r--r--`, and perhaps a user who may read and execute.
pub(super) fn acl(user: Option<u32>) -> Vec<u8> {
    let none = u32::MAX;
    let mut entries = vec![(1u16, 6u16, none)];
    entries.extend(user.map(|user| (2, 5, user)));
    entries.push((4, 4, none));
    entries.extend(user.map(|_| (16, 4, none)));
    entries.push((32, 4, none));
    let entry = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    2u32.to_le_bytes().into_iter().chain(entries.into_iter().flat_map(entry)).collect()
}
