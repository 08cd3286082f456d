//! Ids in the values of extended attributes: access control lists name users and groups, and a file's
//! capabilities may be good only below one root (`include/uapi/linux/posix_acl_xattr.h`, `capability.h`;
//! `capabilities(7)`, "File capability extended attribute versioning").
//!
//! A value that is not in the kernel's form stays as it is; whether it can be stored, the kernel knows
//! better.

use super::{Direction, Owners};

/// The version of the kernel's form of access control lists.
const ACL_VERSION: u32 = 2;

/// The tags of entries about a user and about a group by number.
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// The revision of capabilities, in the upper byte of their first word.
const REVISION: u32 = 0xff00_0000;

/// Capabilities without a root, and their length in bytes.
const ROOTLESS: u32 = 0x0200_0000;
const ROOTLESS_LENGTH: usize = 20;

/// Capabilities that are good below one root, whose id comes last.
const ROOTED: u32 = 0x0300_0000;
const ROOTED_LENGTH: usize = 24;

/// The value of an attribute on the other side of the maps.
///
/// # Errors
/// What is not mapped, in words.
pub(super) fn map(
    owners: &Owners,
    direction: Direction,
    name: &[u8],
    value: Vec<u8>,
) -> Result<Vec<u8>, String> {
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => map_acl(owners, direction, value),
        b"security.capability" if !owners.maps.uids.is_empty() => map_capability(owners, direction, value),
        _ => Ok(value),
    }
}

fn map_acl(owners: &Owners, direction: Direction, mut value: Vec<u8>) -> Result<Vec<u8>, String> {
    let Some((version, entries)) = value.split_first_chunk_mut::<4>() else { return Ok(value) };
    let (entries, []) = entries.as_chunks_mut::<8>() else { return Ok(value) };
    if u32::from_le_bytes(*version) != ACL_VERSION {
        return Ok(value);
    }
    for [tag, tag_high, _, _, id @ ..] in entries {
        let number = u32::from_le_bytes(*id);
        *id = match u16::from_le_bytes([*tag, *tag_high]) {
            ACL_USER => owners.uid(number, direction)?,
            ACL_GROUP => owners.gid(number, direction)?,
            _ => continue,
        }
        .to_le_bytes();
    }
    Ok(value)
}

/// In an archive, capabilities without a root are those below the root of whoever unpacks it. On disk that is
/// the root of the maps, and without one it would be the machine's own.
fn map_capability(owners: &Owners, direction: Direction, mut value: Vec<u8>) -> Result<Vec<u8>, String> {
    let Some(&word) = value.first_chunk::<4>() else { return Ok(value) };
    let word = u32::from_le_bytes(word);
    let with = |revision: u32| (word & !REVISION | revision).to_le_bytes();
    match (direction, word & REVISION, value.len()) {
        (Direction::Outside, ROOTLESS, ROOTLESS_LENGTH) => {
            let root = owners.uid(0, direction)?;
            if root != 0 {
                value[..4].copy_from_slice(&with(ROOTED));
                value.extend_from_slice(&root.to_le_bytes());
            }
        }
        (_, ROOTED, ROOTED_LENGTH) => {
            let (rest, root) = value.split_at_mut(ROOTLESS_LENGTH);
            let mapped = owners.uid(u32::from_le_bytes([root[0], root[1], root[2], root[3]]), direction)?;
            root.copy_from_slice(&mapped.to_le_bytes());
            if direction == Direction::Inside && mapped == 0 {
                rest[..4].copy_from_slice(&with(ROOTLESS));
                value.truncate(ROOTLESS_LENGTH);
            }
        }
        _ => {}
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::super::{IdMaps, IdRange, Owners};

    const ACL: &[u8] = b"system.posix_acl_access";
    const CAPABILITY: &[u8] = b"security.capability";

    fn owners() -> Owners {
        let range = |outside| IdRange { inside: 0, outside, length: 1000 };
        Owners::new(IdMaps { uids: vec![range(100_000)], gids: vec![range(200_000)] }).unwrap()
    }

    fn acl(user: u32, group: u32) -> Vec<u8> {
        let entry = |tag: u8, id: u32| [&[tag, 0, 7, 0][..], &id.to_le_bytes()].concat();
        let none = u32::MAX;
        let entries = [entry(1, none), entry(2, user), entry(4, none), entry(8, group), entry(16, none)];
        [vec![2, 0, 0, 0], entries.concat(), entry(32, none)].concat()
    }

    fn capability(root: Option<u32>) -> Vec<u8> {
        let revision = if root.is_some() { 3 } else { 2 };
        let sets = [0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        [
            &[1, 0, 0, revision][..],
            &sets,
            &root.map(u32::to_le_bytes).into_iter().flatten().collect::<Vec<_>>(),
        ]
        .concat()
    }

    #[test]
    fn ids_are_mapped_both_ways() {
        let rows = [
            (ACL, acl(5, 7), acl(100_005, 200_007)),
            (&b"system.posix_acl_default"[..], acl(0, 999), acl(100_000, 200_999)),
            (CAPABILITY, capability(None), capability(Some(100_000))),
            (CAPABILITY, capability(Some(7)), capability(Some(100_007))),
        ];
        for (name, inside, outside) in rows {
            let found = owners().xattr_outside(name, inside.clone());
            assert_eq!(found.as_ref(), Ok(&outside), "{}", name.escape_ascii());
            assert_eq!(owners().xattr_inside(name, outside), Ok(inside), "{}", name.escape_ascii());
        }
    }

    #[test]
    fn what_is_not_mapped_is_told() {
        for (name, value, what) in [
            (ACL, acl(1000, 0), "uid 1000"),
            (ACL, acl(0, 1000), "gid 1000"),
            (CAPABILITY, capability(Some(1000)), "uid 1000"),
        ] {
            let error = owners().xattr_outside(name, value).unwrap_err();
            assert!(error.starts_with(what), "{error}");
        }
        let range = IdRange { inside: 1, outside: 100_000, length: 1000 };
        let rootless = Owners::new(IdMaps { uids: vec![range], gids: Vec::new() }).unwrap();
        assert!(rootless.xattr_outside(CAPABILITY, capability(None)).is_err());
        assert!(owners().xattr_inside(ACL, acl(5, 7)).is_err());
    }

    #[test]
    fn all_else_stays_as_it_is() {
        let long = [capability(None), vec![0]].concat();
        let foreign = [&[3, 0, 0, 0][..], &acl(5, 7)[4..]].concat();
        for (name, value) in [
            (ACL, b"".to_vec()),
            (ACL, acl(5, 7)[..18].to_vec()),
            (ACL, foreign),
            (CAPABILITY, b"all".to_vec()),
            (CAPABILITY, long),
            (CAPABILITY, capability(None)[..12].to_vec()),
            (b"user.a", acl(5, 7)),
        ] {
            assert_eq!(owners().xattr_outside(name, value.clone()), Ok(value.clone()));
            assert_eq!(owners().xattr_inside(name, value.clone()), Ok(value));
        }
        // The machine's own root's, laid there by hand or before there were maps.
        assert_eq!(owners().xattr_inside(CAPABILITY, capability(None)), Ok(capability(None)));
        let none = Owners::new(IdMaps { uids: Vec::new(), gids: Vec::new() }).unwrap();
        for (name, value) in
            [(ACL, acl(5, 7)), (CAPABILITY, capability(None)), (CAPABILITY, capability(Some(0)))]
        {
            assert_eq!(none.xattr_outside(name, value.clone()), Ok(value.clone()));
            assert_eq!(none.xattr_inside(name, value.clone()), Ok(value));
        }
    }
}
