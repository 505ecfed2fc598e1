//! What guest code reaches beyond the CPU state: the [`HelperEnv`] of both tiers.

use crate::engine::{Engine, VcpuShared};
use crate::host::{self, HostFp};
use crate::mmu::Mmu;
use std::sync::Arc;
use tulk_base::tlb::TLB_PAGE_LOG2;
use tulk_base::{GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap};
use tulk_ir::{FpEnv, FpFlags, HelperEnv, Machine, Round};
use tulk_softmmu::{UserMem, access};

const TLB_PAGE: u64 = 1 << TLB_PAGE_LOG2;

/// One vCPU's surroundings. Generated code's helper calls find it through an engine word.
pub(crate) struct Env {
    pub engine: Arc<Engine>,
    pub shared: Arc<VcpuShared>,
    /// What the last helper called by generated code returned, if that was an error.
    pub trap: Option<Trap>,
    /// The next stores that are left out because a region has done them, see [`tulk_codegen::Resume`]. In user mode.
    pub done: u32,
    /// The processor's side of paged memory, in system mode.
    pub mmu: Option<Box<Mmu>>,
}

impl Env {
    #[inline(always)]
    fn mem(&self) -> UserMem<'_> {
        UserMem::new(&self.engine.mem)
    }

    /// The store that comes now is done already.
    #[inline(always)]
    fn is_done(&mut self) -> bool {
        match self.done.checked_sub(1) {
            None => false,
            Some(left) => {
                self.done = left;
                true
            }
        }
    }
}

/// How many whole elements from `va` on lie on its page.
fn on_page(va: GuestVa, op: MemOp) -> u64 {
    (TLB_PAGE - va.0 % TLB_PAGE) >> op.log2()
}

/// User memory, or paged memory by way of the TLB: one branch, always taken the same way.
impl GuestMem for Env {
    #[inline(always)]
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let Some(mmu) = &mut self.mmu else { return self.mem().load(va, op) };
        if let Some(host) = mmu.host(va, op, false) {
            return Ok(access::load(host, op));
        }
        mmu.load_slow(va, op).map(|bytes| access::value_of(op, bytes as u64))
    }
    #[inline(always)]
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        let Some(mmu) = &mut self.mmu else {
            return if self.is_done() { Ok(()) } else { self.mem().store(va, op, value) };
        };
        let bytes = access::to_bytes(op, value as u128);
        if let Some(host) = mmu.host(va, op, true) {
            access::store(host, op, bytes);
            return Ok(());
        }
        mmu.store_slow(va, op, bytes)
    }
    #[inline(always)]
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        let Some(mmu) = &mut self.mmu else { return self.mem().load128(va, op) };
        if let Some(host) = mmu.host(va, op, false) {
            return Ok(access::load128(host, op));
        }
        mmu.load_slow(va, op).map(|bytes| access::from_bytes(op, bytes))
    }
    #[inline(always)]
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        let Some(mmu) = &mut self.mmu else {
            return if self.is_done() { Ok(()) } else { self.mem().store128(va, op, value) };
        };
        let bytes = access::to_bytes(op, value);
        if let Some(host) = mmu.host(va, op, true) {
            access::store(host, op, bytes);
            return Ok(());
        }
        mmu.store_slow(va, op, bytes)
    }
    fn copy_elements(
        &mut self,
        dst: GuestVa,
        src: GuestVa,
        op: MemOp,
        count: u64,
    ) -> (u64, Option<MemFault>) {
        if self.mmu.is_none() {
            return self.mem().copy_elements(dst, src, op, count);
        }
        let mut n = 0;
        while n < count {
            let (to, from) = (dst.wrapping_add(n << op.log2()), src.wrapping_add(n << op.log2()));
            if let Some(mmu) = &self.mmu
                && let Some(host_to) = mmu.host(to, op, true)
                && let Some(host_from) = mmu.host(from, op, false)
            {
                let inside = on_page(to, op).min(on_page(from, op)).min(count - n);
                access::move_elements(host_to, host_from, op, inside);
                n += inside;
                continue;
            }
            if let Err(fault) = self.load(from, op).and_then(|v| self.store(to, op, v)) {
                return (n, Some(fault));
            }
            n += 1;
        }
        (count, None)
    }
    fn fill_elements(
        &mut self,
        dst: GuestVa,
        op: MemOp,
        count: u64,
        value: u64,
    ) -> (u64, Option<MemFault>) {
        if self.mmu.is_none() {
            return self.mem().fill_elements(dst, op, count, value);
        }
        let mut n = 0;
        while n < count {
            let to = dst.wrapping_add(n << op.log2());
            if let Some(mmu) = &self.mmu
                && let Some(host) = mmu.host(to, op, true)
            {
                let inside = on_page(to, op).min(count - n);
                access::fill_elements(host, op, inside, value);
                n += inside;
                continue;
            }
            if let Err(fault) = self.store(to, op, value) {
                return (n, Some(fault));
            }
            n += 1;
        }
        (count, None)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        match &mut self.mmu {
            None => self.mem().rmw(va, op, rmw, operand),
            Some(mmu) => mmu.rmw(va, op, rmw, operand),
        }
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, old: u128, new: u128) -> Result<u128, MemFault> {
        match &mut self.mmu {
            None => self.mem().cas(va, op, old, new),
            Some(mmu) => mmu.cas(va, op, old, new),
        }
    }
}

impl FpEnv for Env {
    fn fp_flags(&mut self) -> FpFlags {
        HostFp.fp_flags()
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        HostFp.set_fp_flags(flags);
    }
    fn fp_round(&mut self) -> Round {
        HostFp.fp_round()
    }
    fn set_fp_mode(&mut self, round: Round, daz: bool, ftz: bool) {
        HostFp.set_fp_mode(round, daz, ftz);
    }
}

impl HelperEnv for Env {
    fn invalidate_code(&mut self, start: GuestVa, len: u64) {
        // In paged memory all stores to code are noticed.
        if self.mmu.is_none() {
            self.engine.invalidate(start, len);
        }
    }
    fn clock_ns(&mut self) -> u64 {
        match &self.engine.system {
            None => host::monotonic_ns(),
            Some(system) => system.board.clock_ns(),
        }
    }
    fn processor_id(&mut self) -> u32 {
        host::processor_id()
    }
    fn random(&mut self, out: &mut [u8]) {
        host::random(out);
    }
    fn machine(&mut self) -> Option<&mut dyn Machine> {
        self.mmu.as_mut().map(|mmu| &mut **mmu as &mut dyn Machine)
    }
}
