//! Conditions: comparisons, packed NZCV words, selects and branches on them.
//!
//! Operands are brought into registers first: fetching them may change the host's flags, what comes between comparison
//! and use does not.

use super::Emitter;
use super::asm::*;
use super::regs::cell_mem;
use tulk_ir::interp::code::{self, Step};
use tulk_ir::{IntCc, NzcvCond};

/// Second operand of a comparison.
#[derive(Clone, Copy)]
pub enum Rhs {
    Cell(u16),
    Constant(u64),
}

/// The host's condition after a comparison of integers.
pub const fn host_cc(cc: IntCc) -> Cc {
    match cc {
        IntCc::Eq => Cc::E,
        IntCc::Ne => Cc::Ne,
        IntCc::LtS => Cc::L,
        IntCc::LeS => Cc::Le,
        IntCc::GtS => Cc::G,
        IntCc::GeS => Cc::Ge,
        IntCc::LtU => Cc::B,
        IntCc::LeU => Cc::Be,
        IntCc::GtU => Cc::A,
        IntCc::GeU => Cc::Ae,
    }
}

/// Of a truth table as `Icmp` steps have it.
fn table_cc(table: u8) -> Cc {
    host_cc(code::table_cc(table).expect("the translation makes tables of conditions"))
}

/// The relation of a compare-and-branch's condition number.
fn branch_cc(number: u16) -> Cc {
    [Cc::E, Cc::L, Cc::Le, Cc::B, Cc::Be][number as usize]
}

const N: u32 = 1 << 31;
const Z: u32 = 1 << 30;
const C: u32 = 1 << 29;
const V: u32 = 1 << 28;

impl Emitter<'_> {
    /// Host flags of `a - b`.
    pub fn compare(&mut self, w: W, a: u16, b: Rhs) {
        let ra = self.read(a);
        match b {
            Rhs::Cell(b) => {
                let rb = self.read(b);
                self.asm.alu_rr(Alu::Cmp, w, ra, rb);
            }
            Rhs::Constant(k) => self.compare_constant(w, ra, k),
        }
    }
    fn compare_constant(&mut self, w: W, ra: Gpr, k: u64) {
        // Sign-extended from the width.
        let k = ((k << (64 - w.bits())) as i64) >> (64 - w.bits());
        if k == 0 {
            self.asm.test_rr(w, ra, ra);
        } else if let Ok(short) = i32::try_from(k) {
            self.asm.alu_ri(Alu::Cmp, w, ra, short);
        } else {
            self.asm.mov_ri(RAX, k as u64);
            self.asm.alu_rr(Alu::Cmp, w, ra, RAX);
        }
    }

    /// `d` becomes 1 or 0 by a condition on the host's flags.
    pub fn set_cc(&mut self, d: u16, cc: Cc) {
        self.asm.setcc(cc, RAX);
        let r = self.alloc();
        self.asm.movzx(W::B8, r, RAX);
        self.def(d, r);
    }

    pub fn icmp(&mut self, w: W, constant: bool, step: &Step) {
        let (rhs, table) = if constant {
            (Rhs::Constant(step.imm), step.b as u8)
        } else {
            (Rhs::Cell(step.b), step.imm as u8)
        };
        self.compare(w, step.a, rhs);
        self.set_cc(step.d, table_cc(table));
    }

    // Selects.

    /// `d` becomes `then` if the condition holds, which `test` computes, else `otherwise`.
    fn choose(&mut self, d: u16, then: Rhs, otherwise: Rhs, test: impl FnOnce(&mut Self) -> Cc) {
        // What moves by condition is in a register; the other arm is there before.
        let (moved, base, negate) = match (then, otherwise) {
            (Rhs::Cell(then), otherwise) => (then, otherwise, false),
            (then, Rhs::Cell(otherwise)) => (otherwise, then, true),
            _ => unreachable!("no select has two constants"),
        };
        let rm = self.read(moved);
        let r = match base {
            Rhs::Cell(base) => {
                let rb = self.read(base);
                let r = self.alloc();
                self.asm.mov_rr(W::B64, r, rb);
                r
            }
            Rhs::Constant(k) => {
                let r = self.alloc();
                self.asm.mov_ri(r, k);
                r
            }
        };
        let cc = test(self);
        self.asm.cmov(if negate { cc.negated() } else { cc }, W::B64, r, rm);
        self.def(d, r);
    }

    pub fn select(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let (then, otherwise) = match step.code {
            code::SELECT => (Rhs::Cell(b), Rhs::Cell(imm as u16)),
            code::SELECT_K => (Rhs::Cell(b), Rhs::Constant(imm)),
            _ => (Rhs::Constant(imm), Rhs::Cell(b)),
        };
        self.choose(d, then, otherwise, |e| e.truth(a));
    }
    /// The condition that the I8 `a` is not zero.
    pub fn truth(&mut self, a: u16) -> Cc {
        let ra = self.read(a);
        self.asm.test_rr(W::B8, ra, ra);
        Cc::Ne
    }

    pub fn select_icmp(&mut self, w: W, constant: bool, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let (rhs, then, otherwise, table) = if constant {
            (Rhs::Constant((imm as i64 >> 32) as u64), b, imm as u16, imm >> 16)
        } else {
            (Rhs::Cell(b), imm as u16, (imm >> 16) as u16, imm >> 32)
        };
        self.choose(d, Rhs::Cell(then), Rhs::Cell(otherwise), |e| {
            e.compare(w, a, rhs);
            table_cc(table as u8)
        });
    }

    pub fn select_nzcv(&mut self, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let (k, table) = ((imm as i64 >> 32) as u64, (imm >> 16) as u16);
        let (then, otherwise) = match step.code {
            code::SELECT_NZCV => (Rhs::Cell(b), Rhs::Cell(imm as u16)),
            code::SELECT_NZCV_K => (Rhs::Cell(b), Rhs::Constant(k)),
            _ => (Rhs::Constant(k), Rhs::Cell(b)),
        };
        self.choose(d, then, otherwise, |e| e.nzcv(a, table));
    }

    // Packed words.

    /// Packs the host's flags of an addition, or of a subtraction, into cell `d`.
    pub fn pack(&mut self, d: u16, subtraction: bool) {
        if subtraction {
            self.asm.cmc();
        }
        // Bits 15, 14, 8 and 0 become 31, 30, 29 and 28: the products do not touch.
        self.asm.lahf();
        self.asm.setcc(Cc::O, RAX);
        self.asm.alu_ri(Alu::And, W::B32, RAX, 0xc101);
        self.asm.imul_rri(W::B32, RAX, RAX, 1 << 16 | 1 << 21 | 1 << 28);
        self.asm.alu_ri(Alu::And, W::B32, RAX, 0xf000_0000u32 as i32);
        self.def_scratch(d, RAX);
    }

    pub fn adds_subs(&mut self, step: &Step) {
        let Step { code: n, d, a, b, imm } = *step;
        let subtraction = n >= code::SUBS_R32;
        let form = n - if subtraction { code::SUBS_R32 } else { code::ADDS_R32 };
        let w = if form & 1 != 0 { W::B64 } else { W::B32 };
        let op = if subtraction { Alu::Sub } else { Alu::Add };
        let (rhs, flags) =
            if form >= 2 { (Rhs::Constant(imm), b) } else { (Rhs::Cell(b), imm as u16) };
        let r = self.sum(op, w, d, a, rhs);
        self.def(d, r);
        self.pack(flags, subtraction);
    }
    /// `a op b` in a register for cell `d`, with the host's flags.
    fn sum(&mut self, op: Alu, w: W, d: u16, a: u16, b: Rhs) -> Gpr {
        match b {
            Rhs::Cell(b) => {
                let rb = self.read(b);
                let r = if d == b && d != a {
                    let ra = self.read(a);
                    let r = self.alloc();
                    self.asm.mov_rr(w, r, ra);
                    r
                } else {
                    self.take(w, d, a)
                };
                self.asm.alu_rr(op, w, r, rb);
                r
            }
            Rhs::Constant(k) => {
                let r = self.take(w, d, a);
                let short = if w == W::B32 { Some(k as i32) } else { i32::try_from(k as i64).ok() };
                match short {
                    Some(short) => self.asm.alu_ri(op, w, r, short),
                    None => {
                        self.asm.mov_ri(RAX, k);
                        self.asm.alu_rr(op, w, r, RAX);
                    }
                }
                r
            }
        }
    }

    pub fn add_sub_nzcv(&mut self, subtraction: bool, w: W, constant: bool, step: &Step) {
        let Step { d, a, b, imm, .. } = *step;
        let rhs = if constant { Rhs::Constant(imm) } else { Rhs::Cell(b) };
        if subtraction {
            self.compare(w, a, rhs);
        } else {
            // The sum itself is not wanted.
            self.copy_to(w, RCX, a);
            match rhs {
                Rhs::Cell(b) => {
                    let rb = self.read(b);
                    self.asm.alu_rr(Alu::Add, w, RCX, rb);
                }
                Rhs::Constant(k) => {
                    self.asm.mov_ri(RAX, k);
                    self.asm.alu_rr(Alu::Add, w, RCX, RAX);
                }
            }
        }
        self.pack(d, subtraction);
    }

    pub fn adc_nzcv(&mut self, w: W, step: &Step) {
        let (ra, rb) = (self.read(step.a), self.read(step.b));
        let carry = self.read(step.imm as u16);
        self.asm.mov_rr(w, RCX, ra);
        self.asm.bt_ri(carry, 0);
        self.asm.alu_rr(Alu::Adc, w, RCX, rb);
        self.pack(step.d, false);
    }

    pub fn logic_nzcv(&mut self, w: W, step: &Step) {
        let ra = self.read(step.a);
        self.asm.test_rr(w, ra, ra);
        self.asm.lahf();
        self.asm.alu_ri(Alu::And, W::B32, RAX, 0xc000);
        self.asm.shift_ri(Shift::Shl, W::B32, RAX, 16);
        self.def_scratch(step.d, RAX);
    }

    /// The host's condition under which `table` holds for the packed word.
    pub fn nzcv(&mut self, word: u16, table: u16) -> Cc {
        let Some(cond) = code::table_nzcv(table) else { return self.nzcv_any(word, table) };
        let cc = match cond {
            NzcvCond::Eq | NzcvCond::Mi | NzcvCond::Cs | NzcvCond::Vs | NzcvCond::Ls => Cc::Ne,
            NzcvCond::Ne | NzcvCond::Pl | NzcvCond::Cc | NzcvCond::Vc | NzcvCond::Hi => Cc::E,
            NzcvCond::Ge => Cc::Ns,
            NzcvCond::Lt => Cc::S,
            NzcvCond::Gt | NzcvCond::Le => return self.nzcv_any(word, table),
        };
        match cond {
            NzcvCond::Eq | NzcvCond::Ne => self.test_word(word, Z),
            NzcvCond::Mi | NzcvCond::Pl => self.test_word(word, N),
            NzcvCond::Cs | NzcvCond::Cc => self.test_word(word, C),
            NzcvCond::Vs | NzcvCond::Vc => self.test_word(word, V),
            NzcvCond::Hi | NzcvCond::Ls => {
                self.load_word(RAX, word);
                self.asm.alu_ri(Alu::And, W::B32, RAX, (Z | C) as i32);
                self.asm.alu_ri(Alu::Cmp, W::B32, RAX, C as i32);
            }
            _ => {
                // Bit 31 of the word xor the word with V moved there.
                self.load_word(RAX, word);
                self.asm.mov_rr(W::B32, RCX, RAX);
                self.asm.shift_ri(Shift::Shl, W::B32, RCX, 3);
                self.asm.alu_rr(Alu::Xor, W::B32, RCX, RAX);
            }
        }
        cc
    }
    fn nzcv_any(&mut self, word: u16, table: u16) -> Cc {
        self.load_word(RAX, word);
        self.asm.shift_ri(Shift::Shr, W::B32, RAX, 28);
        self.asm.mov_ri(RCX, table as u64);
        self.asm.bt_rr(RCX, RAX);
        Cc::B
    }
    /// A register that has the cell; none when memory has it.
    fn word_register(&mut self, word: u16) -> Option<Gpr> {
        match self.cached(word) {
            None if self.cached_x(word).is_some() => Some(self.read(word)),
            r => r,
        }
    }
    fn load_word(&mut self, to: Gpr, word: u16) {
        match self.word_register(word) {
            Some(r) => self.asm.mov_rr(W::B32, to, r),
            None => self.asm.mov_rm(W::B32, to, cell_mem(word)),
        }
    }
    fn test_word(&mut self, word: u16, bits: u32) {
        match self.word_register(word) {
            Some(r) => self.asm.test_ri(W::B32, r, bits),
            None => self.asm.test_mi(W::B32, cell_mem(word), bits),
        }
    }

    pub fn nzcv_test(&mut self, step: &Step) {
        let cc = self.nzcv(step.a, step.imm as u16);
        self.set_cc(step.d, cc);
    }

    // Branches.

    pub fn branch(&mut self, step: &Step, exits: bool) {
        self.spill_before(exits, [step.d, step.b]);
        let cc = self.truth(step.a);
        self.part(cc, step.d as u32, step.b as u32, exits);
    }
    pub fn branch_nzcv(&mut self, step: &Step, exits: bool) {
        self.spill_before(exits, [step.d, step.b]);
        let cc = self.nzcv(step.a, step.imm as u16);
        self.part(cc, step.d as u32, step.b as u32, exits);
    }
    /// By the code of a fused compare-and-branch, counted from the first.
    pub fn branch_icmp(&mut self, number: u16, step: &Step) {
        let (constant, exits) = (number & 4 != 0, number & 8 != 0);
        let (rhs, other) = if constant {
            (Rhs::Constant(step.imm), step.b as u32)
        } else {
            (Rhs::Cell(step.b), step.imm as u32)
        };
        self.spill_before(exits, [step.d, other as u16]);
        self.compare(W::of_log2(number), step.a, rhs);
        self.part(branch_cc(number >> 4), step.d as u32, other, exits);
    }
    /// Behind an exit nobody looks at temporaries. Where more than one way meets all cells are in memory.
    fn spill_before(&mut self, exits: bool, to: [u16; 2]) {
        if exits {
            return self.spill_slots();
        }
        let next = self.now as u32 + 1;
        let keeps = |to: u16| to as u32 == next || self.labels.is_single(to as u32);
        if !to.into_iter().all(keeps) {
            self.spill();
        }
    }
    /// A jump that has been emitted leads to this step.
    fn jumps_to(&mut self, to: u32, patch: Patch) {
        self.targets.push((to, patch));
        if self.labels.is_single(to) {
            self.states.push((to, self.regs.clone()));
        }
    }

    fn part(&mut self, cc: Cc, yes: u32, no: u32, exits: bool) {
        if exits {
            return self.exit_either(cc, yes, no);
        }
        if yes == no {
            return self.jump(yes);
        }
        let next = self.now as u32 + 1;
        if yes == next {
            let patch = self.asm.jcc(cc.negated());
            return self.jumps_to(no, patch);
        }
        let patch = self.asm.jcc(cc);
        self.jumps_to(yes, patch);
        self.jump(no);
    }
    pub fn jump(&mut self, to: u32) {
        if to != self.now as u32 + 1 {
            let patch = self.asm.jmp();
            self.jumps_to(to, patch);
        }
    }
}
