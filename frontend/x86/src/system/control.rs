//! Control registers, cache and translation control (the manual, volume 3, chapters 2.5, 2.8, 4.10 and 13.3).
//!
//! Cached translations hold rights that CR0.WP, CR4.SMEP, SMAP and PKE, IA32_EFER.NXE and PKRU decided; a change of one
//! of these drops all of them, which the manual permits. A space of the TLB is a PCID.

use super::{FIRST_CONTROL, cr0, cr4, efer, model, paging};
use crate::decode::{Row, rows};
use crate::helpers::helpers;
use crate::operand::{Intent, Place};
use crate::regs::{self, cell};
use crate::segment::{GP, attr};
use crate::{Feature, Features, Lifter, cpuid};
use iced_x86::{Instruction, Register};
use tulk_base::{CpuState, GuestVa, TlbFlush, Trap};
use tulk_ir::{Access, ExitKind, HelperCx, IntCc, Slot, Type};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        Clts => clts, Smsw => smsw, Lmsw => lmsw, Invlpg => invlpg, Invpcid => invpcid,
        Invd => cache, Wbinvd => cache, Xgetbv => xgetbv, Xsetbv => xsetbv, Hlt => hlt,
        Rdfsbase => base, Rdgsbase => base, Wrfsbase => base, Wrgsbase => base,
        Monitor => monitor, Mwait => monitor, Wrpkru => write_pkru, Rdpkru => read_pkru,
    }
    codes {
        Mov_r32_cr => read, Mov_r64_cr => read, Mov_cr_r32 => write, Mov_cr_r64 => write,
        Clac => alignment, Stac => alignment,
    }
};

const GENERAL_PROTECTION: Trap = Trap::Guest { vector: GP, code: 0 };

fn number(r: Register) -> i64 {
    r as i64 - Register::CR0 as i64
}

/// MOV r, CRn
fn read(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = number(insn.op1_register());
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let v = match n {
        0 => l.get(regs::CR0),
        2 => l.get(regs::CR2),
        3 => l.get(regs::CR3),
        4 => l.get(regs::CR4),
        8 => l.call(READ_PRIORITY, &[], 0),
        _ => return l.undefined(),
    };
    let r = insn.op0_register();
    let v = if r.is_gpr32() { l.trunc(Type::I32, v) } else { v };
    l.set_reg(r, v);
}

/// MOV CRn, r
fn write(l: &mut Lifter<'_>, insn: &Instruction) {
    let n = number(insn.op0_register());
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let v = l.reg(insn.op1_register());
    let v = l.zext(Type::I64, v);
    match n {
        2 => return l.set(regs::CR2, v),
        0 | 3 | 4 | 8 => l.call(WRITE, &[v], n),
        _ => return l.undefined(),
    };
    l.resync();
}

/// CLTS
fn clts(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let old = l.get(regs::CR0);
    let new = l.and_imm(old, !(cr0::TS as i64));
    l.set(regs::CR0, new);
    l.resync();
}

/// SMSW dst
fn smsw(l: &mut Lifter<'_>, insn: &Instruction) {
    user_mode_prevented(l);
    let v = l.get(regs::CR0);
    let dst = l.place_of(insn, 0, Intent::Write);
    let ty = match dst {
        Place::Reg(r) => Type::int_of_log2(r.size().trailing_zeros() as u8),
        Place::Mem(_) => Type::I16,
    };
    let v = l.trunc(ty, v);
    l.write(dst, v);
}

/// LMSW src
fn lmsw(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let v = l.operand(insn, 0, Type::I16);
    let v = l.zext(Type::I64, v);
    l.call(LOAD_STATUS, &[v], 0);
    l.resync();
}

/// INVLPG m: the operand's address is not checked
fn invlpg(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let addr = l.unchecked_address(insn);
    let va = l.flat(addr);
    l.call(INVALIDATE, &[va], 0);
    l.resync();
}

/// INVPCID type, descriptor
fn invpcid(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let kind = l.reg(insn.op0_register());
    let kind = l.zext(Type::I64, kind);
    let addr = l.address(insn, 16, Intent::Read);
    let low = l.load(Type::I64, addr);
    let high = l.load(Type::I64, addr.plus(8));
    l.call(INVALIDATE_SPACE, &[kind, low, high], 0);
    l.resync();
}

/// INVD, WBINVD: caches are not there to be seen
fn cache(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        l.privileged();
    }
}

/// HLT
fn hlt(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let next = l.next;
    l.trap(ExitKind::Halt, 0, next);
}

/// MONITOR, MWAIT: any event may end the wait, so none is waited for
fn monitor(l: &mut Lifter<'_>, _: &Instruction) {
    if l.key.cpl() != 0 {
        l.undefined();
    }
}

/// XGETBV: #UD unless the system enabled XSAVE
fn xgetbv(l: &mut Lifter<'_>, insn: &Instruction) {
    need_cr4(l, cr4::OSXSAVE);
    crate::integer::system::xgetbv(l, insn);
}

/// XSETBV
fn xsetbv(l: &mut Lifter<'_>, _: &Instruction) {
    need_cr4(l, cr4::OSXSAVE);
    if l.key.cpl() != 0 {
        return l.privileged();
    }
    let (n, low, high) = (l.reg(Register::ECX), l.reg(Register::EAX), l.reg(Register::EDX));
    l.call(SET_COMPONENTS, &[n, low, high], 0);
    l.resync();
}

/// RDFSBASE and kin: #UD unless the system enabled them
fn base(l: &mut Lifter<'_>, insn: &Instruction) {
    use crate::integer::system::{read_base, write_base};
    use iced_x86::Mnemonic::{Wrfsbase, Wrgsbase};
    need_cr4(l, cr4::FSGSBASE);
    match insn.mnemonic() {
        Wrfsbase | Wrgsbase => write_base(l, insn),
        _ => read_base(l, insn),
    }
}

/// CLAC, STAC
fn alignment(l: &mut Lifter<'_>, insn: &Instruction) {
    if l.key.cpl() != 0 {
        return l.undefined();
    }
    let ac = regs::eflags::AC as i64;
    let old = l.get(regs::EFLAGS);
    let new = match insn.code() {
        iced_x86::Code::Stac => l.or_imm(old, ac),
        _ => l.and_imm(old, !ac),
    };
    l.set(regs::EFLAGS, new);
    l.exit_with_smap(insn.code() == iced_x86::Code::Stac);
}

/// RDPKRU
fn read_pkru(l: &mut Lifter<'_>, _: &Instruction) {
    need_cr4(l, cr4::PKE);
    let n = l.reg(Register::ECX);
    let bad = l.icmp_imm(IntCc::Ne, n, 0);
    l.fault_if(bad, GP);
    let v = l.get(regs::PKRU);
    l.set_reg(Register::EAX, v);
    let zero = l.iconst(Type::I32, 0);
    l.set_reg(Register::EDX, zero);
}

/// WRPKRU
fn write_pkru(l: &mut Lifter<'_>, _: &Instruction) {
    need_cr4(l, cr4::PKE);
    let (n, high) = (l.reg(Register::ECX), l.reg(Register::EDX));
    let bad = l.or(n, high);
    let bad = l.icmp_imm(IntCc::Ne, bad, 0);
    l.fault_if(bad, GP);
    let v = l.reg(Register::EAX);
    l.call(SET_KEYS, &[v], 0);
}

/// #UD unless the bit of CR4 is set.
fn need_cr4(l: &mut Lifter<'_>, bit: u64) {
    l.call(NEED, &[], bit as i64);
}

/// #GP(0) with CR4.UMIP above CPL 0, for SGDT, SIDT, SLDT, STR and SMSW.
pub fn user_mode_prevented(l: &mut Lifter<'_>) {
    if l.key.cpl() != 0 && l.cpu.has(Feature::Umip) {
        l.call(PREVENTED, &[], 0);
    }
}

fn control_need(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    match cx.state.get(cell(regs::CR4)) & args[3] as u64 {
        0 => Err(Trap::Illegal),
        _ => Ok(0),
    }
}

fn control_prevented(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    match cx.state.get(cell(regs::CR4)) & cr4::UMIP {
        0 => Ok(0),
        _ => Err(GENERAL_PROTECTION),
    }
}

/// The space of the TLB in use.
pub fn space(state: &CpuState) -> u16 {
    match state.get(cell(regs::CR4)) & cr4::PCIDE {
        0 => 0,
        _ => state.get(cell(regs::CR3)) as u16 & 0xfff,
    }
}

fn flush(cx: &mut HelperCx<'_>, what: TlbFlush) {
    if let Some(machine) = cx.env.machine() {
        machine.flush_tlb(what);
    }
}

/// The paging structure registers for these control registers: `Err` is the #GP of a bad entry.
fn load_pdptes(cx: &mut HelperCx<'_>, cr3: u64) -> Result<(), Trap> {
    let model = model(cx.state);
    let Some(machine) = cx.env.machine() else { return Ok(()) };
    let all = paging::read_pdptes(&model, machine, cr3).ok_or(GENERAL_PROTECTION)?;
    for (slot, v) in regs::PDPTE.into_iter().zip(all) {
        cx.state.set(cell(slot), v);
    }
    Ok(())
}

/// Whether these values mean PAE paging.
fn is_pae(control: u64, extended: u64, efer: u64) -> bool {
    control & cr0::PG != 0 && extended & cr4::PAE != 0 && efer & efer::LMA == 0
}

/// MOV to CR0.
///
/// # Errors
/// #GP(0); nothing is changed then.
pub fn write_cr0(cx: &mut HelperCx<'_>, value: u64) -> Result<(), Trap> {
    let get = |slot| cx.state.get(cell(slot));
    let (old, extended, old_efer) = (get(regs::CR0), get(regs::CR4), get(regs::EFER));
    let cs = get(regs::SEG_ATTR[regs::CS]) as u32;
    let tr = get(regs::TR_ATTR) as u32;
    let has = |v: u64, bit| v & bit != 0;
    // Bits that do not exist are ignored in the lower half, and ET is fixed.
    let known = cr0::PE
        | cr0::MP
        | cr0::EM
        | cr0::TS
        | cr0::NE
        | cr0::WP
        | cr0::AM
        | cr0::NW
        | cr0::CD
        | cr0::PG;
    let new = value & known | cr0::ET;
    let starts = has(new, cr0::PG) && !has(old, cr0::PG);
    let stops = !has(new, cr0::PG) && has(old, cr0::PG);
    let long_code = has(old_efer, efer::LMA) && cs & attr::L != 0;
    let bad = value >> 32 != 0
        || has(new, cr0::PG) && !has(new, cr0::PE)
        || has(new, cr0::NW) && !has(new, cr0::CD)
        || stops && (long_code || has(extended, cr4::PCIDE));
    let enters = starts && has(old_efer, efer::LME);
    // IA-32e mode needs PAE, starts from code that is not marked as 64-bit, and knows no 16-bit TSS.
    let cannot_enter = !has(extended, cr4::PAE)
        || cs & attr::L != 0
        || tr & attr::P != 0 && matches!(tr & 15, 1 | 3);
    if bad || enters && cannot_enter {
        return Err(GENERAL_PROTECTION);
    }
    let efer = if enters {
        old_efer | efer::LMA
    } else if stops {
        old_efer & !efer::LMA
    } else {
        old_efer
    };
    if is_pae(new, extended, efer) && (old ^ new) & (cr0::PG | cr0::CD | cr0::NW) != 0 {
        let cr3 = cx.state.get(cell(regs::CR3));
        load_pdptes(cx, cr3)?;
    }
    cx.state.set(cell(regs::CR0), new);
    cx.state.set(cell(regs::EFER), efer);
    if (old ^ new) & (cr0::PG | cr0::PE | cr0::WP) != 0 {
        flush(cx, TlbFlush::All);
    }
    Ok(())
}

/// MOV to CR3, also by a task switch (without bit 63 then).
///
/// # Errors
/// #GP(0); nothing is changed then.
pub fn write_cr3(cx: &mut HelperCx<'_>, value: u64) -> Result<(), Trap> {
    let get = |slot| cx.state.get(cell(slot));
    let (control, extended, efer) = (get(regs::CR0), get(regs::CR4), get(regs::EFER));
    let tagged = extended & cr4::PCIDE != 0;
    let keeps = tagged && value >> 63 != 0;
    let value = if tagged { value & !(1 << 63) } else { value };
    let physical = cpuid::address_bits(model(cx.state).features).0;
    if value >> physical != 0 {
        return Err(GENERAL_PROTECTION);
    }
    if is_pae(control, extended, efer) {
        load_pdptes(cx, value)?;
    }
    cx.state.set(cell(regs::CR3), value);
    let space = space(cx.state);
    if let Some(machine) = cx.env.machine() {
        machine.switch_space(space);
        if !keeps {
            machine.flush_tlb(TlbFlush::Space(space));
        }
    }
    Ok(())
}

/// The bits of CR4 that exist with these features.
pub fn cr4_supported(features: Features) -> u64 {
    use Feature::*;
    const TABLE: &[(Feature, u64)] = &[
        (Vme, cr4::VME | cr4::PVI),
        (Tsc, cr4::TSD),
        (De, cr4::DE),
        (Pse, cr4::PSE),
        (Pae, cr4::PAE),
        (Mce, cr4::MCE),
        (Pge, cr4::PGE),
        (Mmx, cr4::PCE),
        (Fxsr, cr4::OSFXSR),
        (Sse, cr4::OSXMMEXCPT),
        (Umip, cr4::UMIP),
        (La57, cr4::LA57),
        (Fsgsbase, cr4::FSGSBASE),
        (Pcid, cr4::PCIDE),
        (Xsave, cr4::OSXSAVE),
        (Smep, cr4::SMEP),
        (Smap, cr4::SMAP),
        (Pku, cr4::PKE),
    ];
    TABLE.iter().filter(|t| features.has(t.0)).fold(0, |all, t| all | t.1)
}

/// MOV to CR4.
///
/// # Errors
/// #GP(0); nothing is changed then.
pub fn write_cr4(cx: &mut HelperCx<'_>, value: u64) -> Result<(), Trap> {
    let get = |slot| cx.state.get(cell(slot));
    let (control, old, efer) = (get(regs::CR0), get(regs::CR4), get(regs::EFER));
    let cr3 = get(regs::CR3);
    let changed = old ^ value;
    let long = efer & efer::LMA != 0;
    let bad = value & !cr4_supported(model(cx.state).features) != 0
        || long && (value & cr4::PAE == 0 || changed & cr4::LA57 != 0)
        || changed & value & cr4::PCIDE != 0 && (!long || cr3 & 0xfff != 0);
    if bad {
        return Err(GENERAL_PROTECTION);
    }
    let reload = cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP;
    if is_pae(control, value, efer) && changed & reload != 0 {
        load_pdptes(cx, cr3)?;
    }
    cx.state.set(cell(regs::CR4), value);
    let translation = reload | cr4::LA57 | cr4::SMAP | cr4::PKE | cr4::PCIDE;
    if changed & translation != 0 {
        flush(cx, TlbFlush::All);
    }
    if changed & cr4::PCIDE != 0 {
        let space = space(cx.state);
        if let Some(machine) = cx.env.machine() {
            machine.switch_space(space);
        }
    }
    Ok(())
}

/// Register number in the immediate.
fn control_write(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = args[0] as u64;
    match args[3] {
        0 => write_cr0(cx, value)?,
        3 => write_cr3(cx, value)?,
        4 => write_cr4(cx, value)?,
        _ if value > 15 => return Err(GENERAL_PROTECTION),
        _ => {
            if let Some(machine) = cx.env.machine() {
                let cpu = machine.cpu();
                machine.board().set_task_priority(cpu, value as u8);
            }
        }
    }
    Ok(0)
}

fn control_read_priority(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
    let Some(machine) = cx.env.machine() else { return Ok(0) };
    let cpu = machine.cpu();
    Ok(machine.board().task_priority(cpu) as u128)
}

/// PE can be set but not cleared.
fn control_load_status(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let low = cr0::MP | cr0::EM | cr0::TS;
    let old = cx.state.get(cell(regs::CR0));
    write_cr0(cx, old & !low | args[0] as u64 & (low | cr0::PE))?;
    Ok(0)
}

fn control_invalidate(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let va = GuestVa(args[0] as u64);
    if paging::is_canonical(cx.state, va.0) {
        let space = space(cx.state);
        flush(cx, TlbFlush::Page { va, space });
    }
    Ok(0)
}

/// Type, descriptor.
fn control_invalidate_space(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (kind, low, va) = (args[0] as u64, args[1] as u64, args[2] as u64);
    let tagged = cx.state.get(cell(regs::CR4)) & cr4::PCIDE != 0;
    let space = low as u16 & 0xfff;
    let bad_space = kind < 2 && !tagged && space != 0;
    if kind > 3 || low >> 12 != 0 || bad_space || kind == 0 && !paging::is_canonical(cx.state, va) {
        return Err(GENERAL_PROTECTION);
    }
    flush(
        cx,
        match kind {
            0 => TlbFlush::NonGlobalPage { va: GuestVa(va), space },
            1 => TlbFlush::Space(space),
            2 => TlbFlush::All,
            _ => TlbFlush::NonGlobal,
        },
    );
    Ok(0)
}

/// Register number, low and high half.
fn control_set_components(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let value = args[1] as u64 | (args[2] as u64) << 32;
    let supported = cpuid::xcr0_supported(model(cx.state).features);
    let (sse, avx) = (value & cpuid::XCR0_SSE != 0, value & cpuid::XCR0_AVX != 0);
    if args[0] != 0 || value & !supported != 0 || value & cpuid::XCR0_X87 == 0 || avx && !sse {
        return Err(GENERAL_PROTECTION);
    }
    cx.state.set(cell(regs::XCR0), value);
    Ok(0)
}

/// Writes PKRU.
pub fn set_keys(cx: &mut HelperCx<'_>, keys: u32) {
    if cx.state.get(cell(regs::PKRU)) as u32 != keys {
        cx.state.set(cell(regs::PKRU), keys as u64);
        flush(cx, TlbFlush::All);
    }
}

fn control_set_keys(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    set_keys(cx, args[0] as u32);
    Ok(0)
}

const EXTENDED: &[Slot] = &[regs::CR4];
const KEYS: &[Slot] = &[regs::PKRU];

helpers! { FIRST_CONTROL;
    /// #UD unless the bit of CR4 in the immediate is set.
    NEED = control_need() -> (), Access::These(EXTENDED), Access::None, traps;
    /// #GP(0) if CR4.UMIP is set.
    PREVENTED = control_prevented() -> (), Access::These(EXTENDED), Access::None, traps;
    /// Value; the register's number in the immediate.
    WRITE = control_write(I64) -> (), Access::All, Access::All, traps;
    READ_PRIORITY = control_read_priority() -> I64, Access::None, Access::None;
    /// LMSW.
    LOAD_STATUS = control_load_status(I64) -> (), Access::All, Access::All, traps;
    /// Linear address.
    INVALIDATE = control_invalidate(I64) -> (), Access::All, Access::None;
    /// Type, low and high half of the descriptor.
    INVALIDATE_SPACE = control_invalidate_space(I64, I64, I64) -> (), Access::All, Access::None, traps;
    /// Number, low and high half.
    SET_COMPONENTS = control_set_components(I32, I32, I32) -> (), Access::All, Access::All, traps;
    /// PKRU.
    SET_KEYS = control_set_keys(I32) -> (), Access::These(KEYS), Access::These(KEYS);
}
