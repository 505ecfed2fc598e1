//! Neighbouring accesses to paged memory, on both compilers: what goes by one TLB entry, and when it does not.

use super::machine::{Left, MEMORY_CALLS, MEMORY_FORGETS, Machine};
use super::quality::unit;
use tulk_base::{CpuState, MemOp, Trap};
use tulk_codegen::baseline::Profile;
use tulk_codegen::{MemoryModel, Options};
use tulk_ir::builder::Builder;
use tulk_ir::filetest::env::{HELPERS, TestEnv, layout};
use tulk_ir::interp::Program;
use tulk_ir::{Shape, Slot, Type, Unit};

/// Of the pages in [`TestEnv`] the first is fast, the second only for loads.
const FAST: u64 = 0x10000;
const SLOW_STORES: u64 = 0x11000;

type Slots<'a> = &'a dyn Fn(&str) -> Slot;

/// Runs a unit on both compilers, with `x1` set. All it left must be alike, what is in `x3` right, and the memory thunk called
/// so often. `forgets`: each call takes all pages away from generated code.
fn run_expecting(
    x1: u64,
    forgets: bool,
    write: fn(&mut Builder<'_>, Slots<'_>),
    calls: impl Into<Option<u32>>,
) {
    let calls = calls.into();
    let unit: Unit = unit(0x1000, |b, r| {
        write(b, r);
        b.exit(0x2000);
    });
    let layout = layout();
    let cell = |name: &str| layout.cell(layout.by_name(name).unwrap());
    let mut results = Vec::new();
    for baseline in [true, false] {
        let mut m = if baseline {
            Machine::baseline(MemoryModel::Paged)
        } else {
            Machine::new(Options::default(), MemoryModel::Paged, true)
        };
        let program = Box::new(Program::new(&unit, &m.layout, HELPERS));
        let region = if baseline {
            m.compile_baseline(&unit, &program, Profile::LIMIT)
        } else {
            m.compile(&[&unit])
        };
        let placed = m.place(region);
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        for region in &mut env.regions {
            for (n, byte) in region.data.iter_mut().enumerate() {
                *byte = (n ^ n >> 8) as u8;
            }
        }
        state.set(cell("x1"), x1);
        state.set(cell("x2"), SLOW_STORES);
        state.set(cell("q1") + 1, FAST + 0x100);
        state.set(cell("q2") + 1, 0x40);
        MEMORY_FORGETS.set(forgets);
        MEMORY_CALLS.set(0);
        let left = m.run_region(&placed, &mut state, &mut env);
        MEMORY_FORGETS.set(false);
        assert!(matches!(left, Left::Direct(_)), "{left:?}");
        if let Some(calls) = calls {
            assert_eq!(MEMORY_CALLS.get(), calls, "baseline: {baseline}");
        }
        let values = ["x3", "x4", "x5", "x6"].map(|name| state.get(cell(name)));
        results.push((values, env.regions.iter().map(|r| r.data.clone()).collect::<Vec<_>>()));
    }
    let byte = |va: u64| {
        let n = (va - FAST) as usize;
        (n ^ n >> 8) as u8
    };
    let word = |va: u64| u64::from_le_bytes(std::array::from_fn(|n| byte(va + n as u64)));
    assert_eq!(results[0].0[0] as u32, word(x1 + 8) as u32, "what was loaded first");
    assert!(results[0] == results[1], "{:x?} {:x?}", results[0].0, results[1].0);
}

fn load(b: &mut Builder<'_>, r: Slots<'_>, to: &str, offset: i64) {
    let x1 = b.get(r("x1"));
    let value = b.load(Type::I64, x1, offset, MemOp::U64);
    b.set(r(to), value);
}

fn store(b: &mut Builder<'_>, r: Slots<'_>, base: &str, offset: i64) {
    let (base, value) = (b.get(r(base)), b.get(r("x3")));
    b.store(base, offset, MemOp::U64, value);
}

fn four_loads(b: &mut Builder<'_>, r: Slots<'_>) {
    b.insn(0x1000, 4);
    load(b, r, "x3", 8);
    load(b, r, "x4", -16);
    b.insn(0x1004, 4);
    // The base moves: the distance is still known.
    let x1 = b.get(r("x1"));
    let next = b.add_imm(x1, -16);
    b.set(r("x1"), next);
    load(b, r, "x5", 32);
    b.insn(0x1008, 4);
    load(b, r, "x6", 0);
}

#[test]
fn neighbours_hit_on_one_page() {
    run_expecting(FAST + 0x800, false, four_loads, 0);
}

/// Each is fast, but they have no page in common.
#[test]
fn neighbours_on_two_pages_hit_for_themselves() {
    for x1 in (SLOW_STORES - 48..SLOW_STORES + 48).step_by(8) {
        run_expecting(x1, false, four_loads, 0);
    }
    // One crosses the end of the page.
    run_expecting(SLOW_STORES - 12, false, four_loads, None);
}

fn with_stores(b: &mut Builder<'_>, r: Slots<'_>) {
    b.insn(0x1000, 4);
    load(b, r, "x3", 8);
    store(b, r, "x1", 16);
    b.insn(0x1004, 4);
    load(b, r, "x4", 16);
    store(b, r, "x1", 12);
    b.insn(0x1008, 4);
    load(b, r, "x5", 16);
    load(b, r, "x6", 8);
}

#[test]
fn loads_hit_where_stores_do_not() {
    run_expecting(FAST + 0x40, false, with_stores, 0);
    run_expecting(SLOW_STORES + 0x40, false, with_stores, 2);
    for x1 in SLOW_STORES - 40..SLOW_STORES + 8 {
        run_expecting(x1, false, with_stores, None);
    }
}

/// What a slow access may have changed does not hold any more, for any base.
#[test]
fn a_slow_access_ends_what_is_known() {
    let around = |b: &mut Builder<'_>, r: Slots<'_>| {
        b.insn(0x1000, 4);
        load(b, r, "x3", 8);
        load(b, r, "x4", 16);
        b.insn(0x1004, 4);
        store(b, r, "x2", 0);
        b.insn(0x1008, 4);
        load(b, r, "x5", 24);
        load(b, r, "x6", 8);
    };
    run_expecting(FAST, false, around, 1);
    // The store's, and both loads behind it: nothing is mapped for generated code any more.
    run_expecting(FAST, true, around, 3);
}

/// Sums of two registers, with the same distances.
#[test]
fn indexed_neighbours() {
    let indexed = |b: &mut Builder<'_>, r: Slots<'_>| {
        b.insn(0x1000, 4);
        for (to, offset) in [("x3", 8), ("x4", 12), ("x5", -8)] {
            let (x1, x7) = (b.get(r("x1")), b.get(r("x7")));
            let two = b.iconst(Type::I64, 2);
            let index = b.shl(x7, two);
            let sum = b.add(x1, index);
            let value = b.load(Type::I64, sum, offset, MemOp::U32);
            b.set(r(to), value);
        }
    };
    run_expecting(FAST + 0x100, false, indexed, 0);
    for x1 in (SLOW_STORES - 24..SLOW_STORES + 24).step_by(4) {
        run_expecting(x1, false, indexed, 0);
    }
}

/// A distance from the base of which the end is a negative one.
#[test]
fn the_farthest_are_no_neighbours() {
    const BASE: u64 = SLOW_STORES - 4;
    let far = |b: &mut Builder<'_>, r: Slots<'_>| {
        b.insn(0x1000, 4);
        load(b, r, "x3", 8);
        let distance = i64::MAX - 3;
        let x1 = b.get(r("x1"));
        let other = b.iconst(Type::I64, (BASE ^ BASE.wrapping_sub(distance as u64)) as i64);
        let unknown = b.xor(x1, other);
        let base = b.add_imm(unknown, distance);
        for to in ["x4", "x5"] {
            let value = b.load(Type::I64, base, 0, MemOp::U64);
            b.set(r(to), value);
        }
    };
    run_expecting(BASE, false, far, 2);
}

/// Both halves of a vector are new behind an operation on its floats.
#[test]
fn addresses_from_vectors() {
    let lanes = |b: &mut Builder<'_>, r: Slots<'_>| {
        b.insn(0x1000, 4);
        load(b, r, "x3", 8);
        for to in ["x4", "x5", "x6"] {
            let (q1, q2) = (b.get(r("q1")), b.get(r("q2")));
            let address = b.vlane(Shape::I64x2, q1, 1);
            let value = b.load(Type::I64, address, 0, MemOp::U64);
            b.set(r(to), value);
            // Small numbers, of which the bits are the sum of the bits.
            let sum = b.vfadd(Shape::F64x2, q1, q2);
            b.set(r("q1"), sum);
        }
    };
    run_expecting(FAST, false, lanes, 0);
}

/// Slots that are still in registers, or constants, are in the state when an access faults: as they were before it.
#[test]
fn slots_are_exact_where_an_access_faults() {
    const NOWHERE: u64 = 0x500;
    let unit: Unit = unit(0x1000, |b, r| {
        let slot = |name: &str| r(name);
        b.insn(0x1000, 4);
        for (to, k) in [("x3", 1), ("x3", -7), ("x4", 2)] {
            let k = b.iconst(Type::I64, k);
            b.set(slot(to), k);
        }
        let x1 = b.get(slot("x1"));
        let next = b.add_imm(x1, 1);
        b.set(slot("x4"), next);
        let q1 = b.get(slot("q1"));
        let twice = b.vadd(Shape::I64x2, q1, q1);
        b.set(slot("q2"), twice);
        b.insn(0x1004, 4);
        let x7 = b.get(slot("x7"));
        let value = b.load(Type::I64, x7, 0, MemOp::U64);
        b.set(slot("x3"), value);
        b.set(slot("x4"), value);
        b.set(slot("q2"), q1);
        b.exit(0x2000);
    });
    let layout = layout();
    let cell = |name: &str| layout.cell(layout.by_name(name).unwrap());
    let mut m = Machine::baseline(MemoryModel::Paged);
    let program = Box::new(Program::new(&unit, &m.layout, HELPERS));
    let region = m.compile_baseline(&unit, &program, Profile::LIMIT);
    let placed = m.place(region);
    for (x7, faults) in [(NOWHERE, true), (FAST, false)] {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        state.set(cell("x1"), 40);
        state.set(cell("x7"), x7);
        state.set(cell("q1"), 3);
        state.set(cell("q1") + 1, 4);
        let left = m.run_region(&placed, &mut state, &mut env);
        let values = ["x3", "x4", "q2"].map(|name| state.get(cell(name)));
        if faults {
            assert!(matches!(left, Left::Trap(Trap::Mem(_))), "{left:?}");
            assert_eq!((state.pc(), values), (0x1004, [-7i64 as u64, 41, 6]));
            assert_eq!(state.get(cell("q2") + 1), 8);
        } else {
            assert!(matches!(left, Left::Direct(_)), "{left:?}");
            assert_eq!((values[0], values[2]), (values[1], 3));
        }
    }
}

/// What is overwritten before anybody can see it is not stored.
#[test]
fn dead_stores_vanish() {
    let code_len = |times: i64| {
        let unit: Unit = unit(0x1000, |b, r| {
            b.insn(0x1000, 4);
            for n in 0..times {
                let x1 = b.get(r("x1"));
                let next = b.add_imm(x1, n);
                b.set(r("x1"), next);
                let k = b.iconst(Type::I64, n);
                b.set(r("x3"), k);
            }
            b.exit(0x2000);
        });
        let mut m = Machine::baseline(MemoryModel::Paged);
        let program = Box::new(Program::new(&unit, &m.layout, HELPERS));
        m.compile_baseline(&unit, &program, Profile::LIMIT).code_len
    };
    // An addition each; as many as leave the jump behind them as it is aligned.
    assert_eq!(code_len(18) - code_len(2), 16 * 4);
}
