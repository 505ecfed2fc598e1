//! Ends of blocks: jumps inside the region, chained exits, the return ring, the jump cache and traps.
//!
//! A chained exit loads its edge record and, when that is linked, tail-calls the target: one load, one test, one
//! jump. The ways back to the dispatcher are cold; those that look alike share a block.

use super::Lower;
use crate::abi::{JUMP_HASH_PARTS, Reason, word};
use crate::flow::{self, constant, exit_flags};
use crate::{EdgeKind, PageCheck};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, InstBuilder, types};
use tulk_base::state::{CELL_PC, OFFSET_ENGINE, OFFSET_EXIT_REQUEST};
use tulk_ir::{ExitKind, Inst, Op};

/// Blocks that all exits of a kind share, once one needs them.
#[derive(Default)]
pub struct Common {
    /// Parameters pc, address of the edge record.
    unlinked: Option<ir::Block>,
    /// Parameters pc, key flags.
    unknown: Option<ir::Block>,
    /// Parameter pc.
    polled: Option<ir::Block>,
    /// Parameter pc.
    other_page: Option<ir::Block>,
}

const RING_STEP: i64 = 32;
const RING_MASK: i64 = 16 * RING_STEP - 1;
const RING_OFFSET: i32 = OFFSET_ENGINE + 8 * word::RING as i32;
// Fields of `abi::JumpEntry`.
const ENTRY_PC: i32 = 0;
const ENTRY_FLAGS: i32 = 8;
const ENTRY_CODE: i32 = 16;

impl Lower<'_> {
    pub(super) fn lower_end(&mut self, inst: &Inst) {
        match inst.op {
            Op::Jump => self.follow(0),
            Op::Brif => {
                let cond = self.arg(inst, 0);
                let succs = &self.flow.nodes[self.node].succs;
                let (then, other) = (succs[0].to, succs[1].to);
                self.b.ins().brif(cond, self.blocks[then], &[], self.blocks[other], &[]);
                self.count_edge(then);
                self.count_edge(other);
            }
            Op::ExitDirect => self.exit_direct(inst),
            Op::ExitIndirect => self.exit_indirect(inst),
            Op::ExitTrap => {
                self.store_pc(inst.imm as u64);
                self.store_word_imm(word::A, inst.exit_kind() as u64);
                self.store_word_imm(word::B, inst.imm2 as u64);
                self.leave(Reason::Trap);
            }
            op => unreachable!("{op:?} does not end a block"),
        }
    }

    /// Takes a successor edge, polling when it closes a loop.
    fn follow(&mut self, i: usize) {
        let flow::Edge { to, back, pc, check } = self.flow.nodes[self.node].succs[i];
        if back {
            self.poll(pc.expect("only edges between units close loops"));
        }
        if let (Some(check), Some(pc)) = (check, pc) {
            self.check_page(check, pc);
        }
        self.jump_to_node(to);
    }

    /// Leaves with the pc and all dirty slots stored when somebody asked for it.
    pub(super) fn poll(&mut self, pc: u64) {
        // Atomic, so that no load is moved out of a guest's waiting loop.
        let flags = self.regions.links;
        let address = self.b.ins().iadd_imm_s(self.env, OFFSET_EXIT_REQUEST as i64);
        let request = self.b.ins().atomic_load(types::I32, flags, address);
        let cold = self.cold_block();
        self.branch_cold(request, cold);
        let here = self.b.current_block().expect("a block is open");
        self.b.switch_to_block(cold);
        self.store_dirty();
        let pc = self.iconst(types::I64, pc as i64);
        let common = self.shared(|c| &mut c.polled, 1);
        self.b.ins().jump(common, &[pc.into()]);
        self.b.switch_to_block(here);
    }

    /// Leaves with the pc and all dirty slots stored when the page of the unit at `pc` is not the one expected.
    pub(super) fn check_page(&mut self, check: PageCheck, pc: u64) {
        let table = self.load_word(check.word());
        let links = self.regions.links;
        let id = self.b.ins().load(types::I32, links, table, check.offset());
        let other = self.icmp_imm(IntCC::NotEqual, id, check.id as i64);
        let cold = self.cold_block();
        self.branch_cold(other, cold);
        let here = self.b.current_block().expect("a block is open");
        self.b.switch_to_block(cold);
        self.store_dirty();
        let pc = self.iconst(types::I64, pc as i64);
        let common = self.shared(|c| &mut c.other_page, 1);
        self.b.ins().jump(common, &[pc.into()]);
        self.b.switch_to_block(here);
    }

    /// Returns to the dispatcher for `reason`; everything else is stored already.
    pub(super) fn leave(&mut self, reason: Reason) {
        self.store_word_imm(word::REASON, reason as u64);
        self.b.ins().return_(&[]);
    }

    pub(super) fn store_pc(&mut self, pc: u64) {
        let pc = self.iconst(types::I64, pc as i64);
        self.store_cell(CELL_PC, pc);
    }

    /// A shared cold block with `params` I64 parameters, of which the first is the pc and the second word A.
    fn shared(
        &mut self,
        pick: fn(&mut Common) -> &mut Option<ir::Block>,
        params: usize,
    ) -> ir::Block {
        if let Some(block) = *pick(&mut self.common) {
            return block;
        }
        let block = self.cold_block();
        for _ in 0..params {
            self.b.append_block_param(block, types::I64);
        }
        *pick(&mut self.common) = Some(block);
        block
    }

    /// Fills the shared blocks, after everything else.
    pub(super) fn finish_shared(&mut self) {
        let blocks = [
            (self.common.unlinked, Reason::Direct),
            (self.common.unknown, Reason::Indirect),
            (self.common.polled, Reason::Poll),
            (self.common.other_page, Reason::Page),
        ];
        for (block, reason) in blocks {
            let Some(block) = block else { continue };
            self.b.switch_to_block(block);
            let params = self.b.block_params(block).to_vec();
            self.store_cell(CELL_PC, params[0]);
            if let Some(&a) = params.get(1) {
                self.store_word(word::A, a);
            }
            self.leave(reason);
        }
    }

    /// Continues at `code`, another region's entry.
    fn tail(&mut self, code: ir::Value) {
        self.b.ins().return_call_indirect(self.region_sig, code, &[self.env]);
    }

    fn exit_direct(&mut self, inst: &Inst) {
        let pc = inst.imm as u64;
        let kind = inst.exit_kind();
        let inside = !self.flow.nodes[self.node].succs.is_empty();
        if kind == ExitKind::Call
            && let Some(ret) = constant(self.unit, inst.args[0])
            && !(inside && self.flow.returns_inside(ret))
        {
            self.push_return(ret);
        }
        if inside {
            return self.follow(0);
        }
        let flags = exit_flags(self.unit, inst).expect("constant key flags");
        let number = self.edge_number(pc, flags, EdgeKind::Exit(kind));
        let edge = self.edge_address(number);
        let code = self.b.ins().load(types::I64, self.regions.links, edge, 0);
        let cold = self.cold_block();
        let aside = self.flow.is_aside(self.input, self.node);
        let chained = if aside { self.cold_block() } else { self.b.create_block() };
        self.b.ins().brif(code, chained, &[], cold, &[]);
        self.b.seal_block(cold);
        self.b.seal_block(chained);
        self.b.switch_to_block(chained);
        self.tail(code);
        self.b.switch_to_block(cold);
        let pc = self.iconst(types::I64, pc as i64);
        let edge = self.edge_address(number);
        let common = self.shared(|c| &mut c.unlinked, 2);
        self.b.ins().jump(common, &[pc.into(), edge.into()]);
    }

    /// Pushes a return address onto the ring, with the code that its edge record names now.
    fn push_return(&mut self, ret: u64) {
        let number = self.edge_number(ret, self.unit.flags, EdgeKind::ReturnSite);
        let links = self.regions.links;
        let site = self.edge_address(number);
        let code = self.b.ins().load(types::I64, links, site, 0);
        let top = self.load_word(word::RING_TOP);
        let top = self.b.ins().iadd_imm_s(top, RING_STEP);
        let top = self.b.ins().band_imm_u(top, RING_MASK);
        self.store_word(word::RING_TOP, top);
        let entry = self.b.ins().iadd(self.env, top);
        let pc = self.iconst(types::I64, ret as i64);
        let flags = self.iconst(types::I64, self.unit.flags as i64);
        self.b.ins().store(links, pc, entry, RING_OFFSET + ENTRY_PC);
        self.b.ins().store(links, flags, entry, RING_OFFSET + ENTRY_FLAGS);
        self.b.ins().store(links, code, entry, RING_OFFSET + ENTRY_CODE);
    }

    /// Zero when the entry at `entry + offset` is for this pc and these key flags.
    fn mismatch(
        &mut self,
        entry: ir::Value,
        offset: i32,
        pc: ir::Value,
        flags: ir::Value,
    ) -> ir::Value {
        let links = self.regions.links;
        let entry_pc = self.b.ins().load(types::I64, links, entry, offset + ENTRY_PC);
        let entry_flags = self.b.ins().load(types::I64, links, entry, offset + ENTRY_FLAGS);
        let a = self.b.ins().bxor(pc, entry_pc);
        let b = self.b.ins().bxor(flags, entry_flags);
        self.b.ins().bor(a, b)
    }

    fn exit_indirect(&mut self, inst: &Inst) {
        let pc = self.arg(inst, 0);
        let kind = inst.exit_kind();
        if kind == ExitKind::Resync {
            self.store_dirty();
            self.store_cell(CELL_PC, pc);
            return self.leave(Reason::Resync);
        }
        let flags = match exit_flags(self.unit, inst) {
            Some(flags) => self.iconst(types::I64, flags as i64),
            None => self.arg(inst, 2),
        };
        for i in 0..self.flow.nodes[self.node].succs.len() {
            let site = self.flow.nodes[self.node].succs[i].pc.expect("units have a pc");
            let here = self.icmp_imm(IntCC::Equal, pc, site as i64);
            let (hit, miss) = (self.b.create_block(), self.b.create_block());
            self.b.ins().brif(here, hit, &[], miss, &[]);
            self.b.seal_block(hit);
            self.b.seal_block(miss);
            self.b.switch_to_block(hit);
            if kind == ExitKind::Call
                && let Some(ret) = constant(self.unit, inst.args[1])
                && !self.flow.returns_inside(ret)
            {
                self.push_return(ret);
            }
            self.follow(i);
            self.b.switch_to_block(miss);
        }
        self.store_dirty();
        if kind == ExitKind::Call
            && let Some(ret) = constant(self.unit, inst.args[1])
        {
            self.push_return(ret);
        }
        let probe = self.b.create_block();
        if kind == ExitKind::Return {
            self.pop_return(pc, flags, probe);
        } else {
            self.b.ins().jump(probe, &[]);
        }
        self.b.seal_block(probe);
        self.b.switch_to_block(probe);
        self.probe_jump_cache(pc, flags);
    }

    /// Continues at the newest ring entry if it is the right one and has code, else goes to `otherwise`.
    fn pop_return(&mut self, pc: ir::Value, flags: ir::Value, otherwise: ir::Block) {
        let links = self.regions.links;
        let top = self.load_word(word::RING_TOP);
        let entry = self.b.ins().iadd(self.env, top);
        let entry_pc = self.b.ins().load(types::I64, links, entry, RING_OFFSET + ENTRY_PC);
        let here = self.b.ins().icmp(IntCC::Equal, pc, entry_pc);
        let (found, hit, tail) =
            (self.b.create_block(), self.b.create_block(), self.b.create_block());
        self.b.ins().brif(here, found, &[], otherwise, &[]);
        self.b.seal_block(found);
        self.b.switch_to_block(found);
        let down = self.b.ins().iadd_imm_s(top, -RING_STEP);
        let down = self.b.ins().band_imm_u(down, RING_MASK);
        self.store_word(word::RING_TOP, down);
        // A callee that changed the key flags has returned all the same.
        let entry_flags = self.b.ins().load(types::I64, links, entry, RING_OFFSET + ENTRY_FLAGS);
        let same = self.b.ins().icmp(IntCC::Equal, flags, entry_flags);
        self.b.ins().brif(same, hit, &[], otherwise, &[]);
        self.b.seal_block(hit);
        self.b.switch_to_block(hit);
        let code = self.b.ins().load(types::I64, links, entry, RING_OFFSET + ENTRY_CODE);
        self.b.ins().brif(code, tail, &[], otherwise, &[]);
        self.b.seal_block(tail);
        self.b.switch_to_block(tail);
        self.tail(code);
    }

    fn probe_jump_cache(&mut self, pc: ir::Value, flags: ir::Value) {
        let (multiplier, shift, mask) = JUMP_HASH_PARTS;
        let low = self.b.ins().ireduce(types::I32, pc);
        let factor = self.iconst(types::I32, multiplier as i64);
        let hash = self.b.ins().imul(low, factor);
        let hash = self.b.ins().ushr_imm_u(hash, shift as i64);
        let hash = self.b.ins().band_imm_u(hash, mask as i64);
        let offset = self.b.ins().uextend(types::I64, hash);
        let cache = self.load_word(word::JUMP_CACHE);
        let entry = self.b.ins().iadd(cache, offset);
        let other = self.mismatch(entry, 0, pc, flags);
        let cold = self.cold_block();
        let (hit, tail) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(other, cold, &[], hit, &[]);
        self.b.seal_block(hit);
        self.b.switch_to_block(hit);
        let code = self.b.ins().load(types::I64, self.regions.links, entry, ENTRY_CODE);
        self.b.ins().brif(code, tail, &[], cold, &[]);
        self.b.seal_block(cold);
        self.b.seal_block(tail);
        self.b.switch_to_block(tail);
        self.tail(code);
        self.b.switch_to_block(cold);
        let common = self.shared(|c| &mut c.unknown, 2);
        self.b.ins().jump(common, &[pc.into(), flags.into()]);
    }
}
