//! What calls cost in one process, without a socket, a process or another thread: a fresh instance of the
//! component each, and what it asks the host for.
//!
//! `cargo bench -p layerbox-bench`, as root. `exists` is an instance with next to nothing to do: the price of
//! the sandbox for one call. What the others take beyond it is the lock of the layer, its records, and the
//! count.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use divan::Bencher;
use layerbox::driver::{BackendChoice, Driver, Limits, Owner, Settings, Shipped};
use layerbox_tests::command::repository;
use layerbox_tests::harness::{has_filesystem, is_root};
use layerbox_tests::scratch::Ground;

/// The store that all calls are made on.
static DRIVER: OnceLock<Driver> = OnceLock::new();

/// How long a stack `deep` has.
const DEPTH: usize = 100;

fn main() -> ExitCode {
    if !is_root() || !has_filesystem("overlay") {
        eprintln!("calls: NOT MEASURED: it needs root, and a kernel with overlay");
        return ExitCode::SUCCESS;
    }
    match prepare() {
        Ok(_ground) => {
            divan::main();
            // The file system below is unmounted next.
            drop(driver().cleanup());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("calls: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A store with a mounted layer on a parent, an empty one, and a deep stack, on a file system of its own.
fn prepare() -> Result<Ground> {
    let ground = Ground::new()?;
    let settings = Settings {
        root: ground.place().join("store"),
        backend: BackendChoice::Overlay,
        usual_backend: BackendChoice::Auto,
        owner: Owner::CommandLine,
        maps: None,
        guest: Some(component()),
        stranger: true,
        guest_sha256: None,
        cache: None,
        limits: Limits::default(),
        devices: true,
        guest_log: false,
    };
    let driver = Driver::open(&settings, Shipped { component: &[], compiled: &[] }, true)?;
    driver.create("base", None)?;
    driver.create("mounted", Some("base"))?;
    driver.get("mounted", None)?;
    let mut parent = "base".to_owned();
    for depth in 1..=DEPTH {
        let id = format!("deep-{depth}");
        driver.create(&id, Some(&parent))?;
        parent = id;
    }
    DRIVER.set(driver).ok().context("it is prepared once")?;
    Ok(ground)
}

fn component() -> PathBuf {
    repository().join("target/component/driver.wasm")
}

#[expect(clippy::expect_used, reason = "main has prepared it before any of these is called")]
fn driver() -> &'static Driver {
    DRIVER.get().expect("it was prepared")
}

#[divan::bench]
fn exists(bencher: Bencher) {
    bencher.bench(|| driver().exists("mounted"));
}

#[divan::bench]
fn exists_not(bencher: Bencher) {
    bencher.bench(|| driver().exists("missing"));
}

#[divan::bench]
fn get_and_put_of_a_mounted_layer(bencher: Bencher) {
    bencher.bench(|| driver().get("mounted", None).and_then(|_| driver().put("mounted")));
}

#[divan::bench]
fn get_and_put_that_mount_and_unmount(bencher: Bencher) {
    bencher.bench(|| driver().get("deep-1", None).and_then(|_| driver().put("deep-1")));
}

#[divan::bench]
fn get_and_put_that_mount_a_hundred_layers(bencher: Bencher) {
    let id = format!("deep-{DEPTH}");
    bencher.bench(|| driver().get(&id, None).and_then(|_| driver().put(&id)));
}

#[divan::bench]
fn metadata(bencher: Bencher) {
    bencher.bench(|| driver().metadata("mounted"));
}

#[divan::bench]
fn list_of_a_hundred(bencher: Bencher) {
    bencher.bench(|| driver().list());
}

#[divan::bench]
fn changes_of_an_empty_layer(bencher: Bencher) {
    bencher.bench(|| driver().changes("deep-1", None));
}

#[divan::bench]
fn create_and_remove(bencher: Bencher) {
    bencher.bench(|| driver().create("new", Some("base")).and_then(|()| driver().remove("new", false)));
}
