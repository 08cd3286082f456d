//! The sandbox: runs the component, one fresh instance for each call, with exactly the capabilities that the
//! call was lent.
//!
//! Nothing that a hostile layer did to the memory of an instance outlives the call, because the instance does
//! not. What a call may use comes in as a [`Lease`]; an import that the lease does not cover answers
//! `denied`. How much a call may use is bounded by [`Limits`]: a component that reaches a bound, or traps, is
//! a failed call and nothing more.

mod cache;
mod clock;
mod convert;
mod imports;
pub mod inspect;
mod layers;
mod lease;
mod log;
mod memory;
pub(crate) mod wit;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;

use layerbox_privileged::node::Totals;
use tokio::runtime::{EnterGuard, Handle, Runtime};
use wasmtime::component::{Component, Linker, ResourceTable, ResourceTableError};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxView, WasiView};

use crate::digest::Digest;
use crate::error::Failure;
pub use bindings::exports::layerbox::driver::{differ, lifecycle};
pub use bindings::layerbox::driver::types;
pub use cache::Code;
pub use lease::{Access, Change, Lease, Progress, UnionLease};

/// What `wasmtime` generates from the contract.
#[allow(missing_docs, missing_debug_implementations, clippy::all)]
mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "driver",
        imports: { default: trappable },
        trappable_error_type: { "layerbox:driver/types.error" => crate::sandbox::imports::Refusal },
        with: {
            "layerbox:driver/streams.source": crate::sandbox::imports::SourceHandle,
            "layerbox:driver/streams.sink": crate::sandbox::imports::SinkHandle,
            "layerbox:driver/tree.tree": crate::sandbox::imports::TreeHandle,
            "layerbox:driver/tree.walker": crate::sandbox::imports::WalkerHandle,
            "layerbox:driver/writer.writer": crate::sandbox::imports::WriterHandle,
            "layerbox:driver/mounts.branch": crate::sandbox::imports::Branch,
        },
        additional_derives: [PartialEq],
    });
}

/// The most bytes that a component can hand over at once, as an argument or as its answer, counted as they
/// are in the host: lists may be far larger there than in the component, which can name the same memory many
/// times.
const HANDED_OVER: usize = 128 << 20;

/// The nice value (sched(7)) of calls that turn out to be long, where they give way to others: about a tenth
/// of the weight of a short one.
const LONG_CALLS: i32 = 10;

/// How much one call may use.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Bytes of linear memory.
    pub memory: usize,
    /// Time in which the component itself runs; the time of its imports does not count.
    pub guest_time: Duration,
    /// Time in which the host works for it; reading and writing the bytes of an archive and of files does not
    /// count.
    pub host_time: Duration,
    /// How often it may call the host.
    pub host_calls: u64,
    /// Handles that are open at the same time.
    pub handles: usize,
    /// Names that an archive may make.
    pub entries: u64,
    /// Bytes that an archive may write, or have.
    pub bytes: u64,
    /// How many times its own length an archive may write, beyond the first [`FREE_EXPANSION`] bytes. Blocks
    /// of zeros, which become holes, do not count.
    pub expansion: u64,
    /// How long an archive may give nothing; none: for ever.
    pub stall_time: Option<Duration>,
    /// How long one archive may take in all; none: for ever.
    pub total_time: Option<Duration>,
}

/// What an archive may write whatever its own length is.
pub const FREE_EXPANSION: u64 = 64 << 20;

/// The directories that an archive may make: the host keeps a few hundred bytes for each until the layer is
/// whole.
pub const MOST_DIRECTORIES: usize = 1_000_000;

impl Limits {
    /// How much longer than the component the host may work.
    const HOST_SHARE: u32 = 12;

    /// Bounds the time of the component, and in proportion to it that of the host.
    pub fn set_guest_time(&mut self, time: Duration) {
        self.guest_time = time;
        self.host_time = time.saturating_mul(Limits::HOST_SHARE);
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory: 256 << 20,
            guest_time: Duration::from_secs(300),
            host_time: Duration::from_secs(300) * Limits::HOST_SHARE,
            // Ten million entries, each put by itself and with its body in some pieces, take a quarter of
            // them.
            host_calls: 200_000_000,
            handles: 4096,
            entries: 10_000_000,
            bytes: 1 << 40,
            // gzip reaches 1032, with bytes that are all the same.
            expansion: 2000,
            stall_time: None,
            total_time: None,
        }
    }
}

/// The component that the binary carries: as it was built, and compiled ahead of time.
#[derive(Debug, Clone, Copy)]
pub struct Shipped {
    /// The component.
    pub component: &'static [u8],
    /// What [`layerbox_aot::compile`] made of it.
    pub compiled: &'static [u8],
}

/// A component, ready to be called.
pub struct Sandbox {
    engine: Engine,
    ready: bindings::DriverPre<State>,
    component: Cow<'static, [u8]>,
    code: Code,
    digest: OnceLock<Digest>,
    limits: Limits,
    show_log: bool,
    gives_way: bool,
    ticker: clock::Ticker,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("digest", &self.digest())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// What a call keeps in the host.
pub(in crate::sandbox) struct State {
    pub(in crate::sandbox) lease: Lease,
    pub(in crate::sandbox) table: ResourceTable,
    wasi: WasiCtx,
    limits: memory::Bounds,
    pub(in crate::sandbox) clock: clock::CallClock,
    /// What may still be written to `layers/`, in bytes.
    pub(in crate::sandbox) record_room: layers::Room,
    /// How often `layers/` may still be listed.
    pub(in crate::sandbox) listings: u32,
    /// How many walks are under way.
    pub(in crate::sandbox) walks: usize,
    /// What may still go out as an archive, in bytes.
    pub(in crate::sandbox) archive_room: u64,
    log: log::GuestLog,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// What a call has left in its lease.
#[derive(Debug, Default, Clone, Copy)]
pub struct Leftovers {
    /// What the filled layer holds, as the host counted it; none where the component never finished it.
    pub filled: Option<Totals>,
    /// How many bytes of an archive were written.
    pub written: u64,
}

impl Sandbox {
    /// The component that the binary carries.
    ///
    /// # Errors
    ///
    /// [`Failure::GuestRefused`] where the two halves of `shipped` do not fit this build.
    pub fn shipped(shipped: Shipped, limits: Limits) -> Result<Sandbox, Failure> {
        let engine = engine()?;
        let component = layerbox_aot::load(&engine, shipped.compiled)
            .map_err(|e| Failure::GuestRefused(format!("the embedded component does not load: {e:#}")))?;
        Sandbox::new(engine, &component, Cow::Borrowed(shipped.component), Code::BuiltIn, limits)
    }

    /// A component that is not built in: from the cache of compiled code in the directory `cache`, or
    /// compiled now.
    ///
    /// # Errors
    ///
    /// [`Failure::GuestRefused`] where the bytes are no component, or one that asks for more than the world
    /// allows. The cache makes none.
    pub fn other(bytes: Vec<u8>, cache: Option<&Path>, limits: Limits) -> Result<Sandbox, Failure> {
        let engine = engine()?;
        let (component, code) = cache::component(&engine, &bytes, cache)?;
        Sandbox::new(engine, &component, Cow::Owned(bytes), code, limits)
    }

    fn new(
        engine: Engine,
        component: &Component,
        bytes: Cow<'static, [u8]>,
        code: Code,
        limits: Limits,
    ) -> Result<Sandbox, Failure> {
        inspect::allow(&engine, component)?;
        let mut linker = Linker::new(&engine);
        imports::link(&mut linker).map_err(|e| Failure::GuestRefused(format!("{e:#}")))?;
        let ready = linker
            .instantiate_pre(component)
            .and_then(bindings::DriverPre::new)
            .map_err(|e| Failure::GuestRefused(format!("{e:#}")))?;
        let ticker = clock::Ticker::new(engine.clone()).map_err(|e| Failure::io("clone", &e))?;
        Ok(Sandbox {
            engine,
            ready,
            component: bytes,
            code,
            digest: OnceLock::new(),
            limits,
            show_log: false,
            gives_way: false,
            ticker,
        })
    }

    /// The digest of the component.
    ///
    /// Counted when it is asked for: no call needs it, and it takes longer than all else at the start of a
    /// command.
    pub fn digest(&self) -> Digest {
        *self.digest.get_or_init(|| Digest::of(&self.component))
    }

    /// Where its machine code came from.
    pub fn code(&self) -> &Code {
        &self.code
    }

    /// The limits that a call has which brings none of its own.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether what components write to their standard error goes on to the host's.
    pub fn show_log(&mut self, show: bool) {
        self.show_log = show;
    }

    /// From now on a call that computes for long does so at a low priority, which stays with its thread: that
    /// one must not be used for another call.
    pub fn give_way(&mut self) {
        self.gives_way = true;
    }

    /// Runs one call in an instance of its own.
    ///
    /// # Errors
    ///
    /// What the component answers; [`Failure::GuestFailed`] where it traps; [`Failure::Limit`] where it
    /// reaches a bound.
    pub fn run<T>(
        &self,
        lease: Lease,
        call: impl FnOnce(&Instance, &mut Call) -> wasmtime::Result<Result<T, types::Error>>,
    ) -> Result<(T, Leftovers), Failure> {
        let _ticking = self.ticker.begin();
        let _entered = runtime();
        let limits = lease.limits.clone().unwrap_or_else(|| self.limits.clone());
        let mut store = Call { store: self.store(lease, &limits)? };
        let answer = self
            .ready
            .instantiate(&mut store.store)
            .and_then(|bindings| call(&Instance { bindings }, &mut store));
        let state = store.store.data_mut();
        if self.show_log {
            state.log.write_out();
        }
        let leftovers = Leftovers { filled: state.lease.filled(), written: state.lease.written() };
        let flushed = state.lease.close();
        match answer {
            Ok(Ok(value)) => {
                flushed?;
                Ok((value, leftovers))
            }
            Ok(Err(error)) => Err(convert::failure(error)),
            Err(trap) => Err(trapped(store.store.data(), &trap, &limits)),
        }
    }

    fn store(&self, lease: Lease, limits: &Limits) -> Result<Store<State>, Failure> {
        let mut wasi = WasiCtx::builder();
        // Fifteen times faster than handing each file operation to another thread, and this thread has
        // nothing else to do.
        wasi.allow_blocking_current_thread(true);
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        let log = log::GuestLog::default();
        wasi.stderr(log.clone());
        // Enough for the keys of hash tables. What it asks for more costs the host time.
        wasi.max_random_size(4096);
        let permissions = match lease.layers {
            Access::Read => FsPerms::ReadOnly,
            Access::Write => FsPerms::ReadWrite,
        };
        wasi.preopened_dir(lease.store.layers_path(), "/layers", permissions)
            .map_err(|e| Failure::GuestFailed(format!("layers/ cannot be lent: {e:#}")))?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        // What an archive unpacks to holds headers as well, and the component bounds those.
        let archive_room = if lease.filler.is_some() { u64::MAX } else { limits.bytes };
        let state = State {
            lease,
            table,
            wasi: wasi.build(),
            limits: memory::Bounds::new(limits.memory),
            clock: clock::CallClock::new(limits),
            record_room: layers::Room::new(),
            listings: layers::LISTINGS,
            walks: 0,
            archive_room,
            log,
        };
        let mut store = Store::new(&self.engine, state);
        store.set_hostcall_fuel(HANDED_OVER);
        store.limiter(|state| &mut state.limits);
        store.call_hook(|mut context, hook| {
            let State { clock, lease, .. } = context.data_mut();
            clock.cross(hook, lease.waited()).map_err(wasmtime::Error::msg)
        });
        let gives_way = self.gives_way;
        store.epoch_deadline_callback(move |mut context| {
            let clock = &mut context.data_mut().clock;
            if gives_way && clock.became_long() {
                // It goes on all the same where that cannot be.
                let _ = rustix::process::setpriority_process(None, LONG_CALLS);
            }
            Ok(if clock.is_over() { UpdateDeadline::Interrupt } else { UpdateDeadline::Continue(1) })
        });
        store.set_epoch_deadline(1);
        Ok(store)
    }
}

/// Why a component did not come to its end.
fn trapped(state: &State, trap: &wasmtime::Error, limits: &Limits) -> Failure {
    let limit = |bound: String| Failure::Limit { entry: Vec::new(), bound };
    if let Some(bound) = state.clock.spent() {
        return limit(bound.to_owned());
    }
    if let Some(imports::Fault(failure)) = trap.downcast_ref() {
        return Failure::GuestFailed(failure.clone());
    }
    if let Some(layers::NoRoom) = trap.downcast_ref() {
        return limit(format!("bytes written to layers/ ({})", layers::ROOM));
    }
    // Of the interfaces of WASI, which do not answer it as an error.
    if let Some(ResourceTableError::Full) = trap.downcast_ref() {
        return limit(format!("open handles ({})", limits.handles));
    }
    // The engine's error for this has a type that is not public.
    if trap.root_cause().to_string().contains("fuel allocated for hostcalls") {
        return limit(format!("bytes handed to the host in one call ({HANDED_OVER})"));
    }
    // A component that gets no more memory ends in some trap of its own; the bounds know that it was asked
    // for.
    if state.limits.were_reached() {
        return limit(format!("memory ({} bytes)", limits.memory));
    }
    let last = state.log.last_line();
    let said = if last.is_empty() { String::new() } else { format!("; it said: {last}") };
    Failure::GuestFailed(format!("{}{said}", trap.root_cause()))
}

/// An instance of the component, for one call.
#[allow(missing_debug_implementations)]
pub struct Instance {
    bindings: bindings::Driver,
}

/// The host's side of one call.
#[allow(missing_debug_implementations)]
pub struct Call {
    store: Store<State>,
}

/// The calls of the component. Each takes what the WIT says; see `wit/driver.wit`.
macro_rules! calls {
    ($($interface:ident . $call:ident as $method:ident ( $($name:ident : $kind:ty),* ) -> $answer:ty;)*) => {
        impl Instance {
            $(
                #[doc = concat!("Calls `", stringify!($call), "` of `", stringify!($interface), "`.")]
                ///
                /// # Errors
                ///
                /// The component trapped, or reached a bound.
                pub fn $method(&self, call: &mut Call, $($name: $kind),*) -> wasmtime::Result<Result<$answer, types::Error>> {
                    self.bindings.$interface().$call(&mut call.store, $($name),*)
                }
            )*
        }
    };
}

calls! {
    layerbox_driver_lifecycle.call_create as create(id: &types::LayerId, parent: Option<&types::LayerId>, depth: u32) -> ();
    layerbox_driver_lifecycle.call_remove as remove(id: &types::LayerId, force: bool) -> ();
    layerbox_driver_lifecycle.call_get as get(id: &types::LayerId, label: Option<&str>) -> lifecycle::Place;
    layerbox_driver_lifecycle.call_put as put(id: &types::LayerId) -> ();
    layerbox_driver_lifecycle.call_exists as exists(id: &types::LayerId) -> bool;
    layerbox_driver_lifecycle.call_list as list() -> Vec<lifecycle::Layer>;
    layerbox_driver_lifecycle.call_metadata as metadata(id: &types::LayerId) -> lifecycle::Layer;
    layerbox_driver_lifecycle.call_status as status() -> Vec<(String, String)>;
    layerbox_driver_lifecycle.call_cleanup as cleanup() -> u32;
    layerbox_driver_differ.call_diff as diff(id: &types::LayerId, parent: Option<&types::LayerId>, maps: &types::IdMaps) -> differ::Outcome;
    layerbox_driver_differ.call_apply_diff as apply_diff(id: &types::LayerId, parent: Option<&types::LayerId>, options: &differ::ApplyOptions) -> types::Totals;
    layerbox_driver_differ.call_changes as changes(id: &types::LayerId, parent: Option<&types::LayerId>) -> types::ChangeList;
    layerbox_driver_differ.call_diff_size as diff_size(id: &types::LayerId, parent: Option<&types::LayerId>) -> types::Totals;
}

/// The runtime of tokio that the functions of WASI want around them: where this thread is in none, one
/// without threads, since nothing in a call ever waits for it. That of wasmtime-wasi would start a thread for
/// each processor.
fn runtime() -> Option<EnterGuard<'static>> {
    static RUNTIME: LazyLock<Option<Runtime>> =
        LazyLock::new(|| tokio::runtime::Builder::new_current_thread().build().ok());
    if Handle::try_current().is_ok() { None } else { RUNTIME.as_ref().map(Runtime::enter) }
}

fn engine() -> Result<Engine, Failure> {
    layerbox_aot::engine().map_err(|e| Failure::GuestFailed(format!("the engine does not start: {e:#}")))
}
