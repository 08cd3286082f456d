//! Fuzzing: each [`Target`] takes arbitrary bytes, does with them what a stranger could have done, and panics
//! where a promise is broken.
//!
//! `make fuzz` runs the targets under libFuzzer, guided by coverage (`src/engine.rs`). The corpus it starts
//! from is `corpus/TARGET`, small and minimised; `cargo test -p layerbox-fuzz` replays it without any engine,
//! and so do builds that have no C++ compiler. An input that broke a promise once stays in the corpus.
//!
//! | target | bytes are | what must hold |
//! |---|---|---|
//! | `archive` | an archive | no panic; names in normal form; read in pieces as in one; what is written from a member is read as that member |
//! | `metadata` | a record of `layers/`, an id, a count | one form only: what is read is what would be written; the two checks of ids agree |
//! | `gzip`, `zstd` | a packed stream | bounded; read in pieces as in one; other decoders give the same bytes |
//! | `apply` | an archive | in both dialects: applied or refused; an applied layer can be archived and applied again to the same; nothing beside it is touched or read |
//! | `imports` | calls of the host's functions | nothing but the layer that was lent is touched or read |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests: what does not go on as it should is a fault that was found"
)]

mod input;
mod scratch;
mod targets;

/// The host's traits over the code of the real host: the very file that the component's own tests run on.
#[path = "../../guest/tests/calls/host.rs"]
#[allow(
    clippy::expect_used,
    missing_docs,
    missing_debug_implementations,
    dead_code,
    reason = "it belongs to tests"
)]
mod host;

/// Something that takes bytes from a stranger.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, which is also that of its corpus.
    pub name: &'static str,
    /// Corpora of other targets that serve this one as well.
    pub borrows: &'static [&'static str],
    /// The longest input that is tried, in bytes.
    pub longest: usize,
    /// Whether it makes devices, owners and mounts, and so must be run as root.
    pub needs_root: bool,
    /// Runs it on one input; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "archive",
        borrows: &[],
        longest: 16 << 10,
        needs_root: false,
        run: targets::archive::run,
    },
    Target {
        name: "metadata",
        borrows: &[],
        longest: 4 << 10,
        needs_root: false,
        run: targets::metadata::run,
    },
    Target { name: "gzip", borrows: &[], longest: 4 << 10, needs_root: false, run: targets::unpack::gzip },
    Target { name: "zstd", borrows: &[], longest: 4 << 10, needs_root: false, run: targets::unpack::zstd },
    Target {
        name: "apply",
        borrows: &["archive"],
        longest: 16 << 10,
        needs_root: true,
        run: targets::apply::run,
    },
    Target { name: "imports", borrows: &[], longest: 2 << 10, needs_root: true, run: targets::imports::run },
];

/// The target of a name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
