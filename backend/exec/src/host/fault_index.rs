//! From host addresses to the code that lies there, for the signal handler and for edges.

use super::epoch::{Guard, Shared};
use crate::code::Placed;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use tulk_codegen::code_memory::{CodeBlock, CodeMemory, MIN_BLOCK};
use tulk_codegen::{Region, Resume};

/// One pointer per [`MIN_BLOCK`] bytes of code memory, to the code that starts there. Untouched parts cost no memory.
///
/// A pointer may be followed only by a thread that runs the code, or under the lock of `code.rs`, which is held when code
/// is forgotten.
pub struct FaultIndex {
    start: usize,
    granules: Box<[Shared<Placed>]>,
    /// Where in its granule the code starts: units of [`Region::ALIGN`], plus one.
    starts: Box<[AtomicU8]>,
}

impl FaultIndex {
    pub fn new(memory: &CodeMemory) -> FaultIndex {
        let range = memory.range();
        let n = range.len() / MIN_BLOCK;
        let (granules, starts) = (super::zeroed_slice(n), super::zeroed_slice(n));
        FaultIndex { start: range.start, granules, starts }
    }

    /// Files or forgets the code in this block.
    pub fn set(&self, block: &CodeBlock, to: Option<&Placed>) {
        let n = block.offset() / MIN_BLOCK;
        self.granules[n].set(to);
        let start = block.offset() % MIN_BLOCK / Region::ALIGN + 1;
        self.starts[n].store(if to.is_some() { start as u8 } else { 0 }, Ordering::Release);
    }

    /// Granule and offset of the last code that starts at `address` or before.
    fn locate(&self, address: usize) -> Option<(&Shared<Placed>, usize)> {
        let offset = address.wrapping_sub(self.start);
        let starts = self.starts.get(..=offset / MIN_BLOCK)?.iter().enumerate().rev();
        let at = |n: usize, start: u8| n * MIN_BLOCK + (start as usize - 1) * Region::ALIGN;
        starts
            .filter_map(|(n, start)| match start.load(Ordering::Acquire) {
                0 => None,
                start => Some((&self.granules[n], at(n, start))),
            })
            .find(|&(_, at)| at <= offset)
    }

    /// The code that lies around `address`; see there who may ask.
    pub fn find<'g>(&self, address: usize, guard: &'g Guard<'_>) -> Option<&'g Placed> {
        let (granule, at) = self.locate(address)?;
        let placed = granule.get(guard)?;
        (address - self.start - at < placed.block.len()).then_some(placed)
    }

    /// All code that starts in this part of the memory. Under the lock.
    pub fn each<'g>(
        &self,
        offsets: Range<usize>,
        guard: &'g Guard<'_>,
    ) -> impl Iterator<Item = &'g Placed> {
        let granules = offsets.start / MIN_BLOCK..offsets.end / MIN_BLOCK;
        self.granules[granules].iter().filter_map(|granule| granule.get(guard))
    }

    /// Where to go on for the generated code at `pc`, if it belongs to a guest instruction.
    ///
    /// # Safety
    /// The calling thread runs the code at `pc`, or `pc` is not in the code memory: then the code is alive.
    pub unsafe fn resume(&self, pc: usize) -> Option<Resume> {
        let (granule, at) = self.locate(pc)?;
        // SAFETY: the caller's promise: it is the code that the thread runs.
        let placed = unsafe { granule.get_unguarded() }?;
        placed.fault_map.lookup((pc - self.start - at) as u32)
    }
}
