//! Guest memory accesses.
//!
//! The only place that knows how a guest address becomes a host address ([`MemoryModel`]); everything else is the
//! same for every model. Loads and stores are host instructions that may fault; the trap code of each names its
//! guest instruction (see [`crate::TRAP_CODES`]).
//!
//! Two properties of Cranelift's alias analysis matter here. Plain loads are merged and forwarded within a block
//! and between blocks, so an ordered access stands beside a `sequence_point`, which emits nothing but ends what is
//! known about memory. And a store of the value that was just loaded from the same place would be removed, although
//! it must fault on a page that is not writable: guest stores state their byte order and guest loads do not,
//! which keeps the two from being recognised as the same access.

use super::{Lower, clif_type};
use crate::abi::{MemAccess, Reason, word};
use crate::neighbours::Member;
use crate::{CompileError, MemoryModel};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self, AtomicRmwOp, InstBuilder, Opcode, ValueDef, types};
use tulk_base::mem::WINDOW_GUARD;
use tulk_base::state::{CELL_PC, CELL_RET};
use tulk_base::{MemOp, MemOrder, RmwOp, tlb};
use tulk_ir::{FenceKind, Inst, Op, Type};

/// Whether a guest address in a window may be this far off.
fn is_guarded(offset: i32) -> bool {
    offset.unsigned_abs() as u64 <= WINDOW_GUARD
}

/// A guest address made accessible.
#[derive(Clone, Copy)]
pub(super) struct Place {
    host: ir::Value,
    offset: i32,
}

impl Lower<'_> {
    pub(super) fn load_mem_base(&mut self) -> Option<ir::Value> {
        match self.input.mem {
            MemoryModel::Flat | MemoryModel::Paged => None,
            MemoryModel::Based => Some(self.load_word(word::MEM_BASE)),
        }
    }

    pub(super) fn lower_memory(&mut self, inst: &Inst) -> Result<Option<ir::Value>, CompileError> {
        if self.input.mem == MemoryModel::Paged && inst.op != Op::Fence {
            return self.paged(inst);
        }
        Ok(match inst.op {
            Op::Load => Some(self.lower_load(inst)),
            Op::Store => {
                self.lower_store(inst);
                None
            }
            Op::AtomicRmw => Some(self.lower_rmw(inst)),
            Op::AtomicCas => Some(self.lower_cas(inst)?),
            _ => {
                if inst.aux == FenceKind::Full as u8 || !self.host.x86 {
                    self.b.ins().fence();
                } else {
                    self.b.ins().sequence_point();
                }
                None
            }
        })
    }

    /// The guest address of an access at operand 0 plus the instruction's offset: what to add to what.
    fn guest_place(&mut self, inst: &Inst) -> (ir::Value, i32) {
        let imm = if matches!(inst.op, Op::Load | Op::Store) { inst.imm } else { 0 };
        let base = self.arg(inst, 0);
        let narrow = self.type_of(base) == types::I32;
        // A 32-bit address wraps at 32 bits; a 64-bit one may leave the addition to the host's addressing mode.
        let (mut address, mut offset) = (base, 0);
        if narrow
            && self.input.mem == MemoryModel::Based
            && self.input.precise
            && inst.memop().align_bytes() <= 1
            && is_guarded(imm as i32)
        {
            // So may a 32-bit one in a guarded window: an access that should have wrapped faults and is repeated.
            (address, offset) = self.without_offset(base, imm as i32);
            address = self.widen(address);
        } else if narrow {
            if imm as i32 != 0 {
                let c = self.iconst(types::I32, imm as i32 as i64);
                address = self.b.ins().iadd(base, c);
            }
            address = self.widen(address);
        } else if let Ok(small) = i32::try_from(imm) {
            offset = small;
        } else {
            let c = self.iconst(types::I64, imm);
            address = self.b.ins().iadd(base, c);
        }
        (address, offset)
    }

    /// A 32-bit value plus `offset` as another value plus an offset, constants added before taken into it.
    fn without_offset(&self, value: ir::Value, offset: i32) -> (ir::Value, i32) {
        let dfg = &self.b.func.dfg;
        let operands = |v: ir::Value, opcode: Opcode| match dfg.value_def(v) {
            ValueDef::Result(inst, _) if dfg.insts[inst].opcode() == opcode => {
                Some(dfg.inst_args(inst))
            }
            _ => None,
        };
        let (mut value, mut offset) = (dfg.resolve_aliases(value), offset);
        loop {
            // Through the wide register that held the value.
            let wide = operands(value, Opcode::Ireduce).map(|args| dfg.resolve_aliases(args[0]));
            if let Some(args) = wide.and_then(|wide| operands(wide, Opcode::Uextend))
                && dfg.value_type(args[0]) == types::I32
            {
                value = dfg.resolve_aliases(args[0]);
                continue;
            }
            let Some(&[a, b]) = operands(value, Opcode::Iadd) else { return (value, offset) };
            let sum = |c: ir::Value| {
                let c = self.constant_of(c)?;
                offset.checked_add(c as i32).filter(|&sum| is_guarded(sum))
            };
            (value, offset) = match (sum(a), sum(b)) {
                (_, Some(sum)) => (dfg.resolve_aliases(a), sum),
                (Some(sum), _) => (dfg.resolve_aliases(b), sum),
                _ => return (value, offset),
            };
        }
    }

    /// The place of an access; leaves when it is misaligned.
    fn place(&mut self, inst: &Inst, write: bool) -> Place {
        let op = inst.memop();
        if let Some(place) = self.mapped {
            return place;
        }
        let (address, offset) = self.guest_place(inst);
        if op.align_bytes() > 1 {
            let exact = self.b.ins().iadd_imm_s(address, offset as i64);
            self.check_aligned(exact, op, write);
        }
        let host = match self.mem_base {
            None => address,
            Some(base) => self.b.ins().iadd(base, address),
        };
        Place { host, offset }
    }

    /// An access to paged memory: the data TLB's entry is probed inline, and what does not hit goes through the memory
    /// thunk on a cold path.
    fn paged(&mut self, inst: &Inst) -> Result<Option<ir::Value>, CompileError> {
        let op = inst.memop();
        let (write, access) = match inst.op {
            Op::Load => (false, MemAccess::Load(op)),
            Op::Store => (true, MemAccess::Store(op)),
            Op::AtomicRmw => (true, MemAccess::Rmw(op, inst.rmw())),
            _ => (true, MemAccess::Cas(op)),
        };
        let wide_cas = inst.op == Op::AtomicCas && op.log2() == 4;
        if wide_cas && !self.host.cas128 {
            return Err(CompileError::Host("no 128-bit compare-and-swap".into()));
        }
        let (address, offset) = self.guest_place(inst);
        let guest = Place { host: address, offset };
        let plain = matches!(inst.op, Op::Load | Op::Store);
        if let Some(member) = self.neighbours.member(self.at as u32).filter(|_| plain)
            && (member.more || self.known_hosts.contains(&member.group))
        {
            return self.beside(inst, access, guest, member);
        }
        let va = self.flatten(guest);
        if op.align_bytes() > 1 {
            self.check_aligned(va, op, write);
        }
        let (mut miss, entry) = self.probe(va, op, write);
        if wide_cas && op.align_bytes() < 16 {
            // The host's faults when it is misaligned.
            let low = self.b.ins().band_imm_u(va, 15);
            let misaligned = self.icmp_imm(IntCC::NotEqual, low, 0);
            miss = self.b.ins().bor(miss, misaligned);
        }
        let cold = self.cold_block();
        self.branch_cold(miss, cold);
        let host = self.host_of(va, entry);
        let value = self.at_host(inst, Place { host, offset: 0 })?;
        let (go_on, result) = self.go_on_with(value);
        self.b.switch_to_block(cold);
        self.slowly(inst, access, va, go_on, result.is_some());
        Ok(result)
    }

    /// Ends the fast way of an access: the block where the others join it, and its result there.
    fn go_on_with(&mut self, value: Option<ir::Value>) -> (ir::Block, Option<ir::Value>) {
        let go_on = self.next_block();
        let arg = value.map(|value| value.into());
        let result = value.map(|value| {
            let ty = self.type_of(value);
            self.b.append_block_param(go_on, ty)
        });
        self.b.ins().jump(go_on, arg.as_slice());
        (go_on, result)
    }

    /// The last of an access's ways, by the memory thunk, and what follows all of them.
    fn slowly(
        &mut self,
        inst: &Inst,
        access: MemAccess,
        va: ir::Value,
        go_on: ir::Block,
        has_result: bool,
    ) {
        self.slow_access(inst, access, va);
        self.forget_hosts();
        let arg = has_result.then(|| self.load_cell(inst.ty, CELL_RET).into());
        self.b.ins().jump(go_on, arg.as_slice());
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
    }

    /// The access, at a host address.
    fn at_host(&mut self, inst: &Inst, place: Place) -> Result<Option<ir::Value>, CompileError> {
        self.mapped = Some(place);
        let value = match inst.op {
            Op::Load => Some(self.lower_load(inst)),
            Op::Store => {
                self.lower_store(inst);
                None
            }
            Op::AtomicRmw => Some(self.lower_rmw(inst)),
            _ => Some(self.lower_cas(inst)?),
        };
        self.mapped = None;
        Ok(value)
    }

    /// A load or store with neighbours ([`crate::neighbours`]). The first tests the TLB entry for all of them and keeps the
    /// host address, or 0: when they lie on two pages, when one of them would not hit, and when a memory thunk ran since, which
    /// may have changed mappings. The others go by it, and where it is 0 they probe for themselves, on a cold path.
    fn beside(
        &mut self,
        inst: &Inst,
        access: MemAccess,
        guest: Place,
        member: Member,
    ) -> Result<Option<ir::Value>, CompileError> {
        let op = inst.memop();
        let number = member.group as usize;
        while self.hosts.len() <= number {
            self.hosts.push(self.b.declare_var(types::I64));
        }
        let var = self.hosts[number];
        let known = self.known_hosts.contains(&member.group);
        let far = self.cold_block();
        let place = if known {
            let host = self.b.use_var(var);
            let none = self.icmp_imm(IntCC::Equal, host, 0);
            self.branch_cold(none, far);
            Place { host, offset: self.neighbours.distance(member) }
        } else {
            let va = self.flatten(guest);
            let group = *self.neighbours.group(member);
            let tags = [(group.reads, tlb::TLB_READ), (group.writes, tlb::TLB_WRITE)];
            let (miss, entry) = self.probe_ends(va, group.ends(member.offset), op.mmu(), tags);
            self.branch_cold(miss, far);
            let host = self.host_of(va, entry);
            self.b.def_var(var, host);
            self.neighbours.found_by(member);
            Place { host, offset: 0 }
        };
        let value = self.at_host(inst, place)?;
        let (go_on, result) = self.go_on_with(value);
        self.known_hosts.retain(|&other| other != member.group);
        if member.more {
            self.known_hosts.push(member.group);
        }
        self.b.switch_to_block(far);
        if !known {
            let none = self.iconst(types::I64, 0);
            self.b.def_var(var, none);
        }
        let va = self.flatten(guest);
        let (miss, entry) = self.probe(va, op, inst.op == Op::Store);
        let (hit, slow) = (self.cold_block(), self.cold_block());
        self.b.ins().brif(miss, slow, &[], hit, &[]);
        self.b.seal_block(hit);
        self.b.seal_block(slow);
        self.b.switch_to_block(hit);
        let host = self.host_of(va, entry);
        let arg = self.at_host(inst, Place { host, offset: 0 })?.map(|value| value.into());
        self.b.ins().jump(go_on, arg.as_slice());
        self.b.switch_to_block(slow);
        self.slowly(inst, access, va, go_on, result.is_some());
        Ok(result)
    }

    /// Behind a call of the memory thunk.
    fn forget_hosts(&mut self) {
        for i in 0..self.known_hosts.len() {
            let none = self.iconst(types::I64, 0);
            self.b.def_var(self.hosts[self.known_hosts[i] as usize], none);
        }
    }

    fn host_of(&mut self, va: ir::Value, entry: ir::Value) -> ir::Value {
        let links = self.regions.links;
        let addend = self.b.ins().load(types::I64, links, entry, tlb::TLB_ADDEND);
        self.b.ins().iadd(va, addend)
    }

    /// Non-zero unless the access hits the TLB entry, which is the second value.
    fn probe(&mut self, va: ir::Value, op: MemOp, write: bool) -> (ir::Value, ir::Value) {
        let tags = [(!write, tlb::TLB_READ), (write, tlb::TLB_WRITE)];
        self.probe_ends(va, [0, op.bytes() as i32 - 1], op.mmu(), tags)
    }

    /// The same for all from the first to the last byte, counted from `va`, and for those of the tags that are wanted. The entry
    /// belongs to the page of the first byte, its tag is compared with the page of the last one.
    fn probe_ends(
        &mut self,
        va: ir::Value,
        [first, last]: [i32; 2],
        mmu: u8,
        tags: [(bool, i32); 2],
    ) -> (ir::Value, ir::Value) {
        let words = word::TLB + 2 * mmu as usize;
        let (mask, table) = (self.load_word(words), self.load_word(words + 1));
        let shift = tlb::TLB_PAGE_LOG2 - tlb::TLB_ENTRY_LOG2;
        let first = self.flatten(Place { host: va, offset: first });
        let number = self.b.ins().ushr_imm_u(first, shift as i64);
        let number = self.b.ins().band(number, mask);
        let entry = self.b.ins().iadd(table, number);
        let last = self.flatten(Place { host: va, offset: last });
        let page = self.iconst(types::I64, -(1 << tlb::TLB_PAGE_LOG2));
        let page = self.b.ins().band(last, page);
        let links = self.regions.links;
        let mut tag = |field| self.b.ins().load(types::I64, links, entry, field);
        let miss = match tags {
            [(true, read), (true, write)] => {
                let tags = [tag(read), tag(write)];
                let [a, b] = tags.map(|tag| self.b.ins().bxor(tag, page));
                self.b.ins().bor(a, b)
            }
            [(true, field), _] | [_, (_, field)] => {
                let tag = tag(field);
                self.b.ins().icmp(IntCC::NotEqual, tag, page)
            }
        };
        (miss, entry)
    }

    fn check_aligned(&mut self, address: ir::Value, op: MemOp, write: bool) {
        let low = self.b.ins().band_imm_u(address, op.align_bytes() as i64 - 1);
        let cold = self.cold_block();
        self.branch_cold(low, cold);
        let here = self.b.current_block().expect("a block is open");
        self.b.switch_to_block(cold);
        self.store_dirty();
        let pc = self.iconst(types::I64, self.pc as i64);
        self.store_cell(CELL_PC, pc);
        self.store_word(word::A, address);
        self.store_word_imm(word::B, write as u64);
        self.leave(Reason::Misaligned);
        self.b.switch_to_block(here);
    }

    /// An address without an offset, for instructions that take none.
    fn flatten(&mut self, place: Place) -> ir::Value {
        if place.offset == 0 {
            place.host
        } else {
            self.b.ins().iadd_imm_s(place.host, place.offset as i64)
        }
    }

    fn lower_load(&mut self, inst: &Inst) -> ir::Value {
        let op = inst.memop();
        let place = self.place(inst, false);
        let order = op.order();
        let flags = self.guest_flags();
        let raw = match (inst.ty, op.log2()) {
            // One access of 16 bytes where it must be atomic (aligned vector loads are, on hosts with AVX).
            (Type::I128 | Type::V128, 4) if inst.ty == Type::V128 || order != MemOrder::Plain => {
                types::I8X16
            }
            (Type::F32 | Type::F64, _) if !op.big_endian() => clif_type(inst.ty),
            (_, log2) => clif_type(Type::int_of_log2(log2)),
        };
        let value = if order != MemOrder::Plain && !self.host.x86 && raw.bits() <= 64 {
            let address = self.flatten(place);
            let int = ir::Type::int(raw.bits() as u16).expect("a scalar width");
            let value = self.b.ins().atomic_load(int, flags, address);
            self.bits(raw, value)
        } else {
            let value = if raw == types::I32 && self.widens(inst) {
                let wide = self.b.ins().uload32(flags, place.host, place.offset);
                self.b.ins().ireduce(types::I32, wide)
            } else {
                self.b.ins().load(raw, flags, place.host, place.offset)
            };
            if order != MemOrder::Plain {
                if !self.host.x86 {
                    self.b.ins().fence();
                }
                self.b.ins().sequence_point();
            }
            value
        };
        let value = if op.big_endian() { self.swap_bytes(value) } else { value };
        self.fit(value, inst.ty, op.signed())
    }

    /// What is loaded is extended to 64 bits in this block, for a register: then it is loaded so, because Cranelift extends a
    /// value of several uses once more.
    fn widens(&self, load: &Inst) -> bool {
        let rest = self.unit.block(self.flow.nodes[self.node].block).iter().skip(self.at);
        self.input.mem == MemoryModel::Based
            && !load.memop().big_endian()
            && rest.clone().any(|i| i.op == Op::Zext && i.ty == Type::I64 && i.args[0] == load.dst)
    }

    /// Extends or reinterprets a loaded value.
    fn fit(&mut self, value: ir::Value, ty: Type, signed: bool) -> ir::Value {
        let to = clif_type(ty);
        let from = self.type_of(value);
        if ty.is_int() && from.is_int() && from.bits() < to.bits() {
            if signed { self.b.ins().sextend(to, value) } else { self.b.ins().uextend(to, value) }
        } else {
            self.bits(to, value)
        }
    }

    fn swap_bytes(&mut self, value: ir::Value) -> ir::Value {
        if self.type_of(value).is_int() {
            return self.bswap(value);
        }
        let reverse = u128::from_be_bytes(std::array::from_fn(|i| i as u8));
        self.shuffle(value, value, reverse)
    }

    fn lower_store(&mut self, inst: &Inst) {
        let op = inst.memop();
        let place = self.place(inst, true);
        let order = op.order();
        let mut value = self.arg(inst, 1);
        let bits = 8 * op.bytes();
        if inst.ty.is_float() && op.big_endian() {
            value = self.bits(clif_type(Type::int_of_log2(op.log2())), value);
        }
        if inst.ty.is_int() && inst.ty.bits() > bits {
            value = self.b.ins().ireduce(clif_type(Type::int_of_log2(op.log2())), value);
        }
        if op.big_endian() {
            value = self.swap_bytes(value);
        }
        if inst.ty == Type::I128 && op.log2() == 4 && order != MemOrder::Plain {
            value = self.bits(types::I8X16, value);
        }
        let flags = self.guest_flags().with_endianness(self.host.endianness);
        if order == MemOrder::Plain {
            self.b.ins().store(flags, value, place.host, place.offset);
        } else if self.host.x86 {
            // Host stores are releases.
            self.b.ins().sequence_point();
            self.b.ins().store(flags, value, place.host, place.offset);
            if order == MemOrder::SeqCst {
                self.b.ins().fence();
            }
        } else if self.type_of(value).bits() <= 64 {
            let int = ir::Type::int(self.type_of(value).bits() as u16).expect("a scalar width");
            let value = self.bits(int, value);
            let address = self.flatten(place);
            self.b.ins().atomic_store(flags, value, address);
        } else {
            self.b.ins().fence();
            self.b.ins().store(flags, value, place.host, place.offset);
            self.b.ins().fence();
        }
    }

    fn lower_rmw(&mut self, inst: &Inst) -> ir::Value {
        let op = inst.memop();
        let place = self.place(inst, true);
        let operand = self.arg(inst, 1);
        let rmw = inst.rmw();
        let flags = self.guest_flags();
        let ty = clif_type(inst.ty);
        let (rmw, operand) = match rmw {
            RmwOp::AndNot => (AtomicRmwOp::And, self.b.ins().bnot(operand)),
            RmwOp::Xchg => (AtomicRmwOp::Xchg, operand),
            RmwOp::Add => (AtomicRmwOp::Add, operand),
            RmwOp::Sub => (AtomicRmwOp::Sub, operand),
            RmwOp::And => (AtomicRmwOp::And, operand),
            RmwOp::Or => (AtomicRmwOp::Or, operand),
            RmwOp::Xor => (AtomicRmwOp::Xor, operand),
            RmwOp::MinS => (AtomicRmwOp::Smin, operand),
            RmwOp::MaxS => (AtomicRmwOp::Smax, operand),
            RmwOp::MinU => (AtomicRmwOp::Umin, operand),
            RmwOp::MaxU => (AtomicRmwOp::Umax, operand),
        };
        let address = self.flatten(place);
        if !op.big_endian() || ty == types::I8 {
            return self.b.ins().atomic_rmw(ty, flags, rmw, address, operand);
        }
        use AtomicRmwOp::*;
        match rmw {
            And | Or | Xor | Xchg | Nand => {
                let operand = self.bswap(operand);
                let old = self.b.ins().atomic_rmw(ty, flags, rmw, address, operand);
                self.bswap(old)
            }
            Add | Sub | Smin | Smax | Umin | Umax => {
                self.swapped_arithmetic(ty, flags, rmw, address, operand)
            }
        }
    }

    /// Arithmetic on memory of the other byte order: a compare-and-swap loop.
    fn swapped_arithmetic(
        &mut self,
        ty: ir::Type,
        flags: ir::MemFlagsData,
        rmw: AtomicRmwOp,
        address: ir::Value,
        operand: ir::Value,
    ) -> ir::Value {
        let first = self.b.ins().atomic_load(ty, flags, address);
        let (again, done) = (self.b.create_block(), self.b.create_block());
        let raw = self.b.append_block_param(again, ty);
        self.b.ins().jump(again, &[first.into()]);
        self.b.switch_to_block(again);
        let old = self.bswap(raw);
        let new = match rmw {
            AtomicRmwOp::Add => self.b.ins().iadd(old, operand),
            AtomicRmwOp::Sub => self.b.ins().isub(old, operand),
            AtomicRmwOp::Smin => self.b.ins().smin(old, operand),
            AtomicRmwOp::Smax => self.b.ins().smax(old, operand),
            AtomicRmwOp::Umin => self.b.ins().umin(old, operand),
            _ => self.b.ins().umax(old, operand),
        };
        let new = self.bswap(new);
        let seen = self.b.ins().atomic_cas(flags, address, raw, new);
        let same = self.b.ins().icmp(IntCC::Equal, seen, raw);
        self.b.ins().brif(same, done, &[], again, &[seen.into()]);
        self.b.seal_block(again);
        self.b.seal_block(done);
        self.b.switch_to_block(done);
        old
    }

    fn lower_cas(&mut self, inst: &Inst) -> Result<ir::Value, CompileError> {
        let op = inst.memop();
        if inst.ty == Type::I128 && !self.host.cas128 {
            return Err(CompileError::Host("no 128-bit compare-and-swap".into()));
        }
        let place = self.place(inst, true);
        let (mut expected, mut new) = (self.arg(inst, 1), self.arg(inst, 2));
        if op.big_endian() {
            (expected, new) = (self.bswap(expected), self.bswap(new));
        }
        let address = self.flatten(place);
        let flags = self.guest_flags();
        let old = self.b.ins().atomic_cas(flags, address, expected, new);
        Ok(if op.big_endian() { self.bswap(old) } else { old })
    }
}
