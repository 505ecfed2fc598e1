//! A unit: the IR of one translation block.

use crate::helper::{Access, HelperDef};
use crate::layout::Slot;
use crate::op::Op;
use crate::types::*;
use tulk_base::{MemOp, RmwOp, Trap};

/// A value: the result of an instruction. Local to one IR block. Numbered densely over the unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(pub u16);

impl Value {
    /// No value: an absent operand or result.
    pub const NONE: Value = Value(u16::MAX);

    #[inline]
    pub const fn is_none(self) -> bool {
        self.0 == u16::MAX
    }
}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_none() { f.write_str("-") } else { write!(f, "v{}", self.0) }
    }
}

/// Number of an IR block in its unit; 0 is the entry.
pub type Block = u32;

/// Why and how a unit is left. For `exit` and `exit_indirect` it is a hint about the control flow; for `trap` it
/// names the event, with `imm2` as its number.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ExitKind {
    Jump,
    Call,
    Return,
    /// `exit_indirect` only: look the next block up from the CPU state, whose mode may have changed.
    Resync,
    Syscall,
    Illegal,
    Breakpoint,
    Arithmetic,
    Privileged,
    /// Guest exception: `imm2` is vector << 16 | error code.
    Guest,
    Halt,
}

impl ExitKind {
    pub const ALL: [ExitKind; 11] = [
        ExitKind::Jump,
        ExitKind::Call,
        ExitKind::Return,
        ExitKind::Resync,
        ExitKind::Syscall,
        ExitKind::Illegal,
        ExitKind::Breakpoint,
        ExitKind::Arithmetic,
        ExitKind::Privileged,
        ExitKind::Guest,
        ExitKind::Halt,
    ];

    #[inline]
    pub const fn from_u8(n: u8) -> ExitKind {
        Self::ALL[n as usize]
    }
    /// The name in IR text.
    pub const fn name(self) -> &'static str {
        match self {
            ExitKind::Jump => "jump",
            ExitKind::Call => "call",
            ExitKind::Return => "return",
            ExitKind::Resync => "resync",
            ExitKind::Syscall => "syscall",
            ExitKind::Illegal => "illegal",
            ExitKind::Breakpoint => "breakpoint",
            ExitKind::Arithmetic => "arithmetic",
            ExitKind::Privileged => "privileged",
            ExitKind::Guest => "guest",
            ExitKind::Halt => "halt",
        }
    }
    pub fn parse(text: &str) -> Option<ExitKind> {
        Self::ALL.into_iter().find(|k| k.name() == text)
    }
    /// The trap that an `ExitTrap` of this kind with this number means; `None` for the kinds of jumps.
    pub const fn trap(self, number: u32) -> Option<Trap> {
        Some(match self {
            ExitKind::Jump | ExitKind::Call | ExitKind::Return => return None,
            ExitKind::Resync => Trap::Resync,
            ExitKind::Syscall => Trap::Syscall(number),
            ExitKind::Illegal => Trap::Illegal,
            ExitKind::Breakpoint => Trap::Breakpoint(number),
            ExitKind::Arithmetic => Trap::Arithmetic(number),
            ExitKind::Privileged => Trap::Privileged,
            ExitKind::Guest => Trap::Guest { vector: number >> 16, code: number & 0xffff },
            ExitKind::Halt => Trap::Halt,
        })
    }
}

/// One IR instruction, 24 bytes. Which fields mean what is said by the operation's row ([`Op::info`]).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Inst {
    pub op: Op,
    pub ty: Type,
    pub aux: u8,
    pub shape: Shape,
    pub dst: Value,
    pub args: [Value; 3],
    pub imm2: u32,
    pub imm: i64,
}

impl Inst {
    /// Doing it twice has the effect of doing it once, and leaves the slots alone. See the checkpoints of
    /// precise regions.
    pub fn repeatable(&self, helpers: &[HelperDef]) -> bool {
        match self.op {
            Op::Store | Op::AtomicRmw | Op::AtomicCas => false,
            Op::Call => {
                let helper = &helpers[self.imm2 as usize];
                let silent = matches!((helper.reads, helper.writes), (Access::None, Access::None));
                helper.pure && !helper.may_trap && silent
            }
            _ => true,
        }
    }
    pub fn new(op: Op, ty: Type) -> Inst {
        Inst {
            op,
            ty,
            aux: 0,
            shape: Shape::I8x16,
            dst: Value::NONE,
            args: [Value::NONE; 3],
            imm2: 0,
            imm: 0,
        }
    }
    #[inline]
    pub fn slot(&self) -> Slot {
        Slot(self.imm2 as u16)
    }
    #[inline]
    pub fn memop(&self) -> MemOp {
        MemOp(self.imm2 as u16)
    }
    /// Lowest bit and number of bits of a field operation.
    #[inline]
    pub fn field(&self) -> (u32, u32) {
        (self.imm2 & 0xff, self.imm2 >> 8 & 0xff)
    }
    #[inline]
    pub fn int_cc(&self) -> IntCc {
        IntCc::from_u8(self.aux)
    }
    #[inline]
    pub fn float_cc(&self) -> FloatCc {
        FloatCc::from_u8(self.aux & 0x7f)
    }
    #[inline]
    pub fn round(&self) -> Round {
        Round::from_u8(self.aux & 0x7f)
    }
    /// Bit 7 of `aux`: signalling, exact or indefinite, see [`crate::op::Aux`].
    #[inline]
    pub fn aux_flag(&self) -> bool {
        self.aux & 0x80 != 0
    }
    #[inline]
    pub fn min_kind(&self) -> MinKind {
        MinKind::from_u8(self.aux)
    }
    #[inline]
    pub fn nzcv_cond(&self) -> NzcvCond {
        NzcvCond::from_u8(self.aux)
    }
    #[inline]
    pub fn rmw(&self) -> RmwOp {
        RmwOp::ALL[self.aux as usize]
    }
    #[inline]
    pub fn exit_kind(&self) -> ExitKind {
        ExitKind::from_u8(self.aux)
    }
}

/// The IR of one translation block: one entry (block 0), control flows forward only.
#[derive(Clone, PartialEq, Debug)]
pub struct Unit {
    /// Guest pc of the first instruction.
    pub pc: u64,
    /// Guest bytes covered: the last byte's address plus one, minus `pc` (contiguous).
    pub len: u32,
    /// The frontend's key flags (mode bits) that this translation assumes.
    pub flags: u64,
    /// Guest instructions.
    pub guest_insns: u32,
    pub fp: FpRule,
    pub insts: Vec<Inst>,
    /// Start of each IR block in `insts`; a block ends where the next starts. Never empty.
    pub blocks: Vec<u32>,
    /// Type of every value.
    pub values: Vec<Type>,
    /// Types of the unit's locals.
    pub locals: Vec<Type>,
    pub pool: Vec<u128>,
}

impl Unit {
    pub fn new(pc: u64, flags: u64, fp: FpRule) -> Unit {
        Unit {
            pc,
            len: 0,
            flags,
            guest_insns: 0,
            fp,
            insts: Vec::new(),
            blocks: Vec::new(),
            values: Vec::new(),
            locals: Vec::new(),
            pool: Vec::new(),
        }
    }

    /// Empties the unit for reuse, keeping its allocations.
    pub fn reset(&mut self, pc: u64, flags: u64, fp: FpRule) {
        self.pc = pc;
        self.len = 0;
        self.flags = flags;
        self.guest_insns = 0;
        self.fp = fp;
        self.insts.clear();
        self.blocks.clear();
        self.values.clear();
        self.locals.clear();
        self.pool.clear();
    }

    /// The instructions of one block, its ending instruction last.
    pub fn block(&self, block: Block) -> &[Inst] {
        &self.insts[self.block_range(block)]
    }
    pub fn block_range(&self, block: Block) -> std::ops::Range<usize> {
        let start = self.blocks[block as usize] as usize;
        let end = self.blocks.get(block as usize + 1).map_or(self.insts.len(), |&e| e as usize);
        start..end
    }
    /// # Panics
    /// When `v` is `NONE` or of another unit.
    #[inline]
    pub fn type_of(&self, v: Value) -> Type {
        self.values[v.0 as usize]
    }
}
