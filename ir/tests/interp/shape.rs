//! How many steps common guest instructions become, and what faults leave behind.

use crate::support::*;
use tulk_base::*;
use tulk_ir::interp::{ExitInfo, Outcome, Program, run, step};
use tulk_ir::*;

const X0: Slot = Slot(Type::I64 as u16 * 4);
const X1: Slot = Slot(Type::I64 as u16 * 4 + 1);
const X2: Slot = Slot(Type::I64 as u16 * 4 + 2);
const NZCV: Slot = Slot(Type::I32 as u16 * 4);
const V0: Slot = Slot(Type::V128 as u16 * 4);

fn unit(build: impl FnOnce(&mut Builder<'_>)) -> Unit {
    let mut unit = Unit::new(0x1000, 0, FpRule::Arm);
    let mut b = Builder::new(&mut unit, &LAYOUT, HELPERS);
    b.insn(0x1000, 4);
    build(&mut b);
    if !b.ended() {
        b.exit(0x2000);
    }
    b.finish();
    unit
}

/// Steps besides the exit.
fn steps(build: impl FnOnce(&mut Builder<'_>)) -> usize {
    let p = Program::new(&unit(build), &LAYOUT, HELPERS);
    println!("{p:?}");
    p.len() - 1
}

fn compare_and_branch(b: &mut Builder<'_>, cond: impl FnOnce(&mut Builder<'_>) -> Value) {
    let cond = cond(b);
    let (yes, no) = (b.label(), b.label());
    b.brif(cond, yes, no);
    b.place(yes);
    b.exit(0x3000);
    b.place(no);
    b.exit(0x4000);
}

#[test]
fn common_instructions_are_one_step() {
    let add = |b: &mut Builder<'_>| {
        let (x, y) = (b.get(X1), b.get(X2));
        let r = b.add(x, y);
        b.set(X0, r);
    };
    assert_eq!(steps(add), 1, "add x0, x1, x2");
    let add_imm = |b: &mut Builder<'_>| {
        let x = b.get(X0);
        let r = b.add_imm(x, 1);
        b.set(X0, r);
    };
    assert_eq!(steps(add_imm), 1, "add x0, x0, #1");
    let add_w = |b: &mut Builder<'_>| {
        let (x, y) = (b.get(X1), b.get(X2));
        let (x, y) = (b.trunc(Type::I32, x), b.trunc(Type::I32, y));
        let r = b.add(x, y);
        let r = b.zext(Type::I64, r);
        b.set(X0, r);
    };
    assert_eq!(steps(add_w), 1, "add w0, w1, w2");
    let mov = |b: &mut Builder<'_>| {
        let x = b.get(X1);
        b.set(X0, x);
    };
    assert_eq!(steps(mov), 1, "mov x0, x1");
    let movz = |b: &mut Builder<'_>| {
        let k = b.iconst(Type::I64, 0);
        b.set(X0, k);
    };
    assert_eq!(steps(movz), 1, "mov x0, #0");
    let load = |b: &mut Builder<'_>| {
        let x = b.get(X1);
        let r = b.load(Type::I64, x, 16, MemOp::U64);
        b.set(X0, r);
    };
    assert_eq!(steps(load), 1, "ldr x0, [x1, #16]");
    let indexed = |b: &mut Builder<'_>| {
        let (x, y) = (b.get(X1), b.get(X2));
        let y = b.shl_imm(y, 3);
        let at = b.add(x, y);
        let r = b.load(Type::I64, at, 0, MemOp::U64);
        b.set(X0, r);
    };
    assert_eq!(steps(indexed), 1, "ldr x0, [x1, x2, lsl #3]");
    let store = |b: &mut Builder<'_>| {
        let (x, zero) = (b.get(X1), b.iconst(Type::I64, 0));
        b.store(x, 8, MemOp::U64, zero);
    };
    assert_eq!(steps(store), 1, "str xzr, [x1, #8]");
    let post = |b: &mut Builder<'_>| {
        let x = b.get(X1);
        let r = b.load(Type::I64, x, 0, MemOp::U64);
        b.set(X0, r);
        let next = b.add_imm(x, 8);
        b.set(X1, next);
    };
    assert_eq!(steps(post), 2, "ldr x0, [x1], #8");
    let subs = |b: &mut Builder<'_>| {
        let x = b.get(X0);
        let k = b.iconst(Type::I64, 1);
        let (r, f) = (b.sub(x, k), b.sub_nzcv(x, k));
        b.set(X0, r);
        b.set(NZCV, f);
    };
    assert_eq!(steps(subs), 1, "subs x0, x0, #1");
    let cmp_branch = |b: &mut Builder<'_>| {
        let (x, y) = (b.get(X0), b.get(X1));
        let f = b.sub_nzcv(x, y);
        b.set(NZCV, f);
        compare_and_branch(b, |b| b.icmp(IntCc::Ne, x, y));
    };
    assert_eq!(steps(cmp_branch), 1, "cmp x0, x1; b.ne (the branch is the exit)");
    let branch = |b: &mut Builder<'_>| {
        compare_and_branch(b, |b| {
            let f = b.get(NZCV);
            b.nzcv_test(NzcvCond::Gt, f)
        });
    };
    assert_eq!(steps(branch), 0, "b.gt");
    let csel = |b: &mut Builder<'_>| {
        let f = b.get(NZCV);
        let cond = b.nzcv_test(NzcvCond::Gt, f);
        let (x, y) = (b.get(X1), b.get(X2));
        let r = b.select(cond, x, y);
        b.set(X0, r);
    };
    assert_eq!(steps(csel), 1, "csel x0, x1, x2, gt");
    let cset = |b: &mut Builder<'_>| {
        let f = b.get(NZCV);
        let cond = b.nzcv_test(NzcvCond::Gt, f);
        let r = b.zext(Type::I64, cond);
        b.set(X0, r);
    };
    assert_eq!(steps(cset), 1, "cset x0, gt");
    let movi = |b: &mut Builder<'_>| {
        let k = b.vconst(0x0101_0101_0101_0101_0101_0101_0101_0101);
        b.set(V0, k);
    };
    assert_eq!(steps(movi), 1, "movi v0.16b, #1");
    let umov = |b: &mut Builder<'_>| {
        let v = b.get(V0);
        let r = b.vlane(Shape::I64x2, v, 1);
        b.set(X0, r);
    };
    assert_eq!(steps(umov), 1, "mov x0, v0.d[1]");
}

#[test]
fn exits_have_their_numbers() {
    let unit = unit(|b| {
        let (skipped, used) = (b.label(), b.label());
        b.jump(used);
        b.place(skipped);
        b.exit(0x10);
        b.place(used);
        b.exit_with_flags(ExitKind::Call, 0x20, Some(0x30), Some(9));
    });
    let p = Program::new(&unit, &LAYOUT, HELPERS);
    let call = ExitInfo { kind: ExitKind::Call, pc: 0x20, flags: 9, ret: 0x30 };
    let jump = ExitInfo { kind: ExitKind::Jump, pc: 0x10, flags: unit.flags, ret: 0 };
    assert_eq!(p.exits().collect::<Vec<_>>(), [jump, call]);
    let mut state = CpuState::new();
    assert_eq!(run(&p, &mut state, HELPERS, &mut Env::new(false)), Outcome::Direct(1));
}

/// A pair load whose second half faults has written neither register.
#[test]
fn slots_are_exact_at_a_fault() {
    let unit = unit(|b| {
        let x = b.get(X1);
        let k = b.iconst(Type::I64, 5);
        b.set(X2, k);
        b.insn(0x1004, 4);
        let low = b.load(Type::I64, x, 0, MemOp::U64);
        let aligned = MemOp::U64.with_align(MemAlign::Natural);
        let high = b.load(Type::I64, x, 1, aligned);
        b.set(X0, low);
        b.set(X2, high);
    });
    let p = Program::new(&unit, &LAYOUT, HELPERS);
    let mut state = CpuState::new();
    state.set(LAYOUT.cell(X0), 77);
    let va = GuestVa(1);
    let fault = MemFault { va, kind: AccessKind::Read, cause: FaultCause::Align };
    let outcome = run(&p, &mut state, HELPERS, &mut Env::new(false));
    assert_eq!(outcome, Outcome::Trap(Trap::Mem(fault)));
    assert_eq!(state.pc(), 0x1004);
    assert_eq!((state.get(LAYOUT.cell(X0)), state.get(LAYOUT.cell(X2))), (77, 5));
}

/// Step by step, a program does what it does as a whole, up to the trap.
#[test]
fn steps_run_one_by_one() {
    let unit = unit(|b| {
        let (x, y) = (b.get(X1), b.get(X2));
        let product = b.mul(x, y);
        let shift = b.iconst(Type::I64, 3);
        let turned = b.rotr(product, shift);
        b.set(X0, turned);
        b.insn(0x1004, 4);
        let aligned = MemOp::U64.with_align(MemAlign::Natural);
        b.store(x, 0, aligned, turned);
        b.insn(0x1008, 4);
        let loaded = b.load(Type::I64, x, 1, aligned);
        b.set(X2, loaded);
    });
    let p = Program::new(&unit, &LAYOUT, HELPERS);
    let start = || {
        let mut state = CpuState::new();
        state.set(LAYOUT.cell(X1), 0x1000);
        state.set(LAYOUT.cell(X2), 0x1234_5678_9abc);
        (state, Env::new(false))
    };
    let (mut whole, mut whole_env) = start();
    let Outcome::Trap(expected) = run(&p, &mut whole, HELPERS, &mut whole_env) else {
        panic!("the load is misaligned")
    };
    let (mut state, mut env) = start();
    let mut steps = 0..p.len() as u32;
    let trap = steps.find_map(|i| step(&p, i, &mut state, HELPERS, &mut env).err());
    assert_eq!(trap, Some(expected));
    assert_eq!((state.pc(), slots(&state), env), (0x1008, slots(&whole), whole_env));
    assert_eq!(p.marks().collect::<Vec<_>>().len(), 2);
    assert!(p.steps().len() > 3 && steps.next().is_some());
}

/// Nothing in a program is tied to a thread.
#[test]
fn programs_are_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Program>();
}

/// Debug builds watch what helpers write.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "helper liar writes slot")]
fn undeclared_writes_are_noticed() {
    fn liar(cx: &mut HelperCx<'_>, _: &[u128; 4]) -> Result<u128, Trap> {
        cx.state.set(LAYOUT.cell(X1), 1);
        Ok(0)
    }
    let helper = HelperDef {
        name: "liar",
        func: liar,
        args: &[],
        ret: None,
        reads: Access::None,
        writes: Access::These(&[X0]),
        may_trap: false,
        pure: false,
        direct: None,
    };
    let mut unit = Unit::new(0x1000, 0, FpRule::Arm);
    let helpers = [helper];
    let mut b = Builder::new(&mut unit, &LAYOUT, &helpers);
    b.call(0, &[], 0);
    b.exit(0x2000);
    b.finish();
    let p = Program::new(&unit, &LAYOUT, &helpers);
    run(&p, &mut CpuState::new(), &helpers, &mut Env::new(false));
}
