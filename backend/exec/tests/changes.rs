//! Code that changes: by flushes, by itself, by unmapping, from other threads; eviction; threads; fork.

mod toy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use toy::{Asm, Machine, Setting, op, settings};
use tulk_base::{AccessKind, GuestVa, Trap};
use tulk_exec::{Config, Exit, Tier, Watch};
use tulk_softmmu::intervals::READ;

fn each(test: impl Fn(&Setting, Machine)) {
    for setting in settings() {
        let machine = Machine::new(&setting);
        test(&setting, machine);
    }
}

/// The word of an instruction, as a guest stores it.
fn word(asm_op: [u8; 4]) -> u64 {
    u32::from_le_bytes(asm_op) as u64
}

#[test]
fn flushed_changes_are_seen() {
    each(|setting, mut m| {
        // Rewrites `movi r2, n` in a function with n = r1, flushes, calls it, adds.
        let mut asm = Asm::new();
        let f = asm.label();
        let top = asm.here();
        asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5).op(op::ST32, 4, 6, 0);
        asm.movi(7, 4).op(op::FLUSH, 6, 7, 0).op(op::SYNC, 0, 0, 0);
        asm.branch(op::CALL, 0, f).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        asm.place(f).movi(2, 0).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        let target = m.code + asm.offset(f);
        m.set(5, word([op::MOVI, 2, 0, 0]));
        m.set(6, target);
        m.set(1, 200);
        m.run_to(0, 1, setting.name);
        assert_eq!(m.reg(3), 200 * 201 / 2, "{}", setting.name);
        assert!(m.engine.stats().invalidated >= 199);
    });
}

#[test]
fn exact_guests_see_their_changes_at_once() {
    for setting in settings() {
        for limit in [1, 3, 1000] {
            let config = Config { page_fault_limit: limit, ..setting.config.clone() };
            let setting = Setting { config, ..setting.clone() };
            let mut m = Machine::with(&setting, true);
            // The store changes the very next instruction, in the same block.
            let mut asm = Asm::new();
            let next = asm.label();
            let top = asm.here();
            asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5);
            asm.op(op::ST32, 4, 6, 0);
            asm.place(next).movi(2, 0).op(op::ADD, 3, 3, 2);
            asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
            m.load(&mut asm);
            let target = m.code + asm.offset(next);
            m.set(5, word([op::MOVI, 2, 0, 0]));
            m.set(6, target);
            m.set(1, 100);
            let what = format!("{}, limit {limit}", setting.name);
            m.run_to(0, 1, &what);
            assert_eq!(m.reg(3), 100 * 101 / 2, "{what}");
            let stats = m.engine.stats();
            assert!(stats.write_faults >= 1 && stats.write_faults <= limit as u64 + 1, "{stats}");
        }
    }
}

#[test]
fn watched_pages_of_other_guests_do_not_cause_fault_storms() {
    let base = Config { watch: Watch::Always, page_fault_limit: 4, ..Config::default() };
    for config in [
        Config { tier: Tier::Interp, ..base.clone() },
        Config { threshold: 2, synchronous: true, ..base },
    ] {
        let mut m = Machine::new(&Setting { name: "storm", window: false, config });
        // Data and code share a page.
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::ST, 1, 6, 0).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        m.load(&mut asm);
        let code = m.code;
        m.set(6, code + 2048);
        m.set(1, 5000);
        m.run_to(0, 1, "storm");
        let stats = m.engine.stats();
        assert!((1..=5).contains(&stats.write_faults), "{stats}");
    }
}

#[test]
fn unmapped_code_faults() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let far = asm.label();
        asm.branch(op::CALL, 0, far).sys(1);
        while asm.words.len() < 2048 {
            asm.op(200, 0, 0, 0);
        }
        asm.place(far).op(op::ADDI, 1, 1, 1).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        for _ in 0..10 {
            m.run_to(0, 1, setting.name);
        }
        m.engine.wait_for_compiles();
        let at = m.code + asm.offset(far);
        m.mem.protect(GuestVa(at), 4096, READ).unwrap();
        match m.start(0) {
            Exit::Trap(Trap::Mem(f)) => assert_eq!((f.va.0, f.kind), (at, AccessKind::Exec)),
            other => panic!("{}: {other:?}", setting.name),
        }
        m.mem.unmap(GuestVa(at), 4096).unwrap();
        assert!(matches!(m.start(0), Exit::Trap(Trap::Mem(_))), "{}", setting.name);
        assert_eq!((m.vcpu.state.pc(), m.reg(1)), (at, 10));
    });
}

#[test]
fn another_thread_changes_running_code() {
    each(|setting, mut m| {
        // Spins through a function until it changes from `movi r2, 1` to `movi r2, 0`.
        let mut asm = Asm::new();
        let f = asm.label();
        let top = asm.here();
        asm.op(op::ADDI, 1, 1, 1).branch(op::CALL, 0, f).branch(op::BNZ, 2, top).sys(1);
        asm.place(f).movi(2, 1).op(op::RET, 0, 0, 0);
        for round in 0..3 {
            m.load(&mut asm);
            let at = GuestVa(m.code + asm.offset(f));
            let (mem, engine) = (m.mem.clone(), m.engine.clone());
            std::thread::scope(|s| {
                s.spawn(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    mem.copy_out(at, &[op::MOVI, 2, 0, 0]).unwrap();
                    engine.invalidate(at, 4);
                });
                m.run_to(0, 1, &format!("{}, round {round}", setting.name));
            });
            assert!(m.reg(1) > 0);
        }
    });
}

/// Compiles as soon as it may.
fn eager(tier: Tier, synchronous: bool) -> Config {
    Config {
        tier,
        baseline_threshold: 2,
        threshold: 2,
        synchronous,
        compile_share: 1 << 16,
        workers: 1,
        ..Config::default()
    }
}

#[test]
fn code_memory_is_evicted() {
    for (tier, synchronous) in
        [(Tier::Baseline, true), (Tier::Mixed, false), (Tier::Jit, true), (Tier::Jit, false)]
    {
        let config = Config { code_limit: 64 << 10, region_tbs: 4, ..eager(tier, synchronous) };
        let mut m = Machine::new(&Setting { name: "eviction", window: false, config });
        // Functions of different sizes, each called from a table.
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::LD, 4, 3, 0).op(op::CALLR, 4, 0, 0).op(op::ADDI, 3, 3, 8);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        let functions: Vec<_> = (0..400)
            .map(|n| {
                let label = asm.here();
                for i in 0..n % 29 {
                    asm.op(op::LD, 8 + (i % 4) as u8, 7, 8 * (i % 8) as i8);
                }
                asm.op(op::ADDI, 2, 2, 1).op(op::RET, 0, 0, 0);
                label
            })
            .collect();
        m.load(&mut asm);
        for (i, &f) in functions.iter().enumerate() {
            let pc = m.code + asm.offset(f);
            m.mem.copy_out(GuestVa(m.data + 8 * i as u64), &pc.to_le_bytes()).unwrap();
        }
        let data = m.data;
        for round in 1..=12 {
            m.set(1, functions.len() as u64);
            m.set(3, data);
            m.set(7, data);
            m.run_to(0, 1, "eviction");
            m.engine.wait_for_compiles();
            assert_eq!(m.reg(2), round * functions.len() as u64);
        }
        let stats = m.engine.stats();
        assert!(stats.regions_compiled + stats.baseline_blocks > 400, "{stats}");
        assert!(stats.evicted > 0, "{stats}");
        assert!(stats.code_used <= 64 << 10);
    }
}

/// A block that never fits is compiled once, not each time that it runs; what fits by turns goes on being compiled.
#[test]
fn code_without_room_is_not_tried_for_ever() {
    for (tier, synchronous) in [(Tier::Baseline, true), (Tier::Jit, true), (Tier::Mixed, false)] {
        let config = Config { code_limit: 4096, tb_insns: 1000, ..eager(tier, synchronous) };
        let mut m = Machine::new(&Setting { name: "no room", window: false, config });
        let mut asm = Asm::new();
        let large = asm.label();
        let top = asm.here();
        asm.branch(op::CALL, 0, large).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        asm.place(large);
        for i in 0..250 {
            asm.op(op::LD, 8 + (i % 4) as u8, 7, 8 * (i % 8) as i8).op(op::ST, 9, 7, 8);
        }
        asm.op(op::ADDI, 2, 2, 1).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        let data = m.data;
        m.set(7, data);
        m.set(1, 5000);
        m.run_to(0, 1, "no room");
        m.engine.wait_for_compiles();
        assert_eq!(m.reg(2), 5000);
        let stats = m.engine.stats();
        let tried = stats.baseline_refused + stats.regions_refused + stats.compile_failures;
        assert!((1..20).contains(&tried), "{tier:?}: {tried} times\n{stats}");
        assert!(stats.code_used <= 4096);
    }
}

#[test]
fn threads_share_translations() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        let f = asm.label();
        let top = asm.here();
        asm.branch(op::CALL, 0, f).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        asm.place(f).op(op::XADD, 4, 3, 5).op(op::ADD, 2, 2, 5).op(op::RET, 0, 0, 0);
        m.load(&mut asm);
        let (code, data, reg) = (m.code, m.data, |n| m.isa.reg(n));
        let (threads, rounds) = (4, 20_000);
        let done = AtomicU64::new(0);
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let mut running = Vec::new();
            for n in 0..threads {
                let mut vcpu = m.engine.vcpu();
                vcpu.copy_registers(&m.vcpu.state);
                vcpu.state.set_pc(code);
                for (r, v) in [(1, rounds), (3, data), (5, n + 1)] {
                    vcpu.state.set(reg(r), v);
                }
                let (done, sum) = (&done, reg(2));
                running.push(s.spawn(move || {
                    assert_eq!(vcpu.run(), Exit::Trap(Trap::Syscall(1)));
                    assert_eq!(vcpu.state.get(sum), rounds * (n + 1));
                    done.fetch_add(1, Ordering::SeqCst);
                }));
            }
            // Meanwhile somebody keeps dropping everything.
            let (engine, stop) = (m.engine.clone(), &stop);
            s.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    engine.invalidate(GuestVa(code), 64);
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let results: Vec<_> = running.into_iter().map(|t| t.join()).collect();
            stop.store(true, Ordering::SeqCst);
            results.into_iter().for_each(|r| r.expect(setting.name));
        });
        assert_eq!(done.load(Ordering::SeqCst), threads);
        let mut total = [0; 8];
        m.mem.copy_in(GuestVa(data), &mut total).unwrap();
        let want: u64 = (1..=threads).map(|n| n * rounds).sum();
        assert_eq!(u64::from_le_bytes(total), want, "{}", setting.name);
    });
}

/// Many blocks made and dropped: their memory is recycled and no stale one runs.
#[test]
fn dropped_blocks_are_swept() {
    each(|setting, mut m| {
        let mut asm = Asm::new();
        for _ in 0..1500 {
            let next = asm.label();
            asm.op(op::ADDI, 1, 1, 1).branch(op::JMP, 0, next).place(next);
        }
        asm.sys(1);
        m.load(&mut asm);
        for round in 1..=6 {
            m.run_to(0, 1, setting.name);
            assert_eq!(m.reg(1), 1500 * round, "{}", setting.name);
            m.engine.invalidate(GuestVa(m.code), toy::CODE_SIZE / 2);
        }
        assert!(m.engine.stats().invalidated >= 6 * 1500);
    });
}

/// Functions in a table, each a block that jumps to one of a few tails: the code, and where each function is.
fn table_of_functions(m: &mut Machine, count: u64) {
    let mut asm = Asm::new();
    let top = asm.here();
    asm.op(op::LD, 4, 3, 0).op(op::CALLR, 4, 0, 0).op(op::ADDI, 3, 3, 8);
    asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
    let tails: Vec<_> = (0..7).map(|_| asm.label()).collect();
    let functions: Vec<_> = (0..count)
        .map(|n| {
            let label = asm.here();
            asm.op(op::ADDI, 2, 2, 1).branch(op::JMP, 0, tails[n as usize % 7]);
            label
        })
        .collect();
    for tail in tails {
        asm.place(tail).op(op::ADDI, 2, 2, 1).op(op::RET, 0, 0, 0);
    }
    m.load(&mut asm);
    for (i, &f) in functions.iter().enumerate() {
        let pc = m.code + asm.offset(f);
        m.mem.copy_out(GuestVa(m.data + 8 * i as u64), &pc.to_le_bytes()).unwrap();
    }
}

/// Blocks that have not run for long are dropped, and lifted again when they are reached.
#[test]
fn idle_blocks_are_dropped() {
    let count = 700;
    for mut setting in settings() {
        setting.config.idle_after = 32;
        let mut m = Machine::new(&setting);
        table_of_functions(&mut m, count);
        for round in 1..=8 {
            let data = m.data;
            m.set(1, count);
            m.set(3, data);
            m.run_to(0, 1, setting.name);
            assert_eq!(m.reg(2), 2 * round * count, "{}", setting.name);
        }
        let stats = m.engine.stats();
        if setting.config.tier == Tier::Interp {
            // The loop's and the tails' blocks are not among them.
            assert!(stats.idle > 4 * count && stats.blocks < count, "{stats}");
            assert_eq!(stats.blocks_lifted, stats.blocks + stats.idle);
        }
        // Nobody counts for ever in tier 0 because he is dropped in between.
        if setting.config.baseline_threshold == 1 && setting.config.tier != Tier::Interp {
            assert_eq!(stats.idle, 0, "{}: {stats}", setting.name);
        }
    }
}

/// Dropping what is idle, evicting code and changing it, while several threads run it.
#[test]
fn threads_drop_idle_blocks_under_each_other() {
    for tier in [Tier::Interp, Tier::Baseline, Tier::Mixed] {
        let config = Config {
            tier,
            baseline_threshold: 3,
            threshold: 20,
            workers: 1,
            compile_share: 1 << 16,
            code_limit: 16 << 10,
            idle_after: 16,
            ..Config::default()
        };
        let mut m = Machine::new(&Setting { name: "idle", window: false, config });
        let (count, rounds, threads) = (300, 40, 4);
        table_of_functions(&mut m, count);
        let (code, data, reg) = (m.code, m.data, |n| m.isa.reg(n));
        let stop = AtomicBool::new(false);
        std::thread::scope(|s| {
            let mut running = Vec::new();
            for n in 0..threads {
                let mut vcpu = m.engine.vcpu();
                vcpu.copy_registers(&m.vcpu.state);
                let [counter, sum, place] = [1, 2, 3].map(reg);
                running.push(s.spawn(move || {
                    // Parts of the table, so that each has its own idea of what is idle.
                    for round in 0..rounds {
                        let part = 50 * ((round + n) % 6);
                        vcpu.state.set_pc(code);
                        vcpu.state.set(counter, 50);
                        vcpu.state.set(place, data + 8 * part);
                        assert_eq!(vcpu.run(), Exit::Trap(Trap::Syscall(1)));
                        assert_eq!(vcpu.state.get(sum), 100 * (round + 1));
                    }
                }));
            }
            let (engine, stop) = (m.engine.clone(), &stop);
            s.spawn(move || {
                for n in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    engine.invalidate(GuestVa(code + 8 * (n % count)), 64);
                    std::thread::sleep(Duration::from_micros(200));
                }
            });
            let results: Vec<_> = running.into_iter().map(|t| t.join()).collect();
            stop.store(true, Ordering::SeqCst);
            results.into_iter().for_each(|r| r.expect("idle"));
        });
        let stats = m.engine.stats();
        assert!(stats.idle > 0, "{stats}");
    }
}

#[test]
fn forked_children_go_on() {
    // With and without a copy of the machine code.
    for fork_copy in [Config::default().fork_copy, 0] {
        settings().into_iter().for_each(|setting| fork(setting, fork_copy));
    }
}

fn fork(mut setting: Setting, fork_copy: usize) {
    setting.config.fork_copy = fork_copy;
    let mut m = Machine::new(&setting);
    let mut asm = Asm::new();
    asm.movi(2, 0);
    let top = asm.here();
    asm.op(op::ADD, 2, 2, 1).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
    m.load(&mut asm);
    m.set(1, 10_000);
    m.run_to(0, 1, setting.name);
    let engine: Arc<_> = m.engine.clone();
    let guard = engine.before_fork();
    // SAFETY: the child uses only the engine, which is prepared, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    drop(guard);
    if pid == 0 {
        engine.after_fork_in_child();
        let mut good = true;
        for n in [5000u64, 3, 20_000] {
            m.set(1, n);
            good &= m.start(0) == Exit::Trap(Trap::Syscall(1));
            good &= m.reg(2) == n * (n + 1) / 2;
        }
        m.engine.wait_for_compiles();
        m.engine.invalidate_all();
        m.set(1, 100);
        good &= m.start(0) == Exit::Trap(Trap::Syscall(1)) && m.reg(2) == 5050;
        // SAFETY: ends the child without running the parent's cleanup.
        unsafe { libc::_exit(if good { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    unsafe { libc::waitpid(pid, &mut status, 0) };
    assert_eq!(status, 0, "{}", setting.name);
    for n in [5000u64, 30_000] {
        m.set(1, n);
        m.run_to(0, 1, setting.name);
        assert_eq!(m.reg(2), n * (n + 1) / 2);
    }
}

#[test]
fn logs_name_what_happens() {
    use std::sync::Mutex;
    #[derive(Default)]
    struct Sink(Mutex<String>);
    impl tulk_exec::LogSink for Sink {
        fn log(&self, text: &str) {
            self.0.lock().unwrap().push_str(text);
        }
    }
    let run = |items| {
        let sink = Arc::new(Sink::default());
        let config =
            Config { log: Some(sink.clone()), log_items: items, ..Config::for_tier(Tier::Jit) };
        let mut m = Machine::new(&Setting { name: "logs", window: false, config });
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).sys(1);
        m.load(&mut asm);
        m.set(1, 10);
        m.run_to(0, 1, "logs");
        (sink.0.lock().unwrap().clone(), m.code)
    };
    let items = tulk_exec::LogItems {
        in_asm: true,
        ir: true,
        ir_opt: true,
        out_asm: true,
        ..Default::default()
    };
    let (text, code) = run(items);
    for want in ["IN: ", "lifted", "optimised", "OUT: region", &format!("{code:#x}: ")] {
        assert!(text.contains(want), "{want} is missing in:\n{text}");
    }
    let (text, code) = run(tulk_exec::LogItems { exec: true, ..Default::default() });
    assert_eq!(text.matches(&format!("exec {code:#x} ")).count(), 10, "{text}");
    let items = tulk_exec::LogItems { exec: true, registers: true, ..Default::default() };
    let (text, code) = run(items);
    for (n, round) in text.split(&format!("exec {code:#x} ")).skip(1).enumerate() {
        let words: Vec<&str> = round.split_whitespace().collect();
        assert!(words.contains(&&*format!("r1={:x}", 10 - n)), "{n}: {round}");
        assert!(words.contains(&&*format!("pc={code:x}")), "{n}: {round}");
    }
}

#[test]
fn perf_is_told() {
    let folder = std::env::temp_dir().join(format!("tulk-perf-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config =
        Config { perf_map: true, jitdump: Some(folder.clone()), ..Config::for_tier(Tier::Jit) };
    let mut m = Machine::new(&Setting { name: "perf", window: false, config });
    let mut asm = Asm::new();
    asm.movi(1, 1).sys(1);
    m.load(&mut asm);
    m.run_to(0, 1, "perf");
    let pid = std::process::id();
    let map_path = format!("/tmp/perf-{pid}.map");
    let map = std::fs::read_to_string(&map_path).unwrap();
    let name = format!("toy_{:x}", m.code);
    let [start, size, found] = map.split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("one line of three words expected: {map}")
    };
    assert_eq!(found, name);
    assert!(u64::from_str_radix(start, 16).unwrap() > 0);
    let size = usize::from_str_radix(size, 16).unwrap();
    let dump = std::fs::read(folder.join(format!("jit-{pid}.dump"))).unwrap();
    let word = |at: usize| u32::from_ne_bytes(dump[at..at + 4].try_into().unwrap()) as usize;
    assert_eq!((word(0), word(8), word(20)), (0x4a69_5444, 40, pid as usize));
    // One record behind the header: kind, size, ..., name and code at its end.
    assert_eq!((word(40), 40 + word(44)), (0, dump.len()));
    let code_at = dump.len() - size;
    assert_eq!(&dump[code_at - name.len() - 1..code_at - 1], name.as_bytes());
    std::fs::remove_dir_all(folder).unwrap();
    std::fs::remove_file(map_path).unwrap();
}
