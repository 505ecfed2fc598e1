//! From a step's code to its template.

use super::Emitter;
use super::asm::W;
use tulk_ir::Op;
use tulk_ir::interp::code::{self, Step};

/// First codes of the families.
const SELECT_ICMP: u16 = code::select_icmp(0);
const BRANCH_ICMP: u16 = code::branch_icmp(0, 0, false);
pub(super) const PLAIN_LOAD: u16 = code::plain_load(0, 0);
pub(super) const PLAIN_STORE: u16 = code::plain_store(0, 0);
const ADDS_FIRST: u16 = code::ADDS_R32;
const SUBS_LAST: u16 = code::SUBS_K64;

impl Emitter<'_> {
    pub fn step(&mut self, step: &Step) {
        let n = step.code;
        match n {
            0..code::SPECIAL => self.operation(step),
            PLAIN_STORE.. => self.plain_store(n - PLAIN_STORE, step),
            PLAIN_LOAD.. => self.plain_load(n - PLAIN_LOAD, step),
            BRANCH_ICMP.. => self.branch_icmp(n - BRANCH_ICMP, step),
            SELECT_ICMP.. => {
                let variant = n - SELECT_ICMP;
                self.select_icmp(W::of_log2(variant), variant & 4 != 0, step);
            }
            _ => self.special(step),
        }
    }

    /// A step of an [`Op`] and a variant.
    fn operation(&mut self, step: &Step) {
        let (op, variant) = (Op::ALL[(step.code >> 4) as usize], step.code & 15);
        let (w, constant) = (W::of_log2(variant), variant & 4 != 0);
        let done = match op {
            Op::Add
            | Op::Sub
            | Op::Mul
            | Op::MulhU
            | Op::MulhS
            | Op::DivU
            | Op::DivS
            | Op::RemU
            | Op::RemS
            | Op::MinU
            | Op::MinS
            | Op::MaxU
            | Op::MaxS
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::AndNot
            | Op::OrNot
            | Op::XorNot
            | Op::Shl
            | Op::ShrU
            | Op::ShrS
            | Op::Rotl
            | Op::Rotr => {
                self.word(op, w, constant, step);
                true
            }
            Op::Neg
            | Op::Not
            | Op::Abs
            | Op::Clz
            | Op::Ctz
            | Op::Popcnt
            | Op::Bswap
            | Op::Bitrev => self.unary(op, w, step),
            Op::AddCarry | Op::CarryOut => {
                self.carry(op == Op::CarryOut, w, step);
                true
            }
            Op::Icmp => {
                self.icmp(w, constant, step);
                true
            }
            Op::AddNzcv | Op::SubNzcv => {
                self.add_sub_nzcv(op == Op::SubNzcv, w, constant, step);
                true
            }
            Op::AdcNzcv => {
                self.adc_nzcv(w, step);
                true
            }
            Op::LogicNzcv => {
                self.logic_nzcv(w, step);
                true
            }
            _ => self.float(op, variant, step),
        };
        if !done {
            self.in_interpreter(false, false);
        }
    }

    fn special(&mut self, step: &Step) {
        let done = match step.code {
            code::MOV => {
                self.mov(step);
                true
            }
            code::CONST => {
                self.constant(step.d, step.imm);
                true
            }
            code::SEXT => {
                self.sign_extend(step);
                true
            }
            code::BEXTRACT_U => {
                self.extract_unsigned(step);
                true
            }
            code::BEXTRACT_S => {
                self.extract_signed(step);
                true
            }
            code::BINSERT => {
                self.insert(step);
                true
            }
            code::PARITY_EVEN => {
                self.parity(step);
                true
            }
            code::NZCV_TEST => {
                self.nzcv_test(step);
                true
            }
            code::SELECT | code::SELECT_K | code::SELECT_KR => {
                self.select(step);
                true
            }
            code::SELECT_NZCV | code::SELECT_NZCV_K | code::SELECT_NZCV_KR => {
                self.select_nzcv(step);
                true
            }
            ADDS_FIRST..=SUBS_LAST => {
                self.adds_subs(step);
                true
            }
            code::LOAD | code::LOAD_A32 | code::STORE | code::STORE_A32 | code::RMW | code::CAS => {
                let done = match step.code {
                    code::LOAD => self.load(false, step),
                    code::LOAD_A32 => self.load(true, step),
                    code::STORE => self.store(false, step),
                    code::STORE_A32 => self.store(true, step),
                    code::RMW => self.rmw(step),
                    _ => self.cas(step),
                };
                if !done {
                    self.in_interpreter(true, false);
                }
                true
            }
            code::FENCE => {
                self.fence(step);
                true
            }
            code::CALL | code::CALL_WIDE => {
                self.in_interpreter(true, true);
                true
            }
            code::JUMP => {
                if !self.labels.is_single(step.imm as u32) {
                    self.spill();
                }
                self.jump(step.imm as u32);
                true
            }
            code::BRANCH | code::BRANCH_EXIT => {
                self.branch(step, step.code == code::BRANCH_EXIT);
                true
            }
            code::BRANCH_NZCV | code::BRANCH_NZCV_EXIT => {
                self.branch_nzcv(step, step.code == code::BRANCH_NZCV_EXIT);
                true
            }
            code::EXIT => {
                self.exit(step.imm as u32);
                true
            }
            code::INDIRECT | code::INDIRECT_RET | code::INDIRECT_FULL => {
                self.indirect(step);
                true
            }
            code::TRAP => {
                self.trap(step);
                true
            }
            _ => self.wide(step),
        };
        if !done {
            self.in_interpreter(false, false);
        }
    }
}
