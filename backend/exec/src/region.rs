//! Which blocks become one region.
//!
//! From the hot block outwards, always the block next that is reached most often: along direct edges weighted by
//! their counters, so loops close, both arms of a branch join when both are taken, and callees join with the
//! places they return to. Cold edges stay out and become edge slots.

use crate::engine::Engine;
use crate::host::epoch::Guard;
use crate::tb::{Tb, code};
use crate::tuning;
use std::collections::BinaryHeap;
use tulk_base::GuestVa;
use tulk_frontend::TbKey;
use tulk_ir::ExitKind;

/// A block that could join.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    weight: u32,
    /// Earlier found first among equals.
    order: std::cmp::Reverse<u32>,
    key: TbKey,
    /// For a callee: where it returns to, which joins after it.
    ret: Option<u64>,
}

/// The blocks of the region that starts at `entry`, which comes first.
pub fn form<'g>(engine: &Engine, entry: &'g Tb, guard: &'g Guard<'_>) -> Vec<&'g Tb> {
    let flags = entry.key.flags;
    let (mut blocks, mut insns): (Vec<&'g Tb>, u32) = (Vec::new(), 0);
    let mut order = 0;
    let mut heap = BinaryHeap::new();
    let first =
        Candidate { weight: u32::MAX, order: std::cmp::Reverse(0), key: entry.key, ret: None };
    heap.push(first);
    while let Some(Candidate { key, ret, weight, .. }) = heap.pop() {
        let mut push = |weight, pc, ret| {
            order += 1;
            let key = TbKey { pc: GuestVa(pc), flags };
            heap.push(Candidate { weight, order: std::cmp::Reverse(order), key, ret });
        };
        if !blocks.iter().any(|tb| tb.key == key) {
            let found = if key == entry.key { Some(entry) } else { engine.table.get(key, guard) };
            let Some(tb) = found.filter(|tb| joins(tb)) else { continue };
            if blocks.len() >= engine.config.region_tbs
                || !blocks.is_empty() && insns + tb.insns > engine.config.region_insns
            {
                continue;
            }
            blocks.push(tb);
            insns += tb.insns;
            let total: u64 = tb.edges().map(|e| e.count() as u64).sum();
            for (edge, exit) in tb.edges().zip(tb.program.exits()) {
                if edge.count() as u64 * 256 < total * tuning::COLD_SHARE as u64 {
                    continue;
                }
                let ret = if exit.kind == ExitKind::Call { exit.ret } else { None };
                push(edge.count(), exit.pc, ret);
            }
        }
        if let Some(ret) = ret {
            push(weight, ret, None);
        }
    }
    blocks
}

/// Valid and allowed in generated code.
fn joins(tb: &Tb) -> bool {
    !matches!(tb.code.load(std::sync::atomic::Ordering::Acquire), code::INVALID | code::CHECKED)
}
