//! Archives from strangers: one table of them, and what must come of each.
//!
//! A [`Row`] is an archive, built byte by byte, and an [`Outcome`]; there are three and no fourth.
//! [`attempt()`] tries a row on whatever applies archives (the command line, the calls of the contract, the
//! service of an engine: a [`Subject`]) and holds it to the outcome, with an oracle around it: beside the
//! layer lies `victim/` with a secret, and other layers lie in the store; nothing of them may change, and
//! nothing of the secret may be in the layer.
//!
//! A new row goes into the file of its group in `rows/`; whoever has the table runs it from then on, in both
//! dialects.

pub mod archive;
mod attempt;
mod look;
mod oracle;
mod packed;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use attempt::{Applied, Subject, attempt};
pub use look::{Found, describe, look};
pub use oracle::{Oracle, SECRET, Snapshot};
pub use rows::all;

/// How a store writes deletions down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// `.wh.NAME` files.
    Aufs,
    /// 0:0 character devices and `trusted.overlay.opaque`.
    Overlay,
}

impl Dialect {
    /// Both.
    pub const ALL: [Dialect; 2] = [Dialect::Overlay, Dialect::Aufs];

    /// As `--backend` has it, and names of cases.
    pub fn name(self) -> &'static str {
        match self {
            Dialect::Aufs => "aufs",
            Dialect::Overlay => "overlay",
        }
    }

    /// The other one.
    pub fn other(self) -> Dialect {
        match self {
            Dialect::Aufs => Dialect::Overlay,
            Dialect::Overlay => Dialect::Aufs,
        }
    }
}

/// What must come of an archive.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Applied, and the layer holds these lines, as [`describe`] writes them.
    Exact(Vec<String>),
    /// Applied, and the layer holds this many names: for layers that nobody wants to read.
    Names(usize),
    /// Refused, by a typed error that holds this text.
    Refused(&'static str),
    /// A limit was reached, and the error holds this text.
    Limit(&'static str),
}

impl Outcome {
    /// The word for it.
    pub fn word(&self) -> &'static str {
        match self {
            Outcome::Exact(_) | Outcome::Names(_) => "EXACT",
            Outcome::Refused(_) => "REFUSED",
            Outcome::Limit(_) => "LIMIT",
        }
    }
}

/// What an archive is tried with, where that is not what a call has by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The most entries.
    pub entries: Option<u64>,
    /// The most bytes.
    pub bytes: Option<u64>,
    /// Device nodes are refused.
    pub no_devices: bool,
}

/// An archive: as it is, or made when it is wanted because it is large.
#[derive(Clone)]
pub enum Archive {
    /// As it is.
    Bytes(Vec<u8>),
    /// Made when it is wanted.
    Made(Arc<dyn Fn() -> Vec<u8> + Send + Sync>),
}

impl std::fmt::Debug for Archive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Archive::Bytes(bytes) => write!(f, "Bytes({})", bytes.len()),
            Archive::Made(_) => f.write_str("Made"),
        }
    }
}

impl From<Vec<u8>> for Archive {
    fn from(bytes: Vec<u8>) -> Archive {
        Archive::Bytes(bytes)
    }
}

impl<F: Fn() -> Vec<u8> + Send + Sync + 'static> From<F> for Archive {
    fn from(make: F) -> Archive {
        Archive::Made(Arc::new(make))
    }
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// The group: `names`, `links`.
    pub group: &'static str,
    /// What the archive tries, in the words of the catalogue.
    pub title: &'static str,
    archive: Archive,
    /// What must come of it.
    pub outcome: Outcome,
    /// What it is tried with.
    pub bounds: Bounds,
    /// Whether the contract leaves it open what comes of it, and the outcome is what the component that
    /// layerbox carries decides. Any of the three will do for another.
    pub open: bool,
    /// Whether times are left out of the comparison: the file system may hold less than the archive says.
    pub any_time: bool,
}

impl Row {
    /// Whether it is named after a rule of the contract, and its name stays the same for good. A component
    /// that breaks one rule breaks one of these rows, and any number of others.
    pub fn is_named(&self) -> bool {
        self.given_name().is_some()
    }

    fn given_name(&self) -> Option<&'static str> {
        rows::NAMES.iter().find(|(_, title)| *title == self.title).map(|&(name, _)| name)
    }

    /// The name by which a row is chosen and quoted: the one that it was given, else group and title in lower
    /// case letters, digits and dashes.
    pub fn name(&self) -> String {
        if let Some(name) = self.given_name() {
            return name.to_owned();
        }
        let mut name = format!("{}-", self.group);
        for byte in self.title.bytes() {
            match byte.to_ascii_lowercase() {
                byte @ (b'a'..=b'z' | b'0'..=b'9') => name.push(char::from(byte)),
                _ if name.ends_with('-') => {}
                _ => name.push('-'),
            }
        }
        name.trim_end_matches('-').to_owned()
    }

    /// The bytes.
    pub fn archive(&self) -> Vec<u8> {
        match &self.archive {
            Archive::Bytes(bytes) => bytes.clone(),
            Archive::Made(make) => make(),
        }
    }
}
