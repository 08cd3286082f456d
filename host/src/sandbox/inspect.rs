//! What a component asks for, told without running it.
//!
//! A component names its imports, and the host gives none but those in [`INTERFACES`]. One that names another is refused before it runs, with the list
//! of what it asked for.

use std::path::Path;

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use super::digest;
use crate::error::Failure;

/// The world that this host runs.
pub const WORLD: &str = "layerbox:driver/driver@0.1.0";

/// The largest component that is read, in bytes.
const MAX_COMPONENT: u64 = 64 << 20;

/// An interface that a component may import.
#[derive(Debug, Clone, Copy)]
pub struct Interface {
    /// Its name without a version.
    pub name: &'static str,
    /// The version: exactly this one of ours, any 0.2 of WASI's.
    pub version: &'static str,
    /// What stands behind it.
    pub lends: &'static str,
    /// The calls in which it is more than `denied` or empty.
    pub calls: &'static [&'static str],
}

const ALL: &[&str] = &["every call"];
const NONE: &[&str] = &[];

/// Every interface that a component may import: the capability table of the driver.
pub const INTERFACES: &[Interface] = &[
    ours("layerbox:driver/types", "nothing: words only", ALL),
    ours(
        "layerbox:driver/streams",
        "the archive of the call: in for apply-diff, out for diff",
        &["diff", "apply-diff"],
    ),
    ours(
        "layerbox:driver/tree",
        "reading: the layer, its ancestors, and the other side of a comparison with theirs",
        &["get (the roots tell what is opaque)", "diff", "changes", "diff-size"],
    ),
    ours("layerbox:driver/writer", "filling the empty layer", &["apply-diff"]),
    ours(
        "layerbox:driver/directories",
        "making, discarding the directories of the layer",
        &["create", "remove"],
    ),
    ours(
        "layerbox:driver/mounts",
        "mounting the layer over its ancestors, unmounting it; asking",
        &["get", "put", "remove (unmount)", "cleanup (unmount all)", "status, metadata (ask)"],
    ),
    ours(
        "layerbox:driver/references",
        "the reference count of the layer; asking",
        &["get", "put", "remove", "cleanup", "status, metadata (ask)"],
    ),
    wasi("wasi:filesystem/types", "layers/, read-only; writable for create and remove", ALL),
    wasi("wasi:filesystem/preopens", "layers/ and no other directory", ALL),
    wasi("wasi:io/error", "nothing: words only", ALL),
    wasi("wasi:io/poll", "waiting for a stream or a clock", ALL),
    wasi("wasi:io/streams", "files of layers/; the standard error", ALL),
    wasi("wasi:clocks/wall-clock", "the time", ALL),
    wasi("wasi:clocks/monotonic-clock", "the time since some moment", ALL),
    wasi("wasi:random/random", "random bytes", ALL),
    wasi("wasi:random/insecure-seed", "a random number", ALL),
    wasi("wasi:cli/exit", "ending the call as failed", ALL),
    wasi("wasi:cli/environment", "nothing: it is empty", NONE),
    wasi("wasi:cli/stdin", "nothing: it is at its end", NONE),
    wasi("wasi:cli/stdout", "nothing: it goes nowhere", NONE),
    wasi("wasi:cli/stderr", "the host's log, the first 16 KiB of a call", ALL),
    wasi("wasi:cli/terminal-input", "nothing: there is no terminal", NONE),
    wasi("wasi:cli/terminal-output", "nothing: there is no terminal", NONE),
    wasi("wasi:cli/terminal-stdin", "nothing: there is no terminal", NONE),
    wasi("wasi:cli/terminal-stdout", "nothing: there is no terminal", NONE),
    wasi("wasi:cli/terminal-stderr", "nothing: there is no terminal", NONE),
];

const fn ours(name: &'static str, lends: &'static str, calls: &'static [&'static str]) -> Interface {
    Interface { name, version: "0.1.0", lends, calls }
}

const fn wasi(name: &'static str, lends: &'static str, calls: &'static [&'static str]) -> Interface {
    Interface { name, version: "0.2", lends, calls }
}

/// What the world wants a component to export.
const EXPORTS: [&str; 2] = ["layerbox:driver/lifecycle@0.1.0", "layerbox:driver/differ@0.1.0"];

/// What a component asks for and offers.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// `sha256:` and hexadecimal digits.
    pub digest: String,
    /// Its size in bytes.
    pub size: u64,
    /// The world that it was held against.
    pub world: &'static str,
    /// The imports that the world allows, as the component names them, and what lends them.
    pub imports: Vec<(String, &'static Interface)>,
    /// The imports that the world does not allow.
    pub refused: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What the world wants and it does not export.
    pub missing: Vec<String>,
}

/// Reads a component's file.
///
/// # Errors
///
/// Those of reading; [`Failure::GuestRefused`] for a file that is too large to be a component.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    use std::io::Read;
    let failed = |e: std::io::Error| match e.raw_os_error() {
        Some(code) => {
            let entry = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()).to_vec();
            Failure::Io { entry, operation: "open".to_owned(), code }
        }
        None => Failure::io("open", &e),
    };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_COMPONENT + 1).read_to_end(&mut bytes).map_err(|e| Failure::io("read", &e))?;
    if bytes.len() as u64 > MAX_COMPONENT {
        return Err(Failure::GuestRefused(format!(
            "{} is larger than {MAX_COMPONENT} bytes",
            path.display()
        )));
    }
    Ok(bytes)
}

/// Validates and compiles a component.
///
/// # Errors
///
/// [`Failure::GuestRefused`] where the bytes are none.
pub fn parse(engine: &Engine, bytes: &[u8]) -> Result<Component, Failure> {
    Component::from_binary(engine, bytes)
        .map_err(|e| Failure::GuestRefused(format!("it is no component: {}", e.root_cause())))
}

/// Tells what a component asks for.
///
/// # Errors
///
/// [`Failure::GuestRefused`] where the bytes are no component.
pub fn inspect(bytes: &[u8]) -> Result<Inspection, Failure> {
    let engine = super::engine()?;
    let component = parse(&engine, bytes)?;
    Ok(survey(&engine, &component, bytes))
}

fn survey(engine: &Engine, component: &Component, bytes: &[u8]) -> Inspection {
    let kind = component.component_type();
    let (mut imports, mut refused) = (Vec::new(), Vec::new());
    for (name, item) in kind.imports(engine) {
        match known(name) {
            Some(interface) if matches!(item.ty, ComponentItem::ComponentInstance(_)) => {
                imports.push((name.to_owned(), interface));
            }
            _ => refused.push(name.to_owned()),
        }
    }
    let exports: Vec<String> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let missing = EXPORTS
        .iter()
        .filter(|wanted| !exports.iter().any(|e| e == *wanted))
        .map(|e| (*e).to_owned())
        .collect();
    Inspection {
        digest: digest(bytes),
        size: bytes.len() as u64,
        world: WORLD,
        imports,
        refused,
        exports,
        missing,
    }
}

/// The interface that an import names, if a component may import it.
fn known(import: &str) -> Option<&'static Interface> {
    let (name, version) = import.split_once('@').unwrap_or((import, ""));
    INTERFACES.iter().find(|interface| {
        interface.name == name
            && match interface.version {
                "0.2" => version.starts_with("0.2."),
                exact => version == exact,
            }
    })
}

/// Refuses a component that asks for more than the world allows, or offers less than it wants.
///
/// # Errors
///
/// [`Failure::GuestRefused`], with the list.
pub(super) fn allow(engine: &Engine, component: &Component) -> Result<(), Failure> {
    survey(engine, component, &[]).allowed()
}

impl Inspection {
    /// Whether the host would run it.
    ///
    /// # Errors
    ///
    /// [`Failure::GuestRefused`], with the list of what it asks for too much or offers too little.
    pub fn allowed(&self) -> Result<(), Failure> {
        if !self.refused.is_empty() {
            return Err(Failure::GuestRefused(format!(
                "it imports what the world {WORLD} does not allow: {}",
                self.refused.join(", ")
            )));
        }
        if !self.missing.is_empty() {
            return Err(Failure::GuestRefused(format!(
                "it does not export what the world {WORLD} wants: {}",
                self.missing.join(", ")
            )));
        }
        Ok(())
    }
}
