//! The corpora, replayed without an engine: a target that panics on a stored input is a failed test.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use layerbox_fuzz::{TARGETS, Target};
use layerbox_tests::skip::skip;

/// The corpora together, so that a checkout stays small.
const MOST_FILES: usize = 300;
const MOST_BYTES: u64 = 1 << 20;

fn inputs(name: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} is empty", directory.display());
    paths
}

fn replay(name: &str) {
    let Target { borrows, needs_root, run, .. } = layerbox_fuzz::target(name).unwrap();
    if needs_root && !nix::unistd::geteuid().is_root() {
        skip(&format!("{name} makes owners, devices and mounts, which needs root"), true);
        return;
    }
    for corpus in borrows.iter().copied().chain([name]) {
        for path in inputs(corpus) {
            println!("{name}: {}", path.display());
            run(&fs::read(&path).unwrap());
        }
    }
    run(b"");
}

#[test]
fn archive() {
    replay("archive");
}

#[test]
fn metadata() {
    replay("metadata");
}

#[test]
fn gzip() {
    replay("gzip");
}

#[test]
fn zstd() {
    replay("zstd");
}

#[test]
fn apply() {
    replay("apply");
}

#[test]
fn imports() {
    replay("imports");
}

#[test]
fn every_target_has_a_corpus_and_all_are_small() {
    let sizes: Vec<u64> = TARGETS
        .iter()
        .flat_map(|target| inputs(target.name))
        .map(|path| path.metadata().unwrap().len())
        .collect();
    assert!(sizes.len() < MOST_FILES, "{} files", sizes.len());
    assert!(sizes.iter().sum::<u64>() < MOST_BYTES, "{} bytes", sizes.iter().sum::<u64>());
}
