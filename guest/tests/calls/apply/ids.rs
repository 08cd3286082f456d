//! Owners, in their fields and in extended attributes, and labels that mean something on one machine only.

use std::fs;
use std::os::unix::fs::MetadataExt;

use layerbox_guest::archive::{Member, MemberKind};
use layerbox_guest::host::{ApplyOptions, Error, IdMaps, IdRange};

use super::archive;
use crate::store::{DIALECTS, Store, options};

#[test]
fn owners_are_mapped_both_ways() {
    let range = IdRange { inside: 0, outside: 100_000, length: 1000 };
    let maps = IdMaps { uids: vec![range], gids: vec![range] };
    let with = |uid| archive().member("f", MemberKind::File(0), |it| it.uid = uid, b"").end();
    let store = Store::new(DIALECTS[1]);
    store.try_apply("a", &with(5), ApplyOptions { maps: maps.clone(), ..options() }).unwrap();
    let found = fs::metadata(store.path("a").join("f")).unwrap();
    assert_eq!((found.uid(), found.gid()), (100_005, 100_000));
    let refused = store.try_apply("b", &with(1000), ApplyOptions { maps, ..options() });
    assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
    let empty = IdRange { length: 0, ..range };
    let overlapping = IdRange { inside: 999, outside: 5, length: 2 };
    for (number, uids) in [vec![empty], vec![range, overlapping], vec![IdRange { length: u32::MAX, ..range }]]
        .into_iter()
        .enumerate()
    {
        let maps = IdMaps { uids, gids: Vec::new() };
        let found = store.try_apply(&format!("c{number}"), &with(0), ApplyOptions { maps, ..options() });
        assert!(matches!(found, Err(Error::InvalidArgument(_))), "{found:?}");
    }
}

#[test]
fn owners_of_hard_links_are_not_mapped() {
    let range = IdRange { inside: 0, outside: 100_000, length: 1000 };
    let maps = IdMaps { uids: vec![range], gids: vec![range] };
    let link = MemberKind::HardLink(b"f".to_vec());
    let archive = archive().file("f", "x").member("l", link, |it| (it.uid, it.mode) = (5000, 0o7777), b"");
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store
            .try_apply("a", &archive.clone().end(), ApplyOptions { maps: maps.clone(), ..options() })
            .unwrap();
        let found = fs::metadata(store.path("a").join("l")).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o7777), (100_000, 0o755));
    }
}

#[test]
fn ids_in_extended_attributes_are_mapped_both_ways() {
    let range = IdRange { inside: 0, outside: 100_000, length: 1000 };
    let maps = IdMaps { uids: vec![range], gids: vec![range] };
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let acl = |user: u32, group: u32| {
        let entries = [entry(1, 7, none), entry(2, 7, user), entry(4, 5, none), entry(8, 5, group)];
        [vec![2, 0, 0, 0], entries.concat(), entry(16, 7, none), entry(32, 5, none)].concat()
    };
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let rooted = [&[1, 0, 0, 3][..], &capability[4..], &100_000_u32.to_le_bytes()].concat();
    let with = |user| {
        archive().directory("").member(
            "f",
            MemberKind::File(0),
            |it| {
                it.mode = 0o775;
                it.xattrs = vec![
                    (b"security.capability".to_vec(), capability.to_vec()),
                    (b"system.posix_acl_access".to_vec(), acl(user, 7)),
                ];
            },
            b"",
        )
    };
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        let bytes = with(5).end();
        store.try_apply("a", &bytes, ApplyOptions { maps: maps.clone(), ..options() }).unwrap();
        let get = |name| xattr::get(store.path("a").join("f"), name).unwrap().unwrap();
        assert_eq!(get("system.posix_acl_access"), acl(100_005, 100_007), "{dialect:?}");
        assert_eq!(get("security.capability"), rooted, "{dialect:?}");
        let (found, _) = store.try_diff_with("a", None, maps.clone()).unwrap();
        assert!(found == bytes, "{dialect:?}: the archive that it came from");
        // Whom the maps do not have is refused as an owner would be, and is an error on the way out.
        let refused =
            store.try_apply("b", &with(1000).end(), ApplyOptions { maps: maps.clone(), ..options() });
        assert!(matches!(refused, Err(Error::Refused(_))), "{refused:?}");
        xattr::set(store.path("a").join("f"), "system.posix_acl_access", &acl(5, 7)).unwrap();
        let found = store.try_diff_with("a", None, maps.clone());
        assert!(matches!(found, Err(Error::Unsupported(_))), "{found:?}");
        // Those of a hard link are nobody's.
        let link = MemberKind::HardLink(b"f".to_vec());
        let list = vec![(b"system.posix_acl_access".to_vec(), acl(1000, 7))];
        let linked = with(5).member("l", link, |it| it.xattrs = list.clone(), b"").end();
        store.try_apply("c", &linked, ApplyOptions { maps: maps.clone(), ..options() }).unwrap();
        // Without maps all stays as it is.
        store.apply("d", &bytes);
        assert!(store.diff("d", None) == bytes, "{dialect:?}: without maps");
    }
}

#[test]
fn labels_of_the_host_are_not_taken() {
    let labels = ["security.SMACK64", "security.SMACK64EXEC", "security.evm", "security.selinux"];
    let labelled = |it: &mut Member| {
        it.xattrs.extend(labels.map(|name| (name.into(), b"label".to_vec())));
        it.xattrs.push((b"user.a".to_vec(), b"b".to_vec()));
    };
    let labelled = archive().member("f", MemberKind::File(0), labelled, b"").end();
    let content = |it: &mut Member| it.xattrs.push((b"user.a".to_vec(), b"b".to_vec()));
    let content = archive().member("f", MemberKind::File(0), content, b"").end();
    for dialect in DIALECTS {
        let store = Store::new(dialect);
        store.apply("a", &labelled);
        assert!(store.diff("a", None) == content, "{dialect:?}");
        for label in labels {
            assert_eq!(xattr::get(store.path("a").join("f"), label).unwrap(), None, "{dialect:?}: {label}");
        }
    }
}
