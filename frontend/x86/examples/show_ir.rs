//! Shows what a block lifts to, before and after the passes for hot code: `show_ir [16|32|64] hex-bytes...`.
//!
//! `objdump -d` output pasted as arguments will do: what is no pair of hexadecimal digits is skipped.

use tulk_base::{CpuState, GuestVa};
use tulk_frontend::{CodeReader, GuestIsa, LiftLimits};
use tulk_ir::Unit;
use tulk_ir::passes::{PassConfig, optimize};
use tulk_x86::{CpuModel, Mode, X86, regs, segment};

const CODE: u64 = 0x40_0000;

struct Bytes(Vec<u8>);

impl CodeReader for Bytes {
    fn fetch(&mut self, va: GuestVa, out: &mut [u8]) -> usize {
        let from = self.0.get((va.0 - CODE) as usize..).unwrap_or(&[]);
        let n = from.len().min(out.len());
        out[..n].copy_from_slice(&from[..n]);
        n
    }
}

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let bits = match words.first().map(String::as_str) {
        Some(first @ ("16" | "32" | "64")) => {
            let bits = first.to_owned();
            words.remove(0);
            bits
        }
        _ => "64".to_owned(),
    };
    let byte = |w: &String| (w.len() == 2).then(|| u8::from_str_radix(w, 16).ok()).flatten();
    let mut code = Bytes(words.iter().filter_map(byte).collect());
    let mode = if bits == "64" { Mode::X86_64 } else { Mode::I386 };
    let isa = X86::new(mode, CpuModel::by_name("max").expect("a model"));
    let mut state = CpuState::new();
    isa.reset(&mut state);
    if bits == "16" {
        segment::set_segment(&mut state, regs::CS, 7, 0x0000_fb00_0000_ffff);
    }
    state.set_pc(CODE);
    let mut unit = Unit::new(0, 0, isa.fp_rule());
    let limits = LiftLimits { max_insns: 64, end: GuestVa(u64::MAX) };
    isa.lift(isa.tb_key(&state), &mut code, limits, &mut unit);
    println!("{}", unit.display(isa.layout()));
    optimize(&mut unit, isa.layout(), isa.helpers(), &PassConfig::hot());
    println!("{}", unit.display(isa.layout()));
}
