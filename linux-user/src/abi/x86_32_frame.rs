//! The two signal frames of i386 Linux (`sigcontext.h` of its user interface).
//!
//! ```text
//! sp -> return address   the restorer, or the kernel's code
//!       signal           the handler's argument
//!       old: registers, room for an FSAVE area, upper half of the mask, code that calls sigreturn
//!       new: pointers to siginfo and ucontext, these two, code that calls rt_sigreturn
//!       FSAVE image, then at a multiple of 64 the XSAVE image
//! ```

use super::i386::{RT_SIGRETURN_AT, SIGRETURN_AT};
use super::record::{DataModel, Field, I32, Pad, U8, U16, U32};
use super::x86::{self, AX, BP, BX, CX, DI, DX, SI, SP, reg, set_reg};
use super::x86_64_frame::read_image;
use super::{siginfo, x86_fpstate as fp};
use crate::process::Process;
use crate::record;
use crate::signals::{AltStack, Frame, FrameKind, Restored, SA_RESTORER, SA_SIGINFO};
use crate::syscall::{EFAULT, Errno};
use tulk_base::{CpuState, GuestVa};
use tulk_softmmu::UserSpace;
use tulk_x86::regs::{self, cell};
use tulk_x86::segment;

record! {
    struct Context {
        gs: U16,
        _gs: U16,
        fs: U16,
        _fs: U16,
        es: U16,
        _es: U16,
        ds: U16,
        _ds: U16,
        // In the order of ORDER.
        registers: [U32; 8],
        vector: U32,
        error: U32,
        ip: U32,
        cs: U16,
        _cs: U16,
        eflags: U32,
        sp_at_signal: U32,
        ss: U16,
        _ss: U16,
        fpstate: U32,
        old_mask: U32,
        cr2: U32,
    }
    struct OldFrame {
        restorer: U32,
        signal: I32,
        context: Context,
        _fpstate: Pad<624>,
        mask_high: U32,
        code: [U8; 8],
    }
    struct FullFrame {
        restorer: U32,
        signal: I32,
        info_at: U32,
        context_at: U32,
        info: Pad<128>,
        flags: U32,
        link: U32,
        stack_sp: U32,
        stack_flags: U32,
        stack_size: U32,
        context: Context,
        mask: [U32; 2],
        code: [U8; 8],
    }
}

const ORDER: [usize; 8] = [DI, SI, BP, SP, BX, DX, CX, AX];
const MODEL: DataModel = DataModel::I386;
/// Offsets in [`FullFrame`].
const INFO_AT: usize = 16;
const UCONTEXT_AT: usize = INFO_AT + 128;

const UC_FP_XSTATE: u32 = 1;

fn write(space: &UserSpace, at: u64, bytes: &[u8]) -> Result<(), Errno> {
    if at >> 32 != 0 {
        return Err(EFAULT);
    }
    space.copy_out(GuestVa(at), bytes).map_err(|_| EFAULT)
}

/// Pushes the frame that the action asks for and enters the handler.
pub fn push(space: &UserSpace, state: &mut CpuState, frame: &Frame<'_>) -> Result<(), Errno> {
    let full = frame.action.flags & SA_SIGINFO != 0;
    let image = fp::save(state, fp::FSAVE);
    // Old programs without an alternate stack name one in place of the restorer, used from another stack segment.
    let legacy = frame.within.is_none()
        && state.get(cell(regs::SEG[regs::SS])) as u16 != segment::USER_DS
        && frame.action.flags & SA_RESTORER == 0
        && frame.action.restorer != 0;
    let top = if legacy { frame.action.restorer } else { frame.stack_top };
    let image_at = (top as u32 as u64).wrapping_sub(image.len() as u64) & !63;
    let fpstate = image_at.wrapping_sub(fp::FSAVE as u64);
    let size = if full { FullFrame::size(MODEL) } else { OldFrame::size(MODEL) };
    // At the handler's entry, 4 more than the stack pointer is a multiple of 16.
    let at = (fpstate.wrapping_sub(size as u64).wrapping_add(4) & !15).wrapping_sub(4);
    frame.check_overflow(at)?;

    let selector = |seg: usize| state.get(cell(regs::SEG[seg])) as u16;
    let linear = state.pc() as u32;
    let ip = linear.wrapping_sub(state.get(cell(regs::SEG_BASE[regs::CS])) as u32);
    let context = Context {
        gs: selector(regs::GS),
        fs: selector(regs::FS),
        es: selector(regs::ES),
        ds: selector(regs::DS),
        registers: ORDER.map(|n| reg(state, n) as u32),
        vector: frame.exception.vector,
        error: frame.exception.error,
        ip,
        cs: selector(regs::CS),
        eflags: regs::eflags(state),
        sp_at_signal: reg(state, SP) as u32,
        ss: selector(regs::SS),
        fpstate: fpstate as u32,
        old_mask: frame.mask as u32,
        cr2: frame.exception.address.unwrap_or(0) as u32,
        ..Context::zero()
    };
    let kernel = frame.trampoline + if full { RT_SIGRETURN_AT } else { SIGRETURN_AT };
    let own = frame.action.flags & SA_RESTORER != 0;
    let restorer = if own { frame.action.restorer } else { kernel } as u32;
    let mask_high = (frame.mask >> 32) as u32;
    let mut bytes = vec![0; size];
    if full {
        let whole = FullFrame {
            restorer,
            signal: frame.signal,
            info_at: at as u32 + INFO_AT as u32,
            context_at: at as u32 + UCONTEXT_AT as u32,
            info: (),
            flags: if image.len() > fp::FXSAVE { UC_FP_XSTATE } else { 0 },
            link: 0,
            stack_sp: frame.alt.sp as u32,
            stack_flags: frame.alt.flags,
            stack_size: frame.alt.size as u32,
            context,
            mask: [frame.mask as u32, mask_high],
            // mov eax, 173; int 0x80
            code: [0xb8, 173, 0, 0, 0, 0xcd, 0x80, 0],
        };
        FullFrame::put(&mut bytes, whole, MODEL);
        let info = siginfo::convert(frame.info, DataModel::HOST, MODEL);
        bytes[INFO_AT..UCONTEXT_AT].copy_from_slice(&info);
    } else {
        let whole = OldFrame {
            restorer,
            signal: frame.signal,
            context,
            _fpstate: (),
            mask_high,
            // pop eax; mov eax, 119; int 0x80
            code: [0x58, 0xb8, 119, 0, 0, 0, 0xcd, 0x80],
        };
        OldFrame::put(&mut bytes, whole, MODEL);
    }
    write(space, image_at, &image)?;
    write(space, fpstate, &fp::save_legacy(state, 0))?;
    write(space, at, &bytes)?;

    // Handlers compiled for arguments in registers find them there.
    let (info, context) = match full {
        true => (at + INFO_AT as u64, at + UCONTEXT_AT as u64),
        false => (0, 0),
    };
    set_reg(state, AX, frame.signal as u64);
    set_reg(state, DX, info);
    set_reg(state, CX, context);
    set_reg(state, SP, at);
    state.set_pc(frame.action.handler as u32 as u64);
    segment::set_segment(state, regs::CS, segment::USER32_CS, x86::CODE32);
    for seg in [regs::SS, regs::DS, regs::ES] {
        segment::set_segment(state, seg, segment::USER_DS, x86::DATA);
    }
    x86::clear_handler_flags(state);
    fp::reset(state);
    Ok(())
}

/// Takes the registers back. The handler's return has popped the restorer's address, and the code behind it the
/// signal's number from an old frame.
pub fn pop(process: &Process, state: &mut CpuState, kind: FrameKind) -> Result<Restored, Errno> {
    let sp = reg(state, SP) as u32;
    let read = |at: u32, size: usize| {
        let mut bytes = vec![0; size];
        let va = GuestVa(at as u64);
        process.space.copy_in(va, &mut bytes).map_err(|_| EFAULT).map(|()| bytes)
    };
    match kind {
        FrameKind::Full => {
            let bytes = read(sp.wrapping_sub(4), FullFrame::size(MODEL))?;
            let frame = FullFrame::get(&bytes, MODEL);
            restore(process, state, &frame.context)?;
            let alt = AltStack {
                sp: frame.stack_sp as u64,
                flags: frame.stack_flags,
                size: frame.stack_size as u64,
            };
            let [low, high] = frame.mask;
            Ok(Restored { mask: low as u64 | (high as u64) << 32, alt: Some(alt) })
        }
        FrameKind::Old => {
            let bytes = read(sp.wrapping_sub(8), OldFrame::size(MODEL))?;
            let frame = OldFrame::get(&bytes, MODEL);
            restore(process, state, &frame.context)?;
            let mask = frame.context.old_mask as u64 | (frame.mask_high as u64) << 32;
            Ok(Restored { mask, alt: None })
        }
    }
}

fn restore(process: &Process, state: &mut CpuState, c: &Context) -> Result<(), Errno> {
    let (cs, ss) = (c.cs | 3, c.ss | 3);
    let code = x86::descriptor(process, state, cs);
    let stack = x86::descriptor(process, state, ss);
    if !segment::Descriptor::new(code).is_code() || !segment::Descriptor::new(stack).is_data() {
        return Err(EFAULT);
    }
    restore_fp(process, state, c.fpstate as u64)?;
    segment::set_segment(state, regs::CS, cs, code);
    segment::set_segment(state, regs::SS, ss, stack);
    for (seg, selector) in [(regs::GS, c.gs), (regs::FS, c.fs), (regs::DS, c.ds), (regs::ES, c.es)]
    {
        if state.get(cell(regs::SEG[seg])) != selector as u64 {
            x86::load_selector(process, state, seg, selector);
        }
    }
    for (n, value) in ORDER.into_iter().zip(c.registers) {
        set_reg(state, n, value as u64);
    }
    x86::restore_eflags(state, c.eflags);
    let base = state.get(cell(regs::SEG_BASE[regs::CS])) as u32;
    state.set_pc(base.wrapping_add(c.ip) as u64);
    Ok(())
}

/// The x87 registers are FSAVE's, all else is in the image behind it.
fn restore_fp(process: &Process, state: &mut CpuState, va: u64) -> Result<(), Errno> {
    if va == 0 {
        fp::reset(state);
        return Ok(());
    }
    let mut legacy = [0; fp::FSAVE];
    process.space.copy_in(GuestVa(va), &mut legacy).map_err(|_| EFAULT)?;
    let image = read_image(&process.space, state, va + fp::FSAVE as u64)?;
    fp::restore(state, &image);
    fp::restore_legacy(state, &legacy);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!(Context::size(MODEL), 88);
        assert_eq!(OldFrame::size(MODEL), 732);
        assert_eq!(FullFrame::size(MODEL), 16 + 128 + 20 + 88 + 8 + 8);
    }
}
