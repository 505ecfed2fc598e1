//! Random sequences from the rows of the tables.
//!
//! Registers have roles, so that most sequences run to their end: x20 to x23, x26, x27 and SP point into the scratch
//! memory, x24 and x25 too but are never written back and stay aligned, x16 to x19 hold small offsets, x30 is
//! the harness's. The others take any value and are the only destinations.

use super::asm::CLREX;
use super::program::{Case, SCRATCH_SIZE, scratch_of};
use super::{Rng, asm};
use tulk_arm::a64::decode::{Decoder, Insn, Row};

const POINTERS: [u32; 7] = [20, 21, 22, 23, 26, 27, 31];
const ALIGNED_POINTERS: [u32; 2] = [24, 25];
const SMALL: [u32; 4] = [16, 17, 18, 19];
const DESTINATIONS: [u32; 19] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 28, 29, 31];

/// System registers that MRS and MSR are tried with: `op0:op1:crn:crm:op2` as in bits 19:5. NZCV, FPCR,
/// FPSR, TPIDR_EL0.
const SYSTEM_REGISTERS: [u32; 4] = [asm::NZCV, asm::FPCR, asm::FPSR, 0x5e82];

/// Hints that are no operation on every CPU: NOP, YIELD, SEV, the PAuth ones (with PAuth off), BTI, unallocated.
const HINTS: [u32; 9] = [0, 1, 4, 25, 29, 32, 34, 38, 127];

/// Rows that a sequence cannot contain: they leave it, write x30, or have results of their own.
fn excluded(row: &Row) -> bool {
    matches!(row.name, "svc" | "br" | "blr" | "ret" | "bl")
}

pub struct Generator<'a> {
    pub rng: Rng,
    rows: Vec<&'static Row>,
    decoder: &'a Decoder,
    /// FPCR bits that cases start with and that MSR FPCR tries.
    pub fpcr: u32,
}

impl<'a> Generator<'a> {
    /// Generates from the rows that `wanted` accepts.
    pub fn new(seed: u64, decoder: &'a Decoder, wanted: impl Fn(&Row) -> bool) -> Generator<'a> {
        let rows: Vec<_> =
            tulk_arm::a64::decode::rows().filter(|r| wanted(r) && !excluded(r)).collect();
        assert!(!rows.is_empty(), "no row is wanted");
        Generator { rng: Rng::new(seed), rows, decoder, fpcr: 0x07c8_0000 }
    }

    pub fn rows(&self) -> &[&'static Row] {
        &self.rows
    }

    /// A case of `length` instructions or a few more, of which the first is from `first` if given.
    pub fn case(&mut self, n: usize, length: usize, first: Option<&'static Row>) -> Case {
        let mut words = Vec::new();
        if let Some(row) = first {
            self.emit(row, &mut words);
        }
        while words.len() < length {
            let row = self.rows[self.rng.below(self.rows.len() as u32) as usize];
            self.emit(row, &mut words);
        }
        self.around(n, words)
    }

    /// Random registers and memory for a sequence.
    pub fn around(&mut self, n: usize, words: Vec<u32>) -> Case {
        let middle = scratch_of(n) + SCRATCH_SIZE as u64 / 2;
        let mut x = [0; 30];
        for (r, value) in x.iter_mut().enumerate() {
            let r = r as u32;
            *value = if ALIGNED_POINTERS.contains(&r) {
                middle + 16 * self.rng.below(16) as u64
            } else if POINTERS.contains(&r) {
                middle + self.rng.below(256) as u64
            } else if SMALL.contains(&r) {
                self.rng.below(64) as u64
            } else {
                self.rng.interesting()
            };
        }
        Case {
            x,
            sp: middle + 16 * self.rng.below(16) as u64,
            nzcv: self.rng.below(16) << 28,
            fpcr: if self.rng.one_in(4) { self.rng.u32() & self.fpcr } else { 0 },
            fpsr: 0,
            v: std::array::from_fn(|_| self.vector()),
            scratch: (0..SCRATCH_SIZE / 8)
                .flat_map(|_| self.rng.interesting().to_le_bytes())
                .collect(),
            words,
        }
    }

    /// Lanes of one width: corner cases of integers and floats, and noise.
    fn vector(&mut self) -> u128 {
        let width = 16 << self.rng.below(3);
        let mut v = 0u128;
        for lane in 0..128 / width {
            let bits = if self.rng.one_in(2) { self.rng.interesting() } else { self.float(width) };
            let bits = bits & (u64::MAX >> (64 - width));
            v |= (bits as u128) << (lane * width);
        }
        v
    }

    /// A float of 16, 32 or 64 bits: zeroes, denormals, infinities, NaNs and numbers near one.
    fn float(&mut self, width: u32) -> u64 {
        let fraction = match width {
            16 => 10,
            32 => 23,
            _ => 52,
        };
        let exponents = (1u64 << (width - 1 - fraction)) - 1;
        let noise = self.rng.u64() & ((1 << fraction) - 1);
        let exponent = match self.rng.below(6) {
            0 => 0,
            1 => exponents,
            2 => self.rng.u64() & exponents,
            _ => exponents / 2 - 4 + self.rng.below(9) as u64,
        };
        let fraction_bits = match self.rng.below(4) {
            0 => 0,
            1 => 1 << (fraction - 1),
            2 => noise & 0xf,
            _ => noise,
        };
        (self.rng.u64() & 1) << (width - 1) | exponent << fraction | fraction_bits
    }

    /// One instruction of this row, with what must precede it.
    fn emit(&mut self, row: &'static Row, words: &mut Vec<u32>) {
        let single = !matches!(row.name, "msr" | "stxr" | "stxp");
        if !single && words.iter().rev().take(2).any(|w| self.is_branch(*w)) {
            // No branch into the middle of what belongs together.
            words.extend([asm::NOP; 2]);
        }
        let word = match row.name {
            "mrs" => asm::mrs(*self.rng.pick(&DESTINATIONS), *self.rng.pick(&SYSTEM_REGISTERS)),
            "hint" => asm::NOP | self.rng.pick(&HINTS) << 5,
            "msr" => {
                let register = *self.rng.pick(&SYSTEM_REGISTERS);
                let rt = self.rng.below(16);
                if register == asm::FPCR {
                    // MOVZ of a value that has only the bits which every CPU model knows.
                    words.push(0xd2a0_0000 | (self.rng.u32() & self.fpcr >> 16 & 0xffff) << 5 | rt);
                }
                asm::msr(register, rt)
            }
            _ => self.word(row),
        };
        if matches!(row.name, "stxr" | "stxp") {
            // Other uses of a monitor of another size or address are CONSTRAINED UNPREDICTABLE.
            if self.rng.one_in(8) {
                words.push(CLREX);
            } else if row.name == "stxr" {
                words.push(word & 0xc020_83e0 | 0x085f_7c00 | self.rng.below(16));
            } else {
                words.push(word & 0xc020_83e0 | 0x085f_0000 | 2 << 10 | 1);
            }
        }
        words.push(word);
    }

    fn is_branch(&self, word: u32) -> bool {
        self.decoder.decode(word).is_some_and(|r| r.class.contains("branch"))
    }

    /// A word of this row that is neither undefined nor CONSTRAINED UNPREDICTABLE.
    pub fn word(&mut self, row: &'static Row) -> u32 {
        for _ in 0..10_000 {
            let p = row.pattern;
            let mut word = p.value | p.should_value;
            for (name, lsb, width) in row.fields() {
                let value = self.field(row, name) & ((1 << width) - 1);
                word |= value << lsb;
            }
            let decoded = self.decoder.decode(word).is_some_and(|r| std::ptr::eq(r, row));
            if decoded && !unpredictable(row, Insn(word)) && !misaligns_sp(row, Insn(word)) {
                return word;
            }
        }
        panic!("no valid word found for {} \"{}\"", row.name, row.picture);
    }

    fn field(&mut self, row: &Row, name: &str) -> u32 {
        let memory = is_memory(row);
        let rng = &mut self.rng;
        match name {
            "rn" if memory && demands_alignment(row) => *rng.pick(&ALIGNED_POINTERS),
            "rn" if memory => *rng.pick(&POINTERS),
            "rm" if memory && row.picture.contains("option:3") => *rng.pick(&SMALL),
            "rm" if memory => *rng.pick(&[16, 17, 18, 19, 31]),
            "rt" if row.class == "System instructions" => *rng.pick(&POINTERS[..6]),
            "rn" | "rm" | "ra" if !memory => loop {
                let r = rng.below(32);
                if r != 30 {
                    break r;
                }
            },
            // CASP and STXP take pairs of registers.
            "rs" | "rt" if row.name == "casp" => 2 * rng.below(8),
            "rd" | "rt" | "rt2" | "rs" | "ra" => *rng.pick(&DESTINATIONS),
            "imm12" if memory => {
                if rng.one_in(16) {
                    rng.u32()
                } else {
                    rng.below(24)
                }
            }
            "imm9" if demands_alignment(row) => rng.below(16) * 8,
            "imm9" if memory => {
                if rng.one_in(2) {
                    rng.u32()
                } else {
                    rng.below(8) * 8
                }
            }
            // Literals near the instruction; branches over the next one or two.
            "imm19" if memory => rng.below(17).wrapping_sub(8),
            "imm19" | "imm14" | "imm26" => 1 + rng.below(2),
            _ => {
                let value = rng.u32();
                match name {
                    // Shift amounts and masks: small ones are as likely as large ones.
                    "imm6" | "imms" | "immr" if rng.one_in(2) => value & 15,
                    _ => value,
                }
            }
        }
    }
}

/// Loads and stores, and whatever else has a base register.
fn is_memory(row: &Row) -> bool {
    row.pattern.value >> 27 & 1 == 1
        && row.pattern.value >> 25 & 1 == 0
        && row.pattern.mask >> 25 & 5 == 5
}

/// The access faults when misaligned.
fn demands_alignment(row: &Row) -> bool {
    ["exclusive", "ordered", "Compare and swap", "LDAPR", "Atomic"]
        .iter()
        .any(|c| row.class.contains(c))
}

/// May make SP anything but a multiple of 16: the oracle does not check that, `tests/guest/multiarch/alignment.c` of the
/// workspace does.
fn misaligns_sp(row: &Row, i: Insn) -> bool {
    let multiple = |n: u32| n.is_multiple_of(16);
    if is_memory(row) {
        let writes_back = row.name.ends_with("_post") || row.name.ends_with("_pre");
        let step = match row.fields().any(|(name, ..)| name == "imm7") {
            // Registers of 4 bytes at least.
            true => i.imm7() << 2,
            false => i.imm9(),
        };
        let structures = row.class.contains("structure") && i.0 >> 23 & 1 == 1;
        return i.rn() == 31 && (structures || writes_back && !multiple(step));
    }
    i.rd() == 31
        && match row.name {
            "add_imm" | "sub_imm" => !(i.rn() == 31 && i.sf() == 1 && multiple(i.imm12())),
            "add_extended" | "sub_extended" | "and_imm" | "orr_imm" | "eor_imm" => true,
            _ => false,
        }
}

fn unpredictable(row: &Row, i: Insn) -> bool {
    let pair_load =
        row.name.starts_with("ldp") || row.name.starts_with("ldnp") || row.name == "ldxp";
    let exclusive_store = matches!(row.name, "stxr" | "stxp");
    let overlap = i.rs() == i.rt() || i.rs() == i.rn() || (row.name == "stxp" && i.rs() == i.rt2());
    (pair_load && i.rt() == i.rt2()) || (exclusive_store && overlap && i.rs() != 31)
}
