//! Calls out of generated code: helpers, and the universal slow path that evaluates any pure operation exactly.
//!
//! Both go through thunks that preserve every register (see [`crate::abi`]), so a call on a cold path costs the hot
//! path nothing.

use super::{Lower, clif_type};
use crate::abi::{Reason, word};
use cranelift_codegen::ir::{self, InstBuilder, types};
use tulk_base::state::{CELL_ARGS, CELL_PC, CELL_RET};
use tulk_ir::interp::eval::EvalOp;
use tulk_ir::{Access, Inst, Op, Type};

impl Lower<'_> {
    fn store_args(&mut self, inst: &Inst) {
        for (i, arg) in inst.args.iter().enumerate().filter(|(_, a)| !a.is_none()) {
            let value = self.value(*arg);
            self.store_cell(CELL_ARGS + 2 * i as u16, value);
        }
    }

    fn call_thunk(&mut self, thunk: usize, a: u64, b: u64) {
        let a = self.iconst(types::I64, a as i64);
        let b = self.iconst(types::I64, b as i64);
        let code = self.load_word(thunk);
        self.b.ins().call_indirect(self.thunk_sig, code, &[self.env, a, b]);
    }

    /// Calls a helper whose slots are in memory; the pc cell is set for all but pure ones.
    pub(super) fn helper_call(&mut self, inst: &Inst) {
        let helper = &self.input.helpers[inst.imm2 as usize];
        self.store_args(inst);
        let silent = helper.pure && matches!(helper.reads, Access::None);
        if !silent || helper.may_trap {
            let pc = self.iconst(types::I64, self.pc as i64);
            self.store_cell(CELL_PC, pc);
        }
        self.call_thunk(word::THUNK_HELPER, inst.imm2 as u64, inst.imm as u64);
        if helper.may_trap {
            let status = self.load_word(word::STATUS);
            let trap = self.cold_block();
            self.branch_cold(status, trap);
            let here = self.b.current_block().expect("a block is open");
            self.b.switch_to_block(trap);
            self.leave(Reason::HelperTrap);
            self.b.switch_to_block(here);
        }
        if let Some(ty) = helper.ret
            && !inst.dst.is_none()
        {
            let value = self.load_cell(ty, CELL_RET);
            self.define(inst, value);
        }
    }

    /// Evaluates a pure operation exactly, flags included.
    pub(super) fn slow(&mut self, inst: &Inst) -> ir::Value {
        let ty = self.unit.type_of(inst.dst);
        self.slow_flags(inst);
        self.load_cell(ty, CELL_RET)
    }

    /// Evaluates a pure operation for the exception flags that it raises.
    pub(super) fn slow_flags(&mut self, inst: &Inst) {
        debug_assert!(inst.op != Op::Vconst, "the slow path has no pool");
        self.store_args(inst);
        let [w0, w1] = EvalOp::of(inst, self.unit).to_words();
        self.call_thunk(word::THUNK_EVAL, w0, w1);
    }

    /// [`Self::slow`] reinterpreted as `ty` of the same width.
    pub(super) fn slow_as(&mut self, inst: &Inst, ty: ir::Type) -> ir::Value {
        let value = self.slow(inst);
        self.bits(ty, value)
    }

    pub(super) fn result_type(&self, inst: &Inst) -> ir::Type {
        let ty: Type = self.unit.type_of(inst.dst);
        clif_type(ty)
    }
}
