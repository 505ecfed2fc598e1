//! Which blocks become one region.
//!
//! From the hot block outwards, always the block next that is reached most often: along direct edges weighted by
//! their counters, so loops close, both arms of a branch join when both are taken, and callees join with the
//! places they return to. Cold edges stay out and become edge slots.

use crate::engine::Engine;
use crate::host::epoch::Guard;
use crate::tb::{Edge, Tb, code};
use crate::tuning;
use crate::vcpu::key_behind;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;
use tulk_base::GuestVa;
use tulk_codegen::Target;
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
    ret: Option<TbKey>,
}

/// The blocks of the region that starts at `entry`, which comes first.
pub fn form<'g>(engine: &Engine, entry: &'g Tb, guard: &'g Guard<'_>) -> Vec<&'g Tb> {
    let (mut blocks, mut insns): (Vec<&'g Tb>, u32) = (Vec::new(), 0);
    let rare = engine.config.threshold / tuning::RARE_SHARE;
    let mut order = 0;
    let mut heap = BinaryHeap::new();
    let first = Candidate {
        weight: engine.config.threshold,
        order: std::cmp::Reverse(0),
        key: entry.key,
        ret: None,
    };
    heap.push(first);
    while let Some(Candidate { key, ret, weight, .. }) = heap.pop() {
        let mut push = |weight, key, ret| {
            order += 1;
            heap.push(Candidate { weight, order: std::cmp::Reverse(order), key, ret });
        };
        // Never the same place on two frames.
        if !blocks.iter().any(|tb| engine.bare(tb.key) == engine.bare(key)) {
            let found = if key == entry.key { Some(entry) } else { engine.table.get(key, guard) };
            let Some(tb) = found.filter(|tb| joins(tb)) else { continue };
            if blocks.len() >= engine.config.region_tbs
                || !blocks.is_empty() && insns + tb.insns as u32 > engine.config.region_insns
            {
                continue;
            }
            blocks.push(tb);
            insns += tb.insns as u32;
            let exits = tb.program.exit_count();
            let limit = engine.config.heat_limit();
            let count = |n| tb.count(n, limit);
            let total: u64 = (0..exits).map(|n| count(n) as u64).sum();
            let cold = (total * tuning::COLD_SHARE as u64 / 256) as u32;
            for (count, to, ret) in computed(engine, tb, weight, guard) {
                let ret = ret.and_then(|ret| engine.key_beside(key, ret));
                if count >= rare && (ret.is_none() || !is_large_region(engine, to, guard)) {
                    push(count, to, ret);
                }
            }
            for (n, (edge, exit)) in tb.edges().zip(tb.program.exits()).enumerate() {
                // The only exit is taken as often as the block is reached, and nobody counts that.
                let count = if exits == 1 { weight } else { count(n) };
                let beside = engine.key_beside(tb.key, key_behind(&exit));
                let Some(to) = beside.or_else(|| edge.known(guard).map(|tb| tb.key)) else {
                    continue;
                };
                let is_call = exit.kind == ExitKind::Call;
                if count < cold.max(rare) || is_call && is_large_region(engine, to, guard) {
                    continue;
                }
                let flags = engine.bare(key).flags;
                let ret = exit.return_pc().map(|pc| TbKey { pc: GuestVa(pc), flags });
                let ret = ret.and_then(|ret| engine.key_beside(key, ret));
                push(count, to, ret);
            }
        }
        if let Some(ret) = ret {
            push(weight, ret, None);
        }
    }
    blocks
}

/// Where a block's computed jump or call went while tier 0 counted, with its part of the block's `weight` and where a call returns
/// to.
fn computed<'g>(
    engine: &Engine,
    tb: &'g Tb,
    weight: u32,
    guard: &'g Guard<'_>,
) -> impl Iterator<Item = (u32, TbKey, Option<TbKey>)> {
    let flags = engine.bare(tb.key).flags;
    let ret = tb.program.computed_exit().flatten().map(|pc| TbKey { pc: GuestVa(pc), flags });
    let known =
        edges(engine, tb).iter().filter_map(|edge| Some((edge.known(guard)?, edge.count())));
    let samples: u64 = known.clone().map(|(_, count)| count as u64).sum();
    known.map(move |(to, count)| {
        let part = weight as u64 * count as u64 / samples.max(1);
        (part as u32, to.key, ret)
    })
}

/// In system mode, where blocks come and go with their pages, computed exits leave the region.
fn edges<'g>(engine: &Engine, tb: &'g Tb) -> &'g [Edge] {
    if engine.system.is_none() { tb.computed() } else { &[] }
}

/// Computed exits of `blocks` that lead to another of them, those that were taken most first.
pub fn targets(engine: &Engine, blocks: &[&Tb], guard: &Guard<'_>) -> Vec<Target> {
    let mut found = Vec::new();
    for tb in blocks {
        let known =
            edges(engine, tb).iter().filter_map(|edge| Some((edge.count(), edge.known(guard)?)));
        found.extend(
            known
                .filter(|(_, to)| blocks.iter().any(|tb| std::ptr::eq(*tb, *to)))
                .map(|(count, to)| (count, tb.key, to.key)),
        );
    }
    found.sort_by_key(|&(count, ..)| std::cmp::Reverse(count));
    let target = |(_, from, to): (u32, TbKey, TbKey)| {
        let from = engine.bare(from);
        Target { from: (from.pc.0, from.flags), pc: to.pc.0 }
    };
    found.into_iter().map(target).collect()
}

/// A callee that has a region of its own is called through its edge, unless it is small enough to be copied.
fn is_large_region(engine: &Engine, key: TbKey, guard: &Guard<'_>) -> bool {
    engine
        .table
        .get(key, guard)
        .is_some_and(|tb| tb.in_region.load(Ordering::Relaxed) && tb.insns > tuning::SMALL_CALLEE)
}

/// Valid and allowed in generated code.
fn joins(tb: &Tb) -> bool {
    tb.second().is_none()
        && !matches!(tb.code.load(Ordering::Acquire), code::INVALID | code::CHECKED | code::BREAK)
}
