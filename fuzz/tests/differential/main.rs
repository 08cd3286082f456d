//! The reader of archives against four others: GNU tar, libarchive (bsdtar), Python's tarfile and Go's
//! archive/tar.
//!
//! An archive that is read here must be the same list of entries (name, type, size, link) for each of them
//! that reads it. One that is refused here is of no interest, however the others take it; one that is read
//! here and refused by another must be for a reason in [`STRICTER`].
//!
//! `LAYERBOX_DIFFERENTIAL=COUNT[,SEED]` says how many archives are tried and from which seed; `make fuzz`
//! goes on to new seeds.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod make;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use layerbox_guest::archive::{Decoder, MemberKind, Step, padding};
use layerbox_tests::skip::skip;
use serde_json::Value;

/// How many archives are tried where nobody says.
const COUNT: usize = 3000;

/// What others refuse, or cannot show, and is nevertheless right to be read here: reader, part of its error,
/// why.
const STRICTER: &[(&str, &str, &str)] = &[
    (
        "tarfile",
        "ReadError: end of file header",
        "nothing but a global header before the end: no entries, as for the others",
    ),
    ("tarfile", "ReadError: empty header", "the same, where the end is missing too"),
    (
        "bsdtar",
        "a link whose target is lost",
        "libarchive 3.6 forgets a target that only an extension header has; Go writes so what is not ASCII, and it must be read",
    ),
];

/// One entry as they all see it: normal name, type, size of a file, target.
type Row = (Vec<u8>, String, u64, Vec<u8>);

#[test]
fn what_is_read_here_is_the_same_for_every_reader_that_reads_it() {
    let (count, seed) = wanted();
    let corpus = corpus();
    let mut random = make::Random(seed);
    let made = (0..count).map(|_| make::archive(&mut random, &corpus));
    // Those that are read here; the others need not be shown to anybody.
    let read: Vec<_> =
        corpus.iter().cloned().chain(made).filter_map(|bytes| Some((ours(&bytes)?, bytes))).collect();
    assert!(read.len() > count / 20, "only {} archives of {count} are read at all", read.len());
    let mut readers = BTreeMap::new();
    let mut faults = Vec::new();
    for line in theirs(read.iter().map(|(_, bytes)| bytes.as_slice())) {
        if let Some(missing) = line["missing"].as_str() {
            skipped(missing);
            continue;
        }
        let (reader, rows, error) = parse(&line);
        let index = line["index"].as_u64().unwrap() as usize;
        let (ours, bytes) = &read[index];
        *readers.entry(reader.clone()).or_insert(0) += 1;
        let fault = match error {
            None if rows == *ours => continue,
            None => "reads it differently".to_owned(),
            Some(error) if STRICTER.iter().any(|(who, what, _)| *who == reader && error.contains(what)) => {
                continue;
            }
            Some(error) => format!("refuses it: {error}"),
        };
        faults.push((format!("{reader} {fault}"), describe(ours), describe(&rows), bytes));
    }
    println!("{count} archives from seed {seed}, {} of them read here; shown to {readers:?}", read.len());
    assert!(readers.contains_key("tarfile"), "nobody to compare with");
    report(&faults);
}

fn wanted() -> (usize, u64) {
    let Ok(text) = std::env::var("LAYERBOX_DIFFERENTIAL") else { return (COUNT, 1) };
    let (count, seed) = text.split_once(',').unwrap_or((&text, "1"));
    (
        count.parse().expect("LAYERBOX_DIFFERENTIAL: a number"),
        seed.parse().expect("LAYERBOX_DIFFERENTIAL: a seed"),
    )
}

fn corpus() -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/archive");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// The entries as they are read here; none where the archive is refused.
fn ours(bytes: &[u8]) -> Option<Vec<Row>> {
    let mut decoder = Decoder::new();
    let mut rows = Vec::new();
    let mut at = 0;
    loop {
        match decoder.step(bytes.get(at..)?, true).ok()? {
            Step::Need(_) => unreachable!("all is there"),
            Step::End { .. } => return Some(rows),
            Step::Member { member, consumed } => {
                let (kind, size, link) = match member.kind {
                    MemberKind::File(size) => ("f", size, Vec::new()),
                    MemberKind::Directory => ("d", 0, Vec::new()),
                    MemberKind::Symlink(target) => ("l", 0, target),
                    MemberKind::HardLink(target) => ("h", 0, target),
                    MemberKind::CharacterDevice { .. } => ("c", 0, Vec::new()),
                    MemberKind::BlockDevice { .. } => ("b", 0, Vec::new()),
                    MemberKind::Fifo => ("p", 0, Vec::new()),
                };
                rows.push((member.name, kind.to_owned(), size, link));
                at += consumed + usize::try_from(member.stored + padding(member.stored)).ok()?;
                // A body that is cut off is found by whoever reads it.
                bytes.get(..at)?;
            }
        }
    }
}

/// What the others say, a line for each archive and reader.
fn theirs<'a>(archives: impl Iterator<Item = &'a [u8]>) -> Vec<Value> {
    let mut data = Vec::new();
    for archive in archives {
        data.extend_from_slice(&u32::try_from(archive.len()).unwrap().to_le_bytes());
        data.extend_from_slice(archive);
    }
    let file = std::env::temp_dir().join(format!("layerbox-differential-{}", std::process::id()));
    fs::write(&file, data).unwrap();
    let readers = Path::new(env!("CARGO_MANIFEST_DIR")).join("readers");
    let mut lines = match Command::new("python3").arg(readers.join("readers.py")).arg(&file).output() {
        Ok(output) => lines(&output),
        Err(error) => panic!("python3, which asks the other readers, does not start: {error}"),
    };
    let program = PathBuf::from(format!("{}-go", file.display()));
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(readers.join("reader.go")).env("GO111MODULE", "off");
    match build.output() {
        Ok(output) if output.status.success() => {
            lines.extend(self::lines(&Command::new(&program).arg(&file).output().unwrap()));
        }
        Ok(output) => panic!("the reader in Go is not built: {}", String::from_utf8_lossy(&output.stderr)),
        Err(_) => skipped("Go's archive/tar (package golang-go)"),
    }
    let _ = (fs::remove_file(&file), fs::remove_file(&program));
    lines
}

fn lines(output: &std::process::Output) -> Vec<Value> {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn skipped(what: &str) {
    skip(&format!("{what} is not installed, so nothing is compared with it"), true);
}

fn parse(line: &Value) -> (String, Vec<Row>, Option<String>) {
    let row = |entry: &Value| {
        let text = |index: usize| entry[index].as_str().unwrap();
        let (kind, link) = (text(1), bytes(text(3)));
        let size = if kind == "f" { entry[2].as_u64().unwrap_or(u64::MAX) } else { 0 };
        let link = match kind {
            "h" => normal(&link),
            "l" => link,
            _ => Vec::new(),
        };
        (normal(&bytes(text(0))), kind.to_owned(), size, link)
    };
    let rows = line["entries"].as_array().unwrap().iter().map(row).collect();
    (line["reader"].as_str().unwrap().to_owned(), rows, line["error"].as_str().map(str::to_owned))
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits = hexadecimal.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The normal form of a name, as extraction comes to it: without empty components and `.`.
fn normal(name: &[u8]) -> Vec<u8> {
    let components: Vec<_> =
        name.split(|byte| *byte == b'/').filter(|it| !it.is_empty() && *it != b".").collect();
    components.join(&b'/')
}

fn describe(rows: &[Row]) -> String {
    let row = |(name, kind, size, link): &Row| {
        format!("{kind} {} {size} {}", name.escape_ascii(), link.escape_ascii())
    };
    format!("{:?}", rows.iter().map(row).collect::<Vec<_>>())
}

/// Fails with one archive of each kind of fault, kept in the temporary directory.
fn report(faults: &[(String, String, String, &Vec<u8>)]) {
    let mut kinds: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (index, (fault, ..)) in faults.iter().enumerate() {
        kinds.entry(fault).or_insert((0, index)).0 += 1;
    }
    for (number, (fault, (count, first))) in kinds.iter().enumerate() {
        let (_, ours, theirs, bytes) = &faults[*first];
        let file = std::env::temp_dir().join(format!("layerbox-difference-{number}.tar"));
        fs::write(&file, bytes).unwrap();
        println!("{fault} ({count} times)\n  here:  {ours}\n  there: {theirs}\n  {}", file.display());
    }
    assert!(kinds.is_empty(), "{} differences of {} kinds", faults.len(), kinds.len());
}
