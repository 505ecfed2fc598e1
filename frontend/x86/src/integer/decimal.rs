//! Decimal arithmetic instructions: DAA, DAS, AAA, AAS, AAM, AAD. None of them exists in 64-bit code.

use crate::Lifter;
use crate::decode::{Row, rows};
use crate::flags::{AF, CF, PF, SF, ZF};
use crate::helpers::{FIRST_DECIMAL, helpers};
use iced_x86::{Instruction, Mnemonic, Register};
use tulk_base::Trap;
use tulk_ir::{Access, ExitKind, HelperCx, Type};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet { Daa => adjust, Das => adjust, Aaa => adjust, Aas => adjust, Aad => aad }
    loud { Aam => aam }
    codes {}
};

/// DAA, DAS, AAA, AAS
fn adjust(l: &mut Lifter<'_>, insn: &Instruction) {
    let which = match insn.mnemonic() {
        Mnemonic::Daa => 0,
        Mnemonic::Das => 1,
        Mnemonic::Aaa => 2,
        _ => 3,
    };
    let ax = l.reg(Register::AX);
    let packed = l.packed_flags();
    let both = l.call(ADJUST, &[ax, packed], which);
    let ax = l.trunc(Type::I16, both);
    l.set_reg(Register::AX, ax);
    let word = l.shr_u_imm(both, 16);
    l.set_packed_flags(word);
}

/// AAM imm
fn aam(l: &mut Lifter<'_>, insn: &Instruction) {
    if insn.immediate8() == 0 {
        let pc = l.pc;
        return l.trap(ExitKind::Arithmetic, 1, pc);
    }
    let al = l.reg(Register::AL);
    let base = l.iconst(Type::I8, insn.immediate8() as i64);
    let (q, r) = (l.div_u(al, base), l.rem_u(al, base));
    l.set_reg(Register::AL, r);
    l.set_reg(Register::AH, q);
    l.set_flags_logic(r);
}

/// AAD imm
fn aad(l: &mut Lifter<'_>, insn: &Instruction) {
    let (al, ah) = (l.reg(Register::AL), l.reg(Register::AH));
    let base = l.iconst(Type::I8, insn.immediate8() as i64);
    let tens = l.mul(ah, base);
    let sum = l.add(al, tens);
    let ax = l.zext(Type::I16, sum);
    l.set_reg(Register::AX, ax);
    l.set_flags_logic(sum);
}

fn result_flags(al: u8) -> u32 {
    let even = al.count_ones() & 1 == 0;
    let mut f = if even { PF } else { 0 };
    if al == 0 {
        f |= ZF;
    }
    if al & 0x80 != 0 {
        f |= SF;
    }
    f
}

/// AX and packed flags; AX in bits 15:0 and the new flags above. Immediate: 0 DAA, 1 DAS, 2 AAA, 3 AAS.
fn decimal_adjust(_: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (ax, f) = (args[0] as u16, args[1] as u32);
    let (al, low) = (ax as u8, ax as u8 & 15);
    let half = low > 9 || f & AF != 0;
    let add = args[3] & 1 == 0;
    let (ax, f) = if args[3] < 2 {
        let whole = al > 0x99 || f & CF != 0;
        let fix = if half { 6 } else { 0 } + if whole { 0x60 } else { 0 };
        let new = if add { al.wrapping_add(fix) } else { al.wrapping_sub(fix) };
        // DAS also carries when taking the 6 away borrows.
        let carry = whole || !add && half && al < 6;
        let carries = if carry { CF } else { 0 } | if half { AF } else { 0 };
        (ax & 0xff00 | new as u16, result_flags(new) | carries)
    } else {
        let new = match (half, add) {
            (false, _) => ax,
            (true, true) => ax.wrapping_add(0x106),
            (true, false) => ax.wrapping_sub(6).wrapping_sub(0x100),
        };
        let carries = if half { CF | AF } else { 0 };
        // Undefined flags: those of the new AL.
        let new = new & 0xff0f;
        (new, result_flags(new as u8) & !SF | carries)
    };
    Ok(ax as u128 | (f as u128) << 16)
}

helpers! { FIRST_DECIMAL;
    /// AX, packed flags; AX and above it the new flags. Immediate: 0 DAA, 1 DAS, 2 AAA, 3 AAS.
    ADJUST = decimal_adjust(I16, I32) -> I64, Access::None, Access::None, pure;
}
