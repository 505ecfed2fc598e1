//! Stacks as control transfers push to and pop from them: the present one, or one that is about to become it.

use super::mmu;
use super::segment::{Fallible, canonical, code64, cpl, get, get32, rights, set};
use crate::regs;
use crate::segment::{Descriptor, SS, attr};
use tulk_base::{CpuState, GuestVa, MemOp, Trap};
use tulk_ir::HelperCx;

/// A stack segment and a pointer into it. Neither is written to the state before [`Stack::commit`].
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    base: u64,
    limit: u32,
    attr: u32,
    /// Width of the pointer in bits.
    width: u32,
    /// The whole register; only `width` bits of it move.
    pub sp: u64,
    /// MMU index of its accesses.
    rights: u8,
    /// Error code of #SS.
    code: u32,
}

impl Stack {
    /// The present stack.
    pub fn present(state: &CpuState) -> Stack {
        let attr = get32(state, regs::SEG_ATTR[regs::SS]);
        let width = match code64(state) {
            true => 64,
            false if attr & attr::DB != 0 => 32,
            false => 16,
        };
        Stack {
            base: get(state, regs::SEG_BASE[regs::SS]),
            limit: get32(state, regs::SEG_LIMIT[regs::SS]),
            attr,
            width,
            sp: get(state, regs::RSP),
            rights: rights(state, cpl(state)),
            code: 0,
        }
    }

    /// A stack in another segment, at privilege level `cpl`; #SS on it reports `selector`.
    pub fn other(state: &CpuState, d: Descriptor, selector: u16, sp: u64, cpl: u32) -> Stack {
        let width = if d.attr & attr::DB != 0 { 32 } else { 16 };
        Stack {
            base: d.base as u64,
            limit: d.limit,
            attr: d.attr,
            width,
            sp,
            rights: rights(state, cpl),
            code: (selector & !3) as u32,
        }
    }

    /// A stack of 64-bit mode.
    pub fn flat(state: &CpuState, sp: u64, cpl: u32) -> Stack {
        Stack {
            base: 0,
            limit: u32::MAX,
            attr: 0,
            width: 64,
            sp,
            rights: rights(state, cpl),
            code: 0,
        }
    }

    /// The same, accessed as the processor's own when it is a supervisor's.
    pub fn of_system(self) -> Stack {
        let rights = if self.rights == mmu::USER { mmu::USER } else { mmu::SYSTEM };
        Stack { rights, ..self }
    }

    fn fault(&self) -> Trap {
        Trap::Guest { vector: SS, code: self.code }
    }

    fn moved(&self, by: i64) -> u64 {
        let sum = self.sp.wrapping_add(by as u64);
        match self.width {
            64 => sum,
            32 => sum & 0xffff_ffff,
            _ => self.sp & 0xffff_0000 | sum & 0xffff,
        }
    }

    /// The linear address of `bytes` bytes at `by` from the pointer.
    fn address(&self, state: &CpuState, by: i64, bytes: u64) -> Fallible<GuestVa> {
        let at = self.moved(by);
        if self.width == 64 {
            let good = canonical(state, at) && canonical(state, at.wrapping_add(bytes - 1));
            return if good { Ok(GuestVa(at)) } else { Err(self.fault()) };
        }
        let at = if self.width == 16 { at & 0xffff } else { at };
        let (limit, last) = (self.limit as u64, at + bytes - 1);
        let data = self.attr & (attr::P | attr::S | attr::CODE | attr::RW);
        let inside = if self.attr & attr::DOWN != 0 {
            let top = if self.attr & attr::DB != 0 { u32::MAX as u64 } else { 0xffff };
            at > limit && last <= top
        } else {
            last <= limit || limit == u32::MAX as u64
        };
        if data != attr::P | attr::S | attr::RW || !inside {
            return Err(self.fault());
        }
        Ok(GuestVa(self.base.wrapping_add(at) & 0xffff_ffff))
    }

    /// Fails with #SS unless `count` pushes of `1 << log2` bytes fit.
    pub fn room(&self, state: &CpuState, count: u32, log2: u8) -> Fallible<()> {
        for n in 1..=count as i64 {
            self.address(state, -(n << log2), 1 << log2)?;
        }
        Ok(())
    }

    pub fn push(&mut self, cx: &mut HelperCx<'_>, log2: u8, value: u64) -> Fallible<()> {
        let va = self.address(cx.state, -(1 << log2), 1 << log2)?;
        cx.env.store(va, MemOp::of_log2(log2).with_mmu(self.rights), value)?;
        self.sp = self.moved(-(1 << log2));
        Ok(())
    }

    pub fn push_all(&mut self, cx: &mut HelperCx<'_>, log2: u8, values: &[u64]) -> Fallible<()> {
        self.room(cx.state, values.len() as u32, log2)?;
        values.iter().try_for_each(|&value| self.push(cx, log2, value))
    }

    /// The `n`-th slot from the top.
    pub fn peek(&self, cx: &mut HelperCx<'_>, n: u32, log2: u8) -> Fallible<u64> {
        let va = self.address(cx.state, (n as i64) << log2, 1 << log2)?;
        Ok(cx.env.load(va, MemOp::of_log2(log2).with_mmu(self.rights))?)
    }

    pub fn drop(&mut self, bytes: u64) {
        self.sp = self.moved(bytes as i64);
    }

    /// Writes the pointer.
    pub fn commit(&self, state: &mut CpuState) {
        set(state, regs::RSP, self.sp);
    }
}
