//! The signal frame of x86-64 Linux (`sigcontext.h` of its user interface; psABI for the red zone).
//!
//! ```text
//! sp -> return address (the restorer)
//!       ucontext        flags, link, stack, registers, mask
//!       siginfo         128 bytes
//!       XSAVE image     at a multiple of 64; the ucontext points to it
//!       red zone        128 bytes that the interrupted function uses below its stack pointer
//! ```

use super::record::{DataModel, Field, Pad, U16, U32, U64};
use super::x86::{self, AX, BP, BX, CX, DI, DX, SI, SP, reg, set_reg};
use super::x86_fpstate as fp;
use crate::process::Process;
use crate::record;
use crate::signals::{AltStack, Frame, Restored, SA_RESTORER};
use crate::syscall::{EFAULT, Errno};
use tulk_base::{CpuState, GuestVa};
use tulk_softmmu::UserSpace;
use tulk_x86::regs::{self, cell};
use tulk_x86::segment;

record! {
    struct Context {
        flags: U64,
        link: U64,
        stack_sp: U64,
        stack_flags: U32,
        _pad: U32,
        stack_size: U64,
        // In the order of ORDER.
        registers: [U64; 16],
        ip: U64,
        eflags: U64,
        cs: U16,
        gs: U16,
        fs: U16,
        ss: U16,
        error: U64,
        vector: U64,
        old_mask: U64,
        cr2: U64,
        fpstate: U64,
        _reserved: Pad<64>,
        mask: U64,
    }
    struct Whole { restorer: U64, context: Context, info: Pad<128> }
}

const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, DI, SI, BP, BX, DX, AX, CX, SP];

const UC_FP_XSTATE: u64 = 1;
const UC_SIGCONTEXT_SS: u64 = 2;
const UC_STRICT_RESTORE_SS: u64 = 4;
const MODEL: DataModel = DataModel::LP64;

/// Pushes the frame and enters the handler.
pub fn push(space: &UserSpace, state: &mut CpuState, frame: &Frame<'_>) -> Result<(), Errno> {
    if frame.action.flags & SA_RESTORER == 0 {
        return Err(EFAULT);
    }
    let image = fp::save(state, 0);
    let fpstate = frame.stack_top.wrapping_sub(image.len() as u64) & !63;
    let size = Whole::size(MODEL);
    // As behind a call: the stack pointer is 8 beside a multiple of 16.
    let at = (fpstate.wrapping_sub(size as u64) & !15).wrapping_sub(8);
    frame.check_overflow(at)?;
    let selector = |seg: usize| state.get(cell(regs::SEG[seg])) as u16;
    let extended = if image.len() > fp::FXSAVE { UC_FP_XSTATE } else { 0 };
    let context = Context {
        flags: extended | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS,
        stack_sp: frame.alt.sp,
        stack_flags: frame.alt.flags,
        stack_size: frame.alt.size,
        registers: ORDER.map(|n| reg(state, n)),
        ip: state.pc(),
        eflags: regs::eflags(state) as u64,
        cs: selector(regs::CS),
        ss: selector(regs::SS),
        error: frame.exception.error as u64,
        vector: frame.exception.vector as u64,
        old_mask: frame.mask,
        cr2: frame.exception.address.unwrap_or(0),
        fpstate,
        mask: frame.mask,
        ..Context::zero()
    };
    let mut bytes = vec![0; size];
    Whole::put(&mut bytes, Whole { restorer: frame.action.restorer, context, info: () }, MODEL);
    bytes[size - 128..].copy_from_slice(frame.info);
    let write = |at: u64, b: &[u8]| space.copy_out(GuestVa(at), b).map_err(|_| EFAULT);
    write(fpstate, &image)?;
    write(at, &bytes)?;

    set_reg(state, DI, frame.signal as u64);
    set_reg(state, SI, at + size as u64 - 128);
    set_reg(state, DX, at + 8);
    set_reg(state, AX, 0);
    set_reg(state, SP, at);
    state.set_pc(frame.action.handler);
    segment::set_segment(state, regs::CS, segment::USER_CS, x86::CODE64);
    x86::clear_handler_flags(state);
    fp::reset(state);
    Ok(())
}

/// Takes the registers back. The handler's return has popped the restorer's address.
pub fn pop(process: &Process, state: &mut CpuState) -> Result<Restored, Errno> {
    let space = &process.space;
    let at = reg(state, SP).wrapping_sub(8);
    let mut bytes = vec![0; Whole::size(MODEL)];
    space.copy_in(GuestVa(at), &mut bytes).map_err(|_| EFAULT)?;
    let context = Whole::get(&bytes, MODEL).context;
    if context.fpstate == 0 {
        fp::reset(state);
    } else {
        let image = read_image(space, state, context.fpstate)?;
        fp::restore(state, &image);
    }
    for (n, value) in ORDER.into_iter().zip(context.registers) {
        set_reg(state, n, value);
    }
    // 64-bit or 32-bit code of this process; any other selector is a fault of the return to it.
    let cs = context.cs | 3;
    let raw = x86::descriptor(process, state, cs);
    if !segment::Descriptor::new(raw).is_code() {
        return Err(EFAULT);
    }
    segment::set_segment(state, regs::CS, cs, raw);
    x86::load_selector(process, state, regs::SS, context.ss | 3);
    x86::restore_eflags(state, context.eflags as u32);
    state.set_pc(context.ip);
    let alt =
        AltStack { sp: context.stack_sp, flags: context.stack_flags, size: context.stack_size };
    Ok(Restored { mask: context.mask, alt: Some(alt) })
}

/// The image at `va`: FXSAVE's part, and the extended one if it is described and all there.
pub fn read_image(space: &UserSpace, state: &CpuState, va: u64) -> Result<Vec<u8>, Errno> {
    let mut image = vec![0; fp::FXSAVE];
    space.copy_in(GuestVa(va), &mut image).map_err(|_| EFAULT)?;
    // Reserved bits of MXCSR.
    if image[26..28] != [0, 0] {
        return Err(EFAULT);
    }
    if let Some(size) = fp::extended_bytes(state, &image) {
        let mut whole = vec![0; size];
        if space.copy_in(GuestVa(va), &mut whole).is_ok() {
            return Ok(whole);
        }
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(Context::size(MODEL), 304);
        assert_eq!(Whole::size(MODEL), 440);
    }
}
