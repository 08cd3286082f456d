//! What a component asks for, told without running it.
//!
//! A component names its imports, and the host gives none but those in [`INTERFACES`]. One that names another
//! is refused before it runs, with the list of what it asked for.

use wasmtime::Engine;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::digest::Digest;
use crate::error::Failure;

/// The world that this host runs.
pub const WORLD: &str = "layerbox:driver/driver@0.1.0";

/// The package of the contract; a name of one of its interfaces begins with it and `/`.
const PACKAGE: &str = "layerbox:driver";

/// The version of the contract that this host speaks.
const VERSION: &str = "0.1.0";

/// The largest component that is read, in bytes.
pub(crate) const MAX_COMPONENT: u64 = 64 << 20;

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
    wasi("wasi:io/poll", "waiting for a stream; waiting for a clock ends the call", ALL),
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
    Interface { name, version: VERSION, lends, calls }
}

const fn wasi(name: &'static str, lends: &'static str, calls: &'static [&'static str]) -> Interface {
    Interface { name, version: "0.2", lends, calls }
}

/// What the world wants a component to export.
const EXPORTS: [&str; 2] = ["layerbox:driver/lifecycle@0.1.0", "layerbox:driver/differ@0.1.0"];

/// What a component asks for and offers.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// The world that it was held against.
    pub world: &'static str,
    /// The contract that it speaks, as `layerbox:driver@0.1.0`; nothing for a component of another world.
    pub speaks: Vec<String>,
    /// The imports that the world allows, as the component names them, and what lends them.
    pub imports: Vec<(String, &'static Interface)>,
    /// The imports that the world does not allow.
    pub refused: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
    /// What the world wants and it does not export.
    pub missing: Vec<String>,
}

/// Tells from the first bytes what is certainly no component, in words that say what it is (the binary
/// format's preamble: magic, version, layer).
///
/// # Errors
///
/// [`Failure::GuestRefused`] for a core module, for WebAssembly text, and for what is no WebAssembly.
pub(super) fn sniff(bytes: &[u8]) -> Result<(), Failure> {
    let what = match bytes {
        [b'\0', b'a', b's', b'm', _, _, 0, 0, ..] => {
            "it is a core module, and not a component; wasm-tools component new makes one of it"
        }
        [b'\0', b'a', b's', b'm', _, _, 1, 0, ..] => return Ok(()),
        [] => "it is empty",
        _ if bytes.trim_ascii_start().starts_with(b"(") => {
            "it is WebAssembly as text, and not a component; wasm-tools parse makes one of it"
        }
        _ => "it is no WebAssembly",
    };
    Err(Failure::GuestRefused(what.to_owned()))
}

/// The refusal of what begins as a component does, and is none.
pub(super) fn no_component(error: &wasmtime::Error) -> Failure {
    Failure::GuestRefused(format!("it is no component: {}", error.root_cause()))
}

/// Validates and compiles a component.
///
/// # Errors
///
/// [`Failure::GuestRefused`] where the bytes are none.
pub fn parse(engine: &Engine, bytes: &[u8]) -> Result<Component, Failure> {
    sniff(bytes)?;
    Component::from_binary(engine, bytes).map_err(|error| no_component(&error))
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
    let imported = imports.iter().map(|(name, _)| name).chain(&refused);
    let mut speaks: Vec<String> = imported.chain(&exports).filter_map(|name| contract(name)).collect();
    speaks.sort();
    speaks.dedup();
    Inspection {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        world: WORLD,
        speaks,
        imports,
        refused,
        exports,
        missing,
    }
}

/// The contract that the name of an interface belongs to: `layerbox:driver@0.2.0` for
/// `layerbox:driver/tree@0.2.0`.
fn contract(name: &str) -> Option<String> {
    let rest = name.strip_prefix(PACKAGE)?.strip_prefix('/')?;
    let version = rest.split_once('@').map_or("no version", |(_, version)| version);
    Some(format!("{PACKAGE}@{version}"))
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
    /// [`Failure::GuestRefused`], with what is in the way: another version of the contract, another world,
    /// and the lists of what it asks for too much or offers too little.
    pub fn allowed(&self) -> Result<(), Failure> {
        let ours = format!("{PACKAGE}@{VERSION}");
        let foreign: Vec<&str> =
            self.speaks.iter().map(String::as_str).filter(|speaks| *speaks != ours).collect();
        if !foreign.is_empty() {
            // All else that is wrong with it follows from that.
            return Err(Failure::GuestRefused(format!(
                "it speaks {}, and this host speaks {VERSION}",
                foreign.join(" and ")
            )));
        }
        let mut wrong = Vec::new();
        if self.speaks.is_empty() {
            wrong.push(format!("it is a component of another world than {WORLD}"));
        }
        if !self.refused.is_empty() {
            wrong.push(format!("it imports what {WORLD} does not allow: {}", self.refused.join(", ")));
        }
        if !self.missing.is_empty() {
            wrong.push(format!("it does not export what {WORLD} wants: {}", self.missing.join(", ")));
        }
        if wrong.is_empty() { Ok(()) } else { Err(Failure::GuestRefused(wrong.join("; "))) }
    }
}
