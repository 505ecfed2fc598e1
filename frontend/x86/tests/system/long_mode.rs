//! Interrupts, far transfers and fast system calls of long mode, and the way there.

use crate::machine::{Pc, gate, segment};
use crate::tables::*;
use tulk_base::Trap;
use tulk_x86::regs::{self, eflags};
use tulk_x86::system::{cr4, efer};

const CODE64: u16 = 0x08;
const USER32: u16 = 0x18 | 3;
const USER_DATA: u16 = 0x20 | 3;
const USER64: u16 = 0x28 | 3;
const TASK64: u16 = 0x30;
const GATE64: u16 = 0x40;
const BOTH: u16 = 0x50;
const CODE32: u16 = 0x58;
const END64: u16 = 0x60;
const IST1: u64 = 0xa000;

fn long(level: u16) -> Pc {
    let mut c = Pc::real("Haswell");
    for (selector, raw) in [
        (CODE64, segment(0, 0xf_ffff, 0xa09b)),
        (DATA0, segment(0, 0xf_ffff, 0xc093)),
        (USER32, segment(0, 0xf_ffff, 0xc0fb)),
        (USER_DATA, segment(0, 0xf_ffff, 0xc0f3)),
        (USER64, segment(0, 0xf_ffff, 0xa0fb)),
        (TASK64, segment(TSS as u32, 0x67, 0x8b)),
        (GATE64, gate(CODE64, HANDLER, 12, 3, 0)),
        (BOTH, segment(0, 0xf_ffff, 0xe09b)),
        (CODE32, segment(0, 0xf_ffff, 0xc09b)),
    ] {
        c.put64(GDT + (selector & !7) as u64, raw);
    }
    c.protect(true);
    c.set(regs::CR4, cr4::PAE);
    c.set(regs::GDTR_BASE, GDT);
    c.set(regs::GDTR_LIMIT, END64 as u64 - 1);
    c.set(regs::IDTR_BASE, IDT);
    c.set(regs::IDTR_LIMIT, 0xfff);
    c.set(regs::TR, TASK64 as u64);
    c.set(regs::TR_BASE, TSS);
    c.set(regs::TR_LIMIT, 0x67);
    c.set(regs::TR_ATTR, 0x8b);
    c.put64(TSS + 4, STACK0);
    c.put64(TSS + 36, IST1);
    c.put64(TSS + 44, 0x8000_0000_0000_0000);
    let (code, data) = if level == 3 { (USER64, USER_DATA) } else { (CODE64, DATA0) };
    let raw = c.peek(GDT + (code & !7) as u64, 8);
    c.load_segment(regs::CS, code, raw);
    let raw = c.peek(GDT + (data & !7) as u64, 8);
    c.load_segment(regs::SS, data, raw);
    c.set(regs::CPL, level as u64);
    c.set(regs::RSP, if level == 3 { STACK3 + 8 } else { 0x7f08 });
    c.state.set_pc(CODE);
    c
}

fn put_gate64(c: &mut Pc, vector: u64, raw: u64, high: u32) {
    c.put64(IDT + 16 * vector, raw);
    c.put64(IDT + 16 * vector + 8, high as u64);
}

#[test]
fn interrupts_of_long_mode() {
    // Level, IST, stack that is used.
    for (level, ist, top) in [(3, 0, STACK0), (0, 0, 0x7f00), (3, 1, IST1), (0, 1, IST1)] {
        let mut c = long(level);
        put_gate64(&mut c, 0x80, gate(CODE64, HANDLER, 14, 3, ist), 0);
        c.put(CODE, &[0xcd, 0x80]);
        c.put(HANDLER as u64, &[0x48, 0xcf]);
        c.set_flags(0x202);
        let old = (c.selector(regs::CS), c.selector(regs::SS), c.get(regs::RSP));
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.flags()), (HANDLER as u64, 0, 2));
        assert_eq!(c.get(regs::RSP), top - 40);
        assert_eq!(c.stack(top - 40, 5, 8), [CODE + 2, old.0, 0x202, old.2, old.1]);
        assert_eq!(c.selector(regs::SS), if level == 3 { 0 } else { DATA0 as u64 });
        assert_eq!(c.step(), Ok(()));
        assert_eq!((c.state.pc(), c.cpl(), c.flags()), (CODE + 2, level as u64, 0x202));
        assert_eq!((c.selector(regs::CS), c.selector(regs::SS), c.get(regs::RSP)), old);
    }
}

#[test]
fn gates_of_long_mode_are_checked() {
    const INDEX: u32 = 0x30 * 8 + 2;
    let table: &[(u64, u32, Trap)] = &[
        (gate(CODE64, HANDLER, 14, 0, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 6, 3, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 5, 3, 0), 0, gp(INDEX)),
        (gate(CODE64, HANDLER, 14, 3, 0) & !(1 << 47), 0, exception(11, INDEX)),
        (gate(CODE32, HANDLER, 14, 3, 0), 0, gp(CODE32 as u32)),
        (gate(BOTH, HANDLER, 14, 3, 0), 0, gp(BOTH as u32)),
        (gate(CODE64, HANDLER, 14, 3, 0), 0x1_0000, gp(0)),
        (gate(CODE64, HANDLER, 14, 3, 2), 0, exception(12, 0)),
    ];
    for (n, &(raw, high, trap)) in table.iter().enumerate() {
        let mut c = long(3);
        put_gate64(&mut c, 0x30, raw, high);
        c.put(CODE, &[0xcd, 0x30]);
        assert_eq!(c.step(), Err(trap), "row {n}");
        assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (CODE, 3, STACK3 + 8));
    }
}

#[test]
fn iretq_is_checked() {
    // CS, SS, what happens; from ring 0.
    let table: &[(u64, u16, u16, Result<(), Trap>)] = &[
        (0x1234, USER64, USER_DATA, Ok(())),
        (0x1234, USER32, USER_DATA, Ok(())),
        (0x1234, CODE64, DATA0, Ok(())),
        (0x1234, CODE64, 0, Ok(())),
        (0x1234, USER64, 0, Err(gp(0))),
        (0x1234, USER64, 3, Err(gp(0))),
        (0x1234, USER64, DATA0, Err(gp(DATA0 as u32))),
        (0x1234, CODE32, 0, Err(gp(0))),
        (0x1234, BOTH, DATA0, Err(gp(BOTH as u32))),
        (1 << 47, USER64, USER_DATA, Err(gp(0))),
        (1 << 32, USER32, USER_DATA, Err(gp(0))),
    ];
    for &(ip, cs, ss, result) in table {
        let mut c = long(0);
        let sp = c.get(regs::RSP);
        for (n, v) in [ip, cs as u64, 0x202, 0x1_2345_6788, ss as u64].into_iter().enumerate() {
            c.put64(sp + 8 * n as u64, v);
        }
        c.put(CODE, &[0x48, 0xcf]);
        let at = format!("{ip:x} {cs:x} {ss:x}");
        assert_eq!(c.step(), result, "{at}");
        if result.is_err() {
            assert_eq!((c.state.pc(), c.get(regs::RSP), c.cpl()), (CODE, sp, 0), "{at}");
            continue;
        }
        let sp = if cs == USER32 { 0x2345_6788 } else { 0x1_2345_6788 };
        assert_eq!((c.state.pc(), c.get(regs::RSP)), (ip, sp), "{at}");
        let got = (c.selector(regs::CS), c.selector(regs::SS), c.cpl(), c.flags());
        assert_eq!(got, (cs as u64, ss as u64, cs as u64 & 3, 0x202), "{at}");
    }
    let mut c = long(0);
    c.put(CODE, &[0x48, 0xcf]);
    c.set_flags(eflags::NT | 2);
    assert_eq!(c.step(), Err(gp(0)));
}

#[test]
fn far_transfers_of_long_mode() {
    // call far [rip + 0], through the gate
    let mut c = long(3);
    c.put(CODE, &[0xff, 0x1d, 0, 0, 0, 0, 0, 0, 0, 0, GATE64 as u8 | 3, 0]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (HANDLER as u64, 0, STACK0 - 32));
    let frame = [CODE + 6, USER64 as u64, STACK3 + 8, USER_DATA as u64];
    assert_eq!((c.stack(STACK0 - 32, 4, 8), c.selector(regs::SS)), (frame.to_vec(), 0));
    // retfq
    c.put(HANDLER as u64, &[0x48, 0xcb]);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (CODE + 6, 3, STACK3 + 8));
    // A gate to 32-bit code, and tasks.
    let mut c = long(3);
    c.put64(GDT + GATE64 as u64, gate(CODE32, HANDLER, 12, 3, 0));
    c.put(CODE, &[0xff, 0x1d, 0, 0, 0, 0, 0, 0, 0, 0, GATE64 as u8 | 3, 0]);
    assert_eq!(c.step(), Err(gp(CODE32 as u32)));
    c.put(CODE + 10, &[TASK64 as u8, 0]);
    assert_eq!(c.step(), Err(gp(TASK64 as u32)));
}

#[test]
fn fast_system_calls() {
    let star = (0x10u64 | 3) << 48 | (CODE64 as u64) << 32;
    let ready = |model: &str, level| {
        let mut c = long(level);
        if model != "Haswell" {
            let other = Pc::real(model);
            for slot in [regs::CHIP, regs::FEATURES[0], regs::FEATURES[1]] {
                c.set(slot, other.get(slot));
            }
            c.isa = other.isa;
        }
        c.set(regs::STAR, star);
        c.set(regs::LSTAR, HANDLER as u64);
        c.set(regs::SFMASK, 0x4_7700);
        c.put(CODE, &[0x0f, 0x05]);
        c.put(HANDLER as u64, &[0x48, 0x0f, 0x07]);
        c
    };
    let mut c = ready("Haswell", 3);
    c.set_flags(0x4_0646);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.flags()), (HANDLER as u64, 0, 0x46));
    assert_eq!((c.get(regs::RCX), c.get(regs::GPR[11])), (CODE + 2, 0x4_0646));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (CODE64 as u64, DATA0 as u64));
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.flags()), (CODE + 2, 3, 0x4_0646));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (0x23, 0x1b));
    // An address that is not canonical: Intel faults in the kernel.
    for (model, result) in [("Haswell", Err(gp(0))), ("EPYC", Ok(()))] {
        let mut c = ready(model, 0);
        c.put(CODE, &[0x48, 0x0f, 0x07]);
        c.set(regs::RCX, 1 << 47);
        assert_eq!(c.step(), result, "{model}");
    }
    // Not enabled; not privileged.
    let mut c = ready("Haswell", 3);
    c.set(regs::EFER, efer::LMA | efer::LME);
    assert_eq!(c.step(), Err(UD));
    let mut c = ready("Haswell", 3);
    c.state.set_pc(HANDLER as u64);
    assert_eq!(c.step(), Err(gp(0)));
    // A trap flag that SYSRET sets steps behind it.
    let mut c = ready("Haswell", 0);
    c.state.set_pc(HANDLER as u64);
    c.set(regs::RCX, 0x5000);
    c.set(regs::GPR[11], 0x302);
    assert_eq!(c.step(), Err(exception(1, 0)));
    assert_eq!((c.state.pc(), c.cpl()), (0x5000, 3));
    // SYSENTER, SYSEXITQ
    let mut c = ready("Haswell", 3);
    c.put(CODE, &[0x0f, 0x34]);
    assert_eq!(c.step(), Err(gp(0)));
    c.set(regs::SYSENTER_CS, CODE64 as u64);
    c.set(regs::SYSENTER_ESP, 0x1_0000_0000);
    c.set(regs::SYSENTER_EIP, HANDLER as u64);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.cpl(), c.get(regs::RSP)), (HANDLER as u64, 0, 0x1_0000_0000));
    c.put(HANDLER as u64, &[0x48, 0x0f, 0x35]);
    c.set(regs::RDX, 0x1234);
    c.set(regs::RCX, 0x5678);
    assert_eq!(c.step(), Ok(()));
    assert_eq!((c.state.pc(), c.get(regs::RSP), c.cpl()), (0x1234, 0x5678, 3));
    assert_eq!((c.selector(regs::CS), c.selector(regs::SS)), (0x2b, 0x33));
    // AMD processors have no SYSENTER in long mode.
    let mut c = ready("EPYC", 3);
    c.put(CODE, &[0x0f, 0x34]);
    assert_eq!(c.step(), Err(UD));
}

#[test]
fn swapgs_and_null_stacks() {
    let mut c = long(0);
    c.set(regs::SEG_BASE[regs::GS], 1);
    c.set(regs::KERNEL_GS_BASE, 2);
    // swapgs; mov ss, eax
    c.put(CODE, &[0x0f, 0x01, 0xf8, 0x8e, 0xd0]);
    c.run_to(CODE + 5).unwrap();
    assert_eq!((c.get(regs::SEG_BASE[regs::GS]), c.get(regs::KERNEL_GS_BASE)), (2, 1));
    assert_eq!(c.selector(regs::SS), 0);
    let mut c = long(3);
    c.put(CODE, &[0x0f, 0x01, 0xf8]);
    assert_eq!(c.step(), Err(Trap::Privileged));
    // A null selector for SS is for the kernel.
    c.put(CODE, &[0x8e, 0xd0]);
    c.set(regs::RAX, 3);
    assert_eq!(c.step(), Err(gp(0)));
}

#[test]
fn from_real_mode_to_a_user_program_and_back() {
    // machine/boot.s has the program.
    let program = include_bytes!("machine/boot.bin");
    let hlt = |at: &u64| program[(at - 0x7c00) as usize] == 0xf4;
    for model in ["Haswell", "EPYC"] {
        let mut c = Pc::real(model);
        c.map_ram();
        c.put(0x7c00, program);
        let done = (0x7c00..0x7c00 + program.len() as u64).filter(hlt).find(|&at| {
            // Behind sysretq.
            program[(at - 0x7c00) as usize - 3..][..3] == [0x48, 0x0f, 0x07]
        });
        assert_eq!(c.run_to(done.unwrap()), Ok(()), "{model}");
        let log = c.stack(0x6000, 5, 4);
        let want = [0x1111_0001, 0x2222_0001, 0x3333_0001, 0x4444_0001, 0x5555_0001];
        assert_eq!(log, want, "{model}");
        assert_eq!((c.peek(0x6014, 2), c.peek(0x6018, 8) & !0x8d5), (0x33, 0x202), "{model}");
        assert_eq!((c.cpl(), c.get(regs::RBX)), (0, 0x6666_0001), "{model}");
    }
}
