//! Calls out of generated code: helpers, and the universal slow path that evaluates any pure operation exactly.
//!
//! Both go through thunks that preserve every register (see [`crate::abi`]), so a call on a cold path costs the hot
//! path nothing. Only direct helpers ([`HelperDef::direct`]), which are for hot paths, are called as any function.

use super::{Lower, clif_type};
use crate::abi::{MemAccess, Reason, word};
use cranelift_codegen::ir::{self, AbiParam, InstBuilder, MemFlagsData, SigRef, Signature, types};
use cranelift_codegen::isa::CallConv;
use std::mem::offset_of;
use tulk_base::state::{CELL_ARGS, CELL_PC, CELL_RET};
use tulk_ir::interp::eval::EvalOp;
use tulk_ir::{Access, HelperDef, Inst, Op, Type};

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
        let silent = helper.pure && matches!(helper.reads, Access::None);
        if silent && !helper.may_trap && helper.direct.is_some() {
            return self.direct_call(inst, helper);
        }
        self.store_args(inst);
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

    /// Calls [`HelperDef::direct`] as any other function.
    fn direct_call(&mut self, inst: &Inst, helper: &HelperDef) {
        let mut words = Vec::with_capacity(6);
        for (arg, ty) in inst.args.iter().zip(helper.args) {
            let value = self.value(*arg);
            if ty.bits() == 128 {
                let wide = self.bits(types::I128, value);
                let (low, high) = self.b.ins().isplit(wide);
                words.extend([low, high]);
            } else {
                let int = clif_type(Type::int_of_log2(ty.bits().trailing_zeros() as u8 - 3));
                let value = self.bits(int, value);
                let wide = int == types::I64;
                words.push(if wide { value } else { self.b.ins().uextend(types::I64, value) });
            }
        }
        words.push(self.iconst(types::I64, inst.imm));
        let table = self.load_word(word::HELPERS);
        let row = inst.imm2 as usize * size_of::<HelperDef>() + offset_of!(HelperDef, direct);
        let code = self.b.ins().load(types::I64, MemFlagsData::trusted(), table, row as i32);
        let sig = self.direct_sig(words.len());
        let call = self.b.ins().call_indirect(sig, code, &words);
        let (Some(ty), false) = (helper.ret, inst.dst.is_none()) else { return };
        let (low, high) = (self.b.inst_results(call)[0], self.b.inst_results(call)[1]);
        let to = clif_type(ty);
        let value = match ty.bits() {
            128 => self.b.ins().iconcat(low, high),
            64 => low,
            bits => self
                .b
                .ins()
                .ireduce(clif_type(Type::int_of_log2(bits.trailing_zeros() as u8 - 3)), low),
        };
        let value = self.bits(to, value);
        self.define(inst, value);
    }

    /// The signature of direct helpers that take `words` words.
    fn direct_sig(&mut self, words: usize) -> SigRef {
        if let Some(sig) = self.direct_sigs[words] {
            return sig;
        }
        let mut sig = Signature::new(CallConv::SystemV);
        sig.params.extend((0..words).map(|_| AbiParam::new(types::I64)));
        sig.returns.extend([AbiParam::new(types::I64); 2]);
        let sig = self.b.import_signature(sig);
        *self.direct_sigs[words].insert(sig)
    }

    /// Has the memory thunk do an access at `va`, on a path of its own: stores all dirty slots, which stay dirty for the code
    /// that does not go this way; leaves when the access fails.
    pub(super) fn slow_access(&mut self, inst: &Inst, access: MemAccess, va: ir::Value) {
        self.store_dirty();
        self.store_word(word::VA, va);
        for (i, arg) in inst.args.iter().skip(1).enumerate().filter(|(_, a)| !a.is_none()) {
            let value = self.value(*arg);
            self.store_cell(CELL_ARGS + 2 * i as u16, value);
        }
        self.call_thunk(word::THUNK_MEM, access.to_word(), self.pc);
        let status = self.load_word(word::STATUS);
        let trap = self.cold_block();
        self.branch_cold(status, trap);
        let here = self.b.current_block().expect("a block is open");
        self.b.switch_to_block(trap);
        self.leave(Reason::HelperTrap);
        self.b.switch_to_block(here);
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
