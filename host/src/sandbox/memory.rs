//! The memory that a component may have, and whether it asked for more.

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

/// The bounds of one call.
pub(super) struct Bounds {
    limits: StoreLimits,
    reached: bool,
}

impl Bounds {
    /// So many bytes of linear memory; of the rest what a component built by any compiler needs.
    pub(super) fn new(memory: usize) -> Bounds {
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory)
            .memories(4)
            .tables(16)
            .table_elements(100_000)
            .instances(32)
            .build();
        Bounds { limits, reached: false }
    }

    /// Whether more was asked for.
    pub(super) fn were_reached(&self) -> bool {
        self.reached
    }
}

impl ResourceLimiter for Bounds {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = self.limits.memory_growing(current, desired, maximum)?;
        self.reached |= !granted;
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.limits.table_growing(current, desired, maximum)
    }

    fn instances(&self) -> usize {
        self.limits.instances()
    }

    fn tables(&self) -> usize {
        self.limits.tables()
    }

    fn memories(&self) -> usize {
        self.limits.memories()
    }
}
