//! Wrong components: the shipped one, with one fault.
//!
//! The conformance suite is worth what it finds. Each fault here breaks one rule of the contract, and one
//! case of the suite must find it; the table of faults and cases is in `tests/suite/cases/wrong.rs`.
//!
//! Nothing of the shipped component is changed for that. It is linked as a library, and a fault sits at its
//! edges: between it and what it is lent (the traits of `layerbox_guest::host`: `seen` for layers that are
//! read, `mended` for archives), or between it and who calls it (`calls`).
//!
//! There is one build, however many faults. Which one a component has is written in its data: `fault` keeps a
//! word of fixed width behind a marker that occurs nowhere else, and the tests write another word there, in a
//! copy of the file. So each fault is a component of its own, with its own digest, and none needs a compiler.
//! As it is built, the component has no fault, and must pass.

#![cfg(target_arch = "wasm32")]

mod calls;
mod fault;
mod mended;
mod seen;
