//! The binary: hands the embedded component to the command line.

use std::process::ExitCode;

use layerbox::driver::Shipped;

/// The component that the build made, and the same compiled ahead of time. The build names the files (`.cargo/config.toml`).
const SHIPPED: Shipped = Shipped {
    component: include_bytes!(env!("LAYERBOX_COMPONENT")),
    compiled: include_bytes!(env!("LAYERBOX_COMPONENT_AOT")),
};

fn main() -> ExitCode {
    layerbox::cli::main(SHIPPED)
}
