//! The text form of a [`Unit`], generated from the op table. [`crate::parser`] reads it back exactly.
//!
//! ```text
//! unit 0x1000 len 8 insns 2 flags 0x0 fp arm
//! local0: i64
//! block0:
//!     insn 0x1000, 4
//!     v0 = get x0
//!     v1 = load.i64 v0+16 s32.acq
//!     set x1, v1
//!     exit jump 0x1008
//! ```
//!
//! An instruction is `[value =] name[.type or .shape] [aux] pieces`, the pieces (operands and immediates) in
//! the order that [`pieces`] gives for the op's kind of immediate. The type is left out where the op allows
//! only one or the shape implies it. `docs/ir.md` shows every form; `ir/tests/text.rs` holds the round trip.

use crate::helper::HelperDef;
use crate::layout::{RegLayout, Slot};
use crate::op::{Aux, Class, Imm, OpInfo};
use crate::types::*;
use crate::unit::{ExitKind, Inst, Unit, Value};
use std::fmt::{self, Display, Formatter, Write};

/// One part of an instruction's text after its name, separated by commas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Piece {
    /// The operands that no other piece has taken. Absent ones are `-`, left out at the end.
    Operands,
    /// `v1+16 u32`: the first operand with `imm` as offset, and the memop.
    Address,
    /// `v1 u32`: the same without offset.
    PlainAddress,
    /// `v1[3]`: the first operand with a lane number.
    Indexed,
    /// `name(v1, v2)`: a helper and all operands.
    Callee,
    /// `imm` as a number.
    Number,
    /// `imm` as a pc.
    Pc,
    /// The pool's constant.
    Constant,
    /// `imm2` as a number.
    Small,
    /// A slot's name, `localN`, or `slotN`.
    Slot,
    /// `4..12`: lowest bit and the bit behind the highest.
    Field,
    /// Block `imm2`.
    Block,
    /// Block `imm`.
    ElseBlock,
}

/// The pieces of an instruction with this kind of immediate, in text order.
pub(crate) fn pieces(imm: Imm) -> &'static [Piece] {
    use Piece::*;
    match imm {
        Imm::None => &[Operands],
        Imm::Const => &[Number],
        Imm::Pool => &[Operands, Constant],
        Imm::Mem => &[Address, Operands],
        Imm::MemOp => &[PlainAddress, Operands],
        Imm::Slot => &[Slot, Operands],
        Imm::Lane => &[Indexed, Operands],
        Imm::Amount => &[Operands, Small],
        Imm::Field => &[Operands, Field],
        Imm::Block => &[Block],
        Imm::Blocks => &[Operands, Block, ElseBlock],
        Imm::Pc => &[Pc, Operands],
        Imm::Insn => &[Pc, Small],
        Imm::Trap => &[Pc, Small],
        Imm::Helper => &[Callee, Number],
    }
}

/// What follows the dot after an op's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Suffix {
    Nothing,
    Type,
    Shape,
}

pub(crate) fn suffix(info: &OpInfo) -> Suffix {
    if info.shaped {
        Suffix::Shape
    } else if matches!(info.class, Class::Unused | Class::V128)
        || matches!(info.imm, Imm::Slot | Imm::Helper)
    {
        Suffix::Nothing
    } else {
        Suffix::Type
    }
}

/// Names of [`tulk_base::RmwOp::ALL`].
pub(crate) const RMW_NAMES: [&str; 11] =
    ["xchg", "add", "sub", "and", "and_not", "or", "xor", "min_s", "max_s", "min_u", "max_u"];

/// The word behind the dot for bit 7 of `aux`.
pub(crate) fn aux_flag_name(aux: Aux) -> Option<&'static str> {
    match aux {
        Aux::FloatCc => Some("sig"),
        Aux::RoundExact => Some("exact"),
        Aux::RoundRange => Some("indef"),
        _ => None,
    }
}

/// Names of the values of `aux` (without bit 7), in order.
pub(crate) fn aux_names(aux: Aux) -> Vec<&'static str> {
    fn names<T: Copy>(all: &[T], name: impl Fn(T) -> &'static str) -> Vec<&'static str> {
        all.iter().map(|&x| name(x)).collect()
    }
    match aux {
        Aux::None | Aux::Overwriting => Vec::new(),
        Aux::IntCc => names(IntCc::ALL, IntCc::name),
        Aux::FloatCc => names(FloatCc::ALL, FloatCc::name),
        Aux::RoundExact | Aux::RoundRange => names(Round::ALL, Round::name),
        Aux::MinKind => names(MinKind::ALL, MinKind::name),
        Aux::NzcvCond => names(NzcvCond::ALL, NzcvCond::name),
        Aux::Rmw => RMW_NAMES.to_vec(),
        Aux::Fence => names(FenceKind::ALL, FenceKind::name),
        Aux::Exit => names(&ExitKind::ALL, ExitKind::name),
        Aux::Signalling => vec!["quiet"],
    }
}

fn write_aux(f: &mut Formatter<'_>, kind: Aux, aux: u8) -> fmt::Result {
    if kind == Aux::None {
        return Ok(());
    }
    if kind == Aux::Signalling {
        return f.write_str(if aux & 0x80 != 0 { " sig" } else { " quiet" });
    }
    if kind == Aux::Overwriting {
        return f.write_str(if aux & 0x80 != 0 { " overwriting" } else { "" });
    }
    match aux_names(kind).get((aux & 0x7f) as usize) {
        Some(name) => write!(f, " {name}")?,
        None => write!(f, " ?{}", aux & 0x7f)?,
    }
    match aux_flag_name(kind) {
        Some(flag) if aux & 0x80 != 0 => write!(f, ".{flag}"),
        _ => Ok(()),
    }
}

/// Small numbers in decimal, others in hexadecimal as unsigned 64-bit numbers.
fn write_number(f: &mut Formatter<'_>, n: i64) -> fmt::Result {
    if (-0xffff..=0xffff).contains(&n) { write!(f, "{n}") } else { write!(f, "{n:#x}") }
}

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A unit with the tables that turn its numbers into names; see [`Unit::display`].
#[derive(Clone, Copy)]
pub struct Text<'a> {
    unit: &'a Unit,
    layout: Option<&'a RegLayout>,
    helpers: &'a [HelperDef],
}

impl Unit {
    /// The unit as text with the layout's register names. Helpers print as `helperN`, see [`Text::helpers`].
    pub fn display<'a>(&'a self, layout: &'a RegLayout) -> Text<'a> {
        Text { unit: self, layout: Some(layout), helpers: &[] }
    }
}

/// Slots print as `slotN`, helpers as `helperN`. [`Unit::display`] gives names.
impl Display for Unit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Text { unit: self, layout: None, helpers: &[] }.fmt(f)
    }
}

impl<'a> Text<'a> {
    /// With the names of helpers.
    pub fn helpers(self, helpers: &'a [HelperDef]) -> Text<'a> {
        Text { helpers, ..self }
    }

    /// One instruction of the unit as text, without indentation.
    pub fn inst(self, inst: &'a Inst) -> impl Display + 'a {
        struct One<'a>(Text<'a>, &'a Inst);
        impl Display for One<'_> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.0.write_inst(f, self.1)
            }
        }
        One(self, inst)
    }

    fn write_slot(&self, f: &mut Formatter<'_>, slot: Slot) -> fmt::Result {
        match (slot.as_local(), self.layout) {
            (Some(n), _) => write!(f, "local{n}"),
            (None, Some(layout)) if (slot.0 as usize) < layout.slots().len() => {
                f.write_str(&layout.def(slot).name)
            }
            _ => write!(f, "slot{}", slot.0),
        }
    }

    fn write_operands(&self, f: &mut Formatter<'_>, mut args: &[Value]) -> fmt::Result {
        while let [rest @ .., last] = args
            && last.is_none()
        {
            args = rest;
        }
        for (i, arg) in args.iter().enumerate() {
            write!(f, "{}{arg}", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }

    fn write_inst(&self, f: &mut Formatter<'_>, inst: &Inst) -> fmt::Result {
        let info = inst.op.info();
        if !inst.dst.is_none() {
            write!(f, "{} = ", inst.dst)?;
        }
        f.write_str(info.name)?;
        match suffix(info) {
            Suffix::Nothing => {}
            Suffix::Type => write!(f, ".{}", inst.ty)?,
            Suffix::Shape => write!(f, ".{}", inst.shape)?,
        }
        write_aux(f, info.aux, inst.aux)?;
        let mut separator = " ";
        for &piece in pieces(info.imm) {
            let rest = match pieces(info.imm)[0] {
                Piece::Address | Piece::PlainAddress | Piece::Indexed => &inst.args[1..],
                _ => &inst.args[..],
            };
            if piece == Piece::Operands && rest.iter().all(|a| a.is_none()) {
                continue;
            }
            f.write_str(separator)?;
            separator = ", ";
            match piece {
                Piece::Operands => self.write_operands(f, rest)?,
                Piece::Address => {
                    write!(f, "{}", inst.args[0])?;
                    if inst.imm != 0 {
                        f.write_char(if inst.imm < 0 { '-' } else { '+' })?;
                        match inst.imm.unsigned_abs() {
                            n @ 0..=0xffff => write!(f, "{n}")?,
                            n => write!(f, "{n:#x}")?,
                        }
                    }
                    write!(f, " {}", inst.memop())?;
                }
                Piece::PlainAddress => write!(f, "{} {}", inst.args[0], inst.memop())?,
                Piece::Indexed => write!(f, "{}[{}]", inst.args[0], inst.imm2)?,
                Piece::Callee => {
                    match self.helpers.get(inst.imm2 as usize) {
                        Some(helper) => f.write_str(helper.name)?,
                        None => write!(f, "helper{}", inst.imm2)?,
                    }
                    f.write_char('(')?;
                    self.write_operands(f, &inst.args)?;
                    f.write_char(')')?;
                }
                Piece::Number => write_number(f, inst.imm)?,
                Piece::Pc => write!(f, "{:#x}", inst.imm)?,
                Piece::Constant => match self.unit.pool.get(inst.imm as usize) {
                    Some(c) => write!(f, "{c:#034x}")?,
                    None => write!(f, "?{}", inst.imm)?,
                },
                Piece::Small => write!(f, "{}", inst.imm2)?,
                Piece::Slot => self.write_slot(f, inst.slot())?,
                Piece::Field => {
                    let (lsb, width) = inst.field();
                    write!(f, "{lsb}..{}", lsb + width)?;
                }
                Piece::Block => write!(f, "block{}", inst.imm2)?,
                Piece::ElseBlock => write!(f, "block{}", inst.imm)?,
            }
        }
        Ok(())
    }
}

impl Display for Text<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Unit { pc, len, flags, guest_insns, fp, .. } = self.unit;
        writeln!(f, "unit {pc:#x} len {len} insns {guest_insns} flags {flags:#x} fp {fp}")?;
        for (n, ty) in self.unit.locals.iter().enumerate() {
            writeln!(f, "local{n}: {ty}")?;
        }
        for block in 0..self.unit.blocks.len() as u32 {
            writeln!(f, "block{block}:")?;
            for inst in self.unit.block(block) {
                f.write_str("    ")?;
                self.write_inst(f, inst)?;
                f.write_char('\n')?;
            }
        }
        Ok(())
    }
}
