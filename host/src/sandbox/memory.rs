//! The memory that a component may have, and whether it asked for more.

use wasmtime::{ResourceLimiter, StoreLimits, StoreLimitsBuilder};

/// The bounds of one call.
pub(super) struct Bounds {
    limits: StoreLimits,
    memory: usize,
    used: usize,
    reached: bool,
}

impl Bounds {
    /// So many bytes of linear memory, all memories of the component together; of the rest what a component
    /// built by any compiler needs.
    pub(super) fn new(memory: usize) -> Bounds {
        let limits = StoreLimitsBuilder::new()
            .memory_size(memory)
            .memories(4)
            .tables(16)
            .table_elements(100_000)
            .instances(32)
            .build();
        Bounds { limits, memory, used: 0, reached: false }
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
        let used = self.used.saturating_add(desired.saturating_sub(current));
        let granted = used <= self.memory && self.limits.memory_growing(current, desired, maximum)?;
        if granted {
            self.used = used;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_for_all_memories_together() {
        let mut bounds = Bounds::new(100);
        assert!(bounds.memory_growing(0, 60, None).unwrap());
        assert!(!bounds.memory_growing(0, 60, None).unwrap(), "a second memory");
        assert!(bounds.were_reached());
        assert!(bounds.memory_growing(60, 100, None).unwrap());
    }
}
