//! Random units are valid, and print as they parse.

use tulk_ir::filetest::env::{HELPERS, layout};
use tulk_ir::filetest::random::{Options, Rng, unit};
use tulk_ir::{Unit, parser, verifier};

const ALL: Options = Options { size: 40, floats: true, memory: true, calls: true };

#[test]
fn random_units_are_valid_and_read_back() {
    let (layout, mut rng) = (layout(), Rng(1));
    for _ in 0..3000 {
        let unit = unit(&mut rng, &ALL);
        verifier::assert_valid(&unit, &layout, HELPERS);
        let text = unit.display(&layout).helpers(HELPERS).to_string();
        let again = parser::parse(&text, &layout, HELPERS);
        assert!(again.as_ref() == Ok(&unit), "{again:?}\n{text}");
        // Without names.
        let text = unit.to_string();
        let again = parser::parse(&text, &layout, HELPERS);
        assert!(again.as_ref() == Ok(&unit), "{again:?}\n{text}");
    }
}

/// Any line of any file may be damaged: the parser answers, and never panics.
#[test]
fn damaged_text_is_refused_politely() {
    let (layout, mut rng) = (layout(), Rng(2));
    for _ in 0..300 {
        let text = unit(&mut rng, &ALL).display(&layout).helpers(HELPERS).to_string();
        let mut bytes = text.into_bytes();
        for _ in 0..3 {
            let at = rng.below(bytes.len());
            match rng.below(3) {
                0 => bytes[at] = b" v0x9,.-:[]+(;\n"[rng.below(15)],
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => bytes.truncate(at.max(1)),
            }
            let text = String::from_utf8_lossy(&bytes);
            if let Ok(unit) = parser::parse(&text, &layout, HELPERS) {
                let _ = verifier::verify(&unit, &layout, HELPERS);
            }
        }
    }
}

/// The verifier finds errors in units that no text can express, and never panics on a broken one.
#[test]
fn damaged_units_are_judged() {
    let (layout, mut rng) = (layout(), Rng(3));
    let mut refused = 0;
    for _ in 0..2000 {
        let mut unit: Unit = unit(&mut rng, &ALL);
        let i = rng.below(unit.insts.len());
        let other = unit.insts[rng.below(unit.insts.len())];
        let inst = &mut unit.insts[i];
        match rng.below(9) {
            0 => inst.op = other.op,
            1 => inst.ty = other.ty,
            2 => inst.aux = rng.word() as u8,
            3 => inst.dst.0 = rng.word() as u16,
            4 => inst.args[rng.below(3)].0 = rng.below(40) as u16,
            5 => inst.imm = rng.word() as i64,
            6 => inst.imm2 = rng.word() as u32,
            7 => drop(unit.insts.remove(i)),
            _ => unit.blocks[0] = rng.below(2) as u32 + 1,
        }
        refused += verifier::verify(&unit, &layout, HELPERS).is_err() as u32;
        let _ = unit.display(&layout).to_string();
    }
    assert!(refused > 1200, "only {refused} of 2000 damaged units were refused");
}
