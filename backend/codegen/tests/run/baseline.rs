//! The baseline compiler's entry and exits: poll, heat, counters, edges, the return ring, the jump cache, and that its
//! code and Cranelift's jump to each other. (What blocks compute is compared in `filetests` and `random`.)

use super::machine::{Left, Machine, Placed, edge};
use super::quality::{sum_unit, unit};
use tulk_base::{CpuState, MemOp, Trap};
use tulk_codegen::abi::{JumpEntry, jump_cache_index, word};
use tulk_codegen::baseline::Profile;
use tulk_codegen::{EdgeKind, MemoryModel};
use tulk_ir::filetest::env::{HELPERS, TestEnv, layout};
use tulk_ir::interp::{Chain, Program, run_chained};
use tulk_ir::{ExitKind, IntCc, Type, Unit};

const NEVER: u32 = Profile::LIMIT;
const JUMP: EdgeKind = EdgeKind::Exit(ExitKind::Jump);
const CALL: EdgeKind = EdgeKind::Exit(ExitKind::Call);

/// A placed block with the program that its code refers to.
struct Block {
    placed: Placed,
    program: Box<Program>,
}

fn place(m: &mut Machine, unit: &Unit, limit: u32) -> Block {
    let program = Box::new(Program::new(unit, &m.layout, HELPERS));
    let region = m.compile_baseline(unit, &program, limit);
    Block { placed: m.place(region), program }
}

fn machine() -> Machine {
    Machine::baseline(MemoryModel::Flat)
}

fn cell(name: &str) -> u16 {
    let layout = layout();
    layout.cell(layout.by_name(name).unwrap())
}

/// `x14 = pc + 4; call callee`.
fn caller(pc: u64, callee: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let ret = b.iconst(Type::I64, pc as i64 + 4);
        b.set(r("x14"), ret);
        b.exit_call(callee, pc + 4);
    })
}

/// `x3 += 1; return to x14`.
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

#[test]
fn a_linked_loop_runs_and_counts() {
    let mut m = machine();
    let block = place(&mut m, &sum_unit(0x1000, 0x2000), NEVER);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    state.set(cell("x1"), 1000);
    // Not linked: out after one round.
    let again = edge(&block.placed, 0x1000, JUMP);
    let left = m.run_region(&block.placed, &mut state, &mut env);
    assert_eq!((left, state.pc()), (Left::Direct(again as u64), 0x1000));
    assert_eq!((state.get(cell("x1")), *m.counters), (999, [1, 1, 0, 0, 0]));
    m.memory.link(again, block.placed.address);
    let left = m.run_region(&block.placed, &mut state, &mut env);
    assert_eq!(left, Left::Direct(edge(&block.placed, 0x2000, JUMP) as u64));
    assert_eq!((state.pc(), state.get(cell("x1")), state.get(cell("x2"))), (0x2000, 0, 500_500));
    // The exit that is the other's opposite is not counted.
    assert_eq!((*m.counters, block.placed.region.derived), ([1000, 999, 0, 0, 0], Some(1)));
}

/// A branch inside of the block is counted, of the two ways from the branch at its end one; nothing is lost.
#[test]
fn each_of_three_exits_has_a_count() {
    let mut m = machine();
    // if x1 == 1 goto 0x2000; x2 += 1; if x1 == 2 goto 0x3000 else goto 0x4000
    let unit = unit(0x1000, |b, r| {
        b.insn(0x1000, 4);
        let x1 = b.get(r("x1"));
        let one = b.icmp_imm(IntCc::Eq, x1, 1);
        let [side, on, two, other] = [(); 4].map(|()| b.label());
        b.brif(one, side, on);
        b.place(on);
        b.insn(0x1004, 4);
        let (x1, x2) = (b.get(r("x1")), b.get(r("x2")));
        let more = b.add_imm(x2, 1);
        b.set(r("x2"), more);
        let is_two = b.icmp_imm(IntCc::Eq, x1, 2);
        b.brif(is_two, two, other);
        b.place(two);
        b.exit(0x3000);
        b.place(other);
        b.exit(0x4000);
        b.place(side);
        b.exit(0x2000);
    });
    let block = place(&mut m, &unit, NEVER);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    let plan = [(1, 0x2000), (1, 0x2000), (1, 0x2000), (2, 0x3000), (2, 0x3000), (7, 0x4000)];
    for (n, (x1, to)) in plan.into_iter().enumerate() {
        state.set(cell("x1"), x1);
        m.run_region(&block.placed, &mut state, &mut env);
        assert_eq!((state.pc(), state.get(cell("x2"))), (to, (n as u64).saturating_sub(2)));
    }
    let derived = block.placed.region.derived.expect("one branch at the end") as usize;
    let exits = block.program.exits();
    let mut counts: Vec<u32> = (0..exits.len()).map(|n| m.counters[1 + n]).collect();
    assert_eq!((m.counters[0], counts[derived]), (6, 0));
    counts[derived] = m.counters[0] - counts.iter().sum::<u32>();
    for (exit, count) in exits.zip(counts) {
        assert_eq!(count as usize, plan.iter().filter(|p| p.1 == exit.pc).count(), "{exit:?}");
    }
}

#[test]
fn a_hot_block_says_so_until_its_counter_is_reset_and_a_request_is_seen_before() {
    const COLD: u32 = Profile::LIMIT - 3;
    let mut m = machine();
    let block = place(&mut m, &sum_unit(0x1000, 0x2000), 3);
    m.memory.link(edge(&block.placed, 0x1000, JUMP), block.placed.address);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    state.set(cell("x1"), 10);
    state.request_exit();
    assert_eq!(m.run_region(&block.placed, &mut state, &mut env), Left::Poll);
    assert_eq!((state.pc(), *m.counters), (0x1000, [COLD, 0, 0, 0, 0]));
    state.exit_request.store(0, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(m.run_region(&block.placed, &mut state, &mut env), Left::Hot);
    assert_eq!(
        (state.pc(), state.get(cell("x1")), *m.counters),
        (0x1000, 8, [COLD + 3, 2, 0, 0, 0])
    );
    assert_eq!(m.run_region(&block.placed, &mut state, &mut env), Left::Hot);
    let left = loop {
        m.counters[0] = COLD;
        match m.run_region(&block.placed, &mut state, &mut env) {
            Left::Hot => {}
            left => break left,
        }
    };
    assert_eq!(left, Left::Direct(edge(&block.placed, 0x2000, JUMP) as u64));
    assert_eq!((state.pc(), state.get(cell("x2"))), (0x2000, 55));
}

#[test]
fn returns_use_the_ring_then_the_jump_cache() {
    let mut m = machine();
    let a = place(&mut m, &caller(0x1000, 0x5000), NEVER);
    let f = place(&mut m, &callee(0x5000), NEVER);
    let end = place(&mut m, &sum_unit(0x1004, 0x2000), NEVER);
    m.memory.link(edge(&end.placed, 0x1004, JUMP), end.placed.address);
    let last = edge(&end.placed, 0x2000, JUMP) as u64;
    let run = |m: &mut Machine| {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        state.set(cell("x1"), 4);
        let left = m.run_code(a.placed.address, &mut state, &mut env);
        (left, state)
    };
    let call = edge(&a.placed, 0x5000, CALL);
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(call as u64));
    assert_eq!((state.pc(), state.engine[word::RING_TOP]), (0x5000, 32));
    m.memory.link(call, f.placed.address);
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Indirect { flags: 0 });
    assert_eq!((state.pc(), state.engine[word::RING_TOP]), (0x1004, 0));
    let entry = JumpEntry { pc: 0x1004, flags: 0, code: end.placed.address as u64, user: 0 };
    m.cache[jump_cache_index(0x1004)] = entry;
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(last));
    assert_eq!((state.get(cell("x3")), state.get(cell("x2"))), (1, 10));
    m.cache[jump_cache_index(0x1004)].flags = 1;
    assert_eq!(run(&mut m).0, Left::Indirect { flags: 0 });
    m.memory.link(edge(&a.placed, 0x1004, EdgeKind::ReturnSite), end.placed.address);
    let (left, state) = run(&mut m);
    assert_eq!(left, Left::Direct(last));
    assert_eq!((state.pc(), state.get(cell("x2"))), (0x2000, 10));
    assert_eq!(state.engine[word::RING_TOP], 0);
}

#[test]
fn long_key_flags_are_compared_whole() {
    let mut m = machine();
    let flags = 0x1234_5678_9abc_def0;
    let f = place(&mut m, &Unit { flags, ..callee(0x5000) }, NEVER);
    let end = place(&mut m, &sum_unit(0x1004, 0x2000), NEVER);
    let run = |m: &mut Machine| {
        let (mut state, mut env) = (CpuState::new(), TestEnv::new());
        state.set(cell("x14"), 0x1004);
        state.set(cell("x1"), 1);
        m.run_code(f.placed.address, &mut state, &mut env)
    };
    assert_eq!(run(&mut m), Left::Indirect { flags });
    let code = end.placed.address as u64;
    m.cache[jump_cache_index(0x1004)] =
        JumpEntry { pc: 0x1004, flags: flags ^ 1 << 40, code, user: 0 };
    assert_eq!(run(&mut m), Left::Indirect { flags });
    m.cache[jump_cache_index(0x1004)].flags = flags;
    assert_eq!(run(&mut m), Left::Direct(edge(&end.placed, 0x2000, JUMP) as u64));
}

/// Code of both compilers in one chain, back and forth.
#[test]
fn regions_and_blocks_jump_to_each_other() {
    let mut m = machine();
    let busy = |pc: u64, next: u64| {
        // Enough values alive that either compiler uses the callee-saved registers.
        unit(pc, |b, r| {
            b.insn(pc, 4);
            let names = ["x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12"];
            let values = names.map(|n| b.get(r(n)));
            for i in 0..names.len() {
                let sum = b.add(values[i], values[(i + 5) % names.len()]);
                b.set(r(names[i]), sum);
            }
            b.exit(next);
        })
    };
    let blocks =
        [0, 2].map(|i: u64| place(&mut m, &busy(0x1000 + 0x1000 * i, 0x2000 + 0x1000 * i), NEVER));
    let regions = [1, 3].map(|i: u64| {
        let region = m.compile(&[&busy(0x1000 + 0x1000 * i, 0x2000 + 0x1000 * i)]);
        m.place(region)
    });
    let chain = [&blocks[0].placed, &regions[0], &blocks[1].placed, &regions[1]];
    for (i, pair) in chain.windows(2).enumerate() {
        m.memory.link(edge(pair[0], 0x2000 + 0x1000 * i as u64, JUMP), pair[1].address);
    }
    let last = edge(chain[3], 0x5000, JUMP) as u64;
    let first = chain[0].address;
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    let mut expected: Vec<u64> = (1..=12).map(|i| i * 0x1_0001).collect();
    for (i, &x) in expected.iter().enumerate() {
        state.set(cell(&format!("x{}", i + 1)), x);
    }
    assert_eq!(m.run_code(first, &mut state, &mut env), Left::Direct(last));
    for _ in 0..4 {
        expected = (0..12).map(|i| expected[i].wrapping_add(expected[(i + 5) % 12])).collect();
    }
    for (i, &x) in expected.iter().enumerate() {
        assert_eq!(state.get(cell(&format!("x{}", i + 1))), x, "x{}", i + 1);
    }
}

#[test]
fn faults_know_their_instruction_and_slots() {
    let mut m = machine();
    let unit = unit(0x1000, |b, r| {
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
        let x7 = b.get(r("x7"));
        let sum = b.add(x7, loaded);
        b.set(r("x7"), sum);
        b.insn(0x100c, 4);
        let more = b.add_imm(more, 1);
        b.set(r("x5"), more);
        b.exit(0x1000);
    });
    let block = place(&mut m, &unit, NEVER);
    m.memory.link(edge(&block.placed, 0x1000, JUMP), block.placed.address);
    let (mut state, mut env) = (CpuState::new(), TestEnv::new());
    state.set(cell("x1"), 0x10000);
    let left = m.run_region(&block.placed, &mut state, &mut env);
    let Left::Trap(Trap::Mem(fault)) = left else { panic!("{left:?}") };
    assert_eq!((fault.va.0, state.pc()), (0x13000, 0x1004));
    assert_eq!((state.get(cell("x1")), state.get(cell("x5"))), (0x13000, 13));
}

/// The interpreter stays in the program as long as it leaves through exit 0.
struct Again<'p>(&'p Program);
impl<'p> Chain<'p> for Again<'p> {
    fn direct(&mut self, exit: u32, _: &CpuState) -> Option<&'p Program> {
        (exit == 0).then_some(self.0)
    }
    fn indirect(&mut self, _: u64, _: bool, _: &CpuState) -> Option<&'p Program> {
        None
    }
}

/// Loads, a hash, a conditional move and a store for each round, as guests' inner loops have them.
fn mix_unit(pc: u64) -> Unit {
    unit(pc, |b, r| {
        b.insn(pc, 4);
        let (x1, x4) = (b.get(r("x1")), b.get(r("x4")));
        let word = b.load(Type::I64, x4, 8, MemOp::U64);
        b.set(r("x5"), word);
        b.insn(pc + 4, 4);
        let turned = b.shl_imm(word, 13);
        let mixed = b.xor(turned, x1);
        b.set(r("x6"), mixed);
        b.insn(pc + 8, 4);
        let x2 = b.get(r("x2"));
        let sum = b.add(x2, mixed);
        b.set(r("x2"), sum);
        b.insn(pc + 12, 4);
        let small = b.icmp(IntCc::LtU, sum, x1);
        let chosen = b.select(small, word, sum);
        b.set(r("x7"), chosen);
        b.insn(pc + 16, 4);
        b.store(x4, 16, MemOp::U64, chosen);
        b.insn(pc + 20, 4);
        let one = b.iconst(Type::I64, 1);
        let less = b.sub(x1, one);
        let flags = b.sub_nzcv(x1, one);
        b.set(r("x1"), less);
        b.set(r("nzcv"), flags);
        b.insn(pc + 24, 4);
        let more = b.icmp(IntCc::Ne, x1, one);
        let (again, done) = (b.label(), b.label());
        b.brif(more, again, done);
        b.place(again);
        b.exit(pc);
        b.place(done);
        b.exit(0x9000);
    })
}

/// How long a round of a loop takes in each tier: printed (`--nocapture`), and compared in results.
#[test]
fn kernels_in_three_tiers() {
    const ROUNDS: u64 = 200_000;
    for (name, unit) in [("sum", sum_unit(0x1000, 0x9000)), ("mix", mix_unit(0x1000))] {
        let mut m = machine();
        let block = place(&mut m, &unit, NEVER);
        let again = edge(&block.placed, 0x1000, JUMP);
        m.memory.link(again, block.placed.address);
        let region = m.compile(&[&unit]);
        let region = m.place(region);
        let start = || {
            let mut state = CpuState::new();
            state.set(cell("x1"), ROUNDS);
            state.set(cell("x4"), 0x10000);
            (state, TestEnv::new())
        };
        let mut times = [f64::MAX; 3];
        let mut results = [[0; 2]; 3];
        for _ in 0..5 {
            for tier in 0..3 {
                let (mut state, mut env) = start();
                let clock = std::time::Instant::now();
                match tier {
                    0 => {
                        let p = &block.program;
                        run_chained(p, &mut state, HELPERS, &mut env, &mut Again(p));
                    }
                    1 => {
                        m.run_code(block.placed.address, &mut state, &mut env);
                    }
                    _ => {
                        m.run_code(region.address, &mut state, &mut env);
                    }
                }
                let ns = clock.elapsed().as_secs_f64() * 1e9 / ROUNDS as f64;
                times[tier] = times[tier].min(ns);
                results[tier] = [state.get(cell("x2")), state.get(cell("x7"))];
            }
        }
        let [interpreter, baseline, cranelift] = times;
        println!(
            "{name}: {} instructions, interpreter {interpreter:.2} ns, baseline {baseline:.2}, region {cranelift:.2}",
            unit.guest_insns
        );
        assert_eq!(results[0], results[1]);
        assert_eq!(results[1], results[2]);
    }
}
