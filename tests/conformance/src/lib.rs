//! The contract of `wit/` as a suite of cases, to hold any component against.
//!
//! The suite knows the contract and no implementation of it. It drives a [`Subject`], which makes empty
//! [`Store`]s, through the calls of the graph driver; it makes its archives byte by byte and reads them with
//! a strict reader of its own ([`tar`]); and it has a [`model`] of its own that says what each answer must
//! be.
//!
//! A [`Case`] is a name that stays the same, a sentence on what it is about, and a function. [`run`] goes
//! through them and tells of each as it ends.

pub mod cases;
pub mod check;
pub mod escape;
#[cfg(test)]
mod guide;
pub mod model;
mod random;
mod runner;
pub mod subject;
pub mod tar;
pub mod view;

pub use cases::{Case, Context, Outcome, Scope, Stop};
pub use runner::{Options, Report, Summary, Verdict, names, run};
pub use subject::{Bounds, Change, ChangeKind, Dialect, Diff, Failure, Layer, Store, Subject, Totals};
