//! A whole processor's registers as GDB knows them, and what follows when a debugger changes one.
//!
//! GDB reads the description once and keeps it while the processor goes from 16 to 32 to 64 bits. So the description of a
//! processor with long mode is `i386:x86-64` and has the registers of both of GDB's architectures: `set architecture i386` (or
//! `i8086`, `i386:x86-64`) works at any time. That must not move anything in the `g` packet, though a pointer has 4 bytes in one and
//! 8 in the other: `rip`, the only register of a pointer's type, is the packet's last, and the 32-bit GDB finds `rip_high` in its upper half.
//!
//! `rip` and `eip` are linear addresses, as breakpoints and memory are: `x/i $pc` is right whatever CS is. `ip` is the offset in CS.
//!
//! Names are QEMU's where it has the register.

use crate::debug;
use crate::regs::{self, cell};
use crate::system::{control, msr, segment};
use tulk_base::CpuState;
use tulk_base::state::{CELL_GUEST, CELL_TEMPS};
use tulk_frontend::debug::{Feature, Register, Registers, Source};
use tulk_ir::{HelperCx, RegLayout, Slot};

/// CR8 is the board's: who shows a state puts it here, where the interpreter has temporaries while it runs.
pub const CR8_CELL: u16 = CELL_TEMPS;

const TYPES: &str = r#"<flags id="x86_cr0" size="4"><field name="PE" start="0" end="0"/><field name="MP" start="1" end="1"/>
<field name="EM" start="2" end="2"/><field name="TS" start="3" end="3"/><field name="ET" start="4" end="4"/>
<field name="NE" start="5" end="5"/><field name="WP" start="16" end="16"/><field name="AM" start="18" end="18"/>
<field name="NW" start="29" end="29"/><field name="CD" start="30" end="30"/><field name="PG" start="31" end="31"/></flags>
<flags id="x86_cr4" size="4"><field name="VME" start="0" end="0"/><field name="PVI" start="1" end="1"/>
<field name="TSD" start="2" end="2"/><field name="DE" start="3" end="3"/><field name="PSE" start="4" end="4"/>
<field name="PAE" start="5" end="5"/><field name="MCE" start="6" end="6"/><field name="PGE" start="7" end="7"/>
<field name="PCE" start="8" end="8"/><field name="OSFXSR" start="9" end="9"/><field name="OSXMMEXCPT" start="10" end="10"/>
<field name="UMIP" start="11" end="11"/><field name="LA57" start="12" end="12"/><field name="FSGSBASE" start="16" end="16"/>
<field name="PCIDE" start="17" end="17"/><field name="OSXSAVE" start="18" end="18"/><field name="SMEP" start="20" end="20"/>
<field name="SMAP" start="21" end="21"/><field name="PKE" start="22" end="22"/></flags>
<flags id="x86_efer" size="4"><field name="SCE" start="0" end="0"/><field name="LME" start="8" end="8"/>
<field name="LMA" start="10" end="10"/><field name="NXE" start="11" end="11"/></flags>
"#;

/// Registers that user programs do not have: name, slot, bits, type. Those of flags have 32 bits, of which alone any are in use: gdb assigns
/// no plain numbers to longer flags.
const SYSTEM: &[(&str, Slot, u16, &str)] = &[
    ("k_gs_base", regs::KERNEL_GS_BASE, 64, "int64"),
    ("es_base", regs::SEG_BASE[regs::ES], 64, "int64"),
    ("cs_base", regs::SEG_BASE[regs::CS], 64, "int64"),
    ("ss_base", regs::SEG_BASE[regs::SS], 64, "int64"),
    ("ds_base", regs::SEG_BASE[regs::DS], 64, "int64"),
    ("cr0", regs::CR0, 32, "x86_cr0"),
    ("cr2", regs::CR2, 64, "int64"),
    ("cr3", regs::CR3, 64, "int64"),
    ("cr4", regs::CR4, 32, "x86_cr4"),
    ("efer", regs::EFER, 32, "x86_efer"),
    ("xcr0", regs::XCR0, 64, "int64"),
    ("gdtr_base", regs::GDTR_BASE, 64, "int64"),
    ("gdtr_limit", regs::GDTR_LIMIT, 32, "int32"),
    ("idtr_base", regs::IDTR_BASE, 64, "int64"),
    ("idtr_limit", regs::IDTR_LIMIT, 32, "int32"),
    ("ldtr", regs::LDTR, 32, "int32"),
    ("tr", regs::TR, 32, "int32"),
    ("dr0", regs::DR[0], 64, "int64"),
    ("dr1", regs::DR[1], 64, "int64"),
    ("dr2", regs::DR[2], 64, "int64"),
    ("dr3", regs::DR[3], 64, "int64"),
    ("dr6", regs::DR[6], 64, "int64"),
    ("dr7", regs::DR[7], 64, "int64"),
];

/// GDB's names of the 32-bit registers, in the encoding's order.
const NAMES32: [&str; 8] = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];

/// The pc's offset in CS.
const OFFSET: Source = Source::Composed {
    read: |state| state.pc().wrapping_sub(state.get(cell(regs::SEG_BASE[regs::CS]))) as u128,
    write: |state, value| {
        let base = state.get(cell(regs::SEG_BASE[regs::CS]));
        state.set_pc(segment::wrap(state, base.wrapping_add(value as u64)));
    },
};

const PC_HIGH: Source = Source::Composed {
    read: |state| (state.pc() >> 32) as u128,
    write: |state, value| {
        let low = state.pc() & 0xffff_ffff;
        state.set_pc(low | (value as u64) << 32);
    },
};

/// See the module. `long`: the processor has long mode.
pub fn registers(layout: &RegLayout, long: bool) -> Registers {
    let mut all = debug::registers(layout, true);
    // No system call is ours.
    all.features.retain(|f| f.name != "org.gnu.gdb.i386.linux");
    let mut next = 1 + all.by_number().last().map_or(0, |r| r.number);
    let mut number = || {
        next += 1;
        next - 1
    };
    let register = |name: &str, number, bits, ty, source| Register {
        name: name.into(),
        number,
        bits,
        ty,
        group: None,
        source,
    };
    let mut system: Vec<Register> = SYSTEM
        .iter()
        .map(|&(name, slot, bits, ty)| {
            let mut r = register(name, number(), bits, ty, Source::Cell(cell(slot)));
            r.group = Some("system");
            r
        })
        .collect();
    let mut cr8 = register("cr8", number(), 64, "int64", Source::Cell(CR8_CELL));
    cr8.group = Some("system");
    system.push(cr8);
    let Some(core) = all.features.iter_mut().find(|f| f.name == "org.gnu.gdb.i386.core") else {
        return all;
    };
    let mut rip = None;
    core.registers.retain(|r| {
        let is_pc = r.name == "rip";
        if is_pc {
            rip = Some(r.clone());
        }
        !is_pc
    });
    for r in &mut core.registers {
        if matches!(r.name.as_str(), "rsp" | "rbp") {
            r.ty = "int64";
        }
    }
    // The place that the pc had.
    core.registers.push(register("ip", 16, 64, "int64", OFFSET));
    for (name, slot) in NAMES32.iter().zip(regs::GPR) {
        core.registers.push(register(name, number(), 32, "int32", Source::Cell(cell(slot))));
    }
    core.registers.push(register("eip", number(), 32, "int32", Source::Pc));
    let last = number();
    if let Some(mut rip) = rip {
        rip.number = last;
        core.registers.push(rip);
    }
    let high = number();
    core.registers.push(register("rip_high", high, 32, "int32", PC_HIGH));
    core.registers.sort_by_key(|r| r.number);
    all.whole = high;
    all.features.push(Feature { name: "org.tulk.x86.system", types: TYPES, registers: system });
    all.architecture = if long { "i386:x86-64" } else { "i386" };
    all
}

/// Copies pc, registers and [`CR8_CELL`].
pub fn copy(to: &mut CpuState, from: &CpuState) {
    let guest = CELL_GUEST as usize..cell(Slot(regs::COUNT - 1)) as usize + 1;
    to.cells[guest.clone()].copy_from_slice(&from.cells[guest]);
    to.set_pc(from.pc());
    to.set(CR8_CELL, from.get(CR8_CELL));
}

/// Gives a processor the registers that a debugger left in `new`, with what follows from them: translations are dropped, segments
/// get their bases. False when the processor refused one (as it would refuse the instruction); others are changed then.
pub fn apply(cx: &mut HelperCx<'_>, new: &CpuState) -> bool {
    let control_registers = [regs::CR0, regs::CR3, regs::CR4, regs::EFER];
    let special = |c: u16| control_registers.iter().chain(&regs::SEG).any(|&slot| cell(slot) == c);
    let changed = |cx: &HelperCx<'_>, slot| {
        let (old, new) = (cx.state.get(cell(slot)), new.get(cell(slot)));
        (old != new).then_some(new)
    };
    let mut good = true;
    if let Some(value) = changed(cx, regs::EFER) {
        good &= msr::write(cx, msr::number::EFER, value).is_some();
    }
    if let Some(value) = changed(cx, regs::CR4) {
        good &= control::write_cr4(cx, value).is_ok();
    }
    if let Some(value) = changed(cx, regs::CR3) {
        good &= control::write_cr3(cx, value).is_ok();
    }
    if let Some(value) = changed(cx, regs::CR0) {
        good &= control::write_cr0(cx, value).is_ok();
    }
    for c in (CELL_GUEST..cell(Slot(regs::COUNT - 1)) + 1).filter(|&c| !special(c)) {
        if cx.state.get(c) != new.get(c) {
            cx.state.set(c, new.get(c));
        }
    }
    for seg in 0..6 {
        if let Some(selector) = changed(cx, regs::SEG[seg]) {
            good &= set_segment(cx, seg, selector as u16);
        }
    }
    cx.state.set_pc(new.pc());
    if let Some(machine) = cx.env.machine() {
        let cpu = machine.cpu();
        let priority = new.get(CR8_CELL);
        good &= priority < 16;
        if priority < 16 && machine.board().task_priority(cpu) != priority as u8 {
            machine.board().set_task_priority(cpu, priority as u8);
        }
    }
    good
}

/// Loads a segment register without regard to rights; the privilege level stays.
fn set_segment(cx: &mut HelperCx<'_>, seg: usize, selector: u16) -> bool {
    if segment::real_segments(cx.state) {
        segment::set_8086(cx.state, seg, selector);
        return true;
    }
    if segment::is_null(selector) {
        segment::set_null(cx.state, seg, selector);
        return true;
    }
    match segment::lookup(cx, selector) {
        Ok(Some(entry)) => {
            crate::segment::set_segment(cx.state, seg, selector, entry.raw);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mode;

    fn all() -> Registers {
        registers(&regs::layout(Mode::X86_64), true)
    }

    #[test]
    fn numbers_and_names_are_unique() {
        let all = all();
        let mut names: Vec<&str> = all.by_number().iter().map(|r| r.name.as_str()).collect();
        let mut numbers: Vec<u16> = all.by_number().iter().map(|r| r.number).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        numbers.dedup();
        assert_eq!((names.len(), numbers.len()), (count, count));
        for name in ["rax", "eax", "cs", "fs_base", "k_gs_base", "cr0", "cr8", "efer", "ymm15h"] {
            assert!(names.binary_search(&name).is_ok(), "{name}");
        }
    }

    /// What is behind the last register of the `g` packet must be where a 32-bit GDB looks for it.
    #[test]
    fn the_pc_is_last() {
        let all = all();
        let order = all.by_number();
        let [.., rip, high] = &order[..] else { unreachable!() };
        assert_eq!((rip.name.as_str(), rip.bits, high.name.as_str()), ("rip", 64, "rip_high"));
        assert_eq!(all.whole, high.number);
        let pointers = order.iter().filter(|r| r.ty.ends_with("_ptr"));
        assert_eq!(pointers.map(|r| r.name.as_str()).collect::<Vec<_>>(), ["rip"]);
    }

    #[test]
    fn the_pc_in_both_forms() {
        let all = all();
        let named = |name: &str| all.by_number().into_iter().find(|r| r.name == name).unwrap();
        let state = &mut *CpuState::new();
        state.set(cell(regs::SEG_BASE[regs::CS]), 0xffff_0000);
        state.set_pc(0xffff_fff0);
        assert_eq!(named("ip").read(state), Some(0xfff0));
        named("ip").write(state, 0xe05b);
        assert_eq!((state.pc(), named("eip").read(state)), (0xffff_e05b, Some(0xffff_e05b)));
        state.set_pc(0xffff_ffff_8100_0000);
        assert_eq!(named("rip_high").read(state), Some(0xffff_ffff));
    }
}
