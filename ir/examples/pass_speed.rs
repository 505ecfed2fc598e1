//! Prints what the passes cost and what they save the interpreter, on a block as a frontend writes it:
//! `cargo run --release -p tulk-ir --example pass_speed`.

use std::hint::black_box;
use std::time::Instant;
use tulk_base::{CpuState, GuestMem, GuestVa, MemFault, MemOp, RmwOp};
use tulk_ir::filetest::env::{HELPERS, layout};
use tulk_ir::interp::{Program, run};
use tulk_ir::passes::{PassConfig, Passes};
use tulk_ir::{FpEnv, FpFlags, HelperEnv, Round, Unit, parser};

/// ldr w; add w, #1; str w; ldr x, [x, #8]!; subs; and; lsl; adds; cmp; b.cond, and a float instruction.
const BLOCK: &str = "unit 0x1000 len 40 insns 10
block0:
    insn 0x1000, 4
    v0 = get x0
    v1 = load.i32 v0+16 u32
    v2 = zext.i64 v1
    set x1, v2
    insn 0x1004, 4
    v3 = get x1
    v4 = trunc.i32 v3
    v5 = iconst.i32 1
    v6 = add.i32 v4, v5
    v7 = zext.i64 v6
    set x1, v7
    insn 0x1008, 4
    v8 = get x0
    v9 = get x1
    v10 = trunc.i32 v9
    store.i32 v8+16 u32, v10
    insn 0x100c, 4
    v11 = get x0
    v12 = iconst.i64 8
    v13 = add.i64 v11, v12
    v14 = load.i64 v13 u64
    set x0, v13
    set x2, v14
    insn 0x1010, 4
    v15 = get x2
    v16 = get x1
    v17 = sub.i64 v15, v16
    v18 = sub_nzcv.i64 v15, v16
    set x3, v17
    set nzcv, v18
    insn 0x1014, 4
    v19 = get x3
    v20 = iconst.i64 255
    v21 = and.i64 v19, v20
    set x4, v21
    insn 0x1018, 4
    v22 = get x4
    v23 = iconst.i64 3
    v24 = shl.i64 v22, v23
    set x5, v24
    insn 0x101c, 4
    v25 = get q0
    v26 = vlane.f64x2 v25[0]
    v27 = get q1
    v28 = vlane.f64x2 v27[0]
    v29 = fadd.f64 v26, v28
    v30 = vscalar.f64x2 v29
    set q0, v30
    insn 0x1020, 4
    v31 = get x5
    v32 = iconst.i64 100
    v33 = sub_nzcv.i64 v31, v32
    set nzcv, v33
    insn 0x1024, 4
    v34 = nzcv_test lt v33
    brif v34, block1, block2
block1:
    exit jump 0x1000
block2:
    exit jump 0x1028
";

/// Plain little-endian memory at 0x10000, quick enough not to hide the interpreter.
struct Flat(Vec<u8>);

impl GuestMem for Flat {
    #[inline]
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        let at = va.0 as usize - 0x10000;
        let bytes = self.0[at..at + 8].try_into().expect("eight bytes");
        Ok(u64::from_le_bytes(bytes) & (u64::MAX >> (64 - 8 * op.bytes())))
    }
    #[inline]
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        let (at, len) = (va.0 as usize - 0x10000, op.bytes() as usize);
        self.0[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
        Ok(())
    }
    fn load128(&mut self, _: GuestVa, _: MemOp) -> Result<u128, MemFault> {
        unreachable!("not in the block")
    }
    fn store128(&mut self, _: GuestVa, _: MemOp, _: u128) -> Result<(), MemFault> {
        unreachable!("not in the block")
    }
    fn rmw(&mut self, _: GuestVa, _: MemOp, _: RmwOp, _: u64) -> Result<u64, MemFault> {
        unreachable!("not in the block")
    }
    fn cas(&mut self, _: GuestVa, _: MemOp, _: u128, _: u128) -> Result<u128, MemFault> {
        unreachable!("not in the block")
    }
}

impl FpEnv for Flat {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags::default()
    }
    fn set_fp_flags(&mut self, _: FpFlags) {}
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {}
}

impl HelperEnv for Flat {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0
    }
    fn processor_id(&mut self) -> u32 {
        0
    }
    fn random(&mut self, _: &mut [u8]) {}
}

/// The best of many short runs, for machines that have other work.
fn nanoseconds(times: u32, mut work: impl FnMut()) -> f64 {
    (0..400)
        .map(|_| {
            let start = Instant::now();
            (0..times).for_each(|_| work());
            start.elapsed().as_secs_f64() * 1e9 / times as f64
        })
        .fold(f64::MAX, f64::min)
}

fn main() {
    let layout = layout();
    let unit = parser::parse(BLOCK, &layout, HELPERS).expect("valid text");
    let ops = unit.insts.len();
    let (mut passes, mut copy) = (Passes::new(), Unit::new(0, 0, unit.fp));
    let clone = nanoseconds(200, || copy.clone_from(black_box(&unit)));
    println!("{ops} operations; times in ns for the block, per operation in brackets");
    let configs = [
        ("none", PassConfig::none()),
        ("cold", PassConfig::cold()),
        ("hot", PassConfig::hot()),
        ("stores", PassConfig { dead_stores: true, dead_code: true, ..PassConfig::none() }),
        ("forward", PassConfig { forward_slots: true, ..PassConfig::none() }),
    ];
    for (name, config) in configs {
        let pass = nanoseconds(200, || {
            copy.clone_from(black_box(&unit));
            passes.run(&mut copy, &layout, HELPERS, &config);
        }) - clone;
        let build = nanoseconds(200, || {
            black_box(Program::new(black_box(&copy), &layout, HELPERS));
        });
        let program = Program::new(&copy, &layout, HELPERS);
        let (mut state, mut env) = (CpuState::new(), Flat(vec![0; 0x2000]));
        let x0 = layout.cell(layout.by_name("x0").expect("x0"));
        let execute = nanoseconds(200, || {
            state.set(x0, 0x10000);
            black_box(run(&program, &mut state, HELPERS, &mut env));
        });
        println!(
            "{name:8} leaves {:3}: passes {pass:6.0} ({:4.1}), bytecode {build:6.0}, run {execute:6.0}",
            copy.insts.len(),
            pass / ops as f64
        );
    }
}
