//! A second component for layerbox, written from `wit/` and sharing nothing else with the shipped one. It
//! shows that the contract is enough to write from, and is what an auditor can read in an hour: one entry a
//! call, whole trees in memory, no cleverness.
//!
//! Read it in this order: `names` (what names in archives stand for), `view` (a layer and a stack of them as
//! sorted maps), `diff` and `encode` (from maps to an archive), `owners`, `input`, `member`, `pax`, `acl` and
//! `sparse` (from a stream to members), `apply` (from members to a layer), `records` and `lifecycle` (layers
//! as wholes).

mod acl;
mod apply;
mod diff;
mod encode;
mod error;
mod input;
mod lifecycle;
mod member;
mod names;
mod owners;
mod pax;
mod records;
mod sparse;
mod view;

/// What wit-bindgen makes of the WIT. Calls across the boundary of a component are `unsafe` by their nature;
/// this module holds nothing that was written by hand.
#[allow(unsafe_code, missing_docs, missing_debug_implementations, unreachable_pub, clippy::all)]
mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "driver", additional_derives: [PartialEq] });

    // Elsewhere linkers do not know such names; there the library is for the unit tests.
    #[cfg(target_arch = "wasm32")]
    use super::Plain;
    #[cfg(target_arch = "wasm32")]
    export!(Plain with_types_in self);
}

/// The component: what the host calls.
#[derive(Debug)]
pub struct Plain;
