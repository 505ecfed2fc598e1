//! What EL0 sees of the system, case by case against the outside oracle: ID registers, undefined words,
//! misaligned accesses, faults in the middle of an instruction, exclusives.

mod support;

use support::compare::{differences, oracle};
use support::generate::Generator;
use support::program::{Case, SCRATCH_SIZE, scratch_of};
use support::{Rng, asm};
use tulk_arm::a64::{Aarch64, CpuModel};
use tulk_frontend::GuestIsa;

fn isa(model: &str) -> Aarch64 {
    Aarch64::new(CpuModel::by_name(model).unwrap())
}

/// Cases of these words with random registers, and a change to each.
fn cases(isa: &Aarch64, list: &[Vec<u32>], change: impl Fn(usize, &mut Case)) -> Vec<Case> {
    let mut generator = Generator::new(7, isa.decoder(), |_| true);
    let make = |(n, words): (usize, &Vec<u32>)| {
        let mut case = generator.around(n, words.clone());
        case.fpcr = 0;
        change(n, &mut case);
        case
    };
    list.iter().enumerate().map(make).collect()
}

fn agree(model: &str, oracle_cpu: &str, list: &[Vec<u32>], change: impl Fn(usize, &mut Case)) {
    let Some(oracle) = oracle() else { return };
    let isa = isa(model);
    let found = differences(&oracle, oracle_cpu, &isa, &cases(&isa, list, change));
    assert!(found.is_empty(), "{model}:\n{}", found.join("\n"));
}

/// `word` alone.
fn each(words: impl IntoIterator<Item = u32>) -> Vec<Vec<u32>> {
    words.into_iter().map(|w| vec![w]).collect()
}

#[test]
fn id_registers() {
    // MRS x0 of op0 = 3, op1 = 0, crn = 0, and the registers for EL0 that say something about the CPU. In crm 2 and 3
    // (ID registers of AArch32) Linux shows zero, by its documentation, and the oracle gives SIGILL.
    let space = (0..8 * 8).filter(|n| !(2..4).contains(&(n >> 3))).map(|n| 0xd538_0000 | n << 5);
    let others = [0xd53b_0020, 0xd53b_00e0];
    let words: Vec<u32> = space.chain(others).collect();
    for model in ["cortex-a53", "cortex-a72", "neoverse-n1"] {
        agree(model, model, &each(words.iter().copied()), |_, _| {});
    }
}

#[test]
fn undefined_words() {
    let isa = isa("neoverse-n1");
    let mut rng = Rng::new(9);
    let mut list = Vec::new();
    while list.len() < 3000 {
        let word = rng.u32();
        // SVE and SME space is undefined for both but makes half of all random words.
        let scalable = word >> 25 & 15 == 2 || word >> 25 & 15 == 0;
        if isa.decoder().decode(word).is_none() && (!scalable || rng.one_in(20)) {
            list.push(vec![word]);
        }
    }
    for part in list.chunks(200) {
        agree("neoverse-n1", "neoverse-n1", part, |_, _| {});
    }
}

#[test]
fn misaligned_accesses() {
    // Without LDAPR, whose alignment QEMU 7.2 does not check.
    let words = [
        0xc85f_7e80, // ldxr x0, [x20]
        0x885f_fe80, // ldaxr w0, [x20]
        0xc87f_0680, // ldxp x0, x1, [x20]
        0xc8df_fe80, // ldar x0, [x20]
        0x489f_fe80, // stlrh w0, [x20]
        0xf820_0281, // ldadd x0, x1, [x20]
        0x78e0_8281, // swpalh w0, w1, [x20]
        0xc8a0_7e81, // cas x0, x1, [x20]
        0x4820_7e82, // casp x0, x1, x2, x3, [x20]
        0xf940_0280, // ldr x0, [x20]
        0x3dc0_0280, // ldr q0, [x20]
        0xa900_0680, // stp x0, x1, [x20]
    ];
    let list: Vec<_> = each(words).into_iter().cycle().take(2 * words.len()).collect();
    agree("neoverse-n1", "neoverse-n1", &list, |n, case| {
        case.x[20] = scratch_of(n) + if n < words.len() { 257 } else { 264 };
    });
}

#[test]
fn faults_change_nothing() {
    // The second access of a pair, a load and a store with writeback, a write of code, at the end of memory.
    let words = [
        0xa940_0680, // ldp x0, x1, [x20]
        0xa8c1_0680, // ldp x0, x1, [x20], #16
        0xadc0_8680, // ldp q0, q1, [x20, #16]!
        0xf840_8e80, // ldr x0, [x20, #8]!
        0xf800_8e80, // str x0, [x20, #8]!
        0xf81f_0e80, // str x0, [x20, #-16]!
        0x3cc1_0680, // ldr q0, [x20], #16
    ];
    for word in words {
        agree("max", "max,pauth=off", &[vec![word]], |n, case| {
            case.x[20] = scratch_of(n) + SCRATCH_SIZE as u64 - 8;
        });
    }
    agree("max", "max,pauth=off", &each([0xf800_8e80]), |_, case| {
        case.x[20] = support::program::CODE;
    });
}

#[test]
fn exclusives() {
    let (load, store) = (0xc85f_7e80, 0xc801_7e82); // ldxr x0, [x20]; stxr w1, x2, [x20]
    let list = vec![
        vec![load, store],
        // Once more without a load.
        vec![load, store, store],
        vec![load, asm::CLREX, store],
        // Another address.
        vec![load, 0x9100_2294, store], // add x20, x20, #8
        // A store between that changes the value, and one that does not.
        vec![load, 0xf900_0282, store], // str x2, [x20]
        vec![load, 0xf900_0280, store], // str x0, [x20]
        vec![store],
        // ldaxp x0, x1, [x20]; stlxp w3, x4, x5, [x20], and the 32-bit forms
        vec![0xc87f_8680, 0xc823_9684],
        vec![0x887f_8680, 0x8823_9684],
    ];
    agree("max", "max,pauth=off", &list, |n, case| case.x[20] = scratch_of(n) + 256);
}

#[test]
fn jumps() {
    let list = vec![
        // A misaligned target.
        vec![0x1000_0000, 0x9100_0800, 0xd61f_0000], // adr x0, .; add x0, x0, #2; br x0
        // Over the next instruction by register, and an address that is not mapped.
        vec![0x1000_0060, 0xd61f_0000, 0x9100_0421, asm::NOP], // adr x0, .+12; br x0; add x1, x1, #1
        vec![0xd280_0200, 0xd61f_0000],                        // mov x0, #16; br x0
        // A breakpoint.
        vec![0xd420_0020],
    ];
    agree("max", "max,pauth=off", &list, |_, _| {});
}

#[test]
fn tagged_addresses() {
    // ldr x0, [x20]; str x1, [x20, #8]; ldadd x2, x3, [x20]
    let list = vec![vec![0xf940_0280, 0xf900_0681, 0xf822_0283]];
    agree("max", "max,pauth=off", &list, |n, case| {
        case.x[20] = (scratch_of(n) + 256) | 0xab << 56;
    });
}

/// RNDR cannot be compared: it gives the world's random bytes and clears the flags. SB does nothing.
#[test]
fn random_numbers() {
    use support::machine::{Machine, Tier};
    use support::program::{BLOCK_NZCV, build, outcomes};
    let isa = isa("max");
    assert_eq!(isa.name(), "aarch64");
    let list = each([0xd53b_2400, 0xd503_30ff]);
    let cases = cases(&isa, &list, |_, case| case.nzcv = 0xf000_0000);
    let (entry, segments) = build(&cases);
    let output = Machine::new(&isa, Tier::Interpreter, entry, segments).run().unwrap();
    let done = outcomes(cases.len(), &output).unwrap();
    assert_eq!((done[0].u64(0), done[0].u64(BLOCK_NZCV)), (0x5a5a_5a5a_5a5a_5a5a, 0));
    assert_eq!((done[1].u64(0), done[1].u64(BLOCK_NZCV)), (cases[1].x[0], 0xf000_0000));
}
