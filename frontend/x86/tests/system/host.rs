//! What programs at CPL 3 see of segments and flags, compared with the host processor under Linux, whose GDT has 32-bit
//! code, data and 64-bit code at 0x20, 0x28 and 0x30.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use crate::machine::{Pc, segment};
use std::arch::asm;
use tulk_x86::regs::{self, eflags};

const GDT: u64 = 0x1000;
const CODE: u64 = 0x1_0000;

/// 64-bit code at CPL 3 with the segments of Linux.
fn user() -> Pc {
    let mut c = Pc::real("Haswell");
    c.put64(GDT + 0x20, segment(0, 0xf_ffff, 0xc0fb));
    c.put64(GDT + 0x28, segment(0, 0xf_ffff, 0xc0f3));
    c.put64(GDT + 0x30, segment(0, 0xf_ffff, 0xa0fb));
    c.protect(true);
    c.set(regs::GDTR_BASE, GDT);
    c.set(regs::GDTR_LIMIT, 0x37);
    c.load_segment(regs::CS, 0x33, segment(0, 0xf_ffff, 0xa0fb));
    c.load_segment(regs::SS, 0x2b, segment(0, 0xf_ffff, 0xc0f3));
    c.set(regs::CPL, 3);
    c.state.set_pc(CODE);
    c
}

#[test]
fn popf_changes_what_it_changes_on_the_host() {
    // Without TF, which would trap.
    let all = 0x8d5 | eflags::IF | eflags::DF | eflags::IOPL | eflags::NT | eflags::RF;
    let all = all | eflags::VM | eflags::AC | eflags::VIF | eflags::VIP | eflags::ID;
    let singles = (0..22).map(|n| 1 << n).filter(|bit| bit & eflags::TF == 0);
    for value in singles.chain([0, all, all & !eflags::IF]) {
        let value = value as u64;
        let mut host: u64;
        // SAFETY: the flags are put back before anything else runs, and only the red zone's far side is used.
        unsafe {
            asm!(
                "lea rsp, [rsp - 128]",
                "pushfq",
                "push {value}",
                "popfq",
                "pushfq",
                "pop {host}",
                "popfq",
                "lea rsp, [rsp + 128]",
                value = in(reg) value,
                host = out(reg) host,
            );
        }
        let mut c = user();
        // Interrupts are enabled; popfq; pushfq
        c.set_flags(0x202);
        c.set(regs::RSP, 0x8000);
        c.put64(0x8000, value);
        c.put(CODE, &[0x9d, 0x9c]);
        c.run_to(CODE + 2).unwrap();
        assert_eq!(c.peek(0x8000, 8), host, "{value:#x}");
    }
}

#[test]
fn selectors_answer_as_on_the_host() {
    for selector in [0, 3, 0x20, 0x23, 0x28, 0x2b, 0x30, 0x33, 0x10, 0x1b] {
        for (n, opcode) in [[0x0f, 2, 0xd8], [0x0f, 3, 0xd8], [0x0f, 0, 0xe0], [0x0f, 0, 0xe8]]
            .into_iter()
            .enumerate()
        {
            let (mut value, mut zf) = (0x1234_5678u64, 0u8);
            // SAFETY: these instructions only ask.
            unsafe {
                match n {
                    0 => asm!("lar {v:e}, {s:e}", "setz {z}", v = inout(reg) value,
                              s = in(reg) selector, z = out(reg_byte) zf),
                    1 => asm!("lsl {v:e}, {s:e}", "setz {z}", v = inout(reg) value,
                              s = in(reg) selector, z = out(reg_byte) zf),
                    2 => asm!("verr {s:x}", "setz {z}", s = in(reg) selector, z = out(reg_byte) zf),
                    _ => asm!("verw {s:x}", "setz {z}", s = in(reg) selector, z = out(reg_byte) zf),
                }
            }
            let mut c = user();
            c.put(CODE, &opcode);
            c.set(regs::RAX, selector);
            c.set(regs::RBX, 0x1234_5678);
            assert_eq!(c.step(), Ok(()));
            let got = (c.get(regs::RBX), (c.flags() & 0x40 != 0) as u8);
            // The kernel's own segments (0x10, 0x18) are refused by their level, here by the missing descriptors.
            assert_eq!(got, (value, zf), "{opcode:x?} {selector:#x}");
        }
    }
}
