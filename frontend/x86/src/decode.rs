//! From iced-x86's instruction codes to lift functions.
//!
//! The chapters list their instructions in tables of [`Row`]s, by mnemonic or, where one mnemonic names unrelated
//! instructions, by code. [`Table::new`] turns them into one array indexed by code, without the codes that the CPU
//! model lacks; those lift to #UD, as does what iced does not decode.

use crate::cpu::{Feature, Features};
use crate::flags;
use crate::lifter::Lifter;
use crate::system::unit::Class;
use crate::{fpstate, integer, mmx, sse, system, x87};
use iced_x86::{Code, EncodingKind, Instruction, Mnemonic, OpKind, RflagsBits};

/// Writes one instruction's IR. The lifter's `pc` and `next` are set.
pub type Lift = fn(&mut Lifter<'_>, &Instruction);

/// Which instructions a row is about.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    Mnemonic(Mnemonic),
    /// Beats a row by mnemonic.
    Code(Code),
}

/// One instruction (family) and its lift function.
#[derive(Clone, Copy)]
pub struct Row {
    pub which: Which,
    pub lift: Lift,
    /// The unit can only be left in this instruction by a fault of its explicit memory operand. A row that is
    /// not quiet sees all arithmetic flags in their slots.
    pub quiet: bool,
}

/// Rows of a chapter: `rows! { quiet { Mnemonic => function, ... } loud { ... } codes { Code => function } }`.
/// See [`Row::quiet`]; rows by code are loud.
macro_rules! rows {
    (quiet { $($q:ident => $qf:expr),* $(,)? } loud { $($l:ident => $lf:expr),* $(,)? }
     codes { $($c:ident => $cf:expr),* $(,)? }) => {
        &[
            $($crate::decode::Row {
                which: $crate::decode::Which::Mnemonic(iced_x86::Mnemonic::$q), lift: $qf, quiet: true,
            },)*
            $($crate::decode::Row {
                which: $crate::decode::Which::Mnemonic(iced_x86::Mnemonic::$l), lift: $lf, quiet: false,
            },)*
            $($crate::decode::Row {
                which: $crate::decode::Which::Code(iced_x86::Code::$c), lift: $cf, quiet: false,
            },)*
        ]
    };
}
pub(crate) use rows;

/// The chapters' tables.
pub const CHAPTERS: &[&[Row]] = &[
    integer::transfer::ROWS,
    integer::arithmetic::ROWS,
    integer::decimal::ROWS,
    integer::logic::ROWS,
    integer::shift::ROWS,
    integer::bit::ROWS,
    integer::control::ROWS,
    integer::flag::ROWS,
    integer::string::ROWS,
    integer::system::ROWS,
    x87::ROWS,
    mmx::ROWS,
    sse::ROWS,
    fpstate::ROWS,
];

/// What the lift loop knows about a code.
#[derive(Clone, Copy)]
pub struct Entry {
    pub lift: Lift,
    pub quiet: bool,
    pub accepted: bool,
    /// For system mode.
    pub class: Class,
}

/// Entries by code.
pub struct Table(Box<[Entry]>);

impl Table {
    /// The table of user mode.
    pub fn new(features: Features) -> Table {
        Table::of(CHAPTERS, &[], features)
    }

    /// The table of system mode: what [`system`] has replaces the rows of the same code or mnemonic.
    pub fn new_system(features: Features) -> Table {
        Table::of(CHAPTERS, system::CHAPTERS, features)
    }

    fn of(chapters: &[&[Row]], better: &[&[Row]], features: Features) -> Table {
        let none = Entry { lift: undefined, quiet: false, accepted: false, class: Class::Other };
        let mut entries = vec![none; Code::values().len()];
        for chapters in [better, chapters] {
            let mut by_code = vec![None; Code::values().len()];
            let mut by_mnemonic = vec![None; Mnemonic::values().len()];
            for row in chapters.iter().flat_map(|c| c.iter()) {
                let place = match row.which {
                    Which::Code(code) => &mut by_code[code as usize],
                    Which::Mnemonic(m) => &mut by_mnemonic[m as usize],
                };
                assert!(place.is_none(), "two rows for {:?}", row.which);
                *place = Some(row);
            }
            for code in Code::values() {
                let entry = &mut entries[code as usize];
                let row = by_code[code as usize].or(by_mnemonic[code.mnemonic() as usize]);
                if let (false, Some(row)) = (entry.accepted, row) {
                    let class = if better.is_empty() { Class::Other } else { Class::of(code) };
                    *entry = Entry { lift: row.lift, quiet: row.quiet, accepted: true, class };
                }
            }
        }
        for code in Code::values() {
            if !available(code, features) {
                entries[code as usize] = none;
            }
        }
        // Only then, since the flags depend on the meaning.
        for code in Code::values() {
            if let (false, Some(old)) = (entries[code as usize].accepted, older_meaning(code)) {
                entries[code as usize] = Entry { quiet: false, ..entries[old as usize] };
            }
        }
        Table(entries.into_boxed_slice())
    }

    #[inline]
    pub fn entry(&self, code: Code) -> &Entry {
        &self.0[code as usize]
    }
}

/// What an instruction is on processors older than itself: prefixes that mean nothing to them are ignored.
fn older_meaning(code: Code) -> Option<Code> {
    use Code::*;
    Some(match code {
        Tzcnt_r16_rm16 => Bsf_r16_rm16,
        Tzcnt_r32_rm32 => Bsf_r32_rm32,
        Tzcnt_r64_rm64 => Bsf_r64_rm64,
        Lzcnt_r16_rm16 => Bsr_r16_rm16,
        Lzcnt_r32_rm32 => Bsr_r32_rm32,
        Lzcnt_r64_rm64 => Bsr_r64_rm64,
        Rdsspd_r32 => Reservednop_rm32_r32_0F1E,
        Rdsspq_r64 => Reservednop_rm64_r64_0F1E,
        Wbnoinvd => Wbinvd,
        _ => return None,
    })
}

/// Whether a CPU with these features has the instruction, in any mode: where iced decodes 32-bit code it finds no other's.
/// ([`Code::op_code`] would know, but makes a table of a megabyte.)
fn available(code: Code, features: Features) -> bool {
    let old = code.encoding() == EncodingKind::EVEX || code.encoding() == EncodingKind::MVEX;
    !old && code.cpuid_features().iter().all(|&f| Feature::covers(features, f))
}

/// UD0, UD1, UD2, undefined opcodes, and what the CPU model lacks.
pub fn undefined(l: &mut Lifter<'_>, _: &Instruction) {
    l.undefined();
}

/// Whether an instruction certainly replaces all arithmetic flags, reads none, and does nothing that could fault.
pub fn overwrites_flags(insn: &Instruction) -> bool {
    use Mnemonic::*;
    matches!(
        insn.mnemonic(),
        Add | Sub
            | Cmp
            | And
            | Or
            | Xor
            | Test
            | Neg
            | Imul
            | Mul
            | Shl
            | Sal
            | Shr
            | Sar
            | Shld
            | Shrd
    ) && !insn.op_kinds().any(|kind| kind == OpKind::Memory)
        && flag_effects(insn) == (0, flags::ALL)
}

/// Arithmetic flags that an instruction reads, and those that it certainly replaces, as in EFLAGS.
pub fn flag_effects(insn: &Instruction) -> (u32, u32) {
    use Mnemonic::*;
    let kills = match insn.mnemonic() {
        // We keep what the manual leaves undefined.
        Bt | Bts | Btr | Btc => flags::CF,
        Bsf | Bsr => flags::ZF,
        Div | Idiv => 0,
        // A repetition that is none leaves the flags alone.
        _ if (insn.has_rep_prefix() || insn.has_repne_prefix()) && insn.is_string_instruction() => {
            0
        }
        // A count of zero changes nothing.
        Shl | Sal | Shr | Sar | Rol | Ror | Rcl | Rcr if insn.op1_kind() == OpKind::Register => 0,
        Shld | Shrd if insn.op2_kind() == OpKind::Register => 0,
        Shl | Sal | Shr | Sar | Shld | Shrd | Rol | Ror | Rcl | Rcr => {
            let last = insn.op_count() - 1;
            let wide = insn.op0_register().is_gpr64() || insn.memory_size().size() == 8;
            let mask = if wide { 63 } else { 31 };
            match insn.mnemonic() {
                _ if insn.immediate(last) & mask == 0 => 0,
                // By a multiple of the width plus one they leave the flags alone, which iced knows and we do not.
                Rcl | Rcr => return (flags::CF | flags::OF, flags::CF | flags::OF),
                Rol | Ror => flags::CF | flags::OF,
                _ => flags::ALL,
            }
        }
        _ => of_iced(insn.rflags_modified()),
    };
    (of_iced(insn.rflags_read()), kills)
}

/// iced's flag bits (of which the six arithmetic flags are the lowest) as EFLAGS has them.
fn of_iced(bits: u32) -> u32 {
    const TABLE: [u16; 64] = {
        let map = [
            (RflagsBits::CF, flags::CF),
            (RflagsBits::PF, flags::PF),
            (RflagsBits::AF, flags::AF),
            (RflagsBits::ZF, flags::ZF),
            (RflagsBits::SF, flags::SF),
            (RflagsBits::OF, flags::OF),
        ];
        let mut table = [0; 64];
        let mut i = 0;
        while i < 64 {
            let mut k = 0;
            while k < 6 {
                assert!(map[k].0 < 64);
                if i as u32 & map[k].0 != 0 {
                    table[i] |= map[k].1 as u16;
                }
                k += 1;
            }
            i += 1;
        }
        table
    };
    TABLE[bits as usize & 63] as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions};

    /// Every opcode with every ModRM byte, in all encodings that we decode: what 64-bit code alone has is not found elsewhere.
    #[test]
    fn shorter_code_has_no_instructions_of_64_bits() {
        let mut prefixes: Vec<Vec<u8>> = Vec::new();
        for map in [&[][..], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a]] {
            for prefix in [&[][..], &[0x66], &[0xf2], &[0xf3]] {
                prefixes.push([prefix, map].concat());
            }
        }
        for w_vvvv_l_pp in (0..=255).filter(|bits| matches!(bits >> 3 & 15, 0 | 5 | 15)) {
            prefixes.extend((1..=3).map(|map| vec![0xc4, 0xe0 | map, w_vvvv_l_pp]));
            prefixes.extend((8..=10).map(|map| vec![0x8f, 0xe0 | map, w_vvvv_l_pp]));
        }
        let only_64: Vec<bool> = Code::values()
            .map(|code| !code.op_code().mode16() && !code.op_code().mode32())
            .collect();
        let mut bytes = Vec::new();
        let mut found = std::collections::BTreeSet::new();
        for (prefix, opcode) in prefixes.iter().flat_map(|p| (0..=255).map(move |op| (p, op))) {
            for modrm in 0..=255u8 {
                bytes.clear();
                bytes.extend(prefix);
                bytes.extend([opcode, modrm, 0, 0, 0, 0, 0, 0, 0, 0]);
                for bits in [16, 32] {
                    let code = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode().code();
                    if code != Code::INVALID && only_64[code as usize] {
                        found.insert(format!("{code:?}"));
                    }
                }
            }
        }
        assert!(found.is_empty(), "{found:?}");
    }
}
