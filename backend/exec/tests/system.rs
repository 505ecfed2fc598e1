//! System mode: toy programs on paged memory, in every tier.

mod toy;

use std::sync::atomic::Ordering;
use toy::system::{
    CODE, Computer, DATA, DEVICE, HANDLER, TABLE, TABLE2, USER, cause, cr, op as sys, pte,
};
use toy::{Asm, Setting, op, settings};
use tulk_base::GuestPa;
use tulk_exec::{Config, Exit, Tier};
use tulk_softmmu::PhysKind;

fn each(test: impl Fn(&str, Computer)) {
    for Setting { name, config, window } in settings() {
        if !window || name == "mixed, synchronous" {
            test(name, Computer::new(&config));
        }
    }
}

/// The word of an instruction, as a guest stores it.
fn word(insn: [u8; 4]) -> u64 {
    u32::from_le_bytes(insn) as u64
}

/// Switches paging on by way of r14 (the table), r13 (the handler); then `body`.
fn boot(asm: &mut Asm) {
    asm.op(sys::CSRW, cr::VEC, 13, 0).op(sys::CSRW, cr::PTBR, 14, 0);
}

fn ready(m: &mut Computer) {
    m.set(14, TABLE);
    m.set(13, HANDLER);
}

#[test]
fn loops_run_on_physical_memory() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::LD, 3, 4, 0).op(op::ADD, 2, 2, 3).op(op::ST, 2, 4, 8);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(1, 1000);
        m.set(4, DATA);
        m.write64(DATA, 3);
        m.run(CODE, name);
        assert_eq!((m.reg(2), m.read64(DATA + 8)), (3000, 3000), "{name}");
        m.engine.wait_for_compiles();
        m.set(1, 500);
        m.run(CODE, name);
        assert_eq!(m.reg(2), 4500, "{name}");
    });
}

/// A handler that maps the page that faulted to the next frame at r12, counts in r11, and repeats.
fn demand_handler(m: &Computer) {
    let mut asm = Asm::new();
    // r10 = address of the entry: table + 8 * (eva >> 12); the toy cannot shift right, so entries come from a list.
    asm.op(sys::CSRR, 9, cr::EVA, 0).op(sys::CSRR, 8, cr::CAUSE, 0);
    asm.op(op::LD, 10, 12, 0).op(op::LD, 9, 12, 8).op(op::ST, 9, 10, 0);
    asm.op(op::ADDI, 12, 12, 16).op(op::ADDI, 11, 11, 1).op(sys::ERET, 0, 0, 0);
    m.load(HANDLER, &mut asm);
}

#[test]
fn page_faults_are_exact() {
    each(|name, mut m| {
        demand_handler(&m);
        let mut asm = Asm::new();
        boot(&mut asm);
        let top = asm.here();
        // A store and a load on each of many pages; registers change right before.
        asm.op(op::ADDI, 1, 1, 1).op(op::ST, 1, 4, 16).op(op::LD, 3, 4, 16).op(op::ADD, 2, 2, 3);
        asm.op(op::ADD, 4, 4, 5).op(op::ADDI, 6, 6, -1).branch(op::BNZ, 6, top);
        asm.op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        let list = 0x8_0000;
        for n in 0..64 {
            let va = 0x40_0000 + (n << 12);
            m.write64(list + 16 * n, TABLE + 8 * (va >> 12));
            // Frames in the opposite order.
            m.write64(list + 16 * n + 8, (DATA + ((63 - n) << 12)) | pte::RW);
        }
        ready(&mut m);
        m.set(4, 0x40_0000);
        m.set(5, 4096);
        m.set(6, 64);
        // The identity map of the kernel ends at 1 MiB; the tables lie behind it.
        for page in 256..288 {
            m.map(TABLE, page << 12, page << 12, pte::RW);
        }
        m.set(12, list);
        m.run(CODE, name);
        assert_eq!((m.reg(11), m.reg(1), m.reg(2)), (64, 64, 64 * 65 / 2), "{name}");
        for n in 0..64 {
            assert_eq!(m.read64(DATA + ((63 - n) << 12) + 16), n + 1, "{name}");
        }
        assert_eq!(m.cr(cr::CAUSE), cause::WRITE);
    });
}

#[test]
fn accesses_cross_pages() {
    each(|name, mut m| {
        // The handler notes the cause and halts.
        let mut asm = Asm::new();
        asm.op(sys::CSRR, 9, cr::EVA, 0).op(sys::CSRR, 8, cr::CAUSE, 0).op(sys::HALT, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        let mut asm = Asm::new();
        boot(&mut asm);
        asm.op(op::ST, 1, 4, 0).op(op::LD, 2, 4, 0).op(op::LD, 3, 4, 4);
        asm.op(op::XADD, 7, 4, 5).op(sys::MOV16, 6, 4, 0).op(op::ST, 1, 10, 0).op(
            sys::HALT,
            0,
            0,
            0,
        );
        m.load(CODE, &mut asm);
        m.map(TABLE, 0x40_0000, DATA + 0x3000, pte::RW);
        m.map(TABLE, 0x40_1000, DATA + 0x1000, pte::RW);
        m.map(TABLE, 0x40_2000, DATA + 0x5000, pte::PRESENT);
        for round in 0..6 {
            ready(&mut m);
            m.set(1, 0x1122_3344_5566_7788);
            m.set(4, 0x40_0ffd);
            m.set(5, 1);
            m.set(6, 0x40_0ff5);
            m.set(10, 0x40_1ffc);
            m.write64(DATA + 0x1ff8, 7);
            m.write64(DATA + 0x1000, 0);
            m.run(CODE, name);
            let what = format!("{name}, round {round}");
            assert_eq!(m.reg(2), 0x1122_3344_5566_7788, "{what}");
            assert_eq!(m.reg(3), 0x1122_3344, "{what}");
            assert_eq!(m.reg(7), 0x1122_3344_5566_7788, "{what}");
            // The 16 bytes end in what the second page held.
            assert_eq!(m.read64(DATA + 0x3ff5), 0x1122_3344_5566_7789, "{what}");
            assert_eq!((m.read64(DATA + 0x3ff8) >> 40, m.read64(DATA + 0x1000)), (0, 0), "{what}");
            // The second page is read-only: nothing was stored on the first.
            assert_eq!((m.reg(8), m.reg(9)), (cause::WRITE, 0x40_2000), "{what}");
            assert_eq!(m.read64(DATA + 0x1ff8), 7, "{what}");
            m.set_cr(cr::PTBR, 0);
            m.set_cr(cr::VEC, 0);
        }
    });
}

#[test]
fn devices_get_every_access() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::LD, 2, 4, 0).op(op::ST32, 1, 4, 8).op(sys::OUT, 1, 7, 0).op(sys::IN, 3, 5, 0);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(1, 20);
        m.set(4, DEVICE + 0x10);
        m.board.input.store(100, Ordering::SeqCst);
        m.run(CODE, name);
        assert_eq!(
            (m.reg(2), m.reg(3)),
            ((DEVICE + 0x10).wrapping_mul(0x0101_0101_0101), 105),
            "{name}"
        );
        let log = m.board.log.lock().unwrap();
        let want: Vec<_> =
            (1..=20).rev().flat_map(|n| [(DEVICE + 0x18, 4, n), (7, 4, n)]).collect();
        assert_eq!(*log, want, "{name}");
    });
}

#[test]
fn code_changes_through_another_address() {
    each(|name, mut m| {
        // Rewrites `movi r2, n` in a function by way of its alias, then calls it: no flush, no jump in between.
        let mut asm = Asm::new();
        boot(&mut asm);
        let f = asm.label();
        let top = asm.here();
        asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5).op(op::ST32, 4, 6, 0);
        asm.branch(op::CALL, 0, f).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        asm.place(f).movi(2, 0).op(op::RET, 0, 0, 0);
        let target = asm.offset(f);
        m.load(CODE, &mut asm);
        m.map(TABLE, 0x40_0000, CODE, pte::RW);
        ready(&mut m);
        m.set(5, word([op::MOVI, 2, 0, 0]));
        m.set(6, 0x40_0000 + target);
        m.set(1, 200);
        m.run(CODE, name);
        assert_eq!(m.reg(3), 200 * 201 / 2, "{name}");
    });
}

#[test]
fn a_block_sees_its_own_changes_at_once() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        boot(&mut asm);
        let next = asm.label();
        let top = asm.here();
        asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5);
        asm.op(op::ST32, 4, 6, 0);
        asm.place(next).movi(2, 0).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        let target = asm.offset(next);
        m.load(CODE, &mut asm);
        ready(&mut m);
        m.set(5, word([op::MOVI, 2, 0, 0]));
        m.set(6, CODE + target);
        m.set(1, 300);
        m.run(CODE, name);
        assert_eq!(m.reg(3), 300 * 301 / 2, "{name}");
        let stats = m.engine.stats();
        assert!(stats.write_faults >= 1 && stats.write_faults <= 20, "{name}: {stats}");
    });
}

#[test]
fn data_beside_code_does_not_invalidate_it() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::ST, 1, 4, 0).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top);
        asm.op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(1, 1000);
        m.set(4, CODE + 0x800);
        m.run(CODE, name);
        let stats = m.engine.stats();
        assert_eq!((stats.write_faults, stats.invalidated), (0, 0), "{name}: {stats}");
        assert_eq!(m.read64(CODE + 0x800), 1);
    });
}

#[test]
fn instructions_cross_pages() {
    each(|name, mut m| {
        // `movi r2, n` with its last two bytes on the next page, which differs between two spaces.
        let at = CODE + 0xffe;
        let second = DATA;
        m.mem.write(GuestPa(at), &[op::MOVI, 2]);
        for (space, n) in [(0u64, 5u8), (1, 9)] {
            let frame = second + (space << 12);
            let mut code = vec![n, 0];
            code.extend([op::ADD, 3, 3, 2, op::JR, 7, 0, 0]);
            m.mem.write(GuestPa(frame), &code);
            m.map([TABLE, TABLE2][space as usize], CODE + 0x1000, frame, pte::RWX);
        }
        let mut asm = Asm::new();
        boot(&mut asm);
        let (top, back) = (asm.label(), asm.label());
        asm.place(top).op(op::JR, 8, 0, 0);
        asm.place(back).op(sys::CSRW, cr::SPACE, 9, 0).op(sys::CSRW, cr::PTBR, 10, 0);
        // Exchange the two spaces.
        asm.op(op::SUB, 9, 12, 9).op(op::SUB, 10, 11, 10);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        let at_back = HANDLER + asm.offset(back);
        m.load(HANDLER, &mut asm);
        ready(&mut m);
        m.set(7, at_back);
        m.set(8, at);
        m.set(9, 1);
        m.set(10, TABLE2);
        m.set(11, TABLE + TABLE2);
        m.set(12, 1);
        m.set(1, 40);
        m.run(HANDLER, name);
        assert_eq!(m.reg(3), 20 * 5 + 20 * 9, "{name}");
    });
}

#[test]
fn spaces_share_and_differ() {
    each(|name, mut m| {
        // The same address holds other code in the second space; the loop itself is global.
        let f = 0x40_0000;
        for (table, frame, n) in [(TABLE, DATA, 1), (TABLE2, DATA + 0x1000, 100)] {
            let mut asm = Asm::new();
            asm.op(op::ADDI, 3, 3, n).op(op::RET, 0, 0, 0);
            m.load(frame, &mut asm);
            m.map(table, f, frame, pte::RWX);
            for page in 0..256 {
                m.map(table, page << 12, page << 12, pte::RWX | pte::GLOBAL);
            }
        }
        let mut asm = Asm::new();
        boot(&mut asm);
        let top = asm.here();
        asm.op(op::CALLR, 8, 0, 0).op(sys::CSRW, cr::SPACE, 9, 0).op(sys::CSRW, cr::PTBR, 10, 0);
        asm.op(op::SUB, 9, 12, 9).op(op::SUB, 10, 11, 10);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        ready(&mut m);
        m.set(8, f);
        m.set(9, 1);
        m.set(10, TABLE2);
        m.set(11, TABLE + TABLE2);
        m.set(12, 1);
        m.set(1, 100);
        m.run(CODE, name);
        assert_eq!(m.reg(3), 50 * 101, "{name}");
        let stats = m.engine.stats();
        assert!(stats.blocks_lifted < 30, "{name}: {stats}");
    });
}

#[test]
fn devices_write_code() {
    each(|name, mut m| {
        let mem = m.mem.clone();
        m.board.port(3, move |_, _, value| {
            let code = [[op::ADDI, 3, 3, value as u8], [op::RET, 0, 0, 0]].concat();
            mem.write(GuestPa(DATA), &code);
        });
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(sys::OUT, 1, 3, 0).op(op::CALLR, 8, 0, 0).op(op::CALLR, 8, 0, 0);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(8, DATA);
        m.set(1, 100);
        m.run(CODE, name);
        assert_eq!(m.reg(3), 100 * 101, "{name}");
    });
}

#[test]
fn the_board_moves_memory() {
    each(|name, mut m| {
        // A window shows one frame, another, or a device, and the code and data of each.
        let window = 0xa0_0000;
        for n in 0..2 {
            let code =
                [[op::ADDI, 3, 3, 1 + 9 * n], [op::LD, 5, 8, 64], [op::RET, 0, 0, 0]].concat();
            m.mem.write(GuestPa(DATA + ((n as u64) << 12)), &code);
            m.write64(DATA + ((n as u64) << 12) + 64, 1000 + n as u64);
        }
        m.mem.map(GuestPa(window), 4096, DATA, PhysKind::Ram);
        let mem = m.mem.clone();
        m.board.port(3, move |_, _, value| {
            mem.map(GuestPa(window), 4096, DATA + ((value as u64 & 1) << 12), PhysKind::Ram);
        });
        let mut asm = Asm::new();
        let top = asm.here();
        // The load behind the port must see the new frame in the same block.
        asm.op(sys::OUT, 1, 3, 0).op(op::LD, 6, 8, 64).op(op::CALLR, 8, 0, 0);
        asm.op(op::SUB, 6, 6, 5).op(op::ADD, 7, 7, 6).op(op::ADD, 9, 9, 5);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(8, window);
        m.set(1, 60);
        m.run(CODE, name);
        assert_eq!((m.reg(3), m.reg(7), m.reg(9)), (30 * 11, 0, 60 * 1000 + 30), "{name}");
    });
}

#[test]
fn user_code_is_kept_out() {
    each(|name, mut m| {
        // The handler: a system call ends, anything else is counted and skipped.
        let mut asm = Asm::new();
        let end = asm.label();
        asm.op(sys::CSRR, 8, cr::CAUSE, 0).op(op::ADDI, 9, 8, -17);
        let other = asm.label();
        asm.branch(op::BNZ, 9, other).branch(op::JMP, 0, end);
        asm.place(other).op(op::ADD, 10, 10, 8).op(sys::CSRR, 9, cr::EPC, 0).op(op::ADDI, 9, 9, 4);
        asm.op(sys::CSRW, cr::EPC, 9, 0).op(sys::ERET, 0, 0, 0);
        asm.place(end).op(sys::HALT, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        // The kernel goes to user mode at r7.
        let mut asm = Asm::new();
        boot(&mut asm);
        asm.op(sys::CSRW, cr::EPC, 7, 0).op(sys::CSRW, cr::SMODE, 6, 0).op(sys::ERET, 0, 0, 0);
        m.load(CODE, &mut asm);
        let user = 0x40_0000;
        let mut asm = Asm::new();
        let top = asm.here();
        asm.op(op::LD, 2, 4, 0).op(op::ST, 1, 5, 0).op(op::ST, 1, 3, 0).op(op::LD, 2, 3, 0);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(op::SYS, 1, 0, 0);
        m.load(DATA, &mut asm);
        m.map(TABLE, user, DATA, pte::PRESENT | pte::EXEC | pte::USER);
        m.map(TABLE, user + 0x1000, DATA + 0x1000, pte::RW | pte::USER);
        ready(&mut m);
        for (n, v) in [(7, user), (6, USER), (4, DATA), (5, user), (3, user + 0x1000), (1, 30)] {
            m.set(n, v);
        }
        m.run(CODE, name);
        assert_eq!(m.reg(10), 30 * (cause::READ + cause::WRITE), "{name}");
        assert_eq!((m.reg(2), m.reg(1)), (1, 0), "{name}");
        assert_eq!(m.cr(cr::SMODE), USER, "{name}");
    });
}

#[test]
fn mappings_change_with_a_flush() {
    each(|name, mut m| {
        // Changes the entry of a page (alone, and in a large page) and flushes it; reads see the new frame.
        let mut asm = Asm::new();
        boot(&mut asm);
        let top = asm.here();
        asm.op(op::ST, 5, 7, 0).op(sys::TLBI, 2, 8, 0).op(op::LD, 2, 8, 0).op(op::ADD, 3, 3, 2);
        asm.op(op::LD, 2, 4, 0).op(op::ADD, 3, 3, 2);
        asm.op(op::ST, 6, 7, 0).op(sys::TLBI, 2, 8, 0).op(op::LD, 2, 8, 0).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        for page in 256..288 {
            m.map(TABLE, page << 12, page << 12, pte::RW);
        }
        // 64 KiB pages: each of their entries says the same.
        let large = 0x41_0000;
        for n in 0..16 {
            m.map(TABLE, large + (n << 12), DATA + 0x1_0000, pte::RW | pte::LARGE);
        }
        for (at, v) in [(0, 1), (0x1_3000, 10), (0x2_3000, 100)] {
            m.write64(DATA + at, v);
        }
        m.map(TABLE, 0x40_0000, DATA, pte::RW | pte::GLOBAL);
        ready(&mut m);
        m.set(4, 0x40_0000);
        m.set(5, (DATA + 0x2_0000) | pte::RW | pte::LARGE);
        m.set(6, (DATA + 0x1_0000) | pte::RW | pte::LARGE);
        m.set(7, TABLE + 8 * ((large + 0x3000) >> 12));
        m.set(8, large + 0x3000);
        m.set(1, 50);
        m.run(CODE, name);
        assert_eq!(m.reg(3), 50 * 111, "{name}");
    });
}

/// Runs `n` processors from `pc` until they halt with interrupts off; r15 is their number.
fn run_all(m: &mut Computer, n: u32, pc: u64, name: &str, set: &[(usize, u64)]) -> Vec<u64> {
    let mut vcpus: Vec<_> = (1..n).map(|cpu| m.engine.processor(cpu)).collect();
    m.board.handles.lock().unwrap().truncate(1);
    for vcpu in &mut vcpus {
        m.board.handles.lock().unwrap().push(vcpu.handle());
    }
    let reg = |n| m.isa.toy.reg(n);
    std::thread::scope(|s| {
        let threads: Vec<_> = std::iter::once(&mut m.vcpu)
            .chain(&mut vcpus)
            .enumerate()
            .map(|(cpu, vcpu)| {
                for &(n, v) in set.iter().chain(&[(15, cpu as u64)]) {
                    vcpu.state.set(reg(n), v);
                }
                let result = reg(3);
                s.spawn(move || {
                    vcpu.state.set_pc(pc);
                    assert_eq!(vcpu.run(), Exit::Halt { interrupts: false }, "{name}");
                    vcpu.state.get(result)
                })
            })
            .collect();
        threads.into_iter().map(|t| t.join().expect(name)).collect()
    })
}

#[test]
fn processors_share_memory() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        boot(&mut asm);
        let top = asm.here();
        asm.op(op::XADD, 2, 4, 5).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top);
        asm.op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.map(TABLE, 0x40_0000, DATA, pte::RW);
        let set = [(1, 5000), (4, 0x40_0008), (5, 1), (13, HANDLER), (14, TABLE)];
        run_all(&mut m, 3, CODE, name, &set);
        assert_eq!(m.read64(DATA + 8), 15_000, "{name}");
    });
}

#[test]
fn processors_change_each_others_code() {
    each(|name, mut m| {
        // Processor 0 rewrites a function and then a word; processor 1 waits for the word, calls, and answers. Every
        // round's function must be the new one.
        let f = DATA;
        let (request, answer) = (DATA + 0x1000, DATA + 0x1040);
        let mut asm = Asm::new();
        let second = asm.label();
        asm.branch(op::BNZ, 15, second);
        let (top, wait) = (asm.here(), asm.label());
        asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5).op(op::ST32, 4, 6, 0);
        asm.op(op::ST, 1, 7, 0);
        asm.place(wait).op(op::LD, 2, 8, 0).op(op::SUB, 2, 2, 1).branch(op::BNZ, 2, wait);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        asm.place(second);
        let wait = asm.here();
        asm.op(op::LD, 2, 7, 0).op(op::SUB, 9, 2, 1).branch(op::BNZ, 9, wait);
        asm.op(op::CALLR, 6, 0, 0).op(op::ADD, 3, 3, 10).op(op::ST, 1, 8, 0);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, wait).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        let mut asm = Asm::new();
        asm.movi(10, 0).op(op::RET, 0, 0, 0);
        m.load(f, &mut asm);
        let rounds = 300;
        let set = [(1, rounds), (5, word([op::MOVI, 10, 0, 0])), (6, f), (7, request), (8, answer)];
        let results = run_all(&mut m, 2, CODE, name, &set);
        assert_eq!(results[1], rounds * (rounds + 1) / 2, "{name}");
    });
}

#[test]
fn pages_are_shot_down() {
    each(|name, mut m| {
        // Processor 0 moves a page to another frame, sends an interrupt and waits for the answer; the handler of processor 1
        // flushes, reads the page (r3 += r2) and answers. So processor 1 must read each frame once per round.
        let page = 0x40_0000;
        m.board.port(4, |board, _, _| board.raise(1, 1));
        m.board.events.lock().unwrap().resize(2, Default::default());
        let mut asm = Asm::new();
        asm.op(sys::TLBI, 2, 8, 0).op(op::LD, 2, 8, 0).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).op(op::ST, 12, 9, 0).op(sys::ERET, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        let mut asm = Asm::new();
        boot(&mut asm);
        let (second, wait) = (asm.label(), asm.label());
        asm.branch(op::BNZ, 15, second);
        let top = asm.here();
        asm.op(op::ST, 11, 9, 0).op(op::ST, 5, 7, 0).op(op::SUB, 5, 6, 5).op(sys::OUT, 12, 4, 0);
        asm.place(wait).op(op::LD, 2, 9, 0).op(op::SUB, 2, 2, 12).branch(op::BNZ, 2, wait);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top).op(sys::HALT, 0, 0, 0);
        asm.place(second).op(sys::CSRW, cr::IE, 12, 0);
        let top = asm.here();
        asm.op(op::LD, 4, 8, 0).branch(op::BNZ, 1, top);
        asm.op(sys::CSRW, cr::IE, 11, 0).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        for page in 256..288 {
            m.map(TABLE, page << 12, page << 12, pte::RW);
        }
        m.map(TABLE, page, DATA, pte::RW);
        m.map(TABLE, 0x41_0000, DATA + 0x4000, pte::RW);
        m.write64(DATA, 1);
        m.write64(DATA + 0x1000, 1000);
        let rounds = 200;
        let (a, b) = ((DATA + 0x1000) | pte::RW, DATA | pte::RW);
        let set = [
            (1, rounds),
            (5, a),
            (6, a + b),
            (7, TABLE + 8 * (page >> 12)),
            (8, page),
            (9, 0x41_0000),
            (11, 0),
            (12, 1),
            (13, HANDLER),
            (14, TABLE),
        ];
        let results = run_all(&mut m, 2, CODE, name, &set);
        assert_eq!(results[1], rounds / 2 * 1001, "{name}");
    });
}

#[test]
fn interrupts_are_taken() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        asm.op(op::ADDI, 11, 11, 1).op(sys::ERET, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        let mut asm = Asm::new();
        asm.op(sys::CSRW, cr::VEC, 13, 0).op(sys::CSRW, cr::IE, 12, 0);
        let top = asm.here();
        // Until the handler ran ten times.
        asm.op(op::ADDI, 2, 2, 1).op(op::ADDI, 3, 11, -10).branch(op::BNZ, 3, top);
        asm.op(sys::CSRW, cr::IE, 10, 0).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(13, HANDLER);
        m.set(12, 1);
        let board = m.board.clone();
        std::thread::scope(|s| {
            s.spawn(move || {
                for n in 0..10 {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                    board.raise(0, n);
                }
            });
            m.run(CODE, name);
        });
        assert_eq!(m.reg(11), 10, "{name}");
        // A halted processor with interrupts on says so, and goes on when there is one.
        let mut asm = Asm::new();
        asm.op(sys::CSRW, cr::IE, 12, 0).op(sys::HALT, 0, 0, 0).op(sys::CSRW, cr::IE, 10, 0);
        asm.op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.vcpu.state.set_pc(CODE);
        assert_eq!(m.vcpu.run(), Exit::Halt { interrupts: true }, "{name}");
        m.board.raise(0, 3);
        assert_eq!(m.vcpu.run(), Exit::Halt { interrupts: false }, "{name}");
        assert_eq!((m.reg(11), m.cr(cr::CAUSE)), (11, cause::INTERRUPT + 3), "{name}");
    });
}

#[test]
fn nothing_to_take_an_exception_stops() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        asm.op(200, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.vcpu.state.set_pc(CODE);
        assert_eq!(m.vcpu.run(), Exit::Shutdown, "{name}");
        assert_eq!(m.board.shutdowns.load(Ordering::SeqCst), 1);
        m.vcpu.handle().kick();
        assert_eq!(m.vcpu.run(), Exit::Interrupted, "{name}");
    });
}

#[test]
fn a_page_written_again_and_again_is_compared_until_it_is_quiet() {
    each(|name, mut m| {
        // First a storm: a function is rewritten before each call. Then it is left alone.
        let mut asm = Asm::new();
        let f = asm.label();
        let storm = asm.here();
        asm.op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5).op(op::ST32, 4, 6, 0);
        asm.branch(op::CALL, 0, f).op(op::ADD, 3, 3, 2);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, storm);
        let quiet = asm.here();
        asm.branch(op::CALL, 0, f).op(op::ADDI, 7, 7, -1).branch(op::BNZ, 7, quiet);
        asm.op(sys::HALT, 0, 0, 0);
        asm.place(f).movi(2, 0).op(op::RET, 0, 0, 0);
        m.load(CODE, &mut asm);
        m.set(5, word([op::MOVI, 2, 0, 0]));
        m.set(6, CODE + asm.offset(f));
        m.set(1, 400);
        m.set(7, 30_000);
        m.run(CODE, name);
        assert_eq!((m.reg(3), m.reg(2)), (400 * 401 / 2, 1), "{name}");
        let stats = m.engine.stats();
        assert!((2..=40).contains(&stats.write_faults), "{name}: {stats}");
        // It was trusted again: a new change is noticed by its store, not by comparing.
        m.set(1, 1);
        m.set(7, 1);
        m.run(CODE, name);
        assert!(m.engine.stats().write_faults > stats.write_faults, "{name}");
    });
}

#[test]
fn code_runs_from_devices_and_rom() {
    each(|name, mut m| {
        // ROM: stores go to the board, and change nothing.
        let rom = 0xb0_0000;
        let mut asm = Asm::new();
        asm.op(op::ST, 1, 8, 0).op(op::ADDI, 3, 3, 1).op(op::ADDI, 1, 1, -1);
        let top = asm.here();
        asm.op(op::ST32, 1, 8, 0).op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top);
        asm.op(sys::HALT, 0, 0, 0);
        m.mem.write_backing(0x70_0000, &asm.bytes());
        m.mem.map(GuestPa(rom), 0x1000, 0x70_0000, PhysKind::Rom);
        m.set(1, 11);
        m.set(8, rom);
        m.run(rom, name);
        assert_eq!((m.reg(1), m.reg(3)), (0, 1), "{name}");
        let log = m.board.log.lock().unwrap();
        assert_eq!(log.len(), 11, "{name}");
        assert_eq!((log[0], log[1]), ((rom, 8, 11), (rom, 4, 10)), "{name}");
        drop(log);
        // A device whose bytes are no code ends in the handler, with its address.
        let mut asm = Asm::new();
        asm.op(sys::CSRR, 9, cr::EPC, 0).op(sys::CSRR, 8, cr::CAUSE, 0).op(sys::HALT, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        m.set_cr(cr::VEC, HANDLER);
        m.run(DEVICE + 0xc8, name);
        assert_eq!((m.reg(8), m.reg(9)), (cause::ILLEGAL, DEVICE + 0xc8), "{name}");
    });
}

#[test]
fn wide_atomics_and_alignment() {
    each(|name, mut m| {
        let mut asm = Asm::new();
        asm.op(sys::CSRR, 9, cr::EVA, 0).op(sys::CSRR, 8, cr::CAUSE, 0).op(sys::HALT, 0, 0, 0);
        m.load(HANDLER, &mut asm);
        let mut asm = Asm::new();
        asm.op(sys::CAS16, 1, 4, 2).op(sys::CAS16, 3, 4, 2).op(op::LDA, 5, 4, 0);
        asm.op(sys::CAS16, 6, 7, 2).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        for _ in 0..4 {
            for (n, v) in [(1, 0x1111), (2, 0x2222), (3, 5), (4, DATA), (7, DATA + 8)] {
                m.set(n, v);
            }
            m.write64(DATA, 0);
            m.write64(DATA + 8, 0);
            m.set_cr(cr::VEC, HANDLER);
            m.run(CODE, name);
            assert_eq!((m.reg(1), m.reg(3), m.reg(5)), (0, 0x1111, 0x1111), "{name}");
            assert_eq!((m.read64(DATA), m.read64(DATA + 8)), (0x1111, 0x2222), "{name}");
            assert_eq!((m.reg(8), m.reg(9)), (cause::ALIGN, DATA + 8), "{name}");
        }
    });
}

#[test]
fn a_fetch_that_faults_in_its_second_half_is_repeated() {
    each(|name, mut m| {
        demand_handler(&m);
        let mut asm = Asm::new();
        boot(&mut asm);
        asm.op(op::JR, 8, 0, 0);
        m.load(CODE, &mut asm);
        let page = 0x40_0000;
        // `addi r3, r3, 7` over the page's end, then halt.
        m.mem.write(GuestPa(DATA + 0xffe), &[op::ADDI, 3]);
        m.mem.write(GuestPa(DATA + 0x5000), &[3, 7, sys::HALT, 0, 0, 0]);
        m.map(TABLE, page, DATA, pte::RWX);
        for page in 256..288 {
            m.map(TABLE, page << 12, page << 12, pte::RW);
        }
        let list = 0x8_0000;
        m.write64(list, TABLE + 8 * ((page >> 12) + 1));
        m.write64(list + 8, (DATA + 0x5000) | pte::RWX);
        ready(&mut m);
        m.set(12, list);
        m.set(8, page + 0xffe);
        m.run(CODE, name);
        assert_eq!((m.reg(3), m.reg(11)), (7, 1), "{name}");
        assert_eq!((m.cr(cr::CAUSE), m.cr(cr::EVA)), (cause::EXEC, page + 0x1000), "{name}");
    });
}

#[test]
fn pages_become_code_while_another_processor_writes_them() {
    each(|name, mut m| {
        // Processor 0 runs a fresh copy of a function on each of many pages, whose number processor 1 stores into it at about
        // that time, and then tells. What it is called with after that must be the number.
        let pages = 64u64;
        let base = DATA + 0x1_0000;
        for n in 0..pages {
            let code = [[op::MOVI, 10, 0, 0], [op::RET, 0, 0, 0]].concat();
            m.mem.write(GuestPa(base + (n << 12)), &code);
        }
        let told = DATA + 0x8000;
        let mut asm = Asm::new();
        let second = asm.label();
        asm.branch(op::BNZ, 15, second);
        // r6 = page, r1 = number; call until the number was told, then once more.
        let top = asm.here();
        let spin = asm.here();
        asm.op(op::CALLR, 6, 0, 0).op(op::LD, 2, 7, 0).op(op::SUB, 2, 2, 1);
        asm.branch(op::BNZ, 2, spin).op(op::CALLR, 6, 0, 0).op(op::ADD, 3, 3, 10);
        asm.op(op::ST, 1, 7, 64).op(op::ADD, 6, 6, 9).op(op::ADDI, 1, 1, 1).op(op::SUB, 2, 8, 1);
        asm.branch(op::BNZ, 2, top).op(sys::HALT, 0, 0, 0);
        asm.place(second);
        let top = asm.here();
        // A first store makes the page writable here, before it becomes code there.
        asm.op(op::ST, 1, 6, 64).op(op::SHLI, 4, 1, 16).op(op::ADD, 4, 4, 5).op(op::ST32, 4, 6, 0);
        asm.op(op::ST, 1, 7, 0);
        let wait = asm.here();
        asm.op(op::LD, 2, 7, 64).op(op::SUB, 2, 2, 1).branch(op::BNZ, 2, wait);
        asm.op(op::ADD, 6, 6, 9).op(op::ADDI, 1, 1, 1).op(op::SUB, 2, 8, 1);
        asm.branch(op::BNZ, 2, top).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        let set =
            [(1, 1), (5, word([op::MOVI, 10, 0, 0])), (6, base), (7, told), (8, pages), (9, 4096)];
        let results = run_all(&mut m, 2, CODE, name, &set);
        assert_eq!(results[0], (pages - 1) * pages / 2, "{name}");
    });
}

/// Of too many blocks those go that were not run lately, and no others.
#[test]
fn pages_that_run_are_kept() {
    for tier in [Tier::Interp, Tier::Baseline] {
        let config = Config { tier, system_blocks: 4096, ..Config::default() };
        let mut m = Computer::new(&config);
        let mut asm = Asm::new();
        asm.op(op::ADDI, 2, 2, 1).op(sys::HALT, 0, 0, 0);
        m.load(CODE, &mut asm);
        let far = DATA;
        for page in 0..24 {
            let mut asm = Asm::new();
            for _ in 0..1000 {
                let next = asm.label();
                asm.branch(op::JMP, 0, next).place(next);
            }
            asm.op(op::JR, 14, 0, 0);
            m.load(far + (page << 12), &mut asm);
        }
        m.set(14, CODE);
        m.run(CODE, "first");
        for round in 0..2 {
            for page in 0..24 {
                let before = m.engine.stats().blocks_lifted;
                m.run(far + (page << 12), "a page");
                let stats = m.engine.stats();
                // Those of the page, each anew, but not the one behind.
                assert_eq!(stats.blocks_lifted - before, 1001, "{tier:?} {round} {page}");
                assert!(stats.blocks <= 4096 + 1024, "{}", stats.blocks);
            }
        }
        assert_eq!(m.reg(2), 49);
    }
}

/// What paging costs generated code: the same loop on user and on paged memory. For `docs/decisions.md`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    use toy::Machine;
    let rounds = 50_000_000u64;
    let body = |asm: &mut Asm| {
        let top = asm.here();
        asm.op(op::LD, 3, 4, 0).op(op::ADD, 2, 2, 3).op(op::ST, 2, 4, 8).op(op::LD, 5, 4, 16);
        asm.op(op::ADDI, 1, 1, -1).branch(op::BNZ, 1, top);
    };
    for setting in settings().iter().filter(|s| matches!(s.name, "baseline" | "jit")) {
        let mut asm = Asm::new();
        body(&mut asm);
        asm.sys(1);
        let mut user = Machine::with(setting, true);
        user.load(&mut asm);
        let mut asm = Asm::new();
        body(&mut asm);
        asm.op(sys::HALT, 0, 0, 0);
        let mut system = Computer::new(&setting.config);
        system.load(CODE, &mut asm);
        for _ in 0..3 {
            user.set(1, rounds);
            let data = user.data;
            user.set(4, data);
            let start = std::time::Instant::now();
            user.run_to(0, 1, setting.name);
            let flat = start.elapsed();
            system.set(1, rounds);
            system.set(4, DATA);
            let start = std::time::Instant::now();
            system.run(CODE, setting.name);
            let ns = |t: std::time::Duration| t.as_nanos() as f64 / rounds as f64;
            println!(
                "{}: user {:.2}, paged {:.2} ns a round",
                setting.name,
                ns(flat),
                ns(start.elapsed())
            );
        }
    }
}
