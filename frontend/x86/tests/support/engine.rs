//! Runs cases in the engine, compiled at once or in baseline code.

use super::case::*;
use super::world::{give_descriptor, load_state, report, store_state};
use std::sync::Arc;
use tulk_base::{GuestVa, Trap};
use tulk_exec::{Config, Exit, Tier, Vcpu, Watch};
use tulk_softmmu::intervals::{EXEC, READ, WRITE};
use tulk_softmmu::{MapRequest, UserSpace};
use tulk_x86::X86;
use tulk_x86::segment::WANT_DESCRIPTOR;

/// The regions of a case, mapped in this process: not beside [`super::native`].
pub struct Engine {
    isa: Arc<X86>,
    space: Arc<UserSpace>,
    vcpu: Vcpu,
    data: Vec<u8>,
    stack: Vec<u8>,
}

/// The regions of a case, empty but for the constants.
pub fn memory() -> Arc<UserSpace> {
    let space = Arc::new(UserSpace::flat().expect("memory"));
    for (at, len, protection) in [
        (CODE, PAGE as usize, READ | WRITE | EXEC),
        (DATA, DATA_LEN, READ | WRITE),
        (CONST, CONST_LEN, READ | WRITE),
        (STACK, STACK_LEN, READ | WRITE),
    ] {
        let request = MapRequest::anonymous(len as u64, protection);
        space.map(&request.fixed(GuestVa(at as u64))).expect("memory");
    }
    space.copy_out(GuestVa(CONST as u64), &initial_memory().1).expect("memory");
    space.protect(GuestVa(CONST as u64), CONST_LEN as u64, READ).expect("memory");
    space
}

impl Engine {
    pub fn new(isa: X86) -> Engine {
        Engine::of_tier(isa, Tier::Jit, memory())
    }

    /// Engines that share the memory must be used in turn.
    pub fn of_tier(isa: X86, tier: Tier, space: Arc<UserSpace>) -> Engine {
        let (data, _, stack) = initial_memory();
        let isa = Arc::new(isa);
        // Code changes only between cases, which say so.
        let config = Config {
            watch: Watch::Never,
            baseline_threshold: 1,
            precise: true,
            ..Config::for_tier(tier)
        };
        let engine = tulk_exec::Engine::new(isa.clone(), space.clone(), config);
        let vcpu = engine.vcpu();
        Engine { isa, space, vcpu, data, stack }
    }

    /// Regions compiled so far.
    pub fn compiled(&self) -> u64 {
        self.vcpu.engine().stats().regions_compiled
    }

    pub fn run(&mut self, case: &Case) -> Outcome {
        let put = |at: u32, bytes: &[u8]| {
            self.space.copy_out(GuestVa(at as u64), bytes).expect("memory");
        };
        put(DATA, &self.data);
        put(STACK, &self.stack);
        put(CODE, &[0xcc; PAGE as usize]);
        put(case.start(), &case.code[..CODE_LEN.min((PAGE - case.code_at) as usize)]);
        for p in &case.patches[..case.patch_count as usize] {
            put(p.address, &p.bytes[..p.len as usize]);
        }
        self.vcpu.engine().clone().invalidate(GuestVa(CODE as u64), PAGE as u64);
        load_state(&self.isa, case, &mut self.vcpu.state);
        let trap = loop {
            match self.vcpu.run() {
                Exit::Trap(Trap::Resync) | Exit::Interrupted => {}
                Exit::Trap(Trap::Guest { vector: WANT_DESCRIPTOR, code }) => {
                    give_descriptor(&mut self.vcpu.state, code.into());
                }
                Exit::Trap(trap) => break trap,
                exit => unreachable!("{exit:?} in user mode"),
            }
        };
        let state = &self.vcpu.state;
        let mut out =
            Outcome { regs: Registers::zero(), data: [0; DATA_LEN], stack: [0; STACK_LEN] };
        store_state(state, case, &mut out.regs);
        let aligned = out.regs.rflags & 0x4_0000 != 0;
        report(trap, aligned, &mut out.regs);
        self.space.copy_in(GuestVa(DATA as u64), &mut out.data).expect("memory");
        self.space.copy_in(GuestVa(STACK as u64), &mut out.stack).expect("memory");
        out
    }
}
