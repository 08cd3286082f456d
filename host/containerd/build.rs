//! Makes messages, servers and clients of the .proto files, without protoc.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["snapshots.proto", "diff.proto", "content.proto", "leases.proto"];
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        // Blobs and pieces of them are passed on without a copy.
        .bytes(".containerd.services.content.v1")
        .compile_fds(descriptors)?;
    Ok(())
}
