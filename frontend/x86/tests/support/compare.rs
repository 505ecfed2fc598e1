//! What must agree between two runs, and how a difference is shown.

use super::case::*;
use super::world::NON_CANONICAL;
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter, InstructionInfoFactory};

/// Bits and parts that are left out of the comparison.
#[derive(Clone, Copy, Default)]
pub struct Ignore {
    /// EFLAGS bits.
    pub flags: u64,
    /// x87 registers, status and tags.
    pub x87: bool,
}

/// EFLAGS bits that user code sees and that are compared.
const FLAGS: u64 = 0x24_4cd5;

/// The instruction addresses of x87 state are kept by AMD processors only while an exception is pending.
const X87_PARTS: [(&str, usize, usize); 11] = [
    ("fcw", 0, 2),
    ("fsw", 2, 4),
    ("ftw", 4, 5),
    ("st0", 32, 42),
    ("st1", 48, 58),
    ("st2", 64, 74),
    ("st3", 80, 90),
    ("st4", 96, 106),
    ("st5", 112, 122),
    ("st6", 128, 138),
    ("st7", 144, 154),
];

fn is_canonical(va: u64) -> bool {
    ((va << 16) as i64 >> 16) as u64 == va
}

/// Whether the host faulted on an access over the end of a segment of 4 GiB, where we wrap.
fn wraps(case: &Case, host: &Registers) -> bool {
    if case.bits == 64 || !matches!(host.trap, 12 | 13) || host.error != 0 {
        return false;
    }
    let from = (host.rip as usize).wrapping_sub(case.start() as usize);
    let Some(code) = case.code.get(from..) else { return false };
    let insn = Decoder::with_ip(case.bits, code, host.rip, DecoderOptions::NONE).decode();
    // iced takes the stack of 16-bit code for one of 16 bits, and ENTER and LEAVE also look at the frame.
    let near_the_end = |n: usize| (host.gpr[n] as i32).unsigned_abs() < 0x2_0000;
    if insn.is_stack_instruction() && (near_the_end(4) || near_the_end(5)) {
        return true;
    }
    InstructionInfoFactory::new().info(&insn).used_memory().iter().any(|m| {
        let offset = m.virtual_address(0, |r, _, _| {
            Some(match r {
                r if r.is_segment_register() => 0,
                r => host.gpr[r.number()] & (u64::MAX >> (64 - 8 * r.size())),
            })
        });
        // The frame below the stack pointer is reached step by step.
        let reach = (m.memory_size().size() as u64).max(64);
        offset.is_none_or(|at| at as u32 as u64 + reach > 1 << 32)
    })
}

/// Differences between what the host did and what we did; empty when there are none.
pub fn differences(case: &Case, host: &Outcome, ours: &Outcome, ignore: Ignore) -> Vec<String> {
    let (h, o) = (&host.regs, &ours.regs);
    let mut out = Vec::new();
    let branch_nowhere = case.bits == 64 && h.trap == 13 && !is_canonical(o.rip);
    // An access over the end of the lower half of the address space finds no memory in its first part, either.
    let last_page = 0x7fff_ffff_f000..0x8000_0000_0000u64;
    let edge = case.bits == 64
        && matches!(h.trap, 12 | 13)
        && o.trap == 14
        && last_page.contains(&o.address);
    // Which of two faults of one access comes first.
    let unaligned_nowhere = matches!((h.trap, o.trap), (12 | 13, 17) | (17, 12 | 13));
    if branch_nowhere || unaligned_nowhere || edge || wraps(case, h) {
        return out;
    }
    let mut check = |name: &str, a: u64, b: u64| {
        if a != b {
            out.push(format!("{name}: host {a:#x}, we {b:#x}"));
        }
    };
    if !(o.trap == NON_CANONICAL && matches!(h.trap, 12 | 13)) {
        check("trap", h.trap, o.trap);
    }
    if matches!(h.trap, 10..=13) && h.trap == o.trap {
        check("error code", h.error, o.error);
    }
    if h.trap == 19 && o.trap == 19 {
        check("si_code", h.si_code, o.si_code);
    }
    // The host finds out that it may not write before it reads what lies behind.
    let end = (CONST + CONST_LEN as u32) as u64;
    let reads_first = (end - 64..end).contains(&h.address) && o.address == end;
    if h.trap == 14 && o.trap == 14 && !reads_first {
        check("fault address", h.address, o.address);
    }
    let mask = if case.bits == 64 { u64::MAX } else { 0xffff_ffff };
    let flags = FLAGS & !ignore.flags;
    check("cs", h.cs, o.cs);
    check("rip", h.rip & mask, o.rip & mask);
    check("rflags", h.rflags & flags, o.rflags & flags);
    for (n, name) in NAMES.iter().enumerate().take(if case.bits == 64 { 16 } else { 8 }) {
        check(name, h.gpr[n] & mask, o.gpr[n] & mask);
    }
    if case.bits == 64 {
        check("fs_base", h.fs_base, o.fs_base);
        check("gs_base", h.gs_base, o.gs_base);
    }
    check("mxcsr", h.mxcsr() as u64, o.mxcsr() as u64);
    if !ignore.x87 {
        for (name, from, to) in X87_PARTS {
            if h.xsave[from..to] != o.xsave[from..to] {
                let text = |r: &Registers| {
                    r.xsave[from..to].iter().rev().map(|b| format!("{b:02x}")).collect::<String>()
                };
                out.push(format!("{name}: host {}, we {}", text(h), text(o)));
            }
        }
    }
    for n in 0..16 {
        if h.xmm(n) != o.xmm(n) {
            out.push(format!("xmm{n}: host {:#034x}, we {:#034x}", h.xmm(n), o.xmm(n)));
        }
        if h.ymmh(n) != o.ymmh(n) {
            out.push(format!("ymm{n}h: host {:#034x}, we {:#034x}", h.ymmh(n), o.ymmh(n)));
        }
    }
    for (start, a, b) in [(DATA, &host.data[..], &ours.data[..]), (STACK, &host.stack, &ours.stack)]
    {
        if a != b {
            for at in (0..a.len()).filter(|&n| a[n] != b[n]).take(8) {
                let address = start as usize + at;
                out.push(format!("[{address:#x}]: host {:#04x}, we {:#04x}", a[at], b[at]));
            }
        }
    }
    out
}

const NAMES: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// The case in words: code and the registers before.
pub fn describe(case: &Case) -> String {
    let mut text = format!("{} bits\n", case.bits);
    let code = &case.code[..case.code_len as usize];
    let ip = case.start() as u64;
    for insn in Decoder::with_ip(case.bits, code, ip, DecoderOptions::NONE).iter() {
        let mut line = String::new();
        GasFormatter::new().format(&insn, &mut line);
        let at = (insn.ip() - ip) as usize;
        let bytes = &code[at..(at + insn.len()).min(code.len())];
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        text += &format!("  {:#x}: {hex:24} {line}  ({:?})\n", insn.ip(), insn.code());
    }
    for (n, name) in NAMES.iter().enumerate() {
        text += &format!("  {name:4}{:#018x}", case.regs.gpr[n]);
        if n % 4 == 3 {
            text += "\n";
        }
    }
    for p in &case.patches[..case.patch_count as usize] {
        text += &format!("  [{:#x}] = {:02x?}\n", p.address, &p.bytes[..p.len as usize]);
    }
    text + &format!("  rflags {:#x} mxcsr {:#x}\n", case.regs.rflags, case.regs.mxcsr())
}
