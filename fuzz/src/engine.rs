//! The program that libFuzzer drives: one for all targets, so that they are built once.
//! `LAYERBOX_FUZZ_TARGET` says which.
#![no_main]

use std::sync::LazyLock;

use layerbox_fuzz::Target;
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("LAYERBOX_FUZZ_TARGET").unwrap_or_default();
    layerbox_fuzz::target(&name)
        .unwrap_or_else(|| panic!("LAYERBOX_FUZZ_TARGET: no target is named {name:?}"))
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
