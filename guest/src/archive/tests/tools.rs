//! Against the real tools: archives that they make are read as what they were made of, and archives that are
//! written here are listed by them as what was written. A tool that is not installed is passed over with a
//! message.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::archive::encode;
use crate::skip::skip;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("layerbox-archive-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whether a tool can be run; says so when it cannot.
fn has(tool: &str) -> bool {
    let found = Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        skip(&format!("{tool} is not installed, so its archives are not tested"), true);
    }
    found
}

fn run(tool: &str, arguments: &[&OsStr], directory: &Path) -> Vec<u8> {
    let output = Command::new(tool)
        .args(arguments)
        .current_dir(directory)
        .env("TZ", "UTC")
        .env("LC_ALL", "C")
        .output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{tool} {arguments:?}: {said}");
    output.stdout
}

fn words(line: &str) -> Vec<&OsStr> {
    line.split(' ').filter(|word| !word.is_empty()).map(OsStr::new).collect()
}

/// What the tools are to pack. Names longer than 100 bytes are left out of what the old formats are asked to
/// hold.
fn fill(root: &Path, long: bool) {
    let tree = root.join("tree");
    std::fs::create_dir_all(tree.join("d")).unwrap();
    std::fs::write(tree.join("d/file"), b"content\n").unwrap();
    std::fs::write(tree.join("empty"), b"").unwrap();
    std::fs::write(tree.join(OsStr::from_bytes(b"odd \n\xff name")), [7; 512]).unwrap();
    std::fs::set_permissions(tree.join("empty"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::fs::hard_link(tree.join("d/file"), tree.join("d/link")).unwrap();
    symlink("/../d//file/", tree.join("symlink")).unwrap();
    if long {
        let deep = tree.join("n".repeat(90)).join("o".repeat(90)).join("p".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), b"deep").unwrap();
        symlink("t".repeat(300), tree.join("long-target")).unwrap();
        std::fs::hard_link(deep.join("file"), deep.join("link")).unwrap();
    }
}

/// Fails unless the members are what lies in the directory, in some order.
fn compare(case: &str, root: &Path, members: &[(Member, Vec<u8>)]) {
    let mut seen = std::collections::BTreeMap::new();
    for (member, body) in members {
        let path = root.join(OsStr::from_bytes(&member.name));
        let status =
            std::fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{case}: {path:?}: {error}"));
        let kind = status.file_type();
        match &member.kind {
            MemberKind::Directory => assert!(kind.is_dir(), "{case}: {path:?}"),
            MemberKind::Symlink(target) => {
                assert_eq!(std::fs::read_link(&path).unwrap().as_os_str().as_bytes(), target, "{case}");
            }
            MemberKind::HardLink(target) => {
                let other = std::fs::symlink_metadata(root.join(OsStr::from_bytes(target))).unwrap();
                assert_eq!((other.ino(), other.dev()), (status.ino(), status.dev()), "{case}: {path:?}");
                assert!(seen.contains_key(target), "{case}: {path:?}");
            }
            MemberKind::File(size) => {
                let mut content = vec![0; usize::try_from(*size).unwrap()];
                let mut at = 0;
                for &(offset, length) in member.extents.as_deref().unwrap_or(&[(0, *size)]) {
                    let (offset, length) = (offset as usize, length as usize);
                    content[offset..offset + length].copy_from_slice(&body[at..at + length]);
                    at += length;
                }
                assert!(std::fs::read(&path).unwrap() == content, "{case}: {path:?}");
            }
            other => panic!("{case}: {other:?}"),
        }
        if !matches!(member.kind, MemberKind::HardLink(_)) {
            assert_eq!(member.mtime.seconds, status.mtime(), "{case}: {path:?}");
            assert_eq!(member.mode & 0o777, status.mode() & 0o777, "{case}: {path:?}");
            assert_eq!((member.uid, member.gid), (status.uid(), status.gid()), "{case}: {path:?}");
        }
        assert_eq!(seen.insert(member.name.clone(), ()), None, "{case}: {path:?} twice");
    }
    let expected = String::from_utf8_lossy(&run("find", &words("tree -printf x"), root)).len();
    assert_eq!(members.len(), expected, "{case}");
}

fn check(case: &str, root: &Path, tool: &str, line: &str) {
    let archive = run(tool, &words(line), root);
    let members = read(&archive).unwrap_or_else(|error| panic!("{case}: {error}"));
    compare(case, root, &members);
}

const PYTHON: &str = "import sys, tarfile\n\
    with tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=getattr(tarfile, sys.argv[1])) as archive:\n    \
    archive.add('tree')\n";

#[test]
fn archives_of_other_tools_are_read() {
    for long in [false, true] {
        let scratch = Scratch::new(if long { "long" } else { "short" });
        fill(&scratch.0, long);
        let formats =
            |all: &[&'static str], short: &[&'static str]| [all, if long { &[] } else { short }].concat();
        if has("tar") {
            for format in formats(&["gnu", "oldgnu", "pax"], &["ustar", "v7"]) {
                check(format, &scratch.0, "tar", &format!("--format={format} -cf - tree"));
            }
        }
        if has("bsdtar") {
            for format in formats(&["pax", "bsdtar", "gnutar"], &["ustar", "v7"]) {
                check(format, &scratch.0, "bsdtar", &format!("--format={format} -cf - tree"));
            }
        }
        if has("python3") {
            for format in formats(&["GNU_FORMAT", "PAX_FORMAT"], &["USTAR_FORMAT"]) {
                let output = run("python3", &["-c", PYTHON, format].map(OsStr::new), &scratch.0);
                compare(format, &scratch.0, &read(&output).unwrap());
            }
        }
    }
}

#[test]
fn sparse_archives_of_other_tools_are_read() {
    let scratch = Scratch::new("sparse");
    std::fs::create_dir(scratch.0.join("tree")).unwrap();
    // Enough regions for the old form to need more than its header.
    for (name, regions, size) in [("one", 1, 1 << 20), ("many", 60, 4 << 20), ("hole", 0, 1 << 20)] {
        let file = std::fs::File::create(scratch.0.join("tree").join(name)).unwrap();
        file.set_len(size).unwrap();
        for region in 0..regions {
            file.write_all_at(b"data", region * 65_536).unwrap();
        }
        file.sync_all().unwrap();
    }
    let mut lines = Vec::new();
    if has("tar") {
        lines.extend(
            ["0.0", "0.1", "1.0"].map(|version| ("tar", format!("--format=pax --sparse-version={version}"))),
        );
        lines.extend(["gnu", "oldgnu"].map(|format| ("tar", format!("--format={format}"))));
    }
    if has("bsdtar") {
        lines.push(("bsdtar", "--format=pax".to_owned()));
    }
    for (tool, format) in lines {
        let sparse = if tool == "tar" { "--sparse" } else { "" };
        let case = format!("{tool} {format}");
        let archive = run(tool, &words(&format!("{format} {sparse} -cf - tree")), &scratch.0);
        let members = read(&archive).unwrap_or_else(|error| panic!("{case}: {error}"));
        compare(&case, &scratch.0, &members);
        let sparse = members.iter().filter(|(member, _)| member.extents.is_some()).count();
        assert!(sparse > 0, "{case}: nothing sparse; does this file system have holes?");
    }
}

#[test]
fn extended_attributes_and_acls_of_other_tools_are_read() {
    let scratch = Scratch::new("xattrs");
    let tree = scratch.0.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let set = |tool: &str, line: &[&str]| Command::new(tool).args(line).current_dir(&tree).status();
    let prepared = [
        set("setfattr", &["-n", "user.a = b%", "-v", "0x00ff0a", "."]),
        set("setfacl", &["-m", "u:54321:rw-,g:0:r-x", "."]),
        set("setfacl", &["-d", "-m", "u:54321:---", "."]),
        // With an access list alone, of which GNU tar says that its default list is empty.
        set("mkdir", &["-m", "755", "../other"]),
        set("setfacl", &["-m", "u:54321:rwx", "../other"]),
    ];
    if !prepared.into_iter().all(|status| status.is_ok_and(|status| status.success())) {
        skip("attributes cannot be set here, so those of other tools are not tested", false);
        return;
    }
    let entry = |tag: u8, bits: u8, id: u32| [&[tag, 0, bits, 0][..], &id.to_le_bytes()].concat();
    let none = u32::MAX;
    let acl = |named: u8, group: &[Vec<u8>]| {
        let head = [vec![2, 0, 0, 0], entry(1, 7, none), entry(2, named, 54_321), entry(4, 5, none)].concat();
        [head, group.concat(), entry(16, 7, none), entry(32, 5, none)].concat()
    };
    let access = acl(6, &[entry(8, 5, 0)]);
    let mut default = acl(0, &[]);
    let mask = default.len() - 14;
    default[mask] = 5;
    let expected = [
        (&b"system.posix_acl_access"[..], access),
        (b"system.posix_acl_default", default),
        (b"user.a = b%", b"\0\xff\n".to_vec()),
    ];
    for tool in ["tar", "bsdtar"].into_iter().filter(|tool| has(tool)) {
        let archive = run(tool, &words("--format=pax --xattrs --acls -cf - tree"), &scratch.0);
        let member = read_one(&archive).unwrap();
        let found: Vec<_> = member.xattrs.iter().map(|(name, value)| (&name[..], value.clone())).collect();
        assert_eq!(found, expected, "{tool}");
        let archive = run(tool, &words("--format=pax --acls -cf - other"), &scratch.0);
        let member = read_one(&archive).unwrap();
        let found: Vec<_> = member.xattrs.iter().map(|(name, value)| (&name[..], value.clone())).collect();
        assert_eq!(found, [(&b"system.posix_acl_access"[..], acl(7, &[]))], "{tool}");
    }
}

/// What is written for the tools to list: every kind, and everything that needs a record.
fn odd_members() -> Vec<Member> {
    let long = "long-component/".repeat(20) + "end";
    let kind = |name: &str, kind| Member { kind, ..plain(name.as_bytes()) };
    vec![
        kind("", MemberKind::Directory),
        Member { kind: MemberKind::File(5), stored: 5, ..plain(b"file") },
        kind("dir", MemberKind::Directory),
        kind(&long, MemberKind::Directory),
        kind("link", MemberKind::Symlink(b"t".repeat(300))),
        kind("hard", MemberKind::HardLink(b"file".to_vec())),
        kind("char", MemberKind::CharacterDevice { major: 1, minor: 3 }),
        kind("block", MemberKind::BlockDevice { major: 8, minor: 70_000 }),
        kind("fifo", MemberKind::Fifo),
        Member { uid: 1 << 31, gid: 70_000_000, ..plain(b"owned") },
        Member { mtime: Timestamp { seconds: -2, nanoseconds: 500_000_000 }, ..plain(b"old") },
        Member { mtime: Timestamp { seconds: 1 << 34, nanoseconds: 1 }, ..plain(b"new") },
        Member { xattrs: vec![(b"user.a=b".to_vec(), b"\0\n".to_vec())], ..plain(b"attributed") },
        plain(&[&b"\xff"[..], &[b'b'; 150]].concat()),
    ]
}

#[test]
fn other_tools_list_what_is_written() {
    let members = odd_members();
    let mut bytes = Vec::new();
    for member in &members {
        encode(member, &mut bytes).unwrap();
        bytes.extend_from_slice(&padded(&vec![b'x'; member.stored as usize]));
    }
    bytes.extend_from_slice(&TRAILER);
    let scratch = Scratch::new("written");
    std::fs::write(scratch.0.join("archive.tar"), &bytes).unwrap();

    let letters: String = members
        .iter()
        .map(|member| match member.kind {
            MemberKind::File(_) => '-',
            MemberKind::Directory => 'd',
            MemberKind::Symlink(_) => 'l',
            MemberKind::HardLink(_) => 'h',
            MemberKind::CharacterDevice { .. } => 'c',
            MemberKind::BlockDevice { .. } => 'b',
            MemberKind::Fifo => 'p',
        })
        .collect();
    for tool in ["tar", "bsdtar"].into_iter().filter(|tool| has(tool)) {
        let list = String::from_utf8_lossy(&run(tool, &words("tvf archive.tar"), &scratch.0)).into_owned();
        let found: String = list.lines().filter_map(|line| line.chars().next()).collect();
        assert_eq!(found, letters, "{tool}:\n{list}");
        let line = |name: &str| {
            list.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}:\n{list}"))
        };
        assert!(line(" owned").contains("2147483648"), "{list}");
        assert!(line(" block").contains("8,"), "{list}");
        assert!(line(" link").ends_with(&"t".repeat(300)), "{list}");
        assert!(line(&"long-component/".repeat(20)).ends_with("end/"), "{list}");
    }
    if has("python3") {
        let script = "import sys, tarfile\n\
            for m in tarfile.open('archive.tar', errors='surrogateescape'):\n    \
            n = m.name.encode('utf-8', 'surrogateescape').hex()\n    \
            print(n, m.type.decode(), m.size, m.uid, m.gid, m.mtime, len(m.linkname), m.devmajor, m.devminor)\n";
        let list = run("python3", &["-c", script].map(OsStr::new), &scratch.0);
        let expected: String = members.iter().map(python_line).collect();
        assert_eq!(String::from_utf8(list).unwrap(), expected);
    }
}

fn python_line(member: &Member) -> String {
    let (flag, link, major, minor) = match &member.kind {
        MemberKind::File(_) => (0, 0, 0, 0),
        MemberKind::HardLink(target) => (1, target.len(), 0, 0),
        MemberKind::Symlink(target) => (2, target.len(), 0, 0),
        MemberKind::CharacterDevice { major, minor } => (3, 0, *major, *minor),
        MemberKind::BlockDevice { major, minor } => (4, 0, *major, *minor),
        MemberKind::Directory => (5, 0, 0, 0),
        MemberKind::Fifo => (6, 0, 0, 0),
    };
    let name = if member.name.is_empty() { b"." } else { &member.name[..] };
    let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
    let time = match member.mtime {
        Timestamp { seconds, nanoseconds: 0 } => seconds.to_string(),
        Timestamp { seconds, nanoseconds } => {
            let time = seconds as f64 + f64::from(nanoseconds) / 1e9;
            format!("{time:?}")
        }
    };
    format!("{name} {flag} {} {} {} {time} {link} {major} {minor}\n", member.stored, member.uid, member.gid)
}
