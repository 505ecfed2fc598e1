//! Regions of several units: loops, calls and returns inside, chaining between regions, polls.

use super::machine::{Left, Machine, edge, interrupted};
use super::quality::{repeat_x1, sum_unit, unit};
use super::reference::Reference;
use std::sync::atomic::Ordering::SeqCst;
use tulk_base::{CpuState, FaultCause, MemFault, MemOp, Trap};
use tulk_codegen::abi::{JumpEntry, jump_cache_index, word};
use tulk_codegen::{EdgeKind, MemoryModel, Options, Target};
use tulk_ir::filetest::env::{TestEnv, layout};
use tulk_ir::filetest::random::{self, Rng};
use tulk_ir::filetest::{Outcome, Runner};
use tulk_ir::{ExitKind, Inst, IntCc, Op, RegLayout, Slot, Type, Unit, Value};

pub fn machine(precise: bool) -> Machine {
    let options = Options { optimize: true, verify: true, listing: false };
    Machine::new(options, MemoryModel::Flat, precise)
}

pub fn get(state: &CpuState, name: &str) -> u64 {
    let layout = layout();
    state.get(layout.cell(layout.by_name(name).unwrap()))
}

pub fn set(state: &mut CpuState, name: &str, value: u64) {
    let layout = layout();
    state.set(layout.cell(layout.by_name(name).unwrap()), value);
}

const JUMP: EdgeKind = EdgeKind::Exit(ExitKind::Jump);
const CALL: EdgeKind = EdgeKind::Exit(ExitKind::Call);

/// `x3 += 1; return to x30 (x14)`.
fn callee(pc: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let x3 = b.get(r("x3"));
        let more = b.add_imm(x3, 1);
        b.set(r("x3"), more);
        let to = b.get(r("x14"));
        b.exit_indirect(ExitKind::Return, to, None, None);
    })
}

/// `x14 = ret; call callee`.
fn caller(pc: u64, callee: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let ret = b.iconst(Type::I64, pc as i64 + 4);
        b.set(r("x14"), ret);
        b.exit_call(callee, pc + 4);
    })
}

#[test]
fn a_loop_stays_inside_and_stores_its_slots_at_the_exit() {
    let mut m = machine(false);
    let sum = sum_unit(0x1000, 0x2000);
    let region = m.compile(&[&sum]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x1", 100_000);
    let left = m.run_region(&placed, &mut state, &mut env);
    assert_eq!(left, Left::Direct(edge(&placed, 0x2000, JUMP) as u64));
    assert_eq!(state.pc(), 0x2000);
    assert_eq!((get(&state, "x1"), get(&state, "x2")), (0, 100_000 * 100_001 / 2));
}

#[test]
fn an_exit_request_ends_loops_and_is_seen_at_the_entry() {
    let mut m = machine(false);
    let sum = sum_unit(0x1000, 0x2000);
    let region = m.compile(&[&sum]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x1", 3);
    state.request_exit();
    assert_eq!(m.run_region(&placed, &mut state, &mut env), Left::Poll);
    assert_eq!((state.pc(), get(&state, "x1"), get(&state, "x2")), (0x1000, 3, 0));

    // From another thread, into a loop that would run for hours.
    state.exit_request.store(0, SeqCst);
    set(&mut state, "x1", 1 << 50);
    let request = &raw const state.exit_request as usize;
    let asker = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        // SAFETY: the state outlives the thread, which is joined below.
        unsafe { (*(request as *const std::sync::atomic::AtomicU32)).store(1, SeqCst) };
    });
    assert_eq!(m.run_region(&placed, &mut state, &mut env), Left::Poll);
    asker.join().unwrap();
    let (left, sum) = (get(&state, "x1"), get(&state, "x2"));
    let done = (1u64 << 50) - left;
    assert!(done > 0 && state.pc() == 0x1000);
    // The slots are those of a loop's start.
    let expected = (left as u128 + 1..=1 << 50).len_sum();
    assert_eq!(sum, expected);
}

/// Sum of an arithmetic series, modulo 2^64.
trait LenSum {
    fn len_sum(self) -> u64;
}
impl LenSum for std::ops::RangeInclusive<u128> {
    fn len_sum(self) -> u64 {
        ((self.start() + self.end()) * (self.end() - self.start() + 1) / 2) as u64
    }
}

#[test]
fn calls_and_returns_inside_a_region_need_no_lookup() {
    let mut m = machine(false);
    let (a, f) = (caller(0x1000, 0x5000), callee(0x5000));
    let (b, end) = (caller(0x1004, 0x5000), sum_unit(0x1008, 0x2000));
    let region = m.compile(&[&a, &f, &b, &end]);
    assert_eq!(region.edges.len(), 1, "{:?}", region.edges);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x1", 10);
    let left = m.run_region(&placed, &mut state, &mut env);
    assert_eq!(left, Left::Direct(edge(&placed, 0x2000, JUMP) as u64));
    assert_eq!((get(&state, "x3"), get(&state, "x2")), (2, 55));
    assert_eq!(state.engine[word::RING_TOP], 0);
}

/// `x14 = 0x1004; call x5`, which returns to `x6, x5 = x5, x6; x1 -= 1; if x1 != 0 goto 0x1000 else goto 0x2000`.
fn computed_caller() -> [Unit; 2] {
    let call = unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let ret = b.iconst(Type::I64, 0x1004);
        b.set(r("x14"), ret);
        let to = b.get(r("x5"));
        b.exit_indirect(ExitKind::Call, to, Some(0x1004), None);
    });
    let site = unit(0x1004, |b, r| {
        b.insn(0x1004, 4);
        let (x5, x6) = (b.get(r("x5")), b.get(r("x6")));
        b.set(r("x5"), x6);
        b.set(r("x6"), x5);
        repeat_x1(b, r, 0x1000, 0x2000);
    });
    [call, site]
}

#[test]
fn computed_calls_stay_inside_where_they_probably_lead() {
    let [call, site] = computed_caller();
    let (f, g) = (callee(0x5000), callee(0x6000));
    let mut m = machine(true);
    m.targets = [0x6000, 0x5000].map(|pc| Target { from: (0x1000, call.flags), pc }).to_vec();
    let region = m.compile(&[&call, &site, &f, &g]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    let mut run = |state: &mut CpuState, env: &mut TestEnv, x5: u64, x6: u64| {
        for (name, n) in [("x1", 10), ("x3", 0), ("x5", x5), ("x6", x6)] {
            set(state, name, n);
        }
        m.run_region(&placed, state, env)
    };
    let left = run(&mut state, &mut env, 0x5000, 0x6000);
    assert_eq!(left, Left::Direct(edge(&placed, 0x2000, JUMP) as u64));
    assert_eq!((get(&state, "x3"), get(&state, "x1")), (10, 0));
    // Whose return address nobody else needs to know.
    assert_eq!(state.engine[word::RING_TOP], 0);
    // Elsewhere, in the second round.
    let left = run(&mut state, &mut env, 0x6000, 0x7000);
    assert!(matches!(left, Left::Indirect { .. }), "{left:?}");
    assert_eq!((state.pc(), get(&state, "x3"), get(&state, "x14")), (0x7000, 1, 0x1004));
    assert_ne!(state.engine[word::RING_TOP], 0);
}

/// The place of the return is not in the region: who returns there finds it in the ring.
#[test]
fn a_computed_call_inside_remembers_a_return_address_outside() {
    let [call, _] = computed_caller();
    let f = callee(0x5000);
    let mut m = machine(true);
    m.targets = vec![Target { from: (0x1000, call.flags), pc: 0x5000 }];
    let region = m.compile(&[&call, &f]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x5", 0x5000);
    let left = m.run_region(&placed, &mut state, &mut env);
    assert!(matches!(left, Left::Indirect { .. }), "{left:?}");
    assert_eq!((state.pc(), get(&state, "x3")), (0x1004, 1));
    // Pushed and popped again, because it has no code yet.
    let entry = word::RING + 4;
    assert_eq!((state.engine[word::RING_TOP], state.engine[entry]), (0, 0x1004));
}

/// `x3 += 1; goto next`.
fn step(pc: u64, next: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let x3 = b.get(r("x3"));
        let more = b.add_imm(x3, 1);
        b.set(r("x3"), more);
        b.exit(next);
    })
}

/// Units with the same pc and other key flags are other units, and a callee may return with others than it was called with.
#[test]
fn key_flags_tell_units_apart() {
    let mut m = machine(false);
    // Called with flags 0, on with 5.
    let a = unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let ret = b.iconst(Type::I64, 0x1004);
        b.set(r("x14"), ret);
        b.exit_with_flags(ExitKind::Call, 0x5000, Some(0x1004), Some(5));
    });
    let mut f = unit(0x5000, |b, r| {
        b.insn(0x5000, 4);
        let to = b.get(r("x14"));
        let flags = b.iconst(Type::I64, 7);
        b.exit_indirect(ExitKind::Return, to, None, Some(flags));
    });
    f.flags = 5;
    let wrong = step(0x1004, 0x1004);
    let mut right = unit(0x1004, |b, r| {
        b.insn(0x1004, 4);
        let x3 = b.get(r("x3"));
        let more = b.add_imm(x3, 0x10);
        b.set(r("x3"), more);
        b.exit_with_flags(ExitKind::Jump, 0x1004, None, Some(8));
    });
    right.flags = 7;
    let mut last = step(0x1004, 0x1004);
    last.insts.last_mut().expect("an exit").imm = 0x2000;
    last.flags = 8;
    let region = m.compile(&[&a, &f, &wrong, &right, &last]);
    let to: Vec<_> = region.edges.iter().map(|e| (e.pc, e.flags)).collect();
    assert_eq!(to, [(0x2000, 8)]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    let left = m.run_region(&placed, &mut state, &mut env);
    assert_eq!(left, Left::Direct(edge(&placed, 0x2000, JUMP) as u64));
    assert_eq!((get(&state, "x3"), state.engine[word::RING_TOP]), (0x11, 0));
}

#[test]
fn regions_chain_through_linked_edges() {
    let mut m = machine(false);
    let pcs = [0x1000, 0x2000, 0x3000, 0x4000];
    let placed = pcs.map(|pc| {
        let region = m.compile(&[&step(pc, pc + 0x1000)]);
        m.place(region)
    });
    for (i, pair) in placed.windows(2).enumerate() {
        m.memory.link(edge(&pair[0], pcs[i + 1], JUMP), pair[1].address);
    }
    let run = |m: &mut Machine| {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        let left = m.run_code(placed[0].address, &mut state, &mut env);
        (left, state.pc(), get(&state, "x3"))
    };
    let last = edge(&placed[3], 0x5000, JUMP);
    assert_eq!(run(&mut m), (Left::Direct(last as u64), 0x5000, 4));
    // Unlinked again, the chain ends there.
    let second = edge(&placed[1], 0x3000, JUMP);
    m.memory.link(second, 0);
    assert_eq!(run(&mut m), (Left::Direct(second as u64), 0x3000, 2));
}

#[test]
fn returns_use_the_ring_then_the_jump_cache() {
    let mut m = machine(false);
    let (a, f, end) = (caller(0x1000, 0x5000), callee(0x5000), sum_unit(0x1004, 0x2000));
    let place = |m: &mut Machine, u: &Unit| {
        let region = m.compile(&[u]);
        m.place(region)
    };
    let (a, f, end) = (place(&mut m, &a), place(&mut m, &f), place(&mut m, &end));
    let run = |m: &mut Machine| {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        set(&mut state, "x1", 4);
        let left = m.run_code(a.address, &mut state, &mut env);
        (left, state)
    };
    // Nothing is linked: the call leaves.
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(edge(&a, 0x5000, CALL) as u64));
    assert_eq!((state.pc(), state.engine[word::RING_TOP]), (0x5000, 32));
    // The call is linked, the return site is not known: the return leaves, and its ring entry is popped.
    m.memory.link(edge(&a, 0x5000, CALL), f.address);
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Indirect { flags: 0 });
    assert_eq!((state.pc(), state.engine[word::RING_TOP]), (0x1004, 0));
    // By the jump cache.
    let entry = JumpEntry { pc: 0x1004, flags: 0, code: end.address as u64, user: 0 };
    m.cache[jump_cache_index(0x1004)] = entry;
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(edge(&end, 0x2000, JUMP) as u64));
    assert_eq!((get(&state, "x3"), get(&state, "x2")), (1, 10));
    // Other key flags miss.
    m.cache[jump_cache_index(0x1004)].flags = 1;
    assert_eq!(run(&mut m).0, Left::Indirect { flags: 0 });
    // By the ring.
    m.memory.link(edge(&a, 0x1004, EdgeKind::ReturnSite), end.address);
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(edge(&end, 0x2000, JUMP) as u64));
    assert_eq!((state.pc(), get(&state, "x2"), state.engine[word::RING_TOP]), (0x2000, 10, 0));
}

/// `x5 += 1; x6 = [x1]; x5 += 1`, one guest instruction each, in a loop.
fn loading_unit() -> Unit {
    unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let x5 = b.get(r("x5"));
        let more = b.add_imm(x5, 1);
        b.set(r("x5"), more);
        b.insn(0x1004, 4);
        let x1 = b.get(r("x1"));
        let loaded = b.load(Type::I64, x1, 0, MemOp::U64);
        let next = b.add_imm(x1, 0x800);
        b.set(r("x1"), next);
        b.insn(0x1008, 4);
        // The load may be merged into this addition; its fault must still be the load's.
        let x7 = b.get(r("x7"));
        let sum = b.add(x7, loaded);
        b.set(r("x7"), sum);
        b.insn(0x100c, 4);
        let more = b.add_imm(more, 1);
        b.set(r("x5"), more);
        b.exit(0x1000);
    })
}

#[test]
fn faults_know_their_instruction() {
    let mut m = machine(false);
    let region = m.compile(&[&loading_unit()]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x1", 0x10000);
    let left = m.run_region(&placed, &mut state, &mut env);
    let Left::Trap(Trap::Mem(fault)) = left else { panic!("{left:?}") };
    assert_eq!((fault.va.0, state.pc()), (0x13000, 0x1004));
}

#[test]
fn a_precise_loop_that_reads_goes_back_to_its_entry() {
    let mut m = machine(true);
    let region = m.compile(&[&loading_unit()]);
    let placed = m.place(region);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    set(&mut state, "x1", 0x10000);
    let left = m.run_region(&placed, &mut state, &mut env);
    let Left::Trap(Trap::Mem(fault)) = left else { panic!("{left:?}") };
    assert_eq!((fault.va.0, state.pc()), (0x13000, 0x1000));
    assert_eq!((get(&state, "x1"), get(&state, "x5")), (0x10000, 0));
}

/// `[x1] = x5; x1 += 0x800; x5 += 1`, and flags that every round sets anew.
fn storing_unit() -> Unit {
    unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let (x1, x5) = (b.get(r("x1")), b.get(r("x5")));
        b.store(x1, 0, MemOp::U64, x5);
        b.insn(0x1004, 4);
        let x1 = b.get(r("x1"));
        let next = b.add_imm(x1, 0x800);
        b.set(r("x1"), next);
        b.insn(0x1008, 4);
        let x5 = b.get(r("x5"));
        let one = b.iconst(Type::I64, 1);
        let more = b.add(x5, one);
        b.set(r("x5"), more);
        let flags = b.add_nzcv(x5, one);
        b.set(r("nzcv"), flags);
        b.exit(0x1000);
    })
}

#[test]
fn a_precise_loop_that_writes_goes_back_to_its_last_write() {
    let mut m = machine(true);
    let region = m.compile(&[&storing_unit()]);
    let placed = m.place(region);
    for rounds in [0, 1, 3] {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        set(&mut state, "x1", 0x12000 - 0x800 * rounds);
        set(&mut state, "nzcv", 0x1234);
        let left = m.run_region(&placed, &mut state, &mut env);
        let Left::Trap(Trap::Mem(fault)) = left else { panic!("{left:?}") };
        // Behind the last write that went well, or at the entry; the flags of the way in between are not stored.
        let done = rounds.saturating_sub(1);
        let pc = if rounds == 0 { 0x1000 } else { 0x1004 };
        let x1 = 0x12000 - 0x800 * (rounds - done);
        assert_eq!((fault.va.0, state.pc()), (0x12000, pc));
        assert_eq!((get(&state, "x1"), get(&state, "x5")), (x1, done));
        assert_eq!(get(&state, "nzcv"), 0x1234);
    }
}

/// Random units wired into a graph, left after a number of units at most.
fn random_region(rng: &mut Rng, layout: &RegLayout, count: u64) -> Vec<Unit> {
    let options = random::Options { size: 12, floats: rng.one_in(2), memory: true, calls: true };
    let fuel = layout.by_name("w7").expect("a register that random units leave alone");
    (0..count)
        .map(|n| {
            let mut unit = random::unit(rng, &options);
            let pc = 0x1000 + 0x100 * n;
            let mut named = Vec::new();
            for (i, inst) in unit.insts.iter_mut().enumerate() {
                match inst.op {
                    // Behind the instruction that burns fuel.
                    Op::Insn => inst.imm += (pc + 4 - 0x1000) as i64,
                    Op::ExitDirect => {
                        let pick = rng.below(count as usize + 1) as i64;
                        inst.imm = 0x1000 + 0x100 * pick;
                        inst.aux = ExitKind::Jump as u8;
                        inst.args[0] = Value::NONE;
                        // A few exits to the pc of a unit have other key flags than it.
                        let flags = if rng.one_in(8) { 99 } else { key_flags(pick as u64) };
                        if flags == key_flags(n) {
                            inst.args[1] = Value::NONE;
                        } else {
                            named.push((i, flags));
                        }
                    }
                    _ => {}
                }
            }
            named.into_iter().rev().for_each(|(i, flags)| name_flags(&mut unit, i, flags));
            unit.pc = pc;
            unit.flags = key_flags(n);
            unit.fp = tulk_ir::FpRule::Arm;
            burn(&mut unit, fuel);
            unit
        })
        .collect()
}

/// Key flags of the unit of this number.
fn key_flags(n: u64) -> u64 {
    n % 3
}

/// Makes the exit at instruction number `at` one with new key flags.
fn name_flags(unit: &mut Unit, at: usize, flags: u64) {
    let value = Value(unit.values.len() as u16);
    unit.values.push(Type::I64);
    unit.insts[at].args[1] = value;
    let flags = Inst { dst: value, imm: flags as i64, ..Inst::new(Op::Iconst, Type::I64) };
    unit.insts.insert(at, flags);
    unit.blocks.iter_mut().filter(|start| **start as usize > at).for_each(|start| *start += 1);
}

/// Puts `fuel -= 1; if fuel == 0 exit 0x9000` in front of a unit.
pub fn burn(unit: &mut Unit, fuel: Slot) {
    let first = unit.values.len() as u16;
    unit.values.extend([Type::I32, Type::I32, Type::I32, Type::I8]);
    let v = |n: u16| Value(first + n);
    let args = |a: &[Value]| {
        let mut all = [Value::NONE; 3];
        all[..a.len()].copy_from_slice(a);
        all
    };
    let blocks = unit.blocks.len() as u32;
    for inst in &mut unit.insts {
        match inst.op {
            Op::Jump => inst.imm2 += 1,
            Op::Brif => (inst.imm2, inst.imm) = (inst.imm2 + 1, inst.imm + 1),
            _ => {}
        }
    }
    let slot = fuel.0 as u32;
    let prefix = [
        Inst { imm: unit.pc as i64, imm2: 4, ..Inst::new(Op::Insn, Type::I64) },
        Inst { dst: v(0), imm2: slot, ..Inst::new(Op::Get, Type::I32) },
        Inst { dst: v(1), imm: 1, ..Inst::new(Op::Iconst, Type::I32) },
        Inst { dst: v(2), args: args(&[v(0), v(1)]), ..Inst::new(Op::Sub, Type::I32) },
        Inst { imm2: slot, args: args(&[v(2)]), ..Inst::new(Op::Set, Type::I32) },
        Inst {
            dst: v(3),
            aux: IntCc::LeS as u8,
            args: args(&[v(0), v(1)]),
            ..Inst::new(Op::Icmp, Type::I32)
        },
        Inst { args: args(&[v(3)]), imm2: blocks + 1, imm: 1, ..Inst::new(Op::Brif, Type::I64) },
    ];
    let shift = prefix.len() as u32;
    unit.insts.splice(0..0, prefix);
    unit.blocks.iter_mut().for_each(|b| *b += shift);
    unit.blocks.insert(0, 0);
    unit.blocks.push(unit.insts.len() as u32);
    unit.insts.push(Inst { imm: 0x9000, ..Inst::new(Op::ExitDirect, Type::I64) });
}

/// The outcome of a unit, with the unit's key flags if it names no others.
fn with_flags(mut outcome: Outcome, unit: &Unit) -> Outcome {
    if let Outcome::Exit { flags, hint: None, .. } = &mut outcome {
        flags.get_or_insert(unit.flags);
    }
    outcome
}

/// Makes what a unit writes to general slots 32-bit numbers.
fn narrow(unit: &mut Unit, layout: &RegLayout) {
    let set = |i: &Inst| i.op == Op::Set && i.slot().as_local().is_none();
    for at in (0..unit.insts.len()).rev() {
        if !set(&unit.insts[at]) || !layout.def(unit.insts[at].slot()).general {
            continue;
        }
        let first = unit.values.len() as u16;
        unit.values.extend([Type::I32, Type::I64]);
        let one = |v: Value| [v, Value::NONE, Value::NONE];
        let (low, wide) = (Value(first), Value(first + 1));
        let before = unit.insts[at].args[0];
        unit.insts[at].args[0] = wide;
        let extend = [
            Inst { dst: low, args: one(before), ..Inst::new(Op::Trunc, Type::I32) },
            Inst { dst: wide, args: one(low), ..Inst::new(Op::Zext, Type::I64) },
        ];
        unit.insts.splice(at..at, extend);
        unit.blocks.iter_mut().filter(|start| **start as usize > at).for_each(|start| *start += 2);
    }
}

/// A region does what its units do one after the other.
#[test]
fn random_regions() {
    compare_regions(machine(true), 0);
}

/// The same for a 32-bit guest, whose general slots hold numbers of 32 bits.
#[test]
fn random_regions_of_narrow_slots() {
    let mut m = Machine { model: MemoryModel::Based, ..machine(true) };
    m.layout.general((0..6).filter_map(|n| layout().by_name(&format!("x{n}"))));
    compare_regions(m, 1 << 32);
}

fn compare_regions(m: Machine, first: u64) {
    let set_up = |rng: &mut Rng, layout: &RegLayout, state: &mut CpuState| {
        for slot in layout.slots() {
            state.set128(slot.cell & !1, rng.bits(Type::I128));
        }
        for slot in layout.slots().iter().filter(|slot| slot.general) {
            state.set(slot.cell, state.get(slot.cell) & 0xffff_ffff);
        }
    };
    compare(m, first, random_region, set_up);
}

/// Compares random regions with what their units do one after the other, faults included. Returns how many faults happened,
/// and how many of them behind writes that were left out.
pub fn compare(
    mut m: Machine,
    first: u64,
    make: impl Fn(&mut Rng, &RegLayout, u64) -> Vec<Unit>,
    set_up: impl Fn(&mut Rng, &RegLayout, &mut CpuState),
) -> [u64; 2] {
    let layout = m.layout.clone();
    let seeds = std::env::var("TULK_SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(200);
    let mut reference = Reference::new();
    let (mut repeated, mut left_out) = (0, 0);
    for seed in first..first + seeds {
        let mut rng = Rng(seed ^ 0xabcd);
        let count = 2 + rng.below(5) as u64;
        let mut units = make(&mut rng, &layout, count);
        units.iter_mut().for_each(|unit| narrow(unit, &layout));
        let region = m.compile(&units.iter().collect::<Vec<_>>());
        let placed = m.place(region);
        for _ in 0..4 {
            let mut state = CpuState::new();
            set_up(&mut rng, &layout, &mut state);
            set(&mut state, "w7", 1 + rng.below(40) as u64);
            let mut expected_state = CpuState::new();
            expected_state.cells.copy_from_slice(&state.cells);
            let (mut env, mut expected_env) = (TestEnv::new(), TestEnv::new());

            let mut left = m.run_region(&placed, &mut state, &mut env);
            // Runs unit after unit, on from `outcome`.
            let run = |reference: &mut Reference, mut outcome, state: &mut _, env: &mut _| loop {
                let Outcome::Exit { pc, flags: Some(flags), hint: None } = outcome else {
                    break outcome;
                };
                let Some(unit) = units.iter().find(|u| (u.pc, u.flags) == (pc, flags)) else {
                    break outcome;
                };
                outcome = with_flags(reference.run(unit, state, env), unit);
            };
            reference.start();
            let entry = Outcome::Exit { pc: units[0].pc, flags: Some(units[0].flags), hint: None };
            let outcome = run(&mut reference, entry, &mut expected_state, &mut expected_env);
            let aligned = |fault: &MemFault| fault.cause != FaultCause::Align;
            if matches!(&left, Left::Trap(Trap::Mem(fault)) if aligned(fault)) {
                // The plain walk takes over at the checkpoint, where it has been itself.
                let pc = state.pc();
                let unit = units.iter().rfind(|u| u.pc <= pc).expect("a unit's pc");
                if m.unknown_fault || interrupted(unit, pc) {
                    continue;
                }
                let outcome =
                    with_flags(reference.resume(unit, &mut state, &mut env, m.done), unit);
                let outcome = run(&mut reference, outcome, &mut state, &mut env);
                let Outcome::Trap(trap) = outcome else {
                    let text: String =
                        units.iter().map(|u| u.display(&layout).to_string()).collect();
                    panic!("seed {seed}: {left:?} not again from {pc:#x}: {outcome:?}\n{text}")
                };
                left = Left::Trap(trap);
                repeated += 1;
                left_out += (m.done != 0) as u64;
            }
            let report = |what: &str| {
                let text: String = units.iter().map(|u| u.display(&layout).to_string()).collect();
                panic!("seed {seed}: {what}; {left:?}, expected {outcome:?}\n{text}")
            };
            match (&left, outcome) {
                (Left::Direct(record), Outcome::Exit { pc, flags, .. }) => {
                    if state.pc() != pc || Some(placed.edge_at(*record).flags) != flags {
                        report("pc or key flags");
                    }
                }
                (Left::Indirect { .. }, Outcome::Exit { pc, .. }) => {
                    if state.pc() != pc {
                        report("pc");
                    }
                }
                (Left::Trap(a), Outcome::Trap(b))
                    if *a == b && state.pc() == expected_state.pc() => {}
                _ => report(&format!("left differently at {:#x}", state.pc())),
            }
            for slot in layout.slots() {
                let mask = u128::MAX >> (128 - slot.ty.bits());
                let a = state.get128(slot.cell) & mask;
                let b = expected_state.get128(slot.cell) & mask;
                if a != b {
                    report(&format!("{} is {a:#x}, expected {b:#x}", slot.name));
                }
            }
            if env.regions != expected_env.regions {
                report("memory");
            }
        }
        m.free(placed);
    }
    assert!(repeated > seeds / 40, "{repeated} faults");
    [repeated, left_out]
}
