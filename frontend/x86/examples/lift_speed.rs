//! Lifts the executable segment of a 64-bit x86 program from front to back: nanoseconds for a guest instruction.
//! `lift_speed [program]`; budget: 300 ns (architecture, section 3).

use std::time::Instant;
use tulk_base::{CpuState, GuestVa};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits, TbKey};
use tulk_ir::Unit;
use tulk_ir::interp::Program;
use tulk_x86::{CpuModel, Mode, X86};

struct Text {
    start: u64,
    bytes: Vec<u8>,
}

impl CodeReader for Text {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let from = self.bytes.get((va.0 - self.start) as usize..).unwrap_or(&[]);
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        n
    }
}

/// The first executable segment of an ELF file.
fn text(file: &[u8]) -> Option<Text> {
    let word = |at: usize, n: usize| {
        let bytes = file.get(at..at + n)?;
        Some(bytes.iter().rev().fold(0u64, |v, &b| v << 8 | b as u64))
    };
    let (table, size, count) = (word(32, 8)?, word(54, 2)?, word(56, 2)?);
    for n in 0..count {
        let header = (table + n * size) as usize;
        if word(header, 4)? == 1 && word(header + 4, 4)? & 1 != 0 {
            let offset = word(header + 8, 8)? as usize;
            let bytes = file.get(offset..offset + word(header + 32, 8)? as usize)?.to_vec();
            return Some(Text { start: word(header + 16, 8)?, bytes });
        }
    }
    None
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "/bin/bash".to_owned());
    let file = std::fs::read(&path).expect("a readable program");
    let mut text = text(&file).expect("an ELF program with code");
    let isa = X86::new(Mode::X86_64, CpuModel::by_name("max").expect("a model"));
    let mut state = CpuState::new();
    isa.reset(&mut state);
    let flags = isa.tb_key(&state).flags;
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    for lower in [false, true, false, true] {
        let (mut pc, mut units, mut insns, mut ops) = (text.start, 0u64, 0u64, 0u64);
        let end = text.start + text.bytes.len() as u64;
        let start = Instant::now();
        while pc < end {
            let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
            isa.lift(TbKey { pc: GuestVa(pc), flags }, &mut text, limits, &mut unit);
            if lower {
                std::hint::black_box(Program::new(&unit, isa.layout(), isa.helpers()));
            }
            pc += unit.len.max(1) as u64;
            units += 1;
            insns += unit.guest_insns as u64;
            ops += unit.insts.len() as u64;
        }
        let each = start.elapsed().as_nanos() as f64 / insns as f64;
        let what = if lower { "lifted and translated for the interpreter" } else { "lifted" };
        println!("{units} units, {insns} instructions, {ops} operations, {each:.0} ns each {what}");
    }
}
