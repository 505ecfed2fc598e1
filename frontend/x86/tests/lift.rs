//! What lifting gives where the host processor cannot tell: fused conditions, knowledge of the flags, traps, CPU
//! models, and the ends of blocks.

use std::collections::HashMap;
use tulk_base::{AccessKind, CpuState, FaultCause, GuestVa, Trap};
use tulk_base::{GuestMem, MemFault, MemOp, RmwOp};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::interp::{Outcome, Program, run};
use tulk_ir::{FpEnv, FpFlags, HelperEnv, Inst, Op, Round, Slot, Unit, Value};
use tulk_x86::flags::{self, CcOp, Kind};
use tulk_x86::{
    CpuModel, Mode, SYSCALL_INT80, SYSCALL_SYSCALL, SYSCALL_SYSENTER, X86, regs, segment,
};

const CODE: u64 = 0x40_0000;

/// Sparse memory, all of it readable and writable except the page at 0.
#[derive(Default)]
struct World {
    bytes: HashMap<u64, u8>,
    /// Code ends here.
    end: u64,
}

impl World {
    fn with_code(code: &[u8]) -> World {
        let bytes = code.iter().enumerate().map(|(n, &b)| (CODE + n as u64, b)).collect();
        World { bytes, end: CODE + code.len() as u64 }
    }
}

impl CodeReader for World {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        if va.0 < CODE {
            return 0;
        }
        let n = (self.end.saturating_sub(va.0) as usize).min(out.len());
        (0..n).for_each(|i| out[i] = self.bytes[&(va.0 + i as u64)]);
        n
    }
}

impl GuestMem for World {
    fn load(&mut self, va: GuestVa, op: MemOp) -> Result<u64, MemFault> {
        if va.0 < 4096 {
            return Err(MemFault { va, kind: AccessKind::Read, cause: FaultCause::Unmapped });
        }
        let byte = |n: u32| *self.bytes.get(&(va.0 + n as u64)).unwrap_or(&0) as u64;
        Ok((0..op.bytes()).fold(0, |v, n| v | byte(n) << (8 * n)))
    }
    fn store(&mut self, va: GuestVa, op: MemOp, value: u64) -> Result<(), MemFault> {
        if va.0 < 4096 {
            return Err(MemFault { va, kind: AccessKind::Write, cause: FaultCause::Unmapped });
        }
        for n in 0..op.bytes() {
            self.bytes.insert(va.0 + n as u64, (value >> (8 * n)) as u8);
        }
        Ok(())
    }
    fn load128(&mut self, va: GuestVa, _: MemOp) -> Result<u128, MemFault> {
        let low = self.load(va, MemOp::U64)? as u128;
        Ok(low | (self.load(va.wrapping_add(8), MemOp::U64)? as u128) << 64)
    }
    fn store128(&mut self, va: GuestVa, _: MemOp, value: u128) -> Result<(), MemFault> {
        self.store(va, MemOp::U64, value as u64)?;
        self.store(va.wrapping_add(8), MemOp::U64, (value >> 64) as u64)
    }
    fn rmw(&mut self, _: GuestVa, _: MemOp, _: RmwOp, _: u64) -> Result<u64, MemFault> {
        unimplemented!("no test needs it")
    }
    fn cas(&mut self, _: GuestVa, _: MemOp, _: u128, _: u128) -> Result<u128, MemFault> {
        unimplemented!("no test needs it")
    }
}

impl FpEnv for World {
    fn fp_flags(&mut self) -> FpFlags {
        FpFlags(0)
    }
    fn set_fp_flags(&mut self, _: FpFlags) {}
    fn fp_round(&mut self) -> Round {
        Round::Nearest
    }
    fn set_fp_mode(&mut self, _: Round, _: bool, _: bool) {}
}

impl HelperEnv for World {
    fn invalidate_code(&mut self, _: GuestVa, _: u64) {}
    fn clock_ns(&mut self) -> u64 {
        0x1_2345_6789
    }
    fn processor_id(&mut self) -> u32 {
        3
    }
    fn random(&mut self, out: &mut [u8]) {
        out.fill(0x5a);
    }
}

fn guest(mode: Mode, model: &str) -> X86 {
    X86::new(mode, CpuModel::parse(model).unwrap())
}

fn lift_with(isa: &X86, code: &[u8], known: &[(Slot, u64)]) -> Unit {
    let mut state = CpuState::new();
    isa.reset(&mut state);
    state.set_pc(CODE);
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    isa.lift_with(isa.tb_key(&state), &mut World::with_code(code), limits, known, &mut unit);
    unit
}

fn lift64(code: &[u8]) -> Unit {
    lift_with(&guest(Mode::X86_64, "max"), code, &[])
}

fn count(unit: &Unit, f: impl Fn(&Inst) -> bool) -> usize {
    unit.insts.iter().filter(|i| f(i)).count()
}

fn sets(unit: &Unit, slot: Slot) -> usize {
    count(unit, |i| i.op == Op::Set && i.slot() == slot)
}

/// A thread of a guest: state, memory and the blocks it has met.
struct Thread {
    isa: X86,
    state: Box<CpuState>,
    world: World,
}

impl Thread {
    fn new(isa: X86, code: &[u8]) -> Thread {
        let mut state = CpuState::new();
        isa.reset(&mut state);
        state.set_pc(CODE);
        state.set(regs::cell(regs::RSP), 0x7000_0000);
        Thread { isa, state, world: World::with_code(code) }
    }
    fn get(&self, slot: Slot) -> u64 {
        self.state.get(regs::cell(slot))
    }
    fn set(&mut self, slot: Slot, v: u64) {
        self.state.set(regs::cell(slot), v);
    }
    /// Runs to the next trap.
    fn run(&mut self) -> Trap {
        loop {
            let key: TbKey = self.isa.tb_key(&self.state);
            let mut unit = Unit::new(0, 0, self.isa.fp_rule());
            let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
            self.isa.lift(key, &mut self.world, limits, &mut unit);
            if unit.len == 0 {
                let (va, kind) = (key.pc, AccessKind::Exec);
                return Trap::Mem(MemFault { va, kind, cause: FaultCause::Unmapped });
            }
            let program = Program::new(&unit, self.isa.layout(), self.isa.helpers());
            match run(&program, &mut self.state, self.isa.helpers(), &mut self.world) {
                Outcome::Direct(n) => self.state.set_pc(program.exit(n as usize).pc),
                Outcome::Indirect { pc, .. } => self.state.set_pc(pc),
                Outcome::Trap(trap) => return trap,
            }
        }
    }
}

#[test]
fn compare_and_branch_is_one_comparison() {
    // cmp rdi, rsi; jl
    let unit = lift64(&[0x48, 0x39, 0xf7, 0x7c, 0x10]);
    assert_eq!(count(&unit, |i| i.op == Op::Icmp), 1);
    assert_eq!(count(&unit, |i| matches!(i.op, Op::Call | Op::Sub)), 0);
}

#[test]
fn flags_that_nobody_reads_are_not_written() {
    // add rax, rbx; sub rcx, rdx; inc rsi; cmp rsi, rdi; jne
    let code = [0x48, 0x01, 0xd8, 0x48, 0x29, 0xd1, 0x48, 0xff, 0xc6, 0x48, 0x39, 0xfe, 0x75, 0x10];
    let unit = lift64(&code);
    assert_eq!(sets(&unit, regs::CC_OP), 1);
    assert_eq!(count(&unit, |i| i.op == Op::Call), 0);
    // A load in between may fault, and then they must be there.
    let unit = lift64(&[0x48, 0x01, 0xd8, 0x48, 0x8b, 0x07, 0x48, 0x29, 0xd1, 0xc3]);
    assert_eq!(sets(&unit, regs::CC_OP), 2);
}

#[test]
fn a_load_keeps_no_flags_alive_while_nobody_looks_at_faults() {
    let mut t = Thread::new(
        guest(Mode::X86_64, "max"),
        &[0x48, 0x01, 0xd8, 0x48, 0x8b, 0x07, 0x48, 0x29, 0xd1, 0xc3],
    );
    t.set(regs::BLIND_FAULTS, 1);
    let mut unit = Unit::new(0, 0, t.isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    t.isa.lift(t.isa.tb_key(&t.state), &mut t.world, limits, &mut unit);
    assert_eq!(sets(&unit, regs::CC_OP), 1);
}

#[test]
fn a_known_producer_makes_the_branch_inline() {
    let isa = guest(Mode::X86_64, "max");
    let jle = [0x7e, 0x10];
    assert_eq!(count(&lift_with(&isa, &jle, &[]), |i| i.op == Op::Call), 1);
    let sub = CcOp::new(Kind::Sub, tulk_ir::Type::I32).code() as u64;
    let unit = lift_with(&isa, &jle, &[(regs::CC_OP, sub)]);
    assert_eq!(count(&unit, |i| i.op == Op::Call), 0);
    assert_eq!(count(&unit, |i| i.op == Op::Icmp), 1);
}

#[test]
fn conditions_over_flags_of_another_block_are_those_of_the_packed_flags() {
    let values = [0, 1, 2, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, 1 << 32];
    let values = values.into_iter().chain([u64::MAX >> 1, 1 << 63, u64::MAX, 0xffff_ff01]);
    let values: Vec<u64> = values.collect();
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[]);
    let mut check = |code: &[u8], condition: u32, before: u64, add: u64| {
        let unit = lift64(code);
        let program = Program::new(&unit, t.isa.layout(), t.isa.helpers());
        for (kind, log2) in Kind::ALL.into_iter().flat_map(|k| (0..4).map(move |n| (k, n))) {
            let op = CcOp::new(kind, tulk_ir::Type::int_of_log2(log2)).code();
            for (&dst, &src) in values.iter().flat_map(|d| values.iter().map(move |s| (d, s))) {
                t.set(regs::RAX, before);
                t.set(regs::CC_OP, op as u64);
                t.set(regs::CC_DST, dst);
                t.set(regs::CC_SRC, src);
                run(&program, &mut t.state, t.isa.helpers(), &mut t.world);
                let holds = flags::holds(condition, flags::packed(op, dst, src));
                let case = format!("{kind:?} {log2} {dst:#x} {src:#x} {code:x?}");
                assert_eq!(t.get(regs::RAX), add + holds as u64, "{case}");
            }
        }
    };
    for condition in 0..16 {
        // setcc al; hlt
        check(&[0x0f, 0x90 | condition as u8, 0xc0, 0xf4], condition, 0, 0);
    }
    // adc eax, 0; hlt
    check(&[0x83, 0xd0, 0, 0xf4], 2, 7, 7);
}

#[test]
fn blocks_go_on_behind_branches() {
    // cmp eax, ebx; jg +9; mov ecx, 5; je +1; hlt
    let code = [0x39, 0xd8, 0x7f, 0x09, 0xb9, 5, 0, 0, 0, 0x74, 0x01, 0xf4, 0x90, 0x90, 0xf4];
    let unit = lift64(&code);
    // The second branch knows what set the flags.
    assert_eq!((unit.guest_insns, count(&unit, |i| i.op == Op::Call)), (5, 0));
    assert_eq!(count(&unit, |i| i.op == Op::ExitDirect), 2);
    for (a, b, ecx, to) in [(1, 0, 0, Some(0xd)), (1, 1, 5, Some(0xc)), (0, 1, 5, None)] {
        let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
        t.set(regs::RAX, a);
        t.set(regs::RBX, b);
        let program = Program::new(&unit, t.isa.layout(), t.isa.helpers());
        let to = match run(&program, &mut t.state, t.isa.helpers(), &mut t.world) {
            Outcome::Direct(n) => (to, program.exit(n as usize).pc),
            outcome => {
                assert_eq!(outcome, Outcome::Trap(Trap::Privileged));
                (to, CODE + 0xb)
            }
        };
        assert_eq!((to.0.map_or(CODE + 0xb, |pc| CODE + pc), ecx), (to.1, t.get(regs::RCX)));
    }
    // cmp; jg -4 closes a loop. The flags are read (je; jmp), replaced (cmp), or read later (mov; je -16; jmp).
    let rest: [(&[u8], u32); 3] =
        [(&[0x74, 0x01], 4), (&[0x39, 0xd9], 2), (&[0x89, 0xd9, 0x74, 0xf0], 4)];
    for (next, insns) in rest {
        let code = [&[0x39, 0xd8, 0x7f, 0xfc], next, &[0xeb, 0x00]].concat();
        assert_eq!(lift64(&code).guest_insns, insns, "{next:x?}");
    }
    // Only so many.
    let unit = lift64(&[0x7f, 2, 0x74, 2, 0x72, 2, 0x78, 2, 0x70, 2, 0xf4]);
    assert_eq!((unit.guest_insns, count(&unit, |i| i.op == Op::ExitDirect)), (3, 4));
    // fld1; nop; fld1: nobody sees the first one's pointers; but with a branch in between.
    let pointers = |between: &[u8]| {
        let code = [&[0xd9, 0xe8], between, &[0xd9, 0xe8, 0xf4]].concat();
        sets(&lift64(&code), regs::FIP)
    };
    assert_eq!((pointers(&[0x90]), pointers(&[0x74, 0x01])), (1, 2));
}

#[test]
fn system_calls_are_told_apart() {
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0x0f, 0x05, 0xcd, 0x80]);
    assert_eq!(t.run(), Trap::Syscall(SYSCALL_SYSCALL));
    assert_eq!((t.state.pc(), t.get(regs::RCX)), (CODE + 2, CODE + 2));
    assert_eq!(t.get(regs::GPR[11]), 0x202);
    assert_eq!(t.run(), Trap::Syscall(SYSCALL_INT80));
    // SYSCALL exists in 32-bit code of AMD processors only.
    let mut t = Thread::new(guest(Mode::I386, "Haswell"), &[0x0f, 0x05]);
    assert_eq!(t.run(), Trap::Illegal);
    let mut t = Thread::new(guest(Mode::I386, "EPYC"), &[0x0f, 0x05]);
    assert_eq!(t.run(), Trap::Syscall(SYSCALL_SYSCALL));
}

#[test]
fn what_the_model_lacks_is_undefined() {
    // andn eax, ebx, ecx; cmove eax, ebx
    let andn = [0xc4, 0xe2, 0x60, 0xf2, 0xc1, 0xcc];
    let cmove = [0x0f, 0x44, 0xc3, 0xcc];
    let run = |model: &str, code: &[u8]| Thread::new(guest(Mode::I386, model), code).run();
    assert_eq!(run("Haswell", &andn), Trap::Breakpoint(3));
    assert_eq!(run("Haswell,-bmi1", &andn), Trap::Illegal);
    assert_eq!(run("Nehalem", &andn), Trap::Illegal);
    assert_eq!(run("pentium3", &cmove), Trap::Breakpoint(3));
    assert_eq!(run("pentium", &cmove), Trap::Illegal);
}

#[test]
fn cpuid_and_counters() {
    // cpuid; rdtscp
    let mut t = Thread::new(guest(Mode::X86_64, "Haswell"), &[0x0f, 0xa2, 0x0f, 0x01, 0xf9, 0xcc]);
    t.set(regs::RAX, 1);
    assert_eq!(t.run(), Trap::Breakpoint(3));
    assert_eq!((t.get(regs::RDX), t.get(regs::RAX)), (1, 0x2345_6789));
    assert_eq!(t.get(regs::RCX), 3);
    assert_eq!(t.get(regs::RBX) >> 24, 3);
}

#[test]
fn privileged_and_reserved() {
    for (code, trap) in [
        (&[0xf4][..], Trap::Privileged),
        (&[0xec], Trap::Privileged),
        (&[0x0f, 0x30], Trap::Privileged),
        (&[0x0f, 0x0b], Trap::Illegal),
        // lock mov
        (&[0xf0, 0x89, 0x07], Trap::Illegal),
        (&[0xcd, 0x21], Trap::Guest { vector: 13, code: 0x21 << 3 | 2 }),
        // Sixteen bytes.
        (
            &[
                0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66, 0x66,
                0x66, 0x90,
            ],
            Trap::Guest { vector: 13, code: 0 },
        ),
    ] {
        let mut t = Thread::new(guest(Mode::X86_64, "max"), code);
        assert_eq!(t.run(), trap, "{code:02x?}");
        assert_eq!(t.state.pc(), CODE);
    }
}

#[test]
fn a_fetch_fault_names_the_missing_byte() {
    // nop; mov rax, imm64 cut short
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0x90, 0x48, 0xb8, 1, 2]);
    let (va, kind) = (GuestVa(CODE + 5), AccessKind::Exec);
    assert_eq!(t.run(), Trap::Mem(MemFault { va, kind, cause: FaultCause::Unmapped }));
    assert_eq!(t.state.pc(), CODE + 1);
}

#[test]
fn a_fault_in_a_repetition_leaves_the_rest_to_do() {
    // std; rep stosd
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0xfd, 0xf3, 0xab]);
    t.set(regs::RDI, 4096 + 8);
    t.set(regs::RCX, 10);
    let (va, kind) = (GuestVa(4096 - 4), AccessKind::Write);
    assert_eq!(t.run(), Trap::Mem(MemFault { va, kind, cause: FaultCause::Unmapped }));
    assert_eq!((t.get(regs::RDI), t.get(regs::RCX)), (4096 - 4, 7));
    assert_eq!(t.state.pc(), CODE + 1);
}

#[test]
fn a_short_repetition_faults_at_its_element_too() {
    // rep stosd, of fewer elements than are worth a call
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0xfd, 0xf3, 0xab]);
    t.set(regs::RAX, 0x1234_5678);
    t.set(regs::RDI, 4096 + 8);
    t.set(regs::RCX, 7);
    let (va, kind) = (GuestVa(4096 - 4), AccessKind::Write);
    assert_eq!(t.run(), Trap::Mem(MemFault { va, kind, cause: FaultCause::Unmapped }));
    assert_eq!((t.get(regs::RDI), t.get(regs::RCX)), (4096 - 4, 4));
    assert_eq!(t.state.pc(), CODE + 1);
    assert_eq!(t.world.bytes.get(&4096), Some(&0x78));
}

#[test]
fn short_copies_go_up_and_stop_at_none() {
    // rep movsb; int3
    let mut t = Thread::new(guest(Mode::I386, "max"), &[0xf3, 0xa4, 0xcc]);
    for n in [0, 1, 8, 9, 20] {
        (0..n).for_each(|i| _ = t.world.bytes.insert(0x2000 + i, i as u8 + 1));
        // Overlapping: each byte is read behind the write before it.
        let last = 0x2000 + n;
        for (slot, v) in [(regs::RSI, 0x2000), (regs::RDI, 0x2001), (regs::RCX, n)] {
            t.set(slot, v);
        }
        t.world.bytes.insert(0x2000, 0x55);
        t.state.set_pc(CODE);
        assert_eq!(t.run(), Trap::Breakpoint(3));
        assert_eq!(t.get(regs::RCX), 0);
        assert_eq!((t.get(regs::RSI), t.get(regs::RDI)), (last, last + 1));
        assert!((1..=n).all(|i| t.world.bytes[&(0x2000 + i)] == 0x55), "{n} bytes");
    }
}

#[test]
fn registers_are_read_anew_behind_a_store() {
    // mov [rdi], al; add rax, rdx; cmp rax, rcx: a region's checkpoint behind the store then sees which registers count.
    let unit = lift64(&[0x88, 0x07, 0x48, 0x01, 0xd0, 0x48, 0x39, 0xc8]);
    let store = unit.insts.iter().position(|i| i.op == Op::Store).expect("a store");
    let (before, behind) = unit.insts.split_at(store + 1);
    let read = |insts: &[Inst]| insts.iter().any(|i| i.op == Op::Get && i.slot() == regs::RAX);
    assert!(read(before) && read(behind));
    let defined: Vec<Value> = before.iter().map(|i| i.dst).filter(|v| !v.is_none()).collect();
    assert!(!behind.iter().flat_map(|i| i.args).any(|v| defined.contains(&v)), "{unit:?}");
}

#[test]
fn instructions_that_replace_all_flags_say_so() {
    let marked = |code: &[u8]| {
        let unit = lift64(code);
        let first = unit.insts.iter().find(|i| i.op == Op::Insn).expect("an instruction");
        first.aux_flag()
    };
    // add rax, rdx; cmp ecx, 5; xor eax, eax; shl eax, 3; imul eax, ecx
    let codes: [&[u8]; 5] = [
        &[0x48, 0x01, 0xd0],
        &[0x83, 0xf9, 0x05],
        &[0x31, 0xc0],
        &[0xc1, 0xe0, 0x03],
        &[0x0f, 0xaf, 0xc1],
    ];
    assert!(codes.iter().all(|code| marked(code)));
    // What reads flags, leaves some, or may fault with the old ones: adc rax, rdx; inc eax; shl eax, cl; shl eax, 0;
    // add rax, [rdx]; mov eax, ecx; rol eax, 3
    let codes: [&[u8]; 7] = [
        &[0x48, 0x11, 0xd0],
        &[0xff, 0xc0],
        &[0xd3, 0xe0],
        &[0xc1, 0xe0, 0x20],
        &[0x48, 0x03, 0x02],
        &[0x89, 0xc8],
        &[0xc1, 0xc0, 0x03],
    ];
    assert!(codes.iter().all(|code| !marked(code)));
}

#[test]
fn long_repetitions_can_be_interrupted() {
    let unit = lift64(&[0xf3, 0xa4]);
    let exits: Vec<_> =
        unit.insts.iter().filter(|i| i.op == Op::ExitDirect).map(|i| i.imm as u64).collect();
    assert!(exits.contains(&CODE) && exits.contains(&(CODE + 2)), "{exits:x?}");
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0xf3, 0xaa, 0xcc]);
    t.set(regs::RDI, 0x1000_0000);
    t.set(regs::RCX, 200_000);
    assert_eq!(t.run(), Trap::Breakpoint(3));
    assert_eq!((t.get(regs::RDI), t.get(regs::RCX)), (0x1000_0000 + 200_000, 0));
}

#[test]
fn ldt_descriptors_are_asked_for() {
    // mov gs, ax; mov bl, gs:[0]; mov cl, gs:[0x10]
    let code = [0x8e, 0xe8, 0x65, 0x8a, 0x1d, 0, 0, 0, 0, 0x65, 0x8a, 0x0d, 0x10, 0, 0, 0];
    let mut t = Thread::new(guest(Mode::I386, "max"), &code);
    t.set(regs::RAX, 0x0f);
    assert_eq!(t.run(), Trap::Guest { vector: segment::WANT_DESCRIPTOR, code: 0x0c });
    t.set(regs::DESC_SELECTOR, regs::DESC_VALID | 0x0c);
    // Base 0x2000, limit 0xf.
    t.set(regs::DESC, 0x0040_f300_2000_000f);
    t.world.bytes.insert(0x2000, 0x77);
    assert_eq!(t.run(), Trap::Guest { vector: 13, code: 0 });
    assert_eq!((t.state.pc(), t.get(regs::RBX)), (CODE + 9, 0x77));
    // The delivered descriptor counts once.
    t.state.set_pc(CODE);
    assert_eq!(t.run(), Trap::Guest { vector: segment::WANT_DESCRIPTOR, code: 0x0c });
}

#[test]
fn tls_descriptors_of_the_thread() {
    // mov fs, ax; mov ebx, fs:[4]
    let code = [0x8e, 0xe0, 0x64, 0x8b, 0x1d, 4, 0, 0, 0, 0xcc];
    let mut t = Thread::new(guest(Mode::I386, "max"), &code);
    t.set(regs::RAX, 13 << 3 | 3);
    t.set(regs::GDT_TLS[1], 0x12cf_f334_5000_ffff);
    t.world.store(GuestVa(0x1234_5004), MemOp::U32, 0xcafe).unwrap();
    assert_eq!(t.run(), Trap::Breakpoint(3));
    assert_eq!(t.get(regs::RBX), 0xcafe);
}

#[test]
fn the_trap_flag_steps() {
    // pushf; or byte [rsp+1], 1; popf; nop; jmp +0; nop
    let code = [0x9c, 0x80, 0x4c, 0x24, 1, 1, 0x9d, 0x90, 0xeb, 0, 0x90];
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
    for at in [8, 10, 11] {
        assert_eq!(t.run(), Trap::Guest { vector: 1, code: 0 });
        assert_eq!(t.state.pc(), CODE + at);
    }
}

#[test]
fn short_code_segments_end_where_they_say() {
    // Four nops in a code segment that ends behind the second.
    let mut t = Thread::new(guest(Mode::I386, "max"), &[0x90; 4]);
    let base = (CODE & 0xff_ffff) << 16 | (CODE >> 24) << 56;
    segment::set_segment(&mut t.state, regs::CS, 7, 0x0040_fb00_0000_0001 | base);
    assert_eq!(t.run(), Trap::Guest { vector: 13, code: 0 });
    assert_eq!(t.state.pc(), CODE + 2);
}

#[test]
fn older_processors_ignore_the_prefix() {
    // tzcnt eax, ecx; lzcnt edx, ecx
    let code = [0xf3, 0x0f, 0xbc, 0xc1, 0xf3, 0x0f, 0xbd, 0xd1, 0xcc];
    for (model, low, high) in [("Haswell", 4, 23), ("Nehalem", 4, 8), ("pentium", 4, 8)] {
        let mut t = Thread::new(guest(Mode::I386, model), &code);
        t.set(regs::RCX, 0x110);
        assert_eq!(t.run(), Trap::Breakpoint(3));
        assert_eq!((t.get(regs::RAX), t.get(regs::RDX)), (low, high), "{model}");
    }
    // rdsspq rax; prefetchw [rax]; cldemote [rax]; nopw [rax]
    let code = [
        0xf3, 0x48, 0x0f, 0x1e, 0xc8, 0x0f, 0x0d, 0x08, 0x0f, 0x1c, 0x00, 0x66, 0x0f, 0x1f, 0x00,
        0xcc,
    ];
    assert_eq!(Thread::new(guest(Mode::X86_64, "Nehalem"), &code).run(), Trap::Breakpoint(3));
    // wbnoinvd
    let code = [0xf3, 0x0f, 0x09];
    assert_eq!(Thread::new(guest(Mode::X86_64, "max"), &code).run(), Trap::Privileged);
}

#[test]
fn direct_stores_and_serialize() {
    // movdiri [rdi], rax; movdir64b rsi, [rdi]; serialize; cldemote [rdi]
    let code = [
        0x48, 0x0f, 0x38, 0xf9, 0x07, 0x66, 0x0f, 0x38, 0xf8, 0x37, 0x0f, 0x01, 0xe8, 0x0f, 0x1c,
        0x07, 0xcc,
    ];
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
    t.set(regs::RAX, 0x1122_3344_5566_7788);
    t.set(regs::RDI, 0x5001);
    t.set(regs::RSI, 0x6040);
    assert_eq!(t.run(), Trap::Breakpoint(3));
    assert_eq!(t.world.load(GuestVa(0x6040), MemOp::U64), Ok(0x1122_3344_5566_7788));
    // The destination is aligned.
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &code[5..]);
    t.set(regs::RDI, 0x5000);
    t.set(regs::RSI, 0x6020);
    assert_eq!(t.run(), Trap::Guest { vector: 13, code: 0 });
    let lacks = Thread::new(guest(Mode::X86_64, "Haswell"), &code).run();
    assert_eq!(lacks, Trap::Illegal);
}

#[test]
fn system_registers_show_constants() {
    // sgdt [rdi]; sidt [rdi+16]; smsw eax; sldt ecx; str edx
    let code = [
        0x0f, 0x01, 0x07, 0x0f, 0x01, 0x4f, 0x10, 0x0f, 0x01, 0xe0, 0x0f, 0x00, 0xc1, 0x0f, 0x00,
        0xca, 0xcc,
    ];
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
    t.set(regs::RDI, 0x5000);
    assert_eq!(t.run(), Trap::Breakpoint(3));
    assert_eq!(t.world.load(GuestVa(0x5002), MemOp::U64), Ok(0xffff_ffff_fffe_0000));
    assert_eq!(t.world.load(GuestVa(0x5012), MemOp::U64), Ok(0xffff_ffff_ffff_0000));
    let got = [regs::RAX, regs::RCX, regs::RDX].map(|r| t.get(r));
    assert_eq!(got, [0x8005_0033, 0, 0x40]);
}

#[test]
fn random_numbers_processor_and_xcr0() {
    // rdrand rax; rdseed bx; rdpid rsi; xor ecx, ecx; xgetbv; setc dl
    let code = [
        0x48, 0x0f, 0xc7, 0xf0, 0x49, 0x89, 0xc0, 0x66, 0x0f, 0xc7, 0xfb, 0x41, 0x0f, 0x92, 0xc1,
        0xf3, 0x0f, 0xc7, 0xfe, 0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xcc,
    ];
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
    assert_eq!(t.run(), Trap::Breakpoint(3));
    let got = [regs::GPR[8], regs::RBX, regs::GPR[9], regs::RSI, regs::RAX, regs::RDX];
    assert_eq!(got.map(|r| t.get(r)), [0x5a5a_5a5a_5a5a_5a5a, 0x5a5a, 1, 3, 7, 0]);
    // xgetbv of a register that is none
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0x0f, 0x01, 0xd0]);
    t.set(regs::RCX, 2);
    assert_eq!(t.run(), Trap::Guest { vector: 13, code: 0 });
}

#[test]
fn int1_and_fast_system_calls_of_32_bit_code() {
    let mut t = Thread::new(guest(Mode::I386, "max"), &[0xf1, 0x0f, 0x34]);
    assert_eq!(t.run(), Trap::Guest { vector: 1, code: 0 });
    assert_eq!(t.state.pc(), CODE + 1);
    assert_eq!(t.run(), Trap::Syscall(SYSCALL_SYSENTER));
    // SYSCALL outside 64-bit code is AMD's.
    let run = |model| Thread::new(guest(Mode::I386, model), &[0x0f, 0x05]).run();
    assert_eq!(run("Haswell"), Trap::Illegal);
    assert_eq!(run("EPYC"), Trap::Syscall(SYSCALL_SYSCALL));
}

#[test]
fn decrement_finds_the_carry_without_a_helper() {
    // loop: dec ecx; jnz loop
    let isa = guest(Mode::X86_64, "max");
    let code = [0xff, 0xc9, 0x75, 0xfc];
    let dec = CcOp::new(Kind::Dec, tulk_ir::Type::I32).code() as u64;
    let unit = lift_with(&isa, &code, &[(regs::CC_OP, dec)]);
    assert_eq!(count(&unit, |i| matches!(i.op, Op::Call | Op::Brif)), 1);
    assert_eq!(sets(&unit, regs::CC_OP), 0);
    // stc; dec ecx; mov eax, 5; dec eax; jnz; and the carry is still there, whatever set the flags.
    for first in [&[0xf9][..], &[0x39, 0xd1], &[0x85, 0xc9, 0xf9]] {
        let code: Vec<u8> = first
            .iter()
            .chain(&[0xeb, 0x00, 0xff, 0xc9, 0x72, 0x01, 0xf4, 0xcc])
            .copied()
            .collect();
        let mut t = Thread::new(guest(Mode::X86_64, "max"), &code);
        t.set(regs::RDX, 7);
        assert_eq!(t.run(), Trap::Breakpoint(3), "{first:x?}");
    }
}

#[test]
fn divisions_of_half_a_dividend() {
    // cdq; idiv ecx
    let unit = lift64(&[0x99, 0xf7, 0xf9]);
    assert_eq!(count(&unit, |i| i.op == Op::DivS && i.ty == tulk_ir::Type::I32), 1);
    // xor edx, edx; div rcx
    let unit = lift64(&[0x31, 0xd2, 0x48, 0xf7, 0xf1]);
    assert_eq!(count(&unit, |i| i.op == Op::DivU), 1);
    assert_eq!(count(&unit, |i| i.op == Op::Call), 0);
    let divide = |code: &[u8], rax: u64, rcx: u64| {
        let mut t = Thread::new(guest(Mode::X86_64, "max"), code);
        t.set(regs::RAX, rax);
        t.set(regs::RCX, rcx);
        t.set(regs::RDX, 0x55);
        (t.run(), t.get(regs::RAX), t.get(regs::RDX))
    };
    let (end, error) = (Trap::Breakpoint(3), Trap::Arithmetic(1));
    let idiv = [0x99, 0xf7, 0xf9, 0xcc];
    assert_eq!(divide(&idiv, 0xffff_fff9, 2), (end, 0xffff_fffd, 0xffff_ffff));
    assert_eq!(divide(&idiv, 7, 0).0, error);
    assert_eq!(divide(&idiv, 0x8000_0000, 0xffff_ffff), (error, 0x8000_0000, 0xffff_ffff));
    let cqo = [0x48, 0x99, 0x48, 0xf7, 0xf9, 0xcc];
    assert_eq!(divide(&cqo, u64::MAX - 6, 2), (end, u64::MAX - 2, u64::MAX));
    assert_eq!(divide(&cqo, 1 << 63, u64::MAX).0, error);
    let div = [0x31, 0xd2, 0x48, 0xf7, 0xf1, 0xcc];
    assert_eq!(divide(&div, u64::MAX, 10), (end, u64::MAX / 10, 5));
    assert_eq!(divide(&div, 5, 0), (error, 5, 0));
    // What was written in between counts: cdq; mov edx, 1; idiv ecx
    let code = [0x99, 0xba, 1, 0, 0, 0, 0xf7, 0xf9, 0xcc];
    assert_eq!(divide(&code, 0, 0x1000), (end, 0x10_0000, 0));
}

#[test]
fn a_return_may_take_two_descriptors_of_the_ldt() {
    // iretq to a code segment and a stack of the LDT
    let mut t = Thread::new(guest(Mode::X86_64, "max"), &[0x48, 0xcf]);
    for (n, v) in [0x1000, 0x07, 0x202, 0x9000, 0x0f].into_iter().enumerate() {
        t.world.store(GuestVa(0x7000_0000 + 8 * n as u64), MemOp::U64, v).unwrap();
    }
    let want = |code| Trap::Guest { vector: segment::WANT_DESCRIPTOR, code };
    let deliver = |t: &mut Thread, selector, raw| {
        t.set(regs::DESC_SELECTOR, regs::DESC_VALID | selector);
        t.set(regs::DESC, raw);
    };
    assert_eq!(t.run(), want(0x04));
    deliver(&mut t, 0x04, 0x00cf_fb00_0000_ffff);
    assert_eq!(t.run(), want(0x0c));
    assert_eq!((t.state.pc(), t.get(regs::SEG[regs::CS])), (CODE, segment::USER_CS as u64));
    deliver(&mut t, 0x0c, 0x00cf_f300_0000_ffff);
    // There is no code at the target.
    assert!(matches!(t.run(), Trap::Mem(f) if f.va == GuestVa(0x1000)));
    let got = [regs::SEG[regs::CS], regs::SEG[regs::SS], regs::RSP].map(|r| t.get(r));
    assert_eq!(got, [0x07, 0x0f, 0x9000]);
}
