//! The same toy programs in every tier: control flow, faults, helpers, modes, floats.

mod toy;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use toy::{Asm, LR, Machine, Setting, op, settings};
use tulk_base::{AccessKind, FaultCause, GuestVa, Trap};
use tulk_exec::{Config, Exit};

fn each(test: impl Fn(&Setting, Machine)) {
    for setting in settings() {
        let machine = Machine::new(&setting);
        test(&setting, machine);
    }
}

/// r2 = sum of 1..=r1.
fn sum_loop(asm: &mut Asm) {
    asm.movi(2, 0);
    let top = asm.here();
    asm.op(op::ADD, 2, 2, 1).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
}

#[test]
fn loops() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        sum_loop(&mut asm);
        m.load(&mut asm);
        for n in [1u64, 2, 10, 100_000] {
            m.set(1, n);
            m.run_to(0, 1, setting.name);
            assert_eq!(m.reg(2), n * (n + 1) / 2, "{}", setting.name);
            assert_eq!(m.vcpu.state.pc(), m.code + 20);
        }
        m.engine.wait_for_compiles();
        m.set(1, 10);
        m.run_to(0, 1, setting.name);
        let stats = m.engine.stats();
        let tier = setting.config.tier;
        let (baseline, regions) = (tier.has_baseline(), tier.has_regions());
        assert_eq!(stats.baseline_blocks > 0, baseline, "{}: {stats}", setting.name);
        assert_eq!(stats.baseline_entries > 0, baseline, "{}: {stats}", setting.name);
        assert_eq!(stats.regions_compiled > 0, regions, "{}: {stats}", setting.name);
        assert_eq!(stats.exit_hot > 0, baseline && regions, "{}: {stats}", setting.name);
        assert!(stats.to_json().contains("\"regions_compiled\": "));
    });
}

/// A recursive Fibonacci with a stack at r13; argument r1, result r2.
fn fib(asm: &mut Asm) -> toy::Label {
    let f = asm.here();
    let (not_zero, recurse) = (asm.label(), asm.label());
    asm.branch(op::BNZ, 1, not_zero).movi(2, 0).op(op::RET, 0, 0, 0);
    asm.place(not_zero).op(op::ADDI, 3, 1, -1).branch(op::BNZ, 3, recurse);
    asm.movi(2, 1).op(op::RET, 0, 0, 0);
    asm.place(recurse);
    asm.op(op::ADDI, 13, 13, -24).op(op::ST, LR as u8, 13, 0).op(op::ST, 1, 13, 8);
    asm.op(op::ADDI, 1, 1, -1).branch(op::CALL, 0, f);
    asm.op(op::ST, 2, 13, 16).op(op::LD, 1, 13, 8).op(op::ADDI, 1, 1, -2).branch(op::CALL, 0, f);
    asm.op(op::LD, 3, 13, 16).op(op::ADD, 2, 2, 3);
    asm.op(op::LD, LR as u8, 13, 0).op(op::ADDI, 13, 13, 24).op(op::RET, 0, 0, 0);
    f
}

#[test]
fn calls_and_returns() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let f = asm.label();
        asm.branch(op::CALL, 0, f).sys(2).place(f);
        fib(&mut asm);
        m.load(&mut asm);
        for (n, want) in [(0, 0), (1, 1), (2, 1), (10, 55), (21, 10946)] {
            let stack = m.data + toy::DATA_SIZE;
            m.set(13, stack);
            m.set(1, n);
            m.run_to(0, 2, setting.name);
            assert_eq!(m.reg(2), want, "{}, fib({n})", setting.name);
            assert_eq!(m.reg(13), stack);
        }
    });
}

#[test]
fn indirect_jumps_and_calls() {
    each(|setting, mut m| {
        // A loop over a table of eight handlers; handler n adds 3n + 1, called through a register by turns.
        let mut asm = Asm::new();
        let (done, back) = (asm.label(), asm.label());
        let top = asm.here();
        asm.op(op::LD, 4, 3, 0).op(op::CALLR, 4, 0, 0);
        asm.op(op::ADDI, 3, 3, 8).op(op::SUB, 6, 5, 3).branch(op::BNZ, 6, back);
        asm.op(op::ADDI, 3, 7, 0);
        asm.place(back).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).branch(op::JMP, 0, done);
        let handlers: Vec<_> = (0..8i8)
            .map(|n| {
                let label = asm.here();
                asm.op(op::ADDI, 2, 2, 3 * n + 1).op(op::RET, 0, 0, 0);
                label
            })
            .collect();
        asm.place(done).op(op::JR, 8, 0, 0).sys(9);
        let end = asm.here();
        asm.sys(3);
        m.load(&mut asm);
        for (i, &h) in handlers.iter().enumerate() {
            let pc = m.code + asm.offset(h);
            m.mem.copy_out(GuestVa(m.data + 8 * i as u64), &pc.to_le_bytes()).unwrap();
        }
        let (data, code) = (m.data, m.code);
        for (n, v) in [(1, 8000), (2, 0), (3, data), (5, data + 64), (7, data)] {
            m.set(n, v);
        }
        m.set(8, code + asm.offset(end));
        m.run_to(0, 3, setting.name);
        assert_eq!(m.reg(2), 1000 * (0..8).map(|n| 3 * n + 1).sum::<u64>(), "{}", setting.name);
    });
}

#[test]
fn faults_are_exact() {
    each(|setting, mut m| {
        // Sums the data up to its end and beyond.
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::ADDI, 4, 4, 1).op(op::ADD, 5, 4, 4).op(op::LD, 6, 3, 0);
        asm.op(op::ADD, 2, 2, 6).op(op::ADDI, 3, 3, 8).branch(op::JMP, 0, top);
        m.load(&mut asm);
        m.mem.unmap(GuestVa(m.data + 4096), toy::DATA_SIZE - 4096).unwrap();
        m.mem.copy_out(GuestVa(m.data), &[1; 4096]).unwrap();
        for round in 0..3 {
            let data = m.data;
            for (n, v) in [(2, 0), (3, data), (4, 0), (5, 0), (6, 0)] {
                m.set(n, v);
            }
            let exit = m.start(0);
            let what = format!("{}, round {round}", setting.name);
            match exit {
                Exit::Trap(Trap::Mem(fault)) => {
                    assert_eq!(fault.va, GuestVa(data + 4096), "{what}");
                    assert_eq!((fault.kind, fault.cause), (AccessKind::Read, FaultCause::Unmapped));
                }
                other => panic!("{what}: {other:?}"),
            }
            assert_eq!(m.vcpu.state.pc(), m.code + 8, "{what}");
            let sum = 0x0101_0101_0101_0101u64.wrapping_mul(512);
            assert_eq!([2, 3, 4, 5].map(|n| m.reg(n)), [sum, data + 4096, 513, 1026], "{what}");
        }
        let stats = m.engine.stats();
        let entries = stats.region_entries + stats.baseline_entries;
        assert_eq!(stats.exit_fault > 0, entries > 0, "{stats}");
        // A loop that only reads goes back to its entry, and is interpreted to its end after a try or two.
        assert!(stats.exit_fault <= 9, "{stats}");
    });
}

#[test]
fn other_faults() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        // A store to read-only memory, behind a loop so that it is compiled.
        asm.movi(4, 10);
        let top = asm.here();
        asm.op(op::ADDI, 4, 4, -1).branch(op::BNZ, 4, top);
        let store = asm.here();
        asm.op(op::ST, 1, 3, 8).sys(1);
        let jump = asm.here();
        asm.op(op::JR, 3, 0, 0);
        let misaligned = asm.here();
        asm.op(op::LDA, 4, 3, 0).sys(1);
        let wild = asm.here();
        asm.op(op::LD, 4, 3, 0).sys(1);
        m.load(&mut asm);
        let (code, data) = (m.code, m.data);
        m.mem.protect(GuestVa(data), 4096, tulk_softmmu::intervals::READ).unwrap();
        let fault = |exit| match exit {
            Exit::Trap(Trap::Mem(f)) => (f.va.0, f.kind, f.cause),
            other => panic!("{}: {other:?}", setting.name),
        };
        for _ in 0..5 {
            m.set(3, data + 16);
            let got = fault(m.start(0));
            assert_eq!(got, (data + 24, AccessKind::Write, FaultCause::Protection));
            assert_eq!(m.vcpu.state.pc(), code + asm.offset(store));
            assert_eq!(m.reg(4), 0);

            let got = fault(m.start(asm.offset(jump)));
            assert_eq!(got, (data + 16, AccessKind::Exec, FaultCause::Protection));
            assert_eq!(m.vcpu.state.pc(), data + 16);

            m.run_to(asm.offset(misaligned), 1, setting.name);
            m.set(3, data + 8);
            let got = fault(m.start(asm.offset(misaligned)));
            assert_eq!(got.2, FaultCause::Align);
            assert_eq!((got.0, m.vcpu.state.pc()), (data + 8, code + asm.offset(misaligned)));

            if !setting.window {
                m.set(3, 0x00ff_0000_0000_0000);
                let got = fault(m.start(asm.offset(wild)));
                assert_eq!(got, (0x00ff_0000_0000_0000, AccessKind::Read, FaultCause::Unmapped));
            }
        }
    });
}

#[test]
fn undefined_instructions_and_helper_traps() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let bad = asm.label();
        asm.movi(1, 5).movi(3, 3);
        let top = asm.here();
        asm.op(op::HMUL, 2, 1, 3).op(op::ADDI, 1, 1, 1).branch(op::JMP, 0, top);
        asm.place(bad).op(op::ADDI, 1, 1, 1).op(200, 0, 0, 0);
        m.load(&mut asm);
        for _ in 0..5 {
            assert_eq!(m.start(0), Exit::Trap(Trap::Breakpoint(2)), "{}", setting.name);
            assert_eq!((m.reg(1), m.reg(2)), (7, 18));
            assert_eq!(m.vcpu.state.pc(), m.code + 8);
            assert_eq!(m.start(asm.offset(bad)), Exit::Trap(Trap::Illegal));
            assert_eq!(m.vcpu.state.pc(), m.code + asm.offset(bad) + 4);
            assert_eq!(m.reg(1), 8);
        }
    });
}

#[test]
fn an_infinite_loop_can_be_interrupted_and_resumed() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::ADDI, 1, 1, 1).op(op::ADDI, 2, 2, 2).branch(op::JMP, 0, top);
        m.load(&mut asm);
        m.vcpu.state.set_pc(m.code);
        for round in 0..5 {
            let (flag, done) = (SendPtr(&raw const *m.vcpu.state), AtomicBool::new(false));
            std::thread::scope(|s| {
                let done = &done;
                s.spawn(move || {
                    let flag = flag;
                    std::thread::sleep(Duration::from_millis(5));
                    // SAFETY: the state lives until the scope ends; the flag is atomic.
                    unsafe { (*flag.0).request_exit() };
                    done.store(true, Ordering::SeqCst);
                });
                assert_eq!(m.vcpu.run(), Exit::Interrupted, "{}, round {round}", setting.name);
                assert!(done.load(Ordering::SeqCst) || round < 5);
            });
            assert_eq!(m.reg(2), 2 * m.reg(1), "{}", setting.name);
            assert_eq!(m.vcpu.state.pc(), m.code);
        }
        assert!(m.reg(1) > 0);
        // A request before the run counts too, once.
        m.vcpu.state.request_exit();
        assert_eq!(m.vcpu.run(), Exit::Interrupted);
        assert_eq!(m.vcpu.state.exit_request.load(Ordering::SeqCst), 0);
    });
}

#[derive(Clone, Copy)]
struct SendPtr(*const tulk_base::CpuState);
// SAFETY: only the atomic exit flag is used.
unsafe impl Send for SendPtr {}

#[test]
fn modes_have_their_own_blocks() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let (f, top) = (asm.label(), asm.label());
        asm.movi(1, 20);
        asm.place(top).op(op::MODE, 0, 0, 0).branch(op::CALL, 0, f).op(op::ADD, 3, 3, 2);
        asm.op(op::MODE, 1, 0, 0).branch(op::CALL, 0, f).op(op::ADD, 4, 4, 2);
        asm.op(op::MODE, 0, 0, 0).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        asm.place(f).movi(2, 5).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        m.run_to(0, 1, setting.name);
        assert_eq!((m.reg(3), m.reg(4)), (100, -100i64 as u64), "{}", setting.name);
    });
}

#[test]
fn floats_follow_the_guest_mode() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        asm.movi(7, 8);
        let top = asm.here();
        asm.op(op::ROUND, 0, 0, 0).op(op::FDIV, 3, 1, 2);
        asm.op(op::ROUND, 1, 0, 0).op(op::FDIV, 4, 1, 2).op(op::ROUND, 0, 0, 0);
        asm.op(op::ADDI, 7, 7, -1).branch(op::BNZ, 7, top).sys(1);
        let exact = asm.here();
        asm.op(op::FADD, 3, 1, 1).sys(2);
        m.load(&mut asm);
        m.set(1, 1f64.to_bits());
        m.set(2, 10f64.to_bits());
        let flags = m.isa.flags();
        for _ in 0..4 {
            m.vcpu.state.set(flags, 0);
            m.run_to(asm.offset(exact), 2, setting.name);
            assert_eq!(m.reg(3), 2f64.to_bits());
            assert_eq!(m.vcpu.state.get(flags), 0, "{}", setting.name);
            m.run_to(0, 1, setting.name);
            // 1/10 to nearest is above 1/10.
            assert_eq!(m.reg(3), 0.1f64.to_bits(), "{}", setting.name);
            assert_eq!(m.reg(4), 0.1f64.to_bits() - 1, "{}", setting.name);
            assert_eq!(m.vcpu.state.get(flags), tulk_ir::FpFlags::INEXACT as u64);
        }
        // The host's own arithmetic is as before.
        let one = std::hint::black_box(1f64);
        assert_eq!(one / 10.0, 0.1);
    });
}

/// The region of a hot loop holds what is taken often, its callee and the place it returns to, and nothing else.
#[test]
fn regions_hold_what_is_hot() {
    let config = Config { threshold: 500, synchronous: true, ..Config::default() };
    let mut m = Machine::new(&Setting { name: "region", window: false, config });
    let mut asm = Asm::new();
    let (cold, back, f) = (asm.label(), asm.label(), asm.label());
    let top = asm.here();
    // r4 counts down from 400: the cold arm is taken once before the threshold.
    asm.op(op::ADDI, 4, 4, -1).branch(op::CALL, 0, f);
    asm.op(op::SUB, 5, 4, 0).branch(op::BNZ, 5, back).branch(op::JMP, 0, cold);
    asm.place(back).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
    asm.place(f).op(op::ADD, 2, 2, 6).op(op::RET, 0, 0, 0);
    asm.place(cold);
    for _ in 0..40 {
        asm.op(op::ADDI, 3, 3, 1);
    }
    asm.branch(op::JMP, 0, back);
    m.load(&mut asm);
    for (n, v) in [(1, 1000), (4, 400), (6, 1)] {
        m.set(n, v);
    }
    m.run_to(0, 1, "region");
    assert_eq!((m.reg(2), m.reg(3)), (1000, 40));
    let stats = m.engine.stats();
    // Six instructions of the loop, two of the callee.
    assert_eq!((stats.regions_compiled, stats.insns_compiled), (1, 8), "{stats}");
    assert!(stats.region_entries <= 1, "{stats}");
}

/// What a computed call leads to joins, with the place it returns to, and nothing is left on the way.
#[test]
fn regions_hold_what_computed_calls_lead_to() {
    let config = Config { threshold: 500, synchronous: true, ..Config::default() };
    let mut m = Machine::new(&Setting { name: "region", window: false, config });
    let mut asm = Asm::new();
    let top = asm.here();
    // r5 and r6 swap: two functions by turns.
    asm.op(op::CALLR, 5, 0, 0);
    asm.op(op::ADDI, 7, 5, 0).op(op::ADDI, 5, 6, 0).op(op::ADDI, 6, 7, 0);
    asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
    let f = asm.here();
    asm.op(op::ADDI, 2, 2, 1).op(op::RET, 0, 0, 0);
    let g = asm.here();
    asm.op(op::ADDI, 3, 3, 1).op(op::RET, 0, 0, 0);
    m.load(&mut asm);
    let (f, g) = (m.code + asm.offset(f), m.code + asm.offset(g));
    for (n, v) in [(1, 2000), (5, f), (6, g)] {
        m.set(n, v);
    }
    m.run_to(0, 1, "region");
    assert_eq!((m.reg(2), m.reg(3)), (1000, 1000));
    let stats = m.engine.stats();
    assert_eq!((stats.regions_compiled, stats.insns_compiled), (1, 10), "{stats}");
    assert!(stats.region_entries <= 1, "{stats}");
}

/// Not a test: prints what a block costs. `cargo test --release -p tulk-exec --test tiers -- --ignored --nocapture`
#[test]
#[ignore = "measures"]
fn speed() {
    for setting in settings() {
        let mut m = Machine::new(&setting);
        let mut asm = Asm::new();
        sum_loop(&mut asm);
        let f = asm.label();
        let calls = asm.here();
        asm.branch(op::CALL, 0, f).sys(2).place(f);
        fib(&mut asm);
        let jumps = asm.here();
        for _ in 0..16 {
            asm.imm(op::JMP, 0, 1);
        }
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, jumps).sys(3);
        let returns = asm.here();
        let ret = asm.label();
        asm.branch(op::CALL, 0, ret).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, returns).sys(4);
        asm.place(ret).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        let mut time = |offset, n: u64, sys, blocks: u64| {
            let stack = m.data + toy::DATA_SIZE;
            let mut best = f64::MAX;
            for _ in 0..5 {
                m.set(13, stack);
                m.set(1, n);
                let start = std::time::Instant::now();
                m.run_to(offset, sys, setting.name);
                best = best.min(start.elapsed().as_secs_f64());
            }
            best * 1e9 / blocks as f64
        };
        let sum = time(0, 3_000_000, 1, 3_000_000);
        let fib = time(asm.offset(calls), 24, 2, 75_025);
        let jump = time(asm.offset(jumps), 100_000, 3, 1_700_000);
        let ret = time(asm.offset(returns), 300_000, 4, 300_000);
        println!(
            "{:20} ns per: iteration {sum:6.2}, fib call {fib:6.2}, jump {jump:6.2}, call+return {ret:6.2}",
            setting.name
        );
    }
}
