//! The imports of the component: for each interface of the contract one file that asks the lease, checks the
//! arguments, and calls `layerbox_privileged`.
//!
//! Before each function here stands the question what the worst component could do with it. The answer is
//! always the same: what the lease covers, to the layers that it names, and nothing for any other argument.

mod store;
mod streams;
mod tree;
mod writer;

use layerbox_privileged::error::Error as Privileged;
use layerbox_privileged::name::Name;
use wasmtime::StoreContextMut;
use wasmtime::component::{HasData, Linker, LinkerInstance, Resource, ResourceTableError};
use wasmtime_wasi::WasiView;
use wasmtime_wasi::cli::{WasiCli, WasiCliView};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::random::WasiRandom;

use super::bindings::layerbox::driver;
use super::{Change, State, convert, types};
use crate::error::Failure;
pub use store::Branch;
pub use streams::{SinkHandle, SourceHandle};
pub use tree::{TreeHandle, WalkerHandle};
pub use writer::WriterHandle;

/// Why an import does not do what it was asked for: an answer that the component gets, or a fault that ends
/// the call.
#[derive(Debug)]
pub(super) enum Refusal {
    Answer(Box<types::Error>),
    Fault(wasmtime::Error),
}

/// A breach of the contract by the component.
#[derive(Debug)]
pub(super) struct Fault(pub(super) String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal::Answer(Box::new(convert::error(failure)))
    }
}

impl From<Privileged> for Refusal {
    fn from(error: Privileged) -> Refusal {
        Refusal::Answer(Box::new(convert::privileged(error)))
    }
}

impl From<ResourceTableError> for Refusal {
    fn from(error: ResourceTableError) -> Refusal {
        match error {
            ResourceTableError::Full => {
                Failure::Limit { entry: Vec::new(), bound: "open handles".to_owned() }.into()
            }
            other => Refusal::Fault(wasmtime::Error::new(Fault(format!("a stale handle was used: {other}")))),
        }
    }
}

/// The answer of an import.
pub(super) type Answer<T> = Result<T, Refusal>;

impl driver::types::Host for State {
    fn convert_error(&mut self, refusal: Refusal) -> wasmtime::Result<types::Error> {
        match refusal {
            Refusal::Answer(error) => Ok(*error),
            Refusal::Fault(fault) => Err(fault),
        }
    }
}

impl State {
    /// Ends the call where the host has worked for it as long as it may; asked between the steps of what a
    /// component can make long.
    fn in_time(&mut self) -> Answer<()> {
        let checked = self.clock.check_host(self.lease.waited());
        checked.map_err(|bound| Refusal::Fault(wasmtime::Error::msg(bound)))
    }
}

/// The most names or nodes that one call of an import is about.
const MOST_NODES: usize = 4096;

/// Names that a component wants looked up or marked, checked.
fn names(names: Vec<Vec<u8>>) -> Answer<Vec<Name>> {
    if names.len() > MOST_NODES {
        return Err(Failure::InvalidArgument(format!("at most {MOST_NODES} names in a call")).into());
    }
    Ok(convert::names(names)?)
}

/// How generated code gets at the state of a call.
struct Ours;

impl HasData for Ours {
    type Data<'a> = &'a mut State;
}

struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut wasmtime::component::ResourceTable;
}

/// Gives the linker every interface that a component may import, and no other.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn ours(state: &mut State) -> &mut State {
        state
    }
    driver::types::add_to_linker::<State, Ours>(linker, ours)?;
    driver::streams::add_to_linker::<State, Ours>(linker, ours)?;
    streams::share_reads(linker)?;
    driver::tree::add_to_linker::<State, Ours>(linker, ours)?;
    driver::writer::add_to_linker::<State, Ours>(linker, ours)?;
    driver::directories::add_to_linker::<State, Ours>(linker, ours)?;
    driver::mounts::add_to_linker::<State, Ours>(linker, ours)?;
    driver::references::add_to_linker::<State, Ours>(linker, ours)?;
    link_wasi(linker)?;
    super::layers::restrict(linker)?;
    never_wait(linker)
}

/// WASI 0.2 less the sockets, which are not there to be called.
fn link_wasi(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, random, sync};
    sync::io::error::add_to_linker::<State, Io>(linker, |state| state.ctx().table)?;
    sync::io::poll::add_to_linker::<State, Io>(linker, |state| state.ctx().table)?;
    sync::io::streams::add_to_linker::<State, Io>(linker, |state| state.ctx().table)?;
    sync::filesystem::types::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    filesystem::preopens::add_to_linker::<State, WasiFilesystem>(linker, State::filesystem)?;
    clocks::wall_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<State, WasiClocks>(linker, State::clocks)?;
    random::random::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    random::insecure_seed::add_to_linker::<State, WasiRandom>(linker, |state| state.ctx().ctx.random())?;
    cli::exit::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::environment::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::stderr::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_input::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_output::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdin::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stdout::add_to_linker::<State, WasiCli>(linker, State::cli)?;
    cli::terminal_stderr::add_to_linker::<State, WasiCli>(linker, State::cli)
}

/// WASI's release, in the names that wasmtime-wasi links it by.
const WASI: &str = "0.2.12";

/// An interface of WASI, to put rules before functions of it; `function` is one of them. The caller ends it
/// with `allow_shadowing(false)`.
///
/// # Errors
///
/// There is no such function yet: under another name, rules would hold for nothing.
pub(super) fn replacing<'a>(
    linker: &'a mut Linker<State>,
    interface: &str,
    function: &str,
) -> wasmtime::Result<LinkerInstance<'a, State>> {
    shadowing(linker, &format!("wasi:{interface}@{WASI}"), function)
}

/// As [`replacing`], for an interface by its whole name.
fn shadowing<'a>(
    linker: &'a mut Linker<State>,
    name: &str,
    function: &str,
) -> wasmtime::Result<LinkerInstance<'a, State>> {
    if linker.instance(name)?.func_wrap(function, |_, (): ()| Ok(())).is_ok() {
        return Err(wasmtime::Error::msg(format!("nothing is linked as {name}")));
    }
    linker.allow_shadowing(true);
    linker.instance(name)
}

/// Nothing that a call does takes waiting for a clock, and a component that did would hold a layer for as
/// long as it liked.
fn never_wait(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    fn refuse(_: StoreContextMut<'_, State>, _: (u64,)) -> wasmtime::Result<(Resource<DynPollable>,)> {
        Err(wasmtime::Error::new(Fault("it wants to wait for a clock".to_owned())))
    }
    let mut clock = replacing(linker, "clocks/monotonic-clock", "subscribe-instant")?;
    clock.func_wrap("subscribe-instant", refuse)?;
    clock.func_wrap("subscribe-duration", refuse)?;
    linker.allow_shadowing(false);
    Ok(())
}
