//! Input and output (the manual, volume 1, chapter 19).
//!
//! A block ends behind each of these instructions, because the board may have raised an interrupt or changed the
//! machine. Repeated ones work on a bounded number of elements, as [`crate::integer::string`]'s do.

use super::debug::{self, What};
use super::{FIRST_IO, data_mmu, is_system, mmu, protected, vm86};
use crate::decode::{Row, rows};
use crate::helpers::helpers;
use crate::operand::segment_number;
use crate::regs::{self, cell};
use crate::segment::{self, GP, attr};
use crate::{Lifter, key};
use iced_x86::{Instruction, Mnemonic, OpKind, Register};
use tulk_base::{GuestVa, MemOp, RmwOp, Trap};
use tulk_ir::{Access, HelperCx, Type};

/// The instructions of this chapter.
pub const ROWS: &[Row] = rows! {
    quiet {}
    loud {
        In => input, Out => output,
        Insb => string, Insw => string, Insd => string, Outsb => string, Outsw => string, Outsd => string,
    }
    codes {}
};

const GENERAL_PROTECTION: Trap = Trap::Guest { vector: GP, code: 0 };

fn all_ones(bytes: u8) -> u32 {
    u32::MAX >> (32 - 8 * bytes as u32)
}

/// Whether the program may access `bytes` ports from `port` on: by IOPL, or by the map in the task state segment.
///
/// # Errors
/// #GP(0), or the fault of reading the map.
pub fn check(cx: &mut HelperCx<'_>, port: u16, bytes: u8) -> Result<(), Trap> {
    let get = |slot| cx.state.get(cell(slot));
    let iopl = get(regs::EFLAGS) as u32 >> 12 & 3;
    if !protected(cx.state) || !vm86(cx.state) && super::cpl(cx.state) <= iopl {
        return Ok(());
    }
    let (base, limit) = (get(regs::TR_BASE), get(regs::TR_LIMIT) as u32 as u64);
    let rights = get(regs::TR_ATTR) as u32;
    // Task state segments of 16 bits have no map.
    let usable = rights & attr::P != 0 && matches!(rights & 15, 9 | 11) && limit >= 103;
    if !usable {
        return Err(GENERAL_PROTECTION);
    }
    let word = MemOp::U16.with_mmu(mmu::SYSTEM);
    let start = cx.env.load(GuestVa(base.wrapping_add(102)), word)?;
    // Two bytes are read whatever the access is, and both must lie within the limit.
    let at = start + port as u64 / 8;
    if at + 1 > limit {
        return Err(GENERAL_PROTECTION);
    }
    let map = cx.env.load(GuestVa(base.wrapping_add(at)), word)?;
    let mask = (1u64 << bytes) - 1;
    if map >> (port & 7) & mask != 0 {
        return Err(GENERAL_PROTECTION);
    }
    Ok(())
}

fn port_read(cx: &mut HelperCx<'_>, port: u16, bytes: u8) -> u32 {
    debug::note(cx.state, port as u64, bytes as u64, What::Port);
    match cx.env.machine() {
        Some(machine) => {
            let cpu = machine.cpu();
            machine.board().port_read(cpu, port, bytes) & all_ones(bytes)
        }
        None => all_ones(bytes),
    }
}

fn port_write(cx: &mut HelperCx<'_>, port: u16, bytes: u8, value: u32) {
    debug::note(cx.state, port as u64, bytes as u64, What::Port);
    if let Some(machine) = cx.env.machine() {
        let cpu = machine.cpu();
        machine.board().port_write(cpu, port, bytes, value & all_ones(bytes));
    }
}

/// The port operand, an I32.
fn port(l: &mut Lifter<'_>, insn: &Instruction, n: u32) -> tulk_ir::Value {
    match insn.op_kind(n) {
        OpKind::Register => {
            let dx = l.reg(Register::DX);
            l.zext(Type::I32, dx)
        }
        _ => l.iconst(Type::I32, insn.immediate(n) as i64 & 0xff),
    }
}

/// IN acc, port
fn input(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op0_register();
    let at = port(l, insn, 1);
    let v = l.call(IN, &[at], r.size() as i64);
    let v = l.trunc(Type::int_of_log2(r.size().trailing_zeros() as u8), v);
    l.set_reg(r, v);
    let next = l.next;
    l.exit_to(next);
}

/// OUT port, acc
fn output(l: &mut Lifter<'_>, insn: &Instruction) {
    let r = insn.op1_register();
    let at = port(l, insn, 0);
    let v = l.reg(r);
    let v = l.zext(Type::I32, v);
    l.call(OUT, &[at, v], r.size() as i64);
    let next = l.next;
    l.exit_to(next);
}

fn io_in(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (port, bytes) = (args[0] as u16, args[3] as u8);
    check(cx, port, bytes)?;
    Ok(port_read(cx, port, bytes) as u128)
}

fn io_out(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let (port, bytes) = (args[0] as u16, args[3] as u8);
    check(cx, port, bytes)?;
    port_write(cx, port, bytes, args[1] as u32);
    Ok(0)
}

/// The immediate of [`STRING`].
#[derive(Clone, Copy, Debug)]
struct Transfer {
    input: bool,
    bytes: u8,
    /// Bytes of the index register.
    address: u8,
    seg: usize,
    down: bool,
    repeated: bool,
    long: bool,
    /// One element at a time.
    single: bool,
}

impl Transfer {
    fn encode(self) -> i64 {
        self.input as i64
            | (self.repeated as i64) << 1
            | (self.down as i64) << 2
            | (self.long as i64) << 3
            | (self.bytes as i64) << 4
            | (self.address as i64) << 8
            | (self.seg as i64) << 12
            | (self.single as i64) << 16
    }
    fn decode(imm: u128) -> Transfer {
        let (bit, field) = (|n: u32| imm >> n & 1 != 0, |n: u32| (imm >> n) as u8 & 15);
        Transfer {
            input: bit(0),
            repeated: bit(1),
            down: bit(2),
            long: bit(3),
            bytes: field(4),
            address: field(8),
            seg: field(12) as usize,
            single: bit(16),
        }
    }
}

/// INS, OUTS with or without REP
fn string(l: &mut Lifter<'_>, insn: &Instruction) {
    let input = matches!(insn.mnemonic(), Mnemonic::Insb | Mnemonic::Insw | Mnemonic::Insd);
    let memory = if input { insn.op0_kind() } else { insn.op1_kind() };
    let t = Transfer {
        input,
        bytes: insn.memory_size().size() as u8,
        address: match memory {
            OpKind::MemorySegSI | OpKind::MemoryESDI => 2,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => 4,
            _ => 8,
        },
        seg: if input { regs::ES } else { segment_number(insn.memory_segment()) },
        down: l.key.df,
        repeated: insn.has_rep_prefix() || insn.has_repne_prefix(),
        long: l.key.long(),
        single: l.key.tf || l.key.has(key::BREAKPOINTS),
    };
    let done = l.call(STRING, &[], t.encode());
    let (pc, next) = (l.pc, l.next);
    if !t.repeated {
        return l.exit_to(next);
    }
    let (behind, again) = (l.label(), l.label());
    l.brif(done, behind, again);
    l.place(behind);
    l.exit_to(next);
    l.place(again);
    l.exit_to(pc);
}

/// Most elements that one call transfers.
const CHUNK: u64 = 1024;

fn masked(old: u64, mask: u64, new: u64) -> u64 {
    let keep = if mask == 0xffff { old & !mask } else { 0 };
    keep | new & mask
}

/// 1 when the instruction is done, 0 when it must run again.
fn io_string(cx: &mut HelperCx<'_>, args: &[u128; 4]) -> Result<u128, Trap> {
    let t = Transfer::decode(args[3]);
    let mask = u64::MAX >> (64 - 8 * t.address as u32);
    let (count_cell, index_cell) =
        (cell(regs::RCX), cell(if t.input { regs::RDI } else { regs::RSI }));
    let port = cx.state.get(cell(regs::RDX)) as u16;
    let mut left = if t.repeated { cx.state.get(count_cell) & mask } else { 1 };
    let mut budget = if t.single { 1 } else { CHUNK };
    if left != 0 {
        check(cx, port, t.bytes)?;
    }
    let op = MemOp::of_log2(t.bytes.trailing_zeros() as u8).with_mmu(data_mmu(cx.state));
    let step = if t.down { (t.bytes as u64).wrapping_neg() } else { t.bytes as u64 };
    let mut writable = None;
    while left != 0 && budget != 0 {
        let index = cx.state.get(index_cell) & mask;
        let va = linear(cx, t, index)?;
        if t.input {
            // The fault must come before the port is read.
            let pages = (va.0 >> 12, va.0.wrapping_add(t.bytes as u64 - 1) >> 12);
            if writable != Some(pages) {
                cx.env.rmw(va, op, RmwOp::Or, 0)?;
                writable = Some(pages);
            }
            let v = port_read(cx, port, t.bytes);
            cx.env.store(va, op, v as u64)?;
        } else {
            let v = cx.env.load(va, op)?;
            port_write(cx, port, t.bytes, v as u32);
        }
        let kind = if t.input { What::Write } else { What::Data };
        debug::note(cx.state, va.0, t.bytes as u64, kind);
        let old = cx.state.get(index_cell);
        cx.state.set(index_cell, masked(old, mask, index.wrapping_add(step)));
        left -= 1;
        budget -= 1;
        if t.repeated {
            let old = cx.state.get(count_cell);
            cx.state.set(count_cell, masked(old, mask, left));
        }
    }
    Ok((left == 0) as u128)
}

fn linear(cx: &HelperCx<'_>, t: Transfer, index: u64) -> Result<GuestVa, Trap> {
    let base = cx.state.get(cell(regs::SEG_BASE[t.seg]));
    if t.long {
        let base = if t.seg >= regs::FS { base } else { 0 };
        return Ok(GuestVa(base.wrapping_add(index)));
    }
    debug_assert!(is_system(cx.state));
    segment::check(cx.state, t.seg, index as u32, t.bytes as u64, t.input)?;
    Ok(GuestVa(base.wrapping_add(index) & 0xffff_ffff))
}

helpers! { FIRST_IO;
    /// Port; the number of bytes is the immediate.
    IN = io_in(I32) -> I32, Access::All, Access::All, traps;
    /// Port, value.
    OUT = io_out(I32, I32) -> (), Access::All, Access::All, traps;
    /// 1 when all elements are done.
    STRING = io_string() -> I8, Access::All, Access::All, traps;
}
