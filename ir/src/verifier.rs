//! Checks a [`Unit`]. All errors are collected, each with its place.
//!
//! Structure
//! - there is a block 0 that starts at instruction 0, blocks are in order and none is empty
//! - each block ends with an ending instruction and has no other
//! - jumps go to existing, later blocks
//!
//! Values
//! - an instruction has a result if and only if the table says so, of the type that it says
//! - each value has exactly one definition
//! - operands are present as the table says, defined earlier in the same block, and of the types it says
//! - the return pc of a call is a constant
//!
//! Fields
//! - `ty` is in the op's class, unused `ty`, `shape`, `aux`, `imm` and `imm2` hold their defaults
//! - lane shapes are among those that the op has ([`shapes`])
//! - condition codes, rounding modes and kinds exist and fit the op; I128 is compared for equality only
//! - slots and locals exist and have the type `ty`; pool constants and helpers exist
//! - lane numbers, shift amounts and bit fields are inside their type
//! - a memop is well formed; loads and stores are at most as wide as their type, 128-bit, float and atomic
//!   ones exactly
//! - kinds of exits fit the exit; calls and only calls have a return pc
//!
//! Guest view
//! - an op that may fault comes behind an `insn` marker (in text order, which decides which guest
//!   instruction it belongs to)
//! - `insn` markers lie inside the unit's bytes
//! - a local is set on every path before it is read
//!
//! Not checked: that a helper does only what its row declares (debug builds of the engine check that at run
//! time), and that every block can be reached.

use crate::helper::HelperDef;
use crate::layout::RegLayout;
use crate::op::{Arg, Aux, Class, Imm, Op, Res, effect};
use crate::printer::{RMW_NAMES, aux_flag_name, aux_names};
use crate::types::*;
use crate::unit::{ExitKind, Inst, Unit, Value};
use std::fmt;

/// One broken rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    /// Index of the instruction, unless it concerns the unit.
    pub inst: Option<usize>,
    /// The instruction's text.
    pub text: String,
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.inst {
            Some(i) => write!(f, "instruction {i} `{}`: {}", self.text, self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Error {}

/// Lane shapes that `op` accepts.
pub fn shapes(op: Op) -> &'static [Shape] {
    use Shape::*;
    const ALL: &[Shape] = Shape::ALL;
    const INT: &[Shape] = &[I8x16, I16x8, I32x4, I64x2];
    const FLOAT: &[Shape] = &[F32x4, F64x2];
    match op {
        Op::Vsplat | Op::Vscalar | Op::Vlane | Op::VsetLane | Op::VsignBits => ALL,
        Op::VwidenLoS | Op::VwidenLoU | Op::VwidenHiS | Op::VwidenHiU => &[I8x16, I16x8, I32x4],
        Op::VmulWidenLoS | Op::VmulWidenLoU | Op::VmulWidenHiS | Op::VmulWidenHiU => {
            &[I8x16, I16x8, I32x4]
        }
        Op::Vnarrow | Op::VnarrowSatS | Op::VnarrowSatSU | Op::VnarrowSatU => {
            &[I16x8, I32x4, I64x2]
        }
        Op::VmaddPairsS => &[I16x8],
        Op::Vpopcnt => &[I8x16],
        _ if !op.info().shaped => &[I8x16],
        _ if is_float_vector(op) => FLOAT,
        _ => INT,
    }
}

/// The shaped operations on float lanes.
fn is_float_vector(op: Op) -> bool {
    op.info().effects & effect::FLAGS != 0 || matches!(op, Op::Vfneg | Op::Vfabs)
}

/// Whether `ty` may stand in the `ty` field of an op of this class.
fn in_class(op: Op, class: Class, ty: Type) -> bool {
    match class {
        Class::Word => ty.is_int() && ty != Type::I128,
        Class::Word32 => matches!(ty, Type::I32 | Type::I64),
        Class::Int => ty.is_int(),
        Class::Float => ty.is_float(),
        Class::V128 => ty == Type::V128,
        Class::Any => true,
        Class::Unused => {
            ty == match op {
                Op::Fpromote => Type::F64,
                Op::Fdemote => Type::F32,
                _ => Type::I64,
            }
        }
    }
}

/// Everything that is wrong with `unit`.
pub fn verify(unit: &Unit, layout: &RegLayout, helpers: &[HelperDef]) -> Result<(), Vec<Error>> {
    let mut v = Verifier { unit, layout, helpers, errors: Vec::new(), at: None };
    // Later checks index what earlier ones have found sound.
    v.structure();
    if v.errors.is_empty() {
        v.values();
        v.fields();
        v.guest_view();
        v.locals();
    }
    if v.errors.is_empty() { Ok(()) } else { Err(v.errors) }
}

struct Verifier<'a> {
    unit: &'a Unit,
    layout: &'a RegLayout,
    helpers: &'a [HelperDef],
    errors: Vec<Error>,
    /// Instruction being checked.
    at: Option<usize>,
}

impl Verifier<'_> {
    fn error(&mut self, message: impl Into<String>) {
        let text = self.at.and_then(|i| self.unit.insts.get(i)).map_or(String::new(), |inst| {
            self.unit.display(self.layout).helpers(self.helpers).inst(inst).to_string()
        });
        self.errors.push(Error { inst: self.at, text, message: message.into() });
    }

    fn check(&mut self, good: bool, message: impl FnOnce() -> String) {
        if !good {
            self.error(message());
        }
    }

    fn structure(&mut self) {
        let unit = self.unit;
        let end = unit.insts.len() as u32;
        self.check(unit.blocks.first() == Some(&0), || "the entry block is missing".into());
        let starts = unit.blocks.iter().copied().chain([end]).collect::<Vec<_>>();
        let ordered = starts.windows(2).all(|w| w[0] < w[1]);
        self.check(ordered, || "blocks are out of order or empty".into());
        if !self.errors.is_empty() {
            return;
        }
        for block in 0..unit.blocks.len() as u32 {
            let range = unit.block_range(block);
            let last = range.end - 1;
            for i in range {
                self.at = Some(i);
                let inst = &unit.insts[i];
                let ends = inst.op.info().effects & effect::END != 0;
                self.check(ends || i != last, || format!("block{block} has no ending instruction"));
                self.check(!ends || i == last, || format!("ends block{block} before its end"));
                let mut target = |to: i64| {
                    self.check((0..unit.blocks.len() as i64).contains(&to), || {
                        format!("there is no block{to}")
                    });
                    self.check(to > block as i64, || {
                        format!("jumps from block{block} back to block{to}")
                    });
                };
                match inst.op {
                    Op::Jump => target(inst.imm2 as i64),
                    Op::Brif => {
                        target(inst.imm2 as i64);
                        target(inst.imm);
                    }
                    _ => {}
                }
            }
        }
        self.at = None;
    }

    fn values(&mut self) {
        let unit = self.unit;
        /// Not defined yet.
        const NEVER: u32 = u32::MAX;
        let mut defined_in = vec![NEVER; unit.values.len()];
        for block in 0..unit.blocks.len() as u32 {
            for i in unit.block_range(block) {
                self.at = Some(i);
                let inst = &unit.insts[i];
                for n in 0..3 {
                    self.operand(inst, n, |v| defined_in[v.0 as usize], block, NEVER);
                }
                self.result(inst);
                if let Some(slot) = defined_in.get_mut(inst.dst.0 as usize) {
                    let twice = *slot != NEVER;
                    *slot = block;
                    self.check(!twice, || format!("{} has another definition before", inst.dst));
                }
                let constant = |v: Value| {
                    v.is_none()
                        || unit.insts[..i].iter().rev().any(|d| d.dst == v && d.op == Op::Iconst)
                };
                if let Some(ret) = inst.return_pc() {
                    self.check(constant(ret), || "the return pc is not a constant".into());
                }
                if inst.op == Op::ExitDirect {
                    let flags = constant(inst.args[1]);
                    self.check(flags, || "the key flags are not a constant".into());
                }
            }
        }
        self.at = None;
        for (n, &block) in defined_in.iter().enumerate() {
            self.check(block != NEVER, || format!("v{n} has no definition"));
        }
    }

    fn operand(
        &mut self,
        inst: &Inst,
        n: usize,
        defined_in: impl Fn(Value) -> u32,
        block: u32,
        never: u32,
    ) {
        let unit = self.unit;
        let arg = inst.args[n];
        let number = n + 1;
        let kind = match inst.op.info().args.get(n) {
            Some(Arg::Helper) => match self.helpers.get(inst.imm2 as usize) {
                // `fields` reports the unknown helper.
                None => return,
                Some(helper) => match helper.args.get(n) {
                    Some(&ty) => Demand::Type(ty),
                    None => Demand::Absent,
                },
            },
            Some(&kind) => Demand::Kind(kind),
            None => Demand::Absent,
        };
        if arg.is_none() {
            let optional = matches!(kind, Demand::Absent | Demand::Kind(Arg::OptI64));
            self.check(optional, || format!("operand {number} is missing"));
            return;
        }
        if arg.0 as usize >= unit.values.len() {
            return self.error(format!("{arg} does not exist"));
        }
        let def = defined_in(arg);
        self.check(def != never, || format!("{arg} is used before its definition"));
        self.check(def == never || def == block, || {
            format!("{arg} belongs to block{def}, this is block{block}")
        });
        let ty = unit.type_of(arg);
        let own = inst.ty;
        let (good, need) = match kind {
            Demand::Absent => (false, "no operand here".to_string()),
            Demand::Type(need) => (ty == need, need.to_string()),
            Demand::Kind(kind) => match kind {
                Arg::Own => (ty == own, own.to_string()),
                Arg::Bool => (ty == Type::I8, "i8".into()),
                Arg::I32 => (ty == Type::I32, "i32".into()),
                Arg::I64 | Arg::OptI64 => (ty == Type::I64, "i64".into()),
                Arg::I128 => (ty == Type::I128, "i128".into()),
                Arg::V128 => (ty == Type::V128, "v128".into()),
                Arg::Lane => (ty == inst.shape.lane_type(), inst.shape.lane_type().to_string()),
                Arg::Addr | Arg::Word32 => {
                    (matches!(ty, Type::I32 | Type::I64), "i32 or i64".into())
                }
                Arg::Narrower => (
                    ty.is_int() && ty.bits() < own.bits(),
                    format!("an integer narrower than {own}"),
                ),
                Arg::Wider => {
                    (ty.is_int() && ty.bits() > own.bits(), format!("an integer wider than {own}"))
                }
                Arg::Float => match inst.op {
                    Op::Fpromote => (ty == Type::F32, "f32".into()),
                    Op::Fdemote => (ty == Type::F64, "f64".into()),
                    _ => (ty.is_float(), "f32 or f64".into()),
                },
                Arg::SameWidth => (ty.bits() == own.bits(), format!("{} bits", own.bits())),
                Arg::Helper => unreachable!("resolved above"),
            },
        };
        self.check(good, || format!("operand {number} is {ty}, needs {need}"));
    }

    fn result(&mut self, inst: &Inst) {
        let expected = match inst.op.info().result {
            Res::None => None,
            Res::Own => Some(inst.ty),
            Res::Bool => Some(Type::I8),
            Res::I32 => Some(Type::I32),
            Res::I64 => Some(Type::I64),
            Res::I128 => Some(Type::I128),
            Res::V128 => Some(Type::V128),
            Res::Helper => match self.helpers.get(inst.imm2 as usize) {
                Some(helper) => helper.ret,
                None => return,
            },
        };
        match (expected, inst.dst.is_none()) {
            (None, true) => {}
            (None, false) => self.error("has a result and should not"),
            (Some(ty), true) => self.error(format!("lacks its result of type {ty}")),
            (Some(ty), false) => match self.unit.values.get(inst.dst.0 as usize) {
                None => self.error(format!("{} does not exist", inst.dst)),
                Some(&found) => self.check(found == ty, || {
                    format!("{} is recorded as {found}, the result is {ty}", inst.dst)
                }),
            },
        }
    }

    fn fields(&mut self) {
        for (i, inst) in self.unit.insts.iter().enumerate() {
            self.at = Some(i);
            let info = inst.op.info();
            self.check(in_class(inst.op, info.class, inst.ty), || {
                format!("{} has no form of type {}", info.name, inst.ty)
            });
            self.check(shapes(inst.op).contains(&inst.shape), || {
                format!("{} has no form of shape {}", info.name, inst.shape)
            });
            self.aux(inst, info.aux);
            self.immediates(inst, info.imm);
        }
        self.at = None;
    }

    fn aux(&mut self, inst: &Inst, kind: Aux) {
        let flag = inst.aux & 0x80 != 0;
        let flag_allowed =
            aux_flag_name(kind).is_some() || matches!(kind, Aux::Signalling | Aux::Overwriting);
        self.check(!flag || flag_allowed, || "the flag bit of aux is set".into());
        let unsigned = matches!(inst.op, Op::FtoU | Op::VftoU);
        self.check(!flag || !unsigned, || {
            "only signed conversions give an indefinite number".into()
        });
        let count = match kind {
            Aux::None | Aux::Overwriting => 1,
            Aux::Rmw => RMW_NAMES.len(),
            _ => aux_names(kind).len(),
        };
        let number = (inst.aux & 0x7f) as usize;
        self.check(number < count, || format!("aux is {number}, which has no meaning here"));
        if number >= count {
            return;
        }
        if inst.op == Op::Icmp && inst.ty == Type::I128 {
            let equality = matches!(inst.int_cc(), IntCc::Eq | IntCc::Ne);
            self.check(equality, || "i128 is compared with eq and ne only".into());
        }
        if kind != Aux::Exit {
            return;
        }
        let exit = inst.exit_kind();
        let flow = matches!(exit, ExitKind::Jump | ExitKind::Call | ExitKind::Return);
        let fits = match inst.op {
            Op::ExitDirect => flow,
            Op::ExitIndirect => flow || exit == ExitKind::Resync,
            _ => exit.trap(0).is_some(),
        };
        self.check(fits, || format!("an exit of this form cannot be a {}", exit.name()));
        if flow && inst.op != Op::ExitTrap {
            let has_return = inst.return_pc().is_some();
            self.check(has_return == (exit == ExitKind::Call), || {
                "calls, and only calls, have a return pc".into()
            });
        }
    }

    fn immediates(&mut self, inst: &Inst, kind: Imm) {
        let (uses_imm, uses_imm2) = match kind {
            Imm::None => (false, false),
            Imm::Const | Imm::Pool | Imm::Pc => (true, false),
            Imm::Slot | Imm::Lane | Imm::Amount | Imm::Field | Imm::Block | Imm::MemOp => {
                (false, true)
            }
            Imm::Mem | Imm::Blocks | Imm::Insn | Imm::Trap | Imm::Helper => (true, true),
        };
        self.check(uses_imm || inst.imm == 0, || "imm is unused and not 0".into());
        self.check(uses_imm2 || inst.imm2 == 0, || "imm2 is unused and not 0".into());
        match kind {
            Imm::Pool => {
                let exists = (0..self.unit.pool.len() as i64).contains(&inst.imm);
                self.check(exists, || format!("there is no pool constant {}", inst.imm));
            }
            Imm::Slot => self.slot(inst),
            Imm::Lane => {
                let lanes = inst.shape.lanes();
                self.check(inst.imm2 < lanes, || format!("{} has {lanes} lanes", inst.shape));
                if inst.op == Op::Vlane {
                    let lane = inst.shape.lane_type();
                    self.check(inst.ty == lane, || format!("a lane of {} is {lane}", inst.shape));
                }
            }
            Imm::Amount => {
                let most = inst.shape.lane_bits() - (inst.op == Op::VshlI) as u32;
                self.check(inst.imm2 <= most, || format!("the shift amount is at most {most}"));
            }
            Imm::Field => {
                let (lsb, width) = inst.field();
                let good = width > 0 && lsb + width <= inst.ty.bits() && inst.imm2 < 1 << 16;
                self.check(good, || {
                    format!("bits {lsb}..{} are no field of {}", lsb + width, inst.ty)
                });
            }
            Imm::Helper => {
                let exists = (inst.imm2 as usize) < self.helpers.len();
                self.check(exists, || format!("there is no helper {}", inst.imm2));
                let ret = self.helpers.get(inst.imm2 as usize).map(|h| h.ret.unwrap_or(Type::I64));
                self.check(ret.is_none_or(|ty| ty == inst.ty), || {
                    format!("ty is {}, the helper's row says otherwise", inst.ty)
                });
            }
            Imm::Mem | Imm::MemOp => self.memop(inst),
            // Targets are checked with the structure, markers with the guest's view.
            Imm::None | Imm::Const | Imm::Block | Imm::Blocks => {}
            Imm::Pc | Imm::Insn | Imm::Trap => {}
        }
    }

    fn slot(&mut self, inst: &Inst) {
        let slot = inst.slot();
        let ty = match slot.as_local() {
            _ if inst.imm2 > u16::MAX as u32 => None,
            Some(n) => self.unit.locals.get(n as usize).copied(),
            None => self.layout.slots().get(slot.0 as usize).map(|s| s.ty),
        };
        match (ty, slot.as_local()) {
            (Some(ty), _) => {
                self.check(ty == inst.ty, || format!("ty is {}, the slot's is {ty}", inst.ty));
            }
            (None, Some(n)) => self.error(format!("there is no local{n}")),
            (None, None) => self.error(format!("there is no slot {}", inst.imm2)),
        }
    }

    fn memop(&mut self, inst: &Inst) {
        let op = inst.memop();
        let formed = inst.imm2 < 1 << 13 && op.log2() <= 4 && op.0 >> 5 & 3 != 3;
        self.check(formed, || format!("memop {:#x} is malformed", inst.imm2));
        if !formed {
            return;
        }
        let (bytes, ty) = (op.bytes(), inst.ty);
        let atomic = matches!(inst.op, Op::AtomicRmw | Op::AtomicCas);
        let exact = atomic || ty.is_float() || ty.bytes() == 16;
        self.check(bytes == ty.bytes() || (!exact && bytes < ty.bytes()), || {
            format!("memop {op} does not fit {ty}")
        });
        let may_extend = ty.is_int() && ty != Type::I128;
        self.check(!op.signed() || may_extend, || format!("memop {op} cannot sign-extend to {ty}"));
    }

    fn guest_view(&mut self) {
        let unit = self.unit;
        let mut inside = false;
        for (i, inst) in unit.insts.iter().enumerate() {
            self.at = Some(i);
            if inst.op == Op::Insn {
                inside = true;
                let start = (inst.imm as u64).wrapping_sub(unit.pc);
                let end = start.checked_add(inst.imm2 as u64);
                self.check(end.is_some_and(|end| end <= unit.len as u64), || {
                    format!("not inside the unit's {} bytes at {:#x}", unit.len, unit.pc)
                });
            } else if self.may_fault(inst) {
                self.check(inside, || "may fault, but no guest instruction has started".into());
            }
        }
        self.at = None;
    }

    fn may_fault(&self, inst: &Inst) -> bool {
        match inst.op {
            Op::Call => self.helpers.get(inst.imm2 as usize).is_some_and(|h| h.may_trap),
            op => op.info().effects & effect::FAULT != 0,
        }
    }

    /// Control flow only goes forward, so one walk in order knows what holds on every path to a block.
    fn locals(&mut self) {
        let unit = self.unit;
        if unit.locals.is_empty() {
            return;
        }
        let mut set_at_start: Vec<Option<Vec<bool>>> = vec![None; unit.blocks.len()];
        set_at_start[0] = Some(vec![false; unit.locals.len()]);
        for block in 0..unit.blocks.len() {
            let Some(mut set) = set_at_start[block].take() else { continue };
            for i in unit.block_range(block as u32) {
                let inst = &unit.insts[i];
                self.at = Some(i);
                let local = match inst.op {
                    Op::Get | Op::Set => inst.slot().as_local(),
                    _ => None,
                };
                if let Some(state) = local.and_then(|n| set.get_mut(n as usize)) {
                    let good = inst.op == Op::Set || *state;
                    *state = true;
                    self.check(good, || "the local is not set on every path to here".into());
                }
                let mut flow = |to: i64| match &mut set_at_start[to as usize] {
                    Some(known) => known.iter_mut().zip(&set).for_each(|(k, &s)| *k &= s),
                    unknown => *unknown = Some(set.clone()),
                };
                match inst.op {
                    Op::Jump => flow(inst.imm2 as i64),
                    Op::Brif => {
                        flow(inst.imm2 as i64);
                        flow(inst.imm);
                    }
                    _ => {}
                }
            }
        }
        self.at = None;
    }
}

/// What stands in an operand's place.
enum Demand {
    Absent,
    Type(Type),
    Kind(Arg),
}

impl Inst {
    /// The operand that holds an exit's return pc, if present.
    fn return_pc(&self) -> Option<Value> {
        let arg = match self.op {
            Op::ExitDirect => self.args[0],
            Op::ExitIndirect => self.args[1],
            _ => Value::NONE,
        };
        (!arg.is_none()).then_some(arg)
    }
}

/// Panics with the text of the unit and all errors; for tests and debug builds.
#[track_caller]
pub fn assert_valid(unit: &Unit, layout: &RegLayout, helpers: &[HelperDef]) {
    if let Err(errors) = verify(unit, layout, helpers) {
        let list: Vec<String> = errors.iter().map(Error::to_string).collect();
        panic!("{}\n{}", list.join("\n"), unit.display(layout).helpers(helpers));
    }
}
