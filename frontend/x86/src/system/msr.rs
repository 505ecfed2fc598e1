//! Model-specific registers (the manual, volume 4, tables 2-2 and 2-3) and the time-stamp counter (volume 3, 18.17).
//!
//! [`Msr`]s that are a slot stand in [`PLAIN`] with the bits that a write may set. What the local APIC has
//! (IA32_APIC_BASE, the x2APIC's, IA32_TSC_DEADLINE) belongs to the board, which counts the deadline in clock units.
//! An unknown number is #GP(0).
//!
//! - The counter counts nanoseconds of guest time plus an offset; IA32_MPERF and IA32_APERF count the same.
//! - MTRRs and PAT are kept and checked, but all memory behaves as write-back, and devices as uncached.
//! - There are no machine-check banks and no performance counters.

use super::{FIRST_MSR, cr4, efer, model, paging};
use crate::decode::{Row, rows};
use crate::helpers::helpers;
use crate::regs::{self, cell};
use crate::segment::GP;
use crate::{Feature, Features, Lifter, cpuid};
use iced_x86::{Instruction, Register};
use tulk_base::{CpuState, TlbFlush, Trap};
use tulk_ir::{Access, HelperCx, Slot, Value};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Rdmsr => rdmsr, Wrmsr => wrmsr, Rdtsc => rdtsc, Rdtscp => rdtscp, Rdpid => rdpid, Cpuid => cpuid,
    }
    codes {}
};

const GENERAL_PROTECTION: Trap = Trap::Guest { vector: GP, code: 0 };

/// What IA32_BIOS_SIGN_ID shows: a microcode revision, in the upper half.
pub const MICROCODE: u64 = 0x1_0000_0000;

/// Numbers.
pub mod number {
    pub const TSC: u32 = 0x10;
    pub const PLATFORM_ID: u32 = 0x17;
    pub const APIC_BASE: u32 = 0x1b;
    pub const FEATURE_CONTROL: u32 = 0x3a;
    pub const TSC_ADJUST: u32 = 0x3b;
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PRED_CMD: u32 = 0x49;
    pub const BIOS_UPDATE: u32 = 0x79;
    pub const BIOS_SIGN: u32 = 0x8b;
    pub const CORE_COUNT: u32 = 0x35;
    pub const PLATFORM_INFO: u32 = 0xce;
    pub const MPERF: u32 = 0xe7;
    pub const APERF: u32 = 0xe8;
    pub const MTRR_CAP: u32 = 0xfe;
    pub const ARCH_CAPABILITIES: u32 = 0x10a;
    pub const SYSENTER_CS: u32 = 0x174;
    pub const SYSENTER_ESP: u32 = 0x175;
    pub const SYSENTER_EIP: u32 = 0x176;
    pub const MCG_CAP: u32 = 0x179;
    pub const MCG_STATUS: u32 = 0x17a;
    pub const PERF_STATUS: u32 = 0x198;
    pub const PERF_CTL: u32 = 0x199;
    pub const THERM_INTERRUPT: u32 = 0x19b;
    pub const THERM_STATUS: u32 = 0x19c;
    pub const MISC_ENABLE: u32 = 0x1a0;
    pub const ENERGY_PERF_BIAS: u32 = 0x1b0;
    pub const DEBUG_CTL: u32 = 0x1d9;
    pub const MTRR_PHYS: u32 = 0x200;
    pub const MTRR_FIX64K: u32 = 0x250;
    pub const MTRR_FIX16K: u32 = 0x258;
    pub const MTRR_FIX4K: u32 = 0x268;
    pub const PAT: u32 = 0x277;
    pub const MTRR_DEF_TYPE: u32 = 0x2ff;
    pub const TSC_DEADLINE: u32 = 0x6e0;
    pub const X2APIC: u32 = 0x800;
    pub const XSS: u32 = 0xda0;
    pub const EFER: u32 = 0xc000_0080;
    pub const STAR: u32 = 0xc000_0081;
    pub const LSTAR: u32 = 0xc000_0082;
    pub const CSTAR: u32 = 0xc000_0083;
    pub const SFMASK: u32 = 0xc000_0084;
    pub const FS_BASE: u32 = 0xc000_0100;
    pub const GS_BASE: u32 = 0xc000_0101;
    pub const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub const TSC_AUX: u32 = 0xc000_0103;
    // AMD.
    pub const AMD_SYSCFG: u32 = 0xc001_0010;
    pub const AMD_HWCR: u32 = 0xc001_0015;
    pub const AMD_LS_CFG: u32 = 0xc001_1020;
    pub const AMD_DE_CFG: u32 = 0xc001_1029;
}

/// How a written value is judged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// Bits outside are #GP.
    Only(u64),
    /// Bits outside are ignored.
    Mask(u64),
    Canonical,
    /// Eight memory types: 0, 1, 4, 5, 6, and 7 in the PAT.
    Types {
        pat: bool,
    },
    /// A read-only constant.
    Constant(u64),
}

/// A register that is a slot.
#[derive(Clone, Copy, Debug)]
struct Plain {
    number: u32,
    slot: Slot,
    rule: Rule,
    /// It exists with this feature.
    needs: Feature,
}

const fn plain(number: u32, slot: Slot, rule: Rule, needs: Feature) -> Plain {
    Plain { number, slot, rule, needs }
}

/// Of two rows for one register the first counts whose feature is there.
const PLAIN: &[Plain] = &[
    plain(number::FEATURE_CONTROL, regs::FEATURE_CONTROL, Rule::Constant(1), Feature::Pae),
    // With BHI_DIS_S.
    plain(number::SPEC_CTRL, regs::SPEC_CTRL, Rule::Only(7 | 1 << 10), Feature::BhiCtrl),
    plain(number::SPEC_CTRL, regs::SPEC_CTRL, Rule::Only(7), Feature::SpecCtrl),
    plain(number::SYSENTER_CS, regs::SYSENTER_CS, Rule::Mask(0xffff_ffff), Feature::Sep),
    plain(number::SYSENTER_ESP, regs::SYSENTER_ESP, Rule::Canonical, Feature::Sep),
    plain(number::SYSENTER_EIP, regs::SYSENTER_EIP, Rule::Canonical, Feature::Sep),
    plain(number::MCG_STATUS, regs::MCG_STATUS, Rule::Only(0), Feature::Mca),
    plain(
        number::MISC_ENABLE,
        regs::MISC_ENABLE,
        Rule::Mask(0x5_0000_ffff | 1 << 22),
        Feature::Pae,
    ),
    plain(number::DEBUG_CTL, regs::DEBUG_CTL, Rule::Mask(0), Feature::Pae),
    plain(number::PAT, regs::PAT, Rule::Types { pat: true }, Feature::Pat),
    plain(number::MTRR_DEF_TYPE, regs::MTRR_DEF_TYPE, Rule::Only(0xcff), Feature::Mtrr),
    plain(number::XSS, regs::XSS, Rule::Only(0), Feature::Xsavec),
    plain(number::STAR, regs::STAR, Rule::Mask(u64::MAX), Feature::Syscall),
    plain(number::LSTAR, regs::LSTAR, Rule::Canonical, Feature::Lm),
    plain(number::CSTAR, regs::CSTAR, Rule::Canonical, Feature::Lm),
    plain(number::SFMASK, regs::SFMASK, Rule::Mask(0xffff_ffff), Feature::Lm),
    plain(number::FS_BASE, regs::SEG_BASE[regs::FS], Rule::Canonical, Feature::Lm),
    plain(number::GS_BASE, regs::SEG_BASE[regs::GS], Rule::Canonical, Feature::Lm),
    plain(number::KERNEL_GS_BASE, regs::KERNEL_GS_BASE, Rule::Canonical, Feature::Lm),
    plain(number::TSC_AUX, regs::TSC_AUX, Rule::Only(0xffff_ffff), Feature::Rdtscp),
];

/// Registers whose value never changes: number, value, whether a write is ignored (else #GP), the feature.
const FIXED: &[(u32, u64, bool, Feature)] = &[
    (number::PLATFORM_ID, 0, false, Feature::Pae),
    (number::BIOS_UPDATE, 0, true, Feature::Pae),
    // The maximum and minimum ratio of the clock, in 100 MHz.
    (number::PLATFORM_INFO, 10 << 8 | 10 << 40, false, Feature::Ssse3),
    (number::MCG_CAP, 0, false, Feature::Mca),
    (number::PERF_STATUS, 10 << 8, true, Feature::Sse2),
    (number::PERF_CTL, 10 << 8, true, Feature::Sse2),
    (number::THERM_INTERRUPT, 0, true, Feature::Sse2),
    (number::THERM_STATUS, 0, true, Feature::Sse2),
    (number::ENERGY_PERF_BIAS, 6, true, Feature::Avx),
    // Eight variable ranges, fixed ranges, write-combining.
    (number::MTRR_CAP, 8 | 1 << 8 | 1 << 10, false, Feature::Mtrr),
    (number::ARCH_CAPABILITIES, ARCHITECTURE, false, Feature::ArchCapabilities),
];

/// IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, PSCHANGE_MC_NO, TAA_NO,
/// SBDR_SSDP_NO, FBSDP_NO, PSDP_NO, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO: nothing here speculates.
const ARCHITECTURE: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

fn fixed_mtrr(msr: u32) -> Option<Slot> {
    let n = match msr {
        number::MTRR_FIX64K => 0,
        n @ (number::MTRR_FIX16K | 0x259) => 1 + n - number::MTRR_FIX16K,
        n if (number::MTRR_FIX4K..number::MTRR_FIX4K + 8).contains(&n) => {
            3 + n - number::MTRR_FIX4K
        }
        _ => return None,
    };
    Some(regs::MTRR_FIX[n as usize])
}

/// A slot with its rule.
fn plain_of(msr: u32, features: Features) -> Option<(Slot, Rule)> {
    if let Some(p) = PLAIN.iter().find(|p| p.number == msr && features.has(p.needs)) {
        return Some((p.slot, p.rule));
    }
    if !features.has(Feature::Mtrr) {
        return None;
    }
    if let Some(slot) = fixed_mtrr(msr) {
        return Some((slot, Rule::Types { pat: false }));
    }
    let n = msr.wrapping_sub(number::MTRR_PHYS);
    let frame = ((1 << cpuid::address_bits(features).0) - 1) & !0xfff;
    let bits = if n & 1 == 0 { 0xff } else { 1 << 11 };
    (n < 16).then(|| (regs::MTRR_PHYS[n as usize], Rule::Only(frame | bits)))
}

/// Clock units that the board counts: nanoseconds.
fn clock(cx: &mut HelperCx<'_>) -> u64 {
    match cx.env.machine() {
        Some(machine) => machine.board().clock_ns(),
        None => cx.env.clock_ns(),
    }
}

fn sum(cx: &mut HelperCx<'_>, offset: Slot) -> u64 {
    clock(cx).wrapping_add(cx.state.get(cell(offset)))
}

/// The time-stamp counter.
pub fn tsc(cx: &mut HelperCx<'_>) -> u64 {
    sum(cx, regs::TSC_OFFSET)
}

fn is_board(msr: u32, features: Features) -> bool {
    match msr {
        number::APIC_BASE => features.has(Feature::Apic),
        number::TSC_DEADLINE => features.has(Feature::TscDeadline),
        number::X2APIC..=0x8ff => features.has(Feature::X2apic),
        _ => false,
    }
}

/// Registers of AMD's processors that systems probe; they read as zero and ignore writes.
fn is_amd_configuration(msr: u32) -> bool {
    matches!(msr, number::AMD_SYSCFG | number::AMD_HWCR | number::AMD_LS_CFG | number::AMD_DE_CFG)
}

fn is_amd(state: &CpuState) -> bool {
    model(state).chip().vendor == crate::cpu::Vendor::Amd
}

/// RDMSR; `None`: #GP(0).
pub fn read(cx: &mut HelperCx<'_>, msr: u32) -> Option<u64> {
    let features = model(cx.state).features;
    if let Some((slot, _)) = plain_of(msr, features) {
        return Some(cx.state.get(cell(slot)));
    }
    if let Some(f) = FIXED.iter().find(|f| f.0 == msr) {
        return features.has(f.3).then_some(f.1);
    }
    if is_board(msr, features) {
        let machine = cx.env.machine()?;
        let cpu = machine.cpu();
        let v = machine.board().msr_read(cpu, msr)?;
        // Zero is no deadline.
        let is_deadline = msr == number::TSC_DEADLINE && v != 0;
        let offset = cx.state.get(cell(regs::TSC_OFFSET));
        return Some(if is_deadline { v.wrapping_add(offset) } else { v });
    }
    let get = |slot| cx.state.get(cell(slot));
    Some(match msr {
        number::TSC if features.has(Feature::Tsc) => tsc(cx),
        number::TSC_ADJUST if features.has(Feature::TscAdjust) => get(regs::TSC_ADJUST),
        number::MPERF if features.has(Feature::Ssse3) => sum(cx, regs::MPERF_OFFSET),
        number::APERF if features.has(Feature::Ssse3) => sum(cx, regs::APERF_OFFSET),
        number::EFER if has_efer(features) => get(regs::EFER),
        number::CORE_COUNT if !is_amd(cx.state) => {
            let n = get(regs::PROCESSORS) & 0xffff;
            n << 16 | n
        }
        number::BIOS_SIGN if is_amd(cx.state) => MICROCODE >> 32,
        number::BIOS_SIGN => get(regs::BIOS_SIGN),
        n if is_amd(cx.state) && is_amd_configuration(n) => 0,
        _ => return None,
    })
}

fn has_efer(features: Features) -> bool {
    features.has(Feature::Nx) || features.has(Feature::Lm) || features.has(Feature::Syscall)
}

/// WRMSR; `None`: #GP(0).
pub fn write(cx: &mut HelperCx<'_>, msr: u32, value: u64) -> Option<()> {
    let features = model(cx.state).features;
    if let Some((slot, rule)) = plain_of(msr, features) {
        let value = judged(cx.state, rule, value)?;
        if (number::MTRR_PHYS..number::MTRR_PHYS + 16).contains(&msr)
            && msr & 1 == 0
            && !is_type(value as u8, false)
        {
            return None;
        }
        if msr == number::MTRR_DEF_TYPE && !is_type(value as u8, false) {
            return None;
        }
        cx.state.set(cell(slot), value);
        return Some(());
    }
    if let Some(f) = FIXED.iter().find(|f| f.0 == msr) {
        return (f.2 && features.has(f.3)).then_some(());
    }
    if is_board(msr, features) {
        let offset = cx.state.get(cell(regs::TSC_OFFSET));
        let is_deadline = msr == number::TSC_DEADLINE && value != 0;
        // One that lies before the clock's zero has passed: 1 has, too.
        let value = match is_deadline {
            true => (value.wrapping_sub(offset) as i64).max(1) as u64,
            false => value,
        };
        let machine = cx.env.machine()?;
        let cpu = machine.cpu();
        let taken = machine.board().msr_write(cpu, msr, value);
        return taken.then_some(());
    }
    let now = clock(cx);
    match msr {
        number::TSC if features.has(Feature::Tsc) => {
            let moved = value.wrapping_sub(tsc(cx));
            move_tsc(cx.state, moved);
        }
        number::TSC_ADJUST if features.has(Feature::TscAdjust) => {
            let moved = value.wrapping_sub(cx.state.get(cell(regs::TSC_ADJUST)));
            move_tsc(cx.state, moved);
        }
        number::MPERF if features.has(Feature::Ssse3) => {
            cx.state.set(cell(regs::MPERF_OFFSET), value.wrapping_sub(now));
        }
        number::APERF if features.has(Feature::Ssse3) => {
            cx.state.set(cell(regs::APERF_OFFSET), value.wrapping_sub(now));
        }
        // An indirect branch predictor barrier: there is nothing to drop.
        number::PRED_CMD if features.has(Feature::SpecCtrl) => (value & !1 == 0).then_some(())?,
        number::EFER if has_efer(features) => write_efer(cx, value)?,
        // Writing zero and CPUID ask for the revision; it stays what it is.
        number::BIOS_SIGN => {}
        n if is_amd(cx.state) && is_amd_configuration(n) => {}
        _ => return None,
    }
    Some(())
}

fn move_tsc(state: &mut CpuState, by: u64) {
    for slot in [regs::TSC_OFFSET, regs::TSC_ADJUST] {
        state.set(cell(slot), state.get(cell(slot)).wrapping_add(by));
    }
}

fn is_type(byte: u8, pat: bool) -> bool {
    matches!(byte, 0 | 1 | 4 | 5 | 6) || pat && byte == 7
}

fn judged(state: &CpuState, rule: Rule, value: u64) -> Option<u64> {
    match rule {
        Rule::Only(bits) => (value & !bits == 0).then_some(value),
        Rule::Mask(bits) => Some(value & bits),
        Rule::Canonical => is_canonical(state, value).then_some(value),
        Rule::Types { pat } => {
            value.to_le_bytes().iter().all(|&b| is_type(b, pat)).then_some(value)
        }
        Rule::Constant(_) => None,
    }
}

/// Canonical as WRMSR sees it, which does so in 32-bit modes, too.
fn is_canonical(state: &CpuState, value: u64) -> bool {
    if state.get(cell(regs::EFER)) & efer::LMA != 0 {
        return paging::is_canonical(state, value);
    }
    let unused = if state.get(cell(regs::CR4)) & cr4::LA57 != 0 { 7 } else { 16 };
    ((value << unused) as i64 >> unused) as u64 == value
}

fn write_efer(cx: &mut HelperCx<'_>, value: u64) -> Option<()> {
    let features = model(cx.state).features;
    let old = cx.state.get(cell(regs::EFER));
    let bits = [
        (Feature::Syscall, efer::SCE),
        (Feature::Lm, efer::LME | efer::LMA),
        (Feature::Nx, efer::NXE),
    ];
    let known = bits.iter().filter(|b| features.has(b.0)).fold(0, |all, b| all | b.1);
    let paging = cx.state.get(cell(regs::CR0)) & super::cr0::PG != 0;
    if value & !known != 0 || paging && (old ^ value) & efer::LME != 0 {
        return None;
    }
    let new = value & !efer::LMA | old & efer::LMA;
    cx.state.set(cell(regs::EFER), new);
    if (old ^ new) & efer::NXE != 0
        && let Some(machine) = cx.env.machine()
    {
        machine.flush_tlb(TlbFlush::All);
    }
    Some(())
}

fn set_pair(l: &mut Lifter<'_>, v: Value) {
    let (lo, hi) = (l.bextract_u(v, 0, 32), l.bextract_u(v, 32, 32));
    l.set(regs::RAX, lo);
    l.set(regs::RDX, hi);
}

/// RDMSR
fn rdmsr(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let n = l.reg(Register::ECX);
    let v = l.call(READ, &[n], 0);
    set_pair(l, v);
}

/// WRMSR
fn wrmsr(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let (n, low, high) = (l.reg(Register::ECX), l.reg(Register::EAX), l.reg(Register::EDX));
    l.call(WRITE, &[n, low, high], 0);
    l.resync();
}

/// RDTSC: #GP(0) with CR4.TSD above CPL 0
fn rdtsc(l: &mut Lifter<'_>, _: &Instruction) {
    let v = l.call(TSC, &[], 0);
    set_pair(l, v);
}

/// RDTSCP
fn rdtscp(l: &mut Lifter<'_>, _: &Instruction) {
    let v = l.call(TSC, &[], 0);
    set_pair(l, v);
    let aux = l.get(regs::TSC_AUX);
    let aux = l.zext(tulk_ir::Type::I64, aux);
    l.set(regs::RCX, aux);
}

/// RDPID dst
fn rdpid(l: &mut Lifter<'_>, insn: &Instruction) {
    let aux = l.get(regs::TSC_AUX);
    let aux = l.zext(tulk_ir::Type::I64, aux);
    l.set_reg(insn.op0_register().full_register(), aux);
}

/// CPUID
fn cpuid(l: &mut Lifter<'_>, _: &Instruction) {
    let (leaf, sub) = (l.reg(Register::EAX), l.reg(Register::ECX));
    let all = l.call(CPUID, &[leaf, sub], 0);
    let (low, high) = (l.lo64(all), l.hi64(all));
    for (slot, half, lsb) in
        [(regs::RAX, low, 0), (regs::RBX, low, 32), (regs::RCX, high, 0), (regs::RDX, high, 32)]
    {
        let v = l.bextract_u(half, lsb, 32);
        l.set(slot, v);
    }
}

fn msr_read(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    read(cx, args[0] as u32).map(u128::from).ok_or(GENERAL_PROTECTION)
}

fn msr_write(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = args[1] as u64 | (args[2] as u64) << 32;
    write(cx, args[0] as u32, value).map(|()| 0).ok_or(GENERAL_PROTECTION)
}

fn msr_tsc(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    if super::cpl(cx.state) != 0 && cx.state.get(cell(regs::CR4)) & cr4::TSD != 0 {
        return Err(GENERAL_PROTECTION);
    }
    Ok(tsc(cx) as u128)
}

/// Leaf, subleaf; EAX, EBX, ECX, EDX from low to high.
fn msr_cpuid(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let cpu = cx.env.machine().map_or(0, |m| m.cpu());
    let apic = match cx.env.machine() {
        Some(m) => m.board().msr_read(cpu, number::APIC_BASE).is_none_or(|v| v & 1 << 11 != 0),
        None => true,
    };
    let model = model(cx.state);
    let get = |slot| cx.state.get(cell(slot));
    let at = cpuid::Where {
        processor: cpu,
        processors: get(regs::PROCESSORS) as u32,
        xcr0: get(regs::XCR0),
    };
    let system = cpuid::System { cr4: get(regs::CR4), apic };
    let words = cpuid::system_leaf(&model, at, system, args[0] as u32, args[1] as u32);
    Ok(words.iter().rev().fold(0, |all, &w| all << 32 | w as u128))
}

helpers! { FIRST_MSR;
    /// Number.
    READ = msr_read(I32) -> I64, Access::All, Access::None, traps;
    /// Number, low and high half.
    WRITE = msr_write(I32, I32, I32) -> (), Access::All, Access::All, traps;
    TSC = msr_tsc() -> I64, Access::These(CLOCK), Access::None, traps;
    /// Leaf, subleaf; EAX, EBX, ECX, EDX from low to high.
    CPUID = msr_cpuid(I32, I32) -> I128, Access::These(MODEL), Access::None;
}

const CLOCK: &[Slot] = &[regs::TSC_OFFSET, regs::CR4, regs::CPL];
const MODEL: &[Slot] =
    &[regs::XCR0, regs::CR4, regs::PROCESSORS, regs::CHIP, regs::FEATURES[0], regs::FEATURES[1]];
