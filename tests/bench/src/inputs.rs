//! The archives that are measured. They are made once and kept in `target/bench`; but for the Debian root,
//! which is what debootstrap gives that day, they are the same bytes on every machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use layerbox_tests::archive::{
    BLOCK, Member, Tar, character, dir, file, hard_link, member, opaque, symlink, whiteout,
};
use layerbox_tests::command::{repository, run};
use layerbox_tests::fixture::debian_root;

/// The names of all inputs.
pub(crate) const ALL: [&str; 6] = ["base", "many", "links", "whiteouts", "big", "deep"];

/// An archive, and how many members it has.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) archive: PathBuf,
    pub(crate) entries: u64,
}

/// Where what takes long to make is kept.
pub(crate) fn cache() -> Result<PathBuf> {
    let directory = repository().join("target/bench");
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The archive of that name, made where it is not there yet.
pub(crate) fn input(name: &'static str) -> Result<Input> {
    let kept = cache()?.join(format!("{name}.tar"));
    let archive = match name {
        "base" => debian_root()?.unwrap_or_else(|| kept.clone()),
        _ => kept.clone(),
    };
    if !archive.exists() {
        make(name, &archive).with_context(|| format!("make {}", archive.display()))?;
    }
    let counted = cache()?.join(format!("{name}.entries"));
    if !counted.exists() {
        let list = run(Command::new("tar").arg("-tf").arg(&archive), b"")?.expect(0)?;
        fs::write(&counted, list.text().lines().count().to_string())?;
    }
    Ok(Input { name, archive, entries: fs::read_to_string(&counted)?.trim().parse()? })
}

fn make(name: &str, archive: &Path) -> Result<()> {
    let unfinished = archive.with_extension("new");
    let mut out = Out(BufWriter::new(File::create(&unfinished)?));
    match name {
        "many" => many(&mut out)?,
        "links" => links(&mut out)?,
        "whiteouts" => whiteouts(&mut out)?,
        "big" => big(&mut out)?,
        "deep" => deep(&mut out)?,
        _ => base(&mut out)?,
    }
    out.0.write_all(&[0; 2 * BLOCK])?;
    out.0.flush()?;
    Ok(fs::rename(&unfinished, archive)?)
}

struct Out(BufWriter<File>);

impl Out {
    fn add(&mut self, member: &Member) -> Result<()> {
        Ok(self.0.write_all(Tar::new().add(member).view())?)
    }
}

/// Bytes that no compression and no look for zeros shortens (xorshift64*, Vigna 2016).
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Where there is no Debian root: something of its size and shape.
fn base(out: &mut Out) -> Result<()> {
    eprintln!("bench: NO DEBIAN ROOT: `base` is made up");
    for d in 0..780 {
        out.add(&dir(format!("d{d}")))?;
        for f in 0..7 {
            // Most files of a root are small, and a few hold most of the bytes.
            let size = if (d * 7 + f) % 50 == 0 { 1_200_000 } else { 4_000 };
            out.add(&file(format!("d{d}/f{f}"), noise(d * 7 + f, size as usize)))?;
        }
        out.add(&symlink(format!("d{d}/l"), "f0"))?;
    }
    Ok(())
}

/// Small files of one owner that is not root's, most of them in one directory.
fn many(out: &mut Out) -> Result<()> {
    let small = |name: String, number: u64| {
        let size = 200 + (number * 7919) % 10_600;
        file(name, noise(number, size as usize)).owner(1000, 1000)
    };
    for d in 0..600 {
        out.add(&dir(format!("d{d:03}")).owner(1000, 1000))?;
        for f in 0..20 {
            out.add(&small(format!("d{d:03}/file-{f:02}"), d * 20 + f))?;
        }
    }
    out.add(&dir("flat").owner(1000, 1000))?;
    for f in 0..43_000 {
        out.add(&small(format!("flat/file-{f:05}"), 100_000 + f))?;
    }
    Ok(())
}

/// What has no body, or nearly none: links of both kinds, attributes, devices, long names.
fn links(out: &mut Out) -> Result<()> {
    for d in 0..100 {
        out.add(&dir(format!("d{d:02}")))?;
        out.add(&file(format!("d{d:02}/file"), "a file with many names\n"))?;
        for l in 0..100 {
            out.add(&symlink(format!("d{d:02}/symlink-{l:02}"), format!("../d{l:02}/file")))?;
        }
        for l in 0..100 {
            out.add(&hard_link(format!("d{d:02}/name-{l:02}"), format!("d{d:02}/file")))?;
        }
        let long = "n".repeat(200);
        for f in 0..5 {
            out.add(&file(format!("d{d:02}/{long}{f}"), "").xattr("user.mime_type", "text/plain"))?;
            out.add(&character(format!("d{d:02}/null{f}"), 1, 3))?;
        }
    }
    Ok(())
}

/// Deletions, and directories that show nothing of what is below them.
fn whiteouts(out: &mut Out) -> Result<()> {
    for d in 0..200 {
        out.add(&dir(format!("d{d:03}")))?;
        out.add(&opaque(&format!("d{d:03}")))?;
        for w in 0..25 {
            out.add(&whiteout(&format!("d{d:03}/gone-{w:02}")))?;
        }
    }
    Ok(())
}

/// A file of 1 GB, every eighth MiB of it zeros as in images of disks, and a sparse file of 64 GB with a MiB
/// in every GB.
fn big(out: &mut Out) -> Result<()> {
    const MIB: u64 = 1 << 20;
    let header = member("image", b'0').size(1024 * MIB);
    out.0.write_all(&header.header())?;
    let (noise, zeros) = (noise(1, MIB as usize), vec![0; MIB as usize]);
    for piece in 0..1024 {
        out.0.write_all(if piece % 8 == 7 { &zeros } else { &noise })?;
    }
    let parts: Vec<(u64, u64)> = (0..64).map(|part| (part << 30, MIB)).collect();
    sparse(out, "sparse", 64 << 30, &parts, &noise)
}

/// A sparse file in GNU's form 1.0 (GNU tar manual, "Storing Sparse Files"). Each part holds the beginning of
/// `content`.
fn sparse(out: &mut Out, name: &str, size: u64, parts: &[(u64, u64)], content: &[u8]) -> Result<()> {
    let mut map = format!("{}\n", parts.len()).into_bytes();
    for (offset, length) in parts {
        map.extend_from_slice(format!("{offset}\n{length}\n").as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    let stored = map.len() as u64 + parts.iter().map(|(_, length)| length).sum::<u64>();
    let header = member(format!("GNUSparseFile.0/{name}"), b'0').size(stored);
    let mut records = Vec::new();
    for (key, value) in [
        ("GNU.sparse.major", "1".to_owned()),
        ("GNU.sparse.minor", "0".to_owned()),
        ("GNU.sparse.name", name.to_owned()),
        ("GNU.sparse.realsize", size.to_string()),
    ] {
        records.push((key.as_bytes().to_vec(), value.into_bytes()));
    }
    let mut tar = Tar::new();
    tar.extended(b'x', &layerbox_tests::archive::pax_records(&records));
    out.0.write_all(tar.view())?;
    out.0.write_all(&header.header())?;
    out.0.write_all(&map)?;
    for (_, length) in parts {
        out.0.write_all(&content[..usize::try_from(*length)?])?;
    }
    Ok(())
}

/// Directories in directories, 1,000 levels, twice.
fn deep(out: &mut Out) -> Result<()> {
    for top in ["a", "b"] {
        let mut path = top.to_owned();
        for level in 0..1000 {
            out.add(&dir(&*path))?;
            out.add(&file(format!("{path}/f"), format!("{level}\n")))?;
            path.push_str("/d");
        }
    }
    Ok(())
}

/// An archive of so many entries, most of them links, written to a file for the measurements of scale.
pub(crate) fn entries(count: u64, archive: &Path) -> Result<()> {
    let mut out = Out(BufWriter::new(File::create(archive)?));
    for number in 0..count {
        if number % 1000 == 0 {
            out.add(&dir(format!("d{:05}", number / 1000)))?;
        } else {
            out.add(&file(format!("d{:05}/{number:07}", number / 1000), ""))?;
        }
    }
    out.0.write_all(&[0; 2 * BLOCK])?;
    Ok(out.0.flush()?)
}

/// An archive of one file of `size` bytes of which a MiB is there.
pub(crate) fn hole(size: u64, archive: &Path) -> Result<()> {
    let mut out = Out(BufWriter::new(File::create(archive)?));
    sparse(&mut out, "sparse", size, &[(size - (1 << 20), 1 << 20)], &noise(1, 1 << 20))?;
    out.0.write_all(&[0; 2 * BLOCK])?;
    Ok(out.0.flush()?)
}
