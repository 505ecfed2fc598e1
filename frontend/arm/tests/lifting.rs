//! What units look like: how they end, and that common instructions take few operations.

use tulk_arm::a64::{Aarch64, CpuModel, KEY_SP_CHECKED, KEY_TAGGED};
use tulk_base::GuestVa;
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::{ExitKind, Op, Unit};

const PC: u64 = 0x1000;

struct Code(Vec<u8>);

impl CodeReader for Code {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let from = (va.0.wrapping_sub(PC) as usize).min(self.0.len());
        let n = (self.0.len() - from).min(out.len());
        out[..n].copy_from_slice(&self.0[from..from + n]);
        n
    }
}

fn lift_with(words: &[u32], flags: u64, max_insns: u32, end: u64) -> Unit {
    let isa = Aarch64::new(CpuModel::by_name("max").unwrap());
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let mut code = Code(words.iter().flat_map(|w| w.to_le_bytes()).collect());
    let limits = LiftLimits { max_insns, end: GuestVa(end) };
    isa.lift(TbKey { pc: GuestVa(PC), flags }, &mut code, limits, &mut unit);
    unit
}

fn lift(words: &[u32]) -> Unit {
    lift_with(words, 0, 64, u64::MAX)
}

/// The operations of a unit by name, without the instruction markers.
fn ops(words: &[u32]) -> String {
    let names = lift(words)
        .insts
        .iter()
        .filter(|i| i.op != Op::Insn)
        .map(|i| i.op.info().name)
        .collect::<Vec<_>>();
    names.join(" ")
}

#[test]
fn few_operations() {
    for (words, expected) in [
        // add x0, x1, x2
        (&[0x8b020020][..], "get get add set exit"),
        // add w0, w1, w2
        (&[0x0b020020], "get trunc get trunc add zext set exit"),
        // The word that was just written is not read again: add w0, w1, w2; add w0, w0, w0
        (&[0x0b020020, 0x0b000000], "get trunc get trunc add zext set add zext set exit"),
        // mov x0, x1
        (&[0xaa0103e0], "get set exit"),
        // ldr x0, [x1, #8]
        (&[0xf9400420], "get load set exit"),
        // str w0, [x1, #4]
        (&[0xb9000420], "get get store exit"),
        // ldp x29, x30, [sp], #32
        (&[0xa8c27bfd], "get load load iconst add set set set exit"),
        // movz x0, #1; movk x0, #2, lsl #16: the second is a constant
        (&[0xd2800020, 0xf2a00040], "iconst set iconst set exit"),
        // adrp x0, .; add x0, x0, #16
        (&[0x90000000, 0x91004000], "iconst set iconst set exit"),
        // uxtb w0, w1; lsr w0, w1, #4; and w0, w1, #15
        (&[0x53001c20], "get bextract_u set exit"),
        (&[0x53047c20], "get bextract_u set exit"),
        (&[0x12000c20], "get iconst and set exit"),
        // cset w0, eq
        (&[0x1a9f17e0], "get nzcv_test zext set exit"),
        // mul x0, x1, x2
        (&[0x9b027c20], "get get mul set exit"),
        // ldr d0, [x0]; str d0, [x1]: the scalar is not taken from the vector again
        (&[0xfd400000, 0xfd000020], "get load vscalar set get store exit"),
    ] {
        assert_eq!(ops(words), expected, "{words:08x?}");
    }
}

#[test]
fn conditions_use_the_compared_values() {
    let branch = "brif exit exit";
    for (words, expected) in [
        // cmp x0, x1; b.lt
        (&[0xeb01001f, 0x5400004b][..], format!("get get sub_nzcv set icmp {branch}")),
        // subs x0, x0, #1; b.ne
        (&[0xf1000400, 0x54000041], format!("get iconst sub_nzcv set sub set icmp {branch}")),
        // tst x0, x0; b.mi
        (&[0xea00001f, 0x54000044], format!("get logic_nzcv set iconst icmp {branch}")),
        // cmp x0, x1; ccmp x2, x3, #0, eq; b.eq
        (
            &[0xeb01001f, 0xfa430040, 0x54000040],
            format!(
                "get get sub_nzcv set get get icmp sub_nzcv iconst select set icmp iconst select {branch}"
            ),
        ),
        // cmp x0, x1; csel x0, x0, x1, gt
        (&[0xeb01001f, 0x9a81c000], "get get sub_nzcv set icmp select set exit".into()),
        // cmp x0, x1; b.vs: no comparison says overflow
        (&[0xeb01001f, 0x54000046], format!("get get sub_nzcv set nzcv_test {branch}")),
        // cbz x0
        (&[0xb4000040], format!("get iconst icmp {branch}")),
        // tbz x0, #3; tbnz x0, #63
        (&[0x36180040], format!("get iconst and iconst icmp {branch}")),
        (&[0xb7f80040], format!("get iconst icmp {branch}")),
    ] {
        assert_eq!(ops(words), expected, "{words:08x?}");
    }
}

/// The ending instruction: kind of exit, pc or number.
fn end(words: &[u32]) -> (Op, ExitKind, i64, u32) {
    let unit = lift(words);
    let last = unit.insts.last().unwrap();
    (last.op, last.exit_kind(), last.imm, last.imm2)
}

#[test]
fn ends_of_blocks() {
    const NOP: u32 = 0xd503_201f;
    assert_eq!(end(&[NOP, 0x1400_0010]), (Op::ExitDirect, ExitKind::Jump, 0x1044, 0));
    assert_eq!(end(&[NOP, 0x97ff_ffff]), (Op::ExitDirect, ExitKind::Call, 0x1000, 0));
    assert_eq!(end(&[NOP, 0xd65f_03c0]).1, ExitKind::Return);
    assert_eq!(end(&[NOP, 0xd61f_0200]).1, ExitKind::Jump);
    assert_eq!(end(&[NOP, 0xd63f_0200]).1, ExitKind::Call);
    assert_eq!(end(&[NOP, 0xd400_0001]), (Op::ExitTrap, ExitKind::Syscall, 0x1008, 0));
    assert_eq!(end(&[NOP, 0xd420_7d00]), (Op::ExitTrap, ExitKind::Breakpoint, 0x1004, 1000));
    // UDF, HLT, SMC, MRS of a register of EL1, an undefined word.
    for word in [0, 0xd440_0000, 0xd400_0003, 0xd538_1000, 0xffff_ffff] {
        assert_eq!(end(&[NOP, word]), (Op::ExitTrap, ExitKind::Illegal, 0x1004, 0));
    }
    // ISB, IC IVAU, MSR FPCR: what follows is looked up anew.
    for word in [0xd503_3fdf, 0xd50b_7520, 0xd51b_4400] {
        assert_eq!(end(&[NOP, word, NOP]).1, ExitKind::Resync);
    }
    // The end of what can be fetched, and the limits.
    assert_eq!(end(&[NOP; 70]), (Op::ExitDirect, ExitKind::Jump, 0x1100, 0));
    assert_eq!(end(&[NOP; 3]), (Op::ExitDirect, ExitKind::Jump, 0x100c, 0));
    for unit in [lift_with(&[NOP; 8], 0, 2, u64::MAX), lift_with(&[NOP; 8], 0, 64, PC + 8)] {
        assert_eq!((unit.guest_insns, unit.len), (2, 8));
        assert_eq!(unit.insts.last().unwrap().imm, 0x1008);
    }
    assert_eq!(lift(&[]).len, 0);
}

#[test]
fn call_passes_its_return_address() {
    let unit = lift(&[0x9400_0010]);
    let last = unit.insts.last().unwrap();
    let ret = unit.insts.iter().find(|i| i.dst == last.args[0]).unwrap();
    assert_eq!((ret.op, ret.imm), (Op::Iconst, 0x1004));
}

#[test]
fn tags_are_removed_in_tagged_mode() {
    // ldr x0, [x1, #8]
    let unit = lift_with(&[0xf940_0420], KEY_TAGGED, 64, u64::MAX);
    let load = unit.insts.iter().find(|i| i.op == Op::Load).unwrap();
    let address = unit.insts.iter().find(|i| i.dst == load.args[0]).unwrap();
    assert_eq!((address.op, address.field(), load.imm), (Op::BextractS, (0, 56), 0));
}

#[test]
fn sp_is_tested_where_it_may_become_misaligned() {
    let count = |words: &[u32], flags, op| {
        let unit = lift_with(words, flags, 64, u64::MAX);
        unit.insts.iter().filter(|i| i.op == op).count()
    };
    // stp x29, x30, [sp, #-32]!; sub sp, sp, #16; add sp, sp, #16; and sp, x9, #-16; ldp x29, x30, [sp], #32
    let frame = [0xa9be_7bfd, 0xd100_43ff, 0x9100_43ff, 0x927c_ed3f, 0xa8c2_7bfd];
    assert_eq!(count(&frame, 0, Op::Brif), 0);
    // mov sp, x29; sub sp, sp, #8; sub sp, sp, x1; add wsp, wsp, #16; ldr x0, [sp], #8; and sp, x9, #-8
    for word in [0x9100_03bf, 0xd100_23ff, 0xcb21_63ff, 0x1100_43ff, 0xf840_87e0, 0x927d_f13f] {
        assert_eq!(count(&[word], 0, Op::Brif), 1, "{word:#x}");
        assert_eq!(count(&[word], KEY_SP_CHECKED, Op::Brif), 0, "{word:#x}");
    }
    // ldr x0, [sp]; ldr x0, [x1]: only with SP, only when it is checked
    assert_eq!(count(&[0xf940_03e0, 0xf940_0020], 0, Op::Call), 0);
    assert_eq!(count(&[0xf940_03e0, 0xf940_0020], KEY_SP_CHECKED, Op::Call), 1);
}

/// Prints the time per instruction: `cargo test --release --test lifting -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn speed() {
    let isa = Aarch64::new(CpuModel::by_name("max").unwrap());
    let start = std::time::Instant::now();
    for _ in 0..100 {
        std::hint::black_box(Aarch64::new(CpuModel::by_name("max").unwrap()));
    }
    println!("new: {:?}", start.elapsed() / 100);
    // A mix as compilers make it.
    let mix: [u32; 16] = [
        0xa9bd7bfd, 0x910003fd, 0xf90013f5, 0xaa0003f4, 0xb9400261, 0x7100043f, 0x1a9f17e0,
        0x8b020020, 0xf9400420, 0xd37ef421, 0xf8616800, 0x92400c00, 0xeb01001f, 0x9a81c000,
        0xa8c27bfd, 0xb4000040,
    ];
    let mut code = Code(mix.iter().flat_map(|w| w.to_le_bytes()).collect());
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    let (start, rounds) = (std::time::Instant::now(), 200_000u32);
    for _ in 0..rounds {
        isa.lift(TbKey { pc: GuestVa(PC), flags: 0 }, &mut code, limits, &mut unit);
    }
    println!(
        "lift: {:?} per instruction, {} IR",
        start.elapsed() / (rounds * 16),
        unit.insts.len()
    );
}
