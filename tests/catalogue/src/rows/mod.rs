//! The rows, a file a group.

mod attributes;
mod links;
mod names;
mod names_that_stay;
mod packed;
mod pax;
mod reader;
mod resources;
mod sparse;
mod trees;
mod whiteouts;

use crate::archive::Member;
use crate::{Archive, Bounds, Outcome, Row};
pub(crate) use names_that_stay::NAMES;

/// All rows, group by group. Their names ([`Row::name`]) are unique.
pub fn all() -> Vec<Row> {
    let groups = [
        ("names", names::rows()),
        ("trees", trees::rows()),
        ("links", links::rows()),
        ("reader", reader::rows()),
        ("pax", pax::rows()),
        ("sparse", sparse::rows()),
        ("packed", packed::rows()),
        ("whiteouts", whiteouts::rows()),
        ("attributes", attributes::rows()),
        ("resources", resources::rows()),
    ];
    let mut rows = Vec::new();
    for (group, mut of_group) in groups {
        for row in &mut of_group {
            row.group = group;
            row.open = OPEN.contains(&row.title);
        }
        rows.append(&mut of_group);
    }
    rows
}

/// The titles of the rows that are [open](Row::open): what a fourth reader may take otherwise as long as it
/// stays inside, and how much is too much.
pub(crate) const OPEN: &[&str] = &[
    "a NUL in a prefix",
    "times and junk behind the prefix",
    "times behind a prefix that has a NUL in it",
    "a directory of the oldest type by a long name",
    "bytes after the prefix of a ustar header",
    "times in a GNU header, where others look for a prefix",
    "a size that is blank",
    "junk in a device number that nobody uses",
    "a PAX size beyond 63 bits",
    "a PAX key with a NUL",
    "two global headers before one entry",
    "a sparse file of 16 EiB",
    "a sparse map that says 65,537 regions",
    "a sparse map that says 2^63 - 1 regions",
    "a path after the GNU.sparse.name",
    "a record of a sparse form nobody knows",
    "the old sparse form with a map that goes on after its end",
    "the old sparse form with a map of 70,000 regions",
    "zeros after the last gzip member",
    "a gzip file name of 1 MiB",
    "a zstd window of 128 MiB",
    "a zstd window of 2 GiB (--long=31)",
    "a zstd window of 3.75 TiB",
    "a zstd frame in one segment of 2^62 bytes",
    "a zstd frame that says a length that is not its own",
    "a zstd frame with the reserved bit",
    "zeros that are thousands of times the archive become a hole",
    "xz is not read, and that is said",
    "bzip2 is not read, and that is said",
    "lz4 is not read, and that is said",
    "lzip is not read, and that is said",
    "compress is not read, and that is said",
    "zip is not read, and that is said",
    "of a directory and of what is in it",
    "trusted.overlay.opaque under an encoded name",
    "an access list of another system",
    "a label of SELinux, as GNU tar writes it",
    "an attribute given twice, with different values",
    "an attribute whose value is no base 64",
    "a time before the first second that can be said",
    "a time before the first second that can be said, in base 256",
    "bytes after the end of the archive that go on beyond all bounds",
];

fn row(title: &'static str, archive: impl Into<Archive>, outcome: Outcome) -> Row {
    Row {
        group: "",
        title,
        archive: archive.into(),
        outcome,
        bounds: Bounds::default(),
        open: false,
        any_time: false,
    }
}

fn exact(title: &'static str, archive: impl Into<Archive>, lines: &[&str]) -> Row {
    let mut lines: Vec<String> = lines.iter().map(|&line| line.to_owned()).collect();
    lines.sort();
    row(title, archive, Outcome::Exact(lines))
}

fn names(title: &'static str, archive: impl Into<Archive>, count: usize) -> Row {
    row(title, archive, Outcome::Names(count))
}

fn refused(title: &'static str, archive: impl Into<Archive>) -> Row {
    row(title, archive, Outcome::Refused(""))
}

fn limit(title: &'static str, archive: impl Into<Archive>) -> Row {
    row(title, archive, Outcome::Limit(""))
}

impl Row {
    /// The error must hold this text too: the entry's name, or the bound.
    fn saying(mut self, text: &'static str) -> Row {
        match &mut self.outcome {
            Outcome::Refused(says) | Outcome::Limit(says) => *says = text,
            Outcome::Exact(_) | Outcome::Names(_) => {}
        }
        self
    }

    fn bounds(self, bounds: Bounds) -> Row {
        Row { bounds, ..self }
    }

    fn any_time(self) -> Row {
        Row { any_time: true, ..self }
    }
}

/// At most so many entries.
fn entries(most: u64) -> Bounds {
    Bounds { entries: Some(most), ..Bounds::default() }
}

/// At most so many bytes.
fn bytes(most: u64) -> Bounds {
    Bounds { bytes: Some(most), ..Bounds::default() }
}

/// So many empty files, the names of which begin like this.
fn empty_files(begin: &str, count: usize) -> Vec<u8> {
    let mut tar = crate::archive::Tar::new();
    for number in 0..count {
        tar.add(&crate::archive::file(format!("{begin}{number}"), ""));
    }
    tar.finish()
}

/// An archive of members.
fn tar(members: &[Member]) -> Vec<u8> {
    crate::archive::tar(members)
}
