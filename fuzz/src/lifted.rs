//! What must hold of any machine code, whichever guest's: it is lifted to a valid unit, which is printed and parsed back
//! the same, and is valid still when it is improved.

use tulk_base::GuestVa;
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::passes::{PassConfig, optimize};
use tulk_ir::{Unit, parser, verifier};

/// Where the code stands.
pub const PC: u64 = 0x40_0000;

/// Code and where it begins.
pub struct Code<'a>(pub u64, pub &'a [u8]);

impl CodeReader for Code<'_> {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let Code(start, bytes) = *self;
        let from = (va.0.wrapping_sub(start) as usize).min(bytes.len());
        let n = (bytes.len() - from).min(out.len());
        out[..n].copy_from_slice(&bytes[from..from + n]);
        n
    }
}

/// Lifts `code` at [`PC`]; panics where tulk is wrong.
pub fn check(isa: &dyn GuestIsa, key: TbKey, code: &[u8]) {
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    isa.lift(key, &mut Code(PC, code), limits, &mut unit);
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
