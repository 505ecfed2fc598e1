//! Writes that share a checkpoint: a fault behind some of them leaves those out when it is repeated.

use super::machine::{Left, Machine};
use super::quality::{slot, unit};
use super::reference::Reference;
use super::regions::{burn, compare, get, machine, set};
use tulk_base::{CpuState, GuestMem, GuestVa, MemOp, Trap};
use tulk_codegen::MemoryModel;
use tulk_ir::filetest::Runner;
use tulk_ir::filetest::env::{HELPERS, TestEnv};
use tulk_ir::filetest::random::Rng;
use tulk_ir::{Builder, FpRule, RegLayout, Type, Unit};

/// Four instructions with a write each, the third with two, the registers `x1` to `x5` as their addresses, and arithmetic
/// on `x6` between them; between the last two something is read.
fn row_unit() -> Unit {
    unit(0x1000, |b, r| {
        let write = |b: &mut Builder<'_>, n: u32| {
            let address = b.get(r(&format!("x{n}")));
            let value = b.get(r("x6"));
            b.store(address, 0, MemOp::U64, value);
        };
        for (n, writes) in [1..2, 2..3, 3..5, 5..6].into_iter().enumerate() {
            b.insn(0x1000 + 8 * n as u64, 4);
            writes.for_each(|n| write(b, n));
            b.insn(0x1004 + 8 * n as u64, 4);
            let value = b.get(r("x6"));
            let more = if n == 2 {
                let address = b.get(r("x1"));
                b.load(Type::I64, address, 0x80, MemOp::U64)
            } else {
                b.add_imm(value, 1)
            };
            b.set(r("x6"), more);
        }
        b.exit(0x2000);
    })
}

#[test]
fn a_fault_leaves_out_the_writes_of_its_row() {
    let mut m = machine(true);
    let unit = row_unit();
    let region = m.compile(&[&unit]);
    let placed = m.place(region);
    for bad in 1..=5u64 {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        for n in 1..=5 {
            // Nobody may write to the page at 0x12000.
            set(&mut state, &format!("x{n}"), if n == bad { 0x12000 } else { 0x10000 + 8 * n });
        }
        set(&mut state, "x6", 40);
        let mut expected_state = CpuState::new();
        expected_state.cells.copy_from_slice(&state.cells);
        let mut expected_env = TestEnv::new();
        let mut reference = Reference::new();
        let expected = reference.run(&unit, &mut expected_state, &mut expected_env);

        let left = m.run_region(&placed, &mut state, &mut env);
        assert!(matches!(left, Left::Trap(Trap::Mem(_))), "{left:?}");
        assert_eq!((state.pc(), m.done as u64), (0x1000, bad - 1));
        assert_eq!(get(&state, "x6"), 40);
        // What they wrote has been changed since, by another thread, and stays so.
        for n in 1..bad {
            for env in [&mut env, &mut expected_env] {
                env.store(GuestVa(0x10000 + 8 * n), MemOp::U64, 77).expect("memory");
            }
        }
        let again = reference.resume(&unit, &mut state, &mut env, m.done);
        assert_eq!((again, state.pc()), (expected, expected_state.pc()), "write {bad}");
        assert_eq!(get(&state, "x6"), get(&expected_state, "x6"));
        assert_eq!(env.regions, expected_env.regions);
    }
}

/// Nobody may write here.
const READ_ONLY: u64 = 0x12000;

/// One guest instruction at `pc`: it writes, once or twice, reads, does both, or computes.
fn random_instruction(rng: &mut Rng, b: &mut Builder<'_>, layout: &RegLayout, pc: u64) {
    b.insn(pc, 4);
    let register = |rng: &mut Rng| slot(layout, &format!("x{}", 1 + rng.below(3)));
    let value = slot(layout, &format!("x{}", 4 + rng.below(2)));
    let write = |rng: &mut Rng, b: &mut Builder<'_>| {
        let (address, value) = (b.get(register(rng)), b.get(value));
        b.store(address, 8 * rng.below(8) as i64, MemOp::U64, value);
    };
    let read = |rng: &mut Rng, b: &mut Builder<'_>| {
        let address = b.get(register(rng));
        let read = b.load(Type::I64, address, 8 * rng.below(8) as i64, MemOp::U64);
        b.set(value, read);
    };
    match rng.below(16) {
        0..6 => write(rng, b),
        6..8 => (0..2).for_each(|_| write(rng, b)),
        8 => read(rng, b),
        9 => {
            read(rng, b);
            write(rng, b);
        }
        // A push and a pop.
        10 => {
            write(rng, b);
            read(rng, b);
        }
        11..14 => {
            let register = register(rng);
            let address = b.get(register);
            let next = b.add_imm(address, 0x80 * rng.below(4) as i64);
            b.set(register, next);
        }
        _ => {
            let old = b.get(value);
            let sum = b.add_imm(old, 1 + rng.below(9) as i64);
            b.set(value, sum);
        }
    }
}

/// Units of such instructions, of which some have two ways that meet again, wired into a graph.
fn random_rows(rng: &mut Rng, layout: &RegLayout, count: u64) -> Vec<Unit> {
    let make = |n| {
        let pc = 0x1000 + 0x100 * n;
        let mut unit = Unit::new(pc, 0, FpRule::Arm);
        let mut b = Builder::new(&mut unit, layout, HELPERS);
        let mut at = pc;
        let mut some = |rng: &mut Rng, b: &mut Builder<'_>| {
            for _ in 0..1 + rng.below(4) {
                // Behind the instruction that burns fuel.
                at += 4;
                random_instruction(rng, b, layout, at);
            }
        };
        let exit = |rng: &mut Rng, b: &mut Builder<'_>| {
            b.exit(0x1000 + 0x100 * rng.below(count as usize) as u64);
        };
        some(rng, &mut b);
        let shape = rng.below(3);
        if shape != 0 {
            let (one, other) = (b.label(), b.label());
            let value = b.get(slot(layout, "x4"));
            let bit = b.and_imm(value, 1 << rng.below(4));
            let taken = b.icmp_imm(tulk_ir::IntCc::Ne, bit, 0);
            b.brif(taken, one, other);
            b.place(one);
            some(rng, &mut b);
            if shape == 1 {
                exit(rng, &mut b);
            } else {
                b.jump(other);
            }
            b.place(other);
            some(rng, &mut b);
        }
        exit(rng, &mut b);
        b.finish();
        burn(&mut unit, slot(layout, "w7"));
        unit
    };
    (0..count).map(make).collect()
}

fn compare_rows(m: Machine, first: u64) {
    let seeds = std::env::var("TULK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    let set_up = |rng: &mut Rng, layout: &RegLayout, state: &mut CpuState| {
        let mut set = |name: &str, value| state.set(layout.def(slot(layout, name)).cell, value);
        for name in ["x1", "x2", "x3"] {
            set(name, READ_ONLY - 0x80 * rng.below(16) as u64 - 0x40);
        }
        for name in ["x4", "x5"] {
            set(name, rng.below(1 << 16) as u64);
        }
    };
    let [faults, left_out] = compare(m, first, random_rows, set_up);
    assert!(faults > seeds && left_out > seeds / 4, "{faults} faults, {left_out} behind writes");
}

#[test]
fn random_rows_of_writes() {
    compare_rows(machine(true), 0);
}

#[test]
fn random_rows_of_writes_in_a_window() {
    compare_rows(Machine { model: MemoryModel::Based, ..machine(true) }, 1 << 32);
}
