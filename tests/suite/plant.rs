//! Trees to archive: one that holds all that a layer can hold, and less of it for formats that hold less.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, mkfifo};

use crate::command::shell;

/// What a tree holds beside the ordinary.
#[derive(Debug, Clone, Copy)]
pub struct Features {
    /// Extended attributes of all three kinds, and access control lists.
    pub xattrs: bool,
    /// An extended attribute with `=` in its name, which PAX keys have only in a form that GNU tar made up
    /// (`%3D`).
    pub odd_xattrs: bool,
    /// Fractions of seconds, and times that octal digits cannot say.
    pub times: bool,
    /// Owners above 65535, and above what seven octal digits can say.
    pub owners: bool,
    /// Names and paths that a header of ustar has no room for, and names that are not UTF-8.
    pub names: bool,
    /// Long targets of links.
    pub targets: bool,
    /// A sparse file.
    pub sparse: bool,
}

impl Features {
    /// All of them.
    pub const ALL: Features = Features {
        xattrs: true,
        odd_xattrs: true,
        times: true,
        owners: true,
        names: true,
        targets: true,
        sparse: true,
    };
    /// None of them: what the oldest of the formats can hold.
    pub const PLAIN: Features = Features {
        xattrs: false,
        odd_xattrs: false,
        times: false,
        owners: false,
        names: false,
        targets: false,
        sparse: false,
    };
}

/// Plants the tree in a directory, which must exist.
///
/// # Errors
///
/// Something cannot be made: the file system or the user is not fit for the test.
pub fn plant(root: &Path, features: Features) -> Result<()> {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/sub"))?;
    fs::create_dir(at("empty-dir"))?;
    fs::write(at("dir/file"), "content\n")?;
    fs::write(at("dir/sub/block"), [b'b'; 512])?;
    fs::write(at("dir/sub/block+1"), [b'c'; 513])?;
    fs::write(at("empty"), "")?;
    fs::write(at("big"), (0..1_000_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>())?;
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2711), ("nothing", 0o000), ("all", 0o7777)] {
        fs::write(at(name), name)?;
        owner(&at(name), 1000, 1001)?;
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode))?;
    }
    fs::create_dir(at("sticky"))?;
    fs::set_permissions(at("sticky"), fs::Permissions::from_mode(0o1777))?;
    fs::create_dir(at("setgid-dir"))?;
    owner(&at("setgid-dir"), 0, 50)?;
    fs::set_permissions(at("setgid-dir"), fs::Permissions::from_mode(0o2775))?;
    fs::write(at("setgid-dir/inside"), "x")?;

    fs::write(at("link-a"), "linked")?;
    fs::hard_link(at("link-a"), at("link-b"))?;
    fs::hard_link(at("link-a"), at("dir/link-c"))?;
    symlink("dir/file", at("symlink"))?;
    symlink("/etc/passwd", at("symlink-absolute"))?;
    symlink("nowhere/at/all", at("symlink-dangling"))?;
    symlink("../../../outside", at("symlink-out"))?;
    owner(&at("symlink"), 12, 34)?;

    mknod(&at("character"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o620), makedev(1, 3))?;
    mknod(&at("block-device"), SFlag::S_IFBLK, Mode::from_bits_truncate(0o660), makedev(7, 255))?;
    mkfifo(&at("fifo"), Mode::from_bits_truncate(0o644))?;

    if features.names {
        plant_names(root)?;
    }
    if features.targets {
        symlink("t/".repeat(2047) + "t", at("symlink-4095"))?;
        symlink("u".repeat(101), at("symlink-101"))?;
    }
    if features.owners {
        for (name, uid, gid) in [("owner-65536", 65_536, 65_537), ("owner-2097152", 2_097_152, 4_294_967_294)]
        {
            fs::write(at(name), name)?;
            owner(&at(name), uid, gid)?;
        }
    }
    if features.sparse {
        let file = File::create(at("sparse"))?;
        file.set_len(64 << 20)?;
        for offset in [0, 1 << 20, (40 << 20) + 12345] {
            file.write_all_at(b"data in a sparse file", offset)?;
        }
        File::create(at("all-hole"))?.set_len(3 << 20)?;
    }
    if features.xattrs {
        plant_xattrs(root)?;
    }
    if features.odd_xattrs {
        xattr::set(root.join("empty"), "user.equals=sign%3D", b"a=b\nc")?;
    }
    plant_times(root, features.times)
}

fn plant_names(root: &Path) -> Result<()> {
    for length in [99, 100, 101, 155, 156, 254, 255] {
        fs::write(root.join("n".repeat(length)), length.to_string())?;
    }
    fs::create_dir(root.join("d".repeat(255)))?;
    // 3,000 bytes of path, with a file, a hard link and a symbolic link at its end.
    let mut deep = PathBuf::from("deep");
    while deep.as_os_str().len() + 201 < 3000 - 10 {
        deep.push("p".repeat(200));
    }
    let rest = 3000 - 10 - deep.as_os_str().len() - 1;
    deep.push("q".repeat(rest));
    fs::create_dir_all(root.join(&deep)).context("3,000 bytes of path")?;
    fs::write(root.join(&deep).join("123456789"), "deep")?;
    fs::hard_link(root.join(&deep).join("123456789"), root.join("link-of-deep"))?;
    for name in [
        &b"latin1-\xe9\xe8"[..],
        b"byte-\xff\xfe",
        "utf-8-\u{e9}\u{4e2d}".as_bytes(),
        b" space ",
        b"-dash",
        b"back\\slash",
    ] {
        fs::write(root.join(OsStr::from_bytes(name)), name)?;
    }
    fs::write(root.join("new\nline"), "n")?;
    fs::write(root.join("escape-\u{1b}[31m"), "e")?;
    fs::create_dir(root.join(OsStr::from_bytes(b"dir-\xff")))?;
    symlink(OsStr::from_bytes(b"target-\xfe"), root.join(OsStr::from_bytes(b"dir-\xff/link-\xfd")))?;
    Ok(())
}

fn plant_xattrs(root: &Path) -> Result<()> {
    fs::write(root.join("attributes"), "x")?;
    let value: Vec<u8> = (0..=255).collect();
    for (name, value) in
        [("user.text", &b"value"[..]), ("user.binary", &value), ("user.empty", b""), ("trusted.layer", b"t")]
    {
        xattr::set(root.join("attributes"), name, value).with_context(|| format!("xattr {name}"))?;
    }
    xattr::set(root.join("dir"), "user.of-a-directory", b"d")?;
    xattr::set(root.join("symlink"), "trusted.of-a-symlink", b"s")?;
    // Version 2 of the capability's form, little endian: effective, cap_net_raw permitted
    // (linux/capability.h).
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    fs::write(root.join("capable"), "c")?;
    owner(&root.join("capable"), 7, 8)?;
    fs::set_permissions(root.join("capable"), fs::Permissions::from_mode(0o6755))?;
    xattr::set(root.join("capable"), "security.capability", &capability)?;
    fs::write(root.join("acl"), "a")?;
    fs::create_dir(root.join("acl-dir"))?;
    shell(
        "setfacl -m u:1234:rw,g:99:r \"$1/acl\"; setfacl -m u:5:rx -d -m u:6:rwx,o::- \"$1/acl-dir\"",
        [root],
    )?;
    fs::write(root.join("acl-dir/inherits"), "i")?;
    Ok(())
}

/// Gives everything a time: the same whole second, or one of a row of difficult ones. Directories last, from
/// the leaves up.
fn plant_times(root: &Path, difficult: bool) -> Result<()> {
    const ROW: [(i64, i64); 8] = [
        (1_700_000_000, 123_456_789),
        (-1, 500_000_000),
        (-86_400 * 365 * 40, 1),
        (0, 0),
        (0, 999_999_999),
        (4_294_967_296, 7),
        (8_589_934_592, 0),
        (1_600_000_000, 0),
    ];
    fn visit(path: &Path, difficult: bool, count: &mut usize) -> Result<()> {
        if fs::symlink_metadata(path)?.is_dir() {
            let mut children =
                fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
            children.sort();
            for child in children {
                visit(&child, difficult, count)?;
            }
        }
        let (seconds, nanoseconds) =
            if difficult { ROW[*count % ROW.len()] } else { (1_500_000_000 + *count as i64, 0) };
        *count += 1;
        let time = TimeSpec::new(seconds, nanoseconds);
        utimensat(AT_FDCWD, path, &time, &time, UtimensatFlags::NoFollowSymlink)
            .with_context(|| format!("set the time of {}", path.display()))
    }
    visit(root, difficult, &mut 0)
}

fn owner(path: &Path, uid: u32, gid: u32) -> Result<()> {
    nix::unistd::fchownat(
        AT_FDCWD,
        path,
        Some(Uid::from_raw(uid)),
        Some(Gid::from_raw(gid)),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .with_context(|| format!("chown {}", path.display()))
}

/// Writes a file of this many bytes that no compression or hole makes smaller.
///
/// # Errors
///
/// It cannot be written.
pub fn noise(path: &Path, length: u64) -> Result<()> {
    let mut file = File::create(path)?;
    let mut noise = Noise::new(length);
    let mut buffer = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let part = usize::try_from(left.min(buffer.len() as u64))?;
        noise.fill(&mut buffer[..part]);
        file.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

/// A stream of bytes that look random and are the same every time (xorshift64*).
#[derive(Debug)]
pub struct Noise(u64);

impl Noise {
    /// A stream of its own for each seed.
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// The next bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        for chunk in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
