//! What guest code reaches beyond the CPU state: the [`HelperEnv`] of both tiers.

use crate::engine::{Engine, VcpuShared};
use crate::host::{self, HostFp};
use std::sync::Arc;
use tulk_base::{GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap};
use tulk_ir::{FpEnv, FpFlags, HelperEnv, Round};
use tulk_softmmu::UserMem;

/// One vCPU's surroundings. Generated code's helper calls find it through an engine word.
pub(crate) struct Env {
    pub engine: Arc<Engine>,
    pub shared: Arc<VcpuShared>,
    /// What the last helper called by generated code returned, if that was an error.
    pub trap: Option<Trap>,
}

impl Env {
    #[inline(always)]
    fn mem(&self) -> UserMem<'_> {
        UserMem::new(&self.engine.mem)
    }
}

impl GuestMem for Env {
    #[inline(always)]
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        self.mem().load(va, op)
    }
    #[inline(always)]
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        self.mem().store(va, op, value)
    }
    #[inline(always)]
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.mem().load128(va, op)
    }
    #[inline(always)]
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.mem().store128(va, op, value)
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        self.mem().rmw(va, op, rmw, operand)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, old: u128, new: u128) -> Result<u128, MemFault> {
        self.mem().cas(va, op, old, new)
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
        self.engine.invalidate(start, len);
    }
    fn clock_ns(&mut self) -> u64 {
        host::monotonic_ns()
    }
    fn processor_id(&mut self) -> u32 {
        host::processor_id()
    }
    fn random(&mut self, out: &mut [u8]) {
        host::random(out);
    }
}
