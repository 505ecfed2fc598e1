//! The machine that filetests run on: registers, helpers, memory, float environment.

use crate::helper::{Access, FpEnv, Halves, HelperCx, HelperDef, HelperEnv};
use crate::layout::{RegLayout, Slot};
use crate::types::{FpFlags, Round, Type};
use tulk_base::{
    AccessKind, CpuState, FaultCause, GuestMem, GuestVa, MemFault, MemOp, RmwOp, Trap,
};

/// Register names, types and how many of each.
const REGISTERS: [(&str, Type, u16); 8] = [
    ("x", Type::I64, 16),
    ("w", Type::I32, 8),
    ("h", Type::I16, 4),
    ("b", Type::I8, 4),
    ("t", Type::I128, 4),
    ("s", Type::F32, 4),
    ("d", Type::F64, 4),
    ("q", Type::V128, 8),
];

/// The test machine's registers: `x0`-`x15` I64, `w0`-`w7` I32, `h0`-`h3` I16, `b0`-`b3` I8, `t0`-`t3` I128,
/// `s0`-`s3` F32, `d0`-`d3` F64, `q0`-`q7` V128, and `nzcv` I32.
pub fn layout() -> RegLayout {
    let mut layout = RegLayout::new();
    for (prefix, ty, count) in REGISTERS {
        for n in 0..count {
            layout.add(format!("{prefix}{n}"), ty, None);
        }
    }
    layout.add("nzcv", Type::I32, None);
    layout
}

/// The name's prefix for registers of a type.
pub fn prefix(ty: Type) -> &'static str {
    REGISTERS.iter().find(|r| r.1 == ty).expect("every type has registers").0
}

const X0: Slot = Slot(0);
const X1: Slot = Slot(1);
const X15: Slot = Slot(15);

const PLAIN: HelperDef = HelperDef {
    name: "",
    func: |_, _| Ok(0),
    args: &[],
    ret: None,
    reads: Access::None,
    writes: Access::None,
    may_trap: false,
    pure: false,
    direct: None,
};

fn x(state: &CpuState, n: u16) -> u64 {
    state.get(tulk_base::state::CELL_GUEST + n)
}

fn set_x(state: &mut CpuState, n: u16, value: u64) {
    state.set(tulk_base::state::CELL_GUEST + n, value);
}

extern "C" fn direct_sum(a: u64, b: u64, c: u64, imm: u64, _: u64, _: u64) -> Halves {
    Halves([a, b, c, imm].iter().fold(0, |sum, &n| sum.wrapping_add(n)), !0)
}

extern "C" fn direct_complement(low: u64, high: u64, _: u64, _: u64, _: u64, _: u64) -> Halves {
    Halves(!low, !high)
}

/// The test machine's helpers.
pub const HELPERS: &[HelperDef] = &[
    // The sum of three operands and the immediate.
    HelperDef {
        name: "sum",
        func: |_, a| Ok(a.iter().fold(0u64, |sum, &n| sum.wrapping_add(n as u64)) as u128),
        args: &[Type::I64, Type::I64, Type::I64],
        ret: Some(Type::I64),
        pure: true,
        direct: Some(direct_sum),
        ..PLAIN
    },
    // The complement of a vector.
    HelperDef {
        name: "complement",
        func: |_, a| Ok(!a[0]),
        args: &[Type::V128],
        ret: Some(Type::V128),
        pure: true,
        direct: Some(direct_complement),
        ..PLAIN
    },
    HelperDef {
        name: "swap_x0_x1",
        func: |cx, _| {
            let (a, b) = (x(cx.state, 0), x(cx.state, 1));
            set_x(cx.state, 0, b);
            set_x(cx.state, 1, a);
            Ok(0)
        },
        reads: Access::These(&[X0, X1]),
        writes: Access::These(&[X0, X1]),
        ..PLAIN
    },
    // x0 + 2 * x1 + 3 * x2 ... + 16 * x15.
    HelperDef {
        name: "digest",
        func: |cx, _| {
            let terms = (0..16).map(|n| x(cx.state, n).wrapping_mul(n as u64 + 1));
            Ok(terms.fold(0u64, u64::wrapping_add) as u128)
        },
        ret: Some(Type::I64),
        reads: Access::All,
        ..PLAIN
    },
    // Every x register becomes the immediate.
    HelperDef {
        name: "fill",
        func: |cx, a| {
            (0..16).for_each(|n| set_x(cx.state, n, a[3] as u64));
            Ok(0)
        },
        writes: Access::All,
        ..PLAIN
    },
    // x15 = x15 + 1; returns the old value.
    HelperDef {
        name: "count",
        func: |cx, _| {
            let old = x(cx.state, 15);
            set_x(cx.state, 15, old.wrapping_add(1));
            Ok(old as u128)
        },
        ret: Some(Type::I64),
        reads: Access::These(&[X15]),
        writes: Access::These(&[X15]),
        ..PLAIN
    },
    // A guest exception with the immediate as its vector, if the operand is not 0.
    HelperDef {
        name: "trap_if",
        func: |_, a| match a[0] as u32 {
            0 => Ok(0),
            code => Err(Trap::Guest { vector: a[3] as u32, code }),
        },
        args: &[Type::I32],
        may_trap: true,
        ..PLAIN
    },
    // Stores a byte.
    HelperDef {
        name: "poke",
        func: |cx: &mut HelperCx<'_>, a| {
            cx.env.store(GuestVa(a[0] as u64), MemOp::U8, a[1] as u64)?;
            Ok(0)
        },
        args: &[Type::I64, Type::I8],
        may_trap: true,
        ..PLAIN
    },
    // Raises the float flags of the immediate.
    HelperDef {
        name: "raise",
        func: |cx, a| {
            cx.env.fp_raise(FpFlags(a[3] as u8));
            Ok(0)
        },
        ..PLAIN
    },
];

/// Guest memory at `start`. Everything outside a region is unmapped.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Region {
    pub start: u64,
    pub writable: bool,
    pub data: Vec<u8>,
}

/// The test machine outside its registers. A runner with memory of its own copies the regions there and back.
#[derive(Clone, Debug)]
pub struct TestEnv {
    pub regions: Vec<Region>,
    pub round: Round,
    pub flags: FpFlags,
}

impl TestEnv {
    /// Two writable pages at 0x10000 and a read-only one behind them; each byte holds the low byte of its
    /// address. Rounding to nearest, no flags.
    pub fn new() -> TestEnv {
        let region = |start: u64, len: u64, writable| Region {
            start,
            writable,
            data: (0..=255).collect::<Vec<u8>>().repeat(len as usize / 256),
        };
        TestEnv {
            regions: vec![region(0x10000, 0x2000, true), region(0x12000, 0x1000, false)],
            round: Round::Nearest,
            flags: FpFlags::default(),
        }
    }

    /// The region that holds `va`, and the offset there.
    fn find(&mut self, va: u64) -> Option<(&mut Region, usize)> {
        self.regions.iter_mut().find_map(|r| {
            let offset = va.checked_sub(r.start)?;
            (offset < r.data.len() as u64).then_some((r, offset as usize))
        })
    }

    /// Fails at the first byte that does not allow the access, before anything is changed.
    fn check(&mut self, va: GuestVa, op: MemOp, kind: AccessKind) -> Result<(), MemFault> {
        let fault = |va, cause| Err(MemFault { va, kind, cause });
        if !va.is_aligned(op.align_bytes() as u64) {
            return fault(va, FaultCause::Align);
        }
        for i in 0..op.bytes() as u64 {
            let va = va.wrapping_add(i);
            match self.find(va.0) {
                None => return fault(va, FaultCause::Unmapped),
                Some((r, _)) if kind == AccessKind::Write && !r.writable => {
                    return fault(va, FaultCause::Protection);
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn read(&mut self, va: GuestVa, op: MemOp) -> u128 {
        let bytes = op.bytes() as u64;
        (0..bytes).fold(0, |value, i| {
            let place = if op.big_endian() { bytes - 1 - i } else { i };
            let (region, offset) = self.find(va.wrapping_add(i).0).expect("checked before");
            value | (region.data[offset] as u128) << (8 * place)
        })
    }

    fn write(&mut self, va: GuestVa, op: MemOp, value: u128) {
        let bytes = op.bytes() as u64;
        for i in 0..bytes {
            let place = if op.big_endian() { bytes - 1 - i } else { i };
            let (region, offset) = self.find(va.wrapping_add(i).0).expect("checked before");
            region.data[offset] = (value >> (8 * place)) as u8;
        }
    }

    /// Writes memory that may be read-only; for a test's preparation.
    ///
    /// # Panics
    /// When it is not mapped.
    pub fn prepare(&mut self, va: u64, op: MemOp, value: u128) {
        self.write(GuestVa(va), op, value);
    }
}

impl Default for TestEnv {
    fn default() -> Self {
        TestEnv::new()
    }
}

/// `value` of the width that `op` loads, sign-extended if `op` says so.
fn extend(value: u64, op: MemOp) -> u64 {
    let unused = 64 - 8 * op.bytes().min(8);
    if op.signed() { ((value << unused) as i64 >> unused) as u64 } else { value }
}

impl GuestMem for TestEnv {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        self.check(va, op, AccessKind::Read)?;
        Ok(extend(self.read(va, op) as u64, op))
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        self.store128(va, op, value as u128)
    }
    fn load128(&mut self, va: GuestVa, op: MemOp) -> Result<u128, MemFault> {
        self.check(va, op, AccessKind::Read)?;
        Ok(self.read(va, op))
    }
    fn store128(&mut self, va: GuestVa, op: MemOp, value: u128) -> Result<(), MemFault> {
        self.check(va, op, AccessKind::Write)?;
        self.write(va, op, value);
        Ok(())
    }
    fn rmw(&mut self, va: GuestVa, op: MemOp, rmw: RmwOp, operand: u64) -> Result<u64, MemFault> {
        self.check(va, op, AccessKind::Write)?;
        let old = self.read(va, op) as u64;
        let mask = u64::MAX >> (64 - 8 * op.bytes());
        let b = operand & mask;
        let signed = |v: u64| extend(v, op.with_sign()) as i64;
        let new = match rmw {
            RmwOp::Xchg => b,
            RmwOp::Add => old.wrapping_add(b),
            RmwOp::Sub => old.wrapping_sub(b),
            RmwOp::And => old & b,
            RmwOp::AndNot => old & !b,
            RmwOp::Or => old | b,
            RmwOp::Xor => old ^ b,
            RmwOp::MinS => signed(old).min(signed(b)) as u64,
            RmwOp::MaxS => signed(old).max(signed(b)) as u64,
            RmwOp::MinU => old.min(b),
            RmwOp::MaxU => old.max(b),
        };
        self.write(va, op, new as u128);
        Ok(old)
    }
    fn cas(&mut self, va: GuestVa, op: MemOp, expected: u128, new: u128) -> Result<u128, MemFault> {
        self.check(va, op, AccessKind::Write)?;
        let old = self.read(va, op);
        if old == expected & (u128::MAX >> (128 - 8 * op.bytes())) {
            self.write(va, op, new);
        }
        Ok(old)
    }
}

impl FpEnv for TestEnv {
    fn fp_flags(&mut self) -> FpFlags {
        self.flags
    }
    fn set_fp_flags(&mut self, flags: FpFlags) {
        self.flags = flags;
    }
    fn fp_round(&mut self) -> Round {
        self.round
    }
    fn set_fp_mode(&mut self, round: Round, _daz: bool, _ftz: bool) {
        self.round = round;
    }
}

impl HelperEnv for TestEnv {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}
