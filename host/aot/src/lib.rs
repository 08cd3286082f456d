//! The engine that layerbox runs components in.
//!
//! Compiling a component takes some 80 ms, loading one that was compiled before a tenth of a millisecond. So the build compiles the
//! shipped component once (the `layerbox-aot` program of this package) and embeds the result. Compiled code
//! fits only the engine that made it, with the very same settings; that is why both sides get their engine from here.
//!
//! This package also holds the only `unsafe` of the workspace, [`load`]: loading compiled code means trusting it as
//! one trusts a shared library, and nobody but the build may make what is loaded.

use wasmtime::component::Component;
use wasmtime::{Config, Engine, OptLevel, Result};

/// The most address space that one linear memory takes, in bytes: 1 GiB.
///
/// Wasmtime reserves 4 GiB by default, which is cheap on most machines but not where the address space is small (some kernels
/// allow a process 511 GiB in all) and many calls run at once. What a call may really use is bounded much lower by its limits.
const MEMORY_RESERVATION: u64 = 1 << 30;

/// Makes the engine: Cranelift, the component model, and interruption by epochs.
///
/// # Errors
///
/// Those of [`Engine::new`]: the machine lacks what the engine needs.
pub fn engine() -> Result<Engine> {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .cranelift_opt_level(OptLevel::Speed)
        .epoch_interruption(true)
        .memory_reservation(MEMORY_RESERVATION)
        .memory_guard_size(1 << 25)
        // Whoever can run `layerbox guest` on a file can read its addresses anyway; a trap's message that names a function helps everybody.
        .generate_address_map(true);
    Engine::new(&config)
}

/// Compiles a component for [`engine`], into the form that [`load`] takes.
///
/// # Errors
///
/// The bytes are no valid component.
pub fn compile(engine: &Engine, component: &[u8]) -> Result<Vec<u8>> {
    engine.precompile_component(component)
}

/// Loads what [`compile`] made.
///
/// Call it only with bytes that the build embedded, or that were read from a place where nobody else can write: the bytes become machine code
/// of this process.
///
/// # Errors
///
/// The bytes come from another version of the engine, from other settings, or from another kind of machine.
#[allow(unsafe_code)]
pub fn load(engine: &Engine, compiled: &[u8]) -> Result<Component> {
    // SAFETY: the callers hand in what `compile` returned and nobody could change since: the bytes embedded in the binary by the build.
    // The engine itself checks its version and settings in the header.
    unsafe { Component::deserialize(engine, compiled) }
}
