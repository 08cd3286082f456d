//! The logic of layerbox, a container storage driver: all that reads what a stranger wrote, and no authority.
//!
//! Compiled for `wasm32-wasip2` this crate is the component that the `layerbox` binary runs in its sandbox,
//! one fresh instance a call. It imports what a call may do ([`host`]) and exports the calls of a storage
//! driver (`component`; the contract is `wit/`). Compiled natively it is an ordinary library without the
//! exports, which tests, fuzzers and benches drive over their own implementation of [`host`]'s traits.
//!
//! Where to look:
//!
//! | module | idea |
//! |---|---|
//! | [`host`] | the imports as traits, with the contract's types |
//! | [`layers`] | `layers/`: which layers there are, and what each lies on |
//! | [`lifecycle`] | layers as wholes: create, remove, get, put, cleanup |
//! | [`archive`], [`compression`] | bytes to members and back, without any input or output of their own |
//! | [`whiteout`] | how deletions are written: in archives, by aufs, by overlayfs |
//! | [`apply`] | from an archive to a layer |
//! | [`merge`] | many layers seen as one tree, and two such trees side by side |
//! | [`diff`] | from a layer, or from two trees, to an archive |
//! | [`changes`] | what differs between two trees, as a list |
//! | [`size`] | what a layer adds up to |
//! | [`idmap`] | owners in archives and on disk |
//! | [`labels`] | which extended attributes are content |
//! | [`differ`] | the calls about what layers hold, by their ids |
//!
//! Bodies of files do not pass through here: the host copies them from stream to file and from file to
//! stream, at the word of this crate ([`host::Writer::put`], [`host::Tree::send`]).

pub mod apply;
pub mod archive;
pub mod changes;
pub mod compression;
pub mod diff;
pub mod differ;
mod error;
pub mod host;
pub mod idmap;
pub mod labels;
pub mod layers;
pub mod lifecycle;
pub mod merge;
pub mod size;
pub mod whiteout;

#[cfg(test)]
#[path = "../../tests/src/skip.rs"]
#[allow(unreachable_pub, reason = "public in the crate that it is of")]
mod skip;

#[cfg(target_arch = "wasm32")]
pub mod component;

/// The bindings that wit-bindgen makes of `wit/`.
#[allow(
    unsafe_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated: lifting and lowering of the component model's values, and no code of ours"
)]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit",
        world: "driver",
        additional_derives: [PartialEq, Eq],
        generate_all,
        // Another crate can make a component of its own of this one's parts, without the feature `exports`.
        pub_export_macro: true,
        default_bindings_module: "layerbox_guest::bindings",
    });

    #[cfg(all(target_arch = "wasm32", feature = "exports"))]
    export!(Component with_types_in self);

    /// What the exports are implemented for: see [`component`](crate::component).
    #[cfg(target_arch = "wasm32")]
    #[derive(Debug)]
    pub struct Component;
}
