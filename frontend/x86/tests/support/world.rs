//! Runs cases on our side: lifter and interpreter over a memory of four regions.

use super::case::*;
use std::arch::asm;
use std::collections::HashMap;
use tulk_base::{
    AccessKind, CpuState, FaultCause, GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap,
};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::interp::{Outcome as Left, Program, run};
use tulk_ir::passes::{PassConfig, optimize};
use tulk_ir::verifier::verify;
use tulk_ir::{FpEnv, FpFlags, HelperEnv, Round, Unit};
use tulk_x86::segment::{self, set_segment};
use tulk_x86::{X86, regs};

struct Region {
    start: u32,
    bytes: Vec<u8>,
    write: bool,
    exec: bool,
}

/// Memory and host float unit.
pub struct World {
    regions: [Region; 4],
    /// The code asked for what differs from run to run, or changed itself.
    unrepeatable: bool,
}

impl World {
    fn new(case: &Case) -> World {
        let (data, constant, stack) = initial_memory();
        let mut code = vec![0xcc; PAGE as usize];
        let len = CODE_LEN.min((PAGE - case.code_at) as usize);
        code[case.code_at as usize..][..len].copy_from_slice(&case.code[..len]);
        let region = |start, bytes, write, exec| Region { start, bytes, write, exec };
        let mut world = World {
            regions: [
                region(DATA, data, true, false),
                region(STACK, stack, true, false),
                // The child leaves its code page writable.
                region(CODE, code, true, true),
                region(CONST, constant, false, false),
            ],
            unrepeatable: false,
        };
        for p in &case.patches[..case.patch_count as usize] {
            for (n, &b) in p.bytes[..p.len as usize].iter().enumerate() {
                *world.byte(p.address as u64 + n as u64, false).expect("patch in a region") = b;
            }
        }
        world
    }

    fn byte(&mut self, va: u64, write: bool) -> Result<&mut u8, FaultCause> {
        let r = self
            .regions
            .iter_mut()
            .find(|r| va >= r.start as u64 && va - (r.start as u64) < r.bytes.len() as u64);
        match r {
            None => Err(FaultCause::Unmapped),
            Some(r) if write && !r.write => Err(FaultCause::Protection),
            Some(r) => Ok(&mut r.bytes[(va - r.start as u64) as usize]),
        }
    }

    /// The first byte that cannot be accessed is at the start or at a page boundary.
    fn check(&mut self, va: GuestVa, op: MemOp, write: bool) -> Result<(), MemFault> {
        let kind = if write { AccessKind::Write } else { AccessKind::Read };
        if !va.is_aligned(op.align_bytes() as u64) {
            return Err(MemFault { va, kind, cause: FaultCause::Align });
        }
        for n in 0..op.bytes() as u64 {
            let at = va.wrapping_add(n);
            if let Err(cause) = self.byte(at.0, write) {
                return Err(MemFault { va: at, kind, cause });
            }
        }
        Ok(())
    }

    fn read(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.check(va, op, false)?;
        let byte = |n: u32, w: &mut World| *w.byte(va.0 + n as u64, false).unwrap() as u128;
        Ok((0..op.bytes()).fold(0, |v, n| v | byte(n, self) << (8 * n)))
    }

    fn write(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.check(va, op, true)?;
        for n in 0..op.bytes() {
            *self.byte(va.0 + n as u64, true).unwrap() = (value >> (8 * n)) as u8;
        }
        self.unrepeatable |= va.0.wrapping_add(16).wrapping_sub(CODE as u64) < PAGE as u64 + 16;
        Ok(())
    }
}

impl GuestMem for World {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let value = self.read(va, op)? as u64;
        let unused = 64 - 8 * op.bytes();
        Ok(if op.signed() { ((value << unused) as i64 >> unused) as u64 } else { value })
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        self.write(va, op, value as u128)
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.read(va, op)
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.write(va, op, value)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, b: u64) -> Result<u64, MemFault> {
        self.check(va, op, true)?;
        let a = self.read(va, op)? as u64;
        let unused = 64 - 8 * op.bytes();
        let (x, y) = (((a << unused) as i64), ((b << unused) as i64));
        let new = match rmw {
            RmwOp::Xchg => b,
            RmwOp::Add => a.wrapping_add(b),
            RmwOp::Sub => a.wrapping_sub(b),
            RmwOp::And => a & b,
            RmwOp::AndNot => a & !b,
            RmwOp::Or => a | b,
            RmwOp::Xor => a ^ b,
            RmwOp::MinS => {
                if x < y {
                    a
                } else {
                    b
                }
            }
            RmwOp::MaxS => {
                if x > y {
                    a
                } else {
                    b
                }
            }
            RmwOp::MinU => {
                if (x as u64) < y as u64 {
                    a
                } else {
                    b
                }
            }
            RmwOp::MaxU => {
                if x as u64 > y as u64 {
                    a
                } else {
                    b
                }
            }
        };
        self.write(va, op, new as u128)?;
        Ok(a)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, expected: u128, new: u128) -> Result<u128, MemFault> {
        self.check(va, op, true)?;
        let old = self.read(va, op)?;
        if old == expected & (u128::MAX >> (128 - 8 * op.bytes())) {
            self.write(va, op, new)?;
        }
        Ok(old)
    }
}

fn mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores MXCSR to a local.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut v) };
    v
}

fn set_mxcsr(v: u32) {
    // SAFETY: no exception is unmasked; the caller restores the default before leaving the test's code.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &v) };
}

impl FpEnv for World {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(mxcsr() as u8 & 0x3f)
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        set_mxcsr(mxcsr() & !0x3f | flags.0 as u32);
    }
    fn fp_round(&mut self) -> Round {
        tulk_x86::fpstate::round(mxcsr() >> 13)
    }
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool) {
        let rc = match round {
            Round::Down => 1,
            Round::Up => 2,
            Round::Zero => 3,
            _ => 0,
        };
        set_mxcsr(mxcsr() & 0x3f | 0x1f80 | rc << 13 | (daz as u32) << 6 | (ftz as u32) << 15);
    }
}

impl HelperEnv for World {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        self.unrepeatable = true;
        1
    }
    fn processor_id(&mut self) -> u32 {
        self.unrepeatable = true;
        0
    }
    fn random(&mut self, out: &mut [u8]) {
        self.unrepeatable = true;
        out.fill(0x5a);
    }
}

impl CodeReader for World {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let Some(r) = self.regions.iter().find(|r| {
            r.exec && va.0 >= r.start as u64 && va.0 - (r.start as u64) < r.bytes.len() as u64
        }) else {
            return 0;
        };
        let from = &r.bytes[(va.0 - r.start as u64) as usize..];
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// A flat data descriptor.
const DATA32: u64 = 0x00cf_f300_0000_ffff;

/// The descriptor with a base.
fn based(raw: u64, base: u32) -> u64 {
    raw | (base as u64 & 0xff_ffff) << 16 | (base as u64 >> 24) << 56
}

/// Guest state from the case's registers.
pub fn load_state(isa: &X86, case: &Case, state: &mut CpuState) {
    use regs::cell;
    isa.reset(state);
    let r = &case.regs;
    for n in 0..16 {
        state.set(cell(regs::GPR[n]), r.gpr[n]);
        state.set128(cell(regs::XMM[n]), r.xmm(n));
        state.set128(cell(regs::YMMH[n]), r.ymmh(n));
    }
    regs::set_eflags(state, r.rflags as u32);
    state.set(cell(regs::MXCSR), r.mxcsr() as u64);
    let top = r.fsw() >> 11 & 7;
    state.set(cell(regs::FCW), r.fcw() as u64);
    state.set(cell(regs::FSW), (r.fsw() & !0x3800) as u64);
    state.set(cell(regs::FTOP), top as u64);
    state.set(cell(regs::FTAG), r.ftw() as u64);
    for i in 0..8 {
        let physical = (top as usize + i) & 7;
        let (significand, exponent) = r.st(i);
        state.set(cell(regs::FPR_SIG[physical]), significand);
        state.set(cell(regs::FPR_EXP[physical]), exponent as u64);
    }
    if case.bits == 64 {
        state.set(cell(regs::SEG_BASE[regs::FS]), r.fs_base);
        state.set(cell(regs::SEG_BASE[regs::GS]), r.gs_base);
    } else {
        for seg in [regs::DS, regs::ES, regs::SS] {
            set_segment(state, seg, segment::USER_DS, DATA32);
        }
        set_segment(state, regs::GS, DATA_GS, based(DATA32, GS_BASE));
        let cs32 = 0x00cf_fb00_0000_ffff;
        if case.bits == 32 {
            set_segment(state, regs::CS, segment::USER32_CS, cs32);
        } else {
            set_segment(state, regs::CS, CODE16, based(0x0000_fb00_0000_ffff, CODE));
        }
    }
    state.set_pc(case.start() as u64);
}

/// The registers of a state, as the native side reports them.
pub fn store_state(state: &CpuState, case: &Case, out: &mut Registers) {
    use regs::cell;
    *out = Registers::zero();
    for n in 0..16 {
        out.gpr[n] = state.get(cell(regs::GPR[n]));
        out.set_xmm(n, state.get128(cell(regs::XMM[n])));
        out.set_ymmh(n, state.get128(cell(regs::YMMH[n])));
    }
    out.rflags = regs::eflags(state) as u64;
    out.rip = state.pc();
    out.cs = state.get(cell(regs::SEG[regs::CS]));
    out.set_mxcsr(state.get(cell(regs::MXCSR)) as u32);
    let top = state.get(cell(regs::FTOP)) as u16 & 7;
    out.set_u16(0, state.get(cell(regs::FCW)) as u16);
    out.set_u16(2, state.get(cell(regs::FSW)) as u16 & !0x3800 | top << 11);
    out.xsave[4] = state.get(cell(regs::FTAG)) as u8;
    out.set_u16(6, state.get(cell(regs::FOP)) as u16);
    out.set_u64(8, state.get(cell(regs::FIP)));
    out.set_u64(16, state.get(cell(regs::FDP)));
    for i in 0..8 {
        let physical = (top as usize + i) & 7;
        let significand = state.get(cell(regs::FPR_SIG[physical]));
        out.set_st(i, significand, state.get(cell(regs::FPR_EXP[physical])) as u16);
    }
    out.fs_base = state.get(cell(regs::SEG_BASE[regs::FS]));
    out.gs_base = state.get(cell(regs::SEG_BASE[regs::GS]));
    if case.bits != 64 {
        out.fs_base = case.regs.fs_base;
        out.gs_base = case.regs.gs_base;
    }
}

/// Answers [`segment::WANT_DESCRIPTOR`].
pub fn give_descriptor(state: &mut CpuState, selector: u64) {
    let raw = match selector as u16 | 3 {
        CODE16 => based(0x0000_fb00_0000_ffff, CODE),
        DATA_GS => based(DATA32, GS_BASE),
        STACK16 => based(0x0000_f300_0000_0000 | (PAGE - 1) as u64, STACK),
        DATA_SMALL => based(0x0040_f300_0000_0000 | SMALL_LIMIT as u64, DATA),
        _ => 0,
    };
    state.set(regs::cell(regs::DESC_SELECTOR), regs::DESC_VALID | selector);
    state.set(regs::cell(regs::DESC), raw);
}

/// Trap number for a fault at a non-canonical address: #SS or #GP, depending on the base register.
pub const NON_CANONICAL: u64 = 1000;

/// Trap number for a system call.
pub const SYSTEM_CALL: u32 = 1001;

/// What Linux reports for a trap: trap number, error code, address, signal.
pub fn report(trap: Trap, aligned: bool, out: &mut Registers) {
    let canonical = |va: u64| ((va << 16) as i64 >> 16) as u64 == va;
    (out.trap, out.error, out.address, out.signal) = match trap {
        Trap::Breakpoint(_) => (3, 0, 0, libc::SIGTRAP),
        Trap::Illegal => (6, 0, 0, libc::SIGILL),
        Trap::Arithmetic(1) => (0, 0, 0, libc::SIGFPE),
        Trap::Arithmetic(code) => {
            out.si_code = code as u64;
            (if out.fsw() & 0x80 != 0 { 16 } else { 19 }, 0, 0, libc::SIGFPE)
        }
        Trap::Privileged => (13, 0, 0, libc::SIGSEGV),
        Trap::Mem(f) if f.cause == FaultCause::Align && aligned => (17, 0, 0, libc::SIGBUS),
        Trap::Mem(f) if f.cause == FaultCause::Align => (13, 0, 0, libc::SIGSEGV),
        Trap::Mem(f) if !canonical(f.va.0) => (NON_CANONICAL as u32, 0, 0, libc::SIGSEGV),
        Trap::Mem(f) => (14, 0, f.va.0, libc::SIGSEGV),
        Trap::Guest { vector: 1, .. } => (1, 0, 0, libc::SIGTRAP),
        Trap::Guest { vector: 12, code } => (12, code, 0, libc::SIGBUS),
        Trap::Guest { vector, code } => (vector, code, 0, libc::SIGSEGV),
        // No case for the host has these.
        Trap::Syscall(number) => (SYSTEM_CALL, number, 0, 0),
        other => panic!("unexpected {other:?}"),
    }
    .into_u64();
}

trait IntoU64 {
    fn into_u64(self) -> (u64, u64, u64, u64);
}

impl IntoU64 for (u32, u32, u64, i32) {
    fn into_u64(self) -> (u64, u64, u64, u64) {
        (self.0 as u64, self.1 as u64, self.2, self.3 as u64)
    }
}

/// Lifted and lowered blocks of one case, by key and known flags.
type Programs = HashMap<(TbKey, u64), (Program, u32)>;

/// How a case is run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// One instruction in a unit.
    Steps,
    /// As many as possible.
    Units,
    /// And improved by the passes as for a region.
    Passes,
    /// One instruction in a unit, which knows what set the flags, as in a region.
    Known,
}

impl Way {
    pub const ALL: [Way; 4] = [Way::Steps, Way::Units, Way::Passes, Way::Known];
}

/// Runs one case. Every unit is verified.
pub fn interpret(isa: &X86, case: &Case, way: Way, state: &mut CpuState) -> Outcome {
    let (out, _) = interpret_within(isa, case, way, state, 1_000_000).unwrap_or_else(|| {
        panic!("no end: code {:02x?}", &case.code[..case.code_len as usize]);
    });
    out
}

/// Runs one case to its end, if it comes within that many units. Also says whether it does the same at any time.
pub fn interpret_within(
    isa: &X86,
    case: &Case,
    way: Way,
    state: &mut CpuState,
    limit: u32,
) -> Option<(Outcome, bool)> {
    let mut world = World::new(case);
    load_state(isa, case, state);
    let mut programs = Programs::new();
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let mut steps = 0;
    isa.load_fp(state, &mut world);
    let trap = loop {
        steps += 1;
        if steps > limit {
            set_mxcsr(0x1f80);
            return None;
        }
        let key = isa.tb_key(state);
        let cc_op = if way == Way::Known { state.get(regs::cell(regs::CC_OP)) } else { 0 };
        let (program, len) = programs.entry((key, cc_op)).or_insert_with(|| {
            let max_insns = if matches!(way, Way::Steps | Way::Known) { 1 } else { 64 };
            let limits = LiftLimits { max_insns, end: GuestVa(u64::MAX) };
            let known: &[_] = if way == Way::Known { &[(regs::CC_OP, cc_op)] } else { &[] };
            isa.lift_with(key, &mut world, limits, known, &mut unit);
            if unit.len == 0 {
                // No program: not even an end.
                let mut empty = Unit::new(key.pc.0, key.flags, isa.fp_rule());
                let mut b = tulk_ir::Builder::new(&mut empty, isa.layout(), isa.helpers());
                b.exit(0);
                b.finish();
                (Program::new(&empty, isa.layout(), isa.helpers()), 0)
            } else {
                let check = |unit: &Unit| {
                    let result = verify(unit, isa.layout(), isa.helpers());
                    result.unwrap_or_else(|e| panic!("{e:?}\n{}", unit.display(isa.layout())));
                };
                check(&unit);
                if way == Way::Passes {
                    optimize(&mut unit, isa.layout(), isa.helpers(), &PassConfig::hot());
                    check(&unit);
                }
                (Program::new(&unit, isa.layout(), isa.helpers()), unit.len)
            }
        });
        if *len == 0 {
            let (va, kind) = (key.pc, AccessKind::Exec);
            break Trap::Mem(MemFault { va, kind, cause: FaultCause::Unmapped });
        }
        match run(program, state, isa.helpers(), &mut world) {
            Left::Direct(n) => state.set_pc(program.exit(n as usize).pc),
            Left::Indirect { pc, .. } => state.set_pc(pc),
            Left::Trap(Trap::Guest { vector: segment::WANT_DESCRIPTOR, code }) => {
                give_descriptor(state, code.into());
            }
            Left::Trap(trap) => break trap,
        }
    };
    isa.save_fp(state, &mut world);
    set_mxcsr(0x1f80);
    let mut out = Outcome { regs: Registers::zero(), data: [0; DATA_LEN], stack: [0; STACK_LEN] };
    store_state(state, case, &mut out.regs);
    let aligned = out.regs.rflags & 0x4_0000 != 0;
    report(trap, aligned, &mut out.regs);
    out.data.copy_from_slice(&world.regions[0].bytes);
    out.stack.copy_from_slice(&world.regions[1].bytes);
    Some((out, !world.unrepeatable))
}
