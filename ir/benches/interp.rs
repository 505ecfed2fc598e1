//! How long a step takes, and the translation of a unit: `cargo bench -p tulk-ir`. The best of several rounds counts.

use std::hint::black_box;
use std::time::Instant;
use tulk_base::*;
use tulk_ir::interp::{Program, Scratch, run};
use tulk_ir::*;

/// Guest memory as a table.
struct Flat(Vec<u64>);

impl GuestMem for Flat {
    #[inline(always)]
    fn load(&mut self, va: GuestVa, _: MemOp) -> Result<u64, MemFault> {
        let fault = MemFault { va, kind: AccessKind::Read, cause: FaultCause::Unmapped };
        self.0.get(va.0 as usize / 8).copied().ok_or(fault)
    }
    #[inline(always)]
    fn store(&mut self, va: GuestVa, _: MemOp, value: u64) -> Result<(), MemFault> {
        let fault = MemFault { va, kind: AccessKind::Write, cause: FaultCause::Unmapped };
        *self.0.get_mut(va.0 as usize / 8).ok_or(fault)? = value;
        Ok(())
    }
    fn load128(&mut self, va: GuestVa, _: MemOp) -> Result<u128, MemFault> {
        Ok(self.0[va.0 as usize / 8] as u128)
    }
    fn store128(&mut self, _: GuestVa, _: MemOp, _: u128) -> Result<(), MemFault> {
        Ok(())
    }
    fn rmw(&mut self, _: GuestVa, _: MemOp, _: RmwOp, _: u64) -> Result<u64, MemFault> {
        Ok(0)
    }
    fn cas(&mut self, _: GuestVa, _: MemOp, _: u128, _: u128) -> Result<u128, MemFault> {
        Ok(0)
    }
}

impl FpEnv for Flat {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(0)
    }
    fn set_fp_flags(&mut self, _: FpFlags) {}
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {}
}

impl HelperEnv for Flat {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, _: &mut [u8]) {}
}

struct Regs {
    layout: RegLayout,
    x: Vec<Slot>,
    nzcv: Slot,
    d: Vec<Slot>,
    v: Vec<Slot>,
}

impl Regs {
    fn new() -> Regs {
        let mut layout = RegLayout::new();
        let x = (0..31).map(|i| layout.add(format!("x{i}"), Type::I64, None)).collect();
        let nzcv = layout.add("nzcv", Type::I32, None);
        let d = (0..8).map(|i| layout.add(format!("d{i}"), Type::F64, None)).collect();
        let v = (0..32).map(|i| layout.add(format!("v{i}"), Type::V128, None)).collect();
        Regs { layout, x, nzcv, d, v }
    }
}

type Write = fn(&Regs, &mut Builder<'_>, usize);

fn alu(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.x[i % 7]), b.get(r.x[(i * 3 + 1) % 11]));
    let v = match i % 5 {
        0 => b.add(x, y),
        1 => b.xor_imm(x, 0x1234),
        2 => b.sub(y, x),
        3 => b.shl_imm(x, 3),
        _ => b.or(x, y),
    };
    b.set(r.x[(i * 5 + 2) % 13], v);
}
fn alu32(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.x[i % 7]), b.get(r.x[(i * 3 + 1) % 11]));
    let (x, y) = (b.trunc(Type::I32, x), b.trunc(Type::I32, y));
    let v = if i.is_multiple_of(2) { b.add(x, y) } else { b.and(x, y) };
    let v = b.zext(Type::I64, v);
    b.set(r.x[(i * 5 + 2) % 13], v);
}
fn subs(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let x = b.get(r.x[i % 7]);
    let k = b.iconst(Type::I64, 1);
    let (v, f) = (b.sub(x, k), b.sub_nzcv(x, k));
    b.set(r.x[(i + 1) % 7], v);
    b.set(r.nzcv, f);
    // Keeps the flags alive.
    let base = b.get(r.x[20]);
    let old = b.load(Type::I64, base, 64, MemOp::U64);
    b.set(r.x[19], old);
}
fn memory(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let base = b.get(r.x[20]);
    if i.is_multiple_of(3) {
        let v = b.get(r.x[i % 7]);
        b.store(base, 8 * (i as i64 % 16), MemOp::U64, v);
    } else {
        let v = b.load(Type::I64, base, 8 * (i as i64 % 16), MemOp::U64);
        b.set(r.x[i % 7], v);
    }
}
fn float(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.d[i % 3]), b.get(r.d[3 + i % 2]));
    let v = match i % 3 {
        0 => b.fadd(x, y),
        1 => b.fmul(x, y),
        _ => b.fsub(x, y),
    };
    b.set(r.d[i % 3], v);
}
fn vector(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.v[i % 7]), b.get(r.v[(i * 3 + 1) % 11]));
    let v = match i % 3 {
        0 => b.vadd(Shape::I32x4, x, y),
        1 => b.vxor(x, y),
        _ => b.vadd(Shape::I8x16, x, y),
    };
    b.set(r.v[(i * 5 + 2) % 13], v);
}
fn vector_float(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.v[i % 7]), b.get(r.v[(i * 3 + 1) % 11]));
    let v =
        if i.is_multiple_of(2) { b.vfadd(Shape::F32x4, x, y) } else { b.vfmul(Shape::F64x2, x, y) };
    b.set(r.v[(i * 5 + 2) % 13], v);
}
fn general(r: &Regs, b: &mut Builder<'_>, i: usize) {
    let (x, y) = (b.get(r.v[i % 7]), b.get(r.v[(i * 3 + 1) % 11]));
    let v = b.vmax_s(Shape::I16x8, x, y);
    b.set(r.v[(i * 5 + 2) % 13], v);
}

fn unit(r: &Regs, write: Write, n: usize) -> Unit {
    let mut unit = Unit::new(0x1000, 0, FpRule::Arm);
    let mut b = Builder::new(&mut unit, &r.layout, &[]);
    for i in 0..n {
        b.insn(0x1000 + 4 * i as u64, 4);
        write(r, &mut b, i);
    }
    let (x, y) = (b.get(r.x[25]), b.get(r.x[26]));
    let cond = b.icmp(IntCc::Eq, x, y);
    let (yes, no) = (b.label(), b.label());
    b.brif(cond, yes, no);
    b.place(yes);
    b.exit(0x3000);
    b.place(no);
    b.exit(0x4000);
    b.finish();
    unit
}

/// The best of some rounds, in nanoseconds per call.
fn best(calls: u32, mut f: impl FnMut()) -> f64 {
    (0..7)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..calls {
                f();
            }
            start.elapsed().as_nanos() as f64 / calls as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let r = Regs::new();
    let mut env = Flat(vec![0; 1024]);
    let mut state = CpuState::new();
    let mut scratch = Scratch::default();
    state.set(r.layout.cell(r.x[20]), 256);
    println!(
        "{:14} {:>7} {:>7} {:>12} {:>14} {:>16}",
        "", "guest", "steps", "ns/step", "ns/guest insn", "translate/insn"
    );
    let kernels: [(&str, Write); 8] = [
        ("alu64", alu),
        ("alu32", alu32),
        ("subs+ldr", subs),
        ("memory", memory),
        ("float", float),
        ("vector", vector),
        ("vector float", vector_float),
        ("general", general),
    ];
    for (name, write) in kernels {
        for n in [5, 60] {
            let unit = unit(&r, write, n);
            let p = Program::with_scratch(&unit, &r.layout, &[], &mut scratch);
            for (i, d) in r.d.iter().enumerate() {
                state.set(r.layout.cell(*d), (1.0 + i as f64 * 1e-9).to_bits());
            }
            let ns = best(200_000 / n as u32, || {
                black_box(run(&p, &mut state, &[], &mut env));
            });
            let translate = best(20_000 / n as u32, || {
                black_box(Program::with_scratch(&unit, &r.layout, &[], &mut scratch));
            });
            println!(
                "{name:14} {n:7} {:7} {:12.2} {:14.2} {:16.1}",
                p.len(),
                ns / p.len() as f64,
                ns / n as f64,
                translate / n as f64
            );
        }
    }
}
