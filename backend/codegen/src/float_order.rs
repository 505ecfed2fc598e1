//! Keeps float operations in the loops that they stand in.
//!
//! Cranelift takes float operations for pure. The lowering ties each to a branch, so none is dropped or comes later than it stands
//! (`lower/float.rs`). But one whose operands a loop does not change is computed in front of that loop, and there raises its
//! flags even if the loop would not have come to it: behind a test, or in a loop that ends before. A guest that reads its flags
//! would see too many. So one operand of such an operation goes through an exclusive or with a zero of which Cranelift knows
//! nothing, because an atomic load makes it, in front of the operation. That is rare: compilers move such operations
//! out of loops themselves where the flags allow it.
//!
//! Two equal operations become one, the first, which is right as long as nothing clears the flags between them: what clears
//! them ends the region (`ExitKind::Resync`).

use crate::abi::word;
use cranelift_codegen::Context;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    Block, Function, Inst, InstBuilder, MemFlagsData, Opcode, Type, Value, ValueDef, types,
};
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::loop_analysis::{Loop, LoopAnalysis};
use std::collections::HashMap;
use tulk_base::state::OFFSET_ENGINE;

/// Whether the host may raise a flag for it.
fn raises_flags(op: Opcode) -> bool {
    use Opcode::*;
    matches!(
        op,
        Fadd | Fsub
            | Fmul
            | Fdiv
            | Sqrt
            | Fma
            | Fmin
            | Fmax
            | Fcmp
            | Ceil
            | Floor
            | Trunc
            | Nearest
            | Fpromote
            | Fdemote
            | Fvdemote
            | FvpromoteLow
            | FcvtToSint
            | FcvtToUint
            | FcvtToSintSat
            | FcvtToUintSat
            | X86Cvtt2dq
            | FcvtFromSint
            | FcvtFromUint
    )
}

/// See the module. The context's function is complete; its loops are computed here when it has float operations.
pub fn keep_in_loops(context: &mut Context, isa: &dyn TargetIsa) {
    let func = &context.func;
    let mut insts = func.layout.blocks().flat_map(|b| func.layout.block_insts(b));
    if !insts.any(|i| raises_flags(func.dfg.insts[i].opcode())) {
        return;
    }
    context.compute_cfg();
    context.compute_domtree();
    // A parameter of a loop's head that is the same in each round would hide that its value is older.
    if context.remove_constant_phis(isa).is_err() {
        return;
    }
    context.compute_loop_analysis();
    let (func, loops) = (&mut context.func, &context.loop_analysis);
    if loops.loops().next().is_none() {
        return;
    }
    func.dfg.resolve_all_aliases();
    for inst in movable(func, loops, context.domtree.cfg_rpo()) {
        anchor(func, inst);
    }
}

/// The float operations that could be made outside of their innermost loop.
fn movable<'a>(
    func: &Function,
    loops: &LoopAnalysis,
    order: impl Iterator<Item = &'a Block>,
) -> Vec<Inst> {
    let level = |l: Loop| loops.loop_level(loops.loop_header(l)).level();
    // The innermost loop in which a value must be made; a block's own for what is not here.
    let mut places: HashMap<Value, Option<Loop>> = HashMap::new();
    let mut found = Vec::new();
    for &block in order {
        let inner = loops.innermost_loop(block);
        for inst in func.layout.block_insts(block) {
            let op = func.dfg.insts[inst].opcode();
            let accesses = op.can_load() || op.can_store() || op.can_trap();
            let &[result] = func.dfg.inst_results(inst) else { continue };
            if accesses || op.is_call() || op.is_terminator() || op.other_side_effects() {
                continue;
            }
            let mut place = None;
            for &arg in func.dfg.inst_args(inst) {
                let mut at = places.get(&arg).copied().unwrap_or_else(|| {
                    let made = match func.dfg.value_def(arg) {
                        ValueDef::Param(block, _) => Some(block),
                        ValueDef::Result(inst, _) => func.layout.inst_block(inst),
                        ValueDef::Union(..) => None,
                    };
                    made.and_then(|block| loops.innermost_loop(block))
                });
                // Of a loop that is over, what matters is the loop around it.
                while let Some(l) = at
                    && !loops.is_in_loop(block, l)
                {
                    at = loops.loop_parent(l);
                }
                if at.map_or(0, level) > place.map_or(0, level) {
                    place = at;
                }
            }
            if raises_flags(op) && place != inner {
                found.push(inst);
                place = inner;
            }
            places.insert(result, place);
        }
    }
    found
}

/// Makes the instruction depend on something that happens in front of it.
fn anchor(func: &mut Function, inst: Inst) {
    let entry = func.layout.entry_block().expect("a region has one");
    let state = func.dfg.block_params(entry)[0];
    let value = func.dfg.inst_args(inst)[0];
    let ty = func.dfg.value_type(value);
    let mut pos = FuncCursor::new(func).at_inst(inst);
    pos.set_srcloc(pos.func.srcloc(inst));
    let at = OFFSET_ENGINE as i64 + 8 * word::ZERO as i64;
    let at = pos.ins().iadd_imm_s(state, at);
    let flags = MemFlagsData::trusted();
    let word = if ty.lane_bits() == 32 && !ty.is_vector() { types::I32 } else { types::I64 };
    let zero = pos.ins().atomic_load(word, flags, at);
    let zero = cast(&mut pos, zero, ty);
    let anchored = pos.ins().bxor(value, zero);
    func.dfg.inst_args_mut(inst)[0] = anchored;
}

/// The bits of an integer as a value of type `ty`, zero-extended.
fn cast(pos: &mut FuncCursor<'_>, bits: Value, ty: Type) -> Value {
    let have = pos.func.dfg.value_type(bits);
    if have == ty {
        bits
    } else if ty.is_vector() {
        let vector = pos.ins().scalar_to_vector(types::I64X2, bits);
        if ty == types::I64X2 { vector } else { pos.ins().bitcast(ty, le(), vector) }
    } else if ty.is_int() {
        pos.ins().ireduce(ty, bits)
    } else {
        pos.ins().bitcast(ty, le(), bits)
    }
}

/// Lanes of other widths need an order of bytes.
fn le() -> MemFlagsData {
    MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little)
}
