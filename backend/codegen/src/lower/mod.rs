//! Lowering of a region to one Cranelift function.
//!
//! This file holds the frame: variables, blocks, slots, write-back, and the dispatch over [`Op`] without a wildcard
//! arm. The subjects have files of their own: [`int`], [`nzcv`], [`memory`], [`float`], [`vector`],
//! [`vector_float`], [`slow`] (helper calls and the universal slow path) and [`exits`].
//!
//! A value is Cranelift's type of the same name; V128 is `i8x16`, lanes are reached by little-endian bitcasts.
//! Slots stay in Cranelift variables, see [`crate::flow`] for when they are stored.

mod exits;
mod float;
mod int;
mod known;
mod memory;
mod neighbours;
mod nzcv;
mod slow;
mod vector;
mod vector_float;

use crate::abi::EDGE_BYTES;
use crate::checkpoint::Reaching;
use crate::fault_map::{FaultMap, Resume};
use crate::flow::{Bits, Effect, Flow};
use crate::narrow::narrow_slots;
use crate::neighbours::Neighbours;
use crate::{CompileError, Edge, EdgeKind, MemoryModel, RegionInput};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self, AbiParam, AliasRegionData, Endianness, InstBuilder, MemFlagsData, Opcode, SigRef,
    Signature, SourceLoc, TrapCode, ValueDef, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};
use known::Known;
use std::collections::{HashMap, HashSet};
use tulk_base::state::{OFFSET_CELLS, OFFSET_ENGINE};
use tulk_ir::{Inst, Op, Shape, Type, Unit, Value};

/// The namespace of the symbol that stands for the edge records; its offset counts from the first record.
pub const EDGES_SYMBOL: u32 = 0;

/// What the lowering tells besides the Cranelift function.
pub struct Lowered {
    /// `offset` counts from the first record.
    pub edges: Vec<Edge>,
    /// What the fault map says, by source location: one for every guest instruction and part of one.
    pub resumes: Vec<Resume>,
}

/// Source locations (numbers of guest instructions and their parts) wrap into trap codes modulo this, see [`crate::Compiler`].
pub const TRAP_CODES: u32 = 250;

/// The Cranelift function signature of regions.
pub fn region_signature() -> Signature {
    let mut sig = Signature::new(CallConv::Tail);
    sig.params.push(AbiParam::new(types::I64));
    sig
}

pub fn clif_type(ty: Type) -> ir::Type {
    match ty {
        Type::I8 => types::I8,
        Type::I16 => types::I16,
        Type::I32 => types::I32,
        Type::I64 => types::I64,
        Type::I128 => types::I128,
        Type::F32 => types::F32,
        Type::F64 => types::F64,
        Type::V128 => types::I8X16,
    }
}

fn clif_shape(shape: Shape) -> ir::Type {
    match shape {
        Shape::I8x16 => types::I8X16,
        Shape::I16x8 => types::I16X8,
        Shape::I32x4 => types::I32X4,
        Shape::I64x2 => types::I64X2,
        Shape::F32x4 => types::F32X4,
        Shape::F64x2 => types::F64X2,
    }
}

/// What the host can do beyond Cranelift's baseline.
#[derive(Clone, Copy, Debug)]
pub struct Host {
    pub x86: bool,
    pub fma: bool,
    pub sse41: bool,
    /// PSHUFB exists.
    pub ssse3: bool,
    pub cas128: bool,
    pub endianness: Endianness,
}

impl Host {
    pub fn of(isa: &dyn TargetIsa) -> Host {
        let x86 = isa.triple().architecture.to_string() == "x86_64";
        let has = |name: &str| {
            isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true))
        };
        Host {
            x86,
            fma: !x86 || has("has_fma"),
            sse41: !x86 || has("has_sse41"),
            ssse3: x86 && has("has_ssse3"),
            cas128: x86 && has("has_cmpxchg16b"),
            endianness: isa.endianness(),
        }
    }
}

/// Parts of the state and other memory that never overlap.
struct Regions {
    /// Cells and engine words.
    env: MemFlagsData,
    /// Edge records, ring, jump cache.
    links: MemFlagsData,
    /// Guest memory; the trap code is added per access.
    guest: MemFlagsData,
}

pub struct Lower<'a> {
    b: FunctionBuilder<'a>,
    input: &'a RegionInput<'a>,
    host: Host,
    flow: Flow,
    regions: Regions,
    region_sig: SigRef,
    thunk_sig: SigRef,
    /// Signatures of direct helpers by their number of words.
    direct_sigs: [Option<SigRef>; 7],
    env: ir::Value,
    /// Host address of guest address 0, if it is not 0.
    mem_base: Option<ir::Value>,
    /// Where the access that is being lowered goes, if that is known already.
    mapped: Option<memory::Place>,
    neighbours: Neighbours,
    search: neighbours::Search,
    /// Host addresses of groups of neighbours, or 0; the groups whose are known now.
    hosts: Vec<Variable>,
    known_hosts: Vec<u16>,
    vars: Vec<Variable>,
    blocks: Vec<ir::Block>,
    /// Edges into each node's block that are still to come.
    missing_preds: Vec<usize>,
    // The current position.
    node: usize,
    at: usize,
    unit: &'a Unit,
    dirty: Bits,
    values: Vec<Option<ir::Value>>,
    nzcv: Known<nzcv::Producer>,
    /// See [`crate::narrow`].
    narrow: Bits,
    /// Values of these slots, whose upper halves are zero.
    extended: HashSet<ir::Value>,
    /// Vectors whose lane 0 is a scalar that exists.
    scalars: Known<(Shape, ir::Value)>,
    // Results.
    edges: Vec<Edge>,
    edge_numbers: HashMap<(u64, u64, u8), usize>,
    /// By source location: the guest instruction and its entry in the fault map.
    insns: Vec<(u64, Resume)>,
    pc: u64,
    /// The current checkpoint, and the writes since then that need not be repeated.
    reaching: Reaching,
    done: u8,
    common: exits::Common,
}

/// Writes the region into `func` (cleared, with its signature still to be set).
pub fn lower(
    input: &RegionInput<'_>,
    flow: Flow,
    isa: &dyn TargetIsa,
    host: Host,
    func: &mut ir::Function,
    context: &mut FunctionBuilderContext,
) -> Result<Lowered, CompileError> {
    func.signature = region_signature();
    let regions = {
        let mut region = |user_id, description: &'static str| {
            let data = AliasRegionData { user_id, description: description.into() };
            Some(func.dfg.alias_regions.insert(data))
        };
        Regions {
            env: MemFlagsData::trusted().with_alias_region(region(1, "state")),
            links: MemFlagsData::trusted().with_alias_region(region(2, "links")),
            guest: MemFlagsData::new().with_alias_region(region(3, "guest")),
        }
    };
    let mut b = FunctionBuilder::new(func, context);
    let region_sig = b.import_signature(region_signature());
    let thunk_sig = {
        let mut sig = Signature::new(CallConv::PreserveAll);
        sig.params.extend([AbiParam::new(types::I64); 3]);
        b.import_signature(sig)
    };
    let vars = flow.vars.iter().map(|v| b.declare_var(clif_type(v.ty))).collect();
    let entry = b.create_block();
    let blocks: Vec<ir::Block> = flow.nodes.iter().map(|_| b.create_block()).collect();
    for (n, &block) in blocks.iter().enumerate() {
        if flow.is_aside(input, n) {
            b.set_cold_block(block);
        }
    }
    let missing_preds = flow.nodes.iter().map(|n| n.preds).collect();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);
    let env = b.block_params(entry)[0];
    let dirty = Bits::new(flow.vars.len());
    let narrow = narrow_slots(input, &flow);
    let mut lower = Lower {
        b,
        input,
        host,
        flow,
        regions,
        region_sig,
        thunk_sig,
        direct_sigs: [None; 7],
        env,
        mem_base: None,
        mapped: None,
        neighbours: Neighbours::default(),
        search: neighbours::Search::default(),
        hosts: Vec::new(),
        known_hosts: Vec::new(),
        vars,
        blocks,
        missing_preds,
        node: 0,
        at: 0,
        unit: input.units[0],
        dirty,
        values: Vec::new(),
        nzcv: Known::default(),
        narrow,
        extended: HashSet::new(),
        scalars: Known::default(),
        edges: Vec::new(),
        edge_numbers: HashMap::new(),
        insns: Vec::new(),
        pc: input.units[0].pc,
        reaching: Reaching::None,
        done: 0,
        common: exits::Common::default(),
    };
    lower.missing_preds[0] += 1;
    lower.entry();
    for i in 0..lower.flow.order.len() {
        lower.node(lower.flow.order[i])?;
    }
    lower.finish_shared();
    lower.b.seal_all_blocks();
    lower.b.finalize(isa.frontend_config());
    Ok(Lowered { edges: lower.edges, resumes: lower.insns.iter().map(|i| i.1).collect() })
}

impl<'a> Lower<'a> {
    fn entry(&mut self) {
        self.poll(self.input.units[0].pc);
        if let Some(&check) = self.input.pages.first() {
            self.check_page(check, self.input.units[0].pc);
        }
        if self.flow.checkpoints.entry_tells {
            self.store_pc(self.input.units[0].pc);
        }
        self.mem_base = self.load_mem_base();
        let live: Vec<usize> = self.flow.nodes[0].live_in.iter().collect();
        for v in live {
            let var = self.flow.vars[v];
            let value = match var.cell {
                Some(cell) => self.load_slot(v, cell),
                None => self.zero(clif_type(var.ty)),
            };
            self.b.def_var(self.vars[v], value);
        }
        self.jump_to_node(0);
    }

    /// Jumps to the block of a node; once all of them are in, seals it.
    fn jump_to_node(&mut self, n: usize) {
        self.b.ins().jump(self.blocks[n], &[]);
        self.count_edge(n);
    }

    fn count_edge(&mut self, n: usize) {
        self.missing_preds[n] -= 1;
        if self.missing_preds[n] == 0 {
            self.b.seal_block(self.blocks[n]);
        }
    }

    fn node(&mut self, n: usize) -> Result<(), CompileError> {
        self.b.switch_to_block(self.blocks[n]);
        self.node = n;
        let node = &self.flow.nodes[n];
        self.dirty = node.dirty_in.clone();
        self.reaching = self.flow.checkpoints.reaching(n);
        self.done = self.flow.checkpoints.done(n);
        let unit = self.input.units[node.unit];
        let range = unit.block_range(node.block);
        if !std::ptr::eq(unit, self.unit) || self.values.len() != unit.values.len() {
            self.unit = unit;
        }
        self.values.clear();
        self.values.resize(unit.values.len(), None);
        self.nzcv.clear();
        self.scalars.clear();
        // A block inside a unit may start in the middle of a guest instruction.
        let open = unit.insts[..range.start].iter().rev().find(|i| i.op == Op::Insn);
        self.start_insn(open.map_or(unit.pc, |i| i.imm as u64));
        let insts = &unit.insts[range];
        self.known_hosts.clear();
        if self.input.mem == MemoryModel::Paged {
            self.find_neighbours(insts);
        }
        for (at, inst) in insts.iter().enumerate() {
            self.at = at;
            self.inst(inst)?;
        }
        Ok(())
    }

    /// Code from here on belongs to the guest instruction at `pc`.
    fn start_insn(&mut self, pc: u64) {
        let back_to = match self.reaching {
            Reaching::None => pc,
            Reaching::One(pc) => pc,
            Reaching::Many => FaultMap::CHECKPOINT,
        };
        let resume = Resume { pc: back_to, done: self.input.precise.then_some(self.done) };
        if self.insns.last() != Some(&(pc, resume)) {
            self.insns.push((pc, resume));
        }
        self.pc = pc;
        self.b.set_srcloc(SourceLoc::new(self.insns.len() as u32 - 1));
    }

    // Values.

    fn value(&self, v: Value) -> ir::Value {
        self.values[v.0 as usize].expect("a value is defined before its use in the block")
    }
    fn arg(&self, inst: &Inst, i: usize) -> ir::Value {
        self.value(inst.args[i])
    }
    fn args2(&self, inst: &Inst) -> (ir::Value, ir::Value) {
        (self.arg(inst, 0), self.arg(inst, 1))
    }
    fn define(&mut self, inst: &Inst, value: ir::Value) {
        self.values[inst.dst.0 as usize] = Some(value);
    }
    fn type_of(&self, v: ir::Value) -> ir::Type {
        self.b.func.dfg.value_type(v)
    }
    fn iconst(&mut self, ty: ir::Type, n: i64) -> ir::Value {
        if ty == types::I128 {
            let low = self.b.ins().iconst(types::I64, n);
            return self.b.ins().sextend(types::I128, low);
        }
        let shift = 64 - ty.bits();
        // Cranelift wants constants zero-extended.
        self.b.ins().iconst(ty, (((n as u64) << shift) >> shift) as i64)
    }
    fn zero(&mut self, ty: ir::Type) -> ir::Value {
        match ty {
            types::F32 => self.b.ins().f32const(0.0),
            types::F64 => self.b.ins().f64const(0.0),
            types::I8X16 => self.vector_const(0),
            _ => self.iconst(ty, 0),
        }
    }
    fn bits(&mut self, ty: ir::Type, v: ir::Value) -> ir::Value {
        if self.type_of(v) == ty {
            return v;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), v)
    }
    /// `a cc imm` as a truth value.
    fn icmp_imm(&mut self, cc: IntCC, a: ir::Value, imm: i64) -> ir::Value {
        let c = self.iconst(self.type_of(a), imm);
        self.b.ins().icmp(cc, a, c)
    }

    /// A 32-bit value extended to 64 bits with zeros.
    fn widen(&mut self, value: ir::Value) -> ir::Value {
        let dfg = &self.b.func.dfg;
        let def = |v: ir::Value| match dfg.value_def(dfg.resolve_aliases(v)) {
            ValueDef::Result(inst, _) => Some((dfg.insts[inst].opcode(), dfg.inst_args(inst))),
            _ => None,
        };
        if let Some((Opcode::Ireduce, &[wide])) = def(value)
            && dfg.value_type(wide) == types::I64
        {
            let extended = match def(wide) {
                Some((Opcode::Uload32, _)) => true,
                Some((Opcode::Uextend, args)) => dfg.value_type(args[0]).bits() <= 32,
                _ => false,
            };
            if extended || self.extended.contains(&wide) {
                return wide;
            }
        }
        self.b.ins().uextend(types::I64, value)
    }

    // Blocks off the hot path.

    fn cold_block(&mut self) -> ir::Block {
        let block = self.b.create_block();
        self.b.set_cold_block(block);
        block
    }

    /// A block that goes on where the present one ends: off the hot path if that is.
    fn next_block(&mut self) -> ir::Block {
        let here = self.b.current_block();
        if here.is_some_and(|here| self.b.func.layout.is_cold(here)) {
            return self.cold_block();
        }
        self.b.create_block()
    }

    /// Goes to `cold` when `cond` is non-zero; the position becomes the other side. `cold` gets no other
    /// predecessor.
    fn branch_cold(&mut self, cond: ir::Value, cold: ir::Block) {
        let go_on = self.next_block();
        self.b.ins().brif(cond, cold, &[], go_on, &[]);
        self.b.seal_block(cold);
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
    }

    /// `value`, unless `cond` is non-zero: then what `cold` computes on a path out of the way.
    fn or_else(
        &mut self,
        cond: ir::Value,
        value: ir::Value,
        cold: impl FnOnce(&mut Self) -> ir::Value,
    ) -> ir::Value {
        let slow = self.cold_block();
        let go_on = self.next_block();
        let result = self.b.append_block_param(go_on, self.type_of(value));
        self.b.ins().brif(cond, slow, &[], go_on, &[value.into()]);
        self.b.seal_block(slow);
        self.b.switch_to_block(slow);
        let other = cold(self);
        self.b.ins().jump(go_on, &[other.into()]);
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
        result
    }

    /// What `hot` computes, unless `cond` is non-zero: then what `cold` computes out of the way.
    fn if_else(
        &mut self,
        cond: ir::Value,
        ty: ir::Type,
        hot: impl FnOnce(&mut Self) -> ir::Value,
        cold: impl FnOnce(&mut Self) -> ir::Value,
    ) -> ir::Value {
        let slow = self.cold_block();
        self.branch_cold(cond, slow);
        let value = hot(self);
        let go_on = self.next_block();
        let result = self.b.append_block_param(go_on, ty);
        self.b.ins().jump(go_on, &[value.into()]);
        self.b.switch_to_block(slow);
        let other = cold(self);
        self.b.ins().jump(go_on, &[other.into()]);
        self.b.seal_block(go_on);
        self.b.switch_to_block(go_on);
        result
    }

    // The state.

    fn load_cell(&mut self, ty: Type, cell: u16) -> ir::Value {
        let offset = OFFSET_CELLS + 8 * cell as i32;
        self.b.ins().load(clif_type(ty), self.regions.env, self.env, offset)
    }
    /// The variable `v` from its cell.
    fn load_slot(&mut self, v: usize, cell: u16) -> ir::Value {
        if !self.narrow.contains(v) {
            return self.load_cell(self.flow.vars[v].ty, cell);
        }
        let offset = OFFSET_CELLS + 8 * cell as i32;
        self.b.ins().uload32(self.regions.env, self.env, offset)
    }
    fn store_cell(&mut self, cell: u16, value: ir::Value) {
        self.b.ins().store(self.regions.env, value, self.env, OFFSET_CELLS + 8 * cell as i32);
    }
    fn load_word(&mut self, word: usize) -> ir::Value {
        let offset = OFFSET_ENGINE + 8 * word as i32;
        self.b.ins().load(types::I64, self.regions.env, self.env, offset)
    }
    fn store_word(&mut self, word: usize, value: ir::Value) {
        self.b.ins().store(self.regions.env, value, self.env, OFFSET_ENGINE + 8 * word as i32);
    }
    fn store_word_imm(&mut self, word: usize, n: u64) {
        let value = self.iconst(types::I64, n as i64);
        self.store_word(word, value);
    }

    /// Stores the slots of `set`, without changing what counts as dirty.
    fn store_slots(&mut self, set: &Bits) {
        for v in set.iter() {
            let cell = self.flow.vars[v].cell.expect("locals are never dirty");
            let value = self.b.use_var(self.vars[v]);
            self.store_cell(cell, value);
        }
    }
    /// Stores all dirty slots, which stay dirty for the code that does not go this way.
    fn store_dirty(&mut self) {
        let dirty = self.dirty.clone();
        self.store_slots(&dirty);
    }

    /// Memory flags for a guest access by the current guest instruction.
    fn guest_flags(&self) -> MemFlagsData {
        if self.input.mem == MemoryModel::Paged {
            return self.regions.guest.with_trap_code(None);
        }
        let number = self.insns.len() as u32 - 1;
        let code = TrapCode::unwrap_user((number % TRAP_CODES) as u8 + 1);
        self.regions.guest.with_trap_code(Some(code))
    }

    // Edge records.

    fn edge_number(&mut self, pc: u64, flags: u64, kind: EdgeKind) -> usize {
        let tag = match kind {
            EdgeKind::Exit(k) => k as u8,
            EdgeKind::ReturnSite => u8::MAX,
        };
        let next = self.edges.len();
        let n = *self.edge_numbers.entry((pc, flags, tag)).or_insert(next);
        if n == next {
            let offset = next as u32 * EDGE_BYTES;
            self.edges.push(Edge { pc, flags, kind, offset });
        }
        n
    }
    /// The address of an edge record.
    fn edge_address(&mut self, number: usize) -> ir::Value {
        let name = self
            .b
            .func
            .declare_imported_user_function(ir::UserExternalName::new(EDGES_SYMBOL, number as u32));
        let data = ir::GlobalValueData::Symbol {
            name: ir::ExternalName::user(name),
            offset: 0.into(),
            colocated: true,
            tls: false,
        };
        let symbol = self.b.create_global_value(data);
        self.b.ins().symbol_value(types::I64, symbol)
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), CompileError> {
        match self.flow.effect(self.input, self.node, self.at, inst) {
            Effect::Checkpoint(slots) => {
                let mut now = self.dirty.clone();
                now.intersect(&slots);
                self.store_slots(&now);
                self.dirty.subtract(&slots);
                if self.flow.checkpoints.point(self.node, self.at).is_some_and(|point| point.tells)
                {
                    self.store_pc(inst.imm as u64);
                }
                self.reaching = Reaching::One(inst.imm as u64);
                self.done = 0;
            }
            Effect::Sync => {
                self.store_dirty();
                self.dirty.clear();
            }
            Effect::Get(v) => {
                let value = self.b.use_var(self.vars[v]);
                self.define(inst, value);
                if self.narrow.contains(v) {
                    self.extended.insert(value);
                }
                self.nzcv.get(v, inst.dst);
                self.scalars.get(v, inst.dst);
            }
            Effect::Set(v) => {
                let value = self.arg(inst, 0);
                self.b.def_var(self.vars[v], value);
                self.nzcv.set(v, inst.args[0]);
                self.scalars.set(v, inst.args[0]);
                if self.flow.vars[v].cell.is_some() {
                    self.dirty.insert(v);
                }
            }
            Effect::Call { store, load } => {
                let mut now = self.dirty.clone();
                now.intersect(&store);
                self.store_slots(&now);
                self.dirty.subtract(&store);
                self.dirty.subtract(&load);
                self.helper_call(inst);
                let mut reload = self.flow.live_after(self.input, self.node, self.at, &self.dirty);
                reload.intersect(&load);
                for v in reload.iter() {
                    let cell = self.flow.vars[v].cell.expect("helpers write slots only");
                    let value = self.load_slot(v, cell);
                    self.b.def_var(self.vars[v], value);
                }
                for v in load.iter() {
                    self.nzcv.forget(v);
                    self.scalars.forget(v);
                }
            }
            Effect::None | Effect::SyncAside => {}
        }
        use Op::*;
        match inst.op {
            Get | Set | Call => {}
            Insn => self.start_insn(inst.imm as u64),
            Iconst | Bitcast | Add | Sub | Mul | MulhU | MulhS | DivU | DivS | RemU | RemS
            | Neg | Abs | MinU | MinS | MaxU | MaxS | AddCarry | CarryOut | Not | And | Or
            | Xor | AndNot | OrNot | XorNot | Shl | ShrU | ShrS | Rotl | Rotr | Clz | Ctz
            | Popcnt | Bswap | Bitrev | BextractU | BextractS | Binsert | ParityEven | Zext
            | Sext | Trunc | Concat | Lo64 | Hi64 | Icmp | Select => {
                let value = self.lower_int(inst);
                self.define(inst, value);
            }
            AddNzcv | SubNzcv | AdcNzcv | LogicNzcv | FcmpNzcv | NzcvTest => {
                let value = self.lower_nzcv(inst);
                self.define(inst, value);
            }
            Load | Store | AtomicRmw | AtomicCas | Fence => {
                if let Some(value) = self.lower_memory(inst)? {
                    self.define(inst, value);
                }
                if self.flow.checkpoints.in_row(self.node, self.at) {
                    self.done += 1;
                    self.start_insn(self.pc);
                }
            }
            Fadd | Fsub | Fmul | Fdiv | Fsqrt | Fma | Fneg | Fabs | Fmin | Fmax | Fcmp | Fround
            | FtoS | FtoU | StoF | UtoF | Fpromote | Fdemote => {
                let value = self.lower_float(inst);
                self.define(inst, value);
            }
            Vconst | Vsplat | Vscalar | Vlane | VsetLane | Vshuffle | Vswizzle | Vand | Vor
            | Vxor | VandNot | Vnot | Vbitsel | Vadd | Vsub | Vmul | Vneg | Vabs | VaddSatS
            | VaddSatU | VsubSatS | VsubSatU | VminS | VminU | VmaxS | VmaxU | VavgU | Vicmp
            | VshlI | VshrUI | VshrSI | VshlV | VshrUV | VshrSV | VshlBy | VshrUBy | VshrSBy
            | VwidenLoS | VwidenLoU | VwidenHiS | VwidenHiU | Vnarrow | VnarrowSatS
            | VnarrowSatSU | VnarrowSatU | VmulWidenLoS | VmulWidenLoU | VmulWidenHiS
            | VmulWidenHiU | VaddPairs | VmaddPairsS | Vpopcnt | Vclz | VanyTrue | VsignBits => {
                let value = self.lower_vector(inst);
                self.define(inst, value);
            }
            Vfadd | Vfsub | Vfmul | Vfdiv | Vfsqrt | Vfma | Vfneg | Vfabs | Vfmin | Vfmax
            | Vfcmp | Vfround | VftoS | VftoU | VstoF | VutoF | VfpromoteLo | VfdemoteLo => {
                let value = self.lower_vector_float(inst);
                self.define(inst, value);
            }
            Jump | Brif | ExitDirect | ExitIndirect | ExitTrap => self.lower_end(inst),
        }
        Ok(())
    }
}
