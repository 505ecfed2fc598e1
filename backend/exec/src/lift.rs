//! Lifting one block: guest bytes to IR to the interpreter's program.

use crate::engine::Engine;
use crate::tb::{PAGE_SHIFT, Tb};
use tulk_base::GuestVa;
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::interp::{Program, Scratch};
use tulk_ir::passes::Passes;
use tulk_ir::{FpRule, Unit};
use tulk_softmmu::UserSpace;

/// Working memory of one thread that lifts.
pub struct Lifter {
    unit: Unit,
    passes: Passes,
    scratch: Scratch,
}

/// Reads executable guest memory in pieces, because frontends fetch instruction by instruction.
struct Code<'a> {
    space: &'a UserSpace,
    start: u64,
    len: usize,
    buffer: [u8; 256],
}

impl CodeReader for Code<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let mut offset = va.0.wrapping_sub(self.start) as usize;
        if offset.checked_add(out.len()).is_none_or(|end| end > self.len) {
            if out.len() > self.buffer.len() {
                return self.space.fetch_code(va, out);
            }
            self.start = va.0;
            self.len = self.space.fetch_code(va, &mut self.buffer);
            offset = 0;
        }
        let n = out.len().min(self.len - offset);
        out[..n].copy_from_slice(&self.buffer[offset..offset + n]);
        n
    }
}

/// The first address behind the page of `pc`: blocks end there, so that most lie on one page.
fn page_end(pc: u64) -> GuestVa {
    GuestVa((pc | ((1 << PAGE_SHIFT) - 1)).saturating_add(1))
}

/// Lifts the block at `key` into `unit`.
pub fn lift_unit(
    isa: &dyn GuestIsa,
    space: &UserSpace,
    key: TbKey,
    max_insns: u32,
    unit: &mut Unit,
) {
    let mut code = Code { space, start: key.pc.0, len: 0, buffer: [0; 256] };
    lift_unit_from(isa, &mut code, key, max_insns, unit);
}

/// The same with code from `code`.
pub fn lift_unit_from(
    isa: &dyn GuestIsa,
    code: &mut dyn CodeReader,
    key: TbKey,
    max_insns: u32,
    unit: &mut Unit,
) {
    let limits = LiftLimits { max_insns, end: page_end(key.pc.0) };
    isa.lift(key, code, limits, unit);
}

impl Lifter {
    pub fn new() -> Lifter {
        Lifter {
            unit: Unit::new(0, 0, FpRule::Arm),
            passes: Passes::new(),
            scratch: Scratch::default(),
        }
    }

    /// The block at `key`, or `None` when nothing can be fetched there.
    pub fn lift(&mut self, engine: &Engine, key: TbKey, max_insns: u32) -> Option<Tb> {
        let mut code = Code { space: &engine.mem, start: key.pc.0, len: 0, buffer: [0; 256] };
        self.lift_until(engine, key, &mut code, max_insns);
        self.finish(engine, key)
    }

    /// The same in system mode: the block gets the key `key`, the frontend the key `bare`.
    pub fn lift_from(
        &mut self,
        engine: &Engine,
        key: TbKey,
        bare: TbKey,
        code: &mut dyn CodeReader,
        max_insns: u32,
    ) -> Option<Tb> {
        self.lift_until(engine, bare, code, max_insns);
        self.finish(engine, key)
    }

    /// Lifts up to a page's end or a breakpoint.
    fn lift_until(
        &mut self,
        engine: &Engine,
        key: TbKey,
        code: &mut dyn CodeReader,
        max_insns: u32,
    ) {
        let end = engine.debug.next_split(key.pc.0).map_or(u64::MAX, |at| at);
        let limits = LiftLimits { max_insns, end: page_end(key.pc.0).min(GuestVa(end)) };
        engine.isa.lift(key, code, limits, &mut self.unit);
    }

    fn finish(&mut self, engine: &Engine, key: TbKey) -> Option<Tb> {
        let isa = &*engine.isa;
        let unit = &mut self.unit;
        if unit.len == 0 {
            return None;
        }
        let guest_insns = unit.guest_insns;
        engine.log.lifted(engine, key, unit);
        self.passes.run(unit, isa.layout(), isa.helpers(), &engine.config.cold_passes);
        engine.log.optimized(engine, unit);
        let program = Program::with_scratch(unit, isa.layout(), isa.helpers(), &mut self.scratch);
        Some(Tb::new(key, unit.len, guest_insns, program))
    }
}
