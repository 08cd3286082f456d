//! The binary: hands the embedded component to the command line.

use std::process::ExitCode;

use layerbox::driver::Shipped;

/// The component that the build made, and the same compiled ahead of time. The build names the files
/// (`.cargo/config.toml`).
const SHIPPED: Shipped = Shipped {
    component: include_bytes!(env!("LAYERBOX_COMPONENT")),
    compiled: include_bytes!(env!("LAYERBOX_COMPONENT_AOT")),
};

/// What an archive is read in comes and goes hundreds of times in a call. glibc would give that memory back
/// to the kernel each time, and take it anew page by page. It keeps as much as it has once seen come and go
/// in one piece, twice over (mallopt(3), `M_MMAP_THRESHOLD`), and elsewhere this does nothing.
const PIECE_TO_KEEP: usize = 8 << 20;

fn main() -> ExitCode {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(PIECE_TO_KEEP)));
    layerbox::cli::main(SHIPPED)
}
