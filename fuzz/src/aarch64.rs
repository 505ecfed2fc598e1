//! Machine code of AArch64: decoded, lifted, printed, parsed back, improved. The first byte chooses CPU model and key.

use crate::lifted::{PC, check};
use tulk_arm::a64::{Aarch64, CpuModel, KEY_FP_SPECIAL, KEY_TAGGED};
use tulk_base::GuestVa;
use tulk_frontend::TbKey;

const MODELS: [&str; 4] = ["max", "cortex-a53", "cortex-a72", "neoverse-n1"];

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
    check(&isa, key, code);
}
