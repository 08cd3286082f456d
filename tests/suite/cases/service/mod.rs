//! The service, as Docker and operators meet it.

mod counts;
mod crowd;
mod engine;
mod life;
mod privileges;
mod protocol;
mod quiet;
mod streams;

use crate::harness::Case;

pub(super) fn cases() -> Vec<Case> {
    let groups = [
        protocol::cases(),
        streams::cases(),
        quiet::cases(),
        engine::cases(),
        life::cases(),
        counts::cases(),
        privileges::cases(),
        crowd::cases(),
    ];
    groups.into_iter().flatten().collect()
}
