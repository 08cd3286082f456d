//! Reads from `Cargo.lock` which release of Wasmtime this is, down to the last number.
//!
//! Wasmtime itself tells compiled code of two of its releases apart by the first number only. But a release
//! that corrects the compiler must not load what the faulty one made, and the crate says its version nowhere.

use std::path::Path;

fn main() -> Result<(), String> {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo::rerun-if-changed={}", lock.display());
    let text = std::fs::read_to_string(&lock).map_err(|e| format!("{}: {e}", lock.display()))?;
    let mut lines = text.lines().skip_while(|line| *line != "name = \"wasmtime\"").skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let version = version.ok_or_else(|| format!("{}: no version of wasmtime", lock.display()))?;
    println!("cargo::rustc-env=LAYERBOX_WASMTIME={version}");
    Ok(())
}
