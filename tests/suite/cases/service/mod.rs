//! The service, as Docker and operators meet it.

mod engine;
mod life;
mod protocol;
mod streams;

use crate::harness::Case;

pub(super) fn cases() -> Vec<Case> {
    [protocol::cases(), streams::cases(), engine::cases(), life::cases()].into_iter().flatten().collect()
}
