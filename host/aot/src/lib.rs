//! The engine that layerbox runs components in.
//!
//! Compiling a component takes some 80 ms, loading one that was compiled before a tenth of a millisecond. So
//! the build compiles the shipped component once (the `layerbox-aot` program of this package) and embeds the
//! result; and the host keeps what it compiled of another component. Compiled code fits only the engine that
//! made it, with the very same settings; that is why all sides get their engine from here.
//!
//! This package also holds the only `unsafe` written by hand in what is shipped, [`load`]: loading compiled
//! code means trusting it as one trusts a shared library, and nobody but the build and we ourselves may make
//! what is loaded.

use wasmtime::component::Component;
use wasmtime::{Config, Engine, ModuleVersionStrategy, OptLevel, Result};

/// How much address space one linear memory takes, in bytes.
///
/// With 4 GiB, and a guard behind them, no address of the component lies outside, and its code need not
/// compare each with a bound: that is a third of its time. A process has 128 TiB of them on x86-64. Some
/// kernels for other processors allow it 511 GiB in all, which is not enough for many calls at once. What a
/// call may really use is bounded much lower by its limits.
const MEMORY_RESERVATION: u64 = if cfg!(target_arch = "x86_64") { 4 << 30 } else { 1 << 30 };

/// The release of the engine, from `Cargo.lock`. It stands in what [`compile`] makes, and [`load`] takes no
/// other.
pub const VERSION: &str = concat!("wasmtime-", env!("LAYERBOX_WASMTIME"));

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
        // Every process that runs a component copies its code. What only debuggers read would be a seventh of
        // that.
        .generate_address_map(false)
        .native_unwind_info(false)
        .module_version(ModuleVersionStrategy::Custom(VERSION.to_owned()))?;
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
/// Call it only with bytes that are what [`compile`] returned: the bytes become machine code of this process,
/// and nothing in here can tell whether they are any good. Two places have such bytes: the binary, in which
/// the build embeds them, and the host's cache, which only the user we run as can write.
///
/// # Errors
///
/// The bytes come from another release of the engine, from other settings, or from another kind of machine.
#[allow(unsafe_code)]
pub fn load(engine: &Engine, compiled: &[u8]) -> Result<Component> {
    // SAFETY: the callers hand in what `compile` returned and nobody could change since. That is either the
    // bytes that the build embedded in the binary; or the content of a file that was made by this user, in a
    // directory that nobody else but root can write or reach by way of what others can write, all of it
    // checked on the open descriptors (`layerbox::trust`), copied to memory of ours first, and found to have
    // the SHA-256 digest that was stored with it. Whoever could forge that is root or this user, and could
    // replace the binary. The engine itself checks its version and settings in the header.
    unsafe { Component::deserialize(engine, compiled) }
}
