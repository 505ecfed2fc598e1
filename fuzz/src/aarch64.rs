//! Machine code of AArch64: decoded, lifted, printed, parsed back, improved. The first byte chooses CPU model and key.

use tulk_arm::a64::{Aarch64, CpuModel, KEY_FP_SPECIAL, KEY_TAGGED};
use tulk_base::GuestVa;
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::passes::{PassConfig, optimize};
use tulk_ir::{Unit, parser, verifier};

const MODELS: [&str; 4] = ["max", "cortex-a53", "cortex-a72", "neoverse-n1"];
const PC: u64 = 0x40_0000;

struct Code<'a>(&'a [u8]);

impl CodeReader for Code<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let from = (va.0.wrapping_sub(PC) as usize).min(self.0.len());
        let n = (self.0.len() - from).min(out.len());
        out[..n].copy_from_slice(&self.0[from..from + n]);
        n
    }
}

/// The code of a program, in pieces; and words in order, which meet every encoding group.
pub fn seeds() -> Vec<Vec<u8>> {
    let program = include_bytes!("../../src/demo/aarch64.elf");
    let text = &program[0x1000.min(program.len() / 2)..];
    let mut seeds: Vec<Vec<u8>> = text.chunks(64).take(200).map(|c| [&[0], c].concat()).collect();
    for group in 0..64u32 {
        let words = (0..16u32).map(|n| (group << 26 | n << 21 | 0x0400).to_le_bytes());
        seeds.push([0].into_iter().chain(words.flatten()).collect());
    }
    seeds
}

pub fn run(data: &[u8]) {
    let Some((&choice, code)) = data.split_first() else { return };
    let model = CpuModel::by_name(MODELS[choice as usize % 4]).expect("a known model");
    let isa = Aarch64::new(model);
    let flags = [0, KEY_TAGGED, KEY_FP_SPECIAL, KEY_TAGGED | KEY_FP_SPECIAL];
    let key = TbKey { pc: GuestVa(PC), flags: flags[choice as usize / 4 % 4] };
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    isa.lift(key, &mut Code(code), limits, &mut unit);
    if unit.len == 0 {
        return;
    }
    let valid = |unit: &Unit, what: &str| {
        if let Err(errors) = verifier::verify(unit, isa.layout(), isa.helpers()) {
            panic!("{what}: {errors:?}\n{}", unit.display(isa.layout()));
        }
    };
    valid(&unit, "lifted");
    let text = unit.display(isa.layout()).to_string();
    let back = parser::parse(&text, isa.layout(), isa.helpers());
    let back = back.unwrap_or_else(|e| panic!("printed but not parsed: {e}\n{text}"));
    assert_eq!(back.display(isa.layout()).to_string(), text);
    optimize(&mut unit, isa.layout(), isa.helpers(), &PassConfig::hot());
    valid(&unit, "optimised");
}
