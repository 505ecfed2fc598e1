//! The signal frame of AArch64 Linux (`sigcontext.h` of its user interface, kernel documentation `arch/arm64`).
//!
//! ```text
//! sp -> siginfo                128 bytes
//!       ucontext               flags, link, stack, mask, 16-aligned sigcontext with 4 KiB of tagged records:
//!                              FPSIMD (528 bytes), then a record of magic 0
//!       frame record           x29, x30: for unwinders
//! ```

use super::record::{DataModel, Field, Pad, U32, U64};
use crate::record;
use crate::signals::{AltStack, Frame, Restored, SA_RESTORER, SA_SIGINFO};
use crate::syscall::{EFAULT, Errno};
use tulk_arm::a64::{fpstate, regs};
use tulk_base::{CpuState, GuestVa};
use tulk_softmmu::UserSpace;

record! {
    struct Context {
        flags: U64,
        link: U64,
        stack_sp: U64,
        stack_flags: U32,
        _pad: U32,
        stack_size: U64,
        mask: U64,
        _unused: Pad<128>,
        fault_address: U64,
        x: [U64; 31],
        sp: U64,
        pc: U64,
        pstate: U64,
        _align: U64,
    }
    struct FpSimd {
        magic: U32,
        size: U32,
        fpsr: U32,
        fpcr: U32,
        v: [U64; 64],
    }
}

const FPSIMD_MAGIC: u32 = 0x4650_8001;
const SIGINFO_BYTES: u64 = 128;
const RECORDS_BYTES: u64 = 4096;
/// PSTATE's condition flags.
const PSTATE_NZCV: u64 = 0xf000_0000;
const MODEL: DataModel = DataModel::LP64;

/// The state's cell with half `i % 2` of vector register `i / 2`.
fn vector_cell(i: usize) -> u16 {
    regs::cell(regs::V[i / 2]) + (i % 2) as u16
}

fn write(space: &UserSpace, at: u64, bytes: &[u8]) -> Result<(), Errno> {
    space.copy_out(GuestVa(at), bytes).map_err(|_| EFAULT)
}

/// Pushes the frame and enters the handler.
pub fn push(space: &UserSpace, state: &mut CpuState, frame: &Frame<'_>) -> Result<(), Errno> {
    let context_bytes = Context::size(MODEL) as u64;
    let record = frame.stack_top.wrapping_sub(16) & !15;
    let at = record.wrapping_sub(SIGINFO_BYTES + context_bytes + RECORDS_BYTES) & !15;
    let head_bytes = (SIGINFO_BYTES + context_bytes) as usize;

    let x: [u64; 31] = std::array::from_fn(|n| state.get(regs::cell(regs::X[n])));
    let mut bytes = vec![0; head_bytes + FpSimd::size(MODEL) + 16];
    let (head, records) = bytes.split_at_mut(head_bytes);
    head[..SIGINFO_BYTES as usize].copy_from_slice(frame.info);
    let context = Context {
        stack_sp: frame.alt.sp,
        stack_flags: frame.alt.flags,
        stack_size: frame.alt.size,
        mask: frame.mask,
        fault_address: frame.fault_address().unwrap_or(0),
        x,
        sp: state.get(regs::cell(regs::SP)),
        pc: state.pc(),
        pstate: state.get(regs::cell(regs::NZCV)) & PSTATE_NZCV,
        ..Context::zero()
    };
    Context::put(&mut head[SIGINFO_BYTES as usize..], context, MODEL);
    let fpsimd = FpSimd {
        magic: FPSIMD_MAGIC,
        size: FpSimd::size(MODEL) as u32,
        fpsr: state.get(regs::cell(regs::FPSR)) as u32,
        fpcr: state.get(regs::cell(regs::FPCR)) as u32,
        v: std::array::from_fn(|i| state.get(vector_cell(i))),
    };
    FpSimd::put(records, fpsimd, MODEL);
    write(space, at, &bytes)?;
    let mut link = [0; 16];
    link[..8].copy_from_slice(&x[29].to_le_bytes());
    link[8..].copy_from_slice(&x[30].to_le_bytes());
    write(space, record, &link)?;

    let action = &frame.action;
    let own = action.flags & SA_RESTORER != 0;
    let restorer = if own { action.restorer } else { frame.trampoline };
    let mut set = |slot, value| state.set(regs::cell(slot), value);
    set(regs::X[0], frame.signal as u64);
    if action.flags & SA_SIGINFO != 0 {
        set(regs::X[1], at);
        set(regs::X[2], at + SIGINFO_BYTES);
    }
    set(regs::X[29], record);
    set(regs::X[30], restorer);
    set(regs::SP, at);
    set(regs::EXCL_ADDR, u64::MAX);
    state.set_pc(action.handler);
    Ok(())
}

/// Takes the registers back from the frame at the stack pointer.
pub fn pop(space: &UserSpace, state: &mut CpuState) -> Result<Restored, Errno> {
    let at = state.get(regs::cell(regs::SP));
    if at & 15 != 0 {
        return Err(EFAULT);
    }
    let size = Context::size(MODEL);
    let mut bytes = vec![0; size + RECORDS_BYTES as usize];
    let from = GuestVa(at.wrapping_add(SIGINFO_BYTES));
    space.copy_in(from, &mut bytes).map_err(|_| EFAULT)?;
    let context = Context::get(&bytes, MODEL);
    restore_fpsimd(state, &bytes[size..])?;
    let mut set = |slot, value| state.set(regs::cell(slot), value);
    for (slot, x) in regs::X.into_iter().zip(context.x) {
        set(slot, x);
    }
    set(regs::SP, context.sp);
    set(regs::NZCV, context.pstate & PSTATE_NZCV);
    set(regs::EXCL_ADDR, u64::MAX);
    state.set_pc(context.pc);
    let alt =
        AltStack { sp: context.stack_sp, flags: context.stack_flags, size: context.stack_size };
    Ok(Restored { mask: context.mask, alt: Some(alt) })
}

/// Walks the tagged records: there must be one FPSIMD record and none that is unknown.
fn restore_fpsimd(state: &mut CpuState, records: &[u8]) -> Result<(), Errno> {
    let mut rest = records;
    let mut found = false;
    loop {
        let word = |i: usize| {
            rest.get(4 * i..4 * i + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        };
        let (magic, size) = (word(0).ok_or(EFAULT)?, word(1).ok_or(EFAULT)? as usize);
        match magic {
            0 if size == 0 && found => return Ok(()),
            FPSIMD_MAGIC if size == FpSimd::size(MODEL) && rest.len() >= size && !found => {
                let fp = FpSimd::get(rest, MODEL);
                for (i, word) in fp.v.into_iter().enumerate() {
                    state.set(vector_cell(i), word);
                }
                let fpsr = fp.fpsr & fpstate::fpsr::WRITABLE;
                let fpcr = fp.fpcr & (fpstate::fpcr::WRITABLE | fpstate::fpcr::FZ16);
                state.set(regs::cell(regs::FPSR), fpsr as u64);
                state.set(regs::cell(regs::FPCR), fpcr as u64);
                found = true;
            }
            _ => return Err(EFAULT),
        }
        rest = &rest[size..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(Context::size(MODEL), 176 + 288);
        assert_eq!(FpSimd::size(MODEL), 528);
    }
}
