//! From host addresses to regions, for the signal handler.

use super::epoch::Shared;
use crate::code::Placed;
use tulk_codegen::Region;
use tulk_codegen::code_memory::CodeMemory;

/// One pointer per [`Region::ALIGN`] bytes of code memory.
/// Untouched parts cost no memory.
pub struct FaultIndex {
    start: usize,
    granules: Box<[Shared<Placed>]>,
}

impl FaultIndex {
    pub fn new(memory: &CodeMemory) -> FaultIndex {
        let range = memory.range();
        let granules = super::zeroed_slice(range.len() / Region::ALIGN);
        FaultIndex { start: range.start, granules }
    }

    /// Files the region, or clears its part of the index.
    pub fn set(&self, region: &Placed, to: Option<&Placed>) {
        let first = (region.address - self.start) / Region::ALIGN;
        for granule in &self.granules[first..first + region.block.len() / Region::ALIGN] {
            granule.set(to);
        }
    }

    /// The guest instruction that the generated code at `pc` belongs to.
    ///
    /// # Safety
    /// The calling thread runs the code at `pc`, or `pc` is not in the code memory: then the region is alive.
    pub unsafe fn guest_pc(&self, pc: usize) -> Option<u64> {
        let granule = self.granules.get(pc.wrapping_sub(self.start) / Region::ALIGN)?;
        // SAFETY: the caller's promise.
        let region = unsafe { granule.get_unguarded() }?;
        region.fault_map.lookup((pc - region.address) as u32)
    }
}
