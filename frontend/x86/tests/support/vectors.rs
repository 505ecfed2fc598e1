//! Cases for vector instructions: float patterns in registers and memory, all modes of MXCSR, gathers.

use super::case::{DATA, DATA_LEN};
use super::generate::Plan;
use super::native;
use super::rng::Rng;
use iced_x86::{
    Code, Encoder, Instruction, MemoryOperand, Mnemonic, OpCodeOperandKind, OpKind, Register,
};
use tulk_x86::decode::Which;
use tulk_x86::{Mode, X86, sse};

pub fn isa(bits: u32) -> X86 {
    let mode = if bits == 64 { Mode::X86_64 } else { Mode::I386 };
    X86::new(mode, native::model())
}

pub fn codes(isa: &X86, bits: u32) -> Vec<Code> {
    let ours = |c: Code| {
        sse::ROWS.iter().any(|r| match r.which {
            Which::Code(code) => code == c,
            Which::Mnemonic(m) => m == c.mnemonic(),
        })
    };
    Code::values()
        .filter(|&c| {
            isa.accepts(c)
                && c.op_code().is_available_in_mode(bits)
                && (bits != 64 || c.op_code().intel_decoder64())
                && ours(c)
        })
        .collect()
}

/// Floats of one width, or anything.
fn lanes(rng: &mut Rng, kind: u64) -> u128 {
    match kind {
        0 => (0..4).fold(0, |v, n| v | (rng.single() as u128) << (32 * n)),
        1 => rng.double() as u128 | (rng.double() as u128) << 64,
        // Denormals and their neighbours.
        2 => (0..4).fold(0, |v, n| {
            let bits = rng.next() as u32 & 0x80ff_ffff & !(0xff << rng.below(24));
            v | (bits as u128) << (32 * n)
        }),
        3 => {
            let one =
                |rng: &mut Rng| rng.next() & 0x801f_ffff_ffff_ffff & !(0xffff << rng.below(52));
            one(rng) as u128 | (one(rng) as u128) << 64
        }
        // Near the ends of integers.
        4 => (0..4).fold(0, |v, n| {
            let exponent = 126 + rng.below(40) as u32;
            v | ((rng.next() as u32 & 0x807f_ffff | exponent << 23) as u128) << (32 * n)
        }),
        5 => {
            let one =
                |rng: &mut Rng| rng.next() & 0x800f_ffff_ffff_ffff | (1022 + rng.below(70)) << 52;
            one(rng) as u128 | (one(rng) as u128) << 64
        }
        _ => rng.word() as u128 | (rng.word() as u128) << 64,
    }
}

/// A case whose vectors and modes suit these instructions.
pub fn plan(bits: u32, rng: &mut Rng) -> Plan<'_> {
    let mut plan = Plan::with_stack(bits, rng, false);
    let kind = plan.rng.below(8);
    for n in 0..if bits == 64 { 16 } else { 8 } {
        let kind = if plan.rng.chance(8) { plan.rng.below(8) } else { kind };
        let (low, high) = (lanes(plan.rng, kind), lanes(plan.rng, kind));
        plan.case.regs.set_xmm(n, low);
        plan.case.regs.set_ymmh(n, high);
    }
    let mut mxcsr = 0x1f80;
    if plan.rng.chance(2) {
        mxcsr |= (plan.rng.below(4) as u32) << 13;
    }
    if plan.rng.chance(4) {
        mxcsr |= [1 << 6, 1 << 15, 1 << 6 | 1 << 15][plan.rng.below(3) as usize];
    }
    if plan.rng.chance(4) {
        mxcsr ^= (plan.rng.next() as u32 & 0x3f) << 7;
    }
    if plan.rng.chance(4) {
        mxcsr |= plan.rng.next() as u32 & 0x3f;
    }
    plan.case.regs.set_mxcsr(mxcsr);
    plan
}

/// Gives the memory operand of the only instruction a sensible value.
pub fn fill_memory(plan: &mut Plan<'_>) {
    let insn = plan.insns[0];
    if !insn.op_kinds().any(|k| k == OpKind::Memory) || insn.is_vsib() {
        return;
    }
    let regs = plan.case.regs;
    let address = insn.virtual_address(0, 0, |r, _, _| {
        if r.is_segment_register() {
            let base = match r {
                iced_x86::Register::FS if plan.case.bits == 64 => super::case::FS_BASE,
                iced_x86::Register::GS if plan.case.bits == 64 => super::case::GS_BASE,
                iced_x86::Register::GS => super::case::GS_BASE,
                _ => 0,
            };
            return Some(base as u64);
        }
        let whole = regs.gpr[r.full_register().number()];
        Some(if r.size() == 8 { whole } else { whole & ((1 << (8 * r.size())) - 1) })
    });
    let address = address.or_else(|| insn.virtual_address(insn.op_count() - 1, 0, |_, _, _| None));
    let Some(address) = address else { return };
    let kind = plan.rng.below(7);
    for half in 0..2 {
        let at = address.wrapping_add(16 * half);
        if at >= DATA as u64 && at + 16 <= DATA as u64 + DATA_LEN as u64 {
            let mut v = lanes(plan.rng, kind);
            if matches!(insn.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr) {
                // Mostly bits that exist, and not AMD's misaligned mode.
                let valid = if plan.rng.chance(8) { !(1 << 17) } else { 0xffff };
                v = plan.rng.next() as u128 & valid;
            }
            plan.case.patch(at as u32, &v.to_le_bytes());
        }
    }
}

/// Appends a gather: mostly from the data region, sometimes from beyond it or with equal registers.
pub fn push_gather(plan: &mut Plan<'_>, code: Code) -> bool {
    let kinds = code.op_code().op_kinds();
    let vector = |n: usize, wide: bool| {
        let first = if wide { Register::YMM0 } else { Register::XMM0 };
        Register::values().nth(first as usize + n).unwrap()
    };
    if kinds.len() < 2 {
        return false;
    }
    let wide_data = kinds[0] == OpCodeOperandKind::ymm_reg;
    use OpCodeOperandKind::{mem_vsib32x, mem_vsib32y, mem_vsib64x, mem_vsib64y};
    let (wide_index, long_index) = match kinds[1] {
        mem_vsib32x => (false, false),
        mem_vsib32y => (true, false),
        mem_vsib64x => (false, true),
        mem_vsib64y => (true, true),
        _ => return false,
    };
    let count = if plan.case.bits == 64 { 16 } else { 8 };
    let rng = &mut *plan.rng;
    let mut numbers: Vec<usize> = (0..count).collect();
    for n in 0..3 {
        let other = n + rng.below((count - n) as u64) as usize;
        numbers.swap(n, other);
    }
    if rng.chance(20) {
        numbers[2] = numbers[rng.below(2) as usize];
    }
    let [dst, index, mask] = [numbers[0], numbers[1], numbers[2]];
    let scale = 1 << rng.below(4);
    for half in 0..2 {
        let mut v = 0u128;
        for n in 0..4 {
            let far = rng.chance(12);
            let x = (rng.below(if far { 8000 } else { 4000 } / scale as u64) as i64
                - 2000 / scale as i64) as u64;
            v |= if long_index {
                if n < 2 { (x as u128) << (64 * n) } else { 0 }
            } else {
                (x as u32 as u128) << (32 * n)
            };
        }
        let m = match rng.below(3) {
            0 => u128::MAX,
            _ => rng.next() as u128 | (rng.next() as u128) << 64,
        };
        if half == 0 {
            plan.case.regs.set_xmm(index, v);
            plan.case.regs.set_xmm(mask, m);
        } else {
            plan.case.regs.set_ymmh(index, v);
            plan.case.regs.set_ymmh(mask, m);
        }
    }
    let base = 5 + 2 * rng.below(2) as usize;
    let displacement = rng.range(-100, 100);
    let at = DATA as i64 + rng.below(6000) as i64 - displacement;
    let short = plan.case.bits == 32 || rng.chance(6);
    let upper = if short && plan.case.bits == 64 { rng.next() << 32 } else { 0 };
    plan.case.regs.gpr[base] = at as u64 | upper;
    let memory = MemoryOperand::new(
        super::generate::gpr(base, if short { 4 } else { 8 }),
        vector(index, wide_index),
        scale as u32,
        displacement,
        1,
        false,
        Register::None,
    );
    let insn = Instruction::with3(code, vector(dst, wide_data), memory, vector(mask, wide_data));
    let mut encoder = Encoder::new(plan.case.bits);
    let Ok(insn) = insn else { return false };
    if encoder.encode(&insn, plan.ip() as u64).is_err() {
        return false;
    }
    plan.push_bytes(&encoder.take_buffer());
    true
}

/// A masked store through CS faults on a processor only if a lane is stored; we check the segment before.
pub fn unlike(insn: &Instruction) -> bool {
    insn.op0_kind() == OpKind::Memory
        && insn.op2_kind() == OpKind::Register
        && insn.memory_segment() == Register::CS
}

/// One random instruction of this code; `None` when the attempt did not work out.
pub fn single(code: Code, bits: u32, rng: &mut Rng) -> Option<super::case::Case> {
    let mut plan = plan(bits, rng);
    if push_gather(&mut plan, code) {
        return Some(plan.case);
    }
    let insn = plan.push(code)?;
    if unlike(&insn) {
        return None;
    }
    fill_memory(&mut plan);
    Some(plan.case)
}

/// A few random instructions and their codes.
pub fn sequence(
    all: &[Code],
    bits: u32,
    registers_only: bool,
    rng: &mut Rng,
) -> Option<(super::case::Case, Vec<Code>)> {
    let length = 2 + rng.below(9) as usize;
    let mut plan = plan(bits, rng);
    plan.registers_only = registers_only;
    for _ in 0..4 * length {
        let code = *plan.rng.pick(all);
        // What it loads must be known.
        if matches!(code.mnemonic(), Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr) {
            continue;
        }
        let before = plan.case.code_len;
        if plan.push(code).is_some_and(|i| unlike(&i)) {
            plan.case.code_len = before;
            plan.case.code[before as usize..].fill(0xcc);
            plan.insns.pop();
        }
        if plan.insns.len() == length {
            break;
        }
    }
    let codes: Vec<Code> = plan.insns.iter().map(|i| i.code()).collect();
    (!codes.is_empty()).then_some((plan.case, codes))
}

/// Longer runs behind `TULK_SOAK=yes`.
pub fn effort() -> usize {
    if std::env::var("TULK_SOAK").is_ok_and(|v| v == "yes") { 20 } else { 1 }
}

/// The vector registers before, for a failure's description.
pub fn show(case: &super::case::Case) -> String {
    (0..16).fold(String::new(), |text, n| {
        let (x, y) = (case.regs.xmm(n), case.regs.ymmh(n));
        text + &format!("  v{n:<3}{y:032x}_{x:032x}\n")
    })
}

/// Shows one failure of each kind and fails if there are any.
pub fn judge(failures: Vec<(Code, String)>) {
    let mut by_code = std::collections::BTreeMap::<String, Vec<String>>::new();
    for (code, text) in failures {
        by_code.entry(format!("{code:?}")).or_default().push(text);
    }
    for (code, texts) in by_code.iter() {
        println!("== {code}: {} failures\n{}", texts.len(), texts[0]);
    }
    assert!(by_code.is_empty(), "{} codes differ: {:?}", by_code.len(), by_code.keys());
}
