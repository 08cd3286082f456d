//! containerd's gRPC services, as far as layerbox speaks them: messages, servers and clients.
//!
//! All of it but [`connect`] is generated from the files in `proto/`, which repeat containerd's names and
//! field numbers and nothing else of it. A `package` is a module here; the last part of it is the version.

pub mod connect;

/// `containerd.types`: what several services have in common.
#[allow(missing_docs, clippy::all)]
pub mod types {
    tonic::include_proto!("containerd.types");
}

/// `containerd.services`.
pub mod services {
    /// Snapshots: names, parents and how to mount them.
    pub mod snapshots {
        /// Version 1.
        #[allow(missing_docs, missing_debug_implementations, clippy::all)]
        pub mod v1 {
            tonic::include_proto!("containerd.services.snapshots.v1");
        }
    }
    /// What turns blobs into the content of snapshots, and back.
    pub mod diff {
        /// Version 1.
        #[allow(missing_docs, missing_debug_implementations, clippy::all)]
        pub mod v1 {
            tonic::include_proto!("containerd.services.diff.v1");
        }
    }
    /// The engine's blobs.
    pub mod content {
        /// Version 1.
        #[allow(missing_docs, missing_debug_implementations, clippy::all)]
        pub mod v1 {
            tonic::include_proto!("containerd.services.content.v1");
        }
    }
    /// What keeps blobs from the engine's garbage collector.
    pub mod leases {
        /// Version 1.
        #[allow(missing_docs, missing_debug_implementations, clippy::all)]
        pub mod v1 {
            tonic::include_proto!("containerd.services.leases.v1");
        }
    }
}
