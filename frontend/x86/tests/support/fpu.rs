//! Random x87 states and operands, and what may differ from the host.

use super::case::*;
use super::generate::Plan;
use super::rng::Rng;
use iced_x86::{Instruction, MemorySize, Mnemonic, OpKind, Register};

/// An 80-bit datum, of every kind of encoding.
pub fn extended(rng: &mut Rng) -> (u64, u16) {
    let sign = (rng.below(2) as u16) << 15;
    let fraction = match rng.below(5) {
        0 => 0,
        1 => 1 << rng.below(63),
        2 => (1 << 63) - 1,
        3 => rng.word() >> 1,
        _ => rng.next() >> 1,
    };
    let one = 1 << 63;
    let (significand, exponent) = match rng.below(24) {
        0 | 1 => (0, 0),
        // Denormal, pseudo-denormal, unnormal, pseudo-infinity or -NaN.
        2 => (fraction | 1, 0),
        3 => (fraction | one, 0),
        4 => (fraction, 1 + rng.below(0x7ffe) as u16),
        5 => (fraction, 0x7fff),
        6 | 7 => (one, 0x7fff),
        // NaNs, quiet and signalling.
        8 => (fraction | 3 << 62, 0x7fff),
        9 => (fraction & !(1 << 62) | one | 1, 0x7fff),
        10 => (fraction | one, 1),
        11 => (fraction | one, 0x7ffe),
        12 => (fraction | one, 0x7fff - 1 - rng.below(80) as u16),
        13 => (fraction | one, 1 + rng.below(80) as u16),
        14 => (fraction | one, rng.below(0x7ffe) as u16 + 1),
        // Integers.
        15 | 16 => {
            let v = rng.below(1 << 20) + 1;
            let n = v.leading_zeros();
            (v << n, 0x3fff + 63 - n as u16)
        }
        17 => (fraction | one, 0x3fff + rng.below(70) as u16),
        _ => (fraction | one, 0x3ff0 + rng.below(32) as u16),
    };
    (significand, exponent | sign)
}

/// How wild a state is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Exceptions are masked and the stack is in order.
    Calm,
    /// Anything.
    Wild,
}

/// Fills in the x87 part of a case.
pub fn randomize(r: &mut Registers, rng: &mut Rng, mood: Mood) {
    let modes = (rng.next() as u16) & 0x1f00;
    let mut fcw = 0x7f | if rng.chance(3) { modes } else { 0x300 };
    let mut fsw = rng.next() as u16 & 0x4700;
    let top = rng.below(8) as u16;
    let mut tag = 0xffu8;
    if rng.chance(2) {
        let depth = rng.below(9);
        tag = (0..depth).fold(0, |t, i| t | 1 << ((top as u64 + i) & 7));
    }
    if mood == Mood::Calm {
        // Room above st(2), so that nothing overflows at once.
        tag = (0..6).fold(0, |t, i| t | 1 << ((top + i) & 7));
    }
    if rng.chance(3) {
        fsw |= rng.next() as u16 & 0x7f;
    }
    if mood == Mood::Wild {
        if rng.chance(3) {
            tag = rng.next() as u8;
        }
        if rng.chance(3) {
            let masks = match rng.below(3) {
                0 => !(1 << rng.below(6)),
                1 => 0,
                _ => rng.next() as u16,
            };
            fcw &= masks | !0x3f;
            if !rng.chance(8) {
                // Nothing pending.
                fsw &= fcw | !0x3f;
            }
        }
    }
    if fsw & !fcw & 0x3f != 0 {
        fsw |= 0x8080;
    }
    r.set_u16(0, fcw);
    r.set_u16(2, fsw | top << 11);
    r.xsave[4] = tag;
    for i in 0..8 {
        let (significand, exponent) = extended(rng);
        r.set_st(i, significand, exponent);
    }
    // Related operands, for cancellation and equality.
    if rng.chance(4) {
        let (s, e) = r.st(0);
        let n = 1 + rng.below(3) as usize;
        r.set_st(n, s ^ (rng.below(3)), e ^ (rng.below(2) as u16) << 15);
    }
}

/// Linear address of the memory operand with the case's initial registers.
pub fn effective(case: &Case, insn: &Instruction) -> Option<u32> {
    let operand = (0..insn.op_count()).find(|&n| insn.op_kind(n) == OpKind::Memory)?;
    insn.virtual_address(operand, 0, |r, _, _| {
        Some(match r {
            Register::FS if case.bits == 64 => case.regs.fs_base,
            Register::GS => GS_BASE as u64,
            _ if r.is_segment_register() => 0,
            _ => {
                let n = r.full_register() as usize - Register::RAX as usize;
                let v = case.regs.gpr[n];
                if r.size() == 8 { v } else { v & ((1 << (8 * r.size())) - 1) }
            }
        })
    })
    .map(|va| va as u32)
}

/// Puts a fitting datum where the instruction reads it.
pub fn patch_operand(plan: &mut Plan<'_>, insn: &Instruction) {
    let Some(at) = effective(&plan.case, insn) else { return };
    let rng = &mut *plan.rng;
    let mut patches: Vec<(u32, Vec<u8>)> = Vec::new();
    match insn.memory_size() {
        MemorySize::Float32 => {
            let v = if rng.chance(2) {
                rng.single() as u32
            } else {
                (rng.range(-99, 99) as f32).to_bits()
            };
            patches.push((0, v.to_le_bytes().to_vec()));
        }
        MemorySize::Float64 => {
            let v =
                if rng.chance(2) { rng.double() } else { (rng.range(-99, 99) as f64).to_bits() };
            patches.push((0, v.to_le_bytes().to_vec()));
        }
        MemorySize::Float80 => {
            let (s, e) = extended(rng);
            patches.push((0, [&s.to_le_bytes()[..], &e.to_le_bytes()].concat()));
        }
        MemorySize::Bcd if !rng.chance(4) => {
            let mut v: Vec<u8> =
                (0..9).map(|_| (rng.below(10) | rng.below(10) << 4) as u8).collect();
            v.push((rng.below(2) as u8) << 7);
            patches.push((0, v));
        }
        MemorySize::FpuEnv14
        | MemorySize::FpuEnv28
        | MemorySize::FpuState94
        | MemorySize::FpuState108 => {
            let step =
                if matches!(insn.memory_size(), MemorySize::FpuEnv14 | MemorySize::FpuState94) {
                    2
                } else {
                    4
                };
            let fcw = (rng.next() as u16 | 0x3f)
                & if rng.chance(3) { 0xffc0 | rng.next() as u16 } else { 0xffff };
            patches.push((0, fcw.to_le_bytes().to_vec()));
            patches.push((step, (rng.next() as u16).to_le_bytes().to_vec()));
        }
        _ => {}
    }
    match insn.mnemonic() {
        Mnemonic::Fldcw => {
            let masks = if rng.chance(3) { rng.next() as u16 } else { 0x3f };
            let fcw = rng.next() as u16 & 0xffc0 | masks & 0x3f;
            patches.push((0, fcw.to_le_bytes().to_vec()));
        }
        Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => {
            let masks = if rng.chance(3) { rng.next() as u16 } else { 0x3f };
            let fcw = rng.next() as u16 & 0xffc0 | masks & 0x3f;
            patches.push((0, fcw.to_le_bytes().to_vec()));
            let mxcsr =
                if rng.chance(8) { rng.next() as u32 } else { 0x1f80 | rng.next() as u32 & 0xe03f };
            // Software may find bit 17, which only AMD's processors have.
            patches.push((24, (mxcsr & !0x2_0000).to_le_bytes().to_vec()));
        }
        _ => {}
    }
    if matches!(insn.mnemonic(), Mnemonic::Xrstor | Mnemonic::Xrstor64) {
        let mut present = rng.below(8);
        let mut layout = if rng.chance(3) { 1 << 63 | rng.below(8) } else { 0 };
        if rng.chance(12) {
            layout = rng.word();
        }
        if layout != 0 && !rng.chance(6) {
            present &= layout;
        }
        let header = [present.to_le_bytes(), layout.to_le_bytes()].concat();
        patches.push((512, header));
        for n in 1..4 {
            let odd = if rng.chance(20) { 1 } else { 0 };
            patches.push((512 + 16 * n, vec![odd; 16]));
        }
    }
    for (offset, bytes) in patches {
        let start = at.wrapping_add(offset);
        let inside = start >= DATA && start as usize + bytes.len() <= DATA as usize + DATA_LEN;
        if inside && (plan.case.patch_count as usize) < PATCHES {
            plan.case.patch(start, &bytes);
        }
    }
}

/// Position on the number line in units in the last place.
fn place((significand, sign_exp): (u64, u16)) -> i128 {
    let magnitude = (sign_exp as i128 & 0x7fff) << 63 | (significand as i128 & (i64::MAX as i128));
    if sign_exp >> 15 != 0 { -magnitude } else { magnitude }
}

/// Transcendental functions may differ by a unit in the last place, and then in C1.
pub fn is_approximate(m: Mnemonic) -> bool {
    use Mnemonic::*;
    matches!(m, F2xm1 | Fsin | Fcos | Fsincos | Fptan | Fpatan | Fyl2x | Fyl2xp1)
}

/// Takes over what may differ.
pub fn forgive(host: &Outcome, ours: &mut Outcome) {
    // C1; and underflow where one result is the smallest normal number and the other tiny.
    let mut free = 0x200;
    for i in 0..8 {
        let (h, o) = (host.regs.st(i), ours.regs.st(i));
        if h != o && (place(h) - place(o)).abs() <= 1 {
            ours.regs.set_st(i, h.0, h.1);
            if (h.1 & 0x7fff).max(o.1 & 0x7fff) == 1 {
                free |= 0x10;
            }
        }
    }
    let fsw = ours.regs.fsw() & !free | host.regs.fsw() & free;
    ours.regs.set_u16(2, fsw);
}

/// Makes the significands values that MMX instructions care about.
pub fn randomize_mmx(r: &mut Registers, rng: &mut Rng) {
    for i in 0..8 {
        let (_, exponent) = r.st(i);
        let v = if rng.chance(3) { rng.below(80) } else { rng.word() };
        r.set_st(i, v, exponent);
    }
}
