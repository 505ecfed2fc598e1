//! Text of the intermediate representation: parsed, verified, printed, improved.

use crate::lifted::Code;
use tulk_arm::a64::{Aarch64, CpuModel};
use tulk_base::GuestVa;
use tulk_frontend::{GuestIsa, LiftLimits, TbKey};
use tulk_ir::passes::{PassConfig, optimize};
use tulk_ir::{Unit, parser, verifier};

fn isa() -> Aarch64 {
    Aarch64::new(CpuModel::by_name("max").expect("a known model"))
}

/// What the lifter prints for some instructions of each kind.
pub fn seeds() -> Vec<Vec<u8>> {
    let isa = isa();
    let blocks: [&[u32]; 6] = [
        &[0x8b02_0020, 0xf940_0420, 0xb900_0420, 0xd65f_03c0],
        &[0xeb01_001f, 0x5400_0061, 0x1e62_2820, 0x4ea2_8420],
        &[0x9ac2_0820, 0x9b02_7c20, 0x885f_fc20, 0x8803_fc22],
        &[0xd400_0001, 0xd503_3fbf, 0xb820_0041, 0x3400_0040],
        &[0x0e20_5820, 0x4e22_3c20, 0x1e60_4020, 0x9e78_0020],
        &[0x1e22_1820, 0xf820_6841, 0x9400_0010, 0xd61f_0020],
    ];
    let print = |words: &[u32]| {
        let mut unit = Unit::new(0, 0, isa.fp_rule());
        let limits = LiftLimits { max_insns: 8, end: GuestVa(u64::MAX) };
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        isa.lift(TbKey { pc: GuestVa(0), flags: 0 }, &mut Code(0, &bytes), limits, &mut unit);
        unit.display(isa.layout()).to_string().into_bytes()
    };
    blocks.iter().map(|words| print(words)).collect()
}

pub fn run(data: &[u8]) {
    let isa = isa();
    let text = String::from_utf8_lossy(data);
    let Ok(mut unit) = parser::parse(&text, isa.layout(), isa.helpers()) else { return };
    // What is parsed prints as something that parses to the same.
    let printed = unit.display(isa.layout()).to_string();
    let again = parser::parse(&printed, isa.layout(), isa.helpers());
    let again = again.unwrap_or_else(|e| panic!("printed but not parsed: {e}\n{printed}"));
    assert_eq!(again.display(isa.layout()).to_string(), printed);
    if verifier::verify(&unit, isa.layout(), isa.helpers()).is_err() {
        return;
    }
    optimize(&mut unit, isa.layout(), isa.helpers(), &PassConfig::hot());
    if let Err(errors) = verifier::verify(&unit, isa.layout(), isa.helpers()) {
        panic!("optimised: {errors:?}\nfrom\n{printed}to\n{}", unit.display(isa.layout()));
    }
}
