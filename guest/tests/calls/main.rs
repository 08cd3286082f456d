//! The calls, natively, over real directories, in both dialects. To be run as root.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "tests")]

mod apply;
mod between;
mod changes;
mod diff;
mod host;
mod layers;
mod lifecycle;
mod store;
