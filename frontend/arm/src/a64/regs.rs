//! The register layout: which slot is which register. The slots are constants; `layout` builds the table
//! that they index, and a test holds the two together.

use tulk_ir::{RegLayout, Slot, Type};

/// `N` consecutive slots.
const fn run<const N: usize>(first: u16) -> [Slot; N] {
    let mut slots = [Slot(0); N];
    let mut i = 0;
    while i < N {
        slots[i] = Slot(first + i as u16);
        i += 1;
    }
    slots
}

/// x0 to x30.
pub const X: [Slot; 31] = run(0);
pub const SP: Slot = Slot(31);
/// The condition flags, packed as in [`tulk_ir::types::nzcv`]; the other bits are zero.
pub const NZCV: Slot = Slot(32);
/// v0 to v31.
pub const V: [Slot; 32] = run(33);
pub const FPSR: Slot = Slot(65);
pub const FPCR: Slot = Slot(66);
pub const TPIDR_EL0: Slot = Slot(67);
/// Read-only for the guest.
pub const TPIDRRO_EL0: Slot = Slot(68);
/// Address of the exclusive monitor; all ones when there is none.
pub const EXCL_ADDR: Slot = Slot(69);
/// What the load-exclusive saw: zero-extended, or the low half of sixteen bytes.
pub const EXCL_LO: Slot = Slot(70);
pub const EXCL_HI: Slot = Slot(71);
/// PSTATE.DIT in bit 24 and PSTATE.SSBS in bit 12, where MRS shows them.
pub const DIT: Slot = Slot(72);
pub const SSBS: Slot = Slot(73);
/// Non-zero once the program has used an address with a tag: see [`super::KEY_TAGGED`].
pub const TAGGED: Slot = Slot(74);
/// FPSR.QC since FPSR was last loaded: set when any bit is. A vector, so that saturating instructions only have
/// to or their lanes' differences into it; the FPSR slot has the bit after [`super::fpstate::save`].
pub const QC: Slot = Slot(75);
/// Non-zero once SP was misaligned: see [`super::KEY_SP_CHECKED`].
pub const SP_CHECKED: Slot = Slot(76);

/// The first state cell of a slot of this layout.
pub const fn cell(slot: Slot) -> u16 {
    let first = tulk_base::state::CELL_GUEST;
    match slot.0 {
        n @ 0..=32 => first + n,
        // Pairs of cells start at an even one; so does `QC`'s without a gap.
        n @ 33..=64 => first + 34 + 2 * (n - 33),
        n @ 65..=75 => first + 98 + (n - 65),
        n => first + 99 + (n - 65),
    }
}

/// The layout. gdb's numbers are those of its `aarch64` core and fpu features (pc is 32).
pub fn layout() -> RegLayout {
    let mut layout = RegLayout::new();
    for n in 0..31 {
        layout.add(format!("x{n}"), Type::I64, Some(n));
    }
    layout.add("sp", Type::I64, Some(31));
    layout.add("cpsr", Type::I32, Some(33));
    for n in 0..32 {
        layout.add(format!("v{n}"), Type::V128, Some(34 + n));
    }
    layout.add("fpsr", Type::I32, Some(66));
    layout.add("fpcr", Type::I32, Some(67));
    for name in
        ["tpidr_el0", "tpidrro_el0", "excl_addr", "excl_lo", "excl_hi", "dit", "ssbs", "tagged"]
    {
        layout.add(name, Type::I64, None);
    }
    layout.add("qc", Type::V128, None);
    layout.add("sp_checked", Type::I64, None);
    layout
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_the_layout() {
        let layout = layout();
        for (slot, name) in [
            (X[0], "x0"),
            (X[30], "x30"),
            (SP, "sp"),
            (NZCV, "cpsr"),
            (V[0], "v0"),
            (V[31], "v31"),
            (FPSR, "fpsr"),
            (FPCR, "fpcr"),
            (TPIDR_EL0, "tpidr_el0"),
            (TPIDRRO_EL0, "tpidrro_el0"),
            (EXCL_ADDR, "excl_addr"),
            (EXCL_LO, "excl_lo"),
            (EXCL_HI, "excl_hi"),
            (DIT, "dit"),
            (SSBS, "ssbs"),
            (TAGGED, "tagged"),
            (QC, "qc"),
            (SP_CHECKED, "sp_checked"),
        ] {
            assert_eq!(layout.def(slot).name, name);
        }
        assert_eq!(layout.slots().len(), SP_CHECKED.0 as usize + 1);
        for n in 0..layout.slots().len() as u16 {
            assert_eq!(layout.cell(Slot(n)), cell(Slot(n)), "{}", layout.def(Slot(n)).name);
        }
    }
}
